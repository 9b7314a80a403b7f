//! Segments: the files that frames are appended to.
//!
//! A segment has its full size from the start, filled with zeros that were
//! written, and only then gets its lasting name. A write into it changes no
//! metadata, which makes its sync cheap, and needs no space, so it cannot meet
//! a full disk. (On a file system that copies on write it can; that write then
//! stops the log, and what was acknowledged stays.)

use std::io;

use super::OpenError;
use super::disk::{DataFile, Disk, TMP};
use super::frame::SECTOR;
use super::head::{Head, Kind, Next};

/// Bytes of zeros written between two syncs while a segment is prepared. Small,
/// so that a commit's sync never waits behind much of it.
const STEP: usize = 1 << 20;

/// One segment that is open for appending.
pub(super) struct Segment {
    /// Place of the segment in the log, from 1.
    pub number: u64,
    pub file: DataFile,
    /// Size of the file, bytes.
    pub capacity: u64,
}

/// Name of the segment with this number.
pub(super) fn name(number: u64) -> String {
    format!("{number:016}.log")
}

impl Segment {
    /// Prepares a segment. A failure leaves nothing behind.
    pub(super) fn create(disk: &Disk, salt: u64, number: u64, capacity: u64) -> io::Result<Self> {
        let name = name(number) + TMP;
        prepare(disk, &name, salt, number, capacity)
            .map(|file| Self { number, file, capacity })
            .inspect_err(|_| {
                // What is left over takes space and harms nobody; the next
                // opening removes it if this does not succeed.
                let _ = disk.remove(&name);
            })
    }

    /// Opens a segment that is there already.
    pub(super) fn existing(disk: &Disk, number: u64) -> io::Result<Self> {
        let file = disk.existing(name(number))?;
        let capacity = file.len()?;
        Ok(Self { number, file, capacity })
    }
}

fn prepare(disk: &Disk, name: &str, salt: u64, number: u64, capacity: u64) -> io::Result<DataFile> {
    let head = Head { kind: Kind::Segment, salt, number, next: Next::default() };
    let file = disk.create(name.to_owned())?;
    file.write_at(&head.bytes(), 0)?;
    zero(&file, SECTOR as u64, capacity)?;
    file.publish()
}

/// Writes zeros over `from..to`, and syncs.
pub(super) fn zero(file: &DataFile, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; STEP];
    let mut at = from;
    while at < to {
        let step = (to - at).min(STEP as u64);
        file.write_at(&zeros[..step as usize], at)?;
        file.sync()?;
        at += step;
    }
    Ok(())
}

/// Reads the head of a segment that is there already.
pub(super) fn head(disk: &Disk, number: u64) -> Result<Head, OpenError> {
    let name = name(number);
    let mut bytes = Vec::new();
    disk.existing(name.clone())
        .and_then(|file| file.read_first(SECTOR, &mut bytes))
        .map_err(|error| OpenError::io(disk, &name, error))?;
    Head::read(&bytes, Kind::Segment, number).map_err(|bad| OpenError::bad_head(disk, &name, bad))
}
