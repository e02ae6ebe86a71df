//! What `--yaml` names: files, folders of them, the standard input.
//!
//! The language goes by the ending: `.json` is JSON, `.jsonl` and `.ndjson` are JSON Lines, everything else is YAML (of
//! which JSON is nearly a part, so that `-` takes both). A folder stands for the files in it that end in `.yaml`,
//! `.yml`, `.json`, `.jsonl` or `.ndjson`, in the order of their names; hidden files, backups and folders in it are not
//! read. There is no file with a meaning of its own: `defaults` hold for the file that they stand in.
//!
//! When full: more than [`MONITOR_FILES_MAX`] files are an error, and the rest is not read.

use std::fs::{File, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnostic::{Diagnostic, Severity};
use crate::units::limits::MONITOR_FILES_MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    Yaml,
    Json,
    JsonLines,
}

/// One text to read.
#[derive(Clone, Debug)]
pub(super) struct Input {
    /// As people named it.
    pub(super) name: Arc<str>,
    /// `None` for the standard input.
    pub(super) path: Option<PathBuf>,
    pub(super) language: Language,
}

/// The inputs in their order, and what is wrong with those that cannot be one.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    pub(super) found: Vec<Input>,
    pub(super) faults: Vec<Diagnostic>,
    /// Nothing else was named, and it is not there.
    pub(super) missing: bool,
}

/// The ones that the standard input is known by.
const STANDARD_INPUT: &str = "-";

impl Inputs {
    pub(super) fn of(given: &[PathBuf]) -> Self {
        let mut inputs = Self::default();
        // A file that is read twice doubles every name in it; one error says so better than a thousand.
        let mut seen: Vec<(u64, u64)> = Vec::new();
        let mut stdin_seen = false;
        for path in given {
            if path.as_os_str() == STANDARD_INPUT {
                if std::mem::replace(&mut stdin_seen, true) {
                    inputs.fault("-", Severity::Error, "the standard input is named twice: it can be read once");
                } else {
                    let (name, language) = (Arc::from("standard input"), Language::Yaml);
                    inputs.found.push(Input { name, path: None, language });
                }
                continue;
            }
            match std::fs::metadata(path) {
                Ok(metadata) if metadata.is_dir() => inputs.folder(path, &mut seen),
                Ok(metadata) => inputs.file(path, &metadata, &mut seen),
                Err(error) => {
                    inputs.missing = error.kind() == ErrorKind::NotFound && given.len() == 1 && !is_link(path);
                    inputs.unreadable(path, &error);
                }
            }
        }
        inputs
    }

    fn fault(&mut self, file: &str, severity: Severity, message: impl Into<Box<str>>) {
        let message = message.into();
        self.faults.push(Diagnostic {
            severity,
            file: file.into(),
            position: None,
            subject: None,
            message,
            excerpt: None,
        });
    }

    fn unreadable(&mut self, path: &Path, error: &std::io::Error) {
        let message = match error.kind() {
            ErrorKind::NotFound if is_link(path) => {
                let target = std::fs::read_link(path).unwrap_or_default();
                let target = super::diagnostic::quoted(&target.to_string_lossy());
                format!("this is a link to {target}, which is not there: point it at a file, or remove it")
            }
            ErrorKind::NotFound => "there is no such file: check the path given with --yaml".to_owned(),
            ErrorKind::PermissionDenied => "permission denied: let the user that runs cpra read it".to_owned(),
            _ => format!("cannot be opened: {error}"),
        };
        self.fault(&path.to_string_lossy(), Severity::Error, message);
    }

    fn file(&mut self, path: &Path, metadata: &Metadata, seen: &mut Vec<(u64, u64)>) {
        let name = path.to_string_lossy();
        if self.found.len() == MONITOR_FILES_MAX {
            if !self.faults.iter().any(|fault| fault.message.starts_with("more than")) {
                let message =
                    format!("more than {MONITOR_FILES_MAX} files: join some of them; from here on they are not read");
                self.fault(&name, Severity::Error, message);
            }
            return;
        }
        let kind = metadata.file_type();
        // Opening it would wait for a writer, for ever if there is none; a pipe without a name (`<(...)`) has one.
        if kind.is_fifo() && !is_descriptor(path) {
            let message = "this is a named pipe: cpra does not wait for a writer, send the text to --yaml -";
            return self.fault(&name, Severity::Error, message);
        }
        if kind.is_socket() || kind.is_block_device() {
            return self.fault(&name, Severity::Error, "this is no file with text: name the monitors file");
        }
        if kind.is_file() {
            let identity = (metadata.dev(), metadata.ino());
            if seen.contains(&identity) {
                return self.fault(&name, Severity::Error, "the file is named twice: remove one of them");
            }
            seen.push(identity);
        }
        let language = language(path);
        self.found.push(Input { name: name.into(), path: Some(path.to_owned()), language });
    }

    fn folder(&mut self, folder: &Path, seen: &mut Vec<(u64, u64)>) {
        let listed: std::io::Result<Vec<PathBuf>> = std::fs::read_dir(folder)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect());
        let mut listed = match listed {
            Ok(listed) => listed,
            Err(error) => return self.unreadable(folder, &error),
        };
        listed.sort();
        let before = (self.found.len(), self.faults.len());
        for path in listed {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if let Some(reason) = passed_over(&name) {
                tracing::debug!(file = %path.display(), reason, "not read");
                continue;
            }
            match std::fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => {
                    tracing::debug!(file = %path.display(), reason = "a folder within the folder", "not read");
                }
                Ok(metadata) => self.file(&path, &metadata, seen),
                Err(error) => self.unreadable(&path, &error),
            }
        }
        if (self.found.len(), self.faults.len()) == before {
            let message = "the folder holds no *.yaml, *.yml, *.json or *.jsonl: nothing of it will be checked";
            self.fault(&folder.to_string_lossy(), Severity::Warning, message);
        }
    }
}

impl Input {
    /// The file, opened: what it is then is looked at, not what it was when it was listed.
    pub(super) fn open(&self) -> Result<Option<File>, String> {
        let Some(path) = &self.path else { return Ok(None) };
        File::open(path).map(Some).map_err(|error| match error.kind() {
            ErrorKind::NotFound => "the file went away while the files were read".to_owned(),
            ErrorKind::PermissionDenied => "permission denied: let the user that runs cpra read it".to_owned(),
            _ => format!("cannot be opened: {error}"),
        })
    }
}

fn is_link(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink())
}

/// `/dev/fd/63`, `/dev/stdin`: a descriptor of this process.
fn is_descriptor(path: &Path) -> bool {
    path.starts_with("/dev/fd") || path.starts_with("/proc") || path == Path::new("/dev/stdin")
}

fn ending(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(_, ending)| ending)
}

pub(super) fn language(path: &Path) -> Language {
    match &*ending(&path.to_string_lossy()).to_ascii_lowercase() {
        "json" => Language::Json,
        "jsonl" | "ndjson" => Language::JsonLines,
        _ => Language::Yaml,
    }
}

/// Why a file of a folder is not read.
fn passed_over(name: &str) -> Option<&'static str> {
    if name.starts_with('.') {
        Some("hidden")
    } else if name.ends_with('~') || name.starts_with('#') {
        Some("a backup")
    } else if !matches!(ending(name), "yaml" | "yml" | "json" | "jsonl" | "ndjson") {
        Some("another ending")
    } else {
        None
    }
}
