//! `reprise step explain` of steps that wait, at a server of its own.

use std::process::Stdio;

use reprise::proto::{
    BeginAttemptRequest, BeginAttemptResponse, begin_attempt_response::Answer,
    retry_service_client::RetryServiceClient,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use tonic::transport::Channel;

use crate::process::Server;

struct Stage {
    folder: TempDir,
    server: Server,
    worker: RetryServiceClient<Channel>,
}

impl Stage {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(&folder.path().join("data"), "127.0.0.1:0").await;
        let worker = server.client();
        Self { folder, server, worker }
    }

    async fn run(&self, arguments: &[&str]) -> (bool, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_reprise"))
            .args(["--addr", &self.server.address])
            .args(arguments)
            .current_dir(self.folder.path())
            .env_remove("REPRISE_NAMESPACE")
            .env("TZ", "UTC")
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    }

    /// What a command says that succeeds.
    async fn says(&self, arguments: &[&str]) -> String {
        let (succeeds, stdout, stderr) = self.run(arguments).await;
        assert!(succeeds, "{arguments:?}: {stderr}");
        stdout
    }

    /// What one says that fails.
    async fn fails(&self, arguments: &[&str]) -> String {
        let (succeeds, stdout, stderr) = self.run(arguments).await;
        assert!(!succeeds, "{arguments:?}: {stdout}");
        stderr
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let said = self.says(&[arguments, &["--output", "json"]].concat()).await;
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    async fn begin(&mut self, step: &str, target: &str) -> BeginAttemptResponse {
        let request = BeginAttemptRequest {
            run: "r".to_owned(),
            step: step.to_owned(),
            targets: vec![target.to_owned()],
            request_id: vec![step.as_bytes()[0]; 16].into(),
            ..BeginAttemptRequest::default()
        };
        self.worker.begin_attempt(request).await.unwrap().into_inner()
    }
}

/// The line of a table that begins so.
fn line<'a>(said: &'a str, begins: &str) -> &'a str {
    let mut lines = said.lines();
    lines
        .find(|line| line.starts_with(begins))
        .unwrap_or_else(|| panic!("no {begins:?} in\n{said}"))
}

#[tokio::test]
async fn who_waits_is_told_what_binds_and_what_would_help() {
    let mut stage = Stage::start().await;
    stage.says(&["target", "create", "db", "--rate", "1/10m", "--burst", "1"]).await;
    stage.says(&["target", "create", "gpu", "--concurrency", "1"]).await;
    assert!(matches!(stage.begin("a", "db").await.answer, Some(Answer::Grant(_))));
    assert!(matches!(stage.begin("b", "db").await.answer, Some(Answer::Refusal(_))));

    let said = stage.says(&["step", "explain", "r", "b"]).await;
    assert!(said.contains("\nIt starts at ") && said.contains(", as was promised."), "{said}");
    let rate = line(&said, "rate of db ");
    assert!(rate.contains("/1 ") && rate.contains(" firm ") && rate.ends_with(" yes"), "{said}");
    assert!(said.contains("\nIt could start earlier:\n  now without the rate of db\n"), "{said}");
    let json = stage.json(&["step", "explain", "r", "b"]).await;
    let told = &json["explanation"];
    assert_eq!((&json["state"], &json["step"]), (&"WAITING".into(), &"b".into()));
    assert_eq!(told["starts_at"], json["next_event_at"]);
    let rate = &told["constraints"][0];
    assert_eq!((&rate["kind"], &rate["key"]), (&"RATE".into(), &"db".into()));
    assert_eq!((&rate["limit"], &rate["binding"]), (&1.into(), &true.into()));
    assert!(rate["without"].is_string() && rate["before"].is_null(), "{json}");

    // Nobody knows when a permit comes free, or when an operator changes his mind.
    stage.begin("c", "gpu").await;
    stage.begin("d", "gpu").await;
    stage.says(&["target", "pause", "gpu", "--reason", "moved", "--by", "ann"]).await;
    let said = stage.says(&["step", "explain", "r", "d"]).await;
    assert!(said.contains("\nNobody can say when it starts"), "{said}");
    let permits = line(&said, "concurrency of gpu ");
    assert!(permits.contains(" 1/1 ") && permits.contains("0 go before it"), "{said}");
    let pause = line(&said, "pause of gpu ");
    assert!(pause.contains("ordered by ann: moved") && pause.ends_with(" yes"), "{said}");
    assert!(!said.contains("earlier"), "neither helps alone: {said}");

    let said = stage.says(&["step", "explain", "r", "c"]).await;
    assert!(said.starts_with("default/r/c runs attempt 1") && !said.contains("BINDS"), "{said}");
}

#[tokio::test]
async fn a_breaker_is_forced_and_released_and_a_cooldown_lifted() {
    let mut stage = Stage::start().await;
    stage.says(&["target", "create", "db", "--breaker", "on"]).await;
    let open = ["target", "breaker", "db", "open", "--reason", "it lies", "--by", "ann"];
    let forced = stage.says(&[&open[..], &["--for", "10m"]].concat()).await;
    assert!(forced.contains("\n# breaker forced open: it lies by ann since "), "{forced}");
    assert!(line(&stage.says(&["target", "list"]).await, "db ").contains(" forced open "));
    let watched = stage.says(&["target", "watch", "db", "--count", "1"]).await;
    assert!(watched.contains(" forced open until "), "{watched}");
    stage.begin("a", "db").await;
    let said = stage.says(&["step", "explain", "r", "a"]).await;
    let row = line(&said, "forced of db ");
    assert!(row.contains("ordered by ann: it lies") && row.ends_with(" yes"), "{said}");

    let close = ["target", "breaker", "db", "close", "--reason", "it is well", "--for", "1h"];
    let closed = stage.json(&close).await;
    assert_eq!(closed["forced_breaker"]["state"], "closed");
    assert!(closed["forced_breaker"]["until"].is_string(), "{closed}");
    let released = stage.json(&["target", "breaker", "db", "release"]).await;
    assert_eq!(released["forced_breaker"], Value::Null);
    stage.says(&["target", "lift", "db"]).await;

    stage.says(&["target", "create", "bare"]).await;
    let bare = ["target", "breaker", "bare", "open", "--reason", "x", "--for", "1m"];
    assert!(stage.fails(&bare).await.contains("TARGET_HAS_NO_BREAKER"));
    assert!(stage.fails(&open).await.contains("until: required"));
    let long = [&open[..], &["--for", "8d"]].concat();
    assert!(stage.fails(&long).await.contains("accepted: up to seven days"));
    let late = [&open[..], &["--until", "2100-01-01T00:00:00Z"]].concat();
    assert!(stage.fails(&late).await.contains("seven days from now"));
    assert!(
        stage.fails(&["target", "breaker", "db", "open", "--for", "1m"]).await.contains("--reason")
    );
}
