//! Every metric, declared with unit and help. Few, and each answers a question
//! that an operator has.
//!
//! No label has values that cannot be listed in advance: no step, run or
//! namespace is ever one.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::domain::{
    decision::{Decision, Reason, Verdict},
    plan::{Answer, ReportStatus},
};

/// The service's metrics. Each is cheap to record: handles are made once.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
    /// Decisions by reason; the verdict follows from the reason.
    decisions: Vec<Counter>,
    granted: Counter,
    stale: Counter,
    late: Counter,
    replayed: Counter,
    /// Events that came without a caller: leases, holds and waits that ended.
    pub ticks: Counter,
    /// Plans made again because somebody else wrote first.
    pub conflicts: Counter,
    /// Commits that the store refused or did not answer.
    pub store_errors: Counter,
    /// Acknowledged changes that are gone from the store.
    pub store_lost_writes: Counter,
    /// Time from handing a change to the store to its being durable.
    pub commit_seconds: Histogram,
    /// Calls by method and code.
    calls: Family<CallLabels, Counter>,
    /// Time from the arrival of a call to its answer, by method.
    call_seconds: Family<MethodLabels, Histogram, fn() -> Histogram>,
    /// Steps that are not over.
    pub live_steps: Gauge<u64, AtomicU64>,
    /// Steps, those that are over and not yet forgotten included.
    pub steps: Gauge<u64, AtomicU64>,
    /// Bytes that the store has on the disk.
    pub store_bytes: Gauge<u64, AtomicU64>,
    /// Calls that wait for a decision, and attempts that streams have handed out.
    pub calls_awaiting: Gauge<u64, AtomicU64>,
    /// Whether the store answers: 1 or 0.
    pub store_up: Gauge<u64, AtomicU64>,
    /// Times that the store's log was synced.
    log_syncs: Counter,
    /// Whether something that can be put right may cost what was acknowledged: 1
    /// or 0.
    pub store_unsafe: Gauge<u64, AtomicU64>,
    /// Whether the policy file's last change was applied: 1 or 0.
    pub policy_file_applied: Gauge,
    /// What admission stands at, and what it refused.
    pub admission: AdmissionMetrics,
}

/// What admission stands at, shown when metrics are asked for.
#[derive(Debug, Default)]
pub struct AdmissionMetrics {
    refused: Family<RefusedLabels, Gauge<u64, AtomicU64>>,
    in_flight: Gauge<u64, AtomicU64>,
    queued: Gauge<u64, AtomicU64>,
    limit: Gauge<u64, AtomicU64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    reason: &'static str,
}

/// What admission has done and stands at.
#[derive(Clone, Copy, Debug, Default)]
pub struct AdmissionState {
    /// Calls refused, by reason.
    pub refused: [(&'static str, u64); 4],
    /// Calls in flight.
    pub in_flight: u64,
    /// Calls waiting.
    pub queued: u64,
    /// Slots.
    pub limit: u64,
}

impl AdmissionMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "calls_refused",
            "Calls refused by admission, by reason, since the start",
            self.refused.clone(),
        );
        registry.register("calls_in_flight", "Calls in flight", self.in_flight.clone());
        registry.register("calls_queued", "Calls that wait to be let in", self.queued.clone());
        registry.register(
            "calls_limit",
            "Calls that may be in flight at once, as learned",
            self.limit.clone(),
        );
    }

    /// Takes over what admission stands at.
    pub fn show(&self, state: &AdmissionState) {
        for (reason, count) in state.refused {
            self.refused.get_or_create(&RefusedLabels { reason }).set(count);
        }
        self.in_flight.set(state.in_flight);
        self.queued.set(state.queued);
        self.limit.set(state.limit);
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    verdict: VerdictLabel,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum VerdictLabel {
    #[allow(non_camel_case_types, reason = "the label's value")]
    retry,
    #[allow(non_camel_case_types, reason = "the label's value")]
    wait,
    #[allow(non_camel_case_types, reason = "the label's value")]
    stop,
    #[allow(non_camel_case_types, reason = "the label's value")]
    hold,
    #[allow(non_camel_case_types, reason = "the label's value")]
    done,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

impl Telemetry {
    /// A registry of its own; tests make as many as they like.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("reprise");
        let decisions = Family::<ReasonLabels, Counter>::default();
        registry.register(
            "decisions",
            "Decisions given, by verdict and reason; replays left out",
            decisions.clone(),
        );
        let handles = Reason::ALL
            .iter()
            .map(|reason| decisions.get_or_create(&labels_of(*reason)).clone())
            .collect();
        let build = Family::<BuildLabels, Gauge>::default();
        build.get_or_create(&BuildLabels { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("build_info", "The version that runs", build);
        let commit_seconds = Histogram::new([
            0.000_01, 0.000_1, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0,
        ]);
        let call_seconds: Family<MethodLabels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(call_histogram);
        let metrics = Self {
            decisions: handles,
            granted: Counter::default(),
            stale: Counter::default(),
            late: Counter::default(),
            replayed: Counter::default(),
            ticks: Counter::default(),
            conflicts: Counter::default(),
            store_errors: Counter::default(),
            store_lost_writes: Counter::default(),
            commit_seconds,
            calls: Family::default(),
            call_seconds,
            live_steps: Gauge::default(),
            steps: Gauge::default(),
            store_bytes: Gauge::default(),
            calls_awaiting: Gauge::default(),
            store_up: Gauge::default(),
            log_syncs: Counter::default(),
            store_unsafe: Gauge::default(),
            policy_file_applied: Gauge::default(),
            admission: AdmissionMetrics::default(),
            registry: Registry::default(),
        };
        metrics.registered(registry)
    }

    fn registered(self, mut registry: Registry) -> Self {
        registry.register(
            "attempts_granted",
            "Attempts that were given a lease",
            self.granted.clone(),
        );
        registry.register(
            "reports_stale",
            "Reports about attempts that others had taken over",
            self.stale.clone(),
        );
        registry.register(
            "reports_late",
            "Reports that came after their lease had ended",
            self.late.clone(),
        );
        registry.register(
            "replays",
            "Calls that repeated an earlier one and were answered the same",
            self.replayed.clone(),
        );
        registry.register(
            "ticks",
            "Leases, holds and waits that ended without a caller",
            self.ticks.clone(),
        );
        registry.register(
            "conflicts",
            "Plans made again because somebody else wrote first",
            self.conflicts.clone(),
        );
        registry.register(
            "store_errors",
            "Commits that the store refused or did not answer",
            self.store_errors.clone(),
        );
        registry.register(
            "store_lost_writes",
            "Acknowledged changes that are proven to be gone from the store, at least",
            self.store_lost_writes.clone(),
        );
        registry.register(
            "store_commit_seconds",
            "Time until a change is durable",
            self.commit_seconds.clone(),
        );
        registry.register("calls", "Calls by method and gRPC code", self.calls.clone());
        registry.register(
            "call_seconds",
            "Time from the arrival of a call to its answer",
            self.call_seconds.clone(),
        );
        registry.register("live_steps", "Steps that are not over", self.live_steps.clone());
        registry.register(
            "steps",
            "Steps that are remembered, those that are over included",
            self.steps.clone(),
        );
        registry.register(
            "store_bytes",
            "Bytes that the store has on the disk",
            self.store_bytes.clone(),
        );
        registry.register(
            "calls_awaiting",
            "Calls that wait for a decision, and attempts that streams have handed out",
            self.calls_awaiting.clone(),
        );
        registry.register("store_up", "Whether the store answers", self.store_up.clone());
        registry.register(
            "log_syncs",
            "Times that changes were synced to the disk, many together under load",
            self.log_syncs.clone(),
        );
        registry.register(
            "store_unsafe",
            "Whether the store may lose what was acknowledged, for a reason that the log tells",
            self.store_unsafe.clone(),
        );
        registry.register(
            "policy_file_applied",
            "Whether the policy file's last change was applied",
            self.policy_file_applied.clone(),
        );
        self.admission.register(&mut registry);
        Self { registry, ..self }
    }

    /// Counts an answer.
    pub fn answered(&self, answer: &Answer) {
        match answer {
            Answer::Granted(grant) if grant.replayed => {
                self.replayed.inc();
            }
            Answer::Granted(_) => {
                self.granted.inc();
            }
            Answer::Refused(decision) => self.decided(decision),
            Answer::Reported(reported) if reported.replayed => {
                self.replayed.inc();
            }
            Answer::Reported(reported) => {
                match reported.status {
                    ReportStatus::Recorded => {}
                    ReportStatus::Stale => {
                        self.stale.inc();
                    }
                    ReportStatus::Late => {
                        self.late.inc();
                    }
                }
                self.decided(&reported.decision);
            }
            Answer::Held { .. } | Answer::Lost | Answer::Ordered(_) | Answer::Ticked => {}
        }
    }

    fn decided(&self, decision: &Decision) {
        let reason = decision.settled.reason;
        if let Some(counter) = Reason::ALL
            .iter()
            .position(|known| *known == reason)
            .and_then(|at| self.decisions.get(at))
        {
            counter.inc();
        }
    }

    /// Handles for one method, to be made once and used for every call.
    #[must_use]
    pub fn method(&self, method: &'static str) -> MethodMetrics {
        MethodMetrics {
            ok: self.calls.get_or_create(&CallLabels { method, code: "OK" }).clone(),
            seconds: self.call_seconds.get_or_create(&MethodLabels { method }).clone(),
            method,
            calls: self.calls.clone(),
        }
    }

    /// Takes over how often the store's log was synced since the start.
    pub fn show_log_syncs(&self, syncs: u64) {
        self.log_syncs.inc_by(syncs.saturating_sub(self.log_syncs.get()));
    }

    /// Everything in the text form that Prometheus reads.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// What is recorded of calls of one method.
#[derive(Clone, Debug)]
pub struct MethodMetrics {
    ok: Counter,
    seconds: Histogram,
    method: &'static str,
    calls: Family<CallLabels, Counter>,
}

impl MethodMetrics {
    /// Records a call that ended with this gRPC code after so many seconds.
    pub fn ended(&self, code: Option<&'static str>, seconds: f64) {
        match code {
            None => {
                self.ok.inc();
            }
            Some(code) => {
                self.calls.get_or_create(&CallLabels { method: self.method, code }).inc();
            }
        }
        self.seconds.observe(seconds);
    }
}

fn call_histogram() -> Histogram {
    Histogram::new([0.000_1, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0])
}

fn labels_of(reason: Reason) -> ReasonLabels {
    let verdict = match reason.verdict() {
        Verdict::Retry(_) => VerdictLabel::retry,
        Verdict::Wait(_) => VerdictLabel::wait,
        Verdict::Stop => VerdictLabel::stop,
        Verdict::Hold(_) => VerdictLabel::hold,
        Verdict::Done => VerdictLabel::done,
    };
    ReasonLabels { verdict, reason: snake_case(&format!("{reason:?}")) }
}

/// `RetriesSpent` as `retries_spent`.
fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for char in name.chars() {
        if char.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.extend(char.to_lowercase());
    }
    text
}
