//! The contract, case by case.

use cpra::ring::{Errno, Family, Op, OpKind, Ring, Wait};
use cpra::units::{Slot, Span};

use crate::deck::Deck;
use crate::rig::{Behaviour, HTTP_REQUEST, HTTP_RESPONSE, Rig, pattern, skip};

/// Obeying the rule of the quiet slot, an old receive never sees the next target's bytes.
pub(crate) fn receive_pending_at_disconnect<R: Rig>(rig: R) {
    let mut deck = Deck::new("receive_pending_at_disconnect", rig);
    let Some(silent) = deck.target(Behaviour::Echo) else { return };
    let Some(greeter) = deck.target(Behaviour::Greet(b'B')) else { return };
    deck.open(0);
    for round in 0..50 {
        let (old, new) = (2 * round, 2 * round + 1);
        assert_eq!(deck.connect(0, old, silent), Ok(0));
        deck.submit(0, old, &Op::Recv, &[]);
        deck.turn(Wait::NONE);
        deck.disconnect(0, old);
        let end = deck.end(0, old, OpKind::Recv).expect("the receive ended with the connection");
        assert_ne!(end.result.unwrap_or(0), 1, "the old receive got something");

        assert_eq!(deck.connect(0, new, greeter), Ok(0));
        deck.submit(0, new, &Op::Recv, &[]);
        deck.until_received(0, new, 1);
        deck.disconnect(0, new);
        assert_eq!(deck.received(0, new), b"B");
        assert_eq!(deck.received(0, old), b"");
    }
}

/// A multishot receive that has delivered before does not live on in the next connection.
pub(crate) fn multishot_receive_ends_before_reconnect<R: Rig>(rig: R) {
    let mut deck = Deck::new("multishot_receive_ends_before_reconnect", rig);
    let Some(first) = deck.target(Behaviour::Greet(b'A')) else { return };
    let Some(second) = deck.target(Behaviour::Greet(b'B')) else { return };
    deck.open(0);
    for round in 0..50 {
        let (old, new) = (2 * round, 2 * round + 1);
        assert_eq!(deck.connect(0, old, first), Ok(0));
        deck.submit(0, old, &Op::Recv, &[]);
        deck.until_received(0, old, 1);
        deck.disconnect(0, old);
        assert_eq!(deck.connect(0, new, second), Ok(0));
        // Nobody receives here yet: what arrives must wait for the new receive.
        deck.turn(Wait { batch: 1, bound: Span::from_millis(5) });
        deck.submit(0, new, &Op::Recv, &[]);
        deck.until_received(0, new, 1);
        deck.disconnect(0, new);
        assert_eq!((deck.received(0, old), deck.received(0, new)), (&b"A"[..], &b"B"[..]));
    }
}

/// A dead target must not read as alive because the next one is.
pub(crate) fn blackhole_connect_pending_at_disconnect<R: Rig>(rig: R) {
    let mut deck = Deck::new("blackhole_connect_pending_at_disconnect", rig);
    let Some(dead) = deck.target(Behaviour::Blackhole) else { return };
    let Some(alive) = deck.target(Behaviour::Echo) else { return };
    deck.open(0);
    for round in 0..20 {
        let (old, new) = (2 * round, 2 * round + 1);
        deck.submit(0, old, &Op::Connect(dead), &[]);
        deck.turn(Wait { batch: 1, bound: Span::from_millis(5) });
        assert!(!deck.is_quiet(0), "the blackhole answered");
        deck.disconnect(0, old);
        let end = deck.end(0, old, OpKind::Connect).expect("quiet");
        assert_eq!(end.result, Err(Errno::ECONNRESET));
        deck.assert_usable(0, new, alive);
    }
}

/// Disconnects meet connects at every stage of completion; each ends once, and the slot lives on.
pub(crate) fn disconnect_races_connect<R: Rig>(rig: R) {
    const SLOTS: u32 = 32;
    let mut deck = Deck::new("disconnect_races_connect", rig);
    let Some(echo) = deck.target(Behaviour::Echo) else { return };
    let Some(refused) = deck.target(Behaviour::Refused) else { return };
    let mut generation = 0;
    (0..SLOTS).for_each(|slot| deck.open(slot));
    for round in 0..60 {
        generation += 1;
        for slot in 0..SLOTS {
            let target = if (slot + round) % 3 == 0 { refused } else { echo };
            deck.submit(slot, generation, &Op::Connect(target), &[]);
            // Some are disconnected in the same submission, some after the connect reached the kernel, some
            // after its completion could have been there.
            if slot % 4 == 0 {
                deck.submit(slot, generation, &Op::Disconnect, &[]);
            }
        }
        deck.turn(Wait::NONE);
        (0..SLOTS).filter(|slot| slot % 4 == 1).for_each(|slot| deck.submit(slot, generation, &Op::Disconnect, &[]));
        deck.turn(Wait { batch: 1, bound: Span::from_millis(1) });
        (0..SLOTS).filter(|slot| slot % 4 > 1).for_each(|slot| deck.submit(slot, generation, &Op::Disconnect, &[]));
        deck.until("all slots to be quiet", |deck| deck.pending() == 0);
        for slot in 0..SLOTS {
            let connect = deck.end(slot, generation, OpKind::Connect).expect("quiet").result;
            let good = (slot + round) % 3 != 0;
            assert!(
                matches!(connect, Err(Errno::ECONNRESET))
                    || connect == if good { Ok(0) } else { Err(Errno::ECONNREFUSED) },
                "slot {slot}: {connect:?}"
            );
            assert_eq!(deck.end(slot, generation, OpKind::Disconnect).expect("quiet").result, Ok(0));
        }
        deck.ends.clear();
    }
    (0..SLOTS).for_each(|slot| deck.assert_usable(slot, generation + 1, echo));
}

/// Bytes that are on their way when the disconnect comes belong to the old connection or to nobody.
pub(crate) fn disconnect_races_receive<R: Rig>(rig: R) {
    let mut deck = Deck::new("disconnect_races_receive", rig);
    let Some(greeter) = deck.target(Behaviour::Greet(b'A')) else { return };
    let Some(echo) = deck.target(Behaviour::Echo) else { return };
    deck.open(0);
    for round in 0..100 {
        let (old, new) = (2 * round, 2 * round + 1);
        assert_eq!(deck.connect(0, old, greeter), Ok(0));
        deck.submit(0, old, &Op::Recv, &[]);
        deck.submit(0, old, &Op::Disconnect, &[]);
        deck.until_quiet(0);
        assert!(deck.received(0, old).len() <= 1);
        deck.assert_usable(0, new, echo);
    }
}

/// A refused connect says so, and the socket can connect again without a disconnect.
pub(crate) fn refused<R: Rig>(rig: R) {
    let mut deck = Deck::new("refused", rig);
    let Some(refused) = deck.target(Behaviour::Refused) else { return };
    let Some(echo) = deck.target(Behaviour::Echo) else { return };
    deck.open(0);
    for generation in 0..20 {
        let end = deck.finish(0, generation, &Op::Connect(refused), &[]);
        assert_eq!((end.result, end.local), (Err(Errno::ECONNREFUSED), false));
    }
    deck.assert_usable(0, 20, echo);
}

/// A connect to nobody stays pending; the disconnect at its deadline ends it.
pub(crate) fn blackholed<R: Rig>(rig: R) {
    let mut deck = Deck::new("blackholed", rig);
    let Some(dead) = deck.target(Behaviour::Blackhole) else { return };
    let Some(echo) = deck.target(Behaviour::Echo) else { return };
    (0..8).for_each(|slot| deck.open(slot));
    (0..8).for_each(|slot| deck.submit(slot, 1, &Op::Connect(dead), &[]));
    deck.linger();
    assert_eq!(deck.pending(), 8, "the blackhole answered");
    for slot in 0..8 {
        deck.disconnect(slot, 1);
        let end = deck.end(slot, 1, OpKind::Connect).expect("quiet");
        assert!(end.result.is_err() && !end.local, "{end:?}");
        deck.assert_usable(slot, 2, echo);
    }
}

/// A reset ends the receive with an error; after a disconnect the slot is as new.
pub(crate) fn reset<R: Rig>(rig: R) {
    let mut deck = Deck::new("reset", rig);
    let Some(target) = deck.target(Behaviour::Reset) else { return };
    let Some(echo) = deck.target(Behaviour::Echo) else { return };
    deck.open(0);
    for round in 0..20 {
        // The reset may overtake the completion of the connect.
        if deck.connect(0, 2 * round, target) == Ok(0) {
            let end = deck.finish(0, 2 * round, &Op::Recv, &[]);
            assert_eq!((end.result, end.local), (Err(Errno::ECONNRESET), false));
        }
        deck.disconnect(0, 2 * round);
        deck.assert_usable(0, 2 * round + 1, echo);
    }
}

/// What came before a reset is delivered, then the error.
pub(crate) fn reset_mid_body<R: Rig>(rig: R) {
    let mut deck = Deck::new("reset_mid_body", rig);
    let Some(target) = deck.target(Behaviour::ResetMidBody) else { return };
    deck.open(0);
    for generation in 0..5 {
        assert_eq!(deck.connect(0, generation, target), Ok(0));
        deck.submit(0, generation, &Op::Recv, &[]);
        deck.submit(0, generation, &Op::Send, b"x");
        deck.until_quiet(0);
        let end = deck.end(0, generation, OpKind::Recv).expect("quiet");
        assert_eq!(end.result, Err(Errno::ECONNRESET));
        assert!(HTTP_RESPONSE.starts_with(deck.received(0, generation)));
        deck.disconnect(0, generation);
    }
}

/// A FIN is the end without an error.
pub(crate) fn fin<R: Rig>(rig: R) {
    let mut deck = Deck::new("fin", rig);
    let Some(target) = deck.target(Behaviour::Fin) else { return };
    let Some(echo) = deck.target(Behaviour::Echo) else { return };
    deck.open(0);
    for round in 0..20 {
        assert_eq!(deck.connect(0, 2 * round, target), Ok(0));
        let end = deck.finish(0, 2 * round, &Op::Recv, &[]);
        assert_eq!(end.result, Ok(0));
        deck.disconnect(0, 2 * round);
        deck.assert_usable(0, 2 * round + 1, echo);
    }
}

/// Several requests over one connection, with one receive pending throughout.
pub(crate) fn http_keep_alive<R: Rig>(rig: R) {
    let mut deck = Deck::new("http_keep_alive", rig);
    let Some(target) = deck.target(Behaviour::Http) else { return };
    deck.open(0);
    assert_eq!(deck.connect(0, 7, target), Ok(0));
    deck.submit(0, 7, &Op::Recv, &[]);
    for request in 1..=20 {
        assert_eq!(deck.finish(0, 7, &Op::Send, HTTP_REQUEST).result, Ok(HTTP_REQUEST.len() as u32));
        deck.ends.clear();
        deck.until_received(0, 7, request * HTTP_RESPONSE.len());
        assert!(deck.received(0, 7).ends_with(HTTP_RESPONSE));
    }
    deck.disconnect(0, 7);
}

pub(crate) fn ipv6<R: Rig>(rig: R) {
    let mut deck = Deck::new("ipv6", rig);
    let Some(echo) = deck.target_of(Family::V6, Behaviour::Echo) else { return };
    let Some(refused) = deck.target_of(Family::V6, Behaviour::Refused) else { return };
    let Some(dead) = deck.target_of(Family::V6, Behaviour::Blackhole) else { return };
    deck.open_family(0, Family::V6);
    for round in 0..10 {
        assert_eq!(deck.connect(0, 3 * round, refused), Err(Errno::ECONNREFUSED));
        deck.submit(0, 3 * round + 1, &Op::Connect(dead), &[]);
        deck.turn(Wait { batch: 1, bound: Span::from_millis(5) });
        deck.disconnect(0, 3 * round + 1);
        deck.assert_usable(0, 3 * round + 2, echo);
    }
}

/// A send completes when all of it is sent, however often the kernel was full.
pub(crate) fn large_send<R: Rig>(rig: R) {
    const LENGTH: usize = 12 << 20;
    let mut deck = Deck::new("large_send", rig);
    let Some(target) = deck.target(Behaviour::Sum) else { return };
    deck.open(0);
    let mut message = (LENGTH as u64).to_le_bytes().to_vec();
    message.extend((0..LENGTH).map(pattern));
    let sum = (0..LENGTH).fold(0_u64, |sum, index| sum.wrapping_add(u64::from(pattern(index))));
    for generation in 0..3 {
        assert_eq!(deck.connect(0, generation, target), Ok(0));
        deck.submit(0, generation, &Op::Recv, &[]);
        assert_eq!(deck.finish(0, generation, &Op::Send, &message).result, Ok(message.len() as u32));
        deck.until_received(0, generation, 8);
        assert_eq!(deck.received(0, generation), sum.to_le_bytes());
        deck.disconnect(0, generation);
    }
}

/// A send that nobody takes is ended by the disconnect.
pub(crate) fn send_to_a_target_that_does_not_read<R: Rig>(rig: R) {
    let mut deck = Deck::new("send_to_a_target_that_does_not_read", rig);
    let Some(stuck) = deck.target(Behaviour::Stuck) else { return };
    let Some(echo) = deck.target(Behaviour::Echo) else { return };
    deck.open(0);
    let message = vec![b'x'; 32 << 20];
    for round in 0..3 {
        assert_eq!(deck.connect(0, 2 * round, stuck), Ok(0));
        deck.submit(0, 2 * round, &Op::Send, &message);
        deck.linger();
        assert!(!deck.is_quiet(0), "32 MiB went into a target that does not read");
        deck.disconnect(0, 2 * round);
        let end = deck.end(0, 2 * round, OpKind::Send).expect("quiet");
        assert!(end.result.is_err(), "{end:?}");
        deck.assert_usable(0, 2 * round + 1, echo);
    }
}

/// Data comes in many pieces, in order, and then the FIN.
pub(crate) fn large_receive<R: Rig>(rig: R) {
    const LENGTH: usize = 20 << 20;
    let mut deck = Deck::new("large_receive", rig);
    let Some(target) = deck.target(Behaviour::Flood(LENGTH)) else { return };
    deck.open(0);
    assert_eq!(deck.connect(0, 1, target), Ok(0));
    assert_eq!(deck.finish(0, 1, &Op::Recv, &[]).result, Ok(0));
    assert_eq!(deck.received(0, 1).len(), LENGTH);
    assert!(deck.received(0, 1).iter().enumerate().all(|(index, byte)| *byte == pattern(index)));
    deck.disconnect(0, 1);
}

/// More at a time than there are buffers for.
pub(crate) fn many_large_receives<R: Rig>(rig: R) {
    const LENGTH: usize = 1 << 20;
    const SLOTS: u32 = 32;
    let mut deck = Deck::new("many_large_receives", rig);
    let Some(target) = deck.target(Behaviour::Flood(LENGTH)) else { return };
    for slot in 0..SLOTS {
        deck.open(slot);
        assert_eq!(deck.connect(slot, 1, target), Ok(0));
    }
    (0..SLOTS).for_each(|slot| deck.submit(slot, 1, &Op::Recv, &[]));
    deck.until("all data", |deck| deck.pending() == 0);
    for slot in 0..SLOTS {
        assert_eq!(deck.end(slot, 1, OpKind::Recv).expect("ended").result, Ok(0));
        assert_eq!(deck.received(slot, 1).len(), LENGTH);
        assert!(deck.received(slot, 1).iter().enumerate().all(|(index, byte)| *byte == pattern(index)));
        deck.disconnect(slot, 1);
    }
}

/// More slots than one io_uring instance has; all of them at once, the last as good as the first.
pub(crate) fn many_slots<R: Rig>(rig: R) {
    const SLOTS: u32 = 20_500;
    let mut deck = Deck::new("many_slots", rig);
    let Some(refused) = deck.target(Behaviour::Refused) else { return };
    let Some(dead) = deck.target(Behaviour::Blackhole) else { return };
    let Some(echo) = deck.target(Behaviour::Echo) else { return };
    for slot in 0..SLOTS {
        deck.open(slot);
    }
    // Every 16th hangs.
    for slot in 0..SLOTS {
        deck.submit(slot, 1, &Op::Connect(if slot % 16 == 0 { dead } else { refused }), &[]);
    }
    let hanging = SLOTS.div_ceil(16) as usize;
    deck.until("the refused", |deck| deck.pending() == hanging);
    assert!(deck.ends.iter().all(|end| end.result == Err(Errno::ECONNREFUSED)));
    for slot in [0, 1, SLOTS / 2, SLOTS - 2, SLOTS - 1] {
        if deck.is_quiet(slot) {
            deck.assert_usable(slot, 2, echo);
        }
    }
    for slot in (0..SLOTS).step_by(16) {
        deck.submit(slot, 1, &Op::Disconnect, &[]);
    }
    deck.until("the disconnects", |deck| deck.pending() == 0);
    (0..SLOTS).for_each(|slot| deck.rig.ring().close(Slot(slot)));
}

/// What is submitted on a slot whose `open` failed completes with that error, as this host's own.
pub(crate) fn open_failing<R: Rig>(rig: R) {
    let mut deck = Deck::new("open_failing", rig);
    let Some(echo) = deck.target(Behaviour::Echo) else { return };
    if let Err(reason) = deck.rig.starve(true) {
        return skip("open_failing", &reason);
    }
    assert_eq!(deck.rig.ring().open(Slot(3), Family::V4), Err(Errno::EMFILE));
    for op in [Op::Connect(echo), Op::Send, Op::Recv] {
        let end = deck.finish(3, 1, &op, b"x");
        assert_eq!((end.result, end.local), (Err(Errno::EMFILE), true));
    }
    deck.disconnect(3, 1);
    deck.rig.ring().close(Slot(3));
    deck.rig.starve(false).expect("the way back");
    deck.open(3);
    deck.assert_usable(3, 2, echo);
}

pub(crate) fn slot_without_socket<R: Rig>(rig: R) {
    let mut deck = Deck::new("slot_without_socket", rig);
    let Some(echo) = deck.target(Behaviour::Echo) else { return };
    let end = deck.finish(40_000, 1, &Op::Connect(echo), &[]);
    assert!(end.result.is_err() && end.local);
    deck.disconnect(40_000, 1);
}

pub(crate) fn close_and_reopen_with_another_family<R: Rig>(rig: R) {
    let mut deck = Deck::new("close_and_reopen_with_another_family", rig);
    let Some(four) = deck.target_of(Family::V4, Behaviour::Echo) else { return };
    let Some(six) = deck.target_of(Family::V6, Behaviour::Echo) else { return };
    for round in 0..10 {
        deck.open_family(5, Family::V4);
        deck.assert_usable(5, 2 * round, four);
        deck.rig.ring().close(Slot(5));
        deck.open_family(5, Family::V6);
        deck.assert_usable(5, 2 * round + 1, six);
        deck.rig.ring().close(Slot(5));
    }
}

/// The largest generation comes back whole, with each kind of operation (the deck compares).
pub(crate) fn generations_come_back<R: Rig>(rig: R) {
    let mut deck = Deck::new("generations_come_back", rig);
    let Some(echo) = deck.target(Behaviour::Echo) else { return };
    deck.open(9);
    for generation in [0, 1, 0xFFFF, 0x0055_AA55, (1 << 24) - 1] {
        deck.assert_usable(9, generation, echo);
        assert_eq!(deck.ends.len(), 4);
        deck.ends.clear();
    }
}

/// Everything at once, in an order drawn from a seed, with disconnects at any moment.
pub(crate) fn mixed_traffic<R: Rig>(rig: R) {
    const SLOTS: u32 = 48;
    let mut deck = Deck::new("mixed_traffic", rig);
    let behaviours = [
        Behaviour::Echo,
        Behaviour::Greet(b'G'),
        Behaviour::Flood(100_000),
        Behaviour::Fin,
        Behaviour::Reset,
        Behaviour::ResetMidBody,
        Behaviour::Http,
        Behaviour::Refused,
        Behaviour::Blackhole,
    ];
    let mut targets = Vec::new();
    for behaviour in behaviours {
        let Some(target) = deck.target(behaviour) else { return };
        targets.push(target);
    }
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    let mut draw = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    (0..SLOTS).for_each(|slot| deck.open(slot));
    for round in 0..40 {
        for slot in 0..SLOTS {
            deck.submit(slot, round, &Op::Connect(targets[draw(targets.len() as u64) as usize]), &[]);
        }
        for _ in 0..draw(6) {
            deck.turn(Wait { batch: 1, bound: Span::from_millis(2) });
        }
        for slot in 0..SLOTS {
            if deck.end(slot, round, OpKind::Connect).is_some_and(|end| end.result.is_ok()) {
                deck.submit(slot, round, &Op::Recv, &[]);
                deck.submit(slot, round, &Op::Send, HTTP_REQUEST);
            }
        }
        for _ in 0..draw(6) {
            deck.turn(Wait { batch: 1, bound: Span::from_millis(2) });
        }
        (0..SLOTS).for_each(|slot| deck.submit(slot, round, &Op::Disconnect, &[]));
        deck.until("all slots to be quiet", |deck| deck.pending() == 0);
        deck.ends.clear();
    }
    (0..SLOTS).for_each(|slot| deck.assert_usable(slot, 1_000, targets[0]));
}
