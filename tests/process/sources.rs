//! Where monitors come from: several files, folders, the standard input, a generator; and whose files are trusted.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::daemon::BINARY;

/// Runs the binary in `folder` to its end, with `input` on its standard input.
fn cpra(folder: &Path, words: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(BINARY)
        .args(words)
        .current_dir(folder)
        .env_remove("RUST_LOG")
        .env("CPRA_VAR_HOST", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    // It may have ended before it read anything.
    let _ = child.stdin.take().expect("piped").write_all(input);
    child.wait_with_output().expect("it ends")
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("cpra-sources-").tempdir().expect("a folder")
}

const BODY: &str = "pulse: {type: tcp, interval: 1s, timeout: 1s, config: {host: \"${CPRA_VAR_HOST}\", port: 1}}";

#[test]
fn what_is_generated_is_taken_from_a_file_a_folder_and_the_standard_input() {
    let folder = folder();
    let arguments = ["generate", "--count", "300", "--mix", "http=3,tcp=1"];
    let (code, yaml, stderr) = said(&cpra(folder.path(), &arguments, b""));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let (code, stdout, stderr) = said(&cpra(folder.path(), &["--check-config", "--yaml", "-"], yaml.as_bytes()));
    // Its checks are sound; what it wants to be executed has no file that somebody vouches for.
    assert!(code == Some(1) && stdout.starts_with("300 monitors from standard input: 0 errors, "), "{stdout}{stderr}");
    assert!(
        stderr.contains(" from the standard input, which nobody vouches for: put the monitor into a file"),
        "{stderr}"
    );

    fs::create_dir(folder.path().join("d")).expect("a folder");
    fs::write(folder.path().join("d/a.yaml"), &yaml).expect("a file");
    let out = ["--format", "jsonl", "--seed", "2", "--out", "b.jsonl"];
    let (code, stdout, stderr) = said(&cpra(folder.path(), &[&arguments[..], &out].concat(), b""));
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (Some(0), "", "300 monitors in b.jsonl\n"));
    fs::write(folder.path().join("c.yaml"), format!("- name: one\n  {BODY}\n")).expect("a file");
    let words = ["--check-config", "--yaml", "d", "--yaml", "c.yaml"];
    let (code, stdout, stderr) = said(&cpra(folder.path(), &words, b""));
    assert!(code == Some(0) && stdout.starts_with("301 monitors from d, c.yaml: 0 errors, "), "{stdout}{stderr}");
}

#[test]
fn a_name_in_two_files_and_a_pipe_without_a_writer_are_told_with_everything_else() {
    let folder = folder();
    let monitor = format!("- name: one\n  {BODY}\n");
    for name in ["a.yaml", "b.yaml"] {
        fs::write(folder.path().join(name), &monitor).expect("a file");
    }
    let made = Command::new("mkfifo").arg(folder.path().join("pipe")).status().expect("mkfifo of coreutils");
    assert!(made.success());
    let words = ["--check-config", "--yaml", "a.yaml", "--yaml", "pipe", "--yaml", "b.yaml"];
    let (code, stdout, stderr) = said(&cpra(folder.path(), &words, b""));
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stderr.contains("pipe: this is a named pipe"), "{stderr}");
    assert!(
        stderr.contains("b.yaml:1:9: one: the name is taken by the monitor at a.yaml:1:9: names are unique"),
        "{stderr}"
    );
    assert!(stdout.starts_with("1 monitor from a.yaml, pipe, b.yaml (2 files): 2 errors, "), "{stdout}");
}

#[test]
fn interventions_of_a_file_that_anybody_may_write_are_refused() {
    let folder = folder();
    let path = folder.path().join("m.yaml");
    let text = format!(
        "- name: one\n  {BODY}\n  intervention: {{action: docker, config: {{container: x, action: restart}}}}\n"
    );
    fs::write(&path, &text).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("our file");
    let words = ["--check-config", "--yaml", "m.yaml"];
    let (code, stdout, stderr) = said(&cpra(folder.path(), &words, b""));
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    assert!(
        stderr.contains("refused: one: the intervention is not run: the file ") && stderr.contains("(mode 0666)"),
        "{stderr}"
    );
    assert!(stdout.contains("1 monitor from m.yaml: 0 errors, ") && stdout.contains(", 1 refused\n"), "{stdout}");

    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("our file");
    assert_eq!(cpra(folder.path(), &words, b"").status.code(), Some(0));
    let (code, _, stderr) = said(&cpra(folder.path(), &["--check-config", "--yaml", "-"], text.as_bytes()));
    assert!(code == Some(1) && stderr.contains("comes from the standard input, which nobody vouches for"), "{stderr}");
}
