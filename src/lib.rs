//! Reprise.
pub mod cli;
pub mod proto;
