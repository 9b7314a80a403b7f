//! Whatever is imported holds, and whatever does not is told with its place.

use proptest::prelude::*;
use reprise::{
    config::policy_file::PolicyFile,
    dialect::{Reading, System, import},
};
use serde_json::{Map, Value, json};

/// Keys that the dialects look for.
const KEYS: &[&str] = &[
    "spec",
    "templates",
    "name",
    "retryStrategy",
    "limit",
    "retryPolicy",
    "expression",
    "backoff",
    "duration",
    "factor",
    "maxDuration",
    "cap",
    "affinity",
    "nodeAntiAffinity",
    "containerSet",
    "retries",
    "env",
    "TRANSIENT_ERROR_PATTERN",
    "level",
    "retry_policy",
    "max_retries",
    "delay",
    "jitter",
    "executor",
    "executor_retries",
    "run_retries",
    "enabled",
    "tags",
    "dagster/max_retries",
    "dagster/retry_strategy",
    "run_monitoring",
    "max_resume_run_attempts",
    "poll_interval_seconds",
    "retry",
    "steps",
    "orchestrator",
    "zenml_version",
    "Steps",
    "Actions",
    "Properties",
    "ActionType",
    "guided_failure",
    "environment",
    "project",
    "Octopus.Action.AutoRetry.MaximumCount",
    "Octopus.Action.AutoRetry.MinimumBackoff",
    "initialInterval",
    "maximumInterval",
    "maximumAttempts",
    "backoffCoefficient",
    "nonRetryableErrorTypes",
    "States",
    "Retry",
    "ErrorEquals",
    "IntervalSeconds",
    "MaxAttempts",
    "BackoffRate",
    "MaxDelaySeconds",
    "retryConfig",
    "minBackoff",
    "maxBackoff",
    "maxDoublings",
    "kind",
    "backoffLimit",
    "podFailurePolicy",
    "rules",
    "action",
    "onExitCodes",
    "values",
    "operator",
    "retry_delay",
    "retry_delay_seconds",
    "retry_exponential_backoff",
    "retry_jitter_factor",
    "autoretry_for",
    "retry_backoff",
    "MaxRetry",
];

fn scalar() -> impl Strategy<Value = Value> {
    let texts = [
        "",
        "3",
        "-1",
        "abc",
        "1d",
        "5s",
        "-5s",
        "1h30m",
        "0",
        "{{x}}",
        "#{x}",
        "Always",
        "OnError",
        "OnTransientError",
        "Job",
        "In",
        "FailJob",
        "LINEAR",
        "FULL",
        "PLUS_MINUS",
        "op",
        "run",
        "kubernetes",
        "On",
        "UseDefault",
        "in_process",
        "disabled",
        "Octopus.Email",
        "States.ALL",
        "0.70.1",
        "retries == '1'",
        "asInt(lastRetry.exitCode) in [1, 2] || true",
        "a.b(",
        "\"\\n",
        "9223372036854775807",
        "99999999999999999999",
    ];
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3_i64..200).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-2.0..5.0).prop_map(Value::from),
        any::<f64>()
            .prop_filter("JSON has no others", |number| number.is_finite())
            .prop_map(Value::from),
        proptest::sample::select(texts.to_vec()).prop_map(Value::from),
        "[a-z{}#\"': \\\\-]{0,12}".prop_map(Value::from),
    ]
}

fn tree() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(5, 40, 6, |inner| {
        let key = proptest::sample::select(KEYS.to_vec()).prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Trees that are more often looked into.
fn document() -> impl Strategy<Value = Value> {
    prop_oneof![
        tree(),
        tree().prop_map(|value| json!({"retryStrategy": {"limit": 3, "backoff": value}})),
        tree().prop_map(|value| json!({"retry": value})),
        tree().prop_map(|value| json!({"retry_policy": value, "run_monitoring": value})),
        (tree(), tree()).prop_map(|(limit, expression)| {
            json!({"retryStrategy": {"limit": limit, "expression": expression}})
        }),
    ]
}

fn check(system: System, reading: Reading, text: &str) -> Result<(), TestCaseError> {
    match import(system, reading, "theirs", text) {
        Ok(imported) => {
            prop_assert!(!imported.policies.is_empty());
            let yaml = imported.yaml();
            let file = PolicyFile::parse("ours", &yaml).map_err(|problems| {
                TestCaseError::fail(format!("{}\n{yaml}", problems.in_full()))
            })?;
            let written = &file.namespaces["default"].policies;
            prop_assert_eq!(written.len(), imported.policies.len());
            for policy in &imported.policies {
                prop_assert_eq!(&written[policy.name.as_str()], &policy.spec, "{}", yaml);
            }
        }
        Err(problems) => prop_assert!(!problems.0.is_empty() && !problems.in_full().is_empty()),
    }
    Ok(())
}

proptest! {
    #[test]
    fn what_is_imported_is_a_file_of_policies_that_says_the_same(document in document()) {
        let text = document.to_string();
        for system in System::ALL {
            for reading in [Reading::Documented, Reading::Faithful] {
                check(system, reading, &text)?;
            }
        }
    }

    #[test]
    fn no_text_is_too_much(text in prop_oneof![any::<String>(), "[a-z:{}\\[\\]\n ,'\"0-9-]{0,200}"]) {
        for system in System::ALL {
            check(system, Reading::Faithful, &text)?;
        }
    }

    #[test]
    fn no_expression_is_too_much(expression in "[a-zA-Z0-9 .()\\[\\]!&|<>=+*/%?:'\"-]{0,120}") {
        let text = json!({"retryStrategy": {"expression": expression}}).to_string();
        check(System::Argo, Reading::Documented, &text)?;
    }
}
