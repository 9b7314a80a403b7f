//! The contract `reprise.v1`, generated from `proto/` when the crate is built.

#![allow(
    clippy::all,
    clippy::allow_attributes_without_reason,
    missing_docs,
    reason = "written by a generator; the contract documents itself"
)]

tonic::include_proto!("reprise.v1");

/// The compiled contract, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/reprise.binpb"));
