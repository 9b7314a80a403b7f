//! Bugs planted on purpose, to show that some test catches each: `make faults`.
//!
//! A site asks `planted!("name")` and does the wrong thing when that is the
//! fault that `REPRISE_FAULT` names. Without the feature `faults`, which no
//! release has, the answer is `false` and a site compiles to nothing.

/// Whether the fault of this name is planted.
#[cfg(not(feature = "faults"))]
macro_rules! planted {
    ($name:literal) => {
        false
    };
}

/// Whether the fault of this name is planted.
#[cfg(feature = "faults")]
macro_rules! planted {
    ($name:literal) => {
        $crate::fault::is_planted($name)
    };
}

/// Whether `REPRISE_FAULT` names this fault.
#[cfg(feature = "faults")]
pub(crate) fn is_planted(name: &str) -> bool {
    static PLANTED: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var("REPRISE_FAULT").ok());
    PLANTED.as_deref() == Some(name)
}
