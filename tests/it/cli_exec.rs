//! `reprise exec` as a process, against a service that answers from a script.

use std::{
    process::{Output, Stdio},
    time::Duration,
};

use reprise::proto::{
    Failure, FailureClass, HeartbeatResponse, LeaseState, Reason, Verdict,
    report_attempt_request::Outcome,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStderr, Command},
};
use tonic::Status;

use crate::scripted::{
    Call, Script, ScriptedService, decision, done, grant, granted, held, refused, reported, retry,
    stop, wait,
};

const SOON: Duration = Duration::from_millis(5);
const FAR: Duration = Duration::from_secs(3600);

fn reprise(service: &ScriptedService) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reprise"));
    command
        .args(["--addr", &service.address()])
        .env_remove("REPRISE_NAMESPACE")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// `reprise exec --step load FLAGS -- sh -c SCRIPT`
fn exec(service: &ScriptedService, flags: &[&str], script: &str) -> Command {
    let mut command = reprise(service);
    command.args(["exec", "--step", "load"]).args(flags).args(["--", "sh", "-c", script]);
    command
}

async fn run(mut command: Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().await.unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (status.code().unwrap(), text(&stdout), text(&stderr))
}

/// A process whose stderr is read line by line as it comes.
struct Watched {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
}

impl Watched {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Waits for a line that contains `text`.
    async fn says(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        while let Some(line) = self.lines.next_line().await.unwrap() {
            if line.contains(text) {
                return line;
            }
            seen.push(line);
        }
        panic!("never said {text:?}, but {seen:#?}");
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for its end: exit code and the rest of stderr.
    async fn ends(mut self) -> (i32, String) {
        let mut rest = String::new();
        while let Some(line) = self.lines.next_line().await.unwrap() {
            rest += &line;
            rest += "\n";
        }
        (self.child.wait().await.unwrap().code().unwrap(), rest)
    }
}

fn failure(outcome: &Option<Outcome>) -> &Failure {
    match outcome {
        Some(Outcome::Failure(failure)) => failure,
        other => panic!("no failure: {other:?}"),
    }
}

#[tokio::test]
async fn a_command_that_succeeds_is_run_once_and_reported() {
    let service = Script::default().begin(granted(grant(1))).report(reported(done())).start();
    let (code, stdout, stderr) =
        run(exec(&service, &["--run", "r1", "-n", "nightly"], "echo out; echo err >&2")).await;
    assert_eq!((code, stdout.as_str()), (0, "out\n"));
    assert!(stderr.contains("reprise: load attempt 1 (run r1, policy default r1)\n"), "{stderr}");
    assert!(stderr.contains("\nerr\n"), "{stderr}");
    assert!(stderr.contains("reprise: attempt 1 succeeded after"), "{stderr}");

    let begin = &service.begins()[0];
    assert_eq!((begin.namespace.as_str(), begin.run.as_str()), ("nightly", "r1"));
    assert_eq!(begin.request_id.len(), 16);
    assert!(begin.worker.starts_with(&format!("{}:", begin.host)));
    let report = &service.reports()[0];
    assert_eq!((report.fence, report.step.as_str()), (101, "load"));
    assert!(matches!(report.outcome, Some(Outcome::Success(_))));
}

#[tokio::test]
async fn a_command_that_fails_is_run_again_when_the_service_says_so() {
    let service = Script::default()
        .begin(granted(grant(1)))
        .report(reported(retry(1, SOON)))
        .begin(refused(wait(SOON)))
        .begin(granted(grant(2)))
        .report(reported(done()))
        .start();
    let flags = ["--max-retries", "3", "--delay", "2s"];
    let (code, _, stderr) = run(exec(&service, &flags, "exit $((2 - REPRISE_ATTEMPT))")).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("attempt 1 failed: exit code 1 after"), "{stderr}");
    let retry = "reprise: retry 1 of 3 in 5ms (backoff: exponential, full jitter) at ";
    assert!(stderr.contains(retry), "{stderr}");

    let begins = service.begins();
    assert_eq!(begins.len(), 3);
    assert!(begins.iter().all(|begin| begin.run == begins[0].run && begin.run.len() == 36));
    assert_ne!(begins[0].request_id, begins[1].request_id);
    assert_eq!(failure(&service.reports()[0].outcome).exit_code, Some(1));
}

#[tokio::test]
async fn it_ends_with_the_commands_code_when_the_service_says_stop() {
    let service = Script::default()
        .begin(granted(grant(1)))
        .report(reported(retry(1, SOON)))
        .begin(granted(grant(2)))
        .report(reported(stop(2)))
        .start();
    let (code, _, stderr) = run(exec(&service, &[], "exit $((10 * REPRISE_ATTEMPT))")).await;
    assert_eq!(code, 20);
    assert!(stderr.ends_with("reprise: stop: retries spent after 2 attempts\n"), "{stderr}");
}

#[tokio::test]
async fn a_step_that_was_over_before_is_not_run() {
    for (answer, expected) in [(done(), 0), (stop(4), 78)] {
        let service = Script::default().begin(refused(answer)).start();
        let (code, stdout, _) = run(exec(&service, &[], "echo ran")).await;
        assert_eq!((code, stdout.as_str()), (expected, ""));
    }
}

#[tokio::test]
async fn once_ends_with_a_code_for_each_verdict() {
    let hold = decision(Verdict::Hold, Reason::Exhausted, 1);
    let skipped = decision(Verdict::Done, Reason::Skipped, 1);
    let answers = [(retry(1, FAR), 75), (wait(FAR), 75), (hold, 75), (stop(1), 78), (skipped, 0)];
    for (answer, expected) in answers {
        let service = Script::default().begin(granted(grant(1))).report(reported(answer)).start();
        let (code, _, stderr) = run(exec(&service, &["--once", "--run", "r"], "exit 9")).await;
        assert_eq!(code, expected, "{stderr}");
        assert_eq!(failure(&service.reports()[0].outcome).exit_code, Some(9));
    }
}

#[tokio::test]
async fn once_waits_for_its_slot_but_not_longer_than_it_may() {
    let soon = Script::default()
        .begin(refused(wait(SOON)))
        .begin(granted(grant(2)))
        .report(reported(done()))
        .start();
    assert_eq!(run(exec(&soon, &["--once", "--run", "r"], "true")).await.0, 0);

    let late = Script::default().begin(refused(wait(FAR))).start();
    let flags = ["--once", "--run", "r", "--max-wait", "10m"];
    let (code, _, stderr) = run(exec(&late, &flags, "true")).await;
    assert_eq!(code, 75);
    assert!(stderr.contains("retry later: due in 1h\n"), "{stderr}");
}

#[tokio::test]
async fn the_command_finds_its_attempt_in_the_environment() {
    let now = prost_types::Timestamp { seconds: 1_900_000_000, nanos: 0 };
    let end = prost_types::Timestamp { seconds: 1_900_000_090, nanos: 0 };
    let grant = reprise::proto::Grant {
        resume_from: "upload".to_owned(),
        began_at: Some(now),
        ends_by: Some(end),
        ..grant(3)
    };
    let service = Script::default().begin(granted(grant)).report(reported(done())).start();
    let (code, stdout, _) =
        run(exec(&service, &["--run", "r1"], "env | grep ^REPRISE_ | grep -v ACTION_FILE | sort"))
            .await;
    assert_eq!(code, 0);
    let expected = format!(
        "REPRISE_ADDR={}\nREPRISE_ATTEMPT=3\nREPRISE_FENCE=103\nREPRISE_NAMESPACE=default\n\
         REPRISE_RESUME_FROM=upload\nREPRISE_RUN=r1\nREPRISE_RUN_ATTEMPT=\nREPRISE_STEP=load\n\
         REPRISE_TIME_LEFT=90\n",
        service.address()
    );
    assert_eq!(stdout, expected);
}

#[tokio::test]
async fn stderr_passes_byte_by_byte_and_its_end_is_the_message() {
    let service = Script::default().begin(granted(grant(1))).report(reported(stop(1))).start();
    let script = "printf 'first\\n' >&2; head -c 100000 /dev/zero | tr '\\0' 'x' >&2; \
                  printf '\\377\\000 the last words\\n' >&2; exit 1";
    let mut command = exec(&service, &["--quiet"], script);
    let output = command.output().await.unwrap();
    let mut expected = b"first\n".to_vec();
    expected.extend(vec![b'x'; 100_000]);
    expected.extend(b"\xff\0 the last words\n");
    assert!(output.stderr == expected, "{} bytes", output.stderr.len());
    let reports = service.reports();
    let failure = failure(&reports[0].outcome);
    assert!(failure.message.len() <= 512 && failure.message.ends_with("the last words"));
    assert_eq!(failure.class(), FailureClass::Failure);
    assert!(failure.duration.is_some());
}

#[tokio::test]
async fn stdin_is_the_commands_own() {
    let service = Script::default().begin(granted(grant(1))).report(reported(done())).start();
    let mut command = exec(&service, &[], "cat");
    let folder = service.folder().join("in");
    std::fs::write(&folder, b"through\n").unwrap();
    command.stdin(std::fs::File::open(folder).unwrap());
    assert_eq!(run(command).await.1, "through\n");
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_ended_and_reported_as_a_timeout() {
    let service = Script::default().begin(granted(grant(1))).report(reported(stop(1))).start();
    let flags = ["--timeout", "50ms"];
    let (code, _, stderr) = run(exec(&service, &flags, "sleep 60")).await;
    assert_eq!(code, 143, "{stderr}");
    let reports = service.reports();
    let failure = failure(&reports[0].outcome);
    assert_eq!((failure.class(), failure.signal), (FailureClass::Timeout, Some(15)));
}

#[tokio::test]
async fn a_command_that_does_not_listen_is_killed() {
    let service = Script::default().begin(granted(grant(1))).report(reported(stop(1))).start();
    let flags = ["--timeout", "200ms", "--kill-after", "50ms"];
    let (code, _, stderr) =
        run(exec(&service, &flags, "trap '' TERM; while :; do sleep 1; done")).await;
    assert_eq!(code, 137, "{stderr}");
    assert!(stderr.contains("killing it"), "{stderr}");
}

#[tokio::test]
async fn a_command_that_a_signal_ended_is_an_error_of_the_platform() {
    let service = Script::default().begin(granted(grant(1))).report(reported(stop(1))).start();
    let (code, _, stderr) = run(exec(&service, &[], "kill -SEGV $$")).await;
    assert_eq!(code, 139);
    assert!(stderr.contains("failed: SIGSEGV"), "{stderr}");
    let reports = service.reports();
    let failure = failure(&reports[0].outcome);
    assert_eq!((failure.class(), failure.signal), (FailureClass::Error, Some(11)));
    assert_eq!(failure.exit_code, None);
}

#[tokio::test]
async fn a_missing_command_is_not_worth_another_try() {
    let service = Script::default().begin(granted(grant(1))).report(reported(stop(1))).start();
    let mut command = reprise(&service);
    command.args(["exec", "--step", "load", "--", "/no/such/command"]);
    let (code, _, stderr) = run(command).await;
    assert_eq!(code, 127);
    assert!(stderr.contains("command not found: /no/such/command"), "{stderr}");
    let reports = service.reports();
    let failure = failure(&reports[0].outcome);
    assert_eq!((failure.retryable, failure.exit_code), (Some(false), Some(127)));
}

#[tokio::test]
async fn an_exit_code_means_what_the_caller_says() {
    let service = Script::default().begin(granted(grant(1))).report(reported(stop(1))).start();
    run(exec(&service, &["--class-of", "75=TRANSIENT"], "exit 75")).await;
    assert_eq!(failure(&service.reports()[0].outcome).class(), FailureClass::Transient);
}

#[tokio::test]
async fn signals_reach_the_command() {
    let service = Script::default().begin(granted(grant(1))).report(reported(done())).start();
    let script = "trap 'echo one' USR1; trap 'echo two; exit 0' TERM; echo ready >&2; \
                  while :; do sleep 0.02; done";
    let mut watched = Watched::start(exec(&service, &[], script));
    watched.says("ready").await;
    watched.signal(Signal::USR1);
    let mut out = BufReader::new(watched.child.stdout.take().unwrap()).lines();
    assert_eq!(out.next_line().await.unwrap().as_deref(), Some("one"));
    watched.signal(Signal::TERM);
    assert_eq!(out.next_line().await.unwrap().as_deref(), Some("two"));
    assert_eq!(watched.ends().await.0, 0);
}

#[tokio::test]
async fn an_interrupted_command_is_canceled_and_not_tried_again() {
    let service =
        Script::default().begin(granted(grant(1))).report(reported(retry(1, SOON))).start();
    let mut watched = Watched::start(exec(&service, &[], "echo ready >&2; exec sleep 60"));
    watched.says("ready").await;
    watched.signal(Signal::INT);
    assert_eq!(watched.ends().await.0, 130);
    assert_eq!(failure(&service.reports()[0].outcome).class(), FailureClass::Canceled);
    assert_eq!(service.begins().len(), 1);
}

#[tokio::test]
async fn a_command_that_is_evicted_is_reported_and_left_to_another_worker() {
    for (flags, expected) in [(&["--run", "r"][..], 143), (&["--run", "r", "--once"], 75)] {
        let service =
            Script::default().begin(granted(grant(1))).report(reported(retry(1, FAR))).start();
        let mut watched = Watched::start(exec(&service, flags, "echo ready >&2; exec sleep 60"));
        watched.says("ready").await;
        watched.signal(Signal::TERM);
        assert_eq!(watched.ends().await.0, expected);
        assert_eq!(failure(&service.reports()[0].outcome).class(), FailureClass::Error);
    }
}

#[tokio::test]
async fn an_interrupted_wait_ends_at_once_and_says_how_to_go_on() {
    let service =
        Script::default().begin(granted(grant(1))).report(reported(retry(1, FAR))).start();
    let mut watched = Watched::start(exec(&service, &["--run", "r7"], "exit 1"));
    watched.says("retry 1 in 1h").await;
    watched.signal(Signal::INT);
    let (code, rest) = watched.ends().await;
    assert_eq!(code, 130);
    assert!(rest.contains("--run r7"), "{rest}");
}

#[tokio::test]
async fn a_lease_is_kept_while_the_command_runs() {
    let service = Script::default().begin(granted(grant(1))).report(reported(done())).start();
    let marker = service.folder().join("go");
    let script = format!("until [ -e {} ]; do sleep 0.02; done", marker.display());
    let watched = Watched::start(exec(&service, &[], &script));
    service.asked(|call| matches!(call, Call::Heartbeat(beat) if beat.fence == 101)).await;
    std::fs::write(marker, "").unwrap();
    assert_eq!(watched.ends().await.0, 0);
}

#[tokio::test]
async fn a_heartbeat_that_is_not_answered_is_sent_again() {
    let service = Script::default()
        .begin(granted(grant(1)))
        .heartbeat(Err(Status::unavailable("elsewhere")))
        .heartbeat(Ok(HeartbeatResponse { cancel_requested: true, ..held() }))
        .report(reported(stop(1)))
        .start();
    let (code, _, stderr) = run(exec(&service, &[], "exec sleep 60")).await;
    assert_eq!(code, 143);
    assert!(stderr.contains("the step was cancelled; ending the command"), "{stderr}");
    assert_eq!(failure(&service.reports()[0].outcome).class(), FailureClass::Canceled);
}

#[tokio::test]
async fn a_lost_lease_ends_the_command_only_where_that_is_wanted() {
    let lost = || HeartbeatResponse { state: LeaseState::Lost.into(), ..held() };
    let script = || {
        let script = Script::default().begin(granted(grant(1))).heartbeat(Ok(lost()));
        script.report(reported(stop(1))).start()
    };
    let service = script();
    let (code, _, stderr) = run(exec(&service, &["--on-lost", "kill"], "exec sleep 60")).await;
    assert_eq!(code, 143, "{stderr}");
    assert_eq!(failure(&service.reports()[0].outcome).class(), FailureClass::Error);

    let service = script();
    let marker = service.folder().join("go");
    let script = format!("until [ -e {} ]; do sleep 0.02; done", marker.display());
    let mut watched = Watched::start(exec(&service, &[], &script));
    watched.says("the lease is lost; the command runs on").await;
    std::fs::write(marker, "").unwrap();
    assert_eq!(watched.ends().await.0, 0);
}

#[tokio::test]
async fn a_result_is_not_lost_while_the_service_is_away() {
    let mut service = Script::default().begin(granted(grant(1))).report(reported(done())).start();
    let marker = service.folder().join("go");
    let script = format!("echo ready >&2; until [ -e {} ]; do sleep 0.02; done", marker.display());
    let mut watched = Watched::start(exec(&service, &[], &script));
    watched.says("ready").await;
    service.go_away();
    std::fs::write(marker, "").unwrap();
    watched.says("attempt 1 succeeded").await;
    watched.says("no answer from unix:").await;
    service.listen();
    watched.says("the service answers again").await;
    assert_eq!(watched.ends().await.0, 0);
    assert_eq!(service.reports()[0].fence, 101);
}

#[tokio::test]
async fn a_call_that_was_not_answered_is_repeated_as_the_same_call() {
    let away = || Status::unavailable("elsewhere");
    let service = Script::default()
        .begin(Err(away()))
        .begin(granted(grant(1)))
        .report(Err(away()))
        .report(Err(Status::resource_exhausted("busy")))
        .report(reported(done()))
        .start();
    let (code, _, stderr) = run(exec(&service, &[], "true")).await;
    assert_eq!(code, 0, "{stderr}");
    let begins = service.begins();
    assert_eq!(begins[0], begins[1]);
    let reports = service.reports();
    assert_eq!(reports.len(), 3);
    assert!(reports.iter().all(|report| *report == reports[0]));
}

#[tokio::test]
async fn a_service_that_comes_up_later_is_waited_for() {
    let mut service = Script::default().begin(granted(grant(1))).report(reported(done())).asleep();
    let mut watched = Watched::start(exec(&service, &[], "true"));
    watched.says("no answer from").await;
    service.listen();
    assert_eq!(watched.ends().await.0, 0);
}

#[tokio::test]
async fn without_a_service_it_ends_when_told_not_to_wait() {
    let service = Script::default().asleep();
    for flags in [["--offline", "fail"], ["--offline-timeout", "300ms"]] {
        let (code, stdout, stderr) = run(exec(&service, &flags, "echo ran")).await;
        assert_eq!((code, stdout.as_str()), (69, ""));
        assert!(stderr.contains("next: `reprise doctor`"), "{stderr}");
    }
}

#[tokio::test]
async fn alone_it_decides_by_its_own_policy_and_says_so() {
    let service = Script::default().asleep();
    let flags =
        ["--offline", "local", "--max-retries", "2", "--backoff", "fixed", "--delay", "10ms"];
    let (code, stdout, stderr) = run(exec(&service, &flags, "echo $REPRISE_ATTEMPT; exit 3")).await;
    assert_eq!((code, stdout.as_str()), (3, "1\n2\n3\n"), "{stderr}");
    assert!(stderr.contains("no service; deciding here by the inline policy"), "{stderr}");
    assert!(stderr.contains("decided here, without the service\n"), "{stderr}");
    assert!(stderr.contains("stop: retries spent after 3 attempts; decided here"), "{stderr}");
}

#[tokio::test]
async fn what_it_decided_alone_is_reported_when_the_service_is_back() {
    let mut service = Script::default()
        .report(reported(retry(1, SOON)))
        .begin(granted(grant(2)))
        .report(reported(done()))
        .asleep();
    let flags = ["--offline", "local", "--backoff", "fixed", "--delay", "2s", "--jitter", "none"];
    let mut watched = Watched::start(exec(&service, &flags, "exit $((2 - REPRISE_ATTEMPT))"));
    watched.says("retry 1 in 2s").await;
    service.listen();
    let (code, rest) = watched.ends().await;
    assert_eq!(code, 0, "{rest}");
    let reports = service.reports();
    assert_eq!((reports[0].fence, reports[0].request_id.len()), (0, 16));
    assert!(reports[0].policy.is_some());
    assert_eq!(reports[1].fence, 102);
}

#[tokio::test]
async fn a_step_that_the_service_began_is_taken_over_when_it_goes_away() {
    let counted = reprise::proto::Counters { attempts: 4, retries: 3, ..Default::default() };
    let grant = reprise::proto::Grant { counters: Some(counted), ..grant(4) };
    let mut service = Script::default().begin(granted(grant)).start();
    let marker = service.folder().join("go");
    let script =
        format!("echo ready >&2; until [ -e {} ]; do sleep 0.02; done; exit 5", marker.display());
    let flags = ["--offline", "local", "--max-retries", "3"];
    let mut watched = Watched::start(exec(&service, &flags, &script));
    watched.says("ready").await;
    service.go_away();
    std::fs::write(marker, "").unwrap();
    watched.says("stop: retries spent after 4 attempts; decided here").await;
    assert_eq!(watched.ends().await.0, 5);
}

#[tokio::test]
async fn a_service_that_forgot_the_attempt_is_told_of_it_anew() {
    let service = Script::default()
        .begin(granted(grant(1)))
        .report(Err(Status::not_found("no such step")))
        .report(reported(done()))
        .start();
    assert_eq!(run(exec(&service, &["--max-retries", "1"], "true")).await.0, 0);
    let anew = &service.reports()[1];
    assert_eq!((anew.fence, anew.request_id.len()), (0, 16));
    assert!(anew.policy.is_some());
}

#[tokio::test]
async fn events_are_told_as_json_lines() {
    let service = Script::default()
        .begin(granted(grant(1)))
        .report(reported(retry(1, SOON)))
        .begin(granted(grant(2)))
        .report(reported(stop(2)))
        .start();
    let (_, _, stderr) = run(exec(&service, &["--output", "json", "--run", "r"], "exit 4")).await;
    let parse = |line| serde_json::from_str::<serde_json::Value>(line).unwrap();
    let events: Vec<_> = stderr.lines().map(parse).collect();
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["started", "failed", "retry", "started", "failed", "stopped"]);
    assert_eq!(events[0]["run"], "r");
    assert_eq!(events[1]["class"], "FAILURE");
    assert_eq!(events[2]["seconds"], 0.005);
    assert_eq!(events[5]["reason"], "RETRIES_SPENT");
    assert!(events.iter().all(|event| event["at"].as_str().unwrap().ends_with('Z')));
}

#[tokio::test]
async fn a_refused_call_is_explained() {
    use tonic_types::{ErrorDetails, StatusExt};
    let details = ErrorDetails::with_bad_request_violation(
        "step",
        "\"a b\" has a blank; accepted are 1 to 128 characters of A-Z a-z 0-9 . _ ~ : / @ + -",
    );
    let status =
        Status::with_error_details(tonic::Code::InvalidArgument, "the request is wrong", details);
    let service = Script::default().begin(Err(status)).start();
    let (code, _, stderr) = run(exec(&service, &["--run", "r"], "true")).await;
    assert_eq!(code, 2);
    assert!(stderr.contains("could not begin default/r/load: the request is wrong\n"), "{stderr}");
    assert!(stderr.contains("  step: \"a b\" has a blank; accepted are"), "{stderr}");
    assert!(stderr.contains("  next: correct the value"), "{stderr}");
}

#[tokio::test]
async fn a_wrong_command_line_is_refused() {
    let service = Script::default().asleep();
    let wrong: [&[&str]; 8] = [
        &["--once"],
        &["--policy", "p", "--max-retries", "1"],
        &["--delay", "5"],
        &["--backoff", "fixed", "--factor", "2"],
        &["--class-of", "1=ODD"],
        &["--deadline", "tomorrow"],
        &["--timeout", "0s"],
        &["--offline", "maybe"],
    ];
    for flags in wrong {
        assert_eq!(run(exec(&service, flags, "true")).await.0, 2, "{flags:?}");
    }
}

#[tokio::test]
async fn messages_to_a_reader_who_left_harm_nothing() {
    let service = Script::default().begin(granted(grant(1))).report(reported(done())).start();
    let mut child = exec(&service, &[], "sleep 0.05; echo x >&2; echo y >&2").spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
    let mut stdout = String::new();
    child.stdout.take().unwrap().read_to_string(&mut stdout).await.unwrap();
    assert_eq!(stdout, "");
}
