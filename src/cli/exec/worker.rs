//! `reprise worker`: claims due steps of a queue and runs a command for each.

use std::{collections::BTreeMap, ffi::OsString, process::ExitCode, time::Duration};

use clap::Args;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use rustix::process::Signal;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio_util::sync::CancellationToken;

use super::{
    Attempt,
    child::{Input, Running},
    failure::{self, ClassOf, Classes, Place},
    messages::{Event, Teller},
    service::{Patience, Service},
    signals::{self, Signals},
    supervise::{Bounds, Ended, supervise},
};
use crate::{
    cli::{
        Global,
        error::CliError,
        exit::Exit,
        id,
        label::{self, Label},
        text,
    },
    proto::{
        ClaimDueRequest, ClaimedStep, HeartbeatRequest, ReportAttemptRequest, Success,
        report_attempt_request::Outcome,
    },
};

const EXAMPLES: &str = "\
Examples:
  reprise worker --queue etl -- ./load.sh
  reprise worker --queue etl -j 8 --lease 1m -- python load.py
  reprise worker --queue train --label gpu=a100 -- python train.py

The command finds the step's payload on its stdin, and REPRISE_NAMESPACE,
REPRISE_RUN, REPRISE_STEP, REPRISE_KIND, REPRISE_ATTEMPT, REPRISE_FENCE,
REPRISE_RESUME_FROM, REPRISE_TIME_LEFT (seconds) and REPRISE_ADDR in its
environment. Its exit code is reported; what follows, the service decides.

A first TERM or INT ends the claiming and waits for the commands that run; a
second one is passed on to them.";

/// How long the service is left alone that refuses to be asked.
const PAUSE: Duration = Duration::from_secs(1);

/// Claim due steps of a queue and run a command for each.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct WorkerArgs {
    /// The queue, as steps were begun with it
    #[arg(long, value_name = "QUEUE")]
    queue: String,
    /// Run only steps that have this label (repeatable: each of them)
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<Label>,
    /// Commands that run at the same time
    #[arg(
        short = 'j',
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=64)
    )]
    concurrency: u16,
    /// Host that is told: steps that may not run there are left to others
    /// [default: this host's name]
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// How long an attempt is taken for alive without a word from us
    #[arg(long, value_name = "SPAN", value_parser = text::parse_positive_duration)]
    lease: Option<Duration>,
    /// How long one attempt may run: then TERM, and KILL after --kill-after
    #[arg(long, value_name = "SPAN", value_parser = text::parse_positive_duration)]
    timeout: Option<Duration>,
    /// Time between TERM and KILL
    #[arg(long, value_name = "SPAN", default_value = "10s", value_parser = text::parse_duration)]
    kill_after: Duration,
    /// What an exit code means, such as 75=TRANSIENT (repeatable)
    #[arg(long = "class-of", value_name = "CODE=CLASS")]
    class_of: Vec<ClassOf>,
    /// Leave stderr to the command: reports then carry no message
    #[arg(long)]
    no_capture: bool,
    /// Tell nothing on stderr but errors
    #[arg(long, short)]
    quiet: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Works until somebody asks us to end, and what runs has ended.
pub async fn run(global: &Global, args: WorkerArgs) -> Result<ExitCode, CliError> {
    let teller = Teller::new(global.output, args.quiet);
    let mut signals = Signals::listen()
        .map_err(|e| CliError::new(Exit::Failed, format!("could not listen to signals: {e}")))?;
    let here = Place::here();
    let desk = Desk {
        service: Service::at(global.address(), global.call_timeout, teller.clone()),
        place: Place { host: args.host.clone().unwrap_or(here.host), ..here },
        namespace: global.namespace.clone(),
        address: global.address().to_string(),
        classes: Classes::new(&args.class_of),
        bounds: Bounds { timeout: args.timeout, kill_after: args.kill_after, end_when_lost: true },
        labels: label::by_key(&args.labels)?,
        teller: teller.clone(),
        stop: CancellationToken::new(),
        args,
    };
    let (mut work, mut commands) = (FuturesUnordered::new(), Vec::new());
    for _ in 0..desk.args.concurrency {
        let (sender, arrivals) = Signals::passed_on();
        commands.push(sender);
        work.push(desk.work(arrivals));
    }
    loop {
        tokio::select! {
            signal = signals.next() => heard(signal, &desk.stop, &commands, &teller),
            ended = work.next() => match ended {
                None => return Ok(Exit::Ok.into()),
                Some(done) => done?,
            },
        }
    }
}

/// The first signal to end is for us, all others for the commands.
fn heard(
    signal: Signal,
    stop: &CancellationToken,
    commands: &[UnboundedSender<Signal>],
    teller: &Teller,
) {
    if signals::ends(signal) && !stop.is_cancelled() {
        teller.tell(&Event::Draining { signal: signals::name(signal.as_raw()) });
        return stop.cancel();
    }
    for command in commands {
        // One whose task has ended runs no command.
        let _ = command.send(signal);
    }
}

/// What those who work side by side have in common.
struct Desk {
    service: Service,
    place: Place,
    namespace: String,
    address: String,
    labels: BTreeMap<String, String>,
    classes: Classes,
    bounds: Bounds,
    teller: Teller,
    stop: CancellationToken,
    args: WorkerArgs,
}

impl Desk {
    /// Claims one step after the other, until it is to stop.
    async fn work(&self, mut signals: Signals) -> Result<(), CliError> {
        let mut service = self.service.clone();
        loop {
            let claimed = service.claim(self.claim(), Patience::Endless);
            // What is claimed in this very moment returns to the queue.
            let Some(claimed) = self.stop.run_until_cancelled(claimed).await else {
                return Ok(());
            };
            let steps = claimed.map_err(|no_answer| {
                let doing = format!("claim steps of queue {}", self.args.queue);
                no_answer.into_error(&doing, service.address())
            })?;
            for step in steps {
                self.attempt(&mut service, &mut signals, step).await;
            }
        }
    }

    async fn attempt(&self, service: &mut Service, signals: &mut Signals, step: ClaimedStep) {
        let Some(grant) = step.grant.clone() else { return };
        let attempt = Attempt::granted(grant);
        let ended = self.run_command(service, signals, &attempt, &step).await;
        let failure = (!ended.succeeded()).then(|| self.classes.failure(&ended));
        self.teller.tell(&Event::Ended {
            run: step.run.clone(),
            step: step.step.clone(),
            attempt: attempt.number,
            cause: failure.as_ref().map(|_| failure::in_words(&ended)),
            seconds: ended.ran.as_secs_f64(),
        });
        let report = ReportAttemptRequest {
            namespace: self.namespace.clone(),
            run: step.run,
            step: step.step,
            fence: attempt.identity.fence(),
            outcome: Some(failure.map_or(Outcome::Success(Success {}), Outcome::Failure)),
            ..ReportAttemptRequest::default()
        };
        if let Err(no_answer) = service.report(report, Patience::Endless).await {
            let cause = no_answer.in_words();
            self.teller.tell(&Event::Unreported { attempt: attempt.number, cause });
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn run_command(
        &self,
        service: &Service,
        signals: &mut Signals,
        attempt: &Attempt,
        step: &ClaimedStep,
    ) -> Ended {
        let environment = self.environment(attempt, step);
        let input = Input::Given(step.payload.to_vec());
        let keep_stderr = !self.args.no_capture;
        let started = Running::start(&self.args.command, environment, keep_stderr, input);
        let running = match started {
            Ok(running) => running,
            Err(end) => return Ended::not_started(end),
        };
        let (sender, mut news) = mpsc::channel(1);
        let heartbeat = HeartbeatRequest {
            namespace: self.namespace.clone(),
            run: step.run.clone(),
            step: step.step.clone(),
            fence: attempt.identity.fence(),
            lease: None,
            progress: None,
        };
        let _lease = attempt.lease().map(|(_, every)| service.keep(heartbeat, every, sender));
        supervise(running, &self.bounds, signals, &mut news, &self.teller).await
    }

    fn environment(&self, attempt: &Attempt, step: &ClaimedStep) -> Vec<(&'static str, String)> {
        let mut environment = vec![
            ("REPRISE_ADDR", self.address.clone()),
            ("REPRISE_NAMESPACE", self.namespace.clone()),
            ("REPRISE_RUN", step.run.clone()),
            ("REPRISE_STEP", step.step.clone()),
            ("REPRISE_KIND", step.kind.clone()),
        ];
        environment.extend(attempt.environment());
        environment
    }

    fn claim(&self) -> ClaimDueRequest {
        ClaimDueRequest {
            namespace: self.namespace.clone(),
            queue: self.args.queue.clone(),
            request_id: id::request_id().to_vec().into(),
            lease: self.args.lease.map(text::to_proto_duration),
            host: self.place.host.clone(),
            worker: self.place.worker.clone(),
            labels: self.labels.clone(),
            ..ClaimDueRequest::default()
        }
    }
}
