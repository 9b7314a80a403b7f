//! The calendar of a rate: the starts that are promised for later instants.
//!
//! Retries are reserved in any order of their instants, and given back. A clock
//! that only moves forward (a token bucket's) could do neither: what it promised
//! for two o'clock would close one o'clock. So time is divided into buckets
//! ([`Grid`]) with a byte each, and a start is admitted where its bucket has
//! room. A page has 256 buckets, a group 256 pages with a mark for the full
//! ones, so that room is found behind any number of full buckets at once.
//!
//! **When the rate changes**, what is reserved stays where it is, as an older
//! layer, until it is past. Its starts count against every bucket that overlaps
//! theirs. A grid begins in the middle of a bucket with the part of it that has
//! gone by taken. So in every interval starts stay within the largest rate and
//! the largest burst that the layers in it have, however often they change.
//! (Why: take the bucket that was taken last; whatever overlapped it was counted
//! with it, and stayed within its capacity. Put all that away, and go on. What is
//! left in the end are buckets that do not overlap, each within its own rate.)
//!
//! The same primitive exists as a script, `store/redis/lua/calendar.lua`; a
//! property holds the two equal.

mod grid;
mod layer;
mod packed;
#[cfg(test)]
mod tests;

pub use self::grid::Grid;
use self::{grid::instant, layer::Layer};
use crate::domain::time::Timestamp;

/// How far ahead room is looked for, in buckets: three groups.
const HORIZON: u64 = 3 * 256 * 256;
/// Grids whose starts are told apart; see [`Calendar::close`].
const LAYERS_MAX: usize = 4;
/// What one search may cost, in bytes that are looked at.
const EFFORT_MAX: u32 = 4_096;
/// What a bucket costs beside the starts that fill it.
const EFFORT: u32 = 8;

/// The share of a bucket that has no room.
const SHARE_MAX: u32 = 1000;

/// Instants that are admitted: every one in `[from, until)`, and there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// The first.
    pub from: Timestamp,
    /// Behind the last.
    pub until: Timestamp,
}

/// The starts that a rate has promised. The default has promised none, and
/// admits none before it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calendar {
    /// The time, in µs; it only grows.
    now: u64,
    /// What ended by this instant is forgotten, in µs; it only grows.
    past: u64,
    /// No bucket that begins before this instant admits anything, in µs.
    closed: u64,
    /// First the layer that starts are reserved in, then older ones.
    layers: Vec<Layer>,
}

impl Calendar {
    /// Makes it the calendar of a grid as of `now`: forgets what is past, and
    /// turns from another grid. Each use begins with this.
    pub fn open(&mut self, grid: Grid, now: Timestamp) {
        self.now = self.now.max(instant(now));
        self.forget();
        if self.layers.first().is_none_or(|layer| layer.grid != grid) {
            self.turn_to(grid);
        }
    }

    /// The first admitted instants at `from` or later, within one bucket.
    /// `None` when there are none within the horizon of 196,608 buckets from
    /// now, or when a search of older layers would take too long.
    #[must_use]
    pub fn room(&self, from: Timestamp) -> Option<Room> {
        let layer = self.layers.first()?;
        let grid = layer.grid;
        let from = instant(from).max(self.now);
        let horizon = grid.bucket(self.now) + HORIZON;
        let mut bucket = grid.bucket(from).max(grid.bucket_after(self.closed));
        let mut effort = 0;
        while effort < EFFORT_MAX {
            bucket = layer.room_from(bucket)?;
            if bucket >= horizon || !grid.is_told_apart(bucket) {
                return None;
            }
            let spare = u32::from(grid.capacity() - grid.starts(layer.byte(bucket)));
            effort += EFFORT + spare;
            if self.older_starts(bucket, spare) == spare {
                bucket = self.next_after(bucket);
                continue;
            }
            if let Some(room) = layer.room_in(bucket, from) {
                return Some(room);
            }
            bucket += 1;
        }
        None
    }

    /// Whether no rate has ever asked anything of it.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.layers.is_empty()
    }

    /// Reserves a start at an instant that [`Calendar::room`] admitted.
    ///
    /// Without room it changes nothing that is counted: such a start is taken
    /// from the burst, and must not be given back.
    pub fn take(&mut self, at: Timestamp) {
        if let Some(layer) = self.layers.first_mut() {
            layer.take(instant(at));
        }
    }

    /// Returns a start that was taken under `grid`. Nothing is returned when
    /// none is there, or when it is past or no longer told apart.
    pub fn give_back(&mut self, grid: Grid, at: Timestamp) {
        if let Some(layer) = self.layers.iter_mut().find(|layer| layer.grid == grid) {
            layer.give_back(instant(at));
        }
    }

    /// Whether nothing that is promised ends after `past`.
    #[must_use]
    pub fn is_idle(&self, past: Timestamp) -> bool {
        let past = instant(past);
        self.closed <= past && self.layers.iter().all(|layer| layer.ends_at() <= past)
    }

    /// How many starts count against the bucket of an instant, and how many it
    /// may take, 0 before the calendar was opened. For explanations.
    #[must_use]
    pub fn load(&self, at: Timestamp) -> (u32, u32) {
        let Some(layer) = self.layers.first() else {
            return (0, 0);
        };
        let bucket = layer.grid.bucket(instant(at));
        let capacity = u32::from(layer.grid.capacity());
        let own = u32::from(layer.grid.starts(layer.byte(bucket)));
        (own + self.older_starts(bucket, capacity - own), capacity)
    }

    /// How much of the bucket of an instant is taken, in thousandths: all of it
    /// where it admits nothing, 0 where nothing is planned.
    #[must_use]
    pub fn share(&self, at: Timestamp) -> u32 {
        let Some(layer) = self.layers.first() else { return SHARE_MAX };
        let bucket = layer.grid.bucket(instant(at));
        let is_closed = layer.grid.start(bucket) < self.closed;
        if is_closed || !layer.grid.has_room(layer.byte(bucket)) {
            return SHARE_MAX;
        }
        let (used, most) = self.load(at);
        used * SHARE_MAX / most
    }

    /// Forgets what no start from now on depends on.
    fn forget(&mut self) {
        let Some(current) = self.layers.first() else {
            return;
        };
        self.past = self.past.max(current.grid.needs_from(self.now));
        let mut is_current = true;
        self.layers.retain_mut(|layer| {
            layer.forget(self.past);
            std::mem::take(&mut is_current) || layer.ends_at() > self.past
        });
    }

    /// Reserves under another grid from now on. One that is still known goes on
    /// with what it has.
    fn turn_to(&mut self, grid: Grid) {
        let is_first = self.layers.is_empty();
        let known = self.layers.iter().position(|layer| layer.grid == grid);
        let layer = known.map_or_else(|| Layer::new(grid), |at| self.layers.remove(at));
        self.layers.insert(0, layer);
        self.forget();
        if !is_first {
            self.begin_late();
        }
        if self.layers.len() > LAYERS_MAX {
            self.close();
        }
    }

    /// Takes the part of the current bucket that has gone by, since starts in it
    /// may be forgotten. What has no room for that begins with the next bucket.
    fn begin_late(&mut self) {
        let Some(layer) = self.layers.first_mut() else {
            return;
        };
        let grid = layer.grid;
        let bucket = grid.bucket(self.now);
        let gone = self.now - grid.start(bucket);
        let capacity = u64::from(grid.capacity());
        let share = (capacity * gone).div_ceil(grid.width());
        let taken = u64::from(grid.starts(layer.byte(bucket)));
        match u8::try_from(share) {
            Ok(0) => {}
            Ok(share) if taken + u64::from(share) < capacity => layer.add(bucket, share),
            _ => self.closed = self.closed.max(grid.start(bucket + 1)),
        }
    }

    /// Forgets the older layer that ends first, and keeps the time until then
    /// closed instead: rates that change so often lose time, and no promise.
    fn close(&mut self) {
        let older = self.layers.iter().enumerate().skip(1);
        if let Some((at, layer)) = older.min_by_key(|(_, layer)| layer.ends_at()) {
            let gap = if layer.grid.has_gap() { layer.grid.width() } else { 0 };
            self.closed = self.closed.max(layer.ends_at() + gap);
            self.layers.remove(at);
        }
    }

    /// How many starts of older layers count against a bucket; `enough` when
    /// there are more.
    fn older_starts(&self, bucket: u64, enough: u32) -> u32 {
        let Some((current, older)) = self.layers.split_first() else {
            return 0;
        };
        let (from, until) = current.grid.reach(bucket);
        older.iter().fold(0, |sum, layer| sum + layer.starts(from, until, enough - sum))
    }

    /// The next bucket that older layers may admit after one that they refused:
    /// behind the full buckets of one that fill whatever lies within them.
    fn next_after(&self, bucket: u64) -> u64 {
        let Some((current, older)) = self.layers.split_first() else {
            return bucket + 1;
        };
        let (grid, start) = (current.grid, current.grid.start(bucket));
        let behind = |layer: &Layer| {
            if layer.grid.starts_when_full(grid) < u64::from(grid.capacity()) {
                return None;
            }
            let room = layer.room_from(layer.grid.bucket(start))?;
            Some(grid.bucket(layer.grid.start(room)))
        };
        older.iter().filter_map(behind).fold(bucket + 1, u64::max)
    }
}
