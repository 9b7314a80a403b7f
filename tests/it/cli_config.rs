//! `reprise config` as a process.

use std::{fs, process::Command};

fn config(args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reprise"));
    command.arg("config").args(args).env_remove("REPRISE_CONFIG").env("NO_COLOR", "1");
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_defaults_are_printed_and_are_a_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let (code, defaults, _) = config(&["default"]);
    assert_eq!(code, 0);
    assert!(defaults.contains("\n[store]\n"));
    let file = folder.path().join("reprise.toml");
    fs::write(&file, &defaults).unwrap();
    let (code, shown, errors) = config(&["check", file.to_str().unwrap(), "--output", "json"]);
    assert_eq!((code, errors.as_str()), (0, ""));
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["server"]["listen"], serde_json::json!(["127.0.0.1:7070"]));
}

#[test]
fn everything_wrong_is_told_at_once_settings_and_policies() {
    let folder = tempfile::tempdir().unwrap();
    let (file, policies) =
        (folder.path().join("reprise.toml"), folder.path().join("policies.yaml"));
    fs::write(&file, "[server]\ndrain = \"soon\"\nlisen = []\n").unwrap();
    fs::write(&policies, "policies: { p: { retries: 3 }, q: { max_retries: x } }\n").unwrap();
    let (code, shown, errors) =
        config(&["check", file.to_str().unwrap(), "--policies", policies.to_str().unwrap()]);
    assert_eq!((code, shown.as_str()), (2, ""));
    for part in [
        "reprise.toml:2:9: server.drain: ",
        "reprise.toml:3:1: server.lisen: ",
        "policies.yaml:1:18: policies.p.retries: ",
        "policies.yaml:1:50: policies.q.max_retries: ",
    ] {
        assert!(errors.contains(part), "{part}\n{errors}");
    }
    assert!(errors.contains("^"), "{errors}");
}

#[test]
fn the_rights_that_a_server_needs_in_redis_are_printed() {
    let acl = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reprise"));
        let output = command.args(["store", "acl"]).args(args).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, line) = acl(&["--user", "retries"]);
    assert_eq!(code, 0);
    let rules = "ACL SETUSER retries on resetkeys ~reprise:* resetchannels -@all +asking ";
    assert!(line.starts_with(rules), "{line}");
    assert_eq!(line.lines().count(), 1);
    let (_, json) = acl(&["--output", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["user"], "reprise");
    assert_eq!(json["command"], line.trim_end().replace("retries", "reprise"));
    assert_eq!(acl(&["--user", "two words"]).0, 2);
}
