//! People: by the unix socket, whose kernel says who they are, and over TCP with a token.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::counterparts::support;
use super::daemon::{BINARY, Cpra, Setup, eventually};
use super::{cpra as word, json, post, say};

const SECRET: &str = "dG9rZW4tb2Ytc29tZS1sZW5ndGg";

/// One monitor that is up, one that is refused.
fn monitors(up: &TcpListener) -> String {
    let port = up.local_addr().expect("it is bound").port();
    let pulse = "type: tcp, interval: 500ms, timeout: 400ms, healthy_threshold: 1, unhealthy_threshold: 1";
    format!(
        "- name: shop/web\n  groups: [shop]\n  pulse: {{{pulse}, config: {{host: 127.0.0.1, port: {port}}}}}\n\
         - name: shop/db\n  groups: [shop, db]\n  pulse: {{{pulse}, config: {{host: 127.0.0.1, port: 1}}}}\n"
    )
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a free port")
}

fn state(cpra: &Cpra, name: &str) -> String {
    json(&cpra.get(&format!("/api/v1/monitors/{name}")).1)["state"].as_str().unwrap_or("?").to_owned()
}

#[test]
fn the_command_line_reaches_its_daemon() {
    let up = listener();
    let cpra = Setup::new().monitors(&monitors(&up)).run();
    let mode = fs::metadata(cpra.path("cpra.sock")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    eventually("the one is up, the other down", || {
        state(&cpra, "shop/web") == "up" && state(&cpra, "shop/db") == "down"
    });

    // Counters are copied out a few times a second.
    eventually("the counters say so too", || cpra.metrics().state("up") == 1.0 && cpra.metrics().state("down") == 1.0);

    let said = word(&cpra, &["status"]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{said:?}");
    assert!(
        said.stdout.contains("monitors  2 in all: down 1, up 1") && said.stdout.contains("ready     yes"),
        "{said:?}"
    );
    assert!(said.stdout.contains("shop/db for ") && said.stdout.contains("refused"), "{said:?}");
    assert_eq!(json(&word(&cpra, &["status", "--json"]).stdout)["monitors"]["total"], 2);

    let said = word(&cpra, &["monitors", "--state", "down"]);
    assert!(said.code == Some(0) && said.stdout.lines().count() == 2 && said.stdout.contains("shop/db"), "{said:?}");
    let said = word(&cpra, &["monitors", "--group", "shop", "--q", "web", "--json"]);
    assert_eq!(json(&said.stdout)["name"], "shop/web");
    let said = word(&cpra, &["monitors", "--state", "dwon"]);
    assert!(said.code == Some(1) && said.stderr.contains("did you mean down"), "{said:?}");

    let said = word(&cpra, &["disable", "shop/web"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(0), "shop/web is disabled\n"), "{said:?}");
    eventually("it is disabled", || state(&cpra, "shop/web") == "disabled");
    let said = word(&cpra, &["enable", "shop/web", "--json"]);
    assert_eq!(json(&said.stdout)["done"], "enable");
    eventually("it is up again", || state(&cpra, "shop/web") == "up");
    let said = word(&cpra, &["disable", "shop/wbe"]);
    assert!(said.code == Some(1) && said.stderr.contains("did you mean \"shop/web\""), "{said:?}");

    let uid = nix::unistd::geteuid();
    let stderr = cpra.stderr();
    let audit: Vec<_> = stderr.lines().filter(|line| line.contains("audit")).collect();
    assert_eq!(audit.len(), 2, "{stderr}");
    assert!(
        audit[0].contains("shop/web")
            && audit[0].contains("disable")
            && audit[0].contains(&format!("(uid {uid}, process ")),
        "{audit:?}"
    );
    assert_eq!(cpra.metrics().value("cpra_monitors_lost"), 0.0);
}

#[test]
fn without_a_daemon_the_command_line_says_where_it_looked() {
    let folder = tempfile::tempdir().expect("a folder");
    let said = say(folder.path(), &[BINARY, "status"]);
    let socket = folder.path().join("cpra.sock");
    assert!(said.code == Some(3) && said.stdout.is_empty(), "{said:?}");
    assert!(said.stderr.contains(&*socket.to_string_lossy()) && said.stderr.contains("--api.socket"), "{said:?}");
    // A dead one's file, and something that is no HTTP.
    drop(UnixListener::bind(&socket).expect("it binds"));
    let said = say(folder.path(), &[BINARY, "monitors"]);
    assert!(said.code == Some(3) && said.stderr.contains("nobody listens"), "{said:?}");
    let said = say(folder.path(), &[BINARY, "--api.socket", "/nowhere/x.sock", "disable", "a"]);
    assert!(said.code == Some(3) && said.stderr.contains("/nowhere/x.sock"), "{said:?}");
    // Wrong arguments of a subcommand are not "warn", which a check's 2 would be.
    assert_eq!(say(folder.path(), &[BINARY, "disable"]).code, Some(3));
    assert_eq!(say(folder.path(), &[BINARY, "--nonsense"]).code, Some(2));
    assert_eq!(say(folder.path(), &[BINARY, "status", "--help"]).code, Some(0));
}

#[test]
fn a_socket_outlives_no_daemon_and_is_taken_from_none() {
    let up = listener();
    let mut first = Setup::new().monitors(&monitors(&up)).run();
    let socket = first.path("cpra.sock");
    let path = socket.to_str().expect("text").to_owned();
    // A live one is left alone, and its owner named.
    let mut second = Setup::new().argument("--api.socket").argument(&path).start();
    assert_eq!(second.ends_within(Duration::from_secs(15)).code(), Some(1));
    let owner = format!("process {} (cpra)", first.child().id());
    let stderr = second.stderr();
    assert!(stderr.contains(&owner) && stderr.contains("--api.socket"), "{stderr}");
    assert_eq!(word(&first, &["status"]).code, Some(0));

    // After kill -9 its file lies there; the next one takes its place, and removes its own at its end.
    first.child().kill().expect("our own child");
    first.child().wait().expect("it has ended");
    assert!(socket.exists());
    let mut third = Setup::new().monitors(&monitors(&up)).argument("--api.socket").argument(&path).run();
    assert_eq!(word(&first, &["status"]).code, Some(0));
    third.signal(Signal::SIGTERM);
    assert_eq!(third.ends_within(Duration::from_secs(15)).code(), Some(0));
    assert!(!socket.exists());

    // Something else that is there stays.
    fs::write(&socket, "precious").expect("written");
    let mut fourth = Setup::new().argument("--api.socket").argument(&path).start();
    assert_eq!(fourth.ends_within(Duration::from_secs(15)).code(), Some(1));
    assert_eq!(fs::read_to_string(&socket).expect("it is there"), "precious");
}

#[test]
fn the_socket_knows_who_is_there() {
    const NAME: &str = "the_socket_knows_who_is_there";
    if !nix::unistd::geteuid().is_root() {
        return support::skip(NAME, "only root can become somebody else");
    }
    let Some(nobody) = nix::unistd::User::from_name("nobody").expect("the users can be read") else {
        return support::skip(NAME, "this host has no user nobody");
    };
    let up = listener();
    let folder = tempfile::Builder::new().prefix("cpra-control-").tempdir().expect("a folder");
    let binary = folder.path().join("cpra");
    fs::copy(BINARY, &binary).expect("room for a copy");
    for path in [folder.path(), &binary] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    let (uid, gid) = (format!("--reuid={}", nobody.uid), format!("--regid={}", nobody.gid));
    let binary = binary.to_str().expect("text");
    let as_nobody = ["setpriv", &uid, &gid, "--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--"];
    let socket = folder.path().join("cpra.sock");
    let path = socket.to_str().expect("text");
    let ask = |words: &[&str]| {
        let all: Vec<&str> =
            as_nobody.iter().copied().chain([binary, "--api.socket", path]).chain(words.iter().copied()).collect();
        say(folder.path(), &all)
    };

    let cpra = Setup::new().monitors(&monitors(&up)).argument("--api.socket").argument(path).run();
    let said = ask(&["status"]);
    assert!(said.code == Some(3) && said.stderr.contains("not open to this user"), "{said:?}");
    // Even where somebody has opened the file to all: looking is one thing, changing another.
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).expect("it is ours");
    assert_eq!(ask(&["status"]).code, Some(0));
    let said = ask(&["disable", "shop/web"]);
    assert!(said.code == Some(1) && said.stderr.contains(&format!("uid {} may read", nobody.uid)), "{said:?}");
    assert!(state(&cpra, "shop/web") != "disabled" && !cpra.stderr().contains("audit"));
    drop(cpra);

    // A daemon of nobody obeys nobody, and root.
    fs::remove_file(&socket).expect("it was killed");
    std::os::unix::fs::chown(folder.path(), Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw())).expect("it is ours");
    let setup = Setup::new();
    std::os::unix::fs::chown(setup.folder(), Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw())).expect("it is ours");
    let setup = setup.monitors(&monitors(&up)).argument("--api.socket").argument(path);
    let cpra = setup.binary(std::path::Path::new(binary)).through(&as_nobody).run();
    assert_eq!(ask(&["disable", "shop/web"]).code, Some(0));
    eventually("it is disabled", || state(&cpra, "shop/web") == "disabled");
    assert_eq!(say(folder.path(), &[BINARY, "--api.socket", path, "enable", "shop/web"]).code, Some(0));
    eventually("it is watched again", || state(&cpra, "shop/web") == "up");
    let stderr = cpra.stderr();
    assert!(stderr.contains("nobody (uid ") && stderr.contains("root (uid 0"), "{stderr}");
}

#[test]
fn over_tcp_changes_need_the_token() {
    let up = listener();
    let plain = Setup::new().monitors(&monitors(&up)).run();
    let path = "/api/v1/monitors/shop/web/disable";
    let (status, body) = post(plain.api, path, &format!("Authorization: Bearer {SECRET}\r\n"), "");
    assert!(status == 403 && body.contains("token_file"), "{status} {body}");
    assert_eq!(post(plain.api, "/api/v1/status", "", "").0, 405);
    drop(plain);

    let setup = Setup::new();
    let file = setup.folder().join("token");
    fs::write(&file, format!("{SECRET}\n")).expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let cpra = setup.settings("[api]\ntoken_file = \"token\"\n").monitors(&monitors(&up)).run();
    assert_eq!(post(cpra.api, path, "", "").0, 401);
    assert_eq!(post(cpra.api, path, "Authorization: Bearer dG9rZW4tb2Ytc29tZS1sZW5ndGH\r\n", "").0, 401);
    assert_ne!(state(&cpra, "shop/web"), "disabled");
    let (status, body) = post(cpra.api, path, &format!("Authorization: Bearer {SECRET}\r\n"), "");
    assert_eq!((status, json(&body)["done"].as_str()), (200, Some("disable")), "{body}");
    eventually("it is disabled", || state(&cpra, "shop/web") == "disabled");
    let check = "/api/v1/monitors/shop/db/check";
    let before = cpra.metrics().sum("cpra_checks_total{", "tcp");
    assert_eq!(post(cpra.api, check, &format!("Authorization: Bearer {SECRET}\r\n"), "").0, 200);
    eventually("it is checked", || cpra.metrics().sum("cpra_checks_total{", "tcp") > before);
    assert!(cpra.stderr().contains("the token, from 127.0.0.1:") && !cpra.said().contains(SECRET), "{}", cpra.said());
}

#[test]
fn a_token_that_others_can_read_is_none() {
    let setup = Setup::new();
    let file = setup.folder().join("token");
    fs::write(&file, SECRET).expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("it is ours");
    let mut cpra = setup.settings("[api]\ntoken_file = \"token\"\n").start();
    assert_eq!(cpra.ends_within(Duration::from_secs(15)).code(), Some(1));
    let stderr = cpra.stderr();
    assert!(stderr.contains("mode 0644") && stderr.contains("chmod 600") && !stderr.contains(SECRET), "{stderr}");
    let mut cpra = Setup::new().settings("[api]\ntoken_file = \"nowhere\"\n").start();
    assert_eq!(cpra.ends_within(Duration::from_secs(15)).code(), Some(1));
    assert!(cpra.stderr().contains("token_file nowhere cannot be read"), "{}", cpra.stderr());
}
