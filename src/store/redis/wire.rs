//! What goes to the scripts and what comes back.

use std::{fmt, sync::Arc};

use redis::Value;

use super::{
    asks::{self, Follows},
    batch::Changing,
    fault::Fault,
};
use crate::domain::{limit::Asks, plan::Now, time::Timestamp};

/// Id of an operation: a command that arrives twice is done once.
pub type Operation = [u8; 8];

/// An item of a call of `settle`.
#[derive(Debug)]
pub struct Item {
    /// Key of the step.
    pub step: String,
    /// Key of the texts of its failures.
    pub texts: String,
    /// What is asked.
    pub ask: Ask,
}

/// What is asked about a step.
#[derive(Debug)]
pub enum Ask {
    /// What it is.
    Read,
    /// Whether its event has come.
    Look,
    /// To become this.
    Write(Planned, Box<Written>),
    /// To become what follows from the answer of the targets that bound it.
    Bound(Planned, Box<Bound>),
    /// To be forgotten.
    Purge(Planned),
}

/// What a change was planned on.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    /// Version of the record; 0 without one.
    pub version: u64,
    /// When the namespace was created, µs.
    pub born: u64,
    /// Revision of its configuration.
    pub revision: u64,
    /// The time, and the instant by which leases were judged.
    pub now: Now,
    /// Id of the operation.
    pub operation: Operation,
}

/// What becomes of a step.
#[derive(Debug)]
pub struct Written {
    /// The stored record.
    pub record: Arc<[u8]>,
    /// Its next event.
    pub event_at: Timestamp,
    /// Where the event is filed then, as far as is known: a guess that is wrong
    /// costs the script time.
    pub filed_at: Timestamp,
    /// The policy that it uses, as the counts of uses name it; empty for the
    /// namespace's default.
    pub policy: String,
    /// Text of a failure.
    pub text: Option<Vec<u8>>,
    /// Live steps at most.
    pub live_max: u64,
    /// Whether it grants an attempt.
    pub grants: bool,
}

/// What becomes of a step that targets bound.
#[derive(Debug)]
pub struct Bound {
    /// What is asked of them.
    pub asks: Asks,
    /// What follows from their answer.
    pub follows: Vec<Follows>,
    /// The policy that it uses, as the counts of uses name it.
    pub policy: String,
    /// Text of a failure.
    pub text: Option<Vec<u8>>,
    /// Live steps at most.
    pub live_max: u64,
    /// Whether it may grant an attempt.
    pub grants: bool,
}

/// A step as it stands in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Where in the event index it is filed: not after its event.
    pub filed_at: Timestamp,
    /// The record.
    pub record: Arc<[u8]>,
}

impl Stored {
    /// Reads a value without its operation: score, policy, record.
    fn read(value: &[u8]) -> Option<Self> {
        let (score, rest) = value.split_first_chunk()?;
        let (&policy, rest) = rest.split_first()?;
        Some(Self {
            filed_at: Timestamp::from_micros(whole(*score)),
            record: rest.get(usize::from(policy)..)?.into(),
        })
    }
}

/// What became of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done; and where the event is filed, if that was guessed wrong.
    Written(Option<Timestamp>),
    /// The step is another by now: this.
    Conflict(Option<Stored>),
    /// The configuration is another by now.
    Configuration,
    /// The time is not what was planned with; the step is this.
    Time(Option<Stored>),
    /// The namespace has all the live steps it may.
    Quota,
    /// The policy given inline is not remembered.
    Inline,
    /// The step is this.
    Found(Option<Stored>),
    /// Its event has come, at this time.
    Due(Timestamp),
    /// It had not come; it is filed where it belongs.
    Filed,
    /// What is in the step's place is no step.
    Damaged,
    /// The namespace is paused.
    Paused(Pause),
    /// There is no such namespace.
    NamespaceUnknown,
    /// It was done before; the step has been this since.
    Again(Option<Stored>),
    /// Done, as the targets' answer has it: this.
    Admitted(Box<[u8]>),
    /// The targets have had other episodes by now: these.
    Episodes(Box<[u8]>),
}

/// A namespace in which nothing is changed for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// When it ends by itself.
    pub ends_at: Timestamp,
    /// Who holds it: a copy by the number it drew, or an operator.
    pub holder: u64,
}

impl Pause {
    /// The holder that is an operator.
    pub const OPERATOR: u64 = 0;
    /// The end of one that does not end by itself: the last instant that a
    /// double holds exactly.
    pub const LASTING: Timestamp = Timestamp::from_micros((1 << 53) - 1);

    fn read(payload: &[u8]) -> Option<Self> {
        let (ends_at, holder) = std::str::from_utf8(payload).ok()?.split_once(' ')?;
        let ends_at = Timestamp::from_micros(ends_at.parse().ok()?);
        Some(Self { ends_at, holder: holder.parse().ok()? })
    }
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.holder, self.ends_at) {
            (Self::OPERATOR, Self::LASTING) => {
                f.write_str("an operator paused it; `reprise store resume` ends that")
            }
            (Self::OPERATOR, end) => write!(f, "an operator paused it until {end}"),
            (_, Self::LASTING) => {
                f.write_str("it is the target of a copy that is not whole; run the copy again")
            }
            (_, _) => f.write_str("it is paused while it is copied to another store"),
        }
    }
}

/// What every answer begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heading {
    /// The time that was used.
    pub now: Timestamp,
    /// When the namespace was created, µs.
    pub born: u64,
    /// Revision of its configuration.
    pub revision: u64,
    /// The last instant before the latest outage.
    pub before: Timestamp,
    /// End of the grace after it; 0 when it does not last.
    pub graced: u64,
    /// The server's clock. Behind the time that was used, when it went back.
    pub wall: Timestamp,
    /// Number of the latest change.
    pub changes: u64,
}

impl Heading {
    fn read(packed: &[u8]) -> Option<Self> {
        let (words, rest) = packed.as_chunks();
        let [now, born, revision, before, graced, wall, changes] = words else { return None };
        rest.is_empty().then(|| Self {
            now: Timestamp::from_micros(whole(*now)),
            born: whole(*born),
            revision: whole(*revision),
            before: Timestamp::from_micros(whole(*before)),
            graced: whole(*graced),
            wall: Timestamp::from_micros(whole(*wall)),
            changes: whole(*changes),
        })
    }
}

/// What a script says.
#[derive(Debug)]
pub enum Said {
    /// Done, and the rest of what it says.
    Done(Heading, Vec<Value>),
    /// The namespace is not known.
    Unknown,
    /// The call came too late by the server's clock, which is this, and did
    /// nothing.
    Void(Timestamp),
    /// The configuration was changed meanwhile.
    Changed,
    /// The namespace still has so many steps.
    Steps(u64),
    /// The namespace is paused.
    Paused(Pause),
}

const KINDS: [u8; 5] = [0, 1, 2, 3, 4];

impl Changing for Item {
    fn changes(&self) -> Option<&str> {
        (!matches!(self.ask, Ask::Read)).then_some(&self.step)
    }
}

impl Ask {
    /// It as `settle.lua` takes it: header, value, text; `index` places the
    /// states of targets.
    #[must_use]
    pub fn argument(self, index: impl FnMut(&str) -> u16) -> Vec<u8> {
        let [read, write, purge, look, bound] = KINDS;
        let nothing = Lengths::default();
        match self {
            Self::Read => header(read, None, &nothing),
            Self::Look => header(look, None, &nothing),
            Self::Purge(planned) => header(purge, Some(&planned), &nothing),
            Self::Write(planned, written) => {
                let lengths = Lengths {
                    event: written.event_at.as_micros(),
                    live_max: written.live_max,
                    value: value_length(&written.policy, &written.record),
                };
                let mut item = header(write, Some(&planned), &lengths);
                let filed = written.filed_at.as_micros();
                value(planned.operation, filed, &written.policy, &written.record, &mut item);
                item.extend(written.text.unwrap_or_default());
                item
            }
            Self::Bound(planned, what) => what.argument(bound, &planned, index),
        }
    }
}

impl Item {
    /// The states of targets that it is about.
    pub fn states(&self) -> impl Iterator<Item = &str> {
        let asks = match &self.ask {
            Ask::Bound(_, bound) => Some(&bound.asks),
            _ => None,
        };
        asks.into_iter().flat_map(asks::names)
    }

    /// Whether it grants an attempt, and so has to wait for memory.
    #[must_use]
    pub fn grants(&self) -> bool {
        match &self.ask {
            Ask::Write(_, written) => written.grants,
            Ask::Bound(_, bound) => bound.grants,
            Ask::Read | Ask::Look | Ask::Purge(_) => false,
        }
    }
}

impl Bound {
    fn argument(self, kind: u8, planned: &Planned, index: impl FnMut(&str) -> u16) -> Vec<u8> {
        const FOLLOWS_HEAD: usize = 1 + 8 + 4;
        let length = |follows: &Follows| FOLLOWS_HEAD + value_length(&self.policy, &follows.record);
        let lengths = Lengths {
            event: 0,
            live_max: self.live_max,
            value: self.follows.iter().map(length).sum(),
        };
        let mut item = header(kind, Some(planned), &lengths);
        for Follows { answer, event, record } in &self.follows {
            item.push(*answer as u8);
            item.extend(double(*event).to_le_bytes());
            item.extend(length_bytes(value_length(&self.policy, record)));
            value(planned.operation, *event, &self.policy, record, &mut item);
        }
        asks::pack(&self.asks, index, &mut item);
        item.extend(self.text.unwrap_or_default());
        item
    }
}

/// Bytes of a value.
const fn value_length(policy: &str, record: &[u8]) -> usize {
    8 + 8 + 1 + policy.len() + record.len()
}

/// A value as it is stored: operation, score, policy, record.
fn value(operation: Operation, event: u64, policy: &str, record: &[u8], out: &mut Vec<u8>) {
    out.extend(operation);
    out.extend(double(event).to_le_bytes());
    // A name is 128 bytes at most.
    out.push(u8::try_from(policy.len()).unwrap_or_default());
    out.extend(policy.as_bytes());
    out.extend(record);
}

/// What a header says of what comes behind it.
#[derive(Default)]
struct Lengths {
    /// The next event, µs.
    event: u64,
    /// Live steps at most.
    live_max: u64,
    /// Bytes of the value, or of all that may follow.
    value: usize,
}

fn length_bytes(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or_default().to_le_bytes()
}

/// As `settle.lua` unpacks it. Numbers are doubles: all of them are below 2⁵³.
fn header(kind: u8, planned: Option<&Planned>, lengths: &Lengths) -> Vec<u8> {
    const HEADER: usize = 1 + 7 * 8 + 4;
    let mut header = Vec::with_capacity(HEADER + lengths.value + 64);
    header.push(kind);
    let planned_words = planned.map_or([0; 5], |planned| {
        let Now { at, leases } = planned.now;
        [planned.version, planned.born, planned.revision, at.as_micros(), leases.as_micros()]
    });
    for word in planned_words.into_iter().chain([lengths.event, lengths.live_max]) {
        header.extend(double(word).to_le_bytes());
    }
    header.extend(length_bytes(lengths.value));
    header
}

#[expect(clippy::cast_precision_loss, reason = "what is sent is below 2⁵³, or an end of time")]
pub fn double(number: u64) -> f64 {
    number as f64
}

/// A whole number that a script packed as a double.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what scripts count is whole, not negative and below 2⁵³, or an end of time"
)]
pub const fn whole(word: [u8; 8]) -> u64 {
    f64::from_le_bytes(word) as u64
}

impl Said {
    /// Reads what a script returned.
    ///
    /// # Errors
    /// When it is not in the form of this version.
    pub fn read(value: Value) -> Result<Self, Fault> {
        let Value::Array(parts) = value else { return Err(strange()) };
        let mut parts = parts.into_iter();
        let word = parts.next().and_then(bytes).ok_or_else(strange)?;
        match &*word {
            b"ok" => {
                let heading = parts.next().and_then(bytes);
                let heading = heading.and_then(|words| Heading::read(&words)).ok_or_else(strange)?;
                Ok(Self::Done(heading, parts.collect()))
            }
            b"unknown" => Ok(Self::Unknown),
            b"void" => {
                let wall = parts.next().and_then(number).ok_or_else(strange)?;
                Ok(Self::Void(Timestamp::from_micros(wall)))
            }
            b"changed" => Ok(Self::Changed),
            b"steps" => Ok(Self::Steps(parts.next().and_then(number).ok_or_else(strange)?)),
            b"paused" => {
                let pause = parts.next().and_then(bytes).and_then(|pause| Pause::read(&pause));
                Ok(Self::Paused(pause.ok_or_else(strange)?))
            }
            b"headless" => Err(Fault::Wrong(
                "the namespace's state is gone although steps of it are there: somebody deleted it; restore a backup"
                    .to_owned(),
            )),
            b"format" => Err(Fault::Wrong(format!(
                "the namespace was written by a newer version of Reprise, in format {}; use that \
                 version or a later one",
                parts.next().and_then(number).ok_or_else(strange)?
            ))),
            _ => Err(strange()),
        }
    }
}

impl Outcome {
    /// Reads code and payload.
    ///
    /// # Errors
    /// When they are not in the form of this version.
    pub fn read(code: Value, payload: Value) -> Result<Self, Fault> {
        let payload = bytes(payload).ok_or_else(strange)?;
        let step = |payload: Vec<u8>| match &*payload {
            [] => Ok(None),
            value => Stored::read(value).map(Some).ok_or_else(strange),
        };
        let score = |payload: &[u8]| match payload {
            [] => Ok(None),
            word => word.try_into().map(whole).map(Timestamp::from_micros).map(Some),
        };
        Ok(match number(code).ok_or_else(strange)? {
            1 => Self::Written(score(&payload).map_err(|_| strange())?),
            2 => Self::Conflict(step(payload)?),
            3 => Self::Configuration,
            4 => Self::Time(step(payload)?),
            5 => Self::Quota,
            6 => Self::Inline,
            7 => Self::Found(step(payload)?),
            8 => Self::Due(Timestamp::from_micros(
                number(Value::BulkString(payload)).ok_or_else(strange)?,
            )),
            9 => Self::Filed,
            10 => Self::Damaged,
            12 => Self::Again(step(payload)?),
            13 => Self::Admitted(payload.into_boxed_slice()),
            14 => Self::Episodes(payload.into_boxed_slice()),
            11 => Self::Paused(Pause::read(&payload).ok_or_else(strange)?),
            _ => return Err(strange()),
        })
    }
}

/// The bytes of a reply.
#[must_use]
pub fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        _ => None,
    }
}

/// The number of a reply, as number or as text.
#[must_use]
pub fn number(value: Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(number).ok(),
        other => std::str::from_utf8(&bytes(other)?).ok()?.parse().ok(),
    }
}

/// An answer in a form that no script of this version gives.
#[must_use]
pub fn strange() -> Fault {
    Fault::Wrong("a script answered in a form that is not known".to_owned())
}
