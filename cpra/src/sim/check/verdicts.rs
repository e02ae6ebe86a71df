//! What people were told in the end, against what the targets did: neither transitions nor records are asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Checker;
use crate::domain::monitor::Dispatch;
use crate::domain::notice::EpisodeId;
use crate::domain::{Color, Destination, Raise};
use crate::sim::plan::Nature;
use crate::units::limits::VOID_PATIENCE;
use crate::units::{Instant, MonitorId, Span};

/// What arrived of one episode at one destination, in order.
type Stories = BTreeMap<(EpisodeId, Arc<Destination>), Vec<Raise>>;

impl Checker {
    /// The calm is over.
    pub(in crate::sim) fn settled(&mut self, now: Instant) {
        self.notices.settled(now);
        let mut by_monitor: BTreeMap<MonitorId, Stories> = BTreeMap::new();
        // Of what was told before the store was lost nobody knows any more.
        let era = self.notices.era;
        for arrival in self.notices.arrivals.iter().filter(|arrival| arrival.era == era) {
            let Some(monitor) = arrival.monitor else { continue };
            let key = (arrival.key.episode, Arc::clone(&arrival.key.destination));
            by_monitor.entry(monitor).or_default().entry(key).or_default().push(arrival.key.raise);
        }
        for watch in 0..self.watches.len() {
            let stories = by_monitor.remove(&self.watches[watch].id).unwrap_or_default();
            let compared = self.compare(watch, &stories);
            let unreminded = self.notices.reminders_missing(self.watches[watch].id, now);
            if let Err(text) = compared.and_then(|()| unreminded.map_or(Ok(()), Err)) {
                let text = format!("{}: {text}", self.who(watch));
                self.fail("verdicts", now, text);
            }
        }
    }

    fn compare(&self, watch: usize, stories: &Stories) -> Result<(), String> {
        let id = self.watches[watch].id;
        let planned = self.planned(watch);
        let is_raise = |raise: &Raise| matches!(raise, Raise::Yellow | Raise::Red);
        let mut open: BTreeMap<EpisodeId, Vec<Arc<Destination>>> = BTreeMap::new();
        for ((episode, destination), raises) in stories {
            let raised = raises.iter().any(is_raise);
            let is_excused = self.notices.excused.contains(&(*episode, Arc::clone(destination)));
            // The last word counts: what came again after a crash came in order.
            if raised && raises.last().is_some_and(is_raise) && !is_excused {
                open.entry(*episode).or_default().push(Arc::clone(destination));
            }
        }
        let down = planned.nature == Nature::Grave && self.notices.is_enabled(id);
        if !down && !open.is_empty() {
            return Err(format!("is up or not watched, and still open: {open:?}"));
        }
        if open.len() > 1 {
            return Err(format!("is down in {} episodes at a time: {open:?}", open.len()));
        }
        if down {
            let told: Vec<_> = planned.policy.codes.destinations(Color::Red).to_vec();
            let episode = open.keys().next().copied();
            for destination in told {
                let story = episode.and_then(|episode| stories.get(&(episode, Arc::clone(&destination))));
                let given_up = self.notices.excused.iter().any(|(_, excused)| *excused == destination);
                if !story.is_some_and(|story| story.contains(&Raise::Red)) && !given_up {
                    return Err(format!("is down for good, and {destination:?} has no red: {story:?}"));
                }
            }
        }
        Ok(())
    }

    /// Something arrived: a target that was always up must never be blamed, and a blip never be a red.
    pub(in crate::sim) fn arrived(&mut self, now: Instant) {
        let Some(arrival) = self.notices.arrivals.last().cloned() else { return };
        let Some(monitor) = arrival.monitor else {
            let longest = self.longest_void_ever;
            if arrival.summary.starts_with("cannot check") && longest < VOID_PATIENCE {
                let text = format!("the daemon says it cannot check, after {longest} at the longest");
                self.fail("verdicts", now, text);
            }
            return;
        };
        let Some(watch) = self.watches.iter().position(|seen| seen.id == monitor) else { return };
        let planned = self.planned(watch);
        let color = match arrival.key.raise {
            Raise::Yellow => Color::Yellow,
            Raise::Red => Color::Red,
            Raise::Resolve | Raise::Cyan | Raise::Gray => return,
        };
        if planned.nature == Nature::Rock {
            let text = format!("{} was up all the time, and {color} was sent", self.who(watch));
            return self.fail("verdicts", now, text);
        }
        let policy = &planned.policy;
        let always = policy.codes.rule(color).is_some_and(|rule| rule.dispatch == Dispatch::Always);
        let needed = if color == Color::Red && !always { policy.unhealthy_threshold } else { 1 };
        let blamed = self.watches[watch].most_fails;
        let degraded = color == Color::Yellow && self.watches[watch].was_degraded;
        if blamed < needed && !degraded {
            let text = format!("{} was told {color} after {blamed} failures in a row at most", self.who(watch));
            self.fail("verdicts", now, text);
        }
    }

    /// Monitors that cannot be judged for ten minutes have to be spoken of.
    pub(in crate::sim) fn remember_void(&mut self, now: Instant) {
        let longest = self.longest_void(now);
        self.longest_void_ever = self.longest_void_ever.max(longest);
        const SLACK: Span = Span::from_secs(45);
        let awake = self.shards.iter().all(|log| now.since(log.excused) > SLACK);
        if longest > VOID_PATIENCE + SLACK && awake && !self.notices.daemon_speaks() {
            self.fail("verdicts", now, format!("some monitor could not be judged for {longest}, and nobody was told"));
        }
    }
}
