//! What waits to be committed: the batches as they came, and while the disk does not take them, as few records as say the
//! same.
//!
//! Beyond [`STORE_BACKLOG_RECORDS`] it is merged: of an episode, a monitor or a notice the last word stays, and of what came
//! and went meanwhile nothing. Attempts and the oldest audits are dropped, and counted. What remains is at most one record for each
//! monitor, and for each open episode and each undelivered notice that the desk itself remembers: that is its bound. It is
//! one transaction from then on.

use hashbrown::HashSet;
use rustc_hash::FxBuildHasher;

use crate::desk::protocol::{Batch, NoticeId, Record};
use crate::domain::notice::EpisodeId;
use crate::units::limits::{STORE_AUDITS_KEPT, STORE_BACKLOG_RECORDS, STORE_TRANSACTION_RECORDS};

type Set<T> = HashSet<T, FxBuildHasher>;

#[derive(Debug)]
pub(super) struct Backlog {
    batches: Vec<Batch>,
    records: usize,
    /// The number of the last batch that came.
    last: u64,
    merge_at: usize,
    /// Open in the file.
    episodes: Set<EpisodeId>,
    bundles: Set<EpisodeId>,
    /// In the file's outbox.
    notices: Set<NoticeId>,
    /// Records of history that were dropped.
    pub(super) dropped: u64,
}

impl Backlog {
    /// `episodes`, `bundles` and `notices`: what is in the file.
    pub(super) fn new(
        episodes: impl IntoIterator<Item = EpisodeId>,
        bundles: impl IntoIterator<Item = EpisodeId>,
        notices: impl IntoIterator<Item = NoticeId>,
    ) -> Self {
        Self {
            batches: Vec::new(),
            records: 0,
            last: 0,
            merge_at: STORE_BACKLOG_RECORDS,
            episodes: episodes.into_iter().collect(),
            bundles: bundles.into_iter().collect(),
            notices: notices.into_iter().collect(),
            dropped: 0,
        }
    }

    /// # Panics
    /// If a number was left out or came twice: then a commit is lost, and nothing may go on as if it were not.
    pub(super) fn push(&mut self, batch: Batch) {
        assert_eq!(batch.sequence, self.last + 1, "commits count up from 1 without gaps");
        self.last = batch.sequence;
        self.records += batch.records.len();
        self.batches.push(batch);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Records that wait.
    pub(super) fn len(&self) -> usize {
        self.records
    }

    /// What is to be one transaction: one batch at least, and more as far as they stay within a bound together.
    pub(super) fn next(&self) -> &[Batch] {
        let mut sum = 0;
        let fitting = self.batches.iter().take_while(|batch| {
            sum += batch.records.len();
            sum <= STORE_TRANSACTION_RECORDS
        });
        let count = fitting.count().max(1).min(self.batches.len());
        &self.batches[..count]
    }

    /// The first `count` batches are durable. Answers the number of the last of them.
    pub(super) fn committed(&mut self, count: usize) -> u64 {
        let mut sequence = 0;
        for batch in self.batches.drain(..count) {
            sequence = batch.sequence;
            self.records -= batch.records.len();
            for record in batch.records {
                match record {
                    Record::Episode(episode) => drop(self.episodes.insert(episode.id)),
                    Record::EpisodeClosed { episode, .. } => drop(self.episodes.remove(&episode)),
                    Record::Bundle(bundle) => drop(self.bundles.insert(bundle.id)),
                    Record::BundleClosed { bundle, .. } => drop(self.bundles.remove(&bundle)),
                    Record::NoticeQueued { id, .. } => drop(self.notices.insert(id)),
                    Record::NoticeDone { id, .. } => drop(self.notices.remove(&id)),
                    Record::SeenOk { .. }
                    | Record::NoticeTried { .. }
                    | Record::NoticeDead { .. }
                    | Record::Switched { .. }
                    | Record::SwitchForgotten { .. }
                    | Record::Audit(_) => {}
                }
            }
        }
        self.merge_at = STORE_BACKLOG_RECORDS;
        sequence
    }

    /// Makes it as small as it can be, if it is long and has grown.
    pub(super) fn keep_within_bounds(&mut self) {
        if self.records > self.merge_at {
            self.merge();
            self.merge_at = self.records.saturating_mul(2).max(STORE_BACKLOG_RECORDS);
        }
    }

    pub(super) fn merge(&mut self) {
        let records = self.batches.drain(..).flat_map(|batch| batch.records).collect();
        let kept = self.merged(records);
        self.dropped += (self.records - kept.len()) as u64;
        self.records = kept.len();
        self.batches.push(Batch { sequence: self.last, records: kept });
    }

    /// Goes back from the last record: of everything the first that is met is the last word.
    fn merged(&self, records: Vec<Record>) -> Vec<Record> {
        let (mut monitors, mut switches): (Set<Box<str>>, Set<Box<str>>) = (Set::default(), Set::default());
        let (mut episodes, mut bundles): (Set<EpisodeId>, Set<EpisodeId>) = (Set::default(), Set::default());
        // Of notices there may be two words: what it is, and that it is dead.
        let (mut notices, mut dead): (Set<NoticeId>, Set<NoticeId>) = (Set::default(), Set::default());
        let mut audits = 0;
        let mut kept = Vec::new();
        for record in records.into_iter().rev() {
            let keep = match &record {
                Record::SeenOk { monitor, .. } => monitors.insert(monitor.clone()),
                Record::Switched { monitor, .. } | Record::SwitchForgotten { monitor } => {
                    switches.insert(monitor.clone())
                }
                Record::Episode(episode) => episodes.insert(episode.id),
                Record::EpisodeClosed { episode, .. } => episodes.insert(*episode) && self.episodes.contains(episode),
                Record::Bundle(bundle) => bundles.insert(bundle.id),
                Record::BundleClosed { bundle, .. } => bundles.insert(*bundle) && self.bundles.contains(bundle),
                Record::NoticeQueued { id, .. } => notices.insert(*id),
                Record::NoticeDone { id, .. } => notices.insert(*id) && self.notices.contains(id),
                Record::NoticeDead { id, .. } => !notices.contains(id) && dead.insert(*id),
                Record::NoticeTried { .. } => false,
                Record::Audit(_) => {
                    audits += 1;
                    audits <= STORE_AUDITS_KEPT
                }
            };
            if keep {
                kept.push(record);
            }
        }
        kept.reverse();
        kept
    }
}
