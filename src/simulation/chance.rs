//! Chance that repeats itself: what is drawn depends on the seed and on the
//! question, never on what was drawn before. So strategies differ by what they
//! do, not by their luck.

use crate::domain::draw::{Draw, Salt, digest};

/// The chance of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chance {
    seed: u64,
}

/// What is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// How long after the arrival before it a fresh step arrives.
    Arrival,
    /// Which process a step belongs to.
    Process,
    /// Whether an attempt meets a node that is broken, or which sound one.
    Host,
    /// Whether a target that fails in part fails this attempt.
    Failing,
    /// Where in its window a wait falls.
    Jitter,
}

impl Chance {
    /// The chance of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// A number in [0, 1) for a question about an attempt of a step.
    #[must_use]
    pub fn draw(self, question: Question, step: u32, attempt: u32) -> f64 {
        let mut bytes = [0; 17];
        bytes[..8].copy_from_slice(&self.seed.to_le_bytes());
        bytes[8..12].copy_from_slice(&step.to_le_bytes());
        bytes[12..16].copy_from_slice(&attempt.to_le_bytes());
        bytes[16] = question as u8;
        Draw::from_bits(digest(&bytes)).get()
    }

    /// One of `count` equals, from 0; 0 where there is none.
    #[must_use]
    pub fn pick(self, question: Question, step: u32, attempt: u32, count: u32) -> u32 {
        (self.draw(question, step, attempt) * f64::from(count)) as u32
    }

    /// The salt under which the production rule draws.
    #[must_use]
    pub fn salt(self) -> Salt {
        let mut salt = [0; 16];
        salt[..8].copy_from_slice(&self.seed.to_le_bytes());
        Salt(salt)
    }
}
