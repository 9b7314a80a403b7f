//! `reprise evaluate`: what would be decided, without touching any step.

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use serde::Serialize;

use super::{
    Global,
    client::Service,
    error::CliError,
    exit::Exit,
    failure_flag::{self, FailureFlag},
    output::{self, Format},
    policy_flags::PolicyFlags,
    text, view,
};
use crate::{
    grpc::convert::policy::to_proto,
    proto::{EvaluateRequest, EvaluatedDecision, Failure, evaluate_request::Policy},
};

const EXAMPLES: &str = "\
Examples:
  reprise evaluate --policy nightly --failure class=TRANSIENT,code=503,times=4
  reprise evaluate --max-retries 3 --failure exit=1 --failure exit=137,signal=9
  reprise evaluate --policy nightly --file failures.json

A failure is a list of KEY=VALUE: class, type, code (a gRPC name or an HTTP
status), exit, signal, message, cause, host, target, action, duration, pushback
(a span or never), retryable, executed, and times to repeat it. A file holds the
same keys as a JSON list of objects.";

/// Decide a sequence of failures without touching any step.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct EvaluateArgs {
    /// A failure, as KEY=VALUE,… (repeatable, in order)
    #[arg(long = "failure", value_name = "KEY=VALUE,...", required_unless_present = "file")]
    failures: Vec<FailureFlag>,
    /// The failures as a JSON list
    #[arg(long, value_name = "FILE", conflicts_with = "failures")]
    file: Option<PathBuf>,
    /// A policy of the namespace [default: the namespace's default]
    #[arg(long, value_name = "NAME", conflicts_with = "PolicyFlags")]
    policy: Option<String>,
    /// Run of the imagined step; jitter is drawn from it
    #[arg(long, value_name = "RUN", default_value = "", hide_default_value = true)]
    run: String,
    /// Name of the imagined step; jitter is drawn from it
    #[arg(long, value_name = "STEP", default_value = "", hide_default_value = true)]
    step: String,
    /// Kind of the imagined step
    #[arg(long, value_name = "KIND", default_value = "", hide_default_value = true)]
    kind: String,
    /// Time from the first start to the step's deadline
    #[arg(long, value_name = "SPAN", value_parser = text::parse_positive_duration)]
    time_left: Option<Duration>,
    #[command(flatten)]
    inline: PolicyFlags,
}

/// Asks and tells.
pub async fn run(global: &Global, args: EvaluateArgs) -> Result<ExitCode, CliError> {
    let request = request(global, args)?;
    let failures = request.failures.clone();
    let response = Service::of(global)
        .admin("evaluate", async |mut client| client.evaluate(request.clone()).await)
        .await?;
    let decided: Vec<Decided> = response.decisions.into_iter().map(Into::into).collect();
    match global.output {
        Format::Json => output::print_json(&decided)?,
        Format::Table => output::print(&shown(&failures, &decided))?,
    }
    Ok(Exit::Ok.into())
}

fn request(global: &Global, args: EvaluateArgs) -> Result<EvaluateRequest, CliError> {
    let inline = args.inline.spec()?.map(|spec| Policy::InlinePolicy(to_proto(&spec)));
    let flags = match &args.file {
        None => args.failures,
        Some(file) => {
            let json = fs::read_to_string(file)
                .map_err(|e| CliError::usage(format!("could not read {}: {e}", file.display())))?;
            failure_flag::from_json(&json)
                .map_err(|e| CliError::usage(format!("{}: {e}", file.display())))?
        }
    };
    Ok(EvaluateRequest {
        namespace: global.namespace.clone(),
        policy: inline.or_else(|| args.policy.map(Policy::PolicyName)),
        run: args.run,
        step: args.step,
        kind: args.kind,
        failures: flags.into_iter().flat_map(FailureFlag::failures).collect(),
        time_left: args.time_left.map(text::to_proto_duration),
    })
}

/// A decision with what it was drawn from.
#[derive(Debug, Serialize)]
struct Decided {
    #[serde(flatten)]
    decision: view::Decision,
    delay_min_seconds: Option<f64>,
    delay_max_seconds: Option<f64>,
}

impl From<EvaluatedDecision> for Decided {
    fn from(evaluated: EvaluatedDecision) -> Self {
        Self {
            decision: evaluated.decision.unwrap_or_default().into(),
            delay_min_seconds: view::seconds(evaluated.delay_min),
            delay_max_seconds: view::seconds(evaluated.delay_max),
        }
    }
}

fn shown(failures: &[Failure], decided: &[Decided]) -> String {
    let mut elapsed = Duration::ZERO;
    let mut rows = Vec::new();
    for (number, (failure, decided)) in (1..).zip(failures.iter().zip(decided)) {
        elapsed += failure.duration.map(text::from_proto_duration).unwrap_or_default();
        let decision = &decided.decision;
        let wait = decision.delay_seconds.map(text::from_seconds);
        elapsed += wait.unwrap_or_default();
        rows.push([
            format!("{number}"),
            failure_flag::in_words(failure),
            text::words(decision.verdict),
            text::words(decision.reason),
            decision.rule.clone().unwrap_or_else(|| "-".to_owned()),
            wait.map_or("-".to_owned(), text::duration),
            range(decided),
            text::duration(elapsed),
        ]);
    }
    let header = ["ATTEMPT", "FAILURE", "VERDICT", "REASON", "RULE", "WAIT", "RANGE", "ELAPSED"];
    let over = match failures.len() - decided.len().min(failures.len()) {
        0 => String::new(),
        1 => "the step ends there; 1 more failure does not happen\n".to_owned(),
        n => format!("the step ends there; {n} more failures do not happen\n"),
    };
    output::table(header, rows) + &over
}

fn range(decided: &Decided) -> String {
    let span = |seconds| text::duration(text::from_seconds(seconds));
    match (decided.delay_min_seconds, decided.delay_max_seconds) {
        (Some(min), Some(max)) if min < max => format!("{} to {}", span(min), span(max)),
        (_, Some(max)) => span(max),
        _ => "-".to_owned(),
    }
}
