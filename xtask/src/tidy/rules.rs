//! Rules about code: what may be said where.

use super::floors::{floor_of, room_of};
use super::source::{Source, is_test_file, word_at};
use super::{Finding, finding};

type Findings = Vec<Finding>;

pub(crate) fn check(sources: &[Source], findings: &mut Findings) {
    for source in sources.iter().filter(|source| source.is_rust()) {
        unsafety(source, findings);
        purity(source, findings);
        seams(source, findings);
        length(source, findings);
        names(source, findings);
    }
    metrics(sources, findings);
    fuzzing(sources, findings);
}

/// Where `unsafe` may stand. Tests in files of their own may use it too: they build what nobody ships.
const UNSAFE_ALLOWED: [&str; 5] = [
    "cpra/src/os/",
    "cpra-common/",
    "cpra-ebpf/",
    // The reference loop submits to io_uring, which is unsafe by signature.
    "xtask/src/bench/",
    // LLVM speaks C.
    "xtask/src/build_ebpf/",
];

fn unsafety(source: &Source, findings: &mut Findings) {
    if is_test_file(&source.path) || UNSAFE_ALLOWED.iter().any(|prefix| source.path.starts_with(prefix)) {
        return;
    }
    for at in source.words("unsafe") {
        findings.push(finding(
            source,
            at,
            "unsafe",
            "only in os/, cpra-common and cpra-ebpf: move it behind a door".into(),
        ));
    }
}

/// What reads the world. Below the drivers' floor time, bytes and chance come in as values, so that a run replays;
/// this holds for their tests as well, but for threads: a queue between threads is tested with threads.
const WORLDLY: [(&str, &str); 26] = [
    ("Instant::now", "`now` comes in"),
    ("SystemTime", "time comes in as units::Timestamp"),
    ("Timestamp::now", "`now` comes in"),
    ("Zoned::now", "`now` comes in"),
    ("clock_gettime", "`now` comes in"),
    ("Ulid::new", "it reads a clock and draws: build it from `now` and the seeded generator"),
    ("TcpStream", "emit an operation"),
    ("TcpListener", "listening is os/'s and api/'s"),
    ("UdpSocket", "emit an operation"),
    ("UnixStream", "emit an operation"),
    ("UnixListener", "listening is os/'s and api/'s"),
    ("UnixDatagram", "emit an operation"),
    ("thread::spawn", "threads are spawned in daemon.rs"),
    ("thread::scope", "threads are spawned in daemon.rs"),
    ("thread::Builder", "threads are spawned in daemon.rs"),
    ("thread::sleep", "ask for a deadline"),
    ("process::Command", "emit an effect"),
    ("Command::new", "emit an effect"),
    ("Rng::new", "seed it: Rng::with_seed"),
    ("fastrand::u32", "draw from the seeded generator"),
    ("fastrand::u64", "draw from the seeded generator"),
    ("fastrand::usize", "draw from the seeded generator"),
    ("fastrand::f64", "draw from the seeded generator"),
    ("fastrand::bool", "draw from the seeded generator"),
    ("fastrand::shuffle", "draw from the seeded generator"),
    ("thread_rng", "draw from the seeded generator"),
];

const FLOOR_OF_DRIVERS: u8 = 6;

fn purity(source: &Source, findings: &mut Findings) {
    let floor = source.in_library().and_then(room_of).and_then(floor_of);
    if floor.is_none_or(|floor| floor >= FLOOR_OF_DRIVERS) {
        return;
    }
    for (word, remedy) in WORLDLY {
        let is_thread = matches!(word, "thread::spawn" | "thread::scope");
        for at in source.words(word).filter(|&at| !(is_thread && source.is_test(at))) {
            findings.push(finding(source, at, "purity", format!("`{word}` below floor {FLOOR_OF_DRIVERS}: {remedy}")));
        }
    }
}

/// One seam per dependency: the crate, and the prefixes of the paths that may name it.
const SEAMS: [(&str, &[&str]); 18] = [
    ("io_uring", &["cpra/src/os/uring", "xtask/src/bench/"]),
    ("tokio_uring", &["cpra/src/os/lane"]),
    ("aya", &["cpra/src/os/ebpf", "cpra-ebpf/", "xtask/src/build_ebpf"]),
    ("netlink_packet_core", &["cpra/src/os/ebpf/interfaces.rs"]),
    ("netlink_packet_route", &["cpra/src/os/ebpf/interfaces.rs"]),
    ("netlink_sys", &["cpra/src/os/ebpf/interfaces.rs"]),
    ("specs", &["cpra/src/world/", "cpra/src/world.rs"]),
    ("rusqlite", &["cpra/src/store/"]),
    ("ringbuf", &["cpra/src/pipeline/queue.rs"]),
    ("hickory_proto", &["cpra/src/wire/dns"]),
    ("hickory_resolver", &["cpra/src/os/resolve/lookup.rs"]),
    ("hdrhistogram", &["cpra/src/queueing/meter.rs", "cpra/src/queueing/recording"]),
    ("plotters", &["cpra/src/cli/histogram/plot.rs", "xtask/"]),
    ("minijinja", &["cpra/src/wording/template.rs"]),
    ("reqwest", &["cpra/src/os/web"]),
    ("lettre", &["cpra/src/notify/email"]),
    ("nix", &["cpra/src/os/", "cpra/src/main.rs", "xtask/"]),
    ("clap", &["cpra/src/cli/", "cpra/src/cli.rs", "cpra/src/main.rs", "xtask/"]),
];

fn seams(source: &Source, findings: &mut Findings) {
    if is_test_file(&source.path) {
        return;
    }
    for (name, allowed) in SEAMS {
        if allowed.iter().any(|prefix| source.path.starts_with(prefix)) {
            continue;
        }
        // The crate, and not a field, a variable or a module of our own that has its name.
        let names_the_crate = |&at: &usize| {
            let (before, after) = (&source.code[..at], &source.code[at + name.len()..]);
            let starts_a_path = match before.strip_suffix("::") {
                Some(head) => !head.ends_with(|c: char| c.is_alphanumeric() || "_>".contains(c)),
                None => !before.ends_with('.'),
            };
            starts_a_path && (after.starts_with("::") || before.trim_end().ends_with("use"))
        };
        for at in source.words(name).filter(names_the_crate).filter(|&at| !source.is_test(at)) {
            findings.push(finding(source, at, "seam", format!("`{name}` is named only in {}", allowed.join(", "))));
        }
    }
    if source.path.starts_with("cpra/src/domain/") {
        for word in ["serde", "Serialize", "Deserialize"] {
            for at in source.words(word) {
                let remedy = format!("`{word}` in domain/: api/view.rs and store/ convert");
                findings.push(finding(source, at, "seam", remedy));
            }
        }
    }
}

const LINES_MAX: usize = 700;

/// Longer files, and why each may be.
const LONG_FILES: [(&str, &str); 0] = [];

fn length(source: &Source, findings: &mut Findings) {
    let mut offset = 0;
    let mut lines = 0;
    for line in source.text.split_inclusive('\n') {
        lines += usize::from(!source.is_test(offset));
        offset += line.len();
    }
    let is_listed = LONG_FILES.iter().any(|(path, _)| *path == source.path);
    if lines > LINES_MAX && !is_listed {
        let remedy = format!("{lines} lines without tests, of {LINES_MAX}: split it, or list it here with a reason");
        findings.push(finding(source, 0, "length", remedy));
    }
}

/// Names that say nothing.
const EMPTY_NAMES: [&str; 7] = ["manager", "managers", "util", "utils", "helper", "helpers", "misc"];

fn names(source: &Source, findings: &mut Findings) {
    let mut report = |at: usize, name: &str| {
        if let Some(word) = name_words(name).into_iter().find(|word| EMPTY_NAMES.contains(&word.as_str())) {
            let remedy = format!("`{name}`: \"{word}\" says nothing; name what it holds or does");
            findings.push(finding(source, at, "names", remedy));
        }
    };
    for part in source.path.split('/') {
        report(0, part.trim_end_matches(".rs"));
    }
    for keyword in ["mod", "struct", "enum", "trait", "type", "union"] {
        for at in source.words(keyword) {
            let name = at + keyword.len() + 1;
            if source.code[..name.min(source.code.len())].ends_with(' ') {
                report(at, word_at(&source.code, name));
            }
        }
    }
}

/// `HttpHelper`, `http_helper` and `http-helper` alike: http, helper.
fn name_words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in name.chars() {
        if !c.is_alphanumeric() || c.is_uppercase() {
            words.push(String::new());
        }
        if c.is_alphanumeric() {
            words.last_mut().expect("there is one").extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

const METRICS_PAGE: &str = "docs/metrics.md";

/// Every metric that `api/metrics` declares is explained.
fn metrics(sources: &[Source], findings: &mut Findings) {
    let Some(page) = sources.iter().find(|source| source.path == METRICS_PAGE) else { return };
    for source in sources.iter().filter(|source| source.path.starts_with("cpra/src/api/metrics")) {
        for (at, text) in &source.strings {
            if is_metric(text) && !source.is_test(*at) && !page.text.contains(text.as_str()) {
                findings.push(finding(source, *at, "metrics", format!("explain `{text}` in {METRICS_PAGE}")));
            }
        }
    }
}

/// Every fuzz target is a program of its workspace. (Building that workspace would show it, too, and takes minutes.)
fn fuzzing(sources: &[Source], findings: &mut Findings) {
    let manifest = sources.iter().find(|source| source.path == "fuzz/Cargo.toml");
    for source in sources {
        let file = source.path.strip_prefix("fuzz/targets/");
        let Some(name) = file.and_then(|file| file.strip_suffix(".rs")).filter(|name| !name.contains('/')) else {
            continue;
        };
        let program = format!("[[bin]]\nname = \"{name}\"\npath = \"targets/{name}.rs\"\n");
        if !manifest.is_some_and(|manifest| manifest.text.contains(&program)) {
            findings.push(finding(source, 0, "fuzzing", "no [[bin]] of fuzz/Cargo.toml: add it there".into()));
        }
    }
}

fn is_metric(text: &str) -> bool {
    text.strip_prefix("cpra_").is_some_and(|rest| {
        !rest.is_empty() && rest.bytes().all(|b| b == b'_' || b.is_ascii_lowercase() || b.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(rule: fn(&Source, &mut Findings), path: &str, text: &str) -> Vec<usize> {
        let mut findings = Vec::new();
        rule(&Source::new(path, text.to_owned()), &mut findings);
        findings.sort();
        findings.iter().map(|finding| finding.line).collect()
    }

    const NONE: [usize; 0] = [];

    #[test]
    fn unsafe_stays_behind_its_doors() {
        let text = "// unsafe\n#![forbid(unsafe_code)]\nunsafe { x() }";
        assert_eq!(faults(unsafety, "cpra/src/wire/http.rs", text), [3]);
        assert_eq!(faults(unsafety, "cpra/src/os/uring.rs", text), NONE);
        assert_eq!(faults(unsafety, "cpra-common/src/lib.rs", text), NONE);
        assert_eq!(faults(unsafety, "cpra/tests/contract.rs", text), NONE);
    }

    #[test]
    fn pure_rooms_do_not_touch_the_world() {
        let text =
            "let t = std::time::Instant::now();\nlet s: Instant = now;\nstd::thread::spawn(f);\nCommand::new(\"x\");";
        assert_eq!(faults(purity, "cpra/src/desk/mod.rs", text), [1, 3, 4]);
        assert_eq!(faults(purity, "cpra/src/desk/tests.rs", text), [1, 4], "threads are for tests, clocks are not");
        assert_eq!(faults(purity, "cpra/src/os/clock.rs", text), NONE);
        assert_eq!(faults(purity, "xtask/src/check.rs", text), NONE);
        assert_eq!(faults(purity, "cpra/src/shard/mod.rs", "Rng::new();\nRng::with_seed(1);"), [1]);
    }

    #[test]
    fn a_dependency_has_one_seam() {
        assert_eq!(
            faults(seams, "cpra/src/api/mod.rs", "use nix::unistd;\nlet x = nix;\nself.nix::<u8>();\n::nix::a();"),
            [1, 4]
        );
        assert_eq!(faults(seams, "cpra/src/os/clock.rs", "use nix::time;"), NONE);
        assert_eq!(faults(seams, "cpra/src/os/lane.rs", "tokio_uring::start(x);"), NONE);
        assert_eq!(faults(seams, "cpra/src/os/uring.rs", "tokio_uring::start(x);"), [1]);
        assert_eq!(faults(seams, "cpra/src/os/uring/ring.rs", "use io_uring::opcode;"), NONE);
        assert_eq!(faults(seams, "cpra/src/store/mod.rs", "#[cfg(test)]\nmod tests { use nix::fcntl; }"), NONE);
        assert_eq!(faults(seams, "cpra/src/world/mod.rs", "use specs::World;"), NONE);
        assert_eq!(faults(seams, "cpra/src/api/mod.rs", "crate::specs::World"), NONE, "a module of our own");
    }

    #[test]
    fn domain_does_not_serialise_itself() {
        assert_eq!(faults(seams, "cpra/src/domain/notice.rs", "#[derive(Serialize)]\nstruct A;"), [1]);
        assert_eq!(faults(seams, "cpra/src/api/view.rs", "#[derive(Serialize)]\nstruct A;"), NONE);
    }

    #[test]
    fn long_files_want_a_reason() {
        let long = "x\n".repeat(LINES_MAX + 1);
        assert_eq!(faults(length, "cpra/src/a.rs", &long), [1]);
        assert_eq!(faults(length, "cpra/src/a.rs", &long[2..]), NONE);
        assert_eq!(faults(length, "cpra/src/a.rs", &format!("#[cfg(test)]\nmod tests {{\n{long}}}\n")), NONE);
    }

    #[test]
    fn names_say_something() {
        assert_eq!(faults(names, "cpra/src/utils.rs", ""), [1]);
        assert_eq!(
            faults(names, "cpra/src/a.rs", "\nstruct SlotManager;\nenum Miscellany {}\nmod test_helpers {}"),
            [2, 4]
        );
        assert_eq!(name_words("HTTPUtil_x-y"), ["h", "t", "t", "p", "util", "x", "y"]);
    }

    #[test]
    fn metrics_are_explained() {
        let code = Source::new("cpra/src/api/metrics.rs", "a(\"cpra_up\");\nb(\"cpra_down\", \"cpra_ of\");".into());
        let page = Source::new("docs/metrics.md", "| `cpra_up` | ... |".into());
        let mut findings = Vec::new();
        metrics(&[code, page], &mut findings);
        assert_eq!(findings.iter().map(|finding| finding.line).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn fuzz_targets_are_built() {
        let program = "[[bin]]\nname = \"a\"\npath = \"targets/a.rs\"\n";
        let files = [("fuzz/Cargo.toml", program), ("fuzz/targets/a.rs", "")];
        let found = |files: &[(&str, &str)]| {
            let sources: Vec<_> = files.iter().map(|(path, text)| Source::new(path, (*text).into())).collect();
            let mut findings = Vec::new();
            fuzzing(&sources, &mut findings);
            findings.len()
        };
        assert_eq!(found(&files), 0);
        assert_eq!(found(&files[1..]), 1, "no manifest");
        assert_eq!(found(&[files[0], ("fuzz/targets/a.rs", ""), ("fuzz/targets/b.rs", "")]), 1);
    }
}
