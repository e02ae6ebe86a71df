//! A list of steps run one after the other, each with its duration, and a summary of what ran.

use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// What ran so far.
#[derive(Default)]
pub(crate) struct Steps {
    finished: Vec<(&'static str, Duration, String)>,
}

impl Steps {
    pub(crate) fn command(&mut self, name: &'static str, command: &mut Command) -> anyhow::Result<()> {
        self.step(name, &shell_line(command), || execute(command).map(|()| String::new()))
    }

    /// Runs a step; `repeat` is the command line that runs it alone. What the step returns stands in the summary.
    pub(crate) fn step(
        &mut self,
        name: &'static str,
        repeat: &str,
        run: impl FnOnce() -> anyhow::Result<String>,
    ) -> anyhow::Result<()> {
        println!("\n==> {name}: {repeat}");
        let started = Instant::now();
        let result = run();
        let elapsed = started.elapsed();
        match result {
            Ok(note) => {
                println!("<== {name}: ok in {:.1} s", elapsed.as_secs_f64());
                self.finished.push((name, elapsed, note));
                Ok(())
            }
            Err(error) => {
                println!("<== {name}: FAILED after {:.1} s: {error:#}", elapsed.as_secs_f64());
                self.summary();
                println!("  FAILED  {name}\n\nrepeat it with:\n  {repeat}");
                bail!("{name} failed");
            }
        }
    }

    /// Records something that did not run, and why.
    pub(crate) fn skipped(&mut self, name: &'static str, reason: &str) {
        println!("\n==> {name}: not run: {reason}");
        self.finished.push((name, Duration::ZERO, format!("not run: {reason}")));
    }

    pub(crate) fn summary(&self) {
        println!("\nsummary");
        for (name, elapsed, note) in &self.finished {
            println!("  {:>6.1} s  {name}{}{note}", elapsed.as_secs_f64(), if note.is_empty() { "" } else { ": " });
        }
        let total: Duration = self.finished.iter().map(|(_, elapsed, _)| *elapsed).sum();
        println!("  {:>6.1} s  in all", total.as_secs_f64());
    }
}

/// Runs a command with its standard error merged into standard output: test runners write their closing lines
/// there, and whoever keeps only one of the two must not lose them.
pub(crate) fn execute(command: &mut Command) -> anyhow::Result<()> {
    let stdout = std::io::stdout().as_fd().try_clone_to_owned()?;
    let status = command
        .stderr(Stdio::from(stdout))
        .status()
        .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
    if !status.success() {
        bail!("{status}");
    }
    Ok(())
}

/// The command as one would type it.
pub(crate) fn shell_line(command: &Command) -> String {
    let mut line = String::new();
    for (key, value) in command.get_envs() {
        if let Some(value) = value {
            line.push_str(&format!("{}={} ", key.to_string_lossy(), quoted(&value.to_string_lossy())));
        }
    }
    let program = command.get_program().to_string_lossy();
    // The full path of cargo is this machine's business.
    line.push_str(program.rsplit('/').next().unwrap_or(&program));
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&quoted(&argument.to_string_lossy()));
    }
    line
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// Cargo, without what `cargo xtask` has said about this program: some build scripts listen to that (ring's does), and half
/// of the dependencies would be built anew whenever cargo was called by hand in between.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let ours = std::env::vars_os().map(|(name, _)| name).filter(|name| {
        let name = name.to_string_lossy();
        name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
    });
    for name in ours {
        command.env_remove(name);
    }
    command
}

/// Whether a program can be found, also in the folders of administrators that an ordinary PATH lacks.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(Into::into))
        .any(|folder| folder.join(program).is_file())
}

/// Whether cargo knows a subcommand.
pub(crate) fn has_subcommand(name: &str) -> bool {
    let mut command = cargo();
    command.args([name, "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_reads_as_one_would_type_it() {
        let mut command = Command::new("/opt/rust/bin/cargo");
        command.args(["run", "--", "it's"]).env("A", "b c");
        assert_eq!(shell_line(&command), r"A='b c' cargo run -- 'it'\''s'");
    }
}
