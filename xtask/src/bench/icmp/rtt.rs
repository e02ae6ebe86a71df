//! How true are round trips on a busy machine? The daemon's sockets for echo requests are driven as a shard drives them,
//! by ticks of a millisecond, on one core; a process that only spins shares the core with them, or does not.
//!
//! The *error* of a round trip is what was told minus the quiet median of the same path, as the kernel's own software
//! timestamps (`SO_TIMESTAMPING`, both ways) of single requests on an idle core show it: neither backend has a part in it.

use std::io::IoSliceMut;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cpra::os::ebpf::Signals;
use cpra::os::ping::{Means, Ping, Pinger};
use cpra::probe::errand::Echo;
use cpra::shard::Event;
use cpra::units::{Generation, Slot};
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, TimestampingFlag,
    recvmsg, sendto, setsockopt, socket, sockopt,
};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::{Network, Prober};
use crate::bench::child::{self, Process};
use crate::bench::far::Far;
use crate::bench::whole::{self, SLOTS};

#[derive(clap::Args)]
pub(crate) struct Load {
    #[arg(long)]
    rate: u32,
    #[arg(long)]
    seconds: u32,
    #[arg(long, value_enum)]
    network: Network,
    /// Without one, the reference
    #[arg(long, value_enum)]
    prober: Option<Prober>,
    /// The quiet median in nanoseconds
    #[arg(long, default_value_t = 0)]
    truth: i64,
}

/// The core that prober and spinner share.
const CORE: usize = 0;

pub(super) fn compare(networks: &[Network], probers: &[Prober], rate: u32, seconds: u32) -> anyhow::Result<()> {
    println!("round trips, told − true, {rate} checks/s on core {CORE}:\n");
    println!("| network | backend | core | true | p50 | p90 | p99 | most | lost |");
    println!("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for &network in networks {
        let _far = if network == Network::Veth { Some(Far::join()?) } else { None };
        let run = |prober: Option<Prober>, truth: i64| {
            let mut arguments = vec!["icmp-rtt".to_owned()];
            let (rate, seconds, truth) = (rate.to_string(), seconds.to_string(), truth.to_string());
            let given = ["--rate", &rate, "--seconds", &seconds, "--network", network.as_str(), "--truth", &truth];
            arguments.extend(given.map(str::to_owned));
            arguments.extend(prober.iter().flat_map(|prober| ["--prober".into(), prober.as_str().into()]));
            let mut process = Process::own(&arguments)?;
            let line = process.line()?;
            serde_json::from_str::<Value>(&line).with_context(|| line.clone())
        };
        let truth = run(None, 0)?["median_ns"].as_i64().context("no median")?;
        let mut saturated = Vec::new();
        for busy in [false, true] {
            let _spinner = if busy { Some(Process::own(&["spin".to_owned()])?) } else { None };
            for &prober in probers.iter().filter(|prober| prober.is_ours()) {
                let result = run(Some(prober), truth)?;
                let micros = |key: &str| result[key].as_f64().map(|nanos| nanos / 1e3).context("a number");
                let p99 = micros("p99_ns")?;
                println!(
                    "| {} | {} | {} | {:.1} µs | {:.1} µs | {:.1} µs | {p99:.1} µs | {:.1} µs | {} |",
                    network.as_str(),
                    prober.words(),
                    if busy { "saturated" } else { "free" },
                    truth as f64 / 1e3,
                    micros("p50_ns")?,
                    micros("p90_ns")?,
                    micros("most_ns")?,
                    result["lost"],
                );
                if busy {
                    saturated.push((prober, p99));
                }
            }
        }
        if let [(first, more), .., (last, less)] = saturated[..] {
            println!(
                "\n{}: p99 of {} is {:.1} × that of {}\n",
                network.as_str(),
                first.words(),
                more / less,
                last.words()
            );
        }
    }
    Ok(())
}

/// Uses the core up, as work of others does.
pub(crate) fn spin() -> anyhow::Result<()> {
    child::die_with_parent()?;
    pin()?;
    let mut number = 1_u64;
    loop {
        number = std::hint::black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
}

fn pin() -> anyhow::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(CORE)?;
    sched_setaffinity(Pid::from_raw(0), &cores).context("a core of our own")
}

/// One run, in a process of its own.
pub(crate) fn load(load: &Load) -> anyhow::Result<()> {
    child::die_with_parent()?;
    pin()?;
    match load.prober {
        None => println!("{}", json!({ "median_ns": reference(load.network)? })),
        Some(prober) => println!("{}", told(load, prober)?),
    }
    Ok(())
}

fn told(load: &Load, prober: Prober) -> anyhow::Result<Value> {
    let mut pinger = Pinger::new()?;
    // The programs stay as long as what loaded them.
    let mut loaded = whole::signals(prober == Prober::Ebpf, None)?;
    let mut signals = match &mut loaded {
        Signals::On(loaded) => loaded.shards().into_iter().next(),
        Signals::Off | Signals::Without(_) => None,
    };
    if let Some(signals) = &signals {
        pinger.tag(signals.tag());
    }
    ensure!(pinger.open()[0] == Means::Raw, "no raw socket");
    let (start, end) = (Instant::now(), Duration::from_secs(load.seconds.into()));
    let (mut sent, mut heard, mut errors) = (0_u64, Vec::new(), Vec::new());
    let grace = Duration::from_millis(200);
    loop {
        let now = start.elapsed();
        if let Some(signals) = &mut signals {
            signals.hear(&mut heard);
        }
        pinger.receive(&mut heard);
        for event in heard.drain(..) {
            let Event::Echoed { echo: Echo::Reply { rtt }, .. } = event else { continue };
            errors.push(rtt.as_nanos().cast_signed() - load.truth);
        }
        if now >= end + grace {
            break;
        }
        let due = now.min(end).as_millis() as u64 * u64::from(load.rate) / 1_000;
        while sent < due {
            let slot = Slot((sent % u64::from(SLOTS)) as u32);
            let generation = Generation((sent / u64::from(SLOTS)) as u32 + 1);
            let address = IpAddr::V4(load.network.target((sent % 1_000) as u32));
            pinger.push(Ping { slot, generation, address, sequence: 0 });
            sent += 1;
        }
        pinger.send(&mut signals, &mut heard);
        let next = Duration::from_millis(now.as_millis() as u64 + 1);
        std::thread::sleep(next.saturating_sub(start.elapsed()));
    }
    errors.sort_unstable();
    // However it deviates.
    let mut sizes: Vec<i64> = errors.iter().map(|error| error.abs()).collect();
    sizes.sort_unstable();
    let at = |share: f64| sizes[((sizes.len() as f64 * share) as usize).min(sizes.len() - 1)];
    ensure!(!sizes.is_empty(), "nothing came back");
    Ok(json!({
        "p50_ns": at(0.5), "p90_ns": at(0.9), "p99_ns": at(0.99), "most_ns": at(1.0),
        "lost": sent - errors.len() as u64,
    }))
}

/// The median round trip of requests that leave one at a time, between the kernel's own stamps.
fn reference(network: Network) -> anyhow::Result<i64> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Icmp).context("a raw socket")?;
    let stamps = TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE
        | TimestampingFlag::SOF_TIMESTAMPING_TX_SOFTWARE
        | TimestampingFlag::SOF_TIMESTAMPING_RX_SOFTWARE;
    setsockopt(&socket, sockopt::Timestamping, &stamps).context("SO_TIMESTAMPING")?;
    let target = SockaddrIn::from(std::net::SocketAddrV4::new(network.target(0), 0));
    let mut times = Vec::new();
    for _ in 0..2_000 {
        std::thread::sleep(Duration::from_millis(1));
        let mut message = [0_u8; 36];
        (message[0], message[2], message[3]) = (8, 0xF7, 0xFF);
        sendto(socket.as_raw_fd(), &message, &target, MsgFlags::empty())?;
        std::thread::sleep(Duration::from_micros(500));
        let left = stamp(&socket, MsgFlags::MSG_ERRQUEUE)?;
        // On the loopback the request comes in first, with a stamp of its own.
        let came = stamp(&socket, MsgFlags::empty())?;
        if let (Some(left), Some(came)) = (left, came) {
            times.push(came - left);
        }
    }
    ensure!(times.len() > 1_000, "only {} of 2000 requests have both stamps", times.len());
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

/// When the last packet that waits passed the kernel, in nanoseconds.
fn stamp(socket: &impl std::os::fd::AsRawFd, queue: MsgFlags) -> anyhow::Result<Option<i64>> {
    let mut last = None;
    loop {
        let (mut packet, mut control) = ([0_u8; 256], vec![0_u8; 512]);
        let mut slices = [IoSliceMut::new(&mut packet)];
        let flags = queue | MsgFlags::MSG_DONTWAIT;
        let message = match recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags) {
            Ok(message) => message,
            Err(Errno::EAGAIN) => return Ok(last),
            Err(error) => return Err(error.into()),
        };
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmTimestampsns(stamps) = control {
                last = Some(stamps.system.tv_sec() * 1_000_000_000 + stamps.system.tv_nsec());
            }
        }
    }
}
