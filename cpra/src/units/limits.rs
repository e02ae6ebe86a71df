//! Every bound in one place. Related bounds are held to each other by const asserts.

use super::time::Span;

/// The wheel's resolution. A due time is rounded *up* to it, so that nothing fires early.
pub const TICK: Span = Span::from_millis(1);

/// Intervals that a monitor may have.
pub const INTERVAL_MIN: Span = Span::from_millis(100);
pub const INTERVAL_MAX: Span = Span::from_secs(7 * 24 * 3600);
pub const TIMEOUT_MIN: Span = Span::from_millis(1);

/// Re-tries within one check (`retries`) and the pause before each.
pub const RETRIES_MAX: u8 = 10;
pub const RETRY_PAUSE: Span = Span::from_millis(50);

/// `unhealthy_threshold` and `healthy_threshold`.
pub const THRESHOLD_MAX: u8 = 100;

/// The step loop runs at least this often while a check is in flight ...
pub const FLIGHT_WAIT_MAX: Span = Span::from_millis(100);
/// ... so that a gap above this one means that the loop stood still (SIGSTOP, a VM pause, a starved CPU), and
/// checks that overlap it count for nothing when they fail.
pub const STALL: Span = Span::from_millis(250);

/// An HTTP check that asked for `Connection: close` waits this long for the peer's FIN before it disconnects.
pub const FIN_WAIT: Span = Span::from_millis(500);

/// How long an idle keep-alive connection is kept, and how many per origin.
pub const KEEP_ALIVE_IDLE: Span = Span::from_secs(75);
pub const KEEP_ALIVE_PER_ORIGIN_MAX: usize = 64;

/// The API: connections at a time, and how long one may wait with (the rest of) a request, live, and take to end.
pub const API_CONNECTIONS_MAX: usize = 256;
/// Connections beyond those, which are told so before they are closed.
pub const API_FAREWELLS_MAX: usize = 16;
pub const API_HEAD_WAIT: Span = Span::from_secs(20);
pub const API_CONNECTION_LIFE: Span = Span::from_secs(300);
pub const API_CONNECTION_GRACE: Span = Span::from_secs(2);
pub const API_REQUEST_HEAD_MAX: usize = 16 * 1024;
pub const API_REQUEST_HEADERS_MAX: usize = 64;
/// How long the API waits for a shard or the desk to answer.
pub const API_ASK_MAX: Span = Span::from_secs(2);
/// A page of monitors.
pub const API_PAGE_DEFAULT: usize = 100;
pub const API_PAGE_MAX: usize = 1_000;
/// Names looked at without letting other requests in between.
pub const API_SCAN_SLICE: usize = 1_024;
/// Names compared for one "did you mean", and names suggested.
pub const API_NEAR_SCAN_MAX: usize = 200_000;
pub const API_NEAR_MAX: usize = 3;
/// Open episodes and last changes in the status.
pub const API_STATUS_LIST_MAX: usize = 10;
/// Files looked at in search of the owner of a taken port.
pub const OWNER_SCAN_MAX: usize = 200_000;
/// The demo endpoint's phases.
pub const DEMO_PHASE_MIN: Span = Span::from_millis(100);
pub const DEMO_PHASE_MAX: Span = Span::from_secs(3_600);

/// The profiling listener.
pub const PROFILE_CONNECTIONS_MAX: usize = 8;
pub const PROFILE_SECONDS_DEFAULT: u64 = 30;
pub const PROFILE_SECONDS_MAX: u64 = 300;
pub const PROFILE_HERTZ: i32 = 99;
/// What symbols and the answer may take on top of the longest profile.
pub const PROFILE_CONNECTION_LIFE: Span = Span::from_secs(PROFILE_SECONDS_MAX + 120);

/// Checks started by one step, and effects one step may emit for them.
pub const STARTS_PER_STEP_MAX: usize = 1024;
/// Kept or lingering connections given up by one step for checks that have no slot.
pub const SPARED_PER_STEP_MAX: usize = 256;

/// One response head, and how much of a body is read before the rest no longer matters.
pub const RESPONSE_HEAD_MAX: usize = 16 * 1024;
pub const RESPONSE_HEADERS_MAX: usize = 100;
pub const RESPONSE_BODY_MAX: u64 = 1024 * 1024;
/// 1xx answers before the final one.
pub const RESPONSE_INTERIM_MAX: u8 = 8;
/// One chunk-size line with its extensions, and all trailers of a chunked body together.
pub const CHUNK_LINE_MAX: usize = 1024;
pub const TRAILERS_MAX: usize = 8 * 1024;
/// One request as sent: line, headers and body.
pub const REQUEST_MAX: usize = 64 * 1024;

/// Redirects that one check follows.
pub const REDIRECTS_MAX: u8 = 10;
/// What a regular expression may compile to, in bytes.
pub const PATTERN_SIZE_MAX: usize = 1024 * 1024;
/// Bytes of an answer in which a tcp check looks for what it expects.
pub const EXPECT_WINDOW_MAX: usize = 64 * 1024;

/// Text kept about one outcome.
pub const EVIDENCE_MAX: usize = 256;
/// Outcomes of monitors that are not OK, kept with evidence by one shard.
pub const EVIDENCE_ENTRIES_MAX: usize = 65_536;

/// Files of one load, and programs whose owners it remembers.
pub const MONITOR_FILES_MAX: usize = 10_000;
pub const PROGRAMS_KNOWN_MAX: usize = 10_000;

/// Names.
pub const MONITOR_NAME_MAX: usize = 255;
pub const HOST_MAX: usize = 253;
pub const PATH_MAX: usize = 8 * 1024;

/// A monitor that could not be judged for this long is shown as unknown, and people are told.
pub const VOID_PATIENCE: Span = Span::from_secs(600);
/// A resolver answers within this, if only to say that it could not find out.
pub const RESOLVE_MAX: Span = Span::from_secs(10);

/// Sampling of the host's own drop counters while timed-out checks wait to be judged.
pub const HOST_SAMPLE_EVERY: Span = Span::from_millis(5);

/// Without stored state, raises wait for at most this long after the start.
pub const RAISE_HOLD_MAX: Span = Span::from_secs(60);

/// Transitions that a shard may hold back for a desk that is behind, before it starts no more checks; checks in
/// flight add at most their own number.
pub const TRANSITIONS_BACKLOG_MAX: usize = 4096;

/// The last changes that the desk remembers for people.
pub const RECENT_CHANGES_MAX: usize = 100;

/// Without a commit for this long, notices leave from memory (VERDICTS decision 5).
pub const COMMIT_PATIENCE: Span = Span::from_secs(5);

/// Shutdown: in-flight checks, then notices, get this long to end.
pub const DRAIN_CHECKS: Span = Span::from_secs(5);
pub const DRAIN_NOTICES: Span = Span::from_secs(5);
/// One wish to end often comes as two signals at once: `timeout` and some supervisors signal the process and its group.
pub const SIGNAL_ECHO: Span = Span::from_millis(250);

/// Notices that one destination is given at a time, and so the lines of one write.
pub const NOTICE_BATCH_MAX: usize = 1024;
/// Destinations served at the same time, and kept open while nothing is to be sent.
pub const DESTINATIONS_BUSY_MAX: usize = 64;
pub const DESTINATIONS_IDLE_MAX: usize = 64;
/// Pauses before the second and further attempts to append to a log; then the fallback has the notices.
pub const LOG_RETRY_PAUSES: [Span; 3] = [Span::from_millis(250), Span::from_millis(500), Span::from_millis(1_000)];
/// After that, for this long, one attempt per batch has to do: a long queue must not wait for a full disk batch by batch.
pub const LOG_TROUBLE: Span = Span::from_secs(5);
/// How long one line may wait for room in the standard error.
pub const STDERR_PATIENCE: Span = Span::from_secs(2);
/// A fault of a destination that goes on is written about this often.
pub const FAULT_REPORT_EVERY: Span = Span::from_secs(60);

/// Ledger audits compare where the monitors are with how many there are.
pub const LEDGER_EVERY: Span = Span::from_secs(1);

/// Queues between threads whose length nobody has to tune.
pub const QUEUE_TRANSITIONS: usize = 65_536;
pub const QUEUE_COMMANDS: usize = 16_384;
pub const QUEUE_ASKS: usize = 64;

/// A shard or a desk that has not turned for this long is not alive.
pub const HEARTBEAT_MAX: Span = Span::from_secs(5);

/// One answer to a question about monitors (a slice of a page).
pub const REPORT_SLICE_MAX: usize = 256;

const _: () = assert!(STALL.as_nanos() > 2 * FLIGHT_WAIT_MAX.as_nanos());
const _: () = assert!(INTERVAL_MIN.as_nanos() >= TICK.as_nanos());
// A due time lives in 32 bits of ticks; half of them must cover the longest interval.
const _: () = assert!(INTERVAL_MAX.as_nanos() / TICK.as_nanos() < (u32::MAX / 2) as u64);
// A name's place holds its file in 16 bits.
const _: () = assert!(MONITOR_FILES_MAX < u16::MAX as usize);
const _: () = assert!(RESPONSE_HEAD_MAX < RESPONSE_BODY_MAX as usize);
// A destination that cannot be had gives up on its own before the lane gives up on it.
const _: () = {
    let [a, b, c] = LOG_RETRY_PAUSES;
    let patience = a.as_nanos() + b.as_nanos() + c.as_nanos() + STDERR_PATIENCE.as_nanos();
    assert!(patience < DRAIN_NOTICES.as_nanos());
};
