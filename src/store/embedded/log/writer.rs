//! The thread that writes batches and syncs them.
//!
//! There is no timer in group commit: while one sync is in flight the next
//! batch gathers, so a batch is as large as the load and the disk make it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Instant;

use super::desk::Batch;
use super::segment::Segment;
use super::{Fsync, Shared, frame};

/// Runs until the log closes and everything accepted is on the disk, or until
/// the disk fails.
pub(super) fn run(shared: Arc<Shared>) {
    let _guard = PoisonOnPanic(&shared);
    let synced = shared.desk().synced();
    let mut writer =
        Writer { shared: &shared, written: synced, synced, dirty: None, buffer: Vec::new() };
    if let Err(error) = writer.work() {
        shared.poison(&format!("a write or sync failed: {error}"));
    }
}

struct Writer<'a> {
    shared: &'a Shared,
    /// Sequences written, and synced.
    written: u64,
    synced: u64,
    /// What has writes that are not synced, and since when.
    dirty: Option<Dirty>,
    /// Room for the next batch, so that batches take turns in two buffers.
    buffer: Vec<u8>,
}

struct Dirty {
    segment: Arc<Segment>,
    /// When it is to be synced.
    due: Instant,
}

enum Task {
    Write(Batch),
    Sync,
    Stop,
}

impl Writer<'_> {
    fn work(&mut self) -> io::Result<()> {
        loop {
            match self.next() {
                Task::Write(batch) => self.write(batch)?,
                Task::Sync => self.sync()?,
                Task::Stop => return Ok(()),
            }
        }
    }

    /// Waits for something to do.
    fn next(&mut self) -> Task {
        let mut desk = self.shared.desk();
        if desk.note_synced(self.synced) {
            self.shared.synced.notify_all();
        }
        loop {
            let overdue = self.dirty.as_ref().map(|dirty| dirty.due);
            if overdue.is_some_and(|due| due <= Instant::now()) {
                return Task::Sync;
            }
            if let Some(batch) = desk.take_batch(&mut self.buffer) {
                return Task::Write(batch);
            }
            if overdue.is_some() && desk.sync_wanted() {
                return Task::Sync;
            }
            if desk.closing {
                return Task::Stop;
            }
            desk.writer_idle = true;
            desk = self.shared.wait(&self.shared.work, desk, overdue);
            desk.writer_idle = false;
        }
    }

    fn write(&mut self, mut batch: Batch) -> io::Result<()> {
        let elsewhere = |dirty: &Dirty| dirty.segment.number != batch.segment.number;
        if self.dirty.as_ref().is_some_and(elsewhere) {
            self.sync()?;
        }
        frame::seal(&mut batch.frame, self.shared.salt, batch.sequence, self.synced, batch.at_us);
        if planted!("acknowledged-before-written") {
            self.shared.waiters.reach(batch.sequence);
            thread::park_timeout(std::time::Duration::from_millis(50));
        }
        batch.segment.file.write_at(&batch.frame, batch.offset)?;
        self.written = batch.sequence;
        self.buffer = batch.frame;
        match self.shared.options.fsync {
            Fsync::Always => {
                self.sync_file(&batch.segment)?;
                self.synced = self.written;
            }
            Fsync::Interval(interval) => {
                self.dirty.get_or_insert_with(|| Dirty {
                    segment: batch.segment,
                    due: Instant::now() + interval,
                });
            }
        }
        self.shared.waiters.reach(self.written);
        Ok(())
    }

    fn sync_file(&self, segment: &Segment) -> io::Result<()> {
        segment.file.sync()?;
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if let Some(dirty) = &self.dirty {
            self.sync_file(&dirty.segment)?;
        }
        self.dirty = None;
        self.synced = self.written;
        Ok(())
    }
}

/// A panic is a defect; without this its waiters would wait for ever.
struct PoisonOnPanic<'a>(&'a Shared);

impl Drop for PoisonOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.poison("the writer panicked");
        }
    }
}
