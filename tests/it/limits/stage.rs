//! A service on a store under test, its time moved by hand, and the calls of
//! workers and operators in a line each.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use reprise::{
    clock::Clock,
    domain::{
        decision::{Constraint, ConstraintKind, Decision, Reason, Verdict},
        event::{AttemptName, Begin, Comes, Deadline, Event, Heartbeat, Report, StepTerms},
        failure::{Failure, FailureClass, Pushback},
        id::{Id, StepKey},
        labels::Labels,
        limit::{ForcedState, spec::TargetSpec, usage::Usage},
        namespace::Settings,
        order::{Order, What},
        plan::{Answer, Explanation, Grant, Ordered, Refusal, ReportStatus, Reported},
        record::{Identity, Record, State},
        time::Timestamp,
    },
    service::{
        Awaited, Claim, ForceOrder, PauseEnd, PauseOrder, Service, ServiceError, TargetWrite,
    },
    store::{ConfigurationChange, Store},
    telemetry::Telemetry,
};
use tempfile::TempDir;

use crate::{
    redis_servers::Standalone,
    store_contract::subject::{self, Subject as Place, id},
};

/// Sweeps come about this often while time passes, as they do in life.
const SWEEP_EVERY: Duration = Duration::from_millis(250);
/// Steps swept at a look; more than any story has.
const SWEPT: usize = 1000;
/// The lease of an attempt that asks for none.
pub const LEASE: Duration = Duration::from_secs(10);
/// How long a step that is over is remembered.
const RETENTION: Duration = secs(3600);
/// The wait before each retry, without jitter.
pub const BACKOFF: Duration = Duration::from_secs(1);
/// The run of steps that are named without one.
const RUN: &str = "run";

/// A service, and what has to outlive it.
pub struct Stage<S> {
    pub service: Arc<Service<S>>,
    pub clock: Clock,
    pub dir: Option<TempDir>,
    server: Option<Standalone>,
    namespace: String,
    calls: u64,
}

/// What became of a begin.
#[derive(Clone, Debug)]
pub enum Begun {
    Granted(Box<Grant>),
    Refused(Box<Decision>),
}

/// A start that a worker asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// `step`, or `run/step`.
    pub step: &'a str,
    pub host: &'a str,
    /// The queue from which it may be claimed; empty is none.
    pub queue: &'a str,
    pub targets: &'a [&'a str],
    pub lease: Option<Duration>,
    pub deadline: Option<Timestamp>,
    /// How long the caller goes on, where it says no instant.
    pub time_left: Option<Duration>,
    pub comes: Comes,
}

impl Begun {
    #[track_caller]
    pub fn granted(self) -> Grant {
        match self {
            Self::Granted(grant) => *grant,
            Self::Refused(decision) => panic!("it was refused: {decision:?}"),
        }
    }

    #[track_caller]
    pub fn refused(self) -> Decision {
        match self {
            Self::Refused(decision) => *decision,
            Self::Granted(grant) => panic!("it was granted: {grant:?}"),
        }
    }

    /// The instant of a WAIT with this reason.
    #[track_caller]
    pub fn waits(self, reason: Reason) -> Timestamp {
        waits(&self.refused(), reason)
    }

    /// Asserts a STOP with this reason.
    #[track_caller]
    pub fn stops(self, reason: Reason) {
        let decision = self.refused();
        assert_eq!(
            (decision.settled.verdict, decision.settled.reason),
            (Verdict::Stop, reason),
            "{decision:?}"
        );
    }
}

/// The instant of a WAIT with this reason.
#[track_caller]
pub fn waits(decision: &Decision, reason: Reason) -> Timestamp {
    match decision.settled.verdict {
        Verdict::Wait(Some(at)) if decision.settled.reason == reason => at,
        _ => panic!("no WAIT {reason:?}: {decision:?}"),
    }
}

/// The instant of a RETRY.
#[track_caller]
pub fn retries(decision: &Decision) -> Timestamp {
    match decision.settled.verdict {
        Verdict::Retry(at) => at,
        _ => panic!("no RETRY: {decision:?}"),
    }
}

/// The one constraint of a kind.
#[track_caller]
pub fn constraint(decision: &Decision, kind: ConstraintKind) -> &Constraint {
    let mut found = decision.constraints.iter().filter(|constraint| constraint.kind == kind);
    match (found.next(), found.next()) {
        (Some(constraint), None) => constraint,
        _ => panic!("not one {kind:?}: {:?}", decision.constraints),
    }
}

/// A failure of a class.
pub fn of(class: FailureClass) -> Failure {
    Failure::of(class)
}

/// One by which a target asks everybody to stay away for a while.
pub fn pushed_back(target: &str, after: Duration) -> Failure {
    Failure {
        target: target.to_owned(),
        pushback: Some(Pushback::After(after)),
        ..Failure::of(FailureClass::Throttled)
    }
}

pub const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn begun(answer: Answer) -> Begun {
    match answer {
        Answer::Granted(grant) => Begun::Granted(grant),
        Answer::Refused(decision) => Begun::Refused(decision),
        other => panic!("no answer to a begin: {other:?}"),
    }
}

fn parts(step: &str) -> (&str, &str) {
    step.split_once('/').unwrap_or((RUN, step))
}

impl<S: Store> Stage<S> {
    /// With a namespace whose policy retries for ever, a second after each failure.
    pub async fn on(place: Place<S>) -> Self {
        let Place { store, clock, dir, server } = place;
        let service = Service::new(store, Arc::new(Telemetry::new()), clock.clone());
        let service = Arc::new(service);
        let mut stage = Self { service, clock, dir, server, namespace: String::new(), calls: 0 };
        stage.enter("limits", "backoff: {fixed: {delay: 1s}}\nmax_crash_retries: 50").await;
        stage
    }

    /// Goes on in a namespace of its own, with this policy.
    pub async fn enter(&mut self, name: &str, policy: &str) {
        let settings = Settings {
            default_policy: Some(id("p")),
            lease: LEASE,
            retention: RETENTION,
            ..subject::settings()
        };
        let entry = reprise::store::configuration::NamespaceEntry::new(settings, self.now());
        self.namespace = name.to_owned();
        self.configure(0, ConfigurationChange::Namespace(entry)).await;
        let change = ConfigurationChange::Policy(id("p"), subject::policy(policy));
        self.configure(1, change).await;
    }

    /// Forgets the namespace, all of whose steps are over.
    pub async fn leave(&self) {
        self.clock.advance(RETENTION);
        while self.service.sweep(SWEPT).await.unwrap() > 0 {}
        let revision = self.service.store().configuration(&self.namespace).await.unwrap().revision;
        self.configure(revision, ConfigurationChange::DeleteNamespace).await;
    }

    async fn configure(&self, revision: u64, change: ConfigurationChange) {
        self.service.store().configure(&self.named(), revision, change).await.unwrap();
    }

    /// What every step without targets of its own, or with unknown ones, gets.
    pub async fn default_target(&self, name: &str) {
        let configuration = self.service.store().configuration(&self.namespace).await.unwrap();
        let mut entry = configuration.namespace.clone();
        entry.settings.default_target = Some(id(name));
        self.configure(configuration.revision, ConfigurationChange::Namespace(entry)).await;
    }

    /// Everything but the service, which is gone.
    pub fn taken_apart(self) -> (Clock, Option<TempDir>, String) {
        let Self { service, clock, dir, server, namespace, .. } = self;
        drop((service, server));
        (clock, dir, namespace)
    }

    /// A service on a store that has the namespace already.
    pub fn again(place: Place<S>, namespace: String, calls: u64) -> Self {
        let Place { store, clock, dir, server } = place;
        let service = Service::new(store, Arc::new(Telemetry::new()), clock.clone());
        Self { service: Arc::new(service), clock, dir, server, namespace, calls }
    }

    pub const fn calls(&self) -> u64 {
        self.calls
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn named(&self) -> Id {
        id(&self.namespace)
    }

    /// Lets time pass, and sweeps meanwhile.
    pub async fn pass(&self, span: Duration) {
        self.reach(self.now().plus(span)).await;
    }

    /// The same, until an instant.
    pub async fn reach(&self, at: Timestamp) {
        assert!(at >= self.now(), "time does not run backwards");
        while self.now() < at {
            self.clock.advance(SWEEP_EVERY.min(at - self.now()));
            self.service.sweep(SWEPT).await.unwrap();
            self.service.wake_heads().await.unwrap();
        }
    }

    /// Writes a target, as people write it. Returns its revision.
    pub async fn target(&self, name: &str, yaml: &str) -> u64 {
        let spec: TargetSpec = serde_saphyr::from_str(yaml).unwrap();
        let write = TargetWrite { may_exist: true, may_be_missing: true, ..TargetWrite::default() };
        let written =
            self.service.write_target(&self.named(), &id(name), &write, |_| spec.clone()).await;
        written.unwrap().revision
    }

    pub async fn delete_target(&self, name: &str) {
        self.service.delete_target(&self.named(), &id(name), "").await.unwrap();
    }

    pub async fn pause(&self, name: &str, span: Option<Duration>) {
        let order = PauseOrder {
            reason: "it is being moved".to_owned(),
            by: "ann".to_owned(),
            end: span.map(PauseEnd::After),
        };
        self.service.pause_target(&self.named(), &id(name), &order).await.unwrap();
    }

    /// Forces a breaker for a while.
    pub async fn force(&self, name: &str, state: ForcedState, span: Duration) {
        let order = ForceOrder {
            state,
            reason: "it lies".to_owned(),
            by: "ann".to_owned(),
            end: PauseEnd::After(span),
        };
        self.service.force_breaker(&self.named(), &id(name), &order).await.unwrap();
    }

    pub async fn release(&self, name: &str) {
        self.service.release_breaker(&self.named(), &id(name)).await.unwrap();
    }

    /// Ends a cooldown. Returns what is used then.
    pub async fn lift(&self, name: &str) -> Usage {
        self.service.lift_cooldown(&self.named(), &id(name), "").await.unwrap()
    }

    pub async fn resume(&self, name: &str) {
        self.service.resume_target(&self.named(), &id(name)).await.unwrap();
    }

    async fn apply(&self, step: &str, event: &Event) -> Answer {
        let (run, step) = parts(step);
        let key = StepKey { namespace: &self.namespace, run, step };
        let answer = self.service.apply(&key, None, event).await.unwrap().answer;
        self.service.wake_heads().await.unwrap();
        answer
    }

    pub async fn ask(&mut self, asked: Asked<'_>) -> Begun {
        let event = self.asking(asked);
        begun(self.apply(asked.step, &event).await)
    }

    /// Steps that begin at the same moment.
    pub async fn begin_together(&mut self, steps: &[String], targets: &[&str]) -> Vec<Begun> {
        let asked = |step| Asked { step, targets, ..Asked::default() };
        let events: Vec<Event> = steps.iter().map(|step| self.asking(asked(step))).collect();
        let calls = steps.iter().zip(&events).map(|(step, event)| self.apply(step, event));
        join_all(calls).await.into_iter().map(begun).collect()
    }

    fn asking(&mut self, asked: Asked<'_>) -> Event {
        self.calls += 1;
        Event::Begin(Begin {
            identity: Identity { id: self.calls, payload: self.calls },
            lease: asked.lease,
            host: (!asked.host.is_empty()).then(|| asked.host.into()),
            worker: String::new(),
            comes: asked.comes,
            step: StepTerms {
                targets: asked.targets.iter().map(|target| id(target)).collect(),
                queue: (!asked.queue.is_empty()).then(|| id(asked.queue)),
                deadline: asked.deadline.map(Deadline::At).or(asked.time_left.map(Deadline::After)),
                ..StepTerms::default()
            },
        })
    }

    pub async fn begin(&mut self, step: &str, targets: &[&str]) -> Begun {
        self.ask(Asked { step, targets, ..Asked::default() }).await
    }

    /// Asks for a start that is refused, by a worker that waits to be woken.
    pub async fn stand_in_line(&mut self, step: &str, targets: &[&str]) -> Timestamp {
        let asked = Asked { step, targets, comes: Comes::WhenWoken, ..Asked::default() };
        self.ask(asked).await.waits(Reason::InLine)
    }

    /// The same on a host.
    pub async fn begin_on(&mut self, host: &str, step: &str, targets: &[&str]) -> Begun {
        self.ask(Asked { step, host, targets, ..Asked::default() }).await
    }

    /// The steps of a queue that a worker on a host claims, in order.
    pub async fn claim(&mut self, queue: &str, host: &str) -> Vec<String> {
        self.calls += 1;
        let claim = Claim {
            namespace: self.namespace.clone(),
            queue: id(queue),
            request_id: self.calls.to_le_bytes().to_vec(),
            most: 64,
            lease: None,
            host: Some(host.into()),
            worker: String::new(),
            labels: Labels::default(),
        };
        let claimed = self.service.claim(&claim, tokio::time::Instant::now()).await.unwrap();
        let mut steps: Vec<String> =
            claimed.into_iter().map(|claimed| claimed.name.step.to_string()).collect();
        steps.sort();
        steps
    }

    /// The end of the lease that a heartbeat extends; None when it is lost.
    pub async fn beat(&self, step: &str, fence: u64) -> Option<Timestamp> {
        match self
            .apply(step, &Event::Heartbeat(Heartbeat { fence, lease: None, progress: None }))
            .await
        {
            Answer::Held { lease_until, .. } => Some(lease_until),
            _ => None,
        }
    }

    /// Tells how far an attempt is. Whether it should stop; None when its lease is lost.
    pub async fn get_on(&self, step: &str, fence: u64, progress: u64) -> Option<bool> {
        let beat = Heartbeat { fence, lease: None, progress: Some(progress) };
        match self.apply(step, &Event::Heartbeat(beat)).await {
            Answer::Held { cancel, .. } => Some(cancel),
            _ => None,
        }
    }

    /// Orders something about a step.
    pub async fn order(&mut self, step: &str, what: What) -> Result<Ordered, Refusal> {
        self.calls += 1;
        self.order_as(step, what, Identity { id: self.calls, payload: 1 }).await
    }

    /// The same under an identity.
    pub async fn order_as(
        &self,
        step: &str,
        what: What,
        identity: Identity,
    ) -> Result<Ordered, Refusal> {
        let order = Order { identity, by: "ann".into(), reason: "it has to be".into(), what };
        let (run, step) = parts(step);
        let key = StepKey { namespace: &self.namespace, run, step };
        let handled = self.service.apply(&key, None, &Event::Order(order)).await;
        self.service.wake_heads().await.unwrap();
        match handled.map(|handled| handled.answer) {
            Ok(Answer::Ordered(ordered)) => Ok(*ordered),
            Err(ServiceError::Refused(refusal)) => Err(refusal),
            other => panic!("no answer to an order: {other:?}"),
        }
    }

    /// Waits for a step, as its worker does, at most so long.
    pub async fn wait_for(&self, step: &str, span: Duration) -> Awaited {
        let (run, step) = parts(step);
        let key = StepKey { namespace: &self.namespace, run, step };
        let until = tokio::time::Instant::now() + span;
        self.service.await_decision(&key, until).await.unwrap()
    }

    async fn report(&self, step: &str, attempt: AttemptName, failure: Option<Failure>) -> Reported {
        let event =
            Event::Report(Report { attempt, payload: 1, failure, step: StepTerms::default() });
        match self.apply(step, &event).await {
            Answer::Reported(reported) => *reported,
            other => panic!("no answer to a report: {other:?}"),
        }
    }

    /// The decision about a failure, and how it was taken.
    pub async fn fail(&self, step: &str, fence: u64, failure: Failure) -> (ReportStatus, Decision) {
        let reported = self.report(step, AttemptName::Fence(fence), Some(failure)).await;
        (reported.status, reported.decision)
    }

    /// The decision about a failure of an attempt that is running.
    pub async fn failed(&self, step: &str, fence: u64, failure: Failure) -> Decision {
        let (status, decision) = self.fail(step, fence, failure).await;
        assert_eq!(status, ReportStatus::Recorded, "{decision:?}");
        decision
    }

    /// The decision about a failure that nobody began.
    pub async fn fail_unbegun(
        &mut self,
        step: &str,
        targets: &[&str],
        failure: Failure,
    ) -> Decision {
        self.calls += 1;
        let report = Report {
            attempt: AttemptName::Request(self.calls),
            payload: 1,
            failure: Some(failure),
            step: StepTerms {
                targets: targets.iter().map(|target| id(target)).collect(),
                ..StepTerms::default()
            },
        };
        match self.apply(step, &Event::Report(report)).await {
            Answer::Reported(reported) => reported.decision,
            other => panic!("no answer to a report: {other:?}"),
        }
    }

    pub async fn succeed(&self, step: &str, fence: u64) -> ReportStatus {
        self.report(step, AttemptName::Fence(fence), None).await.status
    }

    /// Begins and fails a first attempt at once.
    pub async fn fail_first(&mut self, step: &str, targets: &[&str], failure: Failure) -> Decision {
        let grant = self.begin(step, targets).await.granted();
        self.failed(step, grant.fence, failure).await
    }

    /// What is used of a target.
    pub async fn usage(&self, target: &str) -> Usage {
        self.service.target_usage(&self.named(), &id(target), "").await.unwrap()
    }

    pub async fn record(&self, step: &str) -> Record {
        let (run, step) = parts(step);
        let key = StepKey { namespace: &self.namespace, run, step };
        self.service.step(&key).await.unwrap().record
    }

    /// Why a step waits, if it does.
    pub async fn why(&self, step: &str) -> Option<Explanation> {
        let (run, step) = parts(step);
        let key = StepKey { namespace: &self.namespace, run, step };
        self.service.explain(&key).await.unwrap().explanation
    }

    /// Why a step waits.
    pub async fn explained(&self, step: &str) -> Explanation {
        self.why(step).await.unwrap_or_else(|| panic!("{step} does not wait"))
    }

    /// Whether a step waits for a target that is out of order.
    pub async fn is_parked(&self, step: &str) -> bool {
        let record = self.record(step).await;
        record.decision().is_some_and(|settled| settled.reason == Reason::BreakerOpen)
    }

    /// When a step that waits is due.
    pub async fn due(&self, step: &str) -> Timestamp {
        match self.record(step).await.state {
            State::Waiting { due } => due,
            state => panic!("{step} does not wait: {state:?}"),
        }
    }

    /// Lets time pass until a step that waits is due, unless it is already.
    pub async fn until_due(&self, step: &str) {
        self.reach(self.due(step).await.max(self.now())).await;
    }
}

/// Each story on every store: a store joins with one line.
macro_rules! stories_on_every_store {
    ($($story:ident),* $(,)?) => {
        crate::limits::stage::stories_on_every_store!(@store memory $($story)*);
        crate::limits::stage::stories_on_every_store!(@store embedded $($story)*);
        crate::limits::stage::stories_on_every_store!(@store redis $($story)*);
    };
    (@store $store:ident $($story:ident)*) => {
        mod $store {
            $(
                #[tokio::test]
                async fn $story() {
                    let clock = crate::store_contract::subject::clock();
                    let place = crate::store_contract::subject::$store(clock).await;
                    super::$story(super::Stage::on(place).await).await;
                }
            )*
        }
    };
}
pub(crate) use stories_on_every_store;
