//! TLS: certificates of every kind, below HTTP and alone, and what is said before it.

use super::counterparts::authority::{Authority, DAY, Wish};
use super::counterparts::nginx::Nginx;
use super::counterparts::raw::{RawServer, Script};
use super::counterparts::secured::{End, Ending, Secured};
use super::{Ground, Row};

const NAMES: &str = "DNS:good.example,IP:127.0.0.1";

#[test]
fn certificates() {
    let Some(authority) = Authority::start() else { return };
    let wish = Wish::of(NAMES);
    let near = authority.issue("near", Wish { ends: 9 * DAY + 1, ..wish });
    let expired = authority.issue("expired", Wish { begins: -30 * DAY, ends: -DAY, ..wish });
    let (Some(good), Some(near), Some(expired)) =
        (Secured::nginx(&authority.issue("good", wish)), Secured::nginx(&near), Secured::nginx(&expired))
    else {
        return;
    };
    let Some(plain) = Nginx::start() else { return };
    let ground = Ground::new();
    let ca = ground.trusted(&authority.root()).display().to_string();
    let both = |module: &str| (format!(", tls_config: {{{module}}}"), format!(", tls: {{{module}}}"));
    let (theirs, ours) = both(&format!("ca_file: {ca}"));
    let (their_name, our_name) = both(&format!("ca_file: {ca}, server_name: good.example"));
    let (their_other, our_other) = both(&format!("ca_file: {ca}, server_name: other.example"));
    let (their_trust, our_trust) = both("insecure_skip_verify: true");
    let at = |server: &Secured| format!("https://{}/ok", server.address());
    let soon = format!(", tls: {{ca_file: {ca}, min_days_left: 14}}");
    ground.compare(&[
        Row::http("trusted", &at(&good), &theirs, &ours),
        Row::http("named", &at(&good), &their_name, &our_name),
        Row::http("for-another", &at(&good), &their_other, &our_other).down("L6CERT", "not other.example"),
        Row::http("unknown-authority", &at(&good), "", "").down("L6CERT", "unknown authority"),
        Row::http("unjudged", &at(&good), &their_trust, &our_trust),
        Row::http("expired", &at(&expired), &theirs, &ours).down("L6CERT", "has expired"),
        Row::http("expired-unjudged", &at(&expired), &their_trust, &our_trust),
        Row::http("near-its-end", &at(&near), &theirs, &soon).differs(("warn", "L7OK"), Ok(()), "Warnings"),
        Row::http("no-tls", &format!("https://{}/ok", plain.address([127, 0, 0, 1].into())), &theirs, &ours)
            .down("L6RSP", "server gave HTTP response to HTTPS client"),
    ]);
}

#[test]
fn what_only_https_can_do_wrong() {
    let Some(authority) = Authority::start() else { return };
    let Some(plain) = Nginx::start() else { return };
    let good = authority.issue("good", Wish::of(NAMES));
    let elsewhere = plain.address([127, 0, 0, 1].into());
    let away = format!("HTTP/1.1 302 Found\r\nLocation: http://{elsewhere}/ok\r\nContent-Length: 0\r\n\r\n");
    let away = Ending::start(&good, Box::leak(away.into_boxed_str()).as_bytes(), End::Notified);
    let cut = Ending::start(&good, b"HTTP/1.1 200 OK\r\n\r\nperhaps not all of it", End::Cut);
    let whole = Ending::start(&good, b"HTTP/1.1 200 OK\r\n\r\nall of it", End::Notified);
    let ground = Ground::new();
    let ca = ground.trusted(&authority.root()).display().to_string();
    let (theirs, ours) = (format!(", tls_config: {{ca_file: {ca}}}"), format!(", tls: {{ca_file: {ca}}}"));
    let follow = ", follow_redirects: true";
    let at = |server: &Ending| format!("https://{}/", server.address());
    ground.compare(&[
        Row::http("ended", &at(&whole), &theirs, &ours),
        Row::http("cut", &at(&cut), &theirs, &ours).differs(("fail", "L7RSP"), Ok(()), "Answers that are cut"),
        Row::http("downgraded", &at(&away), &(theirs.clone() + follow), &(ours.clone() + follow)).differs(
            ("fail", "L7RSP"),
            Ok(()),
            "Redirects",
        ),
    ]);
}

#[test]
fn below_tcp_and_after_plain_words() {
    let Some(authority) = Authority::start() else { return };
    let good = authority.issue("good", Wish::of(NAMES));
    let (Some(openssl), Some(smtp), Some(plain_smtp), Some(imap)) =
        (Secured::openssl(&good, &[]), Secured::exim(Some(&good)), Secured::exim(None), Secured::dovecot(&good))
    else {
        return;
    };
    let root = authority.root().display().to_string();
    let demanding = ["-Verify", "1", "-verify_return_error", "-CAfile", &root];
    let (Some(strict), Some(strict_old)) =
        (Secured::openssl(&good, &demanding), Secured::openssl(&good, &[&demanding[..], &["-tls1_2"]].concat()))
    else {
        return;
    };
    let no_tls = RawServer::start(Script::AnswerEarly(b"+OK hello\r\n".to_vec()));
    let ground = Ground::new();
    let ca = ground.trusted(&authority.root()).display().to_string();
    let config = format!("tls_config: {{ca_file: {ca}}}");
    let row = |name, at: std::net::SocketAddr, module: &str, settings: &str| {
        let pulse = format!("type: tcp, config: {{host: {}, port: {}, {settings}}}", at.ip(), at.port());
        Row::new(name, at.to_string(), format!("prober: tcp, tcp: {{{module}}}"), pulse)
    };
    let trusted = format!("tls: {{ca_file: {ca}}}");
    let shown = format!(
        "ca_file: {ca}, cert_file: {}, key_file: {}",
        ground.trusted(&good.chain).display(),
        ground.trusted(&good.key).display()
    );
    let (their_shown, our_shown) = (format!("tls: true, tls_config: {{{shown}}}"), format!("tls: {{{shown}}}"));
    let smtp_talk = "query_response: [{expect: '^220 '}, {send: \"EHLO prober\\r\"}, {expect: '^250[- ]STARTTLS'}, \
                     {send: \"STARTTLS\\r\"}, {expect: '^220'}, {starttls: true}, {send: \"EHLO prober\\r\"}, {expect: '^250 '}]";
    let imap_talk = "query_response: [{expect: 'OK.*STARTTLS'}, {send: '. STARTTLS'}, {expect: OK}, {starttls: true}]";
    ground.compare(&[
        row("tls", openssl.address(), &format!("tls: true, {config}"), &trusted),
        row("tls-untrusted", openssl.address(), "tls: true", "tls: true").down("L6CERT", "unknown authority"),
        row(
            "tls-unjudged",
            openssl.address(),
            "tls: true, tls_config: {insecure_skip_verify: true}",
            "tls: {insecure_skip_verify: true}",
        ),
        row("tls-to-none", no_tls.address(), &format!("tls: true, {config}"), &trusted)
            .down("L6RSP", "first record does not look like a TLS handshake"),
        row("client-known", strict.address(), &their_shown, &our_shown),
        row("client-known-before-1.3", strict_old.address(), &their_shown, &our_shown),
        row("client-unknown-before-1.3", strict_old.address(), &format!("tls: true, {config}"), &trusted)
            .down("L6RSP", "handshake failure"),
        row("client-unknown", strict.address(), &format!("tls: true, {config}"), &trusted).differs(
            ("fail", "L6RSP"),
            Ok(()),
            "Client certificates",
        ),
        row("smtp", smtp.address(), &format!("{smtp_talk}, {config}"), &format!("starttls: smtp, {trusted}")),
        row("smtp-untrusted", smtp.address(), smtp_talk, "starttls: smtp").down("L6CERT", "unknown authority"),
        row(
            "smtp-without",
            plain_smtp.address(),
            &format!("{smtp_talk}, {config}"),
            &format!("starttls: smtp, {trusted}"),
        )
        .soon_for_the_exporter()
        .down("L6RSP", "i/o timeout"),
        row("imap", imap.address(), &format!("{imap_talk}, {config}"), &format!("starttls: imap, {trusted}")),
    ]);
}
