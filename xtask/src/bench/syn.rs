//! `cargo xtask bench syn`: what a half-open check of a TCP port costs (SYN out, SYN-ACK in, the kernel's own RST), to a
//! second network namespace over a veth pair, beside others who send SYNs.
//!
//! | prober | what it does |
//! | --- | --- |
//! | bare loop | `sendmmsg` every millisecond on a raw socket, `recvmmsg` of what comes to its port: nothing but counting |
//! | cpra | the daemon, `type: tcp` with `mode: syn`: answers are seen by eBPF |
//! | masscan | Debian's: packets by AF_PACKET, answers by pcap, no socket either; each target once, at the same rate |
//!
//! Each is a process of its own, and all of one rate run in turn. What counts is the processor time of the whole process,
//! user and system, and that of the kernel's `ksoftirqd` beside it. The kernel makes the target's answer and our RST while
//! the SYN is sent, in the softirq of whoever sends: that work is on every prober's account alike.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use cpra::domain::monitor::TcpMode;
use cpra::domain::{Check, TcpCheck};
use cpra::units::Span;
use nix::libc;
use nix::sys::socket::SockProtocol;

use super::beside::{self, Cost, Window};
use super::far::{self, Far};
use super::pace::{Account, cpu_of_children};
use super::whole::Alike;
use super::{child, pulse, raw};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rounds; each runs every prober once at every rate
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Half-open checks per second
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 50_000])]
    rates: Vec<u32>,
    /// Measured seconds of a run
    #[arg(long, default_value_t = 4)]
    seconds: u32,
    /// Who is measured [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    probers: Vec<Prober>,
    /// Already built for release (set by the command itself)
    #[arg(long, hide = true)]
    built: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Prober {
    Bare,
    Cpra,
    Masscan,
}

impl Prober {
    const ALL: [Self; 3] = [Self::Bare, Self::Cpra, Self::Masscan];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Cpra => "cpra",
            Self::Masscan => "masscan",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Bare => "bare loop",
            Self::Cpra => "cpra",
            Self::Masscan => "masscan",
        }
    }
}

#[derive(clap::Args)]
pub(crate) struct Load {
    #[arg(long)]
    rate: u32,
    #[arg(long)]
    seconds: u32,
    #[arg(long, value_enum)]
    prober: Prober,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    if !options.built {
        return pulse::run_release();
    }
    let namespace = pulse::enter_namespace();
    println!("machine: {}; network: {}", pulse::machine(), namespace.as_deref().unwrap_or("a namespace of its own"));
    let probers: &[Prober] = if options.probers.is_empty() { &Prober::ALL } else { &options.probers };
    let _far = Far::join()?;
    for &rate in &options.rates {
        let mut costs = vec![Vec::new(); probers.len()];
        for round in 1..=options.rounds {
            for (&prober, costs) in probers.iter().zip(&mut costs) {
                let load = Load { rate, seconds: options.seconds, prober };
                match load.measure() {
                    Ok(cost) => {
                        println!("  round {round} {rate}/s {}: {cost}", prober.words());
                        costs.push(cost);
                    }
                    // A busy machine may be too slow for one of the runs.
                    Err(error) => println!("  round {round} {rate}/s {}: left out: {error:#}", prober.words()),
                }
            }
        }
        let rows =
            probers.iter().zip(costs).filter_map(|(prober, costs)| Some((prober.words(), beside::median(costs)?)));
        let rows: Vec<_> = rows.collect();
        println!("\n{rate} half-open checks/s:\n");
        beside::print_table(&rows, &[Prober::Bare.words(), Prober::Masscan.words()]);
    }
    Ok(())
}

impl Load {
    fn measure(&self) -> anyhow::Result<Cost> {
        if self.prober == Prober::Masscan {
            return masscan(self);
        }
        let (rate, seconds) = (self.rate.to_string(), self.seconds.to_string());
        let arguments = ["syn-load", "--rate", &rate, "--seconds", &seconds, "--prober", self.prober.as_str()];
        Cost::of_run(&arguments.map(str::to_owned), self.rate)
    }
}

/// One run, in a process of its own.
pub(crate) fn load(load: &Load) -> anyhow::Result<()> {
    child::die_with_parent()?;
    child::raise_open_files()?;
    let window = match load.prober {
        Prober::Bare => bare(load)?,
        Prober::Cpra => whole(load)?,
        Prober::Masscan => bail!("masscan is a program of its own"),
    };
    window.print();
    // What remains ends with the process, which only the figures were wanted of.
    std::process::exit(0);
}

fn whole(load: &Load) -> anyhow::Result<Window> {
    let check = Check::Tcp(TcpCheck { mode: TcpMode::Syn, ..TcpCheck::default() });
    let monitors =
        Alike { check, count: load.rate, interval: Span::from_secs(1), address: far::target, port: far::PORT };
    let done = "cpra_checks_total{type=\"tcp\",outcome=\"L4OK\"}";
    monitors.measure(true, load.seconds, done, |_, before, after| {
        after.since(before, "cpra_syn_packets_total{direction=\"in\"}")
    })
}

/// Where the bare loop and masscan send from: outside of what the kernel gives to others.
const SOURCE_PORT: u16 = 65_100;

/// A TCP header, and the option that says how long segments may be.
const SEGMENT: usize = 24;

fn bare(load: &Load) -> anyhow::Result<Window> {
    let socket = raw::open(SockProtocol::Tcp)?;
    only_to(&socket, SOURCE_PORT)?;
    raw::probe(&socket, load.rate, load.seconds, true, |number| {
        let to = far::target(number);
        (to, syn(to, number))
    })
}

fn syn(to: Ipv4Addr, sequence: u32) -> [u8; SEGMENT] {
    const SYN: u8 = 2;
    const WORDS: u8 = (SEGMENT / 4) as u8;
    let mut segment = [0; SEGMENT];
    segment[..2].copy_from_slice(&SOURCE_PORT.to_be_bytes());
    segment[2..4].copy_from_slice(&far::PORT.to_be_bytes());
    segment[4..8].copy_from_slice(&sequence.to_be_bytes());
    (segment[12], segment[13]) = (WORDS << 4, SYN);
    segment[14..16].copy_from_slice(&1024_u16.to_be_bytes());
    segment[20..24].copy_from_slice(&[2, 4, 0x05, 0xB4]);
    let (words, _) = segment.as_chunks::<2>();
    let mut sum: u32 = words.iter().map(|&word| u32::from(u16::from_be_bytes(word))).sum();
    // The pseudo-header: both addresses, the protocol, the length.
    for address in [u32::from(far::NEAR), u32::from(to)] {
        sum += (address >> 16) + (address & 0xFFFF);
    }
    sum += libc::IPPROTO_TCP as u32 + SEGMENT as u32;
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    segment[16..18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    segment
}

/// A raw socket is offered every TCP packet that comes in: one to this port is let through.
fn only_to(socket: &OwnedFd, port: u16) -> anyhow::Result<()> {
    let step = |code: u32, otherwise, k| libc::sock_filter { code: code as u16, jt: 0, jf: otherwise, k };
    let mut steps = [
        // The length of the IP header; the destination port beyond it.
        step(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0, 0),
        step(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, 0, 2),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, port.into()),
        step(libc::BPF_RET | libc::BPF_K, 0, u32::MAX),
        step(libc::BPF_RET | libc::BPF_K, 0, 0),
    ];
    let program = libc::sock_fprog { len: steps.len() as libc::c_ushort, filter: steps.as_mut_ptr() };
    // SAFETY: the kernel copies the program, whose steps live until after the call.
    let result = unsafe {
        let (level, option) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER);
        let length = size_of_val(&program) as libc::socklen_t;
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const program).cast(), length)
    };
    ensure!(result == 0, "SO_ATTACH_FILTER: {}", std::io::Error::last_os_error());
    Ok(())
}

/// `masscan --rate … -p7001 -oL …` at as many targets as come up in that time, from start to end.
fn masscan(load: &Load) -> anyhow::Result<Cost> {
    let count = load.rate * load.seconds;
    let file = std::env::temp_dir().join(format!("cpra-bench-{}.found", std::process::id()));
    let mut command = Command::new("masscan");
    command.arg(format!("{}-{}", far::target(0), far::target(count - 1))).arg(format!("-p{}", far::PORT));
    command.args(["--rate", &load.rate.to_string(), "-e", far::INTERFACE, "--router-mac", far::GATEWAY_MAC]);
    command.args(["--adapter-ip", &far::NEAR.to_string(), "--adapter-port", &SOURCE_PORT.to_string()]);
    command.args(["--wait", "1", "-oL"]).arg(&file);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    child::end_with_parent(&mut command);
    let (account, before, began) = (Account::of_kernel(), cpu_of_children(), Instant::now());
    let mut process = command.spawn().context("masscan (package masscan)")?;
    // It stays long after its last packet: how fast it was, the interface tells. A SYN, and a reset for its answer.
    let all = packets()? + u64::from(count) * 2 * 99 / 100;
    while packets()? < all && process.try_wait()?.is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let seconds = began.elapsed().as_secs_f64();
    let status = process.wait()?;
    let cpu = cpu_of_children().saturating_sub(before) + account.spent();
    ensure!(status.success(), "masscan: {status}");
    let found = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let _ = std::fs::remove_file(&file);
    let found = found.lines().filter(|line| line.starts_with("open")).count();
    ensure!(found > 0, "masscan found nothing");
    let checks = f64::from(count);
    Ok(Cost { each: cpu.as_secs_f64() * 1e6 / checks, rate: checks / seconds, share: found as f64 / checks })
}

/// Those that have left by our end of the pair.
fn packets() -> anyhow::Result<u64> {
    // After eight columns of what came in, and the bytes.
    const LEFT: usize = 9;
    let table = std::fs::read_to_string("/proc/self/net/dev")?;
    let columns = table.lines().find_map(|line| line.trim_start().strip_prefix(far::INTERFACE)?.strip_prefix(':'));
    let packets = columns.and_then(|columns| columns.split_whitespace().nth(LEFT));
    packets.context("no counts of our interface")?.parse().context("a number of packets")
}
