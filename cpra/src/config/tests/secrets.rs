//! What is wrong is said and shown without what is secret.

use super::grammar::Ground;
use super::*;

const SENTINEL: &str = "hunter2-hunter2";

#[test]
fn no_diagnostic_holds_a_secret() {
    let ground = Ground::new();
    let settings = [
        "url: http://me:S@h/",
        "url: me:S@h/",
        "url: http://h/, basic_auth: {username: a, password: S, colour: red}",
        "url: http://h/, basic_auth: {username: 'a:b', password: S}",
        "url: http://h/, basic_auth: S",
        "url: http://h/, basic_auth: [S]",
        "url: http://h/, bearer_token: S, bearer_token_file: x",
        "url: http://h/, bearer_token: \"S\\u0007\"",
        "url: http://h/, headers: {Authorization: S, Authorization : S}",
        "url: http://h/, headers: {X-Api-Key: \"S\\n\"}",
        "url: http://h/, headers: {cookie: S, Host: b}, host: a, unknown: 1",
        "url: http://h/, proxy: http://me:S@p, timeot: 1",
        "url: http://h/, proxy: me:S@p:1",
        "url: http://h/, proxy: ftp://me:S@p:1",
        "url: http://h/?token=S, methd: GET",
    ];
    let mut texts: Vec<String> = settings
        .iter()
        .map(|config| format!("- name: a\n  pulse: {{type: http, interval: 1s, timeout: 1s, config: {{{config}}}}}\n"))
        .collect();
    for codes in [
        "{red: {notify: slack, config: {hook: 'https://hooks.slack.com/services/S', hok: 1}}}",
        "{red: {notify: slack, config: {hook: S}}}",
        "{red: {notify: slack, config: {url: 'https://hooks.slack.com/services/S', hook: x}}}",
        "{red: {notify: pagerduty, config: {routing_key: S, severity: loud}}}",
        "{red: {notify: opsgenie, config: {api_key: [S], url: x}}}",
        "{red: {notify: email, config: {to: a, password: \"S\\n\"}}}",
        "{red: {notify: webhook, config: {url: 'https://u:S@h/', secret: S}}}",
    ] {
        texts.push(format!("- name: a\n  codes: {codes}\n"));
    }
    for lines in [
        "token: |\n        S : x\n       y",
        "token:\n        S: x",
        "token: S\n       x: y",
        "token: 'S",
        "token: *S",
        "token: \"S\" S",
        "token:\n\t S",
        "token: >-\n        \"S",
    ] {
        texts.push(format!(
            "- name: a\n  pulse:\n    type: push\n    interval: 1s\n    config:\n      {lines}\n      x: 1\n"
        ));
    }
    for (number, text) in texts.iter().enumerate() {
        let (_, report) = ground.load(&text.replace('S', SENTINEL));
        let shown = report.diagnostics.to_string();
        assert!(report.diagnostics.errors() > 0, "{number}: {text}");
        assert!(!shown.contains(SENTINEL), "{number}: {text}\n{shown}");
    }
}

#[test]
fn a_value_below_its_key_is_hidden_where_it_is_shown() {
    let text = format!("- name: a\n  pulse:\n    config:\n      token: |\n        {SENTINEL}\n         \u{7}\n");
    let (_, report) = load(&text);
    let shown = report.diagnostics.to_string();
    assert!(shown.contains("control character U+0007") && !shown.contains(SENTINEL), "{shown}");
}
