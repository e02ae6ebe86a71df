//! Another catalog (VERDICTS row 39).
//!
//! | change | what becomes of the monitor |
//! | --- | --- |
//! | removed | told as no longer watched, by its old codes; a person's word about it goes with it |
//! | added | nothing: absent is what nothing is known of |
//! | redefined | an open episode is kept, and unproven; the shard waits for the word to watch it |
//! | adjusted | nothing: from now on its new codes are told, and a resolve goes to those who got the raise |
//! | switched in the file | as if a person had said so: the newer word counts |
//!
//! All transitions by the old catalog have been taken when this comes, and the shards go by the new one. The epoch of a
//! redefined monitor is a new one all the same: what is right must not hang on the order of queues.

use std::sync::Arc;

use super::protocol::{Audit, Effect, Record};
use super::{Desk, Monitor};
use crate::domain::Destination;
use crate::domain::episode::{Event, State};
use crate::domain::health::Resumed;
use crate::shard::protocol::{Command, CommandKind};
use crate::units::{Instant, MonitorId};
use crate::world::{Catalog, Changes, What};

impl Desk {
    pub(super) fn reloaded(
        &mut self,
        catalog: Arc<Catalog>,
        changes: &Changes,
        fallback: Arc<Destination>,
        who: Box<str>,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        self.settings.fallback = fallback;
        for (monitor, _) in changes.iter().filter(|(_, change)| change.what == What::Removed) {
            self.remove(monitor, now, effects);
        }
        // Before the new catalog says whom an absent record stands for: a monitor that nobody switched was as its file said.
        let watched: Vec<MonitorId> = changes
            .iter()
            .filter(|&(monitor, change)| {
                !matches!(change.what, What::Added | What::Removed) && self.state(monitor) != State::Disabled
            })
            .map(|(monitor, _)| monitor)
            .collect();
        self.catalog = catalog;
        for (monitor, change) in changes.iter().filter(|(_, change)| change.what != What::Removed) {
            if change.what == What::Added {
                continue;
            }
            let was_watched = watched.binary_search(&monitor).is_ok();
            let is_watched = if change.switched { self.is_enabled_by_file(monitor) } else { was_watched };
            if change.switched {
                // The file's word is the newer one.
                self.records.push(Record::SwitchForgotten { monitor: self.catalog.name(monitor).into() });
            }
            match (was_watched, is_watched) {
                (true, true) if change.what == What::Redefined => self.redefine(monitor, now, effects),
                (true, false) => self.stop(monitor, now, effects),
                (false, true) => self.begin(monitor, now, effects),
                (true, true) | (false, false) => {}
            }
        }
        let about = changes.counts.to_string().into();
        self.records.push(Record::Audit(Audit { at: self.wall_of(now), who, what: "reload".into(), about }));
    }

    /// It is in the files no more.
    fn remove(&mut self, monitor: MonitorId, now: Instant, effects: &mut Vec<Effect>) {
        if self.state(monitor) != State::Disabled {
            self.advance(monitor, Event::Disabled, now, None, effects);
        }
        self.void.ended(monitor);
        self.seen.remove(monitor);
        if self.monitors.remove(&monitor).is_some_and(|known| known.epoch != 0) {
            self.records.push(Record::SwitchForgotten { monitor: self.catalog.name(monitor).into() });
        }
        // Its number may become another one's.
        let name = self.catalog.name(monitor);
        for change in self.recent.iter_mut().filter(|change| change.monitor == Some(monitor)) {
            change.monitor = None;
            change.text = format!("{name}: {}", change.text).into();
        }
    }

    /// The file says that nobody is to watch it any more.
    fn stop(&mut self, monitor: MonitorId, now: Instant, effects: &mut Vec<Effect>) {
        let epoch = self.next_epoch(monitor, State::Up);
        self.advance(monitor, Event::Disabled, now, None, effects);
        self.void.ended(monitor);
        effects.push(Effect::Command(Command { monitor, kind: CommandKind::Disable { epoch } }));
    }

    /// The file says that it is to be watched.
    fn begin(&mut self, monitor: MonitorId, now: Instant, effects: &mut Vec<Effect>) {
        let epoch = self.next_epoch(monitor, State::Disabled);
        self.advance(monitor, Event::Enabled, now, None, effects);
        effects.push(Effect::Command(Command { monitor, kind: CommandKind::Enable { epoch } }));
    }

    /// It checks something else from now on.
    fn redefine(&mut self, monitor: MonitorId, now: Instant, effects: &mut Vec<Effect>) {
        let epoch = self.next_epoch(monitor, State::Up);
        self.seen.remove(monitor);
        self.advance(monitor, Event::Redefined, now, None, effects);
        self.void.ended(monitor);
        let kind = match self.state(monitor) {
            State::Unproven => CommandKind::Resume { epoch, resumed: Resumed::Unproven },
            _ => CommandKind::Enable { epoch },
        };
        effects.push(Effect::Command(Command { monitor, kind }));
    }

    /// `before` is its state where there is no record of it. Before its step: a record of epoch 0 may be dropped by that.
    fn next_epoch(&mut self, monitor: MonitorId, before: State) -> u8 {
        let known = self.monitors.entry(monitor).or_insert(Monitor { state: before, epoch: 0, episode: None });
        known.begin_epoch()
    }
}
