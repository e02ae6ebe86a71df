//! TCP: connections, and a word or two.

use std::net::{SocketAddr, TcpListener};

use super::counterparts::nginx::Nginx;
use super::counterparts::raw::{FullBacklog, RawServer, Script};
use super::counterparts::{free_port, loopback_v6};
use super::{Ground, Row};

fn row(name: &'static str, at: SocketAddr, module: &str, settings: &str) -> Row {
    let pulse = format!("type: tcp, config: {{host: \"{}\", port: {}{settings}}}", at.ip(), at.port());
    Row::new(name, at.to_string(), format!("prober: tcp{module}"), pulse)
}

#[test]
fn connections_and_words() {
    let Some(nginx) = Nginx::start() else { return };
    let nginx = nginx.address([127, 0, 0, 1].into());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let open = listener.local_addr().expect("it is bound");
    let closed = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let full = FullBacklog::start();
    let banner = RawServer::start(Script::AnswerEarly(b"220 mail.example ESMTP\r\n".to_vec()));
    let silent = RawServer::start(Script::Silence);
    let expect = |pattern: &str| format!(", tcp: {{query_response: [{{expect: '{pattern}'}}]}}");
    // The exporter ends what it sends with a line feed of its own.
    let ask = ", tcp: {query_response: [{send: \"GET /ok HTTP/1.0\\r\\n\\r\"}, {expect: '^HTTP/1.1 200 OK'}]}";
    let asked = ", send: \"GET /ok HTTP/1.0\\r\\n\\r\\n\", expect: HTTP/1.1 200 OK";
    let ask_else = ", tcp: {query_response: [{send: \"GET /no HTTP/1.0\\r\\n\\r\"}, {expect: '^HTTP/1.1 200 OK'}]}";
    let asked_else = ", send: \"GET /no HTTP/1.0\\r\\n\\r\\n\", expect: HTTP/1.1 200 OK";
    let mut rows = vec![
        row("open", open, "", ""),
        row("refused", closed, "", "").down("L4CON", "connection refused"),
        row("no-answer", full.address(), "", "").soon().down("L4TOUT", "i/o timeout"),
        row("banner", banner.address(), &expect("^220 mail"), ", expect: 220 mail"),
        row("other-banner", banner.address(), &expect("^OK POP3"), ", expect: OK POP3")
            .down("L7RSP", "Regexp did not match"),
        row("no-banner", silent.address(), &expect("^220"), ", expect: '220'").soon().down("L7TOUT", "i/o timeout"),
        row("asked", nginx, ask, asked),
        row("answers-else", nginx, ask_else, asked_else).down("L7RSP", "Regexp did not match"),
    ];
    // It lives as long as the rows are asked for.
    let six = loopback_v6().map(|six| TcpListener::bind((six, 0)).expect("a free port"));
    if let Some(six) = &six {
        let at = six.local_addr().expect("it is bound");
        rows.push(row("open-on-ipv6", at, "", ""));
        let closed = SocketAddr::new(at.ip(), free_port());
        rows.push(row("refused-on-ipv6", closed, "", "").down("L4CON", "connection refused"));
    }
    Ground::new().compare(&rows);
}
