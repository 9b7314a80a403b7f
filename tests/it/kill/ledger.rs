//! What workers were told, written down by the workers' side alone, and what
//! follows from it for every step. It knows nothing of how the server decides,
//! only of two policies, and does not mind in which order answers arrive.

use std::collections::{BTreeMap, BTreeSet};

use prost_types::Timestamp;
use reprise::proto::{
    Backoff, BatchReportResult, BeginAttemptRequest, Decision, ExponentialBackoff, FixedBackoff,
    Grant, Jitter, JitterKind, Outcome, Policy, Reason, ReportAttemptRequest,
    ReportAttemptResponse, ReportStatus, Step, StepState, Verdict, backoff::Shape,
    batch_report_result, report_attempt_request,
};

use crate::history::{Begin, Call, Counts, Failed, Granted, Name, Observed, Op, Seen, Status};

/// What a step's policy says, as far as histories here meet it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terms {
    /// The namespace's policy `quick`: five retries, a millisecond each.
    Quick,
    /// Given inline: three retries, exponential from four milliseconds, full
    /// jitter.
    Inline,
}

impl Terms {
    const fn retries_max(self) -> u32 {
        match self {
            Self::Quick => 5,
            Self::Inline => 3,
        }
    }

    /// Longest wait before retry `k`, in microseconds.
    const fn wait_max_us(self, k: u32) -> i64 {
        match self {
            Self::Quick => 1_000,
            Self::Inline => 4_000 << (k - 1),
        }
    }

    /// The policy in the words of the contract.
    pub fn policy(self) -> Policy {
        let span =
            |millis: i32| Some(prost_types::Duration { seconds: 0, nanos: millis * 1_000_000 });
        let (shape, jitter) = match self {
            Self::Quick => (Shape::Fixed(FixedBackoff { delay: span(1) }), JitterKind::None),
            Self::Inline => (
                Shape::Exponential(ExponentialBackoff {
                    delay: span(4),
                    factor: Some(2.0),
                    max_doublings: None,
                }),
                JitterKind::Full,
            ),
        };
        let jitter = Some(Jitter { kind: jitter as i32, ratio: None });
        Policy {
            max_retries: Some(self.retries_max()),
            backoff: Some(Backoff { shape: Some(shape), jitter, ..Backoff::default() }),
            ..Policy::default()
        }
    }
}

/// Run and step.
pub type StepName = (String, String);

/// What was done to a step and seen of it.
pub type History = Vec<(Op, Observed)>;

/// Everything that was acknowledged.
#[derive(Default)]
pub struct Ledger {
    steps: BTreeMap<StepName, Life>,
    /// The reports that ended an attempt, in the order of their answers.
    reports: Vec<ReportAttemptRequest>,
}

/// One step's life.
struct Life {
    terms: Terms,
    attempts: BTreeMap<u32, Try>,
}

/// What is known of one attempt.
#[derive(Default)]
struct Try {
    grant: Option<(BeginAttemptRequest, Grant)>,
    report: Option<(ReportAttemptRequest, ReportAttemptResponse)>,
}

impl Ledger {
    fn attempt(&mut self, name: &StepName, terms: Terms, number: u32) -> &mut Try {
        let life = self
            .steps
            .entry(name.clone())
            .or_insert_with(|| Life { terms, attempts: BTreeMap::new() });
        life.attempts.entry(number).or_default()
    }

    /// A begin was answered with a grant.
    pub fn granted(&mut self, terms: Terms, request: &BeginAttemptRequest, grant: &Grant) {
        let name = (request.run.clone(), request.step.clone());
        let known = self.attempt(&name, terms, grant.attempt);
        match &known.grant {
            Some((before, first)) => {
                assert_eq!(
                    before, request,
                    "{name:?}: attempt {} was granted to two calls",
                    grant.attempt
                );
                same_grant(first, grant);
            }
            None => known.grant = Some((request.clone(), grant.clone())),
        }
    }

    /// A report was answered as having ended its attempt.
    pub fn reported(
        &mut self,
        terms: Terms,
        request: &ReportAttemptRequest,
        response: &ReportAttemptResponse,
    ) {
        let name = (request.run.clone(), request.step.clone());
        assert_eq!(
            response.status(),
            ReportStatus::Recorded,
            "{name:?}: {request:?} -> {response:?}"
        );
        follows(&name, terms, request, response);
        let known = self.attempt(&name, terms, response.attempt);
        match &known.report {
            Some((before, first)) => {
                assert_eq!(
                    before, request,
                    "{name:?}: attempt {} was ended by two reports",
                    response.attempt
                );
                assert!(
                    response.replayed,
                    "{name:?}: {response:?} was told before, but is not marked so"
                );
                same_decision(decided(first), decided(response));
            }
            None => {
                known.report = Some((request.clone(), response.clone()));
                self.reports.push(request.clone());
            }
        }
    }

    /// Steps that were heard of.
    pub fn steps(&self) -> Vec<StepName> {
        self.steps.keys().cloned().collect()
    }

    /// Attempts that were begun.
    pub fn attempts(&self) -> usize {
        self.steps.values().map(|life| life.attempts.len()).sum()
    }

    /// Holds a step, as the server shows it, to all that was told of it.
    /// Nothing may be missing and nothing may be there twice.
    pub fn holds(&self, step: &Step) {
        let name = (step.run.clone(), step.step.clone());
        let life = &self.steps[&name];
        let count = u32::try_from(life.attempts.len()).unwrap();
        let numbers: Vec<u32> = life.attempts.keys().copied().collect();
        assert_eq!(
            numbers,
            Vec::from_iter(1..=count),
            "{name:?}: the numbers that were told are dense"
        );
        let counters = step.counters.clone().unwrap();
        let retries = life
            .reports()
            .filter(|(_, response)| decided(response).verdict() == Verdict::Retry)
            .count();
        assert_eq!(counters.attempts, count, "{name:?}: {step:#?}");
        assert_eq!(counters.retries as usize, retries, "{name:?}: {step:#?}");
        assert_eq!((counters.crashes, counters.uncounted), (0, 0), "{name:?}: {step:#?}");

        let shown: Vec<u32> = step.attempts.iter().map(|attempt| attempt.number).collect();
        assert_eq!(shown, numbers, "{name:?}: the whole history is shown");
        for attempt in &step.attempts {
            life.attempts[&attempt.number].holds(&name, attempt);
        }
        life.fences_grow(&name, step.fence);
        let last = life.attempts.values().next_back().and_then(|attempt| attempt.report.as_ref());
        let state = match last.map(|(_, response)| decided(response).verdict()) {
            None => StepState::Running,
            Some(Verdict::Retry) => StepState::Waiting,
            Some(Verdict::Done) => StepState::Succeeded,
            Some(_) => StepState::Failed,
        };
        assert_eq!(step.state(), state, "{name:?}: {step:#?}");
    }

    /// Every report that ended an attempt.
    pub fn reports(&self) -> &[ReportAttemptRequest] {
        &self.reports
    }

    /// Every begin that was granted, with its grant.
    pub fn grants(&self) -> Vec<(BeginAttemptRequest, Grant)> {
        self.steps
            .values()
            .flat_map(|life| life.attempts.values())
            .filter_map(|attempt| attempt.grant.clone())
            .collect()
    }

    /// Each step's life in the order in which it was decided, for the laws.
    pub fn histories(&self) -> Vec<History> {
        self.steps.values().map(Life::history).collect()
    }

    /// The answer to a report that was told before.
    pub fn replays(&mut self, request: &ReportAttemptRequest, result: &BatchReportResult) {
        let name = (request.run.clone(), request.step.clone());
        let Some(batch_report_result::Result::Response(response)) = &result.result else {
            panic!("{name:?}: {request:?} was acknowledged, and now {result:?}")
        };
        let terms = self.steps[&name].terms;
        self.reported(terms, request, response);
        assert!(response.replayed, "{name:?}: {response:?} was told before, but is not marked so");
    }
}

impl Life {
    fn reports(&self) -> impl Iterator<Item = &(ReportAttemptRequest, ReportAttemptResponse)> {
        self.attempts.values().filter_map(|attempt| attempt.report.as_ref())
    }

    fn history(&self) -> History {
        let mut history = Vec::new();
        for (number, attempt) in &self.attempts {
            history.extend(attempt.grant.as_ref().map(|(_, grant)| granted(grant)));
            history.extend(attempt.report.as_ref().map(|told| reported(*number, told)));
        }
        // Stable: at one instant an attempt begins before it ends.
        history.sort_by_key(|(op, _)| op.at);
        history
    }

    fn fences_grow(&self, name: &StepName, latest: u64) {
        let fences: Vec<u64> = self
            .attempts
            .values()
            .filter_map(|attempt| attempt.grant.as_ref())
            .map(|(_, grant)| grant.fence)
            .collect();
        assert!(fences.is_sorted_by(|a, b| a < b), "{name:?}: fences only grow, {fences:?}");
        let unique: BTreeSet<_> = fences.iter().collect();
        assert_eq!(unique.len(), fences.len(), "{name:?}: {fences:?}");
        assert!(
            fences.last().is_none_or(|last| *last <= latest),
            "{name:?}: {fences:?}, and now {latest}"
        );
    }
}

fn granted(grant: &Grant) -> (Op, Observed) {
    let began_at = instant(grant.began_at.as_ref());
    let call = Call::Begin { request: 0, said: Begin::default() };
    let granted = Granted {
        attempt: grant.attempt,
        fence: grant.fence,
        began_at,
        lease_until: instant(grant.lease_until.as_ref()),
        replayed: false,
        excluded_hosts: Vec::new(),
        ends_by: None,
        counters: counts(grant.counters.as_ref()),
    };
    (Op { at: began_at, step: 0, call }, Observed::Granted(granted))
}

fn reported(
    attempt: u32,
    (request, response): &(ReportAttemptRequest, ReportAttemptResponse),
) -> (Op, Observed) {
    let decision = decided(response);
    let at = instant(decision.decided_at.as_ref());
    let name = match (request.fence, request.attempt) {
        (0, 0) => Name::Request(0),
        (0, number) => Name::Number(number),
        (fence, _) => Name::Fence(fence),
    };
    let failed = matches!(request.outcome, Some(report_attempt_request::Outcome::Failure(_)));
    let verdict = match decision.verdict() {
        Verdict::Retry => "RETRY",
        Verdict::Done => "DONE",
        _ => "STOP",
    };
    let reason = decision.reason().as_str_name();
    let seen = Seen {
        verdict,
        at: decision.not_before.as_ref().map(|at| instant(Some(at))),
        reason: reason.strip_prefix("REASON_").unwrap_or(reason).to_owned(),
        rule: decision.rule.clone(),
        counters: counts(decision.counters.as_ref()),
        decided_at: at,
        hold_answers: Vec::new(),
    };
    let call = Call::Report { name, failure: failed.then(|| Failed::of("TRANSIENT")) };
    let status = Status::Recorded;
    let observed = Observed::Reported { attempt, status, replayed: false, decision: seen };
    (Op { at, step: 0, call }, observed)
}

fn counts(counters: Option<&reprise::proto::Counters>) -> Counts {
    counters.map_or_else(Counts::default, |counters| Counts {
        attempts: counters.attempts,
        retries: counters.retries,
        uncounted: counters.uncounted,
        crashes: counters.crashes,
        by_rule: BTreeMap::new(),
    })
}

fn instant(at: Option<&Timestamp>) -> u64 {
    u64::try_from(micros(at)).unwrap()
}

impl Try {
    fn holds(&self, name: &StepName, shown: &reprise::proto::Attempt) {
        if let Some((_, grant)) = &self.grant {
            assert_eq!(shown.began_at, grant.began_at, "{name:?}: {shown:?}");
        }
        let Some((request, response)) = &self.report else {
            assert_eq!(
                shown.outcome(),
                Outcome::Unspecified,
                "{name:?}: {shown:?} was not reported"
            );
            return;
        };
        same_decision(decided(response), shown.decision.as_ref().unwrap());
        match request.outcome.as_ref().unwrap() {
            report_attempt_request::Outcome::Success(_) => {
                assert_eq!(shown.outcome(), Outcome::Success, "{name:?}")
            }
            report_attempt_request::Outcome::Failure(failure) => {
                assert_eq!(shown.outcome(), Outcome::Failure, "{name:?}");
                assert_eq!(shown.class(), failure.class(), "{name:?}");
                // Kept for the latest failures only.
                assert!(
                    shown.message.is_empty() || shown.message == failure.message,
                    "{name:?}: {shown:?}"
                );
            }
        }
    }
}

/// The decision in a response.
pub fn decided(response: &ReportAttemptResponse) -> &Decision {
    response.decision.as_ref().expect("every answer has a decision")
}

/// What has to follow the end of an attempt, under the terms of its step.
fn follows(
    name: &StepName,
    terms: Terms,
    request: &ReportAttemptRequest,
    response: &ReportAttemptResponse,
) {
    let decision = decided(response);
    let failed = matches!(request.outcome, Some(report_attempt_request::Outcome::Failure(_)));
    let number = response.attempt;
    let max = terms.retries_max();
    let (verdict, reason, retries) = match (failed, number <= max) {
        (false, _) => (Verdict::Done, Reason::Succeeded, number - 1),
        (true, true) => (Verdict::Retry, Reason::Backoff, number),
        (true, false) => (Verdict::Stop, Reason::RetriesSpent, max),
    };
    let counters = decision.counters.clone().unwrap();
    let told = (decision.verdict(), decision.reason(), counters.attempts, counters.retries);
    assert_eq!(told, (verdict, reason, number, retries), "{name:?}: {request:?} -> {response:?}");
    if verdict == Verdict::Retry {
        let wait = micros(decision.not_before.as_ref()) - micros(decision.decided_at.as_ref());
        assert!(
            (0..=terms.wait_max_us(number)).contains(&wait),
            "{name:?}: attempt {number} waits {wait} µs"
        );
    }
}

fn micros(instant: Option<&Timestamp>) -> i64 {
    instant.map_or(0, |instant| instant.seconds * 1_000_000 + i64::from(instant.nanos) / 1_000)
}

/// The same call, the same grant.
pub fn same_grant(first: &Grant, again: &Grant) {
    let rest = |grant: &Grant| (grant.attempt, grant.fence, grant.began_at);
    assert_eq!(rest(first), rest(again));
}

/// The same report, the same decision: all of it that says what was decided.
fn same_decision(first: &Decision, again: &Decision) {
    type Said<'a> = (
        Verdict,
        Reason,
        Option<Timestamp>,
        Option<Timestamp>,
        &'a str,
        Option<u64>,
        &'a Option<reprise::proto::Counters>,
    );
    fn said(decision: &Decision) -> Said<'_> {
        let revision = decision.policy.as_ref().map(|policy| policy.revision);
        (
            decision.verdict(),
            decision.reason(),
            decision.not_before,
            decision.decided_at,
            &decision.rule,
            revision,
            &decision.counters,
        )
    }
    assert_eq!(said(first), said(again));
}
