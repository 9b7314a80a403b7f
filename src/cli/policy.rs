//! `reprise policy`: what operators allow.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;

use super::{
    Global,
    client::Service,
    error::CliError,
    exit::Exit,
    import,
    output::{self, Format},
    policy_file,
    policy_flags::{self, PolicyFlags},
    schedule, text, view,
};
use crate::{
    domain::policy::{Policy, spec::PolicySpec},
    grpc::convert,
    proto,
};

/// What can be done with policies.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Check a file of policies, without a service
    Check {
        /// The file
        file: PathBuf,
    },
    /// Make the service's policies, targets and settings those of a file
    Apply {
        /// The file
        file: PathBuf,
    },
    /// Show a policy, as a file would have it
    Show {
        /// Its name
        name: String,
        /// Which revision [default: the latest]
        #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
        revision: u64,
    },
    /// List the policies of the namespace
    List,
    /// Delete a policy; steps that use it keep its last revision
    Delete {
        /// Its name
        name: String,
        /// Only if it is still as this etag says
        #[arg(long, value_name = "ETAG", default_value = "", hide_default_value = true)]
        etag: String,
    },
    /// Write retry configuration of another system as a file of policies
    Import(import::ImportArgs),
    /// Show the waits that a policy gives
    Schedule(ScheduleArgs),
}

/// Which policy, and how far.
#[derive(Args, Debug)]
pub struct ScheduleArgs {
    /// A policy of the namespace
    #[arg(conflicts_with_all = ["PolicyFlags", "file"])]
    policy: Option<String>,
    /// A policy of a file, without a service
    #[arg(long, value_name = "FILE", conflicts_with = "PolicyFlags")]
    file: Option<PathBuf>,
    /// Which of the file's policies
    #[arg(long, value_name = "NAME", requires = "file")]
    name: Option<String>,
    /// Retries shown at most
    #[arg(long, value_name = "N", default_value_t = 20)]
    rows: u32,
    #[command(flatten)]
    inline: PolicyFlags,
}

/// Does what was asked and shows the result.
pub async fn run(global: &Global, command: PolicyCommand) -> Result<ExitCode, CliError> {
    match command {
        PolicyCommand::Check { file } => policy_file::check(global, &file)?,
        PolicyCommand::Apply { file } => policy_file::apply(global, &file).await?,
        PolicyCommand::Show { name, revision } => show(global, get(global, name, revision).await?)?,
        PolicyCommand::List => show_all(global, list(global).await?)?,
        PolicyCommand::Delete { name, etag } => {
            delete(global, name.clone(), etag).await?;
            output::message(&format!("reprise: policy {name} is deleted"));
        }
        PolicyCommand::Import(args) => return import::run(global, &args),
        PolicyCommand::Schedule(args) => {
            let rows = args.rows;
            schedule::tell(global, &scheduled(global, args).await?, rows)?;
        }
    }
    Ok(Exit::Ok.into())
}

async fn get(global: &Global, name: String, revision: u64) -> Result<NamedPolicy, CliError> {
    let doing = format!("show policy {name}");
    let namespace = global.namespace.clone();
    let request = proto::GetPolicyRequest { namespace, name, revision };
    let response = Service::of(global)
        .admin(&doing, async |mut client| client.get_policy(request.clone()).await)
        .await?;
    NamedPolicy::read(response.policy.unwrap_or_default())
}

async fn list(global: &Global) -> Result<Vec<NamedPolicy>, CliError> {
    let service = Service::of(global);
    let mut policies = Vec::new();
    let mut page_token = String::new();
    loop {
        let namespace = global.namespace.clone();
        let request = proto::ListPoliciesRequest { namespace, page_size: 0, page_token };
        let page = service
            .admin("list policies", async |mut client| client.list_policies(request.clone()).await)
            .await?;
        for policy in page.policies {
            policies.push(NamedPolicy::read(policy)?);
        }
        if page.next_page_token.is_empty() {
            return Ok(policies);
        }
        page_token = page.next_page_token;
    }
}

async fn delete(global: &Global, name: String, etag: String) -> Result<(), CliError> {
    let doing = format!("delete policy {name}");
    let namespace = global.namespace.clone();
    let request = proto::DeletePolicyRequest { namespace, name, etag };
    Service::of(global)
        .admin(&doing, async |mut client| client.delete_policy(request.clone()).await)
        .await?;
    Ok(())
}

/// The policy whose waits are shown: a named one, or one of a file, or that of the flags.
async fn scheduled(global: &Global, args: ScheduleArgs) -> Result<Policy, CliError> {
    if let Some(file) = args.file {
        return policy_file::policy(global, &file, args.name.as_deref());
    }
    let Some(name) = args.policy else {
        return args.inline.checked();
    };
    let named = get(global, name.clone(), 0).await?;
    Policy::parse(&named.policy)
        .map_err(|violations| policy_flags::wrong(&format!("policy {name}"), &violations))
}

/// A policy as it is shown.
#[derive(Debug, Serialize)]
struct NamedPolicy {
    namespace: String,
    name: String,
    revision: u64,
    etag: String,
    digest: String,
    update_time: Option<Timestamp>,
    deleted: bool,
    policy: PolicySpec,
}

impl NamedPolicy {
    fn read(named: proto::NamedPolicy) -> Result<Self, CliError> {
        let policy = convert::policy::from_proto(named.policy.unwrap_or_default(), "policy")
            .map_err(|invalid| {
                let name = &named.name;
                CliError::new(Exit::Failed, format!("could not read policy {name}: {invalid}"))
                    .next("client and server may differ in version; `reprise doctor` shows both")
            })?;
        Ok(Self {
            namespace: named.namespace,
            name: named.name,
            revision: named.revision,
            etag: named.etag,
            digest: named.digest,
            update_time: view::instant(named.update_time),
            deleted: named.deleted,
            policy,
        })
    }
}

fn show(global: &Global, policy: NamedPolicy) -> Result<(), CliError> {
    if global.output == Format::Json {
        return output::print_json(&policy);
    }
    let spec = serde_saphyr::to_string(&policy.policy).map_err(|e| {
        CliError::new(Exit::Failed, format!("could not write policy {}: {e}", policy.name))
    })?;
    let deleted = if policy.deleted { ", deleted" } else { "" };
    let updated = policy.update_time.map(|at| format!(", of {at:.0}")).unwrap_or_default();
    let heading = format!("# {} r{}{updated}{deleted}\n", policy.name, policy.revision);
    output::print(&(heading + &spec))
}

fn show_all(global: &Global, policies: Vec<NamedPolicy>) -> Result<(), CliError> {
    if global.output == Format::Json {
        return output::print_json(&policies);
    }
    let row = |named: &NamedPolicy| {
        let spec = &named.policy;
        [
            named.name.clone(),
            named.revision.to_string(),
            spec.max_retries.map_or("no limit".to_owned(), |max| max.to_string()),
            spec.max_elapsed.map_or("-".to_owned(), |span| text::duration(span.0)),
            spec.rules.len().to_string(),
            named.update_time.map_or("-".to_owned(), |at| format!("{at:.0}")),
        ]
    };
    let header = ["POLICY", "REVISION", "MAX RETRIES", "MAX ELAPSED", "RULES", "UPDATED"];
    output::print(&output::table(header, policies.iter().map(row).collect()))
}
