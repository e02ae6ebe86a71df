//! Plain HTTP: what answers say, where redirects lead, who asks.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::counterparts::nginx::Nginx;
use super::counterparts::raw::{RawServer, Script, cut_off};
use super::counterparts::site::Site;
use super::counterparts::tinyproxy::Tinyproxy;
use super::counterparts::{free_port, loopback_v6};
use super::{Ground, Row};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A sound answer with further header lines.
fn answer(head: &str, body: &[u8]) -> Script {
    let head = format!("HTTP/1.1 200 OK\r\n{head}Content-Length: {}\r\n\r\n", body.len());
    Script::Answer([head.as_bytes(), body].concat())
}

#[test]
fn statuses_and_ways_not_to_answer() {
    let Some(nginx) = Nginx::start() else { return };
    let at = |path: &str| format!("http://{}{path}", nginx.address(LOOPBACK));
    let (silent, cut, garbage) = (
        RawServer::start(Script::Silence),
        RawServer::start(Script::Answer(cut_off(100, 50))),
        RawServer::start(Script::Answer(b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec())),
    );
    let raw = |server: &RawServer| format!("http://{}/", server.address());
    let status = "Invalid HTTP response status code";
    Ground::new().compare(&[
        Row::http("ok", &at("/ok"), "", ""),
        Row::http("no-content", &at("/empty"), "", ""),
        Row::http("broken", &at("/status/500"), "", "").down("L7STS", status),
        Row::http("listed", &at("/status/404"), ", valid_status_codes: [404, 503]", ", expected_status: [404, 503]"),
        Row::http("unlisted", &at("/ok"), ", valid_status_codes: [404, 503]", ", expected_status: [404, 503]")
            .down("L7STS", status),
        Row::http("post", &at("/post"), ", method: POST, body: a", ", method: POST, body: a"),
        Row::http("post-by-get", &at("/post"), "", "").down("L7STS", status),
        Row::http("refused", &format!("http://127.0.0.1:{}/", free_port()), "", "").down("L4CON", "connection refused"),
        Row::http("silent", &raw(&silent), "", "").soon().down("L7TOUT", "context deadline exceeded"),
        Row::http("cut-off", &raw(&cut), "", "").down("L7RSP", "unexpected EOF"),
        Row::http("no-http", &raw(&garbage), "", "").down("L7RSP", "malformed HTTP"),
        Row::http("chunked", &at("/chunked"), ", fail_if_body_not_matches_regexp: [in chunks]", ", regex: in chunks"),
    ]);
}

#[test]
fn bodies_and_headers() {
    let Some(site) = Site::start() else { return };
    let at = |path: &str| format!("http://{}{path}", site.address());
    let health = at("/health");
    let unasked = RawServer::start(answer("Content-Encoding: gzip\r\n", &packed("all is fine")));
    let damaged = RawServer::start(answer("Content-Encoding: gzip\r\n", b"\x1f\x8b\x08 damaged"));
    let slow = RawServer::start(Script::AnswerSlowly(
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
        Duration::from_millis(5),
    ));
    let raw = |server: &RawServer| format!("http://{}/", server.address());
    let (lacks, has) = ("fail_if_body_not_matches_regexp", "fail_if_body_matches_regexp");
    let header = "fail_if_header_not_matches";
    let zip = ", compression: gzip, headers: {Accept-Encoding: gzip}";
    Ground::new().compare(&[
        Row::http(
            "body",
            &health,
            &format!(", {lacks}: ['\"status\": ?\"\\w+\"']"),
            ", regex: '\"status\": ?\"\\w+\"'",
        ),
        Row::http("body-lacks", &health, &format!(", {lacks}: [degraded, healthy]"), ", regex: [degraded, healthy]")
            .down("L7RSP", "Body did not match regular expression"),
        Row::http("body-without", &health, &format!(", {has}: [panic]"), ", not_regex: panic"),
        Row::http(
            "body-has",
            &health,
            &format!(", {has}: [panic, '(?i)DEGRADED']"),
            ", not_regex: [panic, '(?i)DEGRADED']",
        )
        .down("L7RSP", "Body matched regular expression"),
        Row::http(
            "header",
            &health,
            &format!(", {header}: [{{header: X-Version, regexp: '^[0-9]$'}}]"),
            ", expected_headers: {X-Version: {matches: '^[0-9]$'}}",
        ),
        Row::http(
            "header-unlike",
            &health,
            &format!(", {header}: [{{header: X-Version, regexp: '^8$'}}]"),
            ", expected_headers: {X-Version: {matches: '^8$'}}",
        )
        .down("L7RSP", "Header did not match regular expression"),
        Row::http(
            "header-missing",
            &health,
            &format!(", {header}: [{{header: Strict-Transport-Security, regexp: '.*'}}]"),
            ", expected_headers: {Strict-Transport-Security: {matches: '.*'}}",
        )
        .down("L7RSP", "Missing required header"),
        Row::http(
            "headers-sent",
            &at("/echo"),
            &format!(", headers: {{X-Api-Key: k1}}, {lacks}: ['key=k1 ']"),
            ", headers: {X-Api-Key: k1}, regex: 'key=k1 '",
        ),
        Row::http("packed", &at("/packed"), &format!("{zip}, {lacks}: [all is fine]"), ", regex: all is fine"),
        Row::http("packed-damaged", &raw(&damaged), &format!("{zip}, {lacks}: [fine]"), ", regex: fine")
            .down("L7RSP", "gzip"),
        Row::http("packed-unasked", &raw(&unasked), &format!(", {lacks}: [all is fine]"), ", regex: all is fine")
            .differs(("ok", "L7OK"), Err("Body did not match"), "Compressed answers"),
        Row::http("slow", &raw(&slow), "", ", max_latency: 20ms").differs(("warn", "L7OK"), Ok(()), "Warnings"),
    ]);
}

fn packed(text: &str) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

#[test]
fn redirects() {
    let Some(site) = Site::start() else { return };
    let at = |path: &str| format!("http://{}{path}", site.address());
    let (never, follow) = (", follow_redirects: false", ", follow_redirects: true");
    let status = "Invalid HTTP response status code";
    Ground::new().compare(&[
        Row::http("followed", &at("/one"), follow, follow),
        Row::http("to-another-origin", &at("/away"), follow, follow),
        Row::http("not-followed", &at("/one"), never, never).down("L7STS", status),
        Row::http(
            "wanted",
            &at("/one"),
            ", follow_redirects: false, valid_status_codes: [302]",
            ", expected_status: 302",
        ),
        Row::http("to-nothing", &at("/lost"), follow, follow).down("L7STS", status),
        Row::http("to-nobody", &at("/gone"), follow, follow).down("L4CON", "connection refused"),
        Row::http("in-a-circle", &at("/circle"), follow, follow).down("L7RSP", status),
        // No key says it: the exporter follows unless it is told not to, we follow when we are told to.
        Row::http("unsaid", &at("/one"), "", "").differs(("fail", "L7STS"), Ok(()), "Redirects"),
    ]);
}

#[test]
fn who_asks_and_through_whom() {
    let (Some(site), Some(proxy)) = (Site::start(), Tinyproxy::start(None)) else { return };
    let login = format!("http://{}/login", site.address());
    let auth = |password: &str| format!(", basic_auth: {{username: probe, password: {password}}}");
    let (right, wrong) = (auth("pass-phrase"), auth("other"));
    let status = "Invalid HTTP response status code";
    let echo = format!("http://{}/echo", site.address());
    let bearer = ", bearer_token: t1";
    let via = format!("http://{}", proxy.address());
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let mut rows = vec![
        Row::http("known", &login, &right, &right),
        Row::http("unknown", &login, &wrong, &wrong).down("L7STS", status),
        Row::http(
            "token",
            &echo,
            &format!("{bearer}, fail_if_body_not_matches_regexp: [authorization=Bearer t1]"),
            &format!("{bearer}, regex: authorization=Bearer t1"),
        ),
        Row::http(
            "proxy",
            &echo,
            &format!(", proxy_url: \"{via}\", fail_if_body_not_matches_regexp: [via=.*tinyproxy]"),
            &format!(", proxy: \"{via}\", regex: via=.*tinyproxy"),
        ),
        Row::http("no-proxy", &echo, &format!(", proxy_url: \"{nowhere}\""), &format!(", proxy: \"{nowhere}\""))
            .down("L4CON", "connection refused"),
    ];
    if let Some(six) = loopback_v6() {
        let six = site.on(six);
        let url = format!("http://{six}/echo");
        let pulse = format!("type: http, config: {{url: \"{url}\"}}");
        rows.push(Row::new("over-ipv6", url, "prober: http, http: {preferred_ip_protocol: ip6}", pulse));
    }
    // The name stands in the hosts file of this machine.
    rows.push(Row::http("by-name", &format!("http://localhost:{}/echo", site.address().port()), "", ""));
    Ground::new().compare(&rows);
}
