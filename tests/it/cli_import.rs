//! `reprise policy import` as a process.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

fn reprise(args: &[&str], file: &Path) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reprise"));
    let output = command.arg("policy").args(args).arg(file).env("NO_COLOR", "1").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn import(system: &str, flags: &[&str], text: &str) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("theirs");
    fs::write(&file, text).unwrap();
    reprise(&[&["import", "--from", system], flags].concat(), &file)
}

/// The policies that were imported, by name.
fn policies(system: &str, flags: &[&str], text: &str) -> Value {
    let (code, shown, errors) = import(system, &[flags, &["--output", "json"]].concat(), text);
    assert_eq!((code, errors.as_str()), (0, ""), "{text}");
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let policies = shown["policies"].as_array().unwrap().iter();
    policies.map(|p| (p["name"].as_str().unwrap().to_owned(), p["policy"].clone())).collect()
}

fn policy(system: &str, flags: &[&str], text: &str) -> Value {
    let policies = policies(system, flags, text);
    let mut all: Vec<Value> = policies.as_object().unwrap().values().cloned().collect();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

/// A fenced block of a page.
struct Block {
    info: Vec<String>,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for line in page.lines() {
        match line.strip_prefix("```") {
            Some(_) if open => open = false,
            Some(info) => {
                open = true;
                let info = info.split_whitespace().map(str::to_owned).collect();
                blocks.push(Block { info, text: String::new() });
            }
            None if open => {
                let block = blocks.last_mut().unwrap();
                block.text.push_str(line);
                block.text.push('\n');
            }
            None => {}
        }
    }
    blocks
}

#[test]
fn the_pages_show_what_import_writes() {
    for system in ["argo", "dagster", "zenml", "octopus"] {
        let page = fs::read_to_string(format!("docs/coming-from/{system}.md")).unwrap();
        let blocks = blocks(&page);
        let theirs = blocks.iter().find(|block| block.info[1] == system).unwrap();
        let mut compared = 0;
        for block in blocks.iter().filter(|block| block.info[1] == "policies") {
            let flags: Vec<&str> = block.info[2..].iter().map(String::as_str).collect();
            let (code, shown, errors) = import(system, &flags, &theirs.text);
            assert_eq!((code, errors.as_str()), (0, ""), "{system}");
            let (heading, shown) = shown.split_once('\n').unwrap();
            assert!(heading.starts_with("# Imported from "), "{heading}");
            assert_eq!(shown.trim_end(), block.text.trim_end(), "{system} {flags:?}");
            compared += 1;
        }
        assert_eq!(compared, 2, "{system}");
    }
}

#[test]
fn what_is_written_is_a_file_of_policies() {
    let texts = [
        ("argo", "retryStrategy: {}"),
        ("argo", "{limit: 3, retryPolicy: OnTransientError, backoff: {duration: \"5\"}}"),
        (
            "argo",
            "retryStrategy: {expression: \"lastRetry.message matches 'a\\\"b: #c' or retries == '2'\", affinity: {nodeAntiAffinity: {}}}\nenv: {TRANSIENT_ERROR_PATTERN: 'x\\.y'}\nfailedPodRestart: {enabled: true}",
        ),
        ("dagster", "tags: {dagster/max_retries: '3', dagster/retry_strategy: ALL_STEPS}"),
        ("dagster", "{max_retries: 5, delay: 0.5, jitter: FULL}"),
        ("zenml", "steps: {'on': {retry: {}}, '1 2': {retry: {delay: 3, jitter: 1}}}\nretry: {}"),
        ("octopus", "{retries: true, guided_failure: true}"),
    ];
    for (system, text) in texts {
        for flags in [&[][..], &["--faithful"]] {
            let (code, shown, errors) = import(system, flags, text);
            assert_eq!((code, errors.as_str()), (0, ""), "{text}");
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("policies.yaml");
            fs::write(&file, &shown).unwrap();
            let (code, _, errors) = reprise(&["check"], &file);
            assert_eq!((code, errors.as_str()), (0, ""), "{text}\n{shown}");
        }
    }
}

#[test]
fn the_two_readings_differ_where_a_system_does_otherwise_than_it_says() {
    let argo = "retryStrategy: {backoff: {duration: 15s, factor: 2}}";
    assert_eq!(
        policy("argo", &[], argo)["backoff"]["exponential"],
        json!({"delay": "15s", "factor": 2.0})
    );
    assert_eq!(policy("argo", &["--faithful"], argo)["backoff"], Value::Null);
    let set = "containerSet: {retryStrategy: {retries: 2, duration: 5s}}";
    assert_eq!(policy("argo", &[], set)["max_retries"], 2);
    assert_eq!(policy("argo", &["--faithful"], set)["max_retries"], 1);
    let day = "retryStrategy: {limit: 1, backoff: {duration: 1d}}";
    assert_eq!(policy("argo", &[], day)["backoff"]["fixed"]["delay"], "24h");
    assert_eq!(import("argo", &["--faithful"], day).0, 2);
    let zenml = "retry: {max_retries: 3, delay: 10}";
    assert_eq!(policy("zenml", &[], zenml)["backoff"], json!({"fixed": {"delay": "10s"}}));
    assert_eq!(
        policy("zenml", &["--faithful"], zenml)["backoff"],
        json!({"exponential": {"delay": "10s", "factor": 0.0}})
    );
    let run = "run_retries: {enabled: true, max_retries: 1}";
    assert_eq!(policy("dagster", &[], run)["backoff"], Value::Null);
    assert_eq!(policy("dagster", &["--faithful"], run)["backoff"]["jitter"], "full");
}

#[test]
fn every_template_of_every_document_has_its_policy() {
    let text = "\
apiVersion: argoproj.io/v1alpha1
kind: CronWorkflow
metadata: { name: nightly }
spec:
  workflowSpec:
    retryStrategy: { limit: 1 }
    templateDefaults: { retryStrategy: { limit: 2, backoff: { duration: 5s } } }
    templates:
      - { name: plain, container: {} }
      - { name: own, retryStrategy: { limit: 7 } }
      - { name: pause, suspend: {}, retryStrategy: { limit: 7 } }
---
---
kind: WorkflowTemplate
metadata: { name: other }
spec:
  templates:
    - { name: own, retryStrategy: { limit: 9 } }
    - { name: many, containerSet: { retryStrategy: { retries: 4 } } }
";
    let policies = policies("argo", &[], text);
    let retries = |name: &str| policies[name]["max_retries"].as_u64();
    assert_eq!(policies.as_object().unwrap().len(), 5, "{policies}");
    assert_eq!(retries("nightly"), Some(1));
    assert_eq!(retries("nightly-default"), Some(2));
    assert_eq!(retries("own"), Some(7));
    assert_eq!(policies["own"]["backoff"]["fixed"]["delay"], "5s", "a default is merged in");
    assert_eq!(retries("own-2"), Some(9));
    assert_eq!(retries("many-containers"), Some(4));
}

#[test]
fn what_a_system_refuses_is_refused_with_place_value_and_what_is_accepted() {
    for (system, text, parts) in [
        (
            "argo",
            "spec:\n  templates:\n    - name: a\n      retryStrategy:\n        limit: abc\n        retryPolicy: Allways\n        backof: {}\n",
            &[
                "theirs:7:9: spec.templates[0].retryStrategy.backof: there is no such field; did you mean backoff?",
                "theirs:5:16: spec.templates[0].retryStrategy.limit: \"abc\": it cannot be resolved to an int",
                "theirs:6:22: spec.templates[0].retryStrategy.retryPolicy: \"Allways\": it is not a valid RetryPolicy",
            ][..],
        ),
        (
            "argo",
            "limit: \"{{inputs.parameters.n}}\"\n",
            &[
                "theirs:1:8: limit: \"{{inputs.parameters.n}}\": a template that only Argo Workflows can resolve",
            ],
        ),
        (
            "argo",
            "expression: asInt(retries) < 3 && sprig.upper('a') == 'A'\n",
            &[
                "theirs:1:35: expression: sprig.upper('a') == 'A': character 23 of the expression: `sprig` has no counterpart",
            ],
        ),
        (
            "argo",
            "backoff: { factor: '1.5', maxDuration: 10 }\n",
            &["backoff.duration: nothing: no base duration is specified"],
        ),
        ("argo", "backoff: { duration: 10 }\n", &["backoff.duration: 10: Argo takes a text here"]),
        (
            "argo",
            "kind: Pod\n",
            &["nothing in this file says how Argo Workflows retries; accepted: a Workflow"],
        ),
        ("argo", "[]\n", &["accepted: a mapping"]),
        (
            "dagster",
            "retry_policy: { max_retries: '3', jitter: PLUS }\n",
            &[
                "theirs:1:30: retry_policy.max_retries: \"3\": Param \"max_retries\" is not a int",
                "theirs:1:43: retry_policy.jitter: \"PLUS\": accepted: FULL or PLUS_MINUS",
            ],
        ),
        (
            "dagster",
            "retry_policy: { backoff: LINEAR }\n",
            &[
                "theirs:1:26: retry_policy.backoff: \"LINEAR\": backoff without a delay; accepted: a delay beside it",
            ],
        ),
        (
            "dagster",
            "run_retries: { enable: true }\n",
            &["theirs:1:16: run_retries.enable: there is no such field; did you mean enabled?"],
        ),
        (
            "zenml",
            "retry: { max_retries: 0, delay: 1.5, backoff: -1 }\n",
            &[
                "theirs:1:23: retry.max_retries: 0: Input should be greater than 0; to retry nothing, leave",
                "theirs:1:33: retry.delay: 1.5: Input should be a valid integer, got a number with a fractional part",
                "theirs:1:47: retry.backoff: -1: Input should be greater than or equal to 0",
            ],
        ),
        (
            "octopus",
            "{\"Octopus.Action.AutoRetry.MinimumBackoff\": \"60\"}",
            &[
                "Octopus.Action.AutoRetry.MinimumBackoff: \"60\": a minimum backoff is not valid when retry is disabled",
            ],
        ),
        (
            "octopus",
            "{\"Steps\": [{\"Actions\": [{\"ActionType\": \"Octopus.Manual\", \"Properties\": {\"Octopus.Action.AutoRetry.MaximumCount\": \"3\"}}]}]}",
            &[
                "theirs:1:40: Steps[0].Actions[0].ActionType: \"Octopus.Manual\": retries are not available for this step type",
            ],
        ),
        (
            "octopus",
            "{\"Octopus.Action.AutoRetry.MaximumCount\": \"#{Retries}\"}",
            &["a template that only Octopus Deploy can resolve"],
        ),
    ] {
        let (code, shown, errors) = import(system, &[], text);
        assert_eq!((code, shown.as_str()), (2, ""), "{text}");
        for part in parts {
            assert!(errors.contains(part), "{part}\n{errors}");
        }
    }
}

/// The smaller dialects, each with what its policy comes to.
#[test]
fn further_systems_are_read_by_their_formulas() {
    let crashes = json!({"name": "crashes", "match": {"classes": ["CRASH"]}, "retry": {}});
    let ended_by_airflow = [
        json!({"name": "skipped", "match": {"error_types": ["AirflowSkipException"]}, "skip": {}}),
        json!({"name": "fail", "match": {"error_types": ["AirflowFailException"]}, "stop": "at_once"}),
        crashes.clone(),
    ];
    let all = "failure.class != \"CANCELED\" && !(failure.error_type in \
               [\"States.DataLimitExceeded\", \"States.Runtime\"])";
    for (system, text, expected) in [
        (
            "temporal",
            "retryPolicy: { initialInterval: 2s, maximumAttempts: 4, nonRetryableErrorTypes: [Bad] }\nscheduleToCloseTimeout: 1h",
            json!({
                "max_retries": 3, "max_elapsed": "1h",
                "backoff": {"exponential": {"delay": "2s", "factor": 2.0}, "max_delay": "3m 20s"},
                "rules": [
                    {"name": "non-retryable", "match": {"error_types": ["Bad"]}, "stop": "at_once"},
                    crashes,
                ],
            }),
        ),
        (
            "temporal",
            "{\"backoff_coefficient\": 1}",
            json!({
                "backoff": {"exponential": {"delay": "1s", "factor": 1.0}, "max_delay": "1m 40s"},
                "rules": [crashes],
            }),
        ),
        (
            "step-functions",
            "{\"States\": {\"Load\": {\"Type\": \"Task\", \"Retry\": [
                {\"ErrorEquals\": [\"Throttled\", \"Busy\"], \"IntervalSeconds\": 3, \"MaxAttempts\": 2, \"BackoffRate\": 1.5},
                {\"ErrorEquals\": [\"States.ALL\"], \"MaxDelaySeconds\": 60, \"JitterStrategy\": \"FULL\"}]}}}",
            json!({
                "max_retries": 0,
                "rules": [
                    {
                        "name": "retrier-1", "match": {"error_types": ["Throttled", "Busy"]},
                        "retry": {"max_retries": 2, "backoff": {"exponential": {"delay": "3s", "factor": 1.5}}},
                    },
                    {
                        "name": "retrier-2", "match": {"condition": all},
                        "retry": {"max_retries": 3, "backoff": {
                            "exponential": {"delay": "1s", "factor": 2.0}, "max_delay": "1m", "jitter": "full",
                        }},
                    },
                    {"name": "unmatched", "match": {"condition": "failure.class != \"CANCELED\""}, "stop": "at_once"},
                ],
            }),
        ),
        (
            "step-functions",
            "[{\"ErrorEquals\": [\"States.Timeout\"]}, {\"ErrorEquals\": [\"States.HeartbeatTimeout\"]}]",
            json!({
                "max_retries": 0,
                "rules": [
                    {
                        "name": "retrier-1", "match": {"condition": "failure.class == \"TIMEOUT\""},
                        "retry": {"max_retries": 3, "backoff": {"exponential": {"delay": "1s", "factor": 2.0}}},
                    },
                    {
                        "name": "retrier-2",
                        "match": {"condition": "failure.error_type == \"States.HeartbeatTimeout\""},
                        "retry": {"max_retries": 3, "backoff": {"exponential": {"delay": "1s", "factor": 2.0}}},
                    },
                    {"name": "unmatched", "match": {"condition": "failure.class != \"CANCELED\""}, "stop": "at_once"},
                ],
            }),
        ),
        (
            "cloud-tasks",
            "name: projects/p/queues/mail\nretryConfig: { maxAttempts: 5, minBackoff: 10s, maxBackoff: 300s, maxDoublings: 3, maxRetryDuration: 0s }",
            json!({
                "max_retries": 4,
                "backoff": {
                    "exponential": {"delay": "10s", "factor": 2.0, "max_doublings": 3}, "max_delay": "5m",
                },
                "rules": [crashes],
            }),
        ),
        (
            "cloud-tasks",
            "retryConfig: { maxAttempts: 0 }",
            json!({
                "max_retries": 99,
                "backoff": {
                    "exponential": {"delay": "100ms", "factor": 2.0, "max_doublings": 16}, "max_delay": "1h",
                },
                "rules": [crashes],
            }),
        ),
        (
            "kubernetes",
            "kind: Job\nmetadata: { name: etl }\nspec:\n  activeDeadlineSeconds: 600\n  podFailurePolicy:\n    rules:\n      - { action: FailJob, onExitCodes: { operator: In, values: [42] } }\n      - { action: Ignore, onPodConditions: [{ type: DisruptionTarget }] }\n",
            json!({
                "max_retries": 6, "max_elapsed": "10m",
                "backoff": {"exponential": {"delay": "10s", "factor": 2.0}, "max_delay": "10m"},
                "rules": [
                    {"name": "fail-1", "match": {"exit_codes": [42]}, "stop": "at_once"},
                    {
                        "name": "ignore-2", "match": {"error_types": ["DisruptionTarget"]},
                        "retry_uncounted": {"max_retries": 10000},
                    },
                    crashes,
                ],
            }),
        ),
        (
            "airflow",
            "default_args: { retries: 4, retry_delay: 60, retry_exponential_backoff: true, max_retry_delay: 1h }",
            json!({
                "max_retries": 4,
                "backoff": {"exponential": {"delay": "2m", "factor": 2.0}, "max_delay": "1h", "jitter": "equal"},
                "rules": ended_by_airflow,
            }),
        ),
        (
            "airflow",
            "{ retries: 2, retry_delay: 240, retry_exponential_backoff: 5 }",
            json!({
                "max_retries": 2,
                "backoff": {"exponential": {"delay": "8m", "factor": 5.0}, "max_delay": "24h", "jitter": "equal"},
                "rules": ended_by_airflow,
            }),
        ),
        (
            "airflow",
            "{ retries: 2, retry_exponential_backoff: 0 }",
            json!({
                "max_retries": 2, "backoff": {"fixed": {"delay": "5m"}}, "rules": ended_by_airflow,
            }),
        ),
        (
            "prefect",
            "{ retries: 3, retry_delay_seconds: [1, 10, 100], retry_jitter_factor: 0.5 }",
            json!({
                "max_retries": 3,
                "backoff": {
                    "schedule": {"delays": ["1s", "10s", "1m 40s"], "end": "repeat"}, "jitter": {"ratio": 0.5},
                },
                "rules": [crashes],
            }),
        ),
        (
            "celery",
            "{ autoretry_for: [Exception], retry_backoff: true, max_retries: 5 }",
            json!({
                "max_retries": 5,
                "backoff": {"exponential": {"delay": "1s", "factor": 2.0}, "max_delay": "10m", "jitter": "full"},
                "rules": [crashes],
            }),
        ),
        (
            "celery",
            "{ max_retries: 5, retry_kwargs: { max_retries: 1, countdown: 7 } }",
            json!({"max_retries": 1, "backoff": {"fixed": {"delay": "7s"}}, "rules": [crashes]}),
        ),
        (
            "celery",
            "{ retry_backoff: 0.5, retry_jitter: false, retry_kwargs: { max_retries: null } }",
            json!({
                "max_retries": 3,
                "backoff": {"exponential": {"delay": "1s", "factor": 2.0}, "max_delay": "10m"},
                "rules": [crashes],
            }),
        ),
        (
            "sidekiq",
            "retry: 3",
            json!({
                "max_retries": 3,
                "backoff": {
                    "schedule": {"delays": ["19s 500ms", "25s", "44s 500ms"], "end": "repeat"},
                    "jitter": {"ratio": 0.1},
                },
                "rules": [crashes],
            }),
        ),
        (
            "asynq",
            "MaxRetry: 1",
            json!({
                "max_retries": 1,
                "backoff": {
                    "schedule": {"delays": ["29s 500ms"], "end": "repeat"}, "jitter": {"ratio": 0.1},
                },
                "rules": [crashes],
            }),
        ),
    ] {
        let imported = policy(system, &[], text);
        assert_eq!(imported, expected, "{system}\n{imported:#}");
    }
}

#[test]
fn a_system_that_is_not_known_and_a_file_that_is_not_there_are_told() {
    let (code, _, errors) = import("cron", &[], "");
    assert_eq!(code, 2);
    assert!(errors.contains("accepted: argo, dagster, zenml, octopus"), "{errors}");
    let (code, _, errors) = reprise(&["import", "--from", "argo"], Path::new("/nowhere/at/all"));
    assert_eq!(code, 2);
    assert!(errors.contains("could not read"), "{errors}");
}
