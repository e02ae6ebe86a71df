//! A network of the test's own: this thread, a router and a target, each in a network namespace that lives as long as
//! its value.
//!
//! ```text
//!  here ── 10.77.0.0/24, fd77::/64 ── router ── 10.78.0.0/24, fd78::/64 ── target
//!       .1                        .254      .254                       .1 … .9
//! ```

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::net::{IpAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use cpra::os::clock::Clock;
use cpra::units::Span;
use nix::sched::{CloneFlags, setns, unshare};

use super::support::skip;

/// Runs a test in a namespace of its own, on a thread of its own, or skips it aloud with what the machine lacks. One that
/// fails while the machine stands still is run again: nothing that takes time can be told then.
pub fn isolated(name: &str, body: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
    let body = Arc::new(body);
    for attempt in 1.. {
        let watch = Watch::start();
        let body = Arc::clone(&body);
        let inside = move || {
            if !nix::unistd::geteuid().is_root() {
                return Err("needs root for network namespaces".to_owned());
            }
            unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("no network namespace: {error}"))?;
            ip("link set lo up")?;
            body()
        };
        let result = thread::spawn(inside).join();
        let still = watch.end();
        match result {
            Ok(Ok(())) => return,
            Ok(Err(reason)) => return skip(name, &reason),
            Err(_) if attempt < ATTEMPTS_MAX && still > STILL => {
                println!("{name}: again, for the machine stood still for {still} meanwhile");
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

const ATTEMPTS_MAX: u32 = 5;
const STILL: Span = Span::from_millis(50);

/// Looks how long this machine lets a thread wait that has slept enough.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Span>,
}

impl Watch {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut longest = Span::ZERO;
            while !told.load(Ordering::Relaxed) {
                let began = Clock.now();
                thread::sleep(Duration::from_millis(5));
                longest = longest.max(Clock.now().since(began) - Span::from_millis(5));
            }
            longest
        });
        Self { stop, thread }
    }

    fn end(self) -> Span {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it only sleeps")
    }
}

/// `ip`, one command per line, in this thread's namespace.
pub fn ip(commands: &str) -> Result<(), String> {
    run(Command::new("ip").args(["-batch", "-"]), commands)
}

/// `nft`, rules as in a file, in this thread's namespace.
pub fn nft(rules: &str) -> Result<(), String> {
    run(Command::new("nft").args(["-f", "-"]), rules)
}

/// `tc`, one command per line, in this thread's namespace.
pub fn tc(commands: &str) -> Result<(), String> {
    run(Command::new("tc").args(["-batch", "-"]), commands)
}

/// Sets sysctls, `path value` per line, in this thread's namespace.
pub fn sysctl(settings: &str) -> Result<(), String> {
    for line in settings.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (path, value) = line.split_once(' ').expect("a path and a value");
        std::fs::write(format!("/proc/sys/net/{path}"), value).map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(())
}

fn run(command: &mut Command, input: &str) -> Result<(), String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run {:?}: {error}", command.get_program()))?;
    child.stdin.take().expect("it is a pipe").write_all(input.as_bytes()).map_err(|error| error.to_string())?;
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{:?}: {}", command.get_program(), String::from_utf8_lossy(&output.stderr)))
    }
}

/// Another namespace, held by a process that sleeps.
pub struct Namespace {
    holder: Child,
}

impl Namespace {
    fn new() -> Result<Self, String> {
        let holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo; exec sleep 600"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot run unshare: {error}"))?;
        let mut this = Self { holder };
        // It is in its namespace once it has said something.
        let mut said = this.holder.stdout.take().expect("it is a pipe");
        std::io::Read::read_exact(&mut said, &mut [0]).map_err(|error| format!("unshare: {error}"))?;
        Ok(this)
    }

    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// Runs something on a thread in this namespace.
    pub fn within<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let entrance = self.entrance();
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                setns(entrance, CloneFlags::CLONE_NEWNET).expect("root may enter");
                body()
            });
            inside.join().expect("the test itself")
        })
    }

    pub fn entrance(&self) -> File {
        File::open(format!("/proc/{}/ns/net", self.pid())).expect("it lives")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Router and target, linked to this thread's namespace.
pub struct Net {
    pub router: Namespace,
    pub target: Namespace,
}

/// Errors are sent as often as there is a reason (but for missing routes, of which a host speaks five times at first and
/// then once a second), and addresses can be used at once.
const CALM: &str = "ipv4/icmp_ratemask 0
    ipv6/icmp/ratelimit 0
    ipv6/conf/all/accept_dad 0
    ipv6/conf/default/accept_dad 0";
const FORWARDING: &str = "ipv4/ip_forward 1
    ipv6/conf/all/forwarding 1";

/// Neighbours that do not answer are given up within a third of a second.
fn impatient(device: &str) -> Result<(), String> {
    ["ipv4", "ipv6"].iter().try_for_each(|family| {
        sysctl(&format!(
            "{family}/neigh/{device}/mcast_solicit 2
             {family}/neigh/{device}/retrans_time_ms 150"
        ))
    })
}

/// A new link takes up to a second until IPv6 believes in it. It is there when a port is refused.
fn await_link(target: IpAddr) -> Result<(), String> {
    let until = Clock.now() + Span::from_secs(20);
    loop {
        let tried = TcpStream::connect_timeout(&(target, 9).into(), Duration::from_millis(200));
        match tried {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Ok(()),
            _ if Clock.now() > until => return Err(format!("no way to {target}: {tried:?}")),
            _ => thread::sleep(Duration::from_millis(20)),
        }
    }
}

impl Net {
    pub fn new() -> Result<Self, String> {
        let (router, target) = (Namespace::new()?, Namespace::new()?);
        sysctl(CALM)?;
        router.within(|| sysctl(CALM).and_then(|()| sysctl(FORWARDING)))?;
        target.within(|| sysctl(CALM).and_then(|()| sysctl(FORWARDING)))?;
        ip(&format!("link add a0 type veth peer name a1 netns {}", router.pid()))?;
        ip("addr add 10.77.0.1/24 dev a0
            addr add fd77::1/64 dev a0 nodad
            link set a0 up")?;
        impatient("a0")?;
        let behind = target.pid();
        router.within(|| {
            ip(&format!("link add b0 type veth peer name b1 netns {behind}"))?;
            ip("link set lo up
                addr add 10.77.0.254/24 dev a1
                addr add fd77::254/64 dev a1 nodad
                addr add 10.78.0.254/24 dev b0
                addr add fd78::254/64 dev b0 nodad
                link set a1 up
                link set b0 up")?;
            impatient("b0")
        })?;
        target.within(|| {
            ip("link set lo up
                link set b1 up")?;
            for n in 1..10 {
                ip(&format!(
                    "addr add 10.78.0.{n}/24 dev b1
                     addr add fd78::{n}/64 dev b1 nodad"
                ))?;
            }
            ip("route add default via 10.78.0.254
                route add default via fd78::254")
        })?;
        ip("route add default via 10.77.0.254
            route add default via fd77::254")?;
        for target in ["10.78.0.1", "fd78::1"] {
            await_link(target.parse().expect("an address"))?;
        }
        Ok(Self { router, target })
    }
}

/// This namespace with one link, ways that lead nowhere, and neighbours that it sends nothing to (10.77.0.2, fd77::2).
pub fn unsendable() -> Result<(), String> {
    ip("link add a0 type veth peer name a1
        link set a0 up
        link set a1 up
        addr add 10.77.0.1/24 dev a0
        addr add fd77::1/64 dev a0 nodad
        route add blackhole 10.99.1.0/24
        route add unreachable 10.99.2.0/24
        route add prohibit 10.99.3.0/24
        route add blackhole fd99:1::/64
        route add unreachable fd99:2::/64
        route add prohibit fd99:3::/64")?;
    nft("table inet t {
           chain output {
             type filter hook output priority 0; policy accept;
             ip daddr 10.77.0.2 drop
             ip6 daddr fd77::2 drop
           }
         }")
}
