//! What TLS needs of this machine: trusted roots, certificates and keys from files, the wall clock.
//!
//! All of it is read once, before the first check: a broken file is an error of the load, with its name and the remedy,
//! and never the failure of a target. Keys and certificates that are replaced on disk count from the next load on.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};

use super::clock::Clock;
use crate::domain::monitor::{ClientCertificate, TlsPolicy};
use crate::domain::{Check, Policy};
use crate::units::limits::TLS_FILE_MAX;
use crate::wire::tls::{Context, Judge, Trust};

/// Why a policy's TLS cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct TlsFault {
    /// The file at fault, if it is one.
    pub file: Option<PathBuf>,
    pub text: String,
    pub remedy: &'static str,
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        write!(f, "{}; {}", self.text, self.remedy)
    }
}

/// The wall clock, as rustls asks for it.
#[derive(Debug)]
struct WallClock;

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(Clock.wall().as_micros()).ok()? / 1_000_000;
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
    }
}

/// Reads what policies name. The system's roots are read with the first policy that wants them.
pub struct Loader {
    provider: Arc<CryptoProvider>,
    clock: Arc<dyn TimeProvider>,
    system: Option<Arc<RootCertStore>>,
    trust: Trust,
}

impl Default for Loader {
    fn default() -> Self {
        let clock: Arc<dyn TimeProvider> = Arc::new(WallClock);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Self { provider, trust: Trust::new(Arc::clone(&clock)), clock, system: None }
    }
}

impl Loader {
    /// Every handshake is a full one: to measure, and to look at one target once.
    #[must_use]
    pub fn without_resumption(mut self) -> Self {
        self.trust = self.trust.without_resumption();
        self
    }

    /// Prepares what the checks of a policy will need. All that is wrong with it is told at once.
    ///
    /// # Errors
    /// Each with the file and the remedy.
    pub fn add(&mut self, policy: &Policy) -> Result<(), Vec<TlsFault>> {
        let plain = TlsPolicy::default();
        let redirects = matches!(&policy.check, Check::Http(check) if check.redirects > 0);
        let tls = match policy.check.tls() {
            Some(tls) => tls,
            // A redirect may lead from http to https.
            None if redirects => &plain,
            None => return Ok(()),
        };
        self.prepare(tls, tls.client.as_ref())?;
        // What a redirect leads to is not shown the client's certificate.
        if redirects && tls.client.is_some() { self.prepare(tls, None) } else { Ok(()) }
    }

    /// What all shards share.
    pub fn finish(self) -> Arc<Trust> {
        Arc::new(self.trust)
    }

    fn prepare(&mut self, tls: &TlsPolicy, client: Option<&ClientCertificate>) -> Result<(), Vec<TlsFault>> {
        if self.trust.knows(tls, client) {
            return Ok(());
        }
        let mut faults = Vec::new();
        let judge = if tls.insecure_skip_verify {
            None
        } else {
            match self.judge(tls.ca_file.as_deref()) {
                Ok(judge) => Some(judge),
                Err(fault) => {
                    faults.push(fault);
                    None
                }
            }
        };
        let identity = client.map(|client| (certificates(&client.cert_file), key(&client.key_file)));
        let identity = match identity {
            None => None,
            Some((Ok(chain), Ok(key))) => Some((chain, key)),
            Some((chain, key)) => {
                faults.extend(chain.err());
                faults.extend(key.err());
                None
            }
        };
        if !faults.is_empty() {
            return Err(faults);
        }
        let context = Context::new(judge, identity, &self.provider, &self.clock).map_err(|error| {
            let file = client.map(|client| client.key_file.clone());
            let text = format!("the certificate and its key cannot be used: {error}");
            vec![TlsFault { file, text, remedy: "name the key that belongs to the first certificate of cert_file" }]
        })?;
        self.trust.add(tls, client, context);
        Ok(())
    }

    fn judge(&mut self, ca_file: Option<&Path>) -> Result<Judge, TlsFault> {
        let named = ca_file.map(certificates).transpose()?.unwrap_or_default();
        let system = self.system();
        let roots = if named.is_empty() {
            system
        } else {
            let mut roots = (*system).clone();
            for certificate in &named {
                roots.add(certificate.clone()).map_err(|error| TlsFault {
                    file: ca_file.map(Path::to_owned),
                    text: format!("a certificate in it cannot be trusted: {error}"),
                    remedy: "name a PEM file with the certificates of the authority",
                })?;
            }
            Arc::new(roots)
        };
        Judge::new(roots, named, Arc::clone(&self.provider)).map_err(|error| TlsFault {
            file: None,
            text: format!("this host trusts no certificate authority: {error}"),
            remedy: "install the package ca-certificates, or name a ca_file",
        })
    }

    fn system(&mut self) -> Arc<RootCertStore> {
        Arc::clone(self.system.get_or_insert_with(system_roots))
    }
}

fn system_roots() -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let loaded = rustls_native_certs::load_native_certs();
    for error in &loaded.errors {
        tracing::warn!(%error, "a part of the system's trust store cannot be read");
    }
    let (_, unusable) = roots.add_parsable_certificates(loaded.certs);
    if unusable > 0 {
        tracing::debug!(unusable, "certificates of the system's trust store that cannot be used");
    }
    Arc::new(roots)
}

/// What connections of the daemon's own trust, towards providers. The system's roots are read once, with the first one.
#[derive(Debug, Default)]
pub struct Roots {
    system: OnceLock<Arc<RootCertStore>>,
}

impl Roots {
    /// For HTTP/1.1. Reads files.
    ///
    /// # Errors
    /// With the file and the remedy.
    pub fn client(&self, ca_file: Option<&Path>) -> Result<ClientConfig, TlsFault> {
        let mut loader =
            Loader { system: Some(Arc::clone(self.system.get_or_init(system_roots))), ..Loader::default() };
        let unusable =
            |error: rustls::Error| TlsFault { file: None, text: error.to_string(), remedy: "see to this host's TLS" };
        let builder = ClientConfig::builder_with_details(Arc::clone(&loader.provider), Arc::new(WallClock))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        // A host that trusts nobody can still reach what speaks no TLS.
        let trusts_nobody = ca_file.is_none() && loader.system().is_empty();
        let builder = if trusts_nobody {
            builder.with_root_certificates(RootCertStore::empty())
        } else {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(loader.judge(ca_file)?))
        };
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// What went wrong with TLS, if it did.
pub fn in_words(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    error.downcast_ref::<rustls::Error>().map(|error| crate::wire::tls::failure(error).words)
}

/// Whether the files of a TLS policy are there and sound; to be asked where a policy is read, so that the finding stands
/// beside its place in the file.
///
/// # Errors
/// All that is wrong.
pub fn check(tls: &TlsPolicy) -> Result<(), Vec<TlsFault>> {
    Loader::default().prepare(tls, tls.client.as_ref())
}

fn read(file: &Path) -> Result<Vec<u8>, TlsFault> {
    let fault = |text: String, remedy| TlsFault { file: Some(file.to_owned()), text, remedy };
    let unreadable =
        |error: std::io::Error| fault(format!("cannot be read: {error}"), "name a PEM file that the daemon may read");
    let opened = std::fs::File::open(file).map_err(unreadable)?;
    let metadata = opened.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(fault("is no regular file".into(), "name a PEM file"));
    }
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(opened, TLS_FILE_MAX + 1), &mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > TLS_FILE_MAX {
        return Err(fault(format!("is larger than {TLS_FILE_MAX} bytes"), "name a PEM file with what is needed only"));
    }
    Ok(bytes)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let fault = |text: String| TlsFault {
        file: Some(file.to_owned()),
        text,
        remedy: "it must hold certificates in PEM: -----BEGIN CERTIFICATE-----",
    };
    let bytes = read(file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if found.is_empty() => Err(fault("holds no certificate".into())),
        Ok(found) => Ok(found),
        Err(error) => Err(fault(format!("is not well-formed: {error}"))),
    }
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsFault> {
    PrivateKeyDer::from_pem_slice(&read(file)?).map_err(|error| TlsFault {
        file: Some(file.to_owned()),
        text: match error {
            rustls::pki_types::pem::Error::NoItemsFound => "holds no private key".into(),
            other => format!("is not well-formed: {other}"),
        },
        remedy: "it must hold a private key in PEM without a passphrase",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &str = include_str!("../wire/tls/fixtures/client.pem");
    const KEY: &str = include_str!("../wire/tls/fixtures/client.key");
    const OTHER_KEY: &str = include_str!("../wire/tls/fixtures/server.key");

    #[test]
    fn broken_files_are_told_with_their_names_and_all_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("it can be written");
            path
        };
        let (cert, good_key, other_key) = (write("c.pem", CERTIFICATE), write("c.key", KEY), write("o.key", OTHER_KEY));
        let (empty, noise) = (write("empty.pem", ""), write("noise.pem", "-----BEGIN CERTIFICATE-----\n!!\n"));
        let missing = folder.path().join("missing.pem");
        let policy = |ca_file: Option<&PathBuf>, client: Option<(&PathBuf, &PathBuf)>| TlsPolicy {
            ca_file: ca_file.cloned(),
            client: client.map(|(cert, key)| ClientCertificate { cert_file: cert.clone(), key_file: key.clone() }),
            ..TlsPolicy::default()
        };
        let told = |policy: TlsPolicy| {
            let faults = check(&policy).expect_err("it is broken");
            faults.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(check(&policy(Some(&cert), Some((&cert, &good_key)))), Ok(()));
        let faults = told(policy(Some(&missing), Some((&empty, &noise))));
        assert_eq!(faults.len(), 3, "{faults:?}");
        for (fault, words) in
            faults.iter().zip(["missing.pem: cannot be read", "empty.pem: holds no certificate", "noise.pem: "])
        {
            assert!(fault.contains(words), "{fault}");
        }
        assert!(told(policy(Some(&noise), None))[0].contains("noise.pem: is not well-formed"));
        assert!(told(policy(Some(&folder.path().to_owned()), None))[0].contains("is no regular file"));
        let mismatch = told(policy(Some(&cert), Some((&cert, &other_key))));
        assert!(mismatch[0].contains("o.key: the certificate and its key cannot be used"), "{mismatch:?}");
    }
}
