//! What operators ask, checked.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    answer::span,
    check::{Check, Invalid, Part, shown},
    policy,
    request::{LABEL_MAX, failure, inline_policy, named_policy},
};
use crate::{
    domain::{
        id::is_id,
        namespace::{LEASE_MAX, LEASE_MIN, Settings},
        policy::{Policy, spec::PolicySpec},
    },
    proto::{self, evaluate_request},
    service::Evaluation,
};

/// Entries of a page at most.
pub const PAGE_SIZE_MAX: u32 = 1000;
/// Entries of a page when the caller names no number.
pub const PAGE_SIZE_DEFAULT: u32 = 100;
/// Failures of one evaluation at most.
pub const FAILURES_MAX: usize = 256;

const KEPT: RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(365 * 24 * 3600);
const LIVE_STEPS: RangeInclusive<u64> = 1..=100_000_000;
/// Run and step of an imagined step that is given no name.
const IMAGINED: &str = "evaluate";

/// Where to begin a page and how long it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Entries at most.
    pub size: usize,
    /// The name after which it begins. None begins at the start.
    pub after: Option<String>,
}

/// A namespace to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceCreation {
    /// Its name, an id.
    pub name: String,
    /// Its settings.
    pub settings: Settings,
}

/// A namespace to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceChange {
    /// Its name, an id.
    pub name: String,
    /// The etag that it must have; empty changes it whatever it is now.
    pub etag: String,
    /// The settings as given.
    settings: Settings,
    /// Which of them change.
    changes: Vec<Setting>,
}

impl NamespaceChange {
    /// The settings as they will be.
    #[must_use]
    pub fn apply(&self, current: &Settings) -> Settings {
        let mut settings = current.clone();
        for setting in &self.changes {
            setting.copy(&self.settings, &mut settings);
        }
        settings
    }
}

/// A namespace to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceDeletion {
    /// Its name, an id.
    pub name: String,
    /// The etag that it must have; empty deletes it whatever it is now.
    pub etag: String,
}

/// Names a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyName {
    /// Its namespace, an id.
    pub namespace: String,
    /// Its name, an id.
    pub name: String,
}

/// A policy to be created or replaced.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyWrite {
    /// Which one.
    pub name: PolicyName,
    /// What it says, as written.
    pub spec: PolicySpec,
    /// The same, checked.
    pub policy: Policy,
    /// The etag that the current one must have; empty replaces it whatever it
    /// is now. Always empty for one to be created.
    pub etag: String,
    /// Check only.
    pub validate_only: bool,
    /// Create it when it does not exist.
    pub allow_missing: bool,
}

/// Reads a call of `CreateNamespace`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn create_namespace(
    request: proto::CreateNamespaceRequest,
) -> Result<NamespaceCreation, Invalid> {
    let mut check = Check::default();
    let (name, _, settings) = given_namespace(&mut check, request.namespace);
    check.finish(NamespaceCreation { name, settings })
}

/// Reads a call of `GetNamespace`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn get_namespace(request: proto::GetNamespaceRequest) -> Result<String, Invalid> {
    let mut check = Check::default();
    let name = check.namespace(request.namespace);
    check.finish(name)
}

/// Reads a call of `ListNamespaces`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn list_namespaces(request: proto::ListNamespacesRequest) -> Result<Page, Invalid> {
    let mut check = Check::default();
    let page = page(&mut check, request.page_size, request.page_token);
    check.finish(page)
}

/// Reads a call of `UpdateNamespace`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn update_namespace(
    request: proto::UpdateNamespaceRequest,
) -> Result<NamespaceChange, Invalid> {
    let mut check = Check::default();
    let (name, etag, settings) = given_namespace(&mut check, request.namespace);
    let changes = masked_settings(&mut check, &request.update_mask.unwrap_or_default().paths);
    check.finish(NamespaceChange { name, etag, settings, changes })
}

/// Reads a call of `DeleteNamespace`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn delete_namespace(
    request: proto::DeleteNamespaceRequest,
) -> Result<NamespaceDeletion, Invalid> {
    let mut check = Check::default();
    check.name("namespace", &request.namespace);
    check.finish(NamespaceDeletion { name: request.namespace, etag: request.etag })
}

/// Reads a call of `CreatePolicy`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn create_policy(request: proto::CreatePolicyRequest) -> Result<PolicyWrite, Invalid> {
    let write = written_policy(request.namespace, request.policy)?;
    Ok(PolicyWrite { etag: String::new(), validate_only: request.validate_only, ..write })
}

/// Reads a call of `UpdatePolicy`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn update_policy(request: proto::UpdatePolicyRequest) -> Result<PolicyWrite, Invalid> {
    let write = written_policy(request.namespace, request.policy)?;
    Ok(PolicyWrite {
        validate_only: request.validate_only,
        allow_missing: request.allow_missing,
        ..write
    })
}

/// Reads a call of `GetPolicy`: the policy and its revision, None for the
/// latest.
///
/// # Errors
/// Everything that is wrong with it.
pub fn get_policy(request: proto::GetPolicyRequest) -> Result<(PolicyName, Option<u64>), Invalid> {
    let mut check = Check::default();
    let name = policy_name(&mut check, request.namespace, request.name);
    check.finish((name, Some(request.revision).filter(|revision| *revision > 0)))
}

/// Reads a call of `ListPolicies`: the namespace and the page.
///
/// # Errors
/// Everything that is wrong with it.
pub fn list_policies(request: proto::ListPoliciesRequest) -> Result<(String, Page), Invalid> {
    let mut check = Check::default();
    let namespace = check.namespace(request.namespace);
    let page = page(&mut check, request.page_size, request.page_token);
    check.finish((namespace, page))
}

/// Reads a call of `DeletePolicy`: the policy and the etag that it must have;
/// an empty one deletes it whatever it is now.
///
/// # Errors
/// Everything that is wrong with it.
pub fn delete_policy(request: proto::DeletePolicyRequest) -> Result<(PolicyName, String), Invalid> {
    let mut check = Check::default();
    let name = policy_name(&mut check, request.namespace, request.name);
    check.finish((name, request.etag))
}

/// Reads a call of `ListPolicyRevisions`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn list_policy_revisions(
    request: proto::ListPolicyRevisionsRequest,
) -> Result<PolicyName, Invalid> {
    let mut check = Check::default();
    let name = policy_name(&mut check, request.namespace, request.name);
    check.finish(name)
}

/// Reads a call of `Evaluate`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn evaluate(request: proto::EvaluateRequest) -> Result<Evaluation, Invalid> {
    let mut check = Check::default();
    let or_imagined = |name: String| if name.is_empty() { IMAGINED.to_owned() } else { name };
    let step = check.step(request.namespace, or_imagined(request.run), or_imagined(request.step));
    let policy = request.policy.and_then(|policy| match policy {
        evaluate_request::Policy::PolicyName(name) => named_policy(&mut check, &name),
        evaluate_request::Policy::InlinePolicy(policy) => Some(inline_policy(&mut check, policy)),
    });
    check.text("kind", &request.kind, LABEL_MAX);
    let count = request.failures.len();
    if count > FAILURES_MAX {
        check.refuse(
            "failures",
            format!("{count} entries"),
            format!("accepted: at most {FAILURES_MAX}"),
        );
    }
    let read =
        |(at, given)| check.within(Part::Item("failures", at), |check| failure(check, given));
    let failures = request.failures.into_iter().take(FAILURES_MAX).enumerate().map(read).collect();
    let time_left = check.positive_span("time_left", request.time_left);
    check.finish(Evaluation { step, policy, kind: request.kind, failures, time_left })
}

/// The token of the page that follows `last`, the last name of a page.
#[must_use]
pub fn page_token(last: &str) -> String {
    last.to_owned()
}

pub(super) fn page(check: &mut Check, size: u32, token: String) -> Page {
    if size > PAGE_SIZE_MAX {
        check.refuse(
            "page_size",
            size.to_string(),
            format!("accepted: at most {PAGE_SIZE_MAX}; 0 means {PAGE_SIZE_DEFAULT}"),
        );
    }
    let size = if size == 0 { PAGE_SIZE_DEFAULT } else { size.min(PAGE_SIZE_MAX) };
    let after = (!token.is_empty()).then_some(token);
    if let Some(name) = after.as_deref().filter(|name| !is_id(name)) {
        check.refuse("page_token", shown(name), "accepted: next_page_token of the page before");
    }
    Page { size: size as usize, after }
}

fn policy_name(check: &mut Check, namespace: String, name: String) -> PolicyName {
    let namespace = check.namespace(namespace);
    check.name("name", &name);
    PolicyName { namespace, name }
}

fn written_policy(
    namespace: String,
    given: Option<proto::NamedPolicy>,
) -> Result<PolicyWrite, Invalid> {
    let mut check = Check::default();
    let namespace = check.namespace(namespace);
    if given.is_none() {
        check.required("policy");
    }
    let given = given.unwrap_or_default();
    let spec = check.within(Part::Field("policy"), |check| {
        check.name("name", &given.name);
        if given.policy.is_none() {
            check.required("policy");
        }
        check.within(Part::Field("policy"), |check| {
            policy::read(check, given.policy.unwrap_or_default())
        })
    });
    let spec = check.finish(spec)?;
    let policy = policy::parse(&spec, "policy.policy")?;
    let name = PolicyName { namespace, name: given.name };
    Ok(PolicyWrite {
        name,
        spec,
        policy,
        etag: given.etag,
        validate_only: false,
        allow_missing: false,
    })
}

/// Name, etag and settings. What is output only is not looked at.
fn given_namespace(
    check: &mut Check,
    given: Option<proto::Namespace>,
) -> (String, String, Settings) {
    let Some(given) = given else {
        check.required("namespace");
        return (String::new(), String::new(), Settings::default());
    };
    check.within(Part::Field("namespace"), |check| {
        check.name("name", &given.name);
        let settings = given.settings.unwrap_or_default();
        let settings =
            check.within(Part::Field("settings"), |check| read_settings(check, &settings));
        (given.name, given.etag, settings)
    })
}

fn read_settings(check: &mut Check, given: &proto::NamespaceSettings) -> Settings {
    let defaults = Settings::default();
    let max_live_steps = given.max_live_steps.unwrap_or(defaults.max_live_steps);
    if !LIVE_STEPS.contains(&max_live_steps) {
        let accepted = format!("accepted: {} to {}", LIVE_STEPS.start(), LIVE_STEPS.end());
        check.refuse("max_live_steps", max_live_steps.to_string(), accepted);
    }
    Settings {
        default_policy: check.optional_id("default_policy", &given.default_policy),
        lease: check
            .bounded_span("lease", given.lease, LEASE_MIN..=LEASE_MAX)
            .unwrap_or(defaults.lease),
        max_retries_ceiling: given.max_retries_ceiling.unwrap_or(defaults.max_retries_ceiling),
        max_elapsed_ceiling: check
            .positive_span("max_elapsed_ceiling", given.max_elapsed_ceiling)
            .unwrap_or(defaults.max_elapsed_ceiling),
        retention: check
            .bounded_span("retention", given.retention, KEPT)
            .unwrap_or(defaults.retention),
        abandon_after: check
            .bounded_span("abandon_after", given.abandon_after, KEPT)
            .unwrap_or(defaults.abandon_after),
        max_live_steps,
        default_target: check.optional_id("default_target", &given.default_target),
    }
}

/// Settings as they are told, none left out.
#[must_use]
pub fn settings_to_proto(settings: &Settings) -> proto::NamespaceSettings {
    proto::NamespaceSettings {
        default_policy: settings.default_policy.as_deref().unwrap_or_default().to_owned(),
        lease: Some(span(settings.lease)),
        max_retries_ceiling: Some(settings.max_retries_ceiling),
        max_elapsed_ceiling: Some(span(settings.max_elapsed_ceiling)),
        retention: Some(span(settings.retention)),
        abandon_after: Some(span(settings.abandon_after)),
        max_live_steps: Some(settings.max_live_steps),
        default_target: settings.default_target.as_deref().unwrap_or_default().to_owned(),
    }
}

/// One of a namespace's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting {
    DefaultPolicy,
    Lease,
    MaxRetriesCeiling,
    MaxElapsedCeiling,
    Retention,
    AbandonAfter,
    MaxLiveSteps,
    DefaultTarget,
}

impl Setting {
    const ALL: [Self; 8] = [
        Self::DefaultPolicy,
        Self::Lease,
        Self::MaxRetriesCeiling,
        Self::MaxElapsedCeiling,
        Self::Retention,
        Self::AbandonAfter,
        Self::MaxLiveSteps,
        Self::DefaultTarget,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::DefaultPolicy => "default_policy",
            Self::Lease => "lease",
            Self::MaxRetriesCeiling => "max_retries_ceiling",
            Self::MaxElapsedCeiling => "max_elapsed_ceiling",
            Self::Retention => "retention",
            Self::AbandonAfter => "abandon_after",
            Self::MaxLiveSteps => "max_live_steps",
            Self::DefaultTarget => "default_target",
        }
    }

    fn copy(self, from: &Settings, to: &mut Settings) {
        match self {
            Self::DefaultPolicy => to.default_policy.clone_from(&from.default_policy),
            Self::Lease => to.lease = from.lease,
            Self::MaxRetriesCeiling => to.max_retries_ceiling = from.max_retries_ceiling,
            Self::MaxElapsedCeiling => to.max_elapsed_ceiling = from.max_elapsed_ceiling,
            Self::Retention => to.retention = from.retention,
            Self::AbandonAfter => to.abandon_after = from.abandon_after,
            Self::MaxLiveSteps => to.max_live_steps = from.max_live_steps,
            Self::DefaultTarget => to.default_target.clone_from(&from.default_target),
        }
    }
}

/// The settings that a mask names; all of them when it names nothing.
fn masked_settings(check: &mut Check, paths: &[String]) -> Vec<Setting> {
    if paths.is_empty() {
        return Setting::ALL.to_vec();
    }
    let mut settings = Vec::new();
    for path in paths {
        let named = Setting::ALL
            .into_iter()
            .find(|setting| path.strip_prefix("settings.") == Some(setting.name()));
        match (path.as_str(), named) {
            ("*" | "settings", _) => settings.extend(Setting::ALL),
            (_, Some(setting)) => settings.push(setting),
            (_, None) => check.refuse("update_mask", shown(path), MASK_ACCEPTED),
        }
    }
    settings
}

const MASK_ACCEPTED: &str = "accepted: settings, or any of settings.default_policy, settings.lease, settings.max_retries_ceiling, \
     settings.max_elapsed_ceiling, settings.retention, settings.abandon_after, settings.max_live_steps and settings.default_target";
