//! What is said in plain text before TLS: `STARTTLS` of SMTP (RFC 3207) and IMAP (RFC 3501 §6.2.1), the `SSLRequest` of
//! PostgreSQL (its protocol, §55.2.10), and `CONNECT` to an HTTP proxy (RFC 9110 §9.3.6).
//!
//! A preamble ends exactly where the peer gives the word. Plain text that comes beyond it must not be taken for what is
//! said under TLS (CVE-2011-0411, CVE-2021-23222), so after STARTTLS it is a fault; behind a proxy it belongs to the
//! tunnel, and is handed on.
//!
//! Bounded by [`PREAMBLE_MAX`], whatever the peer sends.

use base64::Engine as _;

use crate::domain::monitor::StartTls;
use crate::units::limits::{EVIDENCE_MAX, PREAMBLE_MAX};

/// A preamble under way.
#[derive(Debug)]
pub struct Preamble {
    stage: Stage,
    /// Not yet a whole line or head.
    heard: Vec<u8>,
    /// Bytes in sum.
    taken: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    SmtpGreeting,
    SmtpHello { offered: bool },
    SmtpGo,
    ImapGreeting,
    ImapGo,
    Postgres,
    Connect,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Listen,
    Say(&'static [u8]),
    /// TLS begins; the bytes are its first.
    Done(Vec<u8>),
}

/// `SSLRequest`: its length, and the code 80877103.
const POSTGRES_REQUEST: &[u8] = &[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
const SMTP_HELLO: &[u8] = b"EHLO cpra\r\n";
const SMTP_START: &[u8] = b"STARTTLS\r\n";
const IMAP_START: &[u8] = b"a1 STARTTLS\r\n";

impl Preamble {
    /// The preamble, and what we say first.
    pub const fn starttls(protocol: StartTls) -> (Self, &'static [u8]) {
        match protocol {
            StartTls::Smtp => (Self::at(Stage::SmtpGreeting), b""),
            StartTls::Imap => (Self::at(Stage::ImapGreeting), b""),
            StartTls::Postgres => (Self::at(Stage::Postgres), POSTGRES_REQUEST),
        }
    }

    /// A tunnel to `authority` (`host:port`).
    pub fn connect(authority: &str, authorization: Option<&str>) -> (Self, Vec<u8>) {
        let authorization = authorization.map_or_else(String::new, |value| format!("Proxy-Authorization: {value}\r\n"));
        let request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{authorization}\r\n");
        (Self::at(Stage::Connect), request.into_bytes())
    }

    const fn at(stage: Stage) -> Self {
        Self { stage, heard: Vec::new(), taken: 0 }
    }

    /// Whether it is the transport that is being made, and not yet the target that answers.
    pub const fn is_tunnel(&self) -> bool {
        matches!(self.stage, Stage::Connect)
    }

    /// What is waited for.
    pub const fn awaited(&self) -> &'static str {
        match self.stage {
            Stage::SmtpGreeting => "SMTP greeting",
            Stage::SmtpHello { .. } => "answer to EHLO",
            Stage::SmtpGo | Stage::ImapGo => "answer to STARTTLS",
            Stage::ImapGreeting => "IMAP greeting",
            Stage::Postgres => "answer to SSLRequest",
            Stage::Connect => "answer to CONNECT",
        }
    }

    /// Takes what was received.
    ///
    /// # Errors
    /// Why there will be no TLS, in words.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Step, String> {
        self.taken += bytes.len();
        if self.taken > PREAMBLE_MAX {
            return Err(format!("no {} within {PREAMBLE_MAX} bytes", self.awaited()));
        }
        self.heard.extend_from_slice(bytes);
        match self.stage {
            Stage::Postgres => self.postgres(),
            Stage::Connect => self.tunnel(),
            Stage::SmtpGreeting | Stage::SmtpHello { .. } | Stage::SmtpGo | Stage::ImapGreeting | Stage::ImapGo => {
                self.lines()
            }
        }
    }

    fn lines(&mut self) -> Result<Step, String> {
        while let Some(end) = self.heard.iter().position(|&byte| byte == b'\n') {
            let rest = self.heard.split_off(end + 1);
            let line = std::mem::replace(&mut self.heard, rest);
            let line = line.trim_ascii_end();
            let step = match self.stage {
                Stage::ImapGreeting | Stage::ImapGo => self.imap(line)?,
                _ => self.smtp(line)?,
            };
            match step {
                Step::Listen => {}
                Step::Done(_) if !self.heard.is_empty() => {
                    let extra = excerpt(&self.heard);
                    return Err(format!("server went on in plain text after STARTTLS: {extra}"));
                }
                said => return Ok(said),
            }
        }
        Ok(Step::Listen)
    }

    fn smtp(&mut self, line: &[u8]) -> Result<Step, String> {
        // Three digits, and a hyphen where more lines follow.
        let code = line.get(..3).filter(|code| code.iter().all(u8::is_ascii_digit));
        let last = line.get(3) != Some(&b'-');
        let expected: &[u8] = if matches!(self.stage, Stage::SmtpHello { .. }) { b"250" } else { b"220" };
        if code != Some(expected) {
            let refusal = excerpt(line);
            return Err(match self.stage {
                Stage::SmtpGreeting if code.is_none() => format!("server speaks no SMTP: {refusal}"),
                _ => format!("no {}, but {refusal}", self.awaited()),
            });
        }
        if let Stage::SmtpHello { offered } = &mut self.stage {
            let keyword = line.get(4..).unwrap_or_default().trim_ascii();
            *offered |= keyword.eq_ignore_ascii_case(b"STARTTLS");
        }
        if !last {
            return Ok(Step::Listen);
        }
        match self.stage {
            Stage::SmtpGreeting => {
                self.stage = Stage::SmtpHello { offered: false };
                Ok(Step::Say(SMTP_HELLO))
            }
            Stage::SmtpHello { offered: false } => Err("server offers no STARTTLS".into()),
            Stage::SmtpHello { offered: true } => {
                self.stage = Stage::SmtpGo;
                Ok(Step::Say(SMTP_START))
            }
            _ => Ok(Step::Done(Vec::new())),
        }
    }

    fn imap(&mut self, line: &[u8]) -> Result<Step, String> {
        let is = |prefix: &[u8]| line.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix));
        if self.stage == Stage::ImapGreeting {
            if !is(b"* OK") {
                let refusal = excerpt(line);
                let speaks = if line.starts_with(b"* ") { "no IMAP greeting, but" } else { "server speaks no IMAP:" };
                return Err(format!("{speaks} {refusal}"));
            }
            self.stage = Stage::ImapGo;
            return Ok(Step::Say(IMAP_START));
        }
        if is(b"a1 OK") {
            return Ok(Step::Done(Vec::new()));
        }
        if is(b"* ") && !is(b"* BYE") {
            return Ok(Step::Listen);
        }
        Err(format!("server does not start TLS: {}", excerpt(line)))
    }

    fn postgres(&mut self) -> Result<Step, String> {
        match self.heard.as_slice() {
            [] => Ok(Step::Listen),
            b"S" => Ok(Step::Done(Vec::new())),
            [b'S', extra @ ..] => Err(format!("server went on in plain text after SSLRequest: {}", excerpt(extra))),
            b"N" => Err("server offers no TLS (it answered N to SSLRequest)".into()),
            other => Err(format!("server speaks no PostgreSQL: {}", excerpt(other))),
        }
    }

    fn tunnel(&mut self) -> Result<Step, String> {
        let heard = &self.heard;
        let end = heard.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        let end = end.or_else(|| heard.windows(2).position(|two| two == b"\n\n").map(|at| at + 2));
        let line = heard.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let begins = heard.len().min(7);
        if !b"HTTP/1."[..begins].eq(&heard[..begins]) {
            return Err(format!("proxy speaks no HTTP: {}", excerpt(line)));
        }
        let Some(end) = end else { return Ok(Step::Listen) };
        let status = line.get(8..).unwrap_or_default().trim_ascii();
        match status.first() {
            Some(b'2') => Ok(Step::Done(heard[end..].to_vec())),
            _ => Err(format!("proxy made no tunnel: {}", excerpt(status))),
        }
    }
}

/// The value of `Proxy-Authorization` or `Authorization` for a name and a password.
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

fn excerpt(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(EVIDENCE_MAX)];
    format!("\"{}\"", bytes.trim_ascii_end().escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said, or the end, after the server's words in pieces of every size.
    fn talk(protocol: StartTls, words: &str) -> Result<Vec<String>, String> {
        let mut results = Vec::new();
        for size in [1, 2, 3, 7, words.len().max(1)] {
            let (mut preamble, first) = Preamble::starttls(protocol);
            let mut said = vec![first.escape_ascii().to_string()];
            let mut run = || {
                for chunk in words.as_bytes().chunks(size) {
                    match preamble.take(chunk)? {
                        Step::Listen => {}
                        Step::Say(words) => said.push(words.escape_ascii().to_string()),
                        Step::Done(rest) => {
                            assert!(rest.is_empty());
                            said.push("TLS".into());
                            return Ok(());
                        }
                    }
                }
                Ok(())
            };
            let end = run();
            results.push(end.map(|()| said));
        }
        results.pop().expect("there is one")
    }

    #[test]
    fn smtp_goes_on_to_tls_when_it_is_offered() {
        // A server does not speak before it was spoken to: its words come one by one.
        let (mut smtp, first) = Preamble::starttls(StartTls::Smtp);
        assert_eq!((first, smtp.awaited()), (&b""[..], "SMTP greeting"));
        assert_eq!(smtp.take(b"220-mail.example\r\n220 ESM"), Ok(Step::Listen));
        assert_eq!(smtp.take(b"TP\r\n"), Ok(Step::Say(SMTP_HELLO)));
        assert_eq!(smtp.take(b"250-mail.example\r\n250-starttls\r\n"), Ok(Step::Listen));
        assert_eq!(smtp.take(b"250 HELP\r\n"), Ok(Step::Say(SMTP_START)));
        assert_eq!(smtp.take(b"220 go ahead\r\n"), Ok(Step::Done(Vec::new())));
    }

    #[test]
    fn what_keeps_starttls_from_tls_is_said() {
        use StartTls::{Imap, Postgres, Smtp};
        let table = [
            (Smtp, "554 no service\r\n", "no SMTP greeting, but \"554 no service\""),
            (Smtp, "SSH-2.0-x\r\n", "server speaks no SMTP: \"SSH-2.0-x\""),
            (Imap, "* BYE overloaded\r\n", "no IMAP greeting, but \"* BYE overloaded\""),
            (Imap, "220 mail\r\n", "server speaks no IMAP: \"220 mail\""),
            (Postgres, "N", "server offers no TLS (it answered N to SSLRequest)"),
            (Postgres, "EFATAL", "server speaks no PostgreSQL: \"E"),
            (Postgres, "HTTP/1.1 400", "server speaks no PostgreSQL: \"H"),
        ];
        for (protocol, words, reason) in table {
            let error = talk(protocol, words).expect_err(words);
            assert!(error.starts_with(reason), "{error}");
        }
        let (mut smtp, _) = Preamble::starttls(Smtp);
        smtp.take(b"220 x\r\n").expect("a greeting");
        assert_eq!(smtp.take(b"250 HELP\r\n"), Err("server offers no STARTTLS".into()));
        let (mut imap, _) = Preamble::starttls(Imap);
        assert_eq!(imap.take(b"* OK ready\r\n"), Ok(Step::Say(IMAP_START)));
        assert_eq!(imap.take(b"* CAPABILITY IMAP4rev1\r\n"), Ok(Step::Listen));
        assert_eq!(imap.take(b"a1 BAD what\r\n"), Err("server does not start TLS: \"a1 BAD what\"".into()));
    }

    #[test]
    fn plain_text_beyond_the_word_is_no_part_of_tls() {
        let (mut imap, _) = Preamble::starttls(StartTls::Imap);
        imap.take(b"* OK ready\r\n").expect("a greeting");
        let error = imap.take(b"a1 OK go\r\n* BYE injected\r\n").expect_err("it would be taken for TLS");
        assert_eq!(error, "server went on in plain text after STARTTLS: \"* BYE injected\"");
        let (mut postgres, _) = Preamble::starttls(StartTls::Postgres);
        assert!(postgres.take(b"SE").is_err());
    }

    #[test]
    fn a_proxy_is_asked_for_a_tunnel() {
        let (mut proxy, request) = Preamble::connect("[::1]:443", Some(&basic("a", "b")));
        let expected = "CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\nProxy-Authorization: Basic YTpi\r\n\r\n";
        assert_eq!(String::from_utf8(request).expect("text"), expected);
        assert_eq!(proxy.take(b"HTTP/1.0 200 Connection esta"), Ok(Step::Listen));
        assert_eq!(proxy.take(b"blished\r\nVia: x\r\n\r\n\x16\x03"), Ok(Step::Done(vec![0x16, 3])));
        for (answer, reason) in [
            ("HTTP/1.1 403 Filtered\r\n\r\n", "proxy made no tunnel: \"403 Filtered\""),
            ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "proxy made no tunnel: \"407 Proxy Auth"),
            ("SSH-2.0\r\n", "proxy speaks no HTTP: \"SSH-2.0\""),
        ] {
            let error = Preamble::connect("a:1", None).0.take(answer.as_bytes()).expect_err(answer);
            assert!(error.starts_with(reason), "{error}");
        }
    }

    #[test]
    fn a_preamble_without_end_is_cut_off() {
        for (protocol, line) in [(StartTls::Smtp, &b"220-more\r\n"[..]), (StartTls::Imap, b"noise without end")] {
            let (mut preamble, _) = Preamble::starttls(protocol);
            let error = (0..PREAMBLE_MAX).find_map(|_| preamble.take(line).err()).expect("a bound");
            assert!(error.contains("within") || error.contains("speaks no"), "{error}");
            assert!(preamble.heard.len() <= PREAMBLE_MAX);
        }
    }
}
