//! `reprise namespace`: tenants and their settings.

use std::{process::ExitCode, time::Duration};

use clap::{Args, Subcommand};

use super::{
    Global,
    client::Service,
    error::CliError,
    exit::Exit,
    output::{self, Format},
    text, view,
};
use crate::proto;

/// What can be done with namespaces.
#[derive(Debug, Subcommand)]
pub enum NamespaceCommand {
    /// Create a namespace
    Create {
        /// Its name
        name: String,
        #[command(flatten)]
        settings: SettingsFlags,
    },
    /// Show a namespace
    Get {
        /// Its name
        name: String,
    },
    /// List the namespaces
    List,
    /// Change settings of a namespace; those not named stay
    Update {
        /// Its name
        name: String,
        #[command(flatten)]
        settings: SettingsFlags,
        /// Only if it is still as this etag says
        #[arg(long, value_name = "ETAG", default_value = "", hide_default_value = true)]
        etag: String,
    },
    /// Delete a namespace that has no steps
    Delete {
        /// Its name
        name: String,
        /// Only if it is still as this etag says
        #[arg(long, value_name = "ETAG", default_value = "", hide_default_value = true)]
        etag: String,
    },
}

/// A namespace's settings, as flags.
#[derive(Args, Debug)]
pub struct SettingsFlags {
    /// Policy of steps that name none; "" is the built-in one
    #[arg(long, value_name = "NAME")]
    default_policy: Option<String>,
    /// Target whose limits a target gets that was never created; "" gives it no limits
    #[arg(long, value_name = "NAME")]
    default_target: Option<String>,
    /// Lease of attempts that ask for none
    #[arg(long, value_name = "SPAN", value_parser = text::parse_positive_duration)]
    lease: Option<Duration>,
    /// Retries granted to a step at most, whatever its policy says
    #[arg(long, value_name = "N")]
    max_retries_ceiling: Option<u32>,
    /// Longest time from a step's first start to its last
    #[arg(long, value_name = "SPAN", value_parser = text::parse_positive_duration)]
    max_elapsed_ceiling: Option<Duration>,
    /// How long a step that is over is remembered
    #[arg(long, value_name = "SPAN", value_parser = text::parse_positive_duration)]
    retention: Option<Duration>,
    /// How long a due step waits for its worker
    #[arg(long, value_name = "SPAN", value_parser = text::parse_positive_duration)]
    abandon_after: Option<Duration>,
    /// Steps that are not over, at most
    #[arg(long, value_name = "N")]
    max_live_steps: Option<u64>,
}

impl SettingsFlags {
    fn settings(&self) -> proto::NamespaceSettings {
        let span = |span: Option<Duration>| span.map(text::to_proto_duration);
        proto::NamespaceSettings {
            default_policy: self.default_policy.clone().unwrap_or_default(),
            default_target: self.default_target.clone().unwrap_or_default(),
            lease: span(self.lease),
            max_retries_ceiling: self.max_retries_ceiling,
            max_elapsed_ceiling: span(self.max_elapsed_ceiling),
            retention: span(self.retention),
            abandon_after: span(self.abandon_after),
            max_live_steps: self.max_live_steps,
        }
    }

    /// The settings that were named.
    fn mask(&self) -> Result<prost_types::FieldMask, CliError> {
        let given = [
            ("settings.default_policy", self.default_policy.is_some()),
            ("settings.default_target", self.default_target.is_some()),
            ("settings.lease", self.lease.is_some()),
            ("settings.max_retries_ceiling", self.max_retries_ceiling.is_some()),
            ("settings.max_elapsed_ceiling", self.max_elapsed_ceiling.is_some()),
            ("settings.retention", self.retention.is_some()),
            ("settings.abandon_after", self.abandon_after.is_some()),
            ("settings.max_live_steps", self.max_live_steps.is_some()),
        ];
        let paths: Vec<_> = given
            .into_iter()
            .filter(|(_, given)| *given)
            .map(|(path, _)| path.to_owned())
            .collect();
        match paths.is_empty() {
            true => Err(CliError::usage("nothing to change: name at least one setting")
                .next("`reprise namespace update --help` lists them")),
            false => Ok(prost_types::FieldMask { paths }),
        }
    }
}

/// Does what was asked and shows the result.
pub async fn run(global: &Global, command: NamespaceCommand) -> Result<ExitCode, CliError> {
    let service = Service::of(global);
    match command {
        NamespaceCommand::Create { name, settings } => {
            show(global, create(&service, name, &settings).await?)?;
        }
        NamespaceCommand::Get { name } => show(global, get(&service, name).await?)?,
        NamespaceCommand::List => show_all(global, list(&service).await?)?,
        NamespaceCommand::Update { name, settings, etag } => {
            show(global, update(&service, name, &settings, etag).await?)?;
        }
        NamespaceCommand::Delete { name, etag } => {
            delete(&service, name.clone(), etag).await?;
            output::message(&format!("reprise: namespace {name} is deleted"));
        }
    }
    Ok(Exit::Ok.into())
}

async fn create(
    service: &Service,
    name: String,
    settings: &SettingsFlags,
) -> Result<Option<proto::Namespace>, CliError> {
    let doing = format!("create namespace {name}");
    let settings = Some(settings.settings());
    let namespace = Some(proto::Namespace { name, settings, ..Default::default() });
    let request = proto::CreateNamespaceRequest { namespace };
    let created =
        service.admin(&doing, async |mut client| client.create_namespace(request.clone()).await);
    Ok(created.await?.namespace)
}

async fn get(service: &Service, name: String) -> Result<Option<proto::Namespace>, CliError> {
    let doing = format!("show namespace {name}");
    let request = proto::GetNamespaceRequest { namespace: name };
    let got = service.admin(&doing, async |mut client| client.get_namespace(request.clone()).await);
    Ok(got.await?.namespace)
}

async fn update(
    service: &Service,
    name: String,
    settings: &SettingsFlags,
    etag: String,
) -> Result<Option<proto::Namespace>, CliError> {
    let doing = format!("update namespace {name}");
    let update_mask = Some(settings.mask()?);
    let settings = Some(settings.settings());
    let namespace = Some(proto::Namespace { name, settings, etag, ..Default::default() });
    let request = proto::UpdateNamespaceRequest { namespace, update_mask };
    let updated =
        service.admin(&doing, async |mut client| client.update_namespace(request.clone()).await);
    Ok(updated.await?.namespace)
}

async fn delete(service: &Service, name: String, etag: String) -> Result<(), CliError> {
    let doing = format!("delete namespace {name}");
    let request = proto::DeleteNamespaceRequest { namespace: name, etag };
    service
        .admin(&doing, async |mut client| client.delete_namespace(request.clone()).await)
        .await?;
    Ok(())
}

async fn list(service: &Service) -> Result<Vec<proto::Namespace>, CliError> {
    let mut namespaces = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = proto::ListNamespacesRequest { page_size: 0, page_token };
        let page = service
            .admin("list namespaces", async |mut client| {
                client.list_namespaces(request.clone()).await
            })
            .await?;
        namespaces.extend(page.namespaces);
        if page.next_page_token.is_empty() {
            return Ok(namespaces);
        }
        page_token = page.next_page_token;
    }
}

fn show(global: &Global, namespace: Option<proto::Namespace>) -> Result<(), CliError> {
    let namespace = view::Namespace::from(namespace.unwrap_or_default());
    match global.output {
        Format::Json => output::print_json(&namespace),
        Format::Table => output::print(&output::fields(fields(&namespace))),
    }
}

fn fields(namespace: &view::Namespace) -> Vec<(&'static str, String)> {
    let settings = &namespace.settings;
    let span = |seconds: Option<f64>| {
        seconds.map_or("default".to_owned(), |s| text::duration(text::from_seconds(s)))
    };
    let number = |number: Option<u64>| number.map_or("default".to_owned(), |n| n.to_string());
    vec![
        ("namespace", namespace.name.clone()),
        ("default policy", settings.default_policy.clone().unwrap_or("(built-in)".to_owned())),
        ("default target", settings.default_target.clone().unwrap_or("(no limits)".to_owned())),
        ("lease", span(settings.lease_seconds)),
        ("max retries ceiling", number(settings.max_retries_ceiling.map(u64::from))),
        ("max elapsed ceiling", span(settings.max_elapsed_ceiling_seconds)),
        ("retention", span(settings.retention_seconds)),
        ("abandon after", span(settings.abandon_after_seconds)),
        ("max live steps", number(settings.max_live_steps)),
        ("live steps", namespace.live_steps.to_string()),
        ("etag", namespace.etag.clone()),
    ]
}

fn show_all(global: &Global, namespaces: Vec<proto::Namespace>) -> Result<(), CliError> {
    let namespaces: Vec<view::Namespace> = namespaces.into_iter().map(Into::into).collect();
    if global.output == Format::Json {
        return output::print_json(&namespaces);
    }
    let row = |namespace: &view::Namespace| {
        [
            namespace.name.clone(),
            namespace.settings.default_policy.clone().unwrap_or("(built-in)".to_owned()),
            namespace.live_steps.to_string(),
        ]
    };
    let rows = namespaces.iter().map(row).collect();
    output::print(&output::table(["NAMESPACE", "DEFAULT POLICY", "LIVE STEPS"], rows))
}
