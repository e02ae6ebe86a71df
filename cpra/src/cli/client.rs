//! The command line's side of the unix socket: one request, one answer, within bounds.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::{Args, NOT_DONE};
use crate::domain::outcome::bounded_text;
use crate::units::Span;
use crate::units::limits::{API_ASK_MAX, CLIENT_ANSWER_MAX};

/// Why a daemon did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("{0}")]
    Settings(String),
    #[error(
        "no daemon answers at {}: {why}; start one, or name its socket with --api.socket PATH",
        path.display()
    )]
    Nobody { path: PathBuf, why: &'static str },
    #[error(
        "{} is not open to this user: run it as root, or as the user that the daemon runs as",
        path.display()
    )]
    Forbidden { path: PathBuf },
    #[error("the daemon at {} did not answer: {error}", path.display())]
    Broken { path: PathBuf, error: io::Error },
    #[error("{error}; {remedy}")]
    Refused { error: String, remedy: String },
}

impl ClientError {
    pub(super) const fn exit_code(&self) -> u8 {
        match self {
            Self::Refused { .. } => 1,
            Self::Settings(_) | Self::Nobody { .. } | Self::Forbidden { .. } | Self::Broken { .. } => NOT_DONE,
        }
    }
}

/// Where the socket of a daemon that runs as a service is.
const SERVICE: &str = "/run/cpra/cpra.sock";

/// A daemon, by its socket.
#[derive(Debug)]
pub(super) struct Client {
    path: PathBuf,
    /// How long an answer may take.
    patience: Duration,
}

impl Client {
    /// The socket that the flag, the environment or the daemon file names, else the default one.
    pub(super) fn of(args: &Args) -> Result<Self, ClientError> {
        let (settings, diagnostics) = args.settings();
        if diagnostics.errors() > 0 {
            return Err(ClientError::Settings(diagnostics.to_string().trim_end().to_owned()));
        }
        let own = || args.folders(&settings).socket;
        // Who is not root has another default, and means the service all the same where nothing of their own runs.
        let default = || [own(), PathBuf::from(SERVICE)].into_iter().find(|path| path.exists()).unwrap_or_else(own);
        // The daemon itself gives a shard or the desk API_ASK_MAX for each of its questions.
        let patience = Duration::from(API_ASK_MAX) * 10;
        Ok(Self { path: settings.api.socket.clone().unwrap_or_else(default), patience })
    }

    /// For what takes the daemon so long.
    pub(super) fn patient(self, span: Span) -> Self {
        Self { patience: self.patience + Duration::from(span), ..self }
    }

    /// The JSON of an answer.
    pub(super) fn ask(&self, method: &str, path: &str) -> Result<Value, ClientError> {
        let answer = exchange(&self.path, self.patience, method, path).map_err(|error| self.fault(error))?;
        let (status, body) = split(&answer).map_err(|error| self.fault(error))?;
        let value: Value = serde_json::from_slice(body).map_err(|error| self.fault(io::Error::other(error)))?;
        if (200..300).contains(&status) {
            return Ok(value);
        }
        let text = |key: &str| value[key].as_str().map_or_else(|| format!("status {status}"), printable);
        Err(ClientError::Refused { error: text("error"), remedy: text("remedy") })
    }

    fn fault(&self, error: io::Error) -> ClientError {
        let path = self.path.clone();
        match error.kind() {
            io::ErrorKind::NotFound => ClientError::Nobody { path, why: "there is no such socket" },
            io::ErrorKind::ConnectionRefused => ClientError::Nobody { path, why: "nobody listens there" },
            io::ErrorKind::PermissionDenied => ClientError::Forbidden { path },
            _ => ClientError::Broken { path, error },
        }
    }
}

/// A part of a path.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Text of a daemon, for a terminal.
pub(super) fn printable(text: &str) -> String {
    bounded_text(text, 1_024).into()
}

fn exchange(socket: &Path, patience: Duration, method: &str, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")?;
    let mut answer = Vec::new();
    let read = stream.take(CLIENT_ANSWER_MAX as u64 + 1).read_to_end(&mut answer)?;
    if read > CLIENT_ANSWER_MAX {
        return Err(io::Error::other(format!("its answer has more than {CLIENT_ANSWER_MAX} bytes")));
    }
    Ok(answer)
}

/// Status and body.
fn split(answer: &[u8]) -> io::Result<(u16, &[u8])> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    match head.parse(answer) {
        Ok(httparse::Status::Complete(length)) => {
            let body = &answer[length..];
            let declared = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
            let declared = declared.and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok());
            if declared != Some(body.len()) {
                return Err(io::Error::other("its answer is not whole"));
            }
            Ok((head.code.unwrap_or(0), body))
        }
        Ok(httparse::Status::Partial) => Err(io::Error::other("its answer is not whole")),
        Err(error) => Err(io::Error::other(format!("this is no HTTP: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_answers_count() {
        let (status, body) = split(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}").expect("it is whole");
        assert_eq!((status, body), (404, b"{}".as_slice()));
        for broken in
            ["", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", "HTTP/1.1 200 OK\r\n\r\n{}", "SSH-2.0-x\r\n"]
        {
            assert!(split(broken.as_bytes()).is_err(), "{broken}");
        }
    }

    #[test]
    fn names_survive_the_path() {
        assert_eq!(encoded("a/b ☕?#%<"), "a%2Fb%20%E2%98%95%3F%23%25%3C");
    }
}
