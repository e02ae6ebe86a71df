//! Scripts that run, each at a place of its own, and what is known of them.

use std::os::fd::OwnedFd;

use nix::libc;
use nix::unistd::read;

use crate::units::limits::SCRIPT_OUTPUT_KEPT;
use crate::units::{Generation, Instant, Slot};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Out = 0,
    Err = 1,
    End = 2,
}

/// The serial number keeps an event of a script that has gone from being taken for one of its place's next.
pub(super) const fn token(serial: u32, index: usize, source: Source) -> u64 {
    (serial as u64) << 32 | (index as u64) << 2 | source as u64
}

/// Whom an answer goes to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) client: usize,
    pub(super) slot: Slot,
    pub(super) generation: Generation,
}

/// What is read of one output.
pub(super) struct Output {
    pub(super) pipe: Option<OwnedFd>,
    pub(super) kept: Vec<u8>,
}

/// Why a script is brought to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Recalled,
    Flooded,
}

#[derive(Clone, Copy)]
pub(super) enum Phase {
    Running,
    /// Asked to end; killed after that.
    Asked {
        until: Instant,
    },
    /// Left behind after that.
    Killed {
        why: Why,
        until: Instant,
    },
    /// Answered for; it still is our child.
    LeftBehind,
}

pub(super) struct Run {
    pub(super) place: Place,
    pub(super) serial: u32,
    pub(super) pid: libc::pid_t,
    pub(super) pidfd: OwnedFd,
    pub(super) outputs: [Output; 2],
    /// Bytes of both outputs so far.
    pub(super) written: u64,
    pub(super) phase: Phase,
}

/// Scripts that run, at places that are used again.
#[derive(Default)]
pub(super) struct Runs {
    pub(super) places: Vec<Option<Run>>,
    pub(super) free: Vec<usize>,
    pub(super) len: usize,
    /// Those that are to end.
    pub(super) ending: usize,
    pub(super) serial: u32,
}

impl Runs {
    pub(super) fn insert(&mut self, make: impl FnOnce(u32) -> Run) -> usize {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        self.serial = self.serial.wrapping_add(1) & (u32::MAX >> 1);
        self.places[index] = Some(make(self.serial));
        self.len += 1;
        index
    }

    pub(super) fn remove(&mut self, index: usize) -> Option<Run> {
        let run = self.places.get_mut(index)?.take()?;
        self.free.push(index);
        self.len -= 1;
        if run.is_ending() {
            self.ending -= 1;
        }
        Some(run)
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut Run> {
        self.places.get_mut(index)?.as_mut()
    }

    pub(super) fn find(&self, place: Place) -> Option<usize> {
        self.places.iter().position(|run| run.as_ref().is_some_and(|run| run.place == place))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Run> {
        self.places.iter().flatten()
    }

    pub(super) fn set_phase(&mut self, index: usize, phase: Phase) {
        let Some(run) = self.places.get_mut(index).and_then(Option::as_mut) else { return };
        self.ending -= usize::from(run.is_ending());
        run.phase = phase;
        self.ending += usize::from(run.is_ending());
    }
}

impl Run {
    pub(super) const fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Asked { .. } | Phase::Killed { .. })
    }

    pub(super) const fn until(&self) -> Option<Instant> {
        match self.phase {
            Phase::Asked { until } | Phase::Killed { until, .. } => Some(until),
            Phase::Running | Phase::LeftBehind => None,
        }
    }

    /// Reads once; answers whether there may be more at this time.
    pub(super) fn read_once(&mut self, source: Source, scratch: &mut [u8]) -> bool {
        let output = &mut self.outputs[source as usize];
        let Some(pipe) = &output.pipe else { return false };
        match read(pipe, scratch) {
            Ok(0) => {
                output.pipe = None;
                false
            }
            Ok(count) => {
                let room = SCRIPT_OUTPUT_KEPT - output.kept.len();
                output.kept.extend_from_slice(&scratch[..count.min(room)]);
                self.written += count as u64;
                true
            }
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => false,
            Err(_) => {
                output.pipe = None;
                false
            }
        }
    }

    /// The program has ended: what it had written before lies in its pipes.
    pub(super) fn read_rest(&mut self, scratch: &mut [u8]) {
        for source in [Source::Out, Source::Err] {
            while self.outputs[source as usize].kept.len() < SCRIPT_OUTPUT_KEPT && self.read_once(source, scratch) {}
        }
    }

    /// What it said on its standard output, else on its standard error.
    pub(super) fn said(&self) -> Box<str> {
        let [out, err] = &self.outputs;
        let kept = if out.kept.trim_ascii().is_empty() { &err.kept } else { &out.kept };
        String::from_utf8_lossy(kept).into()
    }
}
