//! The laws of a step's life, held against what was seen of any history.
//!
//! An independent checker: it knows neither the rule nor the model, imports
//! nothing from the crate, and needs no policy. A merged history of many
//! instances will do.

use std::collections::BTreeMap;

use crate::history::{Call, Granted, Name, Observed, Op, Problem, Seen, Status, Wanted};

/// Checks a history in the order in which it was decided.
///
/// # Errors
/// The first law that is broken, and where.
pub fn check(history: &[(Op, Observed)]) -> Result<(), String> {
    let mut steps: BTreeMap<u8, Life> = BTreeMap::new();
    for (index, (op, observed)) in history.iter().enumerate() {
        let life = steps.entry(op.step).or_default();
        life.sees(op, observed)
            .map_err(|law| format!("call {index}, {op:?} -> {observed:?}: {law}"))?;
    }
    Ok(())
}

/// What is known of a step.
#[derive(Default)]
struct Life {
    /// Attempts begun, the first being number 1.
    attempts: Vec<Attempt>,
    /// The latest fence that was granted, over every life of this name.
    fence: u64,
    /// Nothing may be granted any more.
    is_over: bool,
    /// Nothing may be granted for now.
    is_paused: bool,
    /// Not before this instant may the next attempt be granted.
    due: u64,
}

#[derive(Default)]
struct Attempt {
    grant: Option<Granted>,
    /// Its outcome and the decision about it.
    outcome: Option<(Status, Seen)>,
}

impl Life {
    fn sees(&mut self, op: &Op, observed: &Observed) -> Result<(), String> {
        match observed {
            Observed::Granted(grant) => self.granted(op, grant),
            Observed::Reported { attempt, status, replayed, decision } => {
                self.reported(op, *attempt, *status, *replayed, decision)
            }
            Observed::Refused(decision) => {
                sound(decision, op.at)?;
                self.follows(decision);
                Ok(())
            }
            Observed::Held { lease_until } => {
                law(*lease_until > op.at, "a lease that is held ends later")
            }
            Observed::Forgotten => {
                *self = Self { fence: self.fence, ..Self::default() };
                Ok(())
            }
            Observed::Ordered { replayed: true, .. } => Ok(()),
            Observed::Ordered { after, .. } => {
                // Who orders something knows better than what was told before.
                self.is_over = matches!(*after, "SUCCEEDED" | "FAILED" | "SKIPPED" | "CANCELED");
                self.due = 0;
                self.is_paused = match &op.call {
                    Call::Order { wanted: Wanted::Pause, .. } => true,
                    // What time ended unseen, and its pause with it, a retry reopens.
                    Call::Order { wanted: Wanted::Resume | Wanted::Retry, .. } => false,
                    _ => self.is_paused && !self.is_over,
                };
                Ok(())
            }
            Observed::Failed(Problem::AttemptGap(next)) => law(
                *next as usize == self.attempts.len() + 1,
                "attempt numbers are dense, and the next one is told",
            ),
            Observed::Lost | Observed::Ticked | Observed::Failed(_) => Ok(()),
        }
    }

    fn granted(&mut self, op: &Op, grant: &Granted) -> Result<(), String> {
        law(matches!(op.call, Call::Begin { .. }), "only who asks is granted an attempt")?;
        if grant.replayed {
            let attempt = self.attempt(grant.attempt)?;
            let first = attempt.grant.as_ref().ok_or("a replayed grant was granted before")?;
            let told = |grant: &Granted| (grant.fence, grant.began_at, grant.counters.clone());
            law(told(first) == told(grant), "a replay is equal")?;
            return law(
                attempt.outcome.is_none() || grant.lease_until <= op.at,
                "an attempt that has ended holds no lease",
            );
        }
        law(!self.is_over, "nothing is granted after a terminal state")?;
        law(!self.is_paused, "nothing is granted while the step is paused")?;
        law(grant.attempt as usize == self.attempts.len() + 1, "attempt numbers are dense")?;
        law(grant.fence > self.fence, "fences only grow")?;
        law(
            grant.began_at == op.at && grant.lease_until > op.at,
            "a lease begins now and ends later",
        )?;
        law(op.at >= self.due, "nothing is granted before it is due")?;
        law(grant.ends_by.is_none_or(|bound| op.at <= bound), "nothing is granted past a bound")?;
        self.fence = grant.fence;
        self.attempts.push(Attempt { grant: Some(grant.clone()), outcome: None });
        Ok(())
    }

    fn reported(
        &mut self,
        op: &Op,
        number: u32,
        status: Status,
        replayed: bool,
        decision: &Seen,
    ) -> Result<(), String> {
        let Call::Report { name, failure } = &op.call else {
            return Err("only a report is answered as one".to_owned());
        };
        if replayed {
            let (before, seen) = self
                .attempt(number)?
                .outcome
                .as_ref()
                .ok_or("a replayed report was recorded before")?;
            return law(*before == status && equal(seen, decision), "a replay is equal");
        }
        sound(decision, op.at)?;
        match status {
            Status::Stale => return Ok(()),
            Status::Recorded => {
                if number as usize == self.attempts.len() + 1 {
                    law(!matches!(name, Name::Fence(_)), "a fence never begins implicitly")?;
                    law(!self.is_over, "nothing is begun after a terminal state")?;
                    self.attempts.push(Attempt::default());
                }
                law(
                    number as usize == self.attempts.len(),
                    "attempt numbers are dense, and the latest one is recorded",
                )?;
                law(self.attempt(number)?.outcome.is_none(), "an attempt has one outcome")?;
            }
            Status::Late => {
                law(
                    number as usize == self.attempts.len(),
                    "a late report is about the latest attempt",
                )?;
                law(self.attempt(number)?.outcome.is_none(), "a crash is replaced once at most")?;
            }
        }
        if let Name::Fence(fence) = name {
            let granted = self.attempt(number)?.grant.as_ref().map(|grant| grant.fence);
            law(granted == Some(*fence), "a fence names the attempt that it was granted for")?;
        }
        law(decision.counters.attempts as usize == self.attempts.len(), "attempts are counted")?;
        law(failure.is_some() || decision.verdict == "DONE", "a success is followed by nothing")?;
        self.attempt(number)?.outcome = Some((status, decision.clone()));
        self.follows(decision);
        Ok(())
    }

    /// What a decision allows from now on.
    fn follows(&mut self, decision: &Seen) {
        self.is_over |= matches!(decision.verdict, "STOP" | "DONE");
        self.is_paused &= !self.is_over;
        self.due = match decision.verdict {
            "RETRY" => decision.at.unwrap_or(0),
            _ => 0,
        };
    }

    fn attempt(&mut self, number: u32) -> Result<&mut Attempt, String> {
        let index = (number as usize).checked_sub(1).ok_or("the first attempt is number 1")?;
        self.attempts.get_mut(index).ok_or_else(|| format!("attempt {number} was never begun"))
    }
}

/// What every decision keeps, by itself.
fn sound(decision: &Seen, at: u64) -> Result<(), String> {
    law(decision.decided_at <= at, "nothing is decided later than now")?;
    law(
        decision.verdict != "RETRY" || decision.at >= Some(decision.decided_at),
        "a retry has an instant, and not one in the past",
    )?;
    law(
        !matches!(decision.verdict, "STOP" | "DONE") || decision.at.is_none(),
        "an ending has no instant",
    )?;
    law(
        (decision.verdict == "HOLD") != decision.hold_answers.is_empty(),
        "a hold, and nothing else, can be answered",
    )?;
    let fits = match decision.verdict {
        "WAIT" => {
            matches!(
                &*decision.reason,
                "NOT_DUE" | "IN_PROGRESS" | "STOPPING" | "EXCLUDED_HOST" | "PAUSED"
            )
        }
        "DONE" => matches!(&*decision.reason, "SUCCEEDED" | "SKIPPED"),
        "HOLD" => matches!(&*decision.reason, "EXHAUSTED" | "HELD_BY_RULE"),
        _ => !matches!(
            &*decision.reason,
            "NOT_DUE"
                | "IN_PROGRESS"
                | "STOPPING"
                | "EXCLUDED_HOST"
                | "PAUSED"
                | "SUCCEEDED"
                | "SKIPPED"
                | "EXHAUSTED"
                | "HELD_BY_RULE"
        ),
    };
    law(fits, "a reason fits its verdict")
}

/// Equal in what a replay has to be equal in.
fn equal(one: &Seen, other: &Seen) -> bool {
    let told = |seen: &Seen| {
        (
            seen.verdict,
            seen.at,
            seen.reason.clone(),
            seen.rule.clone(),
            seen.counters.clone(),
            seen.decided_at,
        )
    };
    told(one) == told(other)
}

fn law(holds: bool, law: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(law.to_owned()) }
}

mod tests {
    use super::*;
    use crate::history::{Begin, Counts, Failed};

    fn begin(at: u64, attempt: u32, fence: u64, replayed: bool) -> (Op, Observed) {
        let call = Call::Begin { request: 1, said: Begin::default() };
        let granted = Granted {
            attempt,
            fence,
            began_at: at,
            lease_until: at + 30,
            replayed,
            excluded_hosts: Vec::new(),
            ends_by: None,
            counters: Counts { attempts: attempt, ..Counts::default() },
        };
        (Op { at, step: 0, call }, Observed::Granted(granted))
    }

    fn report(
        at: u64,
        attempt: u32,
        fence: u64,
        status: Status,
        replayed: bool,
        decision: Seen,
    ) -> (Op, Observed) {
        let call = Call::Report { name: Name::Fence(fence), failure: Some(Failed::of("FAILURE")) };
        (Op { at, step: 0, call }, Observed::Reported { attempt, status, replayed, decision })
    }

    fn decision(verdict: &'static str, at: Option<u64>, reason: &str, attempts: u32) -> Seen {
        let counters = Counts { attempts, ..Counts::default() };
        Seen {
            verdict,
            at,
            reason: reason.to_owned(),
            rule: String::new(),
            counters,
            decided_at: 0,
            hold_answers: Vec::new(),
        }
    }

    fn retry(due: u64, attempts: u32) -> Seen {
        decision("RETRY", Some(due), "BACKOFF", attempts)
    }

    /// Each history is lawful up to its last call.
    #[test]
    fn every_broken_law_is_named() {
        use Status::{Late, Recorded};
        let stop = || decision("STOP", None, "RETRIES_SPENT", 1);
        for (expected, history) in [
            ("dense", vec![begin(0, 2, 5, false)]),
            ("fences only grow", vec![begin(0, 1, 5, false), begin(40, 2, 5, false)]),
            ("a replay is equal", vec![begin(0, 1, 5, false), begin(0, 1, 6, true)]),
            (
                "after a terminal state",
                vec![
                    begin(0, 1, 5, false),
                    report(1, 1, 5, Recorded, false, stop()),
                    begin(2, 2, 6, false),
                ],
            ),
            (
                "before it is due",
                vec![
                    begin(0, 1, 5, false),
                    report(1, 1, 5, Recorded, false, retry(9, 1)),
                    begin(8, 2, 6, false),
                ],
            ),
            (
                "one outcome",
                vec![
                    begin(0, 1, 5, false),
                    report(1, 1, 5, Recorded, false, retry(9, 1)),
                    report(2, 1, 5, Recorded, false, retry(9, 1)),
                ],
            ),
            (
                "replaced once",
                vec![
                    begin(0, 1, 5, false),
                    report(1, 1, 5, Late, false, retry(9, 1)),
                    report(2, 1, 5, Late, false, retry(9, 1)),
                ],
            ),
            (
                "a replay is equal",
                vec![
                    begin(0, 1, 5, false),
                    report(1, 1, 5, Recorded, false, retry(9, 1)),
                    report(2, 1, 5, Recorded, true, retry(10, 1)),
                ],
            ),
            (
                "a fence names",
                vec![begin(0, 1, 5, false), report(1, 1, 4, Recorded, false, retry(9, 1))],
            ),
            (
                "attempts are counted",
                vec![begin(0, 1, 5, false), report(1, 1, 5, Recorded, false, retry(9, 2))],
            ),
            (
                "fits its verdict",
                vec![
                    begin(0, 1, 5, false),
                    report(1, 1, 5, Recorded, false, decision("STOP", None, "NOT_DUE", 1)),
                ],
            ),
        ] {
            let (_, lawful) = history.split_last().unwrap();
            assert_eq!(check(lawful), Ok(()), "{expected}");
            let broken = check(&history).unwrap_err();
            assert!(broken.contains(expected), "{expected}: {broken}");
        }
    }
}
