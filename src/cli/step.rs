//! `reprise step`: where a step stands, why, and what is ordered about it.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;

use super::{
    Global,
    client::Service,
    error::CliError,
    exit::Exit,
    explain,
    order::{self, ExtendArgs, FilterArgs, OrderArgs, PauseArgs, RetryArgs},
    output::{self, Format},
    text, view, why,
};
use crate::proto;

/// What can be asked or ordered about a step.
#[derive(Debug, Subcommand)]
pub enum StepCommand {
    /// Show a step with its counters and latest attempts
    Get(StepName),
    /// Tell why a step waits or has stopped, and what can be done
    Explain(StepName),
    /// List steps
    List(FilterArgs),
    /// Try a step again now, a held or ended one as well
    Retry(RetryArgs),
    /// Have its run go on without a step
    Skip(OrderArgs),
    /// Take a step for succeeded, since its work was done elsewhere
    Succeed(OrderArgs),
    /// Give a step up
    Fail(OrderArgs),
    /// Cancel a step; an attempt in progress is told to stop
    Cancel(OrderArgs),
    /// Start a step's counters again
    Reset(OrderArgs),
    /// Allow a step more retries, or a later deadline
    Extend(ExtendArgs),
    /// Let no attempt of a step start; one in progress goes on
    Pause(PauseArgs),
    /// End a step's pause
    Resume(OrderArgs),
}

/// A step of the namespace.
#[derive(Args, Clone, Debug)]
pub struct StepName {
    /// The run that the step belongs to
    run: String,
    /// Name of the step within the run
    step: String,
}

/// Asks and tells.
pub async fn run(global: &Global, command: StepCommand) -> Result<ExitCode, CliError> {
    match command {
        StepCommand::Get(name) => {
            let step = get(global, &name).await?;
            match global.output {
                Format::Table => output::print(&shown(&step))?,
                Format::Json => output::print_json(&step)?,
            }
        }
        StepCommand::List(filter) => return order::list(global, filter).await,
        StepCommand::Retry(args) => return order::retry(global, args).await,
        StepCommand::Skip(args) => return order::skip(global, args).await,
        StepCommand::Succeed(args) => return order::succeed(global, args).await,
        StepCommand::Fail(args) => return order::fail(global, args).await,
        StepCommand::Cancel(args) => return order::cancel(global, args).await,
        StepCommand::Reset(args) => return order::reset(global, args).await,
        StepCommand::Extend(args) => return order::extend(global, args).await,
        StepCommand::Pause(args) => return order::pause(global, args).await,
        StepCommand::Resume(args) => return order::resume(global, args).await,
        StepCommand::Explain(name) => {
            let explained = explained(global, name).await?;
            match global.output {
                Format::Table => output::print(&explained.in_words())?,
                Format::Json => output::print_json(&explained)?,
            }
        }
    }
    Ok(Exit::Ok.into())
}

/// A step, and why it waits.
#[derive(Debug, Serialize)]
struct Explained {
    #[serde(flatten)]
    step: view::Step,
    explanation: Option<why::Explanation>,
}

impl Explained {
    fn in_words(&self) -> String {
        explain::step(&self.step, self.explanation.as_ref())
    }
}

/// Asks for both; a service that does not explain yet is asked for the step alone.
async fn explained(global: &Global, name: StepName) -> Result<Explained, CliError> {
    let StepName { run, step } = name.clone();
    let namespace = global.namespace.clone();
    let doing = format!("explain {namespace}/{run}/{step}");
    let request = proto::ExplainStepRequest { namespace, run, step };
    let response = Service::of(global)
        .admin(&doing, async |mut client| match client.explain_step(request.clone()).await {
            Err(status) if status.code() == tonic::Code::Unimplemented => {
                Ok(tonic::Response::new(proto::ExplainStepResponse::default()))
            }
            told => told,
        })
        .await?;
    let step = match response.step {
        Some(step) => step.into(),
        None => get(global, &name).await?,
    };
    Ok(Explained { step, explanation: response.explanation.map(Into::into) })
}

async fn get(global: &Global, name: &StepName) -> Result<view::Step, CliError> {
    let StepName { run, step } = name.clone();
    let namespace = global.namespace.clone();
    let doing = format!("show {namespace}/{run}/{step}");
    let request = proto::GetStepRequest { namespace, run, step };
    let response = Service::of(global)
        .retry(&doing, async |mut client| client.get_step(request.clone()).await)
        .await?;
    match response.step {
        Some(step) => Ok(step.into()),
        None => Err(CliError::new(Exit::Failed, format!("could not {doing}: an empty answer"))),
    }
}

/// A step with its orders and its latest attempts.
pub(super) fn shown(step: &view::Step) -> String {
    let mut fields = output::fields(summary(step));
    if !step.orders.is_empty() {
        let orders = explain::orders(step);
        fields = format!("{fields}\n{orders}");
    }
    if step.attempts.is_empty() {
        return fields;
    }
    let now = step.read_at.unwrap_or_else(Timestamp::now);
    let rows = step.attempts.iter().map(|attempt| attempt_row(attempt, now)).collect();
    let header = ["ATTEMPT", "BEGAN", "RAN", "OUTCOME", "EXIT", "HOST", "THEN", "MESSAGE"];
    format!("{fields}\n{}", output::table(header, rows))
}

fn summary(step: &view::Step) -> Vec<(&'static str, String)> {
    let now = step.read_at.unwrap_or_else(Timestamp::now);
    let at = |instant: Option<Timestamp>| instant.map(|at| text::relative(at, now));
    let counters = &step.counters;
    let optional = [
        ("policy", step.policy.as_ref().map(view::Policy::in_words)),
        ("next event", at(step.next_event_at)),
        ("ends by", at(step.ends_by)),
        ("deadline", at(step.deadline)),
        ("paused", step.pause.as_ref().map(|pause| pause.in_words(now))),
        ("held since", at(step.held_since)),
        ("extra retries", Some(step.extra_retries.to_string()).filter(|_| step.extra_retries > 0)),
        ("progress", Some(step.progress.to_string()).filter(|_| step.progress > 0)),
        ("kind", step.kind.clone()),
        ("targets", Some(step.targets.join(", ")).filter(|targets| !targets.is_empty())),
        ("queue", step.queue.clone()),
        ("labels", Some(labels_of(step)).filter(|labels| !labels.is_empty())),
        ("resume from", step.resume_from.clone()),
        ("forgotten", at(step.purge_at)),
    ];
    let mut fields = vec![
        name_of(step),
        ("state", text::words(step.state)),
        ("attempts", counters.attempts.to_string()),
        ("retries", explain::retries(counters)),
    ];
    fields.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    fields
}

fn labels_of(step: &view::Step) -> String {
    let pairs = step.labels.iter().map(|(key, value)| format!("{key}={value}"));
    pairs.collect::<Vec<_>>().join(", ")
}

fn name_of(view::Step { namespace, run, step, .. }: &view::Step) -> (&'static str, String) {
    if step.is_empty() {
        ("run", format!("{namespace}/{run}"))
    } else {
        ("step", format!("{namespace}/{run}/{step}"))
    }
}

fn attempt_row(attempt: &view::Attempt, now: Timestamp) -> [String; 8] {
    let dash = || "-".to_owned();
    let began = attempt.began_at.map_or_else(dash, |at| text::clock_time(at, now));
    let ran = attempt.seconds.map_or_else(dash, |s| text::duration(text::from_seconds(s)));
    let then = attempt.decision.as_ref().map_or_else(dash, |decision| {
        format!("{}: {}", text::words(decision.verdict), text::words(decision.reason))
    });
    [
        attempt.number.to_string(),
        began,
        ran,
        explain::outcome(attempt),
        attempt.exit_code.map_or_else(dash, |code| code.to_string()),
        attempt.host.clone().unwrap_or_else(dash),
        then,
        attempt.message.as_deref().map_or_else(dash, last_line),
    ]
}

/// The last line says most, since messages are the ends of longer texts.
fn last_line(message: &str) -> String {
    let last = message.trim_end().lines().next_back().unwrap_or_default();
    match last.char_indices().nth(80) {
        Some((cut, _)) => format!("{}…", &last[..cut]),
        None => last.to_owned(),
    }
}
