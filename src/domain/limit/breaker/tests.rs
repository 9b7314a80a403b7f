use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(1_000_000 * seconds)
}

/// A breaker whose target is dead from an instant on.
fn died(mut breaker: Breaker, from: Timestamp) -> Breaker {
    for number in 0..20_u16 {
        let ended = Ended {
            step: u32::from(number),
            host: 1 + number % 4,
            outcome: TargetOutcome::Failed,
            draw: 0,
            full: 0,
            only_watches: false,
        };
        breaker.ended(&ended, from.plus(Duration::from_millis(u64::from(number))));
    }
    assert!(breaker.is_open());
    breaker
}

fn freed(only_watches: bool) -> Freed {
    Freed { at: at(60), ramp: 10 * SECOND, only_watches }
}

#[test]
fn the_end_of_an_order_begins_one_ramp() {
    let mut breaker = Breaker::default();
    for _ in 0..2 {
        breaker.free(freed(false), 0);
        breaker.pace();
    }
    let Standing::Ramp { since, until, started, .. } = breaker.standing(at(61)) else {
        panic!("{breaker:?}")
    };
    assert_eq!((since, until, started, breaker.mark()), (at(60), at(70), 2, 1));
}

#[test]
fn what_a_breaker_has_seen_outlives_an_order_where_it_has_a_say() {
    let mut breaker = died(Breaker::default(), at(20));
    let before = breaker.clone();
    breaker.free(freed(false), 0);
    assert_eq!(breaker, before);
}

#[test]
fn one_that_only_watches_goes_by_an_order_unless_it_has_seen_more() {
    // Long before the order ended, and just before.
    for from in [at(20), Timestamp::from_micros(59_975_000)] {
        let mut breaker = died(Breaker::default(), from);
        breaker.free(freed(true), 0);
        assert!(matches!(breaker.standing(at(61)), Standing::Ramp { .. }), "dead from {from}");
        assert_eq!(breaker.episodes().list.last().and_then(|it| it.until), Some(at(70)));
    }

    let mut breaker = died(Breaker::default(), at(61));
    let before = breaker.clone();
    breaker.free(freed(true), 0);
    assert_eq!(breaker, before, "it opened after the order had ended");
}
