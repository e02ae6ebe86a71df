//! Whether this machine can bear the catalog, asked before the start.
//!
//! Several limits of a host look like dead targets once they are hit: a full conntrack table and a full neighbour
//! table drop packets, used-up source ports refuse to connect. Here the demand of a catalog, in numbers, is held
//! against each limit; what does not fit is said together with the sysctl and the value that would.
//!
//! The demand is an estimate from above, and the targets' networks are unknown: every literal address might be on
//! a directly attached link. A limit that the host does not have (module not loaded, namespace) is not judged.

use std::fs;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use hashbrown::{HashMap, HashSet};
use rustc_hash::FxBuildHasher;

use super::ping::Means;
use crate::domain::{Check, HostRef};
use crate::probe::Probe;
use crate::units::Span;
use crate::world::Catalog;

/// What a catalog asks of the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Demand {
    /// New connections per second, of all monitors, when every check makes its own.
    pub connects_per_second: f64,
    /// The most new connections per second to one address and port.
    pub connects_per_second_to_one: f64,
    /// Whether connections are closed by FIN (which leaves TIME_WAIT) instead of by RST.
    pub graceful: bool,
    /// Sockets in use at the same time, at most.
    pub sockets_in_flight: u64,
    /// Distinct addresses.
    pub destinations_v4: u64,
    pub destinations_v6: u64,
    /// Monitors that send echo requests.
    pub echoing: u64,
    /// Echo requests a second, as intervals say. Shards have equal shares of what is allowed, so this is the busiest one's,
    /// times their number.
    pub echoes_per_second: f64,
    /// SYNs of half-open checks, likewise: one for each check, as it is where everybody answers.
    pub syns_per_second: f64,
    /// The longest timeout: with every target dead, this long each connect is pending.
    pub timeout_max: Span,
}

impl Demand {
    /// What the enabled monitors of a catalog ask for, with at most `slots_max` checks in flight.
    pub fn of(catalog: &Catalog, slots_max: u32) -> Self {
        // By hash: two targets that fall together make the estimate a little too high or too low, and a million
        // monitors cost 12 MB for a moment instead of five times that.
        let mut to_one: HashMap<u64, f32, FxBuildHasher> = HashMap::with_hasher(FxBuildHasher);
        let mut destinations: HashSet<IpAddr, FxBuildHasher> = HashSet::with_hasher(FxBuildHasher);
        let mut demand = Self {
            connects_per_second: 0.0,
            connects_per_second_to_one: 0.0,
            // Our connections end by reset, also when the peer has closed first: nothing is left in TIME_WAIT.
            graceful: false,
            sockets_in_flight: 0,
            destinations_v4: 0,
            destinations_v6: 0,
            echoing: 0,
            echoes_per_second: 0.0,
            syns_per_second: 0.0,
            timeout_max: Span::ZERO,
        };
        let mut echoes = vec![0.0; usize::from(catalog.shards())];
        let mut syns = echoes.clone();
        let mut pending = 0.0;
        for id in catalog.enabled_ids() {
            let (policy, target) = (catalog.policy(id), catalog.target(id));
            if let Check::Icmp(check) = &policy.check {
                demand.echoing += 1;
                echoes[usize::from(id.shard())] += f64::from(check.count) / policy.interval.as_secs_f64().max(1e-3);
            } else if policy.check.is_half_open() {
                syns[usize::from(id.shard())] += 1.0 / policy.interval.as_secs_f64().max(1e-3);
            }
            if !Probe::uses_socket(&policy.check) {
                if let HostRef::Literal(address) = target.host {
                    destinations.insert(address);
                }
                continue;
            }
            let per_second = 1.0 / policy.interval.as_secs_f64().max(1e-3);
            pending += per_second * policy.timeout.as_secs_f64();
            demand.timeout_max = demand.timeout_max.max(policy.timeout);
            let kept = matches!(&policy.check, Check::Http(http) if http.keep_alive);
            if !kept {
                demand.connects_per_second += per_second;
            }
            let HostRef::Literal(address) = target.host else { continue };
            destinations.insert(address);
            if !kept {
                #[expect(clippy::cast_possible_truncation, reason = "a sum of rates, for an estimate")]
                let rate = per_second as f32;
                *to_one.entry(FxBuildHasher.hash_one((address, target.port))).or_default() += rate;
            }
        }
        let busiest = |rates: &[f64]| rates.iter().fold(0.0, |most: f64, rate| most.max(*rate)) * rates.len() as f64;
        demand.echoes_per_second = busiest(&echoes);
        demand.syns_per_second = busiest(&syns);
        demand.connects_per_second_to_one = to_one.values().fold(0.0, |most, rate| f64::from(*rate).max(most));
        demand.destinations_v4 =
            destinations.iter().filter(|address| address.is_ipv4() && !address.is_loopback()).count() as u64;
        demand.destinations_v6 =
            destinations.iter().filter(|address| address.is_ipv6() && !address.is_loopback()).count() as u64;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates at the bound below")]
        let pending = pending.ceil() as u64;
        demand.sockets_in_flight = pending.min(u64::from(slots_max));
        demand
    }
}

/// Whether the echo requests that a catalog asks for can leave, by what is to be had for IPv4 and IPv6.
pub fn echo(demand: &Demand, means: [Means; 2]) -> Option<Finding> {
    if demand.echoing == 0 {
        return None;
    }
    let none = means.iter().all(|means| matches!(means, Means::None(_)));
    let [v4, v6] = means;
    let (severity, advice) = if none {
        let advice = format!(
            "{} icmp monitors cannot be judged (IPv4: {v4}, IPv6: {v6}): `AmbientCapabilities=CAP_NET_RAW` in the unit \
             file, or `sysctl -w net.ipv4.ping_group_range=\"GID GID\"` with a group of the daemon",
            demand.echoing
        );
        (Severity::Short, advice)
    } else {
        (Severity::Ok, String::new())
    };
    Some(Finding { limit: ECHO, severity, demand: demand.echoing, available: if none { 0 } else { u64::MAX }, advice })
}

/// How a demand compares with a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Ok,
    /// More than [`TIGHT_PERCENT`] of what there is.
    Tight,
    /// More than there is.
    Short,
}

/// One limit, judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The sysctl or resource limit.
    pub limit: &'static str,
    pub severity: Severity,
    pub demand: u64,
    pub available: u64,
    /// What to do about it; empty when nothing needs to be done.
    pub advice: String,
}

/// Others use the host as well, and rates have bursts.
pub const TIGHT_PERCENT: u64 = 70;
/// What to ask for beyond the demand: the next check of the same host should be calm.
const ROOM_PERCENT: u64 = 150;
/// `TCP_TIMEWAIT_LEN` of Linux: not configurable.
const TIME_WAIT_SECONDS: u64 = 60;
/// Descriptors of the daemon beyond the sockets of its pool: rings, files, API, store, notices.
const DESCRIPTORS_OTHER: u64 = 512;

const ECHO: &str = "sockets for echo requests";
const CONNTRACK_MAX: &str = "net.netfilter.nf_conntrack_max";
const TCP_MEM: &str = "net.ipv4.tcp_mem";
const PORT_RANGE: &str = "net.ipv4.ip_local_port_range";
const NEIGHBOURS_V4: &str = "net.ipv4.neigh.default.gc_thresh3";
const NEIGHBOURS_V6: &str = "net.ipv6.neigh.default.gc_thresh3";

/// Judges every limit that this host has. `root` is `/proc` but for tests; `nofile` is the soft limit of open files.
pub fn judge(demand: &Demand, root: &Path, nofile: u64) -> Vec<Finding> {
    let host = Host { root: root.to_owned() };
    let checks = [
        conntrack(demand, &host),
        neighbours(demand.destinations_v4, &host, NEIGHBOURS_V4),
        neighbours(demand.destinations_v6, &host, NEIGHBOURS_V6),
        ports(demand, &host),
        tcp_memory(demand, &host),
        Some(files(demand, &host, nofile)),
    ];
    checks.into_iter().flatten().collect()
}

/// Each connection is an entry until its state times out after the end; pending ones are entries as well.
fn conntrack(demand: &Demand, host: &Host) -> Option<Finding> {
    let available = host.number(CONNTRACK_MAX)?;
    if available == 0 {
        return None;
    }
    let (timeout, default) = if demand.graceful {
        ("net.netfilter.nf_conntrack_tcp_timeout_time_wait", 120)
    } else {
        ("net.netfilter.nf_conntrack_tcp_timeout_close", 10)
    };
    let linger = host.number(timeout).unwrap_or(default);
    // Echo requests to one address are one entry, since all of them have the same identifier.
    let others = demand.sockets_in_flight.saturating_add(demand.echoing);
    let wanted = product(demand.connects_per_second, linger).saturating_add(others);
    Some(finding(CONNTRACK_MAX, wanted, available, |room| {
        format!(
            "{wanted} connections are tracked at a time ({:.0} per second, kept {linger} s after their end), and beyond \
             {available} the kernel drops packets: `sysctl -w {CONNTRACK_MAX}={room}`, or lower {timeout}, or exempt \
             the checks with a NOTRACK rule by mark",
            demand.connects_per_second
        )
    }))
}

fn neighbours(destinations: u64, host: &Host, limit: &'static str) -> Option<Finding> {
    let available = host.number(limit)?;
    Some(finding(limit, destinations, available, |room| {
        format!(
            "up to {destinations} targets may be on directly attached networks, and beyond {available} neighbours the \
             kernel fails to send: `sysctl -w {limit}={room}` (and gc_thresh2 to {}), unless they are behind a router",
            room / 2
        )
    }))
}

/// A source port is taken per destination while the connection lives and, after a FIN, for a minute more.
fn ports(demand: &Demand, host: &Host) -> Option<Finding> {
    let range = host.numbers(PORT_RANGE)?;
    let [low, high] = range[..] else { return None };
    let available = (high + 1).checked_sub(low)?;
    let kept = if demand.graceful { TIME_WAIT_SECONDS } else { 0 };
    // A dead destination holds its ports until the timeout.
    let pending = demand.timeout_max.as_secs().max(1);
    let wanted = product(demand.connects_per_second_to_one, kept.max(pending));
    Some(finding(PORT_RANGE, wanted, available, |room| {
        let span = room.min(64_511);
        let low = 65_535 - span + 1;
        let per_second = available / kept.max(pending);
        let hint = if demand.graceful { "close by reset (no TIME_WAIT), or " } else { "" };
        let widen = format!("widen the range: `sysctl -w {PORT_RANGE}=\"{low} 65535\"`");
        format!(
            "{:.0} connections per second to one destination hold {wanted} source ports, enough for {per_second} per \
             second: {hint}{widen}, or check that destination less often",
            demand.connects_per_second_to_one
        )
    }))
}

/// A pending connect charges one page.
fn tcp_memory(demand: &Demand, host: &Host) -> Option<Finding> {
    let numbers = host.numbers(TCP_MEM)?;
    let [_, pressure, maximum] = numbers[..] else { return None };
    // From the pressure mark on the kernel shrinks buffers, so that is what we may use.
    let pages = demand.sockets_in_flight;
    Some(finding(TCP_MEM, pages, pressure.min(maximum), |room| {
        format!(
            "{pages} pending connects charge a page each, and from {pressure} on the kernel saves memory: `sysctl -w \
             {TCP_MEM}=\"{} {room} {}\"`",
            room / 4 * 3,
            room / 2 * 3
        )
    }))
}

/// The pool's sockets are direct and need no descriptor, but the table of each io_uring instance is capped by the
/// limit; the rest of the daemon needs its share.
fn files(demand: &Demand, host: &Host, nofile: u64) -> Finding {
    let tables = demand.sockets_in_flight.div_ceil(nofile.max(1));
    let wanted = DESCRIPTORS_OTHER + tables;
    let ceiling = host.number("fs.nr_open").unwrap_or(1_048_576);
    finding("RLIMIT_NOFILE", wanted, nofile, |room| {
        format!(
            "the daemon needs {wanted} descriptors and may open {nofile}: set `LimitNOFILE={}` in its unit file (`ulimit \
             -n` in a shell)",
            room.max(65_536).min(ceiling)
        )
    })
}

fn finding(limit: &'static str, demand: u64, available: u64, advice: impl FnOnce(u64) -> String) -> Finding {
    let severity = if demand > available {
        Severity::Short
    } else if demand.saturating_mul(100) > available.saturating_mul(TIGHT_PERCENT) {
        Severity::Tight
    } else {
        Severity::Ok
    };
    let advice = if severity == Severity::Ok { String::new() } else { advice(rounded(demand)) };
    Finding { limit, severity, demand, available, advice }
}

/// The demand with room to spare, in a number that people can read.
fn rounded(demand: u64) -> u64 {
    let room = demand.saturating_mul(ROOM_PERCENT) / 100;
    let step = if room >= 100_000 { 10_000 } else { 1_000 };
    room.div_ceil(step).saturating_mul(step)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates; rates are not negative")]
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn product(per_second: f64, seconds: u64) -> u64 {
    (per_second * seconds as f64).ceil() as u64
}

struct Host {
    root: PathBuf,
}

impl Host {
    /// The numbers of a sysctl, or none where this host does not have it.
    fn numbers(&self, sysctl: &str) -> Option<Vec<u64>> {
        let path = self.root.join("sys").join(sysctl.replace('.', "/"));
        fs::read_to_string(path).ok()?.split_ascii_whitespace().map(|field| field.parse().ok()).collect()
    }

    fn number(&self, sysctl: &str) -> Option<u64> {
        self.numbers(sysctl)?.first().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Severity::{Ok, Short, Tight};

    fn quiet() -> Demand {
        Demand {
            connects_per_second: 100.0,
            connects_per_second_to_one: 1.0,
            graceful: false,
            sockets_in_flight: 100,
            destinations_v4: 100,
            destinations_v6: 0,
            echoing: 0,
            echoes_per_second: 0.0,
            syns_per_second: 0.0,
            timeout_max: Span::from_secs(5),
        }
    }

    /// A usual machine.
    fn host() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        let files = [
            ("net/netfilter/nf_conntrack_max", "262144\n"),
            ("net/netfilter/nf_conntrack_tcp_timeout_close", "10\n"),
            ("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "120\n"),
            ("net/ipv4/neigh/default/gc_thresh3", "1024\n"),
            ("net/ipv6/neigh/default/gc_thresh3", "1024\n"),
            ("net/ipv4/ip_local_port_range", "32768\t60999\n"),
            ("net/ipv4/tcp_mem", "20000\t30000\t60000\n"),
            ("fs/nr_open", "1048576\n"),
        ];
        for (path, text) in files {
            let path = root.path().join("sys").join(path);
            fs::create_dir_all(path.parent().expect("inside the root")).expect("directories");
            fs::write(path, text).expect("written");
        }
        root
    }

    #[test]
    fn a_small_catalog_fits_everywhere() {
        let findings = judge(&quiet(), host().path(), 20_000);
        assert_eq!(findings.len(), 6);
        for finding in findings {
            assert_eq!((finding.severity, finding.advice.as_str()), (Ok, ""), "{}", finding.limit);
        }
    }

    #[test]
    fn each_limit_is_found_with_a_sysctl_and_a_number() {
        let root = host();
        let demand = quiet;
        let cases = [
            // 30,000 × 10 s + 100 in flight
            (
                Demand { connects_per_second: 30_000.0, ..demand() },
                CONNTRACK_MAX,
                Short,
                300_100,
                "nf_conntrack_max=460000",
            ),
            (
                Demand { connects_per_second: 20_000.0, ..demand() },
                CONNTRACK_MAX,
                Tight,
                200_100,
                "nf_conntrack_max=310000",
            ),
            // A graceful close is tracked for 120 s.
            (
                Demand { connects_per_second: 2_500.0, graceful: true, ..demand() },
                CONNTRACK_MAX,
                Short,
                300_100,
                "nf_conntrack_max=460000",
            ),
            (Demand { destinations_v4: 4_000, ..demand() }, NEIGHBOURS_V4, Short, 4_000, "gc_thresh3=6000"),
            (Demand { destinations_v6: 1_000, ..demand() }, NEIGHBOURS_V6, Tight, 1_000, "gc_thresh3=2000"),
            // 28,232 ports / 60 s = 470 per second
            (
                Demand { connects_per_second_to_one: 471.0, graceful: true, ..demand() },
                PORT_RANGE,
                Short,
                28_260,
                "ip_local_port_range=\"22536 65535\"",
            ),
            (Demand { connects_per_second_to_one: 471.0, ..demand() }, PORT_RANGE, Ok, 2_355, ""),
            (
                Demand { connects_per_second_to_one: 5_000.0, timeout_max: Span::from_secs(5), ..demand() },
                PORT_RANGE,
                Tight,
                25_000,
                "65535",
            ),
            (
                Demand { sockets_in_flight: 150_000, ..demand() },
                TCP_MEM,
                Short,
                150_000,
                "tcp_mem=\"172500 230000 345000\"",
            ),
        ];
        for (demand, limit, severity, wanted, advice) in cases {
            let findings = judge(&demand, root.path(), 20_000);
            let finding = findings.iter().find(|finding| finding.limit == limit).expect("judged");
            assert_eq!((finding.severity, finding.demand), (severity, wanted), "{finding:?}");
            assert!(finding.advice.contains(advice), "{finding:?}");
            assert!(severity == Ok || finding.advice.contains("sysctl -w"), "{finding:?}");
        }
    }

    #[test]
    fn echo_requests_need_one_socket_of_two() {
        use crate::ring::Errno;
        let none = Means::None(Errno::EACCES);
        assert_eq!(echo(&quiet(), [none, none]), None, "nobody asks for any");
        let demand = Demand { echoing: 3, ..quiet() };
        for means in [[Means::Raw, Means::Raw], [Means::Datagram, none], [none, Means::Raw]] {
            let finding = echo(&demand, means).expect("judged");
            assert_eq!((finding.severity, finding.advice.as_str()), (Ok, ""));
        }
        let finding = echo(&demand, [none, Means::None(Errno::EAFNOSUPPORT)]).expect("judged");
        assert_eq!((finding.severity, finding.demand, finding.available), (Short, 3, 0));
        assert!(finding.advice.contains("3 icmp monitors") && finding.advice.contains("CAP_NET_RAW"), "{finding:?}");
    }

    #[test]
    fn descriptors_are_for_the_rest_of_the_daemon() {
        let root = host();
        for (nofile, severity) in [(256, Short), (600, Tight), (1_024, Ok)] {
            let findings = judge(&quiet(), root.path(), nofile);
            let finding = findings.iter().find(|finding| finding.limit == "RLIMIT_NOFILE").expect("judged");
            assert_eq!(finding.severity, severity, "{finding:?}");
            assert_eq!(finding.advice.contains("LimitNOFILE=65536"), severity != Ok);
        }
    }

    #[test]
    fn what_the_host_does_not_have_is_not_judged() {
        let root = tempfile::tempdir().expect("a directory");
        let findings = judge(&quiet(), root.path(), 20_000);
        assert_eq!(findings.iter().map(|finding| finding.limit).collect::<Vec<_>>(), ["RLIMIT_NOFILE"]);
    }

    #[test]
    fn nonsense_in_a_file_is_as_if_it_were_missing() {
        let root = host();
        for (path, text) in [("ip_local_port_range", "60999 32768"), ("tcp_mem", "many"), ("ip_local_port_range", "1")]
        {
            fs::write(root.path().join("sys/net/ipv4").join(path), text).expect("written");
            let findings = judge(&quiet(), root.path(), 20_000);
            let limit = format!("net.ipv4.{path}");
            assert!(findings.iter().all(|finding| finding.limit != limit), "{path} = {text}");
        }
    }

    #[test]
    fn this_host_is_judged() {
        assert!(!judge(&quiet(), Path::new("/proc"), 20_000).is_empty());
    }
}
