//! Why a step waits, as it is asked and told.

use super::{
    answer::{self, Context, instant},
    check::{Check, Invalid},
};
use crate::{
    domain::{
        decision::Constraint,
        id::{StepKey, StepName},
        plan::{Explanation, Stands},
        time::Timestamp,
    },
    proto,
    service::Explained,
};

/// Reads a call of `ExplainStep`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn request(request: proto::ExplainStepRequest) -> Result<StepName, Invalid> {
    let mut check = Check::default();
    let name = check.step(request.namespace, request.run, request.step);
    check.finish(name)
}

/// The answer to `ExplainStep`.
#[must_use]
pub fn response(key: StepKey<'_>, explained: Explained) -> proto::ExplainStepResponse {
    let Explained { view, explanation, now } = explained;
    let context = Context { at: view.at, policy: view.policy.stamp() };
    let step = answer::step(key, &view.record, &view.evidence, view.ends_by, context);
    proto::ExplainStepResponse {
        step: Some(step),
        explanation: explanation.map(|explanation| to_proto(explanation, now.at)),
    }
}

fn to_proto(explanation: Explanation, at: Timestamp) -> proto::Explanation {
    let Explanation { starts_at, constraints, ends_by } = explanation;
    proto::Explanation {
        starts_at: starts_at.map(instant),
        constraints: constraints.into_iter().map(stands).collect(),
        ends_by: ends_by.map(|(at, _)| instant(at)),
        ends_by_reason: ends_by.map_or(0, |(_, reason)| answer::reason_number(reason)),
        at: Some(instant(at)),
    }
}

fn stands(stands: Stands) -> proto::StandingConstraint {
    let Stands { constraint, before, order, without, .. } = stands;
    let (reason, by) = order.map(|order| (order.reason, order.by)).unwrap_or_default();
    proto::StandingConstraint {
        constraint: Some(told(constraint)),
        before,
        without: without.map(instant),
        reason,
        by,
    }
}

/// A constraint, without an instant that nobody can tell.
fn told(constraint: Constraint) -> proto::Constraint {
    let earliest = (constraint.earliest < Timestamp::NEVER).then(|| instant(constraint.earliest));
    proto::Constraint { earliest, ..answer::constraint(constraint) }
}
