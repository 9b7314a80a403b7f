//! Targets: read, changed under their etags, paused and resumed.

use std::time::Duration;

use super::{
    AdminError, Service,
    admin::{ROUNDS, check_etag},
};
use crate::{
    domain::{
        id::Id,
        limit::{Bound, Pause, spec::TargetSpec, usage::Usage},
        time::Timestamp,
    },
    store::{
        ConfigurationChange, Store, StoreError,
        configuration::{Configuration, TargetEntry},
    },
};

/// What a write of a target rests on.
#[derive(Clone, Debug, Default)]
pub struct TargetWrite {
    /// The etag that the present one must have; empty is any.
    pub etag: String,
    /// Check only.
    pub validate_only: bool,
    /// It may exist.
    pub may_exist: bool,
    /// It may be missing.
    pub may_be_missing: bool,
}

/// An order to pause a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PauseOrder {
    /// Why.
    pub reason: String,
    /// Who orders it; empty when that is not said.
    pub by: String,
    /// When it ends by itself; None is when it is resumed.
    pub end: Option<PauseEnd>,
}

/// When a pause ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseEnd {
    /// At an instant, which must be to come.
    At(Timestamp),
    /// After a while.
    After(Duration),
}

/// What becomes of a target.
pub(super) enum Fate {
    /// It is so already, or only checked.
    Stands(TargetEntry),
    /// It is written.
    Written(TargetEntry),
}

impl<S: Store> Service<S> {
    /// Creates a target or changes what it allows: `change` makes it of what
    /// it allows now, nothing when it is missing. Writing what is already there
    /// changes nothing.
    ///
    /// # Errors
    /// It exists or is missing against what the write allows, its etag is
    /// another, it is not valid, there are too many, or the store is away.
    pub async fn write_target(
        &self,
        namespace: &Id,
        name: &Id,
        write: &TargetWrite,
        change: impl Fn(&TargetSpec) -> TargetSpec,
    ) -> Result<TargetEntry, AdminError> {
        self.change_target(namespace, name, |configuration, now| {
            written(configuration, name, write, &change, now)
        })
        .await
    }

    /// Pauses a target; one that is paused keeps the beginning of its pause.
    ///
    /// # Errors
    /// It does not exist, the pause would be over already, or the store is away.
    pub async fn pause_target(
        &self,
        namespace: &Id,
        name: &Id,
        order: &PauseOrder,
    ) -> Result<TargetEntry, AdminError> {
        self.change_target(namespace, name, |configuration, now| {
            let present = present(configuration, name)?;
            let running = present.pause.as_ref().filter(|pause| pause.holds_at(now));
            let pause = Pause {
                reason: order.reason.clone(),
                by: order.by.clone(),
                since: running.map_or(now, |pause| pause.since),
                until: order.end.map(|end| end.instant(now)).transpose()?,
            };
            let stood = present.stood_at(now);
            let entry =
                TargetEntry { pause: Some(pause), stood, updated_at: now, ..present.clone() };
            Ok(Fate::Written(entry))
        })
        .await
    }

    /// Ends a target's pause, if there is one. That it ended now is remembered: whoever
    /// it kept waiting is not late for that.
    ///
    /// # Errors
    /// It does not exist, or the store is away.
    pub async fn resume_target(
        &self,
        namespace: &Id,
        name: &Id,
    ) -> Result<TargetEntry, AdminError> {
        self.end_order(namespace, name, |target, now| {
            let pause = target.pause.as_mut().filter(|pause| pause.holds_at(now));
            pause.map(|pause| pause.until = Some(now)).is_some()
        })
        .await
    }

    /// Ends an order about a target; `end` says whether there was one.
    pub(super) async fn end_order(
        &self,
        namespace: &Id,
        name: &Id,
        end: impl Fn(&mut TargetEntry, Timestamp) -> bool,
    ) -> Result<TargetEntry, AdminError> {
        self.change_target(namespace, name, |configuration, now| {
            let present = present(configuration, name)?;
            let mut ended = TargetEntry { updated_at: now, ..present.clone() };
            Ok(match end(&mut ended, now) {
                true => Fate::Written(ended),
                false => Fate::Stands(present.clone()),
            })
        })
        .await
    }

    /// What is used of a target's limits; `run` says by which run, where each has
    /// the target for itself.
    ///
    /// # Errors
    /// It does not exist, or the store is away.
    pub async fn target_usage(
        &self,
        namespace: &Id,
        name: &Id,
        run: &str,
    ) -> Result<Usage, AdminError> {
        let bound = self.target_bound(namespace, name, run).await?;
        Ok(self.store().usage(namespace, &bound, None).await?)
    }

    /// A target as it bounds a step of `run`.
    pub(super) async fn target_bound(
        &self,
        namespace: &Id,
        name: &Id,
        run: &str,
    ) -> Result<Bound, AdminError> {
        let configuration = self.store().configuration(namespace).await?;
        let bound = configuration.bound(name, run, self.store().now().at);
        bound.ok_or_else(|| AdminError::TargetUnknown(name.to_string()))
    }

    /// Deletes a target.
    ///
    /// # Errors
    /// It does not exist, is the namespace's default, its etag is another, or
    /// the store is away.
    pub async fn delete_target(
        &self,
        namespace: &Id,
        name: &Id,
        given_etag: &str,
    ) -> Result<(), AdminError> {
        for _ in 0..ROUNDS {
            let configuration = self.store.configuration(namespace).await?;
            check_etag(given_etag, present(&configuration, name)?.revision)?;
            if configuration.namespace.settings.default_target.as_ref() == Some(name) {
                return Err(AdminError::TargetIsDefault);
            }
            let change = ConfigurationChange::Target(name.clone(), None);
            if self.configured(namespace, &configuration, change).await? {
                self.waiters.reconfigured(namespace);
                return Ok(());
            }
        }
        Err(StoreError::ConfigurationChanged.into())
    }

    /// A target.
    ///
    /// # Errors
    /// It does not exist, or the store is away.
    pub async fn target(&self, namespace: &Id, name: &Id) -> Result<TargetEntry, AdminError> {
        present(&*self.store.configuration(namespace).await?, name).cloned()
    }

    /// The targets of a namespace by name after `after`, at most `limit`.
    ///
    /// # Errors
    /// There is no such namespace, or the store is away.
    pub async fn targets(
        &self,
        namespace: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(Id, TargetEntry)>, AdminError> {
        let configuration = self.store.configuration(namespace).await?;
        let later = configuration.targets.iter().filter(|(name, _)| &***name > after);
        Ok(later.take(limit).map(|(name, entry)| (name.clone(), entry.clone())).collect())
    }

    /// Writes what becomes of a target, on whatever it is by then.
    pub(super) async fn change_target(
        &self,
        namespace: &Id,
        name: &Id,
        fate: impl Fn(&Configuration, Timestamp) -> Result<Fate, AdminError>,
    ) -> Result<TargetEntry, AdminError> {
        for _ in 0..ROUNDS {
            let configuration = self.store.configuration(namespace).await?;
            let entry = match fate(&configuration, self.store.now().at)? {
                Fate::Stands(entry) => return Ok(entry),
                Fate::Written(entry) => entry,
            };
            let change = ConfigurationChange::Target(name.clone(), Some(entry.clone()));
            if self.configured(namespace, &configuration, change).await? {
                self.lines.moved(namespace, [(**name).into()]);
                self.waiters.reconfigured(namespace);
                return Ok(entry);
            }
        }
        Err(StoreError::ConfigurationChanged.into())
    }
}

/// The target as it is.
pub(super) fn present<'a>(
    configuration: &'a Configuration,
    name: &Id,
) -> Result<&'a TargetEntry, AdminError> {
    configuration.targets.get(name).ok_or_else(|| AdminError::TargetUnknown(name.to_string()))
}

fn written(
    configuration: &Configuration,
    name: &Id,
    write: &TargetWrite,
    change: impl Fn(&TargetSpec) -> TargetSpec,
    now: Timestamp,
) -> Result<Fate, AdminError> {
    let present = configuration.targets.get(name);
    match present {
        Some(_) if !write.may_exist => return Err(AdminError::TargetExists),
        None if !write.may_be_missing => return Err(AdminError::TargetUnknown(name.to_string())),
        Some(present) => check_etag(&write.etag, present.revision)?,
        None => {}
    }
    let spec = change(&present.map(|present| present.spec.clone()).unwrap_or_default());
    if let Some(present) = present.filter(|present| present.spec == spec) {
        return Ok(Fate::Stands(present.clone()));
    }
    let parsed = TargetEntry::parse(spec, configuration.revision + 1, now);
    let parsed = parsed.map_err(AdminError::TargetInvalid)?;
    let entry = match present.cloned() {
        Some(TargetEntry { pause, stood, forced, .. }) => {
            TargetEntry { pause, stood, forced, ..parsed }
        }
        None => parsed,
    };
    Ok(if write.validate_only { Fate::Stands(entry) } else { Fate::Written(entry) })
}

impl PauseEnd {
    /// The instant, of an order that is given now.
    pub(super) fn instant(self, now: Timestamp) -> Result<Timestamp, AdminError> {
        match self {
            Self::After(span) => Ok(now.plus(span)),
            Self::At(until) if until > now => Ok(until),
            Self::At(until) => Err(AdminError::PauseOver { until, now }),
        }
    }
}
