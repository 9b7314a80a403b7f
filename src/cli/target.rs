//! `reprise target`: what the dependencies of steps allow.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;

use super::{
    Global,
    client::Service,
    error::CliError,
    exit::Exit,
    giver::GivenBy,
    output::{self, Format},
    policy_file,
    target_flags::TargetFlags,
    target_health::{self, BreakerArgs, LiftArgs},
    target_watch, text, view,
};
use crate::{
    domain::{
        limit::{
            Starts,
            parse::{PER_MILLE_DEFAULT, PERIOD_DEFAULT},
            spec::{BreakerSpec, RateSpec, TargetSpec},
        },
        time::Span,
    },
    grpc::convert::target::{from_proto, to_proto},
    proto::{self, pause_target_request::End},
};

/// What can be done with targets.
#[derive(Debug, Subcommand)]
pub enum TargetCommand {
    /// Make the service's targets those of a file; its policies stay as they are
    Apply {
        /// The file
        file: PathBuf,
    },
    /// Create a target
    Create {
        /// Its name, as steps name it
        name: String,
        #[command(flatten)]
        flags: TargetFlags,
    },
    /// Change limits of a target; those not named stay
    Update {
        /// Its name
        name: String,
        #[command(flatten)]
        flags: TargetFlags,
        /// Only if it is still as this etag says
        #[arg(long, value_name = "ETAG", default_value = "", hide_default_value = true)]
        etag: String,
    },
    /// Show a target
    #[command(visible_alias = "show")]
    Get {
        /// Its name
        name: String,
    },
    /// Show again and again what is used of a target's limits
    Watch(WatchArgs),
    /// List the targets of the namespace
    List,
    /// Delete a target; steps that name it have the default target's limits then
    Delete {
        /// Its name
        name: String,
        /// Only if it is still as this etag says
        #[arg(long, value_name = "ETAG", default_value = "", hide_default_value = true)]
        etag: String,
    },
    /// Let nothing start at a target; what runs there goes on
    Pause(PauseArgs),
    /// End a target's pause
    Resume {
        /// Its name
        name: String,
    },
    /// Force a target's breaker open or closed for a while, or leave it to itself again
    Breaker(BreakerArgs),
    /// End the cooldown that a target asked for; steps that are parked for it go on
    Lift(LiftArgs),
}

/// What is watched of a target.
#[derive(Args, Debug)]
pub struct WatchArgs {
    /// Its name
    pub name: String,
    /// The run, of a target that each run has for itself
    #[arg(long, value_name = "RUN", default_value = "", hide_default_value = true)]
    pub run: String,
    /// From one look to the next
    #[arg(long, value_name = "SPAN", default_value = "1s", value_parser = text::parse_positive_duration)]
    pub every: Duration,
    /// Looks, at most [default: until Ctrl-C]
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
}

/// An order to pause a target.
#[derive(Args, Debug)]
pub struct PauseArgs {
    /// Its name
    name: String,
    /// Why, for those who wait
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    by: GivenBy,
    /// Resume after this long
    #[arg(long = "for", value_name = "SPAN", value_parser = text::parse_positive_duration, conflicts_with = "until")]
    pause_for: Option<Duration>,
    /// Resume at this instant, such as 2030-01-31T14:00:00Z
    #[arg(long, value_name = "INSTANT", value_parser = text::parse_instant)]
    until: Option<Timestamp>,
}

/// Does what was asked and shows the result.
pub async fn run(global: &Global, command: TargetCommand) -> Result<ExitCode, CliError> {
    let service = Service::of(global);
    let namespace = global.namespace.clone();
    match command {
        TargetCommand::Apply { file } => policy_file::apply_targets(global, &file).await?,
        TargetCommand::Create { name, flags } => {
            show(global, create(&service, namespace, name, &flags).await?)?;
        }
        TargetCommand::Update { name, flags, etag } => {
            show(global, update(&service, namespace, name, &flags, etag).await?)?;
        }
        TargetCommand::Get { name } => show(global, get(&service, namespace, name).await?)?,
        TargetCommand::Watch(args) => target_watch::watch(global, &service, args).await?,
        TargetCommand::List => show_all(global, list(&service, &namespace).await?)?,
        TargetCommand::Delete { name, etag } => {
            delete(&service, namespace, name.clone(), etag).await?;
            output::message(&format!("reprise: target {name} is deleted"));
        }
        TargetCommand::Pause(args) => show(global, pause(&service, namespace, args).await?)?,
        TargetCommand::Resume { name } => show(global, resume(&service, namespace, name).await?)?,
        TargetCommand::Breaker(args) => {
            show(global, target_health::order(&service, namespace, args).await?)?;
        }
        TargetCommand::Lift(args) => target_health::lift(global, &service, args).await?,
    }
    Ok(Exit::Ok.into())
}

async fn create(
    service: &Service,
    namespace: String,
    name: String,
    flags: &TargetFlags,
) -> Result<NamedTarget, CliError> {
    let doing = format!("create target {name}");
    let target = Some(to_proto(&flags.spec()?));
    let target = Some(proto::NamedTarget { name, target, ..Default::default() });
    let request = proto::CreateTargetRequest { namespace, target, validate_only: false };
    let response = service
        .admin(&doing, async |mut client| client.create_target(request.clone()).await)
        .await?;
    NamedTarget::read(response.target)
}

async fn update(
    service: &Service,
    namespace: String,
    name: String,
    flags: &TargetFlags,
    etag: String,
) -> Result<NamedTarget, CliError> {
    let doing = format!("update target {name}");
    let target = Some(to_proto(&flags.spec()?));
    let request = proto::UpdateTargetRequest {
        namespace,
        target: Some(proto::NamedTarget { name, target, etag, ..Default::default() }),
        update_mask: Some(flags.mask()?),
        ..Default::default()
    };
    let response = service
        .admin(&doing, async |mut client| client.update_target(request.clone()).await)
        .await?;
    NamedTarget::read(response.target)
}

async fn get(service: &Service, namespace: String, name: String) -> Result<NamedTarget, CliError> {
    let doing = format!("show target {name}");
    let request = proto::GetTargetRequest { namespace, name };
    let response =
        service.admin(&doing, async |mut client| client.get_target(request.clone()).await).await?;
    NamedTarget::read(response.target)
}

async fn list(service: &Service, namespace: &str) -> Result<Vec<NamedTarget>, CliError> {
    let mut targets = Vec::new();
    let mut page_token = String::new();
    loop {
        let namespace = namespace.to_owned();
        let request = proto::ListTargetsRequest { namespace, page_size: 0, page_token };
        let page = service
            .admin("list targets", async |mut client| client.list_targets(request.clone()).await)
            .await?;
        for target in page.targets {
            targets.push(NamedTarget::read(Some(target))?);
        }
        if page.next_page_token.is_empty() {
            return Ok(targets);
        }
        page_token = page.next_page_token;
    }
}

async fn delete(
    service: &Service,
    namespace: String,
    name: String,
    etag: String,
) -> Result<(), CliError> {
    let doing = format!("delete target {name}");
    let request = proto::DeleteTargetRequest { namespace, name, etag };
    service
        .admin(&doing, async |mut client| client.delete_target(request.clone()).await)
        .await
        .map(drop)
}

async fn pause(
    service: &Service,
    namespace: String,
    args: PauseArgs,
) -> Result<NamedTarget, CliError> {
    let PauseArgs { name, reason, by, pause_for, until } = args;
    let doing = format!("pause target {name}");
    let until = until.map(text::to_proto_timestamp).map(End::Until);
    let end = pause_for.map(text::to_proto_duration).map(End::PauseFor).or(until);
    let by = by.into();
    let request = proto::PauseTargetRequest { namespace, name, reason, by, end };
    let response = service
        .admin(&doing, async |mut client| client.pause_target(request.clone()).await)
        .await?;
    NamedTarget::read(response.target)
}

async fn resume(
    service: &Service,
    namespace: String,
    name: String,
) -> Result<NamedTarget, CliError> {
    let doing = format!("resume target {name}");
    let request = proto::ResumeTargetRequest { namespace, name };
    let response = service
        .admin(&doing, async |mut client| client.resume_target(request.clone()).await)
        .await?;
    NamedTarget::read(response.target)
}

/// A target as it is shown.
#[derive(Debug, Serialize)]
pub(super) struct NamedTarget {
    namespace: String,
    name: String,
    revision: u64,
    etag: String,
    update_time: Option<Timestamp>,
    pause: Option<Pause>,
    forced_breaker: Option<Forced>,
    target: TargetSpec,
}

/// A pause as it is shown.
#[derive(Debug, Serialize)]
struct Pause {
    reason: String,
    by: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl NamedTarget {
    /// Reads it from an answer.
    pub(super) fn read(named: Option<proto::NamedTarget>) -> Result<Self, CliError> {
        let named = named.unwrap_or_default();
        let target =
            from_proto(&named.target.unwrap_or_default(), "target").map_err(|invalid| {
                let name = &named.name;
                CliError::new(Exit::Failed, format!("could not read target {name}: {invalid}"))
                    .next("client and server may differ in version; `reprise doctor` shows both")
            })?;
        Ok(Self {
            namespace: named.namespace,
            name: named.name,
            revision: named.revision,
            etag: named.etag,
            update_time: view::instant(named.update_time),
            pause: named.pause.map(Pause::read),
            forced_breaker: named.forced_breaker.map(Forced::read),
            target,
        })
    }
}

/// An order about a breaker as it is shown.
#[derive(Debug, Serialize)]
pub(super) struct Forced {
    pub state: &'static str,
    #[serde(flatten)]
    order: Pause,
}

impl Forced {
    pub fn read(forced: proto::ForcedBreaker) -> Self {
        let state = match forced.state() {
            proto::ForcedBreakerState::Open => "open",
            proto::ForcedBreakerState::Closed => "closed",
            proto::ForcedBreakerState::Unspecified => "unknown",
        };
        let proto::ForcedBreaker { reason, by, since, until, .. } = forced;
        Self { state, order: Pause::read(proto::TargetPause { reason, by, since, until }) }
    }

    fn in_words(&self) -> String {
        format!("forced {}: {}", self.state, self.order.in_words())
    }

    /// Until when.
    pub const fn until(&self) -> Option<Timestamp> {
        self.order.until
    }
}

impl Pause {
    fn read(pause: proto::TargetPause) -> Self {
        Self {
            reason: pause.reason,
            by: Some(pause.by).filter(|by| !by.is_empty()),
            since: view::instant(pause.since),
            until: view::instant(pause.until),
        }
    }

    fn in_words(&self) -> String {
        let by = self.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
        let since = self.since.map(|at| format!(" since {at:.0}")).unwrap_or_default();
        let until = self.until.map(|at| format!(" until {at:.0}")).unwrap_or_default();
        format!("{}{by}{since}{until}", self.reason)
    }
}

const NO_LIMIT: &str = "no limit";

fn rate_in_words(rate: &RateSpec) -> String {
    let period = rate.period.unwrap_or(Span(PERIOD_DEFAULT));
    let what = match rate.on {
        Starts::All => "",
        Starts::Retries => " retries",
    };
    format!("{}{what} in {}", rate.limit, text::duration(period.0))
}

fn rate(target: &TargetSpec) -> String {
    target.rate.as_ref().map_or(NO_LIMIT.to_owned(), rate_in_words)
}

fn ratio(given: Option<f64>) -> String {
    given.unwrap_or(f64::from(PER_MILLE_DEFAULT) / 1000.0).to_string()
}

fn concurrency(target: &TargetSpec) -> String {
    target.concurrency.map_or(NO_LIMIT.to_owned(), |bound| bound.max.to_string())
}

fn breaker(target: &TargetSpec) -> &'static str {
    match target.breaker {
        None => "none",
        Some(BreakerSpec { observe_only: true, .. }) => "observes",
        Some(BreakerSpec { observe_only: false, .. }) => "on",
    }
}

fn show(global: &Global, named: NamedTarget) -> Result<(), CliError> {
    if global.output == Format::Json {
        return output::print_json(&named);
    }
    let spec = serde_saphyr::to_string(&named.target).map_err(|e| {
        CliError::new(Exit::Failed, format!("could not write target {}: {e}", named.name))
    })?;
    let updated = named.update_time.map(|at| format!(", of {at:.0}")).unwrap_or_default();
    let heading = format!("# {} r{}{updated}\n", named.name, named.revision);
    let paused = named.pause.map(|pause| format!("# paused: {}\n", pause.in_words()));
    let forced = named.forced_breaker.map(|forced| format!("# breaker {}\n", forced.in_words()));
    output::print(&(heading + &paused.unwrap_or_default() + &forced.unwrap_or_default() + &spec))
}

fn show_all(global: &Global, targets: Vec<NamedTarget>) -> Result<(), CliError> {
    if global.output == Format::Json {
        return output::print_json(&targets);
    }
    let row = |named: &NamedTarget| {
        let budget = named.target.budget.map(|budget| ratio(budget.ratio));
        [
            named.name.clone(),
            format!("r{}", named.revision),
            rate(&named.target),
            concurrency(&named.target),
            budget.unwrap_or(NO_LIMIT.to_owned()),
            named.forced_breaker.as_ref().map_or_else(
                || breaker(&named.target).to_owned(),
                |forced| format!("forced {}", forced.state),
            ),
            named.pause.as_ref().map_or("-".to_owned(), Pause::in_words),
        ]
    };
    let header = ["TARGET", "REVISION", "RATE", "CONCURRENCY", "BUDGET", "BREAKER", "PAUSED"];
    output::print(&output::table(header, targets.iter().map(row).collect()))
}
