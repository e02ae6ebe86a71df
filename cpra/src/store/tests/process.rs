//! What was acknowledged is there after the process was killed, whatever it was doing.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use fastrand::Rng;

use super::given::queued;
use super::*;
use crate::os::wake::WakeFd;

/// The path of the file that the process is to write; it is this test, started again.
const PATH: &str = "CPRA_TEST_STORE";
const NAME: &str = "store::tests::process::what_was_acknowledged_survives_the_process";
const KILLS: u64 = 50;

#[test]
fn what_was_acknowledged_survives_the_process() {
    if let Some(path) = std::env::var_os(PATH) {
        return write_until_killed(Path::new(&path));
    }
    let place = Place::new();
    let mut expected_least = 0;
    for seed in 0..KILLS {
        let mut rng = Rng::with_seed(seed);
        let mut child = Command::new(std::env::current_exe().expect("a test"))
            .args([NAME, "--exact", "--nocapture"])
            .env(PATH, place.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it can be started");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let numbers = lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("durable ")?.parse::<u64>().ok());
        let acknowledged = numbers.take(rng.usize(1..20)).last();
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
        expected_least = acknowledged.expect("it commits something");
        let (_file, stored) = place.open();
        assert_eq!(stored.trouble, None, "a crash damages nothing");
        assert!(stored.next_notice > expected_least, "{} of {expected_least}", stored.next_notice);
        // Whole batches, without gaps: notice n and what was said of it stand or fall together.
        let found: Vec<u64> = stored.outbox.iter().map(|notice| notice.id.0).collect();
        assert_eq!(found, (1..stored.next_notice).collect::<Vec<_>>());
        assert!(stored.seen_ok.iter().map(|(_, last)| *last).eq([stored.next_notice - 1]));
    }
    assert!(expected_least >= KILLS, "each of them went on where the one before was killed");
}

/// Goes on with the numbers that are there.
fn write_until_killed(path: &Path) {
    let opened = open(&Settings::File(FileSettings::at(path))).expect("it may be used");
    let base = opened.stored.next_notice.max(1) - 1;
    let door = WakeFd::new().expect("a descriptor");
    let (mut store, _) = opened.spawn(64, door.bell()).expect("a thread");
    let mut sequence = 0;
    loop {
        while let Some(durable) = store.durable.recv() {
            println!("durable {}", base + durable);
        }
        let number = base + sequence + 1;
        let records = vec![queued(NoticeId(number)), Record::SeenOk { monitor: "last".into(), definition: number }];
        if store.batches.send(Batch { sequence: sequence + 1, records }).is_ok() {
            sequence += 1;
        }
        if sequence % 8 == 0 {
            door.wait(Some(Span::from_millis(2)));
        }
    }
}
