//! The service as gRPC: the contract to the domain and back, errors to
//! statuses, and the edge that decides which calls get in.

pub mod convert;
pub mod status;
pub mod admission;
pub mod listener;
pub mod retry;
pub mod routes;
pub mod admin;
