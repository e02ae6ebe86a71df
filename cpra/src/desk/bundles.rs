//! Many raises at one destination, told as one incident (VERDICTS decision 11).
//!
//! | destination | up to | beyond it |
//! | --- | --- | --- |
//! | people read it (chat, mail, SMS) | [`OWN_BURST`] at once, one more each [`OWN_EVERY`] | one *digest* of the destination |
//! | it wakes people (a pager) | its `raises_per_minute` | one *group incident* for each group |
//! | programs read it (log, webhook, Alertmanager) | everything | |
//!
//! Both are a [`Bundle`]: an incident with a key of its own, whose members are episodes. While one is open, every further
//! raise that it is for joins it instead of being sent. It gathers for a moment, then says how many there are and names some;
//! a digest says more when there is more to say, ever more seldom; and it is resolved when its last member has left.
//!
//! A member that comes and goes before anything was said of it is one line of the digest, and no page at all.
//!
//! Members are durable with their episodes ([`Told::bundle`](super::protocol::Told)), so that a restart finds them again.
//! Memory: an entry for each member; what has been said is only counted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::protocol::BundleRecord;
use crate::domain::destination::Merging;
use crate::domain::notice::EpisodeId;
use crate::domain::{Color, Destination, Raise};
use crate::units::{Instant, Span, Timestamp};

/// Raises that a destination for people gets as notices of their own, one after the other ...
const OWN_BURST: u32 = 4;
/// ... and in the long run.
const OWN_EVERY: Span = Span::from_secs(60);
/// A bundle says nothing for so long after it has been opened, and between two notices: so that one says it all.
const DIGEST_GATHER: Span = Span::from_secs(10);
const GROUP_GATHER: Span = Span::from_secs(2);
/// Further notices of one digest, one after the other, and in the long run.
const UPDATES_BURST: u32 = 3;
const UPDATES_EVERY: Span = Span::from_secs(120);
/// Members that a notice names.
const NAMED_MAX: usize = 10;

/// Where a raise goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// As a notice of its own.
    Own,
    /// As a member of this bundle, which says it.
    Bundle { id: EpisodeId, is_new: bool },
}

/// Who is raised.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member<'a> {
    pub(super) episode: EpisodeId,
    pub(super) monitor: &'a str,
    pub(super) groups: &'a [Box<str>],
    pub(super) color: Color,
    pub(super) cause: &'a str,
}

/// What a bundle has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) bundle: EpisodeId,
    pub(super) destination: Arc<Destination>,
    pub(super) group: Option<Box<str>>,
    pub(super) raise: Raise,
    pub(super) color: Color,
    /// Counts up with each notice of a bundle.
    pub(super) n: u32,
    pub(super) opened: Timestamp,
    /// `None`: it closes, and nobody hears of it, since nobody has been woken.
    pub(super) summary: Option<String>,
    /// It is its last word.
    pub(super) closes: bool,
}

#[derive(Debug, Default)]
pub(super) struct Bundles {
    /// Raises that each destination may still have as its own.
    allowances: BTreeMap<Arc<Destination>, Bucket>,
    open: BTreeMap<Key, Bundle>,
    keys: BTreeMap<EpisodeId, Key>,
    /// When each bundle with something to say says it.
    due: BTreeSet<(Instant, EpisodeId)>,
}

/// A digest is of a whole destination, a group's incident of a group (`""`: of monitors without one).
type Key = (Arc<Destination>, Option<Box<str>>);

#[derive(Debug)]
struct Bundle {
    id: EpisodeId,
    opened: Timestamp,
    notices: u32,
    members: BTreeMap<EpisodeId, Standing>,
    reds: usize,
    /// By their first groups.
    groups: BTreeMap<Box<str>, usize>,
    /// Since the last notice.
    news: News,
    updates: Bucket,
    /// No notice before.
    quiet_until: Instant,
    /// Its place in `due`.
    due: Option<Instant>,
}

#[derive(Debug)]
struct Standing {
    color: Color,
    group: Box<str>,
    /// It was in a notice already.
    is_told: bool,
}

#[derive(Debug, Default)]
struct News {
    came: usize,
    left: usize,
    /// Came and left.
    passed: usize,
    /// The latest that came: name and cause.
    named: VecDeque<(EpisodeId, Box<str>)>,
}

/// A token bucket in whole tokens.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: u32,
    since: Instant,
}

impl Bucket {
    const fn full(burst: u32, now: Instant) -> Self {
        Self { tokens: burst, since: now }
    }

    fn refill(&mut self, burst: u32, every: Span, now: Instant) {
        let earned = now.since(self.since).as_nanos() / every.as_nanos().max(1);
        if u64::from(self.tokens) + earned >= u64::from(burst) {
            *self = Self::full(burst, now);
        } else {
            self.tokens += earned as u32;
            self.since += Span::from_nanos(earned * every.as_nanos());
        }
    }

    fn take(&mut self, burst: u32, every: Span, now: Instant) -> bool {
        self.refill(burst, every, now);
        let has = self.tokens > 0;
        self.tokens -= u32::from(has);
        has
    }

    /// When there is one to take.
    fn next(&mut self, burst: u32, every: Span, now: Instant) -> Instant {
        self.refill(burst, every, now);
        if self.tokens > 0 { now } else { self.since + every }
    }
}

impl Bundles {
    /// Takes up what a former process has left: the open bundles, and their members.
    pub(super) fn restore<'a>(
        &mut self,
        bundles: Vec<BundleRecord>,
        members: impl IntoIterator<Item = (EpisodeId, Member<'a>)>,
        now: Instant,
    ) {
        for BundleRecord { id, destination, group, opened, notices } in bundles {
            let key = (destination, group);
            let mut bundle = Bundle::new(id, opened, now);
            bundle.notices = notices;
            self.keys.insert(id, key.clone());
            self.open.insert(key, bundle);
        }
        for (id, member) in members {
            let Some(bundle) = self.keys.get(&id).and_then(|key| self.open.get_mut(key)) else { continue };
            let told = bundle.notices > 0;
            bundle.join(member, told);
        }
        let ids: Vec<EpisodeId> = self.keys.keys().copied().collect();
        for id in ids {
            self.schedule(id, now);
        }
    }

    /// Decides where a raise goes. `new_id` is for a bundle that is opened by it.
    pub(super) fn route(
        &mut self,
        destination: &Arc<Destination>,
        member: Member<'_>,
        now: Instant,
        shows: Timestamp,
        new_id: impl FnOnce() -> EpisodeId,
    ) -> Route {
        let (burst, every, group) = match destination.provider.merging() {
            Merging::Never => return Route::Own,
            Merging::Digest => (OWN_BURST, OWN_EVERY, None),
            Merging::GroupIncident => {
                let burst = destination.pace.raises_per_minute.max(1);
                let every = Span::from_nanos(60_000_000_000 / u64::from(burst));
                (burst, every, Some(first_group(member.groups).into()))
            }
        };
        let key = (Arc::clone(destination), group);
        let is_new = !self.open.contains_key(&key);
        if is_new {
            let allowance = self.allowances.entry(Arc::clone(destination)).or_insert_with(|| Bucket::full(burst, now));
            if allowance.take(burst, every, now) {
                return Route::Own;
            }
            let id = new_id();
            self.keys.insert(id, key.clone());
            self.open.insert(key.clone(), Bundle::new(id, shows, now + gather(destination)));
        }
        let bundle = self.open.get_mut(&key).expect("it is open, or has just been opened");
        bundle.join(member, false);
        let id = bundle.id;
        self.schedule(id, now);
        Route::Bundle { id, is_new }
    }

    /// A member is up again, or is watched no more.
    pub(super) fn leave(&mut self, bundle: EpisodeId, member: EpisodeId, now: Instant) {
        if let Some(open) = self.keys.get(&bundle).and_then(|key| self.open.get_mut(key)) {
            open.leave(member);
            self.schedule(bundle, now);
        }
    }

    /// What is to be said by `now`, and what is to be remembered of each bundle that says it.
    pub(super) fn say(&mut self, now: Instant) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(&(at, id)) = self.due.first()
            && at <= now
        {
            self.due.pop_first();
            let Some(key) = self.keys.get(&id).cloned() else { continue };
            let Some(bundle) = self.open.get_mut(&key) else { continue };
            bundle.due = None;
            let is_digest = key.1.is_none();
            let closes = bundle.members.is_empty();
            let mut message = bundle.message(&key, closes);
            if closes && bundle.notices == 0 && !is_digest {
                message.summary = None;
            }
            messages.push(message);
            if closes {
                self.open.remove(&key);
                self.keys.remove(&id);
            } else {
                if bundle.notices > 0 {
                    bundle.updates.take(UPDATES_BURST, UPDATES_EVERY, now);
                }
                bundle.notices += 1;
                bundle.quiet_until = now + gather(&key.0);
                bundle.news = News::default();
                for standing in bundle.members.values_mut().filter(|standing| !standing.is_told) {
                    standing.is_told = true;
                }
                self.schedule(id, now);
            }
        }
        messages
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// As it is to be kept.
    pub(super) fn record(&self, bundle: EpisodeId) -> Option<BundleRecord> {
        let key = self.keys.get(&bundle)?;
        let open = self.open.get(key)?;
        let (destination, group) = key.clone();
        Some(BundleRecord { id: bundle, destination, group, opened: open.opened, notices: open.notices })
    }

    /// There is no later: whoever gathers says it now.
    pub(super) fn hurry(&mut self, now: Instant) {
        let waiting = std::mem::take(&mut self.due);
        for (_, id) in waiting {
            if let Some(bundle) = self.keys.get(&id).and_then(|key| self.open.get_mut(key)) {
                bundle.due = Some(now);
                self.due.insert((now, id));
            }
        }
    }

    /// Finds out when a bundle has something to say.
    fn schedule(&mut self, id: EpisodeId, now: Instant) {
        let Some(key) = self.keys.get(&id) else { return };
        let Some(bundle) = self.open.get_mut(key) else { return };
        let next = bundle.next_notice(key.1.is_none(), now);
        if next != bundle.due {
            if let Some(due) = bundle.due {
                self.due.remove(&(due, id));
            }
            if let Some(next) = next {
                self.due.insert((next, id));
            }
            bundle.due = next;
        }
    }
}

impl Bundle {
    fn new(id: EpisodeId, opened: Timestamp, quiet_until: Instant) -> Self {
        Self {
            id,
            opened,
            notices: 0,
            members: BTreeMap::new(),
            reds: 0,
            groups: BTreeMap::new(),
            news: News::default(),
            updates: Bucket::full(UPDATES_BURST, quiet_until),
            quiet_until,
            due: None,
        }
    }

    fn join(&mut self, member: Member<'_>, is_told: bool) {
        let Member { episode, monitor, groups, color, cause } = member;
        let red = usize::from(color == Color::Red);
        if let Some(standing) = self.members.get_mut(&episode) {
            // A yellow that became red: it is news again.
            self.reds += red.saturating_sub(usize::from(standing.color == Color::Red));
            standing.color = color;
        } else {
            let group: Box<str> = first_group(groups).into();
            *self.groups.entry(group.clone()).or_default() += 1;
            self.reds += red;
            self.members.insert(episode, Standing { color, group, is_told });
        }
        if !is_told {
            self.news.came += 1;
            self.news.named.retain(|(other, _)| *other != episode);
            if self.news.named.len() == NAMED_MAX {
                self.news.named.pop_front();
            }
            let named = if cause.is_empty() { monitor.to_owned() } else { format!("{monitor} ({cause})") };
            self.news.named.push_back((episode, named.into()));
        }
    }

    fn leave(&mut self, episode: EpisodeId) {
        let Some(standing) = self.members.remove(&episode) else { return };
        self.reds -= usize::from(standing.color == Color::Red);
        if let Some(count) = self.groups.get_mut(&standing.group) {
            *count -= 1;
            if *count == 0 {
                self.groups.remove(&standing.group);
            }
        }
        if standing.is_told {
            self.news.left += 1;
        } else {
            self.news.passed += 1;
            self.news.came = self.news.came.saturating_sub(1);
        }
    }

    /// When it has something to say. The end is never held back by the bound of updates: it is the last.
    fn next_notice(&mut self, is_digest: bool, now: Instant) -> Option<Instant> {
        if self.members.is_empty() || self.notices == 0 {
            return Some(self.quiet_until.max(now));
        }
        let News { came, left, passed, .. } = self.news;
        // A pager has been told that the group is down; who else is, does not wake anybody a second time.
        if !is_digest || came + left + passed == 0 {
            return None;
        }
        Some(self.quiet_until.max(self.updates.next(UPDATES_BURST, UPDATES_EVERY, now)).max(now))
    }

    fn message(&self, key: &Key, closes: bool) -> Message {
        let (destination, group) = key.clone();
        let (raise, color) = match closes {
            true => (Raise::Resolve, Color::Green),
            false if self.reds > 0 => (Raise::Red, Color::Red),
            false => (Raise::Yellow, Color::Yellow),
        };
        let summary = match &group {
            Some(group) => self.words_of_group(group, closes),
            None => self.words_of_digest(closes),
        };
        Message {
            bundle: self.id,
            destination,
            group,
            raise,
            color,
            n: self.notices,
            opened: self.opened,
            summary: Some(summary),
            closes,
        }
    }

    fn words_of_group(&self, group: &str, closes: bool) -> String {
        let whom = if group.is_empty() { "monitors without a group".to_owned() } else { format!("group {group}") };
        if closes {
            return format!("{whom}: all are up again");
        }
        format!("{whom}: {}{}", self.how_many(), self.named())
    }

    fn words_of_digest(&self, closes: bool) -> String {
        let News { came, left, passed, .. } = self.news;
        let passed = if passed > 0 { format!("; {passed} failed and recovered meanwhile") } else { String::new() };
        if closes && self.notices == 0 {
            return format!("{} failed and recovered{}", count(self.news.passed), self.named());
        }
        if closes {
            return format!("all are up again{passed}");
        }
        let groups = self.groups.iter().filter(|(group, _)| !group.is_empty());
        let groups: Vec<String> = groups.map(|(group, count)| format!("{group} {count}")).take(NAMED_MAX).collect();
        let groups = if groups.is_empty() { String::new() } else { format!(" [{}]", groups.join(", ")) };
        let change = if self.notices == 0 { String::new() } else { format!("; {came} new, {left} recovered") };
        format!("{}{groups}{change}{passed}{}", self.how_many(), self.named())
    }

    fn how_many(&self) -> String {
        let (all, reds) = (self.members.len(), self.reds);
        match (reds, all - reds) {
            (0, failing) => format!("{} failing", count_are(failing)),
            (down, 0) => format!("{} down", count_are(down)),
            (down, failing) => format!("{} down, {failing} more failing", count_are(down)),
        }
    }

    /// `: shop/web (refused), shop/db (timed out), ...`.
    fn named(&self) -> String {
        let names: Vec<&str> = self.news.named.iter().map(|(_, name)| &**name).collect();
        if names.is_empty() {
            return String::new();
        }
        let all = self.news.came + self.news.passed;
        let more = if all > names.len() { ", ..." } else { "" };
        format!(": {}{more}", names.join(", "))
    }
}

fn count(monitors: usize) -> String {
    if monitors == 1 { "1 monitor".to_owned() } else { format!("{monitors} monitors") }
}

fn count_are(monitors: usize) -> String {
    format!("{} {}", count(monitors), if monitors == 1 { "is" } else { "are" })
}

fn first_group(groups: &[Box<str>]) -> &str {
    groups.first().map_or("", |group| group)
}

fn gather(destination: &Destination) -> Span {
    match destination.provider.merging() {
        Merging::GroupIncident => GROUP_GATHER,
        Merging::Digest | Merging::Never => DIGEST_GATHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Provider;
    use crate::domain::destination::{PagerDuty, Slack};
    use crate::domain::monitor::Secret;

    struct Bench {
        bundles: Bundles,
        to: Arc<Destination>,
        now: Instant,
        next: u128,
    }

    impl Bench {
        fn new(provider: Provider) -> Self {
            let to = Arc::new(Destination::new("there", provider));
            Self { bundles: Bundles::default(), to, now: Instant::ZERO + Span::from_secs(1_000), next: 1_000_000 }
        }

        fn chat() -> Self {
            Self::new(Provider::Slack(Slack { hook: Secret::new("https://x"), channel: None, username: None }))
        }

        fn pager() -> Self {
            let (routing_key, url) = (Secret::new("k"), "https://p".into());
            Self::new(Provider::PagerDuty(PagerDuty { routing_key, url, severity: None }))
        }

        fn raise(&mut self, episode: u128, group: &str, color: Color) -> Route {
            let (name, groups) = (format!("{group}/{episode}"), [Box::from(group)]);
            let member =
                Member { episode: EpisodeId(episode), monitor: &name, groups: &groups, color, cause: "refused" };
            self.next += 1;
            let id = EpisodeId(self.next);
            self.bundles.route(&self.to, member, self.now, Timestamp::from_micros(7), || id)
        }

        /// Lets so much time pass, and hears what is said when it is due.
        fn pass(&mut self, span: Span) -> Vec<Message> {
            let end = self.now + span;
            let mut said = Vec::new();
            while let Some(next) = self.bundles.next_deadline().filter(|next| *next <= end) {
                self.now = next;
                let messages = self.bundles.say(next);
                assert!(!messages.is_empty(), "nothing is woken up for");
                said.extend(messages);
            }
            self.now = end;
            said
        }

        fn is_empty(&self) -> bool {
            let Bundles { open, keys, due, .. } = &self.bundles;
            open.is_empty() && keys.is_empty() && due.is_empty()
        }
    }

    fn secs(secs: u64) -> Span {
        Span::from_secs(secs)
    }

    #[test]
    fn a_storm_is_a_few_messages_on_a_chat() {
        const MONITORS: u128 = 100_000;
        let mut bench = Bench::chat();
        let mut routes = BTreeMap::new();
        let mut said = Vec::new();
        for second in 0..10 {
            for episode in second * MONITORS / 10..(second + 1) * MONITORS / 10 {
                let group = ["shop", "db", "net", "mail"][episode as usize % 4];
                routes.insert(episode, bench.raise(episode, group, Color::Red));
            }
            said.extend(bench.pass(secs(1)));
        }
        let own = routes.values().filter(|route| **route == Route::Own).count();
        assert_eq!(own, OWN_BURST as usize);
        said.extend(bench.pass(secs(60)));
        let mut left = 0;
        for (episode, route) in &routes {
            if let Route::Bundle { id: bundle, .. } = route {
                bench.bundles.leave(*bundle, EpisodeId(*episode), bench.now);
                left += 1;
                if left % 2_000 == 0 {
                    said.extend(bench.pass(secs(1)));
                }
            }
        }
        said.extend(bench.pass(secs(600)));
        assert!(2 * own + said.len() <= 20, "{} own ones, and {}", 2 * own, said.len());
        assert!(bench.is_empty(), "{:?}", bench.bundles.open.len());
        let first = said[0].summary.as_deref().unwrap_or_default();
        assert!(first.contains("monitors are down [db ") && first.contains("refused"), "{first}");
        let last = said.last().expect("somebody hears of the end");
        assert_eq!((last.raise, last.closes, last.color), (Raise::Resolve, true, Color::Green));
        assert_eq!(last.summary.as_deref(), Some("all are up again"));
        let numbers: Vec<u32> = said.iter().map(|message| message.n).collect();
        assert!(numbers.is_sorted() && numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
        assert!(said.iter().all(|message| message.bundle == last.bundle));
    }

    #[test]
    fn what_comes_and_goes_unsaid_is_one_line() {
        let mut bench = Bench::chat();
        let mut bundles = Vec::new();
        for episode in 0..10 {
            if let Route::Bundle { id: bundle, .. } = bench.raise(episode, "shop", Color::Red) {
                bundles.push((bundle, EpisodeId(episode)));
            }
        }
        for (bundle, episode) in bundles {
            bench.bundles.leave(bundle, episode, bench.now);
        }
        let said = bench.pass(secs(3_600));
        assert_eq!(said.len(), 1);
        let words = said[0].summary.as_deref().unwrap_or_default();
        assert!(words.starts_with("6 monitors failed and recovered: shop/4 (refused), "), "{words}");
        assert!(said[0].closes && bench.is_empty());
    }

    #[test]
    fn a_few_alerts_now_and_then_are_told_one_by_one() {
        let mut bench = Bench::chat();
        for episode in 0..100 {
            assert_eq!(bench.raise(episode, "shop", Color::Yellow), Route::Own, "{episode}");
            assert_eq!(bench.pass(OWN_EVERY), []);
        }
    }

    #[test]
    fn a_pager_gets_one_incident_for_each_group_beyond_its_bound() {
        let mut bench = Bench::pager();
        let mut routes = Vec::new();
        for episode in 0..5_000 {
            let group = if episode % 2 == 0 { "shop" } else { "db" };
            routes.push((episode, bench.raise(episode, group, Color::Red)));
        }
        let own = routes.iter().filter(|(_, route)| *route == Route::Own).count();
        assert_eq!(own, 20);
        let said = bench.pass(secs(600));
        let groups: Vec<Option<&str>> = said.iter().map(|message| message.group.as_deref()).collect();
        assert_eq!(groups.len(), 2, "{said:?}");
        assert!(groups.contains(&Some("shop")) && groups.contains(&Some("db")));
        assert_eq!(bench.bundles.open.values().map(|bundle| bundle.members.len()).sum::<usize>(), 4_980);
        // Who fails later joins, though by now there would be room for a page.
        let joined = bench.raise(9_999, "shop", Color::Red);
        assert!(matches!(joined, Route::Bundle { is_new: false, .. }));
        routes.push((9_999, joined));
        for (episode, route) in routes {
            if let Route::Bundle { id: bundle, .. } = route {
                bench.bundles.leave(bundle, EpisodeId(episode), bench.now);
            }
        }
        let said = bench.pass(secs(600));
        assert!(said.len() == 2 && said.iter().all(|message| message.raise == Raise::Resolve), "{said:?}");
        assert!(bench.is_empty());
    }

    #[test]
    fn nobody_is_woken_for_what_is_over() {
        let mut bench = Bench::pager();
        let routes: Vec<_> = (0..30).map(|episode| (episode, bench.raise(episode, "", Color::Red))).collect();
        for (episode, route) in routes {
            if let Route::Bundle { id: bundle, .. } = route {
                bench.bundles.leave(bundle, EpisodeId(episode), bench.now);
            }
        }
        let said = bench.pass(secs(60));
        assert_eq!(said.iter().map(|message| (&message.summary, message.closes)).collect::<Vec<_>>(), [(&None, true)]);
    }

    #[test]
    fn another_process_takes_a_bundle_up() {
        let mut bench = Bench::chat();
        let mut members = Vec::new();
        for episode in 0..10 {
            if let Route::Bundle { id: bundle, .. } = bench.raise(episode, "shop", Color::Red) {
                members.push((bundle, episode));
            }
        }
        assert_eq!(bench.pass(secs(60)).len(), 1);
        let record = bench.bundles.record(members[0].0).expect("it is open");
        assert_eq!(record.notices, 1);

        let mut later = Bench::chat();
        let groups = [Box::from("shop")];
        let restored = members.iter().map(|&(bundle, episode)| {
            let (episode, groups) = (EpisodeId(episode), &groups);
            (bundle, Member { episode, monitor: "shop/x", groups, color: Color::Red, cause: "" })
        });
        later.bundles.restore(vec![record], restored, later.now);
        assert_eq!(later.pass(secs(600)), [], "what has been said is not said again");
        for (bundle, episode) in members {
            later.bundles.leave(bundle, EpisodeId(episode), later.now);
        }
        let said = later.pass(secs(60));
        assert_eq!(said.iter().map(|message| (message.n, message.closes)).collect::<Vec<_>>(), [(1, true)]);
        assert!(later.is_empty());
    }

    #[test]
    fn at_the_end_nothing_is_gathered_any_more() {
        let mut bench = Bench::chat();
        for episode in 0..10 {
            bench.raise(episode, "shop", Color::Red);
        }
        assert_eq!(bench.bundles.say(bench.now), []);
        bench.bundles.hurry(bench.now);
        assert_eq!(bench.bundles.say(bench.now).len(), 1);
    }

    #[test]
    fn nothing_is_put_together_for_programs() {
        let mut bench = Bench::new(Provider::Log { file: None });
        assert!((0..1_000).all(|episode| bench.raise(episode, "shop", Color::Red) == Route::Own));
        assert!(bench.bundles.allowances.is_empty());
    }
}
