//! A permit has come free for a step that stands in line.

use super::{Answer, Draft, Now, Plan, Terms, is_in_line};
use crate::domain::{
    decision::Verdict,
    record::{Record, State},
};

/// The step is to come now. The time in which it has to, or it loses its place,
/// runs from now as well: a worker that is gone holds up nobody for long.
pub(super) fn plan(terms: &Terms<'_>, mut record: Record, now: Now) -> Plan {
    match record.state {
        State::Waiting { due } if is_in_line(&record) && now.at < due => {}
        _ => return Plan::Stands(Answer::Ticked),
    }
    record.state = State::Waiting { due: now.at };
    // A person's order has no such instant, and stands.
    if let Some(settled) = &mut record.standing
        && let Verdict::Wait(Some(until)) = &mut settled.verdict
    {
        *until = now.at;
    }
    Draft::new(terms, record, Answer::Ticked).into_plan()
}
