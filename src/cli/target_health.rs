//! `reprise target breaker` and `reprise target lift`: orders about the health of
//! a target.

use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::{
    Global, client::Service, error::CliError, giver::GivenBy, output, target::NamedTarget, text,
};
use crate::proto::{self, ForcedBreakerState, force_breaker_request::End};

/// An order about a breaker.
#[derive(Args, Debug)]
pub struct BreakerArgs {
    /// Name of the target
    name: String,
    /// What it is to be
    #[arg(value_enum)]
    order: Order,
    /// Why, for those who wait
    #[arg(long, value_name = "TEXT", required_if_eq_any = [("order", "open"), ("order", "close")])]
    reason: Option<String>,
    #[command(flatten)]
    by: GivenBy,
    /// Release it after this long, seven days at most
    #[arg(long = "for", value_name = "SPAN", value_parser = text::parse_positive_duration, conflicts_with = "until")]
    force_for: Option<Duration>,
    /// Release it at this instant, such as 2030-01-31T14:00:00Z
    #[arg(long, value_name = "INSTANT", value_parser = text::parse_instant)]
    until: Option<Timestamp>,
}

/// What a breaker is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Order {
    /// Nothing starts, not even a probe
    Open,
    /// It refuses nothing and only watches
    Close,
    /// What it sees decides again
    Release,
}

/// Whose cooldown is ended.
#[derive(Args, Debug)]
pub struct LiftArgs {
    /// Name of the target
    name: String,
    /// The run, of a target that each run has for itself
    #[arg(long, value_name = "RUN", default_value = "", hide_default_value = true)]
    run: String,
}

/// Gives an order about a breaker.
pub(super) async fn order(
    service: &Service,
    namespace: String,
    args: BreakerArgs,
) -> Result<NamedTarget, CliError> {
    let state = match args.order {
        Order::Open => ForcedBreakerState::Open,
        Order::Close => ForcedBreakerState::Closed,
        Order::Release => return release(service, namespace, args.name).await,
    };
    let BreakerArgs { name, reason, by, force_for, until, .. } = args;
    let doing = format!("force the breaker of target {name}");
    let until = until.map(text::to_proto_timestamp).map(End::Until);
    let end = force_for.map(text::to_proto_duration).map(End::ForceFor).or(until);
    let reason = reason.unwrap_or_default();
    let state = state as i32;
    let by = by.into();
    let request = proto::ForceBreakerRequest { namespace, name, state, reason, by, end };
    let response = service
        .admin(&doing, async |mut client| client.force_breaker(request.clone()).await)
        .await?;
    NamedTarget::read(response.target)
}

async fn release(
    service: &Service,
    namespace: String,
    name: String,
) -> Result<NamedTarget, CliError> {
    let doing = format!("release the breaker of target {name}");
    let request = proto::ReleaseBreakerRequest { namespace, name };
    let response = service
        .admin(&doing, async |mut client| client.release_breaker(request.clone()).await)
        .await?;
    NamedTarget::read(response.target)
}

/// Ends a cooldown.
pub async fn lift(global: &Global, service: &Service, args: LiftArgs) -> Result<(), CliError> {
    let LiftArgs { name, run } = args;
    let doing = format!("lift the cooldown of target {name}");
    let namespace = global.namespace.clone();
    let request = proto::LiftCooldownRequest { namespace, name: name.clone(), run };
    service.admin(&doing, async |mut client| client.lift_cooldown(request.clone()).await).await?;
    output::message(&format!("reprise: target {name} has no cooldown"));
    Ok(())
}
