//! Applies the policy file to the store: at the start, and when it changes.
//!
//! The store is the only truth. A file is checked as a whole, against itself
//! and against the store, before the first part of it is written, and writes
//! only what differs: instances that share a store may all apply the same file.
//! What is no longer in the file is left alone, since steps may live by it and
//! other files may know it; it goes by `DeletePolicy`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::time::timeout;

use crate::{
    config::{
        policy_file::{NamespacePart, PolicyFile},
        problem::{Problem, Problems},
        watch::{Contents, Pace, Watch},
        yaml::TEXT_MAX,
    },
    domain::{id::Id, namespace::Settings, policy::spec::PolicySpec},
    service::{AdminError, PolicyWrite, Service},
    store::{
        Store, StoreError,
        configuration::{Configuration, POLICIES_MAX, digest},
    },
};

/// Rest before a store that could not take a file is asked again.
const STORE_PAUSE: Duration = Duration::from_secs(5);

/// Why a file was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The file is wrong. Nothing was applied.
    #[error(transparent)]
    Wrong(#[from] Problems),
    /// The store could not take it; a part of it may have been applied. Worth
    /// another try.
    #[error("the store could not take the policies: {0}")]
    Store(#[from] AdminError),
}

impl From<StoreError> for ApplyError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.into())
    }
}

impl ApplyError {
    /// In short, for one field of an answer.
    fn briefly(&self) -> String {
        match self {
            Self::Wrong(problems) => problems.briefly(),
            Self::Store(error) => format!("{self}{}", causes(error)),
        }
    }

    fn in_full(&self) -> String {
        match self {
            Self::Wrong(problems) => problems.in_full(),
            Self::Store(_) => self.briefly(),
        }
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |error| error.source())
        .map(|cause| format!(": {cause}"))
        .collect()
}

/// Follows a policy file and applies it.
#[derive(Debug)]
pub struct Follower<S, T> {
    service: Arc<Service<S>>,
    file: PathBuf,
    watch: Watch,
    tell: T,
    /// What the store could not take yet.
    pending: Option<Contents>,
}

impl<S: Store, T: Fn(String)> Follower<S, T> {
    /// Begins to watch the file. `tell` hears why the latest contents are not
    /// applied; nothing when they are. Must be called within a tokio runtime.
    #[must_use]
    pub fn new(service: Arc<Service<S>>, file: PathBuf, pace: Pace, tell: T) -> Self {
        let watch = Watch::start(file.clone(), TEXT_MAX, pace);
        Self { service, file, watch, tell, pending: None }
    }

    /// Waits for the next contents and applies them: at once the first time.
    /// False when there will be no more.
    pub async fn next(&mut self) -> bool {
        let Some(contents) = self.contents().await else { return false };
        let applied = match PolicyFile::of(&self.file, contents.clone()) {
            Ok(file) => apply(&self.service, &file).await,
            Err(problems) => Err(problems.into()),
        };
        self.show(&applied);
        self.pending = matches!(applied, Err(ApplyError::Store(_))).then_some(contents);
        true
    }

    async fn contents(&mut self) -> Option<Contents> {
        if self.pending.is_some() {
            match timeout(STORE_PAUSE, self.watch.changed()).await {
                Ok(changed) => return changed,
                Err(_) => return self.pending.take(),
            }
        }
        self.watch.changed().await
    }

    fn show(&self, applied: &Result<Vec<String>, ApplyError>) {
        let file = self.file.display();
        self.service.telemetry().policy_file_applied.set(applied.is_ok().into());
        match applied {
            Ok(changed) if changed.is_empty() => {
                tracing::info!(%file, "the policy file is in force; nothing had to change")
            }
            Ok(changed) => {
                tracing::info!(%file, "the policy file is in force; changed: {}", changed.join(", "))
            }
            Err(error) => {
                tracing::error!(%file, "the policy file is not applied, what was in force stays:\n{}", error.in_full())
            }
        }
        (self.tell)(applied.as_ref().err().map(ApplyError::briefly).unwrap_or_default());
    }
}

/// Applies a file; says what changed.
///
/// # Errors
/// It does not fit what the store has, and nothing is applied; or the store is
/// away.
pub async fn apply<S: Store>(
    service: &Service<S>,
    file: &PolicyFile,
) -> Result<Vec<String>, ApplyError> {
    let mut parts = Vec::new();
    let mut problems = Vec::new();
    for (name, part) in &file.namespaces {
        let current = current(service, name).await?;
        problems.extend(unfit(file, name, part, current.as_deref()));
        parts.push(Part { name, part, current });
    }
    if !problems.is_empty() {
        return Err(Problems(problems).into());
    }
    let mut changed = Vec::new();
    for part in parts {
        part.apply(service, &mut changed).await?;
    }
    Ok(changed)
}

async fn current<S: Store>(
    service: &Service<S>,
    name: &str,
) -> Result<Option<Arc<Configuration>>, StoreError> {
    match service.store().configuration(name).await {
        Ok(configuration) => Ok(Some(configuration)),
        Err(StoreError::NamespaceUnknown(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What of a valid file does not fit what the store has.
fn unfit(
    file: &PolicyFile,
    name: &Id,
    part: &NamespacePart,
    current: Option<&Configuration>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let has = |policy: &Id| current.is_some_and(|current| present(current, policy).is_some());
    if let Some(Some(policy)) = &part.settings.default_policy
        && !part.policies.contains_key(policy)
        && !has(policy)
    {
        let origin = file.origin(part.settings.default_policy_place);
        let field = format!("namespaces.{name}.settings.default_policy");
        let message = "accepted: a policy of this namespace, in this file or in the store";
        problems.push(Problem::new(origin, field, &format!("{:?}", &**policy), message));
    }
    let known = current.map_or(0, |current| current.policies.len());
    let new = part
        .policies
        .keys()
        .filter(|policy| current.is_none_or(|current| !current.policies.contains_key(*policy)))
        .count();
    if known + new > POLICIES_MAX {
        let message = format!(
            "{known} policies are there and {new} would be new; accepted: at most {POLICIES_MAX} together"
        );
        problems.push(Problem::new(
            file.origin(part.place),
            format!("namespaces.{name}.policies"),
            "",
            message,
        ));
    }
    problems
}

/// The digest of a policy that is there and not deleted.
fn present(configuration: &Configuration, policy: &Id) -> Option<u128> {
    let history = configuration.policies.get(policy).filter(|history| !history.deleted)?;
    history.latest().map(|latest| latest.digest)
}

/// A namespace in the file, and as it is.
struct Part<'a> {
    name: &'a Id,
    part: &'a NamespacePart,
    current: Option<Arc<Configuration>>,
}

impl Part<'_> {
    /// In this order, a default policy is there before it is named.
    async fn apply<S: Store>(
        &self,
        service: &Service<S>,
        changed: &mut Vec<String>,
    ) -> Result<(), ApplyError> {
        self.create(service, changed).await?;
        for (policy, spec) in &self.part.policies {
            self.write(service, policy, spec, changed).await?;
        }
        self.set(service, changed).await
    }

    async fn create<S: Store>(
        &self,
        service: &Service<S>,
        changed: &mut Vec<String>,
    ) -> Result<(), ApplyError> {
        if self.current.is_some() {
            return Ok(());
        }
        let settings =
            Settings { default_policy: None, ..self.part.settings.apply(&Settings::default()) };
        match service.create_namespace(self.name, settings).await {
            Ok(_) => changed.push(format!("namespace {} created", self.name)),
            // Another instance applies the same file.
            Err(AdminError::Exists(_)) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn write<S: Store>(
        &self,
        service: &Service<S>,
        policy: &Id,
        spec: &PolicySpec,
        changed: &mut Vec<String>,
    ) -> Result<(), ApplyError> {
        if self.current.as_ref().and_then(|current| present(current, policy)) == Some(digest(spec))
        {
            return Ok(());
        }
        let write = PolicyWrite {
            spec: spec.clone(),
            etag: String::new(),
            validate_only: false,
            may_exist: true,
            may_be_missing: true,
        };
        let written = service.write_policy(self.name, policy, &write).await?;
        changed.push(format!("policy {}/{policy} r{}", self.name, written.revision.number));
        Ok(())
    }

    async fn set<S: Store>(
        &self,
        service: &Service<S>,
        changed: &mut Vec<String>,
    ) -> Result<(), ApplyError> {
        let settings = service.namespace(self.name).await?.entry.settings;
        if self.part.settings.apply(&settings) == settings {
            return Ok(());
        }
        service
            .update_namespace(self.name, "", |current| self.part.settings.apply(current))
            .await?;
        changed.push(format!("settings of {}", self.name));
        Ok(())
    }
}
