//! `reprise simulate` as a process.

use std::{fs, process::Command};

use serde_json::Value;

fn storm(args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reprise"));
    let output = command.args(["simulate", "storm"]).args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// Few steps, so that it takes no time.
const FEW: [&str; 8] = ["--seeds", "2", "--steps", "50", "--fresh", "1", "--capacity", "20"];

#[test]
fn a_storm_is_told_for_machines_and_equal_seeds_tell_the_same() {
    let args = [&["budget", "--output", "json"], FEW.as_slice()].concat();
    let (code, json, progress) = storm(&args);
    assert_eq!(code, 0, "{progress}");
    assert!(progress.contains("budget: Reprise\n"), "{progress}");
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["seeds"], serde_json::json!([1, 2]));
    let told = &report["storms"][0];
    assert_eq!(told["scenario"]["name"], "budget");
    assert_eq!(told["scenario"]["steps"], 50);
    assert_eq!(told["scenario"]["recovery_seconds"], 10.0);
    let strategies = told["strategies"].as_array().unwrap();
    let names: Vec<&str> = strategies.iter().filter_map(|row| row["strategy"].as_str()).collect();
    let expected = [
        "exponential",
        "full_jitter",
        "fixed",
        "token_bucket",
        "finagle",
        "envoy",
        "limits",
        "reprise",
        "oracle",
    ];
    assert_eq!(names, expected);
    for row in strategies {
        assert!(row["source"].as_str().is_some_and(|source| !source.is_empty()));
        assert_eq!(row["runs"].as_array().map(Vec::len), Some(2));
        assert!(matches!(row["worst_seed"].as_u64(), Some(1 | 2)), "{row}");
        let figures = &row["median"];
        let [steps, done, lost, waiting] = ["steps", "done", "lost", "waiting"]
            .map(|name| figures[name].as_f64().unwrap_or_else(|| panic!("{name}: {figures}")));
        assert!(0.0 < steps && done + lost + waiting <= steps + 1.0);
        assert!(figures["over_budget"].is_number(), "{figures}");
    }
    assert_eq!(storm(&args).1, json);
    let other = [args.as_slice(), &["--seed", "3"]].concat();
    assert_ne!(storm(&other).1, json);
}

#[test]
fn a_page_and_its_plots_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let (page, plots) = (folder.path().join("storms.md"), folder.path().join("storms"));
    let to = ["--report", page.to_str().unwrap(), "--plots", plots.to_str().unwrap()];
    let (code, table, errors) = storm(&[&["first-429"], FEW.as_slice(), &to].concat());
    assert_eq!(code, 0, "{errors}");
    assert!(table.starts_with("first-429: ") && table.contains("full jitter"), "{table}");
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("## first-429") && page.contains("| Reprise | "), "{page}");
    for what in ["load", "backlog"] {
        assert!(page.contains(&format!("(storms/first-429-{what}.svg)")), "{page}");
        let svg = fs::read_to_string(plots.join(format!("first-429-{what}.svg"))).unwrap();
        assert!(svg.starts_with("<svg "));
    }
}

#[test]
fn what_cannot_be_simulated_is_told_with_what_can() {
    for (args, part) in [
        (&["tsunami"] as &[&str], "accepted: outage, outage-slow-start,"),
        (&[], "<PRESET>"),
        (&["outage", "--seeds", "0"], "1..=1000"),
        (&["outage", "--capacity", "0"], "accepted: 1 to 100000"),
        (&["outage", "--steps", "many"], "--steps"),
        (&["outage", "--steps", "1000001"], "1000000"),
        (&["outage", "--max-retries", "1001"], "1000"),
    ] {
        let (code, told, errors) = storm(args);
        assert_eq!((code, told.as_str()), (2, ""), "{args:?}");
        assert!(errors.contains(part), "{args:?}: {errors}");
    }
    let nowhere = ["blips", "--report", "/dev/null/page.md"];
    let (code, told, errors) = storm(&[&nowhere, FEW.as_slice()].concat());
    assert_eq!((code, told.as_str()), (1, ""));
    assert!(errors.contains("could not write /dev/null/page.md"), "{errors}");
}
