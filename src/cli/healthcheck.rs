//! `reprise healthcheck`: for probes that can run a command and nothing else.

use std::process::ExitCode;

use tonic::{Code, Status, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{Global, call, error::CliError, exit::Exit};

/// The name under which readiness is told; the empty one tells liveness.
pub const READINESS: &str = "reprise.v1.RetryService";

/// Ends with 0 when the service is ready, with 1 when it is not or is silent.
pub async fn run(global: &Global) -> Result<ExitCode, CliError> {
    let channel = global.address().channel(global.call_timeout);
    let health = call::answered("ask for its health", global.call_timeout, async || {
        status(channel.clone(), READINESS).await
    });
    match health.await {
        Ok(ServingStatus::Serving) => Ok(Exit::Ok.into()),
        Ok(status) => {
            let said = status.as_str_name();
            Err(CliError::new(Exit::Failed, format!("the service is not ready: {said}")))
        }
        Err(error) => Err(error.ending(Exit::Failed)),
    }
}

/// What the service says of itself under a name. A service that does not know
/// the name says of itself only whether it is alive.
pub async fn status(channel: Channel, name: &str) -> Result<ServingStatus, Status> {
    match asked(channel.clone(), name).await {
        Err(unknown) if unknown.code() == Code::NotFound => asked(channel, "").await,
        answer => answer,
    }
}

async fn asked(channel: Channel, service: &str) -> Result<ServingStatus, Status> {
    let request = HealthCheckRequest { service: service.to_owned() };
    Ok(HealthClient::new(channel).check(request).await?.into_inner().status())
}
