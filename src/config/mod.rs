//! What operators set: settings of a server, and files of policies.

pub mod settings;
