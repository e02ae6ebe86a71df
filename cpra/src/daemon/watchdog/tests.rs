use std::sync::Mutex;
use std::time::Duration;

use super::*;

const SECOND: Span = Span::from_secs(1);

fn at(secs: u64) -> Instant {
    Instant::from_nanos(Span::from_secs(1_000 + secs).as_nanos())
}

#[test]
fn pings_stop_and_come_again_with_the_health() {
    let mut switch = Switch::new(Span::from_secs(10), at(0));
    let mut turn = |secs, healthy| switch.turn(at(secs), healthy);
    let ping = Act::Ping { withheld: None };
    assert_eq!((turn(0, true), turn(1, true), turn(9, true)), (ping, Act::Nothing, Act::Nothing));
    assert_eq!(turn(11, true), ping);
    assert_eq!(turn(20, true), ping, "a late turn does not delay the next one");
    assert_eq!((turn(21, false), turn(29, true)), (Act::Nothing, Act::Nothing), "nothing was due meanwhile");
    assert_eq!((turn(30, false), turn(31, false)), (Act::Withhold { tell: true }, Act::Nothing));
    assert_eq!((turn(40, false), turn(50, false)), (Act::Withhold { tell: false }, Act::Withhold { tell: false }));
    assert_eq!(turn(90, false), Act::Withhold { tell: true }, "people are told once a minute");
    assert_eq!(turn(93, true), Act::Ping { withheld: Some(Span::from_secs(63)) }, "at once");
    assert_eq!((turn(102, true), turn(103, true)), (Act::Nothing, ping));
    assert_eq!((turn(500, true), turn(501, true)), (ping, Act::Nothing), "what was slept through is not made up for");
}

#[test]
fn the_manager_hears_of_us_in_time_or_not_at_all() {
    let mut pulse = Pulse::new(Span::from_secs(10));
    assert_eq!((pulse.every, pulse.turns()), (Span::from_secs(5), SECOND));
    assert!(pulse.is_due(at(0), true) && !pulse.is_due(at(1), true) && !pulse.is_due(at(4), true));
    assert!(pulse.is_due(at(5), true));
    assert!(!pulse.is_due(at(10), false) && !pulse.is_due(at(30), false), "whatever is due");
    assert!(pulse.is_due(at(31), true) && !pulse.is_due(at(32), true));
    assert_eq!(Pulse::new(Span::from_millis(100)).turns(), Span::from_millis(25));
    assert_eq!(Pulse::new(Span::from_micros(1)).turns(), Span::from_millis(10));
}

struct Made {
    uncommitted: Mutex<Option<Span>>,
}

impl Patient for Made {
    fn inputs(&self, _: Instant) -> Inputs {
        Inputs { uncommitted: *self.uncommitted.lock().expect("no test panics with it"), ..Inputs::default() }
    }

    fn advances(&self) -> bool {
        true
    }

    fn status(&self) -> String {
        String::new()
    }
}

#[test]
fn a_ping_that_hangs_or_fails_is_counted_and_the_next_one_comes() {
    let patient = Arc::new(Made { uncommitted: Mutex::default() });
    let board = Arc::new(WatchdogBoard::default());
    let watch = Watch {
        patient: patient.clone(),
        supervisor: None,
        board: board.clone(),
        interval: Span::from_millis(100),
        whom: "hc.example".into(),
    };
    let (stop, stopped) = oneshot::channel();
    let pings = Arc::new(AtomicU64::new(0));
    let count = pings.clone();
    let ping = move || {
        let number = count.fetch_add(1, Ordering::Relaxed);
        async move {
            match number {
                0 => std::future::pending().await,
                1 => Err("503".to_owned()),
                _ => Ok(()),
            }
        }
    };
    let thread = thread::spawn(move || run(&watch, Some(ping), stopped).expect("it runs"));
    let until = |what: &str, done: &dyn Fn([u64; 3]) -> bool| {
        let end = Clock.now() + Span::from_secs(30);
        while !done(board.counts()) {
            assert!(Clock.now() < end, "{what}: {:?}", board.counts());
            thread::sleep(Duration::from_millis(20));
        }
    };
    until("one hung, one failed, one was answered", &|counts| counts[0] >= 1 && counts[1] == 2);
    *patient.uncommitted.lock().expect("it is free") = Some(Span::from_secs(3_600));
    until("they are withheld", &|counts| counts[2] >= 1);
    let sent = pings.load(Ordering::Relaxed);
    let withheld = board.counts()[2];
    until("they stay so", &|counts| counts[2] > withheld);
    assert_eq!(pings.load(Ordering::Relaxed), sent);
    *patient.uncommitted.lock().expect("it is free") = None;
    until("they come again", &|_| pings.load(Ordering::Relaxed) > sent);
    drop(stop);
    thread.join().expect("it ends when it is told to");
}
