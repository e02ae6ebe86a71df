//! What the documentation shows loads as it stands.

use super::grammar::Ground;
use super::{headlines, load};
use crate::config::monitor::{MONITOR_KEYS, PULSE_KEYS};
use crate::config::suggestion::ELSEWHERE;
use crate::config::{check, providers::ProviderKind};
use crate::domain::monitor::{CheckKind, Dispatch};
use crate::domain::{Check, Color, Monitor, Policy};

const TEXT: &str = include_str!("../../../../docs/config.md");
const BLACKBOX: &str = include_str!("../../../../docs/blackbox.md");
const MIGRATION: &str = include_str!("../../../../docs/migration.md");

/// What stands in the fences of a language.
fn blocks<'a>(text: &'a str, fence: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(fence).skip(1).map(|block| block.split("```").next().unwrap_or_default())
}

#[test]
fn every_example_loads() {
    let ground = Ground::new();
    let folder = ground.folders.secret_dirs[0].display().to_string();
    let mut examples = 0;
    for example in blocks(TEXT, "```yaml\n").chain(blocks(BLACKBOX, "```yaml\n")) {
        let (monitors, report) = ground.load(&example.replace("/etc/cpra", &folder));
        assert!(report.is_sound() && !monitors.is_empty(), "{example}\n{}", report.diagnostics);
        examples += 1;
    }
    assert!(examples >= 11, "only {examples} examples were found");
}

#[test]
fn a_file_of_the_original_loads_with_the_warnings_that_its_page_lists() {
    let files: Vec<&str> = blocks(MIGRATION, "```yaml\n").collect();
    let listed: Vec<&str> = blocks(MIGRATION, "```text\n").collect();
    let ([file], [listed]) = (&files[..], &listed[..]) else { panic!("one file and one list of warnings") };
    let (monitors, report) = load(file);
    assert!(report.is_sound(), "{}", report.diagnostics);
    let warnings: Vec<String> = headlines(&report).iter().map(|line| format!("monitors.yaml:{line}")).collect();
    assert_eq!(warnings.join("\n"), listed.trim_end());
    // What its forms come to.
    let told: Vec<_> = monitors
        .iter()
        .map(|Monitor { name, policy, .. }| {
            let Policy { check, unhealthy_threshold, healthy_threshold, retries, groups, about, .. } = policy;
            let groups = groups.iter().map(|group| &**group).collect::<Vec<_>>().join(" ");
            let labels = about.labels.len();
            (&**name, check.kind().as_str(), (*unhealthy_threshold, *healthy_threshold, *retries), groups, labels)
        })
        .collect();
    let expected = [
        ("shop-web", "http", (3, 2, 2), "shop frontend", 2),
        ("shop-db", "tcp", (5, 2, 1), "shop databases", 0),
        ("net-gateway", "icmp", (3, 2, 1), "", 0),
        ("batch-age", "script", (3, 2, 0), "", 0),
        ("batch-disk", "script", (3, 2, 0), "", 0),
        ("batch-mail", "http", (3, 2, 0), "", 0),
    ];
    assert_eq!(
        told,
        expected.map(|(name, kind, counts, groups, labels)| (name, kind, counts, groups.to_owned(), labels))
    );
    let dispatched = |color| monitors[0].policy.codes.rule(color).map(|rule| rule.dispatch);
    assert_eq!(
        Color::ALL.map(dispatched),
        Color::ALL.map(|color| Some(match color {
            Color::Yellow => Dispatch::Always,
            Color::Cyan => Dispatch::Off,
            Color::Red | Color::Green | Color::Gray => Dispatch::On,
        }))
    );
    let argv = |at: usize| match &monitors[at].policy.check {
        Check::Script(script) => script.argv.join(" "),
        other => panic!("{other:?} is no script"),
    };
    assert_eq!(argv(3), "/usr/lib/nagios/plugins/check_file_age -w 86400 /backup/last");
    assert_eq!(argv(4), "/usr/lib/nagios/plugins/check_disk -w 10% -c 5%");
}

#[test]
fn every_key_is_described() {
    let mut keys: Vec<&str> = MONITOR_KEYS.known.iter().chain(PULSE_KEYS.known).copied().collect();
    keys.extend(CheckKind::ALL.iter().flat_map(|&kind| check::keys(kind).known));
    keys.extend(crate::config::tls::KEYS.known);
    keys.extend(ProviderKind::NAMES.iter().flat_map(|(_, kind)| kind.keys().into_iter().chain(kind.declared_keys())));
    for key in keys {
        assert!(TEXT.contains(&format!("`{key}`")) || TEXT.contains(&format!("`{key}:")), "{key} is not described");
    }
}

#[test]
fn the_keys_of_the_blackbox_exporter_are_answered_with_ours() {
    let (monitors, report) = load(
        "- name: a
  pulse:
    prober: http
    scrape_interval: 30s
    timeout: 5s
- name: b
  pulse:
    {type: http, interval: 30s, timeout: 5s, http: {url: \"https://h/\", tls_config: {}, query_name: n}}
- name: c
  pulse: {type: dns, interval: 30s, timeout: 5s, dns: {server: h, query_name: n}}
",
    );
    assert!(monitors.is_empty());
    let said = headlines(&report);
    let expected = [
        "3:5: a: unknown key \"prober\": here it is called \"type\"",
        "4:5: a: unknown key \"scrape_interval\": here it is called \"interval\"",
        "8:72: b: unknown key \"tls_config\": here it is called \"tls\"",
        // No name is asked for by http: what there is is listed.
        "8:88: b: unknown key \"query_name\": the keys here are url, ",
        "10:67: c: unknown key \"query_name\": here it is called \"name\"",
    ];
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (said, expected) in said.iter().zip(expected) {
        assert!(said.starts_with(expected), "{said} should begin with {expected}");
    }
    for (theirs, ours) in ELSEWHERE {
        let row = BLACKBOX.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
        let is_told = |(left, right): (&str, &str)| left.contains(&format!("`{theirs}")) && right.contains(ours);
        assert!(row.into_iter().any(is_told), "the page does not say that {theirs} is {ours}");
    }
}
