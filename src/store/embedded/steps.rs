//! The steps of a namespace in memory: packed records in slots, an index from
//! names to slots, and one event entry for each.
//!
//! A slot costs a pointer to the name, a pointer to the packed record and two
//! instants; the packed record is what the log holds as well, so nothing is
//! kept twice. Slots have numbers, so that a snapshot can walk them in slices
//! while the steps go on changing.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher as _, Hasher as _},
    ops::Bound,
    sync::Arc,
};

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use super::super::{
    Queued,
    record::{Header, RecordError, is_of_run, labels, offered},
};
use crate::domain::{id::StepKey, time::Timestamp};

/// Event entries that are filed anew at a time, so that the lock is not held
/// for long.
pub const REFILED_MAX: usize = 1024;

/// By queue, when its steps are due, and their slots.
type Queues = HashMap<String, BTreeSet<(Timestamp, u32)>>;

/// The steps of one namespace.
#[derive(Debug, Default)]
pub struct Steps {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// One entry for each step: the earliest instant at which it may have to be
    /// looked at. It is moved only when the next event comes earlier; one that
    /// is met too early is filed again. Most events only move later (a lease
    /// that is extended, a retry that ends a lease), and cost nothing here.
    events: BTreeSet<(Timestamp, u32)>,
    /// The steps that wait in a queue, by when they are due.
    queues: Queues,
    /// The steps that belong to a run which was begun, by name.
    of_runs: BTreeSet<Arc<str>>,
    /// Texts of failures, of the few steps that have any.
    evidence: HashMap<u32, Box<[u8]>>,
    live: u64,
}

/// One step.
#[derive(Debug)]
pub struct Slot {
    /// Run and step, as [`StepKey::joined`].
    pub joined: Arc<str>,
    /// The packed record.
    pub value: Box<[u8]>,
    /// Where the step's entry stands in the event index.
    filed_at: Timestamp,
    /// Whether the step is over.
    is_over: bool,
}

impl Steps {
    /// How many steps there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// How many are not over.
    #[must_use]
    pub const fn live(&self) -> u64 {
        self.live
    }

    /// The step of this name.
    #[must_use]
    pub fn find(&self, key: &StepKey<'_>) -> Option<(u32, &Slot)> {
        let hash = self.hash(key);
        let number = *self.index.find(hash, |number| {
            self.slot(*number).is_some_and(|slot| is_name(&slot.joined, key))
        })?;
        self.slot(number).map(|slot| (number, slot))
    }

    /// The slot of this number.
    #[must_use]
    pub fn slot(&self, number: u32) -> Option<&Slot> {
        self.slots.get(usize::try_from(number).ok()?)?.as_ref()
    }

    /// Numbers that slots have had so far.
    #[must_use]
    pub const fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The texts of a step's failures, in their stored form.
    #[must_use]
    pub fn evidence(&self, number: u32) -> Option<&[u8]> {
        self.evidence.get(&number).map(|text| &**text)
    }

    /// Keeps the texts of a step's failures.
    pub fn put_evidence(&mut self, number: u32, value: Box<[u8]>) {
        self.evidence.insert(number, value);
    }

    /// Creates or replaces a step, `found` being its slot. Returns its slot and
    /// name.
    ///
    /// # Errors
    /// When the record's header cannot be read; nothing is changed then.
    pub fn put(
        &mut self,
        key: &StepKey<'_>,
        found: Option<u32>,
        value: Box<[u8]>,
    ) -> Result<(u32, Arc<str>), RecordError> {
        let header = Header::read(&value)?;
        match found {
            Some(number) => Ok((number, self.replace(number, value, &header))),
            None => Ok(self.insert(key, value, &header)),
        }
    }

    /// The steps that wait in a queue, the first due first, at most `limit`. One whose
    /// labels are damaged is nobody's to claim.
    pub fn queued(&self, queue: &str, limit: usize) -> impl Iterator<Item = Queued> {
        let entries = self.queues.get(queue).into_iter().flatten().take(limit);
        entries.filter_map(|(due, number)| {
            let Slot { joined, value, .. } = self.slot(*number)?;
            Some(Queued { joined: joined.to_string(), due: *due, labels: labels(value).ok()? })
        })
    }

    /// The steps of a run after the step `after`, by name, at most `limit`. Those
    /// alone that belong to a run which was begun.
    pub fn of_run(&self, run: &str, after: &str, limit: usize) -> impl Iterator<Item = &str> {
        let from: Arc<str> = format!("{run} {after}").into();
        let prefix = run.len() + 1;
        let (run, rest) = (format!("{run} "), (Bound::Excluded(from), Bound::Unbounded));
        let names = self.of_runs.range(rest).take_while(move |name| name.starts_with(&run));
        names.map(move |name| &name[prefix..]).take(limit)
    }

    fn replace(&mut self, number: u32, value: Box<[u8]>, header: &Header) -> Arc<str> {
        let slot = self.slots[number as usize].as_mut().expect("the index names only slots in use");
        self.live = self.live + u64::from(!header.is_over) - u64::from(!slot.is_over);
        let before = std::mem::replace(&mut slot.value, value);
        slot.is_over = header.is_over;
        if header.event_at < slot.filed_at && !planted!("event-not-moved") {
            self.events.remove(&(slot.filed_at, number));
            self.events.insert((header.event_at, number));
            slot.filed_at = header.event_at;
        }
        requeue(&mut self.queues, number, offered(&before), offered(&slot.value));
        if is_of_run(&slot.value) && !is_of_run(&before) {
            self.of_runs.insert(Arc::clone(&slot.joined));
        }
        Arc::clone(&slot.joined)
    }

    fn insert(&mut self, key: &StepKey<'_>, value: Box<[u8]>, header: &Header) -> (u32, Arc<str>) {
        let joined: Arc<str> = key.joined().into();
        let slot = Slot {
            joined: Arc::clone(&joined),
            value,
            filed_at: header.event_at,
            is_over: header.is_over,
        };
        let number = match self.free.pop() {
            Some(number) => {
                self.slots[number as usize] = Some(slot);
                number
            }
            None => {
                let number = u32::try_from(self.slots.len())
                    .expect("a namespace holds fewer than 2^32 steps: its quota is lower");
                self.slots.push(Some(slot));
                number
            }
        };
        let hash = self.hash(key);
        let Self { index, slots, hasher, .. } = self;
        index.insert_unique(hash, number, |other| {
            slots[*other as usize].as_ref().map_or(0, |slot| hash_joined(hasher, &slot.joined))
        });
        self.events.insert((header.event_at, number));
        let queued = self.slots[number as usize].as_ref().and_then(|slot| offered(&slot.value));
        requeue(&mut self.queues, number, None, queued);
        if self.slots[number as usize].as_ref().is_some_and(|slot| is_of_run(&slot.value)) {
            self.of_runs.insert(Arc::clone(&joined));
        }
        self.live += u64::from(!header.is_over);
        (number, joined)
    }

    /// Forgets a step. Returns its name.
    pub fn remove(&mut self, key: &StepKey<'_>) -> Option<Arc<str>> {
        let hash = self.hash(key);
        let Self { index, slots, .. } = self;
        let found = index.find_entry(hash, |number| {
            slots[*number as usize].as_ref().is_some_and(|slot| is_name(&slot.joined, key))
        });
        let (number, _) = found.ok()?.remove();
        let slot = self.slots[number as usize].take()?;
        self.events.remove(&(slot.filed_at, number));
        requeue(&mut self.queues, number, offered(&slot.value), None);
        self.of_runs.remove(&slot.joined);
        self.live -= u64::from(!slot.is_over);
        self.evidence.remove(&number);
        self.free.push(number);
        Some(slot.joined)
    }

    /// The longest overdue steps, at most `limit`. `event_at` says when a step
    /// has to be looked at.
    ///
    /// Entries met too early are filed where they belong, at most
    /// [`REFILED_MAX`] a call; the second part says whether there may be more.
    pub fn due(
        &mut self,
        at: Timestamp,
        limit: usize,
        event_at: impl Fn(&Header) -> Timestamp,
    ) -> (Vec<(Timestamp, Arc<str>)>, bool) {
        let mut due = Vec::new();
        let mut refiled = 0;
        let mut next = (Timestamp::EPOCH, 0);
        while due.len() < limit
            && let Some(&(filed_at, number)) = self.events.range(next..=(at, u32::MAX)).next()
        {
            if refiled == REFILED_MAX {
                return (due, true);
            }
            next = (filed_at, number.saturating_add(1));
            let slot = self.slots[number as usize]
                .as_mut()
                .expect("the event index names only slots in use");
            let header = Header::read(&slot.value).expect("only values with a header are put");
            let event_at = event_at(&header);
            if event_at > filed_at {
                self.events.remove(&(filed_at, number));
                self.events.insert((event_at, number));
                slot.filed_at = event_at;
                refiled += 1;
            } else {
                due.push((header.event_at, Arc::clone(&slot.joined)));
            }
        }
        (due, false)
    }

    fn hash(&self, key: &StepKey<'_>) -> u64 {
        hash_parts(&self.hasher, key.run.as_bytes(), key.step.as_bytes())
    }
}

/// Moves a step from one place in its queue to another; either may be none.
fn requeue(
    queues: &mut Queues,
    number: u32,
    before: Option<(&str, Timestamp)>,
    after: Option<(&str, Timestamp)>,
) {
    if before == after {
        return;
    }
    if let Some((queue, due)) = before
        && let Some(entries) = queues.get_mut(queue)
    {
        entries.remove(&(due, number));
        if entries.is_empty() {
            queues.remove(queue);
        }
    }
    if let Some((queue, due)) = after {
        queues.entry_ref(queue).or_default().insert((due, number));
    }
}

fn hash_joined(hasher: &DefaultHashBuilder, joined: &str) -> u64 {
    let (run, step) = joined.split_once(' ').unwrap_or((joined, ""));
    hash_parts(hasher, run.as_bytes(), step.as_bytes())
}

fn hash_parts(hasher: &DefaultHashBuilder, run: &[u8], step: &[u8]) -> u64 {
    let mut state = hasher.build_hasher();
    state.write(run);
    state.write_u8(b' ');
    state.write(step);
    state.finish()
}

fn is_name(joined: &str, key: &StepKey<'_>) -> bool {
    let joined = joined.as_bytes();
    let (run, step) = (key.run.as_bytes(), key.step.as_bytes());
    joined.len() == run.len() + 1 + step.len()
        && joined.starts_with(run)
        && joined[run.len()] == b' '
        && joined.ends_with(step)
}
