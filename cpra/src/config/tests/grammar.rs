//! Every key that a monitor may have: another value is another monitor, or another thing said. And what is refused.

use tempfile::TempDir;

use super::*;
use crate::config::Settings;
use crate::config::daemon::Flags;
use crate::config::monitor::{MONITOR_KEYS, PULSE_KEYS};
use crate::config::{check, dns, http, push, script, tls};
use crate::domain::monitor::{
    Assertion, CheckKind, HeaderRule, IcmpCheck, JsonRule, MaxLatency, Pattern, Proxy, PushCheck, RecordType,
    ScriptCheck, Secret, StartTls, TcpMode, TlsPolicy,
};
use crate::domain::{Check, Host, HttpCheck, TcpCheck};
use crate::units::Span;

/// A folder with secrets and certificates, and a daemon file that names two providers.
pub(super) struct Ground {
    _folder: TempDir,
    pub(super) folders: Folders,
}

impl Ground {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path();
        for (name, text) in [
            ("a", "first-secret-0001\n"),
            ("b", "second-secret-0002\n"),
            ("hook", "https://hooks.example.com/services/T0/B0/third-secret-0003\n"),
            ("sign", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"),
            ("pager", "0123456789abcdef0123456789abcdef\n"),
            ("ca.pem", "-----BEGIN CERTIFICATE-----\n"),
            ("cb.pem", "-----BEGIN CERTIFICATE-----\n"),
            ("ka.pem", "-----BEGIN PRIVATE KEY-----\n"),
            ("kb.pem", "-----BEGIN EC PRIVATE KEY-----\n"),
        ] {
            std::fs::write(path.join(name), text).expect("a file");
        }
        let mut folders = Folders::new(path, Path::new("/var/lib/cpra"), Path::new("/tmp"));
        folders.secret_dirs = vec![path.to_owned()];
        let mut ground = Self { _folder: folder, folders };
        let pager = ground.path("pager");
        ground.declare(&format!(
            "[providers.oncall]\ntype = \"pagerduty\"\nrouting_key_file = \"{pager}\"\n\
             [providers.journal]\ntype = \"log\"\nfile = \"/var/log/j.jsonl\"\n"
        ));
        ground
    }

    /// The path of a file in the folder of secrets.
    pub(super) fn path(&self, name: &str) -> String {
        self.folders.secret_dirs[0].join(name).display().to_string()
    }

    /// A daemon file in place of the one before.
    pub(super) fn declare(&mut self, text: &str) {
        let (settings, diagnostics) = Settings::compose("c.toml", text, |_| None, &Flags::default());
        assert_eq!(diagnostics.to_string(), "", "{text}");
        self.folders.providers = settings.providers;
        self.folders.fallback = settings.code.fallback;
    }

    pub(super) fn load(&self, text: &str) -> (Vec<Monitor>, Report) {
        let mut monitors = Vec::new();
        let report = read_str("m.yaml", text, &self.folders, &mut |monitor| monitors.push(monitor));
        (monitors, report)
    }

    pub(super) fn one(&self, text: &str) -> Monitor {
        let (mut monitors, report) = self.load(text);
        assert!(report.is_sound() && monitors.len() == 1, "{text}\n{}", report.diagnostics);
        monitors.remove(0)
    }
}

pub(super) fn document(kind: &str, config: &str) -> String {
    format!("- name: a\n  pulse:\n    type: {kind}\n    interval: 30s\n    timeout: 5s\n    config: {{{config}}}\n")
}

/// What is said, without the text of the file itself.
fn said(report: &Report) -> Vec<String> {
    let message = |d: &crate::config::Diagnostic| format!("{:?} {:?} {}", d.severity, d.subject, d.message);
    report.diagnostics.iter().map(message).collect()
}

/// Type, what the key needs beside it, the key, and two values.
const SETTINGS: &[(&str, &str, &str, &str, &str)] = &[
    ("http", "", "url", "http://h/a", "https://h/a"),
    ("http", "url: http://h/", "method", "GET", "put"),
    ("http", "url: http://h/", "headers", "{X-A: 1}", "{X-A: 2}"),
    ("http", "url: http://h/", "headers", "{Authorization: Bearer a}", "{Authorization: Bearer b}"),
    ("http", "url: http://h/", "body", "a", "b"),
    ("http", "url: http://h/", "expected_status", "200", "[200, 301-302]"),
    ("http", "url: http://h/", "retries", "0", "2"),
    ("http", "url: http://h/", "keep_alive", "true", "false"),
    ("http", "url: https://h/", "tls", "{min_days_left: 14}", "{min_days_left: 15}"),
    ("http", "url: http://h/", "follow_redirects", "true", "false"),
    ("http", "url: http://h/", "follow_redirects", "3", "4"),
    ("http", "url: http://h/", "contains", "a", "[a, b]"),
    ("http", "url: http://h/", "not_contains", "a", "b"),
    ("http", "url: http://h/", "regex", "a+", "b+"),
    ("http", "url: http://h/", "not_regex", "a+", "b+"),
    ("http", "url: http://h/", "json", "{/a: 1}", "{/a: \"1\"}"),
    ("http", "url: http://h/", "expected_headers", "{Server: a}", "{server: b}"),
    ("http", "url: http://h/, contains: a", "body_max", "64KiB", "1000"),
    ("http", "url: http://h/", "basic_auth", "{username: a, password: b}", "{username: a, password: c}"),
    ("http", "url: http://h/", "basic_auth", "{username: a, password_file: a}", "{username: a, password_file: b}"),
    ("http", "url: http://h/", "bearer_token", "a", "b"),
    ("http", "url: http://h/", "bearer_token_file", "a", "b"),
    ("http", "url: http://h/", "host", "a", "b:81"),
    ("http", "url: http://h/", "proxy", "http://p:3128", "http://u:p@p:3128"),
    ("http", "url: http://h/", "max_latency", "500ms", "{limit: 500ms, action: fail}"),
    ("tcp", "port: 1", "host", "a", "b"),
    ("tcp", "host: h", "port", "1", "2"),
    ("tcp", "host: h, port: 1", "retries", "1", "2"),
    ("tcp", "host: h, port: 1", "tls", "true", "false"),
    ("tcp", "host: h, port: 1", "tls", "{server_name: a}", "{server_name: b}"),
    ("tcp", "host: h, port: 1", "mode", "connect", "syn"),
    ("tcp", "host: h, port: 1", "starttls", "smtp", "imap"),
    ("tcp", "host: h, port: 1", "send", "\"a\\r\\n\"", "\"b\\r\\n\""),
    ("tcp", "host: h, port: 1", "expect", "a", "b"),
    ("tcp", "host: h, port: 1", "max_latency", "1s", "2s"),
    ("icmp", "", "host", "a", "'::1'"),
    ("icmp", "host: h", "count", "1", "3"),
    ("icmp", "host: h", "max_loss", "0", "34%"),
    ("icmp", "host: h", "max_rtt", "10ms", "20ms"),
    ("icmp", "host: h", "retries", "1", "2"),
    ("icmp", "host: h", "ignore_privilege", "true", "1"),
    ("icmp", "host: h", "max_latency", "1s", "2s"),
    ("script", "", "command", "[/bin/a, b]", "/bin/a c"),
    ("script", "", "path", "/bin/a", "/bin/b"),
    ("script", "", "script", "/bin/a", "/bin/b"),
    ("script", "path: /bin/a", "args", "[a, 1]", "[a, '2']"),
    ("script", "path: /bin/a", "env", "{A: a}", "{A: b}"),
    ("script", "path: /bin/a", "cwd", "/a", "/b"),
    ("script", "path: /bin/a", "retries", "1", "2"),
    ("script", "path: /bin/a", "max_latency", "1s", "2s"),
    ("dns", "name: n", "server", "10.0.0.53", "'[::1]:5353'"),
    ("dns", "server: s", "name", "a.example", "b.example"),
    ("dns", "server: s, name: n", "record", "MX", "aaaa"),
    ("dns", "server: s, name: n", "expect", "10.0.0.1", "[10.0.0.1, 10.0.0.2]"),
    ("dns", "server: s, name: n", "retries", "1", "2"),
    ("dns", "server: s, name: n", "max_latency", "1s", "2s"),
    ("push", "", "token", "abcdefgh12345678", "abcdefgh12345679"),
    ("push", "", "token_file", "a", "b"),
    ("push", "token: abcdefgh12345678", "grace", "0s", "5m"),
];

/// Keys beside `config`, with two values.
const PULSE: &[(&str, &str, &str)] = &[
    ("type", "http", "https"),
    ("interval", "30s", "60s"),
    ("timeout", "5s", "6s"),
    ("unhealthy_threshold", "1", "2"),
    ("max_failures", "1", "2"),
    ("healthy_threshold", "1", "3"),
    ("retry_interval", "1s", "2s"),
    ("max_latency", "1s", "{limit: 1s, action: fail}"),
    ("groups", "[a]", "b"),
    ("config", "{url: https://h/}", "{url: https://g/}"),
    ("http", "{url: https://h/}", "{url: https://g/}"),
    ("https", "{url: https://h/}", "{url: https://g/}"),
    ("tcp", "{host: h, port: 1}", "{host: h, port: 2}"),
    ("icmp", "{host: h}", "{host: g}"),
    ("script", "{path: /a}", "{path: /b}"),
    ("dns", "{server: s, name: a}", "{server: s, name: b}"),
    ("push", "{token: abcdefgh12345678}", "{token: abcdefgh12345679}"),
];

/// Keys of the monitor, with two values. What this version does not run is another thing said.
const MONITOR: &[(&str, &str, &str)] = &[
    ("name", "a", "b"),
    ("enabled", "true", "false"),
    ("groups", "[a]", "[b]"),
    ("labels", "{team: a}", "{team: b}"),
    ("metadata", "{team: a}", "{team: 1}"),
    ("description", "a", "b"),
    ("runbook", "https://h/a", "https://h/b"),
    ("depends_on", "[b]", "c"),
    (
        "pulse",
        "{type: icmp, interval: 1s, timeout: 1s, config: {host: h}}",
        "{type: icmp, interval: 2s, timeout: 1s, config: {host: h}}",
    ),
    (
        "pulse_check",
        "{type: icmp, interval: 1s, timeout: 1s, icmp: {host: h}}",
        "{type: icmp, interval: 2s, timeout: 1s, icmp: {host: h}}",
    ),
    ("targets", "[http://x/]", "[http://x/, http://y/]"),
    ("intervention", "{action: docker, config: {container: a}}", "{action: docker, config: {}}"),
    ("repair_unseen", "true", "1"),
    ("codes", "{red: {notify: log, config: {file: a.jsonl}}}", "{red: {notify: log, config: {file: b.jsonl}}}"),
];

#[test]
fn every_key_of_a_check_changes_the_monitor_or_what_is_said() {
    let ground = Ground::new();
    for (kind, beside, key, one, other) in SETTINGS {
        let text = |value: &str| {
            let comma = if beside.is_empty() { "" } else { ", " };
            document(kind, &format!("{beside}{comma}{key}: {value}"))
        };
        let ((first, said_first), (second, said_second)) = (ground.load(&text(one)), ground.load(&text(other)));
        assert!(said_first.is_sound(), "{}\n{}", text(one), said_first.diagnostics);
        assert!(first != second || said(&said_first) != said(&said_second), "{kind} {key}: {one} is as {other}");
    }
    for (kind, keys) in [
        ("http", http::KEYS),
        ("tcp", check::keys(CheckKind::Tcp)),
        ("icmp", check::keys(CheckKind::Icmp)),
        ("script", script::KEYS),
        ("dns", dns::KEYS),
        ("push", push::KEYS),
    ] {
        for key in keys.known {
            assert!(SETTINGS.iter().any(|row| row.0 == kind && row.2 == *key), "{kind} {key} has no row");
        }
    }
}

#[test]
fn every_key_of_tls_changes_the_monitor_or_what_is_said() {
    let ground = Ground::new();
    let rows = [
        ("ca_file", "ca_file: ca.pem", "ca_file: cb.pem"),
        ("cert_file", "cert_file: ca.pem, key_file: ka.pem", "cert_file: cb.pem, key_file: ka.pem"),
        ("key_file", "cert_file: ca.pem, key_file: ka.pem", "cert_file: ca.pem, key_file: kb.pem"),
        ("server_name", "server_name: a", "server_name: b"),
        ("insecure_skip_verify", "insecure_skip_verify: true", "insecure_skip_verify: false"),
        ("min_days_left", "min_days_left: 14", "min_days_left: 30"),
    ];
    for (_, one, other) in rows {
        for kind in ["http", "tcp"] {
            let beside = if kind == "http" { "url: https://h/" } else { "host: h, port: 443" };
            let load = |tls| ground.one(&document(kind, &format!("{beside}, tls: {{{tls}}}")));
            assert_ne!(load(one), load(other), "{kind} {one}");
        }
    }
    assert!(tls::KEYS.known.iter().all(|key| rows.iter().any(|row| row.0 == *key)));
}

#[test]
fn every_key_of_a_pulse_changes_the_monitor_or_what_is_said() {
    let ground = Ground::new();
    for (key, one, other) in PULSE {
        let text = |value: &str| {
            let kind = if ["tcp", "icmp", "script", "dns", "push"].contains(key) { key } else { "http" };
            let mut pulse = vec![("type", kind), ("interval", "30s"), ("timeout", "5s"), (*key, value)];
            if !["config", "http", "https"].contains(key) && kind == "http" {
                pulse.push(("config", "{url: https://h/}"));
            }
            // The row's own value replaces the usual one.
            let usual = pulse.iter().position(|(known, _)| known == key).filter(|&at| at + 1 < pulse.len());
            if let Some(at) = usual.filter(|_| pulse.iter().filter(|(known, _)| known == key).count() == 2) {
                pulse.remove(at);
            }
            let lines: String = pulse.iter().map(|(key, value)| format!("    {key}: {value}\n")).collect();
            format!("- name: a\n  pulse:\n{lines}")
        };
        let ((first, said_first), (second, said_second)) = (ground.load(&text(one)), ground.load(&text(other)));
        assert!(said_first.is_sound(), "{}\n{}", text(one), said_first.diagnostics);
        assert!(first != second || said(&said_first) != said(&said_second), "{key}: {one} is as {other}");
    }
    for key in PULSE_KEYS.known {
        assert!(PULSE.iter().any(|row| row.0 == *key), "{key} has no row");
    }
}

#[test]
fn every_key_of_a_monitor_changes_it_or_what_is_said() {
    let ground = Ground::new();
    for (key, one, other) in MONITOR {
        let text = |value: &str| {
            let name = if *key == "name" { "" } else { "  name: a\n" };
            let is_pulse = ["pulse", "pulse_check"].contains(key);
            let pulse = if is_pulse {
                ""
            } else {
                "  pulse: {type: http, interval: 30s, timeout: 5s, config: {url: http://h/}}\n"
            };
            format!(
                "-\n{name}{pulse}  {key}: {value}\n- {{name: b2, pulse: {{type: icmp, interval: 1s, timeout: 1s, config: {{host: h}}}}}}\n"
            )
        };
        let ((first, said_first), (second, said_second)) = (ground.load(&text(one)), ground.load(&text(other)));
        assert!(first != second || said(&said_first) != said(&said_second), "{key}: {one} is as {other}");
    }
    for key in MONITOR_KEYS.known {
        assert!(MONITOR.iter().any(|row| row.0 == *key), "{key} has no row");
    }
}

fn checked(ground: &Ground, kind: &str, config: &str) -> Check {
    ground.one(&document(kind, config)).policy.check
}

#[test]
fn settings_become_the_values_that_probes_take() {
    let ground = Ground::new();
    let pattern = |text: &str| Pattern::new(text).expect("a pattern");
    let json = |pointer: &str, rule| Assertion::Json { pointer: pointer.into(), rule };
    let header = |name: &str, rule| Assertion::Header { name: name.into(), rule };
    let text = "url: http://h/, contains: [ok, up], not_contains: error, regex: 'v[0-9]+', not_regex: panic, \
                json: {/status: ok, queue.depth: {above: 0, at_most: 1.5e2}, 'items[0]': {equals: [1, {a: null}]}, \
                /error: {exists: false}, /n: null, /s: \"1\", /t: {not_equals: yes, matches: '^a'}}, \
                expected_headers: {Content-Type: {contains: json, matches: utf}, Server: nginx, X-Debug: {exists: false}}";
    let Check::Http(check) = checked(&ground, "http", text) else { panic!("an http check") };
    assert_eq!(
        &check.assertions[..],
        [
            Assertion::Contains("ok".into()),
            Assertion::Contains("up".into()),
            Assertion::NotContains("error".into()),
            Assertion::Matches(pattern("v[0-9]+")),
            Assertion::NotMatches(pattern("panic")),
            json("/status", JsonRule::Equals("\"ok\"".into())),
            json("/queue/depth", JsonRule::Above("0".into())),
            json("/queue/depth", JsonRule::AtMost("1.5e2".into())),
            json("/items/0", JsonRule::Equals("[1,{\"a\":null}]".into())),
            json("/error", JsonRule::Absent),
            json("/n", JsonRule::Equals("null".into())),
            json("/s", JsonRule::Equals("\"1\"".into())),
            json("/t", JsonRule::NotEquals("\"yes\"".into())),
            json("/t", JsonRule::Matches(pattern("^a"))),
            header("content-type", HeaderRule::Contains("json".into())),
            header("content-type", HeaderRule::Matches(pattern("utf"))),
            header("server", HeaderRule::Equals("nginx".into())),
            header("x-debug", HeaderRule::Absent),
        ]
    );
    let listed = "url: http://h/, json: [{pointer: /a, equals: true}, {path: b.c, below: 3}, {pointer: /a, exists: true}], \
                  expected_headers: [{name: A, equals: b}]";
    let Check::Http(check) = checked(&ground, "http", listed) else { panic!("an http check") };
    assert_eq!(
        &check.assertions[..],
        [
            json("/a", JsonRule::Equals("true".into())),
            json("/b/c", JsonRule::Below("3".into())),
            json("/a", JsonRule::Exists),
            header("a", HeaderRule::Equals("b".into())),
        ]
    );
    let secret = |text: &str| Some(Secret::new(text));
    let plain = HttpCheck::default();
    for (config, expected) in [
        (
            "basic_auth: {username: me, password: a}",
            HttpCheck { authorization: secret("Basic bWU6YQ=="), ..plain.clone() },
        ),
        ("bearer_token: x", HttpCheck { authorization: secret("Bearer x"), ..plain.clone() }),
        ("bearer_token_file: a", HttpCheck { authorization: secret("Bearer first-secret-0001"), ..plain.clone() }),
        ("headers: {authorization: x y}", HttpCheck { authorization: secret("x y"), ..plain.clone() }),
        ("host: other:81", HttpCheck { headers: [("Host".into(), "other:81".into())].into(), ..plain.clone() }),
        ("follow_redirects: true", HttpCheck { redirects: 10, ..plain.clone() }),
        ("follow_redirects: 2", HttpCheck { redirects: 2, ..plain.clone() }),
        ("body_max: 2KiB", HttpCheck { body_max: 2048, ..plain.clone() }),
        (
            "proxy: 'http://u:p%40@p:3128'",
            HttpCheck {
                proxy: Some(Proxy {
                    host: Host::Name("p".into()),
                    port: 3128,
                    authorization: secret("Basic dTpwQA=="),
                }),
                ..plain.clone()
            },
        ),
    ] {
        assert_eq!(checked(&ground, "http", &format!("url: http://h/, {config}")), Check::Http(expected), "{config}");
    }
    let secure = ground.one(&document("http", "url: 'https://h/x', tls: {min_days_left: 14}"));
    assert_eq!((secure.target.port, secure.policy.check.tls().and_then(|tls| tls.min_days_left)), (443, Some(14)));
    assert_eq!(checked(&ground, "http", "url: https://h/").tls(), Some(&TlsPolicy::default()));
    for (config, expected) in [
        ("tls: false", TcpCheck::default()),
        ("mode: connect", TcpCheck::default()),
        ("mode: SYN", TcpCheck { mode: TcpMode::Syn, ..TcpCheck::default() }),
        ("mode: syn, tls: false", TcpCheck { mode: TcpMode::Syn, ..TcpCheck::default() }),
        ("tls: true", TcpCheck { tls: Some(TlsPolicy::default()), ..TcpCheck::default() }),
        (
            "starttls: Postgres",
            TcpCheck {
                tls: Some(TlsPolicy { starttls: Some(StartTls::Postgres), ..TlsPolicy::default() }),
                ..TcpCheck::default()
            },
        ),
        (
            "send: \"PING\\r\\n\", expect: +PONG",
            TcpCheck { send: (*b"PING\r\n").into(), expect: (*b"+PONG").into(), ..TcpCheck::default() },
        ),
    ] {
        assert_eq!(checked(&ground, "tcp", &format!("host: h, port: 1, {config}")), Check::Tcp(expected), "{config}");
    }
    let icmp = IcmpCheck { count: 3, max_loss: 34, max_rtt: Some(Span::from_millis(20)) };
    assert_eq!(checked(&ground, "icmp", "host: h, count: 3, max_loss: 34%, max_rtt: 20ms"), Check::Icmp(icmp));
    let argv = |words: &[&str]| words.iter().map(|word| Box::from(*word)).collect();
    for (config, expected) in [
        ("command: [/bin/a, -w, 80]", argv(&["/bin/a", "-w", "80"])),
        ("command: /bin/a 'b c' d", argv(&["/bin/a", "b c", "d"])),
        ("path: '/opt/my check', args: [a, '']", argv(&["/opt/my check", "a", ""])),
        ("script: /bin/a, args: b", argv(&["/bin/a", "b"])),
        ("command: /bin/a b, args: [c]", argv(&["/bin/a", "b", "c"])),
    ] {
        let check = ScriptCheck { argv: expected, env: Box::default(), cwd: None };
        assert_eq!(checked(&ground, "script", config), Check::Script(check), "{config}");
    }
    let dns =
        ground.one(&document("dns", "server: '[::1]:5353', name: WWW.Example.com., record: aaaa, expect: 2001:DB8::1"));
    assert_eq!((&*dns.target.path, dns.target.port), ("www.example.com", 5353));
    let Check::Dns(check) = dns.policy.check else { panic!("a dns check") };
    assert_eq!((check.record, &check.expect[..]), (RecordType::Aaaa, &["2001:db8::1".into()][..]));
    let push = ground.one("- {name: a, pulse: {type: push, interval: 1h, push: {token_file: a, grace: 5m}}}\n");
    assert_eq!((&*push.target.path, push.policy.timeout), ("first-secret-0001", Span::from_secs(3600)));
    assert_eq!(push.policy.check, Check::Push(PushCheck { grace: Span::from_secs(300) }));
}

#[test]
fn a_limit_of_latency_stands_beside_the_interval_or_in_the_settings() {
    let ground = Ground::new();
    let limit = |fails| Some(MaxLatency { limit: Span::from_millis(500), fails });
    for (config, expected) in [
        ("host: h, port: 1, max_latency: 500ms", limit(false)),
        ("host: h, port: 1, max_latency: {limit: 500ms, action: fail}", limit(true)),
        ("host: h, port: 1, max_latency: {limit: 500ms, action: Warn}", limit(false)),
        ("host: h, port: 1", None),
    ] {
        assert_eq!(ground.one(&document("tcp", config)).policy.max_latency, expected, "{config}");
    }
    let beside = document("tcp", "host: h, port: 1").replace("    timeout", "    max_latency: 500ms\n    timeout");
    assert_eq!(ground.one(&beside).policy.max_latency, limit(false));
    let slow = document("tcp", "host: h, port: 1, max_latency: 7s");
    assert_eq!(
        headlines(&ground.load(&slow).1),
        ["6:45: warning: a: max_latency 7s is never reached: a check fails at its timeout, 5s"]
    );
}

#[test]
fn what_people_write_is_kept_and_defaults_are_merged_into_it() {
    let ground = Ground::new();
    let text = "\
defaults:
  labels: {team: all, site: here}
  pulse: {interval: 1s, timeout: 1s, type: tcp, tcp: {tls: {min_days_left: 14}, retries: 1}, http: {tls: {min_days_left: 7}}}
monitors:
  - name: a
    metadata: {team: shop, empty: }
    description: \"two\\nlines \"
    runbook: https://wiki.example.com/a
    pulse: {config: {host: h, port: 1}}
  - name: b
    pulse: {type: http, http: {url: https://h/}}
  - name: c
    pulse: {tcp: {host: h, port: 1, tls: false}}
";
    let (monitors, report) = ground.load(text);
    assert_eq!(report.diagnostics.to_string(), "");
    let about = &monitors[0].policy.about;
    let labels: Vec<(&str, &str)> = about.labels.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(labels, [("empty", ""), ("site", "here"), ("team", "shop")]);
    assert_eq!(
        (about.description.as_deref(), about.runbook.as_deref()),
        (Some("two\nlines"), Some("https://wiki.example.com/a"))
    );
    let days: Vec<_> = monitors.iter().map(|m| m.policy.check.tls().and_then(|tls| tls.min_days_left)).collect();
    assert_eq!((days, monitors[0].policy.retries), (vec![Some(14), Some(7), None], 1));
}

#[test]
fn targets_become_monitors_of_their_own() {
    let ground = Ground::new();
    let text = "\
- name: db
  labels: {team: data}
  pulse: {type: tcp, interval: 30s, timeout: 5s, config: {port: 5432}}
  targets:
    - 10.0.0.1
    - db2:5433
    - {host: db3, labels: {site: far}, interval: 60s}
    - {name: special, host: '::1', port: 1, enabled: false}
- name: web
  pulse: {type: http, interval: 30s, timeout: 5s, http: {contains: ok}}
  targets: [http://a/, {url: http://b/, contains: up}]
- name: ping
  targets: ['::1']
  pulse: {type: icmp, interval: 30s, timeout: 5s}
- name: job
  targets: [{name: job/a, args: [x]}, {name: job/b, command: /bin/b}]
  pulse: {type: script, interval: 30s, timeout: 5s, config: {command: /bin/a}}
";
    let (monitors, report) = ground.load(text);
    assert_eq!(report.diagnostics.to_string(), "");
    let names: Vec<&str> = monitors.iter().map(|monitor| &*monitor.name).collect();
    assert_eq!(
        names,
        [
            "db/10.0.0.1",
            "db/db2:5433",
            "db/db3",
            "special",
            "web/http://a/",
            "web/http://b/",
            "ping/::1",
            "job/a",
            "job/b"
        ]
    );
    let ports: Vec<u16> = monitors.iter().map(|monitor| monitor.target.port).take(4).collect();
    assert_eq!((ports, report.enabled), (vec![5432, 5433, 5432, 1], 8));
    assert_eq!(monitors[2].policy.interval, Span::from_secs(60));
    assert_eq!(monitors[2].policy.about.labels.len(), 2);
    let Check::Http(check) = &monitors[5].policy.check else { panic!("an http check") };
    assert_eq!(&check.assertions[..], [Assertion::Contains("up".into())]);
    let Check::Script(check) = &monitors[7].policy.check else { panic!("a script") };
    assert_eq!(&check.argv[..], ["/bin/a".into(), "x".into()]);

    // A fault of the definition is said once, one of a target at the target.
    let broken = "\
- name: db
  pulse: {type: tcp, intervall: 30s, timeout: 5s, config: {port: 5432}}
  targets: [a, b c, a, {host: d, prot: 1}]
";
    let (monitors, report) = ground.load(broken);
    assert!(monitors.is_empty());
    assert_eq!(
        headlines(&report),
        [
            "2:22: db: unknown key \"intervall\", did you mean \"interval\"?",
            "3:16: db: a target \"b c\", in which \" \" cannot stand: use letters, digits, \"-\" and \".\"",
            "3:21: db/a: the name is taken by the monitor at m.yaml:3:13: names are unique",
            "3:34: db/d: unknown key \"prot\", did you mean \"port\"?",
        ]
    );
}

#[test]
fn parents_are_looked_for_once_all_names_are_known() {
    let ground = Ground::new();
    let monitor = |name: &str, on: &str| {
        format!(
            "- {{name: {name}, depends_on: {on}, pulse: {{type: icmp, interval: 1s, timeout: 1s, config: {{host: h}}}}}}\n"
        )
    };
    let text = monitor("a", "[gateway, c]") + &monitor("b", "gatewy") + &monitor("c", "b") + &monitor("gateway", "[]");
    let (_, report) = ground.load(&text);
    assert_eq!(
        headlines(&report),
        [
            "1:26: warning: depends_on (of 3 monitors) has no effect in this version: each is judged on its own",
            "2:25: b: depends_on names \"gatewy\", which is no monitor, did you mean \"gateway\"?",
        ]
    );
    assert!(report.diagnostics.iter().all(|diagnostic| diagnostic.excerpt.is_some()), "{}", report.diagnostics);
    let circle = monitor("a", "b") + &monitor("b", "[c, d]") + &monitor("c", "a") + &monitor("d", "d");
    let (_, report) = ground.load(&circle);
    assert_eq!(
        headlines(&report),
        [
            "1:25: a: depends_on closes a circle (a → b → c → a): remove one of its parts",
            "1:25: warning: depends_on (of 4 monitors) has no effect in this version: each is judged on its own",
            "4:25: d: depends on itself: remove it from depends_on",
        ]
    );
    let all = format!(
        "defaults: {{depends_on: gateway}}\nmonitors:\n{}",
        monitor("gateway", "~").replace("depends_on: ~, ", "")
    );
    assert_eq!(ground.load(&all).1.diagnostics.errors(), 0);
    let chain: String = (0..500).map(|n| monitor(&format!("m{n}"), &format!("m{}", n + 1))).collect();
    let (_, report) = ground.load(&(chain + &monitor("m500", "m0")));
    assert_eq!((report.diagnostics.errors(), report.diagnostics.warnings()), (1, 1));
}

/// Where it stands, and how what is said about it begins.
const REFUSED: &[(&str, &str, &str)] = &[
    ("http", "url: ftp://h/", "url \"ftp://h/\" has the unknown scheme \"ftp\": write http:// or https://"),
    ("http", "url: http://h/, tls: {min_days_left: 3}", "tls goes with an https address: write https:// in url"),
    ("http", "url: https://h/, tls: false", "tls is off, and url begins with https://: write http://"),
    ("http", "url: https://h/, tls: maybe", "tls takes true, false or a map of keys"),
    ("http", "url: https://h/, tls: {ca: x}", "unknown key \"ca\""),
    (
        "http",
        "url: https://h/, tls: {min_days_let: 3}",
        "unknown key \"min_days_let\", did you mean \"min_days_left\"?",
    ),
    ("http", "url: https://h/, tls: {min_days_left: 0}", "min_days_left 0 is out of range: 1 to 3650"),
    ("http", "url: https://h/, tls: {cert_file: ca.pem}", "cert_file comes alone: add key_file, a client needs both"),
    (
        "http",
        "url: https://h/, tls: {ca_file: /etc/passwd}",
        "ca_file \"/etc/passwd\" is outside of the secret folders",
    ),
    ("http", "url: https://h/, tls: {ca_file: none.pem}", "ca_file \"none.pem\" is not there"),
    (
        "http",
        "url: https://h/, tls: {ca_file: a}",
        "ca_file names a file without a \"-----BEGIN ... CERTIFICATE-----\"",
    ),
    ("http", "url: https://h/, tls: {server_name: a b}", "server_name \"a b\", in which \" \" cannot stand"),
    ("http", "url: http://h/, follow_redirects: 11", "follow_redirects 11 is out of range: 0 to 10"),
    (
        "http",
        "url: http://h/, follow_redirects: many",
        "follow_redirects \"many\" is no whole number: write true, false or one from 0 to 10",
    ),
    ("http", "url: http://h/, contains: ''", "contains is empty, and every answer holds that"),
    ("http", "url: http://h/, contains: {a: b}", "contains takes one value or a list, this is a map"),
    ("http", "url: http://h/, contains: []", "contains is an empty list"),
    ("http", "url: http://h/, regex: '(a'", "regex \"(a\" is no regular expression: unclosed group"),
    ("http", "url: http://h/, regex: '(\\w{1000}){1000}'", "regex \"(\\w{1000}){1000}\" is too large when compiled"),
    ("http", "url: http://h/, json: ok", "json takes a map or a list of maps, this is \"ok\""),
    ("http", "url: http://h/, json: {/a~b: 1}", "json \"/a~b\" has a \"~\" that is no escape"),
    ("http", "url: http://h/, json: {/a: {belw: 1}}", "unknown key \"belw\", did you mean \"below\"?"),
    ("http", "url: http://h/, json: {/a: {below: x}}", "below \"x\" is no number: write one like 100 or 0.5"),
    ("http", "url: http://h/, json: {/a: {below: '1'}}", "below \"1\" is a text: write the number without quotes"),
    ("http", "url: http://h/, json: {/a: .5}", "json \"/a\" \".5\" is no number of JSON: write it like 0.5"),
    ("http", "url: http://h/, json: {/a: {}}", "json \"/a\" asserts nothing"),
    ("http", "url: http://h/, json: {/a: }", "json \"/a\" has no value: write null for JSON's null"),
    ("http", "url: http://h/, json: [{equals: 1}]", "pointer is missing: say which value is meant"),
    ("http", "url: http://h/, expected_headers: {a b: c}", "\"a b\" is no header name"),
    ("http", "url: http://h/, expected_headers: {a: {equal: c}}", "unknown key \"equal\", did you mean \"equals\"?"),
    ("http", "url: http://h/, method: HEAD, contains: a", "contains is about the body, and an answer to HEAD has none"),
    ("http", "url: http://h/, body_max: 2MiB", "body_max 2MiB is out of range: 1 to 1048576 bytes"),
    ("http", "url: http://h/, body_max: big", "body_max \"big\" is no size: write bytes like 65536, or 64KiB"),
    ("http", "url: http://h/, basic_auth: me", "basic_auth takes a map of keys, this is one value"),
    ("http", "url: http://h/, basic_auth: {username: a}", "password is missing: add \"password_file: ...\""),
    ("http", "url: http://h/, basic_auth: {username: 'a:b', password: c}", "username holds a colon"),
    (
        "http",
        "url: http://h/, basic_auth: {username: a, password: c, password_file: a}",
        "\"password\" and \"password_file\" are two names of one key",
    ),
    (
        "http",
        "url: http://h/, bearer_token: a, bearer_token_file: a",
        "bearer_token and bearer_token_file are two ways to say who asks",
    ),
    (
        "http",
        "url: http://h/, bearer_token: a, headers: {Authorization: b}",
        "bearer_token and the header \"Authorization\" say the same thing",
    ),
    (
        "http",
        "url: http://h/, bearer_token_file: /etc/shadow",
        "bearer_token_file \"/etc/shadow\" is outside of the secret folders",
    ),
    ("http", "url: http://h/, host: a, headers: {host: b}", "host and the header \"Host\" say the same thing"),
    ("http", "url: http://h/, host: http://a", "host \"http://a\" is no host: write it like"),
    ("http", "url: http://h/, proxy: p:3128", "proxy has no scheme: write it like"),
    (
        "http",
        "url: http://h/, proxy: https://p:3128",
        "proxy has the scheme \"https\": a proxy is spoken to in plain http",
    ),
    ("http", "url: http://h/, proxy: http://p", "proxy has no port"),
    (
        "http",
        "url: http://h/, max_latency: {limit: 1s, action: page}",
        "action \"page\" is unknown: write warn or fail",
    ),
    ("http", "url: http://h/, max_latency: {action: fail}", "limit is missing: add \"limit: 500ms\" to max_latency"),
    ("http", "url: http://h/, max_latency: 500", "max_latency 500 has no unit: write \"500s\" for seconds"),
    ("tcp", "host: h, port: 1, mode: half", "mode \"half\" is unknown: write connect or syn"),
    ("tcp", "host: h, port: 1, mode: sym", "mode \"sym\" is unknown, did you mean \"syn\"?"),
    ("tcp", "host: h, port: 1, mode: syn, tls: true", "tls needs a connection, and mode syn makes none"),
    ("tcp", "host: h, port: 1, mode: syn, starttls: smtp", "starttls needs a connection, and mode syn makes none"),
    ("tcp", "host: h, port: 1, mode: syn, send: a", "send needs a connection, and mode syn makes none"),
    ("tcp", "host: h, port: 1, mode: syn, expect: a", "expect needs a connection, and mode syn makes none"),
    ("tcp", "host: h, port: 1, starttls: ftp", "starttls \"ftp\" is unknown"),
    ("tcp", "host: h, port: 1, starttls: smpt", "starttls \"smpt\" is unknown, did you mean \"smtp\"?"),
    ("tcp", "host: h, port: 1, tls: false, starttls: smtp", "tls is off, and starttls begins it"),
    ("tcp", "host: h, port: 1, expect: ''", "expect is empty: write a text, or remove the key"),
    ("icmp", "host: h, count: 0", "count 0 is out of range: 1 to 20"),
    ("icmp", "host: h, max_loss: 100", "max_loss \"100\" is no share: write per cent from 0 to 99"),
    ("icmp", "host: http://h/", "host \"http://h/\", which is no address"),
    ("script", "env: {A: b}", "command is missing: add \"command: [/path/to/program, argument]\""),
    ("script", "command: check_disk", "command \"check_disk\" is not absolute: write the whole path"),
    (
        "script",
        "command: '/bin/a | wc'",
        "command contains \"|\", which only a shell understands, and none is started: write command: [/bin/sh, -c",
    ),
    ("script", "command: [bash, -c, x]", "command \"bash\" is not absolute: write /bin/bash"),
    ("script", "path: /a/../b", "path \"/a/../b\" climbs with \"..\""),
    ("script", "command: /bin/a, path: /bin/b", "\"command\" and \"path\" are two names of one key"),
    ("script", "path: /bin/a, env: {1A: b}", "\"1A\" is no name of a variable"),
    ("script", "path: /bin/a, cwd: tmp", "cwd \"tmp\" is not absolute"),
    ("dns", "name: n", "server is missing: add \"server: 10.0.0.53\" to config"),
    ("dns", "server: s, name: n, record: AAA", "record \"AAA\" is unknown, did you mean \"AAAA\"?"),
    ("dns", "server: s, name: 10.0.0.1", "name \"10.0.0.1\" is an address: only record PTR asks for one"),
    ("dns", "server: s, name: n, expect: x", "expect \"x\" is no A record: write it like \"10.0.0.1\""),
    ("dns", "server: 'a:b:c', name: n", "server \"a:b:c\" is no address"),
    ("push", "grace: 1s", "token is missing: add \"token_file: ...\""),
    ("push", "token: short", "token has 5 characters: 16 to 128"),
    ("push", "token: 'abcdefgh 12345678'", "token has a character that cannot stand in an address"),
    ("push", "token: aaaaaaaaaaaaaaaaaaaa", "token is easily guessed"),
    ("push", "token: abcdefgh12345678, max_latency: 1s", "unknown key \"max_latency\""),
];

/// The same for keys of the monitor, below a sound pulse.
const REFUSED_BESIDE: &[(&str, &str)] = &[
    ("labels: a", "labels takes a map of keys, this is \"a\""),
    ("labels: {a: [b]}", "the label \"a\" takes one value, this is a list"),
    ("labels: {a: b}\n  metadata: {a: b}", "\"labels\" and \"metadata\" are two names of one key"),
    ("description: \"a\\u001b[31m\"", "description contains the control character U+001B: remove it"),
    ("runbook: wiki", "runbook \"wiki\" has no scheme"),
    ("depends_on: {a: b}", "depends_on takes one value or a list, this is a map"),
    ("targets: x", "targets takes a list, this is \"x\""),
    ("targets: []", "targets is an empty list"),
    ("targets: [[a]]", "a target is a host, an address or a map of keys, this is a list"),
    ("targets: [{enabled: true}]", "a target without a host or url needs a name"),
    ("repair_unseen: maybe", "repair_unseen \"maybe\" is no boolean: write true or false"),
    ("intervention: {}", "action is missing: add \"action: docker\""),
    ("intervention: {action: dockr}", "action \"dockr\" is unknown, did you mean \"docker\"?"),
    ("intervention: {action: docker, type: docker}", "\"action\" and \"type\" are two names of one key"),
    ("intervention: {action: docker}", "container is missing: add \"config: {container: NAME}\""),
    ("intervention: {action: docker, config: {contaner: a}}", "unknown key \"contaner\", did you mean \"container\"?"),
    (
        "intervention: {action: docker, config: {container: a}, target: {container: a}}",
        "\"config\" and \"target\" are two names of one key",
    ),
    ("intervention: {action: systemd, config: {unit: sshd.service}}", "unit \"sshd.service\" is never acted on"),
    ("intervention: {action: systemd, config: {unit: systemd-logind}}", "unit \"systemd-logind\" is never acted on"),
    ("intervention: {action: systemd, config: {unit: 'a b'}}", "unit \"a b\" is no unit"),
    ("intervention: {action: script, command: '/bin/a; b'}", "command contains \";\""),
    (
        "intervention: {action: script, command: /a, config: {path: /b}}",
        "command stands beside config, which says the same",
    ),
    (
        "intervention: {action: docker, command: /a, config: {container: a}}",
        "command is for the action script: remove it",
    ),
    ("intervention: {action: scale, config: {name: a}}", "replicas is missing"),
    ("intervention: {action: webhook, config: {url: x}}", "url is no http or https address"),
    (
        "intervention: {action: docker, config: {container: a}, mode: yolo}",
        "mode \"yolo\" is unknown: write auto or approve or dry-run",
    ),
    ("intervention: {action: docker, config: {container: a}, retries: 11}", "retries 11 is out of range: 0 to 10"),
    (
        "intervention: {action: docker, config: {container: a}, max_failures: 0}",
        "max_failures 0 is out of range: 1 to 100",
    ),
    (
        "intervention: {action: docker, config: {container: a}, verify: {settle: 60s, deadline: 5s}}",
        "deadline is over before settle is",
    ),
    ("codes: {red: {notify: slak}}", "notify \"slak\" is unknown, did you mean \"slack\"?"),
    ("codes: {red: {notify: onkall}}", "notify \"onkall\" is unknown, did you mean \"oncall\"?"),
    (
        "codes: {red: {notify: nobody-knows}}",
        "notify \"nobody-knows\" is unknown: define [providers.nobody-knows] in the daemon file",
    ),
];

#[test]
fn what_is_refused_is_refused_in_these_words() {
    let ground = Ground::new();
    let beside = |keys: &str| document("icmp", "host: h") + &format!("  {keys}\n");
    let rows = REFUSED.iter().map(|(kind, config, said)| (document(kind, config), *said));
    let rows = rows.chain(REFUSED_BESIDE.iter().map(|(keys, said)| (beside(keys), *said)));
    for (text, expected) in rows {
        let (monitors, report) = ground.load(&text);
        let found = report.diagnostics.iter().find(|diagnostic| diagnostic.message.starts_with(expected));
        let found = found.unwrap_or_else(|| panic!("{expected}\n{text}\n{}", report.diagnostics));
        assert!(found.position.is_some_and(|at| at.line > 1) && found.excerpt.is_some(), "{found}");
        assert!(monitors.is_empty() && report.diagnostics.errors() > 0, "{text}\n{}", report.diagnostics);
    }
}

#[test]
fn a_block_of_settings_is_named_after_its_type_and_stands_alone() {
    let ground = Ground::new();
    let pulse = |keys: &str| ground.load(&format!("- name: a\n  pulse: {{interval: 1s, timeout: 1s, {keys}}}\n"));
    for (keys, expected) in [
        ("type: tcp, tcp: {host: h, port: 1}", None),
        ("type: https, https: {url: https://h/}", Some("1:")),
        ("type: tcp, config: {host: h, port: 1}, tcp: {}", Some("\"config\" and \"tcp\" are two names of one key")),
        ("type: tcp, http: {url: http://h/}", Some("the block \"http\" is for type http, this is tcp: remove it")),
        ("tcp: {host: h, port: 1}", Some("type is missing: add \"type: http\", or tcp")),
    ] {
        let (_, report) = pulse(keys);
        match expected {
            None => assert_eq!(report.diagnostics.to_string(), ""),
            Some("1:") => assert_eq!((report.diagnostics.errors(), report.diagnostics.warnings()), (0, 1)),
            Some(text) => {
                assert!(report.diagnostics.iter().any(|d| d.message.starts_with(text)), "{}", report.diagnostics);
            }
        }
    }
    let twice = document("push", "token: abcdefgh12345678")
        + &document("push", "token: abcdefgh12345678").replace("name: a", "name: b");
    assert_eq!(
        headlines(&ground.load(&twice).1),
        ["12:14: b: token is the one of the monitor a already: every job has a token of its own"]
    );
}

#[test]
fn interventions_load_with_a_warning() {
    let ground = Ground::new();
    for intervention in [
        "{action: docker, retries: 1, max_failures: 2, config: {container: a, action: restart, timeout: 30s}}",
        "{type: Docker, target: {container: a}}",
        "{action: systemd, mode: approve, config: {unit: postgresql.service, action: restart}, verify: {settle: 5s, interval: 2s, deadline: 60s}}",
        "{action: kubernetes, config: {kind: deployment, name: a, namespace: b, action: restart}}",
        "{action: scale, config: {name: a, replicas: 3}}",
        "{action: script, path: /bin/a, args: [b], timeout: 5s}",
        "{action: script, config: {script: /bin/a, env: {A: b}}}",
        "{action: script, command: [/bin/sh, -c, 'a | b']}",
        "{action: webhook, config: {url: https://h/x, method: post, headers: {A: b}, payload: {c: d}, secret_file: a}}",
    ] {
        let (monitors, report) =
            ground.load(&(document("icmp", "host: h") + &format!("  intervention: {intervention}\n")));
        assert_eq!(monitors.len(), 1, "{intervention}\n{}", report.diagnostics);
        assert_eq!(
            headlines(&report),
            ["7:3: warning: a: intervention comes with a later version: it is not run"],
            "{intervention}"
        );
    }
}
