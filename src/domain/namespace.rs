//! A tenant's defaults, ceilings and retention.

use std::time::Duration;

use super::id::Id;

/// What applies to every step of a namespace. The contract's
/// `NamespaceSettings` says what each is for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Settings {
    /// Policy of steps that name none; None means the built-in one.
    #[serde(with = "optional_id")]
    pub default_policy: Option<Id>,
    /// Target whose limits those get that nobody wrote; None gives them none.
    #[serde(with = "optional_id", default)]
    pub default_target: Option<Id>,
    /// Lease of attempts that ask for none.
    pub lease: Duration,
    /// Retries granted to a step at most, over all counters.
    pub max_retries_ceiling: u32,
    /// Longest time from the first start to the last.
    pub max_elapsed_ceiling: Duration,
    /// How long a step that is over is remembered.
    pub retention: Duration,
    /// How long a due step waits for its worker.
    pub abandon_after: Duration,
    /// Steps that are not over, at most.
    pub max_live_steps: u64,
}

/// Shortest lease.
pub const LEASE_MIN: Duration = Duration::from_secs(1);
/// Longest lease.
pub const LEASE_MAX: Duration = Duration::from_secs(3600);
/// Name of the namespace that always exists.
pub const DEFAULT_NAMESPACE: &str = "default";

impl Default for Settings {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self {
            default_policy: None,
            default_target: None,
            lease: Duration::from_secs(30),
            max_retries_ceiling: 1000,
            max_elapsed_ceiling: DAY * 30,
            retention: DAY,
            abandon_after: DAY * 7,
            max_live_steps: 100_000,
        }
    }
}

mod optional_id {
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    use crate::domain::id::Id;

    #[expect(clippy::ref_option, reason = "the signature that serde asks for")]
    pub fn serialize<S: Serializer>(id: &Option<Id>, serializer: S) -> Result<S::Ok, S::Error> {
        match id {
            Some(id) => serializer.serialize_some(&**id),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Id>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(de::Error::custom)).transpose()
    }
}
