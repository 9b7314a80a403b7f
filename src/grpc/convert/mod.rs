//! Between the contract and the domain.
//!
//! A request is checked once, here, into values whose existence is the proof;
//! behind this line nobody checks again. Requests are consumed, so that their
//! texts are moved and not copied. Everything wrong with a request is told at
//! once. In reading order:

pub mod check;
pub mod request;
pub mod run;
pub mod order;
pub mod policy;
pub mod admin;
pub mod target;
pub mod answer;
pub mod explain;
pub mod force;
#[cfg(test)]
mod tests;

pub use check::Invalid;
