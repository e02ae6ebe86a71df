//! What a ring needs to be tried.

use std::net::SocketAddr;

use cpra::ring::{Family, Ring};

/// How a target behaves. Every call of [`Rig::target`] makes a fresh one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Accepts, and sends back what it gets, until the other side ends.
    Echo,
    /// Echo, a little later each time: whoever waits for it is asleep by then.
    SlowEcho,
    /// Accepts, and sends this byte once, without waiting to be asked; then stays silent.
    Greet(u8),
    /// Accepts, reads 8 bytes (a length, little endian), then so many bytes, and answers with their sum (wrapping, 8
    /// bytes, little endian).
    Sum,
    /// Accepts, sends so many bytes of [`pattern`], then FIN.
    Flood(usize),
    /// Accepts and never reads.
    Stuck,
    /// Accepts, then FIN at once.
    Fin,
    /// Accepts, then RST at once.
    Reset,
    /// Accepts, waits for a byte, sends half of an HTTP response, then RST.
    ResetMidBody,
    /// Answers every HTTP request (no body) with [`HTTP_RESPONSE`] and keeps the connection.
    Http,
    /// Answers SYN with RST.
    Refused,
    /// Does not answer SYN.
    Blackhole,
}

pub(crate) const HTTP_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: target\r\n\r\n";
pub(crate) const HTTP_RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// The bytes of a flood.
pub(crate) fn pattern(index: usize) -> u8 {
    (index * 31 % 251) as u8
}

/// A ring, and targets to try it on.
pub(crate) trait Rig {
    type Ring: Ring;

    fn ring(&mut self) -> &mut Self::Ring;

    /// A new target, or why there cannot be one here.
    fn target(&mut self, family: Family, behaviour: Behaviour) -> Result<SocketAddr, String>;

    /// From now on `open` fails with EMFILE (or, with false, does not), or why that cannot be had here.
    fn starve(&mut self, on: bool) -> Result<(), String>;
}

/// Says aloud that a case is not tried, and fails where nothing may be skipped.
pub(crate) fn skip(name: &str, reason: &str) {
    println!("SKIPPED {name}: {reason}");
    assert!(std::env::var_os("CPRA_NO_SKIP").is_none_or(|value| value != "1"), "{name} was skipped: {reason}");
}

/// All cases for one rig: `contract!(RealRig::new())`.
#[macro_export]
macro_rules! contract {
    ($rig:expr) => {
        $crate::contract!(@each $rig,
            receive_pending_at_disconnect,
            multishot_receive_ends_before_reconnect,
            blackhole_connect_pending_at_disconnect,
            disconnect_races_connect,
            disconnect_races_receive,
            refused,
            blackholed,
            reset,
            reset_mid_body,
            fin,
            http_keep_alive,
            ipv6,
            large_send,
            send_to_a_target_that_does_not_read,
            large_receive,
            many_large_receives,
            many_slots,
            slot_without_socket,
            close_and_reopen_with_another_family,
            generations_come_back,
            mixed_traffic,
        );
    };
    (@each $rig:expr, $($case:ident,)*) => {
        $(
            #[test]
            fn $case() {
                $crate::cases::$case($rig);
            }
        )*
    };
}
