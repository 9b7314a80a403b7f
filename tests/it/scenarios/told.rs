//! Answers in the words of transcripts: a few plain ones, and named facts.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use reprise::proto;
use tonic::Status;
use tonic_types::StatusExt as _;

use super::span;

/// The store's time at which every transcript starts: 2026-01-01T00:00:00Z.
pub const START: Duration = Duration::from_secs(1_767_225_600);

/// What was answered. Each kind of answer always has the same facts; those that
/// it left out say `none`.
#[derive(Default)]
pub struct Told {
    pub head: Vec<String>,
    pub facts: BTreeMap<&'static str, String>,
}

impl Told {
    pub fn of(head: &[&str]) -> Self {
        Self { head: head.iter().map(|word| (*word).to_owned()).collect(), facts: BTreeMap::new() }
    }

    pub fn fact(mut self, name: &'static str, value: impl ToString) -> Self {
        let value = value.to_string();
        self.facts.insert(name, if value.is_empty() { "none".to_owned() } else { value });
        self
    }

    pub fn is_error(&self) -> bool {
        self.head.first().is_some_and(|word| word == "error")
    }

    fn flagged(mut self, word: &str, holds: bool) -> Self {
        if holds {
            self.head.insert(0, word.to_owned());
        }
        self
    }

    fn counters(self, counters: Option<&proto::Counters>) -> Self {
        let counters = counters.cloned().unwrap_or_default();
        let mut by_rule: Vec<String> = counters
            .retries_by_rule
            .iter()
            .map(|(rule, count)| format!("{rule}:{count}"))
            .collect();
        by_rule.sort();
        self.fact("attempts", counters.attempts)
            .fact("retries", counters.retries)
            .fact("uncounted", counters.uncounted)
            .fact("crashes", counters.crashes)
            .fact("by-rule", by_rule.join(","))
    }

    fn policy(self, policy: Option<&proto::PolicyReference>) -> Self {
        let policy = policy.cloned().unwrap_or_default();
        self.fact("policy", policy.name).fact("revision", policy.revision)
    }

    fn hosts(self, hosts: &[proto::ExcludedHost]) -> Self {
        let named = |hard| {
            let hosts: Vec<&str> = hosts
                .iter()
                .filter(|host| host.hard == hard)
                .map(|host| host.host.as_str())
                .collect();
            hosts.join(",")
        };
        self.fact("avoid", named(false)).fact("exclude", named(true))
    }
}

pub fn begin(answer: proto::BeginAttemptResponse) -> Told {
    use proto::begin_attempt_response::Answer;
    match answer.answer.expect("every answer is set") {
        Answer::Grant(granted) => grant(&granted).flagged("replayed", answer.replayed),
        Answer::Refusal(refusal) => decision(&refusal).flagged("replayed", answer.replayed),
    }
}

fn grant(grant: &proto::Grant) -> Told {
    Told::of(&["granted"])
        .fact("attempt", grant.attempt)
        .fact("lease", length(grant.lease.as_ref()))
        .fact("until", instant(grant.lease_until.as_ref()))
        .fact("every", length(grant.heartbeat_every.as_ref()))
        .fact("ends", instant(grant.ends_by.as_ref()))
        .fact("resume", &grant.resume_from)
        .counters(grant.counters.as_ref())
        .policy(grant.policy.as_ref())
        .hosts(&grant.excluded_hosts)
}

pub fn heartbeat(answer: proto::HeartbeatResponse) -> Told {
    let state = if answer.state() == proto::LeaseState::Held { "held" } else { "lost" };
    Told::of(&[state])
        .fact("lease", length(answer.lease.as_ref()))
        .fact("until", instant(answer.lease_until.as_ref()))
}

pub fn report(answer: proto::ReportAttemptResponse) -> Told {
    let status = answer.status();
    decision(answer.decision.as_ref().expect("every report is decided"))
        .fact("attempt", answer.attempt)
        .flagged("replayed", answer.replayed)
        .flagged("late", status == proto::ReportStatus::Late)
        .flagged("stale", status == proto::ReportStatus::Stale)
}

fn decision(decision: &proto::Decision) -> Told {
    let verdict = word(decision.verdict().as_str_name(), "VERDICT_").to_lowercase();
    let reason = word(decision.reason().as_str_name(), "REASON_");
    let instant_of = instant(decision.not_before.as_ref().or(decision.held_until.as_ref()));
    let answers: Vec<&str> =
        decision.hold_answers().map(|answer| word(answer.as_str_name(), "HOLD_ANSWER_")).collect();
    let bound = decision.constraints.first().map(|constraint| constraint.kind().as_str_name());
    Told::of(&[&verdict, reason])
        .fact("in", length(decision.delay.as_ref()))
        .fact("at", &instant_of)
        .fact("until", &instant_of)
        .fact("decided", instant(decision.decided_at.as_ref()))
        .fact("rule", &decision.rule)
        .fact("ends", instant(decision.ends_by.as_ref()))
        .fact("resume", &decision.resume_from)
        .fact("answers", answers.join(","))
        .fact("bound-by", bound.map_or("", |kind| word(kind, "CONSTRAINT_KIND_")))
        .counters(decision.counters.as_ref())
        .policy(decision.policy.as_ref())
        .hosts(&decision.excluded_hosts)
}

pub fn step(step: &proto::Step) -> Told {
    let state = word(step.state().as_str_name(), "STEP_STATE_").to_lowercase();
    let outcomes: Vec<&str> = step.attempts.iter().map(outcome).collect();
    let decided = step.decision.as_ref().map(|standing| decision(standing).head.join(":"));
    let latest = step.attempts.last().cloned().unwrap_or_default();
    Told::of(&[&state])
        .fact("next", instant(step.next_event_at.as_ref()))
        .fact("deadline", instant(step.deadline.as_ref()))
        .fact("ends", instant(step.ends_by.as_ref()))
        .fact("purge", instant(step.purge_at.as_ref()))
        .fact("resume", &step.resume_from)
        .fact("kind", &step.kind)
        .fact("decided", decided.unwrap_or_default())
        .fact("outcomes", outcomes.join(","))
        .fact("message", latest.message)
        .fact("late-message", latest.late_message)
        .fact("host", latest.host)
        .fact("worker", latest.worker)
        .counters(step.counters.as_ref())
        .policy(step.policy.as_ref())
}

fn outcome(attempt: &proto::Attempt) -> &'static str {
    match attempt.outcome() {
        proto::Outcome::Unspecified => "running",
        proto::Outcome::Success => "success",
        proto::Outcome::Crash => "crash",
        proto::Outcome::Failure => word(attempt.class().as_str_name(), "FAILURE_CLASS_"),
    }
}

pub fn error(status: &Status) -> Told {
    let info = status.get_details_error_info().expect("every error carries its ErrorInfo");
    let metadata = |name| info.metadata.get(name).cloned().unwrap_or_default();
    Told::of(&["error", &info.reason])
        .fact("code", format!("{:?}", status.code()))
        .fact("next", metadata("next"))
        .fact("field", metadata("field"))
}

fn word<'a>(name: &'a str, prefix: &str) -> &'a str {
    name.strip_prefix(prefix).unwrap_or(name)
}

fn length(given: Option<&prost_types::Duration>) -> String {
    given.map_or_else(String::new, |given| {
        span::shown(Duration::try_from(*given).expect("spans are not negative"))
    })
}

/// An instant as time since the start of the transcript.
fn instant(given: Option<&prost_types::Timestamp>) -> String {
    let since = |given: &prost_types::Timestamp| {
        let instant = SystemTime::try_from(*given).expect("instants are in range");
        instant.duration_since(SystemTime::UNIX_EPOCH + START).expect("nothing is before the start")
    };
    given.map_or_else(String::new, |given| span::shown(since(given)))
}
