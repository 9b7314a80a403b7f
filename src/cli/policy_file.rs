//! Files of policies: checked here, applied to the service.

use std::{fs, path::Path};

use serde::Serialize;

use super::{
    Global,
    client::Service,
    error::CliError,
    exit::Exit,
    output::{self, Format},
    policy_flags, text,
};
use crate::{
    config::policy_file::{NamespacePart, PolicyFile, SettingsChange},
    domain::{namespace::DEFAULT_NAMESPACE, policy::Policy},
    grpc::convert::{policy::to_proto, target},
    proto,
};

/// Reads a file and checks everything that can be known without a service.
pub fn read(path: &Path) -> Result<PolicyFile, CliError> {
    let name = path.display().to_string();
    let text = fs::read_to_string(path)
        .map_err(|e| CliError::usage(format!("could not read {name}: {e}")))?;
    PolicyFile::parse(&name, &text).map_err(|problems| {
        let error = CliError::usage(format!("{name} does not hold"));
        problems.in_full().lines().fold(error, |error, line| error.detail(line))
    })
}

/// Says that a file holds.
pub fn check(global: &Global, path: &Path) -> Result<(), CliError> {
    let file = read(path)?;
    let names: Vec<Applied> = file
        .namespaces
        .iter()
        .flat_map(|(namespace, part)| {
            let policies = part.policies.keys().map(|name| Applied::policy(namespace, name, None));
            let targets = part.targets.keys().map(|name| Applied::target(namespace, name, None));
            policies.chain(targets)
        })
        .collect();
    match global.output {
        Format::Json => output::print_json(&names),
        Format::Table => {
            let counted = |kind, one, many| {
                let count = names.iter().filter(|applied| applied.kind == kind).count();
                (count, format!("{count} {}", if count == 1 { one } else { many }))
            };
            let (_, policies) = counted(POLICY, "policy", "policies");
            let targets = match counted(TARGET, "target", "targets") {
                (0, _) => String::new(),
                (_, targets) => format!(", {targets}"),
            };
            output::print(&format!("{} holds: {policies}{targets}\n", path.display()))
        }
    }
}

/// The policy of this name in a file, or the only one of the namespace.
pub fn policy(global: &Global, path: &Path, name: Option<&str>) -> Result<Policy, CliError> {
    let file = read(path)?;
    let part = file.namespaces.iter().find(|(namespace, _)| ***namespace == *global.namespace);
    let policies = part.map(|(_, part)| &part.policies).into_iter().flatten();
    let mut chosen = policies.filter(|(known, _)| name.is_none_or(|name| ***known == *name));
    match (chosen.next(), chosen.next()) {
        (Some((name, spec)), None) => Policy::parse(spec)
            .map_err(|violations| policy_flags::wrong(&format!("policy {name}"), &violations)),
        (Some(_), Some(_)) => {
            Err(CliError::usage("the file has several policies").next("choose one with --name"))
        }
        (None, _) => Err(CliError::new(
            Exit::NotFound,
            format!("{} has no such policy in namespace {}", path.display(), global.namespace),
        )),
    }
}

const POLICY: &str = "policy";
const TARGET: &str = "target";

/// A policy or target of the file, as the service took it.
#[derive(Debug, Serialize)]
struct Applied {
    kind: &'static str,
    namespace: String,
    name: String,
    revision: Option<u64>,
}

impl Applied {
    fn policy(namespace: &str, name: &str, revision: Option<u64>) -> Self {
        Self { kind: POLICY, namespace: namespace.to_owned(), name: name.to_owned(), revision }
    }

    fn target(namespace: &str, name: &str, revision: Option<u64>) -> Self {
        Self { kind: TARGET, ..Self::policy(namespace, name, revision) }
    }
}

/// The file for the namespace that was asked for: what a file says of no namespace
/// in particular it says of that one.
fn into_namespace(global: &Global, mut file: PolicyFile) -> Result<PolicyFile, CliError> {
    if global.namespace == DEFAULT_NAMESPACE {
        return Ok(file);
    }
    let wanted = global.namespace.parse().map_err(|not_an_id| {
        CliError::usage(format!("--namespace {}: {not_an_id}", global.namespace))
    })?;
    let part = file.namespaces.remove(DEFAULT_NAMESPACE);
    if let Some(named) = file.namespaces.keys().next() {
        return Err(CliError::usage(format!("the file names namespaces itself, such as {named}"))
            .next("leave --namespace out, or what is under `namespaces:`"));
    }
    file.namespaces.extend(part.map(|part| (wanted, part)));
    Ok(file)
}

/// Makes the service's policies, targets and settings those of the file. What the file
/// does not name stays; a namespace that it names and is missing is created.
pub async fn apply(global: &Global, path: &Path) -> Result<(), CliError> {
    let file = into_namespace(global, read(path)?)?;
    let service = Service::of(global);
    let mut applied = Vec::new();
    for (namespace, part) in &file.namespaces {
        ensure(&service, namespace).await?;
        applied.extend(apply_policies(&service, namespace, part).await?);
        applied.extend(write_targets(&service, namespace, part).await?);
        // After these, since the default ones may be among them.
        apply_settings(&service, namespace, &part.settings).await?;
    }
    show(global, &applied)
}

/// Makes the service's targets those of the file, and leaves everything else.
pub async fn apply_targets(global: &Global, path: &Path) -> Result<(), CliError> {
    let file = into_namespace(global, read(path)?)?;
    let service = Service::of(global);
    let mut applied = Vec::new();
    for (namespace, part) in file.namespaces.iter().filter(|(_, part)| !part.targets.is_empty()) {
        ensure(&service, namespace).await?;
        applied.extend(write_targets(&service, namespace, part).await?);
    }
    show(global, &applied)
}

fn show(global: &Global, applied: &[Applied]) -> Result<(), CliError> {
    match global.output {
        Format::Json => output::print_json(&applied),
        Format::Table => output::print(&applied.iter().map(line).collect::<String>()),
    }
}

fn line(applied: &Applied) -> String {
    let Applied { kind, namespace, name, revision } = applied;
    let kind = if *kind == POLICY { String::new() } else { format!("{kind} ") };
    format!("{kind}{namespace}/{name} r{}\n", revision.unwrap_or_default())
}

async fn ensure(service: &Service, namespace: &str) -> Result<(), CliError> {
    let doing = format!("create namespace {namespace}");
    let namespace = proto::Namespace { name: namespace.to_owned(), ..Default::default() };
    let request = proto::CreateNamespaceRequest { namespace: Some(namespace) };
    let created =
        service.admin(&doing, async |mut client| client.create_namespace(request.clone()).await);
    match created.await {
        Err(error) if error.exit == Exit::Conflict => Ok(()),
        other => other.map(drop),
    }
}

async fn apply_policies(
    service: &Service,
    namespace: &str,
    part: &NamespacePart,
) -> Result<Vec<Applied>, CliError> {
    let mut applied = Vec::new();
    for (name, spec) in &part.policies {
        let policy = proto::NamedPolicy {
            name: name.to_string(),
            policy: Some(to_proto(spec)),
            ..Default::default()
        };
        let request = proto::UpdatePolicyRequest {
            namespace: namespace.to_owned(),
            policy: Some(policy),
            validate_only: false,
            allow_missing: true,
        };
        let doing = format!("apply policy {namespace}/{name}");
        let response = service
            .admin(&doing, async |mut client| client.update_policy(request.clone()).await)
            .await?;
        let revision = response.policy.map(|policy| policy.revision);
        applied.push(Applied::policy(namespace, name, revision));
    }
    Ok(applied)
}

async fn write_targets(
    service: &Service,
    namespace: &str,
    part: &NamespacePart,
) -> Result<Vec<Applied>, CliError> {
    let mut applied = Vec::new();
    for (name, spec) in &part.targets {
        let named = proto::NamedTarget {
            name: name.to_string(),
            target: Some(target::to_proto(spec)),
            ..Default::default()
        };
        let request = proto::UpdateTargetRequest {
            namespace: namespace.to_owned(),
            target: Some(named),
            allow_missing: true,
            ..Default::default()
        };
        let doing = format!("apply target {namespace}/{name}");
        let response = service
            .admin(&doing, async |mut client| client.update_target(request.clone()).await)
            .await?;
        let revision = response.target.map(|target| target.revision);
        applied.push(Applied::target(namespace, name, revision));
    }
    Ok(applied)
}

async fn apply_settings(
    service: &Service,
    namespace: &str,
    change: &SettingsChange,
) -> Result<(), CliError> {
    let (settings, paths) = written(change);
    if paths.is_empty() {
        return Ok(());
    }
    let doing = format!("update namespace {namespace}");
    let namespace = proto::Namespace {
        name: namespace.to_owned(),
        settings: Some(settings),
        ..Default::default()
    };
    let update_mask = Some(prost_types::FieldMask { paths });
    let request = proto::UpdateNamespaceRequest { namespace: Some(namespace), update_mask };
    service
        .admin(&doing, async |mut client| client.update_namespace(request.clone()).await)
        .await
        .map(drop)
}

fn written(change: &SettingsChange) -> (proto::NamespaceSettings, Vec<String>) {
    let named = [
        ("default_policy", change.default_policy.is_some()),
        ("default_target", change.default_target.is_some()),
        ("lease", change.lease.is_some()),
        ("max_retries_ceiling", change.max_retries_ceiling.is_some()),
        ("max_elapsed_ceiling", change.max_elapsed_ceiling.is_some()),
        ("retention", change.retention.is_some()),
        ("abandon_after", change.abandon_after.is_some()),
        ("max_live_steps", change.max_live_steps.is_some()),
    ];
    let paths = named.iter().filter(|(_, set)| *set).map(|(name, _)| format!("settings.{name}"));
    let default_policy = change.default_policy.iter().flatten().map(ToString::to_string);
    let default_target = change.default_target.iter().flatten().map(ToString::to_string);
    let settings = proto::NamespaceSettings {
        default_policy: default_policy.collect(),
        default_target: default_target.collect(),
        lease: change.lease.map(text::to_proto_duration),
        max_retries_ceiling: change.max_retries_ceiling,
        max_elapsed_ceiling: change.max_elapsed_ceiling.map(text::to_proto_duration),
        retention: change.retention.map(text::to_proto_duration),
        abandon_after: change.abandon_after.map(text::to_proto_duration),
        max_live_steps: change.max_live_steps,
    };
    (settings, paths.collect())
}
