//! The daemon file, its environment and its flags.

use super::*;
use crate::config::Settings;
use crate::config::daemon::{Breaker, EbpfHook, EbpfMode, Flags, LogFormat, SCHEMA, Share, Store, variable};
use crate::domain::monitor::Secret;
use crate::ring::Family;
use crate::units::Span;

fn read(text: &str) -> (Settings, Vec<String>) {
    let (settings, diagnostics) = Settings::compose("c.toml", text, |_| None, &Flags::default());
    (settings, diagnostics.iter().map(ToString::to_string).collect())
}

#[test]
fn the_documented_file_is_the_defaults() {
    let (settings, diagnostics) = read(include_str!("../../../../configs/cpra.toml"));
    assert_eq!((settings, diagnostics), (Settings::default(), Vec::new()));
}

#[test]
fn the_documented_file_names_every_key_and_variable() {
    let text = include_str!("../../../../configs/cpra.toml");
    for (section, keys) in SCHEMA {
        assert!(section.is_empty() || text.contains(&format!("[{section}]")), "{section}");
        for key in keys {
            assert!(text.contains(&format!("\n{key} = ")) || text.contains(&format!("\n# {key} = ")), "{key}");
            let variable = variable(section, key).unwrap_or_default();
            assert!(text.contains(&variable), "{variable}");
        }
    }
}

/// The file with the `# ` before every key and section removed.
#[test]
fn what_the_documented_file_shows_commented_out_loads() {
    let is_shown = |line: &&str| {
        let word = line.split([' ', '=']).next().unwrap_or_default();
        line.starts_with('[')
            || line.contains(" = ") && !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
    };
    let uncommented =
        |line: &str| line.strip_prefix("# ").filter(is_shown).map_or_else(|| line.to_owned(), str::to_owned);
    let text: Vec<String> = include_str!("../../../../configs/cpra.toml").lines().map(uncommented).collect();
    let (settings, said) = read(&text.join("\n"));
    let errors: Vec<_> = said.iter().filter(|line| !line.contains(": warning: ")).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    assert!(settings.providers.names().count() >= 10 && settings.resolver.servers.len() == 2, "{settings:#?}");
    let folders = Folders { providers: settings.providers, ..folders() };
    let report = crate::config::read_all(&[], &folders, &mut |_| {});
    // Only what this host does not have.
    let missing = ["is not there", "cannot be looked at", "which is empty or not set"];
    let is_missing = |said: &&crate::config::Diagnostic| missing.iter().any(|missing| said.message.contains(missing));
    let wrong: Vec<_> =
        report.diagnostics.iter().filter(|said| said.severity == crate::config::Severity::Error).collect();
    assert!(wrong.iter().all(is_missing) && wrong.len() >= 10, "{}", report.diagnostics);
}

#[test]
fn every_key_changes_the_settings() {
    type Change = fn(&mut Settings);
    let rows: &[(&str, Change)] = &[
        ("instance = \"mon-1\"", |s| s.instance = Some("mon-1".into())),
        ("queue_capacity = 1_000", |s| s.queue_capacity = 1_000),
        ("batch_size = 4096", |s| s.batch_size = 4096),
        ("[api]\nlisten = \"[::1]:80\"", |s| s.api.listen = "[::1]:80".parse().expect("an address")),
        ("api.listen = \"localhost:80\"", |s| s.api.listen = "127.0.0.1:80".parse().expect("an address")),
        ("[api]\nexternal_url = \"https://c.example\"", |s| s.api.external_url = Some("https://c.example".into())),
        ("[histograms]\ndir = \"/x\"", |s| s.histograms.dir = Some("/x".into())),
        ("[histograms]\ninterval = \"10s\"", |s| s.histograms.interval = Span::from_secs(10)),
        ("[pulse]\nmin_workers = 1", |s| s.pulse.min_workers = 1),
        ("[pulse]\nmax_workers = 200000", |s| s.pulse.max_workers = 200_000),
        ("[pulse]\nslo = \"200ms\"", |s| s.pulse.slo = Span::from_millis(200)),
        ("[pulse]\nslo_percentile = 99", |s| s.pulse.slo_percentile = 99),
        ("[pulse]\nwait_slo = \"5ms\"", |s| s.pulse.wait_slo = Some(Span::from_millis(5))),
        ("[pulse]\nservice_time = \"500us\"", |s| s.pulse.service_time = Span::from_micros(500)),
        ("[pulse]\nheadroom = 0.3", |s| s.pulse.headroom = Share(300)),
        ("[pulse]\nmax_echo_rate = 1000", |s| s.pulse.max_echo_rate = 1_000),
        ("[pulse]\nmax_syn_rate = 5_000_000", |s| s.pulse.max_syn_rate = 5_000_000),
        ("[code]\nfallback = \"log\"", |_| {}),
        ("[code]\nmin_workers = 1", |s| s.code.min_workers = 1),
        ("[code]\nmax_workers = 1024", |s| s.code.max_workers = 1_024),
        ("[code]\nslo = \"2s\"", |s| s.code.slo = Span::from_secs(2)),
        ("[log]\nformat = \"json\"", |s| s.log.format = LogFormat::Json),
        ("[security]\nlog_dirs = [\"/a\", \"/b\"]", |s| s.security.log_dirs = Some(vec!["/a".into(), "/b".into()])),
        ("[security]\nsecret_dirs = [\"/a\"]", |s| s.security.secret_dirs = Some(vec!["/a".into()])),
        ("[security]\nuser = \"cpra\"", |s| s.security.user = Some("cpra".into())),
        ("[security]\ndrop_capabilities = true", |s| s.security.drop_capabilities = true),
        ("[ebpf]\nmode = \"off\"", |s| s.ebpf.mode = EbpfMode::Off),
        ("[ebpf]\nmode = \"require\"", |s| s.ebpf.mode = EbpfMode::Require),
        ("[ebpf]\nhook = \"xdp\"", |s| s.ebpf.hook = EbpfHook::Xdp),
        ("[ebpf]\nhook = \"clsact\"", |s| s.ebpf.hook = EbpfHook::Clsact),
        ("[ebpf]\ninterfaces = [\"eth0\", \"veth*\"]", |s| {
            s.ebpf.interfaces = vec!["eth0".into(), "veth*".into()];
        }),
        ("[security]\nscript_user = \"nobody\"", |s| s.security.script_user = Some("nobody".into())),
        ("[api]\nsocket = \"/run/x.sock\"", |s| s.api.socket = Some("/run/x.sock".into())),
        ("[api]\ntoken_file = \"/etc/cpra/token\"", |s| s.api.token_file = Some("/etc/cpra/token".into())),
        ("[resolver]\nservers = [\"10.0.0.53\", \"[::1]:5353\"]", |s| {
            s.resolver.servers = ["10.0.0.53:53", "[::1]:5353"].map(|a| a.parse().expect("an address")).to_vec();
        }),
        ("[resolver]\ntimeout = \"1s\"", |s| s.resolver.timeout = Some(Span::from_secs(1))),
        ("[resolver]\nprefer = \"ipv6\"", |s| s.resolver.prefer = Family::V6),
        ("[code]\nrepeat_interval = \"1h\"", |s| s.code.repeat_interval = Some(Span::from_secs(3_600))),
        ("[watchdog]\nurl = \"https://w.example/x\"", |s| {
            s.watchdog.url = Some(Secret::new("https://w.example/x"));
        }),
        ("[watchdog]\ninterval = \"10s\"", |s| s.watchdog.interval = Span::from_secs(10)),
    ];
    for (text, change) in rows {
        let mut expected = Settings::default();
        change(&mut expected);
        assert_eq!(read(text), (expected, Vec::new()), "{text}");
    }
    // Read, and said to be of no effect.
    let later: &[(&str, Change)] = &[
        ("[intervention]\nmax_workers = 1", |s| s.intervention.max_workers = 1),
        ("[intervention]\ncooldown = \"1m\"", |s| s.intervention.cooldown = Span::from_secs(60)),
        ("[intervention]\nactions_per_minute = 1", |s| s.intervention.actions_per_minute = 1),
        ("[intervention]\nred_after = \"1m\"", |s| s.intervention.red_after = Span::from_secs(60)),
        ("[intervention]\nstartup_grace = \"1s\"", |s| s.intervention.startup_grace = Span::from_secs(1)),
        ("[intervention]\nbreaker = { share = 0.5, min_failing = 2 }", |s| {
            s.intervention.breaker = Breaker { share: Share(500), min_failing: 2 };
        }),
        ("[intervention]\nallow = [\"docker\"]", |s| s.intervention.allow = Some(vec!["docker".into()])),
        ("[intervention]\ndry_run = true", |s| s.intervention.dry_run = true),
        ("[blind]\ncanaries = [\"a\"]", |s| s.blind.canaries = vec!["a".into()]),
    ];
    for (text, change) in later {
        let mut expected = Settings::default();
        change(&mut expected);
        let (settings, said) = read(text);
        assert_eq!(settings, expected, "{text}");
        assert!(said.len() == 1 && said[0].contains("warning: ") && said[0].contains("no effect"), "{text}: {said:?}");
    }
}

#[test]
fn the_store_is_bounded_by_age_and_size() {
    let (settings, diagnostics) = read("[store]\npath = \"/x\"\nmax_age = \"48h\"\nmax_size = \"512MiB\"");
    let expected = Store { path: Some("/x".into()), max_age: Span::from_secs(48 * 3_600), max_size: 512 << 20 };
    assert_eq!((settings.store, diagnostics.len()), (expected, 0));
    for wrong in ["1MiB", "2000GiB", "12", "1TiB", "-1GiB"] {
        let (settings, diagnostics) = read(&format!("[store]\nmax_size = \"{wrong}\""));
        assert_eq!((settings.store, diagnostics.len()), (Store::default(), 1), "{wrong}");
    }
}

#[test]
fn faults_come_all_at_once_with_their_places() {
    let text = "batch_sise = 3\nqueue_capacity = \"many\"\nbatch_size = 0x10\n[api]\nlisten = \":9860\"\nexternal_url = \"https://u:p@h/\"\n\
                [pulse]\nmax_workers = 0\n[watchdog]\nurl = \"https://u:p@h/\"\n[apj]\n[log]\nformat = \"jsn\"\n[security]\nlog_dirs = [\"x\"]\n[code]\nfallback = 1\n";
    let (_, diagnostics) = read(text);
    let found: Vec<&str> = diagnostics.iter().filter_map(|text| text.lines().next()).collect();
    assert_eq!(
        found,
        [
            "c.toml:1:1: unknown key \"batch_sise\", did you mean \"batch_size\"?",
            "c.toml:2:18: queue_capacity \"many\" is no whole number: write one from 16 to 16777216",
            "c.toml:3:14: batch_size \"0x10\" is no whole number: write one from 1 to 4096",
            "c.toml:5:10: listen \":9860\" has no address: write \"127.0.0.1:9860\", or \"0.0.0.0:9860\" for every interface",
            "c.toml:6:16: external_url has a user or a password in it: write it like \"https://cpra.example.com\"",
            "c.toml:8:15: max_workers 0 is out of range: 1 to 1000000",
            "c.toml:10:7: url has a user or a password in it: say who asks with the keys for that",
            "c.toml:11:2: unknown key \"apj\", did you mean \"api\"?",
            "c.toml:13:10: format \"jsn\" is unknown, did you mean \"json\"?",
            "c.toml:15:12: log_dirs \"x\" is not absolute: write the whole path, without \"..\"",
            "c.toml: [code] fallback \"1\" is unknown: write log, or the name of a [providers.NAME]",
        ]
    );
    assert_eq!(diagnostics[0].lines().nth(2), Some("   | ^^^^^^^^^^"));
    for broken in ["a = ", "[api\n", "x = \"\u{7}\"", "= 1", "[api]\n[api]\n", "instance = \"a\"\ninstance = \"b\""] {
        assert!(read(broken).1.iter().any(|text| text.starts_with("c.toml:")), "{broken}");
    }
}

#[test]
fn the_environment_beats_the_file_and_a_flag_beats_both() {
    let text = "queue_capacity = 100\nbatch_size = 7\n[api]\nlisten = \"127.0.0.1:1\"\n[log]\nformat = \"json\"";
    let environment = |name: &str| match name {
        "CPRA_API_LISTEN" => Some("127.0.0.1:2".to_owned()),
        "CPRA_BATCH_SIZE" => Some("8".to_owned()),
        "CPRA_SECURITY_LOG_DIRS" => Some("/a:/b".to_owned()),
        "CPRA_PULSE_MAX_WORKERS" => Some("lots".to_owned()),
        "CPRA_RESOLVER_SERVERS" => Some("10.0.0.1, ::1".to_owned()),
        _ => None,
    };
    let flags = Flags { api_listen: Some("127.0.0.1:3".parse().expect("an address")), ..Flags::default() };
    let (settings, diagnostics) = Settings::compose("c.toml", text, environment, &flags);
    assert_eq!((settings.queue_capacity, settings.batch_size, settings.api.listen.port()), (100, 8, 3));
    assert_eq!(settings.log.format, LogFormat::Json);
    assert_eq!(settings.resolver.servers.len(), 2);
    assert_eq!(settings.security.log_dirs, Some(vec!["/a".into(), "/b".into()]));
    assert_eq!(
        diagnostics.to_string(),
        "CPRA_PULSE_MAX_WORKERS: max_workers \"lots\" is no whole number: write one from 1 to 1000000\n"
    );
}

#[test]
fn promises_and_bounds_must_go_together() {
    for (text, expected) in [
        ("[pulse]\nslo = \"999us\"", "c.toml:2:7: slo 999us is too short: at least 1ms"),
        ("[code]\nslo = \"0s\"", "c.toml:2:7: slo 0s is too short: at least 1ms"),
        ("[pulse]\nslo_percentile = 100", "c.toml:2:18: slo_percentile 100 is out of range: 1 to 99"),
        (
            "[pulse]\nheadroom = 1.5",
            "c.toml:2:12: headroom \"1.5\" is no share: write a number from 0 to 1, such as 0.15",
        ),
        ("[pulse]\nmax_echo_rate = 999", "c.toml:2:17: max_echo_rate 999 is out of range: 1000 to 100000000"),
        ("[pulse]\nservice_time = \"9us\"", "c.toml:2:16: service_time 9us is too short: at least 10us"),
        ("[pulse]\nmax_workers = 63", "c.toml: [pulse] min_workers 64 is more than max_workers 63: lower it"),
        ("[code]\nmin_workers = 65", "c.toml: [code] min_workers 65 is more than max_workers 64: lower it"),
        ("[code]\nmax_workers = 1025", "c.toml:2:15: max_workers 1025 is out of range: 1 to 1024"),
        (
            "[pulse]\nwait_slo = \"101ms\"",
            "c.toml: warning: [pulse] wait_slo 101ms is longer than slo 100ms: checks may wait longer than they may \
             take; lower it",
        ),
    ] {
        let (_, said) = read(text);
        let found: Vec<&str> = said.iter().filter_map(|text| text.lines().next()).collect();
        assert_eq!(found, [expected], "{text}");
    }
    // A short promise alone is no contradiction: how long one may wait follows from it.
    assert_eq!(read("[pulse]\nslo = \"5ms\"").1, Vec::<String>::new());
}

#[test]
fn the_kernels_part_is_told_in_words_that_say_what_else_to_do() {
    for (text, expected) in [
        (
            "[ebpf]\nmode = \"on\"",
            "c.toml:2:8: mode \"on\" does not say what to do where the kernel has no place for it: write \"auto\" to go on \
             without, \"require\" not to start",
        ),
        ("[ebpf]\nmode = \"of\"", "c.toml:2:8: mode \"of\" is unknown, did you mean \"off\"?"),
        ("[ebpf]\nhook = \"tc\"", "c.toml:2:8: hook \"tc\" is unknown, did you mean \"tcx\"?"),
        (
            "[ebpf]\ninterfaces = [\"eth0\", \"a/b\"]",
            "c.toml:2:14: interfaces \"a/b\" is no name of an interface: write it like \"eth0\", or \"veth*\" for many",
        ),
        (
            "[ebpf]\ninterfaces = \"*eth\"",
            "c.toml:2:14: interfaces \"*eth\" is no name of an interface: write it like \"eth0\", or \"veth*\" for many",
        ),
        (
            "[ebpf]\ninterfaces = \"sixteen-letters0\"",
            "c.toml:2:14: interfaces \"sixteen-letters0\" is no name of an interface: write it like \"eth0\", or \"veth*\" \
             for many",
        ),
    ] {
        let (settings, said) = read(text);
        let found: Vec<&str> = said.iter().filter_map(|text| text.lines().next()).collect();
        assert_eq!(found, [expected], "{text}");
        assert_eq!(settings, Settings::default(), "{text}");
    }
}

/// What the variables of the original come to, with those of ours beside them, and what is said.
fn sized(variables: &[(&str, &str)]) -> (Settings, Vec<String>) {
    let environment =
        |name: &str| variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned());
    let file = "[pulse]\nslo = \"300ms\"\nservice_time = \"30ms\"\nheadroom = 0.3";
    let (settings, diagnostics) = Settings::compose("c.toml", file, environment, &Flags::default());
    (settings, diagnostics.iter().map(ToString::to_string).collect())
}

#[test]
fn the_originals_variables_size_the_pulse() {
    type Change = fn(&mut Settings);
    let rows: &[(&str, &str, Change)] = &[
        ("CPRA_SIZING_TAU_MS", "20", |s| s.pulse.service_time = Span::from_millis(20)),
        ("CPRA_SIZING_TAU_MS", " 2.5 ", |s| s.pulse.service_time = Span::from_micros(2_500)),
        ("CPRA_SIZING_SLO_MS", "200", |s| s.pulse.slo = Span::from_millis(200)),
        ("CPRA_SIZING_SLO_MS", "", |_| {}),
        ("CPRA_SIZING_HEADROOM_PCT", "15", |s| s.pulse.headroom = Share(150)),
        ("CPRA_SIZING_HEADROOM_PCT", "0.15", |s| s.pulse.headroom = Share(150)),
        ("CPRA_SIZING_HEADROOM_PCT", "12.5", |s| s.pulse.headroom = Share(125)),
        ("CPRA_SIZING_HEADROOM_PCT", "1", |s| s.pulse.headroom = Share(1_000)),
        ("CPRA_SIZING_HEADROOM_PCT", "100", |s| s.pulse.headroom = Share(1_000)),
        ("CPRA_SIZING_HEADROOM_PCT", "0", |s| s.pulse.headroom = Share(0)),
    ];
    for (variable, value, change) in rows {
        let (mut expected, _) = sized(&[]);
        change(&mut expected);
        assert_eq!(sized(&[(variable, value)]), (expected, Vec::new()), "{variable}={value}");
    }
    for (variable, value, expected) in [
        ("CPRA_SIZING_TAU_MS", "fast", "\"fast\" is no number of milliseconds: write one like 20"),
        ("CPRA_SIZING_TAU_MS", "-1", "\"-1\" is no number of milliseconds: write one like 20"),
        ("CPRA_SIZING_TAU_MS", "20ms", "\"20ms\" is no number of milliseconds: write one like 20"),
        ("CPRA_SIZING_TAU_MS", "0", "service_time 0s is too short: at least 10us"),
        ("CPRA_SIZING_SLO_MS", "0.5", "slo 500us is too short: at least 1ms"),
        ("CPRA_SIZING_SLO_MS", "999999999", "slo 277h46m39s999ms is too long: at most 1h"),
        ("CPRA_SIZING_HEADROOM_PCT", "15%", "\"15%\" is no percentage: write a number from 0 to 100, such as 15"),
        ("CPRA_SIZING_HEADROOM_PCT", "101", "\"101\" is no percentage: write a number from 0 to 100, such as 15"),
        ("CPRA_SIZING_HEADROOM_PCT", "1e1", "\"1e1\" is no percentage: write a number from 0 to 100, such as 15"),
    ] {
        let (settings, said) = sized(&[(variable, value)]);
        assert_eq!((settings, said), (sized(&[]).0, vec![format!("{variable}: {expected}")]));
    }
}

#[test]
fn our_variables_go_before_the_originals() {
    let (settings, said) = sized(&[("CPRA_SIZING_SLO_MS", "200"), ("CPRA_PULSE_SLO", "50ms")]);
    assert_eq!(settings.pulse.slo, Span::from_millis(50));
    assert_eq!(
        said,
        [
            "CPRA_SIZING_SLO_MS: warning: \"200\" does nothing here: CPRA_PULSE_SLO (\"50ms\") goes first; remove one of them"
        ]
    );
    let (settings, said) = sized(&[("CPRA_SIZING_SLO_MS", "50"), ("CPRA_PULSE_SLO", "0.05s")]);
    assert_eq!((settings.pulse.slo, said), (Span::from_millis(50), Vec::new()), "they say the same");
    let (settings, said) = sized(&[("CPRA_SIZING_HEADROOM_PCT", "20"), ("CPRA_PULSE_HEADROOM", "lots")]);
    assert_eq!(settings.pulse.headroom, Share(300));
    assert_eq!(said.len(), 2, "{said:?}");
}

#[test]
fn a_missing_file_is_an_error() {
    let path = Path::new("/nonexistent/c.toml");
    let (settings, diagnostics) = Settings::load(Some(path), |_| None, &Flags::default());
    assert_eq!(settings, Settings::default());
    assert_eq!(
        diagnostics.to_string(),
        "/nonexistent/c.toml: there is no such file: check the path given with --config\n"
    );
}
