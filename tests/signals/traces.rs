//! What is left of the programs when their daemon has gone, in whatever way; and who is refused them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::counterparts::engine::Backend;
use super::counterparts::net::{Net, isolated};
use super::counterparts::programs::{CLSACT, NONE, Ours, TCX, XDP, filters, ours};
use super::counterparts::support::skip;
use super::daemon::{BINARY, Cpra, Setup, eventually};

const MONITORS: &str = "monitors:\n\
    - {name: far, pulse: {type: icmp, interval: 500ms, timeout: 400ms, config: {host: 10.78.0.1}}}\n\
    - {name: near, pulse: {type: icmp, interval: 500ms, timeout: 400ms, config: {host: 127.0.0.1}}}\n";

fn setup(ebpf: &str) -> Setup {
    Setup::new().monitors(MONITORS).settings(&format!("[ebpf]\n{ebpf}\n"))
}

/// Until both are up, by what programs say.
fn await_signals(cpra: &Cpra) {
    eventually("both are up", || cpra.metrics().state("up") == 2.0);
    let signalled = cpra.metrics().value("cpra_icmp_signalled_total");
    assert!(signalled >= 2.0, "{signalled}: {}", cpra.said());
}

/// Settings of the host that can be read, but for those that change by themselves.
fn sysctls() -> BTreeMap<PathBuf, String> {
    const RESTLESS: [&str; 4] = ["nf_conntrack_count", "random", "tcp_fastopen_key", "inode-state"];
    let mut known = BTreeMap::new();
    let mut folders = vec![PathBuf::from("/proc/sys/net"), PathBuf::from("/proc/sys/kernel")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if !RESTLESS.iter().any(|restless| path.to_string_lossy().contains(restless))
                // What other tests on this machine do to the next pid and the like.
                && (path.starts_with("/proc/sys/net") || name.contains("bpf") || name.contains("perf_event"))
                && let Ok(text) = fs::read_to_string(&path)
            {
                known.insert(path, text);
            }
        }
    }
    known
}

/// Whatever is pinned there.
fn pinned() -> usize {
    fs::read_dir("/sys/fs/bpf").map_or(0, Iterator::count)
}

/// Filters and queues of others' making there are none.
fn at(interfaces: [&str; 2]) -> [Option<Ours>; 2] {
    interfaces.map(ours)
}

const HERE: [&str; 2] = ["lo", "a0"];

#[test]
fn nothing_stays_behind() {
    isolated("nothing_stays_behind", || {
        Backend::SIGNALS.is_there()?;
        let _net = Net::new()?;
        let before = (sysctls(), pinned());
        assert!(before.0.len() > 100, "there are settings");
        for (hook, attached) in [("tcx", TCX), ("clsact", CLSACT), ("xdp", XDP)] {
            let settings = format!("mode = \"require\"\nhook = \"{hook}\"");
            let mut cpra = setup(&settings).run();
            await_signals(&cpra);
            assert_eq!(at(HERE), [Some(attached); 2], "{hook}");
            assert_eq!((sysctls(), pinned()), before, "{hook}: while it runs");
            cpra.signal(Signal::SIGTERM);
            assert_eq!(cpra.ends_within(Duration::from_secs(15)).code(), Some(0), "{}", cpra.said());
            assert_eq!(at(HERE), [Some(NONE); 2], "{hook}: after its end");
            assert!(!cpra.stderr().contains("WARN"), "{}", cpra.stderr());

            let mut cpra = setup(&settings).run();
            await_signals(&cpra);
            cpra.signal(Signal::SIGKILL);
            cpra.ends_within(Duration::from_secs(15));
            // A filter is nobody's; links are the process's.
            let left = if hook == "clsact" { CLSACT } else { NONE };
            eventually("the kernel has taken its links", || at(HERE) == [Some(left); 2]);
            assert_eq!((sysctls(), pinned()), before, "{hook}: after it was killed");
        }
        // Whatever the next one uses.
        let mut cpra = setup("mode = \"require\"\nhook = \"clsact\"").run();
        await_signals(&cpra);
        assert_eq!(at(HERE), [Some(CLSACT); 2], "one pair, and it is the new one's");
        cpra.signal(Signal::SIGKILL);
        cpra.ends_within(Duration::from_secs(15));
        assert_eq!(at(HERE), [Some(CLSACT); 2]);
        let mut cpra = setup("mode = \"require\"").run();
        await_signals(&cpra);
        assert_eq!(at(HERE), [Some(TCX); 2]);
        cpra.signal(Signal::SIGTERM);
        assert_eq!(cpra.ends_within(Duration::from_secs(15)).code(), Some(0), "{}", cpra.said());
        assert_eq!((at(HERE), filters("a0").as_str()), ([Some(NONE); 2], ""));
        assert_eq!((sysctls(), pinned()), before);
        Ok(())
    });
}

/// A daemon of an ordinary user, who may send echo requests and nothing else.
fn ordinary(ebpf: &str) -> Setup {
    let setup = setup(ebpf);
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("it is ours");
    open(setup.folder());
    let binary = setup.folder().join("cpra");
    fs::copy(BINARY, &binary).expect("room for a copy");
    open(&binary);
    let given = ["--bounding-set=-all,+net_raw", "--inh-caps=-all,+net_raw", "--ambient-caps=-all,+net_raw"];
    let words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", given[0], given[1], given[2], "--"];
    setup.binary(&binary).through(&words)
}

const REMEDY: &str = "needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON";

#[test]
fn who_may_not_load_them_is_told() {
    if !nix::unistd::geteuid().is_root() {
        return skip("who_may_not_load_them_is_told", "only root can become somebody else");
    }
    isolated("who_may_not_load_them_is_told", || {
        let _net = Net::new()?;
        let mut cpra = ordinary("mode = \"require\"").start();
        assert_eq!(cpra.ends_within(Duration::from_secs(15)).code(), Some(1), "{}", cpra.said());
        assert!(cpra.stderr().contains("`[ebpf] mode` requires it"), "{}", cpra.said());
        assert!(cpra.stderr().contains(REMEDY) && !cpra.stdout().contains("open "), "{}", cpra.said());
        for (mode, said) in [("auto", format!("eBPF: off ({REMEDY})")), ("off", "eBPF: off ".to_owned())] {
            let mut cpra = ordinary(&format!("mode = \"{mode}\"")).run();
            assert!(cpra.stdout().contains(&said), "{}", cpra.said());
            eventually("both are up", || cpra.metrics().state("up") == 2.0);
            assert_eq!(cpra.metrics().value("cpra_icmp_signalled_total"), 0.0);
            assert_eq!(at(HERE), [Some(NONE); 2]);
            cpra.signal(Signal::SIGTERM);
            assert_eq!(cpra.ends_within(Duration::from_secs(15)).code(), Some(0), "{}", cpra.said());
        }
        Ok(())
    });
}
