//! The sections of the daemon file: their values, their defaults, and how they are read.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::super::diagnostic::quoted;
use super::super::node::{Findings, Node};
use super::super::section::{Keys, Section};
use super::super::{destinations, value};
use super::FALLBACK;
use crate::domain::monitor::Secret;
use crate::ring::Family;
use crate::units::Span;
use crate::units::limits::{
    CODE_WORKERS_MAX, CODE_WORKERS_MIN, PACKET_RATE, PACKET_RATES, STORE_AGE_DEFAULT, STORE_SIZE_DEFAULT,
};

const WORKERS: RangeInclusive<u64> = 1..=1_000_000;
const CODE_WORKERS: RangeInclusive<u64> = 1..=1_024;
const PATH_MAX: usize = 4096;
const LIST_MAX: usize = 1_000;

/// Servers that are asked for names.
const SERVERS_MAX: usize = 8;
const SERVER_PORT: u16 = 53;

const INTERFACES_MAX: usize = 256;
/// `IFNAMSIZ` without the zero at its end.
const INTERFACE_NAME_MAX: usize = 15;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    pub listen: SocketAddr,
    /// The unix socket of the command line.
    pub socket: Option<PathBuf>,
    /// What changes over TCP are made with; without it TCP is read-only.
    pub token_file: Option<PathBuf>,
    /// How people reach the pages, for links in notices.
    pub external_url: Option<Box<str>>,
}

/// Checks in flight, over all shards: the slots that people call workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulse {
    pub min_workers: u32,
    pub max_workers: u32,
    /// Within it, from when they were due, `slo_percentile` in a hundred checks are to have their result.
    pub slo: Span,
    pub slo_percentile: u8,
    /// How long as many may wait for a worker, where the checks themselves take longer than `slo`, if that is told.
    pub wait_slo: Option<Span>,
    /// How long a check takes, until it is measured.
    pub service_time: Span,
    /// Workers beyond those that are needed.
    pub headroom: Share,
    /// Echo requests a second, over all shards.
    pub max_echo_rate: u32,
    /// SYNs of half-open checks a second, over all shards.
    pub max_syn_rate: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intervention {
    pub max_workers: u32,
    pub cooldown: Span,
    pub actions_per_minute: u32,
    pub red_after: Span,
    pub startup_grace: Span,
    pub breaker: Breaker,
    /// Actions that may run; all of them, unless some are named.
    pub allow: Option<Vec<Box<str>>>,
    pub dry_run: bool,
}

/// When so many fail at once, nothing is repaired any more: the fault is elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    pub share: Share,
    pub min_failing: u32,
}

/// Thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(pub u16);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// Where a notice goes that nobody else can receive: `log`, or the name of a provider.
    pub fallback: Box<str>,
    /// A red that lasts is told again after this long.
    pub repeat_interval: Option<Span>,
    /// Whether many alerts at one destination are told together, where people read or are woken.
    pub merge: bool,
    /// Destinations that are written to at the same time.
    pub min_workers: u32,
    pub max_workers: u32,
    /// Within it, 95 in a hundred notices are to be delivered once they may leave.
    pub slo: Span,
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
    /// Whom the daemon becomes when it was started as root.
    pub user: Option<Box<str>>,
    /// Nothing is kept of root's powers once it has started.
    pub drop_capabilities: bool,
    /// Whom scripts run as when the daemon is root.
    pub script_user: Option<Box<str>>,
    /// Folders for `notify: log`; `None` for the defaults of [`Folders`](crate::config::Folders).
    pub log_dirs: Option<Vec<PathBuf>>,
    /// Folders for secrets and private keys; `None` likewise.
    pub secret_dirs: Option<Vec<PathBuf>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// `None`: `cpra.db` in the state folder.
    pub path: Option<PathBuf>,
    /// History that is older is removed,
    pub max_age: Span,
    /// and so is the oldest of it when the file has more bytes.
    pub max_size: u64,
}

impl Default for Store {
    fn default() -> Self {
        Self { path: None, max_age: STORE_AGE_DEFAULT, max_size: STORE_SIZE_DEFAULT }
    }
}

/// How names are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolver {
    /// Asked in this order; those of resolv.conf if empty.
    pub servers: Vec<SocketAddr>,
    /// How long one server has to answer; `None` for the resolver's own default.
    pub timeout: Option<Span>,
    pub prefer: Family,
}

/// Monitors that tell whether it is cpra itself that cannot see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blind {
    pub canaries: Vec<Box<str>>,
}

/// Programs of ours in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ebpf {
    pub mode: EbpfMode,
    pub hook: EbpfHook,
    /// Interfaces by name, a `*` at the end standing for any ending; all of them, but for the ports of a bridge or a bond,
    /// if none is named.
    pub interfaces: Vec<Box<str>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EbpfMode {
    /// Where the kernel lets us; sockets do the work elsewhere.
    #[default]
    Auto,
    /// No start without.
    Require,
    Off,
}

/// Where in an interface's path the programs stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EbpfHook {
    /// The first of TCX (Linux 6.6) and clsact that the kernel has.
    #[default]
    Auto,
    Tcx,
    Clsact,
    /// XDP on the way in; on the way out, where there is no XDP, as with [`EbpfHook::Auto`]. So is the way in of an interface
    /// that has no Ethernet header, or somebody else's XDP program.
    Xdp,
}

/// Who notices that cpra itself is gone: a url that is called again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watchdog {
    /// It may hold a token.
    pub url: Option<Secret>,
    pub interval: Span,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histograms {
    pub dir: Option<PathBuf>,
    pub interval: Span,
}

impl Default for Api {
    fn default() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 9860));
        Self { listen, socket: None, token_file: None, external_url: None }
    }
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            min_workers: 64,
            max_workers: 50_000,
            slo: Span::from_millis(100),
            slo_percentile: 95,
            wait_slo: None,
            service_time: Span::from_millis(20),
            headroom: Share(150),
            max_echo_rate: PACKET_RATE,
            max_syn_rate: PACKET_RATE,
        }
    }
}

impl Default for Intervention {
    fn default() -> Self {
        Self {
            max_workers: 16,
            cooldown: Span::from_secs(300),
            actions_per_minute: 10,
            red_after: Span::from_secs(120),
            startup_grace: Span::from_secs(60),
            breaker: Breaker { share: Share(300), min_failing: 5 },
            allow: None,
            dry_run: false,
        }
    }
}

impl Default for Code {
    fn default() -> Self {
        Self {
            fallback: FALLBACK.into(),
            repeat_interval: Some(Span::from_secs(4 * 3600)),
            merge: true,
            min_workers: CODE_WORKERS_MIN,
            max_workers: CODE_WORKERS_MAX,
            slo: Span::from_millis(100),
        }
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self { servers: Vec::new(), timeout: None, prefer: Family::V4 }
    }
}

impl Default for Watchdog {
    fn default() -> Self {
        Self { url: None, interval: Span::from_secs(60) }
    }
}

impl Default for Histograms {
    fn default() -> Self {
        Self { dir: None, interval: Span::from_secs(60) }
    }
}

/// A check of a neighbour takes less than any promise that can be kept.
const SERVICE_TIMES: RangeInclusive<Span> = Span::from_micros(10)..=Span::from_secs(3_600);
const MOMENTS: RangeInclusive<Span> = Span::from_millis(1)..=Span::from_secs(3_600);
const WHILES: RangeInclusive<Span> = Span::from_millis(0)..=Span::from_secs(7 * 24 * 3_600);
/// `[store] max_age` and `max_size`.
const STORE_AGES: RangeInclusive<Span> = Span::from_secs(3_600)..=Span::from_secs(10 * 366 * 24 * 3_600);
const STORE_SIZES: RangeInclusive<u64> = 8 << 20..=1 << 40;
const REPEATS: RangeInclusive<Span> = Span::from_secs(1)..=Span::from_secs(7 * 24 * 3_600);

/// Puts what a key says where it belongs; what is faulty or not there changes nothing.
fn set<T>(
    place: &mut T,
    section: &Section<'_>,
    findings: &mut Findings,
    key: &str,
    parse: impl FnOnce(&Node) -> Result<T, String>,
) {
    if let Some(value) = section.value(findings, &[key], parse) {
        *place = value;
    }
}

fn some<T>(parse: impl FnOnce(&Node) -> Result<T, String>) -> impl FnOnce(&Node) -> Result<Option<T>, String> {
    move |node| parse(node).map(Some)
}

fn count(range: RangeInclusive<u64>) -> impl FnOnce(&Node) -> Result<u32, String> {
    move |node| value::integer(range)(node).map(|count| u32::try_from(count).unwrap_or(u32::MAX))
}

impl Api {
    pub(super) fn read(&mut self, section: &Section<'_>, findings: &mut Findings) {
        set(&mut self.listen, section, findings, "listen", |node| listen(value::text(node)?));
        set(&mut self.socket, section, findings, "socket", some(path));
        set(&mut self.token_file, section, findings, "token_file", some(path));
        set(&mut self.external_url, section, findings, "external_url", some(web_address));
    }
}

impl Pulse {
    pub(super) fn read(&mut self, section: &Section<'_>, findings: &mut Findings) {
        set(&mut self.min_workers, section, findings, "min_workers", count(WORKERS));
        set(&mut self.max_workers, section, findings, "max_workers", count(WORKERS));
        set(&mut self.slo, section, findings, "slo", value::span(MOMENTS));
        set(&mut self.slo_percentile, section, findings, "slo_percentile", |node| {
            count(1..=99)(node).map(|percentile| u8::try_from(percentile).unwrap_or(99))
        });
        set(&mut self.wait_slo, section, findings, "wait_slo", some(value::span(MOMENTS)));
        set(&mut self.service_time, section, findings, "service_time", value::span(SERVICE_TIMES));
        set(&mut self.headroom, section, findings, "headroom", share);
        set(&mut self.max_echo_rate, section, findings, "max_echo_rate", count(PACKET_RATES));
        set(&mut self.max_syn_rate, section, findings, "max_syn_rate", count(PACKET_RATES));
    }
}

const BREAKER_KEYS: Keys<'static> = Keys { known: &["share", "min_failing"], without_effect: &[], refused: &[] };

impl Intervention {
    pub(super) fn read(&mut self, section: &Section<'_>, findings: &mut Findings) {
        set(&mut self.max_workers, section, findings, "max_workers", count(1..=4_096));
        set(&mut self.cooldown, section, findings, "cooldown", value::span(WHILES));
        set(&mut self.actions_per_minute, section, findings, "actions_per_minute", count(1..=100_000));
        set(&mut self.red_after, section, findings, "red_after", value::span(WHILES));
        set(&mut self.startup_grace, section, findings, "startup_grace", value::span(WHILES));
        set(&mut self.allow, section, findings, "allow", some(words));
        set(&mut self.dry_run, section, findings, "dry_run", value::boolean);
        if let Some(breaker) = section.section(findings, &["breaker"]) {
            breaker.check_keys(findings, BREAKER_KEYS);
            set(&mut self.breaker.share, &breaker, findings, "share", share);
            set(&mut self.breaker.min_failing, &breaker, findings, "min_failing", count(1..=1_000_000));
        }
    }
}

impl Code {
    pub(super) fn read(&mut self, section: &Section<'_>, findings: &mut Findings) {
        set(&mut self.fallback, section, findings, "fallback", |node| value::line(255)(node).map(Box::from));
        set(&mut self.repeat_interval, section, findings, "repeat_interval", some(value::span(REPEATS)));
        set(&mut self.merge, section, findings, "merge", value::boolean);
        set(&mut self.min_workers, section, findings, "min_workers", count(CODE_WORKERS));
        set(&mut self.max_workers, section, findings, "max_workers", count(CODE_WORKERS));
        set(&mut self.slo, section, findings, "slo", value::span(MOMENTS));
    }
}

impl Log {
    pub(super) fn read(&mut self, section: &Section<'_>, findings: &mut Findings) {
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        set(&mut self.format, section, findings, "format", value::choice(&formats));
    }
}

impl Security {
    pub(super) fn read(&mut self, section: &Section<'_>, findings: &mut Findings) {
        set(&mut self.user, section, findings, "user", some(user));
        set(&mut self.drop_capabilities, section, findings, "drop_capabilities", value::boolean);
        set(&mut self.script_user, section, findings, "script_user", some(user));
        set(&mut self.log_dirs, section, findings, "log_dirs", some(folders));
        set(&mut self.secret_dirs, section, findings, "secret_dirs", some(folders));
    }
}

impl Store {
    pub(super) fn read(&mut self, section: &Section<'_>, findings: &mut Findings) {
        set(&mut self.path, section, findings, "path", some(path));
        set(&mut self.max_age, section, findings, "max_age", value::span(STORE_AGES));
        set(&mut self.max_size, section, findings, "max_size", file_size);
    }
}

impl Resolver {
    pub(super) fn read(&mut self, section: &Section<'_>, findings: &mut Findings) {
        set(&mut self.servers, section, findings, "servers", servers);
        let range = Span::from_millis(50)..=Span::from_secs(10);
        set(&mut self.timeout, section, findings, "timeout", some(value::span(range)));
        let families = [("ipv4", Family::V4), ("ipv6", Family::V6)];
        set(&mut self.prefer, section, findings, "prefer", value::choice(&families));
    }
}

impl Blind {
    pub(super) fn read(&mut self, section: &Section<'_>, findings: &mut Findings) {
        set(&mut self.canaries, section, findings, "canaries", words);
    }
}

impl Ebpf {
    pub(super) fn read(&mut self, section: &Section<'_>, findings: &mut Findings) {
        set(&mut self.mode, section, findings, "mode", |node| {
            let modes = [("auto", EbpfMode::Auto), ("require", EbpfMode::Require), ("off", EbpfMode::Off)];
            value::choice(&modes)(node).map_err(|wrong| match value::text(node) {
                // What earlier versions took, and what people try.
                Ok(yes) if ["on", "true", "yes"].iter().any(|word| word.eq_ignore_ascii_case(yes)) => format!(
                    "{} does not say what to do where the kernel has no place for it: write \"auto\" to go on without, \
                     \"require\" not to start",
                    quoted(yes)
                ),
                _ => wrong,
            })
        });
        let hooks =
            [("auto", EbpfHook::Auto), ("tcx", EbpfHook::Tcx), ("clsact", EbpfHook::Clsact), ("xdp", EbpfHook::Xdp)];
        set(&mut self.hook, section, findings, "hook", value::choice(&hooks));
        set(&mut self.interfaces, section, findings, "interfaces", interfaces);
    }
}

impl Watchdog {
    pub(super) fn read(&mut self, section: &Section<'_>, findings: &mut Findings) {
        set(&mut self.url, section, findings, "url", |node| {
            let address = destinations::web_address(value::text(node)?)?;
            Ok(Some(Secret::new(address.text)))
        });
        set(&mut self.interval, section, findings, "interval", value::span(REPEATS));
    }
}

impl Histograms {
    pub(super) fn read(&mut self, section: &Section<'_>, findings: &mut Findings) {
        set(&mut self.dir, section, findings, "dir", some(path));
        set(&mut self.interval, section, findings, "interval", value::span(REPEATS));
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

/// `0.15` in thousandths.
fn share(node: &Node) -> Result<Share, String> {
    let written = value::text(node)?;
    let wrong = || format!("{} is no share: write a number from 0 to 1, such as 0.15", quoted(written));
    let (whole, fraction) = written.split_once('.').unwrap_or((written, ""));
    let is_decimal = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !matches!(whole, "0" | "1") || !is_decimal(fraction) || written.ends_with('.') {
        return Err(wrong());
    }
    if fraction.len() > 3 {
        return Err(format!("{} is too fine: three digits behind the point at most", quoted(written)));
    }
    let thousandths: u16 = format!("{whole}{fraction:0<3}").parse().map_err(|_| wrong())?;
    if thousandths <= 1_000 { Ok(Share(thousandths)) } else { Err(wrong()) }
}

fn path(node: &Node) -> Result<PathBuf, String> {
    value::line(PATH_MAX)(node).map(PathBuf::from)
}

/// Bytes of a file: `512MiB`, `1GiB`.
fn file_size(node: &Node) -> Result<u64, String> {
    let written = value::text(node)?;
    let lower = written.to_ascii_lowercase();
    let (digits, unit) = lower.split_at(lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len()));
    let scale = match unit.trim() {
        "m" | "mb" | "mib" => Some(1 << 20),
        "g" | "gb" | "gib" => Some(1 << 30),
        _ => None,
    };
    match scale.and_then(|scale: u64| digits.parse::<u64>().ok()?.checked_mul(scale)) {
        Some(bytes) if STORE_SIZES.contains(&bytes) => Ok(bytes),
        Some(_) => Err(format!("{written} is out of range: 8MiB to 1024GiB")),
        None => Err(format!("{} is no size: write it like 512MiB, or 1GiB", quoted(written))),
    }
}

/// A name that the system has for a user, or a number.
fn user(node: &Node) -> Result<Box<str>, String> {
    let name = value::line(32)(node)?;
    let is_name = !name.starts_with('-')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    if is_name { Ok(name.into()) } else { Err(format!("{} is no name of a user", quoted(name))) }
}

fn web_address(node: &Node) -> Result<Box<str>, String> {
    let text = value::line(2_048)(node)?;
    let remedy = "write it like \"https://cpra.example.com\"";
    match url::Url::parse(text) {
        Ok(url)
            if matches!(url.scheme(), "http" | "https") && !url.username().is_empty() | url.password().is_some() =>
        {
            Err(format!("has a user or a password in it: {remedy}"))
        }
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(text.into()),
        Ok(_) => Err(format!("{} is no address of the web: {remedy}", quoted(text))),
        Err(error) => Err(format!("{} is no address of the web ({error}): {remedy}", quoted(text))),
    }
}

fn words(node: &Node) -> Result<Vec<Box<str>>, String> {
    let items = value::items(node)?;
    if items.len() > LIST_MAX {
        return Err(format!("has {} values: at most {LIST_MAX}", items.len()));
    }
    items.into_iter().map(|item| value::line(255)(item).map(Box::from)).collect()
}

/// Names of interfaces, or their beginnings.
fn interfaces(node: &Node) -> Result<Vec<Box<str>>, String> {
    let items = value::items(node)?;
    if items.len() > INTERFACES_MAX {
        return Err(format!("has {} names: at most {INTERFACES_MAX}", items.len()));
    }
    let interface = |item: &Node| {
        let name = value::text(item)?;
        let stem = name.strip_suffix('*').unwrap_or(name);
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'*');
        let is_name = !name.is_empty() && stem.len() <= INTERFACE_NAME_MAX && stem.bytes().all(is_plain);
        if is_name && !matches!(name, "." | "..") {
            Ok(name.into())
        } else {
            Err(format!("{} is no name of an interface: write it like \"eth0\", or \"veth*\" for many", quoted(name)))
        }
    };
    items.into_iter().map(interface).collect()
}

fn servers(node: &Node) -> Result<Vec<SocketAddr>, String> {
    let items = value::items(node)?;
    if items.len() > SERVERS_MAX {
        return Err(format!("has {} addresses: at most {SERVERS_MAX}", items.len()));
    }
    let server = |item: &Node| {
        let text = value::line(64)(item)?;
        let bare = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, SERVER_PORT));
        bare.or_else(|_| text.parse::<SocketAddr>()).map_err(|_| {
            format!("{} is no address: write it like \"10.0.0.53\", or \"10.0.0.53:5353\" with a port", quoted(text))
        })
    };
    items.into_iter().map(server).collect()
}

fn folders(node: &Node) -> Result<Vec<PathBuf>, String> {
    let mut folders = Vec::new();
    for item in value::items(node)? {
        let folder = Path::new(value::line(PATH_MAX)(item)?);
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

#[cfg(test)]
mod tests {
    use super::super::super::node::Mark;
    use super::*;

    #[test]
    fn shares_are_read_exactly() {
        let read = |text: &str| share(&Node::scalar(Mark::default(), text.into(), false));
        for (text, thousandths) in [("0", 0), ("1", 1_000), ("1.0", 1_000), ("0.15", 150), ("0.305", 305)] {
            assert_eq!(read(text), Ok(Share(thousandths)), "{text}");
        }
        for wrong in ["1.1", "-0.1", "15%", "0.", ".5", "2", "0.3001", "x", "0,3"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
