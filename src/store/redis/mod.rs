//! The shared store: Redis or Valkey, one truth for every process.
//!
//! Instances keep nothing but what they remember to save round trips. What is
//! written is written by scripts, each indivisible: `settle` compares what a
//! change was planned on with what is there, and the loser is handed what is
//! there. Time is the server's. See `keys` for what is kept where, and the
//! scripts under `lua` for what is done.

pub mod address;
mod asks;
mod batch;
pub mod commands;
pub mod copy;
mod fault;
mod fit;
mod keys;
mod link;
mod memory;
pub mod scripts;
mod slot;
pub mod turns;
mod wire;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::Value;
use tokio::sync::watch;

use self::{
    address::Address,
    fault::Fault,
    fit::{Findings, Watched},
    keys::{NAMESPACES, SALT},
    link::Link,
    memory::Memory,
    slot::{Heard, Known, Slot},
    turns::Turns,
    wire::{Ask, Heading, Item, Outcome, Planned, Said, Stored, Written},
};
use super::{
    Basis, Change, Changes, Commit, Committed, ConfigurationChange, Description, Due, Expect,
    Loaded, NamespaceView, Queued, Sizes, StepPage, Store, StoreError,
    configuration::{Configuration, NamespaceEntry, PolicyRevision},
    record,
};
use crate::{
    chance,
    clock::Clock,
    domain::{
        draw::Salt,
        id::{Id, StepKey},
        limit::{self, Admitted, Asks, Episodes, ForcedState, usage::Usage},
        namespace::{DEFAULT_NAMESPACE, Settings},
        plan::{self, Answer, Draft, Now, Settlement},
        record::{Evidence, FailureText, PolicyChoice, Record},
        time::Timestamp,
    },
};

/// Steps remembered at least, at most twice as many.
const REMEMBERED: usize = 32 * 1024;
/// How often the register of namespaces is read.
const REGISTER_EVERY: Duration = Duration::from_secs(1);
/// Namespaces that are looked at together.
const ABREAST: usize = 16;
/// Looks at one namespace at a time, while something is filed too early.
const LOOKS: usize = 64;
/// Due steps of one namespace that are looked at together.
const DUE_MAX: usize = 4096;
/// Parked steps of one target that are called together.
const CALLED_MAX: usize = 64;
/// Without a word from the server for so long, nothing is recalled: time may
/// have jumped, or everybody may have been away.
const SILENCE: Duration = Duration::from_secs(1);

/// How often servers are looked at, whether they are still fit.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Settings of the store.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// Where it is.
    pub address: Address,
    /// How long a command may take. What takes longer is void.
    pub timeout: Duration,
    /// Whether servers are refused that may lose in a restart what was
    /// acknowledged. They are warned of otherwise.
    pub strict: bool,
    /// How often it is looked at whether servers are still fit.
    pub look_every: Duration,
    /// A time that is not the server's: for tests of time itself.
    pub given_time: Option<Clock>,
}

impl RedisOptions {
    /// What is usual.
    #[must_use]
    pub const fn new(address: Address) -> Self {
        let (timeout, look_every) = (Duration::from_secs(2), LOOK_EVERY);
        Self { address, timeout, strict: false, look_every, given_time: None }
    }
}

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    link: Link,
    salt: Salt,
    /// Runs evenly between two words from the server.
    local: Clock,
    /// What was last heard of the time, of whichever namespace.
    heard: Mutex<Heard>,
    given_time: Option<Clock>,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
    /// Steps as they were last seen, by key; None is a step that there was not.
    memory: Mutex<Memory<String, Option<Stored>>>,
    turns: Turns,
    register: Mutex<Register>,
    /// The connection, by its number, to which what is remembered belongs.
    remembers: AtomicU64,
    /// Acknowledged changes that are proven to be gone, at least.
    lost: AtomicU64,
    /// What was found when it was last looked whether servers are fit.
    fitness: Watched,
}

/// The register of namespaces, as it was last read.
#[derive(Default)]
struct Register {
    names: Vec<Id>,
    read_at: Option<Timestamp>,
}

/// Why the store did not open.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// It could not be reached.
    #[error(
        "{address} could not be reached: {why}; is it running there, or should store.kind say another address?"
    )]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// Why.
        why: String,
    },
    /// It is not fit to keep steps.
    #[error("{address} must not be used: {why}")]
    Unfit {
        /// Where it is.
        address: String,
        /// Why.
        why: String,
    },
    /// There is no store of Reprise in it.
    #[error("{address} holds no store of Reprise")]
    Empty {
        /// Where it is.
        address: String,
    },
    /// It was reached and then refused.
    #[error("the store could not be used")]
    Store(#[from] StoreError),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The grace that lasts at `at`.
fn now_at(at: Timestamp, before: Timestamp, graced: u64) -> Now {
    let lasts = at.as_micros() < graced;
    Now { at, leases: if lasts { before } else { at } }
}

impl Redis {
    /// Connects, and looks whether the server is fit to keep steps.
    ///
    /// # Errors
    /// See [`RedisError`].
    pub async fn open(options: RedisOptions) -> Result<Self, RedisError> {
        let (given_time, look_every) = (options.given_time.clone(), options.look_every);
        let (link, fitness) = connect(options).await?;
        if let Some(mark) = copy::mark(&link).await? {
            let (address, why) = (link.address().to_string(), mark.to_string());
            return Err(RedisError::Unfit { address, why });
        }
        let salt = salt(&link).await.map_err(StoreError::from)?;
        let store = Self::new(link, fitness, salt, given_time);
        store.0.begin().await?;
        store.keep_looking(look_every);
        Ok(store)
    }

    fn new(link: Link, fitness: Watched, salt: Salt, given_time: Option<Clock>) -> Self {
        let local = given_time.clone().unwrap_or_else(|| Clock::system(Timestamp::EPOCH));
        Self(Arc::new(Inner {
            link,
            salt,
            local,
            heard: Mutex::default(),
            given_time,
            slots: Mutex::default(),
            memory: Mutex::new(Memory::new(REMEMBERED)),
            turns: Turns::default(),
            register: Mutex::default(),
            remembers: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            fitness,
        }))
    }

    /// Looks again and again whether servers are still fit, until the store is
    /// dropped.
    fn keep_looking(&self, every: Duration) {
        let inner = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                let Some(inner) = inner.upgrade() else { return };
                // A server that does not say is away, which is told elsewhere.
                if let Ok(findings) = Findings::of(&inner.link).await {
                    inner.fitness.note(findings, &inner.link.address().to_string());
                }
            }
        });
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis({})", self.0.link.address())
    }
}

/// Connects to a server that is fit to keep steps.
async fn connect(options: RedisOptions) -> Result<(Link, Watched), RedisError> {
    let RedisOptions { address, timeout, strict, .. } = options;
    let written = address.to_string();
    let link = Link::new(address, timeout, chance::unit);
    connected(&link)
        .await
        .map_err(|why| RedisError::Unreachable { address: written.clone(), why })?;
    let findings = Findings::of(&link).await.map_err(StoreError::from)?;
    let refused = if strict { findings.worst() } else { findings.unfit.as_deref() };
    if let Some(why) = refused {
        return Err(RedisError::Unfit { address: written, why: why.to_owned() });
    }
    let fitness = Watched::default();
    fitness.note(findings, &written);
    Ok((link, fitness))
}

/// Waits for the first connection, as long as two tries take.
async fn connected(link: &Link) -> Result<(), String> {
    let mut state = link.watch();
    let patience = link.timeout() * 2;
    let _ = tokio::time::timeout(patience, state.wait_for(Result::is_ok)).await;
    state.borrow().clone()
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::VerbatimString { text, .. } => Some(text),
        value => String::from_utf8(wire::bytes(value)?).ok(),
    }
}

/// What chance is drawn from: drawn by whoever comes first.
async fn salt(link: &Link) -> Result<Salt, Fault> {
    let drawn = chance::bytes::<16>();
    link.send(commands::SET.cmd().arg(SALT).arg(&drawn).arg("NX")).await?;
    let value = link.send(commands::GET.cmd().arg(SALT)).await?;
    let bytes = wire::bytes(value).and_then(|bytes| bytes.try_into().ok());
    bytes.map(Salt).ok_or_else(|| Fault::Wrong(format!("{SALT} is not the salt of a store")))
}

fn unknown(namespace: &str) -> StoreError {
    StoreError::NamespaceUnknown(namespace.to_owned())
}

fn unreadable(key: &StepKey<'_>) -> impl FnOnce(record::RecordError) -> StoreError {
    let key = key.to_string();
    move |source| StoreError::Unreadable { key, source }
}

/// The policy that a step uses, as the counts of uses name it.
fn use_of(choice: &PolicyChoice) -> String {
    match choice {
        PolicyChoice::Default => String::new(),
        PolicyChoice::Named(name) => format!("policy:{name}"),
        PolicyChoice::Inline(digest) => format!("inline:{digest:032x}"),
    }
}

impl Inner {
    fn slot(&self, namespace: &str) -> Arc<Slot> {
        let mut slots = lock(&self.slots);
        match slots.get(namespace) {
            Some(slot) => Arc::clone(slot),
            None => {
                let slot = Arc::new(Slot::new(namespace));
                slots.insert(namespace.to_owned(), Arc::clone(&slot));
                slot
            }
        }
    }

    /// Forgets a namespace that there is not, whoever asked for it.
    fn forget(&self, namespace: &str) -> StoreError {
        lock(&self.slots).remove(namespace);
        unknown(namespace)
    }

    /// Time after which a command that is sent now is void, and the time that is
    /// given, if one is.
    fn times(&self, slot: &Slot) -> [Vec<u8>; 2] {
        let given = self.given_time.as_ref().map(|clock| clock.now().as_micros().to_string());
        let now = slot.time(self.local.now());
        // Nothing was heard yet: what is sent now is sent for the first time.
        let not_after = now.map_or(Timestamp::NEVER, |now| now.plus(self.link.timeout()));
        let not_after = not_after.as_micros().to_string();
        [not_after.into_bytes(), given.unwrap_or_default().into_bytes()]
    }

    /// The default namespace is there from the beginning.
    async fn begin(&self) -> Result<(), StoreError> {
        match self.described(DEFAULT_NAMESPACE).await {
            Err(StoreError::NamespaceUnknown(_)) => {}
            other => return other.map(|_| ()),
        }
        let at = self.server_time().await?;
        let entry = NamespaceEntry::new(Settings::default(), at);
        let name = DEFAULT_NAMESPACE.parse().map_err(|_| unknown(DEFAULT_NAMESPACE))?;
        match self.reconfigure(&name, None, &ConfigurationChange::Namespace(entry)).await {
            // Another instance was faster.
            Ok(()) | Err(StoreError::ConfigurationChanged) => {}
            Err(error) => return Err(error),
        }
        self.described(DEFAULT_NAMESPACE).await.map(|_| ())
    }

    /// Begins anew in a store that somebody has emptied.
    async fn begin_anew(&self) -> Result<(), StoreError> {
        tracing::error!(
            address = %self.link.address(),
            "the store is empty, and was not: everything acknowledged is gone"
        );
        self.lost.fetch_add(1, Ordering::Relaxed);
        lock(&self.memory).clear();
        self.link.send(commands::SET.cmd().arg(SALT).arg(&self.salt.0).arg("NX")).await?;
        self.begin().await
    }

    /// What was seen before a call was sent is there in its answer, unless it
    /// was lost: the server is another, that had not got it.
    fn compare(&self, slot: &Slot, (born, seen): (u64, u64), heading: &Heading) {
        if heading.born != born || heading.changes >= seen || planted!("redis-loss-not-seen") {
            return;
        }
        let lost = seen - heading.changes;
        tracing::error!(
            namespace = slot.name,
            lost,
            "acknowledged changes are gone from the store; had it failed over to a replica that lacked them?"
        );
        self.lost.fetch_add(lost, Ordering::Relaxed);
        slot.unsee();
        lock(&self.memory).clear();
    }

    async fn server_time(&self) -> Result<Timestamp, StoreError> {
        if let Some(clock) = &self.given_time {
            return Ok(clock.now());
        }
        let Value::Array(parts) = self.link.send(&commands::TIME.cmd()).await? else {
            return Err(wire::strange().into());
        };
        let mut parts = parts.into_iter().filter_map(wire::number);
        let (seconds, micros) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        Ok(Timestamp::from_micros(seconds * 1_000_000 + micros))
    }

    /// Calls a script about a namespace.
    async fn call(
        &self,
        slot: &Slot,
        script: &scripts::Script,
        keys: &[impl AsRef<str>],
        args: &[impl AsRef<[u8]>],
    ) -> Result<Said, Fault> {
        let seen = slot.seen();
        let sent = match self.link.send(&script.call(keys, args, true)).await {
            Err(Fault::UnknownScript) if !planted!("redis-script-not-sent") => {
                self.link.send(&script.call(keys, args, false)).await
            }
            sent => sent,
        };
        let said = Said::read(sent?)?;
        match &said {
            Said::Done(heading, _) => {
                self.compare(slot, seen, heading);
                slot.note(heading, self.local.now());
                *lock(&self.heard) = slot.heard();
            }
            // Its clock was set: by what is known of it, all else would be void too.
            Said::Void(wall) if !planted!("redis-void-not-heard") => {
                slot.hear(*wall, self.local.now())
            }
            _ => {}
        }
        Ok(said)
    }

    /// What governs a namespace, as it is known or else as it is.
    async fn known(&self, namespace: &str) -> Result<Known, StoreError> {
        if let Some(known) = self.slot(namespace).known() {
            return Ok(known);
        }
        self.described(namespace).await.map(|(known, _)| known)
    }

    /// What governs a namespace, and how many steps live.
    async fn described(&self, namespace: &str) -> Result<(Known, u64), StoreError> {
        let slot = self.slot(namespace);
        let known = slot.known();
        let keys = [&slot.keys.state, &slot.keys.configuration];
        let [not_after, given] = self.times(&slot);
        let (born, revision) = known.as_ref().map_or((0, 0), Known::identity);
        let args =
            [not_after, given, born.to_string().into_bytes(), revision.to_string().into_bytes()];
        let said = self.call(&slot, &scripts::DESCRIBE, &keys, &args).await?;
        let (heading, rest) = self.done(namespace, said)?;
        let mut rest = rest.into_iter();
        let live = rest.next().and_then(wire::number).ok_or_else(wire::strange)?;
        let known = match known.filter(|known| known.is_of(&heading)) {
            Some(known) => known,
            None => slot.learn(&heading, slot::configuration(heading.revision, rest)?),
        };
        Ok((known, live))
    }

    /// What a script that only reads has said.
    fn done(&self, namespace: &str, said: Said) -> Result<(Heading, Vec<Value>), StoreError> {
        match said {
            Said::Done(heading, rest) => Ok((heading, rest)),
            Said::Unknown => Err(self.forget(namespace)),
            Said::Void(_) => Err(slot::VOID.into()),
            Said::Changed | Said::Steps(_) | Said::Paused(_) => Err(wire::strange().into()),
        }
    }

    /// Asks one thing about a step; it goes with what else is asked of its
    /// namespace.
    async fn ask(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        joined: &str,
        ask: Ask,
    ) -> Result<Outcome, StoreError> {
        let item = Item { step: slot.keys.step(joined), texts: slot.keys.text(joined), ask };
        let reply = match slot.gathering.add(item) {
            batch::Added::Joined(reply) => reply,
            batch::Added::Begins(reply) => {
                let (inner, slot) = (Arc::clone(self), Arc::clone(slot));
                tokio::spawn(async move { inner.carry(&slot).await });
                reply
            }
            batch::Added::Overfull => {
                return Err(StoreError::Refused("too many calls wait for it".to_owned()));
            }
        };
        match reply.await {
            Ok(Ok(Outcome::NamespaceUnknown)) => Err(self.forget(&slot.name)),
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(StoreError::Unavailable("the call was given up".to_owned())),
        }
    }

    /// Makes calls for a namespace until nothing waits.
    async fn carry(&self, slot: &Slot) {
        loop {
            let (items, replies): (Vec<Item>, Vec<_>) = slot.gathering.take().into_iter().unzip();
            if items.is_empty() {
                return;
            }
            for (reply, outcome) in replies.into_iter().zip(self.settled(slot, items).await) {
                // Whoever asked may be gone.
                let _ = reply.send(outcome);
            }
        }
    }

    /// The outcome of each item.
    async fn settled(&self, slot: &Slot, items: Vec<Item>) -> Vec<slot::Answered> {
        let granting: Vec<bool> = items.iter().map(Item::grants).collect();
        let is_bound = items.iter().any(|item| matches!(item.ask, Ask::Bound(..)));
        let states = states(&items);
        let place = |state: &str| {
            let at = states.iter().position(|known| known == state);
            at.and_then(|at| u16::try_from(at).ok()).unwrap_or(u16::MAX)
        };
        let mut args: Vec<Vec<u8>> = self.times(slot).into();
        let mut keys: Vec<String> = slot.keys.of_settle().map(String::clone).into();
        for Item { step, texts, ask } in items {
            keys.extend([step, texts]);
            args.push(ask.argument(place));
        }
        for state in &states {
            keys.extend(slot.keys.target_state(state));
        }
        if is_bound {
            keys.push(slot.keys.parking.clone());
        }
        let (grant, settle) = if is_bound {
            (&*scripts::GRANT_BOUND, &*scripts::SETTLE_BOUND)
        } else {
            (&*scripts::GRANT, &*scripts::SETTLE)
        };
        if !granting.contains(&true) {
            let said = self.call(slot, settle, &keys, &args).await;
            return slot::answers(said, granting.len());
        }
        match self.call(slot, grant, &keys, &args).await {
            // There is no memory: what grants is refused, the rest gets in.
            Err(Fault::Full) if !planted!("redis-reports-kept-out") => {
                slot::without(&granting, &mut keys, &mut args);
                let rest = granting.iter().filter(|grants| !**grants).count();
                let said = if rest == 0 {
                    Err(Fault::Full)
                } else {
                    self.call(slot, settle, &keys, &args).await
                };
                let mut answers = slot::answers(said, rest).into_iter();
                let answer = |grants: bool| match grants {
                    true => Err(Fault::Full),
                    false => answers.next().unwrap_or_else(|| Err(wire::strange())),
                };
                granting.into_iter().map(answer).collect()
            }
            said => slot::answers(said, granting.len()),
        }
    }

    fn remember(&self, key: String, step: Option<Stored>) {
        lock(&self.memory).put(key, step);
    }

    /// Where an event of a step will be filed that is at `event_at`: an earlier
    /// entry stays.
    fn filed_at(&self, step: &str, event_at: Timestamp) -> Timestamp {
        let known = lock(&self.memory).get(step).flatten();
        known.map_or(event_at, |known| known.filed_at.min(event_at))
    }

    /// A step as it is remembered or expected, under a configuration that is
    /// known.
    fn recalled(&self, slot: &Slot, step: &str, expect: Expect) -> Option<Seen> {
        let known = slot.known()?;
        let (local, made) = (self.local.now(), self.link.made());
        if slot.silence(local) > SILENCE {
            return None;
        }
        let mut memory = lock(&self.memory);
        // Another connection may lead to a server that lacks what was seen.
        if self.remembers.swap(made, Ordering::Relaxed) != made {
            memory.clear();
        }
        let value = match memory.get(step) {
            Some(value) => value,
            None if expect == Expect::Unknown => None,
            None => return None,
        };
        drop(memory);
        let record = value.map(|value| record::decode(&value.record)).transpose().ok()?;
        let now = slot.now(self.local.now());
        Some(Seen { record, known, now, remembered: true })
    }

    async fn read(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        key: &StepKey<'_>,
    ) -> Result<Seen, StoreError> {
        let outcome = self.ask(slot, &key.joined(), Ask::Read).await?;
        let value = self.found(key, outcome)?;
        let record = value.map(|value| record::decode(&value.record)).transpose();
        let record = record.map_err(unreadable(key))?;
        let known = self.known(key.namespace).await?;
        let now = slot.now(self.local.now());
        Ok(Seen { record, known, now, remembered: false })
    }

    fn found(&self, key: &StepKey<'_>, outcome: Outcome) -> Result<Option<Stored>, StoreError> {
        match outcome {
            Outcome::Found(value) => {
                self.remember(self.slot(key.namespace).keys.of(key), value.clone());
                Ok(value)
            }
            Outcome::Damaged => Err(damaged(key)),
            _ => Err(wire::strange().into()),
        }
    }

    /// Looks for due steps of one namespace, until all that is found was filed
    /// where it belongs.
    async fn due_in(self: &Arc<Self>, name: &Id, limit: usize) -> Result<Vec<Due>, StoreError> {
        let slot = self.slot(name);
        let limit = limit.min(DUE_MAX).to_string();
        let mut due = Vec::new();
        let mut lots = Vec::new();
        for _ in 0..LOOKS {
            let [not_after, given] = self.times(&slot);
            let args = [not_after, given, limit.clone().into_bytes()];
            let keys = [&slot.keys.state, &slot.keys.events, &slot.keys.parking];
            let said = self.call(&slot, &scripts::PEEK, &keys, &args).await?;
            let Said::Done(_, found) = said else { break };
            let mut found = found.into_iter();
            let count = found.next().and_then(wire::number).ok_or_else(wire::strange)?;
            let mut joined: Vec<String> = found.filter_map(text).collect();
            let count = usize::try_from(count).map_err(|_| wire::strange())?;
            lots = joined.split_off(count.min(joined.len()));
            lots.sort_unstable();
            let looks = joined.iter().map(|joined| self.ask(&slot, joined, Ask::Look));
            let outcomes = futures_util::future::try_join_all(looks).await?;
            let is_exact = !outcomes.contains(&Outcome::Filed);
            due.clear();
            for (joined, outcome) in joined.iter().zip(outcomes) {
                if let Outcome::Due(event_at) = outcome {
                    let (namespace, joined) = (name.clone(), joined.as_str().into());
                    due.push(Due { namespace, joined, event_at });
                }
            }
            if is_exact {
                break;
            }
        }
        due.extend(self.called_in(name, &slot, &lots).await?);
        Ok(due)
    }

    /// Steps of one namespace that are parked and may go on; `lots` are the
    /// targets where steps are.
    async fn called_in(
        &self,
        name: &Id,
        slot: &Slot,
        lots: &[String],
    ) -> Result<Vec<Due>, StoreError> {
        if lots.is_empty() {
            return Ok(Vec::new());
        }
        let known = self.known(name).await?;
        let configuration = &known.configuration;
        let [not_after, given] = self.times(slot);
        let now = slot.now(self.local.now()).at;
        let mut keys = vec![slot.keys.state.clone()];
        let mut args = vec![not_after, given, CALLED_MAX.to_string().into_bytes()];
        for lot in lots {
            let forced = configuration.forced_of(lot, now);
            if forced == Some(ForcedState::Open) {
                continue;
            }
            let [state, .., parked] = slot.keys.target_state(lot);
            keys.extend([state, parked]);
            args.push(asks::lot(configuration.rate_of(lot).as_ref(), forced));
        }
        let said = self.call(slot, &scripts::CALLED, &keys, &args).await?;
        let Said::Done(_, found) = said else { return Ok(Vec::new()) };
        let event_at = slot.now(self.local.now()).at;
        let called = found.into_iter().filter_map(text);
        Ok(called
            .map(|joined| Due { namespace: name.clone(), joined: joined.into(), event_at })
            .collect())
    }

    /// Names of namespaces after `after`, as the register has them: those that
    /// are gone included.
    async fn registered(&self, after: &str, limit: usize) -> Result<Vec<Id>, StoreError> {
        let from = if after.is_empty() { "-".to_owned() } else { format!("({after}") };
        let mut command = commands::ZRANGE.cmd();
        command.arg(NAMESPACES).arg(from).arg("+").arg("BYLEX").arg("LIMIT").arg(0).arg(limit);
        let Value::Array(names) = self.link.send(&command).await? else {
            return Err(wire::strange().into());
        };
        Ok(names.into_iter().filter_map(text).filter_map(|name| name.parse().ok()).collect())
    }

    /// The register, not older than a second.
    async fn register(&self) -> Result<Vec<Id>, StoreError> {
        let now = self.local.now();
        {
            let register = lock(&self.register);
            if register.read_at.is_some_and(|at| now - at < REGISTER_EVERY) {
                return Ok(register.names.clone());
            }
        }
        let mut names: Vec<Id> = Vec::new();
        loop {
            let after = names.last().map_or("", |name| name).to_owned();
            let page = self.registered(&after, 1000).await?;
            let is_last = page.len() < 1000;
            names.extend(page);
            if is_last {
                break;
            }
        }
        if !names.iter().any(|name| &**name == DEFAULT_NAMESPACE) {
            self.begin_anew().await?;
            return Ok(Vec::new());
        }
        *lock(&self.register) = Register { names: names.clone(), read_at: Some(now) };
        Ok(names)
    }
}

/// A step as it was read, recalled or assumed.
struct Seen {
    record: Option<Record>,
    known: Known,
    now: Now,
    remembered: bool,
}

fn damaged(key: &StepKey<'_>) -> StoreError {
    StoreError::Unreadable { key: key.to_string(), source: record::RecordError::Malformed }
}

impl Store for Redis {
    async fn load(&self, key: &StepKey<'_>, expect: Expect) -> Result<Loaded, StoreError> {
        let slot = self.0.slot(key.namespace);
        let step = slot.keys.of(key);
        let turn = self.0.turns.take(&step).await;
        let seen = match self.0.recalled(&slot, &step, expect) {
            Some(seen) => seen,
            None => self.0.read(&slot, key).await?,
        };
        let Seen { record, known, now, remembered } = seen;
        let basis = Basis {
            version: record.as_ref().map_or(0, |record| record.version),
            configuration: known.configuration.revision,
            remembered,
        };
        let configuration = known.configuration;
        Ok(Loaded { record, basis, turn: Some(turn), configuration, salt: self.0.salt, now })
    }

    async fn commit(&self, key: &StepKey<'_>, commit: Commit) -> Result<Committed, StoreError> {
        let slot = self.0.slot(key.namespace);
        let known = self.0.known(key.namespace).await?;
        if known.configuration.revision != commit.configuration {
            return Ok(Committed::Conflict);
        }
        if let (Change::Purge, 0) = (&commit.change, commit.version) {
            return Ok(Committed::Written(Answer::Ticked));
        }
        let planned = Planned {
            version: commit.version,
            born: known.born,
            revision: commit.configuration,
            now: commit.now,
            operation: chance::bytes(),
        };
        let step = slot.keys.of(key);
        let filed_at = |event_at| self.0.filed_at(&step, event_at);
        let (prepared, ask) = asked(planned, commit.change, &known, filed_at);
        let outcome = match self.0.ask(&slot, &key.joined(), ask).await {
            Ok(outcome) => outcome,
            Err(error) => {
                lock(&self.0.memory).forget(&step);
                return Err(error);
            }
        };
        match outcome {
            Outcome::Written(_) | Outcome::Admitted(_) | Outcome::Again(_) => {
                let (answer, stored) =
                    prepared.done(outcome, filed_at).ok_or_else(wire::strange)?;
                self.0.remember(step, stored);
                return Ok(Committed::Written(answer));
            }
            Outcome::Conflict(value) | Outcome::Time(value) => {
                self.0.remember(step, value);
            }
            Outcome::Configuration => slot.unlearn(),
            Outcome::Episodes(told) => {
                let seen = prepared.episodes(&told).ok_or_else(wire::strange)?;
                slot.learn_episodes(seen);
            }
            Outcome::Inline => slot.forget_inline(),
            Outcome::Quota => {
                let max = known.configuration.namespace.settings.max_live_steps;
                return Err(StoreError::QuotaReached { what: "live steps", max });
            }
            Outcome::Damaged => return Err(damaged(key)),
            Outcome::Paused(pause) => return Err(Fault::Paused(pause).into()),
            Outcome::Found(_) | Outcome::Due(_) | Outcome::Filed | Outcome::NamespaceUnknown => {
                return Err(wire::strange().into());
            }
        }
        Ok(Committed::Conflict)
    }

    async fn confirm(&self, key: &StepKey<'_>, basis: &Basis) -> Result<bool, StoreError> {
        if !basis.remembered {
            return Ok(true);
        }
        let slot = self.0.slot(key.namespace);
        let outcome = self.0.ask(&slot, &key.joined(), Ask::Read).await?;
        let value = self.0.found(key, outcome)?;
        let header = value.map(|value| record::Header::read(&value.record)).transpose();
        let version = header.map_err(unreadable(key))?.map_or(0, |header| header.version);
        let revision = slot.known().map(|known| known.configuration.revision);
        Ok(version == basis.version && revision == Some(basis.configuration))
    }

    fn tell_episodes(&self, namespace: &str, bounds: &mut [limit::Bound]) {
        self.0.slot(namespace).tell_episodes(bounds);
    }

    async fn evidence(&self, key: &StepKey<'_>) -> Result<Evidence, StoreError> {
        let slot = self.0.slot(key.namespace);
        let texts = slot.keys.text(&key.joined());
        let value = self.0.link.send(commands::LRANGE.cmd().arg(texts).arg(0).arg(-1)).await?;
        let Value::Array(values) = value else { return Err(wire::strange().into()) };
        let mut failures: Vec<FailureText> = Vec::new();
        for value in values {
            let bytes = wire::bytes(value).ok_or_else(wire::strange)?;
            failures.extend(record::decode_evidence(&bytes).map_err(unreadable(key))?.failures);
        }
        Ok(Evidence { failures: failures.into() })
    }

    async fn peek_due(&self, limit: usize) -> Result<Vec<Due>, StoreError> {
        let names = self.0.register().await?;
        let mut due = Vec::new();
        let mut failed = None;
        for names in names.chunks(ABREAST) {
            let looks = names.iter().map(|name| self.0.due_in(name, limit));
            for found in futures_util::future::join_all(looks).await {
                match found {
                    Ok(found) => due.extend(found),
                    Err(error) => failed = Some(error),
                }
            }
        }
        // Where one node of a cluster is away, the others are still looked at.
        if let (Some(error), true) = (failed, due.is_empty()) {
            return Err(error);
        }
        due.sort_by_key(|step| step.event_at);
        due.truncate(limit);
        Ok(due)
    }

    async fn heads(
        &self,
        name: &str,
        state: &str,
        permits: u32,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        let slot = self.0.slot(name);
        let [not_after, given] = self.0.times(&slot);
        let [_, permits_key, line_key, _] = slot.keys.target_state(state);
        let [permits, limit] = [permits.to_string(), limit.to_string()].map(String::into_bytes);
        let keys = [&slot.keys.state, &permits_key, &line_key];
        let args = [not_after, given, permits, limit];
        let said = self.0.call(&slot, &scripts::HEADS, &keys, &args).await?;
        let (_, heads) = self.0.done(name, said)?;
        Ok(heads.into_iter().filter_map(text).collect())
    }

    async fn queued(
        &self,
        name: &str,
        queue: &str,
        limit: usize,
    ) -> Result<Vec<Queued>, StoreError> {
        // A namespace that there is not has no queues.
        self.0.known(name).await?;
        let slot = self.0.slot(name);
        let mut range = commands::ZRANGE.cmd();
        // `!` is what comes after a space.
        range.arg(&slot.keys.lists).arg(format!("[{queue} ")).arg(format!("({queue}!"));
        range.arg("BYLEX").arg("LIMIT").arg(0).arg(limit);
        let Value::Array(entries) = self.0.link.send(&range).await? else {
            return Err(wire::strange().into());
        };
        let entries = entries.into_iter().filter_map(text);
        entries.map(|entry| slot::queued(&entry).ok_or_else(|| wire::strange().into())).collect()
    }

    async fn run_steps(
        &self,
        name: &str,
        run: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        self.0.known(name).await?;
        let slot = self.0.slot(name);
        let mut range = commands::ZRANGE.cmd();
        range.arg(&slot.keys.lists).arg(format!("( {run} {after}")).arg(format!("( {run}!"));
        range.arg("BYLEX").arg("LIMIT").arg(0).arg(limit);
        let Value::Array(entries) = self.0.link.send(&range).await? else {
            return Err(wire::strange().into());
        };
        let step = |entry: String| entry.rsplit_once(' ').map(|(_, step)| step.to_owned());
        Ok(entries.into_iter().filter_map(text).filter_map(step).collect())
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn usage(
        &self,
        name: &str,
        bound: &limit::Bound,
        member: Option<&str>,
    ) -> Result<Usage, StoreError> {
        let slot = self.0.slot(name);
        let [not_after, given] = self.0.times(&slot);
        let mut keys = vec![slot.keys.state.clone()];
        keys.extend(slot.keys.target_state(&bound.state));
        let member = member.unwrap_or_default().as_bytes().to_vec();
        let args = [not_after, given, asks::grid(bound.target.rate.as_ref()), member];
        let said = self.0.call(&slot, &scripts::USAGE, &keys, &args).await?;
        let (heading, rest) = self.0.done(name, said)?;
        let known = asks::known(rest).ok_or_else(wire::strange)?;
        Ok(Usage::of(bound, &known, heading.now))
    }

    async fn lift(&self, name: &str, bound: &limit::Bound) -> Result<(), StoreError> {
        let slot = self.0.slot(name);
        let [not_after, given] = self.0.times(&slot);
        let [state, ..] = slot.keys.target_state(&bound.state);
        let keys = [slot.keys.state.clone(), state];
        let said = self.0.call(&slot, &scripts::LIFT, &keys, &[not_after, given]).await?;
        self.0.done(name, said).map(drop)
    }

    async fn follow(&self, name: &str, after: u64, limit: usize) -> Result<Changes, StoreError> {
        let slot = self.0.slot(name);
        let [not_after, given] = self.0.times(&slot);
        let count = limit.clamp(1, 10_000).to_string().into_bytes();
        let args = [not_after, given, after.to_string().into_bytes(), count];
        let keys = [&slot.keys.state, &slot.keys.changes];
        let said = self.0.call(&slot, &scripts::FOLLOW, &keys, &args).await?;
        let (heading, rest) = self.0.done(name, said)?;
        Ok(slot::changes(heading.changes, rest, after, limit)?)
    }

    async fn configuration(&self, name: &str) -> Result<Arc<Configuration>, StoreError> {
        self.0.described(name).await.map(|(known, _)| known.configuration)
    }

    async fn inline_policy(
        &self,
        name: &str,
        digest: u128,
    ) -> Result<Option<Arc<PolicyRevision>>, StoreError> {
        let slot = self.0.slot(name);
        if let Some(revision) = slot.inline(digest) {
            return Ok(Some(revision));
        }
        self.0.known(name).await?;
        let value = self
            .0
            .link
            .send(commands::HGET.cmd().arg(&slot.keys.inline).arg(format!("{digest:032x}")))
            .await?;
        let Some(bytes) = wire::bytes(value) else { return Ok(None) };
        let revision = Arc::new(PolicyRevision::inline_from_bytes(&bytes)?);
        slot.learn_inline(&revision);
        Ok(Some(revision))
    }

    async fn namespaces(
        &self,
        after: &str,
        limit: usize,
    ) -> Result<Vec<NamespaceView>, StoreError> {
        let mut views = Vec::new();
        let mut after = after.to_owned();
        while views.len() < limit {
            let names = self.0.registered(&after, limit - views.len()).await?;
            let Some(last) = names.last() else { break };
            after = last.to_string();
            for name in names {
                match self.0.described(&name).await {
                    Ok((known, live_steps)) => {
                        let entry = known.configuration.namespace.clone();
                        views.push(NamespaceView { name, entry, live_steps });
                    }
                    Err(StoreError::NamespaceUnknown(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(views)
    }

    async fn page(&self, name: &str, from: u64, limit: usize) -> Result<StepPage, StoreError> {
        self.0.known(name).await?;
        copy::page(self, name, from, limit).await
    }

    async fn live_steps(&self, name: &str) -> Result<u64, StoreError> {
        self.0.described(name).await.map(|(_, live)| live)
    }

    async fn configure(
        &self,
        name: &Id,
        revision: u64,
        change: ConfigurationChange,
    ) -> Result<(), StoreError> {
        let current = match self.0.described(name).await {
            Ok((known, _)) => Some(known),
            Err(StoreError::NamespaceUnknown(_)) => None,
            Err(error) => return Err(error),
        };
        let found = current.as_ref().map_or(0, |known| known.configuration.revision);
        if found != revision {
            return Err(StoreError::ConfigurationChanged);
        }
        self.0.reconfigure(name, current.as_ref(), &change).await
    }

    fn now(&self) -> Now {
        lock(&self.0.heard).now(self.0.local.now())
    }

    fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    fn watch(&self) -> watch::Receiver<Result<(), String>> {
        self.0.link.watch()
    }

    fn is_unsafe(&self) -> bool {
        self.0.fitness.is_unsafe()
    }

    async fn ended(&self) -> String {
        std::future::pending().await
    }

    fn sizes(&self) -> Option<Sizes> {
        None
    }

    fn describe(&self) -> Description {
        Description { store: "redis", durability: format!("as {} keeps it", self.0.link.address()) }
    }
}

/// The states of targets that a call is about, each once.
fn states(items: &[Item]) -> Vec<String> {
    let mut states: Vec<String> = Vec::new();
    for state in items.iter().flat_map(Item::states) {
        if !states.iter().any(|known| known == state) {
            states.push(state.to_owned());
        }
    }
    states
}

/// A change as it is known before it is made.
enum Prepared {
    /// The answer, and the step as it then stands.
    Settled(Answer, Option<Stored>),
    /// The rest hangs on what the targets answer.
    Bound(Box<Draft>),
}

impl Prepared {
    /// What a script tells of the episodes of its targets.
    fn episodes(&self, told: &[u8]) -> Option<Vec<(Box<str>, Episodes)>> {
        match self {
            Self::Settled(..) => None,
            Self::Bound(draft) => asks::read_episodes(draft.asks()?, told),
        }
    }

    /// The answer, and the step as it stands once the change is made; `filed_at`
    /// says where an event is filed.
    fn done(
        self,
        outcome: Outcome,
        filed_at: impl Fn(Timestamp) -> Timestamp,
    ) -> Option<(Answer, Option<Stored>)> {
        let draft = match self {
            Self::Settled(answer, stored) => return Some((answer, told(stored, &outcome))),
            Self::Bound(draft) => draft,
        };
        let settled = |draft: Draft, admitted: &Admitted| {
            let Settlement { record, event_at, answer, .. } = plan::settle(draft, admitted);
            let record = record::encode(&record, event_at).into();
            (answer, Stored { filed_at: filed_at(event_at), record })
        };
        match outcome {
            Outcome::Admitted(said) => {
                let admitted = asks::read(draft.asks()?, &said)?;
                let (answer, stored) = settled(*draft, &admitted);
                Some((answer, Some(stored)))
            }
            // It was sent twice, and the first answer is gone: what was answered is
            // told by what was written.
            Outcome::Again(found) => {
                let found = found?;
                let at = record::Header::read(&found.record).ok()?.instant;
                let mut answers = asks::Answer::to(draft.asks()?).map(|answer| {
                    let admitted = Admitted { admission: answer.at(at), findings: Vec::new() };
                    settled(Draft::clone(&draft), &admitted)
                });
                let (answer, _) = answers.find(|(_, stored)| stored.record == found.record)?;
                Some((answer, Some(found)))
            }
            _ => None,
        }
    }
}

/// A step that was written: the script may have filed it elsewhere than was guessed.
fn told(stored: Option<Stored>, outcome: &Outcome) -> Option<Stored> {
    match (stored, outcome) {
        (Some(stored), Outcome::Written(Some(filed_at))) => {
            Some(Stored { filed_at: *filed_at, ..stored })
        }
        (stored, _) => stored,
    }
}

/// What is known of a change before it is made, and what is asked.
fn asked(
    planned: Planned,
    change: Change,
    known: &Known,
    filed_at: impl Fn(Timestamp) -> Timestamp,
) -> (Prepared, Ask) {
    let draft = match change {
        Change::Purge => return (Prepared::Settled(Answer::Ticked, None), Ask::Purge(planned)),
        Change::Write(draft) => draft,
    };
    let live_max = known.configuration.namespace.settings.max_live_steps;
    if let Some(asks) = draft.asks() {
        let bound = bound(&draft, asks.clone(), live_max);
        return (Prepared::Bound(draft), Ask::Bound(planned, Box::new(bound)));
    }
    let grants = draft.is_granting();
    let admitted = draft.admitted();
    let settlement = plan::settle(*draft, &admitted);
    let record: Arc<[u8]> = record::encode(&settlement.record, settlement.event_at).into();
    let written = Written {
        record: Arc::clone(&record),
        event_at: settlement.event_at,
        filed_at: filed_at(settlement.event_at),
        policy: use_of(&settlement.record.policy),
        text: settlement.text.map(text_bytes),
        live_max,
        grants,
    };
    let stored = Stored { filed_at: written.filed_at, record };
    (Prepared::Settled(settlement.answer, Some(stored)), Ask::Write(planned, Box::new(written)))
}

fn text_bytes(text: FailureText) -> Vec<u8> {
    record::encode_evidence(&Evidence { failures: [text].into() })
}

/// All that may follow from what the targets answer.
fn bound(draft: &Draft, asks: Asks, live_max: u64) -> wire::Bound {
    // Any instant will do: the one that is found takes its place.
    const SOME: Timestamp = Timestamp::from_micros(1 << 50);
    let (mut policy, mut text) = (String::new(), None);
    let follows = asks::Answer::to(&asks).map(|answer| {
        let admitted = Admitted { admission: answer.at(SOME), findings: Vec::new() };
        let settlement = plan::settle(draft.clone(), &admitted);
        policy = use_of(&settlement.record.policy);
        text = settlement.text.map(text_bytes);
        let event = settlement.event_at.as_micros();
        let event = if answer.has_instant() { event - SOME.as_micros() } else { event };
        let record = record::encode(&settlement.record, settlement.event_at);
        asks::Follows { answer, event, record }
    });
    let follows = follows.collect();
    wire::Bound { asks, follows, policy, text, live_max, grants: draft.is_granting() }
}
