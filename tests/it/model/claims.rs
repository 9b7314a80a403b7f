//! Random histories of a queue, done to the service over every store: steps begun
//! with it, claimed by workers on either of two hosts and by one that names none,
//! heard of or not, back in the queue or over.
//!
//! Who may claim what is found here from the contract's words, in a few lists of
//! what happened. Nothing of the rule is used.

use std::{cell::RefCell, collections::BTreeMap, sync::Arc, time::Duration};

use proptest::{
    prelude::*,
    sample::select,
    test_runner::{TestCaseError, TestError, TestRunner},
};
use reprise::{
    domain::{
        event::{AttemptName, Begin, Comes, Event, Heartbeat, Report, StepTerms},
        failure::{Failure, FailureClass},
        id::{Id, StepKey},
        labels::Labels,
        plan::{Answer, Grant},
        record::{Identity, State},
        time::Timestamp,
    },
    service::{Claim, GivenPolicy, Service},
    store::{ConfigurationChange, Store},
    telemetry::Telemetry,
};
use tokio::{runtime::Runtime, time::Instant};

use super::agreement::cases;
use crate::store_contract::subject::{self, Subject, id, key, policy};

/// Steps of a history.
const STEPS: u8 = 4;
/// Calls of a history at most.
const ACTS_MAX: usize = 50;
/// Every lease and every backoff.
const SECOND: Duration = Duration::from_secs(1);
/// How often sweeps come.
const SWEEP_EVERY: Duration = Duration::from_millis(500);
const RETRIES_MAX: u32 = 3;
const CRASHES_MAX: u32 = 2;
/// Claims in a row of which nothing is heard, that return uncounted.
const UNHEARD_MAX: u32 = 3;
/// Attempts whose hosts are remembered.
const REMEMBERED: usize = 16;

/// Two policies: one that takes any host, and one that takes none on which the step
/// has failed.
const POLICIES: [&str; 2] = [
    "{backoff: {fixed: {delay: 1s}}, max_retries: 3, max_crash_retries: 2}",
    "{backoff: {fixed: {delay: 1s}}, max_retries: 3, max_crash_retries: 2, \
     host_anti_affinity: {mode: hard}}",
];

/// What is done.
#[derive(Clone, Debug)]
enum Act {
    /// A worker of its own begins a step of the queue.
    Begin { step: u8, host: &'static str },
    /// Somebody claims so many steps at most.
    Claim { host: &'static str, most: usize },
    /// The worker of a step is at it.
    Beat { step: u8 },
    /// The worker of a step ends its attempt.
    End { step: u8, succeeds: bool },
    /// Time passes, and sweeps come.
    Pass { span: Duration },
}

fn act() -> impl Strategy<Value = Act> {
    let host = || select(vec!["a", "b", ""]);
    let spans = [1, 300, 500, 999, 1000, 2000].map(Duration::from_millis).to_vec();
    prop_oneof![
        3 => (0..STEPS, host()).prop_map(|(step, host)| Act::Begin { step, host }),
        5 => (host(), 1..5_usize).prop_map(|(host, most)| Act::Claim { host, most }),
        2 => (0..STEPS).prop_map(|step| Act::Beat { step }),
        3 => (0..STEPS, prop::bool::weighted(0.15)).prop_map(|(step, succeeds)| Act::End { step, succeeds }),
        6 => select(spans).prop_map(|span| Act::Pass { span }),
    ]
}

/// A step, as the history has it.
#[derive(Debug)]
struct Known {
    place: Place,
    tries: Vec<Try>,
    retries: u32,
    crashes: u32,
    /// Claims in a row of which nothing was heard.
    unheard: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Waiting { due: Timestamp },
    Running { until: Timestamp, fence: u64, is_unheard: bool },
    Over,
}

#[derive(Debug)]
struct Try {
    host: &'static str,
    how: How,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Runs,
    Succeeded,
    Failed,
    Crashed,
}

impl Known {
    fn new(at: Timestamp) -> Self {
        let place = Place::Waiting { due: at };
        Self { place, tries: Vec::new(), retries: 0, crashes: 0, unheard: 0 }
    }

    /// Whether it may start there, by somebody on this host.
    fn may_start(&self, host: &str, at: Timestamp, is_strict: bool) -> bool {
        let failed_there = |attempt: &Try| {
            attempt.host == host && matches!(attempt.how, How::Failed | How::Crashed)
        };
        let is_excluded = is_strict
            && !host.is_empty()
            && self.tries.iter().rev().take(REMEMBERED).any(failed_there);
        matches!(self.place, Place::Waiting { due } if due <= at) && !is_excluded
    }

    fn start(&mut self, host: &'static str, grant: &Grant, is_claim: bool) {
        if self.tries.last().is_none_or(|last| last.how != How::Crashed) {
            self.unheard = 0;
        }
        self.tries.push(Try { host, how: How::Runs });
        let until = grant.began_at.plus(SECOND);
        self.place = Place::Running { until, fence: grant.fence, is_unheard: is_claim };
    }

    fn end(&mut self, how: How, at: Timestamp) {
        let was_unheard = matches!(self.place, Place::Running { is_unheard: true, .. });
        if let Some(last) = self.tries.last_mut() {
            last.how = how;
        }
        let (count, most) = match how {
            How::Crashed if was_unheard && self.unheard < UNHEARD_MAX => {
                self.unheard += 1;
                self.place = Place::Waiting { due: at };
                return;
            }
            How::Crashed => (&mut self.crashes, CRASHES_MAX),
            _ => (&mut self.retries, RETRIES_MAX),
        };
        let may_again = how != How::Succeeded && *count < most;
        *count += u32::from(may_again);
        self.place = if may_again { Place::Waiting { due: at.plus(SECOND) } } else { Place::Over };
    }
}

/// A service on a store, and what the history has done to it.
struct Stage<S> {
    service: Service<S>,
    subject: Subject<S>,
    calls: u64,
    history: u64,
    /// Which policy the history has.
    case: usize,
    steps: BTreeMap<u8, Known>,
}

impl<S: Store + Clone> Stage<S> {
    async fn on(subject: Subject<S>) -> Self {
        subject.create("n").await;
        for (at, yaml) in POLICIES.iter().enumerate() {
            let change = ConfigurationChange::Policy(policy_name(at), policy(yaml));
            subject.reconfigure("n", change).await.unwrap();
        }
        let telemetry = Arc::new(Telemetry::new());
        let service = Service::new(subject.store.clone(), telemetry, subject.clock.clone());
        Self { service, subject, calls: 0, history: 0, case: 0, steps: BTreeMap::new() }
    }

    /// Another history begins, in a run and a queue of its own.
    async fn does(&mut self, case: usize, acts: &[Act]) -> Result<(), TestCaseError> {
        (self.case, self.steps) = (case, BTreeMap::new());
        self.history += 1;
        for act in acts {
            self.calls += 1;
            match *act {
                Act::Begin { step, host } => self.begin(step, host).await?,
                Act::Claim { host, most } => self.claim(host, most).await?,
                Act::Beat { step } => self.beat(step).await,
                Act::End { step, succeeds } => self.end(step, succeeds).await,
                Act::Pass { span } => self.pass(span).await,
            }
            self.compare(act).await?;
        }
        Ok(())
    }

    async fn begin(&mut self, step: u8, host: &'static str) -> Result<(), TestCaseError> {
        let begin = Begin {
            identity: Identity { id: self.calls, payload: 1 },
            lease: Some(SECOND),
            host: (!host.is_empty()).then(|| host.into()),
            worker: String::new(),
            comes: Comes::ByItself,
            step: StepTerms {
                queue: Some(self.queue()),
                payload: [step].as_slice().into(),
                ..StepTerms::default()
            },
        };
        let answer = self.apply(step, &Event::Begin(begin)).await;
        let (now, is_strict) = (self.now(), self.is_strict());
        let mut known = self.steps.remove(&step).unwrap_or_else(|| Known::new(now));
        let expected = known.may_start(host, now, is_strict);
        if let Answer::Granted(grant) = &answer {
            known.start(host, grant, false);
        }
        self.steps.insert(step, known);
        prop_assert_eq!(matches!(answer, Answer::Granted(_)), expected, "{:?}", answer);
        Ok(())
    }

    async fn claim(&mut self, host: &'static str, most: usize) -> Result<(), TestCaseError> {
        let claim = Claim {
            namespace: "n".to_owned(),
            queue: self.queue(),
            request_id: self.calls.to_le_bytes().to_vec(),
            most,
            lease: Some(SECOND),
            host: (!host.is_empty()).then(|| host.into()),
            worker: "w".to_owned(),
            labels: Labels::default(),
        };
        let claimed = self.service.claim(&claim, Instant::now()).await.unwrap();
        let (now, is_strict) = (self.now(), self.is_strict());
        let fits = |known: &Known| known.may_start(host, now, is_strict);
        // A host that was forgotten may be left out for a while longer.
        let is_sure = |known: &Known| fits(known) && known.tries.len() < REMEMBERED;
        prop_assert!(claimed.len() <= most);
        prop_assert!(
            !claimed.is_empty() || !self.steps.values().any(is_sure),
            "nothing was claimed of {:#?}",
            self.steps
        );
        for claimed in claimed {
            let step = claimed.record.payload[0];
            let known = self.steps.get_mut(&step).unwrap();
            prop_assert!(fits(known), "{} was claimed of {:#?}", step, known);
            prop_assert_eq!(claimed.grant.attempt as usize, known.tries.len() + 1);
            known.start(host, &claimed.grant, true);
        }
        Ok(())
    }

    async fn beat(&mut self, step: u8) {
        let now = self.now();
        let Some(Known { place, unheard, .. }) = self.steps.get_mut(&step) else { return };
        let Place::Running { until, fence, is_unheard } = place else { return };
        (*until, *is_unheard, *unheard) = ((*until).max(now.plus(SECOND)), false, 0);
        let beat = Heartbeat { fence: *fence, lease: None, progress: None };
        self.apply(step, &Event::Heartbeat(beat)).await;
    }

    async fn end(&mut self, step: u8, succeeds: bool) {
        let now = self.now();
        let Some(known) = self.steps.get_mut(&step) else { return };
        let Place::Running { fence, .. } = known.place else { return };
        known.end(if succeeds { How::Succeeded } else { How::Failed }, now);
        let failure = (!succeeds).then(|| Failure::of(FailureClass::Failure));
        let attempt = AttemptName::Fence(fence);
        let report = Report { attempt, payload: 1, failure, step: StepTerms::default() };
        self.apply(step, &Event::Report(report)).await;
    }

    async fn pass(&mut self, mut span: Duration) {
        while !span.is_zero() {
            let some = span.min(SWEEP_EVERY);
            self.subject.clock.advance(some);
            while self.service.sweep(100).await.unwrap() > 0 {}
            let now = self.now();
            for known in self.steps.values_mut() {
                if matches!(known.place, Place::Running { until, .. } if until <= now) {
                    known.end(How::Crashed, now);
                }
            }
            span -= some;
        }
    }

    /// Every step stands where the history has it.
    async fn compare(&self, act: &Act) -> Result<(), TestCaseError> {
        for (step, known) in &self.steps {
            let (run, name) = (self.run(), step.to_string());
            let record = self.subject.record(key("n", &run, &name)).await.unwrap();
            let place = match record.state {
                State::Waiting { due } => Place::Waiting { due },
                State::Running { lease_until } => Place::Running {
                    until: lease_until,
                    fence: record.fence,
                    is_unheard: record.is_silent,
                },
                _ => Place::Over,
            };
            let told = || format!("step {step} after {act:?}");
            prop_assert_eq!(place, known.place, "{}", told());
            let counts = (record.counters.retries, record.counters.crashes, record.silent_claims);
            prop_assert_eq!(counts, (known.retries, known.crashes, known.unheard), "{}", told());
            prop_assert_eq!(record.counters.attempts as usize, known.tries.len(), "{}", told());
        }
        Ok(())
    }

    async fn apply(&self, step: u8, event: &Event) -> Answer {
        let (run, step) = (self.run(), step.to_string());
        let key: StepKey<'_> = key("n", &run, &step);
        let given = GivenPolicy::Named(policy_name(self.case));
        self.service.apply(&key, Some(&given), event).await.unwrap().answer
    }

    fn run(&self) -> String {
        format!("history-{}", self.history)
    }

    fn queue(&self) -> Id {
        id(&format!("queue-{}", self.history))
    }

    fn is_strict(&self) -> bool {
        self.case == 1
    }

    fn now(&self) -> Timestamp {
        self.subject.clock.now()
    }
}

fn policy_name(case: usize) -> Id {
    id(&format!("p{case}"))
}

/// Does so many random histories to a store.
fn agrees<S: Store + Clone>(histories: u32, make: impl AsyncFnOnce() -> Subject<S>) {
    let runtime: Runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stage = RefCell::new(runtime.block_on(async { Stage::on(make().await).await }));
    let config =
        ProptestConfig { cases: cases(histories), failure_persistence: None, ..Default::default() };
    let histories = (0..POLICIES.len(), prop::collection::vec(act(), 1..=ACTS_MAX));
    let agreed = TestRunner::new(config)
        .run(&histories, |(case, acts)| runtime.block_on(stage.borrow_mut().does(case, &acts)));
    match agreed {
        Ok(()) => {}
        Err(TestError::Fail(why, history)) => panic!("{why}\nin {history:#?}"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn claims_are_as_the_model_has_them_in_memory() {
    agrees(500, async || subject::memory(subject::clock()).await);
}

#[test]
fn claims_are_as_the_model_has_them_on_a_disk() {
    agrees(100, async || subject::embedded(subject::clock()).await);
}

#[test]
fn claims_are_as_the_model_has_them_on_redis() {
    agrees(40, async || subject::redis(subject::clock()).await);
}
