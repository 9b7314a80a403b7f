//! Steps as operators see them: ordered about, and listed.

use super::{Service, ServiceError};
use crate::{
    domain::{
        event::Event,
        id::{Id, StepKey, StepName},
        order::{Order, Stage},
        plan::{Answer, Ordered},
        record::Record,
        time::Timestamp,
    },
    store::{Store, StoreError},
};

/// Steps looked at for one page, at most: a page of which few are found is told
/// before the caller gives up waiting for it.
const LOOKED_AT_MAX: usize = 8192;

/// Steps read together at least, however few are wanted.
const SLICE: usize = 128;

/// Which steps are listed: those that are of one kind in all that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepFilter {
    /// Where they stand; empty is anywhere.
    pub stages: Vec<Stage>,
    /// The run that they belong to.
    pub run: Option<String>,
    /// The queue from which they are claimed.
    pub queue: Option<Id>,
    /// Whether they have to be such as [`Record::ended_in_outage`] tells.
    pub ended_in_outage: bool,
    /// Whether they have to be paused.
    pub is_paused: bool,
}

/// A step of a list.
#[derive(Debug)]
pub struct ListedStep {
    /// Its name.
    pub name: StepName,
    /// The step.
    pub record: Record,
}

/// Steps of a list.
#[derive(Debug)]
pub struct Listed {
    /// These.
    pub steps: Vec<ListedStep>,
    /// Where to read on; None behind the last.
    pub next: Option<u64>,
    /// The store's time.
    pub at: Timestamp,
}

impl StepFilter {
    fn fits(&self, key: &StepKey<'_>, record: &Record, now: Timestamp) -> bool {
        (self.stages.is_empty() || self.stages.contains(&Stage::of(&record.state)))
            && self.run.as_deref().is_none_or(|run| run == key.run)
            && (self.queue.is_none() || self.queue == record.queue)
            && (!self.ended_in_outage || record.ended_in_outage())
            && (!self.is_paused || record.paused_at(now).is_some())
    }
}

impl<S: Store> Service<S> {
    /// Carries out an order about a step. None where the answer is of another kind,
    /// which no rule gives.
    ///
    /// # Errors
    /// What is in the order's way, or the store is away.
    pub async fn order(
        &self,
        key: &StepKey<'_>,
        order: Order,
    ) -> Result<Option<Ordered>, ServiceError> {
        match self.apply(key, None, &Event::Order(order)).await?.answer {
            Answer::Ordered(ordered) => Ok(Some(*ordered)),
            _ => Ok(None),
        }
    }

    /// Lists steps of a namespace from a cursor on, about `size` of them.
    ///
    /// # Errors
    /// There is no such namespace, a step cannot be read, or the store is away.
    pub async fn list_steps(
        &self,
        namespace: &str,
        filter: &StepFilter,
        from: u64,
        size: usize,
    ) -> Result<Listed, StoreError> {
        let mut listed = Listed { steps: Vec::new(), next: Some(from), at: self.store.now().at };
        let mut looked_at = 0;
        while let Some(from) = listed.next {
            let slice = (size - listed.steps.len()).max(SLICE);
            let page = self.store.page(namespace, from, slice).await?;
            looked_at += slice;
            for (joined, record) in page.steps {
                let Some(key) = StepKey::split(namespace, &joined) else { continue };
                if !key.is_run() && filter.fits(&key, &record, listed.at) {
                    let name = StepName {
                        namespace: namespace.to_owned(),
                        run: key.run.to_owned(),
                        step: key.step.to_owned(),
                    };
                    listed.steps.push(ListedStep { name, record });
                }
            }
            listed.next = page.next;
            if listed.steps.len() >= size || looked_at >= LOOKED_AT_MAX {
                break;
            }
        }
        Ok(listed)
    }
}
