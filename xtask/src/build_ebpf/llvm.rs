//! The second half of the build: bitcode in, an object for the kernel out, by rustc's own LLVM (its C API, the parts
//! that have not changed since LLVM 14).

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr;

use anyhow::{Context, bail, ensure};
use libloading::{Library, Symbol};

/// What belongs to LLVM, and is only passed on.
type Opaque = *mut c_void;

/// Makes an object of the bitcode; only what is named stays visible in it, and what that needs.
pub(super) fn object(bitcode: &Path, exports: &[String]) -> anyhow::Result<Vec<u8>> {
    let library = library()?;
    // SAFETY: LLVM's initialisers have no preconditions; this is the only LLVM that this process loads itself.
    let llvm = Llvm(unsafe { Library::new(&library) }.with_context(|| library.display().to_string())?);
    let code = std::fs::read(bitcode).with_context(|| bitcode.display().to_string())?;
    // SAFETY: every call below is one of LLVM's C API with the types of its headers; objects are passed on only to the
    // functions that they are made for, and live until the end of the process, which is near.
    unsafe { llvm.object(&code, exports) }
}

/// rustc links to it, so it lies beside the compiler's own libraries.
fn library() -> anyhow::Result<PathBuf> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().context("no rustc")?;
    let folder = PathBuf::from(String::from_utf8(output.stdout)?.trim()).join("lib");
    let entries = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut found: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    found.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // A file of the same kind of name is a linker's script.
        name.starts_with("libLLVM") && name.contains(".so") && is_elf(path)
    });
    found.sort();
    let none = || format!("no libLLVM in {}: this rustc carries its LLVM inside; use one of rustup", folder.display());
    found.into_iter().next().with_context(none)
}

fn is_elf(path: &Path) -> bool {
    let mut magic = [0; 4];
    std::fs::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut magic)).is_ok()
        && magic == *b"\x7FELF"
}

struct Llvm(Library);

impl Llvm {
    /// # Safety
    /// `T` is the type of that function in LLVM's headers.
    unsafe fn function<T>(&self, name: &'static str) -> anyhow::Result<Symbol<'_, T>> {
        // SAFETY: the caller's.
        unsafe { self.0.get(name.as_bytes()) }.with_context(|| format!("this LLVM has no {name}"))
    }

    unsafe fn object(&self, code: &[u8], exports: &[String]) -> anyhow::Result<Vec<u8>> {
        // SAFETY: see `object` above.
        unsafe {
            for part in ["TargetInfo", "Target", "TargetMC", "AsmPrinter"] {
                let name: &'static str = match part {
                    "TargetInfo" => "LLVMInitializeBPFTargetInfo",
                    "Target" => "LLVMInitializeBPFTarget",
                    "TargetMC" => "LLVMInitializeBPFTargetMC",
                    _ => "LLVMInitializeBPFAsmPrinter",
                };
                self.function::<unsafe extern "C" fn()>(name)?();
            }
            let keep = CString::new(format!("-internalize-public-api-list={}", exports.join(",")))?;
            let options = [c"build-ebpf".as_ptr(), keep.as_ptr()];
            self.function::<unsafe extern "C" fn(c_int, *const *const c_char, *const c_char)>(
                "LLVMParseCommandLineOptions",
            )?(options.len() as c_int, options.as_ptr(), c"".as_ptr());

            let context = self.function::<unsafe extern "C" fn() -> Opaque>("LLVMContextCreate")?();
            let buffer = self.function::<unsafe extern "C" fn(*const c_char, usize, *const c_char) -> Opaque>(
                "LLVMCreateMemoryBufferWithMemoryRangeCopy",
            )?(code.as_ptr().cast(), code.len(), c"cpra-ebpf".as_ptr());
            let mut module = ptr::null_mut();
            let failed =
                self.function::<unsafe extern "C" fn(Opaque, Opaque, *mut Opaque) -> c_int>(
                    "LLVMParseBitcodeInContext2",
                )?(context, buffer, &raw mut module);
            ensure!(failed == 0, "LLVM does not read the bitcode");

            let triple = c"bpfel";
            let (mut target, mut message) = (ptr::null_mut(), ptr::null_mut());
            let failed = self.function::<unsafe extern "C" fn(*const c_char, *mut Opaque, *mut *mut c_char) -> c_int>(
                "LLVMGetTargetFromTriple",
            )?(triple.as_ptr(), &raw mut target, &raw mut message);
            if failed != 0 {
                bail!("rustc's LLVM does not know BPF: {}", words(message));
            }
            const DEFAULT: c_uint = 0;
            // v3: 32-bit registers and atomic operations with results; Linux 5.12.
            let machine = self.function::<unsafe extern "C" fn(
                Opaque,
                *const c_char,
                *const c_char,
                *const c_char,
                c_uint,
                c_uint,
                c_uint,
            ) -> Opaque>("LLVMCreateTargetMachine")?(
                target,
                triple.as_ptr(),
                c"v3".as_ptr(),
                c"".as_ptr(),
                2,
                DEFAULT,
                DEFAULT,
            );
            let layout =
                self.function::<unsafe extern "C" fn(Opaque) -> Opaque>("LLVMCreateTargetDataLayout")?(machine);
            self.function::<unsafe extern "C" fn(Opaque, *const c_char)>("LLVMSetTarget")?(module, triple.as_ptr());
            self.function::<unsafe extern "C" fn(Opaque, Opaque)>("LLVMSetModuleDataLayout")?(module, layout);
            self.function::<unsafe extern "C" fn(Opaque) -> c_int>("LLVMStripModuleDebugInfo")?(module);

            let builder = self.function::<unsafe extern "C" fn() -> Opaque>("LLVMCreatePassBuilderOptions")?();
            let error =
                self.function::<unsafe extern "C" fn(Opaque, *const c_char, Opaque, Opaque) -> Opaque>(
                    "LLVMRunPasses",
                )?(module, c"internalize,globaldce,default<O2>".as_ptr(), machine, builder);
            if !error.is_null() {
                let said = self.function::<unsafe extern "C" fn(Opaque) -> *mut c_char>("LLVMGetErrorMessage")?(error);
                bail!("LLVM: {}", words(said));
            }
            self.name_alike(module, exports)?;
            const OBJECT_FILE: c_uint = 1;
            let mut out = ptr::null_mut();
            let failed = self
                .function::<unsafe extern "C" fn(Opaque, Opaque, c_uint, *mut *mut c_char, *mut Opaque) -> c_int>(
                    "LLVMTargetMachineEmitToMemoryBuffer",
                )?(machine, module, OBJECT_FILE, &raw mut message, &raw mut out);
            if failed != 0 {
                bail!("LLVM makes no object: {}", words(message));
            }
            let start = self.function::<unsafe extern "C" fn(Opaque) -> *const u8>("LLVMGetBufferStart")?(out);
            let size = self.function::<unsafe extern "C" fn(Opaque) -> usize>("LLVMGetBufferSize")?(out);
            Ok(std::slice::from_raw_parts(start, size).to_vec())
        }
    }
}

impl Llvm {
    /// Names of what is not exported hold a hash of where the sources lie. The object is to be the same everywhere.
    ///
    /// # Safety
    /// `module` is a module.
    unsafe fn name_alike(&self, module: Opaque, exports: &[String]) -> anyhow::Result<()> {
        // SAFETY: see `object` above. Values are of this module, and a name is copied.
        unsafe {
            let source = "cpra-ebpf";
            self.function::<unsafe extern "C" fn(Opaque, *const u8, usize)>("LLVMSetSourceFileName")?(
                module,
                source.as_ptr(),
                source.len(),
            );
            let name_of =
                self.function::<unsafe extern "C" fn(Opaque, *mut usize) -> *const u8>("LLVMGetValueName2")?;
            let rename = self.function::<unsafe extern "C" fn(Opaque, *const u8, usize)>("LLVMSetValueName2")?;
            let is_declared = self.function::<unsafe extern "C" fn(Opaque) -> c_int>("LLVMIsDeclaration")?;
            for (first, next) in
                [("LLVMGetFirstFunction", "LLVMGetNextFunction"), ("LLVMGetFirstGlobal", "LLVMGetNextGlobal")]
            {
                let next = self.function::<unsafe extern "C" fn(Opaque) -> Opaque>(next)?;
                let mut value = self.function::<unsafe extern "C" fn(Opaque) -> Opaque>(first)?(module);
                let mut number = 0;
                while !value.is_null() {
                    let mut length = 0;
                    let start = name_of(value, &raw mut length);
                    let name = String::from_utf8_lossy(std::slice::from_raw_parts(start, length)).into_owned();
                    if is_declared(value) == 0 && !exports.contains(&name) && !name.starts_with("llvm.") {
                        number += 1;
                        let plain = format!("internal.{number}");
                        rename(value, plain.as_ptr(), plain.len());
                    }
                    value = next(value);
                }
            }
        }
        Ok(())
    }
}

unsafe fn words(message: *const c_char) -> String {
    if message.is_null() {
        return "it does not say why".into();
    }
    // SAFETY: LLVM's messages end with a zero.
    unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned()
}
