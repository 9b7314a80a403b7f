//! What operators call.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tonic::{Request, Response, Status};

use super::{
    convert::{
        Invalid,
        admin::{self, settings_to_proto},
        answer::{self, Context},
        explain, force, order, policy, target,
    },
    status,
};
use crate::{
    domain::{id::Id, time::Timestamp},
    proto::{self, admin_service_server::AdminService},
    service::{EvaluatedDecision, Listed, PolicyInForce, PolicyWrite, Service, etag},
    store::{NamespaceView, Store, configuration::TargetEntry},
};

/// The operators' calls on a service.
#[derive(Debug)]
pub struct Admin<S> {
    service: Arc<Service<S>>,
    about: Arc<About>,
}

/// What a server tells of itself.
#[derive(Debug)]
pub struct About {
    /// When it started.
    pub started_at: Timestamp,
    /// The policy file that is applied; empty when there is none.
    pub policy_file: String,
    /// Why the file's last change was not applied; empty when it was.
    pub policy_file_error: ArcSwap<String>,
}

impl<S: Store> Admin<S> {
    /// The operators' calls on `service`.
    #[must_use]
    pub const fn new(service: Arc<Service<S>>, about: Arc<About>) -> Self {
        Self { service, about }
    }

    async fn written(
        &self,
        write: admin::PolicyWrite,
        may_exist: bool,
        may_be_missing: bool,
    ) -> Result<proto::NamedPolicy, Status> {
        let admin::PolicyWrite { name, spec, etag, validate_only, .. } = write;
        let (namespace, policy) =
            (id("namespace", &name.namespace)?, id("policy.name", &name.name)?);
        let write = PolicyWrite { spec, etag, validate_only, may_exist, may_be_missing };
        let written = self.service.write_policy(&namespace, &policy, &write).await;
        let written =
            written.map_err(|error| status::admin(&error, &name.namespace, &name.name))?;
        Ok(named_policy(&name.namespace, &written, false))
    }
}

impl<S: Store> Admin<S> {
    async fn written_target(
        &self,
        change: &target::TargetChange,
    ) -> Result<proto::NamedTarget, Status> {
        let (namespace, name) =
            (id("namespace", &change.name.namespace)?, id("target.name", &change.name.name)?);
        let write = &change.write;
        let entry = self
            .service
            .write_target(&namespace, &name, write, |current| change.apply(current))
            .await
            .map_err(|error| status::admin(&error, &namespace, &name))?;
        Ok(self.named_target(&namespace, &name, &entry))
    }

    fn named_target(&self, namespace: &str, name: &str, entry: &TargetEntry) -> proto::NamedTarget {
        target::named_to_proto(namespace, name, entry, self.service.store().now().at)
    }
}

impl<S: Store> Admin<S> {
    /// Carries out an order, and shows the step as it stands afterwards.
    async fn ordered(&self, call: order::Call) -> Result<proto::StepOrderOutcome, Status> {
        let key = call.step.key();
        let refused = |error| status::service(&error, &key, "");
        let ordered = self.service.order(&key, call.order).await.map_err(refused)?;
        let ordered = ordered.ok_or_else(status::mismatched)?;
        let view = self.service.step(&key).await.map_err(refused)?;
        Ok(order::outcome(&ordered, answer::step_of(key, &view)))
    }
}

/// Parses a name that was checked to be one.
fn id(field: &str, text: &str) -> Result<Id, Status> {
    text.parse().map_err(|error: crate::domain::id::NotAnId| {
        Invalid::of(field, text, error.to_string()).into()
    })
}

/// Namespace and name of a target that were checked to be ids.
fn ids(name: &target::TargetName) -> Result<(Id, Id), Status> {
    Ok((id("namespace", &name.namespace)?, id("name", &name.name)?))
}

fn namespace_to_proto(view: &NamespaceView) -> proto::Namespace {
    proto::Namespace {
        name: view.name.to_string(),
        settings: Some(settings_to_proto(&view.entry.settings)),
        etag: etag(view.entry.revision),
        create_time: Some(answer::instant(Timestamp::from_micros(view.entry.created_us))),
        update_time: Some(answer::instant(Timestamp::from_micros(view.entry.updated_us))),
        live_steps: view.live_steps,
    }
}

fn named_policy(namespace: &str, policy: &PolicyInForce, deleted: bool) -> proto::NamedPolicy {
    proto::NamedPolicy {
        namespace: namespace.to_owned(),
        name: policy.name.as_deref().unwrap_or_default().to_owned(),
        policy: Some(policy::to_proto(&policy.revision.spec)),
        revision: policy.revision.number,
        etag: etag(policy.revision.number),
        digest: policy.revision.digest_text.clone(),
        update_time: Some(answer::instant(policy.revision.updated_at)),
        deleted,
    }
}

fn evaluated(evaluated: EvaluatedDecision, policy: &PolicyInForce) -> proto::EvaluatedDecision {
    let context = Context { at: evaluated.at, policy: policy.stamp() };
    proto::EvaluatedDecision {
        delay_min: evaluated.window.map(|window| answer::span(window.min)),
        delay_max: evaluated.window.map(|window| answer::span(window.max)),
        decision: Some(answer::decision(evaluated.decision, context)),
    }
}

/// The token after a page: the last name, when the page was full.
fn next_token(full: bool, last: Option<&str>) -> String {
    last.filter(|_| full).map(admin::page_token).unwrap_or_default()
}

#[tonic::async_trait]
impl<S: Store> AdminService for Admin<S> {
    async fn create_namespace(
        &self,
        request: Request<proto::CreateNamespaceRequest>,
    ) -> Result<Response<proto::CreateNamespaceResponse>, Status> {
        let creation = admin::create_namespace(request.into_inner())?;
        let name = id("namespace.name", &creation.name)?;
        let view = self.service.create_namespace(&name, creation.settings).await;
        let view = view.map_err(|error| status::admin(&error, &name, ""))?;
        Ok(Response::new(proto::CreateNamespaceResponse {
            namespace: Some(namespace_to_proto(&view)),
        }))
    }

    async fn get_namespace(
        &self,
        request: Request<proto::GetNamespaceRequest>,
    ) -> Result<Response<proto::GetNamespaceResponse>, Status> {
        let name = admin::get_namespace(request.into_inner())?;
        let view = self
            .service
            .namespace(&name)
            .await
            .map_err(|error| status::admin(&error, &name, ""))?;
        Ok(Response::new(proto::GetNamespaceResponse {
            namespace: Some(namespace_to_proto(&view)),
        }))
    }

    async fn list_namespaces(
        &self,
        request: Request<proto::ListNamespacesRequest>,
    ) -> Result<Response<proto::ListNamespacesResponse>, Status> {
        let page = admin::list_namespaces(request.into_inner())?;
        let after = page.after.unwrap_or_default();
        let views = self
            .service
            .store()
            .namespaces(&after, page.size)
            .await
            .map_err(|error| status::store(&error))?;
        let next_page_token =
            next_token(views.len() == page.size, views.last().map(|view| &*view.name));
        Ok(Response::new(proto::ListNamespacesResponse {
            namespaces: views.iter().map(namespace_to_proto).collect(),
            next_page_token,
        }))
    }

    async fn update_namespace(
        &self,
        request: Request<proto::UpdateNamespaceRequest>,
    ) -> Result<Response<proto::UpdateNamespaceResponse>, Status> {
        let change = admin::update_namespace(request.into_inner())?;
        let name = id("namespace.name", &change.name)?;
        let view = self
            .service
            .update_namespace(&name, &change.etag, |current| change.apply(current))
            .await;
        let view = view.map_err(|error| status::admin(&error, &name, ""))?;
        Ok(Response::new(proto::UpdateNamespaceResponse {
            namespace: Some(namespace_to_proto(&view)),
        }))
    }

    async fn delete_namespace(
        &self,
        request: Request<proto::DeleteNamespaceRequest>,
    ) -> Result<Response<proto::DeleteNamespaceResponse>, Status> {
        let deletion = admin::delete_namespace(request.into_inner())?;
        let name = id("namespace", &deletion.name)?;
        let deleted = self.service.delete_namespace(&name, &deletion.etag).await;
        deleted.map_err(|error| status::admin(&error, &name, ""))?;
        Ok(Response::new(proto::DeleteNamespaceResponse {}))
    }

    async fn create_policy(
        &self,
        request: Request<proto::CreatePolicyRequest>,
    ) -> Result<Response<proto::CreatePolicyResponse>, Status> {
        let write = admin::create_policy(request.into_inner())?;
        let policy = self.written(write, false, true).await?;
        Ok(Response::new(proto::CreatePolicyResponse { policy: Some(policy) }))
    }

    async fn update_policy(
        &self,
        request: Request<proto::UpdatePolicyRequest>,
    ) -> Result<Response<proto::UpdatePolicyResponse>, Status> {
        let write = admin::update_policy(request.into_inner())?;
        let allow_missing = write.allow_missing;
        let policy = self.written(write, true, allow_missing).await?;
        Ok(Response::new(proto::UpdatePolicyResponse { policy: Some(policy) }))
    }

    async fn get_policy(
        &self,
        request: Request<proto::GetPolicyRequest>,
    ) -> Result<Response<proto::GetPolicyResponse>, Status> {
        let (name, revision) = admin::get_policy(request.into_inner())?;
        let history = self.service.policy(&name.namespace, &name.name).await;
        let history =
            history.map_err(|error| status::admin(&error, &name.namespace, &name.name))?;
        let unknown = || status::policy_not_found(&name.namespace, &name.name);
        let revision = history.revision(revision.unwrap_or_default()).ok_or_else(unknown)?;
        let policy =
            PolicyInForce { name: Some(id("name", &name.name)?), revision: Arc::clone(revision) };
        Ok(Response::new(proto::GetPolicyResponse {
            policy: Some(named_policy(&name.namespace, &policy, history.deleted)),
        }))
    }

    async fn list_policies(
        &self,
        request: Request<proto::ListPoliciesRequest>,
    ) -> Result<Response<proto::ListPoliciesResponse>, Status> {
        let (namespace, page) = admin::list_policies(request.into_inner())?;
        let after = page.after.unwrap_or_default();
        let policies = self.service.policies(&namespace, &after, page.size).await;
        let policies = policies.map_err(|error| status::admin(&error, &namespace, ""))?;
        let last = policies.last().and_then(|policy| policy.name.as_deref());
        let next_page_token = next_token(policies.len() == page.size, last);
        let policies =
            policies.iter().map(|policy| named_policy(&namespace, policy, false)).collect();
        Ok(Response::new(proto::ListPoliciesResponse { policies, next_page_token }))
    }

    async fn delete_policy(
        &self,
        request: Request<proto::DeletePolicyRequest>,
    ) -> Result<Response<proto::DeletePolicyResponse>, Status> {
        let (name, given_etag) = admin::delete_policy(request.into_inner())?;
        let (namespace, policy) = (id("namespace", &name.namespace)?, id("name", &name.name)?);
        let deleted = self.service.delete_policy(&namespace, &policy, &given_etag).await;
        deleted.map_err(|error| status::admin(&error, &name.namespace, &name.name))?;
        Ok(Response::new(proto::DeletePolicyResponse {}))
    }

    async fn list_policy_revisions(
        &self,
        request: Request<proto::ListPolicyRevisionsRequest>,
    ) -> Result<Response<proto::ListPolicyRevisionsResponse>, Status> {
        let name = admin::list_policy_revisions(request.into_inner())?;
        let history = self.service.policy(&name.namespace, &name.name).await;
        let history =
            history.map_err(|error| status::admin(&error, &name.namespace, &name.name))?;
        let policy = id("name", &name.name)?;
        let shown = |revision| {
            let policy =
                PolicyInForce { name: Some(policy.clone()), revision: Arc::clone(revision) };
            named_policy(&name.namespace, &policy, history.deleted)
        };
        let revisions = history.revisions.iter().rev().map(shown).collect();
        Ok(Response::new(proto::ListPolicyRevisionsResponse { revisions }))
    }

    async fn create_target(
        &self,
        request: Request<proto::CreateTargetRequest>,
    ) -> Result<Response<proto::CreateTargetResponse>, Status> {
        let target = self.written_target(&target::create(request.into_inner())?).await?;
        Ok(Response::new(proto::CreateTargetResponse { target: Some(target) }))
    }

    async fn update_target(
        &self,
        request: Request<proto::UpdateTargetRequest>,
    ) -> Result<Response<proto::UpdateTargetResponse>, Status> {
        let target = self.written_target(&target::update(request.into_inner())?).await?;
        Ok(Response::new(proto::UpdateTargetResponse { target: Some(target) }))
    }

    async fn get_target(
        &self,
        request: Request<proto::GetTargetRequest>,
    ) -> Result<Response<proto::GetTargetResponse>, Status> {
        let (namespace, name) = ids(&target::get(request.into_inner())?)?;
        let entry = self.service.target(&namespace, &name).await;
        let entry = entry.map_err(|error| status::admin(&error, &namespace, &name))?;
        let target = Some(self.named_target(&namespace, &name, &entry));
        Ok(Response::new(proto::GetTargetResponse { target }))
    }

    async fn list_targets(
        &self,
        request: Request<proto::ListTargetsRequest>,
    ) -> Result<Response<proto::ListTargetsResponse>, Status> {
        let (namespace, page) = target::list(request.into_inner())?;
        let after = page.after.unwrap_or_default();
        let targets = self.service.targets(&namespace, &after, page.size).await;
        let targets = targets.map_err(|error| status::admin(&error, &namespace, ""))?;
        let last = targets.last().map(|(name, _)| &**name);
        let next_page_token = next_token(targets.len() == page.size, last);
        let targets = targets
            .iter()
            .map(|(name, entry)| self.named_target(&namespace, name, entry))
            .collect();
        Ok(Response::new(proto::ListTargetsResponse { targets, next_page_token }))
    }

    async fn delete_target(
        &self,
        request: Request<proto::DeleteTargetRequest>,
    ) -> Result<Response<proto::DeleteTargetResponse>, Status> {
        let (name, given_etag) = target::delete(request.into_inner())?;
        let (namespace, name) = ids(&name)?;
        let deleted = self.service.delete_target(&namespace, &name, &given_etag).await;
        deleted.map_err(|error| status::admin(&error, &namespace, &name))?;
        Ok(Response::new(proto::DeleteTargetResponse {}))
    }

    async fn pause_target(
        &self,
        request: Request<proto::PauseTargetRequest>,
    ) -> Result<Response<proto::PauseTargetResponse>, Status> {
        let (name, order) = target::pause(request.into_inner())?;
        let (namespace, name) = ids(&name)?;
        let entry = self.service.pause_target(&namespace, &name, &order).await;
        let entry = entry.map_err(|error| status::admin(&error, &namespace, &name))?;
        let target = Some(self.named_target(&namespace, &name, &entry));
        Ok(Response::new(proto::PauseTargetResponse { target }))
    }

    async fn get_target_usage(
        &self,
        request: Request<proto::GetTargetUsageRequest>,
    ) -> Result<Response<proto::GetTargetUsageResponse>, Status> {
        let (name, run) = target::usage(request.into_inner())?;
        let (namespace, name) = ids(&name)?;
        let usage = self.service.target_usage(&namespace, &name, &run).await;
        let usage = usage.map_err(|error| status::admin(&error, &namespace, &name))?;
        let usage = Some(target::usage_to_proto(&usage));
        Ok(Response::new(proto::GetTargetUsageResponse { usage }))
    }

    async fn resume_target(
        &self,
        request: Request<proto::ResumeTargetRequest>,
    ) -> Result<Response<proto::ResumeTargetResponse>, Status> {
        let (namespace, name) = ids(&target::resume(request.into_inner())?)?;
        let entry = self.service.resume_target(&namespace, &name).await;
        let entry = entry.map_err(|error| status::admin(&error, &namespace, &name))?;
        let target = Some(self.named_target(&namespace, &name, &entry));
        Ok(Response::new(proto::ResumeTargetResponse { target }))
    }

    async fn force_breaker(
        &self,
        request: Request<proto::ForceBreakerRequest>,
    ) -> Result<Response<proto::ForceBreakerResponse>, Status> {
        let (name, order) = force::force(request.into_inner())?;
        let (namespace, name) = ids(&name)?;
        let entry = self.service.force_breaker(&namespace, &name, &order).await;
        let entry = entry.map_err(|error| status::admin(&error, &namespace, &name))?;
        let target = Some(self.named_target(&namespace, &name, &entry));
        Ok(Response::new(proto::ForceBreakerResponse { target }))
    }

    async fn release_breaker(
        &self,
        request: Request<proto::ReleaseBreakerRequest>,
    ) -> Result<Response<proto::ReleaseBreakerResponse>, Status> {
        let (namespace, name) = ids(&force::release(request.into_inner())?)?;
        let entry = self.service.release_breaker(&namespace, &name).await;
        let entry = entry.map_err(|error| status::admin(&error, &namespace, &name))?;
        let target = Some(self.named_target(&namespace, &name, &entry));
        Ok(Response::new(proto::ReleaseBreakerResponse { target }))
    }

    async fn lift_cooldown(
        &self,
        request: Request<proto::LiftCooldownRequest>,
    ) -> Result<Response<proto::LiftCooldownResponse>, Status> {
        let (name, run) = force::lift(request.into_inner())?;
        let (namespace, name) = ids(&name)?;
        let usage = self.service.lift_cooldown(&namespace, &name, &run).await;
        let usage = usage.map_err(|error| status::admin(&error, &namespace, &name))?;
        let usage = Some(target::usage_to_proto(&usage));
        Ok(Response::new(proto::LiftCooldownResponse { usage }))
    }

    async fn explain_step(
        &self,
        request: Request<proto::ExplainStepRequest>,
    ) -> Result<Response<proto::ExplainStepResponse>, Status> {
        let name = explain::request(request.into_inner())?;
        let key = name.key();
        let explained = self.service.explain(&key).await;
        let explained = explained.map_err(|error| status::service(&error, &key, ""))?;
        Ok(Response::new(explain::response(key, explained)))
    }

    async fn retry_step(
        &self,
        request: Request<proto::RetryStepRequest>,
    ) -> Result<Response<proto::RetryStepResponse>, Status> {
        let outcome = Some(self.ordered(order::retry(request.into_inner())?).await?);
        Ok(Response::new(proto::RetryStepResponse { outcome }))
    }

    async fn skip_step(
        &self,
        request: Request<proto::SkipStepRequest>,
    ) -> Result<Response<proto::SkipStepResponse>, Status> {
        let outcome = Some(self.ordered(order::skip(request.into_inner())?).await?);
        Ok(Response::new(proto::SkipStepResponse { outcome }))
    }

    async fn succeed_step(
        &self,
        request: Request<proto::SucceedStepRequest>,
    ) -> Result<Response<proto::SucceedStepResponse>, Status> {
        let outcome = Some(self.ordered(order::succeed(request.into_inner())?).await?);
        Ok(Response::new(proto::SucceedStepResponse { outcome }))
    }

    async fn fail_step(
        &self,
        request: Request<proto::FailStepRequest>,
    ) -> Result<Response<proto::FailStepResponse>, Status> {
        let outcome = Some(self.ordered(order::fail(request.into_inner())?).await?);
        Ok(Response::new(proto::FailStepResponse { outcome }))
    }

    async fn cancel_step(
        &self,
        request: Request<proto::CancelStepRequest>,
    ) -> Result<Response<proto::CancelStepResponse>, Status> {
        let outcome = Some(self.ordered(order::cancel(request.into_inner())?).await?);
        Ok(Response::new(proto::CancelStepResponse { outcome }))
    }

    async fn reset_step(
        &self,
        request: Request<proto::ResetStepRequest>,
    ) -> Result<Response<proto::ResetStepResponse>, Status> {
        let outcome = Some(self.ordered(order::reset(request.into_inner())?).await?);
        Ok(Response::new(proto::ResetStepResponse { outcome }))
    }

    async fn extend_step(
        &self,
        request: Request<proto::ExtendStepRequest>,
    ) -> Result<Response<proto::ExtendStepResponse>, Status> {
        let outcome = Some(self.ordered(order::extend(request.into_inner())?).await?);
        Ok(Response::new(proto::ExtendStepResponse { outcome }))
    }

    async fn pause_step(
        &self,
        request: Request<proto::PauseStepRequest>,
    ) -> Result<Response<proto::PauseStepResponse>, Status> {
        let outcome = Some(self.ordered(order::pause(request.into_inner())?).await?);
        Ok(Response::new(proto::PauseStepResponse { outcome }))
    }

    async fn resume_step(
        &self,
        request: Request<proto::ResumeStepRequest>,
    ) -> Result<Response<proto::ResumeStepResponse>, Status> {
        let outcome = Some(self.ordered(order::resume(request.into_inner())?).await?);
        Ok(Response::new(proto::ResumeStepResponse { outcome }))
    }

    async fn resolve_hold(
        &self,
        request: Request<proto::ResolveHoldRequest>,
    ) -> Result<Response<proto::ResolveHoldResponse>, Status> {
        let outcome = Some(self.ordered(order::resolve(request.into_inner())?).await?);
        Ok(Response::new(proto::ResolveHoldResponse { outcome }))
    }

    async fn list_steps(
        &self,
        request: Request<proto::ListStepsRequest>,
    ) -> Result<Response<proto::ListStepsResponse>, Status> {
        let call = order::list(request.into_inner())?;
        let listed = self.service.list_steps(&call.namespace, &call.filter, call.from, call.size);
        let Listed { steps, next, at } = listed.await.map_err(|error| status::store(&error))?;
        Ok(Response::new(proto::ListStepsResponse {
            steps: steps.into_iter().map(|step| order::summary(step, at)).collect(),
            next_page_token: next.map(|next| next.to_string()).unwrap_or_default(),
        }))
    }

    async fn evaluate(
        &self,
        request: Request<proto::EvaluateRequest>,
    ) -> Result<Response<proto::EvaluateResponse>, Status> {
        let evaluation = admin::evaluate(request.into_inner())?;
        let result = self.service.evaluate(&evaluation).await;
        let result = result
            .map_err(|error| status::service(&error, &evaluation.step.key(), "inline_policy"))?;
        let decisions = result
            .decisions
            .into_iter()
            .map(|decision| evaluated(decision, &result.policy))
            .collect();
        Ok(Response::new(proto::EvaluateResponse { decisions }))
    }

    async fn get_server_info(
        &self,
        _: Request<proto::GetServerInfoRequest>,
    ) -> Result<Response<proto::GetServerInfoResponse>, Status> {
        let store = self.service.store();
        let description = store.describe();
        Ok(Response::new(proto::GetServerInfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            store: description.store.to_owned(),
            durability: description.durability,
            store_time: Some(answer::instant(store.now().at)),
            start_time: Some(answer::instant(self.about.started_at)),
            policy_file: self.about.policy_file.clone(),
            policy_file_error: self.about.policy_file_error.load().to_string(),
        }))
    }
}
