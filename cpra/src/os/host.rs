//! What this machine itself does to packets: connection tracking that is full drops them, and a dropped SYN looks
//! exactly like a dead target. A check that timed out while these counters moved counts for nothing.
//!
//! Where connection tracking is not loaded there is nothing to count: everything reads zero, nothing fails.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::shard::protocol::HostSample;
use crate::units::Instant;

/// The table counts as full from here on: the kernel begins to drop unconfirmed entries before the very end.
const FULL_PERCENT: u64 = 99;

/// Reads the counters of connection tracking, keeping the files open between samples.
#[derive(Debug)]
pub struct HostCounters {
    statistics: Source,
    count: Source,
    max: Source,
    /// Last raw values by processor. They are 32 bits wide and wrap.
    raw: Vec<[u32; COLUMNS.len()]>,
    /// What they have grown by, plus what they were at first.
    drops: u64,
    /// Kept between samples: reading allocates nothing once it has grown.
    text: Vec<u8>,
}

/// Packets dropped because of failed insertion or a full table, and entries evicted early to make room.
const COLUMNS: [&str; 2] = ["drop", "early_drop"];

impl HostCounters {
    /// Counters under `root`, which is `/proc` but for tests.
    pub fn new(root: &Path) -> Self {
        Self {
            statistics: Source::new(root.join("net/stat/nf_conntrack")),
            count: Source::new(root.join("sys/net/netfilter/nf_conntrack_count")),
            max: Source::new(root.join("sys/net/netfilter/nf_conntrack_max")),
            raw: Vec::new(),
            drops: 0,
            text: Vec::new(),
        }
    }

    /// Reads them; `now` is the time when this begins.
    pub fn sample(&mut self, now: Instant) -> HostSample {
        if self.statistics.read(&mut self.text).is_ok() {
            self.count_drops();
        }
        let count = self.count.read(&mut self.text).ok().and_then(|()| number(&self.text));
        let max = self.max.read(&mut self.text).ok().and_then(|()| number(&self.text));
        let table_full = match (count, max) {
            // A maximum of 0 is no limit.
            (Some(count), Some(max)) => max > 0 && count.saturating_mul(100) >= max.saturating_mul(FULL_PERCENT),
            _ => false,
        };
        HostSample { taken: now, drops: self.drops, table_full }
    }

    fn count_drops(&mut self) {
        let Ok(text) = std::str::from_utf8(&self.text) else { return };
        let mut lines = text.lines();
        let Some(header) = lines.next() else { return };
        // The header names the columns; their number differs between kernels.
        let places = COLUMNS.map(|name| header.split_ascii_whitespace().position(|column| column == name));
        for (processor, line) in lines.enumerate() {
            if self.raw.len() <= processor {
                self.raw.push([0; COLUMNS.len()]);
            }
            for (place, last) in places.iter().zip(&mut self.raw[processor]) {
                let field = place.and_then(|place| line.split_ascii_whitespace().nth(place));
                let Some(value) = field.and_then(|field| u32::from_str_radix(field, 16).ok()) else { continue };
                self.drops += u64::from(value.wrapping_sub(*last));
                *last = value;
            }
        }
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// A file of /proc that is read again and again from its beginning.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    file: Option<File>,
}

impl Source {
    const fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }

    /// Replaces `text` by the file's content. A file that was not there may be later: modules get loaded.
    fn read(&mut self, text: &mut Vec<u8>) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(File::open(&self.path)?),
        };
        text.clear();
        let mut chunk = [0; 4096];
        loop {
            match file.read_at(&mut chunk, text.len() as u64) {
                Ok(0) => return Ok(()),
                Ok(count) => text.extend_from_slice(&chunk[..count]),
                Err(error) => {
                    self.file = None;
                    return Err(error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const HEADER: &str = "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop \
                          early_drop icmp_error  expect_new expect_create expect_delete search_restart\n";

    fn line(drop: u32, early_drop: u32) -> String {
        format!(
            "0000002a  00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 {drop:08x} \
             {early_drop:08x} 00000000  00000000 00000000 00000000 00000000\n"
        )
    }

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("inside the root")).expect("directories");
        fs::write(path, text).expect("written");
    }

    #[test]
    fn nothing_there_is_nothing_dropped() {
        let root = tempfile::tempdir().expect("a directory");
        let now = Instant::from_nanos(7);
        let sample = HostCounters::new(root.path()).sample(now);
        assert_eq!(sample, HostSample { taken: now, drops: 0, table_full: false });
    }

    #[test]
    fn drops_are_summed_over_processors_and_only_grow() {
        let root = tempfile::tempdir().expect("a directory");
        let mut counters = HostCounters::new(root.path());
        let cases = [
            ((3, 0x10), (1, 0), 20),
            ((4, 0x10), (1, 5), 26),
            // Wrapped on the first processor.
            ((u32::MAX, 0x10), (1, 5), u64::from(u32::MAX) + 22),
            ((1, 0x10), (1, 5), u64::from(u32::MAX) + 24),
        ];
        for (first, second, drops) in cases {
            let text = format!("{HEADER}{}{}", line(first.0, first.1), line(second.0, second.1));
            write(root.path(), "net/stat/nf_conntrack", &text);
            assert_eq!(counters.sample(Instant::ZERO).drops, drops);
        }
    }

    #[test]
    fn columns_go_by_their_names() {
        let root = tempfile::tempdir().expect("a directory");
        write(root.path(), "net/stat/nf_conntrack", "early_drop other drop\n0000000a ffffffff 00000001\n");
        assert_eq!(HostCounters::new(root.path()).sample(Instant::ZERO).drops, 11);
        write(root.path(), "net/stat/nf_conntrack", "neither nor\n0000000a ffffffff\n\n");
        assert_eq!(HostCounters::new(root.path()).sample(Instant::ZERO).drops, 0);
    }

    #[test]
    fn the_table_is_full_from_99_percent() {
        let root = tempfile::tempdir().expect("a directory");
        let mut counters = HostCounters::new(root.path());
        for (count, max, full) in
            [("98", "100", false), ("99", "100", true), ("262144", "262144", true), ("5", "0", false)]
        {
            write(root.path(), "sys/net/netfilter/nf_conntrack_count", &format!("{count}\n"));
            write(root.path(), "sys/net/netfilter/nf_conntrack_max", &format!("{max}\n"));
            assert_eq!(counters.sample(Instant::ZERO).table_full, full, "{count} of {max}");
        }
    }

    #[test]
    fn this_host_can_be_read() {
        let mut counters = HostCounters::new(Path::new("/proc"));
        let first = counters.sample(Instant::ZERO);
        assert!(counters.sample(Instant::ZERO).drops >= first.drops);
    }
}
