//! The outage rule: failures that belong to an outage of their target burn none of
//! a step's retries.
//!
//! Nobody knows of an outage while its first steps fail. So it is lazy: at a
//! step's next decision what was counted is taken back, once.

use super::Terms;
use crate::domain::{
    decision::Counter,
    failure::{Failure, FailureClass},
    id::StepKey,
    limit::{Bound, breaker::mark_of},
    record::{End, Record},
    time::Timestamp,
};

/// Retries of a step that outages may take, at most: beyond it something else is
/// wrong.
pub const FORGIVEN_MAX: u32 = 100;

/// Whether a failure says something of a target.
pub(super) const fn is_of_target(class: FailureClass) -> bool {
    matches!(
        class,
        FailureClass::Transient
            | FailureClass::Timeout
            | FailureClass::Throttled
            | FailureClass::Error
    )
}

/// The target with a breaker that a failure is about: the one it names, or the
/// only one that the step has.
pub(super) fn at_fault<'a>(
    terms: &Terms<'a>,
    key: &StepKey<'_>,
    failure: &Failure,
) -> Option<&'a Bound> {
    if !is_of_target(failure.class) {
        return None;
    }
    if !failure.target.is_empty() {
        let mut bounds = terms.bounds.iter();
        let named = bounds.find(|bound| bound.is_of(&failure.target, key.run));
        return named.filter(|bound| bound.target.breaker.is_some());
    }
    only_target(terms).filter(|only| only.target.breaker.is_some())
}

/// The one target that bounds the step, if it is only one.
pub(super) fn only_target<'a>(terms: &Terms<'a>) -> Option<&'a Bound> {
    let mut targets = terms.bounds.iter().filter(|bound| !bound.is_run());
    targets.next().filter(|_| targets.next().is_none())
}

/// What is remembered of the target at fault.
pub(super) fn fault(terms: &Terms<'_>, key: &StepKey<'_>, failure: &Failure) -> u16 {
    at_fault(terms, key, failure).map_or(0, |bound| state_mark(&bound.state))
}

/// A state as a small number that is not 0.
fn state_mark(state: &str) -> u16 {
    #[expect(clippy::cast_possible_truncation, reason = "the lower half tells states apart")]
    let mark = mark_of(state) as u16;
    mark.max(1)
}

/// Whether a failure at this instant belongs to an outage of the target at fault.
pub(super) fn covers(terms: &Terms<'_>, fault: u16, at: Timestamp) -> bool {
    let is_here = |bound: &&Bound| bound.has_breaker() && state_mark(&bound.state) == fault;
    fault != 0
        && terms.bounds.iter().find(is_here).is_some_and(|bound| bound.episodes.cover(at))
        && !planted!("outage-not-forgiven")
}

/// A record without the retries that outages have burnt; None where they have
/// burnt none.
pub(super) fn forgiven(terms: &Terms<'_>, record: &Record) -> Option<Record> {
    if terms.bounds.iter().all(|bound| bound.episodes.list.is_empty()) {
        return None;
    }
    let is_burnt = |end: &End| {
        let is_counted = matches!(end.counted, Some(Counter::Retries | Counter::Rule(_)));
        is_counted && covers(terms, end.fault, end.at)
    };
    record.attempts.iter().filter_map(|attempt| attempt.end.as_ref()).find(|end| is_burnt(end))?;
    let mut record = record.clone();
    let Record { attempts, counters, .. } = &mut record;
    for end in attempts.iter_mut().filter_map(|attempt| attempt.end.as_mut()) {
        if is_burnt(end)
            && let Some(counted) = end.counted.replace(Counter::Forgiven)
        {
            counters.uncount(&counted);
            counters.count(&Counter::Forgiven);
        }
    }
    Some(record)
}
