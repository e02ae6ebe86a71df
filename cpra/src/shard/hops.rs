//! Redirects: an attempt that goes on elsewhere, on the slot that it has.
//!
//! ```text
//!  Flight ──hop──▶ Hopping: asks for the name      waits for the peer's FIN, a moment at most
//!                           │                      │
//!                           ▼                      ▼
//!                           address known          disconnected, quiet ──▶ Flight, on a fresh connection
//! ```
//! The slot is held throughout and the attempt's deadline stays: a check is at most as long as its timeout, wherever it
//! is led. In the ledger it counts as paused, which is counted by the slots themselves.
//!
//! Names come from answers here, and an answer can make up as many as it likes. So they are not remembered as those of
//! the catalog are ([`super::names`]): a name is known while a slot waits for it, which bounds them by the slots, and
//! by what slots gave up waiting for within the time that a resolver may take.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::Core;
use super::flight::{keeps_alive, request};
use super::protocol::{Effect, Effects, Resolution};
use super::slots::State;
use crate::domain::{Code, HostRef, Outcome, VoidReason};
use crate::probe::http::Hop;
use crate::probe::http::redirect::{guarded, is_link_local};
use crate::probe::{Judgement, Probe, Then, dialled};
use crate::ring::OpKind;
use crate::units::limits::HOP_FIN_WAIT;
use crate::units::{Generation, Instant, Slot};
use crate::world::{Components, Place};

/// One connection that a redirect led to.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) hop: Hop,
    /// Whom to connect to; `None` while the name is asked for.
    pub(super) address: Option<SocketAddr>,
    /// When the redirect came.
    since: Instant,
    /// The connection before it is on its way out.
    parted: bool,
}

/// Slots that wait for the addresses of names which are not the catalog's.
#[derive(Debug, Default)]
pub(super) struct Strangers(HashMap<Box<str>, Vec<(Slot, Generation)>, FxBuildHasher>);

impl Strangers {
    /// Lets a slot wait; answers whether the question has to be asked.
    fn wait(&mut self, name: &str, slot: Slot, generation: Generation) -> bool {
        if let Some(waiting) = self.0.get_mut(name) {
            waiting.push((slot, generation));
            return false;
        }
        self.0.insert(name.into(), vec![(slot, generation)]);
        true
    }
}

impl Core {
    /// The answer on this slot led elsewhere.
    pub(super) fn follow(&mut self, c: &mut Components<'_>, slot: Slot, hop: Hop, now: Instant, effects: &mut Effects) {
        let State::Flight(mut flight) = self.slots.change(slot, State::Leaving) else {
            unreachable!("an answer comes to a flight")
        };
        let (monitor, deadline) = (flight.monitor, flight.deadline);
        let (policy, entry) = (Arc::clone(&flight.policy), self.slots.entry(slot));
        let (generation, receiving) = (entry.generation, entry.is_pending(OpKind::Recv));
        let (host, port) = dialled(&policy, hop.target());
        let address = match host {
            HostRef::Literal(address) => Some(address),
            HostRef::Name(name) => {
                let known = self.names.address(name, now);
                if known.is_none() && self.strangers.wait(name, slot, generation) {
                    effects.list.push(Effect::Resolve { name: name.into() });
                }
                known
            }
        };
        let address = address.map(|address| SocketAddr::new(address, port));
        // The first connection of a check that keeps connections was not asked to close; a leg always is.
        let is_closing = receiving && (flight.leg.is_some() || !keeps_alive(&policy));
        flight.leg = Some(Box::new(Leg { hop, address, since: now, parted: false }));
        flight.reused = false;
        c.timing_mut(monitor).place = Place::Pause;
        self.slots.change(slot, State::Hopping(flight));
        if is_closing {
            self.slots.set_deadline(slot, Some(deadline.min(now + HOP_FIN_WAIT)));
        } else {
            self.slots.set_deadline(slot, Some(deadline));
            self.part(slot, effects);
        }
        if let Some(address) = address {
            self.refuse_guarded(c, slot, address.ip(), now, effects);
        }
    }

    /// Gives up the connection before the leg.
    pub(super) fn part(&mut self, slot: Slot, effects: &mut Effects) {
        let State::Hopping(flight) = &mut self.slots.entry(slot).state else { return };
        let deadline = flight.deadline;
        let Some(leg) = flight.leg.as_mut().filter(|leg| !leg.parted) else { return };
        leg.parted = true;
        self.slots.set_deadline(slot, Some(deadline));
        self.disconnect(slot, effects);
    }

    /// The slot is quiet: connects, if it is known whereto.
    pub(super) fn land(&mut self, c: &mut Components<'_>, slot: Slot, now: Instant, effects: &mut Effects) {
        let State::Hopping(flight) = &self.slots.entry(slot).state else { return };
        let Some(Leg { address: Some(address), parted: true, .. }) = flight.leg.as_deref() else { return };
        let address = *address;
        self.fit_socket(slot, &address, effects);
        let State::Hopping(mut flight) = self.slots.change(slot, State::Leaving) else {
            unreachable!("it was looked at above")
        };
        let entry = self.slots.entry(slot);
        entry.generation = entry.generation.next();
        let mut ops = std::mem::take(&mut self.ops);
        let leg = flight.leg.as_deref();
        let request = request(&self.definitions, flight.monitor, &flight.policy, flight.address, leg);
        let begun = Probe::start(&request, now, &mut ops);
        flight.probe = begun;
        let deadline = flight.deadline;
        c.timing_mut(flight.monitor).place = Place::Flight;
        self.slots.change(slot, State::Flight(flight));
        self.set_out(slot, now, deadline, &mut ops, effects);
        self.ops = ops;
    }

    /// A resolver's answer, for slots that were led to the name.
    pub(super) fn stranger_resolved(
        &mut self,
        c: &mut Components<'_>,
        name: &str,
        resolution: &Resolution,
        now: Instant,
        effects: &mut Effects,
    ) {
        for (slot, generation) in self.strangers.0.remove(name).unwrap_or_default() {
            let entry = self.slots.entry(slot);
            if entry.generation != generation {
                continue;
            }
            let State::Hopping(flight) = &mut entry.state else { continue };
            let Some(leg) = flight.leg.as_mut().filter(|leg| leg.address.is_none()) else { continue };
            flight.resolve = flight.resolve + now.since(leg.since);
            let url = leg.hop.url();
            let (_, port) = dialled(&flight.policy, leg.hop.target());
            match resolution {
                Resolution::Found { addresses, .. } if let Some(&address) = addresses.first() => {
                    leg.address = Some(SocketAddr::new(address, port));
                    self.refuse_guarded(c, slot, address, now, effects);
                    self.settle(c, slot, now, effects);
                }
                Resolution::Found { .. } | Resolution::NotFound => {
                    let text = format!("redirect to {url}: {name}: no such name");
                    self.hop_failed(c, slot, Code::L4Dns, &text, now, effects);
                }
                Resolution::Failed(why) => {
                    let text = format!("redirect to {url}: {name}: the resolver failed: {why}");
                    self.hop_failed(c, slot, Code::Void(VoidReason::Resolver), &text, now, effects);
                }
            }
        }
    }

    /// Ends an attempt that was led where no check is to be led to. What a proxy connects to is the proxy's business.
    fn refuse_guarded(
        &mut self,
        c: &mut Components<'_>,
        slot: Slot,
        address: IpAddr,
        now: Instant,
        effects: &mut Effects,
    ) {
        let State::Hopping(flight) = &self.slots.entry(slot).state else { return };
        let Some(leg) = &flight.leg else { return };
        let target = leg.hop.target();
        let is_direct = dialled(&flight.policy, target) == (target.host, target.port);
        if is_direct && is_link_local(address) {
            let text = format!("redirect to {}: {}", leg.hop.url(), guarded(address));
            self.hop_failed(c, slot, Code::L7Rsp, &text, now, effects);
        }
    }

    /// The moment for the peer's FIN is over, or the attempt's time is.
    pub(super) fn hop_expired(&mut self, c: &mut Components<'_>, slot: Slot, now: Instant, effects: &mut Effects) {
        let State::Hopping(flight) = &self.slots.entry(slot).state else { return };
        if now < flight.deadline {
            return self.part(slot, effects);
        }
        let Some(leg) = &flight.leg else { return };
        let (url, waited) = (leg.hop.url(), now.since(leg.since));
        if leg.address.is_some() {
            let text = format!("redirect to {url}: no time was left to follow it");
            return self.hop_failed(c, slot, Code::L7Tout, &text, now, effects);
        }
        // As with the first name: the target is to blame for what it used of the time itself.
        let code = if waited + waited > flight.deadline.since(flight.attempt_started) {
            Code::Void(VoidReason::Resolver)
        } else {
            Code::L7Tout
        };
        let text = format!("redirect to {url}: its address was not known after {waited}");
        self.hop_failed(c, slot, code, &text, now, effects);
    }

    fn hop_failed(
        &mut self,
        c: &mut Components<'_>,
        slot: Slot,
        code: Code,
        text: &str,
        now: Instant,
        effects: &mut Effects,
    ) {
        let outcome = Outcome::of(code).with_evidence(text);
        self.attempt_ended(c, slot, Judgement { outcome, then: Then::Disconnect }, now, effects);
        self.settle(c, slot, now, effects);
    }
}
