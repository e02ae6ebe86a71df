use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::pipeline::{Bell, bounded};
use crate::queueing::recording::{Log, read};
use crate::units::limits::HISTOGRAM_FILES_MAX;

const DAY: i64 = 24 * 3600;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros((1_795_371_203 + seconds) * 1_000_000)
}

fn folder(path: &Path) -> Folder {
    Folder::new(path.join("histograms"), Box::new(|start| header("a test", start)))
}

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path.join("histograms")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The lines of one interval with so many times.
fn lines(count: u64) -> String {
    let mut recording = Recording::new("pulse", ["tcp"]);
    (1..=count).for_each(|micros| recording.record(0, Measure::Service, Span::from_micros(micros)));
    let mut gathered = Gathered::default();
    gathered.take(&mut recording);
    gathered.log_lines(at(0), Span::from_secs(1))
}

fn counts(log: &Log) -> BTreeMap<&str, u64> {
    log.series.iter().map(|(tag, times)| (tag.as_str(), times.count())).collect()
}

fn read_log(path: &Path) -> Log {
    let log = read(&fs::read(path).unwrap()).unwrap();
    assert_eq!(log.torn, None);
    log
}

#[test]
fn a_log_is_appended_to_also_after_a_restart_until_it_is_old() {
    let top = tempfile::tempdir().unwrap();
    let mut first = folder(top.path());
    let path = first.append(at(0), at(0), &lines(3)).unwrap();
    assert_eq!(first.append(at(60), at(0), &lines(4)).unwrap(), path);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o137, 0);
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o027, 0);
    // Another daemon with the same folder has a log of its own.
    let mut other = folder(top.path());
    let others = other.append(at(61), at(61), &lines(1)).unwrap();
    assert_ne!(others, path);
    drop((first, other));
    fs::remove_file(others).unwrap();
    let mut again = folder(top.path());
    assert_eq!(again.append(at(DAY - 1), at(0), &lines(5)).unwrap(), path);
    let log = read_log(&path);
    assert_eq!((log.intervals, counts(&log)["pulse-tcp-service"]), (3, 12));
    assert_eq!(fs::read_to_string(&path).unwrap().matches("StartTime:").count(), 1);
    assert_ne!(again.append(at(DAY + 1), at(0), &lines(5)).unwrap(), path);
    assert_eq!(names(top.path()), ["cpra-20261122T181323Z.hlog", "cpra-20261123T181324Z.hlog"]);
}

#[test]
fn a_log_ends_with_its_size_and_only_the_oldest_of_ours_go() {
    let top = tempfile::tempdir().unwrap();
    let kept = ["notes.txt", "cpra-19700101T000000Z.hlog.bak", "other-19700101T000000Z.hlog"];
    fs::create_dir(top.path().join("histograms")).unwrap();
    for name in kept {
        fs::write(top.path().join("histograms").join(name), "x").unwrap();
    }
    let mut folder = folder(top.path()).with_size(100);
    for round in 0..40 {
        let log = folder.append(at(round), at(0), &lines(1_000)).unwrap();
        assert_eq!(read_log(&log).intervals, 1, "the first dump of a log may be too large for a second");
    }
    let names = names(top.path());
    let logs: Vec<_> = names.iter().filter(|name| !kept.contains(&name.as_str())).collect();
    assert_eq!((names.len(), logs.len()), (HISTOGRAM_FILES_MAX + kept.len(), HISTOGRAM_FILES_MAX));
    assert_eq!(logs[0], "cpra-20261122T181349Z.hlog");
    for round in 0..40 {
        let texts = ["a-b-service", "a-b-result"].map(|tag| (tag.to_owned(), "text\n".to_owned()));
        assert_eq!(folder.write_texts(at(round / 2), &texts).unwrap().len(), 2);
    }
    let texts = fs::read_dir(folder.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().ends_with(".hgrm"));
    assert_eq!(texts.count(), 2 * HISTOGRAM_FILES_MAX);
}

#[test]
fn a_torn_line_is_cut_off_wherever_it_was_torn() {
    let top = tempfile::tempdir().unwrap();
    let path = folder(top.path()).append(at(0), at(0), &lines(3)).unwrap();
    let whole = fs::read(&path).unwrap();
    let second = lines(4);
    for cut in [1, second.len() / 2, second.len() - 1] {
        fs::write(&path, [&whole, &second.as_bytes()[..cut]].concat()).unwrap();
        assert_eq!(folder(top.path()).append(at(9), at(5), &lines(5)).unwrap(), path);
        let log = read_log(&path);
        assert_eq!((log.intervals, counts(&log)["pulse-tcp-service"]), (2, 8), "{cut}");
    }
    // Torn in its very first line, or never written to.
    for beginning in ["#[Histog", ""] {
        fs::write(&path, beginning).unwrap();
        folder(top.path()).append(at(9), at(5), &lines(5)).unwrap();
        assert_eq!(read_log(&path).intervals, 1);
        assert!(fs::read(&path).unwrap().starts_with(b"#[Histogram log format version 1.3]\n#[a test"));
    }
}

#[test]
fn what_is_no_plain_file_of_ours_is_left_alone() {
    let top = tempfile::tempdir().unwrap();
    let folder_path = top.path().join("histograms");
    fs::create_dir(&folder_path).unwrap();
    let victim = top.path().join("victim");
    fs::write(&victim, "no newline at its end").unwrap();
    let newest = folder_path.join("cpra-20261122T181322Z.hlog");
    type Trap = fn(&Path, &Path);
    let traps: [(&str, Trap); 3] = [
        ("a symbolic link", |victim, name| symlink(victim, name).unwrap()),
        ("a hard link", |victim, name| fs::hard_link(victim, name).unwrap()),
        ("a pipe", |_, name| nix::unistd::mkfifo(name, nix::sys::stat::Mode::S_IRWXU).unwrap()),
    ];
    for (what, trap) in traps {
        trap(&victim, &newest);
        let path = folder(top.path()).append(at(0), at(0), &lines(3)).unwrap();
        assert_ne!(path, newest, "{what}");
        assert_eq!(read_log(&path).intervals, 1, "{what}");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "no newline at its end", "{what}");
        fs::remove_file(path).unwrap();
        fs::remove_file(&newest).unwrap();
    }
    // A text where a link lies takes the link's place.
    let text = folder_path.join("cpra-20261122T181323Z-a.hgrm");
    symlink(&victim, &text).unwrap();
    folder(top.path()).write_texts(at(0), &[("a".to_owned(), "text".to_owned())]).unwrap();
    assert!(fs::symlink_metadata(&text).unwrap().is_file());
    assert_eq!(fs::read_to_string(&victim).unwrap(), "no newline at its end");
}

#[test]
fn a_log_that_somebody_removed_is_begun_again() {
    let top = tempfile::tempdir().unwrap();
    let mut folder = folder(top.path());
    let path = folder.append(at(0), at(0), &lines(3)).unwrap();
    fs::remove_file(&path).unwrap();
    let second = folder.append(at(1), at(0), &lines(4)).unwrap();
    assert_eq!(counts(&read_log(&second))["pulse-tcp-service"], 4);
    fs::remove_dir_all(top.path().join("histograms")).unwrap();
    let third = folder.append(at(2), at(0), &lines(5)).unwrap();
    assert_eq!(counts(&read_log(&third))["pulse-tcp-service"], 5);
}

/// A shard that answers, or does not.
fn shard(mut recordings: Vec<Recording>) -> (Source, JoinHandle<()>) {
    let board = Arc::new(ShardBoard::default());
    let (exchanges, mut receiver) = bounded::<Exchange>(1, Bell::mute());
    let thread = thread::spawn(move || {
        recordings.reverse();
        while let Some(next) = recordings.pop() {
            while receiver.is_empty() && !receiver.is_closed() {
                thread::yield_now();
            }
            if let Some(exchange) = receiver.recv() {
                (exchange.reply)(next);
            }
        }
        while !receiver.is_closed() {
            thread::yield_now();
        }
    });
    (Source { exchanges, board }, thread)
}

fn recorded(count: u64) -> Recording {
    let mut recording = Shard::empty_recording();
    (1..=count).for_each(|micros| recording.record(1, Measure::Service, Span::from_micros(micros)));
    recording
}

fn code() -> SharedRecording {
    SharedRecording::new(Recording::new("code", ["log"]))
}

fn dumped(writer: &Writer) -> Result<Dump, DumpError> {
    let (sender, receiver) = mpsc::channel();
    writer.dump(Box::new(move |dump| sender.send(dump).unwrap())).unwrap();
    receiver.recv().unwrap()
}

const MINUTE: Settings = Settings { dir: None, interval: Span::from_secs(60) };

#[test]
fn a_dump_has_what_all_shards_recorded_once() {
    let top = tempfile::tempdir().unwrap();
    let ((one, _), (other, _)) = (shard(vec![recorded(3), recorded(0)]), shard(vec![recorded(4), recorded(2)]));
    let shared = code();
    shared.record(0, Measure::Result, Span::from_millis(7));
    let (writer, thread) = spawn(&MINUTE, top.path().join("histograms"), "a", vec![one, other], shared).unwrap();
    let first = dumped(&writer).unwrap();
    assert_eq!(first.series, [("code-log-result".to_owned(), 1), ("pulse-http-service".to_owned(), 7)]);
    assert_eq!((first.texts.len(), &*first.silent), (2, [].as_slice()));
    let second = dumped(&writer).unwrap();
    assert_eq!((second.file.as_ref(), second.series[0].1), (first.file.as_ref(), 2));
    let log = read_log(first.file.as_ref().unwrap());
    assert_eq!(counts(&log).into_values().collect::<Vec<_>>(), [1, 9]);
    let text = fs::read_to_string(&first.texts[1]).unwrap();
    assert!(text.starts_with("       Value     Percentile") && text.contains("\n#[Mean"), "{text}");
    drop(writer);
    thread.join().unwrap();
    assert_eq!(read_log(first.file.as_ref().unwrap()).intervals, 3, "without a log nothing is written at the end");
}

#[test]
fn nothing_recorded_writes_nothing() {
    let top = tempfile::tempdir().unwrap();
    let (source, _) = shard(vec![recorded(0)]);
    let (writer, _) = spawn(&MINUTE, top.path().join("histograms"), "a", vec![source], code()).unwrap();
    let dump = dumped(&writer).unwrap();
    assert!(dump.file.is_none() && dump.series.is_empty());
    assert!(!top.path().join("histograms").exists());
}

#[test]
fn a_shard_that_does_not_answer_is_left_out_and_nothing_of_it_is_lost() {
    let top = tempfile::tempdir().unwrap();
    let (good, _) = shard(vec![recorded(3), recorded(1)]);
    let (exchanges, mut slow) = bounded::<Exchange>(1, Bell::mute());
    let board = Arc::new(ShardBoard::default());
    let silent = Source { exchanges, board: Arc::clone(&board) };
    let (writer, _) = spawn(&MINUTE, top.path().join("histograms"), "a", vec![good, silent], code()).unwrap();
    let dump = dumped(&writer).unwrap();
    assert_eq!((dump.silent, dump.series[0].1), (vec![1], 3));
    // It answers late, and then it ends.
    (slow.recv().unwrap().reply)(recorded(10));
    *board.last_recording.lock().unwrap() = Some(recorded(100));
    drop(slow);
    let dump = dumped(&writer).unwrap();
    assert_eq!((&*dump.silent, dump.series[0].1), ([].as_slice(), 111));
}

#[test]
fn what_is_left_is_written_at_the_end() {
    let top = tempfile::tempdir().unwrap();
    let (source, _) = shard(vec![]);
    *source.board.last_recording.lock().unwrap() = Some(recorded(5));
    let (exchanges, receiver) = bounded::<Exchange>(1, Bell::mute());
    drop(receiver);
    let source = Source { exchanges, ..source };
    let settings = Settings { dir: Some(top.path().join("histograms")), ..MINUTE };
    let (writer, thread) = spawn(&settings, settings.folder(Path::new("/")), "a", vec![source], code()).unwrap();
    writer.end();
    thread.join().unwrap();
    assert_eq!(writer.dump(Box::new(|_| {})), Err(Refused::Ended));
    let names = names(top.path());
    let log = read_log(&top.path().join("histograms").join(&names[0]));
    assert_eq!((names.len(), counts(&log)["pulse-http-service"]), (1, 5));
}

/// See the tests of `notify::log`: a tmpfs that only this thread sees, and the threads that it starts.
#[test]
fn a_full_disk_costs_no_time_and_tears_no_line() {
    const NAME: &str = "a_full_disk_costs_no_time_and_tears_no_line";
    let top = tempfile::tempdir().unwrap();
    if let Err(errno) = unshare(CloneFlags::CLONE_NEWNS) {
        let reason = format!("needs CAP_SYS_ADMIN for a mount namespace: {errno}");
        assert!(std::env::var_os("CPRA_NO_SKIP").is_none(), "{NAME} must not be skipped: {reason}");
        return println!("SKIPPED {NAME}: {reason}");
    }
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    mount(Some("cpra-test"), top.path(), Some("tmpfs"), MsFlags::empty(), Some("size=64k")).unwrap();
    // Several pages each.
    let mut rng = fastrand::Rng::with_seed(7);
    let mut scattered = || {
        let mut recording = Shard::empty_recording();
        (0..4_000).for_each(|_| recording.record(1, Measure::Service, Span::from_micros(rng.u64(1..1 << 31))));
        recording
    };
    let recordings = vec![scattered(), scattered(), scattered(), scattered()];
    let (source, _) = shard(recordings);
    let (writer, thread) = spawn(&MINUTE, top.path().join("histograms"), "a", vec![source], code()).unwrap();
    let first = dumped(&writer).unwrap();
    let log = || read_log(first.file.as_ref().unwrap());
    let ballast = top.path().join("ballast");
    assert!(fs::write(&ballast, vec![0; 64 * 1024]).is_err(), "now it is full");
    for _ in 0..2 {
        let error = dumped(&writer).expect_err("no room").to_string();
        assert!(error.contains("No space left on device") && error.contains("/histograms"), "{error}");
        assert_eq!(log().intervals, 1, "what did not fit has left nothing behind");
    }
    fs::remove_file(&ballast).unwrap();
    let kept = dumped(&writer).unwrap();
    assert_eq!((kept.file.as_ref(), kept.series[0].1), (first.file.as_ref(), 12_000));
    assert_eq!(counts(&log())["pulse-http-service"], 16_000, "each time once");
    assert_eq!([&writer.board.written, &writer.board.failed].map(|count| count.load(Ordering::Relaxed)), [2, 2]);
    drop(writer);
    thread.join().unwrap();
    umount2(top.path(), MntFlags::MNT_DETACH).unwrap();
}
