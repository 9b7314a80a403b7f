//! Targets over the wire: written, guarded by their etags, listed in pages,
//! paused and resumed, and refused with what would be accepted.

use reprise::proto::{
    Concurrency, CreateTargetRequest, DeleteTargetRequest, GetTargetRequest, ListTargetsRequest,
    NamedTarget, Namespace, NamespaceSettings, PauseTargetRequest, Rate, ResumeTargetRequest,
    RetryBudget, Target, UpdateNamespaceRequest, UpdateTargetRequest,
    admin_service_client::AdminServiceClient, pause_target_request::End,
};
use tempfile::TempDir;
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;

use crate::process::Server;

struct Stage {
    folder: TempDir,
    server: Server,
    admin: AdminServiceClient<Channel>,
}

impl Stage {
    async fn start() -> Self {
        Self::on(tempfile::tempdir().unwrap()).await
    }

    async fn on(folder: TempDir) -> Self {
        let server = Server::start(&folder.path().join("data"), "127.0.0.1:0").await;
        let admin = AdminServiceClient::new(server.channel());
        Self { folder, server, admin }
    }

    /// Ends the server at once and starts another one on its data.
    async fn restarted(mut self) -> Self {
        self.server.kill().await;
        Self::on(self.folder).await
    }

    async fn create(&mut self, name: &str, target: Target) -> Result<NamedTarget, Status> {
        let request = CreateTargetRequest {
            target: Some(named(name, target)),
            ..CreateTargetRequest::default()
        };
        Ok(self.admin.create_target(request).await?.into_inner().target.unwrap())
    }

    async fn update(&mut self, target: NamedTarget, paths: &[&str]) -> Result<NamedTarget, Status> {
        let paths = paths.iter().map(ToString::to_string).collect();
        let request = UpdateTargetRequest {
            target: Some(target),
            update_mask: Some(prost_types::FieldMask { paths }),
            ..UpdateTargetRequest::default()
        };
        Ok(self.admin.update_target(request).await?.into_inner().target.unwrap())
    }

    async fn get(&mut self, name: &str) -> Result<NamedTarget, Status> {
        let request = GetTargetRequest { namespace: String::new(), name: name.to_owned() };
        Ok(self.admin.get_target(request).await?.into_inner().target.unwrap())
    }

    async fn delete(&mut self, name: &str, etag: &str) -> Result<(), Status> {
        let request = DeleteTargetRequest {
            namespace: String::new(),
            name: name.to_owned(),
            etag: etag.to_owned(),
        };
        self.admin.delete_target(request).await.map(drop)
    }

    async fn pause(&mut self, name: &str, end: Option<End>) -> Result<NamedTarget, Status> {
        let request = PauseTargetRequest {
            name: name.to_owned(),
            reason: "it is being moved".to_owned(),
            by: "ann".to_owned(),
            end,
            ..PauseTargetRequest::default()
        };
        Ok(self.admin.pause_target(request).await?.into_inner().target.unwrap())
    }

    async fn resume(&mut self, name: &str) -> Result<NamedTarget, Status> {
        let request = ResumeTargetRequest { namespace: String::new(), name: name.to_owned() };
        Ok(self.admin.resume_target(request).await?.into_inner().target.unwrap())
    }

    async fn page(&mut self, page_size: u32, page_token: String) -> (Vec<String>, String) {
        let request = ListTargetsRequest { page_size, page_token, ..ListTargetsRequest::default() };
        let page = self.admin.list_targets(request).await.unwrap().into_inner();
        (page.targets.into_iter().map(|target| target.name).collect(), page.next_page_token)
    }

    async fn set_default(&mut self, name: &str) -> Result<(), Status> {
        let settings =
            NamespaceSettings { default_target: name.to_owned(), ..NamespaceSettings::default() };
        let namespace = Namespace {
            name: "default".to_owned(),
            settings: Some(settings),
            ..Namespace::default()
        };
        let paths = vec!["settings.default_target".to_owned()];
        let request = UpdateNamespaceRequest {
            namespace: Some(namespace),
            update_mask: Some(prost_types::FieldMask { paths }),
        };
        self.admin.update_namespace(request).await.map(drop)
    }
}

fn named(name: &str, target: Target) -> NamedTarget {
    NamedTarget { name: name.to_owned(), target: Some(target), ..NamedTarget::default() }
}

fn at_once(max: u32) -> Target {
    Target { concurrency: Some(Concurrency { max }), ..Target::default() }
}

/// Code and reason.
fn refusal(told: Result<impl std::fmt::Debug, Status>) -> (Code, String) {
    let status = told.unwrap_err();
    let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    (status.code(), reason)
}

fn is(code: Code, reason: &str) -> (Code, String) {
    (code, reason.to_owned())
}

#[tokio::test]
async fn a_target_is_created_changed_under_its_etag_and_deleted() {
    let mut stage = Stage::start().await;
    let created = stage.create("db", at_once(10)).await.unwrap();
    assert_eq!((created.namespace.as_str(), created.name.as_str()), ("default", "db"));
    assert_eq!(created.target, Some(at_once(10)));
    assert!(created.update_time.is_some() && created.pause.is_none());
    assert_eq!(stage.get("db").await.unwrap(), created);
    let again = stage.create("db", at_once(1)).await;
    assert_eq!(refusal(again), is(Code::AlreadyExists, "TARGET_EXISTS"));

    // Only what the mask names changes, and nothing at all is no new revision.
    let rate = Rate { limit: 100, burst: Some(20), ..Rate::default() };
    let rated = Target { rate: Some(rate), ..Target::default() };
    let update = NamedTarget { etag: created.etag.clone(), ..named("db", rated) };
    let updated = stage.update(update.clone(), &["target.rate"]).await.unwrap();
    let both = updated.target.unwrap();
    assert_eq!(both.concurrency, Some(Concurrency { max: 10 }));
    assert_eq!(both.rate.unwrap().limit, 100);
    assert!(updated.revision > created.revision && updated.etag != created.etag);
    let stale = stage.update(update, &["target.rate"]).await;
    assert_eq!(refusal(stale), is(Code::Aborted, "ETAG_MISMATCH"));
    let same = stage.update(named("db", both), &[]).await.unwrap();
    assert_eq!(same.revision, updated.revision);
    let without = stage.update(named("db", Target::default()), &["target.rate"]).await.unwrap();
    assert_eq!(without.target, Some(at_once(10)), "what is named and absent is taken away");

    let missing = stage.update(named("gpu", at_once(1)), &[]).await;
    assert_eq!(refusal(missing), is(Code::NotFound, "TARGET_NOT_FOUND"));
    let stale = stage.delete("db", &created.etag).await;
    assert_eq!(refusal(stale), is(Code::Aborted, "ETAG_MISMATCH"));
    stage.delete("db", &without.etag).await.unwrap();
    assert_eq!(refusal(stage.get("db").await), is(Code::NotFound, "TARGET_NOT_FOUND"));
    assert_eq!(refusal(stage.delete("db", "").await), is(Code::NotFound, "TARGET_NOT_FOUND"));
    let recreated = stage.create("db", at_once(10)).await.unwrap();
    assert!(recreated.revision > without.revision, "no etag from before fits");
}

#[tokio::test]
async fn a_bad_target_is_refused_in_every_field_and_nothing_is_written() {
    let mut stage = Stage::start().await;
    let bad = Target {
        rate: Some(Rate { limit: 0, burst: Some(0), ..Rate::default() }),
        concurrency: Some(Concurrency { max: 0 }),
        budget: Some(RetryBudget { ratio: Some(11.0), ..RetryBudget::default() }),
        ..Target::default()
    };
    let status = stage.create("db", bad).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let told = status.get_details_bad_request().unwrap().field_violations;
    let fields: Vec<&str> = told.iter().map(|violation| violation.field.as_str()).collect();
    let expected = ["rate.limit", "rate.burst", "concurrency.max", "budget.ratio"];
    assert_eq!(fields, expected.map(|field| format!("target.target.{field}")));
    assert!(told.iter().all(|violation| violation.description.contains("accepted: ")), "{told:?}");
    assert_eq!(refusal(stage.get("db").await), is(Code::NotFound, "TARGET_NOT_FOUND"));

    let check = CreateTargetRequest {
        target: Some(named("db", at_once(1))),
        validate_only: true,
        ..CreateTargetRequest::default()
    };
    stage.admin.create_target(check).await.unwrap();
    assert_eq!(refusal(stage.get("db").await), is(Code::NotFound, "TARGET_NOT_FOUND"));
    let elsewhere = CreateTargetRequest {
        namespace: "nowhere".to_owned(),
        target: Some(named("db", at_once(1))),
        ..CreateTargetRequest::default()
    };
    let told = stage.admin.create_target(elsewhere).await;
    assert_eq!(refusal(told), is(Code::NotFound, "NAMESPACE_NOT_FOUND"));
}

#[tokio::test]
async fn targets_are_listed_in_pages_that_stay_while_others_come() {
    let mut stage = Stage::start().await;
    for name in ["b", "d", "f"] {
        stage.create(name, Target::default()).await.unwrap();
    }
    let (first, token) = stage.page(2, String::new()).await;
    assert_eq!(first, ["b", "d"]);
    stage.create("a", Target::default()).await.unwrap();
    stage.create("e", Target::default()).await.unwrap();
    stage.delete("d", "").await.unwrap();
    let (second, token) = stage.page(2, token).await;
    assert_eq!(second, ["e", "f"]);
    assert_eq!(stage.page(2, token).await, (Vec::new(), String::new()));
}

#[tokio::test]
async fn a_target_is_paused_and_resumed_and_a_restart_changes_neither() {
    let mut stage = Stage::start().await;
    let created = stage.create("db", Target::default()).await.unwrap();
    let paused = stage.pause("db", None).await.unwrap();
    let pause = paused.pause.clone().unwrap();
    assert_eq!((pause.reason.as_str(), pause.by.as_str()), ("it is being moved", "ann"));
    assert!(pause.since.is_some() && pause.until.is_none());
    assert_eq!(paused.etag, created.etag, "what it allows is as it was");

    let hour = prost_types::Duration { seconds: 3600, nanos: 0 };
    let again = stage.pause("db", Some(End::PauseFor(hour))).await.unwrap().pause.unwrap();
    assert_eq!(again.since, pause.since);
    assert!(again.until.is_some_and(|until| until.seconds >= again.since.unwrap().seconds + 3600));
    // An update of the limits is no resumption.
    stage.update(named("db", at_once(3)), &[]).await.unwrap();
    let mut stage = stage.restarted().await;
    let read = stage.get("db").await.unwrap();
    assert_eq!((read.pause, read.target), (Some(again), Some(at_once(3))));

    assert_eq!(stage.resume("db").await.unwrap().pause, None);
    let resumed = stage.resume("db").await.unwrap();
    assert_eq!(stage.get("db").await.unwrap(), resumed, "one that is not paused stays as it is");

    let past = prost_types::Timestamp { seconds: 1_000_000_000, nanos: 0 };
    let status = stage.pause("db", Some(End::Until(past))).await.unwrap_err();
    let violation = &status.get_details_bad_request().unwrap().field_violations[0];
    assert_eq!((status.code(), violation.field.as_str()), (Code::InvalidArgument, "until"));
    assert_eq!(refusal(stage.pause("no", None).await), is(Code::NotFound, "TARGET_NOT_FOUND"));
    assert_eq!(refusal(stage.resume("no").await), is(Code::NotFound, "TARGET_NOT_FOUND"));
    let silent = PauseTargetRequest { name: "db".to_owned(), ..PauseTargetRequest::default() };
    let status = stage.admin.pause_target(silent).await.unwrap_err();
    assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "reason");
}

#[tokio::test]
async fn the_default_target_exists_and_is_not_deleted() {
    let mut stage = Stage::start().await;
    assert_eq!(refusal(stage.set_default("db").await), is(Code::NotFound, "TARGET_NOT_FOUND"));
    stage.create("db", at_once(10)).await.unwrap();
    stage.set_default("db").await.unwrap();
    let refused = stage.delete("db", "").await;
    assert_eq!(refusal(refused), is(Code::FailedPrecondition, "TARGET_IS_DEFAULT"));
    stage.set_default("").await.unwrap();
    stage.delete("db", "").await.unwrap();
}
