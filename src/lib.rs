//! Reprise.
pub mod proto;
