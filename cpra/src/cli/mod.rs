//! The command line: the daemon itself, questions that need none, and what is asked of one that runs.
//!
//! | command | exit code |
//! | --- | --- |
//! | `cpra` | 0 ended in order, 1 could not start, 2 wrong arguments |
//! | `cpra --check-config` | 0 no errors, 1 errors |
//! | `cpra check NAME` | 0 ok, 1 fail, 2 warn, 3 void or not made; of several the worst: fail, void, warn, ok |
//! | `cpra status` | 0 ready, 1 not ready, 3 nobody answers |
//! | `cpra monitors` | 0 listed, 1 refused, 3 nobody answers |
//! | `cpra histogram` | 0 shown, 3 not: a file cannot be read, or has no such series |
//! | `cpra incident` | 0 shown, 1 no such monitor, 3 nobody answers |
//! | `cpra disable`, `cpra enable`, `cpra reload` | 0 done, 1 refused, 3 nobody answers |
//! | `cpra outbox` | 0 listed or done, 1 refused or not confirmed, 3 nobody answers |
//! | `cpra notify test` | 0 sent, 1 not sent, 3 nobody answers or nobody was named |
//!
//! Wrong arguments of a subcommand are 3 too: what was asked for was not done, and nothing is known.

mod check;
mod client;
mod files;
mod generate;
mod histogram;
mod incident;
mod monitors;
mod notify;
mod outbox;
mod reload;
mod run;
mod status;
mod summary;
mod switch;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};

pub use self::run::run;
use crate::config::daemon::{Flags, LogFormat};
use crate::config::{self, Diagnostic, Diagnostics, Folders, Settings, Severity};
use crate::domain::Check;
use crate::os::local;
use crate::os::privilege::{Privilege, PrivilegeError};

/// Checks services, tells people when they fail and when they are back.
#[derive(Clone, Debug, Parser)]
#[command(name = "cpra", version, about, max_term_width = 100, after_help = EXAMPLES, disable_help_subcommand = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,

    /// A file of monitors, a folder, or - for the standard input; repeat it for more
    #[arg(long, value_name = "FILE", global = true, help_heading = "Files")]
    pub yaml: Vec<PathBuf>,

    /// The daemon file (TOML); CPRA_... variables beat it, flags beat both
    #[arg(long, value_name = "FILE", global = true, help_heading = "Files")]
    pub config: Option<PathBuf>,

    /// Read the files, print what is wrong with them, and exit with 0 or 1
    #[arg(long, help_heading = "Files")]
    pub check_config: bool,

    /// Address of the API, the metrics and the pages [default: 127.0.0.1:9860]
    #[arg(long = "api.listen", value_name = "ADDR", value_parser = config::daemon::listen, help_heading = "Listeners")]
    pub api_listen: Option<SocketAddr>,

    /// Socket of the command line [default: in /run/cpra or the state folder]
    #[arg(long = "api.socket", value_name = "PATH", global = true, help_heading = "Listeners")]
    pub api_socket: Option<PathBuf>,

    /// Serve profiles
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_value_t = true, default_missing_value = "true", help_heading = "Listeners")]
    pub pprof: bool,

    /// Address of the profiles
    #[arg(long = "pprof.addr", value_name = "ADDR", value_parser = config::daemon::listen, default_value = "localhost:6060",
          help_heading = "Listeners")]
    pub pprof_addr: SocketAddr,

    /// Log more about what the daemon does
    #[arg(long, help_heading = "Output")]
    pub debug: bool,

    /// How log lines are written [default: text]
    #[arg(long, value_name = "FORMAT", help_heading = "Output")]
    pub log_format: Option<Format>,
}

/// Without one of these the daemon runs.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Check a monitor of a file now, without a daemon, and show what happens
    Check(check::Args),
    /// How the running daemon is
    Status(status::Args),
    /// The running daemon's monitors
    Monitors(monitors::Args),
    /// What happened to a monitor, who was told, and whether it arrived
    Incident(incident::Args),
    /// Stop watching a monitor of the running daemon
    Disable(switch::Args),
    /// Watch it again
    Enable(switch::Args),
    /// Have the running daemon read its files again
    Reload(reload::Args),
    /// Alerts that are still to be delivered or could not be: list, retry, drop
    Outbox(outbox::Args),
    /// Send a test to a destination, and show what it answers
    Notify(notify::Args),
    /// Show, compare and draw what the daemon has measured and written down
    Histogram(histogram::Args),
    /// Write a monitors file of any size, for a first try and for measurements
    Generate(generate::Args),
}

/// What a subcommand answers with when what was asked for was not done.
const NOT_DONE: u8 = 3;

/// The arguments of this process; else what was wrong with them has been told, and this is the exit code.
///
/// # Errors
/// Also for `--help` and `--version`, which are no errors.
pub fn parse() -> Result<Args, ExitCode> {
    Args::try_parse().map_err(|error| {
        let _ = error.print();
        let commands: Vec<String> = <Args as clap::CommandFactory>::command()
            .get_subcommands()
            .map(|command| command.get_name().to_owned())
            .collect();
        let has_command = std::env::args().skip(1).any(|word| commands.contains(&word));
        match error.exit_code() {
            0 => ExitCode::SUCCESS,
            _ if has_command => ExitCode::from(NOT_DONE),
            code => ExitCode::from(u8::try_from(code).unwrap_or(2)),
        }
    })
}

/// Does what the arguments say.
pub fn obey(args: &Args) -> ExitCode {
    match &args.command {
        None if args.check_config => check_config(args),
        None => run(args),
        Some(Command::Check(command)) => check::check(args, command),
        Some(Command::Status(command)) => told(status::status(args, command)),
        Some(Command::Monitors(command)) => told(monitors::monitors(args, command)),
        Some(Command::Incident(command)) => told(incident::incident(args, command)),
        Some(Command::Disable(command)) => told(switch::switch(args, command, "disable")),
        Some(Command::Enable(command)) => told(switch::switch(args, command, "enable")),
        Some(Command::Reload(command)) => told(reload::reload(args, command)),
        Some(Command::Outbox(command)) => told(outbox::outbox(args, command)),
        Some(Command::Notify(command)) => told(notify::notify(args, command)),
        Some(Command::Histogram(command)) => histogram::histogram(command),
        Some(Command::Generate(command)) => generate::generate(command),
    }
}

/// An answer's exit code; what kept it from coming goes to stderr.
fn told(answer: Result<ExitCode, client::ClientError>) -> ExitCode {
    answer.unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr().lock(), "cpra: {error}");
        ExitCode::from(error.exit_code())
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
}

const EXAMPLES: &str = "\
Examples:
  cpra --yaml configs/quickstart.yaml           a tour of one minute, on this machine only
  cpra --yaml monitors.yaml --check-config      is the file right?
  cpra check shop/web --yaml monitors.yaml      one check, and all that is seen of it";

impl Args {
    /// Settings from the daemon file, the environment and these arguments.
    pub fn settings(&self) -> (Settings, Diagnostics) {
        let log_format = self.log_format.map(|format| match format {
            Format::Text => LogFormat::Text,
            Format::Json => LogFormat::Json,
        });
        let flags = Flags { api_listen: self.api_listen, api_socket: self.api_socket.clone(), log_format };
        Settings::load(self.config.as_deref(), |name| std::env::var(name).ok(), &flags)
    }

    /// The folders of this process, with the log folders of `settings`.
    pub fn folders(&self, settings: &Settings) -> Folders {
        let mut folders = Folders::of_process(local::own_uid() == 0);
        if let Some(log_dirs) = &settings.security.log_dirs {
            folders.log_dirs.clone_from(log_dirs);
        }
        if let Some(secret_dirs) = &settings.security.secret_dirs {
            folders.secret_dirs.clone_from(secret_dirs);
        }
        folders.providers.clone_from(&settings.providers);
        folders.fallback.clone_from(&settings.code.fallback);
        folders
    }
}

/// `--check-config`: every diagnostic to stderr, the summary to stdout.
pub fn check_config(args: &Args) -> ExitCode {
    let (settings, mut diagnostics) = args.settings();
    let mut scripts = false;
    let report = config::read_all(&args.yaml, &args.folders(&settings), &mut |monitor| {
        scripts |= matches!(monitor.policy.check, Check::Script(_));
    });
    if let Err(error) = Privilege::decide(&run::wish(&settings, scripts)) {
        // Who looks at the file may be somebody else than who starts the daemon.
        let severity =
            if matches!(error, PrivilegeError::NotRoot { .. }) { Severity::Warning } else { Severity::Error };
        let file = args.config.as_deref().map_or("settings".into(), |path| path.to_string_lossy());
        diagnostics.push(Diagnostic {
            severity,
            file: file.into(),
            position: None,
            subject: None,
            message: error.to_string().into(),
            excerpt: None,
        });
    }
    let text = summary::of(&report, &args.yaml);
    let notes = summary::notes(&report);
    diagnostics.append(report.diagnostics);
    diagnostics.append(report.unused);
    // A closed pipe behind us changes nothing about the answer.
    let _ = write!(std::io::stderr().lock(), "{diagnostics}");
    let _ = write!(std::io::stdout().lock(), "{text}: {}\n{notes}", summary::findings(&diagnostics));
    let is_sound = diagnostics.errors() + diagnostics.refusals() == 0;
    if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn plural(count: usize, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn every_flag_is_read() {
        let args = parse("cpra").expect("no flag is required");
        assert!(args.pprof && !args.debug && !args.check_config && args.yaml.is_empty() && args.config.is_none());
        assert_eq!(args.pprof_addr, SocketAddr::from(([127, 0, 0, 1], 6060)));
        let args = parse(
            "cpra --yaml m.yaml --config c.toml --debug --pprof=false --pprof.addr 127.0.0.1:7070 --check-config \
             --log-format json --api.listen [::1]:80",
        )
        .expect("every flag");
        assert_eq!((args.yaml, args.config), (vec!["m.yaml".into()], Some("c.toml".into())));
        assert!(args.debug && !args.pprof && args.check_config);
        assert_eq!(args.pprof_addr.port(), 7070);
        assert_eq!(args.log_format, Some(Format::Json));
        assert_eq!(args.api_listen.map(|address| address.to_string()), Some("[::1]:80".to_owned()));
        let args = parse("cpra --yaml a.yaml --yaml b.d --yaml -").expect("several files");
        assert_eq!(args.yaml, ["a.yaml", "b.d", "-"].map(PathBuf::from));
        let args = parse("cpra generate --count 3 --mix tcp=1 --format jsonl").expect("a subcommand");
        assert!(matches!(args.command, Some(Command::Generate(_))));
        assert!(parse("cpra generate --count 0").is_err() && parse("cpra generate").is_err());
        assert!(parse("cpra --pprof --debug").expect("a bare --pprof").pprof);
    }

    #[test]
    fn wrong_flags_are_refused_with_a_remedy() {
        let error = parse("cpra --api.listen :9860").expect_err("no address").to_string();
        assert!(error.contains("write \"127.0.0.1:9860\""), "{error}");
        assert!(parse("cpra --log-format xml").is_err());
        assert!(parse("cpra monitors.yaml").is_err());
    }

    #[test]
    fn help_fits_one_screen() {
        let help = <Args as clap::CommandFactory>::command().render_help().to_string();
        assert!(help.lines().count() <= 40, "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
        assert!(help.contains("--check-config") && help.contains("Examples:"), "{help}");
    }
}
