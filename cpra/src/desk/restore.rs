//! What an older process has left in the store, taken up by this one (VERDICTS rows 1b, 39, 40).
//!
//! | stored | now | becomes |
//! | --- | --- | --- |
//! | episode | monitor gone, or not watched any more | "no longer watched" to all who were told; closed |
//! | episode | monitor defined otherwise | unproven: kept under its key, ended by H oks; not seen ok |
//! | episode, suspect | as before | suspect with a streak of 0; no second yellow |
//! | episode, down or degraded | as before | as it was |
//! | episode of the daemon | | goes on, until what it tells of is over ([`super::own`]) |
//! | a person's word | as the file says, or the monitor is gone | forgotten |
//! | a person's word | otherwise than the file says | it holds |
//! | seen ok | defined as before, and watched | one bit, and no record when it is seen again |
//! | notice | | to be delivered under its old number and keys, after those before it in its line |
//! | notice, dead | | dead |
//!
//! Nothing that was done is done again: nothing is raised here that was raised before. Only a new store makes raises wait
//! for a moment, since then everything that is down is told at once.
//!
//! The shards begin with nothing known; what they find before the commands of this step reach them comes with epoch 0, and
//! every monitor that is taken up has a later one.

use std::sync::Arc;

use super::notices::Draft;
use super::own::Kind;
use super::protocol::{Effect, EpisodeRecord, Record, Stored, StoredNotice, StoryKind, Told};
use super::{Desk, Episode, Monitor};
use crate::domain::episode::{self, State};
use crate::domain::health::Resumed;
use crate::domain::{Color, Destination, Raise};
use crate::shard::protocol::{Command, CommandKind};
use crate::units::planted::{self, Bug};
use crate::units::{Instant, MonitorId};

impl Desk {
    pub(super) fn restore(&mut self, stored: Stored, now: Instant, effects: &mut Vec<Effect>) {
        let Stored { is_new: _, trouble, seen_ok, episodes, bundles, switched, outbox, next_notice } = stored;
        for (name, enabled) in switched {
            self.restore_word(name, enabled, effects);
        }
        for (name, definition) in seen_ok {
            let known = self.catalog.find(&name).filter(|monitor| self.catalog.definition(*monitor) == definition);
            if let Some(monitor) = known.filter(|monitor| self.state(*monitor) != State::Disabled)
                && !planted::is(Bug::SeenOkRewritten)
            {
                self.seen.insert(monitor);
            }
        }
        // Before the episodes: what they have to say comes after it.
        self.outbox.count_on_from(next_notice);
        for StoredNotice { id, mut notice, attempts, dead } in outbox {
            notice.monitor = self.catalog.find(&notice.monitor_name);
            notice.key.destination = self.outbox.known(&notice.key.destination);
            if planted::is(Bug::ResolveLostAtCrash) && notice.key.raise == Raise::Resolve {
                continue;
            }
            if planted::is(Bug::SecondKeyAfterRestart) {
                notice.key.n += 1;
            }
            self.outbox.restore(id, notice, attempts, dead, now);
        }
        self.restore_bundles(bundles, &episodes, now);
        for mut record in episodes {
            if planted::is(Bug::EpisodesForgottenAtRestart) {
                break;
            }
            for told in &mut record.told {
                told.destination = self.outbox.known(&told.destination);
            }
            self.restore_episode(record, now, effects);
        }
        match trouble {
            Some(_) if planted::is(Bug::DamageUntold) => {}
            Some(trouble) => self.raise_own(Kind::StoreDamaged, &trouble, now, effects),
            None => self.resolve_own(Kind::StoreDamaged, "the store is in order", now, effects),
        }
    }

    fn restore_word(&mut self, name: Box<str>, enabled: bool, effects: &mut Vec<Effect>) {
        if planted::is(Bug::SwitchForgottenAtRestart) {
            return;
        }
        let monitor = self.catalog.find(&name).filter(|monitor| self.is_enabled_by_file(*monitor) != enabled);
        let Some(monitor) = monitor else {
            return self.records.push(Record::SwitchForgotten { monitor: name });
        };
        let state = if enabled { State::Unknown } else { State::Disabled };
        let mut known = Monitor { state, epoch: 0, episode: None };
        let epoch = known.begin_epoch();
        let kind = if enabled { CommandKind::Enable { epoch } } else { CommandKind::Disable { epoch } };
        self.monitors.insert(monitor, known);
        effects.push(Effect::Command(Command { monitor, kind }));
    }

    fn restore_episode(&mut self, record: EpisodeRecord, now: Instant, effects: &mut Vec<Effect>) {
        let Some(name) = record.monitor.clone() else { return self.take_up_own(record, now) };
        let known = self.catalog.find(&name);
        let is_free = |monitor: &MonitorId| self.monitors.get(monitor).is_none_or(|known| known.episode.is_none());
        let watched = known.filter(|monitor| self.state(*monitor) != State::Disabled);
        match watched.filter(is_free) {
            Some(monitor) => self.resume(monitor, record, now, effects),
            None => self.end_unwatched(known, &name, &record, now, effects),
        }
    }

    fn resume(&mut self, monitor: MonitorId, record: EpisodeRecord, now: Instant, effects: &mut Vec<Effect>) {
        let catalog = Arc::clone(&self.catalog);
        let definition = catalog.definition(monitor);
        let (state, resumed) = match record.state {
            _ if record.definition != definition => {
                (episode::step(record.state, episode::Event::Redefined).0, Resumed::Unproven)
            }
            // A claim that is not carried out.
            State::Suspect | State::Waiting => (State::Suspect, Resumed::Suspect),
            State::Down(why) => (State::Down(why), Resumed::Failing),
            State::Degraded => (State::Degraded, Resumed::Degraded),
            // Nobody knows what has become of the repair, or of the parent.
            State::Unproven | State::Running | State::Verifying | State::Unreachable => {
                (State::Unproven, Resumed::Unproven)
            }
            State::Unknown | State::Up | State::Disabled => (State::Unproven, Resumed::Unproven),
        };
        let state = if state.is_open() { state } else { State::Unproven };
        let mut episode = Episode {
            id: record.id,
            opened: record.opened,
            cause: record.cause,
            yellow: record.yellow,
            red: record.red,
            reminders: record.reminders,
            told: record.told,
            reminder: None,
            refresh: None,
        };
        if planted::is(Bug::RestoredRaiseRepeated) {
            for told in episode.told.clone() {
                let again = self.raise_again(monitor, &episode, told.color, 0, &told.destination, now);
                self.queue(again, now, now);
            }
        }
        if (state, definition) != (record.state, record.definition) {
            self.records.push(Record::Episode(Box::new(episode.record(monitor, state, &catalog))));
        }
        self.plan_repeats(monitor, state, &mut episode, now);
        self.open.insert((episode.opened, monitor));
        self.stats.episodes_open += 1;
        let known = self.monitors.entry(monitor).or_insert(Monitor { state, epoch: 0, episode: None });
        known.state = state;
        known.episode = Some(episode);
        let epoch = known.begin_epoch();
        effects.push(Effect::Command(Command { monitor, kind: CommandKind::Resume { epoch, resumed } }));
    }

    /// Row 39: nobody looks any more, so nobody will see it recover.
    fn end_unwatched(
        &mut self,
        monitor: Option<MonitorId>,
        name: &str,
        record: &EpisodeRecord,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        let catalog = Arc::clone(&self.catalog);
        let own = monitor.map(|monitor| catalog.policy(monitor).codes.destinations(Color::Gray)).unwrap_or_default();
        let told = record.told.iter().filter(|told| told.bundle.is_none()).map(|Told { destination, .. }| destination);
        let mut destinations: Vec<&Arc<Destination>> = Vec::new();
        for destination in told.chain(own) {
            if !destinations.contains(&destination) {
                destinations.push(destination);
            }
        }
        let at = self.wall_of(now);
        let draft = Draft {
            monitor,
            name,
            episode: record.id,
            raise: Raise::Gray,
            n: 0,
            color: Color::Gray,
            summary: format!("{name} is no longer watched").into(),
            outcome: None,
            at,
            lasted: at.since(record.opened),
        };
        for destination in destinations {
            let notice = self.notice(&draft, destination);
            self.queue(notice, now, now);
        }
        self.leave_bundles(&record.told, record.id, now);
        self.records.push(Record::EpisodeClosed { episode: record.id, at });
        self.narrate(monitor, now, StoryKind::Color(Color::Gray), &draft.summary, effects);
    }
}
