//! The folder of histograms: `cpra-20261122T181323Z.hlog`, and texts beside it.
//!
//! A log is appended to with one write per dump, so that lines of two dumps never mix, and by one process, which holds
//! a lock on it. It ends after [`HISTOGRAM_LOG_AGE`] or with [`HISTOGRAM_LOG_SIZE`] bytes; a restart goes on with the last
//! one. What an interrupted write left of a line is cut off before the next one.
//!
//! Somebody else may be able to write to the folder: links are not followed, what is not a plain file of this user is
//! left alone, and only files that are called like ours are removed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc;
use nix::unistd::geteuid;

use crate::units::Timestamp;
use crate::units::limits::{HISTOGRAM_FILES_MAX, HISTOGRAM_LOG_AGE, HISTOGRAM_LOG_SIZE};

const PREFIX: &str = "cpra-";
const LOG: &str = ".hlog";
const TEXT: &str = ".hgrm";
/// `20261122T181323Z`
const STAMP: usize = 16;
const FILE_MODE: u32 = 0o640;
const FOLDER_MODE: u32 = 0o750;
/// Other processes may begin a log in the same second.
const NAMES_MAX: i64 = 8;

/// What a log begins with, from the time of its first interval.
pub(super) type Header = Box<dyn Fn(Timestamp) -> String + Send>;

pub(super) struct Folder {
    path: PathBuf,
    header: Header,
    open: Option<OpenLog>,
    size_max: u64,
}

struct OpenLog {
    file: Flock<File>,
    path: PathBuf,
    stamp: String,
    size: u64,
}

impl Folder {
    pub(super) fn new(path: PathBuf, header: Header) -> Self {
        Self { path, header, open: None, size_max: HISTOGRAM_LOG_SIZE }
    }

    #[cfg(test)]
    pub(super) fn with_size(mut self, size_max: u64) -> Self {
        self.size_max = size_max;
        self
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends lines to the log of these days, all of them or none. Answers with its path.
    pub(super) fn append(&mut self, now: Timestamp, from: Timestamp, lines: &str) -> io::Result<PathBuf> {
        let wanted = lines.len() as u64;
        if self.open.as_ref().is_some_and(|log| !log.takes(now, wanted, self.size_max)) {
            self.open = None;
        }
        let mut log = match self.open.take() {
            Some(log) => log,
            None => self.open_log(now, wanted)?,
        };
        let head = if log.size == 0 { (self.header)(from) } else { String::new() };
        // A log whose write has failed is looked at anew the next time.
        log.append((head + lines).as_bytes())?;
        let path = log.path.clone();
        self.open = Some(log);
        Ok(fs::canonicalize(&path).unwrap_or(path))
    }

    fn open_log(&self, now: Timestamp, wanted: u64) -> io::Result<OpenLog> {
        fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&self.path)?;
        if let Some(stamp) = self.stamps(LOG)?.pop()
            && let Some(log) = OpenLog::again(&self.path, &stamp)?
            && log.takes(now, wanted, self.size_max)
        {
            return Ok(log);
        }
        let mut taken = Err(io::Error::from(io::ErrorKind::AlreadyExists));
        for seconds in 0..NAMES_MAX {
            let stamp = stamp_of(Timestamp::from_micros(now.as_micros().saturating_add(seconds * 1_000_000)));
            taken = OpenLog::create(&self.path, &stamp);
            match &taken {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(_) => break,
                Ok(_) => {
                    self.remove_oldest(LOG, &stamp)?;
                    break;
                }
            }
        }
        taken
    }

    /// Writes one text per series; answers with their paths.
    pub(super) fn write_texts(&self, now: Timestamp, texts: &[(String, String)]) -> io::Result<Vec<PathBuf>> {
        let stamp = stamp_of(now);
        let mut paths = Vec::new();
        for (tag, text) in texts {
            let path = self.path.join(format!("{PREFIX}{stamp}-{tag}{TEXT}"));
            // Of a dump in the same second: the later one counts.
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = options().write(true).create_new(true).open(&path)?;
            file.write_all(text.as_bytes())?;
            paths.push(fs::canonicalize(&path).unwrap_or(path));
        }
        self.remove_oldest(TEXT, &stamp)?;
        Ok(paths)
    }

    /// The times in names of this ending, ascending, each once.
    fn stamps(&self, ending: &str) -> io::Result<Vec<String>> {
        let mut stamps = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            stamps.extend(name.to_str().and_then(|name| stamp_in(name, ending)).map(str::to_owned));
        }
        stamps.sort_unstable();
        stamps.dedup();
        Ok(stamps)
    }

    /// Removes all files of this ending but those of the last [`HISTOGRAM_FILES_MAX`] times, and never `kept`.
    fn remove_oldest(&self, ending: &str, kept: &str) -> io::Result<()> {
        let stamps = self.stamps(ending)?;
        let Some(removed) = stamps.len().checked_sub(HISTOGRAM_FILES_MAX).and_then(|count| stamps.get(..count)) else {
            return Ok(());
        };
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(stamp) = name.to_str().and_then(|name| stamp_in(name, ending)) else { continue };
            if stamp == kept || !removed.iter().any(|removed| removed == stamp) {
                continue;
            }
            // Of a link, the link. One that stays is no reason to write nothing.
            if let Err(error) = fs::remove_file(entry.path()) {
                tracing::warn!(file = %entry.path().display(), %error, "an old file of histograms cannot be removed");
            }
        }
        Ok(())
    }
}

impl OpenLog {
    fn create(folder: &Path, stamp: &str) -> io::Result<Self> {
        let path = folder.join(format!("{PREFIX}{stamp}{LOG}"));
        let file = options().read(true).append(true).create_new(true).open(&path)?;
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| io::Error::from(errno))?;
        Ok(Self { file, path, stamp: stamp.to_owned(), size: 0 })
    }

    /// One that is there already; `None` if it is not ours, or another process writes to it.
    fn again(folder: &Path, stamp: &str) -> io::Result<Option<Self>> {
        let path = folder.join(format!("{PREFIX}{stamp}{LOG}"));
        let file = match options().read(true).append(true).open(&path) {
            Ok(file) => file,
            Err(error) => {
                tracing::debug!(file = %path.display(), %error, "a log of histograms is left alone");
                return Ok(None);
            }
        };
        let found = file.metadata()?;
        if !found.is_file() || found.uid() != geteuid().as_raw() || found.nlink() != 1 {
            tracing::debug!(file = %path.display(), "a log of histograms is left alone: it is no plain file of this user");
            return Ok(None);
        }
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(errno.into()),
        };
        let mut log = Self { file, path, stamp: stamp.to_owned(), size: found.size() };
        log.cut_torn_line()?;
        Ok(Some(log))
    }

    /// Cuts what a crash left of a line.
    fn cut_torn_line(&mut self) -> io::Result<()> {
        if self.size > HISTOGRAM_LOG_SIZE {
            // Nothing more is appended to it.
            return Ok(());
        }
        let mut bytes = Vec::new();
        (&*self.file).take(HISTOGRAM_LOG_SIZE).read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1) as u64;
        if whole < bytes.len() as u64 {
            let cut = bytes.len() as u64 - whole;
            tracing::warn!(file = %self.path.display(), bytes = cut, "a torn line is cut off a log of histograms");
            self.file.set_len(whole)?;
        }
        self.size = whole;
        Ok(())
    }

    /// Whether so many more bytes belong into it.
    fn takes(&self, now: Timestamp, wanted: u64, size_max: u64) -> bool {
        let age = i64::try_from(HISTOGRAM_LOG_AGE.as_micros()).unwrap_or(i64::MAX);
        let is_young = self.stamp > stamp_of(Timestamp::from_micros(now.as_micros().saturating_sub(age)));
        // Somebody may have removed it, or put another one in its place.
        let is_there = fs::symlink_metadata(&self.path).and_then(|named| Ok((named, self.file.metadata()?)));
        let is_there = is_there.is_ok_and(|(named, open)| (named.dev(), named.ino()) == (open.dev(), open.ino()));
        // The first dump of a log may be larger than a log should be.
        is_young && is_there && (self.size == 0 || self.size + wanted <= size_max)
    }

    /// All of the bytes or none.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(bytes) {
            // Of the part that was written there is nothing to be read. If it stays, it is cut off later.
            let _ = self.file.set_len(self.size);
            return Err(error);
        }
        self.size += bytes.len() as u64;
        Ok(())
    }
}

/// Without O_NONBLOCK the open of a FIFO would wait for its other end.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(FILE_MODE).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY);
    options
}

fn stamp_of(time: Timestamp) -> String {
    let time = jiff::Timestamp::from_microsecond(time.as_micros()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// The time in a name that is one of ours: of a log nothing else, of a text with a tag.
fn stamp_in<'a>(name: &'a str, ending: &str) -> Option<&'a str> {
    let (stamp, tag) = name.strip_prefix(PREFIX)?.strip_suffix(ending)?.split_at_checked(STAMP)?;
    let is_tag = |tag: &str| {
        tag.strip_prefix('-').is_some_and(|tag| {
            !tag.is_empty() && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        })
    };
    let is_named_so = if ending == LOG { tag.is_empty() } else { is_tag(tag) };
    let is_stamp = stamp.bytes().enumerate().all(|(at, byte)| match at {
        8 => byte == b'T',
        15 => byte == b'Z',
        _ => byte.is_ascii_digit(),
    });
    (is_named_so && is_stamp).then_some(stamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_ours_are_ours() {
        assert_eq!(stamp_in("cpra-20261122T181323Z.hlog", LOG), Some("20261122T181323Z"));
        assert_eq!(stamp_in("cpra-20261122T181323Z-pulse-http-result.hgrm", TEXT), Some("20261122T181323Z"));
        assert_eq!(stamp_of(Timestamp::from_micros(1_795_371_203_412_345)).len(), STAMP);
        for foreign in [
            "cpra-20261122T181323Z.hgrm",
            "cpra-20261122T181323Z.hlog.gz",
            "cpra-20261122T181323Z-a.hlog",
            "cpra-2026112T2181323Z.hlog",
            "cpra-2026112ÄT181323Z.hlog",
            "cpra-.hlog",
            "kpra-20261122T181323Z.hlog",
            "cpra-20261122T181323Z-a b.hgrm",
            "cpra-20261122T181323Z-.hgrm",
        ] {
            assert!(stamp_in(foreign, LOG).is_none() && stamp_in(foreign, TEXT).is_none(), "{foreign}");
        }
    }
}
