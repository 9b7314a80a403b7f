//! Namespaces and policies: read, changed under their etags, applied from a file.

use std::sync::Arc;

use super::{PolicyInForce, Service};
use crate::{
    domain::{
        id::Id,
        namespace::{DEFAULT_NAMESPACE, Settings},
        policy::{Violations, spec::PolicySpec},
        time::Timestamp,
    },
    store::{
        ConfigurationChange, NamespaceView, Store, StoreError,
        configuration::{Configuration, NamespaceEntry, PolicyHistory, PolicyRevision, digest},
    },
};

/// Rounds of compare-and-set before a configuration is given up as contended.
pub(super) const ROUNDS: usize = 16;

/// Why an order of an operator could not be carried out. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// There is such a thing already.
    #[error("{0} exists already")]
    Exists(String),
    /// There is no such policy.
    #[error("there is no policy {policy:?}")]
    PolicyUnknown {
        /// The policy.
        policy: String,
        /// The revision, where one was asked for.
        revision: u64,
    },
    /// There is such a target already.
    #[error("there is such a target already")]
    TargetExists,
    /// There is no such target.
    #[error("there is no target {0:?}")]
    TargetUnknown(String),
    /// Somebody changed it since the etag was read.
    #[error("the etag is no longer {given:?} but {current:?}")]
    EtagMismatch {
        /// As given.
        given: String,
        /// As it is.
        current: String,
    },
    /// The default namespace always exists.
    #[error("the default namespace always exists")]
    NamespaceProtected,
    /// The policy is the default of its namespace.
    #[error("the policy is the default of its namespace")]
    PolicyIsDefault,
    /// The target is the default of its namespace.
    #[error("the target is the default of its namespace")]
    TargetIsDefault,
    /// The pause would be over before it begins.
    #[error("the pause would end at {until}, and it is {now}")]
    PauseOver {
        /// When it would end.
        until: Timestamp,
        /// The store's time.
        now: Timestamp,
    },
    /// A breaker would be forced for too long.
    #[error("the breaker would be forced until {until}, and {latest} is the latest")]
    ForcedTooLong {
        /// When it would end.
        until: Timestamp,
        /// The latest end.
        latest: Timestamp,
    },
    /// The target has no breaker.
    #[error("the target {0:?} has no breaker")]
    NoBreaker(String),
    /// The policy is not valid.
    #[error(transparent)]
    Invalid(#[from] Violations),
    /// The target is not valid.
    #[error(transparent)]
    TargetInvalid(Violations),
    /// The store said no, or nothing.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A policy to be created or replaced.
#[derive(Clone, Debug)]
pub struct PolicyWrite {
    /// What it says.
    pub spec: PolicySpec,
    /// The etag that the present one must have; empty is any.
    pub etag: String,
    /// Check only.
    pub validate_only: bool,
    /// It may exist.
    pub may_exist: bool,
    /// It may be missing.
    pub may_be_missing: bool,
}

/// The etag of a revision.
#[must_use]
pub fn etag(revision: u64) -> String {
    format!("r{revision}")
}

pub(super) fn check_etag(given: &str, current: u64) -> Result<(), AdminError> {
    let current = etag(current);
    if given.is_empty() || given == current {
        Ok(())
    } else {
        Err(AdminError::EtagMismatch { given: given.to_owned(), current })
    }
}

impl<S: Store> Service<S> {
    /// Shows a namespace.
    ///
    /// # Errors
    /// It does not exist, or the store is away.
    pub async fn namespace(&self, name: &str) -> Result<NamespaceView, AdminError> {
        let unknown = || StoreError::NamespaceUnknown(name.to_owned());
        let id: Id = name.parse().map_err(|_| unknown())?;
        let configuration = self.store.configuration(name).await?;
        let live_steps = self.store.live_steps(name).await?;
        Ok(NamespaceView { name: id, entry: configuration.namespace.clone(), live_steps })
    }

    /// Creates a namespace.
    ///
    /// # Errors
    /// It exists, or the store is away.
    pub async fn create_namespace(
        &self,
        name: &Id,
        settings: Settings,
    ) -> Result<NamespaceView, AdminError> {
        let exists = || AdminError::Exists(format!("namespace {:?}", &**name));
        match self.store.configuration(name).await {
            Ok(_) => return Err(exists()),
            Err(StoreError::NamespaceUnknown(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let entry = NamespaceEntry::new(settings, self.store.now().at);
        match self.store.configure(name, 0, ConfigurationChange::Namespace(entry)).await {
            Ok(()) => self.namespace(name).await,
            Err(StoreError::ConfigurationChanged) => Err(exists()),
            Err(error) => Err(error.into()),
        }
    }

    /// Changes a namespace's settings.
    ///
    /// # Errors
    /// It does not exist, its etag is another, its default policy or target does
    /// not exist, or the store is away.
    pub async fn update_namespace(
        &self,
        name: &Id,
        given_etag: &str,
        change: impl Fn(&Settings) -> Settings,
    ) -> Result<NamespaceView, AdminError> {
        for _ in 0..ROUNDS {
            let configuration = self.store.configuration(name).await?;
            let current = &configuration.namespace;
            check_etag(given_etag, current.revision)?;
            let settings = change(&current.settings);
            if let Some(policy) = &settings.default_policy
                && !exists(&configuration, policy)
            {
                return Err(AdminError::PolicyUnknown { policy: policy.to_string(), revision: 0 });
            }
            if let Some(target) = &settings.default_target
                && !configuration.targets.contains_key(target)
            {
                return Err(AdminError::TargetUnknown(target.to_string()));
            }
            let entry = NamespaceEntry {
                settings,
                revision: current.revision + 1,
                created_us: current.created_us,
                updated_us: self.store.now().at.as_micros(),
            };
            if self.configured(name, &configuration, ConfigurationChange::Namespace(entry)).await? {
                return self.namespace(name).await;
            }
        }
        Err(StoreError::ConfigurationChanged.into())
    }

    /// Deletes a namespace without steps.
    ///
    /// # Errors
    /// It does not exist, has steps, is the default one, its etag is another, or
    /// the store is away.
    pub async fn delete_namespace(&self, name: &Id, given_etag: &str) -> Result<(), AdminError> {
        if &**name == DEFAULT_NAMESPACE {
            return Err(AdminError::NamespaceProtected);
        }
        for _ in 0..ROUNDS {
            let configuration = self.store.configuration(name).await?;
            check_etag(given_etag, configuration.namespace.revision)?;
            if self.configured(name, &configuration, ConfigurationChange::DeleteNamespace).await? {
                return Ok(());
            }
        }
        Err(StoreError::ConfigurationChanged.into())
    }

    /// Creates a policy or writes a new revision of it. Writing what is already
    /// there changes nothing.
    ///
    /// # Errors
    /// It exists or is missing against what the write allows, its etag is
    /// another, it is not valid, or the store is away.
    pub async fn write_policy(
        &self,
        namespace: &Id,
        name: &Id,
        write: &PolicyWrite,
    ) -> Result<PolicyInForce, AdminError> {
        for _ in 0..ROUNDS {
            let configuration = self.store.configuration(namespace).await?;
            let mut history = configuration.policies.get(name).cloned().unwrap_or_default();
            let present = history.latest().filter(|_| !history.deleted).cloned();
            match &present {
                Some(_) if !write.may_exist => {
                    return Err(AdminError::Exists(format!("policy {:?}", &**name)));
                }
                None if !write.may_be_missing => {
                    return Err(AdminError::PolicyUnknown {
                        policy: name.to_string(),
                        revision: 0,
                    });
                }
                Some(present) => check_etag(&write.etag, present.number)?,
                None => {}
            }
            let number = history.latest().map_or(0, |latest| latest.number) + 1;
            if let Some(present) = present.filter(|present| present.digest == digest(&write.spec)) {
                return Ok(PolicyInForce { name: Some(name.clone()), revision: present });
            }
            let revision = PolicyRevision::parse(write.spec.clone(), number, self.store.now().at)?;
            history.add(revision);
            let Some(revision) = history.latest().cloned() else { continue };
            let written = PolicyInForce { name: Some(name.clone()), revision };
            if write.validate_only
                || self
                    .configured(
                        namespace,
                        &configuration,
                        ConfigurationChange::Policy(name.clone(), history),
                    )
                    .await?
            {
                return Ok(written);
            }
        }
        Err(StoreError::ConfigurationChanged.into())
    }

    /// Deletes a policy. The steps that use it keep it.
    ///
    /// # Errors
    /// It does not exist, is the namespace's default, its etag is another, or
    /// the store is away.
    pub async fn delete_policy(
        &self,
        namespace: &Id,
        name: &Id,
        given_etag: &str,
    ) -> Result<(), AdminError> {
        for _ in 0..ROUNDS {
            let configuration = self.store.configuration(namespace).await?;
            let unknown = || AdminError::PolicyUnknown { policy: name.to_string(), revision: 0 };
            let mut history = configuration
                .policies
                .get(name)
                .filter(|history| !history.deleted)
                .cloned()
                .ok_or_else(unknown)?;
            check_etag(given_etag, history.latest().map_or(0, |latest| latest.number))?;
            if configuration.namespace.settings.default_policy.as_ref() == Some(name) {
                return Err(AdminError::PolicyIsDefault);
            }
            history.deleted = true;
            if self
                .configured(
                    namespace,
                    &configuration,
                    ConfigurationChange::Policy(name.clone(), history),
                )
                .await?
            {
                return Ok(());
            }
        }
        Err(StoreError::ConfigurationChanged.into())
    }

    /// A policy with its past, deleted ones included.
    ///
    /// # Errors
    /// It does not exist, or the store is away.
    pub async fn policy(&self, namespace: &str, name: &str) -> Result<PolicyHistory, AdminError> {
        let configuration = self.store.configuration(namespace).await?;
        let unknown = || AdminError::PolicyUnknown { policy: name.to_owned(), revision: 0 };
        configuration.policies.get(name).cloned().ok_or_else(unknown)
    }

    /// The policies of a namespace by name after `after`, at most `limit`,
    /// deleted ones left out.
    ///
    /// # Errors
    /// There is no such namespace, or the store is away.
    pub async fn policies(
        &self,
        namespace: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<PolicyInForce>, AdminError> {
        let configuration = self.store.configuration(namespace).await?;
        let present = configuration
            .policies
            .iter()
            .filter(|(name, history)| &***name > after && !history.deleted);
        let latest = present.filter_map(|(name, history)| {
            let revision = Arc::clone(history.latest()?);
            Some(PolicyInForce { name: Some(name.clone()), revision })
        });
        Ok(latest.take(limit).collect())
    }

    /// Whether the change was made; false when somebody was faster.
    pub(super) async fn configured(
        &self,
        name: &Id,
        read: &Configuration,
        change: ConfigurationChange,
    ) -> Result<bool, AdminError> {
        match self.store.configure(name, read.revision, change).await {
            Ok(()) => Ok(true),
            Err(StoreError::ConfigurationChanged) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn exists(configuration: &Configuration, policy: &Id) -> bool {
    configuration.policies.get(policy).is_some_and(|history| !history.deleted)
}
