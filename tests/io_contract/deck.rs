//! A ring under watch: every operation is booked, and every completion must have been booked.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use cpra::ring::{Completion, Errno, Family, Op, OpKind, Ring, Wait};
use cpra::units::{Generation, Slot, Span};

use crate::rig::{Behaviour, Rig, skip};

/// Rounds without any completion before a wait is given up: with [`ROUND`] each, 20 s.
const PATIENCE: u32 = 400;
const ROUND: Span = Span::from_millis(50);

/// The last that was heard of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub slot: u32,
    pub generation: u32,
    pub kind: OpKind,
    pub result: Result<u32, Errno>,
    pub local: bool,
}

pub(crate) struct Deck<R: Rig> {
    pub rig: R,
    name: &'static str,
    /// Generation of each pending operation.
    pending: BTreeMap<(u32, u8), u32>,
    pub ends: Vec<End>,
    /// What was received, by slot and generation.
    pub data: BTreeMap<(u32, u32), Vec<u8>>,
}

impl<R: Rig> Deck<R> {
    pub(crate) fn new(name: &'static str, rig: R) -> Self {
        Self { rig, name, pending: BTreeMap::new(), ends: Vec::new(), data: BTreeMap::new() }
    }

    /// A target, or none after saying aloud that this case is skipped.
    pub(crate) fn target(&mut self, behaviour: Behaviour) -> Option<SocketAddr> {
        self.target_of(Family::V4, behaviour)
    }

    pub(crate) fn target_of(&mut self, family: Family, behaviour: Behaviour) -> Option<SocketAddr> {
        self.rig.target(family, behaviour).inspect_err(|reason| skip(self.name, reason)).ok()
    }

    pub(crate) fn open(&mut self, slot: u32) {
        self.open_family(slot, Family::V4);
    }

    pub(crate) fn open_family(&mut self, slot: u32, family: Family) {
        self.rig.ring().open(Slot(slot), family).expect("a socket");
    }

    pub(crate) fn submit(&mut self, slot: u32, generation: u32, op: &Op, bytes: &[u8]) {
        let before = self.pending.insert((slot, op.kind() as u8), generation);
        assert_eq!(before, None, "the case submits {op:?} twice");
        self.rig.ring().submit(Slot(slot), Generation(generation), op, bytes);
    }

    /// Enters once and takes what is there.
    pub(crate) fn turn(&mut self, wait: Wait) -> usize {
        self.rig.ring().enter(wait).expect("the ring works");
        let Self { rig, pending, ends, data, .. } = self;
        let mut count = 0;
        rig.ring().reap(&mut |completion: Completion<'_>| {
            count += 1;
            let Completion { slot, generation, kind, result, more, local, data: bytes, .. } = completion;
            let booked = pending.get(&(slot.0, kind as u8));
            assert_eq!(booked, Some(&generation.0), "{completion:?} for what is not pending");
            if kind == OpKind::Recv {
                assert_eq!(result.unwrap_or(0) as usize, bytes.len());
                data.entry((slot.0, generation.0)).or_default().extend_from_slice(bytes);
            } else {
                assert!(bytes.is_empty() && !more, "{completion:?}");
            }
            assert!(!local || result.is_err());
            if more {
                assert!(!bytes.is_empty(), "{completion:?} says nothing");
            } else {
                assert!(bytes.is_empty(), "{completion:?}: the end carries no data");
                pending.remove(&(slot.0, kind as u8));
                ends.push(End { slot: slot.0, generation: generation.0, kind, result, local });
            }
        });
        count
    }

    pub(crate) fn is_quiet(&self, slot: u32) -> bool {
        self.pending.range((slot, 0)..=(slot, u8::MAX)).next().is_none()
    }

    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Turns until `done`.
    pub(crate) fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let mut idle = 0;
        while !done(self) {
            if self.turn(Wait { batch: 1, bound: ROUND }) == 0 {
                idle += 1;
                assert!(idle < PATIENCE, "waited in vain for {what}; pending: {:?}", self.pending);
            } else {
                idle = 0;
            }
        }
    }

    /// Turns so long that whatever is wrongly on its way would have arrived.
    pub(crate) fn linger(&mut self) {
        for _ in 0..10 {
            self.turn(Wait { batch: 1, bound: ROUND });
        }
    }

    pub(crate) fn until_quiet(&mut self, slot: u32) {
        self.until("a quiet slot", |deck| deck.is_quiet(slot));
    }

    /// How the only operation of this kind and generation ended.
    pub(crate) fn end(&self, slot: u32, generation: u32, kind: OpKind) -> Option<End> {
        let mut ends = self.ends.iter().filter(|end| (end.slot, end.generation, end.kind) == (slot, generation, kind));
        let end = ends.next().copied();
        assert_eq!(ends.next(), None, "ended twice");
        end
    }

    pub(crate) fn finish(&mut self, slot: u32, generation: u32, op: &Op, bytes: &[u8]) -> End {
        self.submit(slot, generation, op, bytes);
        let kind = op.kind();
        self.until("an end", |deck| deck.end(slot, generation, kind).is_some());
        self.end(slot, generation, kind).expect("just seen")
    }

    pub(crate) fn connect(&mut self, slot: u32, generation: u32, target: SocketAddr) -> Result<u32, Errno> {
        self.finish(slot, generation, &Op::Connect(target), &[]).result
    }

    /// Disconnects and waits until nothing is pending any more.
    pub(crate) fn disconnect(&mut self, slot: u32, generation: u32) {
        let end = self.finish(slot, generation, &Op::Disconnect, &[]);
        assert_eq!(end.result, Ok(0));
        self.until_quiet(slot);
    }

    pub(crate) fn received(&self, slot: u32, generation: u32) -> &[u8] {
        self.data.get(&(slot, generation)).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn until_received(&mut self, slot: u32, generation: u32, length: usize) {
        self.until("data", |deck| deck.received(slot, generation).len() >= length);
    }

    /// The slot reaches a good target and hears that one only.
    pub(crate) fn assert_usable(&mut self, slot: u32, generation: u32, echo: SocketAddr) {
        assert!(self.is_quiet(slot));
        assert_eq!(self.connect(slot, generation, echo), Ok(0), "slot {slot} is no longer usable");
        let word = format!("{slot} of {generation}");
        self.submit(slot, generation, &Op::Recv, &[]);
        assert_eq!(self.finish(slot, generation, &Op::Send, word.as_bytes()).result, Ok(word.len() as u32));
        self.until_received(slot, generation, word.len());
        assert_eq!(self.received(slot, generation), word.as_bytes());
        self.disconnect(slot, generation);
    }
}

impl<R: Rig> Drop for Deck<R> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.pending.is_empty(), "{} left {:?} pending", self.name, self.pending);
        }
    }
}
