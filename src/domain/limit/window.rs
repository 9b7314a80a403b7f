//! What a retry budget has seen: first attempts and what retries cost, by
//! stretches of a tenth of its window.
//!
//! The law: for every start t of a retry, what retries cost in (t − W, t], this
//! one included, is at most ρ · first attempts in (t − W, t] + floor. A stretch
//! that lies in the window only in part counts for the retries and not for the
//! first attempts, so that the law holds exactly for whatever window ends at t.

use std::collections::BTreeMap;

use super::Budget;
use crate::domain::time::{Timestamp, micros};

/// Stretches of a window.
const STRETCHES: u64 = 10;

/// First attempts and costs of retries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Width of a stretch, µs.
    pub width: u64,
    /// By number of the stretch: first attempts, and costs in thousandths.
    pub stretches: BTreeMap<u64, (u64, u64)>,
}

impl Window {
    /// Width of a stretch of a budget's window, µs.
    #[must_use]
    pub fn width_of(budget: &Budget) -> u64 {
        (micros(budget.window) / STRETCHES).max(1)
    }

    /// Whether no window that ends after `past` reaches into this stretch.
    #[must_use]
    pub const fn is_past(&self, number: u64, past: Timestamp) -> bool {
        (number + 1 + STRETCHES) * self.width <= past.as_micros()
    }

    /// What has been spent and what may be, in thousandths of a retry.
    #[must_use]
    pub fn balance(&self, budget: &Budget, now: Timestamp) -> (u64, u64) {
        let width = Self::width_of(budget);
        let (mut firsts, mut spent) = (0, 0);
        // Another window was in force before: what it saw counts as spent only.
        let is_same = width == self.width;
        for (number, (first, cost)) in &self.stretches {
            let begins = number * self.width;
            let ends = begins + self.width;
            let since = now.as_micros().saturating_sub(STRETCHES * width);
            let is_seen = if planted!("budget-window-short") { begins } else { ends } > since;
            if is_seen {
                spent += cost;
            }
            if is_same && begins > since {
                firsts += first;
            }
        }
        let earned = u64::from(budget.per_mille) * firsts;
        (spent, earned + u64::from(budget.floor) * 1000)
    }

    /// As `limits.lua` packs it: the width, then number, first attempts and costs of
    /// each stretch, as doubles. None when it is not in that form.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole, not negative and below 2⁵³"
    )]
    pub fn unpack(bytes: &[u8]) -> Option<Self> {
        let double = |part: &[u8]| Some(f64::from_le_bytes(part.try_into().ok()?) as u64);
        let Some((width, rest)) = bytes.split_at_checked(8) else { return Some(Self::default()) };
        let mut window = Self { width: double(width)?, ..Self::default() };
        for stretch in rest.chunks_exact(24) {
            let counted = (double(&stretch[8..16])?, double(&stretch[16..])?);
            window.stretches.insert(double(&stretch[..8])?, counted);
        }
        Some(window)
    }

    /// Counts a start: None is a first attempt, else what the retry cost.
    pub fn count(&mut self, width: u64, cost: Option<u32>, now: Timestamp) {
        let width = width.max(1);
        if self.width != width {
            self.turn_to(width);
        }
        let number = now.as_micros() / width;
        self.stretches.retain(|known, _| known + STRETCHES + 1 >= number);
        let (firsts, costs) = self.stretches.entry(number).or_default();
        match cost {
            None => *firsts += 1,
            Some(_) if planted!("budget-not-spent") => {}
            Some(cost) => *costs += u64::from(cost),
        }
    }

    /// Another window: costs stay, at the latest stretch that they may be in, and
    /// first attempts begin anew.
    fn turn_to(&mut self, width: u64) {
        let old = std::mem::take(&mut self.stretches);
        let before = std::mem::replace(&mut self.width, width);
        for (number, (_, cost)) in old {
            let last = (number + 1) * before - 1;
            self.stretches.entry(last / width).or_default().1 += cost;
        }
    }
}
