use std::hint::black_box;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use flate2::read::GzDecoder;
use pprof::protos::{Message, Profile};

use super::fake::{Fake, Reply, Running, exchange};

fn ask(running: &Running, path: &str) -> Reply {
    exchange(running.profile, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}

/// One test, since there is one profiler in a process.
#[test]
fn a_profile_shows_who_is_busy_and_holds_up_nobody() {
    let running = Running::new(Fake::small());
    let busy = Arc::new(AtomicBool::new(true));
    let worker = {
        let busy = busy.clone();
        thread::Builder::new()
            .name("busy-bee".to_owned())
            .spawn(move || {
                let mut number = 0_u64;
                while busy.load(Ordering::Relaxed) {
                    number = black_box(number.wrapping_mul(31).wrapping_add(7));
                }
            })
            .expect("a thread")
    };

    thread::scope(|scope| {
        let taking = scope.spawn(|| ask(&running, "/debug/pprof/profile?seconds=2"));
        thread::sleep(Duration::from_millis(500));
        assert_eq!(ask(&running, "/debug/pprof/profile?seconds=1").status, 409);
        assert_eq!(running.get("/healthz").status, 200);
        assert!(!taking.is_finished(), "others are answered while it is taken");
        let reply = taking.join().expect("a profile");
        assert_eq!(reply.status, 200);
        let mut bytes = Vec::new();
        GzDecoder::new(reply.body.as_slice()).read_to_end(&mut bytes).expect("gzip");
        let profile = Profile::decode(bytes.as_slice()).expect("a profile");
        let text = |index: i64| profile.string_table[index as usize].as_str();
        let units: Vec<_> = profile.sample_type.iter().map(|kind| (text(kind.ty), text(kind.unit))).collect();
        assert_eq!(units, [("samples", "count"), ("cpu", "nanoseconds")]);
        let samples: i64 = profile
            .sample
            .iter()
            .filter(|sample| sample.label.iter().any(|label| text(label.str) == "busy-bee"))
            .map(|sample| sample.value[0])
            .sum();
        assert!(samples >= 5, "{samples} samples of the busy thread");
        assert!(profile.sample.iter().all(|sample| !sample.location_id.is_empty()));
    });

    // A client that goes away does not keep the next one waiting.
    let gone = std::net::TcpStream::connect(running.profile).expect("it listens");
    std::io::Write::write_all(&mut &gone, b"GET /debug/pprof/profile?seconds=300 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("it reads");
    thread::sleep(Duration::from_millis(300));
    drop(gone);
    let again = (0..50).any(|_| {
        thread::sleep(Duration::from_millis(100));
        ask(&running, "/debug/pprof/profile?seconds=1").status == 200
    });
    assert!(again, "the abandoned profile ended");
    busy.store(false, Ordering::Relaxed);
    worker.join().expect("it ends");

    for wrong in ["seconds=0", "seconds=301", "seconds=x", "seconds=-1"] {
        assert_eq!(ask(&running, &format!("/debug/pprof/profile?{wrong}")).status, 400, "{wrong}");
    }
    let index = ask(&running, "/debug/pprof/");
    assert!(index.status == 200 && index.text().contains("/debug/pprof/profile?seconds=N"));
    assert_eq!(ask(&running, "/metrics").status, 404, "the API is not here");
}

#[test]
fn a_taken_profiling_port_is_no_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    assert!(crate::api::profile::bind(taken.local_addr().expect("it is bound")).is_none());
    assert!(crate::api::profile::bind("127.0.0.1:0".parse().expect("an address")).is_some());
}
