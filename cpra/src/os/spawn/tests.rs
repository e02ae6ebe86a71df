//! What no real script can be made to do: not to end when it is killed. The rest is tested with real ones.

use std::process::{Child, Command};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::*;

/// The number of no process group: signals to it reach nobody.
const NO_GROUP: libc::pid_t = libc::pid_t::MAX;

struct Bench {
    driver: Driver,
    news: Receiver<News>,
    /// To be kept: without it the driver would end.
    _orders: Sender<Order>,
}

impl Bench {
    fn new(running_max: usize) -> Self {
        let door = WakeFd::new().expect("a descriptor");
        let (orders, receiver) = bounded(8, door.bell());
        let (sender, news) = bounded(8, Bell::mute());
        let clients = vec![Client { orders: receiver, news: sender, unsent: VecDeque::new() }];
        let settings = Settings { running_max, ..Settings::default() };
        let driver = Driver::new(settings, clients, Arc::default(), &door).expect("descriptors");
        Self { driver, news, _orders: orders }
    }

    /// A child that the driver has, and none of its signals reach.
    fn immortal(&mut self, slot: u32) -> (Child, usize) {
        let child = Command::new("sleep").arg("60").spawn().expect("sleep is everywhere");
        let id = libc::pid_t::try_from(child.id()).expect("a small number");
        // SAFETY: asks for a new descriptor, and touches no memory.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, id, 0) };
        // SAFETY: the kernel has just made it for us.
        let pidfd: OwnedFd = unsafe { std::os::fd::FromRawFd::from_raw_fd(i32::try_from(fd).expect("a descriptor")) };
        let place = Place { client: 0, slot: Slot(slot), generation: Generation(1) };
        let output = || Output { pipe: None, kept: Vec::new() };
        let outputs = [output(), output()];
        let index = self.driver.runs.insert(|serial| Run {
            place,
            serial,
            pid: NO_GROUP,
            pidfd,
            outputs,
            written: 0,
            phase: Phase::Running,
        });
        (child, index)
    }

    fn news(&mut self) -> Vec<ErrandEnd> {
        let client = &mut self.driver.clients[0];
        client.news.send_all(&mut client.unsent);
        let news = std::iter::from_fn(|| self.news.recv());
        news.map(|news| match news {
            News::Returned { end, .. } => *end,
            News::Begun { .. } => panic!("nothing begins here"),
        })
        .collect()
    }
}

#[test]
fn what_cannot_be_killed_is_left_behind_and_keeps_its_place() {
    let mut bench = Bench::new(1);
    let now = Clock.now();
    let (mut child, index) = bench.immortal(7);
    let place = Place { client: 0, slot: Slot(7), generation: Generation(1) };
    bench.driver.recall(place, now);
    bench.driver.recall(place, now + Span::from_millis(1));
    bench.driver.keep_deadlines(now + SCRIPT_GRACE);
    bench.driver.keep_deadlines(now + SCRIPT_GRACE + (SCRIPT_KILL_WAIT - Span::from_millis(1)));
    assert_eq!(bench.news(), []);
    assert_eq!(bench.driver.runs.ending, 1);

    let late = now + SCRIPT_GRACE + SCRIPT_KILL_WAIT;
    bench.driver.keep_deadlines(late);
    assert_eq!(bench.news(), [ErrandEnd::Recalled], "whoever waits for the slot has waited long enough");
    assert_eq!((bench.driver.runs.len, bench.driver.runs.ending), (1, 0), "its place stays taken");
    bench.driver.recall(place, late);
    bench.driver.keep_deadlines(late + Span::from_secs(60));
    assert_eq!(bench.news(), []);

    // At last: it is collected, and nobody is told a second time.
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a small number")), Signal::SIGKILL).expect("it is ours");
    while bench.driver.runs.len == 1 {
        bench.driver.ended.push(index);
        bench.driver.collect_ended();
        thread::yield_now();
    }
    assert!(child.wait().is_err(), "the driver has collected it");
    assert_eq!(bench.news(), []);
}

#[test]
fn an_event_of_the_one_before_is_not_the_next_ones() {
    let mut bench = Bench::new(2);
    let (mut child, index) = bench.immortal(1);
    let old = token(bench.driver.runs.places[index].as_ref().expect("it runs").serial, index, Source::End);
    bench.driver.runs.remove(index);
    let (mut next, again) = bench.immortal(2);
    assert_eq!(again, index, "the place is used again");
    next.kill().expect("it is ours");
    bench.driver.happened(old);
    bench.driver.collect_ended();
    assert_eq!(bench.driver.runs.len, 1, "not its event");
    let new = token(bench.driver.runs.places[index].as_ref().expect("it runs").serial, index, Source::End);
    while bench.driver.runs.len == 1 {
        bench.driver.happened(new);
        bench.driver.collect_ended();
        thread::yield_now();
    }
    assert_eq!(bench.news().len(), 1);
    child.kill().expect("it is ours");
    child.wait().expect("it is ours");
}
