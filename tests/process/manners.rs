//! How it behaves towards the person who starts it: words, exit codes, and what must not stop it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::counterparts::free_port;
use super::counterparts::support;
use super::daemon::{BINARY, Cpra, Setup, eventually, get, loopback};
use super::targets::{Closed, Targets, file, http, tcp};

const QUICK: &str = "interval: 200ms, timeout: 200ms, unhealthy_threshold: 1, healthy_threshold: 1";

/// Runs to the end, which comes by itself.
fn output(setup: Setup) -> (Option<i32>, String, String) {
    let mut cpra = setup.start();
    let status = cpra.ends_within(Duration::from_secs(15));
    (status.code(), cpra.stdout(), cpra.stderr())
}

#[test]
fn a_missing_monitors_file_is_a_warning() {
    let mut cpra = Setup::new().argument("--yaml").argument("nowhere.yaml").run();
    let (status, body) = cpra.get("/readyz");
    assert!(status == 503 && body.contains("--yaml"), "{status} {body}");
    assert_eq!(cpra.get("/healthz").0, 200);
    thread::sleep(Duration::from_millis(500));
    assert!(cpra.is_running());
    let stderr = cpra.stderr();
    let warning = "Warning: YAML file nowhere.yaml not found, starting without loading monitors";
    assert_eq!(stderr.lines().next(), Some(warning), "{stderr}");
    assert!(cpra.stdout().contains("no monitors: there is no nowhere.yaml"), "{}", cpra.stdout());
    cpra.signal(Signal::SIGTERM);
    assert_eq!(cpra.ends_within(Duration::from_secs(10)).code(), Some(0));
}

#[test]
fn without_arguments_it_says_what_to_do_next() {
    let cpra = Setup::new().run();
    assert_eq!(cpra.get("/readyz").0, 503);
    assert!(cpra.stdout().contains("name a file with --yaml FILE"), "{}", cpra.stdout());
    assert_eq!(cpra.stderr(), "");
}

const WRONG: &str = "\
monitors:
  - name: shop/web
    pulse:
      intervall: 30s
      interval: 30s
      timeout: 5s
      type: tcp
      config: {host: 127.0.0.1, port: 1}
";

#[test]
fn a_wrong_file_starts_nothing() {
    let setup = Setup::new().monitors(WRONG);
    let api = setup.api();
    let (code, stdout, stderr) = output(setup);
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    let first = r#"monitors.yaml:4:7: shop/web: unknown key "intervall", did you mean "interval"?"#;
    assert_eq!(stderr.lines().next(), Some(first), "{stderr}");
    assert!(stderr.contains("^^^^^^^^^") && stderr.contains("nothing was started"), "{stderr}");
    assert!(get(api, "/healthz").is_none());

    let (code, stdout, stderr) = output(Setup::new().settings("[pulse]\nmax_workerz = 5\n"));
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(stderr.starts_with("cpra.toml:2:1: ") && stderr.contains("\"max_workers\""), "{stderr}");
}

#[test]
fn the_start_says_how_many_workers_for_which_promise() {
    // As those have it who come from the original: 5 checks a second that take a second each.
    let targets = Targets::start(1, Duration::ZERO);
    let monitors = file(QUICK, &tcp("a", targets.addresses[0]));
    let mut cpra = Setup::new()
        .monitors(&monitors)
        .settings("[pulse]\nmin_workers = 1\nmax_workers = 2\nservice_time = \"1ms\"\n")
        .through(&["env", "CPRA_SIZING_TAU_MS=1000", "CPRA_SIZING_SLO_MS=5000", "CPRA_SIZING_HEADROOM_PCT=0"])
        .run();
    let sizing =
        "  sizing    pulse: 2 workers for 95 % within 5 s (5.0/s at 1 s each: 5.0 erlangs)   code: 4 workers\n";
    assert!(cpra.stdout().contains(sizing), "{}", cpra.stdout());
    let finding = "[pulse] max_workers: too low: allows 2 workers for 95 % within 5 s";
    assert!(cpra.stderr().contains(finding), "{}", cpra.stderr());
    assert!(cpra.get("/readyz").1.contains("raise it to "), "{}", cpra.get("/readyz").1);
    // What was assumed was wrong by far, and what is measured counts from now on.
    let measured = |cpra: &Cpra| {
        let pipelines: serde_json::Value = serde_json::from_str(&cpra.get("/api/v1/pipelines").1).expect("JSON");
        pipelines["pipelines"][0].clone()
    };
    eventually("checks have been measured", || measured(&cpra)["tightest"].is_object());
    let pulse = measured(&cpra);
    assert_eq!((&pulse["pipeline"], &pulse["slo"]["within_seconds"]), (&"pulse".into(), &5.0.into()), "{pulse}");
    let class = &pulse["classes"][0];
    assert_eq!((&class["class"], &class["workers_needed"]), (&"tcp".into(), &1.into()), "{pulse}");
    assert!(class["service_seconds"]["mean"].as_f64().is_some_and(|mean| mean < 0.2), "{pulse}");
    assert!(cpra.get("/metrics").1.contains("cpra_pipeline_workers{pipeline=\"pulse\",class=\"tcp\"}"));
    cpra.signal(Signal::SIGTERM);
    assert_eq!(cpra.ends_within(Duration::from_secs(10)).code(), Some(0));
}

#[test]
fn check_config_answers_by_its_exit_code() {
    let right = file(QUICK, &tcp("a", loopback(1)));
    let (code, stdout, stderr) = output(Setup::new().monitors(&right).argument("--check-config"));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(stdout, "1 monitor from monitors.yaml: 0 errors, 0 warnings\n");
    let (code, stdout, stderr) = output(Setup::new().monitors(WRONG).argument("--check-config"));
    assert_eq!(code, Some(1));
    assert!(stdout.ends_with("1 error, 0 warnings\n"), "{stdout}");
    assert!(stderr.starts_with("monitors.yaml:4:7: "), "{stderr}");
    let missing = Setup::new().argument("--yaml").argument("nowhere.yaml").argument("--check-config");
    assert_eq!(output(missing).0, Some(1));
}

#[test]
fn a_taken_port_names_its_owner_and_the_flag() {
    let setup = Setup::new();
    let _taken = TcpListener::bind(setup.api()).expect("it was free");
    let (code, stdout, stderr) = output(setup);
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    let owner = format!("process {} (", std::process::id());
    assert!(stderr.contains(&owner) && stderr.contains("--api.listen"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn a_taken_profiling_port_is_a_warning_and_a_free_one_gives_profiles() {
    let taken = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = taken.local_addr().expect("it is bound");
    let mut cpra = Setup::new().profiles(address).run();
    assert_eq!(cpra.get("/healthz").0, 200);
    let stderr = cpra.stderr();
    let warning = stderr.lines().find(|line| line.contains("WARN")).unwrap_or_else(|| panic!("no warning: {stderr}"));
    assert!(warning.contains("--pprof.addr") && warning.contains(&address.to_string()), "{warning}");
    assert!(cpra.is_running());
    drop(cpra);

    let targets = Targets::start(1, Duration::ZERO);
    let profiles = loopback(free_port());
    let cpra = Setup::new().profiles(profiles).monitors(&file(QUICK, &http("web", targets.addresses[0]))).run();
    eventually("it is up", || cpra.metrics().state("up") == 1.0);
    let (status, profile) = get(profiles, "/debug/pprof/profile?seconds=1").expect("an answer");
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&profile));
    assert_eq!(profile[..2], [0x1f, 0x8b], "gzip, as `go tool pprof` expects it");
    let mut message = Vec::new();
    flate2::read::GzDecoder::new(&profile[..]).read_to_end(&mut message).expect("it unpacks");
    // Field 1, a message: the sample types.
    assert_eq!(message.first(), Some(&0x0a));
    // The sampling signals interrupt system calls; no check minds.
    let metrics = cpra.metrics();
    assert_eq!((metrics.failures(), metrics.state("up")), (vec![], 1.0));
}

#[test]
fn a_closed_standard_output_does_not_end_it() {
    let (targets, closed) = (Targets::start(1, Duration::ZERO), Closed::new());
    let monitors = || file(QUICK, &(http("web", targets.addresses[0]) + &tcp("down", closed.address())));
    // Closed from the start, as some init scripts do it.
    let mut closed_at_once =
        Setup::new().through(&["sh", "-c", "exec \"$@\" >&- 2>&-", "sh"]).monitors(&monitors()).run();
    // And a reader that takes a line and goes: `cpra | head -1`.
    let mut read_once = Setup::new().stdout(Stdio::piped()).monitors(&monitors()).run();
    let mut line = String::new();
    let mut reader = BufReader::with_capacity(16, read_once.child().stdout.take().expect("it is a pipe"));
    reader.read_line(&mut line).expect("a line of the banner");
    assert!(line.starts_with("cpra "), "{line}");
    drop(reader);
    for cpra in [&mut closed_at_once, &mut read_once] {
        for well in [false, true] {
            targets.set_well(well);
            let state = if well { "up" } else { "down" };
            eventually("the target's change is seen", || cpra.metrics().state(state) >= if well { 1.0 } else { 2.0 });
        }
        eventually("all is told", || cpra.notices("notices.jsonl").len() >= 3);
        assert!(cpra.is_running());
        cpra.signal(Signal::SIGTERM);
        assert_eq!(cpra.ends_within(Duration::from_secs(15)).code(), Some(0), "{}", cpra.said());
    }
}

#[test]
fn nobody_in_particular_can_run_it() {
    let is_root = nix::unistd::geteuid().is_root();
    let setup = Setup::new();
    let targets = Targets::start(1, Duration::ZERO);
    let closed = Closed::new();
    let text = file(QUICK, &(http("web", targets.addresses[0]) + &tcp("down", closed.address())));
    let mut cpra = if is_root {
        // The folder of the build need not be open to everybody; a copy in the test's own one is.
        let binary = setup.folder().join("cpra");
        fs::copy(BINARY, &binary).expect("room for a copy");
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).expect("it is ours");
        let nobody = nix::unistd::User::from_name("nobody").expect("the users can be read");
        let Some(nobody) = nobody else {
            return support::skip("nobody_in_particular_can_run_it", "this host has no user nobody");
        };
        std::os::unix::fs::chown(setup.folder(), Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw()))
            .expect("it is ours");
        let (uid, gid) = (format!("--reuid={}", nobody.uid), format!("--regid={}", nobody.gid));
        let words = ["setpriv", &uid, &gid, "--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--"];
        setup.binary(&binary).monitors(&text).through(&words).run()
    } else {
        setup.monitors(&text).run()
    };
    if is_root {
        let status = fs::read_to_string(format!("/proc/{}/status", cpra.child().id())).expect("it runs");
        assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    }
    eventually("the one is up, the other down", || {
        let metrics = cpra.metrics();
        metrics.state("up") == 1.0 && metrics.state("down") == 1.0
    });
    eventually("the notice is there", || !cpra.notices("notices.jsonl").is_empty());
    assert_eq!(cpra.metrics().outcomes("VOID:"), 0.0);
    cpra.signal(Signal::SIGTERM);
    assert_eq!(cpra.ends_within(Duration::from_secs(15)).code(), Some(0));
    assert!(!cpra.stderr().contains("ERROR"), "{}", cpra.stderr());
}

#[test]
fn help_fits_on_a_screen() {
    let Output { status, stdout, stderr } = Command::new(BINARY).arg("--help").output().expect("it can be started");
    let help = String::from_utf8(stdout).expect("text");
    assert!(status.success() && stderr.is_empty());
    assert!(help.lines().count() <= 40 && help.lines().all(|line| line.chars().count() <= 100), "{help}");
    for word in ["--yaml", "--config", "--check-config", "--api.listen", "Examples:", "configs/quickstart.yaml"] {
        assert!(help.contains(word), "{word}: {help}");
    }
}
