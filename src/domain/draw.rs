//! Chance that repeats itself: a hash of the question.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

use super::id::StepKey;

/// Secret of a store, made once when the store is. Two stores draw differently;
/// one store always draws the same for the same question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Salt(pub [u8; 16]);

/// A number in [0, 1), drawn for one wait of one step.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Draw(f64);

impl Draw {
    /// Draws for the wait that follows attempt `attempt` of `key`: the top 53
    /// bits of SipHash-1-3 under the salt, so that every value a `f64` can
    /// represent evenly is equally likely.
    #[must_use]
    pub fn of(salt: Salt, key: &StepKey<'_>, attempt: u32) -> Self {
        Self::from_bits(question(salt, key, attempt).finish())
    }

    /// Another draw for the same wait, of which the first shows nothing.
    #[must_use]
    pub fn other_of(salt: Salt, key: &StepKey<'_>, attempt: u32) -> Self {
        let mut hasher = question(salt, key, attempt);
        hasher.write_u8(1);
        Self::from_bits(hasher.finish())
    }

    /// The draw whose place in [0, 1) is `bits` of 2⁶⁴.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "53 bits are exactly what a f64 holds")]
        Self((bits >> 11) as f64 / (1u64 << 53) as f64)
    }

    /// The number as a part of 2¹⁶, from bits that the number itself hardly shows.
    #[must_use]
    pub fn of_two_bytes(self) -> u16 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "below 2⁵³, and the lower bits are wanted"
        )]
        let bits = (self.0 * (1u64 << 53) as f64) as u64;
        bits as u16
    }

    /// The number, in [0, 1).
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

/// What chance is asked for.
fn question(salt: Salt, key: &StepKey<'_>, attempt: u32) -> SipHasher13 {
    let mut hasher = SipHasher13::new_with_key(&salt.0);
    for part in [key.namespace, key.run, key.step] {
        hasher.write(part.as_bytes());
        hasher.write_u8(0xff);
    }
    hasher.write_u32(attempt);
    hasher
}

/// A 64-bit digest of what a caller sent, to tell a repeated call from another
/// one with the same identity.
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_key(b"reprise.v1digest");
    hasher.write(bytes);
    hasher.finish()
}
