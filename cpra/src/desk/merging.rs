//! The desk's side of the [bundles](super::bundles): which raise joins one, and what a bundle sends.
//!
//! A raise that joins a bundle is told by it, and so is its end: whoever got neither raise nor end as a notice of its own
//! gets no notice of that episode at all. What a bundle says goes through the outbox like everything else, under the
//! bundle's own keys.

use std::sync::Arc;

use super::bundles::{Member, Message, Route};
use super::episodes::Subject;
use super::notices::Draft;
use super::protocol::{BundleRecord, EpisodeRecord, Record, Told};
use super::{Desk, Episode, episode_id};
use crate::domain::notice::EpisodeId;
use crate::domain::{Color, Destination};
use crate::units::Instant;

impl Desk {
    /// The bundle that tells this raise there, if one does.
    pub(super) fn join(
        &mut self,
        color: Color,
        destination: &Arc<Destination>,
        subject: &Subject<'_>,
        episode: &Episode,
    ) -> Option<EpisodeId> {
        if !self.settings.merges {
            return None;
        }
        let catalog = Arc::clone(&self.catalog);
        let (at, shows) = (subject.at, self.wall_of(subject.at));
        let member = Member {
            episode: episode.id,
            monitor: catalog.name(subject.monitor),
            groups: &subject.policy.groups,
            color,
            cause: &episode.cause,
        };
        let Self { bundles, rng, .. } = self;
        match bundles.route(destination, member, at, shows, || episode_id(shows, rng)) {
            Route::Own => None,
            Route::Bundle { id, is_new } => {
                if is_new {
                    self.keep_bundle(id);
                }
                Some(id)
            }
        }
    }

    /// The episode is over: bundles that it was told by have a member less.
    pub(super) fn leave_bundles(&mut self, told: &[Told], episode: EpisodeId, now: Instant) {
        for bundle in told.iter().filter_map(|told| told.bundle) {
            self.bundles.leave(bundle, episode, now);
        }
    }

    pub(super) fn restore_bundles(&mut self, mut bundles: Vec<BundleRecord>, episodes: &[EpisodeRecord], now: Instant) {
        for bundle in &mut bundles {
            bundle.destination = self.outbox.known(&bundle.destination);
        }
        let catalog = Arc::clone(&self.catalog);
        let members = episodes.iter().flat_map(|record| {
            let name = record.monitor.as_deref().unwrap_or_default();
            let groups = catalog.find(name).map_or(&[][..], |monitor| &catalog.policy(monitor).groups);
            record.told.iter().filter_map(move |told| {
                let Told { color, bundle, .. } = *told;
                Some((bundle?, Member { episode: record.id, monitor: name, groups, color, cause: &record.cause }))
            })
        });
        self.bundles.restore(bundles, members, now);
    }

    /// What bundles have to say by now.
    pub(super) fn tell_together(&mut self, now: Instant) {
        for message in self.bundles.say(now) {
            let bundle = message.bundle;
            if message.closes {
                self.records.push(Record::BundleClosed { bundle, at: self.wall_of(now) });
            } else {
                self.keep_bundle(bundle);
            }
            self.send_together(message, now);
        }
    }

    fn send_together(&mut self, message: Message, now: Instant) {
        let Message { bundle, destination, group, raise, color, n, opened, summary, closes: _ } = message;
        let Some(summary) = summary else { return };
        let at = self.wall_of(now);
        let name = match &group {
            Some(group) if group.is_empty() => "group".to_owned(),
            Some(group) => format!("group/{group}"),
            None => "digest".to_owned(),
        };
        let draft = Draft {
            monitor: None,
            name: &name,
            episode: bundle,
            raise,
            n,
            color,
            summary: summary.into(),
            outcome: None,
            at,
            lasted: at.since(opened),
        };
        let mut notice = self.notice(&draft, &destination);
        notice.groups = group.into_iter().filter(|group| !group.is_empty()).collect();
        self.queue(notice, now, now);
    }

    fn keep_bundle(&mut self, bundle: EpisodeId) {
        if let Some(record) = self.bundles.record(bundle) {
            self.records.push(Record::Bundle(Box::new(record)));
        }
    }
}
