//! The start of the daemon, as a person sees it: files, findings, the banner, and then the story.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;

use super::files::Again;
use super::{Args, plural, summary};
use crate::api;
use crate::api::access::Token;
use crate::config::daemon::LogFormat;
use crate::config::{self, Diagnostics, Folders, Report, Settings};
use crate::daemon::reload::Files;
use crate::daemon::{self, Plan, watchdog};
use crate::domain::Check;
use crate::os::clock::Clock;
use crate::os::ebpf;
use crate::os::histograms;
use crate::os::limits::NofileLimit;
use crate::os::local::{self, LocalSocket};
use crate::os::logging;
use crate::os::ping;
use crate::os::preflight::{self, Demand, Severity};
use crate::os::privilege::{Privilege, Wish};
use crate::os::resolve;
use crate::os::signals::Signals;
use crate::os::spawn;
use crate::os::supervisor::Supervisor;
use crate::os::syn::Ports;
use crate::os::tls;
use crate::queueing::{Bounds, Presize, Setup, Slo};
use crate::ring::Family;
use crate::shard;
use crate::store;
use crate::units::limits::SYN_PORTS;
use crate::units::{Instant, Span};
use crate::wire::tls::Trust;
use crate::world::Catalog;
use crate::world::catalog::CatalogBuilder;

/// Runs the daemon until it is told to end. Whatever keeps it from starting is told on stderr, with the remedy.
pub fn run(args: &Args) -> ExitCode {
    let began = Clock.now();
    match try_run(args, began) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr().lock(), "cpra: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn try_run(args: &Args, began: Instant) -> anyhow::Result<ExitCode> {
    // Before any thread is started: threads inherit which signals are blocked.
    let signals = Signals::block()?;
    let (settings, diagnostics) = args.settings();
    let format = match settings.log.format {
        LogFormat::Text => logging::Format::Text,
        LogFormat::Json => logging::Format::Json,
    };
    logging::start(format, args.debug)?;
    daemon::abort_on_panic();
    if !tell(&diagnostics) {
        anyhow::bail!("the daemon file has {}: nothing was started", plural(diagnostics.errors(), "error"));
    }
    let files = NofileLimit::raise()?;
    let shards = daemon::shards_for(std::thread::available_parallelism().map_or(1, usize::from));
    let loaded = load(args, &settings, shards)?;
    let privilege = Privilege::decide(&wish(&settings, runs_scripts(&loaded.catalog)))?;
    let contexts = secure(&loaded.catalog)?;
    let api = api::listen::bind(settings.api.listen)?;
    let profile = if args.pprof { api::profile::bind(args.pprof_addr) } else { None };
    let instance = settings.instance.clone().unwrap_or_else(host_name);
    let (pulse, code) = (pulse(&settings), code(&settings));
    let presize = presize(&pulse, &loaded.catalog);
    let findings = host_findings(&loaded.catalog, &settings, files);
    for finding in &findings {
        tracing::warn!("{}: {}; {}", finding.subject, finding.text, finding.remedy);
    }
    let folders = args.folders(&settings);
    let local = local_socket(&settings, &folders)?;
    if let (Some(local), Some(user)) = (&local, privilege.becomes())
        && let Err(error) = local.give_to(user)
    {
        let (path, user) = (local.path().display(), &user.name);
        tracing::warn!("{path} stays root's, so that {user} cannot use it: {error}");
    }
    let token = token(&settings, privilege.becomes().map_or_else(local::own_uid, |user| user.user))?;
    let syn_ports = syn_ports(&settings, &loaded.catalog);
    let demand = ebpf::Demand {
        shards,
        slots: pulse.shared_by(u32::from(shards)).bounds.max,
        ports: syn_ports.as_ref().map_or((0, 0), Ports::range),
        seed: daemon::seed() as u32,
    };
    let kernel = ebpf::Signals::start(&ebpf(&settings), demand).context("no eBPF, and `[ebpf] mode` requires it")?;
    if syn_ports.is_some() && !matches!(kernel, ebpf::Signals::On(_)) {
        tracing::warn!("half-open checks (mode: syn) make connections: there are no eBPF programs, {kernel}");
    }
    let sizing = format!("pulse: {presize}   code: {}", plural(code.bounds.min as usize, "worker"));
    let user = privilege.to_string();
    let kept = store(&settings, &folders);
    banner(
        args,
        &settings,
        &loaded,
        Clock.now().since(began),
        &Stand {
            sizing,
            kernel: kernel.to_string(),
            store: kept.path.display().to_string(),
            user,
            findings: findings.len(),
        },
    );
    let again = Again {
        args: args.clone(),
        settings: settings.clone(),
        folders: folders.clone(),
        open_files: files,
        scripts: runs_scripts(&loaded.catalog) || Privilege::decide(&wish(&settings, true)).as_ref() == Ok(&privilege),
    };
    for notice in privilege.notices() {
        tracing::info!("{notice}");
    }
    let plan = Plan {
        instance,
        catalog: loaded.catalog,
        loaded: loaded.found,
        providers: loaded.report.receivers.named,
        fallback: loaded.report.receivers.fallback,
        repeat_interval: settings.code.repeat_interval,
        merges: settings.code.merge,
        queue_capacity: settings.queue_capacity,
        pulse,
        code,
        batch_size: settings.batch_size,
        rates: shard::Rates { echo: settings.pulse.max_echo_rate, syn: settings.pulse.max_syn_rate },
        log_dirs: folders.log_dirs,
        store: store::Settings::File(kept),
        state_dir: folders.state,
        resolver: resolver(&settings),
        api,
        profile,
        local,
        token,
        names: outer_name(&settings).into_iter().collect(),
        findings,
        files: (!args.yaml.is_empty()).then(|| Box::new(again) as Box<dyn Files>),
        contexts,
        scripts: scripts(&settings),
        histograms: histograms::Settings {
            dir: settings.histograms.dir.clone(),
            interval: settings.histograms.interval,
        },
        signals: kernel,
        syn_ports,
        privilege,
        supervisor: supervisor()?,
        watchdog: watchdog::Settings { url: settings.watchdog.url.clone(), interval: settings.watchdog.interval },
    };
    let daemon = daemon::start(plan)?;
    // A clean end is a success even where a notice was left behind: that was told, loudly, and is not undone by 1.
    daemon.run(&signals);
    Ok(ExitCode::SUCCESS)
}

/// The command line's way in. A socket that was asked for must be had; without the default one the daemon does its work
/// all the same.
fn local_socket(settings: &Settings, folders: &Folders) -> anyhow::Result<Option<LocalSocket>> {
    const FLAG: &str = "--api.socket PATH";
    match &settings.api.socket {
        Some(path) => match LocalSocket::bind(path) {
            Ok(socket) => Ok(Some(socket)),
            Err(error) => anyhow::bail!("cannot listen on {error} with {FLAG}"),
        },
        None => match LocalSocket::bind(&folders.socket) {
            Ok(socket) => Ok(Some(socket)),
            Err(error) => {
                tracing::warn!(
                    "no unix socket, so that the command line cannot reach this daemon: {error} with {FLAG}"
                );
                Ok(None)
            }
        },
    }
}

/// The service manager, if there is one that wants to know.
fn supervisor() -> anyhow::Result<Option<Arc<Supervisor>>> {
    match Supervisor::of_process() {
        Ok(supervisor) => Ok(supervisor.map(Arc::new)),
        Err(error) => anyhow::bail!("NOTIFY_SOCKET {error}: unset it, or start the daemon by the service manager"),
    }
}

/// `own` is who will run.
fn token(settings: &Settings, own: u32) -> anyhow::Result<Option<Token>> {
    let Some(path) = &settings.api.token_file else { return Ok(None) };
    match Token::read(path, own) {
        Ok(token) => Ok(Some(token)),
        Err(error) => anyhow::bail!("[api] token_file {} {error}", path.display()),
    }
}

/// The host of `external_url`: people and jobs elsewhere call the API by it.
fn outer_name(settings: &Settings) -> Option<String> {
    let url = url::Url::parse(settings.api.external_url.as_deref()?).ok()?;
    url.host_str().map(str::to_owned)
}

/// Where a check or a notice alone takes longer than was promised, it may wait this long for a worker.
const WAIT: Span = Span::from_millis(10);

/// How the pulse pipeline is sized.
fn pulse(settings: &Settings) -> Setup {
    let pulse = &settings.pulse;
    let wait = pulse.wait_slo.unwrap_or(WAIT.min(pulse.slo));
    let config::daemon::Share(headroom) = pulse.headroom;
    Setup {
        slo: Slo { within: pulse.slo, percentile: pulse.slo_percentile, wait },
        bounds: Bounds { min: pulse.min_workers, max: pulse.max_workers, headroom },
        service_time: pulse.service_time,
    }
}

/// The same of the code pipeline.
fn code(settings: &Settings) -> Setup {
    let code = &settings.code;
    let default = Setup::default();
    Setup {
        slo: Slo { within: code.slo, wait: WAIT.min(code.slo), ..default.slo },
        bounds: Bounds { min: code.min_workers, max: code.max_workers, ..default.bounds },
        ..default
    }
}

/// What the pulse pipeline begins with: every type of checks of every shard has a queue of its own.
fn presize(setup: &Setup, catalog: &Catalog) -> Presize {
    Presize::new(setup, (0..catalog.shards()).flat_map(|shard| catalog.check_rates(shard)))
}

/// Bounds that are too narrow for what will be due.
fn short_of_workers(presize: &Presize) -> Option<api::Finding> {
    let needed = presize.needed;
    (!presize.is_met()).then(|| api::Finding {
        subject: "[pulse] max_workers".to_owned(),
        text: format!("too low: allows {presize}, which takes {needed}"),
        remedy: format!("raise it to {needed} or more, or lengthen intervals"),
    })
}

/// Bounds that are lower than what intervals alone ask for.
fn short_of_packets(demand: &Demand, pulse: &config::daemon::Pulse) -> Vec<api::Finding> {
    let bounds = [
        ("echo", "echo requests", demand.echoes_per_second, pulse.max_echo_rate),
        ("syn", "SYNs", demand.syns_per_second, pulse.max_syn_rate),
    ];
    // The rest of a bound is for bursts.
    const STEADY: f64 = 0.95;
    let short = bounds.into_iter().filter(|(_, _, wanted, most)| *wanted > f64::from(*most) * STEADY);
    let told = short.map(|(name, packets, wanted, most)| api::Finding {
        subject: format!("[pulse] max_{name}_rate"),
        text: format!("too low: {most} {packets} may leave in a second, intervals ask for {wanted:.0}"),
        remedy: format!("raise it to {:.0} or more, or lengthen intervals", wanted / STEADY),
    });
    told.collect()
}

pub(super) fn resolver(settings: &Settings) -> resolve::Settings {
    let default = resolve::Settings::default();
    let config::daemon::Resolver { servers, timeout, prefer } = &settings.resolver;
    resolve::Settings {
        servers: servers.clone(),
        prefer: *prefer,
        timeout: timeout.unwrap_or(default.timeout),
        ..default
    }
}

/// Source ports for half-open checks, where there are any. Without them such checks connect.
fn syn_ports(settings: &Settings, catalog: &Catalog) -> Option<Ports> {
    let wanted = catalog.policies().iter().any(|policy| policy.check.is_half_open());
    if !wanted || settings.ebpf.mode == ebpf::Mode::Off {
        return None;
    }
    Ports::reserve()
        .inspect_err(|error| {
            tracing::warn!(
                "no {SYN_PORTS} source ports in a row are free outside net.ipv4.ip_local_port_range ({error}): half-open \
                 checks make connections; leave some out of that range"
            );
        })
        .ok()
}

fn ebpf(settings: &Settings) -> ebpf::Settings {
    let config::daemon::Ebpf { mode, hook, interfaces } = &settings.ebpf;
    ebpf::Settings { mode: *mode, hook: *hook, interfaces: ebpf::Interfaces::named(interfaces.iter().cloned()) }
}

/// What `[security]` wants of this process, where the monitors run scripts or do not.
pub(super) fn wish(settings: &Settings, scripts: bool) -> Wish<'_> {
    let config::daemon::Security { user, drop_capabilities, script_user, .. } = &settings.security;
    Wish { user: user.as_deref(), drop_capabilities: *drop_capabilities, scripts, script_user: script_user.as_deref() }
}

fn store(settings: &Settings, folders: &Folders) -> store::FileSettings {
    let config::daemon::Store { path, max_age, max_size } = &settings.store;
    let path = path.clone().unwrap_or_else(|| folders.state.join("cpra.db"));
    store::FileSettings { path, max_age: *max_age, max_size: *max_size }
}

pub(super) fn runs_scripts(catalog: &Catalog) -> bool {
    catalog.policies().iter().any(|policy| matches!(policy.check, Check::Script(_)))
}

pub(super) fn scripts(settings: &Settings) -> spawn::Settings {
    let default = spawn::Settings::default();
    spawn::Settings { user: settings.security.script_user.clone().unwrap_or(default.user), ..default }
}

struct Loaded {
    catalog: Catalog,
    /// Monitors files were named and are there.
    found: bool,
    report: Report,
}

fn load(args: &Args, settings: &Settings, shards: u8) -> anyhow::Result<Loaded> {
    let mut builder = CatalogBuilder::new(shards);
    let mut refused = None;
    let mut report = config::read_all(&args.yaml, &args.folders(settings), &mut |monitor| {
        if refused.is_none() {
            refused = builder.add(monitor).err();
        }
    });
    report.diagnostics.append(std::mem::take(&mut report.unused));
    if report.provider_errors > 0 {
        tell(&report.diagnostics);
        let errors = plural(report.provider_errors, "error");
        anyhow::bail!("the daemon file has {errors} in [providers]: nothing was started");
    }
    let none = |receivers| Report { receivers, ..Report::default() };
    if args.yaml.is_empty() {
        tell(&report.diagnostics);
        return Ok(Loaded { catalog: builder.finish()?, found: false, report: none(report.receivers) });
    }
    if report.missing {
        // As the original says it; a service that is installed before its file comes up, and `/readyz` stays 503.
        let _ = writeln!(
            std::io::stderr().lock(),
            "Warning: YAML file {} not found, starting without loading monitors",
            summary::sources(&report, &args.yaml).trim_end_matches(" (0 files)")
        );
        return Ok(Loaded { catalog: builder.finish()?, found: false, report: none(report.receivers) });
    }
    let sources = summary::sources(&report, &args.yaml);
    if !tell(&report.diagnostics) {
        let errors = plural(report.diagnostics.errors(), "error");
        anyhow::bail!("{sources} has {errors}: nothing was started");
    }
    if let Some(error) = refused {
        anyhow::bail!("{sources}: {error}");
    }
    Ok(Loaded { catalog: builder.finish()?, found: true, report })
}

/// Reads the files that TLS policies name. All that is wrong with them is told before the end.
pub(super) fn secure(catalog: &Catalog) -> anyhow::Result<Arc<Trust>> {
    let mut loader = tls::Loader::default();
    let mut faults = Vec::new();
    for policy in catalog.policies() {
        faults.extend(loader.add(policy).err().into_iter().flatten());
    }
    let careless = catalog.policies().iter().filter_map(|policy| policy.check.tls());
    let careless = careless.filter(|tls| tls.insecure_skip_verify).count();
    if careless > 0 {
        tracing::warn!(
            policies = careless,
            "insecure_skip_verify: who answers these TLS checks is not looked at; anybody on the way may answer"
        );
    }
    if faults.is_empty() {
        return Ok(loader.finish());
    }
    faults.dedup();
    let mut stderr = std::io::stderr().lock();
    for fault in &faults {
        let _ = writeln!(stderr, "error: {fault}");
    }
    anyhow::bail!("TLS cannot be prepared: {}; nothing was started", plural(faults.len(), "error"));
}

/// Prints what is wrong; answers whether one can go on.
fn tell(diagnostics: &Diagnostics) -> bool {
    // Nobody may be there to read it; that is no reason not to start.
    let _ = write!(std::io::stderr().lock(), "{diagnostics}");
    diagnostics.errors() == 0
}

/// How the daemon stands, in the words of the banner.
struct Stand {
    sizing: String,
    /// Whether programs in the kernel help.
    kernel: String,
    /// Where it keeps what must survive.
    store: String,
    /// Whom it runs as.
    user: String,
    findings: usize,
}

fn banner(args: &Args, settings: &Settings, loaded: &Loaded, took: Span, stand: &Stand) {
    let monitors = match args.yaml.first() {
        Some(_) if loaded.found => {
            let text = summary::of(&loaded.report, &args.yaml);
            format!("{text} in {took} ({})", summary::findings(&loaded.report.diagnostics))
        }
        Some(path) => format!("no monitors: there is no {}", path.display()),
        None => {
            "no monitors: name a file with --yaml FILE (configs/quickstart.yaml is a tour of one minute)".to_owned()
        }
    };
    let Stand { sizing, kernel, store, user, findings } = stand;
    let limits = match *findings {
        0 => "enough for these monitors".to_owned(),
        some => plural(some, "finding") + ", see the log",
    };
    let text = format!(
        "cpra {version}  {monitors}\n  \
         backends  io_uring: on   eBPF: {kernel}   store: {store}\n  \
         sizing    {sizing}\n  \
         limits    {limits}\n  \
         user      {user}\n{notes}  \
         open      {url}      stop: Ctrl-C\n",
        version = env!("CARGO_PKG_VERSION"),
        notes = summary::notes(&loaded.report),
        url = api::url_of(settings.api.listen),
    );
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// Where this host is near its limits with these monitors, and the settings are.
pub(super) fn host_findings(catalog: &Catalog, settings: &Settings, files: NofileLimit) -> Vec<api::Finding> {
    let demand = Demand::of(catalog, settings.pulse.max_workers);
    let mut findings = findings(&demand, files);
    findings.extend(short_of_packets(&demand, &settings.pulse));
    findings.extend(short_of_workers(&presize(&pulse(settings), catalog)));
    findings
}

/// Where this host is near its limits, for people.
fn findings(demand: &Demand, files: NofileLimit) -> Vec<api::Finding> {
    let mut judged = preflight::judge(demand, Path::new("/proc"), files.soft);
    judged.extend(preflight::echo(demand, [Family::V4, Family::V6].map(ping::means)));
    let notable = judged.into_iter().filter(|finding| finding.severity != Severity::Ok);
    let told = notable.map(|finding| {
        let verdict = if finding.severity == Severity::Short { "too low" } else { "tight" };
        let text = format!("{verdict}: {} is there, up to {} is wanted", finding.available, finding.demand);
        api::Finding { subject: finding.limit.to_owned(), text, remedy: finding.advice }
    });
    told.collect()
}

fn host_name() -> Box<str> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "cpra".into() } else { name.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_keys_size_the_pipelines() {
        let mut settings = Settings::default();
        assert_eq!(pulse(&settings), Setup::default());
        let Setup { slo, bounds, .. } = code(&settings);
        assert_eq!((slo, bounds), (Setup::default().slo, Bounds { min: 4, max: 64, headroom: 150 }));
        settings.pulse.slo = Span::from_millis(5);
        (settings.code.slo, settings.code.max_workers) = (Span::from_millis(2), 8);
        assert_eq!(pulse(&settings).slo.wait, Span::from_millis(5), "nobody waits longer than all of it may take");
        let Setup { slo, bounds, .. } = code(&settings);
        assert_eq!((slo.within, slo.wait, bounds.max), (Span::from_millis(2), Span::from_millis(2), 8));
        settings.pulse.wait_slo = Some(Span::from_millis(3));
        assert_eq!(pulse(&settings).slo.wait, Span::from_millis(3));
    }

    #[test]
    fn a_bound_of_packets_that_intervals_alone_exceed_is_found_before_the_start() {
        let of = |echoes_per_second, syns_per_second| {
            let demand = Demand::of(&CatalogBuilder::new(1).finish().expect("it is empty"), 1);
            short_of_packets(&Demand { echoes_per_second, syns_per_second, ..demand }, &Settings::default().pulse)
        };
        assert_eq!(of(190_000.0, 190_000.0), []);
        let [echo, syn] = &of(200_000.0, 1e6)[..] else { panic!("nothing is left for bursts") };
        let text = "too low: 200000 echo requests may leave in a second, intervals ask for 200000";
        assert_eq!((echo.subject.as_str(), echo.text.as_str()), ("[pulse] max_echo_rate", text));
        assert!(echo.remedy.starts_with("raise it to 210526 or more"), "{}", echo.remedy);
        assert_eq!(syn.subject, "[pulse] max_syn_rate");
    }

    #[test]
    fn too_few_workers_are_found_before_the_start() {
        let bounds = Bounds { min: 1, max: 2_000, headroom: 0 };
        let setup = Setup { bounds, ..Setup::default() };
        assert_eq!(short_of_workers(&Presize::new(&setup, [90_000.0])), None);
        let short = Presize::new(&setup, [250_000.0]);
        let finding = short_of_workers(&short).expect("5,000 erlangs are more");
        let needed = short.needed;
        assert_eq!(
            (finding.subject.as_str(), finding.text),
            (
                "[pulse] max_workers",
                format!(
                    "too low: allows 2,000 workers for 95 % within 100 ms (250,000/s at 20 ms each: 5,000 erlangs), \
                     which takes {needed}"
                )
            )
        );
        assert!(finding.remedy.starts_with(&format!("raise it to {needed} or more")), "{}", finding.remedy);
    }
}
