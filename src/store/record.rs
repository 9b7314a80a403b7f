//! The stored form of a [`Record`], versioned.
//!
//! A fixed header, then a body of varints. The header holds what an index, a
//! sweep or a script needs without reading the body:
//!
//! ```text
//!  0  u8   format, 1 to 4      16  u64  when something happens next, µs
//!  1  u8   state               24  u64  fence
//!  2  u16  flags, in format 4  32  u64  the state's own instant, µs
//!  4  u32  attempts begun      40  body
//!  8  u64  version
//! ```
//!
//! Integers are little-endian. Instants in the body are distances from the
//! step's creation, which take four or five bytes where the instant takes
//! eight. Names that recur (hosts, rules) stand once, in a table.
//!
//! Format 2 is that of steps which met a target's limits. While such a step
//! waits, the instant of its start stands in the header alone, so that a script
//! which finds it can write it there: the body refers to it. Format 3 is that of
//! steps which met a breaker: counters have what outages were forgiven, and
//! attempts what was at fault.
//!
//! Format 4 is that of steps of which there is more to say: the flags tell what,
//! and in which of the earlier formats the rest is written. The queue, its length
//! in a byte, stands right behind the instant with which every body begins, where
//! a script finds it; so do the labels of a step that has any, behind the queue, as
//! one text, its length in two bytes. All else stands at the end, a block for each
//! flag, in the order of the flags.

mod orders;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::pack::{Malformed, Reader, Writer};
use crate::domain::{
    decision::{Counter, Counters, Reason, Settled, Verdict},
    failure::FailureClass,
    id::Id,
    labels::Labels,
    policy::{RuleName, spec::HoldAnswer},
    record::{
        Attempt, Claims, EVIDENCE_MAX, End, Ending, Evidence, FailureText, HISTORY_MAX, Hold,
        Identity, Outcome, PolicyChoice, Record, State, Ticket,
    },
    time::{Timestamp, micros},
};

/// The newest form that is written. Every earlier one is read, and written where
/// it says all there is to say.
const FORMAT: u8 = 4;
/// The form of steps that met a breaker and are in no queue.
const MET_BREAKER: u8 = 3;
/// The form of steps that met limits, and no breaker.
const BOUND: u8 = 2;
/// The form of steps that never met a limit, and that of failures' texts.
const UNBOUND: u8 = 1;
/// Bytes before the body.
const HEADER: usize = 40;
/// The flags that are the format of the rest.
const REST: u8 = 0b11;
/// The flag of steps that any worker may claim.
const IS_OFFERED: u8 = 1 << 2;
/// The flag of steps that were ordered something.
const IS_ORDERED: u8 = 1 << 3;
/// The flag of steps that belong to a run which was begun; a script reads it.
const IS_OF_RUN: u8 = 1 << 4;
/// The flag of steps that tell how far they are, or did not start.
const IS_GETTING_ON: u8 = 1 << 5;
/// The flag of steps that have labels; a script reads it.
const IS_LABELED: u8 = 1 << 6;
/// The flag of steps whose counters began anew, or which forgot attempts.
const IS_COUNTED_ANEW: u8 = 1 << 7;
/// Where the queue begins in format 4.
const QUEUE_AT: usize = HEADER + 8;

/// Why a stored record could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Written by a newer version.
    #[error("the record has format {0}, newer than this version can read ({FORMAT})")]
    Format(u8),
    /// Not what was written.
    #[error("the record is damaged")]
    Malformed,
}

impl From<Malformed> for RecordError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// What stands in front of every stored record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What a commit compares.
    pub version: u64,
    /// When something happens next.
    pub event_at: Timestamp,
    /// The state's own instant.
    pub instant: Timestamp,
    /// Whether an attempt holds the lease; `event_at` is then its end.
    pub is_running: bool,
    /// Whether the step is over.
    pub is_over: bool,
}

impl Header {
    /// Reads the header alone.
    ///
    /// # Errors
    /// When the record is of another format or too short.
    pub fn read(bytes: &[u8]) -> Result<Self, RecordError> {
        check_format(bytes)?;
        let header = bytes.get(..HEADER).ok_or(RecordError::Malformed)?;
        Ok(Self {
            version: u64_at(header, 8),
            event_at: Timestamp::from_micros(u64_at(header, 16)),
            instant: Timestamp::from_micros(u64_at(header, 32)),
            is_running: header[1] == RUNNING,
            is_over: header[1] >= OVER,
        })
    }
}

/// The first byte of whatever is stored. It is looked at before the length:
/// another format may be shorter.
fn check_format(bytes: &[u8]) -> Result<(), RecordError> {
    match bytes.first() {
        Some(&(UNBOUND..=FORMAT)) => Ok(()),
        Some(&format) if format > FORMAT => Err(RecordError::Format(format)),
        _ => Err(RecordError::Malformed),
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|part| part.try_into().ok()).map_or(0, u64::from_le_bytes)
}

const WAITING: u8 = 0;
const STOPPING: u8 = 1;
const RUNNING: u8 = 2;
const HELD: u8 = 3;
/// This and above: over, by [`Ending`].
const OVER: u8 = 8;
const ENDINGS: [Ending; 4] = [Ending::Succeeded, Ending::Failed, Ending::Skipped, Ending::Canceled];

/// Writes a record.
#[must_use]
pub fn encode(record: &Record, event_at: Timestamp) -> Vec<u8> {
    let names = Names::of(record);
    let mut out = Writer::with_capacity(HEADER + 96 + record.attempts.len() * 64);
    let (state, instant) = state_header(&record.state);
    let rest = format_of(record);
    let blocks = blocks_of(record);
    let (format, flags) = if blocks == 0 { (rest, 0) } else { (FORMAT, rest | blocks) };
    out.bytes(&[format, state, flags, 0]);
    out.bytes(&record.counters.attempts.to_le_bytes());
    for word in [record.version, event_at.as_micros(), record.fence, instant.as_micros()] {
        out.bytes(&word.to_le_bytes());
    }
    out.bytes(&record.created_at.as_micros().to_le_bytes());
    if format == FORMAT {
        let queue = record.queue.as_deref().unwrap_or_default();
        // An id is at most 128 bytes long.
        out.bytes(&[u8::try_from(queue.len()).unwrap_or_default()]);
        out.bytes(queue.as_bytes());
    }
    if blocks & IS_LABELED != 0 {
        put_labels(&mut out, &record.labels);
    }
    let due = match &record.state {
        State::Waiting { due } if rest > UNBOUND => Some(*due),
        _ => None,
    };
    Body { out: &mut out, names: &names, base: record.created_at, format: rest, due }
        .record(record);
    if blocks & IS_OFFERED != 0 {
        put_offer(&mut out, record);
    }
    if let Some(orders) = &record.orders {
        orders::put(&mut out, orders, record.created_at);
    }
    if blocks & IS_OF_RUN != 0 {
        out.number(u64::from(record.of_run));
    }
    if blocks & IS_GETTING_ON != 0 {
        out.number(record.progress);
        out.flag(record.has_moved);
    }
    if blocks & IS_COUNTED_ANEW != 0 {
        put_began_with(&mut out, record);
    }
    out.into_bytes()
}

/// The flags of the blocks that a record needs; 0 for one that an earlier format
/// can say.
fn blocks_of(record: &Record) -> u8 {
    let Record { queue, payload, is_silent, silent_claims, .. } = record;
    let is_offered = queue.is_some() || !payload.is_empty() || *is_silent || *silent_claims > 0;
    let ends = record.attempts.iter().filter_map(|attempt| attempt.end.as_ref());
    let is_getting_on = record.progress > 0
        || record.has_moved
        || ends.map(|end| &end.counted).any(|counted| *counted == Some(Counter::Unstarted));
    let flag = |is_set, flag| if is_set { flag } else { 0 };
    flag(is_offered, IS_OFFERED)
        | flag(record.orders.is_some(), IS_ORDERED)
        | flag(record.of_run > 0, IS_OF_RUN)
        | flag(is_getting_on, IS_GETTING_ON)
        | flag(!record.labels.is_empty(), IS_LABELED)
        | flag(record.attempts.iter().any(|attempt| attempt.began_with.is_some()), IS_COUNTED_ANEW)
}

/// What attempts began with, where the decision before them does not tell. Names of
/// rules are written out: they are few.
fn put_began_with(out: &mut Writer, record: &Record) {
    let told = |(place, attempt): (usize, &Attempt)| Some((place, attempt.began_with.clone()?));
    let told: Vec<_> = record.attempts.iter().enumerate().filter_map(told).collect();
    out.number(told.len() as u64);
    for (place, counters) in told {
        let Counters { attempts: _, retries, uncounted, crashes, forgiven, by_rule } = *counters;
        out.number(place as u64);
        for count in [retries, uncounted, crashes, forgiven] {
            out.number(u64::from(count));
        }
        out.number(by_rule.len() as u64);
        for (rule, count) in by_rule {
            out.text(rule.as_str());
            out.number(u64::from(count));
        }
    }
}

fn take_began_with(input: &mut Reader<'_>, record: &mut Record) -> Result<(), Malformed> {
    for _ in 0..input.count()? {
        let place = usize::try_from(input.number()?).map_err(|_| Malformed)?;
        let attempt = record.attempts.get_mut(place).ok_or(Malformed)?;
        let mut counters = Counters {
            attempts: attempt.number - 1,
            retries: input.number_u32()?,
            uncounted: input.number_u32()?,
            crashes: input.number_u32()?,
            forgiven: input.number_u32()?,
            by_rule: Vec::new(),
        };
        for _ in 0..input.count()? {
            counters.by_rule.push((RuleName(input.text()?.into()), input.number_u32()?));
        }
        attempt.began_with = Some(Box::new(counters));
    }
    Ok(())
}

fn put_labels(out: &mut Writer, labels: &Labels) {
    let text = labels.as_str();
    // Eight pairs of at most 63 bytes each.
    out.bytes(&u16::try_from(text.len()).unwrap_or_default().to_le_bytes());
    out.bytes(text.as_bytes());
}

fn take_labels(input: &mut Reader<'_>) -> Result<Labels, Malformed> {
    let length = input.bytes(2)?.try_into().map_err(|_| Malformed)?;
    let text = input.bytes(usize::from(u16::from_le_bytes(length)))?;
    let text = std::str::from_utf8(text).map_err(|_| Malformed)?;
    Labels::parse(text).map_err(|_| Malformed)
}

fn put_offer(out: &mut Writer, record: &Record) {
    out.number(record.payload.len() as u64);
    out.bytes(&record.payload);
    out.flag(record.is_silent);
    out.number(u64::from(record.silent_claims));
}

fn take_offer(input: &mut Reader<'_>, record: &mut Record) -> Result<(), Malformed> {
    let length = usize::try_from(input.number()?).map_err(|_| Malformed)?;
    record.payload = input.bytes(length)?.into();
    record.is_silent = input.flag()?;
    record.silent_claims = input.number_u32()?;
    Ok(())
}

/// The queue from which a stored step may be claimed, and when it is due; None
/// when it does not wait, or is in no queue.
#[must_use]
pub fn offered(bytes: &[u8]) -> Option<(&str, Timestamp)> {
    if bytes.first() != Some(&FORMAT) || bytes.get(1) != Some(&WAITING) {
        return None;
    }
    let length = usize::from(*bytes.get(QUEUE_AT)?);
    let queue = std::str::from_utf8(bytes.get(QUEUE_AT + 1..)?.get(..length)?).ok()?;
    (!queue.is_empty()).then(|| (queue, Timestamp::from_micros(u64_at(bytes, 32))))
}

/// The labels of a stored step.
///
/// # Errors
/// When the record is damaged.
pub fn labels(bytes: &[u8]) -> Result<Labels, RecordError> {
    if bytes.first() != Some(&FORMAT) || bytes.get(2).is_none_or(|flags| flags & IS_LABELED == 0) {
        return Ok(Labels::default());
    }
    let mut input = Reader::new(bytes.get(QUEUE_AT..).ok_or(RecordError::Malformed)?);
    offered_queue(&mut input)?;
    Ok(take_labels(&mut input)?)
}

/// Whether a stored step belongs to a run which was begun.
#[must_use]
pub fn is_of_run(bytes: &[u8]) -> bool {
    bytes.first() == Some(&FORMAT) && bytes.get(2).is_some_and(|flags| flags & IS_OF_RUN != 0)
}

/// Reads a record.
///
/// # Errors
/// When it is of a newer format or damaged.
pub fn decode(bytes: &[u8]) -> Result<Record, RecordError> {
    let header = Header::read(bytes)?;
    let mut input = Reader::new(bytes.get(HEADER..).ok_or(RecordError::Malformed)?);
    let base = Timestamp::from_micros(u64_at(input.bytes(8)?, 0));
    let attempts = u32::from_le_bytes(bytes[4..8].try_into().map_err(|_| RecordError::Malformed)?);
    let fixed = Fixed {
        version: header.version,
        state: bytes[1],
        attempts,
        fence: u64_at(bytes, 24),
        instant: Timestamp::from_micros(u64_at(bytes, 32)),
    };
    let has_blocks = bytes[0] == FORMAT;
    let (format, blocks) =
        if has_blocks { (bytes[2] & REST, bytes[2] & !REST) } else { (bytes[0], 0) };
    // Each bit is the flag of a block.
    if format < UNBOUND {
        return Err(RecordError::Malformed);
    }
    let due = (format > UNBOUND && fixed.state == WAITING).then_some(fixed.instant);
    let queue = if has_blocks { offered_queue(&mut input)? } else { None };
    let labels =
        if blocks & IS_LABELED == 0 { Labels::default() } else { take_labels(&mut input)? };
    let mut record =
        Parse { input: &mut input, names: Vec::new(), base, format, due }.record(&fixed)?;
    if has_blocks {
        record.queue = queue;
    }
    record.labels = labels;
    if blocks & IS_OFFERED != 0 {
        take_offer(&mut input, &mut record)?;
    }
    if blocks & IS_ORDERED != 0 {
        record.orders = Some(Box::new(orders::take(&mut input, base)?));
    }
    if blocks & IS_OF_RUN != 0 {
        record.of_run = input.number_u32()?;
    }
    if blocks & IS_GETTING_ON != 0 {
        record.progress = input.number()?;
        record.has_moved = input.flag()?;
    }
    if blocks & IS_COUNTED_ANEW != 0 {
        take_began_with(&mut input, &mut record)?;
    }
    if input.is_empty() { Ok(record) } else { Err(RecordError::Malformed) }
}

fn offered_queue(input: &mut Reader<'_>) -> Result<Option<Id>, Malformed> {
    let length = usize::from(input.bytes(1)?[0]);
    let queue = std::str::from_utf8(input.bytes(length)?).map_err(|_| Malformed)?;
    if queue.is_empty() { Ok(None) } else { id(queue).map(Some) }
}

/// The oldest form that says all there is to say, but for the queue.
fn format_of(record: &Record) -> u8 {
    let of_end = |end: &End| end.fault != 0 || end.settled.counters.forgiven != 0;
    let met_breaker = record.counters.forgiven != 0
        || record.attempts.iter().filter_map(|attempt| attempt.end.as_ref()).any(of_end)
        || record.standing.as_ref().is_some_and(|settled| settled.counters.forgiven != 0)
        || matches!(&record.state, State::Stopping { verdict, .. } if verdict.counters.forgiven != 0)
        || record
            .claims
            .as_ref()
            .is_some_and(|claims| claims.tickets.iter().any(|ticket| ticket.mark != 0));
    match &record.claims {
        _ if met_breaker => MET_BREAKER,
        Some(_) => BOUND,
        None => UNBOUND,
    }
}

fn state_header(state: &State) -> (u8, Timestamp) {
    match state {
        State::Waiting { due } => (WAITING, *due),
        State::Stopping { at, .. } => (STOPPING, *at),
        State::Running { lease_until } => (RUNNING, *lease_until),
        State::Held(hold) => (HELD, hold.until.unwrap_or(Timestamp::NEVER)),
        State::Over { ending, purge_at } => {
            let at = ENDINGS.iter().position(|known| known == ending).unwrap_or_default();
            (OVER + u8::try_from(at).unwrap_or_default(), *purge_at)
        }
    }
}

/// The names that a record refers to, each once.
struct Names<'a>(Vec<&'a str>);

impl<'a> Names<'a> {
    fn of(record: &'a Record) -> Self {
        let mut names = Self(Vec::new());
        for attempt in &record.attempts {
            names.add(attempt.host.as_deref());
            if let Some(end) = &attempt.end {
                names.add_settled(&end.settled);
                names.add(end.counted.as_ref().and_then(counter_rule).map(RuleName::as_str));
            }
        }
        if let Some(settled) = &record.standing {
            names.add_settled(settled);
        }
        if let State::Stopping { verdict, .. } = &record.state {
            names.add_settled(verdict);
        }
        names.add_counters(&record.counters);
        names
    }

    fn add(&mut self, name: Option<&'a str>) {
        if let Some(name) = name.filter(|name| !self.0.contains(name)) {
            self.0.push(name);
        }
    }

    fn add_settled(&mut self, settled: &'a Settled) {
        self.add(settled.rule.as_ref().map(RuleName::as_str));
        self.add_counters(&settled.counters);
    }

    fn add_counters(&mut self, counters: &'a Counters) {
        for (rule, _) in &counters.by_rule {
            self.add(Some(rule.as_str()));
        }
    }

    /// Place of a name from 1 on; 0 stands for none.
    fn place(&self, name: Option<&str>) -> u64 {
        let at = name.and_then(|name| self.0.iter().position(|known| *known == name));
        at.map_or(0, |at| at as u64 + 1)
    }
}

const fn counter_rule(counter: &Counter) -> Option<&RuleName> {
    match counter {
        Counter::Retries | Counter::Crashes | Counter::Forgiven | Counter::Unstarted => None,
        Counter::Rule(name) | Counter::Uncounted(name) => Some(name),
    }
}

/// Writes the body.
struct Body<'a> {
    out: &'a mut Writer,
    names: &'a Names<'a>,
    base: Timestamp,
    format: u8,
    /// The instant that stands in the header alone.
    due: Option<Timestamp>,
}

impl Body<'_> {
    fn record(&mut self, record: &Record) {
        self.out.number(self.names.0.len() as u64);
        for name in &self.names.0 {
            self.out.text(name);
        }
        self.counters(&record.counters);
        self.optional(record.first_began_at);
        self.out.number(micros(record.held_for));
        self.out.number(micros(record.lease));
        self.out.number(micros(record.last_delay));
        self.policy(&record.policy);
        self.out.text(&record.kind);
        self.out.number(record.targets.len() as u64);
        for target in &record.targets {
            self.out.text(target);
        }
        // Of a step in a queue it stands before the body. In earlier versions it
        // stood here.
        self.out.text("");
        self.optional(record.deadline);
        self.out.text(&record.resume_from);
        self.out.text(&record.worker);
        self.out.number(u64::from(record.manual_retries));
        self.out.number(record.attempts.len() as u64);
        // Only what was decided last speaks of the instant in the header.
        let due = self.due.take();
        for (left, attempt) in (0..record.attempts.len()).rev().zip(&record.attempts) {
            self.due = due.filter(|_| left == 0);
            self.attempt(attempt);
        }
        self.due = due;
        self.out.flag(record.standing.is_some());
        if let Some(settled) = &record.standing {
            self.settled(settled, self.base);
        }
        match &record.state {
            State::Stopping { verdict, .. } => self.settled(verdict, self.base),
            State::Held(hold) => self.hold(hold),
            State::Waiting { .. } | State::Running { .. } | State::Over { .. } => {}
        }
        if self.format == UNBOUND {
            return;
        }
        if self.format == MET_BREAKER {
            self.out.flag(record.claims.is_some());
        }
        if let Some(claims) = &record.claims {
            self.optional(claims.since);
            self.out.number(claims.tickets.len() as u64);
            for ticket in &claims.tickets {
                self.out.text(&ticket.state);
                self.out.number(ticket.revision);
                self.out.number(micros(ticket.grace));
                if self.format == MET_BREAKER {
                    self.out.number(u64::from(ticket.mark));
                }
            }
            self.out.number(claims.held.len() as u64);
            for state in &claims.held {
                self.out.text(state);
            }
        }
    }

    fn instant(&mut self, instant: Timestamp) {
        self.out.distance(instant.as_micros(), self.base.as_micros());
    }

    fn optional(&mut self, instant: Option<Timestamp>) {
        self.out.flag(instant.is_some());
        if let Some(instant) = instant {
            self.instant(instant);
        }
    }

    fn policy(&mut self, policy: &PolicyChoice) {
        match policy {
            PolicyChoice::Default => self.out.number(0),
            PolicyChoice::Named(name) => {
                self.out.number(1);
                self.out.text(name);
            }
            PolicyChoice::Inline(digest) => {
                self.out.number(2);
                self.out.bytes(&digest.to_le_bytes());
            }
        }
    }

    fn counters(&mut self, counters: &Counters) {
        self.out.number(u64::from(counters.retries));
        self.out.number(u64::from(counters.uncounted));
        self.out.number(u64::from(counters.crashes));
        if self.format == MET_BREAKER {
            self.out.number(u64::from(counters.forgiven));
        }
        self.out.number(counters.by_rule.len() as u64);
        for (rule, count) in &counters.by_rule {
            self.out.number(self.names.place(Some(rule.as_str())));
            self.out.number(u64::from(*count));
        }
    }

    fn identity(&mut self, identity: Option<Identity>) {
        let tag = match identity {
            None => 0,
            Some(Identity { id: 0, .. }) => 1,
            Some(_) => 2,
        };
        self.out.number(tag);
        if let Some(Identity { id, payload }) = identity {
            self.out.bytes(&payload.to_le_bytes());
            if id != 0 {
                self.out.bytes(&id.to_le_bytes());
            }
        }
    }

    fn attempt(&mut self, attempt: &Attempt) {
        self.out.distance(attempt.fence, self.base.as_micros());
        self.instant(attempt.began_at);
        self.identity(attempt.begun_by);
        self.out.number(self.names.place(attempt.host.as_deref()));
        self.out.flag(attempt.end.is_some());
        if let Some(end) = &attempt.end {
            self.end(end);
        }
    }

    fn end(&mut self, end: &End) {
        self.instant(end.at);
        match end.outcome {
            Outcome::Success => self.out.number(0),
            Outcome::Crash => self.out.number(1),
            Outcome::Failure { class, exit_code } => {
                let class =
                    FailureClass::ALL.iter().position(|known| *known == class).unwrap_or_default();
                self.out.number(2 + 2 * class as u64 + u64::from(exit_code.is_some()));
                if let Some(code) = exit_code {
                    self.out.signed(i64::from(code));
                }
            }
        }
        self.identity(end.reported_by);
        self.out.flag(end.late);
        self.settled(&end.settled, end.at);
        match &end.counted {
            None => self.out.number(0),
            Some(Counter::Retries) => self.out.number(1),
            Some(Counter::Crashes) => self.out.number(2),
            Some(Counter::Rule(rule)) => self.counted(3, rule),
            Some(Counter::Uncounted(rule)) => self.counted(4, rule),
            Some(Counter::Forgiven) => self.out.number(5),
            Some(Counter::Unstarted) => self.out.number(6),
        }
        if self.format == MET_BREAKER {
            self.out.number(u64::from(end.fault));
        }
    }

    fn counted(&mut self, tag: u64, rule: &RuleName) {
        self.out.number(tag);
        self.out.number(self.names.place(Some(rule.as_str())));
    }

    /// `near` is an instant close to that of the decision, often the same.
    fn settled(&mut self, settled: &Settled, near: Timestamp) {
        let (tag, instant) = match settled.verdict {
            Verdict::Retry(at) if self.due == Some(at) => (7, None),
            Verdict::Wait(Some(at)) if self.due == Some(at) => (8, None),
            Verdict::Stop => (0, None),
            Verdict::Done => (1, None),
            Verdict::Retry(at) => (2, Some(at)),
            Verdict::Wait(None) => (3, None),
            Verdict::Wait(at) => (4, at),
            Verdict::Hold(None) => (5, None),
            Verdict::Hold(at) => (6, at),
        };
        self.out.number(tag);
        if let Some(instant) = instant {
            self.instant(instant);
        }
        self.out.number(
            Reason::ALL.iter().position(|known| *known == settled.reason).unwrap_or_default()
                as u64,
        );
        self.out.number(self.names.place(settled.rule.as_ref().map(RuleName::as_str)));
        self.out.number(settled.revision);
        self.out.number(u64::from(settled.counters.attempts));
        self.counters(&settled.counters);
        self.out.distance(settled.decided_at.as_micros(), near.as_micros());
    }

    fn hold(&mut self, hold: &Hold) {
        self.instant(hold.since);
        self.out.flag(hold.until.is_some());
        let allowed =
            HoldAnswer::ALL.iter().enumerate().filter(|(_, answer)| hold.allowed.contains(answer));
        self.out.number(allowed.fold(0, |bits, (at, _)| bits | 1 << at));
        self.out.number(
            HoldAnswer::ALL
                .iter()
                .position(|answer| *answer == hold.default_answer)
                .unwrap_or_default() as u64,
        );
        self.out.number(u64::from(hold.max_manual_retries));
    }
}

/// The fixed part, as read.
struct Fixed {
    version: u64,
    state: u8,
    attempts: u32,
    fence: u64,
    instant: Timestamp,
}

/// Reads the body.
struct Parse<'a, 'b> {
    input: &'b mut Reader<'a>,
    names: Vec<Arc<str>>,
    base: Timestamp,
    format: u8,
    /// The instant that stands in the header alone.
    due: Option<Timestamp>,
}

impl Parse<'_, '_> {
    fn record(&mut self, fixed: &Fixed) -> Result<Record, Malformed> {
        for _ in 0..self.input.count()? {
            let name = self.input.text()?.into();
            self.names.push(name);
        }
        let counters = self.counters(fixed.attempts)?;
        let first_began_at = self.optional()?;
        let held_for = self.span()?;
        let lease = self.span()?;
        let last_delay = self.span()?;
        let policy = self.policy()?;
        let kind = self.input.text()?.into();
        let mut targets = Vec::new();
        for _ in 0..self.input.count()? {
            targets.push(id(self.input.text()?)?);
        }
        let queue = match self.input.text()? {
            "" => None,
            queue => Some(id(queue)?),
        };
        let deadline = self.optional()?;
        let resume_from = self.input.text()?.into();
        let worker = self.input.text()?.into();
        let manual_retries = self.input.number_u32()?;
        let attempts = self.attempts(fixed.attempts)?;
        let standing = if self.input.flag()? { Some(self.settled(self.base)?) } else { None };
        let state = self.state(fixed)?;
        let is_bound = match self.format {
            UNBOUND => false,
            BOUND => true,
            _ => self.input.flag()?,
        };
        let claims = if is_bound { Some(Box::new(self.claims()?)) } else { None };
        Ok(Record {
            version: fixed.version,
            state,
            counters,
            fence: fixed.fence,
            created_at: self.base,
            first_began_at,
            held_for,
            lease,
            last_delay,
            policy,
            kind,
            targets,
            queue,
            payload: Box::default(),
            labels: Labels::default(),
            is_silent: false,
            silent_claims: 0,
            deadline,
            resume_from,
            worker,
            manual_retries,
            attempts,
            standing,
            of_run: 0,
            claims,
            orders: None,
            progress: 0,
            has_moved: false,
        })
    }

    fn claims(&mut self) -> Result<Claims, Malformed> {
        let since = self.optional()?;
        let count = self.input.count()?;
        let ticket = |_| {
            let state = self.input.text()?.into();
            let (revision, grace) = (self.input.number()?, self.span()?);
            let mark = if self.format == MET_BREAKER { self.input.number_u32()? } else { 0 };
            Ok(Ticket { state, revision, grace, mark })
        };
        let tickets = (0..count).map(ticket).collect::<Result<_, Malformed>>()?;
        let count = self.input.count()?;
        let held = (0..count).map(|_| Ok(self.input.text()?.into()));
        Ok(Claims { since, tickets, held: held.collect::<Result<_, Malformed>>()? })
    }

    fn state(&mut self, fixed: &Fixed) -> Result<State, Malformed> {
        let instant = fixed.instant;
        Ok(match fixed.state {
            WAITING => State::Waiting { due: instant },
            STOPPING => State::Stopping { at: instant, verdict: self.settled(self.base)? },
            RUNNING => State::Running { lease_until: instant },
            HELD => State::Held(self.hold(instant)?),
            over => {
                let ending = ENDINGS.get(usize::from(over.wrapping_sub(OVER))).ok_or(Malformed)?;
                State::Over { ending: *ending, purge_at: instant }
            }
        })
    }

    fn instant(&mut self) -> Result<Timestamp, Malformed> {
        self.input.distance(self.base.as_micros()).map(Timestamp::from_micros)
    }

    fn optional(&mut self) -> Result<Option<Timestamp>, Malformed> {
        if self.input.flag()? { self.instant().map(Some) } else { Ok(None) }
    }

    fn span(&mut self) -> Result<Duration, Malformed> {
        self.input.number().map(Duration::from_micros)
    }

    fn name(&mut self) -> Result<Option<Arc<str>>, Malformed> {
        match self.input.number()? {
            0 => Ok(None),
            place => {
                let at = usize::try_from(place - 1).map_err(|_| Malformed)?;
                self.names.get(at).cloned().map(Some).ok_or(Malformed)
            }
        }
    }

    fn rule(&mut self) -> Result<RuleName, Malformed> {
        self.name()?.map(RuleName).ok_or(Malformed)
    }

    fn policy(&mut self) -> Result<PolicyChoice, Malformed> {
        Ok(match self.input.number()? {
            0 => PolicyChoice::Default,
            1 => PolicyChoice::Named(id(self.input.text()?)?),
            2 => PolicyChoice::Inline(u128::from_le_bytes(
                self.input.bytes(16)?.try_into().map_err(|_| Malformed)?,
            )),
            _ => return Err(Malformed),
        })
    }

    fn counters(&mut self, attempts: u32) -> Result<Counters, Malformed> {
        let retries = self.input.number_u32()?;
        let uncounted = self.input.number_u32()?;
        let crashes = self.input.number_u32()?;
        let forgiven = if self.format == MET_BREAKER { self.input.number_u32()? } else { 0 };
        let mut by_rule = Vec::new();
        for _ in 0..self.input.count()? {
            by_rule.push((self.rule()?, self.input.number_u32()?));
        }
        Ok(Counters { attempts, retries, uncounted, crashes, forgiven, by_rule })
    }

    fn identity(&mut self) -> Result<Option<Identity>, Malformed> {
        let tag = self.input.number()?;
        if tag == 0 {
            return Ok(None);
        }
        let payload = u64_at(self.input.bytes(8)?, 0);
        let id = if tag == 2 { u64_at(self.input.bytes(8)?, 0) } else { 0 };
        Ok(Some(Identity { id, payload }))
    }

    /// Attempts are dense and the last one is the latest, so that their numbers
    /// need not be stored.
    fn attempts(&mut self, latest: u32) -> Result<VecDeque<Attempt>, Malformed> {
        let count = self.input.count()?;
        if count > HISTORY_MAX {
            return Err(Malformed);
        }
        let count = u32::try_from(count).map_err(|_| Malformed)?;
        let before = latest.checked_sub(count).ok_or(Malformed)?;
        // One more than there are: what is read is most often begun anew.
        let mut attempts = VecDeque::with_capacity(HISTORY_MAX.min(count as usize + 1));
        for place in 1..=count {
            attempts.push_back(self.attempt(before + place)?);
        }
        Ok(attempts)
    }

    fn attempt(&mut self, number: u32) -> Result<Attempt, Malformed> {
        let fence = self.input.distance(self.base.as_micros())?;
        let began_at = self.instant()?;
        let begun_by = self.identity()?;
        let host = self.name()?;
        let end = if self.input.flag()? { Some(self.end()?) } else { None };
        Ok(Attempt { number, fence, began_at, begun_by, host, began_with: None, end })
    }

    fn end(&mut self) -> Result<End, Malformed> {
        let at = self.instant()?;
        let outcome = match self.input.number()? {
            0 => Outcome::Success,
            1 => Outcome::Crash,
            tag => {
                let class = usize::try_from((tag - 2) / 2)
                    .ok()
                    .and_then(|at| FailureClass::ALL.get(at))
                    .ok_or(Malformed)?;
                let exit_code = if tag % 2 == 1 {
                    Some(i32::try_from(self.input.signed()?).map_err(|_| Malformed)?)
                } else {
                    None
                };
                Outcome::Failure { class: *class, exit_code }
            }
        };
        let reported_by = self.identity()?;
        let late = self.input.flag()?;
        let settled = self.settled(at)?;
        let counted = match self.input.number()? {
            0 => None,
            1 => Some(Counter::Retries),
            2 => Some(Counter::Crashes),
            3 => Some(Counter::Rule(self.rule()?)),
            4 => Some(Counter::Uncounted(self.rule()?)),
            5 => Some(Counter::Forgiven),
            6 => Some(Counter::Unstarted),
            _ => return Err(Malformed),
        };
        let fault = if self.format == MET_BREAKER {
            u16::try_from(self.input.number()?).map_err(|_| Malformed)?
        } else {
            0
        };
        Ok(End { at, outcome, reported_by, late, settled, counted, fault })
    }

    fn settled(&mut self, near: Timestamp) -> Result<Settled, Malformed> {
        let verdict = match self.input.number()? {
            0 => Verdict::Stop,
            1 => Verdict::Done,
            2 => Verdict::Retry(self.instant()?),
            3 => Verdict::Wait(None),
            4 => Verdict::Wait(Some(self.instant()?)),
            5 => Verdict::Hold(None),
            6 => Verdict::Hold(Some(self.instant()?)),
            7 => Verdict::Retry(self.due.ok_or(Malformed)?),
            8 => Verdict::Wait(Some(self.due.ok_or(Malformed)?)),
            _ => return Err(Malformed),
        };
        let reason = *usize::try_from(self.input.number()?)
            .ok()
            .and_then(|at| Reason::ALL.get(at))
            .ok_or(Malformed)?;
        let rule = self.name()?.map(RuleName);
        let revision = self.input.number()?;
        let attempts = self.input.number_u32()?;
        let counters = self.counters(attempts)?;
        let decided_at = self.input.distance(near.as_micros()).map(Timestamp::from_micros)?;
        Ok(Settled { verdict, reason, rule, revision, counters, decided_at })
    }

    fn hold(&mut self, until: Timestamp) -> Result<Hold, Malformed> {
        let since = self.instant()?;
        let until = self.input.flag()?.then_some(until);
        let bits = self.input.number()?;
        let allowed = HoldAnswer::ALL
            .into_iter()
            .enumerate()
            .filter(|(at, _)| bits & (1 << at) != 0)
            .map(|(_, answer)| answer)
            .collect();
        let default_answer = *usize::try_from(self.input.number()?)
            .ok()
            .and_then(|at| HoldAnswer::ALL.get(at))
            .ok_or(Malformed)?;
        let max_manual_retries = self.input.number_u32()?;
        Ok(Hold { since, until, allowed, default_answer, max_manual_retries })
    }
}

fn id(text: &str) -> Result<Id, Malformed> {
    text.parse().map_err(|_| Malformed)
}

/// Writes the texts of failures.
#[must_use]
pub fn encode_evidence(evidence: &Evidence) -> Vec<u8> {
    let mut out = Writer::with_capacity(64);
    out.bytes(&[UNBOUND]);
    out.number(evidence.failures.len() as u64);
    for text in &evidence.failures {
        failure_text(&mut out, text);
    }
    out.into_bytes()
}

/// Texts of one failure.
const FAILURE_TEXTS: usize = 4;

fn failure_text(out: &mut Writer, text: &FailureText) {
    out.number(u64::from(text.attempt));
    out.flag(text.late);
    let parts: [&str; FAILURE_TEXTS] = [&text.message, &text.error_type, &text.cause, &text.worker];
    for part in parts {
        out.text(part);
    }
}

/// The stored texts with those of one more failure, as [`Evidence::add`] adds
/// them. The others are copied as they stand: texts are added with every failure
/// and hardly ever read.
///
/// # Errors
/// When what is stored is of a newer format or damaged.
pub fn add_evidence(stored: Option<&[u8]>, text: &FailureText) -> Result<Box<[u8]>, RecordError> {
    let mut others = stored.map_or_else(|| Ok(Vec::new()), |stored| other_texts(stored, text))?;
    others.drain(..(others.len() + 1).saturating_sub(EVIDENCE_MAX));
    let mut out = Writer::with_capacity(
        32 + others.iter().map(|other| other.len()).sum::<usize>()
            + text.message.len()
            + text.error_type.len()
            + text.cause.len()
            + text.worker.len(),
    );
    out.bytes(&[UNBOUND]);
    out.number(others.len() as u64 + 1);
    for other in others {
        out.bytes(other);
    }
    failure_text(&mut out, text);
    Ok(out.into_bytes().into())
}

/// The stored texts of each failure, those that `text` replaces left out.
fn other_texts<'a>(stored: &'a [u8], text: &FailureText) -> Result<Vec<&'a [u8]>, RecordError> {
    check_format(stored)?;
    let mut input = Reader::new(&stored[1..]);
    let mut others = Vec::with_capacity(EVIDENCE_MAX);
    for _ in 0..input.count()? {
        let from = input.left();
        let failure = (input.number_u32()?, input.flag()?);
        for _ in 0..FAILURE_TEXTS {
            input.text()?;
        }
        if failure != (text.attempt, text.late) {
            others.push(&from[..from.len() - input.left().len()]);
        }
    }
    if input.is_empty() { Ok(others) } else { Err(RecordError::Malformed) }
}

/// Reads the texts of failures.
///
/// # Errors
/// When they are of a newer format or damaged.
pub fn decode_evidence(bytes: &[u8]) -> Result<Evidence, RecordError> {
    check_format(bytes)?;
    let mut input = Reader::new(&bytes[1..]);
    let mut evidence = Evidence::default();
    for _ in 0..input.count()? {
        let attempt = input.number_u32()?;
        let late = input.flag()?;
        let mut part = || input.text().map(str::to_owned);
        evidence.failures.push_back(FailureText {
            attempt,
            late,
            message: part()?,
            error_type: part()?,
            cause: part()?,
            worker: part()?,
        });
    }
    if input.is_empty() { Ok(evidence) } else { Err(RecordError::Malformed) }
}
