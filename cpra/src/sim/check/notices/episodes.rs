//! Episodes as they should be: by the transitions that the desk hears, by people's words, and by what the store held.

use super::*;
use crate::domain::TransitionKind;
use crate::domain::episode::State;
use crate::domain::health::Resumed;
use crate::domain::monitor::Dispatch;
use crate::shard::protocol::Transition;

impl Told {
    const fn new(monitor: Option<MonitorId>) -> Self {
        Self {
            monitor,
            id: None,
            destinations: BTreeSet::new(),
            yellow: false,
            red: false,
            ended: None,
            reminders: 0,
            reminded_at: None,
            threshold_at: None,
        }
    }
}

impl Notices {
    /// Row 40, and the rows of the outbox.
    pub(super) fn restore(&mut self, stored: &Stored, coverage: &mut Coverage) {
        let catalog = Arc::clone(&self.catalog);
        let mut words: BTreeMap<&str, bool> = BTreeMap::new();
        words.extend(stored.switched.iter().map(|(name, enabled)| (&**name, *enabled)));
        for shard in 0..catalog.shards() {
            let roster = catalog.roster(shard);
            for index in 0..roster.len() as u32 {
                let monitor = MonitorId::new(shard, index);
                let by_file = roster.is_enabled(index);
                let enabled = words.get(catalog.name(monitor)).copied().unwrap_or(by_file);
                let mut desired =
                    Desired { enabled, epoch: 0, episode: None, unnamed: VecDeque::new(), was_disabled: !enabled };
                if enabled != by_file {
                    coverage.hit(Section::Row, "40 switched by a person");
                    desired.epoch = 1;
                    let kind =
                        if enabled { CommandKind::Enable { epoch: 1 } } else { CommandKind::Disable { epoch: 1 } };
                    self.resumes.entry(monitor).or_default().push_back(kind);
                }
                self.desired.insert(monitor, desired);
            }
        }
        for record in &stored.episodes {
            let monitor = record.monitor.as_ref().and_then(|name| catalog.find(name));
            let number = self.told.len();
            self.by_id.insert(record.id, number);
            self.told.push(Told {
                id: Some(record.id),
                destinations: record.told.iter().map(|told| Arc::clone(&told.destination)).collect(),
                yellow: record.yellow,
                red: record.red,
                reminders: record.reminders,
                ..Told::new(monitor)
            });
            let Some(monitor) = monitor else {
                self.own.insert(record.id, record.definition);
                continue;
            };
            let (row, resumed) = match record.state {
                State::Suspect => ("40 suspect", Resumed::Suspect),
                State::Degraded => ("40 degraded", Resumed::Degraded),
                _ => ("40 down", Resumed::Failing),
            };
            coverage.hit(Section::Row, row);
            let desired = self.desired.get_mut(&monitor).expect("every monitor is known");
            desired.episode = Some(number);
            desired.epoch += 1;
            let kind = CommandKind::Resume { epoch: desired.epoch, resumed };
            self.resumes.entry(monitor).or_default().push_back(kind);
        }
        for stored in &stored.outbox {
            let notice = &stored.notice;
            if notice.test {
                if stored.dead.is_none() {
                    self.awaited_tests.insert(notice.key.clone());
                }
                continue;
            }
            let known = self.told.len();
            let number = *self.by_id.entry(notice.key.episode).or_insert(known);
            if number == known {
                let told = Told::new(catalog.find(&notice.monitor_name));
                self.told.push(Told { id: Some(notice.key.episode), ended: Some(Raise::Resolve), ..told });
            }
            if matches!(notice.key.raise, Raise::Resolve | Raise::Gray) {
                self.told[number].ended = Some(notice.key.raise);
            }
            if stored.dead.is_none() {
                coverage.hit(Section::Turn, "an unsent notice outlived its process");
                let due = Due { episode: number, raise: notice.key.raise, n: notice.key.n, queued: true };
                self.lines.entry(line_of(notice)).or_default().push_back(due);
            }
        }
    }

    /// The desk is about to hear of a transition.
    pub(in crate::sim) fn hears(&mut self, transition: &Transition, now: Instant, coverage: &mut Coverage) {
        let monitor = transition.monitor;
        let catalog = Arc::clone(&self.catalog);
        let codes = &catalog.policy(monitor).codes;
        let desired = self.desired.get_mut(&monitor).expect("every monitor is known");
        if transition.epoch != desired.epoch || !desired.enabled {
            self.stale += 1;
            coverage.hit(Section::Turn, "a transition was stale");
            return;
        }
        match transition.kind {
            TransitionKind::FirstOk | TransitionKind::VoidBegan | TransitionKind::VoidEnded => {}
            TransitionKind::Fail1 => {
                let episode = self.open(monitor);
                self.raise(episode, Color::Yellow);
                if codes.rule(Color::Red).is_some_and(|rule| rule.dispatch == Dispatch::Always) {
                    self.raise(episode, Color::Red);
                }
            }
            TransitionKind::Threshold => {
                let episode = self.open(monitor);
                self.told[episode].threshold_at.get_or_insert(now);
                self.raise(episode, Color::Red);
            }
            TransitionKind::Degraded => {
                let episode = self.open(monitor);
                self.raise(episode, Color::Yellow);
            }
            TransitionKind::Rise | TransitionKind::Clean => {
                if let Some(episode) = self.close(monitor) {
                    let is_told = !self.told[episode].destinations.is_empty();
                    self.told[episode].ended = Some(Raise::Resolve);
                    if is_told {
                        self.end(episode, Color::Green, Raise::Resolve);
                    }
                }
            }
        }
    }

    /// The open episode, or a new one.
    fn open(&mut self, monitor: MonitorId) -> usize {
        let number = self.told.len();
        let desired = self.desired.get_mut(&monitor).expect("every monitor is known");
        if let Some(open) = desired.episode {
            return open;
        }
        desired.episode = Some(number);
        desired.unnamed.push_back(number);
        self.told.push(Told::new(Some(monitor)));
        number
    }

    fn close(&mut self, monitor: MonitorId) -> Option<usize> {
        self.desired.get_mut(&monitor).expect("every monitor is known").episode.take()
    }

    fn await_at(&mut self, episode: usize, destination: &Arc<Destination>, raise: Raise) {
        let name = self.told[episode].monitor.map_or("cpra", |monitor| self.catalog.name(monitor)).into();
        let due = Due { episode, raise, n: 0, queued: false };
        self.lines.entry((name, Arc::clone(destination))).or_default().push_back(due);
    }

    fn raise(&mut self, episode: usize, color: Color) {
        let told = &mut self.told[episode];
        let (once, raise) = match color {
            Color::Red => (&mut told.red, Raise::Red),
            _ => (&mut told.yellow, Raise::Yellow),
        };
        let Some(monitor) = told.monitor.filter(|_| !std::mem::replace(once, true)) else { return };
        let catalog = Arc::clone(&self.catalog);
        let destinations: BTreeSet<_> = catalog.policy(monitor).codes.destinations(color).iter().cloned().collect();
        for destination in destinations {
            self.await_at(episode, &destination, raise);
            self.told[episode].destinations.insert(destination);
        }
    }

    /// Everyone who got a raise, and the color's own destinations.
    fn end(&mut self, episode: usize, color: Color, raise: Raise) {
        let told = &self.told[episode];
        let mut destinations = told.destinations.clone();
        if let Some(monitor) = told.monitor {
            destinations.extend(self.catalog.policy(monitor).codes.destinations(color).iter().cloned());
        }
        for destination in destinations {
            self.await_at(episode, &destination, raise);
        }
    }

    /// The desk is about to hear a person's word.
    pub(in crate::sim) fn switched(&mut self, monitor: MonitorId, enable: bool, coverage: &mut Coverage) {
        let desired = self.desired.get_mut(&monitor).expect("every monitor is known");
        if desired.enabled == enable {
            return;
        }
        desired.enabled = enable;
        desired.was_disabled = true;
        desired.epoch = desired.epoch.checked_add(1).unwrap_or(1);
        let epoch = desired.epoch;
        let kind = if enable { CommandKind::Enable { epoch } } else { CommandKind::Disable { epoch } };
        self.commands.push_back(Command { monitor, kind });
        if enable {
            return;
        }
        let episode = match self.close(monitor) {
            Some(episode) => {
                coverage.hit(Section::Row, "39 with an episode");
                episode
            }
            None => {
                coverage.hit(Section::Row, "39 without one");
                if self.catalog.policy(monitor).codes.destinations(Color::Gray).is_empty() {
                    return;
                }
                // Under a number of its own, which nothing else is known by.
                let number = self.told.len();
                self.told.push(Told::new(Some(monitor)));
                self.desired.get_mut(&monitor).expect("every monitor is known").unnamed.push_back(number);
                number
            }
        };
        self.told[episode].ended = Some(Raise::Gray);
        self.end(episode, Color::Gray, Raise::Gray);
    }

    /// This is the number under which the desk keeps it.
    pub(super) fn bind(&mut self, number: usize, id: EpisodeId) -> Result<(), String> {
        match self.told[number].id {
            Some(known) if known == id => return Ok(()),
            Some(known) => return Err(format!("{id} is told where {known} was meant")),
            None => {}
        }
        if let Some(other) = self.by_id.insert(id, number) {
            return Err(format!("two episodes are {id}: {:?}", self.told[other].monitor));
        }
        self.told[number].id = Some(id);
        if let Some(desired) = self.told[number].monitor.and_then(|monitor| self.desired.get_mut(&monitor)) {
            desired.unnamed.retain(|unnamed| *unnamed != number);
        }
        Ok(())
    }

    pub(super) fn episode_recorded(
        &mut self,
        record: &EpisodeRecord,
        now: Instant,
    ) -> Result<(), (&'static str, String)> {
        let Some(name) = &record.monitor else {
            return self.own_recorded(record, now).map_err(|text| ("daemon notices", text));
        };
        if self.by_id.contains_key(&record.id) {
            return Ok(());
        }
        let known = self.catalog.find(name).and_then(|monitor| self.desired.get(&monitor));
        let Some(number) = known.and_then(|desired| desired.unnamed.front().copied()) else {
            return Err(("episodes", format!("an episode of {name} was opened without a cause")));
        };
        self.bind(number, record.id).map_err(|text| ("episodes", text))
    }

    pub(super) fn seen_ok(&self, name: &str, definition: u64) -> Result<(), (&'static str, String)> {
        let monitor = self.catalog.find(name).ok_or(("seen ok", format!("{name} is not known")))?;
        let again = self.folded.seen_ok.iter().any(|(known, so)| **known == *name && *so == definition);
        if definition != self.catalog.definition(monitor) {
            return Err(("seen ok", format!("{name} is defined otherwise")));
        }
        if again && !self.desired[&monitor].was_disabled {
            return Err(("seen ok", format!("it is written again that {name} was seen ok")));
        }
        Ok(())
    }

    /// Row 26.
    pub(super) fn reminds(&mut self, number: usize, line: Line, notice: &Notice, now: Instant) -> Result<(), String> {
        let key = &notice.key;
        let Some(interval) = self.plan.repeat_interval else { return Err("nobody wants to be reminded".into()) };
        let told = &mut self.told[number];
        if key.raise != Raise::Red || !told.red || told.ended.is_some() || !told.destinations.contains(&key.destination)
        {
            return Err("reminds of what is not so".into());
        }
        if key.destination.provider.has_lifecycle() {
            return Err("reminds who keeps it open anyway".into());
        }
        if self.draining || self.leaving.is_to_end(&line) {
            return Err("reminds of what is to end".into());
        }
        if key.n != told.reminders {
            if key.n != told.reminders + 1 {
                return Err(format!("follows reminder {}", told.reminders));
            }
            if told.reminded_at.is_some_and(|before| now < before + interval.scaled(49, 100)) {
                return Err(format!("comes {} after the last one", now.since(told.reminded_at.unwrap_or(now))));
            }
            told.reminders = key.n;
            told.reminded_at = Some(now);
        }
        let due = Due { episode: number, raise: Raise::Red, n: key.n, queued: true };
        self.lines.entry(line).or_default().push_back(due);
        Ok(())
    }

    pub(super) fn told_own(&self, id: EpisodeId) -> Option<&Told> {
        self.by_id.get(&id).map(|number| &self.told[*number]).filter(|told| told.monitor.is_none())
    }

    /// One of the daemon's own: it need not be expected, but has to be in order.
    pub(super) fn own_queued(&mut self, notice: &Notice, line: Line, now: Instant) -> Result<(), String> {
        let key = &notice.key;
        if key.destination != self.fallback() {
            return Err("is for somebody else".into());
        }
        let known = self.told.len();
        let number = *self.by_id.entry(key.episode).or_insert(known);
        if number == known {
            self.told.push(Told { id: Some(key.episode), ..Told::new(None) });
        }
        let told = &mut self.told[number];
        match key.raise {
            Raise::Yellow | Raise::Red if !told.yellow && told.ended.is_none() => {
                told.yellow = true;
                told.destinations.insert(Arc::clone(&key.destination));
            }
            Raise::Resolve if told.ended.is_none() => told.ended = Some(Raise::Resolve),
            raise => return Err(format!("{raise:?} of {told:?}")),
        }
        if key.raise == Raise::Red {
            if !std::mem::take(&mut self.trouble) {
                return Err("the store is well".into());
            }
        } else if key.raise == Raise::Yellow && notice.summary.contains("store") {
            let silent = self.commits.first_key_value().map(|(_, since)| now.since(*since));
            if silent.is_none_or(|silent| silent < COMMIT_PATIENCE) {
                return Err(format!("the store has been silent for {silent:?}"));
            }
        }
        let due = Due { episode: number, raise: key.raise, n: 0, queued: true };
        self.lines.entry(line).or_default().push_back(due);
        Ok(())
    }

    fn own_recorded(&mut self, record: &EpisodeRecord, _: Instant) -> Result<(), String> {
        let other = self.own.iter().find(|(id, kind)| **kind == record.definition && **id != record.id);
        if let Some((id, kind)) = other {
            return Err(format!("{id} and {} are both of kind {kind}", record.id));
        }
        self.own.insert(record.id, record.definition);
        Ok(())
    }

    /// Whether the daemon's own notice that it cannot check is raised.
    pub(in crate::sim::check) fn daemon_speaks(&self) -> bool {
        const VOID: u64 = 1;
        self.own.values().any(|kind| *kind == VOID)
    }

    /// The next process begins with the fold: it has to say what is so.
    pub(super) fn agrees_with_fold(&self) -> Result<(), (&'static str, String)> {
        let mut open: BTreeMap<&str, &EpisodeRecord> = BTreeMap::new();
        for record in &self.folded.episodes {
            if let Some(name) = &record.monitor
                && open.insert(name, record).is_some()
            {
                return Err(("records", format!("{name} has two open episodes")));
            }
        }
        for (monitor, desired) in &self.desired {
            let name = self.catalog.name(*monitor);
            let word = self.folded.switched.iter().find(|(known, _)| **known == *name);
            let by_file = self.catalog.roster(monitor.shard()).is_enabled(monitor.index());
            if word.map_or(by_file, |(_, enabled)| *enabled) != desired.enabled {
                return Err((
                    "records",
                    format!("{name} is enabled: {}, and the store says {word:?}", desired.enabled),
                ));
            }
            let recorded = open.remove(name);
            let Some(number) = desired.episode else {
                if let Some(record) = recorded {
                    return Err(("records", format!("{} of {name} is over, and the store has it", record.id)));
                }
                continue;
            };
            let told = &self.told[number];
            let Some(record) = recorded.filter(|record| Some(record.id) == told.id) else {
                return Err(("records", format!("{name} has an episode that the store has not: {told:?}")));
            };
            let destinations: BTreeSet<_> = record.told.iter().map(|told| Arc::clone(&told.destination)).collect();
            if (record.yellow, record.red, record.reminders) != (told.yellow, told.red, told.reminders)
                || destinations != told.destinations
            {
                return Err(("records", format!("{name} is {told:?}, and the store has {record:?}")));
            }
        }
        if let Some((name, record)) = open.pop_first() {
            return Err(("records", format!("{} is of {name}, whom nobody knows", record.id)));
        }
        let rows: BTreeSet<NoticeId> = self.folded.outbox.iter().map(|stored| stored.id).collect();
        if rows != self.leaving.ids() {
            return Err((
                "records",
                format!("to be delivered are {:?}, and the store has {rows:?}", self.leaving.ids()),
            ));
        }
        Ok(())
    }

    /// When a monitor reached its threshold in the episode that is open.
    pub(in crate::sim::check) fn reminders_missing(&self, monitor: MonitorId, now: Instant) -> Option<String> {
        let told = &self.told[self.desired[&monitor].episode?];
        let (interval, since) = (self.plan.repeat_interval?, told.threshold_at?);
        let is_reminded = |destination: &Arc<Destination>| !destination.provider.has_lifecycle();
        let wants = self.catalog.policy(monitor).codes.destinations(Color::Red).iter().any(is_reminded);
        let long = interval.scaled(3, 1) + crate::units::Span::from_secs(60);
        (wants && told.reminders == 0 && now.since(since) > long && self.excused.is_empty())
            .then(|| format!("{} has been down for {}, and nobody was reminded", self.name(monitor), now.since(since)))
    }
}
