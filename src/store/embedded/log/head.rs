//! The first sector of every file: what the file is, and of which log.
//!
//! ```text
//!   0  kind "RPLG" segment, "RPSN" snapshot   4
//!   4  format version                         4
//!   8  the log's salt                         8
//!  16  number of the file, as in its name     8
//!  24  first segment that a snapshot needs    8   0 in a segment
//!  32  sequence of that segment's first frame 8   0 in a segment
//!      zeros
//! 508  CRC of all before                      4
//! ```
//!
//! A file gets its lasting name after it was synced, so a damaged head is
//! never the mark of a crash.

use super::frame::{SECTOR, crc, u32_at, u64_at};

/// Place of a file's first frame.
pub(super) const FIRST_FRAME: u64 = SECTOR as u64;

const VERSION: u32 = 1;
const CRC: usize = SECTOR - 4;

/// What kind of file a head begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Segment,
    Snapshot,
}

/// Contents of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub kind: Kind,
    /// Drawn once for a log. Tells its bytes from those of any other.
    pub salt: u64,
    /// Number in the file's name.
    pub number: u64,
    /// Of a snapshot: where replay goes on.
    pub next: Next,
}

/// Where replay goes on after a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Next {
    /// First segment to replay.
    pub segment: u64,
    /// Sequence of the first frame in it.
    pub sequence: u64,
}

/// Why a head cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadHead {
    /// Not what was written.
    Corrupt,
    /// Whole, and of a format this version does not know.
    Version(u32),
}

impl Kind {
    const fn magic(self) -> [u8; 4] {
        match self {
            Self::Segment => *b"RPLG",
            Self::Snapshot => *b"RPSN",
        }
    }
}

impl Head {
    pub(super) fn bytes(&self) -> [u8; SECTOR] {
        let mut bytes = [0; SECTOR];
        bytes[..4].copy_from_slice(&self.kind.magic());
        bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.salt.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.next.segment.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.next.sequence.to_le_bytes());
        let crc = crc(0, &bytes[..CRC]);
        bytes[CRC..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the head of a file of this kind and number.
    pub(super) fn read(bytes: &[u8], kind: Kind, number: u64) -> Result<Self, BadHead> {
        let bytes = bytes.first_chunk::<SECTOR>().ok_or(BadHead::Corrupt)?;
        if bytes[..4] != kind.magic()
            || u32_at(bytes, CRC) != crc(0, &bytes[..CRC])
            || u64_at(bytes, 16) != number
        {
            return Err(BadHead::Corrupt);
        }
        match u32_at(bytes, 4) {
            VERSION => Ok(Self {
                kind,
                salt: u64_at(bytes, 8),
                number,
                next: Next { segment: u64_at(bytes, 24), sequence: u64_at(bytes, 32) },
            }),
            version => Err(BadHead::Version(version)),
        }
    }
}
