//! One binary, so one link.

mod cli_config;
mod cli_exec;
mod policy_file;
mod scripted;
