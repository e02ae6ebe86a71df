//! `notify: log`: JSON Lines, appended to a file, else to standard error.
//!
//! A batch is one write at the file's end. A line is never torn: what was written of a line that did not fit (a full disk)
//! is cut off again; and should that be impossible (another process appends too), or a crash have left half a line,
//! the next batch begins with a newline.
//!
//! Rotation needs no signal: before each batch the path is compared with the open file. Renamed or removed, it is opened
//! anew; truncated in place (`copytruncate`), O_APPEND finds the new end.
//!
//! When the file cannot be had after a few attempts, the notices go to standard error, and the fault is reported with its
//! remedy. This does not sync: the kernel writes back within seconds, and a notice is durable in the store already.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::dirs::Refusal;
use super::{Surroundings, line};
use crate::desk::protocol::{Delivered, DeliveryResult};
use crate::domain::Notice;
use crate::os::lane::{Errno, Identity, Kind, OpenFile, Status, aside};
use crate::units::limits::{FAULT_REPORT_EVERY, LOG_RETRY_PAUSES, LOG_TROUBLE};

#[derive(Debug)]
pub struct LogOutlet {
    path: Option<PathBuf>,
    surroundings: Surroundings,
    open: Option<Opened>,
    /// Until when a single attempt has to do.
    trouble_until: Option<Instant>,
    reported: Option<Instant>,
    unreported: u64,
}

#[derive(Debug)]
struct Opened {
    file: OpenFile,
    /// The path as resolved when it was opened.
    place: PathBuf,
    identity: Identity,
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("{}", in_words(.0))]
    Io(#[from] io::Error),
}

impl LogOutlet {
    pub fn new(path: Option<PathBuf>, surroundings: Surroundings) -> Self {
        Self { path, surroundings, open: None, trouble_until: None, reported: None, unreported: 0 }
    }

    pub async fn close(mut self) {
        self.let_go().await;
    }

    /// Closes the file, which can hang where its disk does.
    async fn let_go(&mut self) {
        if let Some(opened) = self.open.take() {
            opened.file.close().await;
        }
    }

    pub async fn deliver(&mut self, notices: &[&Notice]) -> Vec<Delivered> {
        let mut text = vec![];
        let mut ends = vec![];
        for notice in notices {
            line::encode(notice, &mut text);
            ends.push(text.len());
        }
        let (in_file, otherwise) = match self.path.clone() {
            Some(path) => (self.append_patiently(&path, &text, &ends).await, DeliveryResult::Fallback),
            None => (0, DeliveryResult::Sent),
        };
        let mut results = vec![Delivered::from(DeliveryResult::Sent); in_file];
        let mut start = in_file.checked_sub(1).map_or(0, |last| ends[last]);
        for &end in &ends[in_file..] {
            results.push(match self.surroundings.stderr.write_line(&text[start..end]).await {
                Ok(()) => otherwise.into(),
                // There is nobody left to tell but whoever reads the counters and the store.
                Err(error) => Delivered::new(DeliveryResult::Failed, format!("standard error: {error}")),
            });
            start = end;
        }
        results
    }

    /// Returns how many lines are in the file.
    async fn append_patiently(&mut self, path: &Path, text: &[u8], ends: &[usize]) -> usize {
        let troubled = self.trouble_until.is_some_and(|until| Instant::now() < until);
        let mut pauses = LOG_RETRY_PAUSES[..if troubled { 0 } else { LOG_RETRY_PAUSES.len() }].iter();
        let mut done = 0;
        loop {
            let start = if done == 0 { 0 } else { ends[done - 1] };
            let (bytes, result) = self.append(path, &text[start..]).await;
            done = ends.partition_point(|&end| end <= start + bytes);
            let Err(trouble) = result else {
                self.trouble_until = None;
                return done;
            };
            // Whatever it was, the next attempt begins with looking at the path again.
            self.let_go().await;
            let Some(&pause) = pauses.next() else {
                self.trouble_until = Some(Instant::now() + Duration::from(LOG_TROUBLE));
                self.report(path, &trouble, ends.len() - done);
                return done;
            };
            sleep(pause.into()).await;
        }
    }

    /// One attempt. Returns how many bytes of whole lines are in the file, with what kept the others out.
    async fn append(&mut self, path: &Path, lines: &[u8]) -> (usize, Result<(), Trouble>) {
        match self.current(path).await {
            Ok(file) => append_lines(file, lines).await,
            Err(trouble) => (0, Err(trouble)),
        }
    }

    /// The open file, if it is still what the path names; else the path's, opened anew.
    async fn current(&mut self, path: &Path) -> Result<&OpenFile, Trouble> {
        let disk = self.surroundings.disk;
        if let Some(opened) = &self.open {
            let found = disk.identity(&opened.place).await?;
            if found.is_none_or(|(identity, _)| identity != opened.identity) {
                self.let_go().await;
            }
        }
        let opened = match self.open.take() {
            Some(opened) => opened,
            None => self.open_anew(path).await?,
        };
        Ok(&self.open.insert(opened).file)
    }

    async fn open_anew(&self, path: &Path) -> Result<Opened, Trouble> {
        let disk = self.surroundings.disk;
        let (log_dirs, path) = (Arc::clone(&self.surroundings.log_dirs), path.to_owned());
        let place = aside(move || log_dirs.place(&path)).await??;
        // Looked at before it is opened: to open a device can have effects of its own.
        match disk.identity(&place).await? {
            Some((_, Kind::Symlink)) => return Err(Refusal::Symlink.into()),
            Some((_, Kind::Other)) => return Err(Refusal::NotRegular.into()),
            Some((_, Kind::Regular)) | None => {}
        }
        let file = disk.open_append(&place).await?;
        // And after, since between the two anything may have happened, even to the folders above.
        let Status { identity, kind, .. } = file.status().await?;
        if kind != Kind::Regular {
            return Err(Refusal::NotRegular.into());
        }
        let folder = file.path()?.parent().map(Path::to_path_buf).unwrap_or_default();
        let log_dirs = Arc::clone(&self.surroundings.log_dirs);
        aside(move || Ok(if log_dirs.contains(&folder) { Ok(()) } else { Err(Refusal::Outside(folder)) })).await??;
        file.wait_for_disk()?;
        Ok(Opened { file, place, identity })
    }

    fn report(&mut self, path: &Path, trouble: &Trouble, notices: usize) {
        self.unreported += notices as u64;
        let now = Instant::now();
        if self.reported.is_some_and(|last| now - last < Duration::from(FAULT_REPORT_EVERY)) {
            return;
        }
        self.reported = Some(now);
        tracing::error!(
            path = %path.display(),
            error = %trouble,
            remedy = trouble.remedy(),
            notices = self.unreported,
            "notices go to standard error, because the log cannot be written"
        );
        self.unreported = 0;
    }
}

/// See [`LogOutlet::append`].
async fn append_lines(file: &OpenFile, lines: &[u8]) -> (usize, Result<(), Trouble>) {
    let mut bytes = Vec::with_capacity(lines.len() + 1);
    let before = match file.status().await {
        Ok(status) => status.size,
        Err(error) => return (0, Err(error.into())),
    };
    match file.last_byte(before).await {
        Ok(None | Some(b'\n')) => {}
        Ok(Some(_)) => bytes.push(b'\n'),
        Err(error) => return (0, Err(error.into())),
    }
    let lead = bytes.len();
    bytes.extend_from_slice(lines);

    let mut written = 0;
    let fault = loop {
        if written == bytes.len() {
            return (lines.len(), Ok(()));
        }
        let result;
        (result, bytes) = file.append(bytes, written).await;
        match result {
            Ok(0) => break io::ErrorKind::WriteZero.into(),
            // A short write mostly means that the next one will say why.
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break error,
        }
    };
    let whole = bytes[..written].iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
    // Only if the end is ours: else the cut would take another's lines. The newline at the next batch's start then
    // closes what remains of ours.
    if whole < written && file.status().await.is_ok_and(|status| status.size == before + written as u64) {
        let _ = file.truncate(before + whole as u64).await;
    }
    (whole.saturating_sub(lead), Err(fault.into()))
}

impl Trouble {
    fn remedy(&self) -> &'static str {
        let error = match self {
            Self::Refused(refusal) => return refusal.remedy(),
            Self::Io(error) => error,
        };
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOSPC | Errno::EDQUOT) => "make room on its file system",
            Some(Errno::EACCES | Errno::EPERM) => "let the daemon's user write the file and its folder",
            Some(Errno::EROFS) => "mount its file system for writing, or name another file",
            Some(Errno::ENOENT | Errno::ENOTDIR) => "make the folder",
            Some(Errno::ELOOP) => Refusal::Symlink.remedy(),
            Some(Errno::EISDIR | Errno::ENXIO | Errno::ENODEV) => Refusal::NotRegular.remedy(),
            Some(Errno::EMFILE | Errno::ENFILE) => "raise the limit of open files (LimitNOFILE)",
            Some(Errno::EFBIG) => "rotate the file",
            _ => "see to the file and its disk",
        }
    }
}

/// `No space left on device`, without the number that only programmers know.
fn in_words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) => Errno::from_raw(errno).desc().to_owned(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
