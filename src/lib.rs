//! Reprise.
pub mod store;
