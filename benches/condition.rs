//! What a condition costs: once when its policy is written, and at every decision that asks it.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use reprise::domain::condition::{Condition, ConditionScope, FailureView, StepView};
use reprise::domain::failure::FailureClass;

const SCOPE: ConditionScope<'static> = ConditionScope {
    failure: FailureView {
        class: FailureClass::Transient,
        error_type: "java.net.ConnectException",
        code: "503",
        exit_code: 143,
        signal: 0,
        message: "connection to warehouse-db.internal:5432 reset by peer after 30012 ms",
        cause: "c0ffee",
        host: "node-17",
        worker: "w-3",
        target: "warehouse-db",
        action: "load",
        duration_s: 30.0,
        executed: "MAYBE",
        retryable: true,
    },
    step: StepView {
        namespace: "etl",
        run: "2024-06-01",
        name: "load-orders",
        kind: "sql",
        attempt: 3,
        retries: 2,
        uncounted: 0,
        crashes: 0,
        elapsed_s: 95.0,
    },
    outcomes: &[FailureClass::Transient, FailureClass::Transient, FailureClass::Timeout],
    last_exit_codes: &[143, 137, -1],
};

const CONDITIONS: [(&str, &str); 4] = [
    (
        "plain",
        r#"failure.class == "TRANSIENT" && failure.exit_code in [137, 143] && count("TRANSIENT") < 3"#,
    ),
    ("pattern", r#"failure.message.matches("(?i)reset by peer|broken pipe|timed? ?out")"#),
    (
        "arithmetic",
        "failure.duration_s * double(step.retries + 1) < 600.0 && last_exit_codes[1] == 137",
    ),
    (
        "joined",
        r#"step.namespace + "/" + step.name == "etl/load-orders" && int(failure.code) >= 500"#,
    ),
];

fn evaluation(c: &mut Criterion) {
    let mut group = c.benchmark_group("condition/holds");
    for (name, source) in CONDITIONS {
        let condition = Condition::parse(source).expect("accepted");
        assert_eq!(condition.holds(&SCOPE), Ok(true), "{source}");
        group.bench_function(name, |b| b.iter(|| condition.holds(black_box(&SCOPE))));
    }
    group.finish();
}

fn parsing(c: &mut Criterion) {
    let mut group = c.benchmark_group("condition/parse");
    for (name, source) in CONDITIONS {
        group.bench_function(name, |b| b.iter(|| Condition::parse(black_box(source))));
    }
    group.finish();
}

criterion_group!(benches, evaluation, parsing);
criterion_main!(benches);
