//! What this process takes from its host, read from `/proc/self`.

use std::fs;

/// What could be read; a value that could not is absent instead of zero.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    pub resident_bytes: Option<u64>,
    pub virtual_bytes: Option<u64>,
    pub open_fds: Option<u64>,
    pub max_fds: Option<u64>,
    pub cpu_seconds: Option<f64>,
    pub threads: Option<u64>,
}

/// Ticks per second in `/proc/*/stat`: USER_HZ, which is 100 on every architecture that Rust's standard library
/// runs on; the kernel's own HZ does not show there.
const USER_HZ: f64 = 100.0;

impl Process {
    pub fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        Self {
            resident_bytes: status_field(&status, "VmRSS:").map(|kilobytes| kilobytes * 1024),
            virtual_bytes: status_field(&status, "VmSize:").map(|kilobytes| kilobytes * 1024),
            open_fds: open_fds(),
            max_fds: max_fds(&limits),
            cpu_seconds: cpu_seconds(&stat),
            threads: status_field(&status, "Threads:"),
        }
    }
}

fn status_field(status: &str, key: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok())
}

/// Since Linux 6.2 the folder's size is the count; before, it has to be listed, which takes milliseconds with a
/// hundred thousand sockets.
fn open_fds() -> Option<u64> {
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => Some(fs::read_dir("/proc/self/fd").ok()?.count() as u64),
        count => Some(count),
    }
}

fn max_fds(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time, the 14th and 15th field. The second one is the command in parentheses and may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some((f64::from(user) + f64::from(system)) / USER_HZ)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_can_be_read() {
        let process = Process::read();
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 100_000), "{process:?}");
        assert!(process.open_fds.is_some_and(|count| (3..100_000).contains(&count)), "{process:?}");
        assert!(process.cpu_seconds.is_some(), "{process:?}");
        assert!(process.threads.is_some_and(|count| count >= 1), "{process:?}");
    }

    #[test]
    fn a_command_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "42 (a) b) S 1 1 1 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 1 0 9 9 9";
        assert_eq!(cpu_seconds(stat), Some(3.0));
    }
}
