//! The cases of `tests/vectors/seed.yaml`: what four systems decide, the rule
//! decides too.

use std::time::Duration;

use reprise::domain::{
    decision::{Decision, Verdict},
    draw::Salt,
    event::{AttemptName, Deadline, Event, Report, StepTerms},
    failure::{Failure, FailureClass, Wish},
    id::StepKey,
    namespace::Settings,
    plan::{self, Answer, Now, Plan, Terms},
    policy::{Policy, spec::PolicySpec},
    record::{PolicyChoice, Record},
    time::{Timestamp, micros},
};
use serde::Deserialize;

use crate::rule::words;

const VECTORS: &str = include_str!("../vectors/seed.yaml");
/// Cases that the four systems' users come with.
const CASES: usize = 90;
/// How many of them at least have to be run and not excused.
const RUN_MIN: usize = 60;
/// The start of attempt 1.
const START: Timestamp = Timestamp::from_micros(1_750_000_000_000_000);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    cases: Vec<Case>,
    excused: Vec<Excused>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Excused {
    id: String,
    source: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    id: String,
    source: String,
    policy: serde_json::Value,
    #[serde(default)]
    kind: String,
    deadline_s: Option<f64>,
    /// A part of what is said about a policy that is not accepted.
    refused: Option<String>,
    #[serde(default)]
    failures: Vec<Failed>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Failed {
    at_s: f64,
    attempt: Option<u32>,
    class: FailureClass,
    #[serde(default)]
    error_type: String,
    exit_code: Option<i32>,
    #[serde(default)]
    message: String,
    #[serde(default = "yes")]
    retryable: bool,
    #[serde(default)]
    action: String,
    wish: Option<WishSaid>,
    expect: Expected,
}

const fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WishSaid {
    max_retries: u32,
    delay_s: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    verdict: String,
    reason: Option<String>,
    delay_s: Option<DelayExpected>,
    decided_after_s: Option<f64>,
    ends_by_s: Option<f64>,
    resume_from: Option<String>,
    answers: Option<Vec<String>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum DelayExpected {
    Exactly(f64),
    Between(f64, f64),
}

#[test]
fn the_rule_decides_as_the_four_systems_do() {
    let vectors: Vectors = serde_saphyr::from_str(VECTORS).expect("the vectors are readable");
    let mut ids: Vec<&str> = vectors
        .cases
        .iter()
        .map(|case| &*case.id)
        .chain(vectors.excused.iter().map(|excused| &*excused.id))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), CASES, "every case is either run or excused");
    assert_eq!(vectors.cases.len() + vectors.excused.len(), CASES, "and not both");
    assert!(vectors.cases.len() >= RUN_MIN, "only {} cases are run", vectors.cases.len());
    assert!(
        vectors
            .excused
            .iter()
            .all(|excused| !excused.reason.is_empty() && !excused.source.is_empty())
    );

    let wrong: Vec<String> = vectors
        .cases
        .iter()
        .filter_map(|case| {
            case.run().err().map(|error| format!("{} ({}): {error}", case.id, case.source))
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        vectors.cases.len(),
        wrong.join("\n")
    );
}

fn parsed(policy: &serde_json::Value) -> Result<Policy, String> {
    let spec: PolicySpec =
        serde_json::from_value(policy.clone()).map_err(|error| error.to_string())?;
    Policy::parse(&spec).map_err(|violations| violations.to_string())
}

impl Case {
    fn run(&self) -> Result<(), String> {
        match (&self.refused, parsed(&self.policy)) {
            (Some(part), Err(said)) => said.contains(part.as_str()).then_some(()).ok_or(said),
            (Some(_), Ok(_)) => Err("the policy was accepted".to_owned()),
            (None, parsed) => self.decide(&parsed?),
        }
    }

    fn decide(&self, policy: &Policy) -> Result<(), String> {
        let mut step = Step { policy, kind: &self.kind, deadline_s: self.deadline_s, record: None };
        let mut number = 0;
        for failed in &self.failures {
            let last = failed.attempt.unwrap_or(number + 1);
            while number + 1 < last {
                number += 1;
                step.fail(number, failed)?;
            }
            number = last;
            let decision = step.fail(number, failed)?;
            failed
                .expect
                .check(&mut step, &decision, instant(failed.at_s))
                .map_err(|error| format!("attempt {number}: {error}"))?;
        }
        Ok(())
    }
}

/// A step that is reported about, and never begun by a call.
struct Step<'a> {
    policy: &'a Policy,
    kind: &'a str,
    deadline_s: Option<f64>,
    record: Option<Record>,
}

impl Step<'_> {
    fn fail(&mut self, number: u32, failed: &Failed) -> Result<Decision, String> {
        let failure = Failure {
            error_type: failed.error_type.clone(),
            exit_code: failed.exit_code,
            message: failed.message.clone(),
            retryable: failed.retryable,
            action: failed.action.clone(),
            wish: failed.wish.as_ref().map(|wish| Wish {
                max_retries: Some(wish.max_retries),
                delay: Some(seconds(wish.delay_s)),
            }),
            // Attempt 1 began when the case did; the others when they like.
            duration: (number == 1).then(|| seconds(failed.at_s)),
            ..Failure::of(failed.class)
        };
        let step = StepTerms {
            kind: self.kind.to_owned(),
            deadline: self.deadline_s.map(|s| Deadline::At(instant(s))),
            ..StepTerms::default()
        };
        let event = Event::Report(Report {
            attempt: AttemptName::Number(number),
            payload: u64::from(number),
            failure: Some(failure),
            step,
        });
        match self.happens(&event, instant(failed.at_s))? {
            Answer::Reported(reported) => Ok(reported.decision),
            other => Err(format!("answered {other:?}")),
        }
    }

    fn happens(&mut self, event: &Event, at: Timestamp) -> Result<Answer, String> {
        let settings = Settings { max_elapsed_ceiling: Duration::MAX, ..Settings::default() };
        let terms = Terms {
            policy: self.policy,
            revision: 1,
            choice: &PolicyChoice::Default,
            settings: &settings,
            salt: Salt(*b"the four systems"),
            bounds: &[],
        };
        let key = StepKey { namespace: "default", run: "run", step: "step" };
        match plan::plan(&terms, &key, self.record.clone(), event, Now::at(at))
            .map_err(|refusal| refusal.to_string())?
        {
            Plan::Write(draft) => {
                let admitted = draft.admitted();
                let settlement = plan::settle(*draft, &admitted);
                self.record = Some(settlement.record);
                Ok(settlement.answer)
            }
            Plan::Stands(answer) => Ok(answer),
            Plan::Purge => Err("the step was forgotten".to_owned()),
        }
    }
}

impl Expected {
    fn check(&self, step: &mut Step<'_>, decision: &Decision, at: Timestamp) -> Result<(), String> {
        let mut settled = decision.settled.clone();
        if let Some(after_s) = self.decided_after_s {
            let until = at.plus(seconds(after_s));
            same("verdict until then", settled.verdict, Verdict::Wait(Some(until)))?;
            step.happens(&Event::Tick, until)?;
            settled = step
                .record
                .as_ref()
                .and_then(|record| record.decision())
                .cloned()
                .ok_or("no decision is left")?;
        }
        let (verdict, instant) = words::verdict(settled.verdict);
        same("verdict", verdict, &self.verdict)?;
        if let Some(reason) = &self.reason {
            same("reason", &words::name(settled.reason), reason)?;
        }
        if let Some(expected) = self.delay_s {
            let delay = instant.ok_or("no instant")? - at.as_micros();
            expected.check(delay)?;
        }
        if let Some(ends_by_s) = self.ends_by_s {
            same("ends_by", decision.ends_by, Some(START.plus(seconds(ends_by_s))))?;
        }
        if let Some(action) = &self.resume_from {
            same("resume_from", &decision.resume_from, action)?;
        }
        if let Some(answers) = &self.answers {
            let mut offered: Vec<String> = decision.hold_answers.iter().map(words::name).collect();
            let mut expected = answers.clone();
            offered.sort();
            expected.sort();
            same("hold_answers", offered, expected)?;
        }
        Ok(())
    }
}

impl DelayExpected {
    fn check(self, delay_us: u64) -> Result<(), String> {
        let (least, most) = match self {
            Self::Exactly(s) => (s, s),
            Self::Between(least, most) => (least, most),
        };
        let within = micros(seconds(least))..=micros(seconds(most));
        within
            .contains(&delay_us)
            .then_some(())
            .ok_or_else(|| format!("waits {delay_us} us, not within {within:?}"))
    }
}

fn same<T: PartialEq<U> + std::fmt::Debug, U: std::fmt::Debug>(
    what: &str,
    is: T,
    expected: U,
) -> Result<(), String> {
    if is == expected { Ok(()) } else { Err(format!("{what} is {is:?}, expected {expected:?}")) }
}

fn instant(after_s: f64) -> Timestamp {
    START.plus(seconds(after_s))
}

fn seconds(s: f64) -> Duration {
    // To the microsecond, which is as fine as instants are.
    Duration::from_micros((s * 1e6).round() as u64)
}
