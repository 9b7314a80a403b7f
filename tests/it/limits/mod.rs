//! What targets with limits do to the steps that name them, through the service
//! and over every store: stories first, then random histories, whose starts are
//! held to the laws by a checker that knows nothing of how they were granted.
//!
//! A store joins with one line in [`stage`] and one in [`histories`]: a function
//! that makes it, on a clock that a test moves by hand.

pub mod checker;
mod explained;
mod forced;
mod herd;
mod histories;
mod outages;
mod pauses;
mod reopened;
pub mod stage;
mod stories;
