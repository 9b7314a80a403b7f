//! Runs: tried again as a whole, from where they failed or from the start, with
//! one bound on the retries of all their steps; and what a run that is over means
//! to the steps it has.

use std::{sync::Arc, time::Duration};

use reprise::{
    domain::{
        decision::{Decision, Reason, Verdict},
        event::{AttemptName, Begin, Comes, Deadline, Event, Heartbeat, Report, StepTerms},
        failure::{Failure, FailureClass, Pushback},
        id::StepKey,
        limit::spec::TargetSpec,
        order::{Order, What},
        plan::{Answer, Grant, Refusal, ReportStatus, Reported},
        record::{Ending, Identity, Record, State},
    },
    service::{GivenPolicy, Handled, PauseOrder, Service, ServiceError, TargetWrite, WaitEnd},
    store::{ConfigurationChange, Store},
    telemetry::Telemetry,
};

use tokio::time::Instant;

use crate::{
    limits::stage::stories_on_every_store,
    store_contract::subject::{Subject, id, key, policy},
};

const SECOND: Duration = Duration::from_secs(1);

/// A service on a store, its time moved by hand. Steps follow the policy `steps`:
/// one retry, a second later.
struct Stage<S> {
    service: Service<S>,
    subject: Subject<S>,
    calls: u64,
}

impl<S: Store + Clone> Stage<S> {
    async fn on(subject: Subject<S>) -> Self {
        subject.create("n").await;
        let telemetry = Arc::new(Telemetry::new());
        let service = Service::new(subject.store.clone(), telemetry, subject.clock.clone());
        let stage = Self { service, subject, calls: 0 };
        stage.policy("steps", "{max_retries: 1, backoff: {fixed: {delay: 1s}}}").await;
        stage
    }

    async fn policy(&self, name: &str, yaml: &str) {
        let change = ConfigurationChange::Policy(id(name), policy(yaml));
        self.subject.reconfigure("n", change).await.unwrap();
    }

    async fn apply(
        &self,
        key: StepKey<'_>,
        policy: Option<&str>,
        event: Event,
    ) -> Result<Handled, ServiceError> {
        let given = policy.map(|name| GivenPolicy::Named(id(name)));
        self.service.apply(&key, given.as_ref(), &event).await
    }

    fn begins(&mut self, step: StepTerms) -> Event {
        self.calls += 1;
        Event::Begin(Begin {
            identity: Identity { id: self.calls, payload: 1 },
            lease: None,
            host: None,
            worker: String::new(),
            comes: Comes::ByItself,
            step,
        })
    }

    /// Begins an attempt of the run `r` under a policy of this text.
    async fn begin_run(&mut self, yaml: &str) -> Grant {
        self.policy("runs", yaml).await;
        granted(self.ask_run(Some("runs"), None).await)
    }

    async fn ask_run(&mut self, policy: Option<&str>, deadline: Option<Deadline>) -> Answer {
        let begin = self.begins(StepTerms { deadline, ..StepTerms::default() });
        self.apply(StepKey::of_run("n", "r"), policy, begin).await.unwrap().answer
    }

    async fn report_run(&self, failure: Option<Failure>) -> Decision {
        self.report("", failure).await
    }

    /// Reports the attempt that runs.
    async fn report(&self, step: &str, failure: Option<Failure>) -> Decision {
        let attempt = AttemptName::Fence(self.record(step).await.unwrap().fence);
        let report = Report { attempt, payload: 1, failure, step: StepTerms::default() };
        match self.apply(key("n", "r", step), None, Event::Report(report)).await.unwrap().answer {
            Answer::Reported(reported) => reported.decision,
            other => panic!("{other:?}"),
        }
    }

    /// Tells that an attempt of a step which nobody began has failed.
    async fn tell_failed(
        &self,
        step: &str,
        number: u32,
        of_run: u32,
    ) -> Result<Reported, ServiceError> {
        let step_terms = StepTerms { of_run, ..StepTerms::default() };
        let (attempt, failure) = (AttemptName::Number(number), Some(failure()));
        let report = Report { attempt, payload: u64::from(number), failure, step: step_terms };
        match self.apply(key("n", "r", step), Some("steps"), Event::Report(report)).await?.answer {
            Answer::Reported(reported) => Ok(*reported),
            other => panic!("{other:?}"),
        }
    }

    /// Whether a heartbeat says that the attempt should stop.
    async fn beat(&self, step: &str, fence: u64) -> bool {
        let lease = Some(Duration::from_secs(3600));
        let beat = Event::Heartbeat(Heartbeat { fence, lease, progress: None });
        match self.apply(key("n", "r", step), None, beat).await.unwrap().answer {
            Answer::Held { cancel, .. } => cancel,
            other => panic!("{other:?}"),
        }
    }

    async fn ask(&mut self, step: &str, of_run: u32) -> Answer {
        self.try_ask(step, of_run).await.unwrap()
    }

    async fn try_ask(&mut self, step: &str, of_run: u32) -> Result<Answer, ServiceError> {
        let begin = self.begins(StepTerms { of_run, ..StepTerms::default() });
        let handled = self.apply(key("n", "r", step), Some("steps"), begin).await;
        handled.map(|handled| handled.answer)
    }

    /// Asks from a host.
    async fn ask_on(&mut self, host: &str, step: &str, of_run: u32) -> Answer {
        let mut begin = self.begins(StepTerms { of_run, ..StepTerms::default() });
        if let Event::Begin(begin) = &mut begin {
            begin.host = Some(host.into());
        }
        self.apply(key("n", "r", step), Some("steps"), begin).await.unwrap().answer
    }

    /// Orders something about a step, or about the run where it has no name.
    async fn order(&mut self, step: &str, what: What) {
        self.calls += 1;
        let identity = Identity { id: self.calls, payload: 1 };
        let (by, reason) = ("ana".into(), "it has to be".into());
        let order = Event::Order(Order { identity, by, reason, what });
        self.apply(key("n", "r", step), None, order).await.unwrap();
    }

    async fn begin(&mut self, step: &str, of_run: u32) -> Grant {
        granted(self.ask(step, of_run).await)
    }

    async fn succeed(&mut self, step: &str, of_run: u32) {
        self.begin(step, of_run).await;
        self.report(step, None).await;
    }

    async fn fail(&mut self, step: &str, of_run: u32) -> Decision {
        self.begin(step, of_run).await;
        self.report(step, Some(failure())).await
    }

    /// Runs a step until its retries are spent.
    async fn give_up(&mut self, step: &str, of_run: u32) {
        while self.fail(step, of_run).await.settled.verdict != Verdict::Stop {
            self.pass(SECOND).await;
        }
    }

    /// Time passes, and the sweep goes on.
    async fn pass(&self, mut span: Duration) {
        while !span.is_zero() {
            let some = span.min(SECOND);
            self.subject.clock.advance(some);
            while self.service.sweep(100).await.unwrap() > 0 {}
            span -= some;
        }
    }

    async fn record(&self, step: &str) -> Option<Record> {
        self.subject.record(key("n", "r", step)).await
    }

    async fn succeeded(&self) -> Vec<String> {
        let is_done =
            |state: &State| matches!(state, State::Over { ending: Ending::Succeeded, .. });
        self.steps(is_done).await
    }

    async fn steps(&self, is_wanted: impl Fn(&State) -> bool + Copy) -> Vec<String> {
        let run = StepKey::of_run("n", "r");
        let (mut names, mut after) = (Vec::new(), String::new());
        loop {
            let page = self.service.run_steps(&run, is_wanted, &after, 2).await.unwrap();
            let Some(last) = page.last() else { return names };
            after.clone_from(&last.step);
            names.extend(page.into_iter().map(|step| step.step));
        }
    }
}

fn granted(answer: Answer) -> Grant {
    match answer {
        Answer::Granted(grant) => *grant,
        other => panic!("{other:?}"),
    }
}

fn refused(answer: Answer) -> (Verdict, Reason) {
    match answer {
        Answer::Refused(decision) => (decision.settled.verdict, decision.settled.reason),
        other => panic!("{other:?}"),
    }
}

fn failure() -> Failure {
    Failure::of(FailureClass::Failure)
}

fn of_step() -> Option<Failure> {
    Some(Failure { of_step: true, ..failure() })
}

const ONE_RETRY: &str = "{max_retries: 1}";

async fn a_run_of_ten_steps_goes_on_at_the_seventh<S: Store + Clone>(mut stage: Stage<S>) {
    let run = stage.begin_run(ONE_RETRY).await;
    assert_eq!(run.attempt, 1);
    for step in 1..=6 {
        stage.succeed(&format!("s{step:02}"), 1).await;
    }
    stage.give_up("s07", 1).await;
    assert_eq!(stage.record("s07").await.unwrap().counters.retries, 1);
    let decision = stage.report_run(of_step()).await;
    assert!(matches!(decision.settled.verdict, Verdict::Retry(_)), "{decision:?}");

    let again = stage.begin_run(ONE_RETRY).await;
    assert_eq!(again.attempt, 2);
    assert_eq!(stage.succeeded().await, ["s01", "s02", "s03", "s04", "s05", "s06"]);
    assert_eq!(refused(stage.ask("s01", 2).await), (Verdict::Done, Reason::Succeeded));
    let seventh = stage.begin("s07", 2).await;
    assert_eq!((seventh.attempt, seventh.counters.retries), (3, 0), "numbers go on, counters not");
    stage.report("s07", None).await;
    for step in 8..=10 {
        stage.succeed(&format!("s{step:02}"), 2).await;
    }
    stage.report_run(None).await;
    assert_eq!(stage.succeeded().await.len(), 10);
    assert_eq!(refused(stage.ask_run(None, None).await), (Verdict::Done, Reason::Succeeded));
}

async fn a_run_that_begins_anew_runs_every_step_again<S: Store + Clone>(mut stage: Stage<S>) {
    let policy = "{max_retries: 1, run: {resume: all_steps}}";
    stage.begin_run(policy).await;
    stage.succeed("a", 1).await;
    stage.give_up("b", 1).await;
    stage.report_run(of_step()).await;
    stage.begin_run(policy).await;
    assert_eq!(stage.begin("a", 2).await.attempt, 2);
    assert_eq!(stage.begin("b", 2).await.attempt, 3);
}

async fn counters_that_are_carried_leave_a_spent_step_one_more_try<S: Store + Clone>(
    mut stage: Stage<S>,
) {
    let policy = "{max_retries: 1, run: {step_counters: carry}}";
    stage.begin_run(policy).await;
    stage.give_up("a", 1).await;
    stage.report_run(of_step()).await;
    stage.begin_run(policy).await;
    let decision = stage.fail("a", 2).await.settled;
    assert_eq!((decision.verdict, decision.reason), (Verdict::Stop, Reason::RetriesSpent));
}

async fn the_steps_of_a_run_share_one_bound_over_its_attempts<S: Store + Clone>(
    mut stage: Stage<S>,
) {
    let policy = "{max_retries: 5, run: {max_total_retries: 3}}";
    stage.begin_run(policy).await;
    assert_eq!(stage.begin("a", 1).await.run_retries_left, Some(3), "a first attempt is none");
    stage.report("a", Some(Failure::of(FailureClass::Timeout))).await;
    stage.pass(SECOND).await;
    assert_eq!(stage.begin("a", 1).await.run_retries_left, Some(2), "whatever it failed with");
    stage.report("a", Some(failure())).await;
    // A call that a step makes is a step of the same run.
    stage.fail("b/call", 1).await;
    stage.pass(SECOND).await;
    stage.fail("b/call", 1).await;
    stage.report_run(of_step()).await;
    stage.begin_run(policy).await;
    assert_eq!(stage.begin("a", 2).await.run_retries_left, Some(0));
    let decision = stage.report("a", Some(failure())).await.settled;
    assert_eq!((decision.verdict, decision.reason), (Verdict::Stop, Reason::RunRetriesSpent));
    let refusal = refused(stage.ask("b/call", 2).await);
    assert_eq!(refusal, (Verdict::Stop, Reason::RunRetriesSpent));
    assert_eq!(stage.begin("c", 2).await.run_retries_left, Some(0), "what is new may start");
}

async fn a_worker_of_an_earlier_attempt_is_told<S: Store + Clone>(mut stage: Stage<S>) {
    let unknown = |result: Result<Answer, ServiceError>, begun| {
        let Err(ServiceError::Refused(refusal)) = result else { panic!("{result:?}") };
        assert_eq!(refusal, Refusal::UnknownRunAttempt { said: 2, begun });
    };
    unknown(stage.try_ask("a", 2).await, 0);
    stage.begin_run(ONE_RETRY).await;
    unknown(stage.try_ask("a", 2).await, 1);
    assert!(stage.record("a").await.is_none(), "nothing is remembered of it");
    stage.report_run(Some(failure())).await;
    stage.begin_run(ONE_RETRY).await;
    assert_eq!(refused(stage.ask("a", 1).await), (Verdict::Stop, Reason::RunSuperseded));
    stage.begin("a", 2).await;
}

async fn a_run_that_is_over_ends_its_steps<S: Store + Clone>(mut stage: Stage<S>) {
    stage.begin_run(ONE_RETRY).await;
    stage.begin("running", 1).await;
    stage.fail("waiting", 1).await;
    stage.succeed("done", 1).await;
    stage.report_run(None).await;
    let decision = stage.report("running", Some(failure())).await;
    let settled = decision.settled;
    assert_eq!((settled.verdict, settled.reason), (Verdict::Stop, Reason::RunOver));
    stage.pass(SECOND).await;
    assert_eq!(refused(stage.ask("waiting", 1).await), (Verdict::Stop, Reason::RunOver));
    assert!(stage.record("waiting").await.unwrap().is_over(), "it is due no more");
    assert_eq!(refused(stage.ask("new", 1).await), (Verdict::Stop, Reason::RunOver));
    assert_eq!(refused(stage.ask("done", 1).await), (Verdict::Done, Reason::Succeeded));
}

async fn a_bound_on_retries_leaves_what_targets_say_to_them<S: Store + Clone>(mut stage: Stage<S>) {
    let spec: TargetSpec = serde_saphyr::from_str("{rate: {limit: 100}}").unwrap();
    let write = TargetWrite { may_exist: true, may_be_missing: true, ..TargetWrite::default() };
    let (namespace, name) = (id("n"), id("db"));
    let written = stage.service.write_target(&namespace, &name, &write, |_| spec.clone());
    written.await.unwrap();
    stage.begin_run("{run: {max_total_retries: 9}}").await;
    let at_db = || StepTerms { of_run: 1, targets: vec![id("db")], ..StepTerms::default() };
    for (step, is_granted) in [("a", true), ("b", false)] {
        let begin = stage.begins(at_db());
        let answer = stage.apply(key("n", "r", step), Some("steps"), begin).await.unwrap().answer;
        if is_granted {
            granted(answer);
            let pushback = Some(Pushback::After(5 * SECOND));
            stage.report(step, Some(Failure { pushback, ..failure() })).await;
        } else {
            assert_eq!(refused(answer).1, Reason::Limited, "the whole fleet waits");
        }
    }
}

async fn the_policy_of_a_run_bounds_its_own_retries_and_not_its_steps<S: Store + Clone>(
    mut stage: Stage<S>,
) {
    let run = stage.begin_run("{max_retries: 1, max_elapsed: 3s}").await;
    stage.beat("", run.fence).await;
    stage.pass(5 * SECOND).await;
    stage.begin("late", 1).await;
    let settled = stage.report_run(Some(failure())).await.settled;
    assert_eq!((settled.verdict, settled.reason), (Verdict::Stop, Reason::MaxElapsed));
}

async fn spent_retries_of_a_run_leave_rules_their_say<S: Store + Clone>(mut stage: Stage<S>) {
    stage.policy("steps", "{rules: [{name: odd, match: {exit_codes: [3]}, skip: {}}]}").await;
    stage.begin_run("{run: {max_total_retries: 0}}").await;
    stage.begin("a", 1).await;
    let skipped = stage.report("a", Some(Failure { exit_code: Some(3), ..failure() })).await;
    assert_eq!((skipped.settled.verdict, skipped.settled.reason), (Verdict::Done, Reason::Skipped));
    let settled = stage.fail("b", 1).await.settled;
    assert_eq!((settled.verdict, settled.reason), (Verdict::Stop, Reason::RunRetriesSpent));
}

async fn who_works_on_a_cancelled_run_is_told<S: Store + Clone>(mut stage: Stage<S>) {
    let run = stage.begin_run(ONE_RETRY).await;
    let step = stage.begin("a", 1).await;
    assert!(!stage.beat("a", step.fence).await && !stage.beat("", run.fence).await);
    stage.order("", What::Cancel).await;
    assert!(stage.beat("", run.fence).await);
    assert!(stage.beat("a", step.fence).await, "though nobody ordered anything about it");
    assert_eq!(refused(stage.ask("new", 1).await), (Verdict::Stop, Reason::RunOver));
    let settled = stage.report("a", Some(failure())).await.settled;
    assert_eq!((settled.verdict, settled.reason), (Verdict::Stop, Reason::RunOver));
    let settled = stage.report_run(Some(failure())).await.settled;
    assert_eq!((settled.verdict, settled.reason), (Verdict::Stop, Reason::Canceled));
}

async fn who_waits_for_a_step_of_a_finished_run_is_told<S: Store + Clone>(mut stage: Stage<S>) {
    stage
        .policy(
            "steps",
            "{max_retries: 1, backoff: {fixed: {delay: 1h}}, on_exhaustion: {hold: {}}}",
        )
        .await;
    stage.begin_run(ONE_RETRY).await;
    stage.fail("waiting", 1).await;
    stage.policy("steps", "{max_retries: 0, on_exhaustion: {hold: {}}}").await;
    stage.fail("held", 1).await;
    stage.report_run(None).await;
    for step in ["waiting", "held"] {
        let awaited = stage.service.await_decision(&key("n", "r", step), Instant::now()).await;
        let awaited = awaited.unwrap();
        assert_eq!(awaited.end, WaitEnd::Ready, "{step}");
        assert_eq!(awaited.decision.settled.reason, Reason::RunOver, "{step}");
    }
}

async fn a_step_is_shown_to_end_with_its_run<S: Store + Clone>(mut stage: Stage<S>) {
    stage.policy("runs", ONE_RETRY).await;
    let deadline = Some(Deadline::After(100 * SECOND));
    let run = granted(stage.ask_run(Some("runs"), deadline).await);
    stage.fail("a", 1).await;
    let step = key("n", "r", "a");
    let shown = stage.service.step(&step).await.unwrap();
    let explained = stage.service.explain(&step).await.unwrap().explanation.unwrap();
    assert_eq!(shown.ends_by, run.ends_by);
    assert_eq!(explained.ends_by.map(|(at, _)| at), run.ends_by);
}

async fn a_name_that_is_used_again_has_all_its_retries<S: Store + Clone>(mut stage: Stage<S>) {
    let policy = "{run: {max_total_retries: 1}}";
    for _ in 0..2 {
        stage.begin_run(policy).await;
        stage.fail("a", 1).await;
        stage.pass(SECOND).await;
        assert_eq!(stage.begin("a", 1).await.run_retries_left, Some(0));
        stage.report("a", None).await;
        stage.report_run(None).await;
        stage.pass(2 * retention(&stage).await + SECOND).await;
        assert!(stage.record("a").await.is_none() && stage.record("").await.is_none());
    }
}

async fn a_held_step_starts_again_with_its_run<S: Store + Clone>(mut stage: Stage<S>) {
    stage.policy("steps", "{max_retries: 0, max_elapsed: 5s, on_exhaustion: {hold: {}}}").await;
    let policy = "{max_retries: 1, run: {step_counters: carry}}";
    stage.begin_run(policy).await;
    stage.fail("a", 1).await;
    let held_at = stage.record("a").await.unwrap();
    stage.report_run(Some(failure())).await;
    stage.pass(10 * SECOND).await;
    stage.begin_run(policy).await;
    let grant = stage.begin("a", 2).await;
    let record = stage.record("a").await.unwrap();
    assert_eq!(record.held_for, 10 * SECOND, "no time of its own: {held_at:?}");
    assert!(grant.ends_by.unwrap() >= grant.began_at, "{grant:?}");
}

async fn a_step_that_starts_again_waits_for_its_paused_target<S: Store + Clone>(
    mut stage: Stage<S>,
) {
    let (namespace, db, write) =
        (id("n"), id("db"), TargetWrite { may_be_missing: true, ..TargetWrite::default() });
    stage.service.write_target(&namespace, &db, &write, |_| TargetSpec::default()).await.unwrap();
    stage.policy("steps", "{max_retries: 0}").await;
    let step = |of_run| StepTerms { of_run, targets: vec![id("db")], ..StepTerms::default() };
    stage.begin_run(ONE_RETRY).await;
    let begin = stage.begins(step(1));
    granted(stage.apply(key("n", "r", "a"), Some("steps"), begin).await.unwrap().answer);
    stage.report("a", Some(failure())).await;
    stage.report_run(Some(failure())).await;
    stage.begin_run(ONE_RETRY).await;
    let order = PauseOrder { reason: "it moves".to_owned(), by: "ann".to_owned(), end: None };
    stage.service.pause_target(&namespace, &db, &order).await.unwrap();
    let begin = stage.begins(StepTerms { queue: Some(id("q")), ..step(2) });
    let answer = stage.apply(key("n", "r", "a"), Some("steps"), begin).await.unwrap().answer;
    assert_eq!(refused(answer).1, Reason::Paused);
    assert_eq!(stage.record("a").await.unwrap().queue.as_deref(), Some("q"));
    let awaited = stage.service.await_decision(&key("n", "r", "a"), Instant::now()).await.unwrap();
    assert_eq!(awaited.end, WaitEnd::StillWaiting, "it would be asked about again and again");
    stage.service.resume_target(&namespace, &db).await.unwrap();
    assert_eq!(stage.begin("a", 2).await.attempt, 2);
}

async fn steps_that_are_only_reported_belong_to_their_run<S: Store + Clone>(mut stage: Stage<S>) {
    let policy = "{max_retries: 1, backoff: {fixed: {delay: 0s}}, run: {max_total_retries: 1}}";
    stage.policy("steps", "{max_retries: 1, backoff: {fixed: {delay: 0s}}}").await;
    stage.begin_run(policy).await;
    let first = stage.tell_failed("a", 1, 1).await.unwrap();
    assert!(matches!(first.decision.settled.verdict, Verdict::Retry(_)), "{first:?}");
    assert_eq!(stage.steps(|_| true).await, ["a"]);
    let last = stage.tell_failed("a", 2, 0).await.unwrap();
    assert_eq!(last.decision.settled.verdict, Verdict::Stop);

    let early = stage.tell_failed("a", 3, 2).await;
    let unknown = Refusal::UnknownRunAttempt { said: 2, begun: 1 };
    assert!(matches!(early, Err(ServiceError::Refused(refusal)) if refusal == unknown));

    stage.report_run(Some(failure())).await;
    stage.begin_run(policy).await;
    let stale = stage.tell_failed("a", 3, 1).await.unwrap();
    assert_eq!(stale.status, ReportStatus::Stale, "the run has gone on");
    let again = stage.tell_failed("a", 3, 2).await.unwrap();
    assert_eq!(again.status, ReportStatus::Recorded);
    assert_eq!(stage.record("a").await.unwrap().of_run, 2);

    stage.report_run(None).await;
    let after = stage.tell_failed("b", 1, 2).await.unwrap();
    assert_eq!(after.decision.settled.reason, Reason::RunOver);
}

async fn a_run_whose_worker_vanished_is_tried_again<S: Store + Clone>(mut stage: Stage<S>) {
    stage.begin_run(ONE_RETRY).await;
    stage.pass(11 * SECOND).await;
    let run = stage.record("").await.unwrap();
    assert_eq!(run.counters.crashes, 1, "noticed without any worker");
    assert!(matches!(run.state, State::Waiting { .. }));
    assert_eq!(stage.begin_run(ONE_RETRY).await.attempt, 2);
}

/// How long what has ended is remembered.
async fn retention<S: Store + Clone>(stage: &Stage<S>) -> Duration {
    stage.subject.load(StepKey::of_run("n", "r")).await.configuration.namespace.settings.retention
}

async fn steps_are_remembered_as_long_as_their_run<S: Store + Clone>(mut stage: Stage<S>) {
    let run = stage.begin_run(ONE_RETRY).await;
    stage.succeed("a", 1).await;
    stage.succeed("other", 0).await;
    let retention = retention(&stage).await;
    let started = stage.subject.store.now().at;
    while stage.subject.store.now().at - started <= 3 * retention {
        stage.beat("", run.fence).await;
        stage.pass(retention.min(30 * SECOND)).await;
    }
    assert!(stage.record("other").await.is_none(), "it was no part of the run");
    assert!(stage.record("a").await.is_some());
    assert_eq!(stage.steps(|_| true).await, ["a"]);
    stage.report_run(None).await;
    stage.pass(2 * retention + SECOND).await;
    assert!(stage.record("a").await.is_none());
    assert!(stage.steps(|_| true).await.is_empty());
}

async fn a_run_that_nobody_wanted_tried_again_is_not<S: Store + Clone>(mut stage: Stage<S>) {
    granted(stage.ask_run(None, None).await);
    let settled = stage.report_run(Some(failure())).await.settled;
    assert_eq!((settled.verdict, settled.reason), (Verdict::Stop, Reason::RetriesSpent));
}

async fn failures_of_steps_are_left_to_their_own_retries<S: Store + Clone>(mut stage: Stage<S>) {
    let policy = "{max_retries: 5, run: {ignore_step_failures: true}}";
    stage.begin_run(policy).await;
    let decision = stage.report_run(Some(failure())).await;
    assert!(matches!(decision.settled.verdict, Verdict::Retry(_)), "its own failure");
    stage.begin_run(policy).await;
    let settled = stage.report_run(of_step()).await.settled;
    assert_eq!((settled.verdict, settled.reason), (Verdict::Stop, Reason::StepFailed));
}

async fn the_deadline_of_a_run_bounds_its_steps<S: Store + Clone>(mut stage: Stage<S>) {
    stage.policy("runs", ONE_RETRY).await;
    let deadline = Some(Deadline::After(5 * SECOND));
    let run = granted(stage.ask_run(Some("runs"), deadline).await);
    let grant = stage.begin("a", 1).await;
    assert_eq!(grant.ends_by, run.ends_by);
    stage.pass(5 * SECOND).await;
    let settled = stage.report("a", Some(failure())).await.settled;
    assert_eq!((settled.verdict, settled.reason), (Verdict::Stop, Reason::Deadline));
}

async fn the_same_begin_is_answered_as_before<S: Store + Clone>(mut stage: Stage<S>) {
    stage.begin_run(ONE_RETRY).await;
    let begin = stage.begins(StepTerms { of_run: 1, ..StepTerms::default() });
    let first = stage.apply(key("n", "r", "a"), Some("steps"), begin.clone()).await.unwrap();
    stage.report_run(None).await;
    let again = stage.apply(key("n", "r", "a"), Some("steps"), begin).await.unwrap();
    let (first, again) = (granted(first.answer), granted(again.answer));
    assert_eq!((again.attempt, again.fence, again.replayed), (1, first.fence, true));
}

/// Whatever has begun the counters anew, before the attempt or while it runs.
async fn a_repeated_begin_tells_what_was_counted_then<S: Store + Clone>(mut stage: Stage<S>) {
    stage.begin_run(ONE_RETRY).await;
    stage.give_up("by the run", 1).await;
    stage.fail("by order", 1).await;
    stage.report_run(of_step()).await;
    stage.pass(SECOND).await;
    stage.begin_run(ONE_RETRY).await;
    for (step, of_run) in [("by the run", 2), ("by order", 0)] {
        let begin = stage.begins(StepTerms { of_run, ..StepTerms::default() });
        let first = stage.apply(key("n", "r", step), Some("steps"), begin.clone()).await.unwrap();
        if step == "by order" {
            stage.order(step, What::Reset).await;
        }
        let first = granted(first.answer);
        for _ in 0..2 {
            let again = stage.apply(key("n", "r", step), Some("steps"), begin.clone()).await;
            let again = granted(again.unwrap().answer);
            assert_eq!((again.replayed, again.counters), (true, first.counters.clone()), "{step}");
            stage.report(step, Some(failure())).await;
        }
    }
}

async fn the_time_of_a_paused_run_stands_still_for_its_steps<S: Store + Clone>(
    mut stage: Stage<S>,
) {
    stage.begin_run(ONE_RETRY).await;
    stage.report_run(Some(failure())).await;
    stage.order("", What::Pause(None)).await;
    stage.pass(10 * SECOND).await;
    let run = stage.service.step(&StepKey::of_run("n", "r")).await.unwrap();
    assert_eq!(stage.begin("a", 1).await.ends_by, run.ends_by);
}

async fn a_pause_that_is_over_is_no_time_of_the_next_attempt_of_the_run<S: Store + Clone>(
    mut stage: Stage<S>,
) {
    stage.policy("steps", "{max_retries: 1, max_elapsed: 100s}").await;
    stage.begin_run(ONE_RETRY).await;
    stage.fail("a", 1).await;
    stage.order("a", What::Pause(Some(Deadline::After(5 * SECOND)))).await;
    stage.report_run(Some(failure())).await;
    stage.pass(6 * SECOND).await;
    stage.begin_run(ONE_RETRY).await;
    let grant = stage.begin("a", 2).await;
    assert_eq!(grant.ends_by, Some(grant.began_at.plus(100 * SECOND)));
}

async fn a_step_that_starts_again_is_left_to_another_host<S: Store + Clone>(mut stage: Stage<S>) {
    stage.policy("steps", "{max_retries: 0, host_anti_affinity: {mode: hard}}").await;
    stage.begin_run(ONE_RETRY).await;
    granted(stage.ask_on("h", "a", 1).await);
    stage.report("a", Some(failure())).await;
    stage.report_run(of_step()).await;
    stage.begin_run(ONE_RETRY).await;
    let (verdict, reason) = refused(stage.ask_on("h", "a", 2).await);
    assert_eq!((verdict, reason), (Verdict::Wait(None), Reason::ExcludedHost));
    granted(stage.ask_on("i", "a", 2).await);
}

async fn nothing_comes_before_the_end_of_the_run<S: Store + Clone>(mut stage: Stage<S>) {
    let policy = "{max_retries: 1, max_elapsed: 5s, on_exhaustion: {hold: {}}, host_anti_affinity: {mode: hard}}";
    stage.policy("steps", policy).await;
    stage.begin_run(ONE_RETRY).await;
    for step in ["paused", "past its time", "elsewhere"] {
        granted(stage.ask_on("h", step, 1).await);
        stage.report(step, Some(failure())).await;
    }
    stage.order("paused", What::Pause(None)).await;
    stage.report_run(None).await;
    for (step, host) in [("elsewhere", "h"), ("paused", "i"), ("past its time", "i")] {
        let told = refused(stage.ask_on(host, step, 1).await);
        assert_eq!(told, (Verdict::Stop, Reason::RunOver), "{step}");
        assert!(stage.record(step).await.unwrap().is_over(), "{step}");
        stage.pass(3 * SECOND).await;
    }
}

stories_on_every_store!(
    a_run_of_ten_steps_goes_on_at_the_seventh,
    a_run_that_begins_anew_runs_every_step_again,
    counters_that_are_carried_leave_a_spent_step_one_more_try,
    the_steps_of_a_run_share_one_bound_over_its_attempts,
    a_worker_of_an_earlier_attempt_is_told,
    a_run_that_is_over_ends_its_steps,
    a_bound_on_retries_leaves_what_targets_say_to_them,
    the_policy_of_a_run_bounds_its_own_retries_and_not_its_steps,
    spent_retries_of_a_run_leave_rules_their_say,
    who_works_on_a_cancelled_run_is_told,
    who_waits_for_a_step_of_a_finished_run_is_told,
    a_step_is_shown_to_end_with_its_run,
    a_name_that_is_used_again_has_all_its_retries,
    a_held_step_starts_again_with_its_run,
    steps_that_are_only_reported_belong_to_their_run,
    a_step_that_starts_again_waits_for_its_paused_target,
    a_run_whose_worker_vanished_is_tried_again,
    steps_are_remembered_as_long_as_their_run,
    a_run_that_nobody_wanted_tried_again_is_not,
    failures_of_steps_are_left_to_their_own_retries,
    the_deadline_of_a_run_bounds_its_steps,
    the_same_begin_is_answered_as_before,
    a_repeated_begin_tells_what_was_counted_then,
    the_time_of_a_paused_run_stands_still_for_its_steps,
    a_pause_that_is_over_is_no_time_of_the_next_attempt_of_the_run,
    a_step_that_starts_again_is_left_to_another_host,
    nothing_comes_before_the_end_of_the_run,
);
