//! One batch as bytes on the disk.
//!
//! ```text
//!  0  magic "RFR1"                4
//!  4  length of the payload       4   bytes, without padding
//!  8  sequence                    8   dense from 1, over all segments
//! 16  synced                      8   highest sequence known to be on the disk
//!                                     when this frame was written
//! 24  at                          8   µs; the latest store time in the batch
//! 32  CRC of all after the header 4
//! 36  CRC of bytes 0..36          4
//! 40  payload, zero-padded to 8 bytes, whitened
//!     trailer "framend\n"         8
//! ```
//!
//! Integers are little-endian; both CRCs start from the log's salt. The payload
//! is a run of entries, each a length (4 bytes) and that many bytes.
//!
//! **Whitening** (an exclusive or with a stream drawn from salt and sequence)
//! hides nothing. It gives every frame a property that telling a tear from a
//! flipped bit rests on: none of its portions that fall into one sector is all
//! zeros, whatever the entries hold. Such a portion contains the magic, the
//! trailer, or at least 472 whitened bytes.

use crc32fast::Hasher;

/// Bytes before the payload.
pub(super) const HEADER: usize = 40;

/// What a disk writes whole or not at all, bytes.
pub(super) const SECTOR: usize = 512;

/// Frames start at multiples of this, bytes.
pub(super) const ALIGN: usize = 8;

const MAGIC: [u8; 4] = *b"RFR1";
const TRAILER: [u8; 8] = *b"framend\n";

/// Size of a frame around a payload, bytes.
pub(super) const fn size(payload: usize) -> usize {
    HEADER + payload.next_multiple_of(ALIGN) + TRAILER.len()
}

/// What a frame says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Bytes of entries.
    pub payload: u32,
    /// Place of the frame among all frames, from 1.
    pub sequence: u64,
    /// Highest sequence that was on the disk when this frame was written.
    pub synced: u64,
    /// Latest store time in the batch, µs.
    pub at_us: u64,
    crc: u32,
}

/// What stands at a place where a frame may begin.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A whole frame.
    Frame(Frame<'a>),
    /// Zeros: nothing was written here, or not its first sector.
    Blank,
    /// A frame of which a part never reached the disk.
    Torn,
    /// Bytes that were written whole and are not what was written.
    Corrupt(&'static str),
}

/// A frame whose checksums hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub header: Header,
    body: &'a [u8],
}

impl Header {
    /// Size of the whole frame, bytes.
    pub(super) const fn size(&self) -> usize {
        size(self.payload as usize)
    }

    /// Reads a header, when `bytes` begins with one of this log.
    pub(super) fn read(bytes: &[u8], salt: u64) -> Option<Self> {
        let bytes = bytes.first_chunk::<HEADER>()?;
        (bytes[..4] == MAGIC && crc(salt, &bytes[..36]) == u32_at(bytes, 36)).then(|| Self {
            payload: u32_at(bytes, 4),
            sequence: u64_at(bytes, 8),
            synced: u64_at(bytes, 16),
            at_us: u64_at(bytes, 24),
            crc: u32_at(bytes, 32),
        })
    }

    /// Checks the rest of the frame, all of it after the header.
    pub(super) fn frame<'a>(self, rest: &'a [u8], salt: u64) -> Option<Frame<'a>> {
        let body = rest.strip_suffix(&TRAILER)?;
        (crc(salt, rest) == self.crc).then_some(Frame { header: self, body })
    }
}

impl Frame<'_> {
    /// Puts the entries, as they were before whitening, into `payload`.
    pub(super) fn payload_into(&self, salt: u64, payload: &mut Vec<u8>) {
        payload.clear();
        payload.extend_from_slice(self.body);
        whiten(payload, salt, self.header.sequence);
        payload.truncate(self.header.payload as usize);
    }
}

/// Completes a frame. `frame` holds [`HEADER`] bytes of any value, then the
/// payload.
pub(super) fn seal(frame: &mut Vec<u8>, salt: u64, sequence: u64, synced: u64, at_us: u64) {
    let payload = frame.len() - HEADER;
    frame.resize(size(payload) - TRAILER.len(), 0);
    whiten(&mut frame[HEADER..], salt, sequence);
    frame.extend_from_slice(&TRAILER);

    let body_crc = crc(salt, &frame[HEADER..]);
    frame[..4].copy_from_slice(&MAGIC);
    frame[4..8].copy_from_slice(&(payload as u32).to_le_bytes());
    frame[8..16].copy_from_slice(&sequence.to_le_bytes());
    frame[16..24].copy_from_slice(&synced.to_le_bytes());
    frame[24..32].copy_from_slice(&at_us.to_le_bytes());
    frame[32..36].copy_from_slice(&body_crc.to_le_bytes());
    let header_crc = crc(salt, &frame[..36]);
    frame[36..40].copy_from_slice(&header_crc.to_le_bytes());
}

/// Judges the place `offset` of a file that held zeros before it was written,
/// where the frame `sequence` may stand. The reasoning is in [the module above](super).
pub(super) fn find(file: &[u8], offset: usize, salt: u64, sequence: u64) -> Found<'_> {
    let here = file.get(offset..).unwrap_or_default();
    let head = &here[..here.len().min(HEADER)];
    if is_blank(head) {
        return Found::Blank;
    }
    if head.len() < HEADER {
        return Found::Torn;
    }
    let Some(header) = Header::read(head, salt) else {
        return tear_or(head, offset, "the frame's header does not match its checksum");
    };
    if header.sequence != sequence {
        return Found::Corrupt("a frame is out of sequence");
    }
    let Some(whole) = here.get(..header.size()) else {
        return Found::Torn;
    };
    match header.frame(&whole[HEADER..], salt) {
        Some(frame) => Found::Frame(frame),
        None => tear_or(whole, offset, "the frame does not match its checksum"),
    }
}

/// [`Found::Torn`] when one of the sectors in which `bytes` lie was never
/// written, [`Found::Corrupt`] when all of them were.
fn tear_or(bytes: &[u8], offset: usize, corrupt: &'static str) -> Found<'static> {
    let first = bytes.len().min(SECTOR - offset % SECTOR);
    let (head, rest) = bytes.split_at(first);
    if is_blank(head) || rest.chunks(SECTOR).any(is_blank) {
        Found::Torn
    } else {
        Found::Corrupt(corrupt)
    }
}

pub(super) fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// Headers of this log in `file` from `offset` on, whole frames or not.
pub(super) fn headers(file: &[u8], offset: usize, salt: u64) -> impl Iterator<Item = Header> {
    (offset.next_multiple_of(ALIGN)..file.len())
        .step_by(ALIGN)
        .filter(|&place| file[place..].starts_with(&MAGIC))
        .filter_map(move |place| Header::read(&file[place..], salt))
}

/// Adds one entry, given in parts, to a payload. Payloads are shorter than
/// 4 GiB, and so are entries; whoever collects one checks it.
pub(super) fn push_entry(payload: &mut Vec<u8>, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    payload.extend_from_slice(&(length as u32).to_le_bytes());
    for part in parts {
        payload.extend_from_slice(part);
    }
}

/// The entries of a payload. One that its payload cuts short is `None`, and the
/// last.
pub(super) fn entries(mut payload: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    std::iter::from_fn(move || {
        if payload.is_empty() {
            return None;
        }
        let entry = split_entry(payload);
        payload = entry.map_or(&[], |(_, rest)| rest);
        Some(entry.map(|(entry, _)| entry))
    })
}

fn split_entry(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = payload.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

/// A checksum that starts from the log's salt, so that no other log's bytes
/// pass for ours.
pub(super) fn crc(salt: u64, bytes: &[u8]) -> u32 {
    let mut hasher = Hasher::new_with_initial(salt as u32);
    hasher.update(bytes);
    hasher.finalize()
}

/// Applies, or takes away, the stream of one frame. `body` is a multiple of 8
/// bytes long.
fn whiten(body: &mut [u8], salt: u64, sequence: u64) {
    // SplitMix64: one addition and a few shifts for each eight bytes.
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut state = salt ^ sequence.wrapping_mul(STEP).rotate_left(32);
    let (words, _) = body.as_chunks_mut::<8>();
    for word in words {
        state = state.wrapping_add(STEP);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        *word = (u64::from_le_bytes(*word) ^ mixed).to_le_bytes();
    }
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}
