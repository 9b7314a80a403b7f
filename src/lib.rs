//! Reprise: may this step be tried again, and when? One answer for every
//! process.
//!
//! The modules in reading order, from the rule outwards. `ARCHITECTURE.md` is
//! the map.

#[macro_use]
mod fault;
pub mod domain;
pub mod clock;
pub mod chance;
pub mod store;
pub mod telemetry;
pub mod service;
pub mod grpc;
pub mod http;
pub mod config;
pub mod dialect;
pub mod policies;
pub mod server;
pub mod proto;
pub mod simulation;
pub mod cli;
