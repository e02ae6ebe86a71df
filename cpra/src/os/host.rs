//! What this host itself did to packets: the counters of its connection tracking.
//!
//! A full table drops packets, and the sockets hear nothing of it: a live target looks dead. `drop` counts packets that
//! found no room; `early_drop` counts connections that were forgotten to make room, some of which may have been ours.
//! Where nothing is tracked, or where the files cannot be read, the counters stay zero, and a timeout is the target's.
//!
//! One reading is three small files of `/proc`, of this process's network namespace: some ten microseconds. It allocates
//! nothing once its buffer has grown.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::shard::protocol::HostSample;
use crate::units::Instant;

/// Reads the counters below one `/proc`.
#[derive(Debug)]
pub struct HostCounters {
    statistics: PathBuf,
    count: PathBuf,
    max: PathBuf,
    text: String,
}

impl Default for HostCounters {
    fn default() -> Self {
        Self::below(Path::new("/proc"))
    }
}

impl HostCounters {
    /// Of this `/proc`, which tests make themselves.
    pub fn below(root: &Path) -> Self {
        Self {
            statistics: root.join("net/stat/nf_conntrack"),
            count: root.join("sys/net/netfilter/nf_conntrack_count"),
            max: root.join("sys/net/netfilter/nf_conntrack_max"),
            text: String::new(),
        }
    }

    /// A reading that begins now.
    pub fn sample(&mut self, now: Instant) -> HostSample {
        let drops = read(&self.statistics, &mut self.text).map_or(0, drops);
        let mut number = |path| read(path, &mut self.text).and_then(|text| text.trim().parse::<u64>().ok());
        let (count, max) = (number(&self.count), number(&self.max));
        HostSample { taken: now, drops, table_full: is_full(count.unwrap_or(0), max.unwrap_or(0)) }
    }
}

fn read<'a>(path: &Path, text: &'a mut String) -> Option<&'a str> {
    text.clear();
    File::open(path).ok()?.read_to_string(text).ok()?;
    Some(text)
}

/// At 99 %: between the last free entry and the first drop there need not be a reading. A maximum of 0 is none.
const fn is_full(count: u64, max: u64) -> bool {
    max > 0 && count.saturating_mul(100) >= max.saturating_mul(99)
}

/// The sum over all processors. A line names the columns, which differ between kernels; then comes one line of
/// hexadecimal numbers for each processor.
fn drops(text: &str) -> u64 {
    let mut lines = text.lines();
    let names = lines.next().unwrap_or_default();
    let wanted = |name: &str| name == "drop" || name == "early_drop";
    lines
        .flat_map(|line| names.split_whitespace().zip(line.split_whitespace()))
        .filter(|(name, _)| wanted(name))
        .filter_map(|(_, number)| u64::from_str_radix(number, 16).ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// As Linux 6.18 prints it.
    const STATISTICS: &str = "entries  clashres found new invalid ignore delete chainlength insert insert_failed \
drop early_drop icmp_error  expect_new expect_create expect_delete search_restart\n\
0003fff0  00000000 00000000 00000000 00000000 00000000 00000000 00000000 0000f619 00000000 \
0000001f 00000002 00000000  00000000 00000000 00000000 00000000\n\
0003fff0  00000000 00000000 00000000 00000000 00000000 00000000 00000000 0000f619 00000000 \
00000001 00000000 00000007  00000000 00000000 00000000 00000000\n";

    #[test]
    fn drops_are_summed_over_processors_and_found_by_name() {
        assert_eq!(drops(STATISTICS), 0x1f + 2 + 1);
        assert_eq!(drops("early_drop drop\n10 1\n"), 0x11);
        for nothing in ["", "entries drop\n", "entries found\n1 2\n", "drop\nxyz\n"] {
            assert_eq!(drops(nothing), 0, "{nothing:?}");
        }
    }

    #[test]
    fn a_table_is_full_from_ninety_nine_percent_on() {
        assert!(!is_full(98, 100) && is_full(99, 100) && is_full(101, 100));
        assert!(!is_full(5, 0) && !is_full(0, 0), "no maximum, or no table");
        assert!(!is_full(u64::MAX / 200, u64::MAX));
    }

    #[test]
    fn a_host_without_the_files_dropped_nothing() {
        let root = tempfile::tempdir().unwrap();
        let mut host = HostCounters::below(root.path());
        let now = Instant::from_nanos(7);
        assert_eq!(host.sample(now), HostSample { taken: now, drops: 0, table_full: false });

        fs::create_dir_all(root.path().join("net/stat")).unwrap();
        fs::create_dir_all(root.path().join("sys/net/netfilter")).unwrap();
        fs::write(root.path().join("net/stat/nf_conntrack"), STATISTICS).unwrap();
        fs::write(root.path().join("sys/net/netfilter/nf_conntrack_max"), "262144\n").unwrap();
        fs::write(root.path().join("sys/net/netfilter/nf_conntrack_count"), "262000\n").unwrap();
        assert_eq!(host.sample(now), HostSample { taken: now, drops: 0x22, table_full: true });
    }

    #[test]
    fn this_host_can_be_read() {
        let mut host = HostCounters::default();
        let first = host.sample(Instant::ZERO);
        assert!(host.sample(Instant::ZERO).drops >= first.drops);
    }
}
