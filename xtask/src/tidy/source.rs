//! A file as the rules see it: code without comments and literals, and which lines are tests.
//!
//! A lexer of forty lines instead of a parser: the rules ask for words and paths, and a parser would fail on exactly
//! the half-written file that one runs the rules on.

use std::ops::Range;

/// A text file of the repository.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
    /// For Rust files: `text` with comments and literals blanked, byte for byte. Empty for others.
    pub(crate) code: String,
    /// String literals of the code: where, and what they say (escapes as written).
    pub(crate) strings: Vec<(usize, String)>,
    tests: Vec<Range<usize>>,
}

impl Source {
    pub(crate) fn new(path: &str, text: String) -> Self {
        let (code, strings) = if path.ends_with(".rs") { blank(&text) } else { (String::new(), Vec::new()) };
        let tests = if is_test_file(path) { whole(&text) } else { test_regions(&code) };
        Self { path: path.into(), text, code, strings, tests }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The path below `cpra/src/`, for files of the daemon.
    pub(crate) fn in_library(&self) -> Option<&str> {
        self.path.strip_prefix("cpra/src/").filter(|_| self.is_rust())
    }

    pub(crate) fn is_test(&self, offset: usize) -> bool {
        self.tests.iter().any(|region| region.contains(&offset))
    }

    pub(crate) fn line(&self, offset: usize) -> usize {
        1 + self.text.as_bytes()[..offset].iter().filter(|&&byte| byte == b'\n').count()
    }

    /// Where a word or path such as `Instant::now` stands in the code, not as a part of a longer word.
    pub(crate) fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        words(&self.code, word)
    }
}

fn whole(text: &str) -> Vec<Range<usize>> {
    std::iter::once(0..text.len()).collect()
}

/// Integration tests, benches and the test modules that have a file of their own.
pub(crate) fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.split('/').any(|part| matches!(part, "tests" | "benches" | "fuzz"))
}

pub(crate) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = code.as_bytes();
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = at.checked_sub(1).map(|index| bytes[index]);
        let after = bytes.get(at + word.len()).copied();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

pub(crate) fn is_word(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric()
}

/// The word that starts at `at`.
pub(crate) fn word_at(code: &str, at: usize) -> &str {
    let length = code.as_bytes()[at..].iter().take_while(|&&byte| is_word(byte)).count();
    &code[at..at + length]
}

/// Blanks comments and literals and collects the string literals.
fn blank(text: &str) -> (String, Vec<(usize, String)>) {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut strings = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let end = match bytes[at] {
            b'/' if rest.starts_with(b"//") => at + rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with(b"/*") => at + comment_length(rest),
            b'"' => at + string_length(rest),
            b'r' if !at.checked_sub(1).is_some_and(|index| is_word(bytes[index]) && !is_prefix(bytes, index)) => {
                match raw_string_length(rest) {
                    Some(length) => at + length,
                    None => at,
                }
            }
            b'\'' => at + char_length(rest),
            _ => at,
        };
        if end == at {
            at += 1;
            continue;
        }
        if bytes[at] == b'"' || bytes[at] == b'r' {
            let inner = text[at..end].trim_start_matches('r').trim_matches('#');
            strings.push((at, inner.trim_matches('"').to_owned()));
        }
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    (String::from_utf8(code).expect("whole characters were blanked"), strings)
}

/// Whether the byte is the `b` or `c` of `br"..."`, `cr"..."`.
fn is_prefix(bytes: &[u8], index: usize) -> bool {
    matches!(bytes[index], b'b' | b'c') && !index.checked_sub(1).is_some_and(|before| is_word(bytes[before]))
}

fn comment_length(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn string_length(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw_string_length(rest: &[u8]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|&&byte| byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.resize(1 + hashes, b'#');
    let start = 2 + hashes;
    let end = rest[start..].windows(close.len()).position(|window| window == close);
    Some(end.map_or(rest.len(), |end| start + end + close.len()))
}

/// The length of a character literal; 0 for a lifetime.
fn char_length(rest: &[u8]) -> usize {
    if rest.get(1) == Some(&b'\\') {
        let end = rest.iter().skip(3).position(|&byte| byte == b'\'');
        return end.map_or(rest.len(), |end| end + 4);
    }
    let width = match rest.get(1) {
        Some(0xF0..) => 4,
        Some(0xE0..) => 3,
        Some(0xC0..) => 2,
        _ => 1,
    };
    if rest.get(1 + width) == Some(&b'\'') { width + 2 } else { 0 }
}

/// What `#[cfg(test)]` stands before: up to the end of its braces, or its semicolon.
fn test_regions(code: &str) -> Vec<Range<usize>> {
    let mut regions = Vec::new();
    for (start, _) in code.match_indices("#[cfg(") {
        let Some(close) = code[start..].find(']') else { continue };
        let attribute = &code[start..start + close];
        if words(attribute, "test").next().is_none() || words(attribute, "not").next().is_some() {
            continue;
        }
        regions.push(start..item_end(code, start + close + 1));
    }
    regions
}

fn item_end(code: &str, from: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            b';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_not_code() {
        let text =
            "a // unsafe\nb /* unsafe /* x */ unsafe */ c \"un\\\"safe\" r#\"unsafe\"# 'u' '\\'' '\\u{1}' &'static d";
        let source = Source::new("x.rs", text.into());
        assert_eq!(source.code.len(), text.len());
        assert_eq!(
            source.code.split_whitespace().collect::<Vec<_>>(),
            ["a", "b", "c", "&'static", "d"],
            "{}",
            source.code
        );
        let strings: Vec<&str> = source.strings.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(strings, ["un\\\"safe", "unsafe"]);
    }

    #[test]
    fn words_are_whole() {
        let found: Vec<usize> = words("nix nixos unix::nix", "nix").collect();
        assert_eq!(found, [0, 16]);
    }

    #[test]
    fn test_code_is_known() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() {} }\nfn c() {}\n#[cfg(not(test))]\nfn d() {}\n";
        let source = Source::new("cpra/src/shard/mod.rs", text.into());
        let is_test = |name: &str| source.is_test(text.find(name).expect("it is there"));
        assert!(!is_test("fn a") && is_test("fn b") && !is_test("fn c") && !is_test("fn d"));
        assert!(Source::new("cpra/src/shard/tests.rs", "x".into()).is_test(0));
    }
}
