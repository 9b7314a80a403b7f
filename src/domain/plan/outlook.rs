//! How a step looks to a worker that waits for it.

use super::{Now, Reason, Terms, ask_again, is_overdue, limits, order, run, standing, wait};
use crate::domain::{
    decision::{Decision, Verdict},
    record::{Record, State},
    time::Timestamp,
};

/// How a step looks to a worker that waits for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlook {
    /// The decision as it stands.
    pub decision: Decision,
    /// When a begin will have another answer than to wait.
    pub ready: Readiness,
}

/// When a begin will have another answer than to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Now.
    Now,
    /// At this instant, unless the step changes before.
    At(Timestamp),
    /// When a target of the step is no longer paused: at this instant, if one is
    /// known.
    Resumed(Option<Timestamp>),
    /// When the step has changed.
    Changed,
}

/// How a step looks at `now`.
#[must_use]
pub fn outlook(terms: &Terms<'_>, record: &Record, now: Now) -> Outlook {
    if let Some(decision) = run::over(terms, record, now) {
        return Outlook { decision, ready: Readiness::Now };
    }
    if let Some(decision) = order::paused(terms, record, now) {
        let ready = match decision.settled.verdict {
            Verdict::Wait(Some(until)) => Readiness::At(until),
            _ => Readiness::Changed,
        };
        return Outlook { decision, ready };
    }
    let (decision, ready) = match &record.state {
        State::Waiting { due } if now.at < *due => {
            let decision = limits::refused_before(terms, record, now)
                .unwrap_or_else(|| wait(terms, record, now, Some(*due), Reason::NotDue));
            (decision, Readiness::At(*due))
        }
        State::Waiting { .. } => match limits::paused(terms, record, now) {
            Some(decision) => {
                let until = match decision.settled.verdict {
                    Verdict::Wait(until) => until,
                    _ => None,
                };
                (decision, Readiness::Resumed(until))
            }
            None => (standing(terms, record, now), Readiness::Now),
        },
        _ if is_overdue(record, now) => (standing(terms, record, now), Readiness::Now),
        State::Running { lease_until } => {
            let until = ask_again(*lease_until, now);
            (wait(terms, record, now, Some(until), Reason::InProgress), Readiness::At(until))
        }
        State::Stopping { at, .. } => {
            (wait(terms, record, now, Some(*at), Reason::Stopping), Readiness::At(*at))
        }
        State::Held(hold) => {
            let ready = hold.until.map_or(Readiness::Changed, Readiness::At);
            (standing(terms, record, now), ready)
        }
        State::Over { .. } => (standing(terms, record, now), Readiness::Now),
    };
    Outlook { decision, ready }
}
