//! Runs, as the model has them. A run is kept like a step, under a policy of its own,
//! and does not touch its steps: each carries the attempt of the run that its counters
//! belong to, and finds out with the next begin that there has been another one.

use super::{Judge, Model, Place, Step, bound, policies::Plain};
use crate::history::{Begin, Call, Observed, Op, Problem, RUN, Seen};

/// A policy of runs, twice.
pub struct RunCase {
    /// As people write it.
    pub yaml: &'static str,
    /// As the model reads it.
    pub plain: fn() -> PlainRun,
}

/// A policy of runs as the model reads it.
#[derive(Clone)]
pub struct PlainRun {
    /// What holds for its own attempts.
    pub policy: Plain,
    pub for_steps: ForSteps,
    /// A run that failed because of a step is not tried again.
    pub ignores_steps: bool,
}

/// What a policy of runs says about their steps.
#[derive(Clone, Copy, Default)]
pub struct ForSteps {
    /// Those that succeeded run again as well.
    pub all_again: bool,
    /// Counters go on when the run is tried again.
    pub carries: bool,
}

pub const RUNS: [RunCase; 3] = [
    RunCase {
        yaml: "{max_retries: 3, backoff: {fixed: {delay: 2s}}}",
        plain: || PlainRun {
            policy: Plain {
                max_retries: Some(3),
                backoff: |_, _| Some((2_000_000, 2_000_000)),
                ..Plain::default()
            },
            for_steps: ForSteps::default(),
            ignores_steps: false,
        },
    },
    RunCase {
        yaml: "{max_elapsed: 20m, run: {resume: all_steps, step_counters: carry}}",
        plain: || PlainRun {
            policy: Plain { max_elapsed: Some(1_200_000_000), ..Plain::default() },
            for_steps: ForSteps { all_again: true, carries: true },
            ignores_steps: false,
        },
    },
    RunCase {
        yaml: "{max_retries: 2, reset_after: 1m, run: {step_counters: carry, ignore_step_failures: true}}",
        plain: || PlainRun {
            policy: Plain {
                max_retries: Some(2),
                reset_after: Some(60_000_000),
                ..Plain::default()
            },
            for_steps: ForSteps { all_again: false, carries: true },
            ignores_steps: true,
        },
    },
];

/// What holds for a run that was first heard of without a policy.
pub fn not_retried() -> Plain {
    Plain { max_retries: Some(0), max_crash_retries: 0, ..Plain::default() }
}

/// What a step finds of its run.
#[derive(Clone, Copy)]
pub struct Told {
    pub attempt: u32,
    /// It is over, or told to be.
    pub is_over: bool,
    /// When it ends whatever happens.
    pub ends_by: Option<u64>,
    pub for_steps: ForSteps,
    /// It is not forgotten yet.
    pub is_known: bool,
}

impl Model {
    /// What the step finds of its run, where it belongs to one.
    pub(super) fn told(&self, op: &Op, known: Option<&Step>) -> Option<Told> {
        let said = if let Call::Begin { said, .. } = &op.call { said.of_run } else { 0 };
        let of_run = known.map_or(0, |step| step.of_run);
        if op.step == RUN || said.max(of_run) == 0 {
            return None;
        }
        let Some(run) = self.steps.get(&RUN) else {
            let (is_over, is_known, ends_by) = (true, false, None);
            let for_steps = ForSteps::default();
            let told = Told { attempt: of_run, is_over, ends_by, for_steps, is_known };
            return (of_run > 0).then_some(told);
        };
        let for_steps = match run.is_not_retried {
            true => ForSteps::default(),
            false => self.of_run.for_steps,
        };
        Some(Told {
            attempt: run.attempts(),
            is_over: matches!(run.place, Place::Over(..)) || run.is_to_stop,
            ends_by: bound(run, None, None, op.at).map(|(by, _)| by),
            for_steps,
            is_known: true,
        })
    }
}

impl Judge<'_> {
    pub(super) fn run_is_over(&self) -> bool {
        self.run.is_some_and(|run| run.is_over)
    }

    /// What the run has to say to who asks for an attempt; None lets it be.
    pub(super) fn of_its_run(
        &self,
        known: &mut Option<Step>,
        said: &Begin,
        at: u64,
    ) -> Option<Observed> {
        let begun = self.run.map_or(0, |run| run.attempt);
        if said.of_run > begun {
            return Some(Observed::Failed(Problem::RunAttempt(begun)));
        }
        let run = self.run?;
        let reason = if run.is_over {
            "RUN_OVER"
        } else if (1..run.attempt).contains(&said.of_run) {
            "RUN_SUPERSEDED"
        } else {
            return None;
        };
        let refused = |step: &Step| step.decision("STOP", None, reason, "", at);
        let refusal = match known {
            None => refused(&Step::new(at)),
            Some(step) => match step.place {
                Place::Over(..) => step.standing(),
                // It would be due for ever.
                Place::Waiting(due) if run.is_over && due <= at => self.ends_with_run(step, at),
                _ => refused(step),
            },
        };
        Some(Observed::Refused(refusal))
    }

    fn ends_with_run(&self, step: &mut Step, at: u64) -> Seen {
        let decision = step.give_up("RUN_OVER", "", at);
        step.later = Some(decision.clone());
        decision
    }

    /// The step as the latest attempt of its run finds it.
    pub(super) fn found(&self, mut step: Step, at: u64) -> Step {
        let tried_again = self.run.filter(|run| !run.is_over && run.attempt > step.of_run);
        let Some(run) = tried_again else { return step };
        let is_over = matches!(step.place, Place::Over(..));
        if matches!(step.place, Place::Running(_)) {
            return step;
        }
        if step.of_run == 0 && (run.attempt == 1 || !is_over) {
            step.of_run = run.attempt;
            return step;
        }
        let starts_again = match step.place {
            Place::Over("SUCCEEDED" | "SKIPPED", _) => run.for_steps.all_again,
            Place::Waiting(_) => false,
            _ => true,
        };
        if is_over && !starts_again {
            return step;
        }
        step.of_run = run.attempt;
        step.leave_hold(at);
        if !run.for_steps.carries {
            step.begin_counters_anew();
            step.begin_time_anew(at);
        }
        if starts_again {
            step.try_now("ORDERED", at);
        }
        step
    }
}
