//! What must be true of a kernel before the daemon relies on it, asked at the start, with the remedy in the error.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use io_uring::{IoUring, Probe, opcode};
use nix::libc;
use thiserror::Error;

use super::{Options, UringRing};
use crate::ring::{Completion, Family, Op, OpKind, Ring, Wait};
use crate::units::{Generation, Slot, Span};

/// Why there is no ring.
#[derive(Debug, Error)]
pub enum RingError {
    #[error(
        "io_uring is switched off on this host (kernel.io_uring_disabled = {value}); allow it with \
         `sysctl -w kernel.io_uring_disabled=0`, or for one group with 1 and kernel.io_uring_group"
    )]
    Disabled { value: String },
    #[error(
        "this kernel ({release}) has no io_uring that defers task work; Linux 6.1 or later is needed: boot a newer kernel"
    )]
    TooOld { release: String },
    #[error(
        "io_uring is forbidden to this process, as container runtimes do: allow io_uring_setup, io_uring_enter and \
         io_uring_register in its seccomp profile"
    )]
    Forbidden { source: io::Error },
    #[error("this kernel's io_uring does not know {operation}; Linux 6.1 or later, built with networking, is needed")]
    Operation { operation: &'static str },
    #[error(
        "no file descriptors are left for io_uring; raise the limit of open files (`LimitNOFILE=` in the unit file, \
         `ulimit -n` in a shell)"
    )]
    Files { source: io::Error },
    #[error(
        "no memory for io_uring; give the control group more (`MemoryMax=`), or raise the limit of locked memory \
         (`LimitMEMLOCK=`)"
    )]
    Memory { source: io::Error },
    #[error("io_uring could not be set up")]
    Setup { source: io::Error },
    #[error(
        "this kernel does not let one direct socket be used for one target after another: {what}; run a kernel that \
         passes (6.18 is known to), or check that the loopback interface is up and not filtered"
    )]
    Reuse { what: String },
}

impl RingError {
    pub(super) fn from_setup(source: io::Error) -> Self {
        match source.raw_os_error() {
            // An unknown setup flag.
            Some(libc::EINVAL) => Self::TooOld { release: release() },
            Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => Self::Forbidden { source },
            Some(libc::EMFILE | libc::ENFILE) => Self::Files { source },
            Some(libc::ENOMEM) => Self::Memory { source },
            _ => Self::Setup { source },
        }
    }
}

fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// Whether the administrator allows io_uring. The setup itself would say no more than EPERM.
pub(super) fn allowed() -> Result<(), RingError> {
    match fs::read_to_string("/proc/sys/kernel/io_uring_disabled").map(|text| text.trim().to_owned()) {
        // 1 is open to a group and to root; the setup decides.
        Ok(value) if value == "2" => Err(RingError::Disabled { value }),
        _ => Ok(()),
    }
}

/// Whether the kernel knows the operations that we use.
pub(super) fn capable(ring: &IoUring) -> Result<(), RingError> {
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(|source| RingError::Setup { source })?;
    let needed = [
        ("CONNECT", opcode::Connect::CODE),
        ("SEND", opcode::Send::CODE),
        ("RECV", opcode::Recv::CODE),
        ("RECVMSG", opcode::RecvMsg::CODE),
        ("POLL_ADD", opcode::PollAdd::CODE),
    ];
    match needed.iter().find(|(_, code)| !probe.is_supported(*code)) {
        Some((operation, _)) => Err(RingError::Operation { operation }),
        None if !ring.params().is_feature_nodrop() => Err(RingError::Operation { operation: "NODROP" }),
        None if !ring.params().is_feature_ext_arg() => Err(RingError::Operation { operation: "EXT_ARG" }),
        None => Ok(()),
    }
}

impl UringRing {
    /// Uses one direct socket for two loopback connections in turn, ending the first while a receive is pending.
    ///
    /// # Errors
    /// When that does not work here, or there is no ring at all.
    pub fn self_test() -> Result<(), RingError> {
        let mut ring = Self::new(Options { unit_slots: 8, ..Options::default() })?;
        let fault = |what: &str| RingError::Reuse { what: what.to_owned() };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(|error| fault(&format!("no listener on 127.0.0.1 ({error})")))?;
        let target = listener.local_addr().map_err(|error| fault(&error.to_string()))?;

        let slot = Slot(3);
        ring.open(slot, Family::V4).map_err(|errno| fault(&format!("no socket ({errno})")))?;
        let mut accepted = Vec::new();
        for round in 1..=2 {
            let generation = Generation(round);
            ring.submit(slot, generation, &Op::Connect(target), &[]);
            let ended = ring.end_of(1).ok_or_else(|| fault("a connect to 127.0.0.1 did not end"))?;
            if !matches!(ended[..], [(OpKind::Connect, generation_of, true)] if generation_of == generation) {
                return Err(fault("a connect to 127.0.0.1 failed"));
            }
            accepted.push(ring.accept(&listener).ok_or_else(|| fault("a connect did not reach its listener"))?);
            ring.submit(slot, generation, &Op::Recv, &[]);
            ring.enter(Wait::NONE).map_err(|source| RingError::Setup { source })?;
            ring.submit(slot, generation, &Op::Disconnect, &[]);
            let ended = ring.end_of(2).ok_or_else(|| fault("a disconnect left a receive pending"))?;
            if !ended.contains(&(OpKind::Disconnect, generation, true)) {
                return Err(fault("a disconnect failed"));
            }
        }
        if accepted[0] == accepted[1] {
            return Err(fault("the second connection was the first one"));
        }
        ring.close(slot);
        Ok(())
    }

    /// The next `count` operations that end, or none if that takes longer than ten seconds.
    fn end_of(&mut self, count: usize) -> Option<Vec<(OpKind, Generation, bool)>> {
        let mut ended = Vec::new();
        for _ in 0..100 {
            self.enter(Wait { batch: 1, bound: Span::from_millis(100) }).ok()?;
            self.reap(&mut |Completion { kind, generation, result, more, .. }| {
                if !more {
                    ended.push((kind, generation, result.is_ok()));
                }
            });
            if ended.len() >= count {
                return Some(ended);
            }
        }
        None
    }

    /// The peer of the next connection to `listener`.
    fn accept(&mut self, listener: &TcpListener) -> Option<SocketAddr> {
        for _ in 0..100 {
            if let Ok((_, peer)) = listener.accept() {
                return Some(peer);
            }
            self.enter(Wait { batch: 1, bound: Span::from_millis(10) }).ok()?;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_names_its_remedy() {
        let error = || io::Error::from_raw_os_error(libc::EPERM);
        let errors = [
            RingError::Disabled { value: "2".to_owned() },
            RingError::TooOld { release: "5.15.0".to_owned() },
            RingError::from_setup(error()),
            RingError::Operation { operation: "RECV" },
            RingError::from_setup(io::Error::from_raw_os_error(libc::EMFILE)),
            RingError::from_setup(io::Error::from_raw_os_error(libc::ENOMEM)),
            RingError::Reuse { what: "x".to_owned() },
        ];
        for error in errors {
            let text = error.to_string();
            assert!(
                ["sysctl", "6.", "seccomp", "ulimit", "MemoryMax"].iter().any(|remedy| text.contains(remedy)),
                "{text}"
            );
        }
    }

    #[test]
    fn this_kernel_passes() {
        UringRing::self_test().expect("direct sockets can be used again");
    }
}
