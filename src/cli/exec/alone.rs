//! Decides while no service answers: by the service's own rule, over what this
//! process has seen of the step. No other process is known here, so nothing
//! that several share is held to.

use jiff::Timestamp as Instant;

use super::args::Job;
use crate::{
    chance,
    cli::{error::CliError, policy_flags::PolicyFlags},
    domain::{
        draw::Salt,
        event::Event,
        namespace::Settings,
        plan::{self, Answer, Now, Plan, Terms},
        policy::Policy,
        record::{PolicyChoice, Record},
        time::Timestamp,
    },
    grpc::convert::{
        Invalid,
        answer::{self, Context},
        request,
    },
    proto::{BeginAttemptRequest, BeginAttemptResponse, Counters, Decision, ReportAttemptRequest},
    service::PolicyStamp,
};

/// Retries that are granted here when the caller gave no policy.
const BUILT_IN_RETRIES: u32 = 3;

/// What is told of the policy: nothing that a service would know.
const STAMP: PolicyStamp<'static> =
    PolicyStamp { name: "", revision: 0, digest: "", is_built_in: false };

/// The rule, and the step as seen from here.
pub struct Alone {
    policy: Policy,
    salt: Salt,
    /// `None` while the service knows the step better.
    record: Option<Record>,
}

impl Alone {
    /// Decides by the policy of the command line; a named one is not known
    /// here, so the built-in one takes its place.
    pub fn new(job: &Job) -> Result<Self, CliError> {
        let built_in =
            PolicyFlags { max_retries: Some(BUILT_IN_RETRIES), ..PolicyFlags::default() };
        let flags = if job.inline.is_some() { &job.inline_flags } else { &built_in };
        Ok(Self { policy: flags.checked()?, salt: Salt(chance::bytes()), record: None })
    }

    /// Forgets the step: the service answers again and knows it better.
    pub fn step_back(&mut self) {
        self.record = None;
    }

    /// Begins the next attempt, or says why not now.
    pub fn begin(
        &mut self,
        request: BeginAttemptRequest,
    ) -> Result<BeginAttemptResponse, CliError> {
        let (name, _, begin) = request::begin(request).map_err(refused)?;
        let (answer, context) = self.decide(&name, Event::Begin(begin))?;
        Ok(answer::begin(answer, context).unwrap_or_default())
    }

    /// Takes over an attempt that the service granted before it went away.
    pub fn take_over(
        &mut self,
        request: BeginAttemptRequest,
        counters: &Counters,
    ) -> Result<(), CliError> {
        if self.record.is_some() {
            return Ok(());
        }
        let mut record = Record::new(now(), PolicyChoice::Default);
        record.counters.attempts = counters.attempts.saturating_sub(1);
        record.counters.retries = counters.retries;
        record.counters.crashes = counters.crashes;
        self.record = Some(record);
        self.begin(request).map(drop)
    }

    /// Decides what follows the attempt that is under way here.
    pub fn report(&mut self, request: ReportAttemptRequest) -> Result<Decision, CliError> {
        let fence = self.record.as_ref().map_or(0, |record| record.fence);
        let request = ReportAttemptRequest { fence, ..request };
        let (name, _, report) = request::report(request).map_err(refused)?;
        let (answer, context) = self.decide(&name, Event::Report(report))?;
        let response = answer::report(answer, context);
        Ok(response.and_then(|response| response.decision).unwrap_or_default())
    }

    fn decide(
        &mut self,
        name: &crate::domain::id::StepName,
        event: Event,
    ) -> Result<(Answer, Context<'static>), CliError> {
        let settings = Settings::default();
        let terms = Terms {
            policy: &self.policy,
            revision: 0,
            choice: &PolicyChoice::Default,
            settings: &settings,
            salt: self.salt,
            bounds: &[],
            run: None,
        };
        let at = now();
        let plan = plan::plan(&terms, &name.key(), self.record.clone(), &event, Now::at(at))
            .map_err(|refusal| CliError::usage(format!("could not decide here: {refusal}")))?;
        let answer = match plan {
            Plan::Stands(answer) => answer,
            Plan::Write(draft) => {
                let admitted = draft.admitted();
                let settlement = plan::settle(*draft, &admitted);
                self.record = Some(settlement.record);
                settlement.answer
            }
            Plan::Purge => Answer::Ticked,
        };
        Ok((answer, Context { at, policy: STAMP }))
    }
}

/// A lease here is nobody's business but ours, so a clock that is wrong, or a
/// machine that slept, ends none.
fn now() -> Timestamp {
    let micros = Instant::now().as_microsecond();
    Timestamp::from_micros(u64::try_from(micros).unwrap_or(0))
}

fn refused(invalid: Invalid) -> CliError {
    CliError::usage(format!("could not decide here: {invalid}"))
}
