//! `cargo xtask bench tls`: HTTPS checks per CPU second, with and without resumption, beside a bare loop over rustls.
//!
//! The bare loop is what one would write first: one thread, blocking sockets, a `ClientConnection`, a request, its answer,
//! `close_notify`. It judges the same certificate with the same provider and pays for no timeouts, monitors or events. The
//! checks run in the daemon's own shard on io_uring. Both are processes of their own, so that the CPU time is the kernel's
//! account; they take turns with one server, so that what the machine does meanwhile hits both alike.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use cpra::domain::monitor::TlsPolicy;
use cpra::domain::{Check, Host, HttpCheck, Monitor, Policy, Target};
use cpra::os::clock::Clock;
use cpra::os::tls::Loader;
use cpra::os::uring::{Options as RingOptions, UringRing};
use cpra::queueing::Setup;
use cpra::ring::{Ring as _, Wait};
use cpra::shard::protocol::HostSample;
use cpra::shard::{Effect, Effects, Event, Settings, Shard};
use cpra::units::Span;
use cpra::world::Catalog;
use nix::libc;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::child::{self, Process};
use super::pace;
use super::pulse::{enter_namespace, machine, run_release};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rounds; each runs every variant once
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Measured seconds of one run
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Already built for release (set by the command itself)
    #[arg(long, hide = true)]
    built: bool,
}

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Load {
    /// The daemon's shard, instead of the bare loop
    #[arg(long)]
    shard: bool,
    #[arg(long)]
    resume: bool,
    #[arg(long)]
    seconds: f64,
    #[arg(long)]
    port: u16,
}

const CA: &str = include_str!("../../../cpra/src/wire/tls/fixtures/ca.pem");
const CERTIFICATE: &[u8] = include_bytes!("../../../cpra/src/wire/tls/fixtures/server.pem");
const KEY: &[u8] = include_bytes!("../../../cpra/src/wire/tls/fixtures/server.key");
const NAME: &str = "a.example";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
/// Each is a server of its own to those who resume.
const ADDRESSES: u8 = 64;
const WARM_UP: f64 = 0.5;

/// What a check may cost beside the bare loop: its share of the bare loop's rate.
const AIM: f64 = 0.8;

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    if !options.built {
        return run_release();
    }
    child::raise_open_files()?;
    let namespace = enter_namespace();
    println!("machine: {}; network: {}", machine(), namespace.as_deref().unwrap_or("a namespace of its own"));
    let mut target = Process::own(&["tls-target".into()])?;
    let port = target.line()?;
    let mut rates: [[Vec<f64>; 2]; 2] = Default::default();
    for round in 0..options.rounds {
        for resume in [false, true] {
            for shard in [false, true] {
                let mut arguments = vec!["tls-loop".to_owned(), "--port".into(), port.clone()];
                arguments.extend(["--seconds".into(), options.seconds.to_string()]);
                arguments.extend(shard.then(|| "--shard".to_owned()));
                arguments.extend(resume.then(|| "--resume".to_owned()));
                let figures: Value = serde_json::from_str(&Process::own(&arguments)?.line()?)?;
                let number = |name: &str| figures[name].as_f64().unwrap_or_default();
                if number("failed") > 0.0 {
                    bail!("checks failed: {figures}");
                }
                let rate = number("checks") / number("cpu_s");
                println!(
                    "round {round}: {} {}: {rate:.0} checks per CPU second ({:.0} checks, {:.2} CPU s)",
                    if shard { "cpra" } else { "bare" },
                    if resume { "resumed" } else { "full   " },
                    number("checks"),
                    number("cpu_s"),
                );
                rates[usize::from(resume)][usize::from(shard)].push(rate);
            }
        }
    }
    println!("\n| handshake | bare rustls loop | cpra | share |\n| --- | ---: | ---: | ---: |");
    for (name, [bare, shard]) in ["full", "resumed"].into_iter().zip(&mut rates) {
        let (bare, shard) = (median(bare), median(shard));
        let share = shard / bare;
        let verdict = if share < AIM { format!(" (below the aim of {AIM})") } else { String::new() };
        println!("| {name} | {bare:.0}/CPU s | {shard:.0}/CPU s | {share:.2}{verdict} |");
    }
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The server: a thread per connection of a fixed few, TLS 1.3, tickets.
pub(crate) fn target() -> anyhow::Result<()> {
    child::die_with_parent()?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = vec![CertificateDer::from_pem_slice(CERTIFICATE)?];
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(KEY)?)?;
    config.ticketer = rustls::crypto::ring::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    let config = Arc::new(config);
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    println!("{}", listener.local_addr()?.port());
    for _ in 0..32 {
        let (listener, config) = (listener.try_clone()?, Arc::clone(&config));
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                // A client that goes away is the client's matter.
                let _ = answer(&config, stream);
            }
        });
    }
    // Until the driver ends.
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input)?;
    Ok(())
}

fn answer(config: &Arc<ServerConfig>, stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut tls = StreamOwned::new(ServerConnection::new(Arc::clone(config))?, stream);
    let mut request = [0; 1024];
    let length = tls.read(&mut request)?;
    if request[..length].ends_with(b"\r\n\r\n") {
        tls.write_all(ANSWER)?;
    }
    tls.conn.send_close_notify();
    tls.flush()?;
    Ok(())
}

pub(crate) fn check(load: &Load) -> anyhow::Result<()> {
    child::die_with_parent()?;
    child::raise_open_files()?;
    let (checks, failed, cpu) = if load.shard { shard(load)? } else { bare(load)? };
    println!("{}", json!({ "checks": checks, "failed": failed, "cpu_s": cpu }));
    Ok(())
}

type Counts = (u64, u64, f64);

fn address(index: u64) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, (index % u64::from(ADDRESSES)) as u8 + 1)
}

fn bare(load: &Load) -> anyhow::Result<Counts> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(CA.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    if !load.resume {
        config.resumption = rustls::client::Resumption::disabled();
    }
    let config = Arc::new(config);
    let name = ServerName::try_from(NAME)?;
    let once = |index: u64| -> anyhow::Result<()> {
        let stream = TcpStream::connect((address(index), load.port))?;
        // Like the pooled sockets, it leaves no TIME_WAIT.
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &linger)?;
        stream.set_nodelay(true)?;
        let mut tls = StreamOwned::new(ClientConnection::new(Arc::clone(&config), name.clone())?, stream);
        tls.write_all(REQUEST)?;
        let mut answer = Vec::with_capacity(512);
        tls.read_to_end(&mut answer)?;
        if !answer.starts_with(b"HTTP/1.1 200") {
            bail!("no answer");
        }
        tls.conn.send_close_notify();
        tls.flush()?;
        Ok(())
    };
    let (mut checks, mut failed) = (0, 0);
    let begin = Clock.now();
    let mut opened = None;
    for index in 0.. {
        let passed = Clock.now().since(begin).as_secs_f64();
        if opened.is_none() && passed >= WARM_UP {
            opened = Some(pace::cpu());
            (checks, failed) = (0, 0);
        }
        if passed >= WARM_UP + load.seconds {
            break;
        }
        checks += 1;
        failed += u64::from(once(index).is_err());
    }
    let cpu = pace::cpu() - opened.context("the run was too short")?;
    Ok((checks, failed, cpu.as_secs_f64()))
}

/// More monitors than can be checked in time: the shard is never idle.
fn shard(load: &Load) -> anyhow::Result<Counts> {
    let folder = std::env::temp_dir().join(format!("cpra-bench-tls-{}.pem", std::process::id()));
    std::fs::write(&folder, CA)?;
    let tls = TlsPolicy { server_name: Some(NAME.into()), ca_file: Some(folder.clone()), ..TlsPolicy::default() };
    let policy = Policy::new(
        Check::Http(HttpCheck { tls: Some(tls), ..HttpCheck::default() }),
        Span::from_millis(100),
        Span::from_millis(100),
    );
    let mut loader = Loader::default();
    if !load.resume {
        loader = loader.without_resumption();
    }
    let loaded = loader.add(&policy);
    std::fs::remove_file(&folder)?;
    if let Err(faults) = loaded {
        bail!("{}", faults[0]);
    }
    let monitors = (0..4_096u64).map(|index| {
        let host = Host::Literal(address(index).into());
        let target = Target { host, port: load.port, path: "/".into() };
        Monitor { name: format!("m{index}").into(), enabled: true, target, policy: policy.clone() }
    });
    let catalog = Arc::new(Catalog::build(monitors, 1)?);
    let settings = Settings { shard: 0, sizing: Setup::fixed(24), seed: 1 };
    let mut shard = Shard::new(&settings, catalog, Clock.now()).secured_by(loader.finish());
    let mut ring = UringRing::new(RingOptions::default())?;
    let mut effects = Effects::default();
    let mut mail: Vec<Event<'static>> = Vec::new();
    let begin = Clock.now();
    let mut opened = None;
    loop {
        let now = Clock.now();
        let passed = now.since(begin).as_secs_f64();
        if opened.is_none() && passed >= WARM_UP {
            opened = Some((pace::cpu(), counts(&shard)));
        }
        if passed >= WARM_UP + load.seconds {
            break;
        }
        if shard.expires_by(now) {
            ring.enter(Wait::NONE)?;
        }
        let mut events = Vec::new();
        ring.reap(&mut |completion| events.push(Event::Completed(completion)));
        events.extend(mail.drain(..).map(lend));
        shard.step(now, &events, &mut effects);
        drop(events);
        let Effects { list, bytes } = &mut effects;
        for effect in list.drain(..) {
            match effect {
                Effect::Open { slot, family } => {
                    if let Err(errno) = ring.open(slot, family) {
                        mail.push(Event::OpenFailed { slot, errno });
                    }
                }
                Effect::Close { slot } => ring.close(slot),
                Effect::Submit { slot, generation, op, bytes: range } => {
                    ring.submit(slot, generation, &op, &bytes[range.start as usize..range.end as usize]);
                }
                Effect::SampleHost => {
                    mail.push(Event::HostSampled(HostSample { taken: Clock.now(), drops: 0, table_full: false }));
                }
                _ => {}
            }
        }
        bytes.clear();
        let deadline = shard.next_deadline().map_or(Span::from_millis(10), |deadline| deadline.since(Clock.now()));
        let bound = deadline.min(Span::from_millis(10));
        let wait = if mail.is_empty() && bound > Span::ZERO { Wait { batch: 1, bound } } else { Wait::NONE };
        ring.enter(wait)?;
    }
    let (cpu, (checks, failed)) = opened.context("the run was too short")?;
    let (all, all_failed) = counts(&shard);
    Ok((all - checks, all_failed - failed, (pace::cpu() - cpu).as_secs_f64()))
}

/// Judged checks, and those of them that were not ok.
fn counts(shard: &Shard) -> (u64, u64) {
    let kinds = &shard.stats().checks;
    let all: u64 = kinds.iter().flatten().sum();
    let ok: u64 = kinds.iter().map(|codes| codes[cpra::domain::Code::L7Ok.index()]).sum();
    (all, all - ok)
}

/// Events that lend nothing may stand beside those that do.
fn lend<'a>(event: Event<'static>) -> Event<'a> {
    event
}
