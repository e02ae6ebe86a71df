//! The waiting room: what is due and has no slot yet, first come, first served.
//!
//! Fair by age: under overload every monitor waits the same time, whatever its interval, so that all of them are
//! checked in turn. It holds each monitor at most once and is bounded by their number. What a monitor misses while it
//! waits is counted when it leaves.

use std::collections::VecDeque;

#[derive(Debug, Default)]
pub struct ReadyList {
    waiting: VecDeque<u32>,
}

/// Beyond this, memory that a burst left behind is given back once the room is empty.
const KEEP_CAPACITY: usize = 4096;

impl ReadyList {
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub fn push(&mut self, id: u32) {
        self.waiting.push_back(id);
    }

    /// Back to the head of the line: it had left, and could not start after all.
    pub fn push_front(&mut self, id: u32) {
        self.waiting.push_front(id);
    }

    pub fn pop(&mut self) -> Option<u32> {
        let first = self.waiting.pop_front();
        if self.waiting.is_empty() && self.waiting.capacity() > KEEP_CAPACITY {
            self.waiting.shrink_to(KEEP_CAPACITY);
        }
        first
    }

    /// Who waits longest.
    pub fn first(&self) -> Option<u32> {
        self.waiting.front().copied()
    }

    /// Takes some out of the middle: they are watched no more. Linear, and rare.
    pub fn forget(&mut self, leaves: impl Fn(u32) -> bool) {
        self.waiting.retain(|&waiting| !leaves(waiting));
    }

    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.waiting.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_come_first_served() {
        let mut ready = ReadyList::default();
        for id in [3, 1, 2] {
            ready.push(id);
        }
        ready.forget(|id| id == 1 || id == 7);
        ready.push_front(9);
        assert_eq!(std::iter::from_fn(|| ready.pop()).collect::<Vec<_>>(), [9, 3, 2]);
    }
}
