//! The rule as a [`Subject`]: records in a map, nothing else.

use std::{collections::BTreeMap, time::Duration};

use reprise::domain::{
    decision::Settled,
    draw::{Salt, digest},
    event::{self, AttemptName, Comes, Deadline, Event, StepTerms},
    failure::{self, Code, Executed, Failure, FailureClass, Wish},
    id::StepKey,
    namespace::Settings,
    order::{Extension, Order, What},
    plan::{self, Answer, Now, Plan, Refusal, ReportStatus, RunTerms, Terms},
    policy::{
        Policy,
        spec::{HoldAnswer, PolicySpec},
    },
    record::{Ending, Identity, Outcome, PolicyChoice, Record, State},
    time::Timestamp,
};

use crate::history::{
    Begin, Call, Counts, Failed, Granted, Name, Observed, Op, Problem, Pushback, RUN, Seen, Status,
    Subject, View, Wanted,
};

/// The policy of a YAML text.
pub fn policy(yaml: &str) -> Policy {
    let spec: PolicySpec =
        serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"));
    Policy::parse(&spec).unwrap_or_else(|violations| panic!("{yaml}: {violations}"))
}

/// Of a run that is begun without a policy, how it is chosen.
const NOT_RETRIED: PolicyChoice = PolicyChoice::Inline(0);

/// Steps that follow one policy, and their run, which follows another.
pub struct Rule {
    policy: Policy,
    of_run: Policy,
    not_retried: Policy,
    settings: Settings,
    salt: Salt,
    steps: BTreeMap<u8, Record>,
    now: Now,
}

impl Rule {
    pub fn new(policy: Policy, of_run: Policy, settings: Settings) -> Self {
        let not_retried = self::policy("{max_retries: 0, max_crash_retries: 0}");
        let now = Now::at(Timestamp::EPOCH);
        let (salt, steps) = (Salt(*b"a salt of a test"), BTreeMap::new());
        Self { policy, of_run, not_retried, settings, salt, steps, now }
    }

    /// How the policy of a step is chosen for an event.
    fn choice(&self, step: u8, event: &Event) -> PolicyChoice {
        let record = self.steps.get(&step);
        match (event, record) {
            (Event::Begin(_), _) => PolicyChoice::Default,
            (_, None) if step == RUN => NOT_RETRIED,
            (_, record) => record.map_or(PolicyChoice::Default, |record| record.policy.clone()),
        }
    }

    fn terms<'a>(&'a self, step: u8, choice: &'a PolicyChoice, run: Option<RunTerms>) -> Terms<'a> {
        let policy = match step {
            RUN if *choice == NOT_RETRIED => &self.not_retried,
            RUN => &self.of_run,
            _ => &self.policy,
        };
        let Self { settings, salt, .. } = self;
        Terms { policy, revision: 3, choice, settings, salt: *salt, bounds: &[], run }
    }

    /// What a step is told of its run, where it belongs to one.
    fn run_of(&self, step: u8, event: &Event) -> Option<RunTerms> {
        let said = if let Event::Begin(begin) = event { begin.step.of_run } else { 0 };
        let of_run = self.steps.get(&step).map_or(0, |record| record.of_run);
        if step == RUN || said.max(of_run) == 0 {
            return None;
        }
        let Some(run) = self.steps.get(&RUN) else {
            return (of_run > 0).then(|| RunTerms::forgotten(of_run));
        };
        let run = plan::counted(run.clone(), self.now);
        Some(RunTerms::of(&self.terms(RUN, &run.policy, None), &run))
    }

    /// Plans an event twice, since equal questions have equal answers, settles
    /// it and keeps the record.
    fn happens(&mut self, step: u8, event: &Event, at: u64) -> Result<Option<Answer>, Refusal> {
        let name = if step == RUN { String::new() } else { format!("step-{step}") };
        let key = StepKey { namespace: "default", run: "run", step: &name };
        let choice = self.choice(step, event);
        let terms = self.terms(step, &choice, self.run_of(step, event));
        let now = Now::at(Timestamp::from_micros(at));
        let known = self.steps.get(&step);
        let planned = plan::plan(&terms, &key, known.cloned(), event, now);
        assert_eq!(
            planned,
            plan::plan(&terms, &key, known.cloned(), event, now),
            "a plan depends on its arguments alone"
        );
        match planned? {
            Plan::Stands(answer) => Ok(Some(answer)),
            Plan::Purge => {
                self.steps.remove(&step);
                Ok(None)
            }
            Plan::Write(draft) => {
                let admitted = draft.admitted();
                let settled = plan::settle(*draft, &admitted);
                assert_eq!(settled.record.version, known.map_or(0, |record| record.version) + 1);
                self.steps.insert(step, settled.record);
                Ok(Some(settled.answer))
            }
        }
    }
}

impl Subject for Rule {
    fn apply(&mut self, op: &Op) -> Observed {
        let now = Now::at(Timestamp::from_micros(op.at));
        self.now = now;
        while self.steps.get(&op.step).is_some_and(|record| plan::is_overdue(record, now)) {
            self.happens(op.step, &Event::Tick, op.at).expect("a tick is never refused");
        }
        match self.happens(op.step, &event(&op.call), op.at) {
            Ok(Some(answer)) => observed(answer),
            Ok(None) => Observed::Forgotten,
            Err(Refusal::IdentityReused) => Observed::Failed(Problem::IdentityReused),
            Err(Refusal::UnknownStep) => Observed::Failed(Problem::UnknownStep),
            Err(Refusal::AttemptGap { next }) => Observed::Failed(Problem::AttemptGap(next)),
            Err(Refusal::UnknownRunAttempt { begun, .. }) => {
                Observed::Failed(Problem::RunAttempt(begun))
            }
            Err(refusal) => Observed::Failed(Problem::Order(refusal_name(&refusal))),
        }
    }

    fn look(&mut self, step: u8) -> Option<View> {
        let record = self.steps.get(&step).cloned();
        record.map(|record| view(&plan::counted(record, self.now)))
    }
}

pub fn event(call: &Call) -> Event {
    match call {
        Call::Begin { request, said } => Event::Begin(begin(*request, said)),
        Call::Heartbeat { fence, lease, progress } => Event::Heartbeat(event::Heartbeat {
            fence: *fence,
            lease: lease.map(Duration::from_micros),
            progress: *progress,
        }),
        Call::Report { name, failure } => Event::Report(event::Report {
            attempt: match *name {
                Name::Fence(fence) => AttemptName::Fence(fence),
                Name::Number(number) => AttemptName::Number(number),
                Name::Request(id) => AttemptName::Request(id),
            },
            payload: digest(format!("{:?}", failure.as_ref().map(Failed::said)).as_bytes()),
            failure: failure.as_ref().map(failure_of),
            step: StepTerms::default(),
        }),
        Call::Order { request, wanted } => Event::Order(order(*request, *wanted)),
        Call::Tick => Event::Tick,
    }
}

fn order(request: u64, wanted: Wanted) -> Order {
    let what = match wanted {
        Wanted::Retry => What::Retry,
        Wanted::Skip => What::Skip,
        Wanted::Succeed => What::Succeed,
        Wanted::Fail => What::Fail,
        Wanted::Cancel => What::Cancel,
        Wanted::Reset => What::Reset,
        Wanted::Extend(retries, left) => What::Extend(Extension { retries, deadline: after(left) }),
        Wanted::Pause(span) => What::Pause(after(span)),
        Wanted::Resume => What::Resume,
        Wanted::Resolve(answer) => {
            let mut answers = HoldAnswer::ALL.into_iter();
            What::Resolve(answers.find(|known| known.name() == answer).expect("an answer"))
        }
    };
    let payload = digest(format!("{wanted:?}").as_bytes());
    Order {
        identity: Identity { id: request, payload },
        by: "ann".into(),
        reason: "so".into(),
        what,
    }
}

/// So many microseconds from now.
fn after(span: Option<u64>) -> Option<Deadline> {
    span.map(|span| Deadline::After(Duration::from_micros(span)))
}

fn begin(request: u64, said: &Begin) -> event::Begin {
    event::Begin {
        identity: Identity {
            id: request,
            payload: digest(format!("{:?}", said.said()).as_bytes()),
        },
        lease: said.lease.map(Duration::from_micros),
        host: (!said.host.is_empty()).then(|| said.host.as_str().into()),
        worker: String::new(),
        comes: Comes::ByItself,
        step: StepTerms {
            kind: said.kind.clone(),
            deadline: after(said.time_left),
            of_run: said.of_run,
            ..StepTerms::default()
        },
    }
}

fn failure_of(failed: &Failed) -> Failure {
    let wishes = failed.wish_retries.is_some() || failed.wish_delay.is_some();
    Failure {
        code: failed.http.map(Code::Http),
        exit_code: failed.exit,
        host: failed.host.clone(),
        duration: failed.ran.map(Duration::from_micros),
        pushback: failed.pushback.map(|pushback| match pushback {
            Pushback::After(span) => failure::Pushback::After(Duration::from_micros(span)),
            Pushback::Never => failure::Pushback::Never,
        }),
        wish: wishes.then(|| Wish {
            max_retries: failed.wish_retries,
            delay: failed.wish_delay.map(Duration::from_micros),
        }),
        retryable: failed.retryable,
        action: failed.action.clone(),
        executed: if failed.unstarted { Executed::No } else { Executed::Maybe },
        of_step: failed.of_step,
        ..Failure::of(FailureClass::from_name(failed.class).expect("a class"))
    }
}

pub fn observed(answer: Answer) -> Observed {
    match answer {
        Answer::Granted(grant) => Observed::Granted(Granted {
            attempt: grant.attempt,
            fence: grant.fence,
            began_at: grant.began_at.as_micros(),
            lease_until: grant.lease_until.as_micros(),
            replayed: grant.replayed,
            excluded_hosts: grant
                .excluded_hosts
                .iter()
                .map(|excluded| (excluded.host.clone(), excluded.hard))
                .collect(),
            ends_by: grant.ends_by.map(Timestamp::as_micros),
            counters: words::counts(&grant.counters),
        }),
        Answer::Refused(decision) => Observed::Refused(words::decision(&decision)),
        Answer::Held { lease_until, cancel } => {
            Observed::Held { lease_until: lease_until.as_micros(), cancel }
        }
        Answer::Lost => Observed::Lost,
        Answer::Reported(reported) => Observed::Reported {
            attempt: reported.attempt,
            status: match reported.status {
                ReportStatus::Recorded => Status::Recorded,
                ReportStatus::Stale => Status::Stale,
                ReportStatus::Late => Status::Late,
            },
            replayed: reported.replayed,
            decision: words::decision(&reported.decision),
        },
        Answer::Ordered(ordered) => Observed::Ordered {
            after: ordered.given.after.stage.name(),
            replayed: ordered.replayed,
        },
        Answer::Ticked => Observed::Ticked,
    }
}

/// What is in the way of an order, in a word or two.
pub fn refusal_name(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::IdentityReused => "identity reused",
        Refusal::UnknownStep => "unknown",
        Refusal::UnknownRunAttempt { .. } => "unknown run attempt",
        Refusal::AttemptGap { .. } => "gap",
        Refusal::InProgress { .. } => "in progress",
        Refusal::Over(_) => "over",
        Refusal::NotHeld(_) => "not held",
        Refusal::AnswerNotAllowed { .. } => "not allowed",
        Refusal::ManualRetriesSpent { .. } => "spent",
        Refusal::HostUnknown => "host unknown",
        Refusal::PastBound { .. } => "past bound",
        Refusal::NoDeadline => "no deadline",
        Refusal::DeadlineNotLater { .. } => "not later",
        Refusal::PauseOver { .. } => "pause over",
        Refusal::NotPaused => "not paused",
    }
}

pub fn view(record: &Record) -> View {
    let (state, next_at) = match &record.state {
        State::Waiting { due } => ("WAITING", Some(*due)),
        State::Stopping { at, .. } => ("WAITING", Some(*at)),
        State::Running { lease_until } => ("RUNNING", Some(*lease_until)),
        State::Held(hold) => ("HELD", hold.until),
        State::Over { ending: Ending::Succeeded, .. } => ("SUCCEEDED", None),
        State::Over { ending: Ending::Failed, .. } => ("FAILED", None),
        State::Over { ending: Ending::Skipped, .. } => ("SKIPPED", None),
        State::Over { ending: Ending::Canceled, .. } => ("CANCELED", None),
    };
    let ended = |outcome: Outcome| match outcome {
        Outcome::Success => "SUCCESS",
        Outcome::Crash => "CRASH",
        Outcome::Failure { class, .. } => class.name(),
    };
    let running = state == "RUNNING";
    View {
        state,
        next_at: next_at.map(Timestamp::as_micros),
        counters: words::counts(&record.counters),
        attempts: record
            .attempts
            .iter()
            .map(|attempt| {
                (
                    attempt.number,
                    attempt.end.as_ref().map_or("", |end| ended(end.outcome)).to_owned(),
                )
            })
            .collect(),
        decision: record
            .decision()
            .filter(|_| !running)
            .map(|settled| words::settled(settled, &[])),
        resume_from: record.resume_from.to_string(),
        progress: record.progress,
        extra_retries: record.extra_retries(),
        is_to_stop: record.is_cancel_requested(),
    }
}

/// The domain's words in those of the contract.
pub mod words {
    use std::fmt::Debug;

    use reprise::domain::{
        decision::{Counters, Decision, Verdict},
        policy::spec::HoldAnswer,
    };

    use super::{Counts, Seen, Settled, Timestamp};

    pub fn decision(decision: &Decision) -> Seen {
        settled(&decision.settled, &decision.hold_answers)
    }

    pub fn settled(settled: &Settled, hold_answers: &[HoldAnswer]) -> Seen {
        let (verdict, at) = verdict(settled.verdict);
        Seen {
            verdict,
            at,
            reason: name(settled.reason),
            rule: settled.rule.as_ref().map(|rule| rule.as_str().to_owned()).unwrap_or_default(),
            counters: counts(&settled.counters),
            decided_at: settled.decided_at.as_micros(),
            hold_answers: hold_answers.iter().map(name).collect(),
        }
    }

    pub fn verdict(verdict: Verdict) -> (&'static str, Option<u64>) {
        match verdict {
            Verdict::Retry(at) => ("RETRY", Some(at.as_micros())),
            Verdict::Wait(until) => ("WAIT", until.map(Timestamp::as_micros)),
            Verdict::Stop => ("STOP", None),
            Verdict::Hold(until) => ("HOLD", until.map(Timestamp::as_micros)),
            Verdict::Done => ("DONE", None),
        }
    }

    pub fn counts(counters: &Counters) -> Counts {
        Counts {
            attempts: counters.attempts,
            retries: counters.retries,
            uncounted: counters.uncounted,
            crashes: counters.crashes,
            by_rule: counters
                .by_rule
                .iter()
                .map(|(rule, count)| (rule.as_str().to_owned(), *count))
                .collect(),
        }
    }

    /// `RetriesSpent` as `RETRIES_SPENT`.
    pub fn name(variant: impl Debug) -> String {
        let mut name = String::new();
        for char in format!("{variant:?}").chars() {
            if char.is_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.extend(char.to_uppercase());
        }
        name
    }
}
