//! The daemon file (`--config`): how the program itself runs. An environment variable beats the file, a flag beats both.
//!
//! The table is read by the same rules as the monitors file, so that all its faults come at once, in the same form.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Diagnostics, Excerpt, Position, Severity, quoted};
use super::node::{Entry, Finding, Findings, Kind, Mark, Node};
use super::section::{Keys, Section};
use super::value;

/// A daemon file has a few kilobytes.
const FILE_MAX: u64 = 1024 * 1024;

/// Everything the daemon can be told, with its defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Part of every incident's key; the host's name if absent.
    pub instance: Option<Box<str>>,
    /// Of the intervention and code queues.
    pub queue_capacity: usize,
    /// The most operations per submission to the ring.
    pub batch_size: usize,
    pub api: Api,
    pub pulse: Pulse,
    pub code: Code,
    pub log: Log,
    pub security: Security,
    pub store: Store,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    pub listen: SocketAddr,
    /// The unix socket; the default is [`Folders::socket`](super::Folders::socket).
    pub socket: Option<PathBuf>,
    /// What changes over TCP are made with; without it TCP is read-only.
    pub token_file: Option<PathBuf>,
}

/// Checks in flight, over all shards: the slots that people call workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulse {
    pub min_workers: u32,
    pub max_workers: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    pub fallback: Fallback,
}

/// Where a notice goes whose color names no destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    Log,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// Folders for `notify: log`; `None` for the defaults of [`Folders`](super::Folders).
    pub log_dirs: Option<Vec<PathBuf>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Store {
    /// Not used by this version, whose store is in memory.
    pub path: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            instance: None,
            queue_capacity: 65_536,
            batch_size: 1_024,
            api: Api { listen: SocketAddr::from(([127, 0, 0, 1], 9860)), socket: None, token_file: None },
            pulse: Pulse { min_workers: 64, max_workers: 50_000 },
            code: Code { fallback: Fallback::Log },
            log: Log { format: LogFormat::Text },
            security: Security::default(),
            store: Store::default(),
        }
    }
}

/// What the command line says about the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    pub api_listen: Option<SocketAddr>,
    pub api_socket: Option<PathBuf>,
    pub log_format: Option<LogFormat>,
}

/// Environment variables and the keys that they replace.
pub const ENVIRONMENT: [(&str, &str, &str); 12] = [
    ("CPRA_INSTANCE", "", "instance"),
    ("CPRA_QUEUE_CAPACITY", "", "queue_capacity"),
    ("CPRA_BATCH_SIZE", "", "batch_size"),
    ("CPRA_API_LISTEN", "api", "listen"),
    ("CPRA_API_SOCKET", "api", "socket"),
    ("CPRA_API_TOKEN_FILE", "api", "token_file"),
    ("CPRA_PULSE_MIN_WORKERS", "pulse", "min_workers"),
    ("CPRA_PULSE_MAX_WORKERS", "pulse", "max_workers"),
    ("CPRA_CODE_FALLBACK", "code", "fallback"),
    ("CPRA_LOG_FORMAT", "log", "format"),
    ("CPRA_SECURITY_LOG_DIRS", "security", "log_dirs"),
    ("CPRA_STORE_PATH", "store", "path"),
];

const TOP: Keys<'static> = Keys {
    known: &["instance", "queue_capacity", "batch_size", "api", "pulse", "code", "log", "security", "store"],
    without_effect: &["intervention", "providers", "blind", "histograms", "watchdog", "ebpf", "simulation"],
    refused: &[],
};
const SECTIONS: [(&str, Keys<'static>); 6] = [
    ("api", Keys { known: &["listen", "socket", "token_file"], without_effect: &["external_url"], refused: &[] }),
    (
        "pulse",
        Keys {
            known: &["min_workers", "max_workers"],
            without_effect: &["slo", "slo_percentile", "headroom", "wait_slo", "service_time"],
            refused: &[],
        },
    ),
    ("code", Keys { known: &["fallback"], without_effect: &["repeat_interval"], refused: &[] }),
    ("log", Keys { known: &["format"], without_effect: &[], refused: &[] }),
    ("security", Keys { known: &["log_dirs"], without_effect: &["user", "script_user", "secret_dirs"], refused: &[] }),
    ("store", Keys { known: &["path"], without_effect: &[], refused: &[] }),
];

const QUEUE_CAPACITY: std::ops::RangeInclusive<u64> = 16..=1 << 24;
const BATCH_SIZE: std::ops::RangeInclusive<u64> = 1..=4_096;
const WORKERS: std::ops::RangeInclusive<u64> = 1..=1_000_000;

impl Settings {
    /// The settings from a file (if there is one), the environment and the flags.
    pub fn load(
        path: Option<&Path>,
        environment: impl Fn(&str) -> Option<String>,
        flags: &Flags,
    ) -> (Self, Diagnostics) {
        let Some(path) = path else { return Self::compose("", "", environment, flags) };
        let name = path.to_string_lossy();
        match read_file(path) {
            Ok(text) => Self::compose(&name, &text, environment, flags),
            Err(message) => {
                let (settings, mut diagnostics) = Self::compose("", "", environment, flags);
                diagnostics.push(diagnostic(&Arc::from(&*name), "", error(Mark::default(), message)));
                (settings, diagnostics)
            }
        }
    }

    /// As [`Settings::load`], from the text of a file called `name`.
    pub fn compose(
        name: &str,
        text: &str,
        environment: impl Fn(&str) -> Option<String>,
        flags: &Flags,
    ) -> (Self, Diagnostics) {
        let mut settings = Self::default();
        let mut findings = Findings::default();
        let root = toml_root(text, &mut findings);
        settings.apply(&Section::new(&root, None, Mark::default()), &mut findings);
        let mut diagnostics = Diagnostics::default();
        let file: Arc<str> = name.into();
        for finding in findings.0 {
            diagnostics.push(diagnostic(&file, text, finding));
        }
        diagnostics.sort();
        for (variable, section, key) in ENVIRONMENT {
            let Some(written) = environment(variable) else { continue };
            let mut findings = Findings::default();
            let root = environment_root(section, key, &written);
            settings.apply(&Section::new(&root, None, Mark::default()), &mut findings);
            for finding in findings.0 {
                diagnostics.push(diagnostic(&Arc::from(variable), "", finding));
            }
        }
        if let Some(listen) = flags.api_listen {
            settings.api.listen = listen;
        }
        if let Some(socket) = &flags.api_socket {
            settings.api.socket = Some(socket.clone());
        }
        if let Some(format) = flags.log_format {
            settings.log.format = format;
        }
        if settings.pulse.min_workers > settings.pulse.max_workers {
            let Pulse { min_workers, max_workers } = settings.pulse;
            let message = format!("[pulse] min_workers {min_workers} is more than max_workers {max_workers}: lower it");
            diagnostics.push(diagnostic(&file, "", error(Mark::default(), message)));
        }
        (settings, diagnostics)
    }

    fn apply(&mut self, root: &Section<'_>, findings: &mut Findings) {
        root.check_keys(findings, TOP);
        let sections = SECTIONS.map(|(name, keys)| {
            let section = root.section(findings, &[name]).unwrap_or_else(|| Section::empty(root.at));
            section.check_keys(findings, keys);
            section
        });
        let [api, pulse, code, log, security, store] = &sections;
        let narrow = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        let workers = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let settle = |place: &mut u32, value: Option<u64>| *place = value.map_or(*place, workers);
        if let Some(instance) = root.value(findings, &["instance"], |node| value::line(255)(node).map(Box::from)) {
            self.instance = Some(instance);
        }
        if let Some(capacity) = root.value(findings, &["queue_capacity"], value::integer(QUEUE_CAPACITY)) {
            self.queue_capacity = narrow(capacity);
        }
        if let Some(size) = root.value(findings, &["batch_size"], value::integer(BATCH_SIZE)) {
            self.batch_size = narrow(size);
        }
        if let Some(address) = api.value(findings, &["listen"], |node| listen(value::text(node)?)) {
            self.api.listen = address;
        }
        for (key, place) in [("socket", &mut self.api.socket), ("token_file", &mut self.api.token_file)] {
            if let Some(path) = api.value(findings, &[key], |node| value::line(4096)(node).map(PathBuf::from)) {
                *place = Some(path);
            }
        }
        settle(&mut self.pulse.min_workers, pulse.value(findings, &["min_workers"], value::integer(WORKERS)));
        settle(&mut self.pulse.max_workers, pulse.value(findings, &["max_workers"], value::integer(WORKERS)));
        if let Some(fallback) = code.value(findings, &["fallback"], value::choice(&[("log", Fallback::Log)])) {
            self.code.fallback = fallback;
        }
        if let Some(format) =
            log.value(findings, &["format"], value::choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]))
        {
            self.log.format = format;
        }
        if let Some(folders) = security.value(findings, &["log_dirs"], folders) {
            self.security.log_dirs = Some(folders);
        }
        if let Some(field) = store.find(findings, &["path"]) {
            self.store.path = store.value(findings, &["path"], |node| value::line(4096)(node).map(PathBuf::from));
            findings.warning(field.at, "\"path\" has no effect: the store of this version is in memory only");
        }
    }
}

/// `127.0.0.1:9860`, `[::1]:9860`, `localhost:9860`.
///
/// # Errors
/// In words that follow the key.
pub fn listen(text: &str) -> Result<SocketAddr, String> {
    let literal = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    literal.parse().map_err(|_| match text.strip_prefix(':') {
        Some(port) => format!(
            "{} has no address: write \"127.0.0.1:{port}\", or \"0.0.0.0:{port}\" for every interface",
            quoted(text)
        ),
        None => format!("{} is no address with a port: write it like \"127.0.0.1:9860\"", quoted(text)),
    })
}

fn folders(node: &Node) -> Result<Vec<PathBuf>, String> {
    let mut folders = Vec::new();
    for item in value::items(node)? {
        let folder = Path::new(value::line(4096)(item)?);
        if !folder.is_absolute() || folder.components().any(|part| part == std::path::Component::ParentDir) {
            return Err(format!(
                "{} is not absolute: write the whole path, without \"..\"",
                quoted(&folder.to_string_lossy())
            ));
        }
        folders.push(folder.to_owned());
    }
    Ok(folders)
}

fn read_file(path: &Path) -> Result<String, String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes));
    match read {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err("there is no such file: check the path given with --config".to_owned())
        }
        Err(error) => Err(format!("cannot be read: {error}")),
        Ok(_) if bytes.len() as u64 > FILE_MAX => Err("is larger than 1 MiB: this is no daemon file".to_owned()),
        Ok(_) => String::from_utf8(bytes).map_err(|_| "is not UTF-8: save it as UTF-8".to_owned()),
    }
}

fn error(at: Mark, message: String) -> Finding {
    Finding { severity: Severity::Error, at, message, inherited: false }
}

fn diagnostic(file: &Arc<str>, text: &str, finding: Finding) -> Diagnostic {
    let position = Some(finding.at.position).filter(|position| position.line > 0);
    let excerpt = position.and_then(|position| {
        let line = text.lines().nth(position.line as usize - 1)?;
        Some(Excerpt::new(line, position.column as usize - 1, finding.at.width as usize))
    });
    let file = if file.is_empty() { Arc::from("settings") } else { file.clone() };
    Diagnostic { severity: finding.severity, file, position, subject: None, message: finding.message.into(), excerpt }
}

/// Byte offsets into places.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    fn mark(&self, span: std::ops::Range<usize>) -> Mark {
        let index = self.starts.partition_point(|&start| start <= span.start).saturating_sub(1);
        let start = self.starts[index];
        let before = self.text.get(start..span.start).unwrap_or_default().chars().count();
        let inside = self.text.get(span.start..span.end).unwrap_or_default();
        let width = if inside.contains('\n') { 1 } else { inside.chars().count() };
        Mark { position: Position { line: index as u32 + 1, column: before as u32 + 1 }, width: width as u32 }
    }
}

fn toml_root(text: &str, findings: &mut Findings) -> Node {
    let lines = Lines::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for fault in errors {
        let at = fault.span().map_or_else(Mark::default, |span| lines.mark(span));
        findings.error(at, fault.message().to_owned());
    }
    Node::new(Mark::default(), Kind::Map(entries(table.get_ref(), &lines)))
}

fn entries(table: &DeTable<'_>, lines: &Lines<'_>) -> Vec<Entry> {
    let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
        let key_text: &std::borrow::Cow<'_, str> = key.get_ref();
        Entry {
            key: Rc::from(&**key_text),
            at: lines.mark(key.span()),
            value: Rc::new(node(value, lines)),
            merged: false,
        }
    };
    table.iter().map(entry).collect()
}

fn node(value: &Spanned<DeValue<'_>>, lines: &Lines<'_>) -> Node {
    let kind = match value.get_ref() {
        DeValue::String(text) => Kind::Scalar { text: (&**text).into(), quoted: true },
        DeValue::Integer(number) if number.radix() == 10 => {
            Kind::Scalar { text: number.as_str().replace('_', "").into(), quoted: false }
        }
        DeValue::Boolean(flag) => Kind::Scalar { text: flag.to_string().into(), quoted: false },
        DeValue::Array(items) => Kind::List(items.iter().map(|item| Rc::new(node(item, lines))).collect()),
        DeValue::Table(table) => Kind::Map(entries(table, lines)),
        // Floats, dates and numbers of other bases: no key takes them, and each says so at their text.
        _ => Kind::Scalar { text: lines.text.get(value.span()).unwrap_or_default().into(), quoted: false },
    };
    Node::new(lines.mark(value.span()), kind)
}

/// One variable as if it were a file; folders are separated by colons.
fn environment_root(section: &str, key: &str, written: &str) -> Node {
    let at = Mark::default();
    let entry = |key: &str, value: Node| Entry { key: key.into(), at, value: Rc::new(value), merged: false };
    let map = |entry: Entry| Node::new(at, Kind::Map(vec![entry]));
    let value = match key {
        "log_dirs" => {
            let folders = written.split(':').filter(|folder| !folder.is_empty());
            Node::new(at, Kind::List(folders.map(|folder| Rc::new(Node::scalar(at, folder.into(), true))).collect()))
        }
        _ => Node::scalar(at, written.into(), false),
    };
    match section {
        "" => map(entry(key, value)),
        _ => map(entry(section, map(entry(key, value)))),
    }
}
