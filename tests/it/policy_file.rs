//! A policy file that is applied, changed, broken and swapped under a server.

use std::{fs, os::unix::fs::symlink, path::Path, process::Stdio};

use reprise::proto::{
    GetPolicyRequest, GetServerInfoRequest, GetServerInfoResponse, GetTargetRequest, NamedPolicy,
    NamedTarget, admin_service_client::AdminServiceClient,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStderr, Command},
};
use tonic::transport::Channel;

/// A server that follows a file, and its log.
struct Served {
    _child: Child,
    log: Lines<BufReader<ChildStderr>>,
    admin: AdminServiceClient<Channel>,
}

impl Served {
    async fn start(folder: &Path, file: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_reprise"))
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--metrics",
                "none",
                "--set",
                "server.socket=",
            ])
            .arg("--data")
            .arg(folder.join("data"))
            .arg("--policies")
            .arg(file)
            .env("NO_COLOR", "1")
            .env_remove("REPRISE_CONFIG")
            .env_remove("REPRISE_LOG")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = said.next_line().await.unwrap().unwrap();
        let address = line.strip_prefix("listening on ").unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        let admin = AdminServiceClient::connect(format!("http://{address}")).await.unwrap();
        Self { _child: child, log, admin }
    }

    /// Waits for a line of the log.
    async fn logs(&mut self, text: &str) -> String {
        while let Some(line) = self.log.next_line().await.unwrap() {
            if line.contains(text) {
                return line;
            }
        }
        panic!("never logged {text:?}");
    }

    async fn policy(&mut self, namespace: &str, name: &str) -> NamedPolicy {
        let request = GetPolicyRequest {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..GetPolicyRequest::default()
        };
        self.admin.get_policy(request).await.unwrap().into_inner().policy.unwrap()
    }

    async fn target(&mut self, namespace: &str, name: &str) -> NamedTarget {
        let request = GetTargetRequest { namespace: namespace.to_owned(), name: name.to_owned() };
        self.admin.get_target(request).await.unwrap().into_inner().target.unwrap()
    }

    async fn info(&mut self) -> GetServerInfoResponse {
        self.admin.get_server_info(GetServerInfoRequest {}).await.unwrap().into_inner()
    }
}

fn retries(policy: &NamedPolicy) -> (u64, Option<u32>) {
    (policy.revision, policy.policy.as_ref().unwrap().max_retries)
}

#[tokio::test]
async fn a_file_is_applied_and_a_broken_one_leaves_what_was_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policies.yaml");
    let text = "policies: { p: { max_retries: 1 } }\nnamespaces: { team: { settings: { default_policy: own }, policies: { own: { max_retries: 9 } } } }\n";
    fs::write(&file, text).unwrap();
    let mut served = Served::start(folder.path(), &file).await;
    served.logs("changed: policy default/p r1, namespace team created, policy team/own r1, settings of team").await;
    assert_eq!(retries(&served.policy("default", "p").await), (1, Some(1)));
    assert_eq!(retries(&served.policy("team", "own").await), (1, Some(9)));
    let info = served.info().await;
    assert_eq!(
        (info.policy_file.as_str(), info.policy_file_error.as_str()),
        (file.to_str().unwrap(), "")
    );

    fs::write(&file, text.replace("max_retries: 1 ", "max_retries: 2 ")).unwrap();
    served.logs("changed: policy default/p r2").await;
    assert_eq!(retries(&served.policy("default", "p").await), (2, Some(2)));

    // One good change and one wrong one: neither is made.
    fs::write(&file, "policies:\n  p: { max_retries: 3 }\n  q: { max_retries: many }\n").unwrap();
    served.logs("ERROR").await;
    served.logs("policies.q.max_retries").await;
    let error = served.info().await.policy_file_error;
    assert!(
        error.contains("policies.yaml:3:21: policies.q.max_retries: \"many\": accepted: "),
        "{error}"
    );
    assert_eq!(retries(&served.policy("default", "p").await), (2, Some(2)));

    // Known only to the store.
    fs::write(&file, "policies: { p: { max_retries: 4 } }\nnamespaces: { team: { settings: { default_policy: nobody } } }\n").unwrap();
    served.logs("nobody").await;
    let error = served.info().await.policy_file_error;
    assert!(
        error.contains(":2:51: namespaces.team.settings.default_policy: \"nobody\": "),
        "{error}"
    );
    assert_eq!(retries(&served.policy("default", "p").await), (2, Some(2)));

    fs::write(&file, "policies: { p: { max_retries: 5 } }\n").unwrap();
    served.logs("changed: policy default/p r3").await;
    assert_eq!(served.info().await.policy_file_error, "");
    // What is no longer in the file stays.
    assert_eq!(retries(&served.policy("team", "own").await), (1, Some(9)));
}

#[tokio::test]
async fn targets_of_a_file_are_applied_and_changed_while_the_server_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policies.yaml");
    let text = "targets: { warehouse-db: { rate: { limit: 100, period: 1s, burst: 20 }, concurrency: { max: 10 }, budget: { ratio: 0.2 } } }\nnamespaces: { team: { settings: { default_target: pool }, targets: { pool: {} } } }\n";
    fs::write(&file, text).unwrap();
    let mut served = Served::start(folder.path(), &file).await;
    served.logs("changed: target default/warehouse-db r2, namespace team created, target team/pool r2, settings of team").await;
    let target = served.target("default", "warehouse-db").await.target.unwrap();
    assert_eq!(target.rate.map(|rate| (rate.limit, rate.burst)), Some((100, Some(20))));
    assert_eq!(target.concurrency.map(|bound| bound.max), Some(10));
    assert_eq!(target.budget.and_then(|budget| budget.ratio), Some(0.2));

    fs::write(&file, text.replace("max: 10", "max: 11")).unwrap();
    served.logs("changed: target default/warehouse-db r3").await;
    let changed = served.target("default", "warehouse-db").await;
    assert_eq!(changed.target.unwrap().concurrency.unwrap().max, 11);
    assert_eq!(served.target("team", "pool").await.revision, 2, "it did not change");

    // Known only to the store.
    fs::write(&file, "namespaces: { team: { settings: { default_target: nobody } } }\n").unwrap();
    served.logs("nobody").await;
    let error = served.info().await.policy_file_error;
    assert!(
        error.contains(
            ":1:51: namespaces.team.settings.default_target: \"nobody\": accepted: a target "
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_starts_with_a_broken_file_and_follows_a_swapped_link() {
    let folder = tempfile::tempdir().unwrap();
    let mount = folder.path().join("mount");
    for (version, text) in
        [("..1", "policies: ["), ("..2", "policies: { p: { max_retries: 7 } }\n")]
    {
        fs::create_dir_all(mount.join(version)).unwrap();
        fs::write(mount.join(version).join("policies.yaml"), text).unwrap();
    }
    symlink("..1", mount.join("..data")).unwrap();
    let file = mount.join("policies.yaml");
    symlink("..data/policies.yaml", &file).unwrap();

    let mut served = Served::start(folder.path(), &file).await;
    assert!(served.info().await.policy_file_error.contains("policies.yaml:1:"));

    symlink("..2", mount.join("..new")).unwrap();
    fs::rename(mount.join("..new"), mount.join("..data")).unwrap();
    served.logs("changed: policy default/p r1").await;
    assert_eq!(served.info().await.policy_file_error, "");
    assert_eq!(retries(&served.policy("default", "p").await), (1, Some(7)));
}
