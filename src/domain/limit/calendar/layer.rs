//! What is reserved under one grid: a byte a bucket, in pages.

use std::collections::BTreeMap;

use super::{
    Room,
    grid::{FULL, Grid},
};
use crate::domain::time::Timestamp;

/// Buckets in a page, and pages in a group.
pub const SPAN: u64 = 256;
/// Groups that a search looks at: whoever asks is content with three groups
/// ahead, which begin anywhere in the first.
const GROUPS: u64 = 4;
/// Mark of a page that has some start, and room.
const KEPT: u8 = 1;

/// A byte for each of so many.
pub type Bytes = Box<[u8; SPAN as usize]>;

/// What is reserved under one grid. A page without any start is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The grid.
    pub grid: Grid,
    /// Behind the last bucket that was ever taken.
    pub end: u64,
    /// The first page that is not past.
    first: u64,
    /// What is in the buckets of a page, as the grid says.
    pages: BTreeMap<u64, Bytes>,
    /// For the pages of a group: 0 without any start, [`KEPT`], or [`FULL`].
    /// A search steps over full pages without looking at them.
    marks: BTreeMap<u64, Bytes>,
}

/// The number of what is `SPAN` wide, and the place in it.
const fn split(number: u64) -> (u64, usize) {
    (number / SPAN, (number % SPAN) as usize)
}

impl Layer {
    /// Nothing is reserved.
    pub const fn new(grid: Grid) -> Self {
        Self { grid, end: 0, first: 0, pages: BTreeMap::new(), marks: BTreeMap::new() }
    }

    /// The instant behind everything that was ever reserved.
    pub const fn ends_at(&self) -> u64 {
        self.grid.start(self.end)
    }

    /// The byte of a bucket.
    pub fn byte(&self, bucket: u64) -> u8 {
        let (page, place) = split(bucket);
        self.pages.get(&page).map_or(0, |bytes| bytes[place])
    }

    /// Forgets pages that end by `past`.
    pub fn forget(&mut self, past: u64) {
        self.first = split(self.grid.bucket(past)).0;
        let group = split(self.first).0;
        if self.pages.first_key_value().is_some_and(|(&page, _)| page < self.first) {
            self.pages = self.pages.split_off(&self.first);
            self.marks = self.marks.split_off(&group);
            if let Some(mut marks) = self.marks.remove(&group) {
                marks[..split(self.first).1].fill(0);
                self.put_marks(group, marks);
            }
        }
    }

    /// Reserves a start. A bucket without room stays as it is.
    pub fn take(&mut self, at: u64) {
        let bucket = self.grid.bucket(at);
        let byte = self.byte(bucket);
        self.end = self.end.max(bucket + 1);
        if !self.grid.has_gap() {
            if byte != FULL {
                self.set(bucket, self.grid.counted(byte + 1));
            }
        } else if self.grid.starts(byte) == 0 {
            self.set(bucket, self.grid.place(at));
            self.look_around(bucket);
        }
    }

    /// Adds starts to a bucket that has room for more than these.
    pub fn add(&mut self, bucket: u64, starts: u8) {
        self.end = self.end.max(bucket + 1);
        self.set(bucket, self.byte(bucket) + starts);
    }

    /// Returns a start, if there is one.
    pub fn give_back(&mut self, at: u64) {
        let bucket = self.grid.bucket(at);
        let byte = self.byte(bucket);
        if !self.grid.has_gap() {
            self.set(bucket, self.grid.starts(byte).saturating_sub(1));
        } else if byte == self.grid.place(at) {
            self.set(bucket, 0);
            self.look_at(bucket);
            self.look_around(bucket);
        }
    }

    /// The instants of a bucket that are admitted, from `from` on.
    pub fn room_in(&self, bucket: u64, from: u64) -> Option<Room> {
        let start = self.grid.start(bucket);
        let (first, end) = if self.grid.has_gap() {
            self.grid.between(self.before(bucket), self.byte(bucket + 1))
        } else {
            (0, self.grid.width())
        };
        let (first, end) = ((start + first).max(from), start + end);
        let room = Room { from: Timestamp::from_micros(first), until: Timestamp::from_micros(end) };
        (first < end).then_some(room)
    }

    /// The first bucket from `bucket` on that has room; `None` when the groups
    /// that are looked at have none.
    pub fn room_from(&self, bucket: u64) -> Option<u64> {
        let (page, place) = split(bucket);
        self.room_in_page(page, place).or_else(|| {
            let page = self.page_from(page + 1)?;
            self.room_in_page(page, 0)
        })
    }

    /// How many starts are reserved in buckets that overlap `[from, until)`;
    /// `enough` when there are more.
    pub fn starts(&self, from: u64, until: u64, enough: u32) -> u32 {
        let (first, last) = (self.grid.bucket(from), self.grid.bucket(until.saturating_sub(1)));
        let mut sum = 0;
        for (&page, bytes) in self.pages.range(first / SPAN..=last / SPAN) {
            let start = page * SPAN;
            let here = first.saturating_sub(start) as usize..=(last - start).min(SPAN - 1) as usize;
            for &byte in &bytes[here] {
                sum += u32::from(self.grid.starts(byte));
                if sum >= enough {
                    return enough;
                }
            }
        }
        sum
    }

    /// The pages that are kept, by number.
    pub fn pages(&self) -> impl ExactSizeIterator<Item = (u64, &[u8])> {
        self.pages.iter().map(|(&page, bytes)| (page, &bytes[..]))
    }

    /// Puts a page in, as [`Layer::pages`] gave it. `None` when it cannot be one.
    pub fn put(&mut self, page: u64, bytes: &[u8]) -> Option<()> {
        let is_possible = bytes.iter().all(|&byte| self.grid.is_possible(byte));
        let bytes = Bytes::new(bytes.try_into().ok()?);
        let is_new = is_possible && *bytes != [0; _] && !self.pages.contains_key(&page);
        is_new.then(|| {
            self.mark(page, &bytes);
            self.pages.insert(page, bytes);
        })
    }

    /// The byte of the bucket before a bucket.
    fn before(&self, bucket: u64) -> u8 {
        bucket.checked_sub(1).map_or(0, |before| self.byte(before))
    }

    /// Tells the neighbours of a bucket whether they still have room.
    fn look_around(&mut self, bucket: u64) {
        if let Some(before) = bucket.checked_sub(1) {
            self.look_at(before);
        }
        self.look_at(bucket + 1);
    }

    /// Tells a bucket without a start whether its neighbours leave it room.
    fn look_at(&mut self, bucket: u64) {
        let byte = self.byte(bucket);
        if self.grid.starts(byte) == 0 {
            let (from, until) = self.grid.between(self.before(bucket), self.byte(bucket + 1));
            self.set(bucket, if from < until { 0 } else { FULL });
        }
    }

    /// Writes the byte of a bucket, unless it is past, and the mark of its page.
    fn set(&mut self, bucket: u64, byte: u8) {
        let (page, place) = split(bucket);
        if page < self.first || self.byte(bucket) == byte {
            return;
        }
        let mut bytes = self.pages.remove(&page).unwrap_or_else(|| Bytes::new([0; _]));
        bytes[place] = byte;
        self.mark(page, &bytes);
        if *bytes != [0; _] {
            self.pages.insert(page, bytes);
        }
    }

    /// Marks a page as it is.
    fn mark(&mut self, page: u64, bytes: &Bytes) {
        let (group, place) = split(page);
        let mut marks = self.marks.remove(&group).unwrap_or_else(|| Bytes::new([0; _]));
        marks[place] = if **bytes == [0; _] {
            0
        } else if bytes.iter().any(|&byte| self.grid.has_room(byte)) {
            KEPT
        } else {
            FULL
        };
        self.put_marks(group, marks);
    }

    /// Keeps the marks of a group that has any page.
    fn put_marks(&mut self, group: u64, marks: Bytes) {
        if *marks != [0; _] {
            self.marks.insert(group, marks);
        }
    }

    /// The first bucket of a page that has room, from a place on.
    fn room_in_page(&self, page: u64, place: usize) -> Option<u64> {
        let Some(bytes) = self.pages.get(&page) else {
            return Some(page * SPAN + place as u64);
        };
        let found = bytes[place..].iter().position(|&byte| self.grid.has_room(byte))?;
        Some(page * SPAN + (place + found) as u64)
    }

    /// The first page from `page` on that is not marked full.
    fn page_from(&self, page: u64) -> Option<u64> {
        let (first, place) = split(page);
        (first..first + GROUPS).find_map(|group| {
            let place = if group == first { place } else { 0 };
            let found = match self.marks.get(&group) {
                Some(marks) => marks[place..].iter().position(|&mark| mark != FULL)?,
                None => 0,
            };
            Some(group * SPAN + (place + found) as u64)
        })
    }
}
