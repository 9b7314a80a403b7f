//! The service as operators' subcommands ask it.

use std::time::Duration;

use tonic::{Status, transport::Channel};

use super::{Global, call, error::CliError};
use crate::proto::{
    admin_service_client::AdminServiceClient, retry_service_client::RetryServiceClient,
};

/// A service to be asked one thing, within the time that a person waits.
pub struct Service {
    channel: Channel,
    patience: Duration,
}

impl Service {
    /// The service at the address that was given.
    pub fn of(global: &Global) -> Self {
        let patience = global.call_timeout;
        Self { channel: global.address().channel(patience), patience }
    }

    /// Asks what operators ask. `doing` completes "could not …".
    pub async fn admin<T>(
        &self,
        doing: &str,
        ask: impl AsyncFn(AdminServiceClient<Channel>) -> Result<tonic::Response<T>, Status>,
    ) -> Result<T, CliError> {
        let client = || AdminServiceClient::new(self.channel.clone());
        call::answered(doing, self.patience, async || Ok(ask(client()).await?.into_inner())).await
    }

    /// Asks what workers ask. `doing` completes "could not …".
    pub async fn retry<T>(
        &self,
        doing: &str,
        ask: impl AsyncFn(RetryServiceClient<Channel>) -> Result<tonic::Response<T>, Status>,
    ) -> Result<T, CliError> {
        let client = || RetryServiceClient::new(self.channel.clone());
        call::answered(doing, self.patience, async || Ok(ask(client()).await?.into_inner())).await
    }
}
