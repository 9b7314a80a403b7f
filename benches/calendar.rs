//! What it costs to find room for a start, behind ever more full buckets, and to reserve it.

use std::{hint::black_box, num::NonZeroU32, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use reprise::domain::{
    limit::{
        Rate, Starts,
        calendar::{Calendar, Grid},
    },
    time::Timestamp,
};

const START: u64 = 1_750_000_000_000_000;

/// A start a millisecond.
fn grid(burst: u32) -> Grid {
    let burst = NonZeroU32::new(burst).expect("not zero");
    let (limit, period) = (NonZeroU32::MIN, Duration::from_millis(1));
    Grid::of(&Rate { limit, period, burst, on: Starts::All })
}

/// A calendar with so many full buckets ahead.
fn full(buckets: u64, grid: Grid) -> Calendar {
    let mut calendar = Calendar::default();
    calendar.open(grid, Timestamp::from_micros(START));
    for bucket in 0..buckets {
        calendar.take(Timestamp::from_micros(START + bucket * grid.width()));
    }
    calendar
}

fn search(c: &mut Criterion) {
    let mut group = c.benchmark_group("calendar/room");
    for (name, burst) in [("buckets", 2), ("gap", 1)] {
        for ahead in [0, 1_000, 100_000] {
            let calendar = full(ahead, grid(burst));
            let from = black_box(Timestamp::from_micros(START));
            group
                .bench_function(format!("{name}/{ahead} full"), |b| b.iter(|| calendar.room(from)));
        }
    }
    let mut lowered = full(100_000, grid(2));
    lowered.open(grid(1), Timestamp::from_micros(START));
    let from = black_box(Timestamp::from_micros(START));
    group.bench_function("another rate/100000 full", |b| b.iter(|| lowered.room(from)));
    group.finish();
}

fn reservation(c: &mut Criterion) {
    let mut group = c.benchmark_group("calendar/take and give back");
    for (name, burst) in [("buckets", 2), ("gap", 1)] {
        let grid = grid(burst);
        let mut calendar = full(100_000, grid);
        let behind = Timestamp::from_micros(START + 100_001 * grid.width());
        group.bench_function(name, |b| {
            b.iter(|| {
                calendar.take(black_box(behind));
                calendar.give_back(grid, black_box(behind));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, search, reservation);
criterion_main!(benches);
