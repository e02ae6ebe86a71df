//! What travels through the kernel in `user_data`: whose completion this is.

use crate::ring::OpKind;
use crate::units::{Generation, Slot};

/// `generation(24) | kind(8) | slot(32)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// An operation of the shard.
    Op { slot: Slot, generation: Generation, kind: OpKind },
    /// The look into the error queue that ends a connect.
    Look { slot: Slot, generation: Generation },
    /// Another thread woke us.
    Waker,
    /// Another unit has work to run.
    Others,
    /// A watched socket has something to be read.
    Door(u32),
}

const LOOK: u64 = 0x04;
const WAKER: u64 = 0x10;
const OTHERS: u64 = 0x11;
const DOOR: u64 = 0x12;

impl Token {
    pub(super) const fn encode(self) -> u64 {
        match self {
            Self::Op { slot, generation, kind } => (generation.0 as u64) << 40 | (kind as u64) << 32 | slot.0 as u64,
            Self::Look { slot, generation } => (generation.0 as u64) << 40 | LOOK << 32 | slot.0 as u64,
            Self::Waker => WAKER << 32,
            Self::Others => OTHERS << 32,
            Self::Door(index) => DOOR << 32 | index as u64,
        }
    }

    /// # Panics
    /// On a value that [`Self::encode`] never made: the kernel gave back what we did not give it.
    pub(super) fn decode(data: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is what is wanted")]
        let low = data as u32;
        let generation = Generation((data >> 40) as u32);
        let kind = match data >> 32 & 0xFF {
            0 => OpKind::Connect,
            1 => OpKind::Send,
            2 => OpKind::Recv,
            3 => OpKind::Disconnect,
            LOOK => return Self::Look { slot: Slot(low), generation },
            WAKER => return Self::Waker,
            OTHERS => return Self::Others,
            DOOR => return Self::Door(low),
            _ => panic!("a completion for something never submitted: {data:#x}"),
        };
        Self::Op { slot: Slot(low), generation, kind }
    }
}

// A wider generation would spill over the end.
const _: () = assert!(Generation::BITS + 8 + 32 == 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_trip() {
        let kinds = [OpKind::Connect, OpKind::Send, OpKind::Recv, OpKind::Disconnect];
        let mut tokens = vec![Token::Waker, Token::Others, Token::Door(0), Token::Door(1)];
        for (slot, generation) in [(0, 0), (1, 2), (u32::MAX, (1 << Generation::BITS) - 1)] {
            let (slot, generation) = (Slot(slot), Generation(generation));
            tokens.extend(kinds.map(|kind| Token::Op { slot, generation, kind }));
            tokens.push(Token::Look { slot, generation });
        }
        for token in tokens {
            assert_eq!(Token::decode(token.encode()), token);
        }
    }
}
