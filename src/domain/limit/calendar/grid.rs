//! How a rate divides time into buckets.

use crate::domain::{limit::Rate, time::Timestamp};

/// A bucket without room.
pub const FULL: u8 = u8::MAX;
/// Starts in a bucket, at most: what a byte can count beside [`FULL`].
const CAPACITY_MAX: u64 = 254;
/// Places in a bucket with a gap, at most: what a byte can tell beside none and
/// [`FULL`].
const PLACES: u64 = 254;
/// Widest bucket, in µs: 1.1 years, so that its share of a capacity stays below
/// 2⁵³. A rate slower than one start in this time is taken for one in this time.
const WIDTH_MAX: u64 = 1 << 45;
/// Latest instant that is told apart, in µs: what every store can represent.
const INSTANT_MAX: u64 = (1 << 53) - 1;

/// Time in buckets, so that whatever respects the buckets respects the rate.
///
/// A bucket of width w takes c starts, where c ≤ rate · w and 2 · c ≤ burst. An
/// interval of length L meets fewer than L / w + 2 buckets, and so fewer than
/// rate · L + burst starts.
///
/// A burst of 1 leaves no such c: there starts keep a minimum gap instead. A
/// bucket has at most one, and is divided into places. It is wider than the gap
/// by a place less one µs, so that starts in the same place of two buckets keep
/// the gap wherever in it they are: full buckets cost 0.4 % of the rate, and one
/// that is given back between two others has room again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Width of a bucket in µs, from 1 to [`WIDTH_MAX`].
    width: u64,
    /// Starts in a bucket, from 1 to [`CAPACITY_MAX`]; 1 where there is a gap.
    capacity: u8,
    /// Whether a bucket has at most one start, a gap away from others.
    gap: bool,
}

impl Grid {
    /// The grid of a rate: the widest buckets that its burst allows. Widths are
    /// rounded up, so a grid never allows more than its rate.
    #[must_use]
    pub fn of(rate: &Rate) -> Self {
        let period = rate.period.as_nanos();
        let micro = u128::from(rate.limit.get()) * 1_000;
        // What the widest bucket may take; the period is never zero.
        let fits = u128::from(WIDTH_MAX) * micro / period.max(1);
        let wanted = u128::from(rate.burst.get() / 2).min(u128::from(CAPACITY_MAX));
        let capacity = wanted.min(fits).max(1);
        let width = (capacity * period).div_ceil(micro).clamp(1, u128::from(WIDTH_MAX));
        let width = u64::try_from(width).unwrap_or(WIDTH_MAX);
        let gap = rate.burst.get() == 1;
        Self {
            width: if gap {
                (width + width.div_ceil(PLACES - 1) - 1).min(WIDTH_MAX)
            } else {
                width
            },
            capacity: u8::try_from(capacity).unwrap_or(1),
            gap,
        }
    }

    /// A grid from its parts; `None` when no rate has it.
    #[must_use]
    pub fn from_parts(width: u64, capacity: u8, gap: bool) -> Option<Self> {
        let is_possible = (1..=WIDTH_MAX).contains(&width)
            && (1..=CAPACITY_MAX).contains(&u64::from(capacity))
            && (!gap || capacity == 1);
        is_possible.then_some(Self { width, capacity, gap })
    }

    /// Width of a bucket in µs.
    #[must_use]
    pub const fn width(self) -> u64 {
        self.width
    }

    /// Starts in a bucket, at most 254.
    #[must_use]
    pub const fn capacity(self) -> u8 {
        self.capacity
    }

    /// Whether a bucket has at most one start, a gap away from others.
    #[must_use]
    pub const fn has_gap(self) -> bool {
        self.gap
    }

    /// The bucket that an instant lies in.
    pub(super) const fn bucket(self, at: u64) -> u64 {
        at / self.width
    }

    /// The first bucket that begins at an instant or after it.
    pub(super) const fn bucket_after(self, at: u64) -> u64 {
        at.div_ceil(self.width)
    }

    /// The instant at which a bucket begins.
    pub(super) const fn start(self, bucket: u64) -> u64 {
        bucket.saturating_mul(self.width)
    }

    /// Whether a bucket ends before instants are no longer told apart.
    pub(super) const fn is_told_apart(self, bucket: u64) -> bool {
        self.start(bucket + 1) <= INSTANT_MAX
    }

    /// What starts at `now` or later still depend on: what was reserved from
    /// this instant on.
    pub(super) const fn needs_from(self, now: u64) -> u64 {
        let start = self.start(self.bucket(now));
        start.saturating_sub(if self.gap { self.width } else { 0 })
    }

    /// The instants whose starts under other grids count against a bucket,
    /// `[from, until)`: its own, with a width to either side where starts keep
    /// their distance.
    pub(super) const fn reach(self, bucket: u64) -> (u64, u64) {
        let (from, until) = (self.start(bucket), self.start(bucket + 1));
        if self.gap {
            (from.saturating_sub(self.width), until.saturating_add(self.width))
        } else {
            (from, until)
        }
    }

    /// How many starts of this grid, at least, count against a bucket of
    /// another that lies within buckets without room. With a gap every second
    /// of these may have no start.
    pub(super) const fn starts_when_full(self, other: Self) -> u64 {
        let span = if other.gap { 2 * other.width } else { other.width };
        let buckets = span.div_ceil(self.width);
        if self.gap { buckets / 2 } else { buckets * self.capacity as u64 }
    }

    /// How many starts a bucket's byte stands for.
    pub(super) const fn starts(self, byte: u8) -> u8 {
        match (self.gap, byte) {
            (true, 0 | FULL) => 0,
            (true, _) => 1,
            (false, FULL) => self.capacity,
            (false, count) => count,
        }
    }

    /// The byte of a bucket with so many starts; not where there is a gap.
    pub(super) const fn counted(self, starts: u8) -> u8 {
        if starts < self.capacity { starts } else { FULL }
    }

    /// Whether a bucket's byte leaves room. With a gap a full one may have no
    /// start itself, but neighbours that are too close.
    pub(super) const fn has_room(self, byte: u8) -> bool {
        if self.gap { byte == 0 } else { byte != FULL }
    }

    /// Whether a byte can stand for a bucket.
    pub(super) const fn is_possible(self, byte: u8) -> bool {
        byte == FULL || byte < self.capacity || (self.gap && self.place_start(byte) < self.width)
    }

    /// The byte of a start with a gap: its place in the bucket, from 1.
    pub(super) const fn place(self, at: u64) -> u8 {
        // A place is at least a 254th, so there are at most 254 of them.
        (at % self.width / self.unit()) as u8 + 1
    }

    /// Width of a place in µs: a 254th of the bucket, rounded up.
    const fn unit(self) -> u64 {
        self.width.div_ceil(PLACES)
    }

    /// The first instant of a place, after the start of its bucket.
    const fn place_start(self, place: u8) -> u64 {
        (place as u64).saturating_sub(1) * self.unit()
    }

    /// The instants in an empty bucket, after its start, that are a gap away
    /// from its neighbours' starts: `[from, until)`, from the place of the one
    /// before to the place of the one after, empty when these are too close.
    pub(super) fn between(self, before: u8, after: u8) -> (u64, u64) {
        let from = if self.starts(before) == 0 { 0 } else { self.place_start(before) };
        let until = if self.starts(after) == 0 { u64::MAX } else { self.place_start(after + 1) };
        (from, until.min(self.width))
    }
}

/// An instant in µs that every store tells apart from its neighbours.
pub(super) fn instant(at: Timestamp) -> u64 {
    at.as_micros().min(INSTANT_MAX)
}
