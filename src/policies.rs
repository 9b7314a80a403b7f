//! Applies the policy file, its targets included, to the store: at the start,
//! and when it changes.
//!
//! The store is the only truth. A file is checked as a whole, against itself
//! and against the store, before the first part of it is written, and writes
//! only what differs: instances that share a store may all apply the same file.
//! What is no longer in the file is left alone, since steps may live by it and
//! other files may know it; it goes by `DeletePolicy` and `DeleteTarget`.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use tokio::time::timeout;

use crate::{
    config::{
        policy_file::{NamespacePart, PolicyFile},
        problem::{Problem, Problems},
        watch::{Contents, Pace, Watch},
        yaml::TEXT_MAX,
    },
    domain::{id::Id, limit::spec::TargetSpec, namespace::Settings, policy::spec::PolicySpec},
    service::{AdminError, PolicyWrite, Service, TargetWrite},
    store::{
        Store, StoreError,
        configuration::{Configuration, POLICIES_MAX, TARGETS_MAX, digest},
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
    if let Some(Some(target)) = &part.settings.default_target
        && !part.targets.contains_key(target)
        && !current.is_some_and(|current| current.targets.contains_key(target))
    {
        let origin = file.origin(part.settings.default_target_place);
        let field = format!("namespaces.{name}.settings.default_target");
        let message = "accepted: a target of this namespace, in this file or in the store";
        problems.push(Problem::new(origin, field, &format!("{:?}", &**target), message));
    }
    let policies = crowded("policies", POLICIES_MAX, &part.policies, current.map(|c| &c.policies));
    let targets = crowded("targets", TARGETS_MAX, &part.targets, current.map(|c| &c.targets));
    for (what, message) in [policies, targets].into_iter().flatten() {
        let field = format!("namespaces.{name}.{what}");
        problems.push(Problem::new(file.origin(part.place), field, "", message));
    }
    problems
}

/// What there would be too many of, and how many there are.
fn crowded<N, T>(
    what: &'static str,
    max: usize,
    named: &BTreeMap<Id, N>,
    there: Option<&BTreeMap<Id, T>>,
) -> Option<(&'static str, String)> {
    let known = there.map_or(0, BTreeMap::len);
    let is_new = |name: &&Id| there.is_none_or(|there| !there.contains_key(*name));
    let new = named.keys().filter(is_new).count();
    (known + new > max).then(|| {
        let counted = format!("{known} {what} are there and {new} would be new");
        (what, format!("{counted}; accepted: at most {max} together"))
    })
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
    /// In this order, a default policy or target is there before it is named.
    async fn apply<S: Store>(
        &self,
        service: &Service<S>,
        changed: &mut Vec<String>,
    ) -> Result<(), ApplyError> {
        self.create(service, changed).await?;
        for (policy, spec) in &self.part.policies {
            self.write(service, policy, spec, changed).await?;
        }
        for (target, spec) in &self.part.targets {
            self.write_target(service, target, spec, changed).await?;
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
        let settings = Settings {
            default_policy: None,
            default_target: None,
            ..self.part.settings.apply(&Settings::default())
        };
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

    async fn write_target<S: Store>(
        &self,
        service: &Service<S>,
        target: &Id,
        spec: &TargetSpec,
        changed: &mut Vec<String>,
    ) -> Result<(), ApplyError> {
        let present = self.current.as_ref().and_then(|current| current.targets.get(target));
        if present.is_some_and(|present| present.spec == *spec) {
            return Ok(());
        }
        let write = TargetWrite { may_exist: true, may_be_missing: true, ..TargetWrite::default() };
        let written = service.write_target(self.name, target, &write, |_| spec.clone()).await?;
        changed.push(format!("target {}/{target} r{}", self.name, written.revision));
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
