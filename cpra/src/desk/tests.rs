//! The desk with a store that keeps what it is given: what a person would see, over restarts.

use std::sync::Arc;

use super::protocol::{
    Answer, Delivered, DeliveryResult, NoticeId, OutboxChange, OutboxState, Question, Record, Selection, Stored,
};
use super::{Desk, Effect, Event, Settings};
use crate::domain::destination::{Alertmanager, PagerDuty, Slack};
use crate::domain::health::Resumed;
use crate::domain::monitor::{CodeRule, Dispatch, Secret};
use crate::domain::{
    Check, Code, Codes, Color, Destination, Host, Monitor, Notice, Outcome, Policy, Provider, Raise, Target, TcpCheck,
    TransitionKind,
};
use crate::shard::protocol::{CommandKind, Transition};
use crate::units::limits::{COMMIT_PATIENCE, REFRESH_EVERY};
use crate::units::{Instant, MonitorId, Span, Timestamp};
use crate::world::Catalog;

use TransitionKind::{Fail1, FirstOk, Rise, Threshold};

const INTERVAL: Span = Span::from_secs(10);
const START: Instant = Instant::from_nanos(1_000_000_000_000);

fn log(name: &str) -> Arc<Destination> {
    Arc::new(Destination::new(name, Provider::Log { file: Some(format!("/{name}").into()) }))
}

fn chat() -> Arc<Destination> {
    let slack = Slack { hook: Secret::new("https://hooks.example/x"), channel: None, username: None };
    Arc::new(Destination::new("chat", Provider::Slack(slack)))
}

fn pager() -> Arc<Destination> {
    let pager = PagerDuty { routing_key: Secret::new("k"), url: "https://events.example".into(), severity: None };
    Arc::new(Destination::new("pager", Provider::PagerDuty(pager)))
}

fn alertmanager() -> Arc<Destination> {
    let (labels, annotations) = (Box::default(), Box::default());
    let url = "http://127.0.0.1:9093".into();
    let alertmanager = Alertmanager { url, authorization: None, labels, annotations, generator_url: None };
    Arc::new(Destination::new("alerts", Provider::Alertmanager(alertmanager)))
}

/// One that tells everything to the same destinations.
fn monitor(name: &str, port: u16, told: &[Arc<Destination>]) -> Monitor {
    let mut codes = Codes::default();
    for color in [Yellow, Red] {
        codes.set(color, CodeRule { dispatch: Dispatch::On, notify: told.into() });
    }
    let policy = Policy::new(Check::Tcp(TcpCheck::default()), INTERVAL, Span::from_secs(1));
    let policy = Policy { unhealthy_threshold: 3, healthy_threshold: 2, codes, ..policy };
    let target = Target { host: Host::Literal([127, 0, 0, 1].into()), port, path: "".into() };
    Monitor { name: name.into(), enabled: true, target, policy }
}

/// A desk, what its store holds, and what has left.
struct Office {
    now: Instant,
    settings: Settings,
    catalog: Arc<Catalog>,
    desk: Desk,
    store: Stored,
    records: Vec<Record>,
    left: Vec<(NoticeId, Box<Notice>)>,
    commands: Vec<CommandKind>,
    answers: Vec<Answer>,
    stories: Vec<Box<str>>,
    /// What becomes of a notice; `None`: nobody knows yet.
    result: fn(&Notice) -> Option<Delivered>,
    store_works: bool,
    commits: Vec<u64>,
}

fn taken(_: &Notice) -> Option<Delivered> {
    Some(DeliveryResult::Sent.into())
}

const fn silent(_: &Notice) -> Option<Delivered> {
    None
}

fn chat_refuses(notice: &Notice) -> Option<Delivered> {
    let refused = &*notice.key.destination.name == "chat";
    Some(if refused { Delivered::new(DeliveryResult::Refused, "no_service") } else { DeliveryResult::Sent.into() })
}

impl Office {
    fn new(monitors: Vec<Monitor>) -> Self {
        let settings = Settings {
            instance: "test".into(),
            queue_capacity: 64,
            fallback: log("fallback"),
            repeat_interval: None,
            merges: false,
            seed: 1,
        };
        Self::with(settings, monitors)
    }

    fn with(settings: Settings, monitors: Vec<Monitor>) -> Self {
        let catalog = Arc::new(Catalog::build(monitors, 1).expect("they fit"));
        let store = Stored::default();
        let mut office = Self {
            now: START,
            desk: Desk::new(settings.clone(), Arc::clone(&catalog), store.clone(), START),
            settings,
            catalog,
            store,
            records: Vec::new(),
            left: Vec::new(),
            commands: Vec::new(),
            answers: Vec::new(),
            stories: Vec::new(),
            result: taken,
            store_works: true,
            commits: Vec::new(),
        };
        office.tell(vec![office.wall()]);
        office
    }

    fn wall(&self) -> Event {
        let micros = self.now.since(START).as_micros().cast_signed();
        Event::Wall { at: self.now, shows: Timestamp::from_micros(1_800_000_000_000_000 + micros) }
    }

    /// The process ends without a word, and another one begins; perhaps with other monitors.
    fn restart(&mut self, monitors: Option<Vec<Monitor>>) {
        if let Some(monitors) = monitors {
            self.catalog = Arc::new(Catalog::build(monitors, 1).expect("they fit"));
        }
        self.now += Span::from_secs(3);
        self.settings.seed += 1;
        self.desk = Desk::new(self.settings.clone(), Arc::clone(&self.catalog), self.store.clone(), self.now);
        self.records.clear();
        self.left.clear();
        self.commands.clear();
        self.commits.clear();
        self.tell(vec![self.wall()]);
    }

    fn id(&self, name: &str) -> MonitorId {
        self.catalog.find(name).expect("it is watched")
    }

    fn tell(&mut self, mut events: Vec<Event>) {
        loop {
            let mut effects = Vec::new();
            self.desk.step(self.now, std::mem::take(&mut events), &mut effects);
            for effect in effects {
                match effect {
                    Effect::Commit(batch) => {
                        if self.store_works {
                            for record in &batch.records {
                                self.store.apply(record);
                            }
                            events.push(Event::Durable(batch.sequence));
                        } else {
                            self.commits.push(batch.sequence);
                        }
                        self.records.extend(batch.records);
                    }
                    Effect::Deliver { id, notice } => {
                        if let Some(delivered) = (self.result)(&notice) {
                            events.push(Event::Delivered { notice: id, delivered });
                        }
                        self.left.push((id, notice));
                    }
                    Effect::Command(command) => self.commands.push(command.kind),
                    Effect::Report { answer, .. } => self.answers.push(answer),
                    Effect::Story(story) => self.stories.push(story.text),
                }
            }
            if events.is_empty() {
                return;
            }
        }
    }

    /// Lets time pass, with a step at each deadline.
    fn wait(&mut self, span: Span) {
        let until = self.now + span;
        for _ in 0..100_000 {
            match self.desk.next_deadline().filter(|next| *next <= until) {
                Some(next) => {
                    self.now = self.now.max(next);
                    self.tell(Vec::new());
                }
                None => {
                    self.now = until;
                    return;
                }
            }
        }
        panic!("it spins");
    }

    fn hear(&mut self, name: &str, epoch: u8, kinds: &[TransitionKind]) {
        for &kind in kinds {
            let code = if matches!(kind, FirstOk | Rise) { Code::L4Ok } else { Code::L4Con };
            let outcome = Outcome::of(code).with_evidence("refused");
            let transition = Transition { monitor: self.id(name), epoch, kind, at: self.now, outcome };
            self.tell(vec![Event::Transition(Box::new(transition))]);
            self.now += Span::from_secs(1);
        }
    }

    /// Color, destination and number of the reminder of what has left since the last time.
    fn sent(&mut self) -> Vec<(Color, String, u32)> {
        let left = std::mem::take(&mut self.left);
        left.into_iter()
            .map(|(_, notice)| (notice.color, notice.key.destination.name.to_string(), notice.key.n))
            .collect()
    }

    fn outbox_states(&mut self) -> Vec<(OutboxState, Box<str>)> {
        self.tell(vec![Event::Read { token: 1, question: Question::Outbox(Selection::All, 100) }]);
        let Some(Answer::Outbox(views)) = self.answers.pop() else { panic!("an answer") };
        views.into_iter().map(|view| (view.state.expect("not done"), view.destination)).collect()
    }
}

fn to(name: &str, color: Color) -> (Color, String, u32) {
    (color, name.to_owned(), 0)
}

use Color::{Gray, Green, Red, Yellow};

#[test]
fn row_40_what_was_raised_is_not_raised_again_and_ends_once() {
    let mut office = Office::new(vec![monitor("web", 1, &[log("log"), pager()])]);
    office.hear("web", 0, &[FirstOk, Fail1, Threshold]);
    let raised = [to("log", Yellow), to("pager", Yellow), to("log", Red), to("pager", Red)];
    let episode = office.left[0].1.key.episode;
    assert_eq!(office.sent(), raised);
    office.restart(None);
    assert_eq!(office.commands, [CommandKind::Resume { epoch: 1, resumed: Resumed::Failing }]);
    office.wait(Span::from_secs(3_600));
    assert!(office.left.is_empty() && office.records.is_empty(), "{:?}", office.records);
    assert_eq!(office.desk.stats().episodes_open, 1);
    // What the shard found before it was told is of an older epoch.
    office.hear("web", 0, &[FirstOk]);
    office.hear("web", 1, &[Rise]);
    assert_eq!(office.left[0].1.key.episode, episode);
    assert_eq!(office.sent(), [to("log", Green), to("pager", Green)]);
    assert!(office.store.episodes.is_empty() && office.store.outbox.is_empty());
    office.restart(None);
    assert_eq!((office.commands.len(), office.left.len()), (0, 0));
}

#[test]
fn row_40_a_suspect_goes_on_to_red_under_its_key_without_a_second_yellow() {
    let mut office = Office::new(vec![monitor("web", 1, &[log("log")])]);
    office.hear("web", 0, &[Fail1]);
    let episode = office.left[0].1.key.episode;
    office.restart(None);
    assert_eq!(office.commands, [CommandKind::Resume { epoch: 1, resumed: Resumed::Suspect }]);
    office.hear("web", 1, &[Threshold]);
    assert_eq!(office.left[0].1.key.episode, episode);
    assert_eq!(office.sent(), [to("log", Red)]);
}

#[test]
fn row_40_unsent_rows_leave_under_their_old_numbers_and_keys_and_in_order() {
    let mut office = Office::new(vec![monitor("web", 1, &[log("log")])]);
    office.result = silent;
    office.hear("web", 0, &[Fail1, Threshold]);
    let first: Vec<_> = office.left.iter().map(|(id, notice)| (*id, notice.key.clone())).collect();
    assert_eq!(first.len(), 1, "the red waits behind the yellow");
    office.result = taken;
    office.restart(None);
    office.hear("web", 1, &[Rise]);
    let again: Vec<_> = office.left.iter().map(|(id, notice)| (*id, notice.key.clone())).collect();
    assert_eq!(again[0], first[0]);
    assert!(again.iter().map(|(id, _)| id).is_sorted());
    assert_eq!(office.sent(), [to("log", Yellow), to("log", Red), to("log", Green)]);
}

#[test]
fn rows_1b_and_39_another_definition_keeps_the_episode_and_knows_nothing() {
    let told = [log("log")];
    let mut office = Office::new(vec![monitor("web", 1, &told)]);
    office.hear("web", 0, &[FirstOk, Fail1]);
    let episode = office.left[0].1.key.episode;
    for (at, (kinds, sent)) in
        [(&[Fail1][..], vec![]), (&[Fail1, Threshold], vec![to("log", Red)])].into_iter().enumerate()
    {
        office.restart(Some(vec![monitor("web", 2 + u16::try_from(at).expect("few"), &told)]));
        assert_eq!(office.commands, [CommandKind::Resume { epoch: 1, resumed: Resumed::Unproven }]);
        office.hear("web", 1, kinds);
        assert_eq!(office.sent(), sent, "no second yellow");
    }
    office.restart(Some(vec![monitor("web", 9, &told)]));
    office.hear("web", 1, &[Rise]);
    assert_eq!(office.left[0].1.key.episode, episode);
    assert_eq!(office.sent(), [to("log", Green)]);
    let seen = |record: &Record| matches!(record, Record::SeenOk { .. });
    assert!(office.records.iter().any(seen), "it was seen ok as what it is now");
}

#[test]
fn row_39_who_is_watched_no_more_is_gray_and_pages_are_closed() {
    let told = [log("log"), pager()];
    for gone in [true, false] {
        let mut office = Office::new(vec![monitor("web", 1, &told), monitor("db", 1, &told)]);
        office.hear("web", 0, &[Fail1, Threshold]);
        let episode = office.left[0].1.key.episode;
        let others = vec![monitor("db", 1, &told)];
        let disabled = vec![Monitor { enabled: false, ..monitor("web", 1, &told) }, monitor("db", 1, &told)];
        office.restart(Some(if gone { others } else { disabled }));
        assert_eq!(office.left[0].1.key.episode, episode);
        assert_eq!(office.sent(), [to("log", Gray), to("pager", Gray)]);
        assert!(office.store.episodes.is_empty() && office.commands.is_empty());
        office.restart(None);
        assert!(office.left.is_empty());
    }
}

#[test]
fn what_was_seen_ok_is_not_written_again() {
    let mut office = Office::new(vec![monitor("web", 1, &[]), monitor("db", 1, &[])]);
    office.hear("web", 0, &[FirstOk]);
    assert_eq!(office.store.seen_ok.len(), 1);
    office.restart(None);
    office.hear("web", 0, &[FirstOk]);
    assert!(office.records.is_empty(), "{:?}", office.records);
    office.hear("db", 0, &[FirstOk]);
    assert_eq!(office.store.seen_ok.len(), 2);
    office.restart(Some(vec![monitor("web", 2, &[]), monitor("db", 1, &[])]));
    office.hear("web", 0, &[FirstOk]);
    office.hear("db", 0, &[FirstOk]);
    assert_eq!(office.records.len(), 1, "another definition was never seen: {:?}", office.records);
}

#[test]
fn a_persons_word_beats_the_file_until_they_agree() {
    let mut office = Office::new(vec![monitor("web", 1, &[])]);
    let web = office.id("web");
    office.tell(vec![Event::Disable(web)]);
    office.restart(None);
    assert_eq!(office.commands, [CommandKind::Disable { epoch: 1 }]);
    office.tell(vec![Event::Enable(web)]);
    assert!(office.store.switched.is_empty(), "there is nothing left to say");
    office.tell(vec![Event::Disable(web)]);
    let disabled = || vec![Monitor { enabled: false, ..monitor("web", 1, &[]) }];
    office.restart(Some(disabled()));
    assert!(office.commands.is_empty() && office.store.switched.is_empty(), "the file says so by now");
    office.tell(vec![Event::Enable(web)]);
    office.restart(None);
    assert_eq!(office.commands, [CommandKind::Enable { epoch: 1 }]);
    office.restart(Some(vec![]));
    assert!(office.store.switched.is_empty(), "it is gone");
}

#[test]
fn a_dead_letter_goes_to_the_fallback_which_hears_of_the_end_too() {
    let mut office = Office::new(vec![monitor("web", 1, &[chat(), pager()])]);
    office.result = chat_refuses;
    office.hear("web", 0, &[Fail1]);
    let (first, copy) = (office.left[0].1.clone(), office.left[2].1.clone());
    assert_eq!(office.sent(), [to("chat", Yellow), to("pager", Yellow), to("fallback", Yellow)]);
    assert_eq!((copy.incident, copy.key.episode, copy.key.raise), (first.incident, first.key.episode, first.key.raise));
    assert!(copy.summary.ends_with("(not delivered to chat: no_service)"), "{}", copy.summary);
    assert_eq!(office.outbox_states(), [(OutboxState::Dead, "chat".into())]);
    assert!(office.stories.iter().any(|story| &**story == "not delivered to chat: no_service"));
    office.restart(None);
    assert!(office.left.is_empty(), "dead is dead");
    assert_eq!(office.outbox_states(), [(OutboxState::Dead, "chat".into())]);
    office.result = taken;
    office.hear("web", 1, &[Rise]);
    let mut sent = office.sent();
    sent.sort();
    assert_eq!(sent, [to("chat", Green), to("fallback", Green), to("pager", Green)]);
}

#[test]
fn a_raise_that_dies_after_the_end_takes_the_end_along_to_the_fallback() {
    let mut office = Office::new(vec![monitor("web", 1, &[chat()])]);
    office.result = silent;
    office.hear("web", 0, &[Fail1, Rise]);
    let yellow = office.left[0].0;
    office.result = taken;
    let delivered = Delivered::new(DeliveryResult::Refused, "no_service");
    office.left.clear();
    office.tell(vec![Event::Delivered { notice: yellow, delivered }]);
    let mut sent = office.sent();
    sent.sort();
    assert_eq!(sent, [to("fallback", Yellow), to("chat", Green), to("fallback", Green)]);
}

#[test]
fn the_fallbacks_own_dead_letter_and_a_test_go_nowhere_else() {
    let fallback = chat();
    let mut office = Office::new(vec![]);
    office.settings.fallback = Arc::clone(&fallback);
    office.restart(Some(vec![monitor("web", 1, &[fallback])]));
    office.result = chat_refuses;
    office.hear("web", 0, &[Fail1]);
    assert_eq!(office.sent(), [to("chat", Yellow)]);
    let other = Arc::new(Destination { name: "chat".into(), ..(*log("x")).clone() });
    office.tell(vec![Event::Test { token: 1, destination: other, color: Red, who: "root".into() }]);
    assert_eq!(office.sent(), [to("chat", Red)]);
    assert_eq!(office.desk.stats().outbox, [0, 0, 0, 2]);
}

#[test]
fn a_person_brings_dead_letters_back_or_drops_them() {
    let mut office = Office::new(vec![monitor("web", 1, &[chat()])]);
    office.result = chat_refuses;
    office.hear("web", 0, &[Fail1, Threshold]);
    office.sent();
    office.result = taken;
    let change = |change, selection| Event::Outbox { token: 1, change, selection, who: "ann".into() };
    office.tell(vec![change(OutboxChange::Drop, Selection::One(NoticeId(1)))]);
    office.tell(vec![change(OutboxChange::Retry, Selection::To("chat".into()))]);
    assert!(matches!(office.answers[..], [Answer::Changed(1), Answer::Changed(1)]), "{:?}", office.answers);
    assert_eq!((office.sent(), office.store.outbox.len()), (vec![to("chat", Red)], 0));
    let audits = office.records.iter().filter_map(|record| match record {
        Record::Audit(audit) => Some((&*audit.who, &*audit.what, &*audit.about)),
        _ => None,
    });
    let audits: Vec<_> = audits.collect();
    assert_eq!(audits, [("ann", "outbox drop", "notice 1: 1"), ("ann", "outbox retry", "to chat: 1")]);
}

#[test]
fn a_dead_page_of_an_episode_that_is_over_is_not_brought_back() {
    let mut office = Office::new(vec![monitor("web", 1, &[pager()])]);
    office.result = |notice| {
        let refused = notice.key.raise == Raise::Red && &*notice.key.destination.name == "pager";
        Some(if refused { DeliveryResult::Refused } else { DeliveryResult::Sent }.into())
    };
    office.hear("web", 0, &[Fail1, Threshold]);
    office.hear("web", 0, &[Rise]);
    office.sent();
    office.result = taken;
    let (change, selection) = (OutboxChange::Retry, Selection::All);
    office.tell(vec![Event::Outbox { token: 1, change, selection, who: "ann".into() }]);
    assert!(matches!(office.answers[..], [Answer::Changed(0)]), "{:?}", office.answers);
    assert!(office.left.is_empty(), "nobody would ever close it");
}

#[test]
fn row_26_who_got_the_red_is_reminded_and_a_pager_is_not() {
    let hour = Span::from_secs(3_600);
    let mut office = Office::new(vec![]);
    office.settings.repeat_interval = Some(hour);
    office.restart(Some(vec![monitor("web", 1, &[log("log"), pager()])]));
    office.hear("web", 0, &[Fail1]);
    office.wait(hour.scaled(2, 1));
    office.sent();
    office.hear("web", 0, &[Threshold]);
    let key = office.left[0].1.key.clone();
    office.sent();
    office.wait(hour + Span::from_secs(60));
    assert_eq!(office.left[0].1.key.episode, key.episode);
    let reminder = |n| (Red, "log".to_owned(), n);
    assert_eq!(office.sent(), [reminder(1)]);
    office.restart(None);
    office.wait(hour.scaled(2, 1));
    assert_eq!(office.sent(), [reminder(2), reminder(3)], "the count goes on");
    // Who takes nothing collects none.
    office.result = silent;
    office.wait(hour.scaled(5, 1));
    assert_eq!(office.sent(), [reminder(4)]);
    office.hear("web", 1, &[Rise]);
    office.result = taken;
    let last = office.store.outbox[0].id;
    office.tell(vec![Event::Delivered { notice: last, delivered: DeliveryResult::Sent.into() }]);
    office.wait(hour.scaled(5, 1));
    assert_eq!(office.sent(), [to("pager", Green), to("log", Green)]);
}

#[test]
fn who_would_forget_is_told_again_while_it_lasts_and_twice_of_the_end() {
    let mut office = Office::new(vec![monitor("web", 1, &[alertmanager(), log("log")])]);
    office.hear("web", 0, &[Fail1, Threshold]);
    office.sent();
    office.records.clear();
    office.wait(Span::from_secs(600));
    let again = office.sent();
    assert!((10..=14).contains(&again.len()), "{}", again.len());
    assert!(again.iter().all(|sent| *sent == to("alerts", Red)));
    assert!(office.records.is_empty(), "it leaves no trace: {:?}", office.records);
    // One that fails is not tried again before the next one, nor kept.
    office.result = |_| Some(DeliveryResult::Failed.into());
    office.wait(REFRESH_EVERY);
    assert!((1..=2).contains(&office.sent().len()) && office.desk.stats().waiting == 0);
    office.wait(REFRESH_EVERY.scaled(8, 1));
    assert!(office.sent().len() >= 2, "the next ones are tried all the same");
    office.result = taken;
    office.restart(None);
    office.wait(REFRESH_EVERY);
    assert!(office.sent().contains(&to("alerts", Red)), "also after a restart");
    // One is on its way when it ends: the end comes after it.
    office.result = silent;
    office.wait(REFRESH_EVERY);
    let (refresh, _) = office.left.pop().expect("one is on its way");
    office.hear("web", 1, &[Rise]);
    assert_eq!(office.sent(), [to("log", Green)]);
    office.result = taken;
    office.tell(vec![Event::Delivered { notice: refresh, delivered: DeliveryResult::Sent.into() }]);
    office.wait(Span::from_secs(3_600));
    assert_eq!(office.sent(), [to("alerts", Green), to("alerts", Green), to("alerts", Green)]);
    assert_eq!(office.desk.next_deadline(), None);
}

#[test]
fn decision_5_a_silent_store_is_told_once_and_its_end_too() {
    let mut office = Office::new(vec![monitor("web", 1, &[log("log")])]);
    office.store_works = false;
    office.hear("web", 0, &[Fail1]);
    assert!(office.left.is_empty());
    office.wait(COMMIT_PATIENCE + Span::from_secs(60));
    let mut sent = office.sent();
    sent.sort();
    assert_eq!(sent, [to("fallback", Yellow), to("log", Yellow)]);
    assert_eq!(office.desk.stats().nondurable, 2);
    office.store_works = true;
    let last = *office.commits.last().expect("they wait");
    office.tell(vec![Event::Durable(last)]);
    assert_eq!(office.sent(), [to("fallback", Green)]);
    office.wait(Span::from_secs(60));
    assert!(office.left.is_empty());
}

#[test]
fn trouble_with_the_store_is_red_until_a_start_without_any() {
    let mut office = Office::new(vec![]);
    office.store = Stored { is_new: true, trouble: Some("it was damaged".into()), ..Stored::default() };
    office.restart(None);
    assert_eq!(&*office.left[0].1.summary, "it was damaged");
    assert_eq!(office.sent(), [to("fallback", Red)]);
    office.store.trouble = None;
    office.restart(None);
    assert_eq!(office.sent(), [to("fallback", Green)]);
    office.restart(None);
    assert!(office.left.is_empty() && office.store.episodes.is_empty());
}

#[test]
fn a_test_says_so_and_leaves_nothing_open() {
    let mut office = Office::new(vec![]);
    office.tell(vec![Event::Test { token: 1, destination: pager(), color: Red, who: "ann".into() }]);
    let Some(Answer::Queued(id)) = office.answers.pop() else { panic!("{:?}", office.answers) };
    assert_eq!(id, office.left[0].0);
    assert!(office.left.iter().all(|(_, notice)| notice.test && notice.summary.starts_with("TEST")));
    assert_eq!(office.sent(), [to("pager", Red), to("pager", Green)]);
    office.tell(vec![Event::Read { token: 2, question: Question::Notice(id) }]);
    let Some(Answer::Notice(Some(view))) = office.answers.pop() else { panic!("it is remembered") };
    assert_eq!((view.state, view.attempts, view.last), (None, 1, Some(DeliveryResult::Sent.into())));
    office.tell(vec![Event::Test { token: 1, destination: chat(), color: Green, who: "ann".into() }]);
    assert_eq!(office.sent(), [to("chat", Green)]);
}

#[test]
fn raises_wait_after_the_start_only_where_the_store_is_new() {
    for is_new in [true, false] {
        let mut office = Office::new(vec![monitor("web", 1, &[log("log")])]);
        office.store.is_new = is_new;
        office.restart(None);
        office.hear("web", 0, &[Fail1]);
        assert_eq!(office.left.is_empty(), is_new);
        office.wait(INTERVAL);
        assert_eq!(office.sent(), [to("log", Yellow)]);
    }
}

#[test]
fn what_is_not_delivered_when_it_ends_is_delivered_by_the_next_process() {
    let mut office = Office::new(vec![monitor("web", 1, &[log("log"), alertmanager()])]);
    office.hear("web", 0, &[Fail1]);
    office.sent();
    office.result = |_| Some(DeliveryResult::Failed.into());
    office.hear("web", 0, &[Threshold]);
    office.tell(vec![Event::Drain]);
    office.wait(Span::from_secs(600));
    assert!(!office.desk.is_drained());
    office.result = taken;
    office.restart(None);
    assert_eq!(office.sent(), [to("log", Red), to("alerts", Red)]);
    office.tell(vec![Event::Drain]);
    assert!(office.desk.is_drained());
    office.wait(Span::from_secs(600));
    assert!(office.left.is_empty(), "nothing is refreshed any more");
}
