//! What the documentation shows loads as it stands.

use super::grammar::Ground;
use crate::config::monitor::{MONITOR_KEYS, PULSE_KEYS};
use crate::config::{check, providers::ProviderKind};
use crate::domain::monitor::CheckKind;

const TEXT: &str = include_str!("../../../../docs/config.md");

#[test]
fn every_example_loads() {
    let ground = Ground::new();
    let folder = ground.folders.secret_dirs[0].display().to_string();
    let mut examples = 0;
    for block in TEXT.split("```yaml\n").skip(1) {
        let example = block.split("```").next().unwrap_or_default();
        let (monitors, report) = ground.load(&example.replace("/etc/cpra", &folder));
        assert!(report.is_sound() && !monitors.is_empty(), "{example}\n{}", report.diagnostics);
        examples += 1;
    }
    assert!(examples >= 10, "only {examples} examples were found");
}

#[test]
fn every_key_is_described() {
    let mut keys: Vec<&str> = MONITOR_KEYS.known.iter().chain(PULSE_KEYS.known).copied().collect();
    keys.extend(CheckKind::ALL.iter().flat_map(|&kind| check::keys(kind).known));
    keys.extend(crate::config::tls::KEYS.known);
    keys.extend(ProviderKind::NAMES.iter().flat_map(|(_, kind)| kind.keys()));
    for key in keys {
        assert!(TEXT.contains(&format!("`{key}`")) || TEXT.contains(&format!("`{key}:")), "{key} is not described");
    }
}
