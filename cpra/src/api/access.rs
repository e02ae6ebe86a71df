//! Who may change something, and as whom it is written down.
//!
//! | comes through | may read | may change |
//! | --- | --- | --- |
//! | TCP | everybody who reaches the address | whoever shows the token of `[api] token_file`; nobody without one |
//! | the unix socket | whoever may open it | root, and the user that the daemon runs as |
//!
//! A job's call is not a change in this sense: its token is in the path, and good for one monitor only.

use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Mutex;

use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap, HeaderValue};
use subtle::ConstantTimeEq as _;

use super::door::Peer;
use super::failure::Failure;
use crate::os::local;
use crate::units::Instant;
use crate::units::limits::{API_STRANGERS_EVERY, API_TOKEN_MAX, API_TOKEN_MIN};

/// Who changes something, for the audit: `root (uid 0, process 4711)`, `the token, from 10.0.0.5:40000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor(pub Box<str>);

/// What has to be shown to change something over TCP. It is never printed.
#[derive(Clone)]
pub struct Token(Box<[u8]>);

/// Why a token file is not used. The remedy is part of the text.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    #[error("is no regular file: put the token into one")]
    NoFile,
    #[error("is open to others (mode {mode:04o}): chmod 600 (or 640 with a group of its own)")]
    Open { mode: u32 },
    #[error("belongs to uid {owner}: it must belong to root or to uid {own}, who runs cpra")]
    Foreign { owner: u32, own: u32 },
    #[error("has a line of {0} bytes: at most {API_TOKEN_MAX}")]
    Long(usize),
    #[error(
        "holds {0} characters: a token has at least {API_TOKEN_MIN}; `head -c 24 /dev/urandom | base64 > FILE` makes one"
    )]
    Short(usize),
    #[error("holds more than one line, or blanks: one line with the token alone")]
    Blanks,
}

impl Token {
    /// Reads a token file, which must not be readable or writable by others than root and the user `own`, who runs cpra.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn read(path: &Path, own: u32) -> Result<Self, TokenError> {
        let mut file = File::open(path)?;
        // Of the file that is open: the path may lead elsewhere a moment later.
        judge(&file.metadata()?, own)?;
        let mut bytes = Vec::new();
        std::io::Read::by_ref(&mut file).take(API_TOKEN_MAX as u64 + 2).read_to_end(&mut bytes)?;
        Self::of(&bytes)
    }

    /// The token of a file's bytes: all but the end of the line.
    pub(super) fn of(bytes: &[u8]) -> Result<Self, TokenError> {
        let token = bytes.trim_ascii();
        match token.len() {
            long @ API_TOKEN_MAX.. if long > API_TOKEN_MAX => Err(TokenError::Long(long)),
            _ if !token.iter().all(u8::is_ascii_graphic) => Err(TokenError::Blanks),
            short if short < API_TOKEN_MIN => Err(TokenError::Short(short)),
            _ => Ok(Self(token.into())),
        }
    }

    fn is(&self, shown: &[u8]) -> bool {
        self.0.ct_eq(shown).into()
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(secret)")
    }
}

fn judge(file: &Metadata, own: u32) -> Result<(), TokenError> {
    let (mode, owner) = (file.mode() & 0o7777, file.uid());
    if !file.is_file() {
        return Err(TokenError::NoFile);
    }
    if mode & 0o027 != 0 {
        return Err(TokenError::Open { mode });
    }
    if owner != 0 && owner != own {
        return Err(TokenError::Foreign { owner, own });
    }
    Ok(())
}

/// Those who show a token that nobody has: counted, and written about now and then, so that neither a typing error in a
/// crontab nor somebody who guesses stays unseen, nor fills a disk.
#[derive(Debug, Default)]
pub struct Strangers(Mutex<(u64, Option<Instant>)>);

impl Strangers {
    /// Counts one; answers with how many have come since it was written about last, when it is time for that again.
    pub(super) fn count(&self, now: Instant) -> Option<u64> {
        let mut counted = self.0.lock().ok()?;
        counted.0 += 1;
        if counted.1.is_some_and(|last| now.since(last) < API_STRANGERS_EVERY) {
            return None;
        }
        counted.1 = Some(now);
        Some(std::mem::take(&mut counted.0))
    }
}

/// Whether the peer may change something, and who that is.
pub(super) fn actor(peer: Peer, headers: &HeaderMap, token: Option<&Token>) -> Result<Actor, Failure> {
    match peer {
        Peer::Local { uid, pid } if uid == 0 || uid == local::own_uid() => {
            let process = pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
            let name = local::user_name(uid).unwrap_or_else(|| "somebody".into());
            Ok(Actor(format!("{name} (uid {uid}{process})").into()))
        }
        Peer::Local { uid, .. } => Err(Failure::new(
            StatusCode::FORBIDDEN,
            format!("uid {uid} may read here, but change nothing"),
            "run it as root, or as the user that the daemon runs as",
        )),
        Peer::Tcp(address) => {
            let Some(token) = token else {
                return Err(Failure::new(
                    StatusCode::FORBIDDEN,
                    "this interface is read-only over TCP: no token is configured",
                    "use the command line on the daemon's host, or set [api] token_file",
                ));
            };
            match bearer(headers) {
                Some(shown) if token.is(shown) => Ok(Actor(format!("the token, from {address}").into())),
                Some(_) => Err(unauthorized("the token is not the right one")),
                None => Err(unauthorized("a token is required to change something")),
            }
        }
    }
}

fn unauthorized(error: &str) -> Failure {
    let remedy = "send \"Authorization: Bearer TOKEN\" with the token of [api] token_file";
    Failure::new(StatusCode::UNAUTHORIZED, error, remedy)
}

/// Of exactly one `Authorization: Bearer ...`.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes);
    let (Some(field), None) = (fields.next(), fields.next()) else { return None };
    let (scheme, token) = field.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::units::Span;

    const TOKEN: &str = "0123456789abcdef0123";

    #[test]
    fn a_token_is_one_line_of_some_length() {
        assert!(Token::of(format!("{TOKEN}\n").as_bytes()).is_ok_and(|token| token.is(TOKEN.as_bytes())));
        assert!(matches!(Token::of(b"short\n"), Err(TokenError::Short(5))));
        assert!(matches!(Token::of(b""), Err(TokenError::Short(0))));
        assert!(matches!(Token::of(b"0123456789abcdef 0123456789"), Err(TokenError::Blanks)));
        assert!(matches!(Token::of(b"0123456789abcdef\n0123456789"), Err(TokenError::Blanks)));
        assert!(matches!(Token::of(&[b'x'; API_TOKEN_MAX + 1]), Err(TokenError::Long(_))));
        assert_eq!(format!("{:?}", Token::of(TOKEN.as_bytes()).expect("a token")), "Token(secret)");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        fs::write(&path, TOKEN).expect("written");
        for (mode, trusted) in [(0o600, true), (0o640, true), (0o400, true), (0o644, false), (0o660, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
            assert_eq!(Token::read(&path, local::own_uid()).is_ok(), trusted, "{mode:o}");
        }
        let error = Token::read(&path, local::own_uid()).expect_err("mode 660").to_string();
        assert!(error.contains("0660") && error.contains("chmod 600"), "{error}");
        assert!(matches!(Token::read(folder.path(), local::own_uid()), Err(TokenError::NoFile)));
        assert!(matches!(Token::read(&folder.path().join("no"), local::own_uid()), Err(TokenError::Unreadable(_))));
        let foreign = fs::metadata("/proc/self/status").expect("it is there");
        assert!(matches!(judge(&foreign, 0), Err(TokenError::Open { .. })));
    }

    #[test]
    fn strangers_are_written_about_now_and_then() {
        let strangers = Strangers::default();
        let at = |secs| Instant::from_nanos(Span::from_secs(secs).as_nanos());
        assert_eq!(strangers.count(at(1_000)), Some(1));
        assert_eq!((strangers.count(at(1_001)), strangers.count(at(1_059))), (None, None));
        assert_eq!(strangers.count(at(1_060)), Some(3));
    }

    #[test]
    fn who_changes_something_has_to_be_known() {
        let token = Token::of(TOKEN.as_bytes()).expect("a token");
        let tcp = Peer::Tcp("10.0.0.5:40000".parse().expect("an address"));
        let shown = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).expect("a value"));
            headers
        };
        let good = shown(&format!("bearer {TOKEN}"));
        assert_eq!(&*actor(tcp, &good, Some(&token)).expect("it is the token").0, "the token, from 10.0.0.5:40000");
        assert_eq!(actor(tcp, &good, None).expect_err("no token is set").status, StatusCode::FORBIDDEN);
        for wrong in ["", "Bearer", "Bearer ", "Bearer 0123456789abcdef012", "Basic 0123456789abcdef0123", TOKEN] {
            let failure = actor(tcp, &shown(wrong), Some(&token)).expect_err(wrong);
            assert_eq!(failure.status, StatusCode::UNAUTHORIZED, "{wrong}");
            assert!(!failure.error.contains(TOKEN) && !failure.remedy.contains(TOKEN));
        }
        let mut twice = good.clone();
        twice.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        assert!(actor(tcp, &twice, Some(&token)).is_err());

        let local = |uid| actor(Peer::Local { uid, pid: Some(7) }, &HeaderMap::new(), None);
        assert_eq!(&*local(0).expect("root may").0, "root (uid 0, process 7)");
        assert!(local(local::own_uid()).is_ok());
        assert_eq!(local(4_000_000_000).expect_err("a stranger").status, StatusCode::FORBIDDEN);
    }
}
