//! `cargo xtask build-ebpf`: the object that the daemon carries for the kernel, from `cpra-ebpf`.
//!
//! Stable Rust is enough: rustc makes bitcode of the crate and all it uses, and the LLVM that rustc brings, which knows
//! the BPF machine, makes an object of it ([`llvm`]). Where `bpf-linker` is installed, `--bpf-linker` lets that do the
//! second half.
//!
//! The object is committed, so that nobody needs any of this to build the daemon. Beside it stands by what it was made
//! ([`Record`]): `--check` makes it anew, compares bytes where compiler and sources are those of the record, and has the
//! kernel's verifier look at the new one in any case.

mod llvm;

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use aya::programs::Program;
use aya::{Btf, EbpfLoader};

use crate::steps::{cargo, execute, is_installed};
use crate::target_folder;

const CRATE: &str = "cpra-ebpf";
const OBJECT: &str = "cpra-ebpf/object/cpra.bpf.o";
const RECORD: &str = "cpra-ebpf/object/cpra.bpf.txt";
/// The host's: rustc has a core library for it. LLVM makes BPF of what comes out.
const TARGET: &str = "x86_64-unknown-linux-gnu";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Change nothing; fail if the committed object is not what comes out, or if the kernel refuses what does
    #[arg(long)]
    check: bool,
    /// Let bpf-linker make the object, and nothing be recorded: to compare
    #[arg(long)]
    bpf_linker: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    if options.check {
        println!("{}", check()?);
        return Ok(());
    }
    let bitcode = bitcode()?;
    if options.bpf_linker {
        ensure!(is_installed("bpf-linker"), "bpf-linker is not installed: cargo install bpf-linker --locked");
        let object = folder()?.join("bpf-linker.o");
        let mut linker = Command::new("bpf-linker");
        linker
            .args(["--target", "bpfel", "--cpu", "v3", "-O", "2"])
            .args(exports()?.iter().flat_map(|name| ["--export", name]));
        execute(linker.arg("--output").arg(&object).arg(&bitcode))?;
        println!("{}: {}", object.display(), load(&fs::read(&object)?)?);
        return Ok(());
    }
    let object = llvm::object(&bitcode, &exports()?)?;
    let loaded = load(&object)?;
    fs::create_dir_all(Path::new(OBJECT).parent().context("a folder")?)?;
    fs::write(OBJECT, &object)?;
    fs::write(RECORD, Record::now()?.to_string())?;
    println!("{OBJECT}: {} bytes; {loaded}", object.len());
    Ok(())
}

/// Answers what was found good.
pub(crate) fn check() -> anyhow::Result<String> {
    let recorded = fs::read_to_string(RECORD).with_context(|| format!("no {RECORD}: run `cargo xtask build-ebpf`"))?;
    let now = Record::now()?;
    ensure!(
        recorded.lines().any(|line| line == now.sources()),
        "the sources have changed since {OBJECT} was made: run `cargo xtask build-ebpf` and commit what it writes"
    );
    let object = llvm::object(&bitcode()?, &exports()?)?;
    let compared = if recorded == now.to_string() {
        ensure!(
            fs::read(OBJECT)? == object,
            "{OBJECT} is not what these sources give: run `cargo xtask build-ebpf` and commit what it writes"
        );
        "the committed object is what comes out"
    } else {
        "another compiler than the recorded one: not compared"
    };
    Ok(format!("{compared}; {}", load(&object)?))
}

/// By what an object was made.
struct Record {
    rustc: String,
    sources: u64,
}

impl Record {
    fn now() -> anyhow::Result<Self> {
        let output = Command::new("rustc").arg("--version").arg("--verbose").output().context("no rustc")?;
        let said = String::from_utf8(output.stdout)?;
        let line = |key: &str| said.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned();
        Ok(Self { rustc: format!("{}, {}", line("rustc "), line("LLVM version")), sources: sources()? })
    }

    fn sources(&self) -> String {
        format!("sources: {:016x}", self.sources)
    }
}

impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "Made by `cargo xtask build-ebpf`; do not edit.")?;
        writeln!(f, "compiler: {}", self.rustc)?;
        writeln!(f, "{}", self.sources())
    }
}

/// Of everything that the object is made from. A checksum against forgetting, not against malice.
fn sources() -> anyhow::Result<u64> {
    let mut files = vec![PathBuf::from(CRATE).join("Cargo.toml"), PathBuf::from(CRATE).join("Cargo.lock")];
    for folder in ["cpra-ebpf/src", "cpra-common/src"] {
        for entry in fs::read_dir(folder)? {
            files.push(entry?.path());
        }
    }
    files.sort();
    // Its keys are fixed, so that it gives the same everywhere.
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.to_string_lossy().hash(&mut hasher);
        fs::read(&file).with_context(|| file.display().to_string())?.hash(&mut hasher);
    }
    Ok(hasher.finish())
}

/// Names that the object must keep: programs, maps and what the loader sets. They are what has a name of its own.
fn exports() -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir("cpra-ebpf/src")? {
        let text = fs::read_to_string(entry?.path())?;
        let mut marked = false;
        for line in text.lines().map(str::trim) {
            let line = line.trim_start_matches("pub ");
            let name = line.strip_prefix("fn ").or_else(|| line.strip_prefix("static "));
            if let (true, Some(name)) = (marked, name) {
                let end = name.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(name.len());
                names.push(name[..end].to_owned());
            }
            let attribute = line.starts_with("#[");
            marked = attribute
                && (marked
                    || ["#[classifier", "#[xdp", "#[map", "#[btf_tracepoint", "#[sock_ops", "#[unsafe(no_mangle"]
                        .iter()
                        .any(|mark| line.starts_with(mark)));
        }
    }
    // One macro makes the rings, from a list of numbers and names.
    names.retain(|name| !name.is_empty());
    names.extend((0..cpra_common::SHARDS_MAX).map(|shard| format!("RETURNS_{shard}")));
    names.sort();
    names.dedup();
    Ok(names)
}

/// Where cargo builds what is for the kernel.
fn folder() -> anyhow::Result<PathBuf> {
    Ok(std::path::absolute(target_folder()?)?.join("ebpf"))
}

/// One file of LLVM bitcode: the crate and everything it uses.
fn bitcode() -> anyhow::Result<PathBuf> {
    let bitcode = folder()?.join("cpra.bc");
    let release = folder()?.join(TARGET).join("release");
    // What cargo takes for fresh may have been made from another checkout, and would not be written again.
    for entry in fs::read_dir(release.join(".fingerprint")).into_iter().flatten() {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(CRATE) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    let mut rustc = cargo();
    rustc.current_dir(CRATE).args(["rustc", "--lib", "--release", "--locked", "--target", TARGET, "--quiet", "--"]);
    rustc.arg(format!("--emit=llvm-bc={}", bitcode.display()));
    rustc.args(["-Clto=fat", "-Cembed-bitcode=yes", "-Copt-level=2", "-Cpanic=abort", "-Cdebuginfo=0"]);
    rustc.args(["-Cno-vectorize-loops", "-Cno-vectorize-slp", "-Crelocation-model=static"]);
    rustc.args(["-Cforce-unwind-tables=no", "-Coverflow-checks=off"]);
    // Flags of the host's builds are not for this machine.
    rustc.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS").env("CARGO_TARGET_DIR", folder()?);
    execute(&mut rustc)?;
    Ok(bitcode)
}

/// Has the kernel look at an object, as the daemon does when it starts, and answers what it said.
fn load(object: &[u8]) -> anyhow::Result<String> {
    if !nix::unistd::geteuid().is_root() {
        return Ok("not shown to the kernel: that needs root".into());
    }
    let mut loaded = EbpfLoader::new().load(object).context("the object cannot be loaded")?;
    let kernel = Btf::from_sys_fs();
    let mut names = Vec::new();
    for (name, program) in loaded.programs_mut() {
        match program {
            Program::SchedClassifier(program) => program.load(),
            Program::Xdp(program) => program.load(),
            Program::BtfTracePoint(program) => match &kernel {
                Ok(kernel) => program.load("inet_sock_set_state", kernel),
                Err(_) => continue,
            },
            _ => bail!("program {name} is of a kind that nobody loads"),
        }
        .with_context(|| format!("the kernel refuses program {name}"))?;
        names.push(name.to_owned());
    }
    ensure!(!names.is_empty(), "there is no program in it");
    names.sort();
    Ok(format!("the kernel takes {}", names.join(", ")))
}
