//! Rules about text, in every kind of file: white space, promises, links.

use std::path::Path;

use super::source::{Source, is_test_file, words};
use super::{Finding, finding};

pub(crate) fn check(sources: &[Source], findings: &mut Vec<Finding>) {
    for source in sources {
        white_space(source, findings);
        promises(source, findings);
        if source.path.ends_with(".md") {
            links(source, &|target| Path::new(target).exists(), findings);
        }
    }
}

fn white_space(source: &Source, findings: &mut Vec<Finding>) {
    // Nobody writes lock files, and what tests feed to parsers or expect of them is as it must be.
    if source.path.ends_with(".lock") || (is_test_file(&source.path) && !source.is_rust()) {
        return;
    }
    let mut offset = 0;
    for line in source.text.split_inclusive('\n') {
        let content = line.strip_suffix('\n').unwrap_or(line);
        if content.contains('\t') && !source.path.ends_with("Makefile") {
            findings.push(finding(source, offset, "white space", "a tab: write spaces (in a literal: \\t)".into()));
        }
        if content.ends_with([' ', '\r']) {
            findings.push(finding(source, offset, "white space", "white space at the end of the line: cut it".into()));
        }
        offset += line.len();
    }
}

/// Written in pieces, so that this file does not find itself.
const PROMISES: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

fn promises(source: &Source, findings: &mut Vec<Finding>) {
    for word in PROMISES {
        for at in words(&source.text, word) {
            findings.push(finding(
                source,
                at,
                "promise",
                format!("{word}: do it, or open an issue and say what is missing"),
            ));
        }
    }
    for word in ["unimplemented!", "todo!"] {
        for at in source.code.match_indices(word).map(|(at, _)| at) {
            findings.push(finding(source, at, "promise", format!("`{word}`: write it, or leave the item out")));
        }
    }
}

/// Every link to a file of this repository leads somewhere. `exists` is asked for paths below the root.
fn links(source: &Source, exists: &dyn Fn(&str) -> bool, findings: &mut Vec<Finding>) {
    let folder = source.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut offset = 0;
    let mut is_fenced = false;
    for line in source.text.split_inclusive('\n') {
        let start = offset;
        offset += line.len();
        if line.trim_start().starts_with("```") {
            is_fenced = !is_fenced;
        }
        if is_fenced {
            continue;
        }
        for target in targets(line) {
            let path = target.split('#').next().unwrap_or_default();
            let is_elsewhere = path.contains("://") || path.starts_with("mailto:");
            if path.is_empty() || is_elsewhere {
                continue;
            }
            if !resolve(folder, path).is_some_and(|path| exists(&path)) {
                findings.push(finding(source, start, "link", format!("`{target}` leads nowhere: mend or remove it")));
            }
        }
    }
}

/// What `[text](target)` and `[name]: target` point at.
fn targets(line: &str) -> Vec<&str> {
    // Code spans show links instead of making them.
    let mut found = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.find("](") {
        let is_code = line[..line.len() - rest.len() + at].matches('`').count() % 2 == 1;
        let after = &rest[at + 2..];
        let Some(end) = after.find(')') else { break };
        if !is_code {
            found.extend(after[..end].split_whitespace().next());
        }
        rest = &after[end..];
    }
    if let Some((_, target)) = line.strip_prefix('[').and_then(|line| line.split_once("]: ")) {
        found.extend(target.split_whitespace().next());
    }
    found
}

/// A path as seen from a folder of the repository, without dots; `None` if it leaves the repository.
fn resolve(folder: &str, path: &str) -> Option<String> {
    let (folder, path) = match path.strip_prefix('/') {
        Some(from_root) => ("", from_root),
        None => (folder, path),
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(if parts.is_empty() { ".".into() } else { parts.join("/") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(path: &str, text: &str, rule: impl Fn(&Source, &mut Vec<Finding>)) -> Vec<usize> {
        let mut findings = Vec::new();
        rule(&Source::new(path, text.to_owned()), &mut findings);
        findings.iter().map(|finding| finding.line).collect()
    }

    const NONE: [usize; 0] = [];

    #[test]
    fn white_space_is_plain() {
        assert_eq!(faults("a.toml", "a\n\tb\nc \nd\r\n", white_space), [2, 3, 4]);
        assert_eq!(faults("Cargo.lock", "\t\n", white_space), NONE);
        assert_eq!(faults("cpra/src/config/tests/faults.txt", "\t\n", white_space), NONE);
        assert_eq!(faults("cpra/src/config/tests/faults.rs", "\t\n", white_space), [1]);
    }

    #[test]
    fn promises_are_kept_or_not_made() {
        let text = format!("// {}: later\nfn f() {{ todo!() }}\nlet s = \"todo!\";\n", PROMISES[0]);
        assert_eq!(faults("a.rs", &text, promises), [1, 2]);
        assert_eq!(faults("a.md", &format!("{} soon", PROMISES[1]), promises), [1]);
    }

    #[test]
    fn links_lead_somewhere() {
        let exists = |path: &str| ["README.md", "docs/a.md", "docs"].contains(&path);
        let rule = |source: &Source, findings: &mut Vec<Finding>| links(source, &exists, findings);
        let text = "[a](a.md#x) [b](../README.md) [c](https://x/y)\n[d](b.md)\n```\n[e](b.md)\n```\n`[f](b.md)`\n[g]: b.md\n[h](../..)\n";
        assert_eq!(faults("docs/index.md", text, rule), [2, 7, 8]);
        assert_eq!(faults("README.md", "[a](docs/) [b](/docs/a.md) [c](#here)", rule), NONE);
    }
}
