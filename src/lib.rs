//! Reprise.

pub mod domain;
pub mod clock;
pub mod chance;
pub mod store;
pub mod telemetry;
pub mod service;
pub mod proto;
pub mod cli;
