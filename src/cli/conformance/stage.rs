//! A step on virtual time, decided by the production rule.

use std::time::Duration;

use crate::domain::{
    backoff::Window,
    decision::{Decision, Settled},
    draw::Salt,
    event::{AttemptName, Deadline, Event, Report, StepTerms},
    failure::{Failure, FailureClass},
    id::StepKey,
    namespace::Settings,
    plan::{self, Answer, Now, Plan, Terms},
    policy::{Policy, spec::HoldAnswer},
    record::{PolicyChoice, Record, State},
    time::Timestamp,
};

/// The start of attempt 1.
pub const START: Timestamp = Timestamp::from_micros(1_750_000_000_000_000);

/// A step of one policy.
pub struct Stage<'a> {
    policy: &'a Policy,
    run: String,
    deadline: Option<Timestamp>,
    record: Option<Record>,
}

/// What was answered to a failure.
pub struct Told {
    /// The decision.
    pub decision: Decision,
    /// The waits between which it was drawn, when the backoff decided.
    pub window: Option<Window>,
    /// Whether it left the count of what never counts as it was.
    pub counted: bool,
}

impl<'a> Stage<'a> {
    /// A step that nobody has heard of.
    pub fn new(policy: &'a Policy, run: impl Into<String>, deadline: Option<Timestamp>) -> Self {
        Self { policy, run: run.into(), deadline, record: None }
    }

    /// The number of the next attempt.
    pub fn next_number(&self) -> u32 {
        self.record.as_ref().map_or(1, |record| record.counters.attempts.saturating_add(1))
    }

    /// Whether another attempt is awaited.
    pub fn is_waiting(&self) -> bool {
        self.record.as_ref().is_none_or(|record| matches!(record.state, State::Waiting { .. }))
    }

    /// How the latest attempt failed, as the record has it.
    pub fn latest_class(&self) -> Option<FailureClass> {
        self.record.as_ref()?.latest()?.end.as_ref()?.outcome.class()
    }

    /// The decision in force.
    pub fn standing(&self) -> Option<&Settled> {
        self.record.as_ref()?.decision()
    }

    /// The next attempt fails. It began when it was due.
    pub fn fail(&mut self, failure: Failure, at: Timestamp) -> Result<Told, String> {
        let began = match self.record.as_ref().map(|record| &record.state) {
            None => START,
            Some(State::Waiting { due }) => *due,
            Some(_) => at,
        };
        let number = self.next_number();
        let duration = failure.duration.or(Some(at - began));
        let event = Event::Report(Report {
            attempt: AttemptName::Number(number),
            payload: u64::from(number),
            failure: Some(Failure { duration, ..failure }),
            step: StepTerms { deadline: self.deadline.map(Deadline::At), ..StepTerms::default() },
        });
        let uncounted = self.uncounted();
        match self.happens(&event, at)? {
            (Answer::Reported(reported), window) => {
                let counted = self.uncounted() == uncounted;
                Ok(Told { decision: reported.decision, window, counted })
            }
            (other, _) => Err(format!("a report was answered {other:?}")),
        }
    }

    fn uncounted(&self) -> u32 {
        self.record.as_ref().map_or(0, |record| record.counters.uncounted)
    }

    /// Time passes to the instant at which a verdict is given.
    pub fn passes(&mut self, until: Timestamp) -> Result<(), String> {
        self.happens(&Event::Tick, until).map(|_| ())
    }

    /// A person answers a hold: as its default answer, taken now.
    pub fn answered(&mut self, answer: HoldAnswer, at: Timestamp) -> Result<Settled, String> {
        if let Some(State::Held(hold)) = self.record.as_mut().map(|record| &mut record.state) {
            hold.until = Some(at);
            hold.default_answer = answer;
        }
        self.passes(at)?;
        self.standing().cloned().ok_or_else(|| "no decision is left".to_owned())
    }

    fn happens(
        &mut self,
        event: &Event,
        at: Timestamp,
    ) -> Result<(Answer, Option<Window>), String> {
        // The systems know no ceilings of a namespace.
        let settings = Settings {
            max_retries_ceiling: u32::MAX,
            max_elapsed_ceiling: Duration::MAX,
            ..Settings::default()
        };
        let terms = Terms {
            policy: self.policy,
            revision: 1,
            choice: &PolicyChoice::Default,
            settings: &settings,
            salt: Salt(*b"the four systems"),
            bounds: &[],
            run: None,
        };
        let key = StepKey { namespace: "default", run: &self.run, step: "step" };
        match plan::plan(&terms, &key, self.record.clone(), event, Now::at(at))
            .map_err(|refusal| refusal.to_string())?
        {
            Plan::Write(draft) => {
                let window = draft.pending().and_then(plan::Pending::window);
                let admitted = draft.admitted();
                let settlement = plan::settle(*draft, &admitted);
                self.record = Some(settlement.record);
                Ok((settlement.answer, window))
            }
            Plan::Stands(answer) => Ok((answer, None)),
            Plan::Purge => Err("the step was forgotten".to_owned()),
        }
    }
}

/// The instant so many seconds after the start.
pub fn instant(after_s: f64) -> Timestamp {
    START.plus(seconds(after_s))
}

/// Seconds to the microsecond, which is as fine as instants are.
pub fn seconds(s: f64) -> Duration {
    let rounded = (s * 1e6).round() / 1e6;
    Duration::try_from_secs_f64(rounded).unwrap_or(if s > 0.0 {
        Duration::MAX
    } else {
        Duration::ZERO
    })
}
