//! `reprise bench` on real processes: what it prints can be relied upon.

use std::{
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    process::{Command, Output},
};

use serde_json::Value;

use crate::redis_servers::Kind;

fn bench(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reprise"));
    command.args(["bench", "--quick", "--output", "json"]).args(arguments);
    command.output().expect("the binary starts")
}

/// The measurements of a run that succeeded.
fn measurements(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON and nothing else");
    report["measurements"].as_array().expect("a list").clone()
}

#[test]
fn equal_servers_cost_about_the_same() {
    let measured = measurements(&bench(&["--only", "echo", "--callers", "16"]));
    assert_eq!(measured.len(), 1);
    let echo = &measured[0];
    for figure in ["throughput", "cpu"] {
        let ratio = echo["ratios"][figure].as_f64().expect("both were measured");
        assert!((0.3..3.0).contains(&ratio), "{figure} {ratio}");
    }
    for side in ["baseline", "subject"] {
        let figures = &echo[side];
        assert!(figures["failed"].as_object().is_some_and(serde_json::Map::is_empty));
        assert!(0.0 < figures["cpu_us"].as_f64().expect("the process was started here"));
        assert_eq!(figures["granted_share"], 1.0);
        let [p50, p99, max] =
            ["p50_us", "p99_us", "max_us"].map(|name| figures["latency"][name].as_f64());
        assert!(p50 <= p99 && p99 <= max && Some(0.0) < p50);
    }
}

#[test]
fn every_kind_of_call_is_made_to_a_server_that_runs_on_a_socket() {
    let running = Echo::start(Listen::Unix);
    let only = "batch16,begin-report,mixed,durable";
    let output = bench(&["--server", &running.address, "--only", only, "--rounds", "1"]);
    let measured = measurements(&output);
    let names: Vec<_> = measured.iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["begin-report", "batch16", "mixed"]);
    for one in &measured {
        assert!(0 < one["subject"]["calls"].as_u64().expect("a count"));
        assert_eq!(one["transport"], "unix");
        // A process that is not known has no CPU to be read, and a store of its own.
        assert!(one["subject"]["cpu_us"].is_null() && one["store"].is_null());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("durable: left out"), "{said}");
}

#[test]
fn an_open_loop_makes_the_calls_that_were_due_and_no_others() {
    let running = Echo::start(Listen::Tcp);
    let arguments = ["--only", "open", "--rate", "400", "--seconds", "0.5", "--rounds", "2"];
    for arrivals in ["constant", "poisson"] {
        let output = bench(
            &[&arguments[..], &["--server", &running.address, "--arrivals", arrivals]].concat(),
        );
        let open = &measurements(&output)[0];
        assert_eq!(open["calls_due_per_second"], 400.0);
        assert_eq!(
            (&open["baseline"]["calls"], &open["subject"]["calls"]),
            (&400.into(), &400.into())
        );
    }
}

#[test]
fn what_cannot_be_measured_is_told_and_the_rest_is_measured() {
    let output = bench(&["--server", "127.0.0.1:1", "--only", "report,echo", "--rounds", "1"]);
    assert!(!output.status.success());
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON and nothing else");
    assert_eq!(report["measurements"].as_array().map(Vec::len), Some(1));
    assert_eq!(report["unmeasured"][0]["name"], "report");
    let reason = report["unmeasured"][0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("127.0.0.1:1"), "{reason}");
}

#[test]
fn a_redis_is_started_for_each_server_and_its_cost_is_read() {
    let program = Kind::Valkey91.binary();
    let program = program.to_str().expect("a readable path");
    let only = "redis-naive,redis-one-script,redis-always";
    let few = ["--rounds", "1", "--callers", "8"];
    let output = bench(&[&["--redis-server", program, "--only", only], &few[..]].concat());
    let measured = measurements(&output);
    let told = |at: usize, figure: &str| measured[at][figure].as_str().expect("a text").to_owned();
    let order =
        [0, 1, 2].map(|at| [told(at, "name"), told(at, "baseline_name"), told(at, "store")]);
    assert_eq!(
        order,
        [
            ["redis-naive", "naive", "redis"],
            ["redis-one-script", "naive", "redis"],
            ["redis-always", "echo", "redis_always"],
        ]
    );
    for one in &measured {
        assert!(one["subject"]["redis_cpu_us"].is_f64(), "{one}");
    }
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(report["redis_set_us"].is_f64());
}

#[test]
fn an_unknown_load_is_refused_with_those_that_exist() {
    let output = bench(&["--only", "speed"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("batch16"), "{said}");
}

#[derive(Clone, Copy)]
enum Listen {
    Tcp,
    Unix,
}

/// A server for those who bring their own.
struct Echo {
    address: String,
    process: std::process::Child,
    _dir: tempfile::TempDir,
}

impl Echo {
    fn start(listen: Listen) -> Self {
        let dir = tempfile::tempdir().expect("a directory for a socket");
        let address = match listen {
            Listen::Tcp => {
                let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
                listener.local_addr().expect("bound").to_string()
            }
            Listen::Unix => format!("unix:{}", dir.path().join("socket").display()),
        };
        let process = Command::new(env!("CARGO_BIN_EXE_reprise"))
            .args(["bench", "echo-server", "--listen", &address])
            .spawn()
            .expect("the binary starts");
        while !listens(&address) {
            std::thread::yield_now();
        }
        Self { address, process, _dir: dir }
    }
}

fn listens(address: &str) -> bool {
    match address.strip_prefix("unix:") {
        Some(path) => UnixStream::connect(path).is_ok(),
        None => TcpStream::connect(address).is_ok(),
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
