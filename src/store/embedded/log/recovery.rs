//! Finding the state again: the newest snapshot, then every frame after it, and
//! the judgement about where the log ends. The reasoning is in
//! [the module above](super).

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::desk::{Live, Snapshots, Start};
use super::disk::{Disk, TMP};
use super::frame::{self, Found, Header, is_blank};
use super::head::{FIRST_FRAME, Head, Next};
use super::segment::{self, Segment};
use super::snapshot;
use super::{BoxError, LogOptions, OpenError, Recovered, TornTail};

/// Largest first segment of a new log, bytes. Small, since a new log waits for
/// it; the ones after it are prepared in the background.
const FIRST_SEGMENT_MAX: u64 = 1 << 20;

/// Hands entries over, and counts what it hands over.
pub(super) struct Replay<'v> {
    pub visit: &'v mut dyn FnMut(&[u8]) -> Result<(), BoxError>,
    pub recovered: Recovered,
}

impl Replay<'_> {
    /// Hands over the entries of one frame.
    pub(super) fn payload(
        &mut self,
        disk: &Disk,
        file: &str,
        offset: u64,
        payload: &[u8],
    ) -> Result<(), OpenError> {
        for entry in frame::entries(payload) {
            let entry = entry
                .ok_or_else(|| OpenError::corrupt(disk, file, offset, "an entry is cut short"))?;
            (self.visit)(entry).map_err(|source| OpenError::Entry {
                file: disk.path(file),
                offset,
                source,
            })?;
            self.recovered.entries += 1;
        }
        Ok(())
    }

    /// Notes a store time, µs.
    pub(super) fn saw(&mut self, at_us: u64) {
        self.recovered.at_us = self.recovered.at_us.max(at_us);
    }
}

/// Files that are in the directory.
struct Files {
    segments: BTreeSet<u64>,
    snapshots: BTreeSet<u64>,
}

/// Opens the log in `disk`, or begins one.
pub(super) fn recover(
    disk: &Disk,
    options: &LogOptions,
    replay: &mut Replay<'_>,
) -> Result<Start, OpenError> {
    let files = Files::list(disk)?;
    if files.segments.is_empty() && files.snapshots.is_empty() {
        return begin(disk, options);
    }
    let snapshot =
        files.snapshots.last().map(|&number| snapshot::read(disk, number, replay)).transpose()?;
    let next = match &snapshot {
        Some(snapshot) => snapshot.head.next,
        None => Next { segment: 1, sequence: 1 },
    };
    let segments = files.from(disk, next.segment)?;
    let salt = match &snapshot {
        Some(snapshot) => snapshot.head.salt,
        None => segment::head(disk, next.segment)?.salt,
    };
    let mut tail = Tail::new(disk, salt, next);
    tail.read(&segments, replay)?;
    if let Some(snapshot) = &snapshot
        && tail.sequence <= snapshot.through
    {
        return Err(tail.corrupt("the log ends before what the snapshot was made of"));
    }
    let rest = tail.rest(&segments, options)?;
    let (segment, torn) = tail.settle(&rest)?;
    replay.recovered.torn = torn;
    if let Some(snapshot) = &snapshot {
        files.remove_superfluous(disk, &snapshot.head)?;
    }
    Ok(Start {
        salt,
        segment: Arc::new(segment),
        tail: tail.offset as u64,
        sequence: tail.sequence,
        at_us: replay.recovered.at_us,
        live: tail.live,
        stock: rest.open(disk)?,
        snapshots: Snapshots {
            number: snapshot.as_ref().map_or(0, |it| it.head.number),
            bytes: snapshot.as_ref().map_or(0, |it| it.bytes),
            writing: false,
        },
    })
}

/// Begins a new log.
fn begin(disk: &Disk, options: &LogOptions) -> Result<Start, OpenError> {
    let failed = |error| OpenError::io(disk, &segment::name(1), error);
    let salt = u64::from_le_bytes(crate::chance::bytes());
    let capacity = options.segment_bytes.min(FIRST_SEGMENT_MAX);
    let segment = Segment::create(disk, salt, 1, capacity).map_err(failed)?;
    let next = Next { segment: 1, sequence: 1 };
    Ok(Start {
        salt,
        segment: Arc::new(segment),
        tail: FIRST_FRAME,
        sequence: 1,
        at_us: 0,
        live: VecDeque::from([Live { next, capacity, used: 0 }]),
        stock: VecDeque::new(),
        snapshots: Snapshots { number: 0, bytes: 0, writing: false },
    })
}

impl Files {
    /// Lists the log's files, and removes abandoned ones.
    fn list(disk: &Disk) -> Result<Self, OpenError> {
        let names = disk.names().map_err(|error| OpenError::io(disk, "", error))?;
        for name in names.iter().filter(|name| name.ends_with(TMP)) {
            disk.remove(name).map_err(|error| OpenError::io(disk, name, error))?;
        }
        let numbers = |ending: &str| {
            names.iter().filter_map(|name| name.strip_suffix(ending)?.parse().ok()).collect()
        };
        Ok(Self { segments: numbers(".log"), snapshots: numbers(".snapshot") })
    }

    /// Segments from `first` on. They are numbered without a gap.
    fn from(&self, disk: &Disk, first: u64) -> Result<Vec<u64>, OpenError> {
        let segments: Vec<u64> = self.segments.range(first..).copied().collect();
        let missing = (first..)
            .zip(&segments)
            .find(|(expected, found)| expected != *found)
            .map(|(expected, _)| expected)
            .or(segments.is_empty().then_some(first));
        match missing {
            Some(number) => Err(OpenError::Missing { file: disk.path(&segment::name(number)) }),
            None => Ok(segments),
        }
    }

    fn remove_superfluous(&self, disk: &Disk, head: &Head) -> Result<(), OpenError> {
        let segments = self.segments.iter().copied();
        let snapshots = self.snapshots.iter().copied();
        for name in snapshot::superfluous(head, segments, snapshots) {
            disk.remove(&name).map_err(|error| OpenError::io(disk, &name, error))?;
        }
        Ok(())
    }
}

/// Follows the frames to the end of the log.
struct Tail<'a> {
    disk: &'a Disk,
    salt: u64,
    /// Sequence of the next frame, and where it goes.
    sequence: u64,
    segment: u64,
    offset: usize,
    /// Segments up to that place.
    live: VecDeque<Live>,
    /// Frames before that place, in its segment, which no later one says were
    /// synced: their sequence and offset.
    unproven: VecDeque<(u64, usize)>,
    /// Segment in memory, and a payload.
    bytes: Vec<u8>,
    payload: Vec<u8>,
}

/// Segments after the end of the log.
#[derive(Default)]
struct Rest {
    /// Blank ones of the right size, to be used next.
    stock: Vec<u64>,
    /// Others, and all after them.
    spoilt: Vec<u64>,
}

impl Rest {
    fn open(&self, disk: &Disk) -> Result<VecDeque<Arc<Segment>>, OpenError> {
        self.stock
            .iter()
            .map(|&number| {
                Segment::existing(disk, number)
                    .map(Arc::new)
                    .map_err(|error| OpenError::io(disk, &segment::name(number), error))
            })
            .collect()
    }
}

impl<'a> Tail<'a> {
    fn new(disk: &'a Disk, salt: u64, next: Next) -> Self {
        Self {
            disk,
            salt,
            sequence: next.sequence,
            segment: next.segment,
            offset: FIRST_FRAME as usize,
            live: VecDeque::new(),
            unproven: VecDeque::new(),
            bytes: Vec::new(),
            payload: Vec::new(),
        }
    }

    /// Hands over every entry, up to the end of the log.
    fn read(&mut self, segments: &[u64], replay: &mut Replay<'_>) -> Result<(), OpenError> {
        for &segment in segments {
            self.load(segment)?;
            let sequence = self.sequence;
            let torn = match frame::find(&self.bytes, FIRST_FRAME as usize, self.salt, sequence) {
                // A batch that does not fit goes to the next segment, so the
                // end of one is the end of the log if the next is unused.
                Found::Blank if !self.live.is_empty() => return Ok(()),
                _ => self.enter(segment, replay)?,
            };
            self.live.push_back(Live {
                next: Next { segment, sequence },
                capacity: self.bytes.len() as u64,
                used: self.offset as u64 - FIRST_FRAME,
            });
            if torn {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Hands over the frames of the segment in memory. Whether a torn one ends
    /// them.
    fn enter(&mut self, segment: u64, replay: &mut Replay<'_>) -> Result<bool, OpenError> {
        self.segment = segment;
        self.offset = FIRST_FRAME as usize;
        // A segment is synced before the next one is written to.
        self.unproven.clear();
        loop {
            let frame = match frame::find(&self.bytes, self.offset, self.salt, self.sequence) {
                Found::Frame(frame) => frame,
                Found::Blank => return Ok(false),
                Found::Torn => return Ok(true),
                Found::Corrupt(what) => return Err(self.corrupt(what)),
            };
            let header = frame.header;
            frame.payload_into(self.salt, &mut self.payload);
            let file = segment::name(segment);
            replay.payload(self.disk, &file, self.offset as u64, &self.payload)?;
            replay.saw(header.at_us);
            self.unproven.push_back((header.sequence, self.offset));
            while self.unproven.front().is_some_and(|first| first.0 <= header.synced) {
                self.unproven.pop_front();
            }
            self.sequence += 1;
            self.offset += header.size();
        }
    }

    /// Reads a segment into memory.
    fn load(&mut self, segment: u64) -> Result<(), OpenError> {
        let file = segment::name(segment);
        if segment::head(self.disk, segment)?.salt != self.salt {
            let what = "the segment belongs to another log";
            return Err(OpenError::corrupt(self.disk, &file, 0, what));
        }
        self.disk
            .existing(file.clone())
            .and_then(|file| file.read_into(&mut self.bytes))
            .map_err(|error| OpenError::io(self.disk, &file, error))
    }

    /// Looks at everything after the end of the log: nothing there may prove
    /// that what is missing at the end was on the disk once.
    fn rest(&mut self, segments: &[u64], options: &LogOptions) -> Result<Rest, OpenError> {
        let mut rest = Rest::default();
        let end = self.segment;
        for &segment in segments.iter().filter(|&&segment| segment >= end) {
            self.load(segment)?;
            let ours = segment == end;
            let from = if ours { self.offset + frame::ALIGN } else { FIRST_FRAME as usize };
            if frame::headers(&self.bytes, from, self.salt).any(|header| self.contradicts(&header))
            {
                return Err(self.corrupt("a frame is lost that was written before later ones"));
            }
            let usable = self.bytes.len() as u64 == options.segment_bytes
                && is_blank(self.bytes.get(from..).unwrap_or_default());
            match (ours, usable && rest.spoilt.is_empty()) {
                (true, _) => {}
                (false, true) => rest.stock.push(segment),
                (false, false) => rest.spoilt.push(segment),
            }
        }
        Ok(rest)
    }

    /// Whether a header found after the end of the log says that the frame
    /// missing there was on the disk, or stands elsewhere.
    const fn contradicts(&self, header: &Header) -> bool {
        header.sequence == self.sequence
            || header.sequence > self.sequence && header.synced >= self.sequence
    }

    /// Cuts what was torn, so that nothing but zeros follows the end, and makes
    /// sure of what comes before it.
    fn settle(&mut self, rest: &Rest) -> Result<(Segment, Option<TornTail>), OpenError> {
        let file = segment::name(self.segment);
        let failed = |error| OpenError::io(self.disk, &file, error);
        let segment = Segment::existing(self.disk, self.segment).map_err(failed)?;
        self.rewrite_unproven(&segment).map_err(failed)?;
        let mut bytes = std::mem::take(&mut self.bytes);
        segment.file.read_into(&mut bytes).map_err(failed)?;
        let torn = self.torn(&bytes);
        if torn.is_some() {
            segment::zero(&segment.file, self.offset as u64, bytes.len() as u64).map_err(failed)?;
        }
        // From the last on, so that a crash leaves no gap.
        for &number in rest.spoilt.iter().rev() {
            self.disk.remove(&segment::name(number)).map_err(failed)?;
        }
        if !rest.spoilt.is_empty() {
            self.disk.sync_dir().map_err(failed)?;
        }
        Ok((segment, torn))
    }

    /// Writes the newest frames once more and syncs them. A process that ended
    /// because a sync failed leaves frames that can be read, from memory, and
    /// are not on the disk; the kernel takes them for clean until they are
    /// written again.
    fn rewrite_unproven(&mut self, segment: &Segment) -> std::io::Result<()> {
        if let Some(&(_, from)) = self.unproven.front() {
            self.payload.resize(self.offset - from, 0);
            segment.file.read_at(&mut self.payload, from as u64)?;
            segment.file.write_at(&self.payload, from as u64)?;
            segment.file.sync()?;
        }
        Ok(())
    }

    /// What follows the end of the log in its segment, if anything does.
    fn torn(&self, bytes: &[u8]) -> Option<TornTail> {
        let rest = bytes.get(self.offset..)?;
        let last = rest.iter().rposition(|&byte| byte != 0)?;
        Some(TornTail {
            file: self.disk.path(&segment::name(self.segment)),
            offset: self.offset as u64,
            bytes: last as u64 + 1,
        })
    }

    fn corrupt(&self, what: &'static str) -> OpenError {
        let file = segment::name(self.segment);
        OpenError::corrupt(self.disk, &file, self.offset as u64, what)
    }
}
