//! The start of the daemon, as a person sees it: files, findings, the banner, and then the story.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use super::{Args, plural, summary};
use crate::api;
use crate::config::daemon::LogFormat;
use crate::config::{self, Diagnostics, Report, Settings};
use crate::daemon::{self, Plan};
use crate::os::clock::Clock;
use crate::os::limits::NofileLimit;
use crate::os::logging;
use crate::os::preflight::{self, Demand, Severity};
use crate::os::signals::Signals;
use crate::units::{Instant, Span};
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
    let api = api::listen::bind(settings.api.listen)?;
    let profile = if args.pprof { api::profile::bind(args.pprof_addr) } else { None };
    let instance = settings.instance.clone().unwrap_or_else(host_name);
    let findings = findings(&Demand::of(&loaded.catalog, settings.pulse.max_workers), files);
    for finding in &findings {
        tracing::warn!("{}: {}; {}", finding.subject, finding.text, finding.remedy);
    }
    let folders = args.folders(&settings);
    banner(args, &settings, &loaded, Clock.now().since(began), &findings);
    let plan = Plan {
        instance,
        catalog: loaded.catalog,
        loaded: loaded.found,
        queue_capacity: settings.queue_capacity,
        slots_max: settings.pulse.max_workers,
        batch_size: settings.batch_size,
        log_dirs: folders.log_dirs,
        state_dir: folders.state,
        api,
        profile,
        names: Vec::new(),
        findings,
    };
    let daemon = daemon::start(plan)?;
    // A clean end is a success even where a notice was left behind: that was told, loudly, and is not undone by 1.
    daemon.run(&signals);
    Ok(ExitCode::SUCCESS)
}

struct Loaded {
    catalog: Catalog,
    /// Monitors files were named and are there.
    found: bool,
    report: Report,
}

fn load(args: &Args, settings: &Settings, shards: u8) -> anyhow::Result<Loaded> {
    let mut builder = CatalogBuilder::new(shards);
    if args.yaml.is_empty() {
        return Ok(Loaded { catalog: builder.finish()?, found: false, report: Report::default() });
    }
    let mut refused = None;
    let report = config::read_all(&args.yaml, &args.folders(settings), &mut |monitor| {
        if refused.is_none() {
            refused = builder.add(monitor).err();
        }
    });
    if report.missing {
        // As the original says it; a service that is installed before its file comes up, and `/readyz` stays 503.
        let _ = writeln!(
            std::io::stderr().lock(),
            "Warning: YAML file {} not found, starting without loading monitors",
            summary::sources(&report, &args.yaml).trim_end_matches(" (0 files)")
        );
        return Ok(Loaded { catalog: builder.finish()?, found: false, report: Report::default() });
    }
    let sources = summary::sources(&report, &args.yaml);
    if !tell(&report.diagnostics) {
        let errors = plural(report.diagnostics.errors(), "error");
        anyhow::bail!("{sources} has {errors}: nothing was started");
    }
    if let Some(error) = refused {
        anyhow::bail!("{sources}: {error}");
    }
    if report.unverified > 0 {
        tracing::warn!(
            monitors = report.unverified,
            "insecure_skip_verify: these monitors take any certificate, and anybody can answer for their targets"
        );
    }
    Ok(Loaded { catalog: builder.finish()?, found: true, report })
}

/// Prints what is wrong; answers whether one can go on.
fn tell(diagnostics: &Diagnostics) -> bool {
    // Nobody may be there to read it; that is no reason not to start.
    let _ = write!(std::io::stderr().lock(), "{diagnostics}");
    diagnostics.errors() == 0
}

fn banner(args: &Args, settings: &Settings, loaded: &Loaded, took: Span, findings: &[api::Finding]) {
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
    let limits = if findings.is_empty() {
        "enough for these monitors".to_owned()
    } else {
        plural(findings.len(), "finding") + ", see the log"
    };
    let text = format!(
        "cpra {version}  {monitors}\n  \
         backends  io_uring: on   eBPF: off (not in this version)   store: memory (incidents do not survive a restart)\n  \
         limits    {limits}\n{notes}  \
         open      {url}      stop: Ctrl-C\n",
        version = env!("CARGO_PKG_VERSION"),
        notes = summary::notes(&loaded.report),
        url = api::url_of(settings.api.listen),
    );
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// Where this host is near its limits, for people.
fn findings(demand: &Demand, files: NofileLimit) -> Vec<api::Finding> {
    let judged = preflight::judge(demand, Path::new("/proc"), files.soft);
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
