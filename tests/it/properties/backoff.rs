//! Waits stay within their bounds, keep their jitter at the cap, and repeat
//! themselves.

use std::{collections::HashMap, time::Duration};

use proptest::{prelude::*, sample::select};
use reprise::domain::{
    backoff::{Backoff, Jitter, Shape, Window},
    draw::{Draw, Salt},
    id::StepKey,
    plan::waits,
};

use crate::rule::policy;

/// Draws in a test of a distribution.
const DRAWS: u32 = 20_000;
/// The Kolmogorov–Smirnov statistic times √n that a uniform distribution
/// exceeds once in a million.
const KS_MAX: f64 = 2.7;

/// Everyday waits, none at all, and more than any clock can tell.
fn span() -> impl Strategy<Value = Duration> {
    prop_oneof![
        1 => Just(Duration::ZERO),
        1 => Just(Duration::MAX),
        4 => (0..600_000_u64).prop_map(Duration::from_millis),
        2 => (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos)),
    ]
}

fn factor() -> impl Strategy<Value = f64> {
    prop_oneof![
        select(vec![0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 1e300, f64::MAX, f64::MIN_POSITIVE]),
        0.0..10.0_f64
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        span().prop_map(|delay| Shape::Fixed { delay }),
        (span(), span()).prop_map(|(delay, increment)| Shape::Linear { delay, increment }),
        (span(), factor(), prop_oneof![Just(u32::MAX), 0..70_u32]).prop_map(
            |(delay, factor, doublings_max)| Shape::Exponential { delay, factor, doublings_max }
        ),
        span().prop_map(|delay| Shape::DoublingSum { delay }),
        span().prop_map(|delay| Shape::Fibonacci { delay }),
        (prop::collection::vec(span(), 1..6), any::<bool>())
            .prop_map(|(delays, repeats)| Shape::Schedule { delays: delays.into(), repeats }),
    ]
}

fn jitter() -> impl Strategy<Value = Jitter> {
    prop_oneof![
        Just(Jitter::None),
        Just(Jitter::Full),
        Just(Jitter::Equal),
        (f64::MIN_POSITIVE..=1.0).prop_map(Jitter::Ratio),
        Just(Jitter::Base),
        Just(Jitter::Decorrelated),
    ]
}

fn backoff() -> impl Strategy<Value = Backoff> {
    let delay_max = span().prop_map(|max| max.max(Duration::from_nanos(1)));
    (shape(), delay_max, prop::option::of(span()), jitter()).prop_map(
        |(shape, delay_max, first_delay, jitter)| Backoff { shape, delay_max, first_delay, jitter },
    )
}

/// Which retry it is: the first ones, and ones that no step ever reaches.
fn k() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0..80_u32, 1 => any::<u32>(), 1 => Just(u32::MAX)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_wait_stays_within_its_bounds(backoff in backoff(), k in k(), before in span(), bits in any::<u64>()) {
        if let Some(window) = backoff.window(k, before) {
            prop_assert!(window.min <= window.max, "{window:?}");
            prop_assert!(window.max <= backoff.delay_max, "{window:?}");
            let delay = window.at(Draw::from_bits(bits));
            prop_assert!((window.min..=window.max).contains(&delay), "{delay:?} of {window:?}");
            prop_assert_eq!(delay, window.at(Draw::from_bits(bits)));
            prop_assert_eq!(Some(window), backoff.window(k, before));
        } else {
            let ends = matches!(backoff.shape, Shape::Schedule { repeats: false, .. });
            prop_assert!(ends, "only a schedule ends");
        }
    }

    #[test]
    fn a_growing_wait_never_shrinks(backoff in backoff(), k in 1..200_u32) {
        let grows = match &backoff.shape {
            Shape::Exponential { factor, .. } => *factor >= 1.0,
            Shape::Schedule { .. } => false,
            _ => true,
        };
        if !grows {
            return Ok(());
        }
        let backoff = Backoff { first_delay: None, ..backoff };
        let (this, next) = (backoff.window(k, Duration::ZERO).unwrap(), backoff.window(k + 1, Duration::ZERO).unwrap());
        prop_assert!(this.max <= next.max, "{this:?}, then {next:?}");
        // A share of a growing wait is a growing share, so at the cap, where the
        // window cannot move up, it widens downwards.
        if !matches!(backoff.jitter, Jitter::Ratio(_)) {
            prop_assert!(this.min <= next.min, "{this:?}, then {next:?}");
        }
    }

    #[test]
    fn a_later_draw_is_never_a_shorter_wait(min in span(), width in span(), (one, other) in (any::<u64>(), any::<u64>())) {
        let window = Window { min, max: min.saturating_add(width) };
        let (low, high) = (one.min(other), one.max(other));
        prop_assert!(window.at(Draw::from_bits(low)) <= window.at(Draw::from_bits(high)));
    }

    #[test]
    fn the_width_of_a_ratio_is_kept_at_the_cap(seconds in 1..1_000_u64, percent in 1..=50_u64, k in 1..80_u32) {
        let cap = Duration::from_secs(seconds);
        let backoff = Backoff {
            shape: Shape::Exponential { delay: cap, factor: 2.0, doublings_max: u32::MAX },
            delay_max: cap,
            first_delay: None,
            jitter: Jitter::Ratio(percent as f64 / 100.0),
        };
        let window = backoff.window(k, Duration::ZERO).unwrap();
        prop_assert_eq!(window.max, cap);
        let expected = cap * (2 * percent as u32) / 100;
        prop_assert!(window.width().abs_diff(expected) <= Duration::from_micros(1), "{window:?}");
    }

    #[test]
    fn a_decorrelated_wait_is_drawn_between_the_base_and_three_times_the_one_before(
        base in 1..5_000_u64, cap in 5_000..100_000_u64, before in 0..100_000_u64, k in k(),
    ) {
        let backoff = Backoff {
            shape: Shape::Fixed { delay: Duration::from_millis(base) },
            delay_max: Duration::from_millis(cap),
            first_delay: None,
            jitter: Jitter::Decorrelated,
        };
        let window = backoff.window(k, Duration::from_millis(before)).unwrap();
        let top = (3 * before.max(base)).min(cap);
        prop_assert_eq!(window, Window { min: Duration::from_millis(base), max: Duration::from_millis(top) });
    }
}

#[test]
fn shapes_grow_as_they_say() {
    let s = Duration::from_secs;
    let heights = |yaml: &str, count: u32| {
        waits(&policy(yaml), count)
            .iter()
            .map(|window| (window.min, window.max))
            .collect::<Vec<_>>()
    };
    let exactly =
        |seconds: &[u64]| seconds.iter().map(|second| (s(*second), s(*second))).collect::<Vec<_>>();
    for (yaml, seconds) in [
        ("{}", &[0, 0, 0][..]),
        ("{backoff: {fixed: {delay: 3s}}}", &[3, 3, 3]),
        ("{backoff: {linear: {delay: 3s}}}", &[3, 6, 9]),
        ("{backoff: {linear: {delay: 3s, increment: 1s}, max_delay: 4s}}", &[3, 4, 4]),
        (
            "{backoff: {exponential: {delay: 10s, max_doublings: 3}, max_delay: 5m}}",
            &[10, 20, 40, 80, 160, 240, 300, 300],
        ),
        ("{backoff: {exponential: {delay: 10s, factor: 0}}}", &[10, 0, 0]),
        ("{backoff: {exponential: {delay: 4s, factor: 1.5}}}", &[4, 6, 9]),
        ("{backoff: {doubling_sum: {delay: 1s}}}", &[1, 3, 7, 15]),
        ("{backoff: {fibonacci: {delay: 1s}}}", &[1, 1, 2, 3, 5, 8]),
        ("{backoff: {schedule: {delays: [0s, 15s]}}}", &[0, 15, 15]),
        ("{backoff: {fixed: {delay: 3s}, first_delay: 1s, jitter: full}, max_retries: 1}", &[1]),
        ("{backoff: {exponential: {delay: 3s}, first_delay: 1s}}", &[1, 3, 6]),
    ] {
        assert_eq!(heights(yaml, seconds.len().try_into().unwrap()), exactly(seconds), "{yaml}");
    }
    assert_eq!(
        heights("{backoff: {schedule: {delays: [1s, 2s], end: stop}}}", 9),
        exactly(&[1, 2])
    );
    assert_eq!(heights("{max_retries: 2}", 9).len(), 2);
    assert_eq!(
        heights("{backoff: {linear: {delay: 1s}, jitter: base}}", 3),
        [(s(0), s(2)), (s(1), s(3)), (s(2), s(4))]
    );
    assert_eq!(
        heights("{backoff: {fixed: {delay: 1s}, max_delay: 10s, jitter: decorrelated}}", 4),
        [(s(1), s(3)), (s(1), s(9)), (s(1), s(10)), (s(1), s(10))]
    );
}

#[test]
fn draws_are_uniform_whatever_part_of_the_question_varies() {
    let salt = Salt(*b"any sixteen byte");
    let of = |run: &str, step: &str, attempt: u32| {
        Draw::of(salt, &StepKey { namespace: "default", run, step }, attempt).get()
    };
    uniform("attempts", (0..DRAWS).map(|at| of("run", "step", at)));
    uniform("steps", (0..DRAWS).map(|at| of("run", &format!("step-{at}"), 1)));
    uniform("runs", (0..DRAWS).map(|at| of(&format!("{at}"), "step", 1)));
    let shifted = |run: &str, step: &str| of(run, step, 1).to_bits();
    assert_ne!(shifted("ab", "c"), shifted("a", "bc"), "where a name ends is part of the question");
}

#[test]
fn jitter_is_uniform_at_the_cap_too() {
    let cap = Duration::from_secs(60);
    for jitter in
        [Jitter::Full, Jitter::Equal, Jitter::Ratio(0.2), Jitter::Base, Jitter::Decorrelated]
    {
        let shape = Shape::Exponential {
            delay: Duration::from_secs(1),
            factor: 2.0,
            doublings_max: u32::MAX,
        };
        let backoff = Backoff { shape, delay_max: cap, first_delay: None, jitter };
        let window = backoff.window(40, cap).unwrap();
        assert_eq!(window.max, cap, "{jitter:?} reaches the cap");
        let salt = Salt(*b"any sixteen byte");
        let places = (0..DRAWS).map(|at| {
            let step = format!("step-{at}");
            let delay = window.at(Draw::of(
                salt,
                &StepKey { namespace: "default", run: "run", step: &step },
                40,
            ));
            (delay - window.min).as_secs_f64() / window.width().as_secs_f64()
        });
        uniform(&format!("{jitter:?}"), places);
    }
}

/// Passes the Kolmogorov–Smirnov test against the uniform distribution on
/// [0, 1], and has no value that comes up more often than n / √n times.
fn uniform(what: &str, values: impl Iterator<Item = f64>) {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    let distance = values
        .iter()
        .enumerate()
        .map(|(at, value)| (value - at as f64 / n).abs().max((value - (at + 1) as f64 / n).abs()));
    let statistic = distance.fold(0.0, f64::max) * n.sqrt();
    assert!(statistic < KS_MAX, "{what}: {statistic}");
    let mut atoms: HashMap<u64, u32> = HashMap::new();
    for value in &values {
        *atoms.entry(value.to_bits()).or_default() += 1;
    }
    let heaviest = atoms.values().copied().max().unwrap_or(0);
    assert!(f64::from(heaviest) <= n.sqrt(), "{what}: one value came up {heaviest} times");
}
