//! The client's side of TLS by rustls, and the contexts that its sessions are made from.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion};

use super::judge::{Indifferent, Judge, moment, validity};
use super::tickets::{Peer, Pocket, Tickets};
use super::{Blame, Contexts, Failure, Session, ended, words};
use crate::domain::HostRef;
use crate::domain::monitor::{ClientCertificate, TlsPolicy};
use crate::units::Timestamp;

/// What of a policy decides about its context.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    ca_file: Option<std::path::PathBuf>,
    client: Option<ClientCertificate>,
    insecure: bool,
}

#[derive(Hash)]
struct KeyRef<'a> {
    ca_file: &'a Option<std::path::PathBuf>,
    client: Option<&'a ClientCertificate>,
    insecure: bool,
}

impl<'a> KeyRef<'a> {
    const fn of(policy: &'a TlsPolicy, client: Option<&'a ClientCertificate>) -> Self {
        Self { ca_file: &policy.ca_file, client, insecure: policy.insecure_skip_verify }
    }
}

impl hashbrown::Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self.ca_file == key.ca_file && self.client == key.client.as_ref() && self.insecure == key.insecure
    }
}

/// What all connections of one kind of policy share.
#[derive(Clone)]
pub struct Context {
    config: ClientConfig,
    certified: bool,
    judges: bool,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("certified", &self.certified).field("judges", &self.judges).finish()
    }
}

impl Context {
    /// `judge` is `None` where the certificate is not judged at all.
    ///
    /// # Errors
    /// When the client's key is not one, or does not belong to the certificate.
    pub fn new(
        judge: Option<Judge>,
        client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
        provider: &Arc<CryptoProvider>,
        clock: &Arc<dyn TimeProvider>,
    ) -> Result<Self, rustls::Error> {
        let builder = ClientConfig::builder_with_details(Arc::clone(provider), Arc::clone(clock))
            .with_safe_default_protocol_versions()?
            .dangerous();
        let (judges, certified) = (judge.is_some(), client.is_some());
        let builder = match judge {
            Some(judge) => builder.with_custom_certificate_verifier(Arc::new(judge)),
            None => builder.with_custom_certificate_verifier(Arc::new(Indifferent(Arc::clone(provider)))),
        };
        let config = match client {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
            None => builder.with_no_client_auth(),
        };
        Ok(Self { config, certified, judges })
    }
}

/// The contexts of everything that was loaded.
pub struct Trust {
    contexts: HashMap<Key, (u32, Context), FxBuildHasher>,
    tickets: Arc<Mutex<Tickets>>,
    clock: Arc<dyn TimeProvider>,
    resumes: bool,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("contexts", &self.contexts.len()).finish()
    }
}

impl Trust {
    pub fn new(clock: Arc<dyn TimeProvider>) -> Self {
        Self { contexts: HashMap::with_hasher(FxBuildHasher), tickets: Arc::default(), clock, resumes: true }
    }

    /// Every handshake is a full one.
    pub fn without_resumption(mut self) -> Self {
        self.resumes = false;
        self
    }

    pub fn knows(&self, policy: &TlsPolicy, client: Option<&ClientCertificate>) -> bool {
        self.contexts.contains_key(&KeyRef::of(policy, client))
    }

    /// `context` is for connections of `policy` that show `client`.
    pub fn add(&mut self, policy: &TlsPolicy, client: Option<&ClientCertificate>, context: Context) {
        let key =
            Key { ca_file: policy.ca_file.clone(), client: client.cloned(), insecure: policy.insecure_skip_verify };
        let number = self.contexts.len() as u32;
        self.contexts.insert(key, (number, context));
    }

    #[cfg(test)]
    pub(super) fn tickets(&self) -> usize {
        self.tickets.lock().map(|tickets| tickets.len()).unwrap_or_default()
    }
}

impl Contexts for Trust {
    fn begin(
        &self,
        policy: &TlsPolicy,
        client: Option<&ClientCertificate>,
        name: HostRef<'_>,
        peer: SocketAddr,
    ) -> Result<Box<dyn Session>, Failure> {
        let ours = |words: String| Failure::new(Blame::Ours, words);
        let Some((number, context)) = self.contexts.get(&KeyRef::of(policy, client)) else {
            return Err(ours("TLS of this policy was not loaded".into()));
        };
        let name = match name {
            HostRef::Literal(address) => ServerName::IpAddress(address.into()),
            HostRef::Name(text) => match ServerName::try_from(text) {
                Ok(name) => name.to_owned(),
                Err(_) => return Err(ours(format!("{text:?} is no name that a certificate could be for"))),
            },
        };
        let peer = Peer { context: *number, address: peer, name };
        let mut config = context.config.clone();
        let pocket = if self.resumes {
            let tickets = &mut self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::new(tickets.take(&peer, self.wall()))
        } else {
            Arc::new(Tickets::default().take(&peer, self.wall()))
        };
        config.resumption = Resumption::store(Arc::clone(&pocket) as Arc<dyn rustls::client::ClientSessionStore>);
        let mut connection = ClientConnection::new(Arc::new(config), peer.name.clone())
            .map_err(|error| ours(format!("TLS cannot begin: {error}")))?;
        // What it holds is drained after every call.
        connection.set_buffer_limit(None);
        Ok(Box::new(ClientSession {
            connection,
            peer,
            pocket,
            tickets: self.resumes.then(|| Arc::clone(&self.tickets)),
            clock: Arc::clone(&self.clock),
            judges: context.judges,
            certified: context.certified,
            established: false,
            closed: false,
            end: None,
            judged: Timestamp::default(),
            heard: Heard::default(),
        }))
    }

    fn wall(&self) -> Timestamp {
        wall(&*self.clock)
    }
}

fn wall(clock: &dyn TimeProvider) -> Timestamp {
    clock.current_time().map_or_else(Timestamp::default, moment)
}

/// The first bytes that were received: whether a server speaks TLS at all is seen by them.
#[derive(Debug, Default)]
struct Heard {
    bytes: [u8; 32],
    len: u8,
}

impl Heard {
    fn note(&mut self, bytes: &[u8]) {
        let len = usize::from(self.len);
        let taken = bytes.len().min(self.bytes.len() - len);
        self.bytes[len..len + taken].copy_from_slice(&bytes[..taken]);
        self.len += taken as u8;
    }

    fn get(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

#[derive(Debug)]
struct ClientSession {
    connection: ClientConnection,
    peer: Peer,
    pocket: Arc<Pocket>,
    /// `None`: nothing is resumed.
    tickets: Option<Arc<Mutex<Tickets>>>,
    clock: Arc<dyn TimeProvider>,
    judges: bool,
    certified: bool,
    established: bool,
    closed: bool,
    end: Option<Timestamp>,
    judged: Timestamp,
    heard: Heard,
}

impl ClientSession {
    fn failure(&self, error: &rustls::Error) -> Failure {
        words::failure(error, self.heard.get(), self.certified)
    }

    /// The handshake is done: since when does the judgement of the certificate hold, and until when the certificate?
    fn establish(&mut self) -> Result<(), Failure> {
        self.established = true;
        let now = wall(&*self.clock);
        self.judged = match (self.connection.handshake_kind(), self.pocket.judged()) {
            (Some(HandshakeKind::Resumed), Some(judged)) => judged,
            _ => now,
        };
        if !self.judges {
            return Ok(());
        }
        // Of a resumed session, too: it brings the chain that was judged then.
        let leaf = self.connection.peer_certificates().and_then(<[_]>::first);
        self.end = leaf.and_then(validity).map(|(_, end)| end);
        match self.end.and_then(|end| ended(end, now)) {
            Some(words) => Err(Failure::new(Blame::Certificate, words)),
            None => Ok(()),
        }
    }
}

impl Session for ClientSession {
    fn read(&mut self, ciphertext: &[u8], plaintext: &mut Vec<u8>) -> Result<(), Failure> {
        if !self.established {
            self.heard.note(ciphertext);
        }
        let mut rest = ciphertext;
        while !rest.is_empty() {
            match self.connection.read_tls(&mut rest) {
                // Nothing counts after the peer's close_notify.
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Err(Failure::new(Blame::Ours, format!("TLS cannot take a record: {error}"))),
            }
            let processed = self.connection.process_new_packets();
            // Also what came before an error.
            let mut reader = self.connection.reader();
            let mut chunk: &[u8] = std::io::BufRead::fill_buf(&mut reader).unwrap_or_default();
            while !chunk.is_empty() {
                plaintext.extend_from_slice(chunk);
                let len = chunk.len();
                std::io::BufRead::consume(&mut reader, len);
                chunk = std::io::BufRead::fill_buf(&mut reader).unwrap_or_default();
            }
            match processed {
                Ok(state) => self.closed |= state.peer_has_closed(),
                Err(error) => return Err(self.failure(&error)),
            }
        }
        if !self.established && !self.connection.is_handshaking() {
            self.establish()?;
        }
        if self.established
            && let Some(tickets) = &self.tickets
        {
            let mut tickets = tickets.lock().unwrap_or_else(PoisonError::into_inner);
            tickets.lay(&self.peer, &self.pocket, self.judged);
        }
        Ok(())
    }

    fn write(&mut self, plaintext: &[u8]) -> Result<(), Failure> {
        use std::io::Write as _;
        let written = self.connection.writer().write_all(plaintext);
        written.map_err(|error| Failure::new(Blame::Ours, format!("TLS cannot send: {error}")))
    }

    fn close(&mut self) {
        self.connection.send_close_notify();
    }

    fn drain(&mut self, ciphertext: &mut Vec<u8>) {
        while self.connection.wants_write() {
            // Into memory: it cannot fail.
            if self.connection.write_tls(ciphertext).is_err() {
                return;
            }
        }
    }

    fn is_established(&self) -> bool {
        self.established
    }

    fn is_closed(&self) -> bool {
        self.closed
    }

    fn may_be_refused(&self) -> bool {
        self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    fn certificate_end(&self) -> Option<Timestamp> {
        self.end
    }

    fn judged_at(&self) -> Timestamp {
        self.judged
    }
}
