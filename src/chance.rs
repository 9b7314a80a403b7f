//! The one place that draws chance. Everything else is told what was drawn.

#![expect(clippy::disallowed_methods, reason = "this is the place")]

/// Random bytes from the operating system.
///
/// # Panics
/// When the operating system has no random source: nothing that needs one can
/// go on then.
#[must_use]
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// A number in [0, 1).
#[must_use]
pub fn unit() -> f64 {
    crate::domain::draw::Draw::from_bits(u64::from_le_bytes(bytes())).get()
}
