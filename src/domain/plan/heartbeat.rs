//! A worker is still at it.

use super::{Answer, Draft, Now, Plan, Refusal, Terms, run};
use crate::domain::{
    event::Heartbeat,
    record::{Record, State},
};

pub(super) fn plan(
    terms: &Terms<'_>,
    record: Option<Record>,
    heartbeat: Heartbeat,
    now: Now,
) -> Result<Plan, Refusal> {
    let mut record = record.ok_or(Refusal::UnknownStep)?;
    let State::Running { lease_until } = record.state else {
        return Ok(Plan::Stands(Answer::Lost));
    };
    if heartbeat.fence != record.fence && !planted!("fence-not-compared") {
        return Ok(Plan::Stands(Answer::Lost));
    }
    // Never shorter than it was: a beat that was delayed on its way takes
    // nothing from the one that overtook it.
    let lease = heartbeat.lease.unwrap_or(record.lease);
    let lease_until = lease_until.max(now.at.plus(lease));
    record.state = State::Running { lease_until };
    (record.is_silent, record.silent_claims) = (false, 0);
    if let Some(progress) = heartbeat.progress.filter(|progress| record.progress < *progress) {
        (record.progress, record.has_moved) = (progress, true);
    }
    let cancel = record.is_cancel_requested() || run::is_over(terms);
    Ok(Draft::new(terms, record, Answer::Held { lease_until, cancel }).into_plan())
}
