//! A namespace, as an instance knows it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use redis::Value;

use super::{
    super::{
        ChangeEntry, Changes, ConfigurationChange, Queued, StoreError,
        configuration::{
            Configuration, INLINE_MAX, NamespaceEntry, POLICIES_MAX, PolicyHistory, PolicyRevision,
            TargetEntry,
        },
    },
    Inner,
    batch::Gathering,
    commands,
    fault::Fault,
    keys::{Keys, NAMESPACES},
    lock, now_at, scripts, text, use_of,
    wire::{self, Heading, Item, Outcome, Said},
};
use crate::domain::{
    id::Id,
    labels::Labels,
    limit::{Bound, Episodes},
    plan::Now,
    record::PolicyChoice,
    time::Timestamp,
};

/// The answer to an item.
pub type Answered = Result<Outcome, Fault>;

/// A call came later than it was of use.
pub const VOID: Fault = Fault::Refused("the call reached it too late and was not carried out");

/// A namespace, as an instance knows it.
#[derive(Debug)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// Its keys.
    pub keys: Keys,
    /// What is to be asked of it.
    pub gathering: Gathering<Item, Answered>,
    governing: Mutex<Governing>,
}

#[derive(Debug, Default)]
struct Governing {
    known: Option<Known>,
    /// Policies given inline.
    inline: HashMap<u128, Arc<PolicyRevision>>,
    heard: Heard,
    /// Episodes of targets, as they were last seen.
    episodes: HashMap<Box<str>, Episodes>,
    /// The latest change that was seen, and of which namespace by its birth.
    changes: (u64, u64),
}

/// What was last heard of the time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heard {
    /// The server's clock.
    wall: Timestamp,
    /// The time that was used. Time stands still while the clock is behind it.
    used: Timestamp,
    /// The local time when the answer came.
    local: Timestamp,
    /// The last instant before the latest outage.
    before: Timestamp,
    /// End of the grace after it, µs.
    graced: u64,
}

impl Heard {
    /// Never ahead of the server: its answer took time to come.
    fn at(&self, local: Timestamp) -> Timestamp {
        self.used.max(self.wall.plus(local - self.local))
    }

    /// What a decision at this local time rests on.
    #[must_use]
    pub fn now(&self, local: Timestamp) -> Now {
        now_at(self.at(local), self.before, self.graced)
    }
}

/// What governs a namespace.
#[derive(Clone, Debug)]
pub struct Known {
    /// When the namespace was created, µs: one that takes the place of another
    /// counts its revisions anew.
    pub born: u64,
    /// What governs it.
    pub configuration: Arc<Configuration>,
}

/// Targets of which the episodes are known, at most.
const EPISODES_KNOWN: usize = 4096;
const SETTINGS: &str = "settings";
const POLICY: &str = "policy:";
const TARGET: &str = "target:";

impl Slot {
    /// A namespace of which nothing is known.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            keys: Keys::new(name),
            gathering: Gathering::default(),
            governing: Mutex::default(),
        }
    }

    /// What governs it, if that is known.
    #[must_use]
    pub fn known(&self) -> Option<Known> {
        lock(&self.governing).known.clone()
    }

    /// Notes what an answer says of it, that came at this local time.
    pub fn note(&self, heading: &Heading, local: Timestamp) {
        let mut governing = lock(&self.governing);
        governing.heard = Heard {
            wall: heading.wall,
            used: heading.now,
            local,
            before: heading.before,
            graced: heading.graced,
        };
        governing.changes = governing.changes.max((heading.born, heading.changes));
        if governing.known.as_ref().is_some_and(|known| !known.is_of(heading)) {
            governing.known = None;
        }
    }

    /// Notes the server's clock.
    pub fn hear(&self, wall: Timestamp, local: Timestamp) {
        let mut governing = lock(&self.governing);
        governing.heard = Heard { wall, local, ..governing.heard };
    }

    /// When the namespace was created, µs, and the latest change that was seen.
    #[must_use]
    pub fn seen(&self) -> (u64, u64) {
        lock(&self.governing).changes
    }

    /// Sees anew: what was seen is gone.
    pub fn unsee(&self) {
        lock(&self.governing).changes = (0, 0);
    }

    /// The time; None when nothing was heard yet.
    #[must_use]
    pub fn time(&self, local: Timestamp) -> Option<Timestamp> {
        let heard = lock(&self.governing).heard;
        (heard.local != Timestamp::EPOCH || heard.wall != Timestamp::EPOCH).then(|| heard.at(local))
    }

    /// How long the server has said nothing.
    #[must_use]
    pub fn silence(&self, local: Timestamp) -> Duration {
        local - lock(&self.governing).heard.local
    }

    /// Learns what governs it.
    pub fn learn(&self, heading: &Heading, configuration: Configuration) -> Known {
        let known = Known { born: heading.born, configuration: Arc::new(configuration) };
        let mut governing = lock(&self.governing);
        if governing.known.as_ref().is_some_and(|known| known.born != heading.born) {
            governing.inline.clear();
        }
        governing.known = Some(known.clone());
        known
    }

    /// What is known is not so any more.
    pub fn unlearn(&self) {
        lock(&self.governing).known = None;
    }

    /// A policy given inline.
    #[must_use]
    pub fn inline(&self, digest: u128) -> Option<Arc<PolicyRevision>> {
        lock(&self.governing).inline.get(&digest).cloned()
    }

    /// Learns a policy given inline.
    pub fn learn_inline(&self, revision: &Arc<PolicyRevision>) {
        let mut governing = lock(&self.governing);
        if governing.inline.len() >= INLINE_MAX {
            governing.inline.clear();
        }
        governing.inline.insert(revision.digest, Arc::clone(revision));
    }

    /// Tells what is known of the targets' episodes.
    pub fn tell_episodes(&self, bounds: &mut [Bound]) {
        let governing = lock(&self.governing);
        for bound in bounds.iter_mut().filter(|bound| bound.is_paced()) {
            bound.episodes = governing.episodes.get(&bound.state).cloned().unwrap_or_default();
        }
    }

    /// Learns the episodes of some targets.
    pub fn learn_episodes(&self, seen: Vec<(Box<str>, Episodes)>) {
        let mut governing = lock(&self.governing);
        if governing.episodes.len() >= EPISODES_KNOWN {
            governing.episodes.clear();
        }
        governing.episodes.extend(seen);
    }

    /// One of them was forgotten.
    pub fn forget_inline(&self) {
        lock(&self.governing).inline.clear();
    }

    /// What a decision at this local time rests on.
    #[must_use]
    pub fn now(&self, local: Timestamp) -> Now {
        self.heard().now(local)
    }

    /// What was last heard of its time.
    #[must_use]
    pub fn heard(&self) -> Heard {
        lock(&self.governing).heard
    }
}

impl Known {
    /// What tells it from any other: when the namespace was created, and the
    /// revision.
    #[must_use]
    pub fn identity(&self) -> (u64, u64) {
        (self.born, self.configuration.revision)
    }

    /// Whether an answer was given under it.
    #[must_use]
    pub fn is_of(&self, heading: &Heading) -> bool {
        self.born == heading.born && self.configuration.revision == heading.revision
    }
}

impl Keys {
    /// Keys of a call of `settle` before those of its items.
    #[must_use]
    pub fn of_settle(&self) -> [&String; FIXED] {
        [&self.state, &self.events, &self.changes, &self.inline, &self.uses, &self.lists]
    }
}

/// How many those are.
const FIXED: usize = 6;

/// Takes the granting items out of a call.
pub fn without(granting: &[bool], keys: &mut Vec<String>, args: &mut Vec<Vec<u8>>) {
    let mut number = 0..;
    keys.retain(|_| {
        !number.next().is_some_and(|at: usize| {
            at >= FIXED && granting.get((at - FIXED) / 2).is_some_and(|grants| *grants)
        })
    });
    let mut number = 0..;
    args.retain(|_| !number.next().is_some_and(|at: usize| at >= 2 && granting[at - 2]));
}

/// The answer to each of `count` items.
#[must_use]
pub fn answers(said: Result<Said, Fault>, count: usize) -> Vec<Answered> {
    let rest = match said {
        Ok(Said::Done(_, rest)) => rest,
        Ok(Said::Unknown) => return vec![Ok(Outcome::NamespaceUnknown); count],
        Ok(Said::Void(_)) => return vec![Err(VOID); count],
        Ok(Said::Paused(pause)) => return vec![Err(Fault::Paused(pause)); count],
        Ok(Said::Changed | Said::Steps(_)) => return vec![Err(wire::strange()); count],
        Err(fault) => return vec![Err(fault); count],
    };
    let mut rest = rest.into_iter();
    let answer = || match (rest.next(), rest.next()) {
        (Some(code), Some(payload)) => Outcome::read(code, payload),
        _ => Err(wire::strange()),
    };
    std::iter::repeat_with(answer).take(count).collect()
}

/// What governs a namespace, from what `describe` says.
///
/// # Errors
/// When what is stored cannot be read.
pub fn configuration(
    revision: u64,
    parts: impl Iterator<Item = Value>,
) -> Result<Configuration, StoreError> {
    let mut settings = None;
    let mut policies = Vec::new();
    let mut targets = Vec::new();
    let mut parts = parts.map(|part| wire::bytes(part).ok_or_else(wire::strange));
    while let (Some(field), Some(value)) = (parts.next(), parts.next()) {
        let (field, value) = (String::from_utf8_lossy(&field?).into_owned(), value?);
        if field == SETTINGS {
            settings = Some(NamespaceEntry::from_bytes(&value)?);
        } else if let Some(name) = field.strip_prefix(POLICY).and_then(|name| name.parse().ok()) {
            policies.push((name, PolicyHistory::from_bytes(&value)?));
        } else if let Some(name) = field.strip_prefix(TARGET).and_then(|name| name.parse().ok()) {
            targets.push((name, TargetEntry::from_bytes(&value)?));
        }
    }
    let mut configuration = Configuration::new(settings.ok_or_else(wire::strange)?);
    configuration.revision = revision;
    configuration.policies.extend(policies);
    configuration.targets.extend(targets);
    Ok(configuration)
}

/// The changes after `after`, from what `follow` says: the oldest entry that is
/// kept, then those that were asked for. `latest` is the number of the latest.
///
/// # Errors
/// When it is not in the form of this version.
pub fn changes(latest: u64, rest: Vec<Value>, after: u64, limit: usize) -> Result<Changes, Fault> {
    let mut rest = rest.into_iter();
    let mut entries = Vec::new();
    while let (Some(number), Some(fields)) = (rest.next(), rest.next()) {
        let number = wire::number(number).ok_or_else(wire::strange)?;
        entries.push(entry(number, fields)?);
    }
    let oldest =
        entries.first().and_then(|entry| entry.first()).map_or(latest, |change| change.number - 1);
    if after < oldest || after > latest {
        return Ok(Changes::Gap(oldest));
    }
    let changes = entries.into_iter().skip(1).flatten().filter(|change| change.number > after);
    Ok(Changes::Follow(changes.take(limit).collect()))
}

/// The step of an entry of a queue; None when it is not in the form of this
/// version.
#[must_use]
pub fn queued(entry: &str) -> Option<Queued> {
    let (_, rest) = entry.split_once(' ')?;
    let (due, rest) = rest.split_once(' ')?;
    let due = Timestamp::from_micros(due.parse().ok()?);
    // Neither a name nor labels have a space in them.
    let (joined, labels) = match rest.match_indices(' ').nth(1) {
        None => (rest, ""),
        Some((end, _)) => (&rest[..end], &rest[end + 1..]),
    };
    Some(Queued { joined: joined.to_owned(), due, labels: Labels::parse(labels).ok()? })
}

/// The changes of one entry, whose latest has this number.
fn entry(latest: u64, fields: Value) -> Result<Vec<ChangeEntry>, Fault> {
    let Value::Array(fields) = fields else { return Err(wire::strange()) };
    let mut fields = fields.into_iter();
    let at = fields.nth(1).and_then(wire::number).ok_or_else(wire::strange)?;
    let count = fields.len() as u64 / 2;
    let mut changes = Vec::new();
    for number in latest + 1 - count..=latest {
        let joined = fields.next().and_then(text).ok_or_else(wire::strange)?;
        let version = fields.next().and_then(wire::number).ok_or_else(wire::strange)?;
        let at = Timestamp::from_micros(at);
        changes.push(ChangeEntry { number, at, joined: joined.into(), version });
    }
    Ok(changes)
}

impl Inner {
    /// Changes what governs a namespace, `current` being what is there.
    pub(super) async fn reconfigure(
        &self,
        name: &Id,
        current: Option<&Known>,
        change: &ConfigurationChange,
    ) -> Result<(), StoreError> {
        let unknown = || StoreError::NamespaceUnknown(name.to_string());
        let known = || current.ok_or_else(unknown);
        let mut forgotten = Vec::new();
        let (kind, field, value) = match change {
            ConfigurationChange::Namespace(entry) => {
                ("namespace", SETTINGS.to_owned(), entry.to_bytes()?)
            }
            ConfigurationChange::DeleteNamespace => {
                known()?;
                ("delete", String::new(), Vec::new())
            }
            ConfigurationChange::Policy(policy, history) => {
                let policies = &known()?.configuration.policies;
                if !policies.contains_key(policy) && policies.len() >= POLICIES_MAX {
                    forgotten = self.unused_policies(name, known()?).await?;
                }
                ("policy", format!("{POLICY}{policy}"), history.to_bytes()?)
            }
            ConfigurationChange::Target(target, entry) => {
                let configuration = &known()?.configuration;
                if let Some(entry) = entry {
                    configuration.check_room_for_target(target, entry)?;
                }
                let value = entry.as_ref().map(TargetEntry::to_bytes).transpose()?;
                ("target", format!("{TARGET}{target}"), value.unwrap_or_default())
            }
            ConfigurationChange::Inline(revision) => {
                known()?;
                forgotten = self.unused_inline(name, revision.digest).await?;
                ("inline", format!("{:032x}", revision.digest), revision.spec_bytes()?)
            }
        };
        if current.is_none() {
            // First, so that no namespace is ever without its entry.
            let mut register = commands::ZADD.cmd();
            self.link.send(register.arg(NAMESPACES).arg(0).arg(&**name)).await?;
            lock(&self.register).read_at = None;
        }
        let (born, revision) =
            current.map_or((0, 0), |known| (known.born, known.configuration.revision));
        let [not_after, given] = self.times(&self.slot(name));
        let mut args = vec![not_after, given];
        args.extend(
            [born.to_string(), revision.to_string(), kind.to_owned(), field]
                .map(String::into_bytes),
        );
        args.push(value);
        args.extend(forgotten.iter().cloned().map(String::into_bytes));
        let gone = match (change, current) {
            (ConfigurationChange::DeleteNamespace, Some(known)) => {
                let keys = &self.slot(name).keys;
                let states = known.configuration.targets.keys();
                let states = states.flat_map(|state| keys.target_state(state));
                states.chain([keys.parking.clone()]).collect()
            }
            _ => Vec::new(),
        };
        let heading = self.configured(name, &args, gone).await?;
        if let Some(known) = current {
            self.learn_change(name, known, change, &forgotten, &heading);
        }
        Ok(())
    }

    /// What is known is known to the end: nobody else changed it.
    fn learn_change(
        &self,
        name: &Id,
        known: &Known,
        change: &ConfigurationChange,
        forgotten: &[String],
        heading: &Heading,
    ) {
        let learn = |change: &dyn Fn(&mut Configuration)| {
            let mut configuration = Configuration::clone(&known.configuration);
            configuration.revision = heading.revision;
            change(&mut configuration);
            self.slot(name).learn(heading, configuration);
        };
        match change {
            ConfigurationChange::Policy(policy, history) => learn(&|configuration| {
                let gone = |policy: &Id| forgotten.contains(&format!("{POLICY}{policy}"));
                configuration.policies.retain(|policy, _| !gone(policy));
                configuration.policies.insert(policy.clone(), history.clone());
            }),
            ConfigurationChange::Target(target, entry) => {
                learn(&|configuration| configuration.put_target(target.clone(), entry.clone()));
            }
            ConfigurationChange::Namespace(_)
            | ConfigurationChange::DeleteNamespace
            | ConfigurationChange::Inline(_) => {}
        }
    }

    /// `gone` are keys of targets that go with the namespace.
    async fn configured(
        &self,
        name: &Id,
        args: &[Vec<u8>],
        gone: Vec<String>,
    ) -> Result<Heading, StoreError> {
        let slot = self.slot(name);
        let keys = &slot.keys;
        let fixed = [
            &keys.state,
            &keys.events,
            &keys.changes,
            &keys.configuration,
            &keys.inline,
            &keys.uses,
        ];
        let mut keys: Vec<String> = fixed.into_iter().cloned().collect();
        keys.extend(gone);
        let said = self.call(&slot, &scripts::CONFIGURE, &keys, args).await?;
        match said {
            Said::Done(heading, _) => Ok(heading),
            Said::Changed | Said::Unknown => Err(StoreError::ConfigurationChanged),
            Said::Steps(steps) => Err(StoreError::NamespaceNotEmpty { steps }),
            Said::Paused(pause) => Err(Fault::Paused(pause).into()),
            Said::Void(_) => Err(VOID.into()),
        }
    }

    /// What is used of a namespace's policies.
    async fn uses(&self, name: &Id) -> Result<Vec<String>, StoreError> {
        let slot = self.slot(name);
        let Value::Array(uses) = self.link.send(commands::HKEYS.cmd().arg(&slot.keys.uses)).await?
        else {
            return Err(wire::strange().into());
        };
        Ok(uses.into_iter().filter_map(text).collect())
    }

    /// Deleted policies that no step uses.
    async fn unused_policies(&self, name: &Id, known: &Known) -> Result<Vec<String>, StoreError> {
        let uses = self.uses(name).await?;
        let unused: Vec<String> = known
            .configuration
            .policies
            .iter()
            .filter(|(_, history)| history.deleted)
            .map(|(policy, _)| use_of(&PolicyChoice::Named(policy.clone())))
            .filter(|policy| !uses.contains(policy))
            .collect();
        if unused.is_empty() {
            return Err(StoreError::QuotaReached { what: "policies", max: POLICIES_MAX as u64 });
        }
        Ok(unused)
    }

    /// Policies given inline that no step uses, once there are too many.
    async fn unused_inline(&self, name: &Id, new: u128) -> Result<Vec<String>, StoreError> {
        let slot = self.slot(name);
        let count = self.link.send(commands::HLEN.cmd().arg(&slot.keys.inline)).await?;
        if wire::number(count).ok_or_else(wire::strange)? < INLINE_MAX as u64 {
            return Ok(Vec::new());
        }
        let Value::Array(digests) =
            self.link.send(commands::HKEYS.cmd().arg(&slot.keys.inline)).await?
        else {
            return Err(wire::strange().into());
        };
        let digests: Vec<String> = digests.into_iter().filter_map(text).collect();
        if digests.contains(&format!("{new:032x}")) {
            return Ok(Vec::new());
        }
        let uses = self.uses(name).await?;
        let named = digests.into_iter().map(|digest| format!("inline:{digest}"));
        let unused: Vec<String> = named.filter(|inline| !uses.contains(inline)).collect();
        if unused.is_empty() {
            let what = "inline policies";
            return Err(StoreError::QuotaReached { what, max: INLINE_MAX as u64 });
        }
        Ok(unused)
    }
}
