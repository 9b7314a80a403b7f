//! `reprise conformance` as a process: what four systems decide, imported
//! policies decide too.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

const VECTORS: &str = "tests/vectors/systems.json";
/// Cases that must be there at least, so that none is lost unnoticed.
const CASES: usize = 160;

fn conformance(file: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reprise"));
    let output = command.arg("conformance").arg(file).args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn run(vectors: &[Value]) -> (i32, Value) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vectors.json");
    fs::write(&file, json!(vectors).to_string()).unwrap();
    let (code, shown, errors) = conformance(&file, &["--output", "json"]);
    (code, serde_json::from_str(&shown).unwrap_or_else(|_| panic!("{shown}{errors}")))
}

fn vectors() -> Vec<Value> {
    serde_json::from_str(&fs::read_to_string(VECTORS).unwrap()).unwrap()
}

#[test]
fn imported_policies_decide_as_the_systems_do() {
    let (code, shown, errors) = conformance(Path::new(VECTORS), &[]);
    let wrong: Vec<&str> = shown
        .lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| !line.starts_with("met "))
        .collect();
    assert_eq!((code, errors.as_str()), (0, ""), "{wrong:#?}");
    assert!(wrong.is_empty(), "{wrong:#?}");
    let met = shown.lines().filter(|line| line.starts_with("met ")).count();
    assert!(met >= CASES, "only {met}");
    assert_eq!(met, vectors().len());
}

/// What is expected must matter: whatever is changed in it is noticed.
#[test]
fn a_changed_expectation_is_missed() {
    let mut changed = Vec::new();
    for vector in vectors() {
        for at in 0..vector["expected"].as_array().unwrap().len() {
            for (what, expected) in changes(&vector, &vector["expected"][at]) {
                let mut vector = vector.clone();
                vector["expected"][at] = expected;
                vector["id"] = json!(format!("{} {at} {what}", vector["id"].as_str().unwrap()));
                changed.push(vector);
            }
        }
    }
    assert!(changed.len() > 600, "{}", changed.len());
    let (code, shown) = run(&changed);
    assert_eq!(code, 1);
    let met: Vec<&Value> = shown["vectors"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|line| line["outcome"] != "missed")
        .map(|line| &line["id"])
        .collect();
    assert!(met.is_empty(), "{met:#?}");
}

/// Each way to expect something else.
fn changes(vector: &Value, expected: &Value) -> Vec<(&'static str, Value)> {
    let mut changes = Vec::new();
    let mut change = |what, edit: &dyn Fn(&mut Value)| {
        let mut changed = expected.clone();
        edit(&mut changed);
        if changed != *expected {
            changes.push((what, changed));
        }
    };
    change("retry", &|to| to["retry"] = json!(!expected["retry"].as_bool().unwrap()));
    if expected["config_error"] == true {
        change("accepted", &|to| {
            to["config_error"] = json!(false);
            to["reason"] = json!("");
        });
    }
    if let Some(delay) = expected["delay_s"].as_f64() {
        // Far away a second is lost in the number.
        change("delay", &|to| to["delay_s"] = json!((delay + 1.0).max(delay * 1.001)));
    }
    if let Some(range) = expected["delay_range_s"].as_array() {
        let high = range[1].as_f64().unwrap();
        change("range", &|to| to["delay_range_s"] = json!([high + 1.0, high + 2.0]));
    }
    if expected["retry"] == false && expected["config_error"].is_null() {
        change("late", &|to| {
            to["decided_after_s"] =
                json!(expected["decided_after_s"].as_f64().unwrap_or(0.0) + 1.0);
        });
        let other = other_reason(vector["system"].as_str().unwrap(), expected);
        if let Some(other) = other {
            change("reason", &|to| to["reason"] = json!(other));
        }
    }
    for (field, value) in [
        ("terminal_phase", json!("Omitted")),
        ("next_attempt_deadline_s", json!(21)),
        ("strategy", json!("FROM_ANYWHERE")),
        ("action", json!("celebrate")),
        ("allowed_guidance", json!(["Retry"])),
        ("resume_from", json!("A")),
    ] {
        if !expected[field].is_null() {
            change(field, &|to| to[field] = value.clone());
        }
    }
    changes
}

/// A reason that the system gives for something else.
fn other_reason(system: &str, expected: &Value) -> Option<&'static str> {
    let reason = expected["reason"].as_str()?;
    Some(match system {
        "argo" if reason.contains("workflow deadline") => "No more retries left",
        "argo" => "retry exceeded workflow deadline",
        "dagster" if reason.contains("cancel") => "Exceeded max_retries of 1",
        "dagster" => "the run was canceled",
        "zenml" if reason == "run stopped" => "Job backoffLimit reached",
        "zenml" => "run stopped",
        _ => "after guidance Retry",
    })
}

#[test]
fn what_no_dialect_knows_is_named_and_not_counted_as_met() {
    let unknown = json!({
        "system": "cron", "id": "one", "config": {}, "failures": [], "expected": []
    });
    let (code, shown) = run(&[unknown]);
    assert_eq!(code, 0);
    assert_eq!(shown["vectors"][0]["outcome"], "out_of_scope");
    assert!(shown["vectors"][0]["detail"].as_str().unwrap().contains("cron"));
    assert_eq!(shown["systems"]["cron"], json!({"met": 0, "missed": 0, "out_of_scope": 1}));
    let more = json!({
        "system": "zenml", "id": "more", "config": {"retry": {}},
        "failures": [{"class": "Exception", "at_s": 0}],
        "expected": [{"retry": true, "delay_s": 0, "colour": "blue"}]
    });
    let (_, shown) = run(&[more]);
    assert_eq!(shown["vectors"][0]["uncompared"], json!(["failure 1: colour: \"blue\""]));
}

#[test]
fn a_file_that_is_none_is_a_usage_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vectors.json");
    fs::write(&file, "{}").unwrap();
    let (code, _, errors) = conformance(&file, &[]);
    assert_eq!(code, 2);
    assert!(errors.contains("is no list of vectors"), "{errors}");
    assert_eq!(conformance(&folder.path().join("nothing.json"), &[]).0, 2);
}
