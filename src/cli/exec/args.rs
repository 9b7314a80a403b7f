//! What `exec` is told on its command line, and the requests that follow from it.

use std::{collections::BTreeMap, env, ffi::OsString, time::Duration};

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::{
    failure::{ClassOf, Classes, Place},
    service::Patience,
    supervise::Bounds,
};
use crate::{
    cli::{
        Global,
        connect::Address,
        error::CliError,
        id,
        label::{self, Label},
        policy_flags::PolicyFlags,
        text,
    },
    domain::policy::spec::PolicySpec,
    grpc::convert::policy::to_proto,
    proto::{
        AwaitDecisionRequest, BeginAttemptRequest, Failure, HeartbeatRequest, PolicyReference,
        ReportAttemptRequest, Success, begin_attempt_request, report_attempt_request,
    },
};

/// How long `--once` waits for its slot when it is not told.
const ONCE_MAX_WAIT: Duration = Duration::from_secs(3600);

/// How long the service is tried for when we are not to wait for it.
const SHORT_PATIENCE: Duration = Duration::from_secs(1);

/// The run, in the environment of a command.
pub const RUN: &str = "REPRISE_RUN";
/// The attempt of the run, likewise: where a run was begun.
pub const RUN_ATTEMPT: &str = "REPRISE_RUN_ATTEMPT";

const EXAMPLES: &str = "\
Examples:
  reprise exec --step sync -- ./sync.sh
  reprise exec --step load --max-retries 5 --delay 2s --timeout 10m -- make load
  reprise exec --once --run \"$WORKFLOW_UID\" --step train -- python train.py

The command finds REPRISE_NAMESPACE, REPRISE_RUN, REPRISE_STEP, REPRISE_ATTEMPT,
REPRISE_FENCE, REPRISE_RESUME_FROM, REPRISE_TIME_LEFT (seconds) and REPRISE_ADDR
in its environment. What exec itself has to say goes to stderr.

A command of several actions may write the name of each to the file
REPRISE_ACTION_FILE when it begins it. When it fails, the next attempt finds the
last one in REPRISE_RESUME_FROM.

Ends with the last command's exit code (128 + n when signal n ended it); 78 when
the step had stopped before, 75 when its wait is longer than --max-wait, 69 when
no service answers and --offline says not to wait. With --once: 0 succeeded,
75 retry later, 78 stop.";

/// Run a command as a step, and again for as long as the service says so.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct ExecArgs {
    /// Name of the step within the run
    #[arg(long, value_name = "STEP")]
    step: String,
    /// The run that the step belongs to [default: that of the `reprise run exec`
    /// around us, else a fresh one]
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
    /// One attempt only: ends with 0, 75 (retry later) or 78 (stop)
    #[arg(long, requires = "run")]
    once: bool,
    /// Kind of the step, such as send-email
    #[arg(long, value_name = "KIND", default_value = "", hide_default_value = true)]
    kind: String,
    /// A target that the step calls or needs (repeatable)
    #[arg(long = "target", value_name = "TARGET")]
    targets: Vec<String>,
    /// A queue from which any worker may claim the step's retries
    #[arg(long, value_name = "QUEUE", default_value = "", hide_default_value = true)]
    queue: String,
    /// What a worker is handed that claims it, on its stdin
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true,
        requires = "queue"
    )]
    payload: String,
    /// What tells the step apart from others of its queue (repeatable)
    #[arg(long = "label", value_name = "KEY=VALUE", requires = "queue")]
    labels: Vec<Label>,
    #[command(flatten)]
    pub command: CommandArgs,
}

const RUN_EXAMPLES: &str = "\
Examples:
  reprise run exec nightly-2026-11-23 --max-retries 2 --delay 1m -- ./pipeline.sh
  reprise run exec nightly-2026-11-23 --policy nightly -- ./pipeline.sh

What the command runs with `reprise exec --step …` are steps of the run, unless
they name another one. When the run is tried again, a step that has succeeded is
not run again: exec then ends with 0 at once. The command finds REPRISE_RUN and
REPRISE_RUN_ATTEMPT in its environment, and what exec gives it beside.

Without a policy and without flags for one, the run is not tried again.";

/// Run a command as a run, and again for as long as the service says so.
#[derive(Args, Debug)]
#[command(after_help = RUN_EXAMPLES)]
pub struct RunExecArgs {
    /// The run
    run: String,
    #[command(flatten)]
    pub command: CommandArgs,
}

/// A command, and how it is to be run.
#[derive(Args, Debug)]
pub struct CommandArgs {
    /// Longest wait for an attempt that is not yet due; 75 when it is longer
    /// [default: 1h with --once, else no limit]
    #[arg(long, value_name = "SPAN", value_parser = text::parse_duration)]
    max_wait: Option<Duration>,
    /// A policy of the namespace
    #[arg(long, value_name = "NAME", conflicts_with = "PolicyFlags")]
    policy: Option<String>,
    /// When it must have ended
    #[arg(long, value_name = "INSTANT", value_parser = text::parse_instant)]
    deadline: Option<Timestamp>,
    /// The same, counted from now
    #[arg(
        long,
        value_name = "SPAN",
        conflicts_with = "deadline",
        value_parser = text::parse_positive_duration
    )]
    time_left: Option<Duration>,
    /// How long the attempt is taken for alive without a word from us
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
    /// What happens to the command when its lease is lost
    #[arg(long, value_enum, default_value_t, value_name = "ACTION")]
    on_lost: OnLost,
    /// What happens while no service answers
    #[arg(long, value_enum, default_value_t, value_name = "MODE")]
    offline: Offline,
    /// How long to wait for a service that does not answer [default: no limit]
    #[arg(long, value_name = "SPAN", value_parser = text::parse_duration)]
    offline_timeout: Option<Duration>,
    /// Leave stderr to the command: reports then carry no message
    #[arg(long)]
    no_capture: bool,
    /// Tell nothing on stderr but errors
    #[arg(long, short)]
    pub quiet: bool,
    #[command(flatten)]
    inline: PolicyFlags,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    words: Vec<OsString>,
}

/// What happens to a command whose lease is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum OnLost {
    /// It runs on, with a warning: a late success may still count.
    #[default]
    Continue,
    /// It is ended: another attempt may be running.
    Kill,
}

/// What happens while no service answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Offline {
    /// Keep trying; what the command has done is not lost.
    #[default]
    Wait,
    /// Decide here, by the inline policy or the built-in one.
    Local,
    /// End with 69.
    Fail,
}

/// A step to be run, or a run, with everything that was said about it.
#[derive(Debug)]
pub struct Job {
    /// Its namespace.
    pub namespace: String,
    /// Its run.
    pub run: String,
    /// Its name; empty for a run.
    pub step: String,
    /// The attempt of the run that it belongs to; 0 when nobody said so.
    run_attempt: u32,
    /// Where the service is.
    pub address: Address,
    /// The command line, not empty.
    pub command: Vec<OsString>,
    /// Whether to leave after one attempt.
    pub once: bool,
    /// Longest wait for an attempt that is not due. `None` has no limit.
    pub max_wait: Option<Duration>,
    /// What the command may take.
    pub bounds: Bounds,
    /// Whether the end of stderr is kept.
    pub keep_stderr: bool,
    /// What exit codes mean.
    pub classes: Classes,
    /// What happens while no service answers.
    pub offline: Offline,
    /// The flags that the inline policy was read from.
    pub inline_flags: PolicyFlags,
    /// The inline policy. `None` when a named one or the step's own applies.
    pub inline: Option<PolicySpec>,
    policy_name: Option<String>,
    offline_timeout: Option<Duration>,
    deadline: Option<Timestamp>,
    time_left: Option<Duration>,
    kind: String,
    targets: Vec<String>,
    queue: String,
    payload: String,
    labels: BTreeMap<String, String>,
    lease: Option<Duration>,
}

impl Job {
    /// A step, as the command line has it.
    pub fn of_step(global: &Global, args: ExecArgs) -> Result<Self, CliError> {
        let around = RunAround::here();
        let run = args.run.or_else(|| around.as_ref().map(|around| around.run.clone()));
        let run = run.unwrap_or_else(id::run_id);
        let run_attempt = around.filter(|around| around.run == run).map_or(0, |it| it.attempt);
        let once_max_wait = args.once.then_some(ONCE_MAX_WAIT);
        let job = Self::of(global, args.command, run)?;
        Ok(Self {
            step: args.step,
            run_attempt,
            once: args.once,
            max_wait: job.max_wait.or(once_max_wait),
            kind: args.kind,
            targets: args.targets,
            queue: args.queue,
            payload: args.payload,
            labels: label::by_key(&args.labels)?,
            ..job
        })
    }

    /// A run, as the command line has it.
    pub fn of_run(global: &Global, args: RunExecArgs) -> Result<Self, CliError> {
        Self::of(global, args.command, args.run)
    }

    fn of(global: &Global, args: CommandArgs, run: String) -> Result<Self, CliError> {
        Ok(Self {
            namespace: global.namespace.clone(),
            run,
            step: String::new(),
            run_attempt: 0,
            address: global.address(),
            command: args.words,
            once: false,
            max_wait: args.max_wait,
            bounds: Bounds {
                timeout: args.timeout,
                kill_after: args.kill_after,
                end_when_lost: args.on_lost == OnLost::Kill,
            },
            keep_stderr: !args.no_capture,
            classes: Classes::new(&args.class_of),
            offline: args.offline,
            inline: args.inline.spec()?,
            inline_flags: args.inline,
            policy_name: args.policy,
            offline_timeout: args.offline_timeout,
            deadline: args.deadline,
            time_left: args.time_left,
            kind: String::new(),
            targets: Vec::new(),
            queue: String::new(),
            payload: String::new(),
            labels: BTreeMap::new(),
            lease: args.lease,
        })
    }

    /// The attempt of the run that the command belongs to: of a run the one that is
    /// about to start.
    pub fn of_attempt(&self, number: u32) -> Option<u32> {
        let attempt = if self.is_run() { number } else { self.run_attempt };
        (attempt > 0).then_some(attempt)
    }

    /// Whether it is a run, and not a step of one.
    pub fn is_run(&self) -> bool {
        self.step.is_empty()
    }

    /// The step's full name, or the run's.
    pub fn full_name(&self) -> String {
        let Self { namespace, run, step, .. } = self;
        if self.is_run() {
            format!("{namespace}/{run}")
        } else {
            format!("{namespace}/{run}/{step}")
        }
    }

    /// How long to try for while nobody answers.
    pub fn patience(&self) -> Patience {
        match (self.offline, self.offline_timeout) {
            (_, Some(limit)) => Patience::For(limit),
            (Offline::Wait, None) => Patience::Endless,
            (Offline::Local | Offline::Fail, None) => Patience::For(SHORT_PATIENCE),
        }
    }

    /// Asks for the next attempt. `first` says that nothing was answered yet:
    /// time left counts from the start of `exec`, so it is said only once.
    pub fn begin(&self, request_id: [u8; 16], place: &Place, first: bool) -> BeginAttemptRequest {
        BeginAttemptRequest {
            namespace: self.namespace.clone(),
            run: self.run.clone(),
            step: self.step.clone(),
            request_id: request_id.to_vec().into(),
            lease: self.lease.map(text::to_proto_duration),
            host: place.host.clone(),
            worker: place.worker.clone(),
            kind: self.kind.clone(),
            targets: self.targets.clone(),
            queue: self.queue.clone(),
            payload: self.payload.as_bytes().to_vec().into(),
            labels: self.labels.clone(),
            deadline: self.deadline.map(text::to_proto_timestamp),
            time_left: self.time_left.filter(|_| first).map(text::to_proto_duration),
            policy: self.policy(),
            run_attempt: self.run_attempt,
            ..BeginAttemptRequest::default()
        }
    }

    fn policy(&self) -> Option<begin_attempt_request::Policy> {
        use begin_attempt_request::Policy::{InlinePolicy, PolicyName};
        let inline = self.inline.as_ref().map(to_proto).map(InlinePolicy);
        inline.or_else(|| self.policy_name.clone().map(PolicyName))
    }

    /// Waits for the step.
    pub fn wait(&self) -> AwaitDecisionRequest {
        AwaitDecisionRequest {
            namespace: self.namespace.clone(),
            run: self.run.clone(),
            step: self.step.clone(),
            timeout: None,
        }
    }

    /// Extends the lease of an attempt.
    pub fn heartbeat(&self, fence: u64) -> HeartbeatRequest {
        HeartbeatRequest {
            namespace: self.namespace.clone(),
            run: self.run.clone(),
            step: self.step.clone(),
            fence,
            lease: None,
            progress: None,
        }
    }

    /// Reports an attempt that was granted, or one that never was: then with
    /// all that a begin would have said.
    pub fn report(&self, identity: Identity, failure: Option<Failure>) -> ReportAttemptRequest {
        use report_attempt_request::{Outcome, Policy};
        let request = ReportAttemptRequest {
            namespace: self.namespace.clone(),
            run: self.run.clone(),
            step: self.step.clone(),
            outcome: Some(failure.map_or(Outcome::Success(Success {}), Outcome::Failure)),
            ..ReportAttemptRequest::default()
        };
        match identity {
            Identity::Fence(fence) => ReportAttemptRequest { fence, ..request },
            Identity::NeverBegun(id) => ReportAttemptRequest {
                request_id: id.to_vec().into(),
                policy: self.policy().map(|policy| match policy {
                    begin_attempt_request::Policy::PolicyName(name) => Policy::PolicyName(name),
                    begin_attempt_request::Policy::InlinePolicy(it) => Policy::InlinePolicy(it),
                }),
                kind: self.kind.clone(),
                targets: self.targets.clone(),
                deadline: self.deadline.map(text::to_proto_timestamp),
                run_attempt: self.run_attempt,
                ..request
            },
        }
    }

    /// A policy's name and revision, as a person is told.
    pub fn policy_in_words(&self, reference: Option<&PolicyReference>) -> String {
        match reference {
            Some(named) if !named.name.is_empty() => format!("{} r{}", named.name, named.revision),
            _ if self.inline.is_some() => "(inline)".to_owned(),
            _ => "(built-in)".to_owned(),
        }
    }
}

/// The run whose command we are part of.
struct RunAround {
    run: String,
    attempt: u32,
}

impl RunAround {
    /// As `reprise run exec` tells what it runs.
    fn here() -> Option<Self> {
        let attempt = env::var(RUN_ATTEMPT).ok()?.parse().ok()?;
        Some(Self { run: env::var(RUN).ok()?, attempt })
    }
}

/// What tells an attempt apart from every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The fence that it was granted with.
    Fence(u64),
    /// It was begun without the service; its report carries this.
    NeverBegun([u8; 16]),
}

impl Identity {
    /// The fence; zero, which no attempt has, when it was never granted.
    pub fn fence(self) -> u64 {
        match self {
            Self::Fence(fence) => fence,
            Self::NeverBegun(_) => 0,
        }
    }
}
