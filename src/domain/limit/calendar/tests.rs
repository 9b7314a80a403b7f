//! The law, held to a plain list of starts.

use std::{num::NonZeroU32, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::domain::limit::{Rate, Starts};

const START: u64 = 1_750_000_000_000_000;

fn rate(limit: u32, period: Duration, burst: u32) -> Rate {
    let [limit, burst] = [limit, burst].map(|number| NonZeroU32::new(number).unwrap());
    Rate { limit, period, burst, on: Starts::All }
}

fn at(micros: u64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn any_rate() -> impl Strategy<Value = Rate> {
    let period = prop_oneof![1_000..10_000_000_u64, 1_000..86_400_000_000_u64];
    let burst = prop_oneof![2 => Just(1), 2 => 2..20_u32, 1 => 1..=600_u32];
    (1..=1_000_u32, period, burst)
        .prop_map(|(limit, period, burst)| rate(limit, Duration::from_micros(period), burst))
}

/// Rates whose buckets meet each other.
fn near_rate() -> impl Strategy<Value = Rate> {
    let burst = prop_oneof![2 => Just(1), 2 => 2..8_u32, 1 => 8..=600_u32];
    (1..=40_u32, 10_000..2_000_000_u64, burst)
        .prop_map(|(limit, period, burst)| rate(limit, Duration::from_micros(period), burst))
}

/// What happens to a calendar. Shares are in 2⁻¹⁶.
#[derive(Clone, Debug)]
enum Action {
    /// Time moves on by a share of a few buckets, or of some pages.
    Wait { buckets: u64, share: u64 },
    /// Starts are asked for, from a share of a few buckets ahead on, and begin
    /// at a share of the room.
    Start { times: usize, ahead: u64, share: u64 },
    /// Starts are given back.
    Return { times: usize, which: usize },
    /// The rate becomes the one with this number.
    Change { rate: usize },
}

fn action(rates: usize) -> impl Strategy<Value = Action> {
    let share = 0..=1_u64 << 16;
    prop_oneof![
        2 => (prop_oneof![3 => Just(3), 1 => Just(600)], share.clone())
            .prop_map(|(buckets, share)| Action::Wait { buckets, share }),
        6 => (1..60_usize, share.clone(), prop_oneof![Just(0), Just(1 << 16), share])
            .prop_map(|(times, ahead, share)| Action::Start { times, ahead, share }),
        2 => (1..30_usize, any::<usize>()).prop_map(|(times, which)| Action::Return { times, which }),
        if rates > 1 { 2 } else { 0 } => (0..rates).prop_map(|rate| Action::Change { rate }),
    ]
}

/// A start that was granted, and the grid it was granted under.
#[derive(Clone, Copy, Debug)]
struct Start {
    at: u64,
    grid: Grid,
}

/// A calendar, and everything that it granted.
struct Model {
    calendar: Calendar,
    grid: Grid,
    now: u64,
    starts: Vec<Start>,
}

impl Model {
    fn new(rate: &Rate) -> Self {
        let mut model = Self {
            calendar: Calendar::default(),
            grid: Grid::of(rate),
            now: START,
            starts: vec![],
        };
        model.open();
        model
    }

    fn open(&mut self) {
        self.calendar.open(self.grid, at(self.now));
    }

    fn apply(&mut self, action: &Action, rates: &[Rate]) -> Result<(), TestCaseError> {
        match *action {
            Action::Wait { buckets, share } => {
                // So that no history leaves what is told apart.
                let longest = self.grid.width().saturating_mul(buckets).min(1 << 47);
                self.now += (longest * share) >> 16;
            }
            Action::Change { rate } => self.grid = Grid::of(&rates[rate]),
            Action::Start { times, ahead, share } => {
                let from = self.now + ((self.grid.width() * 8 * ahead) >> 16);
                for _ in 0..times {
                    self.start(from, share)?;
                }
            }
            Action::Return { times, which } => {
                for _ in 0..times.min(self.starts.len()) {
                    let start = self.starts.swap_remove(which % self.starts.len());
                    // One that is past has started.
                    if start.at < self.now {
                        self.starts.push(start);
                    } else {
                        self.calendar.give_back(start.grid, at(start.at));
                    }
                }
            }
        }
        self.open();
        prop_assert_eq!(Calendar::unpack(&self.calendar.pack()), Some(self.calendar.clone()));
        Ok(())
    }

    fn start(&mut self, from: u64, share: u64) -> Result<(), TestCaseError> {
        let Some(room) = self.calendar.room(at(from)) else {
            return Err(TestCaseError::fail("a few buckets ahead there is room"));
        };
        prop_assert!(room.from < room.until && room.from >= at(from.max(self.now)));
        let (first, end) = (room.from.as_micros(), room.until.as_micros());
        let start = first + (((end - 1 - first) * share) >> 16);
        self.calendar.take(at(start));
        self.starts.push(Start { at: start, grid: self.grid });
        Ok(())
    }
}

/// In every interval, starts stay within the largest rate and the largest burst.
fn law_holds(starts: &[Start], rates: &[Rate]) -> Result<(), TestCaseError> {
    let mut instants: Vec<u64> = starts.iter().map(|start| start.at).collect();
    instants.sort_unstable();
    let burst = rates.iter().map(|rate| i128::from(rate.burst.get())).max().unwrap();
    let steepest = rates
        .iter()
        .max_by(|a, b| {
            let [x, y] = [(a, b), (b, a)]
                .map(|(one, other)| u128::from(one.limit.get()) * other.period.as_nanos());
            x.cmp(&y)
        })
        .unwrap();
    let period = i128::try_from(steepest.period.as_nanos()).unwrap();
    for (first, from) in instants.iter().enumerate() {
        for (last, until) in instants.iter().enumerate().skip(first) {
            let beyond = i128::try_from(last - first + 1).unwrap() - burst;
            let allowed = i128::from(until - from) * 1_000 * i128::from(steepest.limit.get());
            prop_assert!(beyond * period <= allowed, "{} in {}", last - first + 1, until - from);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn starts_stay_within_the_rate(rate in any_rate(), actions in prop::collection::vec(action(1), 1..30)) {
        let mut model = Model::new(&rate);
        for action in &actions {
            model.apply(action, &[rate])?;
        }
        law_holds(&model.starts, &[rate])?;
    }

    #[test]
    fn starts_stay_within_the_largest_rate_and_burst_however_they_change(
        rates in prop_oneof![prop::collection::vec(any_rate(), 2..7), prop::collection::vec(near_rate(), 2..7)],
        actions in prop::collection::vec(action(7), 1..40),
    ) {
        let mut model = Model::new(&rates[0]);
        for action in &actions {
            match *action {
                Action::Change { rate } if rate >= rates.len() => {}
                // What older layers fill is not always searched to its end.
                Action::Start { .. } => drop(model.apply(action, &rates)),
                _ => model.apply(action, &rates)?,
            }
        }
        law_holds(&model.starts, &rates)?;
    }

    #[test]
    fn no_earlier_instant_has_room(rate in any_rate(), actions in prop::collection::vec(action(1), 1..30), ahead in 0..=1_u64 << 16, share in 0..=1_u64 << 16) {
        let mut model = Model::new(&rate);
        for action in &actions {
            model.apply(action, &[rate])?;
        }
        let (grid, starts) = (model.grid, &model.starts);
        let from = model.now + ((grid.width() * 12 * ahead) >> 16);
        let room = model.calendar.room(at(from)).unwrap();
        let found = room.from.as_micros();
        if grid.has_gap() {
            // Whatever lies before is close to a start.
            let earlier = from + (((found - from) * share) >> 16);
            let is_near = |start: &Start| start.at.abs_diff(earlier) <= grid.width();
            prop_assert!(earlier == found || starts.iter().any(is_near));
        } else {
            let taken = |bucket| starts.iter().filter(|start| grid.bucket(start.at) == bucket).count();
            for bucket in grid.bucket(from)..grid.bucket(found) {
                prop_assert_eq!(taken(bucket), usize::from(grid.capacity()));
            }
            prop_assert!(taken(grid.bucket(found)) < usize::from(grid.capacity()));
            prop_assert_eq!(found, from.max(grid.start(grid.bucket(found))));
            prop_assert_eq!(room.until.as_micros(), grid.start(grid.bucket(found) + 1));
        }
    }

    #[test]
    fn a_grid_allows_no_more_than_its_rate(limit in 1..=u32::MAX, nanos in 1..400_000_000_000_000_u64, burst in 1..=u32::MAX) {
        let rate = rate(limit, Duration::from_nanos(nanos), burst);
        let grid = Grid::of(&rate);
        let capacity = u128::from(grid.capacity());
        prop_assert!(capacity * u128::from(nanos) <= u128::from(limit) * u128::from(grid.width()) * 1_000);
        prop_assert!(grid.has_gap() == (burst == 1) && (grid.has_gap() || 2 * capacity <= u128::from(burst)));
        prop_assert_eq!(Grid::from_parts(grid.width(), grid.capacity(), grid.has_gap()), Some(grid));
    }

    #[test]
    fn foreign_bytes_make_no_calendar_that_fails(bytes in prop::collection::vec(any::<u8>(), 0..80), cut in 0..700_usize, flip in any::<(usize, u8)>()) {
        let mut model = Model::new(&rate(3, Duration::from_secs(1), 4));
        for from in 0..4 {
            model.start(START + from * 1_000_000, 0)?;
        }
        let mut packed = model.calendar.pack();
        let place = flip.0 % packed.len();
        packed[place] ^= flip.1;
        packed.truncate(cut.max(1));
        for bytes in [bytes, packed] {
            if let Some(mut calendar) = Calendar::unpack(&bytes) {
                for grid in [model.grid, Grid::from_parts(7, 1, true).unwrap()] {
                    calendar.open(grid, Timestamp::NEVER);
                    calendar.take(Timestamp::NEVER);
                    calendar.give_back(grid, Timestamp::EPOCH);
                    let _ = (calendar.room(Timestamp::EPOCH), calendar.load(Timestamp::NEVER));
                }
            }
        }
    }
}

/// A calendar with so many full buckets ahead, at a start a millisecond or, to
/// keep a gap, a little less.
fn full(buckets: u64, burst: u32) -> Model {
    let mut model = Model::new(&rate(1, Duration::from_millis(1), burst));
    for _ in 0..buckets {
        model.start(model.now, 0).unwrap();
    }
    model
}

#[test]
fn room_is_found_behind_any_number_of_full_buckets_and_where_one_is_given_back() {
    for (burst, step) in [(1, 1_003), (2, 1_000)] {
        let mut model = full(100_000, burst);
        let first = model.starts[0].at;
        let (returned, behind) = (first + 70_000 * step, first + 100_000 * step);
        // With a gap a start is known by its place, of 4 µs here.
        let is_found = |model: &Model, at: u64| {
            let found = model.calendar.room(Timestamp::EPOCH).unwrap();
            found.from.as_micros().abs_diff(at) < 4
        };
        assert!(is_found(&model, behind));
        model.calendar.give_back(model.grid, at(returned));
        assert!(is_found(&model, returned));
        model.calendar.take(at(returned));
        assert!(is_found(&model, behind));
    }
}

#[test]
fn nothing_is_admitted_beyond_the_horizon_or_before_now() {
    let mut model = full(HORIZON, 2);
    assert_eq!(model.calendar.room(at(START)), None);
    model.now += 1_000;
    model.open();
    let last = at(START + HORIZON * 1_000);
    assert_eq!(model.calendar.room(at(START)).unwrap().from, last);
    let mut fresh = Model::new(&rate(1, Duration::from_secs(1), 2));
    fresh.now += 500_000;
    fresh.open();
    assert_eq!(fresh.calendar.room(Timestamp::EPOCH).unwrap().from, at(fresh.now));
    assert_eq!(fresh.calendar.room(Timestamp::NEVER), None);
}

#[test]
fn what_is_past_is_forgotten() {
    let mut model = full(100_000, 2);
    let before = model.calendar.pack().len();
    model.now += 50_000_000;
    model.open();
    assert!(model.calendar.pack().len() < before * 51 / 100);
    model.now += 60_000_000;
    model.open();
    assert!(model.calendar.pack().len() < 64);
}

#[test]
fn without_room_a_start_changes_nothing() {
    let mut model = full(10, 2);
    let before = model.calendar.clone();
    model.calendar.take(at(START));
    assert_eq!(model.calendar, before);
    assert_eq!(model.calendar.load(at(START)), (1, 1));
    model.calendar.give_back(Grid::from_parts(5, 1, true).unwrap(), at(START));
    assert_eq!(model.calendar, before);
}

#[test]
fn a_lower_rate_finds_room_behind_what_a_higher_one_filled() {
    let mut gap = full(100_000, 1);
    gap.grid = Grid::of(&rate(1, Duration::from_millis(2), 1));
    gap.open();
    let last = gap.starts.last().unwrap().at;
    let room = gap.calendar.room(at(START)).unwrap();
    assert!(room.from > at(last) && room.from - at(last) < Duration::from_millis(10));
    let mut model = full(100_000, 2);
    model.grid = Grid::of(&rate(1, Duration::from_millis(2), 2));
    model.open();
    assert_eq!(model.calendar.room(at(START)).unwrap().from, at(START + 100_000_000));
    // Back to the rate that it was, nothing is lost.
    model.grid = Grid::of(&rate(1, Duration::from_millis(1), 2));
    model.open();
    model.calendar.give_back(model.grid, at(START + 5_000));
    assert_eq!(model.calendar.room(at(START)).unwrap().from, at(START + 5_000));
}

#[test]
fn a_start_just_past_keeps_its_gap_to_the_next() {
    let mut model = Model::new(&rate(1, Duration::from_millis(100), 1));
    // The last bucket of a page.
    let bucket = (model.grid.bucket(START) / 256 + 1) * 256 - 1;
    let from = model.grid.start(bucket);
    model.start(from, 1 << 16).unwrap();
    model.now = model.grid.start(bucket + 1);
    model.open();
    model.start(model.now, 0).unwrap();
    law_holds(&model.starts, &[rate(1, Duration::from_millis(100), 1)]).unwrap();
}

#[test]
fn what_an_older_rate_started_counts_until_the_bucket_is_over() {
    let mut model = full(50, 2);
    model.grid = Grid::of(&rate(100, Duration::from_secs(1), 200));
    model.open();
    for (millis, load) in [(0, 50), (900, 50), (1_000, 0)] {
        model.now = START + millis * 1_000;
        model.open();
        assert_eq!(model.calendar.load(at(model.now)), (load, 100));
    }
}

#[test]
fn a_grid_begins_with_the_part_of_its_bucket_that_has_gone_by_taken() {
    let mut model = full(0, 2);
    model.now = START + 500_001;
    model.grid = Grid::of(&rate(10, Duration::from_secs(1), 20));
    model.open();
    assert_eq!(model.calendar.load(at(model.now)), (6, 10));
    // With a gap, or without room for that, it begins with the next bucket.
    for burst in [1, 2] {
        let mut model = full(0, 2);
        model.now = START + 500_001;
        model.grid = Grid::of(&rate(1, Duration::from_secs(1), burst));
        model.open();
        let next = model.grid.start(model.grid.bucket(model.now) + 1);
        assert_eq!(model.calendar.room(at(model.now)).unwrap().from, at(next));
    }
}

#[test]
fn rates_that_change_too_often_lose_time_and_no_promise() {
    for burst in [1, 2] {
        let mut model = Model::new(&rate(1, Duration::from_secs(1), burst));
        for (millis, seconds) in [(1_000, 60), (900, 600), (800, 700), (700, 800), (10, 900)] {
            model.grid = Grid::of(&rate(1, Duration::from_millis(millis), burst));
            model.open();
            model.start(START + seconds * 1_000_000, 1 << 16).unwrap();
        }
        assert_eq!(model.calendar.layers.len(), LAYERS_MAX);
        let Start { at: first, grid } = model.starts[0];
        let end = grid.start(grid.bucket(first) + if grid.has_gap() { 2 } else { 1 });
        let room = model.calendar.room(at(START)).unwrap();
        assert!(room.from >= at(end) && room.from - at(end) < Duration::from_millis(20));
    }
}
