//! `cpra generate`: a monitors file of any size, for a first try and for measurements.
//!
//! The same arguments give the same bytes. Monitors are drawn and written one at a time, so that a million of them
//! cost no memory. All of them look at 127.0.0.0/8: whoever starts such a file bothers nobody but this machine.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use fastrand::Rng;

use super::plural;

/// Monitors of one file; more fit into no machine that this was measured on.
const COUNT_MAX: u64 = 10_000_000;
/// One part of a mix.
const WEIGHT_MAX: u32 = 1_000_000;

/// See [`generate`].
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Monitors
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=COUNT_MAX))]
    pub count: u64,

    /// Types and their weights
    #[arg(long, value_name = "TYPE=WEIGHT,...", value_parser = mix, default_value = "http=60,tcp=20,icmp=20")]
    pub mix: Mix,

    /// The same seed gives the same file
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// The language; without it the ending of --out tells, else it is yaml
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,

    /// Where to; without it the standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Yaml,
    Json,
    Jsonl,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Http,
    Tcp,
    Icmp,
}

const KINDS: [(&str, Kind); 3] = [("http", Kind::Http), ("tcp", Kind::Tcp), ("icmp", Kind::Icmp)];

/// Types with their weights, in the order of [`KINDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix([u32; KINDS.len()]);

fn mix(text: &str) -> Result<Mix, String> {
    let mut weights = [0; KINDS.len()];
    for part in text.split(',') {
        let Some((name, weight)) = part.split_once('=') else {
            return Err(format!("\"{part}\" has no weight: write it like \"http=60\""));
        };
        let Some(index) = KINDS.iter().position(|(known, _)| *known == name.trim()) else {
            return Err(format!("the type \"{name}\" is unknown: write http, tcp or icmp"));
        };
        let weight = weight.trim().parse().ok().filter(|&weight| weight <= WEIGHT_MAX);
        weights[index] = weight.ok_or_else(|| format!("the weight of {name} is no number from 0 to {WEIGHT_MAX}"))?;
    }
    if weights.iter().all(|&weight| weight == 0) {
        return Err("every weight is 0: nothing is left to draw".to_owned());
    }
    Ok(Mix(weights))
}

impl Mix {
    fn draw(&self, rng: &mut Rng) -> Kind {
        let mut drawn = rng.u32(0..self.0.iter().sum());
        for (weight, (_, kind)) in self.0.iter().zip(KINDS) {
            match drawn.checked_sub(*weight) {
                Some(rest) => drawn = rest,
                None => return kind,
            }
        }
        Kind::Http
    }
}

/// Writes the file; answers with the exit code.
pub(super) fn generate(args: &Args) -> ExitCode {
    let ending = || Some(args.out.as_ref()?.extension()?.to_string_lossy().to_ascii_lowercase());
    let format = args.format.unwrap_or_else(|| match ending().as_deref() {
        Some("json") => Format::Json,
        Some("jsonl" | "ndjson") => Format::Jsonl,
        _ => Format::Yaml,
    });
    let written = match &args.out {
        Some(path) => File::create(path).and_then(|file| write(BufWriter::new(file), args, format)),
        None => write(BufWriter::new(io::stdout().lock()), args, format),
    };
    match (written, &args.out) {
        (Ok(()), Some(path)) => {
            let count = plural(usize::try_from(args.count).unwrap_or(usize::MAX), "monitor");
            let _ = writeln!(io::stderr().lock(), "{count} in {}", path.display());
            ExitCode::SUCCESS
        }
        (Ok(()), None) => ExitCode::SUCCESS,
        // Whoever reads has had enough, `| head` for one.
        (Err(error), None) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        (Err(error), path) => {
            let place =
                path.as_ref().map_or_else(|| "the standard output".to_owned(), |path| path.display().to_string());
            let _ = writeln!(io::stderr().lock(), "cpra: {place} cannot be written: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One monitor, as drawn.
struct Drawn {
    name: String,
    team: &'static str,
    role: &'static str,
    kind: Kind,
    interval: u32,
    timeout: u32,
    unhealthy: u32,
    address: [u8; 4],
    port: u16,
    path: &'static str,
    retries: u32,
    /// Docker containers are restarted, some of them.
    is_repaired: bool,
    tells_yellow: bool,
}

const TEAMS: [&str; 8] = ["shop", "billing", "search", "media", "identity", "logistics", "edge", "platform"];
const ROLES: [&str; 8] = ["web", "api", "worker", "cache", "db", "queue", "gateway", "auth"];
const PATHS: [&str; 4] = ["/health", "/healthz", "/status", "/"];
const INTERVALS: [u32; 5] = [10, 15, 30, 60, 300];

impl Drawn {
    fn draw(number: u64, mix: &Mix, rng: &mut Rng) -> Self {
        let kind = mix.draw(rng);
        let (team, role) = (TEAMS[rng.usize(0..TEAMS.len())], ROLES[rng.usize(0..ROLES.len())]);
        let ports: &[u16] = match kind {
            Kind::Http => &[80, 8080, 8000, 9000],
            Kind::Tcp => &[22, 5432, 6379, 3306, 5672],
            Kind::Icmp => &[0],
        };
        let interval = INTERVALS[rng.usize(0..INTERVALS.len())];
        Self {
            name: format!("{team}/{role}-{number:07}"),
            team,
            role,
            kind,
            interval,
            timeout: rng.u32(1..=5),
            unhealthy: rng.u32(2..=5),
            address: [127, rng.u8(0..250), rng.u8(0..250), rng.u8(1..250)],
            port: ports[rng.usize(0..ports.len())],
            path: PATHS[rng.usize(0..PATHS.len())],
            retries: rng.u32(0..=2),
            is_repaired: rng.u8(0..10) == 0,
            tells_yellow: rng.u8(0..4) == 0,
        }
    }

    fn host(&self) -> String {
        let [a, b, c, d] = self.address;
        format!("{a}.{b}.{c}.{d}")
    }

    fn yaml(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { name, team, role, interval, timeout, unhealthy, port, path, retries, .. } = self;
        let host = self.host();
        let kind = KINDS.iter().find(|(_, kind)| *kind == self.kind).map_or("http", |(name, _)| name);
        write!(
            out,
            "  - name: {name}\n    groups: [{team}, {role}]\n    pulse:\n      type: {kind}\n      interval: {interval}s\n      \
             timeout: {timeout}s\n      unhealthy_threshold: {unhealthy}\n      healthy_threshold: 2\n      config:\n"
        )?;
        match self.kind {
            Kind::Http => writeln!(out, "        url: http://{host}:{port}{path}\n        retries: {retries}")?,
            Kind::Tcp => writeln!(out, "        host: {host}\n        port: {port}\n        retries: {retries}")?,
            Kind::Icmp => writeln!(out, "        host: {host}\n        count: 1")?,
        }
        if self.is_repaired {
            let container = name.replace('/', "-");
            write!(
                out,
                "    intervention:\n      action: docker\n      max_failures: 2\n      config:\n        container: {container}\n        \
                 action: restart\n"
            )?;
        }
        out.write_all(b"    codes:\n")?;
        if self.tells_yellow {
            out.write_all(b"      yellow:\n        notify: log\n")?;
        }
        out.write_all(b"      red:\n        dispatch: true\n        notify: log\n")
    }

    fn json(&self) -> serde_json::Value {
        let Self { name, team, role, interval, timeout, unhealthy, port, path, retries, .. } = self;
        let host = self.host();
        let (kind, config) = match self.kind {
            Kind::Http => {
                ("http", serde_json::json!({"url": format!("http://{host}:{port}{path}"), "retries": retries}))
            }
            Kind::Tcp => ("tcp", serde_json::json!({"host": host, "port": port, "retries": retries})),
            Kind::Icmp => ("icmp", serde_json::json!({"host": host, "count": 1})),
        };
        let mut monitor = serde_json::json!({
            "name": name,
            "groups": [team, role],
            "pulse": {
                "type": kind,
                "interval": format!("{interval}s"),
                "timeout": format!("{timeout}s"),
                "unhealthy_threshold": unhealthy,
                "healthy_threshold": 2,
                "config": config,
            },
            "codes": {"red": {"dispatch": true, "notify": "log"}},
        });
        if self.is_repaired {
            let container = name.replace('/', "-");
            monitor["intervention"] = serde_json::json!(
                {"action": "docker", "max_failures": 2, "config": {"container": container, "action": "restart"}}
            );
        }
        if self.tells_yellow {
            monitor["codes"]["yellow"] = serde_json::json!({"notify": "log"});
        }
        monitor
    }
}

fn write(mut out: impl Write, args: &Args, format: Format) -> io::Result<()> {
    let mut rng = Rng::with_seed(args.seed);
    let mut drawn = (0..args.count).map(|number| Drawn::draw(number, &args.mix, &mut rng));
    match format {
        Format::Yaml => {
            writeln!(out, "# cpra generate --count {} --seed {}\nmonitors:", args.count, args.seed)?;
            drawn.try_for_each(|monitor| monitor.yaml(&mut out))?;
        }
        Format::Json => {
            out.write_all(b"{\"monitors\": [")?;
            for (index, monitor) in drawn.enumerate() {
                let before = if index == 0 { "\n" } else { ",\n" };
                write!(out, "{before}  {}", monitor.json())?;
            }
            out.write_all(b"\n]}\n")?;
        }
        Format::Jsonl => drawn.try_for_each(|monitor| writeln!(out, "{}", monitor.json()))?,
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{self, Folders};

    fn written(format: Format, seed: u64) -> String {
        let args = Args { count: 500, mix: mix("http=6,tcp=2,icmp=2").unwrap(), seed, format: None, out: None };
        let mut out = Vec::new();
        write(&mut out, &args, format).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_generated_loads_and_is_the_same_in_every_language() {
        let folders = Folders::new(Path::new("/home/me"), Path::new("/var/lib/cpra"), Path::new("/tmp"));
        let mut loads = Vec::new();
        for (format, name) in [(Format::Yaml, "m.yaml"), (Format::Json, "m.json"), (Format::Jsonl, "m.jsonl")] {
            let mut monitors = Vec::new();
            let report = config::read_str(name, &written(format, 7), &folders, &mut |monitor| monitors.push(monitor));
            // Types and keys of a later version are named as such; nothing else is said.
            let later = ["is not run by this version yet", "is not in this version", "no effect", "not run"];
            let said: Vec<String> = report.diagnostics.iter().map(|one| one.message.to_string()).collect();
            let unexpected: Vec<_> = said.iter().filter(|one| !later.iter().any(|word| one.contains(word))).collect();
            assert!(unexpected.is_empty(), "{name}: {unexpected:#?}");
            assert!(monitors.len() + report.diagnostics.errors() == 500 && monitors.len() >= 350, "{name}");
            loads.push(monitors);
        }
        assert!(loads[0] == loads[1] && loads[1] == loads[2]);
    }

    #[test]
    fn a_seed_is_a_file() {
        assert_eq!(written(Format::Yaml, 3), written(Format::Yaml, 3));
        assert_ne!(written(Format::Yaml, 3), written(Format::Yaml, 4));
        let [http, tcp, icmp] =
            ["http", "tcp", "icmp"].map(|kind| written(Format::Yaml, 3).matches(&format!("type: {kind}\n")).count());
        assert!(http > 250 && tcp > 60 && icmp > 60 && http + tcp + icmp == 500, "{http} {tcp} {icmp}");
    }

    #[test]
    fn a_mix_that_is_none_is_refused_with_a_remedy() {
        for (text, expected) in [
            ("http", "\"http\" has no weight: write it like \"http=60\""),
            ("gopher=1", "the type \"gopher\" is unknown: write http, tcp or icmp"),
            ("http=x", "the weight of http is no number from 0 to 1000000"),
            ("http=0,tcp=0", "every weight is 0: nothing is left to draw"),
        ] {
            assert_eq!(mix(text), Err(expected.to_owned()));
        }
        assert_eq!(mix("tcp=1, icmp=2"), Ok(Mix([0, 1, 2])));
    }
}
