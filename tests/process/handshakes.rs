//! Handshakes by the kernel's clock, in the daemon; and that nothing of it is left in the kernel when the daemon is killed.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::counterparts::support;
use super::daemon::{Setup, eventually};
use super::targets::Targets;

/// Numbers of the programs that a process holds, by what the kernel says of its descriptors. A process that has ended
/// holds none.
fn programs(pid: &str) -> BTreeSet<u64> {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return BTreeSet::new() };
    let texts = descriptors.filter_map(|descriptor| fs::read_to_string(descriptor.ok()?.path()).ok());
    let numbers = |text: String| -> Vec<u64> {
        let found = text.lines().filter_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok());
        found.collect()
    };
    texts.flat_map(numbers).collect()
}

#[test]
fn handshakes_are_counted_and_a_killed_daemon_leaves_no_program() {
    let name = "handshakes_are_counted_and_a_killed_daemon_leaves_no_program";
    if !nix::unistd::geteuid().is_root() {
        return support::skip(name, "only root may load eBPF programs");
    }
    if !fs::exists("/sys/kernel/btf/vmlinux").unwrap_or(false) {
        return support::skip(name, "this kernel does not describe its types (CONFIG_DEBUG_INFO_BTF)");
    }
    let targets = Targets::start(1, Duration::ZERO);
    let address = targets.addresses[0];
    let pulse = "interval: 500ms, timeout: 500ms";
    let text = format!(
        "monitors:\n\
         - {{name: web, pulse: {{type: http, {pulse}, config: {{url: \"http://{address}/\"}}}}}}\n\
         - {{name: port, pulse: {{type: tcp, {pulse}, config: {{host: 127.0.0.1, port: {}}}}}}}\n",
        address.port()
    );
    let settings = "[ebpf]\nmode = \"require\"\ninterfaces = [\"lo\"]\n";
    let mut cpra = Setup::new().monitors(&text).settings(settings).run();
    eventually("handshakes are counted", || cpra.metrics().value("cpra_connect_rtt_seconds_count") >= 6.0);
    let metrics = cpra.metrics();
    let (count, sum) = (metrics.value("cpra_connect_rtt_seconds_count"), metrics.value("cpra_connect_rtt_seconds_sum"));
    assert!(sum > 0.0 && sum / count < 0.005, "{count} handshakes on the loopback in {sum} s");
    let pid = cpra.child().id().to_string();
    let held = programs(&pid);
    assert!(held.len() >= 3, "on the way out, on the way in, at the tracepoint: {held:?}");
    cpra.signal(Signal::SIGKILL);
    cpra.ends_within(Duration::from_secs(10));
    // A program that nobody holds is gone, unless something in a file system holds it.
    let pinned = fs::read_dir("/sys/fs/bpf").map_or(0, Iterator::count);
    assert_eq!(pinned, 0, "nothing is pinned");
    eventually("nobody holds one of them", || {
        let processes = fs::read_dir("/proc").expect("it is there").filter_map(Result::ok);
        let mut names = processes.filter_map(|process| process.file_name().into_string().ok());
        names.all(|pid| pid.parse::<u32>().is_err() || programs(&pid).is_disjoint(&held))
    });
}
