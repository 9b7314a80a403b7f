//! Orders about the health of a target, as they are given and told.

use super::{
    answer::instant,
    check::{Check, Invalid},
    target::{TargetName, by_whom, target_name},
};
use crate::{
    domain::limit::{Forced, ForcedState, forced::FORCED_MAX},
    proto::{self, ForcedBreakerState},
    service::{ForceOrder, PauseEnd},
};

/// Reads a call of `ForceBreaker`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn force(request: proto::ForceBreakerRequest) -> Result<(TargetName, ForceOrder), Invalid> {
    let mut check = Check::default();
    let state = state(&mut check, request.state);
    let name = target_name(&mut check, request.namespace, request.name);
    by_whom(&mut check, &request.reason, &request.by);
    let end = end(&mut check, request.end);
    let order = ForceOrder { state, reason: request.reason, by: request.by, end };
    check.finish((name, order))
}

fn state(check: &mut Check, given: i32) -> ForcedState {
    match ForcedBreakerState::try_from(given) {
        Ok(ForcedBreakerState::Open) => ForcedState::Open,
        Ok(ForcedBreakerState::Closed) => ForcedState::Closed,
        Ok(ForcedBreakerState::Unspecified) | Err(_) => {
            check.refuse("state", given.to_string(), "accepted: OPEN or CLOSED");
            ForcedState::Closed
        }
    }
}

fn end(check: &mut Check, given: Option<proto::force_breaker_request::End>) -> PauseEnd {
    use proto::force_breaker_request::End;
    let none = PauseEnd::After(FORCED_MAX);
    match given {
        Some(End::Until(until)) => check.instant("until", Some(until)).map_or(none, PauseEnd::At),
        Some(End::ForceFor(span)) => {
            let span = check.positive_span("force_for", Some(span));
            if let Some(long) = span.filter(|span| FORCED_MAX < *span) {
                check.refuse("force_for", format!("{long:?}"), "accepted: up to seven days");
            }
            span.map_or(none, PauseEnd::After)
        }
        None => {
            check.required("until");
            none
        }
    }
}

/// Reads a call of `ReleaseBreaker`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn release(request: proto::ReleaseBreakerRequest) -> Result<TargetName, Invalid> {
    let mut check = Check::default();
    let name = target_name(&mut check, request.namespace, request.name);
    check.finish(name)
}

/// Reads a call of `LiftCooldown`: the target and the run.
///
/// # Errors
/// Everything that is wrong with it.
pub fn lift(request: proto::LiftCooldownRequest) -> Result<(TargetName, String), Invalid> {
    let proto::LiftCooldownRequest { namespace, name, run } = request;
    super::target::usage(proto::GetTargetUsageRequest { namespace, name, run })
}

/// An order about a breaker, as it is told.
#[must_use]
pub fn to_proto(forced: &Forced) -> proto::ForcedBreaker {
    let state = match forced.state {
        ForcedState::Open => ForcedBreakerState::Open,
        ForcedState::Closed => ForcedBreakerState::Closed,
    };
    proto::ForcedBreaker {
        state: state as i32,
        reason: forced.reason.clone(),
        by: forced.by.clone(),
        since: Some(instant(forced.since)),
        until: Some(instant(forced.until)),
    }
}
