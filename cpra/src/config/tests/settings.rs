//! The daemon file, its environment and its flags.

use super::*;
use crate::config::Settings;
use crate::config::daemon::{ENVIRONMENT, Flags, LogFormat};

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
    for (variable, section, key) in ENVIRONMENT {
        assert!(text.contains(variable), "{variable}");
        assert!(section.is_empty() || text.contains(&format!("[{section}]")), "{section}");
        assert!(text.contains(&format!("\n{key} = ")) || text.contains(&format!("\n# {key} = ")), "{key}");
    }
}

#[test]
fn every_key_changes_the_settings() {
    type Change = fn(&mut Settings);
    let rows: [(&str, Change); 10] = [
        ("instance = \"mon-1\"", |s| s.instance = Some("mon-1".into())),
        ("queue_capacity = 1_000", |s| s.queue_capacity = 1_000),
        ("batch_size = 4096", |s| s.batch_size = 4096),
        ("[api]\nlisten = \"[::1]:80\"", |s| s.api.listen = "[::1]:80".parse().expect("an address")),
        ("api.listen = \"localhost:80\"", |s| s.api.listen = "127.0.0.1:80".parse().expect("an address")),
        ("[pulse]\nmin_workers = 1", |s| s.pulse.min_workers = 1),
        ("[pulse]\nmax_workers = 200000", |s| s.pulse.max_workers = 200_000),
        ("[code]\nfallback = \"log\"", |_| {}),
        ("[log]\nformat = \"json\"", |s| s.log.format = LogFormat::Json),
        ("[security]\nlog_dirs = [\"/a\", \"/b\"]", |s| s.security.log_dirs = Some(vec!["/a".into(), "/b".into()])),
    ];
    for (text, change) in rows {
        let mut expected = Settings::default();
        change(&mut expected);
        assert_eq!(read(text), (expected, Vec::new()), "{text}");
    }
    let (settings, diagnostics) = read("[store]\npath = \"/x\"");
    assert_eq!(settings.store.path, Some("/x".into()));
    assert!(diagnostics[0].starts_with("c.toml:2:1: warning: \"path\" has no effect"), "{diagnostics:?}");
}

#[test]
fn faults_come_all_at_once_with_their_places() {
    let text = "batch_sise = 3\nqueue_capacity = \"many\"\nbatch_size = 0x10\n[api]\nlisten = \":9860\"\nexternal_url = \"/x\"\n\
                [pulse]\nmax_workers = 0\n[providers.chat]\ntype = \"slack\"\n[apj]\n[log]\nformat = \"jsn\"\n[security]\nlog_dirs = [\"x\"]\n[code]\nfallback = 1\n";
    let (_, diagnostics) = read(text);
    let found: Vec<&str> = diagnostics.iter().filter_map(|text| text.lines().next()).collect();
    assert_eq!(
        found,
        [
            "c.toml:1:1: unknown key \"batch_sise\", did you mean \"batch_size\"?",
            "c.toml:2:18: queue_capacity \"many\" is no whole number: write one from 16 to 16777216",
            "c.toml:3:14: batch_size \"0x10\" is no whole number: write one from 1 to 4096",
            "c.toml:5:10: listen \":9860\" has no address: write \"127.0.0.1:9860\", or \"0.0.0.0:9860\" for every interface",
            "c.toml:6:1: warning: \"external_url\" is not in this version: no effect",
            "c.toml:8:15: max_workers 0 is out of range: 1 to 1000000",
            "c.toml:9:2: warning: \"providers\" is not in this version: no effect",
            "c.toml:11:2: unknown key \"apj\", did you mean \"api\"?",
            "c.toml:13:10: format \"jsn\" is unknown, did you mean \"json\"?",
            "c.toml:15:12: log_dirs \"x\" is not absolute: write the whole path, without \"..\"",
            "c.toml:17:12: fallback \"1\" is unknown: write log",
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
        _ => None,
    };
    let flags = Flags { api_listen: Some("127.0.0.1:3".parse().expect("an address")), ..Flags::default() };
    let (settings, diagnostics) = Settings::compose("c.toml", text, environment, &flags);
    assert_eq!((settings.queue_capacity, settings.batch_size, settings.api.listen.port()), (100, 8, 3));
    assert_eq!(settings.log.format, LogFormat::Json);
    assert_eq!(settings.security.log_dirs, Some(vec!["/a".into(), "/b".into()]));
    assert_eq!(
        diagnostics.to_string(),
        "CPRA_PULSE_MAX_WORKERS: max_workers \"lots\" is no whole number: write one from 1 to 1000000\n"
    );
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
