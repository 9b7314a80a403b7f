//! Bugs planted on purpose, so that it can be shown that some test catches
//! them: `make planted`.
//!
//! A site asks [`planted`] by name and does the wrong thing when that fault is
//! the one that `REPRISE_FAULT` names. Without the feature `faults`, which no
//! release has, the answer is a constant and the site compiles to nothing.

/// Whether the fault `name` is planted.
#[cfg(not(feature = "faults"))]
#[inline(always)]
#[must_use]
pub const fn planted(_name: &str) -> bool {
    false
}

/// Whether the fault `name` is planted.
#[cfg(feature = "faults")]
#[must_use]
pub fn planted(name: &str) -> bool {
    static PLANTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    PLANTED.get_or_init(|| std::env::var("REPRISE_FAULT").ok()).as_deref() == Some(name)
}
