//! What tests that need something of the machine share: skipping aloud, and patience.
//!
//! Integration tests say `mod support;`, unit tests `#[path = "..."] mod support;`.
//!
//! ```ignore
//! if !is_root() {
//!     return support::skip("namespace_blackhole", "needs root for network namespaces");
//! }
//! ```

// Every test binary compiles this file and uses a part of it.
#![allow(dead_code, unreachable_pub)]

use std::io::Write as _;
use std::thread;
use std::time::Duration;

/// One line per test that may skip even where nothing else may: its name, then the reason.
const ALLOWED: &str = include_str!("../allowed-skips.txt");

/// Says `SKIPPED name: reason`; the test then returns and passes.
///
/// The line goes to standard output, and to the file named by `CPRA_SKIP_LOG`, because runners hide the output of
/// tests that pass.
///
/// # Panics
/// With `CPRA_NO_SKIP=1`, if `tests/allowed-skips.txt` does not name the test: on a machine that is meant to have
/// everything, a skipped test is a test that nobody runs.
pub fn skip(name: &str, reason: &str) {
    let line = format!("SKIPPED {name}: {reason}");
    println!("{line}");
    if let Some(path) = std::env::var_os("CPRA_SKIP_LOG") {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(path);
        // One write, so that lines of tests in other processes do not tear it. Failing to note it fails no test.
        let _ = log.and_then(|mut log| log.write_all(format!("{line}\n").as_bytes()));
    }
    let may_skip = std::env::var_os("CPRA_NO_SKIP").is_none_or(|value| value != "1");
    assert!(
        may_skip || is_allowed(ALLOWED, name),
        "{line}\n(CPRA_NO_SKIP=1, and tests/allowed-skips.txt has no {name})"
    );
}

/// Waits for what must come, on however busy a machine.
///
/// # Panics
/// If it has not come within 30 seconds.
pub fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..600 {
        if condition() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("not within 30 s: {what}");
}

fn is_allowed(list: &str, name: &str) -> bool {
    list.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(char::is_whitespace))
        .any(|(allowed, reason)| allowed == name && !reason.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn only_listed_names_with_a_reason_may_skip() {
        let list = "# comment\n#commented out\nicmp_real needs a router\nbare\nblank   \n";
        assert!(is_allowed(list, "icmp_real"));
        assert!(!is_allowed(list, "icmp"));
        assert!(!is_allowed(list, "bare") && !is_allowed(list, "blank"), "a reason is owed");
        assert!(!is_allowed(list, "#commented"));
    }
}
