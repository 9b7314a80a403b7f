//! Redis as the source or the target of a copy, and pauses.
//!
//! A pause stands in a namespace's state, where every script sees it at no cost.
//! A copy pauses its source under a lease that ends by itself, and keeps it up
//! while it reads: where it was kept up, everything read since is one instant's.
//! A target is paused until it is whole, and marked, so that no server begins on
//! it.

use std::time::Duration;

use redis::Value;

use super::{
    super::record::Header,
    batch::MOST,
    slot::{Slot, VOID},
};
use super::{
    Fault, Inner, NAMESPACES, Redis, RedisError, RedisOptions, SALT, commands, connect,
    keys::COPYING,
    lock, now_at, scripts, text, unknown, use_of,
    wire::{self, Heading, Pause, Said},
};
use crate::{
    chance,
    domain::{
        draw::Salt,
        id::{Id, StepKey},
        namespace::DEFAULT_NAMESPACE,
        record::{EVIDENCE_MAX, Evidence, FailureText, Record},
        time::Timestamp,
    },
    store::{
        StepPage, StoreError,
        configuration::PolicyRevision,
        copy::{
            CopyError, Export, Kept, Mark, PAGE, Page, Released, Source, StoredNamespace,
            StoredStep, Target,
        },
        record,
    },
};

/// A pause for a copy ends by itself after this long. Also how long a second try
/// may have to wait for the pause of one that was killed.
pub const LEASE: Duration = Duration::from_secs(10);
/// How often it is kept up.
const KEEP_EVERY: Duration = Duration::from_secs(2);
/// A namespace that was swept within this time has servers.
const SWEPT: Duration = Duration::from_secs(3);
/// Texts of failures in one call of `import`.
const TEXTS: usize = EVIDENCE_MAX;
/// Bytes before the policy that a stored step uses: operation and filed event.
const STAMPED: usize = 16;

/// The mark of a target that is not whole.
pub(super) async fn mark(link: &super::Link) -> Result<Option<Mark>, StoreError> {
    let value = link.send(commands::GET.cmd().arg(COPYING)).await?;
    let bytes = wire::bytes(value).unwrap_or_default();
    let damaged = |_| Fault::Wrong(format!("{COPYING} is not in the form of this version"));
    Ok(Mark::from_bytes(&bytes).map_err(damaged)?)
}

/// What is done about a pause; see `lua/pause.lua`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pausing {
    /// Nothing.
    Look,
    /// Begin one until then.
    Pause(Timestamp),
    /// Keep ours up until then, if it still lasts.
    Keep(Timestamp),
    /// Begin one whoever has one.
    Take(Timestamp),
    /// End ours.
    End,
}

/// What is so after it.
#[derive(Clone, Copy, Debug)]
struct Standing {
    heading: Heading,
    /// The pause; in the past without one.
    pause: Pause,
    changes: u64,
    swept_at: Timestamp,
}

impl Standing {
    fn is_paused(&self) -> bool {
        self.heading.now < self.pause.ends_at
    }
}

/// What became of it.
#[derive(Clone, Copy, Debug)]
enum Paused {
    /// Done.
    Done(Standing),
    /// Somebody else has it paused.
    Other(Pause),
    /// Ours does not last any more.
    Ended,
    /// There is no such namespace.
    Unknown,
}

impl Inner {
    async fn pausing(&self, name: &str, what: Pausing, holder: u64) -> Result<Paused, StoreError> {
        let slot = self.slot(name);
        let (kind, ends_at) = match what {
            Pausing::Look => ("look", Timestamp::EPOCH),
            Pausing::Pause(at) => ("pause", at),
            Pausing::Keep(at) => ("keep", at),
            Pausing::Take(at) => ("take", at),
            Pausing::End => ("end", Timestamp::EPOCH),
        };
        let [not_after, given] = self.times(&slot);
        let numbers = [holder, ends_at.as_micros()].map(|number| number.to_string().into_bytes());
        let [holder, ends_at] = numbers;
        let args = [not_after, given, kind.into(), holder, ends_at];
        match self.call(&slot, &scripts::PAUSE, &[&slot.keys.state], &args).await? {
            Said::Done(heading, rest) => {
                let mut rest = rest.into_iter();
                let mut number = || rest.next().and_then(wire::number).ok_or_else(wire::strange);
                let pause = Pause { ends_at: Timestamp::from_micros(number()?), holder: number()? };
                let changes = number()?;
                let swept_at = Timestamp::from_micros(number()?);
                Ok(Paused::Done(Standing { heading, pause, changes, swept_at }))
            }
            Said::Paused(pause) => Ok(Paused::Other(pause)),
            Said::Changed => Ok(Paused::Ended),
            Said::Unknown => Ok(Paused::Unknown),
            Said::Void(_) => Err(VOID.into()),
            Said::Steps(_) => Err(wire::strange().into()),
        }
    }

    async fn standing(&self, name: &str) -> Result<Option<Standing>, StoreError> {
        match self.pausing(name, Pausing::Look, Pause::OPERATOR).await? {
            Paused::Done(standing) => Ok(Some(standing)),
            _ => Ok(None),
        }
    }

    /// Every name that is registered.
    async fn names(&self) -> Result<Vec<Id>, StoreError> {
        let mut names: Vec<Id> = Vec::new();
        loop {
            let after = names.last().map_or("", |name| name).to_owned();
            let page = self.registered(&after, 1000).await?;
            let is_last = page.len() < 1000;
            names.extend(page);
            if is_last {
                return Ok(names);
            }
        }
    }

    /// How many steps a namespace has, those that are over included.
    async fn steps(&self, name: &str) -> Result<u64, StoreError> {
        let events = &self.slot(name).keys.events;
        let count = self.link.send(commands::ZCARD.cmd().arg(events)).await?;
        Ok(wire::number(count).ok_or_else(wire::strange)?)
    }

    async fn command(&self, command: &redis::Cmd) -> Result<Vec<Value>, StoreError> {
        match self.link.send(command).await? {
            Value::Array(values) => Ok(values),
            _ => Err(wire::strange().into()),
        }
    }
}

/// What an operator's pause or its end met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standstill {
    /// Namespaces that are as wanted.
    pub namespaces: Vec<Id>,
    /// Namespaces that a copy has, and why nothing was done there.
    pub held: Vec<(Id, Pause)>,
}

impl Redis {
    /// Connects to a store that is there already.
    ///
    /// # Errors
    /// [`RedisError::Empty`] when there is none; see also [`RedisError`].
    pub async fn existing(options: RedisOptions) -> Result<Self, RedisError> {
        let given_time = options.given_time.clone();
        let (link, fitness) = connect(options).await?;
        let address = link.address().to_string();
        if let Some(mark) = mark(&link).await? {
            return Err(RedisError::Unfit { address, why: mark.to_string() });
        }
        let value = link.send(commands::GET.cmd().arg(SALT)).await.map_err(StoreError::from)?;
        let salt = wire::bytes(value).and_then(|bytes| bytes.try_into().ok()).map(Salt);
        let salt = salt.ok_or(RedisError::Empty { address })?;
        Ok(Self::new(link, fitness, salt, given_time))
    }

    /// Pauses every namespace until an instant of the server's clock, or until
    /// [`Redis::resume`].
    ///
    /// # Errors
    /// The store is away.
    pub async fn pause(&self, length: Option<Duration>) -> Result<Standstill, StoreError> {
        let now = self.0.server_time().await?;
        let ends_at = length.map_or(Pause::LASTING, |length| now.plus(length).min(Pause::LASTING));
        self.standstill(Pausing::Pause(ends_at)).await
    }

    /// Ends every pause of [`Redis::pause`].
    ///
    /// # Errors
    /// The store is away.
    pub async fn resume(&self) -> Result<Standstill, StoreError> {
        self.standstill(Pausing::End).await
    }

    async fn standstill(&self, what: Pausing) -> Result<Standstill, StoreError> {
        let mut met = Standstill::default();
        for name in self.0.names().await? {
            match self.0.pausing(&name, what, Pause::OPERATOR).await? {
                Paused::Done(_) => met.namespaces.push(name),
                Paused::Other(pause) => met.held.push((name, pause)),
                Paused::Ended | Paused::Unknown => {}
            }
        }
        Ok(met)
    }
}

impl Export for Redis {
    async fn namespace(&self, name: &Id) -> Result<StoredNamespace, StoreError> {
        let slot = self.0.slot(name);
        let (known, _) = self.0.described(name).await?;
        let standing = self.0.standing(name).await?.ok_or_else(|| unknown(name))?;
        let values = self.0.command(commands::HVALS.cmd().arg(&slot.keys.inline)).await?;
        let inline = values.into_iter().map(|value| {
            let bytes = wire::bytes(value).ok_or_else(wire::strange)?;
            Ok::<_, StoreError>(PolicyRevision::inline_from_bytes(&bytes)?.into())
        });
        let Standing { heading, changes, .. } = standing;
        Ok(StoredNamespace {
            name: name.clone(),
            configuration: known.configuration,
            inline: inline.collect::<Result<_, _>>()?,
            changes,
            heard_at: now_at(heading.now, heading.before, heading.graced).leases,
        })
    }

    async fn steps(&self, name: &Id, from: u64) -> Result<Page, StoreError> {
        let slot = self.0.slot(name);
        let last = from + PAGE as u64 - 1;
        let mut range = commands::ZRANGE.cmd();
        let members = self.0.command(range.arg(&slot.keys.events).arg(from).arg(last)).await?;
        let joined: Vec<String> = members.into_iter().filter_map(text).collect();
        if joined.is_empty() {
            return Ok(Page::default());
        }
        let mut values = commands::MGET.cmd();
        values.arg(joined.iter().map(|joined| slot.keys.step(joined)).collect::<Vec<_>>());
        let values = self.0.command(&values).await?;
        let texts = joined.iter().map(|joined| self.texts(&slot, joined));
        let texts = futures_util::future::try_join_all(texts).await?;
        let mut steps = Vec::with_capacity(joined.len());
        for ((joined, value), evidence) in joined.iter().zip(values).zip(texts) {
            // An entry without a step is met and removed by whoever looks there.
            if value != Value::Nil {
                steps.push(stored(name, joined, value, evidence)?);
            }
        }
        Ok(Page { steps, next: Some(last + 1) })
    }
}

/// Steps from a cursor of the event index on, which every step is in.
pub(super) async fn page(
    store: &Redis,
    name: &str,
    from: u64,
    limit: usize,
) -> Result<StepPage, StoreError> {
    let slot = store.0.slot(name);
    let mut scan = commands::ZSCAN.cmd();
    scan.arg(&slot.keys.events).arg(from).arg("COUNT").arg(limit.max(1));
    let answer = store.0.command(&scan).await?;
    let [cursor, members] = <[Value; 2]>::try_from(answer).map_err(|_| wire::strange())?;
    let Value::Array(members) = members else { return Err(wire::strange().into()) };
    let cursor = text(cursor).and_then(|cursor| cursor.parse().ok()).ok_or_else(wire::strange)?;
    // Each with its score behind it.
    let joined: Vec<String> = members.into_iter().step_by(2).filter_map(text).collect();
    let mut page = StepPage { steps: Vec::new(), next: Some(cursor).filter(|next| *next != 0) };
    for joined in joined.chunks(PAGE) {
        let mut values = commands::MGET.cmd();
        values.arg(joined.iter().map(|joined| slot.keys.step(joined)).collect::<Vec<_>>());
        for (joined, value) in joined.iter().zip(store.0.command(&values).await?) {
            // An entry without a step is met and removed by whoever looks there.
            if value != Value::Nil {
                page.steps.push((joined.as_str().into(), kept(name, joined, value)?.0));
            }
        }
    }
    Ok(page)
}

impl Redis {
    /// Texts of a step's failures.
    async fn texts(&self, slot: &Slot, joined: &str) -> Result<Evidence, StoreError> {
        let key = StepKey::split(&slot.name, joined).ok_or_else(wire::strange)?;
        crate::store::Store::evidence(self, &key).await
    }
}

/// A step as the server keeps it.
fn stored(
    name: &Id,
    joined: &str,
    value: Value,
    evidence: Evidence,
) -> Result<StoredStep, StoreError> {
    let (record, event_at) = kept(name, joined, value)?;
    Ok(StoredStep { joined: joined.into(), record, event_at, evidence })
}

/// A record as the server keeps it, and its event.
fn kept(name: &str, joined: &str, value: Value) -> Result<(Record, Timestamp), StoreError> {
    let unreadable = |source| {
        let key = format!("{name} {joined}");
        StoreError::Unreadable { key, source }
    };
    let malformed = || unreadable(record::RecordError::Malformed);
    let value = wire::bytes(value).ok_or_else(malformed)?;
    let length = *value.get(STAMPED).ok_or_else(malformed)?;
    let bytes = value.get(STAMPED + 1 + usize::from(length)..).ok_or_else(malformed)?;
    let event_at = Header::read(bytes).map_err(unreadable)?.event_at;
    Ok((record::decode(bytes).map_err(unreadable)?, event_at))
}

/// A number that tells a copy from every other one, below 2⁵³.
fn drawn() -> u64 {
    (u64::from_le_bytes(chance::bytes()) >> 12).max(1)
}

/// A Redis that is copied.
#[derive(Debug)]
pub struct RedisSource {
    store: Redis,
    holder: u64,
    /// What is paused, and who holds each pause: this copy, or an operator.
    paused: Vec<(Id, u64)>,
    /// When the pauses were kept up, by the local clock.
    kept_at: Timestamp,
}

impl RedisSource {
    /// A store that is to be copied.
    #[must_use]
    pub fn new(store: Redis) -> Self {
        Self { store, holder: drawn(), paused: Vec::new(), kept_at: Timestamp::EPOCH }
    }

    /// Pauses a namespace. Whose pause it is; None when there is no such one.
    async fn pause(&self, name: &Id) -> Result<Option<u64>, CopyError> {
        let mut patience = 1;
        loop {
            let now = self.now().await.map_err(CopyError::Source)?;
            let pause = Pausing::Pause(now.plus(LEASE));
            let paused = self.store.0.pausing(name, pause, self.holder).await;
            match paused.map_err(CopyError::Source)? {
                Paused::Done(_) => return Ok(Some(self.holder)),
                Paused::Unknown => return Ok(None),
                Paused::Other(Pause { holder: Pause::OPERATOR, .. }) => {
                    return Ok(Some(Pause::OPERATOR));
                }
                // Of a copy that was killed, perhaps: then it ends by itself.
                Paused::Other(pause) if patience > 0 && pause.ends_at < Pause::LASTING => {
                    patience -= 1;
                    tokio::time::sleep(pause.ends_at - now + Duration::from_millis(10)).await;
                }
                Paused::Other(pause) => {
                    return Err(CopyError::SourceInUse(format!("namespace {name}: {pause}")));
                }
                Paused::Ended => return Err(CopyError::Source(wire::strange().into())),
            }
        }
    }

    async fn keep_all(&mut self) -> Result<(), CopyError> {
        let until = self.now().await.map_err(CopyError::Source)?.plus(LEASE);
        let kept = self
            .paused
            .iter()
            .map(|(name, holder)| self.store.0.pausing(name, Pausing::Keep(until), *holder));
        let kept = futures_util::future::try_join_all(kept).await.map_err(CopyError::Source)?;
        for ((name, _), kept) in self.paused.iter().zip(kept) {
            if !matches!(kept, Paused::Done(_)) {
                let why = format!("the pause of namespace {name} ended");
                return Err(CopyError::SourceWentOn(why));
            }
        }
        self.kept_at = self.store.0.local.now();
        Ok(())
    }
}

impl Export for RedisSource {
    async fn namespace(&self, name: &Id) -> Result<StoredNamespace, StoreError> {
        self.store.namespace(name).await
    }

    async fn steps(&self, name: &Id, from: u64) -> Result<Page, StoreError> {
        self.store.steps(name, from).await
    }
}

impl Source for RedisSource {
    fn salt(&self) -> Salt {
        self.store.0.salt
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.store.0.server_time().await
    }

    async fn close(&mut self) -> Result<Vec<Id>, CopyError> {
        for name in self.store.0.names().await.map_err(CopyError::Source)? {
            if self.paused.iter().any(|(known, _)| *known == name) {
                continue;
            }
            if let Some(holder) = self.pause(&name).await? {
                self.paused.push((name, holder));
            }
            self.keep(Kept::InPassing).await?;
        }
        self.keep(Kept::ForCertain).await?;
        Ok(self.paused.iter().map(|(name, _)| name.clone()).collect())
    }

    async fn keep(&mut self, kept: Kept) -> Result<(), CopyError> {
        let is_due = self.store.0.local.now() - self.kept_at >= KEEP_EVERY;
        if is_due || kept == Kept::ForCertain { self.keep_all().await } else { Ok(()) }
    }

    async fn release(&mut self) -> Result<Released, CopyError> {
        let mut released = Released::StaysPaused;
        for (name, holder) in std::mem::take(&mut self.paused) {
            if holder != Pause::OPERATOR {
                released = Released::GoesOn;
                let ended = self.store.0.pausing(&name, Pausing::End, holder).await;
                ended.map_err(CopyError::Source)?;
            }
        }
        Ok(released)
    }
}

/// A Redis that is filled.
#[derive(Debug)]
pub struct RedisTarget {
    store: Redis,
    holder: u64,
    /// What was founded.
    founded: Vec<Id>,
}

impl RedisTarget {
    /// Connects to a server that is to be filled. Nothing is written yet.
    ///
    /// # Errors
    /// See [`RedisError`].
    pub async fn connect(options: RedisOptions) -> Result<Self, RedisError> {
        let given_time = options.given_time.clone();
        let (link, fitness) = connect(options).await?;
        // Nothing is drawn here; that of the source comes with the copy.
        let store = Redis::new(link, fitness, Salt([0; 16]), given_time);
        Ok(Self { store, holder: drawn(), founded: Vec::new() })
    }

    /// Refuses what is not as new.
    async fn look(&self, name: &Id, is_marked: bool) -> Result<(), CopyError> {
        let inner = &self.store.0;
        let standing = inner.standing(name).await.map_err(CopyError::Target)?;
        if !is_marked {
            let steps = inner.steps(name).await.map_err(CopyError::Target)?;
            let is_new = match &standing {
                Some(standing) if steps == 0 && standing.changes == 0 => {
                    let (known, _) = inner.described(name).await.map_err(CopyError::Target)?;
                    known.configuration.is_new() && &**name == DEFAULT_NAMESPACE
                }
                Some(_) => false,
                // Steps without a state are somebody's, who may have a backup of it.
                None => steps == 0,
            };
            if !is_new {
                let what = format!("it holds namespace {name} with {steps} steps");
                return Err(CopyError::TargetInUse(what + "; a copy needs a new store"));
            }
        }
        let Some(standing) = standing else { return Ok(()) };
        if !standing.is_paused() && standing.heading.now - standing.swept_at < SWEPT {
            let what = "a server works on it; end every server there, and try again in a moment";
            return Err(CopyError::TargetInUse(what.to_owned()));
        }
        Ok(())
    }

    /// Clears a namespace away.
    async fn clear(&self, name: &Id) -> Result<(), StoreError> {
        let inner = &self.store.0;
        // Should another copy still write there, it has to stop first.
        inner.pausing(name, Pausing::Take(Pause::LASTING), self.holder).await?;
        let slot = inner.slot(name);
        let keys = &slot.keys;
        loop {
            let mut range = commands::ZRANGE.cmd();
            let members = inner.command(range.arg(&keys.events).arg(0).arg(PAGE - 1)).await?;
            let joined: Vec<String> = members.into_iter().filter_map(text).collect();
            if joined.is_empty() {
                break;
            }
            let (mut unlink, mut remove) = (commands::UNLINK.cmd(), commands::ZREM.cmd());
            remove.arg(&keys.events);
            for joined in joined {
                unlink.arg(keys.step(&joined)).arg(keys.text(&joined));
                remove.arg(joined);
            }
            inner.link.send(&unlink).await?;
            inner.link.send(&remove).await?;
        }
        let all = [
            &keys.state,
            &keys.events,
            &keys.changes,
            &keys.configuration,
            &keys.inline,
            &keys.uses,
            &keys.lists,
        ];
        inner.link.send(commands::UNLINK.cmd().arg(&all[..])).await?;
        inner.link.send(commands::ZREM.cmd().arg(NAMESPACES).arg(&**name)).await?;
        inner.forget(name);
        Ok(())
    }

    /// The answer of a script that only the holder of the pause may call.
    fn done(said: Said) -> Result<(), StoreError> {
        match said {
            Said::Done(..) => Ok(()),
            Said::Void(_) => Err(VOID.into()),
            Said::Unknown | Said::Changed | Said::Paused(_) => {
                Err(StoreError::Refused("somebody else writes there".to_owned()))
            }
            Said::Steps(_) => Err(wire::strange().into()),
        }
    }
}

impl Export for RedisTarget {
    async fn namespace(&self, name: &Id) -> Result<StoredNamespace, StoreError> {
        self.store.namespace(name).await
    }

    async fn steps(&self, name: &Id, from: u64) -> Result<Page, StoreError> {
        self.store.steps(name, from).await
    }
}

impl Target for RedisTarget {
    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.store.0.server_time().await
    }

    async fn begin(&mut self, mark: &Mark) -> Result<(), CopyError> {
        let link = &self.store.0.link;
        let found = self::mark(link).await.map_err(CopyError::Target)?;
        if let Some(other) = found.as_ref().filter(|found| found.salt != mark.salt) {
            return Err(CopyError::TargetInUse(other.to_string()));
        }
        let names = self.store.0.names().await.map_err(CopyError::Target)?;
        for name in &names {
            self.look(name, found.is_some()).await?;
        }
        let put_up = async {
            link.send(commands::SET.cmd().arg(COPYING).arg(mark.to_bytes())).await?;
            for name in &names {
                self.clear(name).await?;
            }
            link.send(commands::SET.cmd().arg(SALT).arg(&mark.salt.0)).await?;
            Ok(())
        };
        put_up.await.map_err(CopyError::Target)
    }

    async fn found(&mut self, namespace: &StoredNamespace) -> Result<(), StoreError> {
        let StoredNamespace { name, configuration, inline, changes, heard_at } = namespace;
        let inner = &self.store.0;
        inner.link.send(commands::ZADD.cmd().arg(NAMESPACES).arg(0).arg(&**name)).await?;
        self.founded.push(name.clone());
        let mut fields = vec![("settings".to_owned(), configuration.namespace.to_bytes()?)];
        for (policy, history) in &configuration.policies {
            fields.push((format!("policy:{policy}"), history.to_bytes()?));
        }
        for (target, entry) in &configuration.targets {
            fields.push((format!("target:{target}"), entry.to_bytes()?));
        }
        for revision in inline {
            fields.push((format!("inline:{:032x}", revision.digest), revision.spec_bytes()?));
        }
        let slot = inner.slot(name);
        let keys = [&slot.keys.state, &slot.keys.configuration, &slot.keys.inline];
        let numbers = [
            self.holder,
            Pause::LASTING.as_micros(),
            configuration.revision,
            *changes,
            heard_at.as_micros(),
        ];
        for fields in fields.chunks(MOST) {
            let mut args: Vec<Vec<u8>> = inner.times(&slot).into();
            args.extend(numbers.map(|number| number.to_string().into_bytes()));
            for (field, value) in fields {
                args.extend([field.clone().into_bytes(), value.clone()]);
            }
            Self::done(inner.call(&slot, &scripts::FOUND, &keys, &args).await?)?;
        }
        Ok(())
    }

    async fn put(&mut self, name: &Id, steps: &[StoredStep]) -> Result<(), StoreError> {
        let inner = &self.store.0;
        let slot = inner.slot(name);
        for steps in steps.chunks(MOST) {
            let fixed = [&slot.keys.state, &slot.keys.events, &slot.keys.uses, &slot.keys.lists];
            let mut keys: Vec<String> = fixed.into_iter().cloned().collect();
            let mut args: Vec<Vec<u8>> = inner.times(&slot).into();
            args.push(self.holder.to_string().into_bytes());
            for step in steps {
                keys.extend([slot.keys.step(&step.joined), slot.keys.text(&step.joined)]);
                args.extend(arguments(step));
            }
            Self::done(inner.call(&slot, &scripts::IMPORT, &keys, &args).await?)?;
        }
        Ok(())
    }

    async fn reread(&mut self) -> Result<Vec<Id>, CopyError> {
        let inner = &self.store.0;
        lock(&inner.slots).clear();
        inner.names().await.map_err(CopyError::Target)
    }

    async fn open(&mut self, _heard_at: Timestamp) -> Result<(), CopyError> {
        let opened = async {
            for name in &self.founded {
                self.store.0.pausing(name, Pausing::End, self.holder).await?;
            }
            self.store.0.link.send(commands::DEL.cmd().arg(COPYING)).await?;
            Ok(())
        };
        opened.await.map_err(CopyError::Target)
    }
}

/// A step as `import` takes it: header, value, policy, texts.
fn arguments(step: &StoredStep) -> Vec<Vec<u8>> {
    let event = wire::double(step.event_at.as_micros()).to_le_bytes();
    let header = [&[u8::from(!step.record.is_over())][..], &event].concat();
    let policy = use_of(&step.record.policy).into_bytes();
    // A name is at most 128 bytes long, and so is what names its kind before it.
    let length = u8::try_from(policy.len()).unwrap_or(u8::MAX);
    let record = record::encode(&step.record, step.event_at);
    let value = [&[0; 8][..], &event, &[length], &policy, &record].concat();
    let mut arguments = vec![header, value, policy];
    let encoded =
        |text: &FailureText| record::encode_evidence(&Evidence { failures: [text.clone()].into() });
    let texts = step.evidence.failures.iter().map(encoded).chain(std::iter::repeat(Vec::new()));
    arguments.extend(texts.take(TEXTS));
    arguments
}
