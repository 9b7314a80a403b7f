//! What operators set: settings of a server, and files of policies.
//!
//! Both are read with the same manners: everything wrong is told at once, each
//! with its place, its value and what would be accepted.

pub mod problem;
pub mod layers;
pub mod settings;
pub mod yaml;
pub mod policy_file;
pub mod watch;
