//! A target as people and stores write it: every field plain, nothing checked.

use serde::{Deserialize, Serialize};

use super::{Starts, WhenSpent};
use crate::domain::time::Span;

/// A target as written. The meaning of each field, its range and what absent
/// means stand in `proto/reprise/v1/target.proto`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the contract documents each field, once")]
pub struct TargetSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<ConcurrencySpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerSpec>,
    pub every_step: bool,
    pub each_run: bool,
}

/// A rate as written: `{limit: 100, period: 1s, burst: 20, on: all}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the contract documents each field, once")]
pub struct RateSpec {
    pub limit: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    pub on: Starts,
}

/// A bound on concurrency as written: `{max: 10}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the contract documents each field, once")]
pub struct ConcurrencySpec {
    pub max: u32,
}

/// A retry budget as written: `{ratio: 0.2, floor: 10, window: 60s}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the contract documents each field, once")]
pub struct BudgetSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Span>,
    pub when_spent: WhenSpent,
}

/// A breaker as written: `{slow_after: 30s}`, or `{}` for one that is as usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the contract documents each field, once")]
pub struct BreakerSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_after: Option<Span>,
    pub observe_only: bool,
}
