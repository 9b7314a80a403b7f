//! What the domain says is told in the contract's words.

use std::{collections::VecDeque, time::Duration};

use crate::{
    domain::{
        decision::{
            Constraint, ConstraintKind, Counters, Decision, ExcludedHost, Reason, Settled, Verdict,
        },
        failure::FailureClass,
        id::StepKey,
        plan::{Answer, Grant, ReportStatus, Reported},
        policy::{RuleName, spec::HoldAnswer},
        record::{Attempt, End, Evidence, FailureText, Outcome, PolicyChoice, Record, State},
        time::Timestamp,
    },
    grpc::convert::answer::{self, Context},
    proto,
    service::PolicyStamp,
};

const fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

fn stamp() -> PolicyStamp<'static> {
    PolicyStamp { name: "etl", revision: 3, digest: "abc", is_built_in: false }
}

fn settled(verdict: Verdict, reason: Reason) -> Settled {
    let by_rule = vec![(RuleName::parse("slow").unwrap(), 2)];
    let counters =
        Counters { attempts: 4, retries: 1, uncounted: 2, crashes: 0, forgiven: 3, by_rule };
    Settled {
        verdict,
        reason,
        rule: RuleName::parse("slow"),
        revision: 3,
        counters,
        decided_at: at(100),
    }
}

fn decision(verdict: Verdict, reason: Reason) -> Decision {
    let constraint = Constraint {
        kind: ConstraintKind::Pushback,
        key: "db".into(),
        earliest: at(110),
        firm: true,
        binding: true,
        load: None,
    };
    Decision {
        settled: settled(verdict, reason),
        constraints: vec![constraint],
        excluded_hosts: vec![ExcludedHost { host: "node-1".into(), hard: true }],
        resume_from: "upload".into(),
        ends_by: Some(at(500)),
        hold_answers: vec![HoldAnswer::Retry, HoldAnswer::ExcludeHost],
    }
}

fn tell(decision: Decision, now: u64) -> proto::Decision {
    answer::decision(decision, Context { at: at(now), policy: stamp() })
}

/// `RetriesSpent` as `RETRIES_SPENT`.
fn screaming(name: &str) -> String {
    let mut screaming = String::new();
    for char in name.chars() {
        if char.is_uppercase() && !screaming.is_empty() {
            screaming.push('_');
        }
        screaming.push(char.to_ascii_uppercase());
    }
    screaming
}

#[test]
fn every_reason_keeps_its_name_and_its_sentence() {
    for reason in Reason::ALL {
        let told = tell(decision(Verdict::Stop, reason), 100);
        assert_eq!(
            told.reason().as_str_name(),
            format!("REASON_{}", screaming(&format!("{reason:?}")))
        );
        assert_eq!(told.explanation, reason.sentence());
    }
}

#[test]
fn a_retry_tells_its_instant_twice() {
    let told = tell(decision(Verdict::Retry(at(110)), Reason::Pushback), 100);
    assert_eq!(told.verdict(), proto::Verdict::Retry);
    assert_eq!(told.not_before, Some(answer::instant(at(110))));
    assert_eq!(told.delay, Some(seconds(10)));
    assert_eq!(told.decided_at, Some(answer::instant(at(100))));
    assert_eq!(told.rule, "slow");
    assert_eq!(
        told.policy,
        Some(proto::PolicyReference {
            name: "etl".into(),
            revision: 3,
            digest: "abc".into(),
            built_in: false
        })
    );
    let counters = told.counters.unwrap();
    assert_eq!(
        (counters.attempts, counters.retries, counters.uncounted, counters.crashes),
        (4, 1, 2, 0)
    );
    assert_eq!(counters.retries_by_rule["slow"], 2);
    assert_eq!(told.constraints[0].kind(), proto::ConstraintKind::Pushback);
    assert_eq!(told.excluded_hosts, [proto::ExcludedHost { host: "node-1".into(), hard: true }]);
    assert_eq!(told.resume_from, "upload");
    assert_eq!(told.ends_by, Some(answer::instant(at(500))));
    assert_eq!((told.hold_answers, told.held_until), (vec![], None));
}

#[test]
fn an_answer_told_again_counts_from_now() {
    assert_eq!(
        tell(decision(Verdict::Retry(at(110)), Reason::Backoff), 107).delay,
        Some(seconds(3))
    );
    assert_eq!(
        tell(decision(Verdict::Retry(at(110)), Reason::Backoff), 200).delay,
        Some(seconds(0))
    );
}

#[test]
fn other_verdicts_tell_what_belongs_to_them() {
    let wait = tell(decision(Verdict::Wait(None), Reason::ExcludedHost), 100);
    assert_eq!((wait.verdict(), wait.not_before, wait.delay), (proto::Verdict::Wait, None, None));
    let hold = tell(decision(Verdict::Hold(Some(at(900))), Reason::Exhausted), 100);
    assert_eq!(hold.held_until, Some(answer::instant(at(900))));
    assert_eq!(
        hold.hold_answers,
        [proto::HoldAnswer::Retry as i32, proto::HoldAnswer::ExcludeHost as i32]
    );
    assert_eq!(hold.not_before, None);
    let done = tell(decision(Verdict::Done, Reason::Succeeded), 100);
    assert_eq!((done.verdict(), done.not_before), (proto::Verdict::Done, None));
}

#[test]
fn a_decision_under_an_older_revision_claims_no_digest() {
    let older = |revision, in_force| {
        let mut decision = decision(Verdict::Stop, Reason::Rule);
        decision.settled.revision = revision;
        let policy = PolicyStamp { revision: in_force, ..stamp() };
        let told = answer::decision(decision, Context { at: at(100), policy }).policy.unwrap();
        (told.name, told.revision, told.digest)
    };
    assert_eq!(older(2, 3), ("etl".into(), 2, String::new()));
    assert_eq!(older(0, 3), (String::new(), 0, String::new()));
}

#[test]
fn instants_and_spans_beyond_the_contract_are_its_last() {
    assert_eq!(
        answer::instant(Timestamp::NEVER),
        prost_types::Timestamp { seconds: 253_402_300_799, nanos: 999_999_999 }
    );
    assert_eq!(
        answer::instant(Timestamp::from_micros(1_000_001)),
        prost_types::Timestamp { seconds: 1, nanos: 1000 }
    );
    assert_eq!(
        answer::span(Duration::MAX),
        prost_types::Duration { seconds: 315_576_000_000, nanos: 999_999_999 }
    );
}

fn grant(lease_until: Timestamp, replayed: bool) -> Answer {
    Answer::Granted(Box::new(Grant {
        attempt: 2,
        fence: 77,
        began_at: at(100),
        lease_until,
        replayed,
        excluded_hosts: vec![],
        ends_by: None,
        counters: Counters { attempts: 2, ..Counters::default() },
        resume_from: "upload".to_owned(),
        run_retries_left: Some(7),
    }))
}

#[test]
fn a_grant_tells_lease_and_heartbeat() {
    let told =
        |answer, now| answer::begin(answer, Context { at: at(now), policy: stamp() }).unwrap();
    let first = told(grant(at(130), false), 100);
    let Some(proto::begin_attempt_response::Answer::Grant(granted)) = first.answer else {
        panic!()
    };
    assert_eq!((granted.attempt, granted.fence, first.replayed), (2, 77, false));
    assert_eq!((granted.lease, granted.heartbeat_every), (Some(seconds(30)), Some(seconds(10))));
    assert_eq!(granted.lease_until, Some(answer::instant(at(130))));
    assert_eq!((granted.resume_from.as_str(), granted.counters.unwrap().attempts), ("upload", 2));

    let again = told(grant(at(130), true), 130);
    let Some(proto::begin_attempt_response::Answer::Grant(granted)) = again.answer else {
        panic!()
    };
    assert!(again.replayed);
    assert_eq!(granted.lease, Some(seconds(0)));
    assert!(granted.heartbeat_every.unwrap().nanos > 0, "a worker is not sent into a busy loop");
}

#[test]
fn answers_to_one_call_are_not_told_to_another() {
    let context = Context { at: at(100), policy: stamp() };
    let reported = || {
        let decision = decision(Verdict::Stop, Reason::Rule);
        Answer::Reported(Box::new(Reported {
            attempt: 4,
            status: ReportStatus::Late,
            replayed: true,
            decision,
        }))
    };
    assert!(answer::begin(reported(), context).is_none());
    assert!(answer::heartbeat(&reported(), at(100)).is_none());
    assert!(answer::report(Answer::Lost, context).is_none());

    let told = answer::report(reported(), context).unwrap();
    assert_eq!((told.attempt, told.status(), told.replayed), (4, proto::ReportStatus::Late, true));
    let held =
        answer::heartbeat(&Answer::Held { lease_until: at(130), cancel: false }, at(100)).unwrap();
    assert_eq!((held.state(), held.lease), (proto::LeaseState::Held, Some(seconds(30))));
    assert_eq!(answer::heartbeat(&Answer::Lost, at(100)).unwrap().state(), proto::LeaseState::Lost);
}

#[test]
fn a_step_is_shown_with_its_attempts_and_what_they_said() {
    let crash = End {
        at: at(140),
        outcome: Outcome::Crash,
        reported_by: None,
        late: false,
        settled: settled(Verdict::Retry(at(150)), Reason::Crashed),
        counted: None,
        fault: 0,
    };
    let failure = End {
        at: at(110),
        outcome: Outcome::Failure { class: FailureClass::Timeout, exit_code: Some(3) },
        ..crash.clone()
    };
    let attempt = |number, end| Attempt {
        number,
        fence: number.into(),
        began_at: at(100),
        begun_by: None,
        host: Some("node-1".into()),
        began_with: None,
        end,
    };
    let mut record = Record::new(at(90), PolicyChoice::Default);
    record.state = State::Waiting { due: at(150) };
    record.attempts =
        VecDeque::from([attempt(1, Some(failure)), attempt(2, Some(crash)), attempt(3, None)]);
    let text = |attempt, late, message: &str| FailureText {
        attempt,
        late,
        message: message.into(),
        error_type: "E".into(),
        cause: "c".into(),
        worker: "w".into(),
    };
    let evidence =
        Evidence { failures: VecDeque::from([text(1, false, "slow"), text(2, true, "too late")]) };
    let key = StepKey { namespace: "n", run: "r", step: "s" };
    let step = answer::step(
        key,
        &record,
        &evidence,
        Some(at(500)),
        Context { at: at(145), policy: stamp() },
    );

    assert_eq!((step.namespace.as_str(), step.run.as_str(), step.step.as_str()), ("n", "r", "s"));
    assert_eq!(step.state(), proto::StepState::Waiting);
    assert_eq!((step.next_event_at, step.purge_at), (Some(answer::instant(at(150))), None));
    assert_eq!(step.ends_by, Some(answer::instant(at(500))));
    assert_eq!(step.decision.unwrap().delay, Some(seconds(5)));
    let [failed, crashed, running] = step.attempts.as_slice() else { panic!() };
    assert_eq!(
        (failed.outcome(), failed.class(), failed.exit_code),
        (proto::Outcome::Failure, proto::FailureClass::Timeout, Some(3))
    );
    assert_eq!(
        (
            failed.message.as_str(),
            failed.error_type.as_str(),
            failed.worker.as_str(),
            failed.cause.as_str()
        ),
        ("slow", "E", "w", "c")
    );
    assert_eq!(
        (crashed.outcome(), crashed.class()),
        (proto::Outcome::Crash, proto::FailureClass::Crash)
    );
    assert_eq!((crashed.message.as_str(), crashed.late_message.as_str()), ("", "too late"));
    assert_eq!(
        (running.outcome(), running.ended_at, &running.decision),
        (proto::Outcome::Unspecified, None, &None)
    );
}
