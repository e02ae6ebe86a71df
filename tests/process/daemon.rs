//! The binary under test, in a folder of its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::counterparts::free_port;

pub const BINARY: &str = env!("CARGO_BIN_EXE_cpra");

/// Waits for what must come, on however busy a machine.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Asks again and again. `what` is for the panic, with the daemon's word on it.
pub fn eventually(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// A request of one line, and the status and body of the answer. `None` when nobody answers.
pub fn get(address: SocketAddr, path: &str) -> Option<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let status = std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()?;
    Some((status, answer.split_off(head + 4)))
}

/// What is to be started; [`Setup::start`] starts it.
pub struct Setup {
    folder: tempfile::TempDir,
    /// What runs: the binary, or a program that becomes it.
    words: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    api: SocketAddr,
    profiles: Option<SocketAddr>,
    stdout: Option<Stdio>,
}

impl Setup {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("cpra-process-").tempdir().expect("a folder");
        let api = loopback(free_port());
        let words = [BINARY, "--api.listen"].map(OsString::from);
        let words = words.into_iter().chain([api.to_string().into()]).collect();
        Self { folder, words, environment: Vec::new(), api, profiles: None, stdout: None }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn api(&self) -> SocketAddr {
        self.api
    }

    /// With this monitors file, written to the folder.
    pub fn monitors(self, text: &str) -> Self {
        fs::write(self.folder().join("monitors.yaml"), text).expect("a file in the test's own folder");
        self.argument("--yaml").argument("monitors.yaml")
    }

    /// With this daemon file.
    pub fn settings(self, text: &str) -> Self {
        fs::write(self.folder().join("cpra.toml"), text).expect("a file in the test's own folder");
        self.argument("--config").argument("cpra.toml")
    }

    pub fn argument(mut self, word: &str) -> Self {
        self.words.push(word.into());
        self
    }

    /// With this variable.
    pub fn environment(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// With profiles at this address; without it there are none, because the default port is one for all.
    pub fn profiles(mut self, address: SocketAddr) -> Self {
        self.profiles = Some(address);
        self
    }

    /// Run by another program that ends in exec(2), so that the pid is the daemon's.
    pub fn through(mut self, words: &[&str]) -> Self {
        self.words.splice(0..0, words.iter().map(OsString::from));
        self
    }

    /// Another copy of the binary: one that everybody may run.
    pub fn binary(mut self, path: &Path) -> Self {
        let at = self.words.iter().position(|word| word == BINARY).expect("the binary is among the words");
        self.words[at] = path.into();
        self
    }

    pub fn stdout(mut self, stdout: Stdio) -> Self {
        self.stdout = Some(stdout);
        self
    }

    /// Starts it; it may end at once.
    pub fn start(self) -> Cpra {
        let file = |name| File::create(self.folder.path().join(name)).expect("a file in the test's own folder");
        let (stdout, stderr) = (file("stdout"), file("stderr"));
        let profiles = match self.profiles {
            Some(address) => format!("--pprof.addr={address}"),
            None => "--pprof=false".to_owned(),
        };
        let child = Command::new(&self.words[0])
            .args(&self.words[1..])
            .arg(profiles)
            .current_dir(self.folder.path())
            .env_remove("RUST_LOG")
            .env("STATE_DIRECTORY", self.folder.path().join("state"))
            .env("RUNTIME_DIRECTORY", self.folder.path())
            .envs(self.environment)
            .stdin(Stdio::null())
            .stdout(self.stdout.unwrap_or_else(|| stdout.into()))
            .stderr(stderr)
            .spawn()
            .expect("the binary can be started");
        Cpra { child, api: self.api, folder: self.folder }
    }

    /// Starts it, and waits until its API answers.
    pub fn run(self) -> Cpra {
        let mut cpra = self.start();
        let began = Instant::now();
        loop {
            if let Some((status, body)) = get(cpra.api, "/healthz") {
                // From its first answer on.
                assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
                return cpra;
            }
            let ended = cpra.child.try_wait().expect("a child can be waited for");
            assert!(ended.is_none() && began.elapsed() < PATIENCE, "it does not answer ({ended:?}): {}", cpra.said());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A daemon; killed when dropped.
pub struct Cpra {
    child: Child,
    pub api: SocketAddr,
    folder: tempfile::TempDir,
}

impl Cpra {
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub fn stdout(&self) -> String {
        self.text("stdout")
    }

    pub fn stderr(&self) -> String {
        self.text("stderr")
    }

    /// Both streams, for panics.
    pub fn said(&self) -> String {
        format!("stdout:\n{}\nstderr:\n{}", self.stdout(), self.stderr())
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }

    pub fn signal(&self, signal: Signal) {
        signal::kill(self.pid(), signal).expect("our own child can be signalled");
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_none()
    }

    /// Waits for the end. It must come within `bound`.
    pub fn ends_within(&mut self, bound: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status;
            }
            assert!(began.elapsed() < bound, "it still runs after {bound:?}: {}", self.said());
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        let (status, body) = get(self.api, path).unwrap_or_else(|| panic!("no answer to {path}: {}", self.said()));
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    pub fn metrics(&self) -> Metrics {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200, "{text}");
        Metrics::read(&text)
    }

    /// The notices in a file of its folder; every line must be whole.
    pub fn notices(&self, file: &str) -> Vec<serde_json::Value> {
        whole_lines(&self.text(file))
    }
}

impl Drop for Cpra {
    fn drop(&mut self) {
        // It may have ended; then there is only its status to collect.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn whole_lines(text: &str) -> Vec<serde_json::Value> {
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is torn: {text}");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// A scrape: samples by name and labels as they are printed.
#[derive(Debug)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    pub fn read(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        Self(samples.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect())
    }

    pub fn value(&self, sample: &str) -> f64 {
        *self.0.get(sample).unwrap_or_else(|| panic!("no sample {sample} in {:?}", self.0.keys()))
    }

    /// The sum over all samples that begin and contain so.
    pub fn sum(&self, begins: &str, contains: &str) -> f64 {
        let samples = self.0.iter().filter(|(name, _)| name.starts_with(begins) && name.contains(contains));
        samples.map(|(_, value)| value).sum()
    }

    pub fn state(&self, state: &str) -> f64 {
        self.value(&format!("cpra_monitors{{state=\"{state}\"}}"))
    }

    /// Judged checks with this outcome, or all whose outcome begins so.
    pub fn outcomes(&self, outcome: &str) -> f64 {
        self.sum("cpra_checks_total{", &format!("outcome=\"{outcome}"))
    }

    /// Checks that were held against their target, by outcome.
    pub fn failures(&self) -> Vec<(&str, f64)> {
        self.0
            .iter()
            .filter(|(name, count)| name.starts_with("cpra_checks_total{") && **count > 0.0)
            .filter(|(name, _)| !["\"L4OK\"", "\"L7OK\"", "\"VOID:"].iter().any(|fine| name.contains(fine)))
            .map(|(name, count)| (name.as_str(), *count))
            .collect()
    }

    pub fn notices(&self) -> f64 {
        self.sum("cpra_notices_total{", "")
    }
}
