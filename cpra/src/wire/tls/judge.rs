//! The judges of a server's certificate: webpki, with its reasons put into words, and one that judges nothing.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::words::{self, Reason};
use crate::units::Timestamp;

/// Verifies chains against roots. A certificate that the administrator has named by itself (in `ca_file`) is trusted
/// without a chain: a self-signed one that serves as its own authority, which webpki would not take.
#[derive(Debug)]
pub struct Judge {
    webpki: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl Judge {
    /// # Errors
    /// When there is no root at all.
    pub fn new(
        roots: Arc<RootCertStore>,
        named: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, rustls::client::VerifierBuilderError> {
        let webpki = WebPkiServerVerifier::builder_with_provider(roots, provider).build()?;
        Ok(Self { webpki, named })
    }

    fn trusts_itself(&self, leaf: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> Result<(), Error> {
        if !self.named.iter().any(|named| named.as_ref() == leaf.as_ref()) {
            return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        }
        rustls::client::verify_server_name(&ParsedCertificate::try_from(leaf)?, name)?;
        let (begin, end) = validity(leaf).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let now = moment(now);
        if now < begin {
            return Err(Error::InvalidCertificate(CertificateError::NotValidYet));
        }
        if end < now {
            return Err(Error::InvalidCertificate(CertificateError::Expired));
        }
        Ok(())
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let judged = self.webpki.verify_server_cert(leaf, intermediates, name, ocsp, now);
        let error = match judged {
            Ok(verified) => return Ok(verified),
            Err(error) if self.named.is_empty() => error,
            Err(error) => match self.trusts_itself(leaf, name, now) {
                Ok(()) => return Ok(ServerCertVerified::assertion()),
                // The named certificate's own fault is the better reason; of a stranger, the chain's.
                Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => error,
                Err(own) => own,
            },
        };
        let Error::InvalidCertificate(fault) = &error else { return Err(error) };
        let reason = reason(fault, leaf, intermediates, name, moment(now));
        Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Reason(reason))))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// Accepts whatever comes (`insecure_skip_verify`): also certificates so old or odd that their signature could not be
/// checked. Someone who asked for this wants to know whether a device answers, not who it is.
#[derive(Debug)]
pub(super) struct Indifferent(pub(super) Arc<CryptoProvider>);

impl ServerCertVerifier for Indifferent {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// What is wrong with the chain, in the words of who has to mend it.
fn reason(
    fault: &CertificateError,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    name: &ServerName<'_>,
    now: Timestamp,
) -> String {
    let Ok((_, parsed)) = X509Certificate::from_der(leaf) else { return "certificate is not well-formed".into() };
    match fault {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            let mut chain = std::iter::once(leaf).chain(intermediates).enumerate();
            let expired = chain.find_map(|(position, certificate)| {
                let end = validity(certificate)?.1;
                (end < now).then_some((position, certificate, end))
            });
            match expired {
                Some((0, _, end)) => {
                    format!("certificate expired on {} ({})", words::date(end), words::ago(end, now))
                }
                Some((_, certificate, end)) => {
                    let (date, ago) = (words::date(end), words::ago(end, now));
                    format!("intermediate certificate {} expired on {date} ({ago})", subject(certificate))
                }
                None => "a certificate of the chain has expired".into(),
            }
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => match validity(leaf) {
            Some((begin, _)) if now < begin => {
                format!("certificate is not yet valid until {} ({})", words::date(begin), words::ahead(begin, now))
            }
            _ => "a certificate of the chain is not yet valid".into(),
        },
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("certificate is for {}, not {}", named(&parsed), name.to_str())
        }
        CertificateError::UnknownIssuer => {
            if parsed.subject() == parsed.issuer() {
                return format!("self-signed certificate ({})", distinguished(parsed.subject()));
            }
            // Some servers send the leaf twice.
            let last = intermediates.iter().rfind(|certificate| *certificate != leaf);
            let last = last.and_then(|last| X509Certificate::from_der(last).ok());
            match last {
                Some((_, last)) if last.subject() == last.issuer() => {
                    format!("signed by an unknown authority: {}", distinguished(last.subject()))
                }
                Some((_, last)) => format!("signed by an unknown authority: {}", distinguished(last.issuer())),
                None => format!(
                    "signed by an unknown authority: {}, and no intermediate certificate was sent",
                    distinguished(parsed.issuer())
                ),
            }
        }
        CertificateError::BadEncoding => "certificate is not well-formed".into(),
        CertificateError::Revoked => "certificate was revoked".into(),
        CertificateError::BadSignature => "a certificate of the chain has a bad signature".into(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "certificate is not meant for servers (extended key usage)".into()
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "certificate is signed with an algorithm that is not trusted any more".into()
        }
        other => {
            let words = other.to_string();
            // webpki says so of one that is its own authority.
            if words.contains("CaUsedAsEndEntity") && parsed.subject() == parsed.issuer() {
                return format!("self-signed certificate ({})", distinguished(parsed.subject()));
            }
            format!("certificate refused: {words}")
        }
    }
}

/// Whom a certificate names: the first few.
fn named(certificate: &X509Certificate<'_>) -> String {
    const SHOWN_MAX: usize = 4;
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let names = alternatives.map_or(&[][..], |extension| &extension.value.general_names[..]);
    let mut told: Vec<String> = Vec::new();
    for name in names {
        match name {
            GeneralName::DNSName(name) => told.push((*name).to_owned()),
            GeneralName::IPAddress(octets) => told.extend(address(octets)),
            _ => {}
        }
    }
    if told.is_empty() {
        return format!("nobody (no subjectAltName; subject {})", distinguished(certificate.subject()));
    }
    let more = told.len().saturating_sub(SHOWN_MAX);
    told.truncate(SHOWN_MAX);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    told.join(", ") + &rest
}

fn address(octets: &[u8]) -> Option<String> {
    use std::net::{Ipv4Addr, Ipv6Addr};
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Some(Ipv4Addr::from(octets).to_string());
    }
    <[u8; 16]>::try_from(octets).ok().map(|octets| Ipv6Addr::from(octets).to_string())
}

fn subject(certificate: &CertificateDer<'_>) -> String {
    X509Certificate::from_der(certificate).map_or_else(|_| "?".into(), |(_, parsed)| distinguished(parsed.subject()))
}

fn distinguished(name: &x509_parser::x509::X509Name<'_>) -> String {
    let text = name.to_string();
    if text.is_empty() { "a nameless authority".into() } else { text }
}

/// When a certificate begins and ends.
pub(super) fn validity(certificate: &CertificateDer<'_>) -> Option<(Timestamp, Timestamp)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let validity = parsed.validity();
    let micros = |seconds: i64| Timestamp::from_micros(seconds.saturating_mul(1_000_000));
    Some((micros(validity.not_before.timestamp()), micros(validity.not_after.timestamp())))
}

pub(super) fn moment(time: UnixTime) -> Timestamp {
    Timestamp::from_micros(i64::try_from(time.as_secs()).unwrap_or(i64::MAX).saturating_mul(1_000_000))
}
