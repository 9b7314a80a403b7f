//! Reprise.

pub mod grpc;
