//! exim4 of the Debian package, which delivers what it takes into one file.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::authority::Issued;
use super::process::{ServerProcess, with_free_ports};
use super::{free_port, program};

pub struct MailHost {
    // Dropped in this order: the process goes before its directory.
    _process: ServerProcess,
    directory: TempDir,
    address: SocketAddr,
}

impl MailHost {
    /// With STARTTLS, or with TLS from the first byte; or a skip.
    pub fn start(issued: &Issued, implicit: bool) -> Option<Self> {
        let exim = program("exim4")?;
        Some(with_free_ports("exim", || {
            let directory = TempDir::with_prefix("cpra-exim-").expect("a temporary directory");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(directory.path(), mode).expect("it is ours");
            let root = directory.path().display().to_string();
            let port = free_port();
            let own = |path: PathBuf| {
                if let Ok(Some(user)) = nix::unistd::User::from_name("Debian-exim") {
                    let _ = nix::unistd::chown(&path, Some(user.uid), Some(user.gid));
                }
                path
            };
            let copy = |from: &PathBuf, name: &str| {
                let path = directory.path().join(name);
                fs::copy(from, &path).expect("a file");
                own(path).display().to_string()
            };
            let (chain, key) = (copy(&issued.chain, "chain.pem"), copy(&issued.key, "key.pem"));
            let wrapped = if implicit { format!("tls_on_connect_ports = {port}\n") } else { String::new() };
            let configuration = format!(
                "primary_hostname = mail.example\nlocal_interfaces = 127.0.0.1\ndaemon_smtp_ports = {port}\n{wrapped}\
                 spool_directory = {root}/spool\nlog_file_path = {root}/%slog\npid_file_path = {root}/pid\n\
                 rfc1413_query_timeout = 0s\nhost_lookup =\nkeep_environment =\ndeliver_drop_privilege = true\n\
                 tls_advertise_hosts = *\ntls_certificate = {chain}\ntls_privatekey = {key}\n\
                 acl_smtp_rcpt = known\nacl_smtp_data = sound\n\
                 begin acl\n\
                 known:\n  deny local_parts = nobody\n       message = no such user\n  accept encrypted = *\n\
                 sound:\n  deny condition = ${{if !def:h_Message-ID:}}\n       message = no Message-ID\n\
                 \x20 require verify = header_syntax\n  accept\n\
                 begin routers\nall:\n  driver = accept\n  transport = inbox\n\
                 begin transports\ninbox:\n  driver = appendfile\n  file = {root}/inbox\n  user = Debian-exim\n\
                 \x20 group = Debian-exim\n  envelope_to_add\n  batch_max = 100\n"
            );
            let file = directory.path().join("exim.conf");
            fs::write(&file, configuration).expect("a file");
            fs::create_dir(directory.path().join("spool")).expect("a folder");
            own(directory.path().join("spool"));
            own(directory.path().to_owned());
            let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
            let log = directory.path().join("output.log");
            let arguments = ["-C", &file.display().to_string(), "-bdf"];
            match ServerProcess::start(&exim, &arguments, &[address], &log) {
                Some(process) => Ok(Self { _process: process, directory, address }),
                None => Err(fs::read_to_string(&log).unwrap_or_default()),
            }
        }))
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The mails in the file, as soon as there are so many, with `\n` at the ends of lines.
    ///
    /// # Panics
    /// If there are not so many within half a minute.
    pub fn mails(&self, count: usize) -> Vec<String> {
        let mut mails = Vec::new();
        for _ in 0..600 {
            let text = fs::read_to_string(self.directory.path().join("inbox")).unwrap_or_default();
            // The mbox format: a line "From " begins a mail, and is quoted within one.
            mails = format!("\n{text}").split("\nFrom ").skip(1).map(str::to_owned).collect();
            if mails.len() >= count && text.ends_with('\n') {
                return mails;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let log = fs::read_to_string(self.directory.path().join("mainlog")).unwrap_or_default();
        panic!("{} mails instead of {count}: {mails:#?}\n{log}", mails.len());
    }
}
