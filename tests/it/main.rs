//! One test binary, so one link.

mod history;
mod rule;
mod seed_vectors;
