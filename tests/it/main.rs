//! The integration tests: one binary, so one link.

#![allow(
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that fails is told by its panic, helpers included"
)]

mod awaits;
mod bench;
mod chance;
mod claims;
mod claims_figures;
mod cli_ask;
mod cli_config;
mod cli_exec;
mod cli_explain;
mod cli_import;
mod cli_run;
mod cli_server;
mod cli_simulate;
mod cli_worker;
mod conformance;
mod dialect;
mod fleet;
mod history;
mod kill;
mod laws;
mod limits;
mod liveness;
mod model;
mod orders;
mod overload;
mod policy_file;
mod process;
mod properties;
mod purity;
mod redis_calendar;
mod redis_limits;
mod redis_faults;
mod redis_formats;
mod redis_open;
mod redis_plans;
mod redis_scripts;
mod redis_servers;
mod rule;
mod runs;
mod scenarios;
mod scripted;
mod served;
mod store_contract;
mod store_copy;
mod store_embedded;
mod store_record;
mod transitions;
mod wire;
mod wire_targets;
