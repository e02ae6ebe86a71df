//! Every accepted key: changed, it changes the monitor, and nothing else.

use super::*;
use crate::domain::monitor::About;
use crate::domain::monitor::{CodeRule, Dispatch};
use crate::domain::{Check, Codes, Color, Destination, Host, HttpCheck, Policy, StatusSet, Target, TcpCheck};
use crate::units::Span;

const HTTP: &str = "\
- name: a
  pulse:
    type: http
    interval: 30s
    timeout: 5s
    config:
      url: http://h/
";

fn one(text: &str) -> Monitor {
    let (mut monitors, report) = load(text);
    assert!(report.is_sound() && monitors.len() == 1, "{text}\n{}", report.diagnostics);
    monitors.remove(0)
}

fn plain() -> Monitor {
    let check = HttpCheck {
        method: "GET".into(),
        headers: Box::default(),
        body: Box::default(),
        expected: StatusSet::success(),
        keep_alive: false,
        ..HttpCheck::default()
    };
    Monitor {
        name: "a".into(),
        enabled: true,
        target: Target { host: Host::Name("h".into()), port: 80, path: "/".into() },
        policy: Policy {
            check: Check::Http(check),
            interval: Span::from_secs(30),
            timeout: Span::from_secs(5),
            retry_interval: Span::from_secs(30),
            unhealthy_threshold: 3,
            healthy_threshold: 2,
            retries: 0,
            max_latency: None,
            about: About::default(),
            groups: Box::default(),
            codes: fallen_back(),
        },
    }
}

/// Whom a monitor without `codes` tells: at red, the fallback.
fn fallen_back() -> Codes {
    let mut codes = Codes::default();
    codes.set(Color::Red, CodeRule { dispatch: Dispatch::On, notify: log(None) });
    codes
}

fn http(monitor: &mut Monitor) -> &mut HttpCheck {
    match &mut monitor.policy.check {
        Check::Http(check) => check,
        Check::Tcp(_) | Check::Icmp(_) | Check::Script(_) | Check::Dns(_) | Check::Push(_) => panic!("an http check"),
    }
}

fn log(file: Option<&str>) -> Box<[std::sync::Arc<Destination>]> {
    Box::new([std::sync::Arc::new(Destination::log(file.map(Into::into)))])
}

#[test]
fn the_least_monitor_has_the_defaults() {
    assert_eq!(one(HTTP), plain());
}

#[test]
fn every_key_changes_the_monitor() {
    type Change = fn(&mut Monitor);
    let rows: &[(&str, &str, Change)] = &[
        ("name: a", "name: shop/web", |m| m.name = "shop/web".into()),
        ("name: a", "name: 12", |m| m.name = "12".into()),
        ("name: a", "name: a\n  enabled: false", |m| m.enabled = false),
        ("name: a", "name: a\n  enabled: True", |_| {}),
        ("name: a", "name: a\n  groups: [x, y, x]", |m| m.policy.groups = ["x".into(), "y".into()].into()),
        ("name: a", "name: a\n  groups: x", |m| m.policy.groups = ["x".into()].into()),
        ("    type", "    groups: [z]\n    type", |m| m.policy.groups = ["z".into()].into()),
        ("pulse:", "groups: [y]\n  pulse:\n    groups: [z, y]", |m| m.policy.groups = ["y".into(), "z".into()].into()),
        ("pulse:", "pulse_check:", |_| {}),
        ("interval: 30s", "interval: 1m30s", |m| {
            m.policy.interval = Span::from_secs(90);
            m.policy.retry_interval = Span::from_secs(90);
        }),
        ("timeout: 5s", "timeout: 250ms", |m| m.policy.timeout = Span::from_millis(250)),
        ("timeout: 5s", "timeout: 5s\n    max_failures: 5", |m| m.policy.unhealthy_threshold = 5),
        ("timeout: 5s", "timeout: 5s\n    unhealthy_threshold: 1", |m| m.policy.unhealthy_threshold = 1),
        ("timeout: 5s", "timeout: 5s\n    healthy_threshold: 4", |m| m.policy.healthy_threshold = 4),
        ("timeout: 5s", "timeout: 5s\n    retry_interval: 2s", |m| m.policy.retry_interval = Span::from_secs(2)),
        ("http://h/", "http://H.:81/x?y=1", |m| {
            m.target = Target { host: Host::Name("h".into()), port: 81, path: "/x?y=1".into() };
        }),
        ("http://h/", "'http://[::1]/'", |m| m.target.host = Host::Literal("::1".parse().expect("an address"))),
        ("url: http://h/", "url: http://h/\n      method: post", |m| http(m).method = "POST".into()),
        ("url: http://h/", "url: http://h/\n      headers: {X-A: 1, Host: other}", |m| {
            http(m).headers = [("X-A".into(), "1".into()), ("Host".into(), "other".into())].into();
        }),
        ("url: http://h/", "url: http://h/\n      body: |\n        {\"a\": 1}", |m| {
            http(m).body = (*b"{\"a\": 1}\n").into();
        }),
        ("url: http://h/", "url: http://h/\n      body: \"\\u0001\"", |m| http(m).body = [1].into()),
        ("url: http://h/\n", "url: http://h/\n      body: |\n        x\n        \ty", |m| {
            http(m).body = (*b"x\n\ty\n").into();
        }),
        ("url: http://h/", "url: http://h/\n      body: \"x\n        \ty\"", |m| http(m).body = (*b"x y").into()),
        ("url: http://h/", "url: http://h/\n      expected_status: 204", |m| {
            http(m).expected = StatusSet::new(vec![(204, 204)]);
        }),
        ("url: http://h/", "url: http://h/\n      expected_status: [301, 200-299]", |m| {
            http(m).expected = StatusSet::new(vec![(200, 299), (301, 301)]);
        }),
        ("url: http://h/", "url: http://h/\n      expected_status: \"200-399\"", |m| {
            http(m).expected = StatusSet::new(vec![(200, 399)]);
        }),
        ("url: http://h/", "url: http://h/\n      retries: 3", |m| m.policy.retries = 3),
        ("url: http://h/", "url: http://h/\n      keep_alive: true", |m| http(m).keep_alive = true),
        ("type: http", "type: HTTP", |_| {}),
        ("- name", "# a comment\n---\n- name", |_| {}),
    ];
    for (from, to, change) in rows {
        let text = HTTP.replacen(from, to, 1);
        assert_ne!(&text, HTTP, "{from} does not occur");
        let mut expected = plain();
        change(&mut expected);
        assert_eq!(one(&text), expected, "{text}");
    }
}

#[test]
fn codes_say_who_is_told() {
    let rule = |dispatch, notify| Some(CodeRule { dispatch, notify });
    for (codes, color, expected) in [
        ("{red: {notify: log}}", Color::Red, rule(Dispatch::On, log(None))),
        ("{RED: {notify: [log]}}", Color::Red, rule(Dispatch::On, log(None))),
        ("{yellow: {dispatch: true, notify: log}}", Color::Yellow, rule(Dispatch::On, log(None))),
        ("{yellow: {dispatch: failure, notify: log}}", Color::Yellow, rule(Dispatch::On, log(None))),
        ("{Green: {dispatch: always}}", Color::Green, rule(Dispatch::Always, log(None))),
        ("{cyan: {dispatch: false}}", Color::Cyan, rule(Dispatch::Off, log(None))),
        ("{gray: }", Color::Gray, rule(Dispatch::On, log(None))),
        ("{red: {config: {file: /var/log/x.jsonl}}}", Color::Red, rule(Dispatch::On, log(Some("/var/log/x.jsonl")))),
        ("{red: {config: {file: x.jsonl}}}", Color::Red, rule(Dispatch::On, log(Some("/home/me/x.jsonl")))),
        ("{yellow: {dispatch: FALSE}}", Color::Yellow, rule(Dispatch::Off, log(None))),
        ("{yellow: {dispatch: \"true\"}}", Color::Yellow, rule(Dispatch::On, log(None))),
        ("{yellow: {}}", Color::Gray, None),
        // A red that nobody receives goes to the fallback.
        ("{yellow: {}}", Color::Red, rule(Dispatch::On, log(None))),
        ("", Color::Red, rule(Dispatch::On, log(None))),
        ("{red: {dispatch: false, config: {file: x.jsonl}}}", Color::Red, rule(Dispatch::On, log(None))),
        ("{red: {dispatch: always}}", Color::Red, rule(Dispatch::Always, log(None))),
    ] {
        let monitor = one(&format!("{HTTP}  codes: {codes}\n"));
        assert_eq!(monitor.policy.codes.rule(color), expected.as_ref(), "{codes}");
    }
}

#[test]
fn tcp_checks_take_a_host_and_a_port() {
    let tcp = |config: &str| {
        one(&format!("- name: t\n  pulse: {{type: tcp, interval: 1s, timeout: 1s, config: {config}}}\n"))
    };
    for (config, host, port, retries) in [
        ("{host: db.internal, port: 5432}", Host::Name("db.internal".into()), 5432, 0),
        ("{host: DB., port: 1, retries: 10}", Host::Name("db".into()), 1, 10),
        ("{host: 10.0.0.1, port: 65535}", Host::Literal("10.0.0.1".parse().expect("an address")), 65535, 0),
        ("{host: '::1', port: 1}", Host::Literal("::1".parse().expect("an address")), 1, 0),
        ("{host: '[::1]', port: 1}", Host::Literal("::1".parse().expect("an address")), 1, 0),
    ] {
        let monitor = tcp(config);
        assert_eq!(monitor.target, Target { host, port, path: "".into() }, "{config}");
        assert_eq!(
            (&monitor.policy.check, monitor.policy.retries),
            (&Check::Tcp(TcpCheck::default()), retries),
            "{config}"
        );
    }
}

#[test]
fn defaults_are_merged_key_by_key_and_the_monitors_own_go_first() {
    let text = "\
x-headers: &headers {X-A: one, X-B: two}
defaults:
  groups: [all]
  pulse:
    type: http
    interval: 10s
    timeout: 1s
    max_failures: 7
    config: {headers: *headers, retries: 2, port: 80}
  codes: {red: {dispatch: always, config: {file: /tmp/red}}, yellow: {}}
monitors:
  - name: a
    pulse_check: {config: {url: http://a/}}
  - name: b
    groups: [own]
    pulse: {type: tcp, interval: 20s, unhealthy_threshold: 1, config: {host: b}}
    codes: {RED: {dispatch: true}}
  - name: c
    pulse: {config: {url: http://c/, headers: {x-a: mine}}}
    codes: {red: {config: {file: /tmp/c}}}
";
    let (monitors, report) = load(text);
    assert_eq!(report.diagnostics.to_string(), "");
    let [a, b, c] = &monitors[..] else { panic!("three monitors") };
    assert_eq!((a.policy.interval, a.policy.unhealthy_threshold, a.policy.retries), (Span::from_secs(10), 7, 2));
    assert_eq!(
        a.policy.codes.rule(Color::Red),
        Some(&CodeRule { dispatch: Dispatch::Always, notify: log(Some("/tmp/red")) })
    );
    assert_eq!(&a.policy.groups[..], ["all".into()]);
    assert_eq!((b.policy.interval, b.policy.unhealthy_threshold, b.target.port), (Span::from_secs(20), 1, 80));
    assert_eq!(
        b.policy.codes.rule(Color::Red),
        Some(&CodeRule { dispatch: Dispatch::On, notify: log(Some("/tmp/red")) })
    );
    assert_eq!(&b.policy.groups[..], ["own".into()]);
    let Check::Http(check) = &c.policy.check else { panic!("an http check") };
    assert_eq!(&check.headers[..], [("x-a".into(), "mine".into()), ("X-B".into(), "two".into())]);
    assert_eq!(
        c.policy.codes.rule(Color::Red),
        Some(&CodeRule { dispatch: Dispatch::Always, notify: log(Some("/tmp/c")) })
    );
}

#[test]
fn anchors_merges_and_flow_style_are_read() {
    let text = "\
x-pulse: &pulse {type: tcp, interval: 1s, timeout: 1s, config: {host: h, port: 1}}
x-list: &list
  - {name: a, pulse: *pulse}
  - name: b
    pulse: {<<: *pulse, interval: 2s}
  - {\"name\": \"c\", \"pulse\": {<<: [*pulse, {timeout: 9s}], interval: 3s}}
monitors: *list
";
    let (monitors, report) = load(text);
    assert_eq!(report.diagnostics.to_string(), "");
    let spans: Vec<_> = monitors.iter().map(|m| (m.policy.interval.as_secs(), m.policy.timeout.as_secs())).collect();
    assert_eq!(spans, [(1, 1), (2, 1), (3, 1)]);
}

#[test]
fn the_quickstart_is_sound() {
    let (monitors, report) = load(include_str!("../../../../configs/quickstart.yaml"));
    assert_eq!(report.diagnostics.to_string(), "");
    let names: Vec<&str> = monitors.iter().map(|monitor| &*monitor.name).collect();
    assert_eq!(names, ["cpra/self", "demo/flaky", "demo/port", "demo/down"]);
    for monitor in &monitors {
        assert!(matches!(monitor.target.host, Host::Literal(address) if address.is_loopback()), "{}", monitor.name);
        let red = monitor.policy.codes.destinations(Color::Red);
        assert_eq!(red, &*log(Some("/home/me/quickstart-notices.jsonl")), "{}", monitor.name);
    }
}
