//! The integration tests: one binary, so one link.

#![allow(
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that fails is told by its panic, helpers included"
)]

mod chance;
mod cli_exec;
mod kill;
mod process;
mod purity;
mod scripted;
