//! How the same is usually composed: a hash of ten fields for each step, and one
//! script a call.

use std::io;

use redis::{Script, aio::MultiplexedConnection};
use tonic::Status;

use super::redis_server::connect;
use crate::proto::ReportAttemptRequest;

/// Counts a retry and writes when the next one may begin.
const COUNT: &str = "
local step = redis.call('HMGET', KEYS[1], 'attempts', 'retries', 'first', 'state')
local attempts, retries = tonumber(step[1] or 0) + 1, tonumber(step[2] or 0)
if retries < tonumber(ARGV[1]) then retries = retries + 1 end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
redis.call('HSET', KEYS[1], 'attempts', attempts, 'retries', retries, 'first', step[3] or now,
  'state', 'waiting', 'due', now + 1000000 * retries, 'class', ARGV[2], 'type', ARGV[3],
  'message', ARGV[4], 'host', ARGV[5], 'updated', now)
redis.call('PEXPIRE', KEYS[1], 604800000)
return {attempts, retries}
";

/// Most retries.
const RETRIES_MAX: u32 = 3;

/// A connection to Redis and the script.
pub(super) struct Naive {
    connection: MultiplexedConnection,
    script: Script,
}

impl Naive {
    pub(super) async fn connect(address: &str) -> io::Result<Self> {
        Ok(Self { connection: connect(address).await?, script: Script::new(COUNT) })
    }

    /// Counts an attempt that has ended.
    pub(super) async fn count(&self, report: &ReportAttemptRequest) -> Result<(), Status> {
        use crate::proto::report_attempt_request::Outcome;
        let failure = match &report.outcome {
            Some(Outcome::Failure(failure)) => failure.clone(),
            Some(Outcome::Success(_)) | None => crate::proto::Failure::default(),
        };
        let mut call = self.script.key(format!("step:{}:{}", report.run, report.step));
        call.arg(RETRIES_MAX).arg(failure.class).arg(failure.error_type).arg(failure.message);
        call.arg(failure.host);
        let counted: Result<(u32, u32), _> = call.invoke_async(&mut self.connection.clone()).await;
        counted.map(drop).map_err(|error| Status::unavailable(error.to_string()))
    }
}
