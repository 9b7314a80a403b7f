//! `reprise exec`: runs a command as a step, and again for as long as the
//! service says so.

mod action;
mod alone;
mod args;
mod child;
mod failure;
mod messages;
mod of_run;
mod service;
mod signals;
mod supervise;
mod tail;
mod tell;
mod worker;

use std::{collections::VecDeque, process::ExitCode, time::Duration};

use futures_util::future::join;
use rustix::process::Signal;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tonic::Code;

pub use args::{ExecArgs, RunExecArgs};
pub use failure::{CLASSES, class_named};
pub use worker::{WorkerArgs, run as work};

use self::{
    alone::Alone,
    args::{Identity, Job, Offline},
    child::{Input, Running},
    failure::Place,
    messages::Teller,
    service::{NoAnswer, Patience, Service, full_jitter},
    signals::{Signals, cancels},
    supervise::{Ended, supervise},
};
use super::{Global, error::CliError, exit::Exit, id, text};
use crate::proto::{
    BeginAttemptRequest, BeginAttemptResponse, Counters, Decision, Grant, PolicyReference, Reason,
    ReportAttemptRequest, ReportAttemptResponse, Verdict, begin_attempt_response::Answer,
};

/// How long a report is tried for after somebody asked us to end.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

/// Between two questions when an answer names no instant, jitter to be added.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Longest wait to be told of something, before we ask by ourselves.
const TOLD_WITHIN: Duration = Duration::from_secs(300);

/// Shortest wait after a WAIT, so that no answer makes us ask in a tight loop.
const WAIT_MIN: Duration = Duration::from_millis(50);

/// Runs the step to its end, or as far as `--once` goes.
pub async fn run(global: &Global, args: ExecArgs) -> Result<ExitCode, CliError> {
    let quiet = args.command.quiet;
    exec(global, Job::of_step(global, args)?, quiet).await
}

/// Runs a run to its end.
pub async fn run_run(global: &Global, args: RunExecArgs) -> Result<ExitCode, CliError> {
    let quiet = args.command.quiet;
    exec(global, Job::of_run(global, args)?, quiet).await
}

async fn exec(global: &Global, job: Job, quiet: bool) -> Result<ExitCode, CliError> {
    let teller = Teller::new(global.output, quiet);
    let exec = Exec {
        service: Service::at(global.address(), global.call_timeout, teller.clone()),
        job,
        teller,
        signals: Signals::listen().map_err(|e| {
            CliError::new(Exit::Failed, format!("could not listen to signals: {e}"))
        })?,
        place: Place::here(),
        answered: false,
        alone: None,
        local: false,
        owed: VecDeque::new(),
        last_code: None,
        waiting_since: None,
        told_reason: None,
    };
    exec.run().await
}

struct Exec {
    job: Job,
    service: Service,
    teller: Teller,
    signals: Signals,
    place: Place,
    /// Whether the service has answered a begin.
    answered: bool,
    /// Decides in the service's place. `None` while that was not called for.
    alone: Option<Alone>,
    /// Whether the latest decision was made here.
    local: bool,
    /// Reports that the service has yet to hear, in their order.
    owed: VecDeque<ReportAttemptRequest>,
    /// Exit code of the latest command. `None` before the first one ended.
    last_code: Option<u8>,
    /// Since when an attempt has been refused. `None` while none is.
    waiting_since: Option<Instant>,
    /// Why we wait, as last told; a person need not read it at every question.
    told_reason: Option<i32>,
}

/// The right to run an attempt.
struct Attempt {
    number: u32,
    identity: Identity,
    /// How often its lease is to be extended. `None` when it has no lease.
    heartbeat_every: Option<Duration>,
    /// The action to resume from; empty means from the start.
    resume_from: String,
    /// How long until the step ends whatever happens. `None` when unbounded.
    time_left: Option<Duration>,
    counters: Counters,
    policy: Option<PolicyReference>,
}

enum Begun {
    Granted(Attempt),
    Refused(Decision),
}

/// What follows an answer.
enum Next {
    /// Ask for the next attempt after this long.
    After(Duration),
    /// The same, or as soon as the service says that there is something to ask for.
    WhenTold(Duration),
    /// It is over; the code to end with.
    End(u8),
}

/// Why we leave before the step's end.
enum Leave {
    /// Something is wrong.
    Error(CliError),
    /// Somebody asked us to end.
    Told(Signal),
}

impl From<CliError> for Leave {
    fn from(error: CliError) -> Self {
        Self::Error(error)
    }
}

impl From<Signal> for Leave {
    fn from(signal: Signal) -> Self {
        Self::Told(signal)
    }
}

impl Exec {
    async fn run(mut self) -> Result<ExitCode, CliError> {
        match self.story().await {
            Ok(code) => Ok(code.into()),
            Err(Leave::Error(error)) => Err(error),
            Err(Leave::Told(signal)) => {
                self.tell_leaving(signal);
                Ok(code_of(signal).into())
            }
        }
    }

    /// The whole story: ask, run, report, wait, and ask again.
    async fn story(&mut self) -> Result<u8, Leave> {
        loop {
            let next = match self.begin().await? {
                Begun::Granted(attempt) => self.attempt(&attempt).await?,
                Begun::Refused(decision) => self.follow(&decision),
            };
            match next {
                Next::End(code) => return Ok(code),
                Next::After(pause) => self.signals.unless_ended(sleep(pause)).await?,
                Next::WhenTold(pause) => {
                    let wait = self.service.wait(self.job.wait(), pause);
                    // However soon it is told, no answer makes us ask in a tight loop.
                    let least = sleep(pause.min(WAIT_MIN));
                    self.signals.unless_ended(join(wait, least)).await?;
                }
            }
        }
    }

    async fn begin(&mut self) -> Result<Begun, Leave> {
        self.settle_debts().await?;
        // Who may leave soon is told when to come by itself.
        let stays = self.job.max_wait.is_none_or(|longest| TOLD_WITHIN <= longest);
        let request = BeginAttemptRequest {
            awaits: stays && self.service.tells(),
            ..self.job.begin(id::request_id(), &self.place, !self.answered)
        };
        let asked = self.service.begin(request.clone(), self.job.patience());
        match self.signals.unless_ended(asked).await? {
            Ok(response) => {
                (self.answered, self.local) = (true, false);
                self.alone.iter_mut().for_each(Alone::step_back);
                Ok(Begun::from(response))
            }
            Err(NoAnswer::Away { .. }) if self.job.offline == Offline::Local => {
                let response = self.alone()?.begin(request)?;
                self.local = true;
                Ok(Begun::from(response).unknown_to_the_service())
            }
            Err(no) => {
                let doing = format!("begin {}", self.job.full_name());
                Err(no.into_error(&doing, &self.job.address).into())
            }
        }
    }

    /// Who decides in the service's place.
    fn alone(&mut self) -> Result<&mut Alone, CliError> {
        let alone = match self.alone.take() {
            Some(alone) => alone,
            None => {
                self.tell_alone();
                Alone::new(&self.job)?
            }
        };
        Ok(self.alone.insert(alone))
    }

    /// Reports what could not be reported before. False when the service is
    /// still away.
    async fn settle_debts(&mut self) -> Result<bool, Signal> {
        while let Some(owed) = self.owed.front() {
            let report = self.service.report(owed.clone(), self.job.patience());
            match self.signals.unless_ended(report).await? {
                Err(NoAnswer::Away { .. }) => return Ok(false),
                // Heard, or refused for good: said either way.
                Ok(_) | Err(NoAnswer::Refused(_)) => self.owed.pop_front(),
            };
        }
        Ok(true)
    }

    async fn attempt(&mut self, attempt: &Attempt) -> Result<Next, Leave> {
        (self.waiting_since, self.told_reason) = (None, None);
        self.tell_start(attempt);
        let ended = self.run_command(attempt).await;
        self.last_code = Some(ended.exit_code());
        self.tell_end(attempt, &ended);
        let decision = self.report(attempt, &ended).await?;
        if ended.succeeded() {
            return Ok(Next::End(Exit::Ok.code()));
        }
        let next = decision.map(|decision| self.follow(&decision));
        Ok(Next::End(match (next, ended.told) {
            (_, Some(signal)) if cancels(signal) => code_of(signal),
            (Some(Next::End(code)), _) => code,
            (_, _) if self.job.once => Exit::RetryLater.code(),
            (_, Some(signal)) => {
                self.tell_leaving(signal);
                ended.exit_code()
            }
            (Some(again), None) => return Ok(again),
            (None, None) => ended.exit_code(),
        }))
    }

    /// Runs the command under its lease.
    async fn run_command(&mut self, attempt: &Attempt) -> Ended {
        let environment = self.environment(attempt);
        let running =
            match Running::start(&self.job.command, environment, self.job.keep_stderr, Input::Ours)
            {
                Ok(running) => running,
                Err(end) => return Ended::not_started(end),
            };
        let (sender, mut news) = mpsc::channel(1);
        let _lease = attempt
            .lease()
            .map(|(fence, every)| self.service.keep(self.job.heartbeat(fence), every, sender));
        supervise(running, &self.job.bounds, &mut self.signals, &mut news, &self.teller).await
    }

    fn environment(&self, attempt: &Attempt) -> Vec<(&'static str, String)> {
        let mut environment = vec![
            ("REPRISE_ADDR", self.job.address.to_string()),
            ("REPRISE_NAMESPACE", self.job.namespace.clone()),
            (args::RUN, self.job.run.clone()),
        ];
        // Empty where there is none, lest it be that of the run around us.
        let of_run = self.job.of_attempt(attempt.number).map(|number| number.to_string());
        environment.push((args::RUN_ATTEMPT, of_run.unwrap_or_default()));
        if !self.job.is_run() {
            environment.push(("REPRISE_STEP", self.job.step.clone()));
        }
        environment.extend(attempt.environment());
        environment
    }

    /// Tells the service how the attempt ended. `None` when it could not be
    /// told and that changes nothing: the command has done its work, or
    /// somebody asked us to end.
    async fn report(
        &mut self,
        attempt: &Attempt,
        ended: &Ended,
    ) -> Result<Option<Decision>, Leave> {
        let no_answer = match self.insist_on_report(attempt.identity, ended).await {
            Ok(response) => {
                self.local = false;
                self.tell_how_taken(attempt, response.status());
                return Ok(Some(response.decision.unwrap_or_default()));
            }
            Err(no_answer) => no_answer,
        };
        if no_answer.is_away() && self.job.offline == Offline::Local && !ended.succeeded() {
            return self.decide_alone(attempt, ended).map(Some).map_err(Leave::Error);
        }
        self.tell_unreported(attempt, &no_answer);
        if ended.succeeded() || ended.told.is_some() {
            return Ok(None);
        }
        Err(match no_answer {
            Unreported::Told(signal) => Leave::Told(signal),
            Unreported::NoAnswer(no_answer) => {
                let name = self.job.full_name();
                let doing = format!("report attempt {} of {name}", attempt.number);
                no_answer.into_error(&doing, &self.job.address).into()
            }
        })
    }

    /// Decides in the service's place, which hears of it when it is back.
    fn decide_alone(&mut self, attempt: &Attempt, ended: &Ended) -> Result<Decision, CliError> {
        let report = self.job.report(attempt.identity, Some(self.job.classes.failure(ended)));
        let begin = self.job.begin(id::request_id(), &self.place, true);
        let alone = self.alone()?;
        alone.take_over(begin, &attempt.counters)?;
        let decision = alone.report(report.clone())?;
        self.local = true;
        self.owed.push_back(report);
        Ok(decision)
    }

    /// A service that has lost the attempt, as one that keeps nothing does
    /// when it restarts, is told of it as of one that was never begun.
    async fn insist_on_report(
        &mut self,
        identity: Identity,
        ended: &Ended,
    ) -> Result<ReportAttemptResponse, Unreported> {
        match (self.send_report(identity, ended).await, identity) {
            (Err(lost), Identity::Fence(_)) if lost.is_not_found() => {
                let anew = Identity::NeverBegun(id::request_id());
                self.send_report(anew, ended).await
            }
            (answer, _) => answer,
        }
    }

    async fn send_report(
        &mut self,
        identity: Identity,
        ended: &Ended,
    ) -> Result<ReportAttemptResponse, Unreported> {
        if !self.settle_debts().await.map_err(Unreported::Told)? {
            let cause = "reports before this one are still owed".to_owned();
            return Err(Unreported::NoAnswer(NoAnswer::Away { cause }));
        }
        let patience = match ended.told {
            Some(_) => Patience::For(LAST_PATIENCE),
            None => self.job.patience(),
        };
        let failure = (!ended.succeeded()).then(|| self.job.classes.failure(ended));
        let request = self.job.report(identity, failure);
        let answer = self.signals.unless_ended(self.service.report(request, patience)).await;
        answer.map_err(Unreported::Told)?.map_err(Unreported::NoAnswer)
    }

    /// Does what a decision says.
    fn follow(&mut self, decision: &Decision) -> Next {
        self.tell_decision(decision);
        match decision.verdict() {
            Verdict::Done => Next::End(Exit::Ok.code()),
            Verdict::Stop if self.job.once => Next::End(Exit::Stop.code()),
            Verdict::Stop => Next::End(self.last_code.unwrap_or(Exit::Stop.code())),
            // Nobody says how long a person takes.
            Verdict::Hold if self.job.once => Next::End(Exit::RetryLater.code()),
            Verdict::Hold if self.is_told_when_over(decision) => Next::WhenTold(TOLD_WITHIN),
            Verdict::Hold => Next::After(ASK_AGAIN + full_jitter(ASK_AGAIN)),
            Verdict::Retry => self.wait(delay_of(decision).unwrap_or_default()),
            Verdict::Wait if self.is_told_when_over(decision) => self.wait_to_be_told(decision),
            Verdict::Wait | Verdict::Unspecified => {
                let delay = delay_of(decision);
                let delay = delay.unwrap_or_else(|| ASK_AGAIN + full_jitter(ASK_AGAIN));
                self.wait(delay.max(WAIT_MIN))
            }
        }
    }

    /// Whether the service says when a wait is over. It cannot say when the step
    /// may run on this host.
    fn is_told_when_over(&self, decision: &Decision) -> bool {
        self.service.tells() && !self.local && decision.reason() != Reason::ExcludedHost
    }

    /// Waits to be told, as long as all the waiting for this attempt may take. A
    /// place in line or another's attempt may be over at any time; everything else
    /// lasts until the instant that was told.
    fn wait_to_be_told(&mut self, decision: &Decision) -> Next {
        let pause = delay_of(decision).unwrap_or(TOLD_WITHIN);
        let waited = self.waiting_since.get_or_insert_with(Instant::now).elapsed();
        let left = self.job.max_wait.map_or(pause, |longest| longest.saturating_sub(waited));
        let is_open =
            matches!(decision.reason(), Reason::InLine | Reason::InProgress | Reason::Paused);
        if left.is_zero() || (left < pause && !is_open) {
            self.tell_later(pause);
            return Next::End(Exit::RetryLater.code());
        }
        Next::WhenTold(pause.min(left))
    }

    /// Waits, unless all the waiting for this attempt would take too long.
    fn wait(&mut self, pause: Duration) -> Next {
        let waited = self.waiting_since.get_or_insert_with(Instant::now).elapsed();
        match self.job.max_wait {
            Some(longest) if waited + pause > longest => {
                self.tell_later(pause);
                Next::End(Exit::RetryLater.code())
            }
            _ => Next::After(pause),
        }
    }
}

impl From<BeginAttemptResponse> for Begun {
    fn from(response: BeginAttemptResponse) -> Self {
        match response.answer {
            Some(Answer::Grant(grant)) => Self::Granted(Attempt::granted(grant)),
            Some(Answer::Refusal(decision)) => Self::Refused(decision),
            // Said in a word that we do not know yet: ask again.
            None => Self::Refused(Decision::default()),
        }
    }
}

impl Begun {
    /// An attempt that only we know of has no lease to be kept, and its report
    /// begins it.
    fn unknown_to_the_service(self) -> Self {
        let Self::Granted(attempt) = self else { return self };
        let identity = Identity::NeverBegun(id::request_id());
        Self::Granted(Attempt { identity, heartbeat_every: None, ..attempt })
    }
}

impl Attempt {
    /// What a command is told of it.
    fn environment(&self) -> impl Iterator<Item = (&'static str, String)> {
        // Whole seconds, since a shell counts in them.
        let left = self.time_left.map(|left| ("REPRISE_TIME_LEFT", left.as_secs().to_string()));
        [
            ("REPRISE_ATTEMPT", self.number.to_string()),
            ("REPRISE_FENCE", self.identity.fence().to_string()),
            ("REPRISE_RESUME_FROM", self.resume_from.clone()),
        ]
        .into_iter()
        .chain(left)
    }

    fn granted(grant: Grant) -> Self {
        let instant = |at: Option<prost_types::Timestamp>| at.and_then(text::from_proto_timestamp);
        let ends_by = instant(grant.ends_by).zip(instant(grant.began_at));
        let time_left = ends_by.map(|(end, now)| Duration::try_from(end - now).unwrap_or_default());
        Self {
            number: grant.attempt,
            identity: Identity::Fence(grant.fence),
            heartbeat_every: grant.heartbeat_every.map(text::from_proto_duration),
            resume_from: grant.resume_from,
            time_left,
            counters: grant.counters.unwrap_or_default(),
            policy: grant.policy,
        }
    }

    /// Its fence and how often its lease is to be extended.
    fn lease(&self) -> Option<(u64, Duration)> {
        let every = self.heartbeat_every.filter(|every| !every.is_zero())?;
        Some((self.identity.fence(), every))
    }
}

/// Why a report has no answer.
enum Unreported {
    /// The service gave none, or refused.
    NoAnswer(NoAnswer),
    /// Somebody asked us to end while we tried.
    Told(Signal),
}

impl Unreported {
    fn is_away(&self) -> bool {
        matches!(self, Self::NoAnswer(NoAnswer::Away { .. }))
    }

    fn is_not_found(&self) -> bool {
        matches!(self, Self::NoAnswer(NoAnswer::Refused(s)) if s.code() == Code::NotFound)
    }
}

/// How long an answer says to wait. `None` when it does not say.
fn delay_of(decision: &Decision) -> Option<Duration> {
    decision.delay.map(text::from_proto_duration)
}

/// What a shell says of a process that a signal ended.
fn code_of(signal: Signal) -> u8 {
    u8::try_from(128 + signal.as_raw()).unwrap_or(1)
}
