//! The daemon file (`--config`): how the program itself runs. An environment variable beats the file, a flag beats both.
//!
//! The table is read by the same rules as the monitors file, so that all its faults come at once, in the same form.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Diagnostics, Excerpt, Position, Severity};
use super::duration;
use super::node::{Entry, Finding, Findings, Kind, Mark, Node};
use super::providers::Declared;
use super::section::{Keys, Section};
use super::value;

/// A daemon file has a few kilobytes.
const FILE_MAX: u64 = 1024 * 1024;

mod original;
mod providers;
mod sections;

pub use providers::FALLBACK;
pub(super) use providers::{read as read_providers, unused as unused_providers};
pub use sections::{
    Api, Blind, Breaker, Code, Ebpf, EbpfHook, EbpfMode, Histograms, Intervention, Log, LogFormat, Pulse, Resolver,
    Security, Share, Store, Watchdog, listen,
};

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
    pub intervention: Intervention,
    pub code: Code,
    pub log: Log,
    pub security: Security,
    pub store: Store,
    pub resolver: Resolver,
    /// What the file declares; judged with the monitors.
    pub providers: Declared,
    pub blind: Blind,
    pub ebpf: Ebpf,
    pub watchdog: Watchdog,
    pub histograms: Histograms,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            instance: None,
            queue_capacity: 65_536,
            batch_size: 1_024,
            api: Api::default(),
            pulse: Pulse::default(),
            intervention: Intervention::default(),
            code: Code::default(),
            log: Log { format: LogFormat::Text },
            security: Security::default(),
            store: Store::default(),
            resolver: Resolver::default(),
            providers: Declared::default(),
            blind: Blind::default(),
            ebpf: Ebpf::default(),
            watchdog: Watchdog::default(),
            histograms: Histograms::default(),
        }
    }
}

impl Settings {
    /// Keys and sections that say something else than they did in `old`, but for the providers.
    pub fn changed_since(&self, old: &Self) -> Vec<&'static str> {
        let Self { instance, queue_capacity, batch_size, api, pulse, intervention, code, log, .. } = self;
        let Self { security, store, resolver, blind, ebpf, watchdog, histograms, .. } = self;
        let keys = [
            ("instance", *instance != old.instance),
            ("queue_capacity", *queue_capacity != old.queue_capacity),
            ("batch_size", *batch_size != old.batch_size),
            ("[api]", *api != old.api),
            ("[pulse]", *pulse != old.pulse),
            ("[intervention]", *intervention != old.intervention),
            ("[code]", *code != old.code),
            ("[log]", *log != old.log),
            ("[security]", *security != old.security),
            ("[store]", *store != old.store),
            ("[resolver]", *resolver != old.resolver),
            ("[blind]", *blind != old.blind),
            ("[ebpf]", *ebpf != old.ebpf),
            ("[watchdog]", *watchdog != old.watchdog),
            ("[histograms]", *histograms != old.histograms),
        ];
        keys.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key).collect()
    }
}

/// What the command line says about the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    pub api_listen: Option<SocketAddr>,
    pub api_socket: Option<PathBuf>,
    pub log_format: Option<LogFormat>,
}

/// A section and its keys; `""` is the top. The variable of a key is [`variable`].
pub const SCHEMA: [(&str, &[&str]); 13] = [
    ("", &["instance", "queue_capacity", "batch_size"]),
    ("api", &["listen", "socket", "token_file", "external_url"]),
    (
        "pulse",
        &[
            "min_workers",
            "max_workers",
            "slo",
            "slo_percentile",
            "wait_slo",
            "service_time",
            "headroom",
            "max_echo_rate",
            "max_syn_rate",
        ],
    ),
    (
        "intervention",
        &["max_workers", "cooldown", "actions_per_minute", "red_after", "startup_grace", "breaker", "allow", "dry_run"],
    ),
    ("code", &["fallback", "repeat_interval", "merge", "min_workers", "max_workers", "slo"]),
    ("log", &["format"]),
    ("security", &["user", "drop_capabilities", "script_user", "log_dirs", "secret_dirs"]),
    ("store", &["path", "max_age", "max_size"]),
    ("resolver", &["servers", "timeout", "prefer"]),
    ("blind", &["canaries"]),
    ("ebpf", &["mode", "hook", "interfaces"]),
    ("watchdog", &["url", "interval"]),
    ("histograms", &["dir", "interval"]),
];

/// Checked, and without effect so far.
const LATER_SECTIONS: [&str; 2] = ["intervention", "blind"];

/// The environment variable that beats a key. A table such as `breaker` has none.
pub fn variable(section: &str, key: &str) -> Option<String> {
    let is_table = matches!(key, "breaker");
    let prefix = if section.is_empty() { String::new() } else { format!("{}_", section.to_ascii_uppercase()) };
    (!is_table).then(|| format!("CPRA_{prefix}{}", key.to_ascii_uppercase()))
}

const QUEUE_CAPACITY: std::ops::RangeInclusive<u64> = 16..=1 << 24;
const BATCH_SIZE: std::ops::RangeInclusive<u64> = 1..=4_096;

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
        let section = Section::new(&root, None, Mark::default());
        settings.apply(&section, &mut findings);
        // Its form is judged with the monitors; that it is no map is said here.
        section.section(&mut findings, &["providers"]);
        settings.providers = Declared::of(name, text, &section, &environment);
        let mut diagnostics = Diagnostics::default();
        let file: Arc<str> = name.into();
        for finding in findings.0 {
            diagnostics.push(diagnostic(&file, text, finding));
        }
        diagnostics.sort();
        settings.apply_original(&environment, &mut diagnostics);
        let keys = SCHEMA.iter().flat_map(|(section, keys)| keys.iter().map(move |key| (*section, *key)));
        for (section, key) in keys {
            let Some(variable) = variable(section, key) else { continue };
            let Some(written) = environment(&variable) else { continue };
            settings.apply_variable(&variable, (section, key), &written, &mut diagnostics);
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
        for finding in settings.contradictions() {
            diagnostics.push(diagnostic(&file, "", finding));
        }
        (settings, diagnostics)
    }

    /// What one variable says about its key.
    fn apply_variable(
        &mut self,
        variable: &str,
        (section, key): (&str, &str),
        written: &str,
        diagnostics: &mut Diagnostics,
    ) {
        let mut findings = Findings::default();
        let root = environment_root(section, key, written);
        self.apply(&Section::new(&root, None, Mark::default()), &mut findings);
        for finding in findings.0 {
            diagnostics.push(diagnostic(&Arc::from(variable), "", finding));
        }
    }

    /// Keys that are right one by one, and do not go together.
    fn contradictions(&self) -> Vec<Finding> {
        let Self { pulse, code, .. } = self;
        let mut findings = Vec::new();
        for (section, min, max) in
            [("pulse", pulse.min_workers, pulse.max_workers), ("code", code.min_workers, code.max_workers)]
        {
            if min > max {
                let message = format!("[{section}] min_workers {min} is more than max_workers {max}: lower it");
                findings.push(error(Mark::default(), message));
            }
        }
        if let Some(message) = self.providers.judge_fallback(&code.fallback) {
            findings.push(error(Mark::default(), message));
        }
        if let Some(wait) = pulse.wait_slo.filter(|wait| *wait > pulse.slo) {
            let [wait, slo] = [wait, pulse.slo].map(duration::written);
            let message = format!(
                "[pulse] wait_slo {wait} is longer than slo {slo}: checks may wait longer than they may take; lower it"
            );
            findings.push(warning(Mark::default(), message));
        }
        findings
    }

    fn apply(&mut self, root: &Section<'_>, findings: &mut Findings) {
        let mut tops: Vec<&str> = SCHEMA.iter().skip(1).map(|(section, _)| *section).collect();
        tops.extend(SCHEMA[0].1);
        tops.push("providers");
        root.check_keys(findings, Keys { known: &tops, without_effect: &["simulation"], refused: &[] });
        let narrow = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        if let Some(instance) = root.value(findings, &["instance"], |node| value::line(255)(node).map(Box::from)) {
            self.instance = Some(instance);
        }
        if let Some(capacity) = root.value(findings, &["queue_capacity"], value::integer(QUEUE_CAPACITY)) {
            self.queue_capacity = narrow(capacity);
        }
        if let Some(size) = root.value(findings, &["batch_size"], value::integer(BATCH_SIZE)) {
            self.batch_size = narrow(size);
        }
        for (name, keys) in &SCHEMA[1..] {
            let Some(section) = root.section(findings, &[name]) else { continue };
            section.check_keys(findings, Keys { known: keys, without_effect: &[], refused: &[] });
            if LATER_SECTIONS.contains(name) {
                findings.warning(section.at, format!("\"{name}\" is not in this version: no effect"));
            }
            match *name {
                "api" => self.api.read(&section, findings),
                "pulse" => self.pulse.read(&section, findings),
                "intervention" => self.intervention.read(&section, findings),
                "code" => self.code.read(&section, findings),
                "log" => self.log.read(&section, findings),
                "security" => self.security.read(&section, findings),
                "store" => self.store.read(&section, findings),
                "resolver" => self.resolver.read(&section, findings),
                "blind" => self.blind.read(&section, findings),
                "ebpf" => self.ebpf.read(&section, findings),
                "watchdog" => self.watchdog.read(&section, findings),
                "histograms" => self.histograms.read(&section, findings),
                _ => {}
            }
        }
    }
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

fn warning(at: Mark, message: String) -> Finding {
    Finding { severity: Severity::Warning, at, message, inherited: false }
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

/// One variable as if it were a file; folders are separated by colons, the values of other lists by commas.
fn environment_root(section: &str, key: &str, written: &str) -> Node {
    let at = Mark::default();
    let entry = |key: &str, value: Node| Entry { key: key.into(), at, value: Rc::new(value), merged: false };
    let map = |entry: Entry| Node::new(at, Kind::Map(vec![entry]));
    let list = |written: &str, separator: char| {
        let parts = written.split(separator).map(str::trim).filter(|part| !part.is_empty());
        Node::new(at, Kind::List(parts.map(|part| Rc::new(Node::scalar(at, part.into(), true))).collect()))
    };
    let value = match key {
        "log_dirs" | "secret_dirs" => list(written, ':'),
        "servers" | "allow" | "canaries" | "interfaces" => list(written, ','),
        _ => Node::scalar(at, written.into(), false),
    };
    match section {
        "" => map(entry(key, value)),
        _ => map(entry(section, map(entry(key, value)))),
    }
}
