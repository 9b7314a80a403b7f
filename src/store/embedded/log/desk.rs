//! Where appends are accepted: the batch in the making, the place it will have,
//! and the room ahead. Pure bookkeeping under one lock; nothing here waits or
//! touches a file.
//!
//! Every accepted byte has its place in a prepared segment already. Free room
//! is counted to the byte, frames' own bytes included, so accepting is a
//! comparison, and a full disk shows here, before anything was promised.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::frame::{self, HEADER};
use super::head::{FIRST_FRAME, Head, Next};
use super::segment::Segment;
use super::{AppendError, Entries, Growth, LogOptions, LogSize, Poisoned};

/// State behind the log's lock.
pub(super) struct Desk {
    options: LogOptions,
    /// Batch in the making: its sequence, and room for a header, then entries.
    sequence: u64,
    open: Vec<u8>,
    /// Entries of the append that is being looked at.
    offered: Vec<u8>,
    /// Highest store time appended, µs.
    at_us: u64,
    /// Segment in use, and where in it the open batch begins.
    segment: Arc<Segment>,
    tail: u64,
    /// Batches that ended because the next entry went to a new segment.
    closed: VecDeque<Batch>,
    /// Prepared segments, in order, and their sizes together.
    stock: VecDeque<Arc<Segment>>,
    stock_bytes: u64,
    supply: Supply,
    /// Segments that replay would read; the last is the one in use.
    live: VecDeque<Live>,
    snapshots: Snapshots,
    /// Sequence that is on the disk, and the one somebody waits for.
    synced: u64,
    wanted: u64,
    /// Whether the writer sleeps until there is work.
    pub(super) writer_idle: bool,
    pub(super) closing: bool,
    pub(super) poisoned: Option<Poisoned>,
}

/// A batch with its place, for the writer to complete.
pub(super) struct Batch {
    pub sequence: u64,
    pub segment: Arc<Segment>,
    pub offset: u64,
    pub at_us: u64,
    pub frame: Vec<u8>,
}

/// How preparing segments goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Supply {
    /// The first full stock since opening is still being prepared.
    Starting,
    /// The last segment was prepared without trouble.
    Healthy,
    /// It was not: no room, until a later try says otherwise.
    Full { retry: Instant },
}

/// A segment that holds, or held, the end of the log.
pub(super) struct Live {
    pub next: Next,
    pub capacity: u64,
    /// Bytes of frames in it. Of the last one `tail` knows better.
    pub used: u64,
}

/// What the log knows about its snapshots.
pub(super) struct Snapshots {
    /// Number of the newest one begun.
    pub number: u64,
    /// Size of the newest one finished, bytes.
    pub bytes: u64,
    pub writing: bool,
}

/// Where the log that was found ends.
pub(super) struct Start {
    /// Drawn once for a log; tells its bytes from those of any other.
    pub salt: u64,
    pub segment: Arc<Segment>,
    pub tail: u64,
    /// Sequence of the next frame.
    pub sequence: u64,
    pub at_us: u64,
    pub live: VecDeque<Live>,
    pub stock: VecDeque<Arc<Segment>>,
    pub snapshots: Snapshots,
}

/// What the next segment to prepare needs.
pub(super) enum Order {
    /// Prepare the segment with this number.
    Prepare(u64),
    /// Preparing it would pass the configured size.
    OverSize,
    /// Nothing to do before this instant.
    Later(Instant),
    /// Nothing to do before a segment is taken.
    Stocked,
}

/// Where an append can go.
enum Fit {
    Here,
    NextSegment,
    Nowhere,
}

impl Desk {
    pub(super) fn new(options: LogOptions, start: Start) -> Self {
        let stock_bytes = start.stock.iter().map(|segment| segment.capacity).sum();
        let stocked = stock_bytes >= options.stock_goal();
        let supply = if stocked { Supply::Healthy } else { Supply::Starting };
        Self {
            options,
            sequence: start.sequence,
            open: vec![0; HEADER],
            offered: Vec::new(),
            at_us: start.at_us,
            segment: start.segment,
            tail: start.tail,
            closed: VecDeque::new(),
            stock_bytes,
            stock: start.stock,
            supply,
            live: start.live,
            snapshots: start.snapshots,
            synced: start.sequence - 1,
            wanted: 0,
            writer_idle: false,
            closing: false,
            poisoned: None,
        }
    }

    /// Takes what `write` puts down into the open batch, all of it or nothing.
    /// Returns the batch's sequence.
    pub(super) fn append(
        &mut self,
        at_us: u64,
        growth: Growth,
        write: impl FnOnce(&mut Entries<'_>),
    ) -> Result<u64, AppendError> {
        if let Some(poisoned) = &self.poisoned {
            return Err(AppendError::Poisoned(poisoned.clone()));
        }
        self.offered.clear();
        write(&mut Entries { payload: &mut self.offered });
        let bytes = self.offered.len();
        if bytes == 0 {
            return Ok(self.last());
        }
        match self.fit(bytes, growth) {
            Fit::Here => {}
            Fit::NextSegment => self.next_segment(),
            Fit::Nowhere => return Err(self.refusal(bytes)),
        }
        self.open.extend_from_slice(&self.offered);
        self.at_us = self.at_us.max(at_us);
        Ok(self.sequence)
    }

    /// Whether the largest append would be accepted (`Ok`), or not yet, or not
    /// for want of space on the disk.
    pub(super) fn room(&self, growth: Growth) -> Result<(), AppendError> {
        if let Some(poisoned) = &self.poisoned {
            return Err(AppendError::Poisoned(poisoned.clone()));
        }
        let bytes = self.append_max();
        match self.fit(bytes, growth) {
            Fit::Here | Fit::NextSegment => Ok(()),
            Fit::Nowhere => Err(self.refusal(bytes)),
        }
    }

    /// Where `bytes` more can go.
    fn fit(&self, bytes: usize, growth: Growth) -> Fit {
        let floor = self.floor(growth);
        let end = self.tail + frame::size(self.open.len() - HEADER + bytes) as u64;
        if let Some(rest) = self.segment.capacity.checked_sub(end)
            && rest + self.stock_bytes >= floor
        {
            return Fit::Here;
        }
        let need = FIRST_FRAME + frame::size(bytes) as u64;
        let fits = |next: &Arc<Segment>| need <= next.capacity;
        if self.stock.front().is_some_and(fits) && self.stock_bytes - need >= floor {
            return Fit::NextSegment;
        }
        Fit::Nowhere
    }

    /// Room that must be left after an append, bytes.
    fn floor(&self, growth: Growth) -> u64 {
        match (growth, self.supply) {
            (Growth::Settling, _) | (_, Supply::Starting) => 0,
            (Growth::Granting, Supply::Healthy | Supply::Full { .. }) => self.options.reserve_bytes,
        }
    }

    fn refusal(&self, bytes: usize) -> AppendError {
        let bytes_max = self.append_max();
        match self.supply {
            _ if bytes > bytes_max => AppendError::TooLarge { bytes, bytes_max },
            Supply::Full { .. } => AppendError::Full,
            Supply::Starting | Supply::Healthy => AppendError::NotYet,
        }
    }

    /// Most bytes of entries, their lengths included, in one append.
    fn append_max(&self) -> usize {
        (self.options.segment_bytes - FIRST_FRAME) as usize - frame::size(0)
    }

    /// Sequence of the newest batch with anything in it.
    pub(super) fn last(&self) -> u64 {
        if self.open.len() > HEADER { self.sequence } else { self.sequence - 1 }
    }

    pub(super) fn at_us(&self) -> u64 {
        self.at_us
    }

    /// Ends the open batch and goes on in the first segment in stock. [`fit`](Self::fit)
    /// saw that there is one.
    fn next_segment(&mut self) {
        if let Some(batch) = self.end_batch(Vec::new()) {
            self.closed.push_back(batch);
        }
        let Some(next) = self.stock.pop_front() else {
            return;
        };
        self.stock_bytes -= next.capacity;
        if let Some(live) = self.live.back_mut() {
            live.used = self.tail - FIRST_FRAME;
        }
        self.live.push_back(Live {
            next: Next { segment: next.number, sequence: self.sequence },
            capacity: next.capacity,
            used: 0,
        });
        self.segment = next;
        self.tail = FIRST_FRAME;
    }

    /// Ends the open batch, if anything is in it; the next one grows in
    /// `buffer`.
    fn end_batch(&mut self, mut buffer: Vec<u8>) -> Option<Batch> {
        if self.open.len() == HEADER {
            return None;
        }
        buffer.clear();
        buffer.resize(HEADER, 0);
        let frame = std::mem::replace(&mut self.open, buffer);
        let batch = Batch {
            sequence: self.sequence,
            segment: Arc::clone(&self.segment),
            offset: self.tail,
            at_us: self.at_us,
            frame,
        };
        self.sequence += 1;
        self.tail += frame::size(batch.frame.len() - HEADER) as u64;
        Some(batch)
    }

    /// Next batch to write, the open one last. `buffer` is reused.
    pub(super) fn take_batch(&mut self, buffer: &mut Vec<u8>) -> Option<Batch> {
        self.closed.pop_front().or_else(|| self.end_batch(std::mem::take(buffer)))
    }

    /// Segments prepared and not yet used.
    pub(super) fn stock_len(&self) -> usize {
        self.stock.len()
    }

    pub(super) fn has_batch(&self) -> bool {
        !self.closed.is_empty() || self.open.len() > HEADER
    }

    /// Notes what is on the disk. Whether somebody waits to hear it.
    pub(super) fn note_synced(&mut self, synced: u64) -> bool {
        let told = self.wanted > self.synced;
        self.synced = synced;
        told
    }

    pub(super) fn synced(&self) -> u64 {
        self.synced
    }

    /// Asks for everything appended so far to be synced, soon. Returns its
    /// sequence.
    pub(super) fn want_synced(&mut self) -> u64 {
        self.wanted = self.wanted.max(self.last());
        self.last()
    }

    /// Whether something that was written should be synced without delay.
    pub(super) fn sync_wanted(&self) -> bool {
        self.closing || self.wanted > self.synced
    }

    /// What the stock needs.
    pub(super) fn order(&self, now: Instant) -> Order {
        if self.fully_stocked() {
            return Order::Stocked;
        }
        match self.supply {
            Supply::Full { retry } if now < retry => Order::Later(retry),
            _ if self.over_size() => Order::OverSize,
            _ => Order::Prepare(self.stock.back().unwrap_or(&self.segment).number + 1),
        }
    }

    fn fully_stocked(&self) -> bool {
        self.stock_bytes >= self.options.stock_goal()
    }

    fn over_size(&self) -> bool {
        let needed = self.size().disk_bytes + self.options.segment_bytes;
        self.options.size_max.is_some_and(|max| needed > max)
    }

    /// Adds a prepared segment. Whether this ends a time without room.
    pub(super) fn stocked(&mut self, segment: Segment) -> bool {
        let recovered = matches!(self.supply, Supply::Full { .. });
        self.stock_bytes += segment.capacity;
        self.stock.push_back(Arc::new(segment));
        // In the same breath: from here on grants leave the reserve alone.
        if recovered || self.fully_stocked() {
            self.supply = Supply::Healthy;
        }
        recovered
    }

    /// Notes that no segment could be prepared. Whether this is news.
    pub(super) fn not_stocked(&mut self, now: Instant) -> bool {
        let news = !matches!(self.supply, Supply::Full { .. });
        self.supply = Supply::Full { retry: now + self.options.full_retry };
        news
    }

    /// Lets the next try to prepare a segment come at once.
    pub(super) fn try_stock_now(&mut self, now: Instant) {
        if let Supply::Full { retry } = &mut self.supply {
            *retry = now;
        }
    }

    /// Number of a new snapshot and where replay goes on after it. `None` when
    /// one is being written.
    pub(super) fn snapshot_begin(&mut self) -> Option<(u64, Next)> {
        let next = self.live.back()?.next;
        if std::mem::replace(&mut self.snapshots.writing, true) {
            return None;
        }
        self.snapshots.number += 1;
        Some((self.snapshots.number, next))
    }

    pub(super) fn snapshot_published(&mut self, bytes: u64) {
        self.snapshots.bytes = bytes;
    }

    pub(super) fn snapshot_ended(&mut self) {
        self.snapshots.writing = false;
    }

    /// Forgets the segments that a snapshot made superfluous.
    pub(super) fn removed_before(&mut self, head: &Head) {
        self.live.retain(|live| live.next.segment >= head.next.segment);
    }

    pub(super) fn size(&self) -> LogSize {
        let before: u64 = self.live.iter().rev().skip(1).map(|live| live.used).sum();
        let live: u64 = self.live.iter().map(|live| live.capacity).sum();
        LogSize {
            log_bytes: before + self.tail - FIRST_FRAME,
            snapshot_bytes: self.snapshots.bytes,
            disk_bytes: live + self.stock_bytes + self.snapshots.bytes,
        }
    }
}
