use std::{num::NonZeroU32, time::Duration};

use super::{
    after,
    chance::Chance,
    plot, preset,
    report::Comparison,
    run,
    scenario::{Overload, Profile, Scenario},
    strategy::Kind,
    target::{Caller, Target},
};
use crate::domain::failure::FailureClass;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A storm that takes no time to simulate: the target is down for a minute.
fn small() -> Scenario {
    let mut presets = preset::all();
    let outage = presets.swap_remove(0);
    Scenario {
        steps: 200,
        fresh_per_second: 2.0,
        fresh_for: secs(120),
        processes: 10,
        capacity: NonZeroU32::new(10).unwrap(),
        overload: Overload::Queue(50),
        profile: Profile { down: vec![(secs(0), secs(60))], ..Profile::default() },
        recovery: secs(60),
        horizon: secs(3600),
        ..outage
    }
}

/// The presets, each small enough for a test.
fn smaller() -> Vec<Scenario> {
    let small = |preset: Scenario| Scenario {
        steps: preset.steps.min(200),
        fresh_per_second: 0.5,
        capacity: NonZeroU32::new(20).unwrap(),
        ..preset
    };
    preset::all().into_iter().map(small).collect()
}

#[test]
fn equal_seeds_give_equal_storms_and_others_do_not() {
    for kind in Kind::ALL {
        let [once, again, other] = [7, 7, 8].map(|seed| run(&small(), kind, seed));
        assert_eq!(once, again, "{}", kind.name());
        assert_ne!(once, other, "{}", kind.name());
    }
}

#[test]
fn whatever_the_command_line_changes_is_a_policy_and_a_target() {
    for preset in preset::all() {
        for (capacity, max_retries) in [(1, 0), (100_000, 1000)] {
            let capacity = NonZeroU32::new(capacity).unwrap();
            let changed = Scenario { capacity, max_retries, ..preset.clone() };
            let chance = Chance::new(1);
            drop(Kind::Reprise.strategy(&changed, &Target::new(&changed, chance), chance));
        }
    }
}

#[test]
fn every_strategy_meets_the_same_arrivals() {
    let steps: Vec<u32> = Kind::ALL.map(|kind| run(&small(), kind, 3).steps).into();
    assert!(steps.iter().all(|count| *count == steps[0]), "{steps:?}");
    assert!((400..480).contains(&steps[0]), "200 at once and 2 a second for 2 minutes");
}

#[test]
fn whatever_begins_succeeds_is_lost_or_waits() {
    for scenario in smaller() {
        for kind in Kind::ALL {
            let tally = run(&scenario, kind, 1);
            let told = format!("{} under {}", scenario.name, kind.name());
            assert_eq!(tally.backlog().last(), Some(&tally.waiting()), "{told}");
            assert_eq!(tally.load.iter().sum::<u32>(), tally.calls, "{told}");
            let ended = tally.done + tally.failed_calls;
            let in_flight = tally.calls - ended;
            assert!(in_flight <= tally.waiting(), "{told}: {in_flight} calls without a step");
            assert!(tally.calls <= tally.steps * (1 + scenario.max_retries), "{told}");
        }
    }
}

#[test]
fn a_run_that_is_cut_short_tells_who_waits() {
    let cut = Scenario { horizon: secs(30), ..small() };
    for kind in [Kind::Fixed, Kind::Reprise, Kind::Oracle] {
        let tally = run(&cut, kind, 1);
        assert!(tally.waiting() > 0, "{}", kind.name());
        assert_eq!(tally.done, 0, "{}: the target was down throughout", kind.name());
        assert_eq!(tally.figures().drain_seconds, None);
    }
}

#[test]
fn nobody_beats_the_oracle() {
    // With retries without end whoever loses a step has refused it.
    let outage = Scenario { max_retries: 1000, fresh_for: secs(60), ..small() };
    let oracle = run(&outage, Kind::Oracle, 1).figures();
    assert_eq!((oracle.lost, oracle.dead_calls, oracle.wasted_calls), (0.0, 0.0, 0.0));
    let drain = oracle.drain_seconds.unwrap();
    let least = oracle.steps / 10.0;
    assert!((least - 0.2..least + 0.2).contains(&drain), "10 a second: {drain} for {least}");
    for kind in Kind::ALL {
        let figures = run(&outage, kind, 1).figures();
        if kind == Kind::Reprise {
            assert_eq!(figures.lost, 0.0, "it waits as long as the policy lets it");
        }
        assert!(figures.done <= oracle.done, "{}", kind.name());
        if figures.lost == 0.0 {
            let longer = figures.drain_seconds.is_none_or(|seconds| drain <= seconds + 0.2);
            assert!(longer, "{}: {figures:?}", kind.name());
        }
    }
}

#[test]
fn starts_keep_to_the_rate_that_the_target_was_given() {
    for scenario in smaller() {
        for kind in [Kind::Limits, Kind::Reprise] {
            let tally = run(&scenario, kind, 2);
            let most = tally.load.iter().max().copied().unwrap_or(0);
            let name = scenario.name;
            assert!(most <= 20 + 2, "{name}: {most} in a second, 20 and a burst of 2");
        }
    }
}

#[test]
fn retries_keep_to_the_budget_that_the_target_was_given() {
    let budget = smaller().into_iter().find(|preset| preset.name == "budget").unwrap();
    let over = |kind| run(&budget, kind, 1).figures().over_budget.unwrap();
    assert_eq!(over(Kind::Limits), 0.0, "probes and what is forgiven cost none");
    assert!(over(Kind::FullJitter) > 200.0, "nothing bounds a library over all processes");
}

/// A thousand failures at once, under a budget of a fifth. The breaker is left out: what
/// it forgives costs nothing, and here every retry counts.
#[test]
fn a_thousand_failures_at_once_keep_to_the_budget_at_every_start() {
    let budget = preset::all().into_iter().find(|preset| preset.name == "budget").unwrap();
    assert_eq!((budget.steps, budget.budget.unwrap().ratio), (1000, 0.2));
    for seed in 1..=2 {
        let figures = run(&budget, Kind::Limits, seed).figures();
        assert_eq!(figures.over_budget, Some(0.0), "seed {seed}");
    }
}

#[test]
fn one_429_holds_the_fleet() {
    let throttled = smaller().into_iter().find(|preset| preset.name == "first-429").unwrap();
    let dead = |kind| run(&throttled, kind, 1).dead_calls;
    assert!(dead(Kind::Reprise) < 10, "those that were under way: {}", dead(Kind::Reprise));
    assert!(dead(Kind::FullJitter) >= 200, "each learns for itself");
}

#[test]
fn a_line_serves_at_capacity_and_refuses_beyond_its_end() {
    let scenario = Scenario { profile: Profile::default(), ..small() };
    let mut target = Target::new(&scenario, Chance::new(1));
    let caller = |step| Caller { step, attempt: 1, host: 1 };
    let ends: Vec<f64> = (0..51)
        .map(|step| {
            let call = target.call(caller(step), after(secs(1)));
            (call.ends - call.made).as_secs_f64()
                * if target.outcome(&call).is_ok() { 1.0 } else { -1.0 }
        })
        .collect();
    assert_eq!(ends[0], 0.15, "a tenth of a second of work, and 50 ms");
    assert_eq!(ends[49], 5.05, "the fiftieth");
    assert_eq!(ends[50], -0.05, "the fifty-first is refused");
    let later = target.call(caller(60), after(secs(2)));
    assert!(target.outcome(&later).is_ok(), "ten have been served since");
}

#[test]
fn a_worker_gives_up_what_takes_too_long() {
    let slow = Scenario { profile: Profile::default(), call_timeout: secs(2), ..small() };
    let mut target = Target::new(&slow, Chance::new(1));
    let calls: Vec<_> = (0..30)
        .map(|step| target.call(Caller { step, attempt: 1, host: 1 }, after(secs(1))))
        .collect();
    let failed = |place: usize| target.outcome(&calls[place]).err().map(|failing| failing.class);
    assert_eq!(failed(18), None);
    assert_eq!(failed(25), Some(FailureClass::Timeout));
    assert_eq!(calls[25].ends, after(secs(3)));
}

#[test]
fn a_target_without_a_line_takes_a_second_of_calls_at_once() {
    let rejecting = Scenario { profile: Profile::default(), overload: Overload::Reject, ..small() };
    let mut target = Target::new(&rejecting, Chance::new(1));
    let mut served = |at| {
        let caller = |step| Caller { step, attempt: 1, host: 1 };
        let calls: Vec<_> = (0..30).map(|step| target.call(caller(step), at)).collect();
        calls.iter().filter(|call| target.outcome(call).is_ok()).count()
    };
    assert_eq!(served(after(secs(1))), 10);
    assert_eq!(served(after(Duration::from_millis(1500))), 5, "half a second later");
}

#[test]
fn a_slow_start_begins_with_a_fifth_and_a_fragile_target_falls_again() {
    let mut scenario = small();
    scenario.profile.slow_start = true;
    scenario.profile.fragile = true;
    let mut target = Target::new(&scenario, Chance::new(1));
    let capacities = [60, 90, 120, 600].map(|at| target.capacity_at(after(secs(at))));
    assert_eq!(capacities.map(f64::round), [2.0, 6.0, 10.0, 10.0]);
    let calls: Vec<_> = (0..51)
        .map(|step| target.call(Caller { step, attempt: 1, host: 1 }, after(secs(70))))
        .collect();
    assert_eq!(target.dead_until(after(secs(72))), Some(after(secs(75))));
    assert_eq!(target.capacity_at(after(secs(75))), 2.0, "and begins anew");
    assert!(target.outcome(&calls[50]).is_err(), "the one too many");
    assert!(target.outcome(&calls[49]).is_err(), "those in line go down with it");
}

#[test]
fn a_broken_host_draws_its_part_and_a_step_goes_elsewhere_after_it() {
    let preset = smaller().into_iter().find(|preset| preset.name == "bad-node").unwrap();
    let scenario = Scenario { steps: 0, fresh_per_second: 2.0, fresh_for: secs(600), ..preset };
    let reprise = run(&scenario, Kind::Reprise, 1);
    assert_eq!(reprise.waiting(), 0, "some host asks in the end");
    let part = f64::from(reprise.failed_calls) / f64::from(reprise.steps);
    assert!(part < 0.1, "the host is ejected: {part}");
    assert_eq!(reprise.lost, 0);
    let unbroken = run(&scenario, Kind::Limits, 1);
    let part = f64::from(unbroken.failed_calls) / f64::from(unbroken.steps);
    assert!((0.55..0.65).contains(&part), "without a breaker first attempts are not: {part}");
    assert_eq!(unbroken.lost, 0, "but second ones are kept away");
    assert!(run(&scenario, Kind::FullJitter, 1).lost > 10, "six times 60 % is 5 % of them");
    assert_eq!(run(&scenario, Kind::Oracle, 1).failed_calls, 0);
}

#[test]
fn a_comparison_has_a_row_and_a_curve_for_each_strategy() {
    let mut told = Vec::new();
    let storm = Comparison::of(small(), &[1, 2], |kind| told.push(kind));
    assert_eq!(told, Kind::ALL);
    assert_eq!(storm.strategies.len(), Kind::ALL.len());
    assert!(storm.strategies.iter().all(|row| row.runs.len() == 2));
    for svg in [plot::load(&storm), plot::backlog(&storm)] {
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("<polyline ").count(), Kind::ALL.len());
        assert!(Kind::ALL.iter().all(|kind| svg.contains(kind.name())));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
    assert_eq!(Comparison::of(small(), &[], |_| {}).strategies, [], "nothing comes of no seeds");
}
