//! The command line against a server of its own: what one subcommand writes,
//! another one shows.

use std::{fs, path::Path, process::Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::process::Server;

/// A server, and the folder that it and the commands work in.
struct Stage {
    folder: TempDir,
    server: Server,
}

/// How a command ended: its code, stdout and stderr.
type Ended = (i32, String, String);

impl Stage {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(&folder.path().join("data"), "127.0.0.1:0").await;
        Self { folder, server }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    async fn run(&self, arguments: &[&str]) -> Ended {
        let output = Command::new(env!("CARGO_BIN_EXE_reprise"))
            .args(["--addr", &self.server.address])
            .args(arguments)
            .current_dir(self.path())
            .env_remove("REPRISE_NAMESPACE")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// Runs what has to succeed, and returns what it says.
    async fn says(&self, arguments: &[&str]) -> String {
        let (code, stdout, stderr) = self.run(arguments).await;
        assert_eq!(code, 0, "{arguments:?}: {stderr}");
        stdout
    }

    /// The same as JSON.
    async fn json(&self, arguments: &[&str]) -> Value {
        let stdout = self.says(&[arguments, &["--output", "json"]].concat()).await;
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }
}

/// The cells of a table's row that begins with `first`.
fn row(table: &str, first: &str) -> Vec<String> {
    let cells = |line: &str| {
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
    };
    let rows = table.lines().map(cells);
    let mut rows = rows.filter(|row: &Vec<String>| row.first().is_some_and(|cell| cell == first));
    rows.next().unwrap_or_else(|| panic!("no row {first:?} in\n{table}"))
}

#[tokio::test]
async fn a_command_is_retried_as_its_policy_says_and_its_story_can_be_read() {
    let stage = Stage::start().await;
    let exec = |script: &'static str| {
        let flags = ["exec", "--run", "r1", "--step", "load", "--max-retries", "3"];
        let backoff = ["--delay", "10ms", "--", "sh", "-c", script];
        [&flags[..], &backoff[..]].concat()
    };
    let twice =
        "test -e twice && exit 0; test -e once && touch twice; touch once; echo no >&2; exit 7";
    let (code, _, stderr) = stage.run(&exec(twice)).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("policy (inline)"), "{stderr}");

    let step = stage.json(&["step", "get", "r1", "load"]).await;
    assert_eq!(step["state"], "SUCCEEDED");
    let outcomes: Vec<_> =
        step["attempts"].as_array().unwrap().iter().map(|attempt| &attempt["outcome"]).collect();
    assert_eq!(outcomes, ["FAILURE", "FAILURE", "SUCCESS"]);
    assert_eq!(step["attempts"][0]["exit_code"], 7);
    assert_eq!(step["attempts"][0]["message"], "no");
    let told = stage.says(&["step", "explain", "r1", "load"]).await;
    assert!(told.starts_with("default/r1/load "), "{told}");

    // It is over: the command is not run again.
    let (code, _, stderr) = stage.run(&exec("touch thrice")).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(!stage.path().join("thrice").exists());
}

#[tokio::test]
async fn a_command_that_never_succeeds_ends_with_its_own_code() {
    let stage = Stage::start().await;
    let command = ["--delay", "1ms", "--", "sh", "-c", "echo x >> ran; exit 9"];
    let flags = ["exec", "--run", "r", "--step", "s", "--max-retries", "2"];
    let (code, _, stderr) = stage.run(&[&flags[..], &command[..]].concat()).await;
    assert_eq!(code, 9, "{stderr}");
    assert_eq!(fs::read_to_string(stage.path().join("ran")).unwrap(), "x\nx\nx\n");
    let step = stage.json(&["step", "get", "r", "s"]).await;
    assert_eq!(
        (&step["state"], &step["decision"]["reason"]),
        (&"FAILED".into(), &"RETRIES_SPENT".into())
    );
}

#[tokio::test]
async fn a_namespace_is_created_changed_listed_and_deleted() {
    let stage = Stage::start().await;
    let created =
        stage.says(&["namespace", "create", "team", "--lease", "45s", "--retention", "2d"]).await;
    assert_eq!(row(&created, "lease"), ["lease", "45s"]);
    assert_eq!(row(&created, "retention"), ["retention", "2d"]);
    assert_eq!(row(&created, "default policy"), ["default policy", "(built-in)"]);
    let (code, _, stderr) = stage.run(&["namespace", "create", "team"]).await;
    assert_eq!(code, 5, "{stderr}");

    let before = stage.json(&["namespace", "get", "team"]).await;
    let updated = stage.json(&["namespace", "update", "team", "--max-retries-ceiling", "4"]).await;
    assert_eq!(updated["settings"]["max_retries_ceiling"], 4);
    assert_eq!(updated["settings"]["lease_seconds"], 45.0, "what is not named stays");
    let etag = before["etag"].as_str().unwrap();
    let late = ["namespace", "update", "team", "--lease", "1m", "--etag", etag];
    let (code, _, stderr) = stage.run(&late).await;
    assert_eq!(code, 5, "it changed since: {stderr}");

    let list = stage.says(&["namespace", "list"]).await;
    assert_eq!(row(&list, "team"), ["team", "(built-in)", "0"]);
    assert_eq!(row(&list, "default"), ["default", "(built-in)", "0"]);
    stage.says(&["namespace", "delete", "team"]).await;
    let (code, _, stderr) = stage.run(&["namespace", "get", "team"]).await;
    assert_eq!(code, 3, "{stderr}");
    let (code, _, stderr) = stage.run(&["namespace", "delete", "default"]).await;
    assert_eq!(code, 5, "{stderr}");
}

const POLICIES: &str = "
policies:
  nightly:
    max_retries: 2
    max_elapsed: 1d
    backoff: {fixed: {delay: 10s}, jitter: none}
    rules:
      - {name: bad-input, match: {exit_codes: [2]}, stop: at_once}
  hourly: {max_retries: 1}
";

#[tokio::test]
async fn policies_are_applied_listed_shown_and_deleted() {
    let stage = Stage::start().await;
    assert_eq!(stage.says(&["policy", "list"]).await.lines().count(), 1, "nothing but the header");
    stage.write("policies.yaml", POLICIES);
    stage.says(&["policy", "apply", "policies.yaml"]).await;
    stage.write("policies.yaml", &POLICIES.replace("max_retries: 2", "max_retries: 3"));
    stage.says(&["policy", "apply", "policies.yaml"]).await;

    let list = stage.says(&["policy", "list"]).await;
    assert_eq!(row(&list, "nightly")[..5], ["nightly", "2", "3", "1d", "1"]);
    assert_eq!(row(&list, "hourly")[..5], ["hourly", "1", "1", "-", "0"], "it did not change");
    let shown = stage.says(&["policy", "show", "nightly"]).await;
    assert!(
        shown.starts_with("# nightly r2, of ") && shown.contains("max_retries: 3\n"),
        "{shown}"
    );
    let first = stage.says(&["policy", "show", "nightly", "--revision", "1"]).await;
    assert!(first.contains("max_retries: 2\n"), "{first}");
    // What is shown is what a file takes.
    let body: String = shown.lines().skip(1).map(|line| format!("    {line}\n")).collect();
    stage.write("again.yaml", &format!("policies:\n  nightly:\n{body}"));
    stage.says(&["policy", "apply", "again.yaml"]).await;
    assert_eq!(row(&stage.says(&["policy", "list"]).await, "nightly")[1], "2", "nothing changed");

    stage.says(&["policy", "apply", "again.yaml", "-n", "elsewhere"]).await;
    let there = stage.says(&["policy", "list", "-n", "elsewhere"]).await;
    assert_eq!(row(&there, "nightly")[1], "1", "in the namespace that was asked for");
    stage.write("named.yaml", &format!("{POLICIES}namespaces: {{a: {{}}}}\n"));
    let (code, _, stderr) = stage.run(&["policy", "apply", "named.yaml", "-n", "b"]).await;
    assert!(code == 2 && stderr.contains("names namespaces itself"), "{code} {stderr}");

    let late = ["policy", "delete", "nightly", "--etag", "r1"];
    let (code, _, stderr) = stage.run(&late).await;
    assert_eq!(code, 5, "{stderr}");
    stage.says(&["policy", "delete", "nightly"]).await;
    let list = stage.says(&["policy", "list"]).await;
    assert!(!list.contains("nightly") && list.contains("hourly"), "{list}");
    let shown = stage.says(&["policy", "show", "nightly"]).await;
    assert!(shown.lines().next().unwrap().ends_with(", deleted"), "{shown}");
    let (code, _, stderr) = stage.run(&["policy", "delete", "nobody"]).await;
    assert_eq!(code, 3, "{stderr}");
}

#[tokio::test]
async fn targets_are_created_changed_paused_listed_and_deleted() {
    let stage = Stage::start().await;
    assert_eq!(stage.says(&["target", "list"]).await.lines().count(), 1, "nothing but the header");
    let flags = ["--rate", "100/s", "--burst", "20", "--concurrency", "10", "--budget", "0.2"];
    let created = stage.says(&[&["target", "create", "db"], &flags[..]].concat()).await;
    assert!(created.starts_with("# db r"), "{created}");
    let list = stage.says(&["target", "list"]).await;
    assert_eq!(row(&list, "db")[2..], ["100 in 1s", "10", "0.2", "none", "-"]);

    // Only what is named changes.
    let updated = ["target", "update", "db", "--rate", "5/10m", "--rate-on", "retries"];
    let updated = stage.json(&updated).await;
    assert_eq!(updated["target"]["concurrency"]["max"], 10);
    let update = ["target", "update", "db", "--budget", "none", "--every-step"];
    let json = stage.json(&update).await;
    assert_eq!(json["target"]["rate"]["on"], "retries");
    assert_eq!((&json["target"]["budget"], &json["pause"]), (&Value::Null, &Value::Null));
    assert_eq!(json["target"]["every_step"], true);
    let list = stage.says(&["target", "list"]).await;
    assert_eq!(row(&list, "db")[2..], ["5 retries in 10m", "10", "no limit", "none", "-"]);
    let etag = updated["etag"].as_str().unwrap();
    let (code, _, stderr) =
        stage.run(&["target", "update", "db", "--concurrency", "1", "--etag", etag]).await;
    assert_eq!(code, 5, "{stderr}");

    let pause = ["target", "pause", "db", "--reason", "moved", "--by", "ann", "--for", "1h"];
    let paused = stage.says(&pause).await;
    assert!(paused.contains("\n# paused: moved by ann since "), "{paused}");
    let shown = stage.json(&["target", "get", "db"]).await;
    assert_eq!(
        (&shown["pause"]["reason"], &shown["pause"]["by"]),
        (&"moved".into(), &"ann".into())
    );
    assert!(shown["pause"]["until"].is_string(), "{shown}");
    assert!(row(&stage.says(&["target", "list"]).await, "db")[6].starts_with("moved by ann"));
    let watched = stage.says(&["target", "watch", "db", "--count", "2", "--every", "1ms"]).await;
    assert_eq!(watched.lines().count(), 3, "a header and two looks: {watched}");
    assert!(watched.lines().nth(2).unwrap().contains(" 0/10 "), "{watched}");
    let resumed = stage.json(&["target", "resume", "db"]).await;
    assert_eq!(resumed["pause"], Value::Null);

    // What is shown is what a file takes.
    let shown = stage.says(&["target", "get", "db"]).await;
    let body: String = shown.lines().skip(1).map(|line| format!("    {line}\n")).collect();
    stage.write("targets.yaml", &format!("targets:\n  db:\n{body}  gpu: {{}}\n"));
    let applied = stage.says(&["target", "apply", "targets.yaml"]).await;
    assert!(applied.contains("target default/db r") && applied.contains("target default/gpu r"));
    let again = stage.json(&["target", "get", "db"]).await;
    assert_eq!(again["revision"], resumed["revision"], "it did not change");

    stage.says(&["namespace", "update", "default", "--default-target", "gpu"]).await;
    let (code, _, stderr) = stage.run(&["target", "delete", "gpu"]).await;
    assert!(code != 0 && stderr.contains("TARGET_IS_DEFAULT"), "{stderr}");
    stage.says(&["target", "delete", "db"]).await;
    assert!(!stage.says(&["target", "list"]).await.contains("db"));
}

#[tokio::test]
async fn a_target_that_does_not_hold_is_refused_with_what_would_be_accepted() {
    let stage = Stage::start().await;
    let (code, _, stderr) =
        stage.run(&["target", "create", "db", "--rate", "0/s", "--concurrency", "0"]).await;
    assert!(code != 0, "{stderr}");
    for told in
        ["target.target.rate.limit: 0: accepted: 1 or more", "target.target.concurrency.max"]
    {
        assert!(stderr.contains(told), "{stderr}");
    }
    for (arguments, told) in [
        (&["create", "db", "--rate", "fast"][..], "such as 100/s or 5/10m, or none"),
        (&["create", "db", "--rate", "none", "--burst", "3"], "leave --burst"),
        (&["create", "db", "--burst", "3"], "--rate"),
        (&["update", "db"], "nothing to change was named"),
        (&["pause", "db"], "--reason"),
    ] {
        let (code, _, stderr) = stage.run(&[&["target"], arguments].concat()).await;
        assert!(code == 2 && stderr.contains(told), "{arguments:?}: {code}: {stderr}");
    }
    let (code, _, stderr) = stage.run(&["target", "get", "nobody"]).await;
    assert_eq!(code, 3, "{stderr}");
    stage.write("targets.yaml", "targets:\n  db: { rate: { limt: 3 } }\n");
    let (code, _, stderr) = stage.run(&["target", "apply", "targets.yaml"]).await;
    assert!(code == 2 && stderr.contains("targets.yaml:2:17: targets.db.rate.limt: "), "{stderr}");
}

#[tokio::test]
async fn a_sequence_of_failures_is_decided_and_nothing_is_written() {
    let stage = Stage::start().await;
    stage.write("policies.yaml", POLICIES);
    stage.says(&["policy", "apply", "policies.yaml"]).await;
    let failing = |failure: &'static str| ["evaluate", "--policy", "nightly", "--failure", failure];
    let table = stage.says(&failing("exit=1,times=5")).await;
    assert_eq!(
        row(&table, "1"),
        ["1", "FAILURE exit 1", "retry", "backoff", "-", "10s", "10s", "10s"]
    );
    assert_eq!(row(&table, "3")[2..4], ["stop", "retries spent"]);
    assert!(table.ends_with("the step ends there; 2 more failures do not happen\n"), "{table}");
    let decided = stage.json(&failing("exit=2")).await;
    assert_eq!(decided[0]["verdict"], "STOP");
    assert_eq!((&decided[0]["reason"], &decided[0]["rule"]), (&"RULE".into(), &"bad-input".into()));

    stage.write("failures.json", r#"[{"class": "TRANSIENT", "code": 503, "times": 2}]"#);
    let inline = ["evaluate", "--max-retries", "1", "--delay", "2s", "--jitter", "none"];
    let decided = stage.json(&[&inline[..], &["--file", "failures.json"]].concat()).await;
    assert_eq!(decided[0]["delay_seconds"], 2.0);
    assert_eq!(decided[1]["verdict"], "STOP");
    let (code, _, stderr) =
        stage.run(&["evaluate", "--policy", "nobody", "--failure", "exit=1"]).await;
    assert_eq!(code, 3, "{stderr}");
    let list = stage.says(&["namespace", "list"]).await;
    assert_eq!(row(&list, "default")[2], "0", "no step was begun");
}
