//! What a decision costs: from a record and a report to the settled record and
//! its answer.
//!
//! A record is moved into a plan, so each iteration needs a copy of its own:
//! that is made outside of what is measured, and `copy` says what it costs.

#![allow(clippy::panic, reason = "a measurement that goes wrong ends at once")]

use std::{hint::black_box, time::Duration};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use reprise::domain::{
    draw::Salt,
    event::{AttemptName, Begin, Comes, Event, Report, StepTerms},
    failure::{Code, Failure, FailureClass},
    id::StepKey,
    namespace::Settings,
    plan::{self, Now, Plan, Settlement, Terms},
    policy::{Policy, spec::PolicySpec},
    record::{Identity, PolicyChoice, Record},
    time::Timestamp,
};

const KEY: StepKey<'static> = StepKey { namespace: "etl", run: "2025-06-01", step: "load-orders" };
const START: Timestamp = Timestamp::from_micros(1_750_000_000_000_000);

/// Five rules, of which the last one matches; `{}` takes more of its match.
const RULES: &str = "
max_retries: 10
max_elapsed: 1h
backoff: {exponential: {delay: 1s, factor: 2}, max_delay: 5m, jitter: full}
rules:
  - {name: throttled, match: {classes: [THROTTLED]}, retry_uncounted: {}}
  - {name: killed, match: {exit_codes: [137, 143]}, retry: {max_retries: 2}}
  - {name: bad-request, match: {codes: [4xx]}, stop: at_once}
  - {name: timeout, match: {classes: [TIMEOUT]}, retry: {max_retries: 3}}
  - {name: unavailable, match: {classes: [TRANSIENT], codes: ['503'], exit_codes: [{min: 1, max: 9}]MORE}, retry: {}}
";

fn policy(more: &str) -> Policy {
    let spec: PolicySpec = serde_saphyr::from_str(&RULES.replace("MORE", more)).expect("readable");
    Policy::parse(&spec).expect("accepted")
}

/// A step and what applies to it.
struct Step {
    policy: Policy,
    settings: Settings,
}

impl Step {
    fn plan(&self, record: Option<Record>, event: &Event, at: Timestamp) -> Settlement {
        let terms = Terms {
            policy: &self.policy,
            revision: 7,
            choice: &PolicyChoice::Default,
            settings: &self.settings,
            salt: Salt([9; 16]),
            bounds: &[],
            run: None,
        };
        match plan::plan(&terms, &KEY, record, event, Now::at(at)).expect("carried out") {
            Plan::Write(draft) => {
                let admitted = draft.admitted();
                plan::settle(*draft, &admitted)
            }
            other => panic!("nothing to settle: {other:?}"),
        }
    }

    /// The step while its attempt `attempts` runs, the ones before having failed.
    fn running(&self, attempts: u64) -> (Record, Event, Timestamp) {
        let mut record = None;
        for attempt in 1..=attempts {
            let at = START.plus(Duration::from_secs(400 * attempt));
            let begin = Begin {
                identity: Identity { id: attempt, payload: 0 },
                lease: None,
                host: Some("node-17".into()),
                worker: "w-3".to_owned(),
                comes: Comes::ByItself,
                step: StepTerms::default(),
            };
            let running = self.plan(record, &Event::Begin(begin), at).record;
            let (failed, until) =
                (report(running.fence, attempt), at.plus(Duration::from_secs(20)));
            if attempt == attempts {
                return (running, failed, until);
            }
            record = Some(self.plan(Some(running), &failed, until).record);
        }
        unreachable!("at least one attempt runs")
    }
}

fn report(fence: u64, payload: u64) -> Event {
    let failure = Failure {
        error_type: "java.net.ConnectException".to_owned(),
        code: Some(Code::Http(503)),
        exit_code: Some(1),
        message: "connection to warehouse-db.internal:5432 reset by peer after 30012 ms".to_owned(),
        ..Failure::of(FailureClass::Transient)
    };
    Event::Report(Report {
        attempt: AttemptName::Fence(fence),
        payload,
        failure: Some(failure),
        step: StepTerms::default(),
    })
}

fn failures(c: &mut Criterion) {
    let mut group = c.benchmark_group("rule/failure");
    for (name, more) in [
        ("plain", ""),
        (
            "condition",
            r#", condition: 'failure.duration_s < 60.0 && count("TRANSIENT") < 5 && step.retries < 9'"#,
        ),
        ("pattern", ", message_pattern: '(?i)reset by peer|broken pipe'"),
    ] {
        let step = Step { policy: policy(more), settings: Settings::default() };
        let (record, event, at) = step.running(4);
        group.bench_function(name, |b| {
            b.iter_batched(
                || record.clone(),
                |record| step.plan(Some(record), black_box(&event), at),
                BatchSize::SmallInput,
            );
        });
    }
    let step = Step { policy: policy(""), settings: Settings::default() };
    let (record, ..) = step.running(4);
    group.bench_function("copy", |b| b.iter(|| black_box(&record).clone()));
    group.finish();
}

criterion_group!(benches, failures);
criterion_main!(benches);
