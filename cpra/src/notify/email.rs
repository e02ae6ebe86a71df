//! Mail: each notice a message of its own, over SMTP (RFC 5321). Everything that names lettre is here.
//!
//! A destination keeps one connection open, as long as its outlet lives. When the server has closed it meanwhile, the
//! message goes over a new one; that is the only thing that is tried twice here, and it happens only before the server has
//! been sent a message. What became of a message whose last answer was lost nobody can know: it comes again with
//! the same Message-ID, by which servers and people tell that it is the same one.
//!
//! What the server says decides: 4yz comes again, 5yz does not, and so for each recipient. A mail for several people goes
//! to those whom the server takes; those put off (4yz) get it when the notice comes again, which the others do not get
//! twice: who has it is remembered, for as many messages as [`MAIL_PARTLY_SENT_MAX`]. Those refused for good are told of.
//!
//! Nothing is sent in the clear that was to be encrypted: without STARTTLS there is no mail. The whole attempt, the look-up of the
//! name included, ends within the destination's `timeout`. Sockets are tokio's own here, so that a time-out may drop what is
//! pending on them.

use std::collections::VecDeque;
use std::error::Error as _;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use lettre::Address;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message, SinglePart};
use lettre::transport::smtp;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt, Rset};
use lettre::transport::smtp::extension::{ClientId, Extension, MailParameter};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use crate::desk::protocol::{Delivered, DeliveryResult};
use crate::domain::destination::{Email, MailSecurity};
use crate::domain::{DeliveryKey, Destination, Notice, Raise};
use crate::os::lane::aside;
use crate::os::web::{Lookup, Web};
use crate::units::limits::{EVIDENCE_MAX, MAIL_PARTLY_SENT_MAX, MAIL_QUIT_WAIT, MAIL_SUBJECT_MAX, TLS_FILE_MAX};
use crate::wording::{Rendered, cut, line, render};

/// "Not any more": the server closes the connection.
const CLOSING: u16 = 421;
/// The part of a Message-ID behind the `@`, where the instance's name gives none.
const NO_INSTANCE: &str = "cpra";
/// As long as a domain may be.
const INSTANCE_MAX: usize = 253;

pub struct EmailOutlet {
    destination: Destination,
    email: Email,
    lookup: Lookup,
    /// Read from files at the first connection.
    tls: Option<TlsParameters>,
    connection: Option<AsyncSmtpConnection>,
    /// What the attempt under way, or the last one, was about.
    connecting: bool,
    /// Messages that some of their recipients are done with, by their Message-ID, oldest first.
    partly: VecDeque<(String, Vec<Address>)>,
}

impl EmailOutlet {
    pub fn new(email: &Email, destination: &Destination, web: &Web) -> Self {
        Self {
            lookup: Lookup::new(web),
            destination: destination.clone(),
            email: email.clone(),
            tls: None,
            connection: None,
            connecting: false,
            partly: VecDeque::new(),
        }
    }

    /// One after the other. Where the server is not even reached, the rest is not tried: each would wait as long.
    pub async fn deliver(&mut self, notices: &[&Notice]) -> Vec<Delivered> {
        let mut delivered = Vec::with_capacity(notices.len());
        let limit = self.destination.transport.timeout;
        for notice in notices {
            self.connecting = false;
            // When time is up, the connection is dropped with the attempt.
            let sent = match timeout(limit.into(), self.attempt(notice)).await {
                Ok(Ok(sent)) => sent,
                Ok(Err(fault)) => Delivered::new(fault.result, self.bounded(&fault.said)),
                Err(_) => Delivered::new(DeliveryResult::Failed, format!("not done within {limit}")),
            };
            if self.connecting {
                delivered.resize(notices.len(), sent);
                return delivered;
            }
            delivered.push(sent);
        }
        delivered
    }

    pub async fn close(mut self) {
        if let Some(mut connection) = self.connection.take() {
            // Whether the server says goodbye, too, is its own affair.
            let _ = timeout(MAIL_QUIT_WAIT.into(), connection.quit()).await;
        }
    }

    async fn attempt(&mut self, notice: &Notice) -> Result<Delivered, Fault> {
        let letter = Letter::new(notice, &self.destination, &self.email).map_err(Fault::refused)?;
        if let Some(connection) = self.connection.take() {
            match self.submit(connection, &letter).await {
                // The server has ended it while nothing was to be sent.
                Err(fault) if fault.gone => {}
                end => return end,
            }
        }
        self.connecting = true;
        let connection = self.connect(&letter.instance).await?;
        self.connecting = false;
        self.submit(connection, &letter).await
    }

    async fn connect(&mut self, instance: &str) -> Result<AsyncSmtpConnection, Fault> {
        let security = self.email.security;
        let tls = if security == MailSecurity::Plain { None } else { Some(self.tls().await.map_err(Fault::failed)?) };
        let wrapped = tls.clone().filter(|_| security == MailSecurity::Tls);
        let found = self.lookup.addresses(self.email.host.to_string(), self.email.port).await;
        let server = found.map_err(|fault| Fault::failed(fault.to_string()))?;
        // Of one address: that there is time left for another one.
        let wait = Duration::from(self.destination.transport.timeout) / 2;
        let hello = ClientId::Domain(instance.to_owned());
        let mut connection = AsyncSmtpConnection::connect_tokio1(&*server, Some(wait), &hello, wrapped, None).await?;
        if let Some(tls) = tls.filter(|_| security == MailSecurity::StartTls) {
            if !connection.can_starttls() {
                return Err(Fault::failed("the server does not offer STARTTLS, and nothing is sent without".into()));
            }
            connection.starttls(tls, &hello).await?;
        }
        if let (Some(username), Some(password)) = (&self.email.username, &self.email.password) {
            let credentials = Credentials::new(username.to_string(), password.expose().to_owned());
            connection.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await?;
        }
        Ok(connection)
    }

    async fn tls(&mut self) -> Result<TlsParameters, String> {
        if let Some(tls) = &self.tls {
            return Ok(tls.clone());
        }
        let (host, file) = (self.email.host.to_string(), self.destination.transport.ca_file.clone());
        let read = aside(move || parameters(host, file.as_deref())).await;
        let tls = read.map_err(|error| error.to_string())?;
        self.tls = Some(tls.clone());
        Ok(tls)
    }

    /// The connection is kept if it is as good as before.
    async fn submit(&mut self, mut connection: AsyncSmtpConnection, letter: &Letter) -> Result<Delivered, Fault> {
        let done = self.partly.iter().find(|(id, _)| *id == letter.id).map_or(&[][..], |(_, done)| done);
        let to: Vec<&Address> = letter.to.iter().filter(|address| !done.contains(address)).collect();
        let sent = transmit(&mut connection, letter, &to).await;
        let usable = match &sent {
            Ok(_) => true,
            Err(fault) => !fault.gone && connection.command(Rset).await.is_ok(),
        };
        if usable && !connection.has_broken() {
            self.connection = Some(connection);
        }
        let Sent { reply, done, later, never } = sent?;
        let mut said = reply;
        for (address, why) in never.iter().chain(&later) {
            said = format!("{said}; not to {address}: {why}");
        }
        if !never.is_empty() {
            let (destination, said) = (&self.destination.name, self.bounded(&said));
            tracing::warn!(%destination, %said, "a mail did not go to all of its recipients");
        }
        if later.is_empty() {
            self.partly.retain(|(id, _)| *id != letter.id);
            return Ok(Delivered::new(DeliveryResult::Sent, self.bounded(&said)));
        }
        self.remember(&letter.id, done.into_iter().chain(never.into_iter().map(|(address, _)| address)));
        Err(Fault { result: DeliveryResult::Failed, said, gone: false })
    }

    fn remember(&mut self, id: &str, addresses: impl Iterator<Item = Address>) {
        if let Some((_, done)) = self.partly.iter_mut().find(|(known, _)| known == id) {
            return done.extend(addresses);
        }
        if self.partly.len() >= MAIL_PARTLY_SENT_MAX {
            self.partly.pop_front();
        }
        self.partly.push_back((id.to_owned(), addresses.collect()));
    }

    /// Without what must not be told: a server may repeat what it was sent.
    fn bounded(&self, said: &str) -> Box<str> {
        let mut said = line(said);
        if let Some(password) =
            self.email.password.as_ref().map(|password| password.expose()).filter(|it| !it.is_empty())
        {
            let username = self.email.username.as_deref().unwrap_or_default();
            let plain = format!("\0{username}\0{password}");
            // The longest first: it may hold the others.
            for secret in [BASE64_STANDARD.encode(plain), BASE64_STANDARD.encode(password), password.to_owned()] {
                said = said.replace(&secret, "(secret)");
            }
        }
        cut(said, EVIDENCE_MAX).into()
    }
}

impl fmt::Debug for EmailOutlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connected = self.connection.is_some();
        f.debug_struct("EmailOutlet").field("email", &self.email).field("connected", &connected).finish_non_exhaustive()
    }
}

/// A message that the server has taken.
struct Sent {
    reply: String,
    done: Vec<Address>,
    /// Recipients put off, and refused, with what was said of them.
    later: Vec<(Address, String)>,
    never: Vec<(Address, String)>,
}

/// The dialogue of one message. Fails if nobody got it.
async fn transmit(connection: &mut AsyncSmtpConnection, letter: &Letter, to: &[&Address]) -> Result<Sent, Fault> {
    let mut options = Vec::new();
    if [&letter.from].iter().chain(to).any(|address| !AsRef::<str>::as_ref(*address).is_ascii()) {
        if !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
            return Err(Fault::refused("the server takes ASCII addresses only (it has no SMTPUTF8)".into()));
        }
        options.push(MailParameter::SmtpUtfEight);
    }
    connection.command(Mail::new(Some(letter.from.clone()), options)).await?;
    let (mut done, mut later, mut never) = (Vec::new(), Vec::new(), Vec::new());
    for &address in to {
        match connection.command(Rcpt::new(address.clone(), Vec::new())).await.map_err(Fault::from) {
            Ok(_) => done.push(address.clone()),
            Err(fault) if fault.gone => return Err(fault),
            Err(fault) if fault.result == DeliveryResult::Refused => never.push((address.clone(), fault.said)),
            Err(fault) => later.push((address.clone(), fault.said)),
        }
    }
    if done.is_empty() {
        let result = if later.is_empty() { DeliveryResult::Refused } else { DeliveryResult::Failed };
        let said = later.iter().chain(&never).map(|(address, why)| format!("{address}: {why}")).collect::<Vec<_>>();
        return Err(Fault { result, said: said.join("; "), gone: false });
    }
    connection.command(Data).await?;
    // From here on it may have arrived, whatever is heard of it: no second try over another connection.
    let reply = connection.message(&letter.text).await.map_err(|error| {
        let no_answer = error.status().is_none();
        let fault = Fault { gone: false, ..Fault::from(error) };
        if no_answer {
            Fault { said: format!("the answer to the message was lost: {}", fault.said), ..fault }
        } else {
            fault
        }
    })?;
    let reply = format!("{} {}", reply.code(), reply.first_line().unwrap_or_default());
    Ok(Sent { reply, done, later, never })
}

struct Fault {
    result: DeliveryResult,
    said: String,
    /// The connection has ended, and the server has no message.
    gone: bool,
}

impl Fault {
    fn failed(said: String) -> Self {
        Self { result: DeliveryResult::Failed, said, gone: false }
    }

    fn refused(said: String) -> Self {
        Self { result: DeliveryResult::Refused, said, gone: false }
    }
}

impl From<smtp::Error> for Fault {
    fn from(error: smtp::Error) -> Self {
        let result = if error.is_permanent() { DeliveryResult::Refused } else { DeliveryResult::Failed };
        let code = error.status().map(u16::from);
        let source = error.source().map(ToString::to_string);
        let said = match (code, source) {
            (Some(code), text) => format!("{code} {}", text.unwrap_or_default()),
            (None, Some(text)) => text,
            (None, None) => error.to_string(),
        };
        Self { result, said, gone: code.is_none_or(|code| code == CLOSING) }
    }
}

/// Reads what the system trusts, and the file.
fn parameters(host: String, file: Option<&Path>) -> io::Result<TlsParameters> {
    let mut builder = TlsParameters::builder(host);
    if let Some(file) = file {
        let about = |error: &dyn fmt::Display| io::Error::other(format!("{}: {error}", file.display()));
        let mut pem = Vec::new();
        let open = File::open(file).map_err(|error| about(&error))?;
        open.take(TLS_FILE_MAX + 1).read_to_end(&mut pem).map_err(|error| about(&error))?;
        if pem.len() as u64 > TLS_FILE_MAX {
            return Err(about(&"too large for certificates"));
        }
        builder = builder.add_root_certificate(Certificate::from_pem(&pem).map_err(|error| about(&error))?);
    }
    builder.build().map_err(io::Error::other)
}

/// A notice as the mail that it becomes: the same bytes at every attempt.
struct Letter {
    id: String,
    instance: String,
    from: Address,
    to: Vec<Address>,
    text: Vec<u8>,
}

impl Letter {
    fn new(notice: &Notice, destination: &Destination, email: &Email) -> Result<Self, String> {
        let instance = domain(notice.instance().unwrap_or_default());
        let here = hash(&destination.name);
        let id = |raise, n| message_id(&DeliveryKey { raise, n, ..notice.key.clone() }, &here, &instance);
        let sender = mailbox(&email.from)?;
        let mut builder = Message::builder().from(sender.clone());
        let mut to = Vec::new();
        for (addresses, is_copy) in [(&email.to, false), (&email.cc, true)] {
            for address in addresses {
                let mailbox = mailbox(address)?;
                if !to.contains(&mailbox.email) {
                    to.push(mailbox.email.clone());
                }
                builder = if is_copy { builder.cc(mailbox) } else { builder.to(mailbox) };
            }
        }
        let own = id(notice.key.raise, notice.key.n);
        let earlier: Vec<String> = earlier(&notice.key).iter().map(|&raise| id(raise, 0)).collect();
        if !earlier.is_empty() {
            builder = builder.references(earlier.join(" "));
            // A red may be the first that is heard of the incident: then it is no reply.
            if notice.key.raise != Raise::Red || notice.key.n > 0 {
                builder = builder.in_reply_to(earlier.join(" "));
            }
        }
        let at = Duration::from_micros(u64::try_from(notice.at.as_micros()).unwrap_or(0).min(DATE_MAX));
        let Rendered { title, text } = render(notice, destination);
        let message = builder
            .message_id(Some(own.clone()))
            .date(UNIX_EPOCH + at)
            .subject(cut(title, MAIL_SUBJECT_MAX))
            .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".into()))
            .singlepart(SinglePart::plain(text))
            .map_err(|error| error.to_string())?;
        Ok(Self { id: own, instance, from: sender.email, to, text: message.formatted() })
    }
}

/// The last second of the year 9999, beyond which dates of mails cannot be written.
const DATE_MAX: u64 = 253_402_300_799_000_000;

/// `Operations <ops@example.com>` or the address alone. Line breaks are in none: it cannot be parsed then.
fn mailbox(text: &str) -> Result<Mailbox, String> {
    text.parse()
        .map_err(|error| format!("{:?} is no mail address: {error}", text.chars().take(100).collect::<String>()))
}

/// What may have been told to the same people before, of the same incident. Which of them was is not known here: those that
/// were not are parents that do not exist, which threads survive.
const fn earlier(key: &DeliveryKey) -> &'static [Raise] {
    match (key.raise, key.n) {
        (Raise::Yellow | Raise::Gray, 0) => &[],
        (Raise::Red, 0) => &[Raise::Yellow],
        (Raise::Gray, _) => &[Raise::Gray],
        (Raise::Yellow | Raise::Red | Raise::Resolve | Raise::Cyan, _) => &[Raise::Yellow, Raise::Red],
    }
}

/// `<ULID.red.0.destination@instance>`: constant over every re-send. The destination is there by a hash of its name,
/// since people who are told at two of them are told two things.
fn message_id(key: &DeliveryKey, destination: &str, instance: &str) -> String {
    format!("<{}.{}.{}.{destination}@{instance}>", key.episode, key.raise.as_str(), key.n)
}

fn hash(name: &str) -> String {
    Sha256::digest(name.as_bytes())[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An instance's name as a domain may be written: in Message-IDs, and as we greet servers.
fn domain(instance: &str) -> String {
    let sound = |character: char| if character.is_ascii_alphanumeric() || character == '.' { character } else { '-' };
    let text: String = instance.chars().take(INSTANCE_MAX).map(sound).collect();
    let labels: Vec<&str> = text.split('.').map(|label| label.trim_matches('-')).filter(|it| !it.is_empty()).collect();
    if labels.is_empty() { NO_INSTANCE.to_owned() } else { labels.join(".") }
}

#[cfg(test)]
mod tests;
