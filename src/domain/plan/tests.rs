//! Behaviours that a short story shows best. What holds for every story is in
//! `tests/it`.

use std::time::Duration;

use super::*;
use crate::domain::{
    event::{AttemptName, Begin, Comes, Heartbeat, Report},
    failure::{Failure, FailureClass},
    policy::spec::PolicySpec,
};

const START: Timestamp = Timestamp::from_micros(1_750_000_000_000_000);

/// A step that follows a policy, told in seconds after [`START`].
struct Story {
    policy: Policy,
    settings: Settings,
    record: Option<Record>,
}

impl Story {
    fn under(yaml: &str) -> Self {
        let spec: PolicySpec = serde_saphyr::from_str(yaml).unwrap();
        Self { policy: Policy::parse(&spec).unwrap(), settings: Settings::default(), record: None }
    }

    fn happens(&mut self, event: &Event, now: Now) -> Result<Answer, Refusal> {
        let terms = Terms {
            policy: &self.policy,
            revision: 1,
            choice: &PolicyChoice::Default,
            settings: &self.settings,
            salt: Salt([0; 16]),
            bounds: &[],
            run: None,
        };
        let key = StepKey { namespace: "default", run: "run", step: "step" };
        match plan(&terms, &key, self.record.clone(), event, now)? {
            Plan::Stands(answer) => Ok(answer),
            Plan::Write(draft) => {
                let admitted = draft.admitted();
                let settlement = settle(*draft, &admitted);
                self.record = Some(settlement.record);
                Ok(settlement.answer)
            }
            Plan::Purge => {
                self.record = None;
                Ok(Answer::Ticked)
            }
        }
    }

    fn tick(&mut self, second: u64) {
        assert_eq!(self.happens(&Event::Tick, Now::at(at(second))), Ok(Answer::Ticked));
    }

    fn begin(&mut self, second: u64) -> Answer {
        let identity = Identity { id: second + 1, payload: 0 };
        let begin = Begin {
            identity,
            lease: None,
            host: Some("a".into()),
            worker: String::new(),
            comes: Comes::ByItself,
            step: StepTerms::default(),
        };
        self.happens(&Event::Begin(begin), Now::at(at(second))).unwrap()
    }

    fn granted(&mut self, second: u64) -> Grant {
        match self.begin(second) {
            Answer::Granted(grant) => *grant,
            answer => panic!("{answer:?}"),
        }
    }

    fn report(
        &mut self,
        attempt: AttemptName,
        payload: u64,
        failure: Option<Failure>,
        second: u64,
    ) -> Result<Reported, Refusal> {
        let report = Report { attempt, payload, failure, step: StepTerms::default() };
        match self.happens(&Event::Report(report), Now::at(at(second)))? {
            Answer::Reported(reported) => Ok(*reported),
            answer => panic!("{answer:?}"),
        }
    }

    /// The next attempt fails, begun by its report.
    fn fails(&mut self, second: u64) -> Decision {
        let number = self.record.as_ref().map_or(0, |record| record.counters.attempts) + 1;
        self.report(AttemptName::Number(number), u64::from(number), Some(failure()), second)
            .unwrap()
            .decision
    }

    fn record(&self) -> &Record {
        self.record.as_ref().unwrap()
    }
}

fn failure() -> Failure {
    Failure::of(FailureClass::Failure)
}

fn at(second: u64) -> Timestamp {
    START.plus(Duration::from_secs(second))
}

#[test]
fn a_retry_names_the_hosts_to_stay_away_from() {
    let mut step = Story::under("{max_retries: 2, host_anti_affinity: {mode: hard}}");
    let fence = step.granted(0).fence;
    let decision = step.report(AttemptName::Fence(fence), 1, Some(failure()), 1).unwrap().decision;
    assert_eq!(
        decision.excluded_hosts,
        [crate::domain::decision::ExcludedHost { host: "a".to_owned(), hard: true }]
    );
}

#[test]
fn a_crash_keeps_the_action_to_resume_from() {
    let mut step = Story::under("{}");
    step.report(
        AttemptName::Number(1),
        1,
        Some(Failure { action: "load".to_owned(), ..failure() }),
        0,
    )
    .unwrap();
    step.granted(1);
    step.tick(31);
    assert_eq!(&*step.record().resume_from, "load");
    step.fails(32);
    assert_eq!(
        &*step.record().resume_from,
        "",
        "a failure says where to resume, or that it starts over"
    );
}

#[test]
fn silence_is_no_sign_of_health() {
    let mut step = Story::under("{max_crash_retries: 1, reset_after: 1m}");
    step.granted(0);
    step.tick(3600);
    assert_eq!(step.record().counters.crashes, 1);
    step.granted(3600);
    step.tick(7200);
    assert_eq!(step.record().decision().map(|settled| settled.reason), Some(Reason::CrashesSpent));
}

#[test]
fn a_crash_after_a_healthy_run_starts_the_counters_again() {
    let mut step = Story::under("{max_crash_retries: 1, reset_after: 1m}");
    step.granted(0);
    step.tick(30);
    let fence = step.granted(30).fence;
    for second in [50, 70, 90] {
        step.happens(
            &Event::Heartbeat(Heartbeat { fence, lease: None, progress: None }),
            Now::at(at(second)),
        )
        .unwrap();
    }
    step.tick(9000);
    assert_eq!(step.record().counters.crashes, 1);
}

#[test]
fn a_hold_offers_retries_only_while_there_are_any() {
    let hold = "{hold: {timeout: 10s, default_answer: RETRY, allowed: [RETRY, EXCLUDE_HOST, FAIL], max_manual_retries: 1}}";
    let mut step = Story::under(&format!("{{max_retries: 0, on_exhaustion: {hold}}}"));
    assert_eq!(step.fails(0).hold_answers.len(), 3);
    step.tick(10);
    assert_eq!(step.fails(11).hold_answers, [HoldAnswer::Fail]);
    step.tick(21);
    assert!(step.record().is_over());
}

/// On exhaustion a policy holds: the same whether a failure or a begin finds
/// that `max_elapsed` is over.
#[test]
fn max_elapsed_is_left_to_a_person_wherever_it_is_noticed() {
    let hold =
        "{hold: {timeout: 10s, default_answer: RETRY, allowed: [RETRY], max_manual_retries: 1}}";
    let yaml =
        format!("{{max_elapsed: 1m, backoff: {{fixed: {{delay: 40s}}}}, on_exhaustion: {hold}}}");
    let mut failed = Story::under(&yaml);
    failed.fails(0);
    assert_eq!(failed.fails(41).settled.verdict, Verdict::Hold(Some(at(51))));

    let mut begun = Story::under(&yaml);
    begun.fails(0);
    let Answer::Refused(refusal) = begun.begin(61) else { panic!("it is too late") };
    assert_eq!(refusal.settled.verdict, Verdict::Hold(Some(at(71))));
    assert_eq!(refusal.hold_answers, [HoldAnswer::Retry]);
    assert_eq!(begun.record().counters.attempts, 1, "nothing was counted");

    // The order to try again is worth something, once.
    begun.tick(71);
    let grant = begun.granted(80);
    assert_eq!(grant.ends_by, Some(at(10).plus(begun.settings.max_elapsed_ceiling)));
    let fence = AttemptName::Fence(grant.fence);
    let decision = begun.report(fence, 1, Some(failure()), 81).unwrap().decision;
    assert_eq!(decision.settled.reason, Reason::MaxElapsed);
    assert_eq!(decision.settled.verdict, Verdict::Stop, "all manual retries are used");
}

#[test]
fn a_deadline_stops_whatever_a_policy_holds() {
    let mut step = Story::under("{max_elapsed: 1h, on_exhaustion: {hold: {}}}");
    step.fails(0);
    let record = step.record.as_mut().unwrap();
    record.deadline = Some(at(60));
    let Answer::Refused(refusal) = step.begin(61) else { panic!("it is too late") };
    assert_eq!(
        (refusal.settled.verdict, refusal.settled.reason),
        (Verdict::Stop, Reason::Deadline)
    );
}

#[test]
fn a_hold_that_nobody_could_answer_is_a_stop() {
    let mut step = Story::under(
        "{max_retries: 0, on_exhaustion: {hold: {allowed: [RETRY], max_manual_retries: 0}}}",
    );
    let decision = step.fails(0);
    assert_eq!(
        (decision.settled.verdict, decision.settled.reason),
        (Verdict::Stop, Reason::RetriesSpent)
    );
}

#[test]
fn a_late_failure_is_answered_equally_when_it_is_repeated() {
    let mut step = Story::under("{backoff: {fixed: {delay: 10s}}}");
    let fence = AttemptName::Fence(step.granted(0).fence);
    step.tick(30);
    let first = step.report(fence, 1, Some(failure()), 31).unwrap();
    assert_eq!((first.status, first.replayed), (ReportStatus::Late, false));
    let version = step.record().version;
    let again = step.report(fence, 1, Some(failure()), 35).unwrap();
    assert_eq!((again.status, again.replayed), (ReportStatus::Late, true));
    assert_eq!(again.decision.settled, first.decision.settled);
    assert_eq!(step.record().version, version, "a replay writes nothing");
    assert_eq!(
        step.report(fence, 2, None, 36),
        Err(Refusal::IdentityReused),
        "it failed, as it said itself"
    );
}

#[test]
fn a_late_success_gives_back_what_the_crash_was_charged() {
    let mut step = Story::under("{}");
    let fence = AttemptName::Fence(step.granted(0).fence);
    step.tick(30);
    assert_eq!(step.record().counters.crashes, 1);
    let late = step.report(fence, 1, None, 31).unwrap();
    assert_eq!((late.status, late.decision.settled.verdict), (ReportStatus::Late, Verdict::Done));
    assert_eq!(step.record().counters.crashes, 0);
}

#[test]
fn only_a_hold_can_be_answered() {
    let mut step = Story::under("{max_retries: 1, on_exhaustion: {hold: {}}}");
    let retried = step.fails(0);
    assert_eq!(step.fails(1).settled.verdict, Verdict::Hold(None));
    let replayed = step.report(AttemptName::Number(1), 1, Some(failure()), 2).unwrap();
    assert_eq!(replayed.decision.settled, retried.settled);
    assert!(replayed.decision.hold_answers.is_empty());
}

#[test]
fn a_worker_is_not_given_up_for_the_time_in_which_nobody_could_hear_it() {
    let mut step = Story::under("{}");
    let fence = step.granted(0).fence;
    let now = Now { at: at(100), leases: at(20) };
    assert!(!is_overdue(step.record(), now));
    step.happens(&Event::Tick, now).unwrap();
    assert!(matches!(step.record().state, State::Running { .. }));
    let beat =
        step.happens(&Event::Heartbeat(Heartbeat { fence, lease: None, progress: None }), now);
    assert_eq!(beat, Ok(Answer::Held { lease_until: at(130), cancel: false }));
}

#[test]
fn a_step_that_nobody_comes_for_is_given_up_and_then_forgotten() {
    let mut step = Story::under("{}");
    step.fails(0);
    let abandoned = 7 * 24 * 3600;
    step.tick(abandoned - 1);
    assert!(!step.record().is_over());
    step.tick(abandoned);
    assert_eq!(step.record().decision().map(|settled| settled.reason), Some(Reason::Abandoned));
    step.tick(abandoned + 24 * 3600);
    assert_eq!(step.record, None);
}

#[test]
fn a_begin_repeated_after_its_attempt_shows_the_counters_of_then_and_no_lease() {
    let mut step = Story::under("{backoff: {fixed: {delay: 1s}}}");
    let first = step.granted(0);
    step.report(AttemptName::Fence(first.fence), 1, Some(failure()), 5).unwrap();
    let second = step.granted(6);
    assert_eq!((second.counters.attempts, second.counters.retries), (2, 1));

    let again = step.granted(0);
    assert_eq!((again.attempt, again.fence, again.began_at), (1, first.fence, first.began_at));
    assert!(again.replayed);
    assert_eq!(again.counters, first.counters);
    assert_eq!(again.lease_until, at(5), "it ended with its attempt");

    let fence = second.fence;
    step.happens(
        &Event::Heartbeat(Heartbeat { fence, lease: None, progress: None }),
        Now::at(at(16)),
    )
    .unwrap();
    let again = step.granted(6);
    assert_eq!(again.counters, second.counters);
    assert_eq!(again.lease_until, at(46), "it runs, as the heartbeat extended it");
}

#[test]
fn a_crashed_attempt_is_not_revived_by_the_lease_of_a_later_one() {
    let mut step = Story::under("{backoff: {fixed: {delay: 1s}}}");
    step.granted(0);
    step.tick(30);
    step.settings.lease = Duration::from_secs(3600);
    step.granted(31);
    assert_eq!(step.granted(0).lease_until, at(30));
}

#[test]
fn a_report_is_recognised_by_its_own_id_for_sixteen_attempts() {
    let mut step = Story::under("{max_retries: 40, backoff: {fixed: {delay: 0s}}}");
    let name = AttemptName::Request(99);
    let first = step.report(name, 99, Some(failure()), 0).unwrap();
    for second in 1..16 {
        step.fails(second);
    }
    let again = step.report(name, 99, Some(failure()), 16).unwrap();
    assert_eq!((again.attempt, again.replayed), (1, true));
    assert_eq!(again.decision.settled, first.decision.settled);
    step.fails(17);
    let anew = step.report(name, 99, Some(failure()), 18).unwrap();
    assert_eq!((anew.attempt, anew.replayed), (18, false), "as the contract says");
    let by_number = step.report(AttemptName::Number(1), 99, Some(failure()), 19).unwrap();
    assert_eq!(by_number.status, ReportStatus::Stale, "a number is never counted anew");
}
