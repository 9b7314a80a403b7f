//! A target means the same on both sides, and a mask changes what it names.

use std::time::Duration;

use proptest::{option::of, prelude::*};

use super::{named_target, seconds};
use crate::{
    domain::{
        limit::{
            Pause, Starts, WhenSpent,
            spec::{BreakerSpec, BudgetSpec, ConcurrencySpec, RateSpec, TargetSpec},
        },
        time::{Span, Timestamp},
    },
    grpc::convert::target::{self, from_proto, named_to_proto, to_proto},
    proto,
    service::PauseEnd,
    store::configuration::TargetEntry,
};

fn span() -> impl Strategy<Value = Span> {
    (0..=315_576_000_000u64, 0..1_000_000_000u32)
        .prop_map(|(seconds, nanos)| Span(Duration::new(seconds, nanos)))
}

fn rate() -> impl Strategy<Value = RateSpec> {
    let on = prop_oneof![Just(Starts::All), Just(Starts::Retries)];
    (any::<u32>(), of(span()), of(any::<u32>()), on)
        .prop_map(|(limit, period, burst, on)| RateSpec { limit, period, burst, on })
}

fn budget() -> impl Strategy<Value = BudgetSpec> {
    let when_spent = prop_oneof![Just(WhenSpent::Wait), Just(WhenSpent::Stop)];
    (of(-1.0..20.0f64), of(any::<u32>()), of(span()), when_spent).prop_map(
        |(ratio, floor, window, when_spent)| BudgetSpec { ratio, floor, window, when_spent },
    )
}

fn breaker() -> impl Strategy<Value = BreakerSpec> {
    (of(span()), any::<bool>())
        .prop_map(|(slow_after, observe_only)| BreakerSpec { slow_after, observe_only })
}

fn spec() -> impl Strategy<Value = TargetSpec> {
    let concurrency = any::<u32>().prop_map(|max| ConcurrencySpec { max });
    (of(rate()), of(concurrency), of(budget()), of(breaker()), any::<bool>(), any::<bool>())
        .prop_map(|(rate, concurrency, budget, breaker, every_step, each_run)| TargetSpec {
            rate,
            concurrency,
            budget,
            breaker,
            every_step,
            each_run,
        })
}

proptest! {
    #[test]
    fn a_target_means_the_same_on_both_sides(spec in spec()) {
        prop_assert_eq!(from_proto(&to_proto(&spec), "target").unwrap(), spec);
    }
}

fn updated(paths: &[&str], current: &TargetSpec) -> TargetSpec {
    let update_mask =
        Some(prost_types::FieldMask { paths: paths.iter().map(ToString::to_string).collect() });
    let target = Some(named_target());
    let request = proto::UpdateTargetRequest { target, update_mask, ..Default::default() };
    target::update(request).unwrap().apply(current)
}

#[test]
fn a_mask_changes_what_it_names_and_nothing_else() {
    let current = TargetSpec {
        concurrency: Some(ConcurrencySpec { max: 1 }),
        every_step: true,
        ..TargetSpec::default()
    };
    let given = from_proto(&named_target().target.unwrap(), "target").unwrap();
    let part = |paths: &[&str], expected: TargetSpec| {
        assert_eq!(updated(paths, &current), expected, "{paths:?}");
    };
    part(&["target.rate"], TargetSpec { rate: given.rate.clone(), ..current.clone() });
    part(&["target.concurrency"], TargetSpec { concurrency: given.concurrency, ..current.clone() });
    part(&["target.budget"], TargetSpec { budget: given.budget, ..current.clone() });
    part(&["target.every_step"], TargetSpec { every_step: false, ..current.clone() });
    part(
        &["target.each_run", "target.rate"],
        TargetSpec { each_run: true, rate: given.rate.clone(), ..current.clone() },
    );
    for all in [&[][..], &["target"], &["*"]] {
        part(all, given.clone());
    }
}

#[test]
fn what_a_mask_leaves_out_is_not_looked_at() {
    let mut named = named_target();
    named.target.get_or_insert_default().concurrency = Some(proto::Concurrency { max: 0 });
    let update = |path: &str| {
        let update_mask = Some(prost_types::FieldMask { paths: vec![path.to_owned()] });
        let target = Some(named.clone());
        target::update(proto::UpdateTargetRequest { target, update_mask, ..Default::default() })
    };
    assert!(update("target.rate").is_ok());
    let invalid = update("target.concurrency").unwrap_err();
    assert_eq!(invalid.violations()[0].field, "target.target.concurrency.max");
}

#[test]
fn a_pause_ends_at_an_instant_or_after_a_while_or_by_hand() {
    use proto::pause_target_request::End;
    let end = |end| {
        let request = proto::PauseTargetRequest {
            name: "db".into(),
            reason: "moved".into(),
            end,
            ..Default::default()
        };
        target::pause(request).unwrap().1.end
    };
    assert_eq!(end(None), None);
    let at = prost_types::Timestamp { seconds: 7, nanos: 5_000 };
    assert_eq!(end(Some(End::Until(at))), Some(PauseEnd::At(Timestamp::from_micros(7_000_005))));
    let span = seconds(60).unwrap();
    assert_eq!(end(Some(End::PauseFor(span))), Some(PauseEnd::After(Duration::from_secs(60))));
}

#[test]
fn a_pause_is_told_as_long_as_it_holds() {
    let [since, until] = [5, 9].map(Timestamp::from_micros);
    let mut entry = TargetEntry::parse(TargetSpec::default(), 7, since).unwrap();
    let reason = "moved".to_owned();
    entry.pause = Some(Pause { reason, by: "ann".to_owned(), since, until: Some(until) });
    let told = |micros| named_to_proto("ads", "db", &entry, Timestamp::from_micros(micros));
    assert!(told(8).pause.is_some_and(|pause| pause.reason == "moved" && pause.by == "ann"));
    assert_eq!(told(9).pause, None);
    assert_eq!((told(9).revision, told(9).etag.as_str()), (7, "r7"));
}
