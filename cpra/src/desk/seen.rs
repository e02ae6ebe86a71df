//! Which monitors have been seen ok since they are defined as they are: one bit each.
//!
//! A restart finds nearly all of a million monitors well, and must not write a million rows to say so again.

use crate::units::MonitorId;

#[derive(Debug, Default)]
pub(super) struct Seen {
    /// By shard; what is not there has not been seen.
    shards: Vec<Vec<u64>>,
}

impl Seen {
    /// Whether that is news.
    pub(super) fn insert(&mut self, monitor: MonitorId) -> bool {
        let (word, bit) = place(monitor);
        let shard = usize::from(monitor.shard());
        if self.shards.len() <= shard {
            self.shards.resize_with(shard + 1, Vec::new);
        }
        let words = &mut self.shards[shard];
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        let is_news = words[word] & bit == 0;
        words[word] |= bit;
        is_news
    }

    /// It is another one now, or nobody watches it.
    pub(super) fn remove(&mut self, monitor: MonitorId) {
        let (word, bit) = place(monitor);
        if let Some(word) = self.shards.get_mut(usize::from(monitor.shard())).and_then(|words| words.get_mut(word)) {
            *word &= !bit;
        }
    }
}

const fn place(monitor: MonitorId) -> (usize, u64) {
    (monitor.index() as usize / 64, 1 << (monitor.index() % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_monitor_has_its_own_bit() {
        let mut seen = Seen::default();
        let monitors =
            [(0, 0), (0, 63), (0, 64), (3, 0), (3, 1_000_000)].map(|(shard, index)| MonitorId::new(shard, index));
        for monitor in monitors {
            assert!(seen.insert(monitor));
        }
        for monitor in monitors {
            assert!(!seen.insert(monitor), "{monitor}");
        }
        seen.remove(monitors[2]);
        seen.remove(MonitorId::new(9, 9));
        assert!(seen.insert(monitors[2]) && !seen.insert(monitors[1]));
    }
}
