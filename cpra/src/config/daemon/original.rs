//! The variables that the Go original sizes its workers by. They count as those of the keys that they stand for, which
//! go first where both are set.

use super::super::diagnostic::{Diagnostics, quoted};
use super::super::node::Mark;
use super::{Settings, diagnostic, error, variable, warning};

/// A variable of the original: the key that it stands for, and what it says in our words.
struct Original {
    variable: &'static str,
    section: &'static str,
    key: &'static str,
    translate: fn(&str) -> Result<String, String>,
}

const ORIGINALS: [Original; 3] = [
    Original { variable: "CPRA_SIZING_TAU_MS", section: "pulse", key: "service_time", translate: milliseconds },
    Original { variable: "CPRA_SIZING_SLO_MS", section: "pulse", key: "slo", translate: milliseconds },
    Original { variable: "CPRA_SIZING_HEADROOM_PCT", section: "pulse", key: "headroom", translate: percent },
];

impl Settings {
    /// What the original's variables say; an empty one says nothing.
    pub(super) fn apply_original(
        &mut self,
        environment: &impl Fn(&str) -> Option<String>,
        diagnostics: &mut Diagnostics,
    ) {
        for Original { variable: theirs, section, key, translate } in ORIGINALS {
            let Some(written) = environment(theirs).filter(|written| !written.trim().is_empty()) else { continue };
            let written = written.trim();
            let translated = match translate(written) {
                Ok(translated) => translated,
                Err(message) => {
                    diagnostics.push(diagnostic(&theirs.into(), "", error(Mark::default(), message)));
                    continue;
                }
            };
            let ours = variable(section, key).and_then(|ours| environment(&ours).map(|text| (ours, text)));
            let Some((ours, text)) = ours else {
                self.apply_variable(theirs, (section, key), &translated, diagnostics);
                continue;
            };
            // Both are set. What is wrong with ours is told where it is read.
            let meaning = |text: &str| {
                let mut settings = Self::default();
                settings.apply_variable("", (section, key), text, &mut Diagnostics::default());
                settings
            };
            if meaning(&translated) != meaning(&text) {
                let message = format!(
                    "{} does nothing here: {ours} ({}) goes first; remove one of them",
                    quoted(written),
                    quoted(&text)
                );
                diagnostics.push(diagnostic(&theirs.into(), "", warning(Mark::default(), message)));
            }
        }
    }
}

/// `20`, `2.5`.
fn milliseconds(written: &str) -> Result<String, String> {
    if !is_number(written) {
        return Err(format!("{} is no number of milliseconds: write one like 20", quoted(written)));
    }
    Ok(format!("{written}ms"))
}

/// `15` is fifteen in a hundred, and so is `0.15`: the original takes what is not above 1 for a share.
fn percent(written: &str) -> Result<String, String> {
    let number: f64 = if is_number(written) { written.parse().unwrap_or(f64::NAN) } else { f64::NAN };
    let share = if number > 1.0 { number / 100.0 } else { number };
    if !(0.0..=1.0).contains(&share) {
        return Err(format!("{} is no percentage: write a number from 0 to 100, such as 15", quoted(written)));
    }
    Ok(format!("{share:.3}"))
}

/// Digits, perhaps with a point and more of them behind it.
fn is_number(written: &str) -> bool {
    let (whole, fraction) = written.split_once('.').unwrap_or((written, "0"));
    let digits = |text: &str| !text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole) && digits(fraction)
}
