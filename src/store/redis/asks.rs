//! What goes to the scripts about the targets that bound a step, and what comes
//! back.

use redis::Value;

use super::wire::{self, double};
use crate::domain::{
    limit::{
        Admission, Admitted, Asks, Bound, Comes, Episodes, Finding, ForcedState, Limit, Rate, Want,
        WhenSpent,
        ask::WOKEN_WITHIN,
        breaker::{Breaker, Episode, TargetOutcome},
        usage::Known,
        window::Window,
    },
    time::{Timestamp, micros},
};

/// Latest instant that a script is told: what a double holds exactly.
const LATEST: u64 = 1 << 53;

/// What may follow from the answer of targets.
#[derive(Debug)]
pub struct Follows {
    /// The answer.
    pub answer: Answer,
    /// The step's next event: its instant, or how long after the instant of the
    /// answer it comes.
    pub event: u64,
    /// The stored record; the instant of the answer is not in it yet.
    pub record: Vec<u8>,
}

/// Answers of targets without their instants, by the numbers that scripts have
/// for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// [`Admission::Now`]
    Now = 0,
    /// [`Admission::At`]
    At = 1,
    /// [`Admission::TooLate`]
    TooLate = 2,
    /// [`Admission::InLine`]
    InLine = 3,
    /// [`Admission::Later`]
    Later = 4,
    /// [`Admission::Spent`]
    Spent = 5,
    /// [`Admission::Parked`]
    Parked = 6,
    /// [`Admission::OtherHost`]
    OtherHost = 7,
}

impl Answer {
    const ALL: [Self; 8] = [
        Self::Now,
        Self::At,
        Self::TooLate,
        Self::InLine,
        Self::Later,
        Self::Spent,
        Self::Parked,
        Self::OtherHost,
    ];

    /// The answers that there may be to what is asked.
    pub fn to(asks: &Asks) -> impl Iterator<Item = Self> {
        let (starts, reserves) =
            (matches!(asks.want, Want::Start { .. }), matches!(asks.want, Want::Reserve { .. }));
        let has_breaker = asks.breakers().next().is_some();
        Self::ALL.into_iter().filter(move |answer| match answer {
            Self::Now => !reserves,
            Self::At | Self::TooLate | Self::Later => starts || reserves,
            Self::InLine | Self::Spent => starts,
            Self::Parked => has_breaker && (starts || reserves),
            Self::OtherHost => has_breaker && starts,
        })
    }

    /// The answer with its instant.
    #[must_use]
    pub const fn at(self, at: Timestamp) -> Admission {
        match self {
            Self::Now => Admission::Now,
            Self::At => Admission::At(at),
            Self::TooLate => Admission::TooLate,
            Self::InLine => Admission::InLine(at),
            Self::Later => Admission::Later(at),
            Self::Spent => Admission::Spent,
            Self::Parked => Admission::Parked(at),
            Self::OtherHost => Admission::OtherHost,
        }
    }

    /// Whether it has an instant.
    #[must_use]
    pub const fn has_instant(self) -> bool {
        matches!(self, Self::At | Self::InLine | Self::Later | Self::Parked)
    }
}

/// Whether a state is asked, or only given back to: a target may be gone.
fn states(asks: &Asks) -> impl Iterator<Item = (&str, Option<&Bound>)> {
    let bounds = asks.bounds.iter().map(|bound| (&*bound.state, Some(bound)));
    let is_bound = |state: &str| asks.bounds.iter().any(|bound| *bound.state == *state);
    bounds.chain(
        asks.held
            .iter()
            .map(|state| &**state)
            .filter(move |state| !is_bound(state))
            .map(|state| (state, None)),
    )
}

/// Writes what is asked, as `limits.lua` unpacks it; `index` places states.
pub fn pack(asks: &Asks, mut index: impl FnMut(&str) -> u16, out: &mut Vec<u8>) {
    let (want, cost, lease_until, since) = match asks.want {
        Want::Nothing => (0, None, 0, 0),
        Want::Start { cost, lease_until, since, .. } => {
            (1, cost, lease_until.as_micros(), since.as_micros())
        }
        Want::Reserve { since, .. } => (2, None, 0, since.as_micros()),
        Want::Keep { lease_until } => (3, None, lease_until.as_micros(), 0),
    };
    let (from, other) = match asks.want {
        Want::Reserve { from, other, .. } => (from, other.unwrap_or(from)),
        _ => (Timestamp::EPOCH, Timestamp::EPOCH),
    };
    let counted = match asks.counted {
        None => -2.0,
        Some(cost) => spent(cost),
    };
    let woken_within = match asks.want {
        Want::Start { comes: Comes::WhenWoken | Comes::Claiming, .. } => micros(WOKEN_WITHIN),
        _ => 0,
    };
    let cool = asks.cool.as_ref().map_or(0, |(_, until)| until.as_micros());
    let latest = asks.latest.map_or(LATEST, |latest| latest.as_micros().min(LATEST));
    let listed: Vec<(&str, Option<&Bound>)> = states(asks).collect();
    out.push(want);
    for word in [
        spent(cost),
        double(lease_until),
        double(since),
        double(from.as_micros()),
        double(other.as_micros()),
        double(asks.promised.as_micros()),
        double(latest),
        f64::from(asks.draw),
        counted,
        double(cool),
        double(woken_within),
        f64::from(asks.step),
        f64::from(asks.host),
    ] {
        out.extend(word.to_le_bytes());
    }
    out.push(u8::try_from(listed.len()).unwrap_or(u8::MAX));
    for (state, bound) in listed {
        pack_bound(asks, state, bound, index(state), out);
    }
}

fn pack_bound(asks: &Asks, state: &str, bound: Option<&Bound>, index: u16, out: &mut Vec<u8>) {
    let target = bound.map(|bound| &*bound.target);
    let rate = target.and_then(|target| target.rate.as_ref());
    let pool = target.and_then(|target| target.concurrency);
    let budget = target.and_then(|target| target.budget.as_ref());
    let promise = asks.promise(state);
    let flags = [
        rate.is_some(),
        rate.is_some_and(|rate| rate.counts(asks.is_retry())),
        pool.is_some(),
        budget.is_some(),
        promise.is_some(),
        asks.held.iter().any(|held| **held == *state),
        asks.cool.as_ref().is_some_and(|(cooled, _)| **cooled == *state),
        bound.is_some_and(|bound| bound.is_passing),
    ];
    out.push(flags.iter().rev().fold(0, |bits, flag| bits << 1 | u8::from(*flag)));
    out.extend(index.to_le_bytes());
    out.extend(grid(rate));
    for word in [
        promise.map_or(0, |promise| micros(promise.grace)),
        pool.map_or(0, |most| u64::from(most.get())),
        budget.map_or(0, |budget| u64::from(budget.per_mille)),
        budget.map_or(0, |budget| u64::from(budget.floor) * 1000),
        budget.map_or(0, Window::width_of),
    ] {
        out.extend(double(word).to_le_bytes());
    }
    let stops = budget.is_some_and(|budget| budget.when_spent == WhenSpent::Stop);
    let is_flat = budget.is_some_and(|budget| budget.is_flat);
    out.push(u8::from(stops) | u8::from(is_flat) << 1);
    let is_current = promise.is_some_and(|promise| promise.is_current);
    let bits = [
        bound.is_some(),
        is_current,
        promise.is_some_and(|promise| promise.is_paced),
        target.is_some_and(|target| target.breaker.is_some()),
        bound.is_some_and(Bound::has_breaker),
        bound.is_some_and(Bound::is_paced),
    ];
    out.push(bits.iter().rev().fold(0, |bits, bit| bits << 1 | u8::from(*bit)));
    let ended = bound.and_then(|bound| asks.ended_at(bound));
    let mark = bound.map_or(0, |bound| bound.episodes.mark);
    out.extend(f64::from(mark).to_le_bytes());
    out.extend(double(bound.map_or(0, Bound::full)).to_le_bytes());
    out.push(match ended.map(|ended| ended.outcome) {
        None => 0,
        Some(TargetOutcome::Served) => 1,
        Some(TargetOutcome::Failed) => 2,
        Some(TargetOutcome::Nothing) => 3,
    });
    out.extend(ended.map_or(0, |ended| ended.host).to_le_bytes());
    let forced_open = bound.and_then(Bound::forced_open).map_or(0, Timestamp::as_micros);
    let freed = bound.and_then(|bound| bound.freed);
    let (freed_at, ramp) = freed.map_or((0, 0), |freed| (freed.at.as_micros(), micros(freed.ramp)));
    for word in [forced_open, freed_at, ramp] {
        out.extend(double(word).to_le_bytes());
    }
}

/// The grid of a target's rate, as `called.lua` unpacks it.
#[must_use]
pub fn grid(rate: Option<&Rate>) -> Vec<u8> {
    let grid = rate.map(Rate::grid);
    let (width, capacity, gap) =
        grid.map_or((0, 0, false), |grid| (grid.width(), grid.capacity(), grid.has_gap()));
    let mut out = Vec::with_capacity(17);
    out.extend(double(width).to_le_bytes());
    out.extend(f64::from(capacity).to_le_bytes());
    out.push(u8::from(gap));
    out
}

/// What `called.lua` has to know of a target where steps are parked: the grid of its
/// rate, and whether its breaker is forced closed.
#[must_use]
pub fn lot(rate: Option<&Rate>, forced: Option<ForcedState>) -> Vec<u8> {
    let mut out = grid(rate);
    out.push(u8::from(forced == Some(ForcedState::Closed)));
    out
}

fn spent(cost: Option<u32>) -> f64 {
    cost.map_or(-1.0, f64::from)
}

/// Names of the states that are asked or given back to.
pub fn names(asks: &Asks) -> impl Iterator<Item = &str> {
    states(asks).map(|(state, _)| state)
}

/// Reads the answer; None when it is not in the form of this version.
#[must_use]
pub fn read(asks: &Asks, bytes: &[u8]) -> Option<Admitted> {
    let (answer, mut rest) = bytes.split_at_checked(9)?;
    let at = Timestamp::from_micros(number(&answer[1..])?);
    let admission = Answer::ALL.get(usize::from(answer[0]))?.at(at);
    let mut findings = Vec::new();
    while let Some((finding, others)) = rest.split_at_checked(2 + 3 * 8) {
        let bound = asks.bounds.get(usize::from(finding[1]))?;
        findings.push(Finding {
            limit: match finding[0] {
                0 => Limit::Rate,
                1 => Limit::Concurrency,
                2 => Limit::Budget,
                3 => Limit::Cooldown,
                4 => Limit::Breaker,
                5 => Limit::Ramp,
                6 => Limit::Host,
                7 => Limit::Forced,
                8 => Limit::Observed,
                _ => return None,
            },
            state: bound.state.clone(),
            revision: bound.revision,
            earliest: Timestamp::from_micros(number(&finding[2..10])?),
            used: number(&finding[10..18])?,
            most: number(&finding[18..26])?,
        });
        rest = others;
    }
    rest.is_empty().then_some(Admitted { admission, findings })
}

/// Reads what `usage.lua` says of a target's state; None when it is not in the form
/// of this version.
#[must_use]
pub fn known(told: Vec<Value>) -> Option<Known> {
    let [starts, permits, in_line, parked, cooldown, window, breaker, room, in_line_at, parked_at] =
        <[Value; 10]>::try_from(told).ok()?;
    Some(Known {
        starts: wire::number(starts)?,
        room: number_or_none(room)?.map(Timestamp::from_micros),
        permits: wire::number(permits)?,
        in_line: wire::number(in_line)?,
        before_in_line: number_or_none(in_line_at)?,
        parked: wire::number(parked)?,
        before_parked: number_or_none(parked_at)?,
        cooldown: Timestamp::from_micros(wire::number(cooldown)?),
        window: Window::unpack(&wire::bytes(window)?)?,
        breaker: Breaker::unpack(&wire::bytes(breaker)?)?,
    })
}

/// A number that may be absent; None when it is not in the form of this version.
fn number_or_none(told: Value) -> Option<Option<u64>> {
    let text = wire::bytes(told)?;
    if text.is_empty() {
        return Some(None);
    }
    std::str::from_utf8(&text).ok()?.parse().ok().map(Some)
}

/// Reads the episodes of the targets that are asked; None when they are not in the
/// form of this version.
#[must_use]
pub fn read_episodes(asks: &Asks, mut bytes: &[u8]) -> Option<Vec<(Box<str>, Episodes)>> {
    let mut seen = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(1 + 8 + 1) {
        let bound = asks.bounds.get(usize::from(head[0]))?;
        let mark = u32::try_from(number(&head[1..9])?).ok()?;
        let (list, rest) = rest.split_at_checked(16 * usize::from(head[9]))?;
        let episode = |words: &[u8]| {
            let (from, until) = (number(&words[..8])?, number(&words[8..])?);
            let until = (until != 0).then(|| Timestamp::from_micros(until));
            Some(Episode { from: Timestamp::from_micros(from), until })
        };
        let list = list.chunks_exact(16).map(episode).collect::<Option<Vec<_>>>()?;
        seen.push((bound.state.clone(), Episodes { mark, list }));
        bytes = rest;
    }
    bytes.is_empty().then_some(seen)
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(wire::whole(bytes.try_into().ok()?))
}
