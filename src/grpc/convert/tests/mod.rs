//! Every field of every request is refused by name when it is wrong, and what
//! is right means the same on both sides.

mod answers;
mod fields;
mod policies;
mod requests;
mod targets;

use prost_types::{Duration, Timestamp};

use crate::proto;

fn seconds(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

fn begin_request() -> proto::BeginAttemptRequest {
    proto::BeginAttemptRequest {
        namespace: "ads".into(),
        run: "nightly/2026-01-05".into(),
        step: "load".into(),
        request_id: vec![7; 16].into(),
        lease: seconds(30),
        host: "node-1".into(),
        worker: "w1".into(),
        kind: "sql".into(),
        targets: vec!["warehouse-db".into()],
        queue: "etl".into(),
        deadline: Some(Timestamp { seconds: 1_800_000_000, nanos: 5_000 }),
        time_left: None,
        awaits: true,
        payload: Default::default(),
        run_attempt: 0,
        labels: Default::default(),
        policy: Some(proto::begin_attempt_request::Policy::InlinePolicy(policy())),
    }
}

fn report_request() -> proto::ReportAttemptRequest {
    use proto::report_attempt_request::{Outcome, Policy};
    proto::ReportAttemptRequest {
        namespace: "ads".into(),
        run: "r".into(),
        step: "s".into(),
        fence: 0,
        attempt: 0,
        request_id: vec![9; 16].into(),
        kind: "sql".into(),
        targets: vec!["warehouse-db".into()],
        deadline: None,
        time_left: seconds(60),
        run_attempt: 0,
        outcome: Some(Outcome::Failure(failure())),
        policy: Some(Policy::PolicyName("etl".into())),
    }
}

fn failure() -> proto::Failure {
    proto::Failure {
        class: proto::FailureClass::Transient as i32,
        error_type: "TimeoutError".into(),
        code: Some(proto::failure::Code::HttpStatus(503)),
        exit_code: Some(-1),
        signal: Some(9),
        message: "connection reset".into(),
        cause: "c0ffee".into(),
        host: "node-1".into(),
        worker: "w1".into(),
        duration: seconds(3),
        target: "warehouse-db".into(),
        pushback: Some(proto::Pushback {
            until: Some(proto::pushback::Until::After(Duration { seconds: 5, nanos: 0 })),
        }),
        wish: Some(proto::RetryWish { max_retries: Some(2), delay: seconds(1) }),
        retryable: None,
        executed: proto::Executed::No as i32,
        action: "upload".into(),
    }
}

/// A policy that holds and has something in every field.
fn policy() -> proto::Policy {
    let terms = proto::HoldTerms {
        allowed: vec![proto::HoldAnswer::Retry as i32, proto::HoldAnswer::Fail as i32],
        timeout: seconds(60),
        default_answer: proto::HoldAnswer::Fail as i32,
        max_manual_retries: Some(3),
    };
    proto::Policy {
        max_retries: Some(3),
        max_elapsed: seconds(3600),
        backoff: Some(backoff(proto::backoff::Shape::Fixed(proto::FixedBackoff {
            delay: seconds(5),
        }))),
        rules: vec![rule()],
        pushback: Some(proto::PushbackBounds { min: seconds(1), max: seconds(60) }),
        max_crash_retries: Some(1),
        reset_after: seconds(600),
        reset_on_progress: true,
        host_anti_affinity: Some(proto::HostAntiAffinity {
            mode: proto::AntiAffinityMode::Soft as i32,
            decay: seconds(60),
        }),
        on_exhaustion: Some(proto::Exhaustion {
            outcome: Some(proto::exhaustion::Outcome::Hold(terms)),
        }),
        never_retry_kinds: vec!["send-email".into()],
        quirks: vec![proto::Quirk::BoundsFirst as i32],
        run: Some(proto::RunRetries {
            resume: proto::Resume::AllSteps as i32,
            step_counters: proto::StepCounters::Carry as i32,
            ignore_step_failures: true,
            max_total_retries: Some(40),
        }),
    }
}

fn rule() -> proto::Rule {
    let matches = proto::Match {
        classes: vec![proto::FailureClass::Timeout as i32],
        error_types: vec!["java.net.*".into()],
        codes: vec!["UNAVAILABLE".into(), "5xx".into()],
        exit_codes: vec![proto::ExitCodeRange { min: 1, max: 3 }],
        message_pattern: "time(d )?out".into(),
        condition: "failure.exit_code == 1".into(),
    };
    let retry = proto::RetryUncountedAction { max_retries: Some(5), backoff: None };
    proto::Rule {
        name: "slow".into(),
        r#match: Some(matches),
        action: Some(proto::rule::Action::RetryUncounted(retry)),
    }
}

fn backoff(shape: proto::backoff::Shape) -> proto::Backoff {
    proto::Backoff {
        shape: Some(shape),
        max_delay: seconds(60),
        first_delay: seconds(0),
        jitter: Some(proto::Jitter { kind: proto::JitterKind::Ratio as i32, ratio: Some(0.2) }),
    }
}

fn evaluate_request() -> proto::EvaluateRequest {
    proto::EvaluateRequest {
        policy: Some(proto::evaluate_request::Policy::InlinePolicy(policy())),
        failures: vec![failure(), failure()],
        time_left: seconds(60),
        ..proto::EvaluateRequest::default()
    }
}

fn namespace() -> proto::Namespace {
    let settings = proto::NamespaceSettings {
        default_policy: "etl".into(),
        lease: seconds(60),
        max_retries_ceiling: Some(10),
        max_elapsed_ceiling: seconds(3600),
        retention: seconds(3600),
        abandon_after: seconds(3600),
        max_live_steps: Some(1000),
        default_target: "db".into(),
    };
    proto::Namespace {
        name: "ads".into(),
        settings: Some(settings),
        etag: "1".into(),
        ..proto::Namespace::default()
    }
}

fn named_policy() -> proto::NamedPolicy {
    proto::NamedPolicy {
        name: "etl".into(),
        policy: Some(policy()),
        ..proto::NamedPolicy::default()
    }
}

fn named_target() -> proto::NamedTarget {
    let target = proto::Target {
        rate: Some(proto::Rate {
            limit: 100,
            period: seconds(1),
            burst: Some(20),
            on: proto::CountedStarts::Retries as i32,
        }),
        concurrency: Some(proto::Concurrency { max: 10 }),
        budget: Some(proto::RetryBudget {
            ratio: Some(0.2),
            floor: Some(3),
            window: seconds(60),
            when_spent: proto::WhenSpent::Stop as i32,
        }),
        breaker: Some(proto::Breaker { slow_after: seconds(30), observe_only: true }),
        every_step: false,
        each_run: true,
    };
    proto::NamedTarget {
        name: "warehouse-db".into(),
        target: Some(target),
        ..proto::NamedTarget::default()
    }
}

fn pause_target_request() -> proto::PauseTargetRequest {
    proto::PauseTargetRequest {
        namespace: "ads".into(),
        name: "warehouse-db".into(),
        reason: "it is being moved".into(),
        by: "ann".into(),
        end: Some(proto::pause_target_request::End::PauseFor(Duration { seconds: 60, nanos: 0 })),
    }
}
