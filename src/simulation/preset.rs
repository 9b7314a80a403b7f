//! The storms that are looked at again and again.

use std::{num::NonZeroU32, time::Duration};

use super::scenario::{Budget, Failing, Overload, Profile, Scenario};

/// How long the outages last.
const OUTAGE: Duration = Duration::from_secs(20 * 60);
/// How long fresh steps go on beginning after recovery.
const AFTERWARDS: Duration = Duration::from_secs(15 * 60);
/// How long it is simulated after recovery.
const PATIENCE: Duration = Duration::from_secs(2 * 3600);
/// Calls a second that the target serves.
const CAPACITY: NonZeroU32 = NonZeroU32::new(100).expect("100 is not zero");
/// Calls that wait at the target, at most: five seconds' worth.
const LINE: u32 = 500;
/// The budget of the scenario that is about one, which is the default of a target.
const BUDGET: Budget = Budget { ratio: 0.2, floor: 10, window: Duration::from_secs(60) };

/// Every preset, in the order of design and documents.
#[must_use]
pub fn all() -> Vec<Scenario> {
    vec![
        outage(),
        outage_slow_start(),
        outage_fragile(),
        rejecting(),
        blips(),
        half_failing(),
        budget(),
        first_429(),
        bad_node(),
    ]
}

/// 10,000 steps at once and 20 a second, on a target that is well.
fn storm(name: &'static str, about: &'static str, recovery: Duration) -> Scenario {
    Scenario {
        name,
        about,
        steps: 10_000,
        fresh_per_second: 20.0,
        fresh_for: recovery + AFTERWARDS,
        processes: 50,
        max_retries: 5,
        max_elapsed: Duration::from_secs(6 * 3600),
        call_timeout: Duration::from_secs(10),
        capacity: CAPACITY,
        overload: Overload::Queue(LINE),
        profile: Profile::default(),
        budget: None,
        recovery,
        horizon: recovery + PATIENCE,
    }
}

fn outage() -> Scenario {
    let about = "The target is down for 20 minutes and then serves 100 calls a second.";
    let profile = Profile { down: vec![(Duration::ZERO, OUTAGE)], ..Profile::default() };
    Scenario { profile, ..storm("outage", about, OUTAGE) }
}

fn outage_slow_start() -> Scenario {
    let about = "The same outage, but the target comes back with a fifth of its capacity and has all \
                 of it a minute later.";
    let outage = outage();
    let profile = Profile { slow_start: true, ..outage.profile.clone() };
    Scenario { name: "outage-slow-start", about, profile, ..outage }
}

fn outage_fragile() -> Scenario {
    let about = "The same slow start, and an overload during it brings the target down for another \
                 5 s, from where it begins anew.";
    let outage = outage_slow_start();
    let profile = Profile { fragile: true, ..outage.profile.clone() };
    Scenario { name: "outage-fragile", about, profile, ..outage }
}

fn rejecting() -> Scenario {
    let about = "The same outage, of a target without a line: what exceeds 100 calls a second fails \
                 at once.";
    Scenario { name: "rejecting", about, overload: Overload::Reject, ..outage() }
}

fn blips() -> Scenario {
    let about = "The target is down for the first 5 s of every minute, for 20 minutes.";
    let blip = Duration::from_secs(5);
    let starts = (0..20).map(|minute| Duration::from_secs(60 * minute));
    let down = starts.map(|start| (start, start + blip)).collect();
    Scenario { profile: Profile { down, ..Profile::default() }, ..storm("blips", about, blip) }
}

fn half_failing() -> Scenario {
    let about = "Half of the calls fail, for 20 minutes.";
    let failing = Some(Failing { part: 0.5, until: OUTAGE });
    let profile = Profile { failing, ..Profile::default() };
    Scenario { profile, fresh_for: OUTAGE, ..storm("half-failing", about, Duration::ZERO) }
}

fn budget() -> Scenario {
    let about = "A thousand steps fail at once while the target is down for 10 s. Reprise has a \
                 budget: retries are 20 % of the first attempts of a minute, and 10.";
    let down = Duration::from_secs(10);
    let profile = Profile { down: vec![(Duration::ZERO, down)], ..Profile::default() };
    Scenario { steps: 1000, profile, budget: Some(BUDGET), ..storm("budget", about, down) }
}

fn first_429() -> Scenario {
    let about = "For 5 minutes the target answers every call with 429 and a Retry-After until their \
                 end.";
    let until = Duration::from_secs(300);
    let profile = Profile { throttled_until: until, ..Profile::default() };
    Scenario { profile, ..storm("first-429", about, until) }
}

fn bad_node() -> Scenario {
    let about = "One of 50 hosts is broken and fails attempts in 10 ms, so that it draws 60 % of \
                 them. The target is well. Five hundred steps at once, which it can hold in line. \
                 Reprise's policy has `host_anti_affinity`, which no library has.";
    let profile = Profile { bad_node: Some(0.6), ..Profile::default() };
    Scenario { steps: 500, profile, ..storm("bad-node", about, Duration::ZERO) }
}
