//! Questions to a name server.

use super::counterparts::free_port;
use super::counterparts::nsd::Nsd;
use super::{Ground, Row};

#[test]
fn name_servers() {
    let Some(nsd) = Nsd::start() else { return };
    let server = nsd.address([127, 0, 0, 1].into()).to_string();
    let row = |name, server: &str, asked: &str, record: &str, module: &str, settings: &str| {
        let module = format!(
            "prober: dns, dns: {{preferred_ip_protocol: ip4, query_name: {asked}, query_type: {record}{module}}}"
        );
        let pulse = format!("type: dns, config: {{server: \"{server}\", name: {asked}, record: {record}{settings}}}");
        Row::new(name, server, module, pulse)
    };
    let none = |pattern: &str| format!(", validate_answer_rrs: {{fail_if_none_matches_regexp: ['{pattern}']}}");
    let nobody = format!("127.0.0.1:{}", free_port());
    Ground::new().compare(&[
        row("a", &server, "www.example.test", "A", "", ""),
        row("aaaa", &server, "www.example.test", "AAAA", &none("2001:db8::1$"), ", expect: \"2001:db8::1\""),
        row("mx", &server, "example.test", "MX", &none("10 [Mm]ail"), ", expect: 10 mail.example.test."),
        row("alias", &server, "alias.example.test", "A", &none("\\t192\\.0\\.2\\.2$"), ", expect: 192.0.2.2"),
        row("other-address", &server, "www.example.test", "A", &none("192\\.0\\.2\\.9$"), ", expect: 192.0.2.9")
            .down("L7RSP", "Answer RRs"),
        row("no-such-name", &server, "nothing.example.test", "A", "", "").down("L7STS", "NXDOMAIN"),
        row("broken-zone", &server, "www.broken.test", "A", "", "").down("L7STS", "SERVFAIL"),
        row("not-its-zone", &server, "www.other.test", "A", "", "").down("L7STS", "REFUSED"),
        row("nobody-there", &nobody, "www.example.test", "A", "", "").down("L4CON", "connection refused"),
        row("no-record", &server, "www.example.test", "MX", "", "").differs(
            ("fail", "L7RSP"),
            Ok(()),
            "Answers without a record",
        ),
        row("answer-cut", &server, "big.example.test", "TXT", &none("\"059 "), "").differs(
            ("ok", "L7OK"),
            Err("Answer RRs"),
            "Answers that are cut",
        ),
    ]);
}
