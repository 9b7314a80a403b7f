//! The rule: values in, values out.
//!
//! Nothing here reads a clock or a random source, waits, does I/O or logs, and
//! nothing here knows the rest of the crate. In reading order:

pub mod time;
pub mod id;
pub mod labels;
pub mod violation;
pub mod draw;
pub mod failure;
pub mod pattern;
pub mod condition;
pub mod backoff;
pub mod policy;
pub mod namespace;
pub mod limit;
pub mod decision;
pub mod record;
pub mod order;
pub mod shift;
pub mod event;
pub mod plan;
