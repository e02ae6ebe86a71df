//! The monitors file: a list of monitors, or a map of `defaults`, `monitors` and `x-*`.
//!
//! Each monitor goes to the sink as soon as its item is read and sound, so that a million of them are never in memory
//! as text or trees. A monitor with an error is left out; whether one error stops the start is the caller's decision.

mod reader;

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::reader::Reader;
use super::batches::Shape;
use super::daemon;
use super::dependencies::Dependencies;
use super::diagnostic::{Diagnostic, Diagnostics, Severity};
use super::folders::Folders;
use super::names::Names;
use super::node::Mark;
use super::refusal::{Origin, Programs};
use super::scope::Scope;
use super::source::Source;
use super::sources::{Input, Inputs, Language};
use super::yaml::Events;
use crate::domain::{Destination, Monitor};

/// Places at which a broken text may be taken up again.
const RESUMES_MAX: usize = 100;

/// Keys of a file that is a map. They are remembered, to find one that is there twice.
const KEYS_MAX: usize = 10_000;

/// What came of the files.
#[derive(Debug, Default)]
pub struct Report {
    pub diagnostics: Diagnostics,
    /// Read, or at least opened.
    pub files: usize,
    /// Given to the sink.
    pub monitors: usize,
    /// Of them, those that will be checked.
    pub enabled: usize,
    /// Of those, the ones whose red nobody who is named can receive: it goes to the fallback.
    pub reds_to_fallback: usize,
    /// Of those, the ones that do not judge a certificate.
    pub unverified: usize,
    pub bytes: u64,
    /// Who can be told.
    pub receivers: Receivers,
    /// Warnings of providers that no rule names: apart, since who asks for one check does not want them.
    pub unused: Diagnostics,
    /// Errors among the diagnostics that are of the daemon file, in `[providers]`.
    pub provider_errors: usize,
    /// The one file that was named is not there; it counts as an error, which the daemon may soften.
    pub missing: bool,
}

/// Destinations, as the files have them.
#[derive(Clone, Debug)]
pub struct Receivers {
    /// Of `[providers.NAME]`, by name; a name may have several. What is faulty, or of a later version, has none.
    pub named: Vec<Arc<Destination>>,
    /// Where a notice goes that nobody else can receive.
    pub fallback: Arc<Destination>,
    /// Who is told by the monitors: names and types, for people; a bound of them.
    pub told: Vec<(Box<str>, &'static str)>,
}

impl Default for Receivers {
    fn default() -> Self {
        Self { named: Vec::new(), fallback: Arc::new(Destination::log(None)), told: Vec::new() }
    }
}

impl Report {
    pub const fn is_sound(&self) -> bool {
        self.diagnostics.errors() == 0 && self.diagnostics.refusals() == 0
    }
}

/// Reads the monitors file (or the folder of them) at `path`. Pipes are fine.
pub fn read(path: &Path, folders: &Folders, sink: &mut dyn FnMut(Monitor)) -> Report {
    read_all(&[path.to_owned()], folders, sink)
}

/// Reads all that `--yaml` names; names are unique over all of it.
pub fn read_all(given: &[PathBuf], folders: &Folders, sink: &mut dyn FnMut(Monitor)) -> Report {
    let inputs = Inputs::of(given);
    let mut load = Load::new(folders, sink);
    load.report.missing = inputs.missing;
    for fault in inputs.faults {
        load.report.diagnostics.push(fault);
    }
    for input in &inputs.found {
        load.input(input);
    }
    load.finish()
}

/// Reads `text` as if it were a file called `name`, whose ending tells the language.
pub fn read_str(name: &str, text: &str, folders: &Folders, sink: &mut dyn FnMut(Monitor)) -> Report {
    read_from(name, Cursor::new(text.as_bytes().to_vec()), folders, sink)
}

/// The same, of bytes that come from anywhere: read once, and nothing is cut.
pub(super) fn read_from(
    name: &str,
    reader: impl Read + 'static,
    folders: &Folders,
    sink: &mut dyn FnMut(Monitor),
) -> Report {
    let mut load = Load::new(folders, sink);
    let language = super::sources::language(Path::new(name));
    let name = load.enter(name);
    load.stream(name, reader, language, Origin::Memory);
    load.finish()
}

/// As a plain file on the disk is read, if the text is one.
#[cfg(test)]
pub(super) fn read_cut(name: &str, text: &[u8], folders: &Folders, sink: &mut dyn FnMut(Monitor)) -> Option<Report> {
    let shape = Shape::of(text)?;
    let mut load = Load::new(folders, sink);
    let name = load.enter(name);
    load.batches(&name, text, &shape, &Origin::Memory).then(|| load.finish())
}

/// What the files of one load share.
struct Load<'a> {
    folders: &'a Folders,
    sink: &'a mut dyn FnMut(Monitor),
    /// What the rules of one monitor know of the others: one for all files, so that a token is unique over all of them.
    scope: Scope<'a>,
    dependencies: Dependencies,
    names: Names,
    files: Vec<Arc<str>>,
    programs: Programs,
    report: Report,
}

impl<'a> Load<'a> {
    fn new(folders: &'a Folders, sink: &'a mut dyn FnMut(Monitor)) -> Self {
        let mut scope = Scope::new(folders);
        let diagnostics = daemon::read_providers(&folders.providers, &mut scope);
        let provider_errors = diagnostics.errors();
        Self {
            folders,
            sink,
            scope,
            dependencies: Dependencies::default(),
            names: Names::default(),
            files: Vec::new(),
            programs: Programs::default(),
            report: Report { diagnostics, provider_errors, ..Report::default() },
        }
    }

    /// What can be judged only when all is known.
    fn finish(mut self) -> Report {
        let names = &self.names;
        for diagnostic in self.dependencies.judge(|name| names.find(name).is_some(), || names.iter()) {
            self.report.diagnostics.push(diagnostic);
        }
        if self.report.monitors > 0 {
            self.report.unused = daemon::unused_providers(&self.folders.providers, &self.scope);
        }
        self.report.diagnostics.sort_by_files(&self.files);
        let Scope { providers, fallback, receivers, .. } = self.scope;
        self.report.receivers = Receivers {
            named: providers.into_values().flat_map(|named| named.destinations).collect(),
            fallback,
            told: receivers.into_iter().collect(),
        };
        self.report
    }

    fn enter(&mut self, name: &str) -> Arc<str> {
        let name: Arc<str> = name.into();
        self.files.push(name.clone());
        self.report.files += 1;
        name
    }

    fn input(&mut self, input: &Input) {
        self.enter(&input.name);
        match (input.open(), &input.path) {
            (Ok(None), _) => self.stream(input.name.clone(), std::io::stdin(), input.language, Origin::Stdin),
            (Ok(Some(file)), Some(path)) => self.file(input, file, path),
            (Ok(Some(_)), None) => {}
            (Err(message), _) => {
                let (file, message) = (input.name.clone(), message.into());
                let fault = Diagnostic {
                    severity: Severity::Error,
                    file,
                    position: None,
                    subject: None,
                    message,
                    excerpt: None,
                };
                self.report.diagnostics.push(fault);
            }
        }
    }

    fn file(&mut self, input: &Input, mut file: File, path: &Path) {
        let origin = Origin::File(self.folders.working.join(path));
        let is_regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
        if is_regular && input.language == Language::Yaml {
            let shape = Shape::of(BufReader::new(&file));
            // What cannot be wound back is no regular file; reading on says so.
            let is_read = file.rewind().is_ok()
                && shape.is_some_and(|shape| self.batches(&input.name, &file, &shape, &origin))
                || file.rewind().is_err();
            if is_read {
                return;
            }
        }
        self.stream(input.name.clone(), file, input.language, origin);
    }

    /// The whole text through the streaming reader.
    fn stream(&mut self, name: Arc<str>, reader: impl Read + 'static, language: Language, origin: Origin) {
        let source = Source::new(reader);
        let variables = self.folders.variables.clone();
        let events = match language {
            Language::Yaml => Events::new(source.clone(), variables),
            Language::Json => Events::json(source.clone(), variables, false),
            Language::JsonLines => Events::json(source.clone(), variables, true),
        };
        let mut reader = Reader::new(self, name, source, events, origin);
        reader.file();
        reader.finish();
    }

    /// The list in batches through the library, and only what there is something to say about through the streaming
    /// reader. Answers whether it was read: a head with any fault in it may hide where the list is.
    fn batches(&mut self, name: &Arc<str>, file: impl Read, shape: &Shape, origin: &Origin) -> bool {
        let head = Source::new(Cursor::new(shape.head.clone()));
        let events = Events::new(head.clone(), self.folders.variables.clone());
        let mut reader = Reader::new(self, name.clone(), head.clone(), events, origin.clone());
        if shape.is_map {
            let is_read = reader.document().is_ok() && reader.has_list && reader.found.is_empty();
            if !is_read || !head.is_faultless() {
                return false;
            }
        }
        reader.head = Some(head);
        reader.load.report.bytes += if shape.is_map { 0 } else { shape.head.len() as u64 };
        let changed = |reader: &mut Reader<'_, '_>| {
            reader.error(Mark::default(), "the file changed while it was read: try again");
        };
        match shape.batches(BufReader::with_capacity(64 * 1024, file)) {
            Ok(mut batches) => loop {
                match batches.next() {
                    Ok(Some(_)) if reader.resumes > RESUMES_MAX => break,
                    Ok(Some(batch)) => reader.batch(&batch),
                    Ok(None) => break,
                    Err(_) => {
                        changed(&mut reader);
                        break;
                    }
                }
            },
            Err(_) => changed(&mut reader),
        }
        reader.finish();
        true
    }
}
