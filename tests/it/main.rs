//! One binary, so one link.

mod cli_exec;
mod scenarios;
mod scripted;
