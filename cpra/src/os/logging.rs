//! The daemon's own log, on standard error: text for people, JSON for collectors.
//!
//! A log that nobody reads must not stop a shard: a line for which there is no room within a moment is dropped and
//! counted ([`dropped`]). Levels come from `RUST_LOG` if it is set, else from `--debug`.

use std::io::{self, IsTerminal as _, Write};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::Dispatch;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use super::stream;
use crate::units::Span;

/// How long a line may wait for room, piece by piece.
const PATIENCE: Span = Span::from_millis(20);

/// What happened to monitors, and what goes wrong anywhere; libraries stay quiet.
// What a name server sends must not fill the log; what stands in this host's own files may be told.
const LEVEL: &str = "cpra=info,warn,hickory_net=off,hickory_proto=off,hickory_resolver=off,\
                     hickory_resolver::hosts=warn,hickory_resolver::system_conf=warn";
const LEVEL_DEBUG: &str = "cpra=debug,info";

static DROPPED: AtomicU64 = AtomicU64::new(0);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// Starts logging for the whole process.
///
/// # Errors
/// When it was started before.
pub fn start(format: Format, debug: bool) -> Result<(), TryInitError> {
    let level = if debug { LEVEL_DEBUG } else { LEVEL };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let color = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    subscriber(format, filter, color, StandardError).try_init()
}

fn subscriber<W>(format: Format, filter: EnvFilter, color: bool, writer: W) -> Dispatch
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match format {
        Format::Text => Dispatch::new(builder.with_ansi(color).finish()),
        Format::Json => Dispatch::new(builder.json().flatten_event(true).finish()),
    }
}

/// Lines of the log that nobody took.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

#[derive(Clone, Copy, Debug)]
struct StandardError;

impl<'a> MakeWriter<'a> for StandardError {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

impl Write for StandardError {
    /// The subscriber writes each line with one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        // The lock keeps the pieces of a long line together.
        let stderr = stderr.lock();
        if stream::write_whole(stderr.as_fd(), line, PATIENCE).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, Mutex, OnceLock};

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What this thread logs while `body` runs.
    pub(crate) fn capture(format: Format, body: impl FnOnce()) -> String {
        // With only one subscriber alive, tracing asks the thread that comes by first whether an event is wanted, and
        // remembers its answer for all; that thread may be another test's, which has none. A second one prevents this.
        static SECOND: OnceLock<Dispatch> = OnceLock::new();
        SECOND.get_or_init(|| subscriber(Format::Text, EnvFilter::new(LEVEL), false, io::sink));
        let memory = Memory::default();
        let writer = memory.clone();
        let dispatch = subscriber(format, EnvFilter::new(LEVEL), false, move || writer.clone());
        tracing::dispatcher::with_default(&dispatch, body);
        let bytes = std::mem::take(&mut *memory.0.lock().unwrap());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn text_is_one_line_and_json_is_an_object_with_the_fields_on_top() {
        let speak = || {
            tracing::debug!("not without --debug");
            tracing::info!(monitor = "shop/web", "went\ndown");
        };
        let text = capture(Format::Text, speak);
        assert!(text.contains("INFO") && text.contains("monitor=\"shop/web\""), "{text:?}");
        let json = capture(Format::Json, speak);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&value["level"], &value["monitor"]), (&"INFO".into(), &"shop/web".into()));
        assert_eq!(json.lines().count(), 1);
    }
}
