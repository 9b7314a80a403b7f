//! `reprise worker` as a process, against a real server.

use std::{path::Path, process::Stdio, time::Duration};

use reprise::proto::{GetStepRequest, Step, StepState};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::process::Server;

/// Longer than anything here takes, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

fn reprise(server: &Server, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reprise"));
    command
        .args(["--addr", &server.address])
        .args(args)
        .env_remove("REPRISE_NAMESPACE")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

fn worker(server: &Server, more: &[&str], script: &str) -> Child {
    let args =
        [&["worker", "--queue", "etl", "--host", "another"], more, &["--", "sh", "-c", script]];
    reprise(server, &args.concat()).spawn().unwrap()
}

/// `reprise exec` of a step of the queue, whose command stays until it is killed.
fn stuck(server: &Server, step: &str, payload: &str) -> Child {
    let identity = ["exec", "--run", "r", "--step", step, "--queue", "etl", "--payload", payload];
    let terms = ["--lease", "1s", "--max-retries", "3", "--delay", "10ms"];
    let command = ["--", "sh", "-c", "echo started; exec sleep 600"];
    reprise(server, &[&identity[..], &terms, &command].concat()).spawn().unwrap()
}

async fn line(child: &mut Child) -> String {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap()
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(child.id().unwrap().cast_signed()).unwrap(), signal).unwrap();
}

async fn step(server: &Server, step: &str) -> Step {
    let request = GetStepRequest { run: "r".into(), step: step.into(), ..Default::default() };
    server.client().get_step(request).await.unwrap().into_inner().step.unwrap()
}

async fn server(folder: &Path) -> Server {
    Server::start(&folder.join("data"), "127.0.0.1:0").await
}

#[tokio::test]
async fn what_a_killed_exec_leaves_behind_a_worker_finishes() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path()).await;
    let mut exec = stuck(&server, "load", "table=orders");
    assert_eq!(line(&mut exec).await, "started");
    // Its command goes on, as that of a machine that is cut off does.
    signal(&exec, Signal::KILL);

    let mut worker =
        worker(&server, &[], "cat; echo \" $REPRISE_RUN $REPRISE_STEP $REPRISE_ATTEMPT\"");
    assert_eq!(line(&mut worker).await, "table=orders r load 2");
    let done = async {
        loop {
            let step = step(&server, "load").await;
            if step.state() == StepState::Succeeded {
                return step;
            }
            tokio::task::yield_now().await;
        }
    };
    let step = timeout(PATIENCE, done).await.expect("the worker reports");
    assert_eq!(step.attempts[1].host, "another");
    assert_eq!(step.counters.unwrap().crashes, 1);
    signal(&worker, Signal::TERM);
    assert!(timeout(PATIENCE, worker.wait()).await.unwrap().unwrap().success());
}

#[tokio::test]
async fn a_worker_runs_only_steps_with_the_labels_that_it_was_told() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path()).await;
    let mut execs = Vec::new();
    for (name, gpu) in [("other", "gpu=l4"), ("ours", "gpu=a100")] {
        let args = ["exec", "--run", "r", "--step", name, "--queue", "etl", "--label", gpu];
        let terms =
            ["--label", "zone=eu", "--lease", "1s", "--max-retries", "3", "--delay", "10ms"];
        let command = ["--", "sh", "-c", "echo started; exec sleep 600"];
        let mut exec = reprise(&server, &[&args[..], &terms, &command].concat()).spawn().unwrap();
        assert_eq!(line(&mut exec).await, "started");
        signal(&exec, Signal::KILL);
        execs.push(exec);
    }
    let mut worker = worker(&server, &["--label", "gpu=a100"], "echo $REPRISE_STEP");
    assert_eq!(line(&mut worker).await, "ours");
    let shown = reprise(&server, &["step", "get", "r", "other"]).output().await.unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("gpu=l4, zone=eu"), "{shown}");
}

#[tokio::test]
async fn a_worker_that_is_told_to_end_lets_its_command_finish() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path()).await;
    let mut exec = stuck(&server, "load", "");
    assert_eq!(line(&mut exec).await, "started");
    signal(&exec, Signal::KILL);

    let gate = folder.path().join("gate");
    let script = format!("echo begun; until [ -e {} ]; do sleep 0.05; done", gate.display());
    let mut worker = worker(&server, &["-j", "2"], &script);
    assert_eq!(line(&mut worker).await, "begun");
    signal(&worker, Signal::TERM);
    let mut said = BufReader::new(worker.stderr.take().unwrap()).lines();
    while let Some(line) = timeout(PATIENCE, said.next_line()).await.unwrap().unwrap() {
        if line.contains("claiming nothing more") {
            break;
        }
    }
    std::fs::write(gate, "").unwrap();
    assert!(timeout(PATIENCE, worker.wait()).await.unwrap().unwrap().success());
    assert_eq!(step(&server, "load").await.state(), StepState::Succeeded);
}
