//! The whole engine in one process, on the real ring, against real sockets: from a due time to a line in a file.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use cpra::daemon::{self, Daemon, Plan};
use cpra::domain::monitor::{CodeRule, Dispatch, ScriptCheck};
use cpra::domain::{Check, Codes, Color, Destination, Host, HttpCheck, Monitor, Policy, Target, TcpCheck};
use cpra::queueing::Setup;
use cpra::units::Span;
use cpra::world::Catalog;

fn codes(file: &Path) -> Codes {
    let log = Arc::new(Destination::log(Some(file.to_owned())));
    let mut codes = Codes::default();
    for color in Color::ALL {
        codes.set(color, CodeRule { dispatch: Dispatch::On, notify: Box::new([log.clone()]) });
    }
    codes
}

fn monitor(name: &str, check: Check, address: SocketAddr, path: &str, codes: Codes) -> Monitor {
    let policy = Policy {
        retry_interval: Span::from_millis(100),
        unhealthy_threshold: 2,
        groups: Box::new(["test".into()]),
        codes,
        ..Policy::new(check, Span::from_millis(200), Span::from_millis(200))
    };
    let target = Target { host: Host::Literal(address.ip()), port: address.port(), path: path.into() };
    Monitor { name: name.into(), enabled: true, target, policy }
}

fn http(keep_alive: bool) -> Check {
    Check::Http(HttpCheck { keep_alive, ..HttpCheck::default() })
}

/// An HTTP server that answers 200 while `healthy`, else 503; keeps connections that ask for it.
fn serve(healthy: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let healthy = healthy.clone();
            thread::spawn(move || {
                let mut request = Vec::new();
                let mut buffer = [0; 1024];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    request.extend_from_slice(&buffer[..count]);
                    if !request.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    let status = if healthy.load(Ordering::Relaxed) { "200 OK" } else { "503 Service Unavailable" };
                    let close = request.windows(17).any(|window| window.eq_ignore_ascii_case(b"connection: close"));
                    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok");
                    if stream.write_all(answer.as_bytes()).is_err() || close {
                        return;
                    }
                    request.clear();
                }
            });
        }
    });
    address
}

struct Running {
    daemon: Option<Daemon>,
    api: SocketAddr,
}

fn start(monitors: Vec<Monitor>, folder: &Path) -> Running {
    let api = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = api.local_addr().expect("it is bound");
    let catalog = Catalog::build(monitors, 1).expect("the monitors are sound");
    let plan = Plan { instance: "test".into(), pulse: Setup::fixed(256), ..Plan::new(catalog, api, folder.to_owned()) };
    Running { daemon: Some(daemon::start(plan).expect("the daemon starts")), api: address }
}

impl Running {
    fn get(&self, path: &str) -> String {
        let mut stream = std::net::TcpStream::connect(self.api).expect("the API listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .expect("it takes requests");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }

    /// A sample of the metrics page, by name and labels as printed.
    fn metric(&self, sample: &str) -> f64 {
        let page = self.get("/metrics");
        let line = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.trim().parse().expect("a number"))
    }
}

fn colors(file: &Path, monitor: &str) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("whole lines of JSON"));
    lines
        .filter(|line| line["monitor"] == monitor)
        .map(|line| line["color"].as_str().expect("a color").to_owned())
        .collect()
}

#[test]
fn from_due_to_a_line_in_a_file_and_back_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("notices.jsonl");
    let healthy = Arc::new(AtomicBool::new(true));
    let web = serve(healthy.clone());
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("it is bound")
    };
    let running = start(
        vec![
            monitor("web", http(false), web, "/health", codes(&file)),
            monitor("web/kept", http(true), web, "/health", codes(&file)),
            monitor("port", Check::Tcp(TcpCheck::default()), web, "", codes(&file)),
            monitor("closed", Check::Tcp(TcpCheck::default()), closed, "", codes(&file)),
        ],
        folder.path(),
    );
    support::eventually("three are up and one is down", || {
        running.metric("cpra_monitors{state=\"up\"}") == 3.0 && running.metric("cpra_monitors{state=\"down\"}") == 1.0
    });
    support::eventually("the closed port's red", || colors(&file, "closed") == ["yellow", "red"]);
    let state = running.get("/api/v1/monitors/web/kept");
    assert!(state.contains("\"up\"") && state.contains("L7OK"), "{state}");

    healthy.store(false, Ordering::Relaxed);
    support::eventually("both are red", || {
        colors(&file, "web") == ["yellow", "red"] && colors(&file, "web/kept") == ["yellow", "red"]
    });
    let state = running.get("/api/v1/monitors/web");
    assert!(state.contains("503") && state.contains("\"down\""), "{state}");

    healthy.store(true, Ordering::Relaxed);
    let all = ["yellow", "red", "green"];
    support::eventually("both are green", || colors(&file, "web") == all && colors(&file, "web/kept") == all);
    assert!(colors(&file, "port").is_empty(), "it never failed");
    assert_eq!(running.metric("cpra_monitors_lost"), 0.0);
    assert_eq!(running.metric("cpra_checks_missed_total"), 0.0);
    assert!(running.metric("cpra_checks_total{type=\"tcp\",outcome=\"L4CON\"}") > 0.0, "{}", running.get("/metrics"));

    let daemon = { running }.daemon.take().expect("it runs");
    assert!(daemon.stop(), "everything ends in time");
}

#[test]
fn a_script_turns_red_and_green_and_ends_with_the_daemon() {
    let folder = tempfile::tempdir().expect("a folder");
    // Scripts run as somebody else.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).expect("it is ours");
    let file = folder.path().join("notices.jsonl");
    let healthy = folder.path().join("healthy");
    std::fs::write(&healthy, "").expect("it can be written");
    let script = |text: String| {
        let argv = Box::new(["/bin/sh".into(), "-c".into(), text.into()]);
        Check::Script(ScriptCheck { argv, env: Box::default(), cwd: None })
    };
    let look = format!("[ -e {} ] && echo 'all is well' || {{ echo 'all is lost | a=1'; exit 2; }}", healthy.display());
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let mut hanging = monitor("hanging", script("exec sleep 61.5".to_owned()), nowhere, "", codes(&file));
    (hanging.policy.interval, hanging.policy.timeout) = (Span::from_secs(60), Span::from_secs(60));
    let running = start(vec![monitor("look", script(look), nowhere, "", codes(&file)), hanging], folder.path());
    support::eventually("it is up", || running.metric("cpra_monitors{state=\"up\"}") == 1.0);
    std::fs::remove_file(&healthy).expect("it is there");
    support::eventually("it is red", || colors(&file, "look") == ["yellow", "red"]);
    let state = running.get("/api/v1/monitors/look");
    assert!(state.contains("PROCERR") && state.contains("all is lost (a=1)"), "{state}");
    std::fs::write(&healthy, "").expect("it can be written");
    support::eventually("it is green", || colors(&file, "look") == ["yellow", "red", "green"]);
    assert!(
        running.metric("cpra_checks_total{type=\"script\",outcome=\"PROCOK\"}") > 0.0,
        "{}",
        running.get("/metrics")
    );
    assert_eq!(running.metric("cpra_monitors_lost"), 0.0);

    support::eventually("the other one still hangs", || !sleepers().is_empty());
    let hanging = sleepers();
    let daemon = { running }.daemon.take().expect("it runs");
    assert!(daemon.stop(), "everything ends in time");
    assert_eq!(sleepers().iter().filter(|pid| hanging.contains(pid)).count(), 0, "and so has the script");
}

/// Processes of the script that hangs.
fn sleepers() -> Vec<String> {
    let processes = std::fs::read_dir("/proc").expect("proc").filter_map(Result::ok);
    processes
        .filter(|process| {
            let words = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            words == b"sleep\x0061.5\0"
        })
        .map(|process| process.file_name().to_string_lossy().into_owned())
        .collect()
}
