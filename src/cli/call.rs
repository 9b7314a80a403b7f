//! One call to the service, within the time that a person waits.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Request, Status};

use super::error::{CliError, asked_delay};

/// A request that tells the service how long its answer is waited for.
pub fn request<T>(message: T, patience: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(patience);
    request
}

/// Calls within `patience`, again when the service asks to come back in less
/// time than is left. `doing` completes "could not …".
pub async fn answered<T>(
    doing: &str,
    patience: Duration,
    call: impl AsyncFn() -> Result<T, Status>,
) -> Result<T, CliError> {
    let until = Instant::now() + patience;
    loop {
        let status = match in_time(until, call()).await {
            Ok(answer) => return Ok(answer),
            Err(status) => status,
        };
        match asked_delay(&status) {
            Some(delay) if Instant::now() + delay < until => sleep(delay).await,
            _ => return Err(CliError::of_call(doing, &status)),
        }
    }
}

/// The call's answer, or DEADLINE_EXCEEDED when it has none at `until`.
pub async fn in_time<T>(
    until: Instant,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    timeout_at(until, call)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
}
