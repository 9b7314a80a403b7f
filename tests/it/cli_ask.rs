//! The subcommands that ask and show, as processes.

use std::process::Stdio;

use reprise::proto::{
    Attempt, Constraint, ConstraintKind, Counters, Decision, FailureClass, GetStepResponse,
    Outcome, PolicyReference, Step, StepState,
};
use tokio::{io::AsyncWriteExt as _, process::Command};
use tonic::Status;

use crate::scripted::{Script, ScriptedService, retry};

fn reprise(service: &ScriptedService, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reprise"));
    command
        .args(["--addr", &service.address()])
        .args(arguments)
        .env_remove("REPRISE_NAMESPACE")
        .stdin(Stdio::null());
    command
}

async fn run(mut command: Command) -> (i32, String, String) {
    let output = command.output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn at(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds: 1_900_000_000 + seconds, nanos: 0 })
}

/// A step that failed once at 0 s, is read at 10 s and due at 90 s.
fn waiting() -> Step {
    let policy = PolicyReference {
        name: "nightly".to_owned(),
        revision: 3,
        digest: "ab".to_owned(),
        built_in: false,
    };
    let decision = Decision {
        not_before: at(90),
        rule: "flaky".to_owned(),
        policy: Some(policy.clone()),
        explanation: "The policy's backoff.".to_owned(),
        constraints: vec![Constraint {
            kind: ConstraintKind::Backoff.into(),
            earliest: at(90),
            firm: true,
            binding: true,
            ..Constraint::default()
        }],
        ..retry(1, std::time::Duration::from_secs(90))
    };
    let attempt = Attempt {
        number: 1,
        began_at: at(-5),
        ended_at: at(0),
        outcome: Outcome::Failure.into(),
        class: FailureClass::Transient.into(),
        exit_code: Some(7),
        host: "node-a".to_owned(),
        decision: Some(decision.clone()),
        message: "first line\nconnection refused\n".to_owned(),
        ..Attempt::default()
    };
    Step {
        namespace: "default".to_owned(),
        run: "r1".to_owned(),
        step: "load".to_owned(),
        state: StepState::Waiting.into(),
        counters: Some(Counters { attempts: 1, retries: 1, ..Counters::default() }),
        attempts: vec![attempt],
        policy: Some(policy),
        next_event_at: at(90),
        first_began_at: at(-5),
        decision: Some(decision),
        read_at: at(10),
        ..Step::default()
    }
}

fn shows(step: Step) -> ScriptedService {
    Script::default().step(Ok(GetStepResponse { step: Some(step) })).start()
}

#[tokio::test]
async fn a_step_is_shown_as_a_table() {
    let service = shows(waiting());
    let (code, stdout, stderr) = run(reprise(&service, &["step", "get", "r1", "load"])).await;
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.contains("step        default/r1/load\n"), "{stdout}");
    assert!(stdout.contains("next event  17:48:10Z (in 1m 20s)\n"), "{stdout}");
    let row = stdout.lines().last().unwrap();
    let cells: Vec<_> = row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    assert_eq!(
        cells,
        [
            "1",
            "17:46:35Z",
            "5s",
            "failure (transient)",
            "7",
            "node-a",
            "retry: backoff",
            "connection refused"
        ]
    );
}

#[tokio::test]
async fn a_step_is_shown_as_json() {
    let service = shows(waiting());
    let (_, stdout, _) =
        run(reprise(&service, &["step", "get", "r1", "load", "--output", "json"])).await;
    let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(json["state"], "WAITING");
    assert_eq!(json["next_event_at"], "2030-03-17T17:48:10Z");
    assert_eq!(json["attempts"][0]["seconds"], 5.0);
    assert_eq!(json["decision"]["delay_seconds"], 90.0);
    assert_eq!(json["decision"]["constraints"][0]["kind"], "BACKOFF");
    assert!(json["deadline"].is_null());
}

#[tokio::test]
async fn a_step_is_explained_in_prose() {
    let service = shows(waiting());
    let (_, stdout, _) = run(reprise(&service, &["step", "explain", "r1", "load"])).await;
    assert_eq!(
        stdout,
        "\
default/r1/load waits for its next attempt, due 17:48:10Z (in 1m 20s).

Attempt 1 began at 17:46:35Z on node-a and ended after 5s: failure (transient). Exit code 7.
It said: first line
  connection refused

Decision: retry 17:48:10Z (in 1m 20s), because: backoff, by rule flaky of the policy nightly r3.
The policy's backoff.
  backoff: not before 17:48:10Z (in 1m 20s) (reserved, this decided the instant)

Counted so far: 1 attempt, retries: 1.

Next: The worker that comes back for it begins it; nothing else is needed.
      `reprise step get r1 load` lists the attempts.
"
    );
}

#[tokio::test]
async fn a_policy_without_a_name_is_marked_as_what_it_is() {
    for (built_in, digest, marked) in
        [(true, "ab", "(built-in)"), (false, "ab", "(inline)"), (false, "", "(no longer in force)")]
    {
        let digest = digest.to_owned();
        let policy = Some(PolicyReference { name: String::new(), revision: 0, digest, built_in });
        let service = shows(Step { policy, ..waiting() });
        let (_, stdout, _) = run(reprise(&service, &["step", "get", "r1", "load"])).await;
        assert!(stdout.contains(&format!("policy      {marked}\n")), "{stdout}");
    }
}

#[tokio::test]
async fn an_unknown_step_ends_with_3() {
    let service = Script::default().step(Err(Status::not_found("there is no such step"))).start();
    let (code, stdout, stderr) = run(reprise(&service, &["step", "get", "r1", "load"])).await;
    assert_eq!((code, stdout.as_str()), (3, ""));
    assert_eq!(stderr, "reprise: could not show default/r1/load: there is no such step\n");
}

#[tokio::test]
async fn each_kind_of_error_has_its_code() {
    for (status, expected) in [
        (Status::permission_denied(""), 4),
        (Status::unauthenticated(""), 4),
        (Status::aborted(""), 5),
        (Status::failed_precondition(""), 5),
        (Status::unavailable(""), 6),
        (Status::internal(""), 1),
        (Status::invalid_argument(""), 2),
    ] {
        let service = Script::default().step(Err(status)).start();
        assert_eq!(run(reprise(&service, &["step", "get", "r", "s"])).await.0, expected);
    }
}

#[tokio::test]
async fn a_reader_who_has_read_enough_is_no_error() {
    let service = shows(waiting());
    let shown = reprise(&service, &["step", "get", "r1", "load"]);
    for mut command in [shown, reprise(&service, &["completions", "bash"])] {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().await.unwrap();
        assert!(output.status.success());
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test]
async fn the_waits_of_an_inline_policy_are_shown_without_a_service() {
    let service = Script::default().asleep();
    let flags = ["policy", "schedule", "--max-retries", "3", "--delay", "2s", "--jitter", "equal"];
    let (code, stdout, stderr) = run(reprise(&service, &flags)).await;
    assert_eq!((code, stderr.as_str()), (0, ""));
    let lines: Vec<Vec<_>> = stdout
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    assert_eq!(
        lines,
        [
            ["RETRY", "WAIT", "ELAPSED"],
            ["1", "1s to 2s", "1s to 2s"],
            ["2", "2s to 4s", "3s to 6s"],
            ["3", "4s to 8s", "7s to 14s"],
        ]
    );
}

#[tokio::test]
async fn the_doctor_names_what_is_in_the_way() {
    let asleep = Script::default().asleep();
    let (code, stdout, _) = run(reprise(&asleep, &["doctor"])).await;
    assert_eq!(code, 6);
    assert!(stdout.contains("FAIL  reach"), "{stdout}");
    assert!(stdout.contains("next: start the service (`reprise serve`)"), "{stdout}");

    // A socket that nobody listens on any more.
    let path = asleep.folder().join("reprise.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let (_, stdout, _) = run(reprise(&asleep, &["doctor"])).await;
    assert!(stdout.contains("left behind by a service that is gone"), "{stdout}");

    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "").unwrap();
    let (_, stdout, _) = run(reprise(&asleep, &["doctor"])).await;
    assert!(stdout.contains("is not a socket"), "{stdout}");
}

#[tokio::test]
async fn the_doctor_tells_another_protocol_and_another_service_apart() {
    let http1 = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = http1.local_addr().unwrap().to_string();
    let server = tokio::spawn(async move {
        while let Ok((mut connection, _)) = http1.accept().await {
            let _ = connection.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let elsewhere = Script::default().asleep();
    let (code, stdout, _) = run(reprise(&elsewhere, &["--addr", &address, "doctor"])).await;
    assert_eq!(code, 2, "an address may be given once: {stdout}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_reprise"));
    command.env("REPRISE_ADDR", address).arg("doctor");
    let (code, stdout, _) = run(command).await;
    assert_eq!(code, 1, "{stdout}");
    assert!(stdout.contains("FAIL  protocol     does not speak gRPC"), "{stdout}");
    server.abort();

    let other = Script::default().start();
    let (code, stdout, _) = run(reprise(&other, &["doctor"])).await;
    assert_eq!(code, 1, "{stdout}");
    assert!(stdout.contains("no reprise.v1.AdminService"), "{stdout}");
}

#[tokio::test]
async fn a_service_that_is_not_ready_fails_its_probe() {
    for service in [Script::default().asleep(), Script::default().start()] {
        assert_eq!(run(reprise(&service, &["healthcheck"])).await.0, 1);
    }
}
