//! A certificate authority that signs whatever a test asks for: also what has expired, begins tomorrow or names another.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cpra::os::clock::Clock;
use cpra::units::Timestamp;
use tempfile::TempDir;

use super::program;

/// With an intermediate one, both by the openssl of this machine.
#[derive(Debug)]
pub struct Authority {
    openssl: PathBuf,
    directory: TempDir,
}

/// Files in PEM.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate alone.
    pub cert: PathBuf,
    /// With the intermediate that signed it, if one did.
    pub chain: PathBuf,
    pub key: PathBuf,
}

/// What a certificate is to be.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// `DNS:good.example,IP:127.0.0.1`
    pub names: &'a str,
    /// In hours from now.
    pub begins: i64,
    pub ends: i64,
    pub by: Signer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    Root,
    Intermediate,
    /// An intermediate that has expired.
    Expired,
    Itself,
}

pub const DAY: i64 = 24;

impl Wish<'_> {
    /// Valid for a year, by the root.
    pub const fn of(names: &str) -> Wish<'_> {
        Wish { names, begins: -DAY, ends: 365 * DAY, by: Signer::Root }
    }
}

impl Authority {
    /// Or a skip.
    pub fn start() -> Option<Self> {
        let authority = Self {
            openssl: program("openssl")?,
            directory: TempDir::with_prefix("cpra-authority-").expect("a temporary directory"),
        };
        // Servers that give up root read their certificates before or after; both must work.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(authority.directory.path(), mode).expect("it is ours");
        for name in ["key", "other-key"] {
            let curve = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"];
            authority.run(&[&curve[..], &[name]].concat());
        }
        authority.write("index.txt", "");
        authority.write("serial", "1000\n");
        authority.write("extensions", "");
        authority.write(
            "ca.cnf",
            "[ca]\ndefault_ca=it\n[it]\ndir=.\nnew_certs_dir=.\ndatabase=index.txt\nserial=serial\ndefault_md=sha256\n\
             unique_subject=no\npolicy=any\ncopy_extensions=none\n[any]\ncommonName=supplied\n",
        );
        let root = ["req", "-x509", "-key", "other-key", "-subj", "/CN=Test Root", "-days", "3650", "-out", "root"];
        authority.run(&[&root[..], &["-addext", "basicConstraints=critical,CA:TRUE"]].concat());
        for (name, ends) in [("intermediate", 365 * DAY), ("expired-middle", -2 * DAY)] {
            let extensions = "basicConstraints=critical,CA:TRUE\nsubjectKeyIdentifier=hash\n";
            authority.sign(name, &format!("/CN=Test {name}"), extensions, (-30 * DAY, ends), ("root", "other-key"));
        }
        Some(authority)
    }

    pub fn root(&self) -> PathBuf {
        self.path("root")
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Of this name; the subject is the first of the names.
    pub fn issue(&self, name: &str, wish: Wish<'_>) -> Issued {
        let first = wish.names.split(',').next().unwrap_or_default();
        let subject = format!("/CN={}", first.split_once(':').map_or(first, |(_, name)| name));
        let extensions = format!("subjectAltName={}\n", wish.names);
        let (span, below) = ((wish.begins, wish.ends), self.path(name));
        match wish.by {
            Signer::Root => self.sign(name, &subject, &extensions, span, ("root", "other-key")),
            Signer::Intermediate => self.sign(name, &subject, &extensions, span, ("intermediate", "key")),
            Signer::Expired => self.sign(name, &subject, &extensions, span, ("expired-middle", "key")),
            Signer::Itself => {
                let names = format!("subjectAltName={}", wish.names);
                let itself = ["req", "-x509", "-key", "key", "-subj", &subject, "-days", "30", "-out", name];
                self.run(&[&itself[..], &["-addext", &names]].concat());
            }
        }
        let mut chain = fs::read_to_string(&below).expect("it was made");
        match wish.by {
            Signer::Intermediate => chain += &fs::read_to_string(self.path("intermediate")).expect("it was made"),
            Signer::Expired => chain += &fs::read_to_string(self.path("expired-middle")).expect("it was made"),
            Signer::Root | Signer::Itself => {}
        }
        let chain_file = format!("{name}.chain");
        self.write(&chain_file, &chain);
        Issued { cert: below, chain: self.path(&chain_file), key: self.path("key") }
    }

    fn sign(&self, name: &str, subject: &str, extensions: &str, span: (i64, i64), by: (&str, &str)) {
        self.run(&["req", "-new", "-key", "key", "-subj", subject, "-out", "request"]);
        self.write("extensions", extensions);
        let (begins, ends) = (stamp(span.0), stamp(span.1));
        let signing = ["ca", "-batch", "-notext", "-config", "ca.cnf", "-in", "request", "-out", name];
        let authority = ["-cert", by.0, "-keyfile", by.1, "-extfile", "extensions"];
        self.run(&[&signing[..], &authority, &["-startdate", &begins, "-enddate", &ends]].concat());
    }

    fn run(&self, arguments: &[&str]) {
        let output = Command::new(&self.openssl).args(arguments).current_dir(self.directory.path()).output();
        let output = output.expect("openssl can be started");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file of the test's own");
    }
}

/// So many hours from now.
pub fn hours_from_now(hours: i64) -> Timestamp {
    Timestamp::from_micros(Clock.wall().as_micros() + hours * 3_600_000_000)
}

/// `20261122030000Z`
fn stamp(hours: i64) -> String {
    let text = hours_from_now(hours).to_string();
    let digits: String = text.chars().take_while(|&character| character != '.').filter(char::is_ascii_digit).collect();
    digits + "Z"
}

/// `2026-11-22`
pub fn date(hours: i64) -> String {
    hours_from_now(hours).to_string().split('T').next().expect("a date").to_owned()
}
