//! The gRPC edge: what listens, and what is let in.

pub mod admission;
pub mod listener;
