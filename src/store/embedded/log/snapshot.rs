//! Snapshots: the state at one time, so that older segments can go.
//!
//! A snapshot is a head, then frames of entries as in a segment, numbered from
//! 1, then one frame without entries that ends it and says through which
//! sequence of the log (`synced`) and which store time (`at`) it reaches. It is
//! written under a temporary name and renamed when it is whole and synced: one
//! with its lasting name is whole, and anything else about it is corruption.
//!
//! The state goes on changing while it is written, slice by slice, so a snapshot
//! is fuzzy: replay begins at the segment in use when the snapshot was begun,
//! and puts every later change over it. Before it gets its name the log is
//! synced through everything appended so far, since a slice may show one half
//! of an append of which the other half is only in the log.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::sync::Arc;

use super::disk::{DataFile, Disk, TMP};
use super::frame::{self, HEADER, Header, SECTOR};
use super::head::{FIRST_FRAME, Head, Kind};
use super::recovery::Replay;
use super::{OpenError, Poisoned, Shared, segment};

/// Bytes of entries gathered into one frame.
const FRAME: usize = 256 << 10;

/// Largest entry, bytes: no append can hold a larger one.
const ENTRY_MAX: usize = 1 << 30;

/// Bytes written between two syncs, so that a commit's sync never waits behind
/// much of a snapshot.
const STEP: u64 = 4 << 20;

/// Name of the snapshot with this number.
pub(super) fn name(number: u64) -> String {
    format!("{number:016}.snapshot")
}

/// Frames of a snapshot have a salt of their own: none passes for a frame of
/// the log, or of another snapshot.
const fn salt_of(salt: u64, number: u64) -> u64 {
    salt ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93)
}

/// Writes one snapshot while appends go on. Its calls block on the disk: run
/// them off the runtime's thread.
///
/// Dropped before [`finish`](Self::finish), it leaves the log as it was.
#[must_use = "a snapshot has no effect until it is finished"]
pub struct SnapshotWriter {
    shared: Arc<Shared>,
    head: Head,
    /// `None` once renamed.
    file: Option<DataFile>,
    /// End of what was written, and of what was synced.
    written: u64,
    synced: u64,
    /// Sequence of the frame in the making, in this snapshot.
    sequence: u64,
    frame: Vec<u8>,
}

/// Why a snapshot was not made. The log goes on as if it had not been begun.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Another one is being written.
    #[error("a snapshot is being written already")]
    Busy,
    /// The disk refused a step; it may be full. Worth another try later.
    #[error("the snapshot could not be written")]
    Io(#[from] io::Error),
    /// The log stopped.
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
}

impl SnapshotWriter {
    pub(super) fn begin(shared: Arc<Shared>) -> Result<Self, SnapshotError> {
        let (number, next) = shared.desk().snapshot_begin().ok_or(SnapshotError::Busy)?;
        // From here on dropping the writer ends the snapshot.
        let mut writer = Self {
            head: Head { kind: Kind::Snapshot, salt: shared.salt, number, next },
            shared,
            file: None,
            written: FIRST_FRAME,
            synced: 0,
            sequence: 1,
            frame: vec![0; HEADER],
        };
        let file = writer.shared.disk.create(name(number) + TMP)?;
        let file = writer.file.insert(file);
        file.write_at(&writer.head.bytes(), 0)?;
        Ok(writer)
    }

    /// Adds one entry, given in parts.
    pub fn push(&mut self, parts: &[&[u8]]) -> Result<(), SnapshotError> {
        if parts.iter().map(|part| part.len()).sum::<usize>() > ENTRY_MAX {
            return Err(io::Error::from(io::ErrorKind::InvalidInput).into());
        }
        frame::push_entry(&mut self.frame, parts);
        if self.frame.len() >= FRAME {
            self.write_frame(0, 0)?;
        }
        Ok(())
    }

    /// Puts the snapshot in the place of everything before it: older segments
    /// and snapshots are removed.
    pub fn finish(mut self) -> Result<(), SnapshotError> {
        let through = self.shared.flush()?;
        let at_us = self.shared.desk().at_us();
        if self.frame.len() > HEADER {
            self.write_frame(0, 0)?;
        }
        self.write_frame(through, at_us)?;
        self.publish()?;
        self.shared.remove_before(&self.head)?;
        Ok(())
    }

    fn write_frame(&mut self, synced: u64, at_us: u64) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let salt = salt_of(self.head.salt, self.head.number);
        frame::seal(&mut self.frame, salt, self.sequence, synced, at_us);
        file.write_at(&self.frame, self.written)?;
        self.sequence += 1;
        self.written += self.frame.len() as u64;
        self.frame.truncate(HEADER);
        if self.written - self.synced >= STEP {
            file.sync()?;
            self.synced = self.written;
        }
        Ok(())
    }

    fn publish(&mut self) -> io::Result<()> {
        if let Some(file) = &self.file {
            file.sync()?;
        }
        if let Some(file) = self.file.take() {
            file.publish()?;
        }
        self.shared.desk().snapshot_published(self.written);
        Ok(())
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // The next opening removes it if this does not succeed.
            let _ = self.shared.disk.remove(file.name());
        }
        self.shared.desk().snapshot_ended();
    }
}

/// What a snapshot says about the log, besides its entries.
pub(super) struct Replayed {
    pub head: Head,
    /// Sequence that was on the disk before the snapshot got its name.
    pub through: u64,
    /// Size of the file, bytes.
    pub bytes: u64,
}

/// Hands every entry of the snapshot to `replay`.
pub(super) fn read(
    disk: &Disk,
    number: u64,
    replay: &mut Replay<'_>,
) -> Result<Replayed, OpenError> {
    let mut reader = Reader::open(disk, number)?;
    let head = reader.head(number)?;
    let salt = salt_of(head.salt, number);
    for sequence in 1.. {
        let header = reader.frame(salt, sequence, replay)?;
        if header.payload == 0 {
            replay.saw(header.at_us);
            reader.end()?;
            return Ok(Replayed { head, through: header.synced, bytes: reader.offset });
        }
    }
    Err(reader.corrupt("the snapshot has no end"))
}

/// Reads a snapshot from front to back, frame by frame.
struct Reader<'a> {
    disk: &'a Disk,
    name: String,
    file: BufReader<File>,
    offset: u64,
    rest: Vec<u8>,
    payload: Vec<u8>,
}

impl<'a> Reader<'a> {
    fn open(disk: &'a Disk, number: u64) -> Result<Self, OpenError> {
        let name = name(number);
        let file =
            File::open(disk.path(&name)).map_err(|error| OpenError::io(disk, &name, error))?;
        Ok(Self {
            disk,
            name,
            file: BufReader::with_capacity(FRAME, file),
            offset: 0,
            rest: Vec::new(),
            payload: Vec::new(),
        })
    }

    fn head(&mut self, number: u64) -> Result<Head, OpenError> {
        let mut bytes = [0; SECTOR];
        self.fill(&mut bytes)?;
        let head = Head::read(&bytes, Kind::Snapshot, number)
            .map_err(|bad| OpenError::bad_head(self.disk, &self.name, bad))?;
        self.offset = FIRST_FRAME;
        Ok(head)
    }

    fn frame(
        &mut self,
        salt: u64,
        sequence: u64,
        replay: &mut Replay<'_>,
    ) -> Result<Header, OpenError> {
        let mut bytes = [0; HEADER];
        self.fill(&mut bytes)?;
        let header = Header::read(&bytes, salt)
            .filter(|header| header.sequence == sequence)
            .ok_or_else(|| self.corrupt("the frame's header does not match its checksum"))?;

        let mut rest = std::mem::take(&mut self.rest);
        rest.resize(header.size() - HEADER, 0);
        self.fill(&mut rest)?;
        let frame = header
            .frame(&rest, salt)
            .ok_or_else(|| self.corrupt("the frame does not match its checksum"))?;
        frame.payload_into(salt, &mut self.payload);
        replay.payload(self.disk, &self.name, self.offset, &self.payload)?;
        self.rest = rest;
        self.offset += header.size() as u64;
        Ok(header)
    }

    fn end(&mut self) -> Result<(), OpenError> {
        match self.file.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.corrupt("bytes follow the end of the snapshot")),
            Err(error) => Err(OpenError::io(self.disk, &self.name, error)),
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), OpenError> {
        self.file.read_exact(bytes).map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                self.corrupt("the snapshot ends too early")
            } else {
                OpenError::io(self.disk, &self.name, error)
            }
        })
    }

    fn corrupt(&self, what: &'static str) -> OpenError {
        OpenError::corrupt(self.disk, &self.name, self.offset, what)
    }
}

/// Names of what a snapshot makes superfluous among `segments` and `snapshots`.
pub(super) fn superfluous<'a>(
    head: &'a Head,
    segments: impl Iterator<Item = u64> + 'a,
    snapshots: impl Iterator<Item = u64> + 'a,
) -> impl Iterator<Item = String> + 'a {
    let snapshots = snapshots.filter(|&number| number < head.number).map(name);
    let segments = segments.filter(|&number| number < head.next.segment).map(segment::name);
    snapshots.chain(segments)
}
