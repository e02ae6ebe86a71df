//! What a store holds after records: a pure fold, one record after the other.
//!
//! It is what every store has to agree with. The one on disk is tested against it, and the simulated one is it.
//!
//! Everything is kept in a canonical order, so that two stores can be compared: what goes by names by the name, episodes,
//! bundles and notices by their numbers. Finished episodes, delivered notices and audits are history: they are no part of what a
//! process needs when it starts. Not made to be fast: adding something walks what comes after it.

use super::protocol::{Record, Stored, StoredNotice};
use crate::domain::notice::EpisodeId;

impl Stored {
    /// A store that never held anything.
    pub fn new() -> Self {
        Self { is_new: true, ..Self::default() }
    }

    /// Takes one record, in the order in which they were committed. What is about something unknown changes nothing.
    pub fn apply(&mut self, record: &Record) {
        self.is_new = false;
        match record {
            Record::SeenOk { monitor, definition } => upsert(&mut self.seen_ok, monitor, *definition),
            Record::Episode(record) => match self.position_of(record.id) {
                Ok(known) => self.episodes[known] = (**record).clone(),
                Err(place) => self.episodes.insert(place, (**record).clone()),
            },
            Record::EpisodeClosed { episode, .. } => {
                if let Ok(known) = self.position_of(*episode) {
                    self.episodes.remove(known);
                }
            }
            Record::Bundle(record) => match self.bundles.binary_search_by_key(&record.id, |known| known.id) {
                Ok(known) => self.bundles[known] = (**record).clone(),
                Err(place) => self.bundles.insert(place, (**record).clone()),
            },
            Record::BundleClosed { bundle, .. } => self.bundles.retain(|known| known.id != *bundle),
            Record::NoticeQueued { id, notice } => {
                let mut notice = notice.clone();
                notice.monitor = None;
                let queued = StoredNotice { id: *id, notice, attempts: 0, dead: None };
                match self.outbox.binary_search_by_key(id, |stored| stored.id) {
                    Ok(known) => self.outbox[known] = queued,
                    Err(place) => self.outbox.insert(place, queued),
                }
                self.next_notice = self.next_notice.max(id.0.saturating_add(1));
            }
            Record::NoticeTried { id, .. } => {
                if let Ok(known) = self.outbox.binary_search_by_key(id, |stored| stored.id) {
                    let attempts = &mut self.outbox[known].attempts;
                    *attempts = attempts.saturating_add(1);
                }
            }
            Record::NoticeDone { id, .. } => {
                if let Ok(known) = self.outbox.binary_search_by_key(id, |stored| stored.id) {
                    self.outbox.remove(known);
                }
            }
            Record::NoticeDead { id, why, .. } => {
                if let Ok(known) = self.outbox.binary_search_by_key(id, |stored| stored.id) {
                    self.outbox[known].dead = Some(why.clone());
                }
            }
            Record::Switched { monitor, enabled } => upsert(&mut self.switched, monitor, *enabled),
            Record::SwitchForgotten { monitor } => self.switched.retain(|(name, _)| name != monitor),
            Record::Audit(_) => {}
        }
    }

    fn position_of(&self, episode: EpisodeId) -> Result<usize, usize> {
        self.episodes.binary_search_by_key(&episode, |known| known.id)
    }
}

fn upsert<T>(all: &mut Vec<(Box<str>, T)>, name: &str, value: T) {
    match all.binary_search_by(|(known, _)| (**known).cmp(name)) {
        Ok(known) => all[known].1 = value,
        Err(place) => all.insert(place, (name.into(), value)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::desk::protocol::{Audit, BundleRecord, Delivered, DeliveryResult, EpisodeRecord, NoticeId, Told};
    use crate::domain::episode::{DownWhy, State};
    use crate::domain::monitor::About;
    use crate::domain::{Color, DeliveryKey, Destination, Incident, Notice, Raise};
    use crate::units::{MonitorId, Span, Timestamp};

    fn folded(records: &[Record]) -> Stored {
        let mut stored = Stored::new();
        for record in records {
            stored.apply(record);
        }
        stored
    }

    fn episode(id: u128, monitor: &str, state: State) -> EpisodeRecord {
        EpisodeRecord {
            id: EpisodeId(id),
            monitor: Some(monitor.into()),
            definition: 7,
            state,
            opened: Timestamp::default(),
            cause: "refused".into(),
            yellow: true,
            red: state != State::Suspect,
            reminders: 0,
            told: vec![Told { destination: Arc::new(Destination::log(None)), color: Color::Yellow, bundle: None }],
        }
    }

    fn notice(raise: Raise) -> Box<Notice> {
        let episode = EpisodeId(1);
        Box::new(Notice {
            key: DeliveryKey { episode, raise, destination: Arc::new(Destination::log(None)), n: 0 },
            incident: Incident::new("test", "web", episode),
            monitor: Some(MonitorId::new(0, 3)),
            monitor_name: "web".into(),
            color: Color::Red,
            summary: "".into(),
            outcome: None,
            at: Timestamp::default(),
            lasted: Span::ZERO,
            groups: Box::default(),
            about: About::default(),
            test: false,
        })
    }

    fn queued(id: u64, raise: Raise) -> Record {
        Record::NoticeQueued { id: NoticeId(id), notice: notice(raise) }
    }

    fn tried(id: u64) -> Record {
        Record::NoticeTried { id: NoticeId(id), at: Timestamp::default(), delivered: DeliveryResult::Failed.into() }
    }

    fn done(id: u64) -> Record {
        Record::NoticeDone { id: NoticeId(id), at: Timestamp::default() }
    }

    #[test]
    fn anything_at_all_ends_its_being_new() {
        assert!(Stored::new().is_new);
        let audit = Audit { at: Timestamp::default(), who: "".into(), what: "".into(), about: "".into() };
        assert_eq!(folded(&[Record::Audit(audit)]), Stored::default());
        assert!(!folded(&[done(9)]).is_new, "also what is about nothing that is known");
    }

    #[test]
    fn what_goes_by_a_name_has_its_last_word() {
        let seen = |monitor: &str, definition| Record::SeenOk { monitor: monitor.into(), definition };
        let switched = |monitor: &str, enabled| Record::Switched { monitor: monitor.into(), enabled };
        let stored = folded(&[
            seen("web", 1),
            seen("db", 2),
            seen("web", 3),
            switched("web", false),
            switched("db", false),
            switched("db", true),
            Record::SwitchForgotten { monitor: "web".into() },
            Record::SwitchForgotten { monitor: "never".into() },
        ]);
        assert_eq!(stored.seen_ok, [("db".into(), 2), ("web".into(), 3)]);
        assert_eq!(stored.switched, [("db".into(), true)]);
    }

    #[test]
    fn an_episode_is_its_last_record_until_it_is_closed() {
        let down = State::Down(DownWhy::Exhausted);
        let record = |record: EpisodeRecord| Record::Episode(Box::new(record));
        let closed = |id| Record::EpisodeClosed { episode: EpisodeId(id), at: Timestamp::default() };
        let mut records = vec![
            record(episode(2, "web", State::Suspect)),
            record(episode(1, "db", State::Suspect)),
            record(episode(2, "web", down)),
        ];
        assert_eq!(folded(&records).episodes, [episode(1, "db", State::Suspect), episode(2, "web", down)]);
        records.extend([closed(1), closed(3)]);
        assert_eq!(folded(&records).episodes, [episode(2, "web", down)]);
    }

    #[test]
    fn a_bundle_is_its_last_record_until_it_is_closed() {
        let bundle = |id, notices| BundleRecord {
            id: EpisodeId(id),
            destination: Arc::new(Destination::log(None)),
            group: None,
            opened: Timestamp::default(),
            notices,
        };
        let record = |id, notices| Record::Bundle(Box::new(bundle(id, notices)));
        let closed = |id| Record::BundleClosed { bundle: EpisodeId(id), at: Timestamp::default() };
        let records = [record(2, 1), record(1, 1), record(3, 1), record(2, 2), closed(1), closed(4)];
        assert_eq!(folded(&records).bundles, [bundle(2, 2), bundle(3, 1)]);
    }

    #[test]
    fn a_notice_stays_until_it_is_done() {
        let dead =
            |id| Record::NoticeDead { id: NoticeId(id), at: Timestamp::default(), why: "401 Unauthorized".into() };
        let mut records = vec![queued(7, Raise::Red), queued(5, Raise::Yellow), tried(5), tried(5), tried(6), dead(7)];
        let stored = folded(&records);
        let rows: Vec<_> =
            stored.outbox.iter().map(|stored| (stored.id.0, stored.attempts, stored.dead.as_deref())).collect();
        assert_eq!(rows, [(5, 2, None), (7, 0, Some("401 Unauthorized"))]);
        assert!(stored.outbox.iter().all(|stored| stored.notice.monitor.is_none()), "numbers are a process's own");
        assert_eq!(stored.next_notice, 8);

        // Somebody wants it tried again: it begins anew.
        records.extend([queued(7, Raise::Red), done(5), done(5), dead(5)]);
        let stored = folded(&records);
        let rows: Vec<_> = stored.outbox.iter().map(|stored| (stored.id.0, stored.dead.as_deref())).collect();
        assert_eq!((rows, stored.next_notice), (vec![(7, None)], 8));
        records.push(Record::NoticeTried {
            id: NoticeId(7),
            at: Timestamp::default(),
            delivered: Delivered::new(DeliveryResult::Sent, "202 accepted"),
        });
        assert_eq!(folded(&records).outbox[0].attempts, 1, "sent is not yet done");
        records.push(done(7));
        assert_eq!((folded(&records).outbox.len(), folded(&records).next_notice), (0, 8), "no number is used again");
    }
}
