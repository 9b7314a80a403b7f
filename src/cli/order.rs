//! Orders about steps, and lists of them: `reprise step retry` and its like, and
//! `reprise hold`.

use std::{process::ExitCode, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::{
    Global,
    client::Service,
    error::CliError,
    exit::Exit,
    giver::GivenBy,
    id,
    output::{self, Format},
    step, text, view,
};
use crate::proto::{self, extend_step_request, pause_step_request};

/// An order about a step.
#[derive(Args, Debug)]
pub struct OrderArgs {
    /// The run that the step belongs to
    run: String,
    /// Name of the step within the run
    step: String,
    #[command(flatten)]
    giver: Giver,
}

/// An order about a run.
#[derive(Args, Debug)]
pub struct RunOrderArgs {
    /// The run
    run: String,
    #[command(flatten)]
    giver: Giver,
}

impl From<RunOrderArgs> for OrderArgs {
    fn from(RunOrderArgs { run, giver }: RunOrderArgs) -> Self {
        Self { run, step: String::new(), giver }
    }
}

/// Who gives an order, and why.
#[derive(Args, Clone, Debug)]
pub struct Giver {
    /// Why, for those who look at the step later
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    by: GivenBy,
}

/// An order to try one step again, or many.
#[derive(Args, Debug)]
pub struct RetryArgs {
    /// The run that the step belongs to
    #[arg(required_unless_present = "all")]
    run: Option<String>,
    /// Name of the step within the run
    #[arg(required_unless_present = "all")]
    step: Option<String>,
    #[command(flatten)]
    giver: Giver,
    /// Every step that is of the kind given by the flags below
    #[arg(long, conflicts_with_all = ["run", "step"])]
    all: bool,
    #[command(flatten)]
    filter: FilterArgs,
    /// Orders a second at most, of --all
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000), requires = "all")]
    rate: u32,
    /// Show which steps --all is about, and order nothing
    #[arg(long, requires = "all")]
    dry_run: bool,
}

/// An order to allow a step more.
#[derive(Args, Debug)]
pub struct ExtendArgs {
    #[command(flatten)]
    order: OrderArgs,
    /// Retries more than its policy allows
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    retries: u32,
    /// The new deadline, such as 2030-01-31T14:00:00Z
    #[arg(long, value_name = "INSTANT", value_parser = text::parse_instant, conflicts_with = "time_left")]
    deadline: Option<Timestamp>,
    /// The new deadline, from now
    #[arg(long, value_name = "SPAN", value_parser = text::parse_positive_duration)]
    time_left: Option<Duration>,
}

/// An order to pause a step.
#[derive(Args, Debug)]
pub struct PauseArgs {
    #[command(flatten)]
    order: OrderArgs,
    /// Resume after this long
    #[arg(long = "for", value_name = "SPAN", value_parser = text::parse_positive_duration, conflicts_with = "until")]
    pause_for: Option<Duration>,
    /// Resume at this instant, such as 2030-01-31T14:00:00Z
    #[arg(long, value_name = "INSTANT", value_parser = text::parse_instant)]
    until: Option<Timestamp>,
}

/// Which steps.
#[derive(Args, Clone, Debug, Default)]
pub struct FilterArgs {
    /// Only those that are so; may be given several times
    #[arg(long = "state", value_enum, value_name = "STATE")]
    states: Vec<StateFlag>,
    /// Only those of this run
    #[arg(long = "of-run", value_name = "RUN", default_value = "", hide_default_value = true)]
    of_run: String,
    /// Only those that are claimed from this queue
    #[arg(long, value_name = "QUEUE", default_value = "", hide_default_value = true)]
    queue: String,
    /// Only those given up for a failure of a target that has a breaker
    #[arg(long)]
    ended_in_outage: bool,
    /// Only those that an operator has paused
    #[arg(long)]
    paused: bool,
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StateFlag {
    /// The next attempt is to begin
    Waiting,
    /// An attempt is in progress
    Running,
    /// A person decides
    Held,
    /// It succeeded
    Succeeded,
    /// It was given up
    Failed,
    /// It was skipped
    Skipped,
    /// It was cancelled
    Canceled,
}

/// What can be done with holds.
#[derive(Debug, Subcommand)]
pub enum HoldCommand {
    /// List the steps that wait for a person
    List {
        /// Only those of this run
        #[arg(long = "of-run", value_name = "RUN", default_value = "", hide_default_value = true)]
        of_run: String,
    },
    /// Answer a hold
    Resolve {
        #[command(flatten)]
        order: OrderArgs,
        /// The answer, one of those that the hold allows
        #[arg(long, value_enum)]
        answer: AnswerFlag,
    },
}

/// An answer to a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AnswerFlag {
    /// Run the step again
    Retry,
    /// Go on without it
    Skip,
    /// Give it up
    Fail,
    /// Run it again, on another host
    ExcludeHost,
}

/// Orders and shows what became of it.
macro_rules! order {
    ($global:expr, $given:expr, $call:ident, $request:ident { $($field:ident),* }) => {{
        let (name, order) = $given.header($global);
        let request = proto::$request { order: Some(order), $($field),* };
        let doing = format!("order about {name}");
        let response = Service::of($global)
            .admin(&doing, async |mut client| client.$call(request.clone()).await)
            .await?;
        told($global, response.outcome)
    }};
}

/// Has a step tried again, or all that are of one kind.
pub async fn retry(global: &Global, args: RetryArgs) -> Result<ExitCode, CliError> {
    match (args.run, args.step) {
        (Some(run), Some(step)) => {
            retry_one(global, OrderArgs { run, step, giver: args.giver }).await
        }
        _ => retry_all(global, &args.giver, args.filter, args.rate, args.dry_run).await,
    }
}

/// Has one step, or a run, tried again now.
pub async fn retry_one(global: &Global, order: OrderArgs) -> Result<ExitCode, CliError> {
    order!(global, order, retry_step, RetryStepRequest {})
}

/// Has a run go on without a step.
pub async fn skip(global: &Global, order: OrderArgs) -> Result<ExitCode, CliError> {
    order!(global, order, skip_step, SkipStepRequest {})
}

/// Takes a step for succeeded.
pub async fn succeed(global: &Global, order: OrderArgs) -> Result<ExitCode, CliError> {
    order!(global, order, succeed_step, SucceedStepRequest {})
}

/// Gives a step up.
pub async fn fail(global: &Global, order: OrderArgs) -> Result<ExitCode, CliError> {
    order!(global, order, fail_step, FailStepRequest {})
}

/// Cancels a step.
pub async fn cancel(global: &Global, order: OrderArgs) -> Result<ExitCode, CliError> {
    order!(global, order, cancel_step, CancelStepRequest {})
}

/// Starts a step's counters again.
pub async fn reset(global: &Global, order: OrderArgs) -> Result<ExitCode, CliError> {
    order!(global, order, reset_step, ResetStepRequest {})
}

/// Allows a step more.
pub async fn extend(global: &Global, args: ExtendArgs) -> Result<ExitCode, CliError> {
    use extend_step_request::Deadline;
    let ExtendArgs { order, retries: more_retries, deadline, time_left } = args;
    let time = deadline.map(text::to_proto_timestamp).map(Deadline::Time);
    let deadline = time_left.map(text::to_proto_duration).map(Deadline::TimeLeft).or(time);
    order!(global, order, extend_step, ExtendStepRequest { more_retries, deadline })
}

/// Has nothing of a step start.
pub async fn pause(global: &Global, args: PauseArgs) -> Result<ExitCode, CliError> {
    use pause_step_request::End;
    let PauseArgs { order, pause_for, until } = args;
    let until = until.map(text::to_proto_timestamp).map(End::Until);
    let end = pause_for.map(text::to_proto_duration).map(End::PauseFor).or(until);
    order!(global, order, pause_step, PauseStepRequest { end })
}

/// Ends a step's pause.
pub async fn resume(global: &Global, order: OrderArgs) -> Result<ExitCode, CliError> {
    order!(global, order, resume_step, ResumeStepRequest {})
}

/// Lists holds, or answers one.
pub async fn hold(global: &Global, command: HoldCommand) -> Result<ExitCode, CliError> {
    match command {
        HoldCommand::List { of_run } => {
            let states = vec![StateFlag::Held];
            list(global, FilterArgs { states, of_run, ..FilterArgs::default() }).await
        }
        HoldCommand::Resolve { order, answer } => {
            let answer = answer.number();
            order!(global, order, resolve_hold, ResolveHoldRequest { answer })
        }
    }
}

/// Lists steps, page by page as they come.
pub async fn list(global: &Global, filter: FilterArgs) -> Result<ExitCode, CliError> {
    let steps = listed(global, &filter).await?;
    match global.output {
        Format::Json => output::print_json(&steps)?,
        Format::Table => output::print(&table(&steps))?,
    }
    Ok(Exit::Ok.into())
}

async fn listed(global: &Global, filter: &FilterArgs) -> Result<Vec<view::StepSummary>, CliError> {
    let service = Service::of(global);
    let mut steps: Vec<view::StepSummary> = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = filter.request(global, page_token);
        let page = service
            .admin("list steps", async |mut client| client.list_steps(request.clone()).await)
            .await?;
        steps.extend(page.steps.into_iter().map(Into::into));
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    // A step may be on two pages while others come and go.
    steps.sort_by(|a, b| (&a.run, &a.step).cmp(&(&b.run, &b.step)));
    steps.dedup_by(|a, b| (&a.run, &a.step) == (&b.run, &b.step));
    Ok(steps)
}

/// Orders a retry of every step of one kind, so many a second.
async fn retry_all(
    global: &Global,
    giver: &Giver,
    filter: FilterArgs,
    rate: u32,
    dry_run: bool,
) -> Result<ExitCode, CliError> {
    if filter.states.is_empty() && !filter.ended_in_outage {
        let error = CliError::new(Exit::Usage, "--all needs --state or --ended-in-outage");
        return Err(error.next("for example --all --state failed"));
    }
    let steps = listed(global, &filter).await?;
    if dry_run {
        output::print(&table(&steps))?;
        output::message(&format!("reprise: {} steps would be tried again", steps.len()));
        return Ok(Exit::Ok.into());
    }
    let service = Service::of(global);
    let (mut ordered, mut refused) = (0_u32, 0_u32);
    let begin = Instant::now();
    for step in steps {
        sleep_until(begin + Duration::from_secs(1) / rate * (ordered + refused)).await;
        let order = OrderArgs { run: step.run, step: step.step, giver: giver.clone() };
        let (name, order) = order.header(global);
        let request = proto::RetryStepRequest { order: Some(order) };
        let done = service
            .admin(&format!("retry {name}"), async |mut client| {
                client.retry_step(request.clone()).await
            })
            .await;
        match done {
            Ok(_) => ordered += 1,
            Err(error) => {
                refused += 1;
                output::message(&format!("reprise: {error}"));
            }
        }
    }
    output::message(&format!("reprise: {ordered} steps are tried again, {refused} are not"));
    Ok(if refused == 0 { Exit::Ok } else { Exit::Failed }.into())
}

impl OrderArgs {
    /// The step in words, and what every order says.
    fn header(self, global: &Global) -> (String, proto::StepOrder) {
        let Self { run, step, giver: Giver { reason, by } } = self;
        let namespace = global.namespace.clone();
        let name = match &*step {
            "" => format!("run {namespace}/{run}"),
            step => format!("{namespace}/{run}/{step}"),
        };
        let by = by.into();
        let request_id = id::request_id().to_vec().into();
        (name, proto::StepOrder { namespace, run, step, request_id, reason, by })
    }
}

impl FilterArgs {
    fn request(&self, global: &Global, page_token: String) -> proto::ListStepsRequest {
        proto::ListStepsRequest {
            namespace: global.namespace.clone(),
            states: self.states.iter().map(|state| state.number()).collect(),
            run: self.of_run.clone(),
            queue: self.queue.clone(),
            ended_in_outage: self.ended_in_outage,
            paused: self.paused,
            page_size: 0,
            page_token,
        }
    }
}

impl StateFlag {
    const fn number(self) -> i32 {
        let state = match self {
            Self::Waiting => proto::StepState::Waiting,
            Self::Running => proto::StepState::Running,
            Self::Held => proto::StepState::Held,
            Self::Succeeded => proto::StepState::Succeeded,
            Self::Failed => proto::StepState::Failed,
            Self::Skipped => proto::StepState::Skipped,
            Self::Canceled => proto::StepState::Canceled,
        };
        state as i32
    }
}

impl AnswerFlag {
    const fn number(self) -> i32 {
        let answer = match self {
            Self::Retry => proto::HoldAnswer::Retry,
            Self::Skip => proto::HoldAnswer::Skip,
            Self::Fail => proto::HoldAnswer::Fail,
            Self::ExcludeHost => proto::HoldAnswer::ExcludeHost,
        };
        answer as i32
    }
}

/// What became of an order, as it is shown.
#[derive(Debug, Serialize)]
struct Outcome {
    order: view::Order,
    replayed: bool,
    step: view::Step,
}

fn told(global: &Global, outcome: Option<proto::StepOrderOutcome>) -> Result<ExitCode, CliError> {
    let outcome = outcome.unwrap_or_default();
    let outcome = Outcome {
        order: outcome.order.unwrap_or_default().into(),
        replayed: outcome.replayed,
        step: outcome.step.unwrap_or_default().into(),
    };
    match global.output {
        Format::Json => output::print_json(&outcome)?,
        Format::Table => output::print(&step::shown(&outcome.step))?,
    }
    Ok(Exit::Ok.into())
}

fn table(steps: &[view::StepSummary]) -> String {
    let now = Timestamp::now();
    let dash = || "-".to_owned();
    let row = |step: &view::StepSummary| {
        let state = if step.paused { " (paused)" } else { "" };
        [
            step.run.clone(),
            step.step.clone(),
            format!("{}{state}", text::words(step.state)),
            step.counters.attempts.to_string(),
            step.reason.map_or_else(dash, text::words),
            step.class.map_or_else(dash, text::words),
            step.next_event_at.map_or_else(dash, |at| text::relative(at, now)),
            match step.hold_answers.is_empty() {
                true => dash(),
                false => step.hold_answers.join(", "),
            },
        ]
    };
    let header = ["RUN", "STEP", "STATE", "ATTEMPTS", "REASON", "FAILURE", "NEXT", "ANSWERS"];
    output::table(header, steps.iter().map(row).collect())
}
