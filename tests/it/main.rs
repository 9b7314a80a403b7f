//! One binary, so one link.

mod cli_exec;
mod scripted;
