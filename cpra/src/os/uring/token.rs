//! What travels through the kernel in `user_data`: whose completion this is.

use crate::ring::OpKind;
use crate::units::{Generation, Slot};

/// `generation(24) | kind(8) | slot(32)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// An operation of the shard.
    Op { slot: Slot, generation: Generation, kind: OpKind },
    /// The watched eventfd became readable.
    Eventfd,
    /// Another unit has completions.
    Unit(u32),
}

const EVENTFD: u64 = 0x10;
const UNIT: u64 = 0x11;

impl Token {
    pub(super) const fn encode(self) -> u64 {
        match self {
            Self::Op { slot, generation, kind } => (generation.0 as u64) << 40 | (kind as u64) << 32 | slot.0 as u64,
            Self::Eventfd => EVENTFD << 32,
            Self::Unit(index) => UNIT << 32 | index as u64,
        }
    }

    /// # Panics
    /// On a value that [`Self::encode`] never made: the kernel gave back what we did not give it.
    pub(super) fn decode(data: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is what is wanted")]
        let low = data as u32;
        let kind = match data >> 32 & 0xFF {
            0 => OpKind::Connect,
            1 => OpKind::Send,
            2 => OpKind::Recv,
            3 => OpKind::Disconnect,
            EVENTFD => return Self::Eventfd,
            UNIT => return Self::Unit(low),
            _ => panic!("a completion for something never submitted: {data:#x}"),
        };
        let generation = Generation((data >> 40) as u32);
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
        let mut tokens = vec![Token::Eventfd, Token::Unit(0), Token::Unit(u32::MAX)];
        for kind in kinds {
            for (slot, generation) in [(0, 0), (1, 2), (u32::MAX, (1 << Generation::BITS) - 1)] {
                tokens.push(Token::Op { slot: Slot(slot), generation: Generation(generation), kind });
            }
        }
        for token in tokens {
            assert_eq!(Token::decode(token.encode()), token);
        }
    }
}
