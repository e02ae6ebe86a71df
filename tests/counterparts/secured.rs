//! Servers that speak TLS: openssl's own, mail servers, a database, a proxy, and one that ends answers to order.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use super::authority::Issued;
use super::process::{ServerProcess, with_free_ports};
use super::{free_port, program};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A server of a package, on 127.0.0.1.
#[derive(Debug)]
pub struct Secured {
    // Dropped in this order: the process goes before its directory.
    _process: ServerProcess,
    _directory: TempDir,
    address: SocketAddr,
}

impl Secured {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `arguments` gets the port and the server's own directory, and may write there.
    fn start(name: &str, program: &Path, arguments: impl Fn(u16, &Path) -> Vec<String>) -> Self {
        with_free_ports(name, || {
            let directory = TempDir::with_prefix(format!("cpra-{name}-")).expect("a temporary directory");
            // Those that give up root must still find their files.
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(directory.path(), mode).expect("it is ours");
            let address = SocketAddr::new(LOOPBACK, free_port());
            let arguments = arguments(address.port(), directory.path());
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let log = directory.path().join("output.log");
            match ServerProcess::start(program, &arguments, &[address], &log) {
                Some(process) => Ok(Self { _process: process, _directory: directory, address }),
                None => Err(fs::read_to_string(&log).unwrap_or_default()),
            }
        })
    }

    /// `openssl s_server` with a certificate and further arguments, or a skip.
    pub fn openssl(issued: &Issued, arguments: &[&str]) -> Option<Self> {
        let openssl = program("openssl")?;
        Some(Self::start("s-server", &openssl, |port, _| {
            let accept = format!("127.0.0.1:{port}");
            let (chain, key) = (text(&issued.chain), text(&issued.key));
            let fixed = ["s_server", "-quiet", "-accept", &accept, "-cert", chain, "-cert_chain", chain, "-key", key];
            fixed.iter().chain(arguments).map(|&argument| argument.to_owned()).collect()
        }))
    }

    /// nginx, or a skip. `/reused` says 299 on a resumed session.
    pub fn nginx(issued: &Issued) -> Option<Self> {
        let nginx = program("nginx")?;
        Some(Self::start("nginx-tls", &nginx, |port, directory| {
            let (chain, key, root) = (text(&issued.chain), text(&issued.key), text(directory));
            fs::write(directory.join("chunked"), "<!--# set var=\"x\" value=\"y\" -->in chunks\n").expect("a file");
            let configuration = format!(
                "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log error.log;\nevents {{ }}\nhttp {{\n\
                 access_log off;\nclient_body_temp_path b;\nproxy_temp_path p;\nfastcgi_temp_path f;\n\
                 uwsgi_temp_path u;\nscgi_temp_path s;\nssl_session_cache shared:all:1m;\n\
                 server {{\nlisten 127.0.0.1:{port} ssl;\nssl_certificate {chain};\nssl_certificate_key {key};\n\
                 root .;\nlocation = /ok {{ return 200 \"fine\\n\"; }}\n\
                 location = /down {{ return 302 http://127.0.0.1:1/; }}\n\
                 location = /missing {{ return 404 \"nothing here\\n\"; }}\n\
                 location = /reused {{ if ($ssl_session_reused = r) {{ return 299; }} return 200; }}\n\
                 location = /moved {{ return 302 https://127.0.0.1:{port}/ok; }}\n\
                 location = /chunked {{ ssi on; }}\n\
                 location = /unframed {{ ssi on; chunked_transfer_encoding off; try_files /chunked =404; }}\n}} }}\n"
            );
            fs::write(directory.join("nginx.conf"), configuration).expect("a file");
            let file = format!("{root}/nginx.conf");
            ["-p", root, "-c", &file, "-e", "error.log"].map(str::to_owned).to_vec()
        }))
    }

    /// exim4, with STARTTLS if it has a certificate; or a skip.
    pub fn exim(issued: Option<&Issued>) -> Option<Self> {
        let exim = program("exim4")?;
        Some(Self::start("exim", &exim, |port, directory| {
            let root = text(directory);
            let tls = issued.map_or_else(
                || "tls_advertise_hosts =\n".to_owned(),
                |issued| {
                    let (chain, key) = (readable(directory, &issued.chain), readable(directory, &issued.key));
                    format!("tls_advertise_hosts = *\ntls_certificate = {chain}\ntls_privatekey = {key}\n")
                },
            );
            let configuration = format!(
                "primary_hostname = mail.example\nlocal_interfaces = 127.0.0.1\ndaemon_smtp_ports = {port}\n\
                 spool_directory = {root}/spool\nlog_file_path = {root}/%slog\npid_file_path = {root}/pid\n\
                 rfc1413_query_timeout = 0s\nhost_lookup =\nsmtp_enforce_sync = false\n{tls}\
                 acl_smtp_rcpt = deny\nbegin acl\ndeny:\n  deny\n"
            );
            let file = directory.join("exim.conf");
            fs::write(&file, configuration).expect("a file");
            fs::create_dir(directory.join("spool")).expect("a folder");
            own(&directory.join("spool"), "Debian-exim");
            own(directory, "Debian-exim");
            vec!["-C".into(), text(&file).to_owned(), "-bdf".into()]
        }))
    }

    /// dovecot's IMAP, or a skip.
    pub fn dovecot(issued: &Issued) -> Option<Self> {
        let dovecot = program("dovecot")?;
        Some(Self::start("dovecot", &dovecot, |port, directory| {
            let (chain, key, root) = (text(&issued.chain), text(&issued.key), text(directory));
            let configuration = format!(
                "protocols = imap\nlisten = 127.0.0.1\nbase_dir = {root}/run\nstate_dir = {root}/state\n\
                 log_path = {root}/log\nssl = required\nssl_cert = <{chain}\nssl_key = <{key}\n\
                 default_vsz_limit = 0\nservice imap-login {{\n inet_listener imap {{\n port = {port}\n }}\n \
                 inet_listener imaps {{\n port = 0\n }}\n}}\nservice stats {{\n}}\npassdb {{\n driver = static\n}}\n\
                 userdb {{\n driver = static\n args = uid=65534 gid=65534 home=/nonexistent\n}}\n"
            );
            let file = directory.join("dovecot.conf");
            fs::write(&file, configuration).expect("a file");
            vec!["-F".into(), "-c".into(), text(&file).to_owned()]
        }))
    }

    /// PostgreSQL with or without TLS, or a skip.
    pub fn postgres(issued: Option<&Issued>) -> Option<Self> {
        let setpriv = program("setpriv")?;
        let folder = fs::read_dir("/usr/lib/postgresql").ok().and_then(|mut entries| entries.next()?.ok());
        let Some(folder) = folder.map(|entry| entry.path().join("bin")) else {
            super::support::skip("postgres", "not installed");
            return None;
        };
        if !nix::unistd::geteuid().is_root() {
            super::support::skip("postgres", "needs root to become another user, as it refuses to run as root");
            return None;
        }
        let demoted = ["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"];
        Some(Self::start("postgres", &setpriv, |port, directory| {
            own(directory, "postgres");
            let data = text(directory).to_owned() + "/data";
            let initdb = folder.join("initdb");
            let made = std::process::Command::new(&setpriv)
                .args(demoted)
                .args([text(&initdb), "-D", &data, "-A", "trust", "-N", "--no-instructions"])
                .output()
                .expect("setpriv can be started");
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            let mut arguments: Vec<String> = demoted.map(str::to_owned).to_vec();
            let port = format!("port={port}");
            let sockets = format!("unix_socket_directories={}", text(directory));
            let server = folder.join("postgres");
            let fixed = [text(&server), "-D", &data, "-c", "listen_addresses=127.0.0.1"];
            arguments.extend(fixed.map(str::to_owned));
            for setting in [port, sockets, "fsync=off".into(), "shared_buffers=1MB".into()] {
                arguments.extend(["-c".into(), setting]);
            }
            if let Some(issued) = issued {
                let (chain, key) = (readable(directory, &issued.chain), readable(directory, &issued.key));
                own(Path::new(&key), "postgres");
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
                fs::set_permissions(&key, mode).expect("it is ours");
                for setting in ["ssl=on".into(), format!("ssl_cert_file={chain}"), format!("ssl_key_file={key}")] {
                    arguments.extend(["-c".into(), setting]);
                }
            }
            arguments
        }))
    }

    /// tinyproxy, which tunnels to `allowed` only, perhaps for those who know the password; or a skip.
    pub fn tinyproxy(allowed: u16, login: Option<&str>) -> Option<Self> {
        let tinyproxy = program("tinyproxy")?;
        Some(Self::start("tinyproxy", &tinyproxy, |port, directory| {
            let login = login.map_or_else(String::new, |login| format!("BasicAuth {login}\n"));
            let configuration = format!(
                "Port {port}\nListen 127.0.0.1\nTimeout 10\nLogLevel Warning\nMaxClients 20\nStartServers 2\n\
                 ConnectPort {allowed}\nConnectPort 9\nAllow 127.0.0.1\n{login}"
            );
            let file = directory.join("tinyproxy.conf");
            fs::write(&file, configuration).expect("a file");
            vec!["-d".into(), "-c".into(), text(&file).to_owned()]
        }))
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// A copy that any user may read.
fn readable(directory: &Path, file: &Path) -> String {
    let copy = directory.join(file.file_name().expect("a file"));
    fs::copy(file, &copy).expect("it can be copied");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(&copy, mode).expect("it is ours");
    text(&copy).to_owned()
}

/// Gives a file to a user, where there is one and we may.
fn own(path: &Path, user: &str) {
    if let Ok(Some(user)) = nix::unistd::User::from_name(user) {
        let _ = nix::unistd::chown(path, Some(user.uid), Some(user.gid));
    }
}

/// Reads a request over TLS, answers, and ends as told.
#[derive(Debug)]
pub struct Ending {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// `close_notify`, then the FIN.
    Notified,
    /// The FIN alone.
    Cut,
}

impl Ending {
    pub fn start(issued: &Issued, answer: &'static [u8], end: End) -> Self {
        let chain = CertificateDer::pem_file_iter(&issued.chain).expect("a file");
        let chain = chain.collect::<Result<Vec<_>, _>>().expect("certificates");
        let key = PrivateKeyDer::from_pem_file(&issued.key).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("known versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a certificate and its key");
        let config = Arc::new(config);
        let listener = TcpListener::bind((LOOPBACK, 0)).expect("a loopback port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                // A client that goes away ends it early; the test sees what it saw.
                let _ = talk(&config, stream, answer, end);
            }
        });
        Self { address, stop, thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn talk(config: &Arc<ServerConfig>, stream: TcpStream, answer: &[u8], end: End) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let connection = ServerConnection::new(Arc::clone(config)).map_err(std::io::Error::other)?;
    let mut tls = StreamOwned::new(connection, stream);
    let mut request = [0; 4096];
    let _ = tls.read(&mut request)?;
    tls.write_all(answer)?;
    tls.flush()?;
    if end == End::Notified {
        tls.conn.send_close_notify();
        tls.flush()?;
    }
    tls.sock.shutdown(std::net::Shutdown::Write)?;
    // Until the client has had it.
    let _ = tls.sock.read(&mut request);
    Ok(())
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the accept.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
