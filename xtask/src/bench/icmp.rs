//! `cargo xtask bench icmp`: what an echo check costs the daemon, beside a loop that does nothing but `sendmmsg` and
//! `recvmmsg`. Both are processes of their own, paced alike, on the loopback of one network namespace; there the kernel
//! makes the reply within the call that sends, so that its work for the target is on both accounts.

use std::io::{Read as _, Write as _};
use std::mem::zeroed;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use cpra::daemon::{self, Plan};
use cpra::domain::monitor::IcmpCheck;
use cpra::domain::{Check, Host, Monitor, Policy, Target};
use cpra::queueing::Setup;
use cpra::units::Span;
use cpra::world::Catalog;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt};
use serde_json::{Value, json};

use super::child::{self, Process};
use super::pace::cpu;
use super::pulse;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rounds; each runs both at every rate
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Echo checks per second
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 50_000])]
    rates: Vec<u32>,
    /// Measured seconds of a run
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Already built for release (set by the command itself)
    #[arg(long, hide = true)]
    built: bool,
}

#[derive(clap::Args)]
pub(crate) struct Load {
    #[arg(long)]
    rate: u32,
    #[arg(long)]
    seconds: u64,
    /// The daemon instead of the bare loop
    #[arg(long)]
    daemon: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    if !options.built {
        return pulse::run_release();
    }
    let namespace = pulse::enter_namespace();
    println!("machine: {}; network: {}", pulse::machine(), namespace.as_deref().unwrap_or("a namespace of its own"));
    for &rate in &options.rates {
        let mut bare = Vec::new();
        let mut whole = Vec::new();
        for _ in 0..options.rounds {
            bare.push(measure(rate, options.seconds, false)?);
            whole.push(measure(rate, options.seconds, true)?);
        }
        let (bare, whole) = (median(bare), median(whole));
        println!(
            "{rate} echo checks/s: bare loop {:.2} µs of CPU each ({:.0} per CPU second), cpra {:.2} µs ({:.0}): {:.2} ×",
            bare,
            1e6 / bare,
            whole,
            1e6 / whole,
            bare / whole
        );
    }
    Ok(())
}

/// Microseconds of CPU per check.
fn measure(rate: u32, seconds: u64, daemon: bool) -> anyhow::Result<f64> {
    let mut arguments: Vec<String> =
        ["icmp-load", "--rate", &rate.to_string(), "--seconds", &seconds.to_string()].map(str::to_owned).into();
    if daemon {
        arguments.push("--daemon".into());
    }
    let mut process = Process::own(&arguments)?;
    // The daemon tells its story on the same output.
    let line = loop {
        let line = process.line()?;
        if line.starts_with('{') {
            break line;
        }
    };
    let result: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
    println!("  {} {line}", if daemon { "cpra" } else { "bare" });
    let number = |key: &str| result[key].as_f64().context("a number");
    let (checks, wanted) = (number("checks")?, f64::from(rate) * seconds as f64);
    ensure!((checks - wanted).abs() < wanted * 0.03, "{checks} checks, not about {wanted}: {line}");
    Ok(number("cpu_us")? / checks)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

pub(crate) fn load(load: &Load) -> anyhow::Result<()> {
    child::die_with_parent()?;
    child::raise_open_files()?;
    if load.daemon { whole(load) } else { bare(load) }
}

/// Different targets, so that nothing is cached by chance.
fn target(index: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + index)
}

fn whole(load: &Load) -> anyhow::Result<()> {
    let monitors = (0..load.rate).map(|index| {
        let policy = Policy::new(
            Check::Icmp(IcmpCheck { count: 1, max_loss: 0, max_rtt: None }),
            Span::from_secs(1),
            Span::from_millis(500),
        );
        let target = Target { host: Host::Literal(target(index).into()), port: 0, path: "".into() };
        Monitor { name: format!("m/{index}").into(), enabled: true, target, policy }
    });
    let api = TcpListener::bind("127.0.0.1:0")?;
    let at = api.local_addr()?;
    let folder = std::env::temp_dir();
    let catalog = Catalog::build(monitors, daemon::shards_for(2))?;
    let plan = Plan { pulse: Setup::fixed(16_384), batch_size: 2048, ..Plan::new(catalog, api, folder) };
    let _daemon = daemon::start(plan)?;
    // The first checks are spread over up to five seconds; then everything is up.
    let patience = Instant::now() + Duration::from_secs(20);
    while metric(at, "cpra_monitors{state=\"up\"}")? < f64::from(load.rate) {
        if Instant::now() > patience {
            bail!("not all are up");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    std::thread::sleep(Duration::from_secs(2));
    let checks = || metric(at, "cpra_checks_total{type=\"icmp\",outcome=\"L3OK\"}");
    let (before, began) = (checks()?, cpu());
    std::thread::sleep(Duration::from_secs(load.seconds));
    let (spent, after) = (cpu().saturating_sub(began), checks()?);
    let missed = metric(at, "cpra_checks_missed_total")?;
    println!("{}", json!({ "checks": after - before, "cpu_us": spent.as_micros() as u64, "missed": missed }));
    // What remains ends with the process, which only the figures were wanted of.
    std::process::exit(0);
}

/// A sample of the metrics page, by name and labels as printed.
fn metric(api: SocketAddr, sample: &str) -> anyhow::Result<f64> {
    let mut stream = TcpStream::connect(api)?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    let line = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.map_or(Ok(0.0), |value| value.trim().parse().context("a number"))
}

const BATCH: usize = 64;
const MESSAGE: usize = 36;

/// Sends what a tick makes due, takes what has come back, sleeps until the next tick.
fn bare(load: &Load) -> anyhow::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Icmp).context("a raw socket")?;
    setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20))?;
    // Replies only (`ICMP_FILTER` of linux/icmp.h): on the loopback it would see the requests as well.
    let filter = !1_u32;
    // SAFETY: the value is four readable bytes.
    let filtered = unsafe { libc::setsockopt(socket.as_raw_fd(), 255, 1, (&raw const filter).cast(), 4) };
    ensure!(filtered == 0, "ICMP_FILTER");
    let start = Instant::now();
    let warm_up = Duration::from_secs(1);
    let end = warm_up + Duration::from_secs(load.seconds);
    let (mut sent, mut received) = (0_u64, 0_u64);
    let mut opened = None;
    loop {
        let now = start.elapsed();
        if now >= end {
            break;
        }
        if opened.is_none() && now >= warm_up {
            opened = Some((cpu(), received));
        }
        let due = now.as_millis() as u64 * u64::from(load.rate) / 1_000;
        while sent < due {
            let count = (due - sent).min(BATCH as u64);
            send(&socket, sent as u32 % load.rate, count as usize)?;
            sent += count;
            received += receive(&socket)?;
        }
        received += receive(&socket)?;
        let next = Duration::from_millis(now.as_millis() as u64 + 1);
        std::thread::sleep(next.saturating_sub(start.elapsed()));
    }
    let (began, before) = opened.context("the window opened")?;
    let spent = cpu().saturating_sub(began);
    ensure!(sent - received < sent / 100, "{received} replies to {sent} requests");
    println!("{}", json!({ "checks": received - before, "cpu_us": spent.as_micros() as u64 }));
    Ok(())
}

fn send(socket: &OwnedFd, first: u32, count: usize) -> anyhow::Result<()> {
    // Type 8, and a checksum that is right for it alone: the rest is zero.
    let mut message = [0_u8; MESSAGE];
    (message[0], message[2]) = (8, 0xF7);
    message[3] = 0xFF;
    // SAFETY: C structures of numbers and pointers, for which zero is a value.
    let (mut names, mut headers): ([libc::sockaddr_in; BATCH], [libc::mmsghdr; BATCH]) = unsafe { zeroed() };
    let mut slice = libc::iovec { iov_base: message.as_mut_ptr().cast(), iov_len: MESSAGE };
    for (index, (name, header)) in names.iter_mut().zip(&mut headers).take(count).enumerate() {
        name.sin_family = libc::AF_INET as libc::sa_family_t;
        name.sin_addr.s_addr = u32::from(target(first + index as u32)).to_be();
        header.msg_hdr.msg_name = (&raw mut *name).cast();
        header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        header.msg_hdr.msg_iov = &raw mut slice;
        header.msg_hdr.msg_iovlen = 1;
    }
    // SAFETY: the first `count` headers name addresses and a slice that live until after the call.
    let done = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count as libc::c_uint, 0) };
    ensure!(done == count as i32, "sendmmsg: {done} of {count}: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Takes what is there.
fn receive(socket: &OwnedFd) -> anyhow::Result<u64> {
    let mut total = 0;
    loop {
        let mut packets = [[0_u8; 128]; BATCH];
        // SAFETY: C structures of numbers and pointers, for which zero is a value.
        let (mut slices, mut headers): ([libc::iovec; BATCH], [libc::mmsghdr; BATCH]) = unsafe { zeroed() };
        for ((packet, slice), header) in packets.iter_mut().zip(&mut slices).zip(&mut headers) {
            *slice = libc::iovec { iov_base: packet.as_mut_ptr().cast(), iov_len: packet.len() };
            header.msg_hdr.msg_iov = slice;
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: every header names its own slice, which names its own packet; all live until after the call.
        let count = unsafe {
            let none = std::ptr::null_mut();
            libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), BATCH as libc::c_uint, libc::MSG_DONTWAIT, none)
        };
        let error = std::io::Error::last_os_error();
        match u64::try_from(count) {
            Ok(count) => total += count,
            Err(_) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(total),
            Err(_) => bail!("recvmmsg: {error}"),
        }
        if count < BATCH as i32 {
            return Ok(total);
        }
    }
}
