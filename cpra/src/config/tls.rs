//! The rules of `tls`: whom a certificate must name, who signed it, how long it must last.

use super::diagnostic::{Severity, quoted};
use super::node::{Findings, Node};
use super::scope::Scope;
use super::section::{Keys, Section};
use super::{address, secret, value};
use crate::domain::Host;
use crate::domain::monitor::{ClientCertificate, StartTls, TlsPolicy};

pub(super) const KEYS: Keys<'static> = Keys {
    known: &["ca_file", "cert_file", "key_file", "server_name", "insecure_skip_verify", "min_days_left"],
    without_effect: &[],
    refused: &[],
};

/// Certificates that last longer are not issued, and the sum must not overflow a date.
const DAYS_MAX: u64 = 3_650;

const STARTTLS: [(&str, StartTls); 3] =
    [("smtp", StartTls::Smtp), ("imap", StartTls::Imap), ("postgres", StartTls::Postgres)];

pub(super) fn starttls(node: &Node) -> Result<StartTls, String> {
    value::choice(&STARTTLS)(node)
}

pub(super) fn policy(tls: &Section<'_>, scope: &Scope<'_>, findings: &mut Findings) -> TlsPolicy {
    tls.check_all_keys(findings, KEYS);
    let pem = |label| {
        move |node: &Node| {
            let file = value::line(4096)(node)?;
            secret::pem(file, label, scope.folders)
        }
    };
    let ca_file = tls.value(findings, &["ca_file"], pem("CERTIFICATE"));
    let cert = tls.find(findings, &["cert_file"]);
    let key = tls.find(findings, &["key_file"]);
    if let (Some(lone), None) | (None, Some(lone)) = (cert, key) {
        let other = if lone.key == "cert_file" { "key_file" } else { "cert_file" };
        let message = format!("{} comes alone: add {other}, a client needs both", lone.key);
        findings.0.push(lone.finding(Severity::Error, lone.at, message));
    }
    let cert_file = tls.value(findings, &["cert_file"], pem("CERTIFICATE"));
    let key_file = tls.value(findings, &["key_file"], pem("PRIVATE KEY"));
    let client = cert_file.zip(key_file).map(|(cert_file, key_file)| ClientCertificate { cert_file, key_file });
    let insecure_skip_verify = tls.value(findings, &["insecure_skip_verify"], value::boolean).unwrap_or(false);
    if insecure_skip_verify && let Some(field) = tls.find(&mut Findings::default(), &["insecure_skip_verify"]) {
        let message = "insecure_skip_verify: anybody on the way can answer in the target's place; name its authority in \
                       ca_file instead";
        findings.0.push(field.finding(Severity::Warning, field.at, message.to_owned()));
        if ca_file.is_some()
            && let Some(field) = tls.find(&mut Findings::default(), &["ca_file"])
        {
            let message = "ca_file has no effect beside insecure_skip_verify: remove one of them".to_owned();
            findings.0.push(field.finding(Severity::Warning, field.at, message));
        }
    }
    let days = tls.value(findings, &["min_days_left"], value::integer(1..=DAYS_MAX));
    TlsPolicy {
        server_name: tls.value(findings, &["server_name"], server_name),
        ca_file,
        client,
        insecure_skip_verify,
        min_days_left: days.and_then(|days| u32::try_from(days).ok()),
        starttls: None,
    }
}

fn server_name(node: &Node) -> Result<Box<str>, String> {
    let text = value::text(node)?;
    match address::host(text) {
        Ok(Host::Name(name)) => Ok(name),
        Ok(Host::Literal(address)) => Ok(address.to_string().into()),
        Err(message) if message.starts_with("has the host ") => Err(message.replacen("has the host ", "", 1)),
        Err(_) => Err(format!("{} is no name: write the one that the certificate holds", quoted(text))),
    }
}
