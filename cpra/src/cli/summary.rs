//! What was loaded, in the words of the banner and of `--check-config`.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::plural;
use crate::config::{Diagnostics, Report};

/// `4 monitors (1 disabled) from configs/quickstart.yaml`.
pub(super) fn of(report: &Report, given: &[PathBuf]) -> String {
    if given.is_empty() {
        return "no monitors file".to_owned();
    }
    let disabled = match report.monitors - report.enabled {
        0 => String::new(),
        disabled => format!(" ({disabled} disabled)"),
    };
    format!("{}{disabled} from {}", plural(report.monitors, "monitor"), sources(report, given))
}

/// What was named, as long as that is short; and how many files that were, where the names do not tell.
pub(super) fn sources(report: &Report, given: &[PathBuf]) -> String {
    const NAMED_MAX: usize = 3;
    let name =
        |path: &PathBuf| if path.as_os_str() == "-" { "standard input".to_owned() } else { path.display().to_string() };
    let mut names: Vec<String> = given.iter().take(NAMED_MAX).map(name).collect();
    if given.len() > NAMED_MAX {
        names.push("...".to_owned());
    }
    let files =
        if report.files == given.len() { String::new() } else { format!(" ({})", plural(report.files, "file")) };
    names.join(", ") + &files
}

/// `0 errors, 2 warnings`, and what was refused, if anything was.
pub(super) fn findings(diagnostics: &Diagnostics) -> String {
    let mut text = format!("{}, {}", plural(diagnostics.errors(), "error"), plural(diagnostics.warnings(), "warning"));
    if diagnostics.refusals() > 0 {
        let _ = write!(text, ", {} refused", diagnostics.refusals());
    }
    text
}

/// Who is told, where that is somebody else than the log of this process: names, and types where they differ.
fn receivers(report: &Report) -> String {
    const SHOWN_MAX: usize = 12;
    let told = &report.receivers.told;
    if told.iter().all(|(name, provider)| &**name == *provider && *provider == "log") {
        return String::new();
    }
    let shown = |(name, provider): &(Box<str>, &str)| {
        if **name == **provider { name.to_string() } else { format!("{name} ({provider})") }
    };
    let mut names: Vec<String> = told.iter().take(SHOWN_MAX).map(shown).collect();
    if told.len() > SHOWN_MAX {
        names.push(format!("and {} more", told.len() - SHOWN_MAX));
    }
    format!("  notify    {}\n", names.join(", "))
}

/// What nobody should have to look for, a line each.
pub(super) fn notes(report: &Report) -> String {
    let mut text = receivers(report);
    match report.reds_to_fallback {
        0 => {}
        1 => text.push_str("  nobody    1 red has nobody to tell: it goes to the fallback\n"),
        more => {
            let _ = writeln!(text, "  nobody    {more} reds have nobody to tell: they go to the fallback");
        }
    }
    if report.unverified > 0 {
        let have = if report.unverified == 1 { "takes" } else { "take" };
        let monitors = plural(report.unverified, "monitor");
        let _ = writeln!(
            text,
            "  INSECURE  {monitors} {have} any certificate (insecure_skip_verify): anybody can answer for the target"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Receivers;

    #[test]
    fn who_is_told_is_listed_by_name_and_type() {
        let text = |told: &[(&str, &'static str)]| {
            let told = told.iter().map(|(name, provider)| ((*name).into(), *provider)).collect();
            receivers(&Report { receivers: Receivers { told, ..Receivers::default() }, ..Report::default() })
        };
        assert_eq!(text(&[]), "");
        assert_eq!(text(&[("log", "log")]), "");
        assert_eq!(text(&[("log", "log"), ("oncall", "pagerduty")]), "  notify    log, oncall (pagerduty)\n");
        let many: Vec<_> = (0..14).map(|_| ("chat", "slack")).collect();
        assert!(text(&many).ends_with("chat (slack), and 2 more\n"), "{}", text(&many));
    }
}
