//! Processes that the driver starts, and what the kernel says about them. Each is ended, by its id, when its handle goes.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};
use serde_json::Value;

/// Called by a child: whatever ends the driver ends it too.
pub(crate) fn die_with_parent() -> anyhow::Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("prctl")
}

/// The same for a program that is not ours.
pub(crate) fn end_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe and allocates nothing.
    unsafe {
        command.pre_exec(|| set_pdeathsig(Signal::SIGKILL).map_err(Into::into));
    }
}

pub(crate) fn raise_open_files() -> anyhow::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("cannot raise the limit of open files")
}

/// A process that lives no longer than this value.
pub(crate) struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: Option<BufReader<ChildStdout>>,
}

impl Process {
    /// A subcommand of this program, with its lines read from its standard output.
    pub(crate) fn own(arguments: &[String]) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?;
        let mut command = Command::new(program);
        command.arg("bench").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        Self::start(&mut command)
    }

    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Self> {
        end_with_parent(command);
        let mut child =
            command.spawn().with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
        let input = child.stdin.take();
        let output = child.stdout.take().map(BufReader::new);
        Ok(Self { child, input, output })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        let output = self.output.as_mut().context("its output is not read")?;
        if output.read_line(&mut line)? == 0 {
            bail!("process {} ended without a word: {}", self.child.id(), self.child.wait()?);
        }
        Ok(line.trim_end().to_owned())
    }

    /// The line of JSON that it ends with; a daemon tells its story before it.
    pub(crate) fn last_line(&mut self) -> anyhow::Result<String> {
        loop {
            let line = self.line()?;
            if line.starts_with('{') {
                return Ok(line);
            }
        }
    }

    pub(crate) fn tell(&mut self, line: &str) -> anyhow::Result<()> {
        let input = self.input.as_mut().context("its input is not written")?;
        input.write_all(format!("{line}\n").as_bytes())?;
        Ok(())
    }

    /// Asks the target for its counts.
    pub(crate) fn snapshot(&mut self) -> anyhow::Result<Value> {
        self.tell("snapshot")?;
        Ok(serde_json::from_str(&self.line()?)?)
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to end and gives it a moment to do so.
    pub(crate) fn end(mut self) {
        let _ = kill(self.pid(), Signal::SIGTERM);
        let patience = Instant::now() + Duration::from_secs(5);
        while self.is_running() && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both do nothing to a process that has already been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// User and system time of each thread of a process by name, in the kernel's ticks of (usually) 10 ms.
pub(crate) fn thread_times(pid: u32) -> anyhow::Result<Vec<(String, Duration)>> {
    let mut times: Vec<(String, Duration)> = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let Ok(stat) = std::fs::read_to_string(task?.path().join("stat")) else { continue };
        let Some((name, time)) = parse_stat(&stat) else { continue };
        match times.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += time,
            None => times.push((name, time)),
        }
    }
    Ok(times)
}

/// User and system time of a whole process, threads that have ended included.
pub(crate) fn process_time(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_stat(&stat).map(|(_, time)| time).context("an unknown form of /proc/PID/stat")
}

pub(crate) fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

fn parse_stat(stat: &str) -> Option<(String, Duration)> {
    // The name is in parentheses and may hold any of them itself.
    let (head, tail) = (stat.find('(')?, stat.rfind(')')?);
    let fields: Vec<&str> = stat[tail + 1..].split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let per_second = sysconf(SysconfVar::CLK_TCK).ok()??;
    Some((stat[head + 1..tail].to_owned(), Duration::from_secs_f64(ticks as f64 / per_second as f64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_parentheses() {
        let stat = "7 (a) b (c) S 1 1 1 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 1 0 100 1000 10";
        let (name, time) = parse_stat(stat).expect("it parses");
        assert_eq!((name.as_str(), time), ("a) b (c", Duration::from_secs(2)));
    }
}
