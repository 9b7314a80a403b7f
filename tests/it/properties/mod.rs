//! What holds for every question that can be asked.

mod backoff;
mod rule;
