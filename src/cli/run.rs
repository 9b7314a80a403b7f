//! `reprise run`: a command as a run, where a run stands, and what its steps did.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{
    Global,
    client::Service,
    error::CliError,
    exec::{self, RunExecArgs},
    exit::Exit,
    explain,
    order::{self, RunOrderArgs},
    output::{self, Format},
    step, text, view,
};
use crate::proto;

/// Steps that are asked for together.
const PAGE: u32 = 1000;

/// What can be done with a run, and asked about it.
#[derive(Debug, Subcommand)]
pub enum RunCommand {
    /// Run a command as a run, and again for as long as the service says so
    Exec(Box<RunExecArgs>),
    /// Show a run with its counters and latest attempts
    Get(RunName),
    /// List the steps of a run, and where each stands
    Steps(StepsArgs),
    /// End a run and its steps; who works on them is told by the next heartbeat
    Cancel(RunOrderArgs),
    /// Have a run that is over, held or waiting tried again now
    Retry(RunOrderArgs),
}

/// A run of the namespace.
#[derive(Args, Debug)]
pub struct RunName {
    /// The run
    run: String,
}

/// Which steps of which run.
#[derive(Args, Debug)]
pub struct StepsArgs {
    /// The run
    run: String,
    /// Steps that stand so alone, such as failed or succeeded (repeatable)
    #[arg(long = "state", value_name = "STATE", value_parser = state_named)]
    states: Vec<proto::StepState>,
}

/// A run as it is printed.
#[derive(Debug, Serialize)]
struct Run {
    #[serde(flatten)]
    record: view::Step,
    resume: &'static str,
    retries_left: Option<u64>,
}

/// A step of a run as it is printed.
#[derive(Debug, Serialize)]
struct RunStep {
    step: String,
    state: &'static str,
    counters: view::Counters,
    run_attempt: u32,
}

/// Does what is asked.
pub async fn run(global: &Global, command: RunCommand) -> Result<ExitCode, CliError> {
    match command {
        RunCommand::Exec(args) => return exec::run_run(global, *args).await,
        RunCommand::Cancel(args) => return order::cancel(global, args.into()).await,
        RunCommand::Retry(args) => return order::retry_one(global, args.into()).await,
        RunCommand::Get(name) => {
            let run = get(global, name).await?;
            match global.output {
                Format::Table => output::print(&shown(&run))?,
                Format::Json => output::print_json(&run)?,
            }
        }
        RunCommand::Steps(args) => {
            let steps = steps(global, args).await?;
            match global.output {
                Format::Table => output::print(&listed(&steps))?,
                Format::Json => output::print_json(&steps)?,
            }
        }
    }
    Ok(Exit::Ok.into())
}

/// A state by the name that is printed.
pub fn state_named(name: &str) -> Result<proto::StepState, String> {
    let upper = format!("STEP_STATE_{}", name.to_ascii_uppercase());
    let known = proto::StepState::from_str_name(&upper);
    known.filter(|state| *state != proto::StepState::Unspecified).ok_or_else(|| {
        "accepted: waiting, running, held, succeeded, failed, skipped, canceled".to_owned()
    })
}

async fn get(global: &Global, RunName { run }: RunName) -> Result<Run, CliError> {
    let namespace = global.namespace.clone();
    let doing = format!("show run {namespace}/{run}");
    let request = proto::GetRunRequest { namespace, run };
    let response = Service::of(global)
        .retry(&doing, async |mut client| client.get_run(request.clone()).await)
        .await?;
    let run = response.run.unwrap_or_default();
    let resume = text::short_name(run.resume().as_str_name(), "RESUME_");
    Ok(Run {
        record: run.record.unwrap_or_default().into(),
        resume,
        retries_left: run.retries_left,
    })
}

async fn steps(global: &Global, args: StepsArgs) -> Result<Vec<RunStep>, CliError> {
    let StepsArgs { run, states } = args;
    let namespace = global.namespace.clone();
    let doing = format!("list the steps of run {namespace}/{run}");
    let service = Service::of(global);
    let mut request = proto::ListRunStepsRequest {
        namespace,
        run,
        states: states.into_iter().map(Into::into).collect(),
        page_size: PAGE,
        page_token: String::new(),
    };
    let mut listed = Vec::new();
    loop {
        let ask = async |mut client: proto::retry_service_client::RetryServiceClient<_>| {
            client.list_run_steps(request.clone()).await
        };
        let page = service.retry(&doing, ask).await?;
        listed.extend(page.steps.into_iter().map(|step| RunStep {
            state: text::short_name(step.state().as_str_name(), "STEP_STATE_"),
            step: step.step,
            counters: step.counters.unwrap_or_default().into(),
            run_attempt: step.run_attempt,
        }));
        if page.next_page_token.is_empty() {
            return Ok(listed);
        }
        request.page_token = page.next_page_token;
    }
}

fn shown(run: &Run) -> String {
    let mut fields = vec![("resumes", text::words(run.resume))];
    fields.extend(run.retries_left.map(|left| ("step retries left", left.to_string())));
    format!("{}{}", output::fields(fields), step::shown(&run.record))
}

fn listed(steps: &[RunStep]) -> String {
    if steps.is_empty() {
        return "No step was begun with an attempt of this run.\n".to_owned();
    }
    let row = |step: &RunStep| {
        [
            step.step.clone(),
            text::words(step.state),
            step.counters.attempts.to_string(),
            explain::retries(&step.counters),
            step.run_attempt.to_string(),
        ]
    };
    let header = ["STEP", "STATE", "ATTEMPTS", "RETRIES", "RUN ATTEMPT"];
    output::table(header, steps.iter().map(row).collect())
}
