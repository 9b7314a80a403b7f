//! One binary, so one link.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that fails is told by its panic, in helpers too"
)]

mod cli_ask;
mod cli_exec;
mod scripted;
