//! What the service shows, as `--output json` writes it: stable snake_case
//! names, spans in seconds, instants as RFC 3339, absent things as null. The
//! contract documents each field, once.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::text;
use crate::proto;

/// An instant of the contract. One that no calendar knows is absent.
pub fn instant(at: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    at.and_then(text::from_proto_timestamp)
}

/// A span of the contract in seconds.
pub fn seconds(span: Option<prost_types::Duration>) -> Option<f64> {
    span.map(|span| text::from_proto_duration(span).as_secs_f64())
}

/// Text that says nothing when it is empty.
fn said(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// A step.
#[derive(Debug, Serialize)]
pub struct Step {
    pub namespace: String,
    pub run: String,
    pub step: String,
    pub state: &'static str,
    pub counters: Counters,
    pub policy: Option<Policy>,
    pub next_event_at: Option<Timestamp>,
    pub first_began_at: Option<Timestamp>,
    pub deadline: Option<Timestamp>,
    pub ends_by: Option<Timestamp>,
    pub kind: Option<String>,
    pub targets: Vec<String>,
    pub queue: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub fence: u64,
    pub resume_from: Option<String>,
    pub decision: Option<Decision>,
    pub attempts: Vec<Attempt>,
    pub read_at: Option<Timestamp>,
    pub purge_at: Option<Timestamp>,
    pub orders: Vec<Order>,
    pub pause: Option<StepPause>,
    pub cancel_requested: bool,
    pub extra_retries: u32,
    pub manual_retries: u32,
    pub held_since: Option<Timestamp>,
    pub progress: u64,
}

impl From<proto::Step> for Step {
    fn from(step: proto::Step) -> Self {
        Self {
            state: text::short_name(step.state().as_str_name(), "STEP_STATE_"),
            namespace: step.namespace,
            run: step.run,
            step: step.step,
            counters: step.counters.unwrap_or_default().into(),
            policy: step.policy.map(Into::into),
            next_event_at: instant(step.next_event_at),
            first_began_at: instant(step.first_began_at),
            deadline: instant(step.deadline),
            ends_by: instant(step.ends_by),
            kind: said(step.kind),
            targets: step.targets,
            queue: said(step.queue),
            labels: step.labels,
            fence: step.fence,
            resume_from: said(step.resume_from),
            decision: step.decision.map(Into::into),
            attempts: step.attempts.into_iter().map(Into::into).collect(),
            read_at: instant(step.read_at),
            purge_at: instant(step.purge_at),
            orders: step.orders.into_iter().map(Into::into).collect(),
            pause: step.pause.map(Into::into),
            cancel_requested: step.cancel_requested,
            extra_retries: step.extra_retries,
            manual_retries: step.manual_retries,
            held_since: instant(step.held_since),
            progress: step.progress,
        }
    }
}

/// An order that was carried out.
#[derive(Debug, Serialize)]
pub struct Order {
    pub kind: &'static str,
    pub at: Option<Timestamp>,
    pub by: String,
    pub reason: String,
    pub answer: Option<&'static str>,
    pub more_retries: u32,
    pub before: Footing,
    pub after: Footing,
}

impl From<proto::GivenOrder> for Order {
    fn from(order: proto::GivenOrder) -> Self {
        Self {
            kind: text::short_name(order.kind().as_str_name(), "ORDER_KIND_"),
            answer: known(text::short_name(order.answer().as_str_name(), "HOLD_ANSWER_")),
            at: instant(order.at),
            by: order.by,
            reason: order.reason,
            more_retries: order.more_retries,
            before: order.before.unwrap_or_default().into(),
            after: order.after.unwrap_or_default().into(),
        }
    }
}

/// How a step stood.
#[derive(Debug, Serialize)]
pub struct Footing {
    pub state: &'static str,
    pub retries: u32,
}

impl From<proto::StepFooting> for Footing {
    fn from(footing: proto::StepFooting) -> Self {
        Self {
            state: text::short_name(footing.state().as_str_name(), "STEP_STATE_"),
            retries: footing.retries,
        }
    }
}

/// A pause of a step.
#[derive(Debug, Serialize)]
pub struct StepPause {
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    pub by: String,
    pub reason: String,
}

impl From<proto::StepPause> for StepPause {
    fn from(pause: proto::StepPause) -> Self {
        Self {
            since: instant(pause.since),
            until: instant(pause.until),
            by: pause.by,
            reason: pause.reason,
        }
    }
}

impl StepPause {
    /// As a person reads it.
    pub fn in_words(&self, now: Timestamp) -> String {
        let until = self.until.map(|at| format!(" until {}", text::relative(at, now)));
        format!("by {}: {}{}", self.by, self.reason, until.unwrap_or_default())
    }
}

/// A step in a list.
#[derive(Debug, Serialize)]
pub struct StepSummary {
    pub run: String,
    pub step: String,
    pub state: &'static str,
    pub counters: Counters,
    pub reason: Option<&'static str>,
    pub class: Option<&'static str>,
    pub next_event_at: Option<Timestamp>,
    pub held_since: Option<Timestamp>,
    pub hold_answers: Vec<&'static str>,
    pub paused: bool,
    pub ended_in_outage: bool,
    pub kind: Option<String>,
    pub queue: Option<String>,
    pub host: Option<String>,
}

impl From<proto::StepSummary> for StepSummary {
    fn from(step: proto::StepSummary) -> Self {
        let answer =
            |answer: proto::HoldAnswer| text::short_name(answer.as_str_name(), "HOLD_ANSWER_");
        Self {
            state: text::short_name(step.state().as_str_name(), "STEP_STATE_"),
            reason: known(text::short_name(step.reason().as_str_name(), "REASON_")),
            class: known(text::short_name(step.class().as_str_name(), "FAILURE_CLASS_")),
            hold_answers: step.hold_answers().map(answer).collect(),
            run: step.run,
            step: step.step,
            counters: step.counters.unwrap_or_default().into(),
            next_event_at: instant(step.next_event_at),
            held_since: instant(step.held_since),
            paused: step.paused,
            ended_in_outage: step.ended_in_outage,
            kind: said(step.kind),
            queue: said(step.queue),
            host: said(step.host),
        }
    }
}

/// One try of a step.
#[derive(Debug, Serialize)]
pub struct Attempt {
    pub number: u32,
    pub began_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    /// How long it ran; null while it runs.
    pub seconds: Option<f64>,
    pub outcome: Option<&'static str>,
    pub class: Option<&'static str>,
    pub exit_code: Option<i32>,
    pub host: Option<String>,
    pub worker: Option<String>,
    pub error_type: Option<String>,
    pub message: Option<String>,
    pub cause: Option<String>,
    pub late_message: Option<String>,
    pub decision: Option<Decision>,
}

impl From<proto::Attempt> for Attempt {
    fn from(attempt: proto::Attempt) -> Self {
        let (began_at, ended_at) = (instant(attempt.began_at), instant(attempt.ended_at));
        let ran = began_at.zip(ended_at).map(|(began, ended)| ended.duration_since(began));
        Self {
            number: attempt.number,
            began_at,
            ended_at,
            seconds: ran.map(|ran| ran.as_secs_f64()),
            outcome: known(text::short_name(attempt.outcome().as_str_name(), "OUTCOME_")),
            class: known(text::short_name(attempt.class().as_str_name(), "FAILURE_CLASS_")),
            exit_code: attempt.exit_code,
            host: said(attempt.host),
            worker: said(attempt.worker),
            error_type: said(attempt.error_type),
            message: said(attempt.message),
            cause: said(attempt.cause),
            late_message: said(attempt.late_message),
            decision: attempt.decision.map(Into::into),
        }
    }
}

fn known(name: &'static str) -> Option<&'static str> {
    Some(name).filter(|name| *name != "UNSPECIFIED")
}

/// A decision.
#[derive(Debug, Serialize)]
pub struct Decision {
    pub verdict: &'static str,
    pub reason: &'static str,
    pub explanation: String,
    pub not_before: Option<Timestamp>,
    pub delay_seconds: Option<f64>,
    pub decided_at: Option<Timestamp>,
    pub rule: Option<String>,
    pub policy: Option<Policy>,
    pub counters: Counters,
    pub constraints: Vec<Constraint>,
    pub excluded_hosts: Vec<ExcludedHost>,
    pub resume_from: Option<String>,
    pub ends_by: Option<Timestamp>,
    pub hold_answers: Vec<&'static str>,
    pub held_until: Option<Timestamp>,
}

impl From<proto::Decision> for Decision {
    fn from(decision: proto::Decision) -> Self {
        let answer =
            |answer: proto::HoldAnswer| text::short_name(answer.as_str_name(), "HOLD_ANSWER_");
        Self {
            verdict: text::short_name(decision.verdict().as_str_name(), "VERDICT_"),
            reason: text::short_name(decision.reason().as_str_name(), "REASON_"),
            hold_answers: decision.hold_answers().map(answer).collect(),
            explanation: decision.explanation,
            not_before: instant(decision.not_before),
            delay_seconds: seconds(decision.delay),
            decided_at: instant(decision.decided_at),
            rule: said(decision.rule),
            policy: decision.policy.map(Into::into),
            counters: decision.counters.unwrap_or_default().into(),
            constraints: decision.constraints.into_iter().map(Into::into).collect(),
            excluded_hosts: decision.excluded_hosts.into_iter().map(Into::into).collect(),
            resume_from: said(decision.resume_from),
            ends_by: instant(decision.ends_by),
            held_until: instant(decision.held_until),
        }
    }
}

/// Which policy was applied.
#[derive(Debug, Serialize)]
pub struct Policy {
    pub name: Option<String>,
    pub revision: u64,
    pub digest: String,
    pub built_in: bool,
}

impl From<proto::PolicyReference> for Policy {
    fn from(policy: proto::PolicyReference) -> Self {
        Self {
            name: said(policy.name),
            revision: policy.revision,
            digest: policy.digest,
            built_in: policy.built_in,
        }
    }
}

impl Policy {
    /// As a person reads it, such as `nightly r3`.
    pub fn in_words(&self) -> String {
        match (&self.name, self.revision) {
            (Some(name), 0) => name.clone(),
            (Some(name), revision) => format!("{name} r{revision}"),
            (None, _) if self.built_in => "(built-in)".to_owned(),
            // Nobody knows any more what it was called, or whether it was.
            (None, _) if self.digest.is_empty() => "(no longer in force)".to_owned(),
            (None, _) => "(inline)".to_owned(),
        }
    }
}

/// What has been counted.
#[derive(Debug, Serialize)]
pub struct Counters {
    pub attempts: u32,
    pub retries: u32,
    pub retries_by_rule: BTreeMap<String, u32>,
    pub uncounted: u32,
    pub crashes: u32,
}

impl From<proto::Counters> for Counters {
    fn from(counters: proto::Counters) -> Self {
        Self {
            attempts: counters.attempts,
            retries: counters.retries,
            retries_by_rule: counters.retries_by_rule.into_iter().collect(),
            uncounted: counters.uncounted,
            crashes: counters.crashes,
        }
    }
}

/// What bounded an instant.
#[derive(Debug, Serialize)]
pub struct Constraint {
    pub kind: &'static str,
    pub key: Option<String>,
    pub earliest: Option<Timestamp>,
    pub firm: bool,
    pub binding: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

impl From<proto::Constraint> for Constraint {
    fn from(constraint: proto::Constraint) -> Self {
        let is_limit = constraint.limit > 0;
        Self {
            kind: text::short_name(constraint.kind().as_str_name(), "CONSTRAINT_KIND_"),
            key: said(constraint.key),
            earliest: instant(constraint.earliest),
            firm: constraint.firm,
            binding: constraint.binding,
            used: is_limit.then_some(constraint.used),
            limit: is_limit.then_some(constraint.limit),
            revision: is_limit.then_some(constraint.revision),
        }
    }
}

/// A host to stay away from.
#[derive(Debug, Serialize)]
pub struct ExcludedHost {
    pub host: String,
    pub hard: bool,
}

impl From<proto::ExcludedHost> for ExcludedHost {
    fn from(excluded: proto::ExcludedHost) -> Self {
        Self { host: excluded.host, hard: excluded.hard }
    }
}

/// A namespace.
#[derive(Debug, Serialize)]
pub struct Namespace {
    pub name: String,
    pub settings: Settings,
    pub live_steps: u64,
    pub create_time: Option<Timestamp>,
    pub update_time: Option<Timestamp>,
    pub etag: String,
}

impl From<proto::Namespace> for Namespace {
    fn from(namespace: proto::Namespace) -> Self {
        Self {
            name: namespace.name,
            settings: namespace.settings.unwrap_or_default().into(),
            live_steps: namespace.live_steps,
            create_time: instant(namespace.create_time),
            update_time: instant(namespace.update_time),
            etag: namespace.etag,
        }
    }
}

/// A namespace's settings; null is the service's default.
#[derive(Debug, Serialize)]
pub struct Settings {
    pub default_policy: Option<String>,
    pub default_target: Option<String>,
    pub lease_seconds: Option<f64>,
    pub max_retries_ceiling: Option<u32>,
    pub max_elapsed_ceiling_seconds: Option<f64>,
    pub retention_seconds: Option<f64>,
    pub abandon_after_seconds: Option<f64>,
    pub max_live_steps: Option<u64>,
}

impl From<proto::NamespaceSettings> for Settings {
    fn from(settings: proto::NamespaceSettings) -> Self {
        Self {
            default_policy: said(settings.default_policy),
            default_target: said(settings.default_target),
            lease_seconds: seconds(settings.lease),
            max_retries_ceiling: settings.max_retries_ceiling,
            max_elapsed_ceiling_seconds: seconds(settings.max_elapsed_ceiling),
            retention_seconds: seconds(settings.retention),
            abandon_after_seconds: seconds(settings.abandon_after),
            max_live_steps: settings.max_live_steps,
        }
    }
}
