//! Reprise: the production rule over the production limits, composed as the
//! embedded store composes them.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc, time::Duration};

use super::{Ask, Next, Start, Strategy};
use crate::{
    domain::{
        decision::{Reason, Verdict},
        draw::Salt,
        event::{AttemptName, Begin, Comes, Event, Report, StepTerms},
        failure::{Failure, Pushback},
        id::{Id, StepKey},
        limit::{
            Book, Bound, Episodes, Target,
            book::charges,
            pause::Stood,
            spec::{BreakerSpec, BudgetSpec, RateSpec, TargetSpec},
        },
        namespace::{LEASE_MAX, Settings},
        plan::{self, Answer, Now, Plan, Terms},
        policy::{
            Policy,
            spec::{
                AntiAffinityMode, AntiAffinitySpec, BackoffSpec, ExponentialSpec, JitterSpec,
                PolicySpec,
            },
        },
        record::{Identity, PolicyChoice, Record, State},
        time::{Span, Timestamp},
    },
    simulation::{START, chance::Chance, scenario::Scenario, target::Failing},
};

/// Name of the target.
const TARGET: &str = "target";
/// How often the sweep looks for steps that are parked and may go on.
const SWEPT: Duration = Duration::from_millis(250);
/// Steps that it calls at a look, at most.
const CALLED: usize = 64;
/// How long a worker that was told no instant waits before it asks again.
const ASKED_AGAIN: Duration = Duration::from_secs(1);

/// A namespace with one target, and the records of its steps.
pub struct Coordinated {
    policy: Policy,
    settings: Settings,
    salt: Salt,
    bounds: Vec<Bound>,
    book: Book,
    /// What a worker says about its step.
    said: StepTerms,
    /// By number of the step. A step that is over is not remembered.
    records: Vec<Option<Record>>,
    /// The next look of the sweep.
    sweeps_at: Timestamp,
    /// Steps that it has called, by when they may start.
    called: BinaryHeap<Reverse<(Timestamp, u32)>>,
}

impl Coordinated {
    /// The service as it is before anybody asked.
    ///
    /// # Panics
    /// When a scenario's numbers are none of a policy or a target. Those of the
    /// presets are, with whatever the command line changes; a test proves it.
    #[must_use]
    pub fn new(scenario: &Scenario, breaker: Option<BreakerSpec>, chance: Chance) -> Self {
        let policy = Policy::parse(&policy(scenario)).expect("a scenario has a policy's numbers");
        let target =
            Target::parse(&target(scenario, breaker)).expect("a scenario has a target's numbers");
        let name: Id = TARGET.parse().expect("it is an id");
        let said = StepTerms { targets: vec![name], ..StepTerms::default() };
        let bound = Bound {
            state: TARGET.into(),
            target: Arc::new(target),
            revision: 1,
            is_passing: false,
            pause: None,
            stood: Stood::default(),
            forced: None,
            freed: None,
            episodes: Episodes::default(),
        };
        Self {
            policy,
            settings: Settings::default(),
            salt: chance.salt(),
            bounds: vec![bound],
            book: Book::default(),
            said,
            records: Vec::new(),
            sweeps_at: START,
            called: BinaryHeap::new(),
        }
    }

    /// Decides one event, and keeps what follows. None where it was refused,
    /// which no event of a simulation is.
    fn decide(&mut self, step: u32, event: &Event, at: Timestamp) -> Option<Answer> {
        let now = Now::at(at);
        self.book.tell_episodes(&mut self.bounds);
        let number = step.to_string();
        let key = StepKey { namespace: "storm", run: "storm", step: &number };
        let terms = Terms {
            policy: &self.policy,
            revision: 1,
            choice: &PolicyChoice::Default,
            settings: &self.settings,
            salt: self.salt,
            bounds: &self.bounds,
            run: None,
        };
        let place = step as usize;
        if self.records.len() <= place {
            self.records.resize_with(place + 1, || None);
        }
        let known = self.records[place].clone();
        let draft = match plan::plan(&terms, &key, known, event, now).ok()? {
            Plan::Stands(answer) => return Some(answer),
            Plan::Purge => return None,
            Plan::Write(draft) => draft,
        };
        let admitted = match draft.asks() {
            None => draft.admitted(),
            Some(asks) => {
                let admitted = self.book.admit(asks, now);
                for charge in charges(asks, &admitted, at) {
                    self.book.charge(&asks.member, &charge, at);
                }
                admitted
            }
        };
        let settlement = plan::settle(*draft, &admitted);
        let record = settlement.record;
        self.records[place] = (!record.is_over()).then_some(record);
        Some(settlement.answer)
    }

    /// What the sweep does: whoever is parked and may go on is planned again.
    fn sweep(&mut self, now: Timestamp) {
        self.sweeps_at = now.plus(SWEPT);
        for member in self.book.called(now, CALLED, |_| None) {
            let Some(step) = member.rsplit(' ').next().and_then(|name| name.parse().ok()) else {
                continue;
            };
            self.decide(step, &Event::Tick, now);
            let record = self.records.get(step as usize).and_then(Option::as_ref);
            if let Some(State::Waiting { due }) = record.map(|record| &record.state)
                && (*due <= now || !self.is_parked(step))
            {
                self.called.push(Reverse((*due, step)));
            }
        }
    }

    /// Whether a step waits for its target to be back: its worker is told.
    fn is_parked(&self, step: u32) -> bool {
        let record = self.records.get(step as usize).and_then(Option::as_ref);
        let decided = record.and_then(Record::decision);
        decided.is_some_and(|settled| settled.reason == Reason::BreakerOpen)
    }

    fn report(&mut self, ask: &Ask, failure: Option<Failure>) -> Option<Answer> {
        let fence = self.records.get(ask.step as usize)?.as_ref()?.fence;
        let report = Report {
            attempt: AttemptName::Fence(fence),
            payload: 0,
            failure,
            step: StepTerms::default(),
        };
        self.decide(ask.step, &Event::Report(report), ask.now)
    }
}

impl Strategy for Coordinated {
    fn start(&mut self, ask: &Ask) -> Start {
        let begin = Begin {
            identity: Identity { id: u64::from(ask.attempt), payload: 0 },
            lease: Some(LEASE_MAX),
            host: Some(ask.host.to_string().into()),
            worker: String::new(),
            comes: Comes::ByItself,
            step: self.said.clone(),
        };
        match self.decide(ask.step, &Event::Begin(begin), ask.now) {
            Some(Answer::Granted(_)) => Start::Now,
            Some(Answer::Refused(refused)) => match refused.settled.verdict {
                Verdict::Wait(None) if refused.settled.reason == Reason::ExcludedHost => {
                    Start::OtherHost
                }
                Verdict::Wait(until) | Verdict::Hold(until) => {
                    if self.is_parked(ask.step) {
                        return Start::Parked;
                    }
                    Start::At(until.unwrap_or(ask.now.plus(ASKED_AGAIN)))
                }
                Verdict::Retry(at) => Start::At(at),
                Verdict::Stop | Verdict::Done => Start::Lost,
            },
            _ => Start::Lost,
        }
    }

    fn succeeded(&mut self, ask: &Ask) {
        self.report(ask, None);
    }

    fn failed(&mut self, ask: &Ask, failing: Failing) -> Next {
        let pushback = failing.retry_after.map(Pushback::After);
        let failure = Failure { pushback, ..Failure::of(failing.class) };
        let Some(Answer::Reported(reported)) = self.report(ask, Some(failure)) else {
            return Next::Lost;
        };
        match reported.decision.settled.verdict {
            Verdict::Retry(at) => Next::At(at),
            Verdict::Wait(_) if reported.decision.settled.reason == Reason::BreakerOpen => {
                Next::Parked
            }
            Verdict::Wait(until) | Verdict::Hold(until) => {
                Next::At(until.unwrap_or(ask.now.plus(ASKED_AGAIN)))
            }
            Verdict::Stop | Verdict::Done => Next::Lost,
        }
    }

    fn next_release(&self) -> Option<Timestamp> {
        let called = self.called.peek().map(|Reverse((at, _))| *at);
        let sweep = self.book.has_parked().then_some(self.sweeps_at);
        called.into_iter().chain(sweep).min()
    }

    fn release(&mut self, now: Timestamp) -> Option<u32> {
        if self.book.has_parked() && self.sweeps_at <= now {
            self.sweep(now);
        }
        let Reverse((at, step)) = *self.called.peek()?;
        if now < at {
            return None;
        }
        self.called.pop();
        Some(step)
    }
}

/// The waits of full jitter, so that what differs is the coordination.
fn policy(scenario: &Scenario) -> PolicySpec {
    let seconds = |seconds| Span(Duration::from_secs(seconds));
    let exponential = ExponentialSpec { delay: seconds(1), factor: Some(2.0), max_doublings: None };
    let backoff = BackoffSpec {
        exponential: Some(exponential),
        max_delay: Some(seconds(20)),
        jitter: Some(JitterSpec::Full),
        ..BackoffSpec::default()
    };
    // Where a host is broken, a step that failed on it goes elsewhere.
    let affinity = AntiAffinitySpec { mode: AntiAffinityMode::Hard, decay: None };
    PolicySpec {
        max_retries: Some(scenario.max_retries),
        max_elapsed: Some(Span(scenario.max_elapsed)),
        backoff: Some(backoff),
        host_anti_affinity: scenario.profile.bad_node.map(|_| affinity),
        ..PolicySpec::default()
    }
}

/// A rate at the target's capacity, and the scenario's budget.
fn target(scenario: &Scenario, breaker: Option<BreakerSpec>) -> TargetSpec {
    let rate = RateSpec { limit: scenario.capacity.get(), ..RateSpec::default() };
    let budget = scenario.budget.map(|budget| BudgetSpec {
        ratio: Some(budget.ratio),
        floor: Some(budget.floor),
        window: Some(Span(budget.window)),
        ..BudgetSpec::default()
    });
    TargetSpec { rate: Some(rate), budget, breaker, ..TargetSpec::default() }
}
