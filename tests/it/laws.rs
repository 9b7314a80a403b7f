//! The laws of a step's life, held against what was seen of any history.
//!
//! An independent checker: it knows neither the rule nor the model, imports
//! nothing from the crate, and needs no policy. A merged history of many
//! instances will do.

use std::collections::BTreeMap;

use crate::history::{Call, Granted, Name, Observed, Op, Problem, RUN, Seen, Status, Wanted};

/// Checks a history in the order in which it was decided.
///
/// # Errors
/// The first law that is broken, and where.
pub fn check(history: &[(Op, Observed)]) -> Result<(), String> {
    let mut steps: BTreeMap<u8, Life> = BTreeMap::new();
    for (index, (op, observed)) in history.iter().enumerate() {
        let run = steps.get(&RUN).map_or(Run::default(), |run| Run {
            attempts: run.attempts.len() as u32,
            is_over: run.is_over,
        });
        let life = steps.entry(op.step).or_default();
        life.sees(op, observed, run)
            .map_err(|law| format!("call {index}, {op:?} -> {observed:?}: {law}"))?;
    }
    Ok(())
}

/// What is known of the run of a step.
#[derive(Clone, Copy, Default)]
struct Run {
    attempts: u32,
    is_over: bool,
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
    /// Nothing may be granted before this instant.
    paused_until: u64,
    /// The attempt of its run in which it began last; 0 before it belongs to one.
    of_run: u32,
    /// Whether a begin that was refused has told that it belongs to one.
    is_told_of_run: bool,
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
    fn sees(&mut self, op: &Op, observed: &Observed, run: Run) -> Result<(), String> {
        match observed {
            Observed::Granted(grant) => self.granted(op, grant, run),
            Observed::Reported { attempt, status, replayed, decision } => {
                self.reported(op, *attempt, *status, *replayed, decision)
            }
            Observed::Refused(decision) => {
                sound(decision, op.at)?;
                self.is_told_of_run |= tells_run(&op.call) > 0;
                // Where the run speaks, its end is not the step's: it may be reopened. And
                // a step without an attempt is not remembered.
                let is_of_run = matches!(&*decision.reason, "RUN_OVER" | "RUN_SUPERSEDED");
                if !is_of_run && !self.attempts.is_empty() {
                    self.follows(decision);
                }
                Ok(())
            }
            Observed::Held { lease_until, .. } => {
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
                self.paused_until = match &op.call {
                    Call::Order { wanted: Wanted::Pause(span), .. } => {
                        span.map_or(u64::MAX, |span| op.at + span)
                    }
                    // What time ended unseen, and its pause with it, a retry reopens.
                    Call::Order { wanted: Wanted::Resume | Wanted::Retry, .. } => 0,
                    _ if self.is_over => 0,
                    _ => self.paused_until,
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

    fn granted(&mut self, op: &Op, grant: &Granted, run: Run) -> Result<(), String> {
        let Call::Begin { said, .. } = &op.call else {
            return Err("only who asks is granted an attempt".to_owned());
        };
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
        let is_of_run = self.of_run.max(said.of_run) > 0;
        law(said.of_run <= run.attempts, "nothing starts for an attempt of a run that has not")?;
        law(
            said.of_run == 0 || said.of_run == run.attempts,
            "nothing starts for an attempt of a run that another one followed",
        )?;
        law(!is_of_run || !run.is_over, "nothing starts of a run that is over")?;
        let may_be_of_run = is_of_run || self.is_told_of_run;
        let is_reopened = may_be_of_run && run.attempts > self.of_run.max(1);
        law(!self.is_over || is_reopened, "nothing is granted after a terminal state")?;
        // What time ended unseen, its pause ended with.
        let is_paused = op.at < self.paused_until && !is_reopened;
        law(!is_paused, "nothing is granted while the step is paused")?;
        law(grant.attempt as usize == self.attempts.len() + 1, "attempt numbers are dense")?;
        law(grant.fence > self.fence, "fences only grow")?;
        law(
            grant.began_at == op.at && grant.lease_until > op.at,
            "a lease begins now and ends later",
        )?;
        law(op.at >= self.due, "nothing is granted before it is due")?;
        law(grant.ends_by.is_none_or(|bound| op.at <= bound), "nothing is granted past a bound")?;
        self.fence = grant.fence;
        (self.is_over, self.paused_until) = (false, 0);
        if is_of_run {
            self.of_run = self.of_run.max(run.attempts);
        }
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
        if self.is_over {
            self.paused_until = 0;
        }
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

/// The attempt of the run that a call tells; 0 where it tells none.
fn tells_run(call: &Call) -> u32 {
    if let Call::Begin { said, .. } = call { said.of_run } else { 0 }
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
