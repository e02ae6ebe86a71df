//! Which kept connections are alike.

use std::hash::Hash as _;

use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::is_tunnelled;
use crate::domain::HostRef;
use crate::probe::Request;

/// What tells the kept connections of one address apart: by whom, how and for whom they were secured. 128 bits of a hash
/// of all that, so that two of them do not meet.
pub(crate) fn identity(request: &Request<'_>) -> u128 {
    let Some(secured) = request.tls() else { return 0 };
    let mut hasher = SipHasher13::new();
    secured.policy.hash(&mut hasher);
    secured.client().hash(&mut hasher);
    spelled(secured.server_name()).hash(&mut hasher);
    if is_tunnelled(request) {
        let destination = request.destination();
        (spelled(destination.host), destination.port).hash(&mut hasher);
    }
    hasher.finish128().as_u128().max(1)
}

pub(super) fn spelled(host: HostRef<'_>) -> String {
    match host {
        HostRef::Name(name) => name.to_owned(),
        HostRef::Literal(address) => address.to_string(),
    }
}
