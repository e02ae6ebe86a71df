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
pub const UNHEALTHY_THRESHOLD_DEFAULT: u8 = 3;
pub const HEALTHY_THRESHOLD_DEFAULT: u8 = 2;

/// The step loop runs at least this often while a check is in flight ...
pub const FLIGHT_WAIT_MAX: Span = Span::from_millis(100);
/// ... so that a gap above this one means that the loop stood still (SIGSTOP, a VM pause, a starved CPU), and
/// checks that overlap it count for nothing when they fail.
pub const STALL: Span = Span::from_millis(250);
/// So long takes a turn of a shard's loop that keeps up, its wait for a batch included. A worker that waits for us longer does
/// so because the processor is busy, and then more of them would not help.
pub const TURN_MAX: Span = Span::from_millis(2);

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
/// Names that one request looks at: of all that match by what the catalog knows, and with the shards asked for states.
pub const API_SCAN_MAX: usize = 200_000;
pub const API_STATES_SCAN_MAX: usize = 16_384;
/// What a job may say, and how many calls a shard takes in one turn and keeps waiting.
pub const API_PUSH_BODY_MAX: usize = 64 * 1024;
pub const CALLS_PER_TURN_MAX: usize = 1_024;
pub const QUEUE_CALLS: usize = 16_384;
/// Calls with a token of nobody are written about this often.
pub const API_STRANGERS_EVERY: Span = Span::from_secs(60);
/// The token that changes are made with.
pub const API_TOKEN_MIN: usize = 16;
pub const API_TOKEN_MAX: usize = 1_024;
/// Connections to the unix socket.
pub const LOCAL_CONNECTIONS_MAX: usize = 64;
/// A page of monitors.
pub const API_PAGE_DEFAULT: usize = 100;
pub const API_PAGE_MAX: usize = 1_000;
/// Names looked at without letting other requests in between.
pub const API_SCAN_SLICE: usize = 1_024;
/// Names compared for one "did you mean", and names suggested.
pub const API_NEAR_SCAN_MAX: usize = 200_000;
pub const API_NEAR_MAX: usize = 3;
/// Destinations that monitors tell, without those with a name of their own, as far as the API looks for them.
pub const API_DESTINATIONS_MAX: usize = 1_000;
/// Incidents and attempts of one monitor's history, and how many may read the store at the same time.
pub const API_HISTORY_DEFAULT: usize = 50;
pub const API_HISTORY_READERS_MAX: usize = 4;
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
/// What a reload changes, applied by one step.
pub const CHANGES_PER_STEP_MAX: usize = 512;
/// Reloads that wait for the one before.
pub const RELOADS_WAITING_MAX: usize = 8;
/// A request waits so long for its reload; that goes on all the same.
pub const RELOAD_ANSWER_MAX: Span = Span::from_secs(60);
/// Files that change while they are read are read again after this, and so often.
pub const RELOAD_READ_AGAIN: Span = Span::from_millis(200);
pub const RELOAD_READS_MAX: usize = 5;
/// More than so many of a hundred monitors, and more than this number, are not removed without a second thought.
pub const RELOAD_REMOVED_PERCENT_MAX: usize = 20;
pub const RELOAD_REMOVED_MAX: usize = 10;
/// Names told of each kind of change, and errors of one reload.
pub const RELOAD_NAMES_MAX: usize = 10;
pub const RELOAD_ERRORS_MAX: usize = 20;
/// Names that a shard remembers beyond twice those of its monitors, before it forgets those that nobody uses.
pub const NAMES_UNUSED_MAX: usize = 1024;
/// As many of the checks to come are looked up at once: about what a processor can wait for at a time.
pub const READ_AHEAD: usize = 32;
/// Kept or lingering connections given up by one step for checks that have no slot.
pub const SPARED_PER_STEP_MAX: usize = 256;

/// A check that takes less than this is not overdue, whatever others of its kind take.
pub const OVERDUE_MIN: Span = Span::from_millis(50);
/// And this is the bound before any of its kind has ended.
pub const OVERDUE_UNKNOWN: Span = Span::from_secs(1);
/// An SLO that is missed for this long is called unreachable, and told again after the longer time.
pub const UNREACHABLE_AFTER: Span = Span::from_secs(3);
pub const UNREACHABLE_TOLD_EVERY: Span = Span::from_secs(60);

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

/// Packets a second, over all shards, of those that no peer's window slows down.
pub const PACKET_RATES: std::ops::RangeInclusive<u64> = 1_000..=100_000_000;
pub const PACKET_RATE: u32 = 200_000;
/// Who waits for a bound of packets looks again after this long, or later: one wake-up for many packets.
pub const HELD_PAUSE: Span = Span::from_millis(1);

/// Between two echo requests of one attempt, at most; a short timeout makes it shorter.
pub const ECHO_GAP_MAX: Span = Span::from_millis(200);
/// Echo requests handed to the kernel by one call, and replies taken from it by one. All requests of a call have one send
/// time: with 4 µs for each, the last one's round trip looks an eighth of a millisecond too long.
pub const ECHO_BATCH: usize = 32;
/// What the socket for echo requests may hold on its way out, in bytes: those to neighbours that are not there stay in the
/// kernel for seconds, and must not use up the room of the others.
pub const ECHO_SEND_BUFFER: usize = 4 * 1024 * 1024;
/// What it may hold of replies (the kernel doubles it, and counts at least 512 per packet) ...
pub const ECHO_RECEIVE_BUFFER: usize = 4 * 1024 * 1024;
/// ... so that one look takes everything that was there when it began, and ends however fast more comes.
pub const ECHOES_PER_TURN_MAX: usize = 16_384;
/// ICMP errors taken by one look.
pub const ECHO_ERRORS_PER_TURN_MAX: usize = 16_384;

/// A SYN of a half-open check that nothing answers is sent again after so long, then after twice as long each time, as
/// RFC 6298 has it ...
pub const SYN_RETRY_AFTER: Span = Span::from_secs(1);
/// ... and so often, as Linux does (`net.ipv4.tcp_syn_retries`): the last one waits for a minute.
pub const SYN_RETRIES_MAX: u16 = 6;

/// Source ports that SYNs leave by: four bits more by which an answer is known.
pub const SYN_PORTS: u16 = 16;

/// Redirects that one check follows.
pub const REDIRECTS_MAX: u8 = 10;
/// A connection that a redirect leads away from gets this long for the peer's FIN: the attempt waits for it.
pub const HOP_FIN_WAIT: Span = Span::from_millis(20);
/// What a regular expression may compile to, in bytes.
pub const PATTERN_SIZE_MAX: usize = 1024 * 1024;
/// Bytes of an answer in which a tcp check looks for what it expects.
pub const EXPECT_WINDOW_MAX: usize = 64 * 1024;
/// What one check asserts about an answer, and one text of it.
pub const ASSERTIONS_MAX: usize = 64;
pub const ASSERTION_TEXT_MAX: usize = 4 * 1024;
/// Echo requests of one attempt.
pub const ECHO_COUNT_MAX: u8 = 20;
/// Arguments and variables of one script, each, and the bytes of all of them.
pub const SCRIPT_ARGUMENTS_MAX: usize = 256;
pub const SCRIPT_TEXT_MAX: usize = 64 * 1024;
/// Characters of a token that a job calls with.
pub const TOKEN_MIN: usize = 16;
pub const TOKEN_MAX: usize = 128;

/// Steps of TLS handshakes that one step of a shard makes (about 0.1 ms each); the rest waits for the next step, on our
/// account and not the target's.
pub const HANDSHAKES_PER_STEP_MAX: usize = 64;
/// Bytes of one connection that may wait for such a step; more is taken at once.
pub const HANDSHAKE_UNREAD_MAX: usize = 64 * 1024;
/// TLS sessions kept to be resumed (some 3 KiB each with their certificates), in sum and per server.
pub const TLS_TICKETS_MAX: usize = 8 * 1024;
pub const TLS_TICKETS_PER_PEER_MAX: usize = 32;
/// A certificate is judged by a full handshake at least this often.
pub const TLS_JUDGED_MAX: Span = Span::from_secs(3_600);
/// How long a peer that could still refuse our side of a TLS handshake is waited for.
pub const TLS_REFUSAL_WAIT: Span = Span::from_millis(500);
/// What may be said in plain text before a TLS handshake (STARTTLS, CONNECT).
pub const PREAMBLE_MAX: usize = 16 * 1024;
/// A PEM file of certificates or keys.
pub const TLS_FILE_MAX: u64 = 4 * 1024 * 1024;

/// Scripts that run at the same time, over all shards; beyond them checks are void. Each takes three descriptors.
pub const SCRIPTS_RUNNING_MAX: usize = 512;
/// Bytes kept of each of a script's two outputs, and what both together may be before it is killed.
pub const SCRIPT_OUTPUT_KEPT: usize = 4 * 1024;
pub const SCRIPT_OUTPUT_MAX: u64 = 64 * 1024 * 1024;
/// A script that is to end is asked to; after this it is killed ...
pub const SCRIPT_GRACE: Span = Span::from_secs(1);
/// ... and after this, too, it is left behind (a process that waits for a dead disk cannot be killed); its place stays taken.
pub const SCRIPT_KILL_WAIT: Span = Span::from_secs(2);
/// The limits of resources that a script runs within, where this process's own are not lower. Open files of a process,
pub const SCRIPT_OPEN_FILES_MAX: u64 = 1024;
/// processes of the user whom scripts run as, all of them counted,
pub const SCRIPT_PROCESSES_MAX: u64 = 4096;
/// bytes of one file,
pub const SCRIPT_FILE_SIZE_MAX: u64 = 1 << 30;
/// bytes of a process's writable memory (not of its address space, of which some runtimes reserve a hundred times as much),
pub const SCRIPT_DATA_MAX: u64 = 4 << 30;
/// and seconds of processor time of a process: for what has got away from its script's end.
pub const SCRIPT_CPU_SECONDS_MAX: u64 = 3_600;

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

/// What people write about a monitor.
pub const LABELS_MAX: usize = 64;
pub const LABEL_MAX: usize = 255;
pub const DESCRIPTION_MAX: usize = 4 * 1024;
/// Monitors that one monitor may depend on.
pub const PARENTS_MAX: usize = 64;
/// Monitors that one definition may expand into.
pub const TARGETS_MAX: usize = 10_000;
/// A file with a secret or a certificate in it, and how many of them one load remembers.
pub const SECRET_FILE_MAX: u64 = 16 * 1024;
pub const CERTIFICATE_FILE_MAX: u64 = 1024 * 1024;
pub const SECRET_FILES_MAX: usize = 1_024;
/// Compiled regular expressions that one load shares between monitors.
pub const PATTERNS_SHARED_MAX: usize = 1_024;
/// Templates that one load remembers to have judged.
pub const TEMPLATES_SHARED_MAX: usize = 1_024;
/// Destinations that one load shares between monitors, and those of them that are listed for people.
pub const DESTINATIONS_SHARED_MAX: usize = 65_536;
pub const RECEIVERS_TOLD_MAX: usize = 1_000;
/// Source lines remembered until the end of a load, to show what a missing parent was named on.
pub const PARENT_EXCERPTS_MAX: usize = 1_000;

/// A monitor that could not be judged for this long is shown as unknown, and people are told.
pub const VOID_PATIENCE: Span = Span::from_secs(600);
/// A resolver answers within this, if only to say that it could not find out.
pub const RESOLVE_MAX: Span = Span::from_secs(10);
/// How long one name server has to answer, unless the setting says otherwise; then the next one is asked.
pub const RESOLVE_SERVER_WAIT: Span = Span::from_secs(2);
/// As many servers as resolv.conf(5) knows.
pub const RESOLVE_SERVERS_MAX: usize = 3;
/// Names looked up at the same time.
pub const RESOLVE_CONCURRENT_MAX: usize = 128;
/// Names that the resolver remembers; those beyond are looked up each time.
pub const RESOLVE_MEMORY_MAX: usize = 65_536;
/// Addresses of one name; those beyond are not looked at.
pub const NAME_ADDRESSES_MAX: usize = 64;
/// How long an address holds, whatever its time-to-live says.
pub const NAME_TTL_MIN: Span = Span::from_secs(1);
pub const NAME_TTL_MAX: Span = Span::from_secs(3_600);
/// What /etc/hosts says holds for this long; then it is looked at again.
pub const NAME_TTL_HOSTS: Span = Span::from_secs(10);
/// How long "there is no such name" holds; without a word from the zone, the shorter one.
pub const NAME_TTL_NEGATIVE_MIN: Span = Span::from_secs(1);
pub const NAME_TTL_NEGATIVE_MAX: Span = Span::from_secs(60);
/// A failure is not asked about again for this long.
pub const NAME_TTL_FAILURE: Span = Span::from_secs(1);
/// How long beyond its time an address serves while the resolver fails ...
pub const STALE_MAX: Span = Span::from_secs(3_600);
/// ... how long a check waits for a better one ...
pub const STALE_PATIENCE: Span = Span::from_millis(500);
/// ... and how soon one is asked for again.
pub const STALE_TTL: Span = Span::from_secs(5);
/// How often resolv.conf and hosts are looked at for changes.
pub const RESOLVE_FILES_EVERY: Span = Span::from_secs(2);
/// Checks that waited for a name, let go by one step.
pub const NAMED_PER_STEP_MAX: usize = 1024;

/// Questions of dns checks: at the same time, and waiting for that.
pub const QUESTIONS_MAX: usize = 1_024;
pub const QUESTIONS_WAITING_MAX: usize = 16_384;
/// One answer over UDP, as we offer it (RFC 9715: no fragments), and as we read it from a server that sends more.
pub const DNS_UDP_OFFER: u16 = 1_232;
pub const DNS_UDP_MAX: usize = 4_096;
/// Datagrams that are not the answer, before the wait for it is given up.
pub const DNS_STRAYS_MAX: usize = 64;

/// After this process stood still, a job's call that is overdue may lie unread for this long.
pub const PUSH_SETTLE: Span = Span::from_secs(5);
/// Times that the loop stood still, remembered one by one until that is over.
pub const PUSH_STOPS_MAX: usize = 16;

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

/// Pauses of a notice that could not be delivered: the first one, where a pager would rather not be asked again soon, and the
/// longest one. Each is twice as long as the one before, and up to a quarter more.
pub const DELIVERY_PAUSE_MIN: Span = Span::from_secs(1);
pub const DELIVERY_PAUSE_MIN_PAGER: Span = Span::from_secs(10);
pub const DELIVERY_PAUSE_MAX: Span = Span::from_secs(300);
/// A notice that has failed for this long is dead: it goes to the fallback.
pub const DEAD_LETTER_AGE: Span = Span::from_secs(24 * 3600);
/// Attempts that may each have arrived where nobody can tell a second notice from the first.
pub const UNSURE_MAX: u32 = 3;
/// So long a destination pauses at most, whatever it says; and at first, where it says that it is too much but not for how
/// long. That one doubles.
pub const PAUSE_MAX: Span = Span::from_secs(3_600);
pub const THROTTLE_PAUSE_MIN: Span = Span::from_secs(30);
/// After so many failures in a row a destination is probed with one notice at a time; news may be one, but not sooner than
/// this after the last one.
pub const PROBE_AFTER: u32 = 3;
pub const PROBE_GAP_MIN: Span = Span::from_secs(1);
/// Notices that are waiting, in memory: beyond them people are told. The store has them all the same.
pub const OUTBOX_MEMORY_MAX: usize = 1_000_000;
/// Notices that are done, and remembered for those who ask.
pub const FINISHED_NOTICES_MAX: usize = 256;
/// What a destination would forget is sent again this often or a little more often, so many in one step ...
pub const REFRESH_EVERY: Span = Span::from_secs(60);
pub const REFRESHES_PER_STEP_MAX: usize = 1_024;
/// ... and its end so often.
pub const RESOLVE_REPEATS: u32 = 2;

/// Records of one transaction; a batch that has more is one nevertheless.
pub const STORE_TRANSACTION_RECORDS: usize = 16_384;
/// Records that wait for a disk that does not take them, before they are merged; see `store/backlog.rs` for the bound then.
pub const STORE_BACKLOG_RECORDS: usize = 65_536;
/// Of those, people's changes that are kept.
pub const STORE_AUDITS_KEPT: usize = 1_024;
/// A commit that failed is tried again after the one, later after the other.
pub const STORE_RETRY_PAUSE_MIN: Span = Span::from_millis(100);
pub const STORE_RETRY_PAUSE_MAX: Span = Span::from_secs(5);
/// How often the store looks after its file while nothing is to be committed, and how soon again while there is history to
/// remove: so many rows at a time.
pub const STORE_HOUSEKEEPING_EVERY: Span = Span::from_secs(1);
pub const STORE_PRUNE_PAUSE: Span = Span::from_millis(50);
pub const STORE_PRUNED_AT_ONCE: i64 = 256;
/// Pages (4 KiB) of the log that are moved into the file when nothing else is to do, and even while there is.
pub const STORE_WAL_PAGES: i64 = 1_024;
pub const STORE_WAL_PAGES_MAX: i64 = 16_384;
/// The log is cut to this size when it is used again.
pub const STORE_WAL_BYTES_KEPT: u64 = 64 * 1024 * 1024;
/// Pages that SQLite keeps in memory, statements that it keeps prepared, and destinations whose row is remembered.
pub const STORE_CACHE_BYTES: u64 = 16 * 1024 * 1024;
pub const STORE_STATEMENTS: usize = 32;
pub const STORE_DESTINATIONS_KNOWN_MAX: usize = 10_000;
/// How long another program may hold the file's lock before that is a failure.
pub const STORE_BUSY_WAIT: Span = Span::from_secs(1);
/// A larger file is not checked as a whole at the start.
pub const STORE_CHECKED_WHOLE_MAX: u64 = 256 * 1024 * 1024;
/// Damaged files that are kept aside.
pub const STORE_ASIDE_MAX: usize = 5;
/// Rows of one answer about the past.
pub const STORE_ANSWER_MAX: usize = 1_000;
/// History is removed when it is older, or when the file is larger, unless the settings say otherwise.
pub const STORE_AGE_DEFAULT: Span = Span::from_secs(30 * 24 * 3600);
pub const STORE_SIZE_DEFAULT: u64 = 1 << 30;

/// Shutdown: in-flight checks, then notices, get this long to end.
pub const DRAIN_CHECKS: Span = Span::from_secs(5);
pub const DRAIN_NOTICES: Span = Span::from_secs(5);
/// One wish to end often comes as two signals at once: `timeout` and some supervisors signal the process and its group.
pub const SIGNAL_ECHO: Span = Span::from_millis(250);

/// What files may say of a destination: how long one attempt may take, how many may follow each other after a pause, how many
/// are on their way at the same time, and above how many raises a minute a pager gets one incident for a group.
pub const DELIVERY_TIMEOUTS: std::ops::RangeInclusive<Span> = Span::from_millis(100)..=Span::from_secs(120);
pub const DELIVERY_BURST_MAX: u32 = 10_000;
pub const DELIVERIES_AT_ONCE_MAX: u32 = 1_024;
pub const RAISES_PER_MINUTE_MAX: u32 = 10_000;

/// Notices that one destination is given at a time, and so the lines of one write.
pub const NOTICE_BATCH_MAX: usize = 1024;
/// Destinations kept open while nothing is to be sent.
pub const DESTINATIONS_IDLE_MAX: usize = 64;
/// Destinations served at the same time, unless the setting says otherwise.
pub const CODE_WORKERS_MIN: u32 = 4;
pub const CODE_WORKERS_MAX: u32 = 64;
/// Destinations that hang, beside those: each costs a future, a descriptor and a thread that waits for its disk.
pub const DESTINATIONS_STUCK_MAX: usize = 256;
/// A destination may have this part of the room that is left for notices on their way, and one notice at least. Those
/// that hang keep what they have: with a sixteenth it takes more than sixty of them to use up a thousand.
pub const OUTSTANDING_SHARE: usize = 16;
/// A job that takes many times as long as its like gives back its worker, but not before the one and not after the other.
pub const WORKER_OVERDUE_MIN: Span = Span::from_millis(500);
pub const WORKER_OVERDUE_MAX: Span = Span::from_secs(10);
/// Pauses before the second and further attempts to append to a log; then the fallback has the notices.
pub const LOG_RETRY_PAUSES: [Span; 3] = [Span::from_millis(250), Span::from_millis(500), Span::from_millis(1_000)];
/// After that, for this long, one attempt per batch has to do: a long queue must not wait for a full disk batch by batch.
pub const LOG_TROUBLE: Span = Span::from_secs(5);
/// How long a mail server may take to say goodbye; as much of a subject as is read anywhere; messages remembered that some of
/// their recipients are done with and others are not.
pub const MAIL_QUIT_WAIT: Span = Span::from_secs(1);
pub const MAIL_SUBJECT_MAX: usize = 200;
pub const MAIL_PARTLY_SENT_MAX: usize = 256;
/// Scripts of notices at a time, beside those of checks: checks that hang keep nobody from being told.
pub const SCRIPTS_OF_NOTICES_MAX: usize = 64;
/// How long one line may wait for room in the standard error.
pub const STDERR_PATIENCE: Span = Span::from_secs(2);
/// What is read of a provider's answer.
pub const WEB_BODY_MAX: usize = 64 * 1024;
/// A connection to a provider is kept for so long, and so many of one destination's at most.
pub const WEB_IDLE: Span = Span::from_secs(30);
pub const WEB_KEPT_MAX: usize = 16;
/// A provider that wants nothing for longer than this is asked again after it all the same.
pub const RETRY_AFTER_MAX: Span = Span::from_secs(3_600);
/// What providers take, in bytes where they count characters: PagerDuty's summary, a message of Slack (more than 40,000
/// are cut there, and each may become five by escaping),
pub const PAGERDUTY_SUMMARY_MAX: usize = 1_024;
pub const SLACK_TEXT_MAX: usize = 4_000;
/// a text message of four parts at most: septets of the phones' own alphabet (four parts would hold 612), else UTF-16
/// units (268, less one for each part that must not end amid a character),
pub const SMS_SEPTETS_MAX: usize = 480;
pub const SMS_UNITS_MAX: usize = 264;
/// one request to an Alertmanager, and requests that one batch may become while what it refuses is looked for.
pub const ALERTMANAGER_BODY_MAX: usize = 1024 * 1024;
pub const ALERTMANAGER_REQUESTS_MAX: usize = 64;
/// How long an alert lasts that is not told again: the desk tells it every minute.
pub const ALERTMANAGER_ENDS_AFTER: Span = Span::from_secs(240);
/// A template of notices: its text, and what it may spend on one notice (an instruction, or 64 bytes of memory).
pub const TEMPLATE_MAX: usize = 16 * 1024;
pub const TEMPLATE_FUEL: u64 = 50_000;
/// A notice in words: its title and its text, in bytes.
pub const WORDING_TITLE_MAX: usize = 512;
pub const WORDING_TEXT_MAX: usize = 16 * 1024;
/// A fault of a destination that goes on is written about this often.
pub const FAULT_REPORT_EVERY: Span = Span::from_secs(60);

/// What is written of histograms: a log is ended by its age or its size, and so many of them are kept; as many texts.
pub const HISTOGRAM_LOG_AGE: Span = Span::from_secs(24 * 3600);
pub const HISTOGRAM_LOG_SIZE: u64 = 16 * 1024 * 1024;
pub const HISTOGRAM_FILES_MAX: usize = 14;
/// Shards are asked for theirs at least this often: their counts hold what a million checks a second are until then.
pub const HISTOGRAM_GATHER_MAX: Span = Span::from_secs(3_600);
/// A shard that does not hand its histograms over within this is left out, and a dump is waited for this long.
pub const HISTOGRAM_SHARD_WAIT: Span = Span::from_secs(2);
pub const HISTOGRAM_DUMP_WAIT: Span = Span::from_secs(5);
/// Wishes for a dump that wait for the one before.
pub const QUEUE_DUMPS: usize = 8;
/// One histogram as it is read, unfolded, and one file of them.
pub const HISTOGRAM_BYTES_MAX: u64 = 64 * 1024 * 1024;
pub const HISTOGRAM_FILE_MAX: u64 = 256 * 1024 * 1024;

/// Ledger audits compare where the monitors are with how many there are.
pub const LEDGER_EVERY: Span = Span::from_secs(1);

/// Queues between threads whose length nobody has to tune.
pub const QUEUE_TRANSITIONS: usize = 65_536;
pub const QUEUE_COMMANDS: usize = 16_384;
pub const QUEUE_ASKS: usize = 64;

/// A shard, a desk or a code lane that has not turned for this long is not alive ...
pub const HEARTBEAT_MAX: Span = Span::from_secs(5);
/// ... and one that has nothing to do turns this often.
pub const HEARTBEAT_EVERY: Span = Span::from_secs(1);

/// How long a service manager that does not read is waited for.
pub const SUPERVISOR_PATIENCE: Span = Span::from_secs(1);
/// What the dead man's switch is judged by, and how often: a check that has been due for so long without a worker (suspects
/// wait for one another, and do not count),
pub const WATCHDOG_LAG_MAX: Span = Span::from_secs(10);
/// a commit that is not durable after so long,
pub const WATCHDOG_COMMIT_MAX: Span = Span::from_secs(15);
/// and a notice that has been to be delivered for so long.
pub const WATCHDOG_NOTICE_MAX: Span = Span::from_secs(600);
pub const WATCHDOG_EVERY: Span = Span::from_secs(1);
/// How long one ping may take.
pub const WATCHDOG_PING_MAX: Span = Span::from_secs(10);

/// Single checks without a daemon: slots, what is kept of an answer to be shown, and monitors checked in one run.
pub const SOLO_SLOTS: u32 = 8;
pub const SOLO_RECEIVED_MAX: usize = 64 * 1024;
pub const SOLO_MONITORS_MAX: usize = 10_000;
/// How long the command line waits for what becomes of a test, and how often it asks.
pub const NOTIFY_TEST_WAIT: Span = Span::from_secs(30);
pub const NOTIFY_TEST_EVERY: Span = Span::from_millis(200);
/// What the command line takes as one answer of a daemon.
pub const CLIENT_ANSWER_MAX: usize = 64 * 1024 * 1024;

/// One answer to a question about monitors (a slice of a page).
pub const REPORT_SLICE_MAX: usize = 256;

const _: () = assert!(DELIVERY_PAUSE_MIN_PAGER.as_nanos() < DELIVERY_PAUSE_MAX.as_nanos());
const _: () = assert!(DELIVERY_PAUSE_MAX.as_nanos() < DEAD_LETTER_AGE.as_nanos());

const _: () = assert!(HEARTBEAT_MAX.as_nanos() >= 3 * HEARTBEAT_EVERY.as_nanos());
// Notices leave from memory before anybody is worried about the store.
const _: () = assert!(WATCHDOG_COMMIT_MAX.as_nanos() > COMMIT_PATIENCE.as_nanos());
const _: () = assert!(STALL.as_nanos() > 2 * FLIGHT_WAIT_MAX.as_nanos());
const _: () = assert!(INTERVAL_MIN.as_nanos() >= TICK.as_nanos());
// A due time lives in 32 bits of ticks; half of them must cover the longest interval.
const _: () = assert!(INTERVAL_MAX.as_nanos() / TICK.as_nanos() < (u32::MAX / 2) as u64);
// Scripts in flight can be ended within the time that their checks get.
const _: () = assert!(SCRIPT_GRACE.as_nanos() + SCRIPT_KILL_WAIT.as_nanos() < DRAIN_CHECKS.as_nanos());
const _: () = assert!(ECHOES_PER_TURN_MAX >= 2 * ECHO_RECEIVE_BUFFER / 512);
const _: () = assert!(ECHO_ERRORS_PER_TURN_MAX >= 2 * ECHO_RECEIVE_BUFFER / 512);
const _: () = assert!(ASSERTION_TEXT_MAX < EXPECT_WINDOW_MAX);
// A name's place holds its file in 16 bits.
const _: () = assert!(MONITOR_FILES_MAX < u16::MAX as usize);
const _: () = assert!(HISTOGRAM_SHARD_WAIT.as_nanos() < HISTOGRAM_DUMP_WAIT.as_nanos());
const _: () = assert!(HISTOGRAM_GATHER_MAX.as_secs() * 1_000_000 < u32::MAX as u64);
const _: () = assert!(HISTOGRAM_LOG_SIZE < HISTOGRAM_FILE_MAX);
const _: () = assert!(RESPONSE_HEAD_MAX < RESPONSE_BODY_MAX as usize);
// Every server gets its turn before the answer is due.
const _: () = assert!(RESOLVE_SERVERS_MAX as u64 * RESOLVE_SERVER_WAIT.as_nanos() < RESOLVE_MAX.as_nanos());
const _: () = assert!((DNS_UDP_OFFER as usize) < DNS_UDP_MAX);
const _: () = assert!(STALE_PATIENCE.as_nanos() < RESOLVE_MAX.as_nanos());
// A destination that cannot be had gives up on its own before the lane gives up on it.
const _: () = {
    let [a, b, c] = LOG_RETRY_PAUSES;
    let patience = a.as_nanos() + b.as_nanos() + c.as_nanos() + STDERR_PATIENCE.as_nanos();
    assert!(patience < DRAIN_NOTICES.as_nanos());
};
