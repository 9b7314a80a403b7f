//! One test binary, so one link.

mod history;
mod laws;
mod model;
mod properties;
mod rule;
mod seed_vectors;
