//! The durable log under the embedded store: appends in, the same entries out
//! at the next opening.
//!
//! The store keeps its state in memory and appends what changes, as opaque
//! entries. An entry says absolutely what becomes of a key, so that replaying a
//! snapshot and the entries after it, in order, some of them a second time,
//! gives the state. Appending is a copy into memory under the store's own lock;
//! one thread writes batches and syncs them (`writer`), another prepares room
//! ahead (`stocker`).
//!
//! # What is promised
//!
//! * An append that was reported durable is found again, or the log refuses to
//!   open and says where it is damaged.
//! * An append is found whole or not at all.
//! * What was accepted is never lost for want of space: it has its place in a
//!   segment of written zeros before it is accepted.
//! * After a failed sync nothing is acknowledged any more, and no sync is tried
//!   again: the kernel may report success for writes that it dropped.
//!
//! # Where the log ends
//!
//! A crash may tear what was being written, and a tear has to be told from
//! damage: the one is cut silently, the other must never be. Three facts tell
//! them apart exactly.
//!
//! 1. *A frame that tore was not synced.* Each frame carries the highest
//!    sequence that was synced when it was written. So a frame that is missing
//!    or broken was acknowledged for certain if any header behind it is intact
//!    and says that this sequence was synced. With a sync for every batch that
//!    is every frame but the last. (A bound on batches in flight would not do:
//!    between two syncs in [`Fsync::Interval`] there are many, and a power
//!    failure may keep the later of them.)
//! 2. *A sector that tore is blank.* Segments are zeros before they are written,
//!    disks write sectors of 512 bytes whole, and whitening sees to it that no
//!    sector's portion of a written frame is all zeros (`frame`). So a frame
//!    with such a portion, or one that the end of the file cuts off, was torn,
//!    and one without is complete: if its checksum fails, it was damaged after
//!    it was written, and is not cut even at the very end.
//! 3. *Headers have a checksum of their own,* so that a length can be trusted
//!    where a payload cannot.
//!
//! What follows a cut is made zeros again, and synced, before the log goes on:
//! else the second fact would not hold the next time.
//!
//! # Files
//!
//! ```text
//! LOCK                        held while open; the holder's process id
//! 0000000000000001.log        segments, without a gap; the last ones still blank
//! 0000000000000001.snapshot   at most one, and a second for a moment
//! *.tmp                       in preparation; removed at the next opening
//! ```

#![expect(
    clippy::disallowed_methods,
    reason = "a full disk is tried again by the machine's time, which is no part of any decision"
)]

mod desk;
mod disk;
mod frame;
mod head;
mod recovery;
mod segment;
mod snapshot;
mod stocker;
#[cfg(test)]
mod tests;
mod waiters;
mod writer;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::warn;

use desk::Desk;
use disk::{Disk, Lock};
use head::{BadHead, Head};
use recovery::Replay;
pub use snapshot::{SnapshotError, SnapshotWriter};
pub use waiters::Durable;
use waiters::Waiters;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Settings of a log.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// When an append counts as durable.
    pub fsync: Fsync,
    /// Size of a segment, bytes: a multiple of 4096, at most 1 GiB. Also bounds
    /// one append, which has to fit into a segment.
    pub segment_bytes: u64,
    /// Room that is kept for [`Growth::Settling`] when the disk is full, bytes.
    pub reserve_bytes: u64,
    /// Most bytes on the disk. Reaching it is a full disk, with one difference:
    /// a snapshot may pass it while it is written, since that is what makes
    /// room. `None` leaves the disk as the only bound.
    pub size_max: Option<u64>,
    /// How long to wait before a full disk is tried again.
    pub full_retry: Duration,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            fsync: Fsync::Always,
            segment_bytes: 8 << 20,
            reserve_bytes: 8 << 20,
            size_max: None,
            full_retry: Duration::from_secs(1),
        }
    }
}

impl LogOptions {
    /// Room that is prepared ahead, bytes: a segment beyond the reserve.
    fn stock_goal(&self) -> u64 {
        self.reserve_bytes + self.segment_bytes
    }
}

/// When an append counts as durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Once it is synced. Survives the loss of power.
    Always,
    /// Once the operating system has it; synced at least this often. Survives
    /// the end of the process; the loss of power may take up to this much.
    Interval(Duration),
}

/// What an append does to the state, and so whether it may use the last room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Growth {
    /// Begins something. Refused first.
    Granting,
    /// Ends something, or keeps it: reports, heartbeats. May use the reserve.
    Settling,
}

/// Place of an append in the log's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u64);

/// Takes the entries of one append.
pub struct Entries<'a> {
    payload: &'a mut Vec<u8>,
}

impl Entries<'_> {
    /// Adds one entry, given in parts.
    pub fn push(&mut self, parts: &[&[u8]]) {
        frame::push_entry(self.payload, parts);
    }
}

/// What was found when the log was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Entries handed over.
    pub entries: u64,
    /// Highest store time ever appended, µs. Time must not go back behind it.
    pub at_us: u64,
    /// What a crash had torn and was cut.
    pub torn: Option<TornTail>,
}

/// The unacknowledged remains of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The segment that was cut.
    pub file: PathBuf,
    /// Where the log ends now.
    pub offset: u64,
    /// Bytes up to the last that was not zero.
    pub bytes: u64,
}

/// How large the log is, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSize {
    /// Frames that the next opening would replay. A snapshot makes this small.
    pub log_bytes: u64,
    /// The newest snapshot; 0 without one.
    pub snapshot_bytes: u64,
    /// All files together, room ahead included.
    pub disk_bytes: u64,
}

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum OpenError {
    /// Another opener has it.
    #[error("{} is in use by {}", dir.display(), holder(*pid))]
    Locked { dir: PathBuf, pid: Option<u32> },
    /// Not what was written. Someone has to look; a copy of the directory and
    /// the newest backup are a good start.
    #[error("{} is damaged at byte {offset}: {what}", file.display())]
    Corrupt { file: PathBuf, offset: u64, what: &'static str },
    /// A file that must be there is not.
    #[error("{} is missing", file.display())]
    Missing { file: PathBuf },
    /// Written by a version that this one does not know.
    #[error("{} has format {version}, which this version cannot read", file.display())]
    Version { file: PathBuf, version: u32 },
    /// The store did not understand an entry.
    #[error("the entry in the frame at byte {offset} of {} is not readable", file.display())]
    Entry { file: PathBuf, offset: u64, source: BoxError },
    /// A setting that no log can have.
    #[error("segment_bytes is {0}; it must be a multiple of 4096, at most 1 GiB")]
    SegmentBytes(u64),
    /// The disk refused a step.
    #[error("{} could not be used", file.display())]
    Io { file: PathBuf, source: io::Error },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or("another process".into(), |pid| format!("process {pid}"))
}

impl OpenError {
    fn io(disk: &Disk, file: &str, source: io::Error) -> Self {
        let file = disk.path(file);
        Self::Io { file, source }
    }

    fn corrupt(disk: &Disk, file: &str, offset: u64, what: &'static str) -> Self {
        let file = disk.path(file);
        Self::Corrupt { file, offset, what }
    }

    fn bad_head(disk: &Disk, file: &str, bad: BadHead) -> Self {
        let what = "the file's head does not match its checksum";
        match bad {
            BadHead::Corrupt => Self::corrupt(disk, file, 0, what),
            BadHead::Version(version) => Self::Version { file: disk.path(file), version },
        }
    }
}

/// Why an append was not accepted. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The disk, the quota or the configured size is used up.
    #[error("the disk is full")]
    Full,
    /// Room is being prepared. [`Log::room`] tells when to ask again.
    #[error("room is being prepared")]
    NotYet,
    /// It would not fit into a segment of its own.
    #[error("an append of {bytes} bytes is larger than the largest, {bytes_max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The largest size.
        bytes_max: usize,
    },
    /// The log stopped.
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
}

/// The log stopped for good, and what it had not acknowledged may be lost. The
/// process should end; the next opening finds everything acknowledged.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the log stopped: {reason}")]
pub struct Poisoned {
    reason: Arc<str>,
}

/// A log that is open. Dropping it syncs what was accepted.
pub struct Log {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What the log's threads share.
struct Shared {
    disk: Disk,
    options: LogOptions,
    salt: u64,
    desk: Mutex<Desk>,
    /// Batches gathered, a sync is wanted, or the log closes.
    work: Condvar,
    /// A segment was taken from the stock, or the log closes.
    taken: Condvar,
    /// More is synced, or will never be.
    synced: Condvar,
    waiters: Arc<Waiters>,
    /// Syncs of batches; nothing else is ordered by it.
    syncs: AtomicU64,
    /// Changes when room may have come, or will not come.
    room: watch::Sender<()>,
    poisoned: watch::Sender<Option<Poisoned>>,
    _lock: File,
}

impl Log {
    /// Opens the log in `dir`, creating it when absent, and hands every entry
    /// to `visit`, in order. Blocks on the disk.
    pub fn open<E: Into<BoxError>>(
        dir: &Path,
        options: LogOptions,
        mut visit: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(Self, Recovered), OpenError> {
        let disk =
            Disk::open(dir).map_err(|source| OpenError::Io { file: dir.to_owned(), source })?;
        Self::open_on(disk, options, &mut |entry| visit(entry).map_err(Into::into))
    }

    fn open_on(
        disk: Disk,
        options: LogOptions,
        visit: &mut dyn FnMut(&[u8]) -> Result<(), BoxError>,
    ) -> Result<(Self, Recovered), OpenError> {
        check(&options)?;
        let lock = take_lock(&disk)?;
        let mut replay = Replay { visit, recovered: Recovered::default() };
        let start = recovery::recover(&disk, &options, &mut replay)?;
        let recovered = replay.recovered;
        if let Some(torn) = &recovered.torn {
            warn!(
                file = %torn.file.display(),
                offset = torn.offset,
                bytes = torn.bytes,
                "cut what a crash left of a batch that was never acknowledged"
            );
        }
        let shared = Arc::new(Shared::new(disk, options, lock, start));
        let mut log = Self { shared: Arc::clone(&shared), threads: Vec::new() };
        log.start("log-writer", writer::run)?;
        log.start("log-stocker", stocker::run)?;
        Ok((log, recovered))
    }

    fn start(&mut self, name: &str, run: fn(Arc<Shared>)) -> Result<(), OpenError> {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new()
            .name(name.into())
            .spawn(move || run(shared))
            .map_err(|error| OpenError::io(&self.shared.disk, "", error))?;
        self.threads.push(thread);
        Ok(())
    }

    /// Accepts the entries that `write` puts down, to be written together with
    /// what else comes before the disk is ready. `at_us` is the store's time.
    ///
    /// A copy into memory: it neither waits nor fails later. Appends are found
    /// in the order of these calls, each whole or not at all.
    pub fn append(
        &self,
        at_us: u64,
        growth: Growth,
        write: impl FnOnce(&mut Entries<'_>),
    ) -> Result<Position, AppendError> {
        let mut desk = self.shared.desk();
        let before = desk.stock_len();
        let appended = desk.append(at_us, growth, write);
        let taken = desk.stock_len() < before;
        let idle = desk.writer_idle && desk.has_batch();
        desk.writer_idle &= !idle;
        drop(desk);
        if idle {
            self.shared.work.notify_one();
        }
        if taken {
            self.shared.taken.notify_one();
        }
        appended.map(Position)
    }

    /// Resolves once this append, and all before it, are durable in the sense
    /// of [`LogOptions::fsync`].
    pub fn durable(&self, position: Position) -> Durable {
        Durable::new(Arc::clone(&self.shared.waiters), position.0)
    }

    /// Resolves once any append is likely to be accepted, after one was
    /// answered [`AppendError::NotYet`]; others may be faster. An error is
    /// [`AppendError::Full`] or [`AppendError::Poisoned`].
    pub async fn room(&self, growth: Growth) -> Result<(), AppendError> {
        let mut changes = self.shared.room.subscribe();
        loop {
            match self.shared.desk().room(growth) {
                Err(AppendError::NotYet) => {}
                answer => return answer,
            }
            // The sender lives as long as `self`.
            let _ = changes.changed().await;
        }
    }

    /// Resolves when the log stops for good, with the reason.
    pub async fn poisoned(&self) -> Poisoned {
        let mut changes = self.shared.poisoned.subscribe();
        loop {
            if let Some(poisoned) = changes.borrow_and_update().clone() {
                return poisoned;
            }
            // The sender lives as long as `self`.
            let _ = changes.changed().await;
        }
    }

    /// Begins a snapshot of the state: everything appended so far has to be in
    /// what is pushed, what is appended from now on may be. Blocks on the disk.
    pub fn snapshot_begin(&self) -> Result<SnapshotWriter, SnapshotError> {
        SnapshotWriter::begin(Arc::clone(&self.shared))
    }

    /// Times that batches were synced since the opening.
    pub fn syncs(&self) -> u64 {
        self.shared.syncs.load(Ordering::Relaxed)
    }

    /// How large the log is.
    pub fn size(&self) -> LogSize {
        self.shared.desk().size()
    }

    /// Syncs everything accepted and ends the threads. Blocks on the disk.
    pub fn close(mut self) -> Result<(), Poisoned> {
        self.stop();
        self.shared.desk().poisoned.clone().map_or(Ok(()), Err)
    }

    fn stop(&mut self) {
        self.shared.desk().closing = true;
        self.shared.work.notify_all();
        self.shared.taken.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has poisoned the log on its way out.
            let _ = thread.join();
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.stop();
    }
}

fn check(options: &LogOptions) -> Result<(), OpenError> {
    let bytes = options.segment_bytes;
    if bytes == 0 || !bytes.is_multiple_of(4096) || bytes > 1 << 30 {
        return Err(OpenError::SegmentBytes(bytes));
    }
    Ok(())
}

fn take_lock(disk: &Disk) -> Result<File, OpenError> {
    match disk.lock() {
        Ok(Lock::Taken(file)) => Ok(file),
        Ok(Lock::HeldBy(pid)) => Err(OpenError::Locked { dir: disk.dir().to_owned(), pid }),
        Err(error) => Err(OpenError::io(disk, "LOCK", error)),
    }
}

impl Shared {
    fn new(disk: Disk, options: LogOptions, lock: File, start: desk::Start) -> Self {
        Self {
            disk,
            salt: start.salt,
            waiters: Arc::new(Waiters::new(start.sequence - 1)),
            desk: Mutex::new(Desk::new(options.clone(), start)),
            options,
            work: Condvar::new(),
            taken: Condvar::new(),
            synced: Condvar::new(),
            syncs: AtomicU64::new(0),
            room: watch::Sender::new(()),
            poisoned: watch::Sender::new(None),
            _lock: lock,
        }
    }

    /// The state behind the lock. A panic leaves it usable: foreign code runs
    /// under the lock in [`Log::append`] alone, before anything is changed.
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a signal, or until an instant.
    fn wait<'a>(
        &self,
        signal: &Condvar,
        desk: MutexGuard<'a, Desk>,
        until: Option<Instant>,
    ) -> MutexGuard<'a, Desk> {
        match until {
            None => signal.wait(desk).unwrap_or_else(PoisonError::into_inner),
            Some(until) => {
                let rest = until.saturating_duration_since(Instant::now());
                let waited = signal.wait_timeout(desk, rest);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    /// Waits until everything appended so far is synced. Returns its sequence.
    fn flush(&self) -> Result<u64, Poisoned> {
        let mut desk = self.desk();
        let wanted = desk.want_synced();
        self.work.notify_one();
        while desk.synced() < wanted {
            if let Some(poisoned) = &desk.poisoned {
                return Err(poisoned.clone());
            }
            desk = self.wait(&self.synced, desk, None);
        }
        Ok(wanted)
    }

    /// Stops the log for good.
    fn poison(&self, reason: &str) {
        let poisoned = Poisoned { reason: reason.into() };
        self.desk().poisoned = Some(poisoned.clone());
        self.waiters.poison(poisoned.clone());
        self.poisoned.send_replace(Some(poisoned));
        self.room.send_replace(());
        self.synced.notify_all();
        self.taken.notify_all();
    }

    /// Removes what a snapshot made superfluous.
    fn remove_before(&self, head: &Head) -> io::Result<()> {
        let names = self.disk.names()?;
        let numbers = |ending: &'static str| {
            let names = names.iter();
            names.filter_map(move |name| name.strip_suffix(ending)?.parse().ok())
        };
        for name in snapshot::superfluous(head, numbers(".log"), numbers(".snapshot")) {
            self.disk.remove(&name)?;
        }
        let mut desk = self.desk();
        desk.removed_before(head);
        desk.try_stock_now(Instant::now());
        self.taken.notify_one();
        Ok(())
    }
}
