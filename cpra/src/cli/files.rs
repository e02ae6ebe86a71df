//! The files of the start, read again while the daemon runs.
//!
//! What is read again: the monitors files, the files that they name (secrets, certificates), and of the daemon file the
//! providers, since monitors refer to them by name. Every path is opened anew, so that a file that was replaced, and a link
//! that points elsewhere by now, are seen. What else has changed in the daemon file counts from the next start on, and is
//! named. The folders are those of the start, whoever the daemon has become since.
//!
//! A file that changes while it is read is read again, a few times at most; one that was cut in half is an error of its
//! text, or takes so many monitors with it that the reload is refused.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, thread};

use super::{Args, plural, run};
use crate::config::{self, Diagnostic, Diagnostics, Folders, Report, Settings, Severity};
use crate::daemon::reload::{Files, Fresh, Refused};
use crate::os::limits::NofileLimit;
use crate::os::tls;
use crate::units::limits::{MONITOR_FILES_MAX, RELOAD_ERRORS_MAX, RELOAD_READ_AGAIN, RELOAD_READS_MAX};
use crate::wire::tls::Trust;
use crate::world::Catalog;
use crate::world::catalog::{CatalogBuilder, CatalogError};

/// What the daemon was started with.
pub(super) struct Again {
    pub(super) args: Args,
    pub(super) settings: Settings,
    pub(super) folders: Folders,
    pub(super) open_files: NofileLimit,
    /// Checks that run scripts can be had, also where there were none at the start.
    pub(super) scripts: bool,
}

impl Files for Again {
    fn read(&mut self, running: &Catalog) -> Result<Fresh, Refused> {
        if self.args.yaml.iter().any(|path| path.as_os_str() == "-") {
            return refuse(
                "the standard input can be read once only",
                "name files with --yaml, and restart the daemon",
            );
        }
        let (settings, diagnostics) = self.args.settings();
        if diagnostics.errors() > 0 {
            return Err(of_diagnostics(&diagnostics, "mend the daemon file"));
        }
        let (report, catalog) = self.read_still(&settings, running)?;
        if report.diagnostics.errors() > 0 {
            return Err(of_diagnostics(
                &report.diagnostics,
                "mend the file; cpra --check-config shows all that is wrong",
            ));
        }
        let catalog = catalog.map_err(|error| refused(&error.to_string(), "mend the file"))?;
        if !self.scripts && run::runs_scripts(&catalog) {
            let error = "checks that run scripts need powers that the daemon has given up at its start";
            return refuse(error, "restart the daemon");
        }
        let contexts = secured(&catalog)?;
        let findings = run::host_findings(&catalog, &self.settings, self.open_files);
        let (providers, fallback) = (report.receivers.named, report.receivers.fallback);
        let mut notes = Vec::new();
        let changed = settings.changed_since(&self.settings);
        if !changed.is_empty() {
            let (keys, count) = (changed.join(", "), if changed.len() == 1 { "counts" } else { "count" });
            notes.push(format!("{keys} of the daemon file {count} from the next start on: restart to apply"));
        }
        if report.diagnostics.warnings() > 0 {
            let warnings = plural(report.diagnostics.warnings(), "warning");
            notes.push(format!("{warnings} in the files: cpra --check-config shows them"));
        }
        Ok(Fresh { catalog, contexts, providers, fallback, findings, notes })
    }
}

impl Again {
    /// All files, none of which changed meanwhile.
    fn read_still(
        &self,
        settings: &Settings,
        running: &Catalog,
    ) -> Result<(Report, Result<Catalog, CatalogError>), Refused> {
        let Folders { working, state, socket, log_dirs, secret_dirs, is_root, .. } = self.folders.clone();
        let folders = Folders { working, state, socket, log_dirs, secret_dirs, is_root, ..self.args.folders(settings) };
        for _ in 0..RELOAD_READS_MAX {
            let before = stamps(&self.args.yaml);
            let mut builder = CatalogBuilder::new(running.shards());
            let mut fault = None;
            let report = config::read_all(&self.args.yaml, &folders, &mut |monitor| {
                if fault.is_none() {
                    fault = builder.add(monitor).err();
                }
            });
            if stamps(&self.args.yaml) == before {
                let catalog = fault.map_or_else(|| builder.finish_after(running), Err);
                return Ok((report, catalog));
            }
            thread::sleep(RELOAD_READ_AGAIN.into());
        }
        refuse("the files changed each time while they were read", "reload again when they are written")
    }
}

/// What tells one state of a file from another: who it is, how long, and when it was written.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    identity: Option<(u64, u64, u64, i64, i64)>,
}

/// Of files, and of what is in folders.
fn stamps(paths: &[PathBuf]) -> Vec<Stamp> {
    let within = |path: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let mut entries: Vec<PathBuf> = entries.map(|entry| entry.path()).take(MONITOR_FILES_MAX).collect();
        entries.sort();
        entries
    };
    let all = paths.iter().flat_map(|path| std::iter::once(path.clone()).chain(within(path)));
    all.map(|path| {
        let identity = fs::metadata(&path).ok().map(|of| (of.dev(), of.ino(), of.len(), of.mtime(), of.mtime_nsec()));
        Stamp { path, identity }
    })
    .collect()
}

fn secured(catalog: &Catalog) -> Result<Arc<Trust>, Refused> {
    let mut loader = tls::Loader::default();
    let faults = catalog.policies().iter().filter_map(|policy| loader.add(policy).err()).flatten();
    let mut errors: Vec<String> = faults.map(|fault| fault.to_string()).collect();
    errors.dedup();
    errors.truncate(RELOAD_ERRORS_MAX);
    if errors.is_empty() {
        return Ok(loader.finish());
    }
    Err(Refused { errors, remedy: "mend these files; TLS checks cannot do without them".to_owned() })
}

fn of_diagnostics(diagnostics: &Diagnostics, remedy: &str) -> Refused {
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error);
    let mut errors: Vec<String> = errors.take(RELOAD_ERRORS_MAX).map(in_a_line).collect();
    if diagnostics.errors() > errors.len() {
        errors.push(format!("and {} more", plural(diagnostics.errors() - errors.len(), "error")));
    }
    Refused { errors, remedy: remedy.to_owned() }
}

/// `monitors.yaml:3:5: shop/web: "intervall" is no key`.
fn in_a_line(diagnostic: &Diagnostic) -> String {
    let Diagnostic { file, position, subject, message, .. } = diagnostic;
    let place = position.map_or_else(String::new, |position| format!(":{position}"));
    let subject = subject.as_ref().map_or_else(String::new, |subject| format!("{subject}: "));
    format!("{file}{place}: {subject}{message}")
}

fn refused(error: &str, remedy: &str) -> Refused {
    Refused { errors: vec![error.to_owned()], remedy: remedy.to_owned() }
}

fn refuse<T>(error: &str, remedy: &str) -> Result<T, Refused> {
    Err(refused(error, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_another_one_has_another_stamp() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, link) = (folder.path().join("a.yaml"), folder.path().join("link"));
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("it can be written");
        write("a.yaml", "1");
        write("b.yaml", "1");
        std::os::unix::fs::symlink("a.yaml", &link).expect("a link");
        let paths = [folder.path().to_owned(), link.clone()];
        let first = stamps(&paths);
        assert_eq!(first, stamps(&paths));
        write("a.yaml", "12");
        let longer = stamps(&paths);
        assert_ne!(first, longer);
        fs::remove_file(&link).expect("it is there");
        std::os::unix::fs::symlink("b.yaml", &link).expect("a link");
        let elsewhere = stamps(&paths);
        assert_ne!(longer, elsewhere);
        fs::remove_file(&file).expect("it is there");
        assert_ne!(elsewhere, stamps(&paths));
    }
}
