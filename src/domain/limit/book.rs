//! What the targets of a namespace have granted, promised and spent.
//!
//! [`Book::admit`] answers, [`charges`] says what follows from an answer, and
//! [`Book::charge`] writes it: a store logs the charges in between. The same
//! primitive exists as a script; a property holds the two equal.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Admission, Admitted, Asks, Bound, Comes, Finding, Limit, Rate, Want, WhenSpent,
    ask::{TURNS_MAX, patience},
    calendar::{Calendar, Room},
    window::Window,
};
use crate::domain::{plan::Now, time::Timestamp};

/// Rounds in which rates agree on an instant, at most.
const ROUNDS: usize = 64;
/// How long a step waits before it asks again, when no instant within the
/// horizon of a rate is free.
const REVISIT: Duration = Duration::from_secs(60);

/// The states of targets, by the names of [`Bound::state`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    states: BTreeMap<Box<str>, TargetState>,
}

/// What one target has granted, promised and spent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetState {
    /// Starts that are promised.
    pub calendar: Calendar,
    /// Who runs, and until when.
    pub permits: BTreeMap<Box<str>, Timestamp>,
    /// Who stands in line, by how long.
    pub line: BTreeSet<(Timestamp, Box<str>)>,
    /// Since when they have been waiting.
    pub places: BTreeMap<Box<str>, Timestamp>,
    /// What its retry budget has seen.
    pub window: Window,
    /// Nothing starts before this instant.
    pub cooldown: Timestamp,
}

/// One thing that is written to a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The state.
    pub state: Box<str>,
    /// What.
    pub effect: Effect,
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A start is promised, or made.
    Take {
        /// Under this rate.
        rate: Rate,
        /// At this instant.
        at: Timestamp,
    },
    /// A promise is given back.
    GiveBack {
        /// Of this rate.
        rate: Rate,
        /// For this instant.
        at: Timestamp,
    },
    /// The step has a permit until this instant, and stands in line no more.
    Permit {
        /// The instant.
        until: Timestamp,
    },
    /// The step has neither permit nor place.
    Release,
    /// The step stands in line, waiting since this instant.
    Queue {
        /// The instant.
        since: Timestamp,
    },
    /// A start is counted: None is a first attempt, else what the retry cost.
    Count {
        /// Width of a stretch of the window, µs.
        width: u64,
        /// What it cost.
        cost: Option<u32>,
    },
    /// Nothing starts before this instant.
    Cool {
        /// The instant.
        until: Timestamp,
    },
}

impl Book {
    /// The states, for a snapshot.
    pub fn states(&self) -> impl Iterator<Item = (&str, &TargetState)> {
        self.states.iter().map(|(name, state)| (&**name, state))
    }

    /// Forgets states of which nothing has been of use for a while: names of
    /// runs, and of targets that nobody wrote, come and go.
    pub fn forget_idle(&mut self, now: Timestamp) {
        self.states.retain(|_, state| !state.is_idle(now));
    }

    /// How many states there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// One state.
    #[must_use]
    pub fn state(&self, name: &str) -> Option<&TargetState> {
        self.states.get(name)
    }

    /// Puts a state in, as a snapshot has it.
    pub fn put(&mut self, name: Box<str>, state: TargetState) {
        self.states.insert(name, state);
    }

    /// Whose turn it is at a state with so many permits: as many as are free, the
    /// longest waiting first, at most `limit`.
    #[must_use]
    pub fn heads(&self, state: &str, permits: u32, now: Now, limit: usize) -> Vec<Box<str>> {
        let Some(state) = self.state(state) else { return Vec::new() };
        let free = u64::from(permits).saturating_sub(state.live("", now.leases));
        let free = usize::try_from(free).unwrap_or(usize::MAX).min(limit);
        state.line.iter().take(free).map(|(_, member)| member.clone()).collect()
    }

    /// What the targets answer. Nothing is promised by it yet.
    pub fn admit(&mut self, asks: &Asks, now: Now) -> Admitted {
        for bound in &asks.bounds {
            if let Some(rate) = &bound.target.rate {
                let state = self.states.entry(bound.state.clone()).or_default();
                state.calendar.open(rate.grid(), oldest(now.at));
            }
        }
        let mut looking = Looking { book: self, asks, now, findings: Vec::new() };
        let admission = looking.admission();
        Admitted { admission, findings: looking.findings }
    }

    /// Writes what follows from an answer, for the step `member`.
    pub fn charge(&mut self, member: &str, charge: &Charge, now: Timestamp) {
        let state = self.states.entry(charge.state.clone()).or_default();
        match charge.effect {
            Effect::Take { rate, at } => {
                state.calendar.open(rate.grid(), oldest(now));
                state.calendar.take(at);
            }
            Effect::GiveBack { rate, at } => {
                state.calendar.open(rate.grid(), oldest(now));
                state.calendar.give_back(rate.grid(), at);
            }
            Effect::Permit { until } => {
                state.leave_line(member);
                state.permits.insert(member.into(), until);
            }
            Effect::Release => {
                state.leave_line(member);
                state.permits.remove(member);
            }
            Effect::Queue { since } => {
                state.leave_line(member);
                state.permits.remove(member);
                state.places.insert(member.into(), since);
                state.line.insert((since, member.into()));
            }
            Effect::Count { width, cost } => state.window.count(width, cost, now),
            Effect::Cool { until } => state.cooldown = state.cooldown.max(until),
        }
    }
}

/// How long a state is kept that is of no use; longer than any retry budget's
/// window and its own look back.
const KEPT_IDLE: u64 = 2 * 3600 * 1_000_000;

impl TargetState {
    fn is_idle(&self, now: Timestamp) -> bool {
        let past = Timestamp::from_micros(now.as_micros().saturating_sub(KEPT_IDLE));
        let latest = self.window.stretches.last_key_value().map(|(number, _)| *number);
        self.permits.is_empty()
            && self.line.is_empty()
            && self.cooldown <= past
            && latest.is_none_or(|number| (number + 1) * self.window.width <= past.as_micros())
            && self.calendar.is_idle(past)
    }

    fn leave_line(&mut self, member: &str) {
        if let Some((name, since)) = self.places.remove_entry(member) {
            self.line.remove(&(since, name));
        }
    }

    /// Permits in force, but for that of `member`. One is until no plan can be
    /// carried out any more that was made before its lease ended, and keeps it.
    fn live(&self, member: &str, leases: Timestamp) -> u64 {
        let leases = oldest(leases);
        let has_ended = |until: Timestamp| until <= leases && !planted!("permit-beyond-lease");
        let others = self.permits.iter().filter(|(known, _)| ***known != *member);
        others.filter(|(_, until)| !has_ended(**until)).count() as u64
    }

    /// How many stand in line before one who has been waiting since `since`, as
    /// far as it matters.
    fn before(&self, member: &str, since: Timestamp, matters: u64) -> u64 {
        if planted!("line-without-seniority") {
            return 0;
        }
        let end = (since, Box::from(member));
        let others = self.line.range(..end).filter(|(_, known)| **known != *member);
        others.take(usize::try_from(matters).unwrap_or(usize::MAX)).count() as u64
    }
}

/// What calendars are to know of: a start counts from when it was planned, which
/// may be a while ago when it is granted.
fn oldest(now: Timestamp) -> Timestamp {
    const PLAN_KEPT: u64 = 250_000;
    Timestamp::from_micros(now.as_micros().saturating_sub(PLAN_KEPT))
}

/// One look at the states, for one decision.
struct Looking<'a> {
    book: &'a Book,
    asks: &'a Asks,
    now: Now,
    findings: Vec<Finding>,
}

impl Looking<'_> {
    fn admission(&mut self) -> Admission {
        match self.asks.want {
            Want::Nothing | Want::Keep { .. } => Admission::Now,
            Want::Reserve { from } => {
                let from = from.max(self.cooled());
                self.reserved(from)
            }
            Want::Start { cost, since, comes, .. } => {
                let cooled = self.cooled();
                if let Some(until) = self.in_line(since, comes) {
                    return Admission::InLine(until);
                }
                if let Some((until, when_spent)) = cost.and_then(|cost| self.spent(cost)) {
                    return match when_spent {
                        WhenSpent::Wait => self.in_time(until, Admission::Later(until)),
                        WhenSpent::Stop => Admission::Spent,
                    };
                }
                self.started(cooled)
            }
        }
    }

    /// Until when the targets' own word has everybody wait.
    fn cooled(&mut self) -> Timestamp {
        let mut until = Timestamp::EPOCH;
        for bound in &self.asks.bounds {
            let state = self.book.state(&bound.state);
            let mut cooldown = state.map_or(Timestamp::EPOCH, |state| state.cooldown);
            if let Some((cooled, instant)) = &self.asks.cool
                && *cooled == bound.state
            {
                cooldown = cooldown.max(*instant);
            }
            if cooldown > self.now.at && !planted!("cooldown-not-compared") {
                self.find(Limit::Cooldown, bound, cooldown, (0, 0));
                until = until.max(cooldown);
            }
        }
        until
    }

    /// When to come again, where permits are short or others come first.
    fn in_line(&mut self, since: Timestamp, comes: Comes) -> Option<Timestamp> {
        let asks = self.asks;
        let mut until = None;
        for bound in asks.pools() {
            let most = bound.target.concurrency.map_or(0, |most| u64::from(most.get()));
            let (live, before) = self.book.state(&bound.state).map_or((0, 0), |state| {
                (
                    state.live(&asks.member, self.now.leases),
                    state.before(&asks.member, since, TURNS_MAX * most),
                )
            });
            let is_short = live + before >= most;
            let ahead = (live + before).saturating_sub(most);
            let come = self.now.at.plus(patience(comes, ahead, most));
            let earliest = if is_short { come } else { self.now.at };
            self.find(Limit::Concurrency, bound, earliest, (live, most));
            if is_short {
                until = until.max(Some(come));
            }
        }
        until
    }

    /// When to come again where a budget is spent, and what it then says.
    fn spent(&mut self, cost: u32) -> Option<(Timestamp, WhenSpent)> {
        let mut answer: Option<(Timestamp, WhenSpent)> = None;
        for bound in &self.asks.bounds {
            let Some(budget) = &bound.target.budget else { continue };
            let (spent, most) = self
                .book
                .state(&bound.state)
                .map_or((0, u64::from(budget.floor) * 1000), |state| {
                    state.window.balance(budget, self.now.at)
                });
            let is_spent = spent + u64::from(cost) > most;
            let come = self.now.at.plus(Duration::from_micros(Window::width_of(budget)));
            let earliest = if is_spent { come } else { self.now.at };
            self.find(Limit::Budget, bound, earliest, (spent, most));
            if is_spent {
                let says_stop = budget.when_spent == WhenSpent::Stop
                    || answer.is_some_and(|(_, says)| says == WhenSpent::Stop);
                let until = answer.map_or(come, |(until, _)| until.max(come));
                answer = Some((until, if says_stop { WhenSpent::Stop } else { WhenSpent::Wait }));
            }
        }
        answer
    }

    /// A start now, if the rates allow it; else the promise of one.
    fn started(&mut self, cooled: Timestamp) -> Admission {
        let now = self.now.at;
        let asks = self.asks;
        // What was promised holds, as long as the step is not too late for it.
        let is_kept = |bound: &&Bound| cooled <= now && is_promised(asks, bound, now);
        let (kept, wanted): (Vec<&Bound>, Vec<&Bound>) =
            asks.rates(asks.is_retry()).partition(is_kept);
        let room = self.common(&wanted, now.max(cooled));
        match room {
            None => self.later(),
            Some(room) if room.from <= now => {
                self.rates_found(&wanted, now);
                self.rates_found(&kept, now);
                Admission::Now
            }
            // Where one rate has to be asked anew, all are: the step starts once.
            Some(_) => self.reserved(now.max(cooled)),
        }
    }

    /// The promise of a start from `from` on.
    fn reserved(&mut self, from: Timestamp) -> Admission {
        let asks = self.asks;
        let wanted: Vec<&Bound> = asks.rates(asks.is_retry()).collect();
        let Some(room) = self.common(&wanted, from) else { return self.later() };
        let width = room.until - room.from;
        let into = (width.as_micros() * u128::from(asks.draw)) >> 16;
        let drawn = room.from.plus(Duration::from_micros(u64::try_from(into).unwrap_or_default()));
        // An instant that nothing bounds is kept as it is.
        let at = if room.from == from { from } else { drawn };
        self.rates_found(&wanted, at);
        self.in_time(room.from, Admission::At(at.min(asks.latest.unwrap_or(at)).max(room.from)))
    }

    fn later(&self) -> Admission {
        let until = self.now.at.plus(REVISIT);
        self.in_time(until, Admission::Later(until))
    }

    fn in_time(&self, earliest: Timestamp, answer: Admission) -> Admission {
        match self.asks.latest {
            Some(latest) if earliest > latest => Admission::TooLate,
            _ => answer,
        }
    }

    /// The first stretch of time from `from` on that all rates admit. Each moves
    /// the instant only as far as it must, so the instant stops at the least one
    /// that all of them admit.
    fn common(&self, wanted: &[&Bound], from: Timestamp) -> Option<Room> {
        let mut room = Room { from, until: Timestamp::NEVER };
        for _ in 0..ROUNDS {
            let before = room.from;
            room.until = Timestamp::NEVER;
            for bound in wanted {
                let state = self.book.state(&bound.state)?;
                let own = state.calendar.room(room.from)?;
                room.from = room.from.max(own.from);
                room.until = room.until.min(own.until);
            }
            if room.from == before {
                return Some(room);
            }
        }
        None
    }

    fn rates_found(&mut self, bounds: &[&Bound], at: Timestamp) {
        for bound in bounds {
            let load = self.book.state(&bound.state).map(|state| state.calendar.load(at));
            let (used, most) = load.unwrap_or_default();
            self.find(Limit::Rate, bound, at, (u64::from(used), u64::from(most)));
        }
    }

    fn find(&mut self, limit: Limit, bound: &Bound, earliest: Timestamp, (used, most): (u64, u64)) {
        let (state, revision) = (bound.state.clone(), bound.revision);
        self.findings.push(Finding { limit, state, revision, earliest, used, most });
    }
}

/// Whether a start now is one that was promised, and not too late for it.
fn is_promised(asks: &Asks, bound: &Bound, now: Timestamp) -> bool {
    bound.target.rate.is_some()
        && asks.promise(&bound.state).is_some_and(|promise| {
            now <= asks.promised.plus(promise.grace) || planted!("ticket-without-end")
        })
}

/// States whose permits a running attempt has from now on: those that it had, and
/// those of targets that have permits by now.
#[must_use]
pub fn kept(asks: &Asks) -> Vec<Box<str>> {
    let mut kept = asks.held.clone();
    for bound in asks.pools() {
        if !kept.contains(&bound.state) {
            kept.push(bound.state.clone());
        }
    }
    kept
}

/// What follows from an answer.
#[must_use]
pub fn charges(asks: &Asks, admission: Admission, now: Timestamp) -> Vec<Charge> {
    let mut charges = Vec::new();
    let mut add = |state: &str, effect| charges.push(Charge { state: state.into(), effect });
    if let Some((state, until)) = &asks.cool {
        add(state, Effect::Cool { until: *until });
    }
    let (starts, reserves) =
        (matches!(asks.want, Want::Start { .. }), matches!(asks.want, Want::Reserve { .. }));
    let is_retry = asks.is_retry();
    // A step that starts within the grace of its promise has used it; in every
    // other case it is given back.
    let is_used =
        |bound: &Bound| admission == Admission::Now && starts && is_promised(asks, bound, now);
    for bound in &asks.bounds {
        let Some(rate) = bound.target.rate else { continue };
        let has_ticket = asks.promise(&bound.state).is_some_and(|promise| promise.is_current);
        if has_ticket && !is_used(bound) {
            add(&bound.state, Effect::GiveBack { rate, at: asks.promised });
        }
        match admission {
            _ if !rate.counts(is_retry) => {}
            Admission::Now if starts && planted!("charge-forgotten") => {}
            Admission::Now if starts && !is_used(bound) => {
                add(&bound.state, Effect::Take { rate, at: now })
            }
            Admission::At(at) if starts || reserves => add(&bound.state, Effect::Take { rate, at }),
            _ => {}
        }
    }
    let pools: Vec<&Bound> = asks.pools().collect();
    let keeps = |state: &str| {
        let is_pool = pools.iter().any(|bound| *bound.state == *state);
        match (asks.want, admission) {
            (Want::Keep { .. }, _) => true,
            (Want::Start { .. }, Admission::Now | Admission::InLine(_)) => is_pool,
            _ => false,
        }
    };
    let is_released = |state: &str| !keeps(state) && !planted!("permit-not-released");
    for state in asks.held.iter().filter(|state| is_released(state)) {
        add(state, Effect::Release);
    }
    match (asks.want, admission) {
        // An attempt that ran before its target had permits takes one as well.
        (Want::Keep { lease_until }, _) if !planted!("permit-not-kept") => {
            for state in kept(asks) {
                add(&state, Effect::Permit { until: lease_until });
            }
        }
        (Want::Start { lease_until, .. }, Admission::Now) => {
            for bound in &pools {
                add(&bound.state, Effect::Permit { until: lease_until });
            }
        }
        (Want::Start { since, .. }, Admission::InLine(_)) => {
            for bound in &pools {
                add(&bound.state, Effect::Queue { since });
            }
        }
        _ => {}
    }
    let counted = match (asks.want, admission) {
        (Want::Start { cost, .. }, Admission::Now) => Some(cost),
        _ => asks.counted,
    };
    if let Some(cost) = counted {
        for bound in &asks.bounds {
            if let Some(budget) = &bound.target.budget {
                add(&bound.state, Effect::Count { width: Window::width_of(budget), cost });
            }
        }
    }
    charges
}
