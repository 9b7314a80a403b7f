//! Chance that can be repeated: `REPRISE_SEED=n` draws again what a test drew
//! that printed `SEED=n`.

use std::{env, ops::Range};

/// SplitMix64.
#[derive(Clone)]
pub struct Chance(u64);

impl Chance {
    /// The seed that was asked for, else one of its own; printed either way.
    pub fn seeded() -> Self {
        let asked = env::var("REPRISE_SEED")
            .ok()
            .map(|seed| seed.parse().expect("REPRISE_SEED is a number"));
        let seed = asked.unwrap_or_else(|| u64::from_ne_bytes(reprise::chance::bytes()) >> 32);
        println!("SEED={seed}");
        Self(seed)
    }

    /// Chance of its own for somebody, that does not depend on who draws when.
    pub fn of(&self, whom: u64) -> Self {
        let mut chance = Self(self.0 ^ whom.wrapping_mul(0xd1b5_4a32_d192_ed03));
        chance.next();
        chance
    }

    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of `range`.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// True so many times in a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.within(0..100) < percent
    }

    /// One of `items`, and None when there are none.
    pub fn of_these<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let length = items.len() as u64;
        if length == 0 { None } else { items.get(usize::try_from(self.within(0..length)).unwrap()) }
    }

    /// Sixteen bytes.
    pub fn id(&mut self) -> Vec<u8> {
        [self.next(), self.next()].iter().flat_map(|half| half.to_be_bytes()).collect()
    }
}
