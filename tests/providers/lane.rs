//! The lane as the daemon has it, and what it is given.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cpra::desk::protocol::{Delivered, DeliveryResult, NoticeId};
use cpra::domain::monitor::About;
use cpra::domain::notice::EpisodeId;
use cpra::domain::{Code, Color, DeliveryKey, Destination, Incident, Notice, Raise};
use cpra::notify::LogDirs;
use cpra::notify::lane::{self, CodeLane, Settings};
use cpra::os::clock::Clock;
use cpra::os::histograms::SharedRecording;
use cpra::os::wake::WakeFd;
use cpra::pipeline::Bell;
use cpra::units::{MonitorId, Span};

pub const INSTANCE: &str = "mon-1.shop.example";

pub struct Lane {
    lane: Option<CodeLane>,
    door: WakeFd,
    bell: Bell,
    next: u64,
}

impl Lane {
    pub fn start() -> Self {
        let door = WakeFd::new().expect("a descriptor");
        let bell = door.bell();
        let settings = Settings {
            capacity: 256,
            sizing: lane::default_sizing(),
            log_dirs: LogDirs::new([], std::env::temp_dir()),
            scripts: None,
            recording: SharedRecording::of_notices(),
        };
        let lane = lane::spawn(settings, bell.clone()).expect("a thread");
        Self { lane: Some(lane), door, bell, next: 1 }
    }

    /// One attempt each, all handed over at once; the answers in the same order.
    pub fn deliver_all(&mut self, notices: &[Notice]) -> Vec<Delivered> {
        let lane = self.lane.as_mut().expect("it runs");
        let first = self.next;
        for notice in notices {
            assert!(lane.jobs.send((NoticeId(self.next), Box::new(notice.clone()))).is_ok(), "there is room");
            self.next += 1;
        }
        let deadline = Clock.now() + Span::from_secs(60);
        let mut results = Vec::new();
        while results.len() < notices.len() {
            assert!(Clock.now() < deadline, "{} of {} answers", results.len(), notices.len());
            lane.results.drain_into(&mut results, notices.len());
            let (queue, door) = (&lane.results, &self.door);
            self.bell.sleep(
                || queue.is_empty() && results.len() < notices.len(),
                || {
                    door.wait(Some(Span::from_secs(1)));
                },
            );
        }
        results.sort_by_key(|(id, _)| *id);
        assert!(results.iter().map(|(id, _)| id.0).eq(first..self.next), "an answer for each");
        results.into_iter().map(|(_, delivered)| delivered).collect()
    }

    pub fn deliver(&mut self, notice: &Notice) -> Delivered {
        self.deliver_all(std::slice::from_ref(notice)).remove(0)
    }

    /// As the outbox would, without its pauses: again until it is done or refused; what each attempt came to.
    pub fn deliver_until_done(&mut self, notice: &Notice) -> Vec<DeliveryResult> {
        let mut results = Vec::new();
        while results.len() < 8 {
            results.push(self.deliver(notice).result);
            if matches!(results.last(), Some(DeliveryResult::Sent | DeliveryResult::Refused)) {
                return results;
            }
        }
        panic!("{notice:?} is never done: {results:?}");
    }

    /// Ends it, and everything that it keeps open.
    pub fn end(&mut self) {
        if let Some(CodeLane { jobs, thread, .. }) = self.lane.take() {
            drop(jobs);
            thread.join().expect("the lane does not panic");
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end();
        }
    }
}

/// An incident of its own: a red for the destination. Others of it are made by [`later`].
pub fn red(destination: &Arc<Destination>) -> Notice {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let episode =
        EpisodeId(0x0199_0000_0000_0000_0000_0000_0000_0000 + u128::from(NEXT.fetch_add(1, Ordering::Relaxed)));
    Notice {
        key: DeliveryKey { episode, raise: Raise::Red, destination: Arc::clone(destination), n: 0 },
        incident: Incident::new(INSTANCE, "shop/web", episode),
        monitor: Some(MonitorId::new(0, 1)),
        monitor_name: "shop/web".into(),
        color: Color::Red,
        summary: "503 Service Unavailable \u{fc}ber \"alles\"".into(),
        outcome: Some(Code::L7Sts),
        at: Clock.wall(),
        lasted: Span::from_millis(6_500),
        groups: ["shop".into(), "frontend".into()].into(),
        about: About {
            labels: [("team".into(), "shop".into())].into(),
            description: Some("The shop's front door".into()),
            runbook: Some("https://wiki.shop.example/web".into()),
        },
        test: false,
    }
}

/// Another notice of the same incident.
pub fn later(first: &Notice, raise: Raise, n: u32) -> Notice {
    let color = match raise {
        Raise::Yellow => Color::Yellow,
        Raise::Red => Color::Red,
        Raise::Resolve => Color::Green,
        Raise::Cyan => Color::Cyan,
        Raise::Gray => Color::Gray,
    };
    Notice {
        key: DeliveryKey { raise, n, ..first.key.clone() },
        color,
        summary: "it answers again".into(),
        ..first.clone()
    }
}
