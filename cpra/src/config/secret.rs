//! Texts that must not be shown: which keys hold them, how a source line is shown without them, and the files that they
//! are read from.
//!
//! A line is masked by its letters alone, before anybody knows what it means: what is broken is shown as well, and that
//! is when a password would be seen. Each hidden character becomes a `*`, so that carets stay where they belong.
//! (Rejected: to mask by the tree of the item. What the parser refuses has no tree.)
//!
//! Files with secrets lie below the folders that the daemon's own configuration names: whoever may edit the monitors file
//! must not be able to send `/etc/shadow` to a server of theirs.

use std::io::Read;
use std::path::{Component, Path, PathBuf};

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::folders::Folders;
use crate::domain::monitor::Secret;
use crate::units::limits::{CERTIFICATE_FILE_MAX, SECRET_FILE_MAX, SECRET_FILES_MAX};

const MASK: char = '*';

const KEYS: [&str; 10] = [
    "password",
    "passwd",
    "token",
    "secret",
    "secrets",
    "hook",
    "authorization",
    "proxy_authorization",
    "cookie",
    "basic_auth",
];
const ENDINGS: [&str; 4] = ["_token", "_password", "_secret", "_key"];

/// Services whose addresses are passwords: what follows the host is hidden.
const CAPABILITIES: [&str; 3] = ["hooks.slack.com/", "discord.com/api/webhooks/", "api.telegram.org/"];

/// Folders of certificates that everybody may read.
const PUBLIC: [&str; 4] = ["/etc/ssl", "/etc/pki", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates"];

/// Whether the values of a key are never shown. Headers are keys, too.
pub(super) fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('-', "_");
    KEYS.contains(&&*key) || ENDINGS.iter().any(|ending| key.ends_with(ending)) || key.ends_with("apikey")
}

/// A source line as it may be shown, character for character.
pub(super) fn masked(line: &str) -> String {
    let mut text: Vec<char> = line.chars().collect();
    let mut at = 0;
    while at < text.len() {
        if matches!(text[at], ':' | '=')
            && let Some((start, is_flow)) = secret_value(&text, at)
        {
            let end = value_end(&text, start, is_flow);
            hide(&mut text[start..end]);
            at = end.max(at + 1);
        } else {
            at += 1;
        }
    }
    mask_addresses(&mut text);
    mask_users(&mut text);
    text.into_iter().collect()
}

/// The part of a line within `reach` characters of `column`, and where `column` is in it. What is shown of a line is
/// short, and a line may have megabytes; the part begins behind a sign that ends a value, so that none is cut in two.
pub(super) fn vicinity(line: &str, column: usize, reach: usize) -> (String, usize) {
    if line.len() <= reach {
        return (line.to_owned(), column);
    }
    let skipped = column.saturating_sub(reach);
    let part: Vec<char> = line.chars().skip(skipped).take(2 * reach).collect();
    let ends = |c: &char| matches!(c, ',' | '{' | '[');
    let begin = if skipped == 0 { 0 } else { part.iter().position(ends).map_or(0, |at| at + 1) };
    let begin = begin.min(column - skipped);
    (part[begin..].iter().collect(), column - skipped - begin)
}

/// The same for an address that lacks its scheme, as `user:password@host`.
pub(super) fn without_user(text: &str) -> String {
    let mut text: Vec<char> = text.chars().collect();
    mask_addresses(&mut text);
    mask_users(&mut text);
    text.into_iter().collect()
}

/// Whether a line ends in a secret key, so that the lines below it are the value.
pub(super) fn leaves_secret_open(line: &str) -> bool {
    let line = line.trim_end();
    let bare = line.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '|' | '>' | '-' | '+')).trim_end();
    let text: Vec<char> = bare.chars().collect();
    text.last() == Some(&':') && key_before(&text, text.len() - 1).is_some_and(|(key, ..)| is_secret(&key))
}

/// A text out of a file for a message, without the users and passwords of addresses in it.
pub(super) fn without_userinfo(text: &str) -> String {
    let mut text: Vec<char> = text.chars().collect();
    mask_addresses(&mut text);
    text.into_iter().collect()
}

fn hide(text: &mut [char]) {
    for character in text.iter_mut().filter(|character| !character.is_whitespace()) {
        *character = MASK;
    }
}

/// The key before the sign at `sign`, where it begins, and whether it is in quotes.
fn key_before(text: &[char], sign: usize) -> Option<(String, usize, bool)> {
    let mut end = sign;
    while end > 0 && text[end - 1] == ' ' {
        end -= 1;
    }
    let is_quoted = end > 0 && matches!(text[end - 1], '"' | '\'');
    if is_quoted {
        end -= 1;
    }
    let mut start = end;
    while start > 0 && (text[start - 1].is_ascii_alphanumeric() || matches!(text[start - 1], '_' | '-')) {
        start -= 1;
    }
    // A list's dash is not part of a key, and no key begins with one.
    while start < end && text[start] == '-' {
        start += 1;
    }
    (start < end).then(|| (text[start..end].iter().collect(), start, is_quoted))
}

/// Where the value behind the sign at `sign` begins, if it belongs to a secret key, and whether brackets are around it.
fn secret_value(text: &[char], sign: usize) -> Option<(usize, bool)> {
    let (key, start, is_quoted) = key_before(text, sign)?;
    if !is_secret(&key) || (text[sign] == ':' && !is_quoted && !text.get(sign + 1).is_none_or(|c| c.is_whitespace())) {
        return None;
    }
    let begins = (sign + 1..text.len()).find(|&at| !text[at].is_whitespace())?;
    // The keys within are looked at on their own.
    if text[begins] == '{' {
        return None;
    }
    let before = text[..start].iter().rev().find(|c| !matches!(c, ' ' | '"' | '\''));
    Some((begins, matches!(before, Some('{' | ',' | '[' | '&' | '?'))))
}

/// Where a value ends: behind its closing quote, and then at the sign that ends it within brackets, else with the line.
/// What follows a quote on its line is text that somebody forgot to put within.
fn value_end(text: &[char], start: usize, is_flow: bool) -> usize {
    let quote = text[start];
    let mut from = start;
    if matches!(quote, '"' | '\'') {
        from += 1;
        while from < text.len() {
            match text[from] {
                '\\' if quote == '"' => from += 1,
                c if c == quote && text.get(from + 1) == Some(&quote) && quote == '\'' => from += 1,
                c if c == quote => break,
                _ => {}
            }
            from += 1;
        }
    }
    let ends = |c: &char| match quote {
        '[' => *c == ']',
        _ => is_flow && matches!(c, ',' | '}' | ']'),
    };
    (from.min(text.len())..text.len()).find(|&at| ends(&text[at])).unwrap_or(text.len())
}

/// Hides `user:password` of every address, and the paths of those that are passwords themselves.
fn mask_addresses(text: &mut [char]) {
    let mut at = 0;
    while at + 2 < text.len() {
        if text[at..at + 3] != [':', '/', '/'] {
            at += 1;
            continue;
        }
        let start = at + 3;
        let is_end = |c: &char| c.is_whitespace() || matches!(c, '"' | '\'' | '/' | '?' | '#' | ',');
        let authority = (start..text.len()).find(|&at| is_end(&text[at])).unwrap_or(text.len());
        let whole = (start..text.len())
            .find(|&at| text[at].is_whitespace() || matches!(text[at], '"' | '\'' | '}' | ']'))
            .unwrap_or(text.len());
        let shown: String = text[start..whole].iter().collect();
        if let Some(known) = CAPABILITIES.iter().find(|known| shown.starts_with(**known)) {
            hide(&mut text[start + known.len()..whole]);
        } else {
            if let Some(sign) = (start..authority).rev().find(|&at| text[at] == '@') {
                hide(&mut text[start..sign]);
            }
            mask_tokens(&mut text[authority..whole.max(authority)]);
        }
        at = authority.max(at + 1);
    }
}

/// Parts of a path from this length on, with a digit in them, are no words: the addresses of other services are passwords,
/// too, and nobody knows their hosts.
const TOKEN_LIKE_MIN: usize = 12;

fn mask_tokens(path: &mut [char]) {
    let is_part = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let mut at = 0;
    while at < path.len() {
        let end = (at..path.len()).find(|&at| !is_part(&path[at])).unwrap_or(path.len());
        if end - at >= TOKEN_LIKE_MIN && path[at..end].iter().any(char::is_ascii_digit) {
            hide(&mut path[at..end]);
        }
        at = end + 1;
    }
}

/// Hides `user:password` before an `@`, whatever is around them.
fn mask_users(text: &mut [char]) {
    for sign in 0..text.len() {
        if text[sign] != '@' {
            continue;
        }
        let is_end = |c: &char| c.is_whitespace() || matches!(c, '"' | '\'' | '/' | '{' | ',' | '[');
        let start = (0..sign).rev().find(|&at| is_end(&text[at]) || sign - at > 1024).map_or(0, |at| at + 1);
        if text[start..sign].contains(&':') {
            hide(&mut text[start..sign]);
        }
    }
}

/// The secrets that were read so far: a million monitors may name one file.
#[derive(Debug, Default)]
pub(super) struct SecretFiles(HashMap<Box<str>, Result<Secret, String>, FxBuildHasher>);

impl SecretFiles {
    /// The one line in `file`.
    ///
    /// # Errors
    /// In words that follow the key.
    pub(super) fn read(&mut self, file: &str, folders: &Folders) -> Result<Secret, String> {
        if let Some(known) = self.0.get(file) {
            return known.clone();
        }
        let read = read_secret(file, folders);
        if self.0.len() < SECRET_FILES_MAX {
            self.0.insert(file.into(), read.clone());
        }
        read
    }
}

fn read_secret(file: &str, folders: &Folders) -> Result<Secret, String> {
    let (_, real) = trusted(file, folders, false)?;
    let bytes = contents(&real, SECRET_FILE_MAX)?;
    let text = String::from_utf8(bytes).map_err(|_| "names a file that is not UTF-8".to_owned())?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.trim().is_empty() {
        return Err("names an empty file: write the secret into it".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("names a file of several lines, or with control characters: a secret is one line".to_owned());
    }
    Ok(Secret::new(text))
}

/// A PEM file that holds `label`, as it is to be opened later.
///
/// # Errors
/// In words that follow the key.
pub(super) fn pem(file: &str, label: &str, folders: &Folders) -> Result<PathBuf, String> {
    let is_public = label == "CERTIFICATE";
    let (path, real) = trusted(file, folders, is_public)?;
    let bytes = contents(&real, CERTIFICATE_FILE_MAX)?;
    let text = String::from_utf8_lossy(&bytes);
    let is_there = text.lines().any(|line| line.starts_with("-----BEGIN ") && line.contains(label));
    if is_there {
        Ok(path)
    } else {
        Err(format!("names a file without a \"-----BEGIN ... {label}-----\": write it in the PEM form"))
    }
}

/// The path as written and where it leads, if that is a regular file below the folders of secrets (or of certificates).
fn trusted(file: &str, folders: &Folders, is_public: bool) -> Result<(PathBuf, PathBuf), String> {
    let path = folders.working.join(file);
    if path.components().any(|part| part == Component::ParentDir) {
        return Err("climbs with \"..\": write the path without it".to_owned());
    }
    let mut allowed: Vec<&Path> = folders.secret_dirs.iter().map(PathBuf::as_path).collect();
    if is_public {
        allowed.extend(PUBLIC.map(Path::new));
    }
    let outside = || {
        let names: Vec<String> = allowed.iter().map(|folder| folder.display().to_string()).collect();
        let names = if names.is_empty() { "none is named".to_owned() } else { names.join(", ") };
        format!(
            "{} is outside of the secret folders ({names}): move it there, or name its folder in [security] secret_dirs",
            super::diagnostic::quoted(file)
        )
    };
    if !allowed.iter().any(|folder| path.starts_with(folder)) {
        return Err(outside());
    }
    let failed = |error: &std::io::Error| {
        let shown = super::diagnostic::quoted(file);
        match error.kind() {
            std::io::ErrorKind::NotFound => format!("{shown} is not there: write the file, or correct the path"),
            std::io::ErrorKind::PermissionDenied => {
                format!("{shown} may not be read: let the user that runs cpra read it")
            }
            _ => format!("{shown} cannot be read: {error}"),
        }
    };
    let real = path.canonicalize().map_err(|error| failed(&error))?;
    let is_inside = allowed.iter().any(|folder| folder.canonicalize().is_ok_and(|folder| real.starts_with(folder)));
    if !is_inside {
        return Err(format!("{} by a link", outside()));
    }
    // Before it is opened: a named pipe would never be.
    if !real.metadata().map_err(|error| failed(&error))?.is_file() {
        return Err(format!("{} is no file: name the file in it", super::diagnostic::quoted(file)));
    }
    std::fs::File::open(&real).map_err(|error| failed(&error))?;
    Ok((path, real))
}

fn contents(path: &Path, max: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(path).and_then(|file| file.take(max + 1).read_to_end(&mut bytes));
    opened.map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > max {
        return Err(format!("names a file of more than {} KiB: that is no secret", max / 1024));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_shown_without_what_is_secret() {
        for (line, expected) in [
            ("  password: hush", "  password: ****"),
            ("- password: hush # why", "- password: **** * ***"),
            ("{username: me, password: hush, x: y}", "{username: me, password: ****, x: y}"),
            ("{\"password\":\"h,\\\"ush\",\"x\":1}", "{\"password\":*********,\"x\":1}"),
            ("password: 'hu''sh' ", "password: ******** "),
            ("password: 'hu", "password: ***"),
            ("password: \"x\" hush", "password: *** ****"),
            ("{password: \"x\" hush, y: 1}", "{password: *** ****, y: 1}"),
            ("Authorization: Bearer hush", "Authorization: ****** ****"),
            ("headers: {X-Api-Key: hush, Accept: all}", "headers: {X-Api-Key: ****, Accept: all}"),
            ("bearer_token = \"hush\"", "bearer_token = ******"),
            ("routing_key: hush", "routing_key: ****"),
            ("password_file: /etc/cpra/x", "password_file: /etc/cpra/x"),
            ("basic_auth: {username: me, password: hush}", "basic_auth: {username: me, password: ****}"),
            ("basic_auth: me:hush", "basic_auth: *******"),
            ("url: http://me:hush@h/x", "url: http://*******@h/x"),
            ("a: http://h/x@y, b: http://u@h", "a: http://h/x@y, b: http://*@h"),
            ("url: http://h/?token=hush", "url: http://h/?token=****"),
            ("url: https://hooks.slack.com/services/T/B", "url: https://hooks.slack.com/************"),
            ("url: me:hush@h/", "url: *******@h/"),
            ("url: https://h/hooks/hush-0123456789/x", "url: https://h/hooks/***************/x"),
            (
                "{url: https://h/v2/health?id=hush_hush_hush_1, a: b}",
                "{url: https://h/v2/health?id=****************, a: b}",
            ),
            ("secrets: [hush, hush]", "secrets: ****** ****]"),
            ("to: me@h", "to: me@h"),
            ("interval: 30s", "interval: 30s"),
            ("token: [hush, x]", "token: ****** *]"),
        ] {
            let shown = masked(line);
            assert_eq!(shown.chars().count(), line.chars().count(), "{line}");
            assert!(!shown.contains("hush") && !shown.contains("hu'"), "{shown}");
            assert_eq!(shown, expected, "{line}");
        }
        assert!(
            leaves_secret_open("  - password: |") && leaves_secret_open("token:  ") && leaves_secret_open("hook: >-")
        );
        assert!(!leaves_secret_open("password: x") && !leaves_secret_open("config:"));
    }

    proptest::proptest! {
        #[test]
        fn no_line_panics_and_none_changes_its_length(line in "(password|token|hook)?[\\PC :=\"'{}\\[\\],@/]{0,40}") {
            let (part, column) = vicinity(&line, line.chars().count() / 2, 10);
            proptest::prop_assert!(column <= part.chars().count());
            proptest::prop_assert_eq!(masked(&line).chars().count(), line.chars().count());
            let _ = leaves_secret_open(&line);
        }
    }

    #[test]
    fn files_with_secrets_are_read_below_their_folders_only() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (inside, outside) = (folder.path().join("in"), folder.path().join("out"));
        std::fs::create_dir_all(inside.join("sub")).expect("a folder");
        std::fs::create_dir_all(&outside).expect("a folder");
        let mut folders = Folders::new(folder.path(), folder.path(), folder.path());
        folders.secret_dirs = vec![inside.clone()];
        let write = |path: PathBuf, bytes: &[u8]| std::fs::write(path, bytes).expect("a file");
        write(inside.join("good"), b"hush\n");
        write(inside.join("sub/deep"), b"deep");
        write(inside.join("empty"), b"\n");
        write(inside.join("lines"), b"a\nb\n");
        write(inside.join("bytes"), b"\xff\xfe");
        write(inside.join("large"), &[b'x'; SECRET_FILE_MAX as usize + 1]);
        write(outside.join("secret"), b"no");
        std::os::unix::fs::symlink(outside.join("secret"), inside.join("link")).expect("a link");
        std::os::unix::fs::symlink(inside.join("good"), inside.join("alias")).expect("a link");
        let mut files = SecretFiles::default();
        for (file, expected) in [
            ("in/good", Ok("hush")),
            ("in/alias", Ok("hush")),
            ("in/sub/deep", Ok("deep")),
            ("in/none", Err("is not there")),
            ("in/sub", Err("is no file")),
            ("in/empty", Err("names an empty file")),
            ("in/lines", Err("names a file of several lines")),
            ("in/bytes", Err("is not UTF-8")),
            ("in/large", Err("more than 16 KiB")),
            ("in/../out/secret", Err("climbs with")),
            ("in/link", Err("by a link")),
            ("out/secret", Err("is outside of the secret folders")),
            ("/etc/shadow", Err("is outside of the secret folders")),
        ] {
            match (files.read(file, &folders), expected) {
                (Ok(secret), Ok(text)) => assert_eq!(secret.expose(), text, "{file}"),
                (Err(message), Err(part)) => assert!(message.contains(part), "{file}: {message}"),
                (read, _) => panic!("{file}: {read:?}"),
            }
        }
        write(inside.join("ca"), b"# a CA\n-----BEGIN CERTIFICATE-----\n");
        assert_eq!(pem("in/ca", "CERTIFICATE", &folders), Ok(inside.join("ca")));
        assert!(pem("in/ca", "PRIVATE KEY", &folders).is_err_and(|message| message.contains("PEM form")));
    }
}
