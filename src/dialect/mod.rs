//! Retry configuration of other systems, read into policies.
//!
//! One file a system. Each reads what that system's users have at hand, refuses
//! what the system itself refuses (with the place, the value and what would be
//! accepted), and says in notes where a policy decides otherwise. There are two
//! readings, because several systems do not do what their documentation says:
//! see [`Reading`].

mod argo;
mod cloud_tasks;
mod dagster;
mod document;
mod expression;
mod kubernetes;
mod numbers;
mod octopus;
mod parts;
mod python;
mod queues;
mod step_functions;
mod temporal;
mod write;
mod zenml;

use std::sync::Arc;

use crate::{
    config::problem::{Problems, Source},
    domain::policy::spec::PolicySpec,
};

use document::Reader;

/// A system whose configuration can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum System {
    /// Argo Workflows: `retryStrategy`.
    Argo,
    /// Dagster: `RetryPolicy` of ops, run retries and run monitoring.
    Dagster,
    /// ZenML: `StepRetryConfig`.
    Zenml,
    /// Octopus Deploy: step retries and guided failure.
    Octopus,
    /// Temporal: `RetryPolicy` of activities and workflows.
    Temporal,
    /// AWS Step Functions: `Retry` of states.
    StepFunctions,
    /// Google Cloud Tasks: `RetryConfig` of queues.
    CloudTasks,
    /// Kubernetes: `backoffLimit` and `podFailurePolicy` of Jobs.
    Kubernetes,
    /// Airflow: retry arguments of operators.
    Airflow,
    /// Prefect: retry arguments of tasks and flows.
    Prefect,
    /// Celery: automatic retries of tasks.
    Celery,
    /// Sidekiq: the retries of jobs.
    Sidekiq,
    /// Asynq: the retries of tasks.
    Asynq,
}

impl System {
    /// Every system.
    pub const ALL: [Self; 13] = [
        Self::Argo,
        Self::Dagster,
        Self::Zenml,
        Self::Octopus,
        Self::Temporal,
        Self::StepFunctions,
        Self::CloudTasks,
        Self::Kubernetes,
        Self::Airflow,
        Self::Prefect,
        Self::Celery,
        Self::Sidekiq,
        Self::Asynq,
    ];

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Argo => "argo",
            Self::Dagster => "dagster",
            Self::Zenml => "zenml",
            Self::Octopus => "octopus",
            Self::Temporal => "temporal",
            Self::StepFunctions => "step-functions",
            Self::CloudTasks => "cloud-tasks",
            Self::Kubernetes => "kubernetes",
            Self::Airflow => "airflow",
            Self::Prefect => "prefect",
            Self::Celery => "celery",
            Self::Sidekiq => "sidekiq",
            Self::Asynq => "asynq",
        }
    }

    /// The name that its users know.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Argo => "Argo Workflows",
            Self::Dagster => "Dagster",
            Self::Zenml => "ZenML",
            Self::Octopus => "Octopus Deploy",
            Self::Temporal => "Temporal",
            Self::StepFunctions => "AWS Step Functions",
            Self::CloudTasks => "Google Cloud Tasks",
            Self::Kubernetes => "Kubernetes",
            Self::Airflow => "Airflow",
            Self::Prefect => "Prefect",
            Self::Celery => "Celery",
            Self::Sidekiq => "Sidekiq",
            Self::Asynq => "Asynq",
        }
    }

    /// The system of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|system| system.name() == name)
    }
}

/// Which behaviour a policy is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// What the system's documentation promises.
    Documented,
    /// What the system does, surprises included.
    Faithful,
}

/// What was read: never without a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// The policies, in the order of the file. Names are unique.
    pub policies: Vec<ImportedPolicy>,
    /// What concerns the whole file.
    pub notes: Vec<Note>,
}

/// A policy, and what its readers should know.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportedPolicy {
    /// A legal name.
    pub name: String,
    /// What it retries.
    pub unit: Unit,
    /// The policy; it holds.
    pub spec: PolicySpec,
    /// Where it decides otherwise than the system, and what it rests on.
    pub notes: Vec<Note>,
}

/// What a policy retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A step.
    Step,
    /// A whole run, and what each further run begins with.
    Run(Resume),
}

/// What a run that is retried begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// The steps that had not succeeded.
    FromFailure,
    /// The assets that had not succeeded.
    FromAssetFailure,
    /// Every step.
    AllSteps,
}

impl Resume {
    /// The name that Dagster and people use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FromFailure => "FROM_FAILURE",
            Self::FromAssetFailure => "FROM_ASSET_FAILURE",
            Self::AllSteps => "ALL_STEPS",
        }
    }
}

/// Something to know about a policy that was imported.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Note {
    /// The field of the other system that it is about; empty when it is none.
    pub field: String,
    /// What differs, and why.
    pub text: String,
}

impl Imported {
    /// The file of policies that says the same, notes as comments.
    #[must_use]
    pub fn yaml(&self) -> String {
        write::yaml(self)
    }
}

/// Reads a system's own file; `name` is how problems call it.
///
/// # Errors
/// Everything that is wrong with it, or has no meaning outside the system.
pub fn import(
    system: System,
    reading: Reading,
    name: &str,
    text: &str,
) -> Result<Imported, Problems> {
    let source = Arc::new(Source { name: name.to_owned(), text: text.to_owned() });
    let documents = document::parse(&source).map_err(|problem| Problems(vec![problem]))?;
    let mut reader = Reader::new(source, reading);
    for root in &documents {
        let root = document::Part::root(root);
        match system {
            System::Argo => argo::read(&mut reader, &root),
            System::Dagster => dagster::read(&mut reader, &root),
            System::Zenml => zenml::read(&mut reader, &root),
            System::Octopus => octopus::read(&mut reader, &root),
            System::Temporal => temporal::read(&mut reader, &root),
            System::StepFunctions => step_functions::read(&mut reader, &root),
            System::CloudTasks => cloud_tasks::read(&mut reader, &root),
            System::Kubernetes => kubernetes::read(&mut reader, &root),
            System::Airflow => python::read_airflow(&mut reader, &root),
            System::Prefect => python::read_prefect(&mut reader, &root),
            System::Celery => python::read_celery(&mut reader, &root),
            System::Sidekiq => queues::read(&mut reader, &root, &queues::SIDEKIQ),
            System::Asynq => queues::read(&mut reader, &root, &queues::ASYNQ),
        }
    }
    reader.finish(system)
}
