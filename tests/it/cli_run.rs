//! `reprise run` as a process: a pipeline of commands that is tried again and goes
//! on where it failed.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

use crate::process::Server;

/// Longer than anything here takes, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(120);

/// Ten steps; the seventh fails until somebody has seen it fail.
const PIPELINE: &str = r#"
for n in 01 02 03 04 05 06 07 08 09 10; do
  "$REPRISE" exec --quiet --step "s$n" --max-retries 0 -- sh -c '
    echo "$REPRISE_STEP in attempt $REPRISE_RUN_ATTEMPT of $REPRISE_RUN" >> log
    [ "$REPRISE_STEP" != s07 ] || [ -e seen ] || { touch seen; exit 1; }
  ' || exit 1
done
"#;

async fn reprise(server: &Server, folder: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reprise"));
    command
        .args(args)
        .env("REPRISE_ADDR", &server.address)
        .env("REPRISE", env!("CARGO_BIN_EXE_reprise"))
        .env_remove("REPRISE_NAMESPACE")
        .current_dir(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let done = timeout(PATIENCE, command.output()).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (done.status.code(), text(done.stdout), text(done.stderr))
}

#[tokio::test]
async fn a_pipeline_that_fails_at_the_seventh_step_goes_on_there() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let server = Server::start(&folder.join("data"), "127.0.0.1:0").await;
    let exec = ["run", "exec", "nightly", "--max-retries", "1", "--delay", "10ms", "--"];
    let (code, _, told) =
        reprise(&server, folder, &[&exec[..], &["sh", "-c", PIPELINE]].concat()).await;
    assert_eq!(code, Some(0), "{told}");

    let log = std::fs::read_to_string(folder.join("log")).unwrap();
    let of = |range: std::ops::RangeInclusive<u32>, attempt: u32| {
        range.map(move |n| format!("s{n:02} in attempt {attempt} of nightly"))
    };
    let expected: Vec<String> = of(1..=7, 1).chain(of(7..=10, 2)).collect();
    assert_eq!(log.lines().collect::<Vec<_>>(), expected);

    let (_, steps, _) =
        reprise(&server, folder, &["run", "steps", "nightly", "--state", "succeeded"]).await;
    assert_eq!(steps.lines().count(), 11, "{steps}");
    assert!(steps.contains("s07"), "{steps}");
    let (_, run, _) = reprise(&server, folder, &["run", "get", "nightly", "-o", "json"]).await;
    let run: serde_json::Value = serde_json::from_str(&run).unwrap();
    assert_eq!((&run["state"], &run["counters"]["attempts"]), (&"SUCCEEDED".into(), &2.into()));
}

#[tokio::test]
async fn what_a_step_made_fail_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let server = Server::start(&folder.join("data"), "127.0.0.1:0").await;
    let policies = "policies: {pipelines: {max_retries: 1, backoff: {fixed: {delay: 0s}}, run: {ignore_step_failures: true}}}";
    std::fs::write(folder.join("policies.yaml"), policies).unwrap();
    let (code, _, told) = reprise(&server, folder, &["policy", "apply", "policies.yaml"]).await;
    assert_eq!(code, Some(0), "{told}");
    let step = r#""$REPRISE" exec --quiet --step s --max-retries 0 -- false"#;
    for (run, script, attempts) in [("of-step", step, 1), ("of-itself", "exit 3", 2)] {
        let exec = ["run", "exec", run, "--policy", "pipelines", "--", "sh", "-c", script];
        let (code, _, told) = reprise(&server, folder, &exec).await;
        assert_ne!(code, Some(0), "{told}");
        let (_, shown, _) = reprise(&server, folder, &["run", "get", run, "-o", "json"]).await;
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown["counters"]["attempts"], attempts, "{run}: {told}");
    }
}

#[tokio::test]
async fn a_command_of_several_actions_resumes_at_the_one_that_failed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let server = Server::start(&folder.join("data"), "127.0.0.1:0").await;
    let script = r#"
        echo "from '$REPRISE_RESUME_FROM'" >> log
        echo extract >> "$REPRISE_ACTION_FILE"
        echo load >> "$REPRISE_ACTION_FILE"
        [ -n "$REPRISE_RESUME_FROM" ]
    "#;
    let exec = ["exec", "--step", "s", "--max-retries", "1", "--delay", "1ms", "--", "sh", "-c"];
    let (code, _, told) = reprise(&server, folder, &[&exec[..], &[script]].concat()).await;
    assert_eq!(code, Some(0), "{told}");
    let log = std::fs::read_to_string(folder.join("log")).unwrap();
    assert_eq!(log, "from ''\nfrom 'load'\n");
}

#[tokio::test]
async fn what_is_wrong_with_a_run_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), "127.0.0.1:0").await;
    let told = async |args: &[&str]| {
        let (code, _, told) = reprise(&server, folder.path(), args).await;
        assert_ne!(code, Some(0), "{told}");
        told
    };
    let unknown = told(&["run", "get", "nobody"]).await;
    assert!(unknown.contains("there is no run \"nobody\""), "{unknown}");
    let state = told(&["run", "steps", "r", "--state", "done"]).await;
    assert!(state.contains("accepted: waiting, running, held"), "{state}");
}
