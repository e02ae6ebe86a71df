//! Sessions that may be resumed: bounded, and only for as long as the judgement of their certificate may be old.
//!
//! rustls asks one store per configuration and knows nothing of who judged when. So each connection gets a store of its
//! own ([`Pocket`]) with at most one ticket in it; what it collects meanwhile is laid into the shared [`Tickets`] with
//! the time of the full handshake that stands behind it. A ticket that was got by resumption inherits that time:
//! resuming for ever does not put off the next judgement.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;
use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

use crate::units::Timestamp;
use crate::units::limits::{TLS_JUDGED_MAX, TLS_TICKETS_MAX, TLS_TICKETS_PER_PEER_MAX};

/// Whose tickets they are: the context, the name that the certificate was judged by, and the address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Peer {
    pub(super) context: u32,
    pub(super) address: SocketAddr,
    pub(super) name: ServerName<'static>,
}

#[derive(Debug)]
enum Ticket {
    // Good for as many resumptions as one likes.
    V12(Tls12ClientSessionValue),
    // Good for one.
    V13(Tls13ClientSessionValue),
}

#[derive(Debug)]
struct Laid {
    ticket: Ticket,
    judged: Timestamp,
    order: u64,
}

#[derive(Debug, Default)]
struct Drawer {
    group: Option<NamedGroup>,
    laid: VecDeque<Laid>,
}

/// All tickets. Full: the oldest go.
#[derive(Debug, Default)]
pub struct Tickets {
    drawers: HashMap<Arc<Peer>, Drawer, FxBuildHasher>,
    /// What was laid in, oldest first; some of it has been taken out again.
    order: VecDeque<(u64, Arc<Peer>)>,
    next: u64,
}

impl Tickets {
    pub(super) fn take(&mut self, peer: &Peer, now: Timestamp) -> Pocket {
        let mut inside = Inside::default();
        if let Some(drawer) = self.drawers.get_mut(peer) {
            inside.group = drawer.group;
            let oldest = now.as_micros().saturating_sub(TLS_JUDGED_MAX.as_micros().cast_signed());
            drawer.laid.retain(|laid| laid.judged.as_micros() > oldest);
            match drawer.laid.back() {
                Some(Laid { ticket: Ticket::V12(value), judged, .. }) => {
                    inside.judged = Some(*judged);
                    inside.v12 = Some(value.clone());
                }
                Some(Laid { ticket: Ticket::V13(_), .. }) => {
                    if let Some(Laid { ticket: Ticket::V13(value), judged, .. }) = drawer.laid.pop_back() {
                        inside.judged = Some(judged);
                        inside.v13 = Some(value);
                    }
                }
                None => {}
            }
        }
        Pocket(Mutex::new(inside))
    }

    /// Lays in what a connection has collected, whose certificate was judged at `judged`.
    pub(super) fn lay(&mut self, peer: &Peer, pocket: &Pocket, judged: Timestamp) {
        let mut inside = pocket.inside();
        if inside.fresh.is_empty() && !inside.learnt {
            return;
        }
        inside.learnt = false;
        let known = self.drawers.get_key_value(peer).map(|(peer, _)| Arc::clone(peer));
        let peer = known.unwrap_or_else(|| {
            let peer = Arc::new(peer.clone());
            self.drawers.insert(Arc::clone(&peer), Drawer::default());
            // When this comes up, the drawer goes if nothing is in it.
            self.order.push_back((self.next, Arc::clone(&peer)));
            self.next += 1;
            peer
        });
        let Some(drawer) = self.drawers.get_mut(&peer) else { return };
        drawer.group = inside.group;
        for ticket in inside.fresh.drain(..) {
            if matches!(ticket, Ticket::V12(_)) {
                drawer.laid.retain(|laid| !matches!(laid.ticket, Ticket::V12(_)));
            }
            if drawer.laid.len() >= TLS_TICKETS_PER_PEER_MAX {
                drawer.laid.pop_front();
            }
            drawer.laid.push_back(Laid { ticket, judged, order: self.next });
            self.order.push_back((self.next, Arc::clone(&peer)));
            self.next += 1;
        }
        drop(inside);
        while self.order.len() > TLS_TICKETS_MAX {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((order, peer)) = self.order.pop_front() else { return };
        let Some(drawer) = self.drawers.get_mut(&peer) else { return };
        drawer.laid.retain(|laid| laid.order > order);
        if drawer.laid.is_empty() {
            self.drawers.remove(&peer);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.drawers.values().map(|drawer| drawer.laid.len()).sum()
    }
}

/// One connection's store.
#[derive(Debug)]
pub(super) struct Pocket(Mutex<Inside>);

#[derive(Debug, Default)]
struct Inside {
    group: Option<NamedGroup>,
    learnt: bool,
    v12: Option<Tls12ClientSessionValue>,
    v13: Option<Tls13ClientSessionValue>,
    /// When the certificate behind the ticket was judged.
    judged: Option<Timestamp>,
    fresh: Vec<Ticket>,
}

/// A server may send any number of tickets.
const FRESH_MAX: usize = 4;

impl Pocket {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn judged(&self) -> Option<Timestamp> {
        self.inside().judged
    }

    fn collect(&self, ticket: Ticket) {
        let mut inside = self.inside();
        if inside.fresh.len() < FRESH_MAX {
            inside.fresh.push(ticket);
        }
    }
}

impl ClientSessionStore for Pocket {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        let mut inside = self.inside();
        inside.learnt |= inside.group != Some(group);
        inside.group = Some(group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.inside().group
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.collect(Ticket::V12(value));
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.inside().v12.clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.inside().v12 = None;
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.collect(Ticket::V13(value));
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.inside().v13.take()
    }
}
