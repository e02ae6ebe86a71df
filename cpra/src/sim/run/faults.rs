//! Faults as they begin and end, and what they add up to.

use std::sync::Arc;

use super::Run;
use crate::desk;
use crate::desk::protocol::{OutboxChange, Question, Selection};
use crate::domain::Color;
use crate::shard;
use crate::shard::protocol::{Command, CommandKind};
use crate::sim::coverage::{BEHAVIOURS, Section};
use crate::sim::fault::{Fault, Meant};
use crate::sim::network::Behaviour;
use crate::sim::resolver::Nameserver;
use crate::sim::ring::Weather;
use crate::units::{Instant, MonitorId, Span};

impl Run {
    /// Faults begin and end.
    pub(super) fn turn_faults(&mut self) {
        let now = self.now;
        if now >= self.plan.storm_ends {
            self.doomed = false;
        }
        let ended = self.ongoing.len();
        self.ongoing.retain(|(until, _)| *until > now);
        let mut changed = self.ongoing.len() != ended;
        let plan = Arc::clone(&self.plan);
        while let Some(scheduled) = plan.faults.get(self.next_fault).filter(|scheduled| scheduled.at <= now) {
            self.next_fault += 1;
            if self.draining {
                continue;
            }
            changed = true;
            let fault = scheduled.fault;
            self.trace.note(now, (2_u8, fault.kind()), || {
                format!("FAULT   {fault:?} for {}", scheduled.until.since(scheduled.at))
            });
            self.checker.coverage.hit(Section::Fault, Fault::KINDS[fault.kind()]);
            if !fault.is_momentary() {
                self.ongoing.push((scheduled.until, fault));
            }
            self.begin_fault(fault, scheduled.until);
        }
        if changed {
            self.set_weather();
        }
    }

    fn begin_fault(&mut self, fault: Fault, until: Instant) {
        let now = self.now;
        match fault {
            Fault::Stop => {
                if until.since(now) > Span::from_secs(30) {
                    self.checker.coverage.hit(Section::Turn, "a machine slept for minutes");
                }
                self.checker.excuse(until);
                self.jobs.stop(now, until);
                for shard in &mut self.shards {
                    shard.stopped_until = shard.stopped_until.max(until);
                }
                self.desk.stopped_until = self.desk.stopped_until.max(until);
            }
            Fault::ShardStop(shard) => {
                self.checker.excuse(until);
                let shard = usize::from(shard) % self.shards.len();
                self.shards[shard].stopped_until = self.shards[shard].stopped_until.max(until);
            }
            Fault::DeskStop => self.desk.stopped_until = self.desk.stopped_until.max(until),
            Fault::TableFull => self.host.fill_table(now, until),
            Fault::StoreStuck => self.store.stick(until),
            Fault::StoreFull => self.store.fill(until),
            Fault::StoreDamaged => {
                self.damaged = true;
                self.crash();
            }
            Fault::Retry(meant) => self.change_outbox(OutboxChange::Retry, meant),
            Fault::Drop(meant) => self.change_outbox(OutboxChange::Drop, meant),
            Fault::Test(who) => {
                let destination = Arc::clone(&self.plan.destinations[who]);
                let color = Color::ALL[self.rng.usize(0..Color::ALL.len())];
                let event = desk::Event::Test { token: 0, destination, color, who: "somebody".into() };
                self.desk.inbox.push_back((now, event));
            }
            Fault::WallStep(seconds) => {
                self.wall_ahead += i64::from(seconds) * 1_000_000;
                let wall = desk::Event::Wall { at: now, shows: self.wall() };
                self.desk.inbox.push_back((now, wall));
            }
            Fault::Crash if self.rng.bool() => self.crash(),
            Fault::Crash => self.doomed = true,
            Fault::Disable(number) => {
                let event = desk::Event::Disable(self.id_of(number));
                self.desk.inbox.push_back((now, event));
            }
            Fault::Enable(number) => {
                let event = desk::Event::Enable(self.id_of(number));
                self.desk.inbox.push_back((now, event));
            }
            Fault::CheckNow(number) => {
                let command = Command { monitor: self.id_of(number), kind: CommandKind::CheckNow };
                let inbox = &mut self.shards[usize::from(command.monitor.shard())].inbox;
                inbox.push_back((now, shard::Event::Command(command)));
                // Whoever asks for a check looks at what there is, too; the last index is nobody's.
                let indices = (0..=self.catalog.roster(command.monitor.shard()).len() as u32).collect();
                inbox.push_back((now, shard::Event::Read { token: number as u64, indices }));
                let question = Question::Episodes(1_000);
                self.checker.coverage.hit(Section::Turn, "the open episodes were asked for");
                self.desk.inbox.push_back((now, desk::Event::Read { token: number as u64, question }));
            }
            // These are in the weather.
            Fault::Connect(..)
            | Fault::Transfer(..)
            | Fault::Open(_)
            | Fault::Late(_)
            | Fault::Drops(_)
            | Fault::SlowReadings(_)
            | Fault::SlowResolver
            | Fault::DeadResolver
            | Fault::Blind
            | Fault::Lane(..) => {}
        }
    }

    fn change_outbox(&mut self, change: OutboxChange, meant: Meant) {
        let selection = match meant {
            Meant::All => Selection::All,
            Meant::Dead => Selection::Dead,
            Meant::To(who) => Selection::To(self.plan.destinations[who].name.clone()),
            Meant::One => Selection::One(self.checker.notices.newest().unwrap_or_default()),
        };
        let event = desk::Event::Outbox { token: 0, change, selection, who: "somebody".into() };
        self.desk.inbox.push_back((self.now, event));
    }

    fn id_of(&self, number: usize) -> MonitorId {
        self.catalog.find(&self.plan.monitors[number].name).expect("it is in the catalog")
    }

    /// All that goes on at the moment, together.
    pub(super) fn set_weather(&mut self) {
        let mut weather = Weather::default();
        let mut moods = Vec::new();
        let mut server = Nameserver::Well;
        let mut slow = Span::from_micros(500);
        let mut blind = false;
        for (_, fault) in &self.ongoing {
            match *fault {
                Fault::Connect(errno, local, share) => weather.connect = Some((errno, local, share)),
                Fault::Transfer(errno, share) => weather.transfer = Some((errno, share)),
                Fault::Open(errno) => weather.open = Some(errno),
                Fault::Late(late) => weather.late = late,
                Fault::Drops(share) => weather.lossy = weather.lossy.max(share),
                Fault::TableFull => weather.lossy = weather.lossy.max(128),
                Fault::SlowReadings(span) => slow = span,
                Fault::SlowResolver if server == Nameserver::Well => server = Nameserver::Slow,
                Fault::DeadResolver => server = Nameserver::Dead,
                Fault::Blind => blind = true,
                Fault::Lane(who, mood) => {
                    moods.push((who.map(|who| self.plan.destinations[who].name.clone()), mood));
                }
                _ => {}
            }
        }
        for shard in &mut self.shards {
            shard.ring.set_weather(weather);
        }
        self.driver.set_weather(weather);
        if self.driver.set_blind(blind) != blind {
            for shard in &mut self.shards {
                shard.inbox.push_back((self.now, shard::Event::HalfOpen(!blind)));
            }
        }
        self.lane.set_moods(moods);
        self.resolver.set_server(server);
        self.host.slow = slow;
    }

    pub(super) fn cover_plan(&mut self) {
        for (_, target) in &self.plan.targets {
            for (_, behaviour) in &target.phases {
                let name = match behaviour {
                    Behaviour::Up => 0,
                    Behaviour::Refused => 1,
                    Behaviour::Unreachable => 2,
                    Behaviour::Blackhole => 3,
                    Behaviour::GivenUp(_) => 4,
                    Behaviour::Slams => 5,
                    Behaviour::Tarpit => 6,
                    Behaviour::Deaf => 7,
                    Behaviour::Trickle => 8,
                    Behaviour::Status(_) => 9,
                    Behaviour::Garbage => 10,
                    Behaviour::CutShort => 11,
                    Behaviour::ResetMidway => 12,
                    Behaviour::Pieces(_) => 13,
                    Behaviour::HalfAlive => 14,
                    Behaviour::Banner(_)
                    | Behaviour::BannerFin(_)
                    | Behaviour::Half(_)
                    | Behaviour::Replies(_)
                    | Behaviour::Sum
                    | Behaviour::Echo => continue,
                };
                self.checker.coverage.hit(Section::Behaviour, BEHAVIOURS[name]);
            }
        }
    }
}
