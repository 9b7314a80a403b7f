//! What the targets of a namespace have granted, promised and spent.
//!
//! [`Book::admit`] answers, [`charges`] says what follows from an answer, and
//! [`Book::charge`] writes it: a store logs the charges in between. The same
//! primitive exists as a script; a property holds the two equal.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Admission, Admitted, Asks, Bound, Comes, Finding, ForcedState, Limit, Rate, Want, WhenSpent,
    ask::{PROBERS, TURNS_MAX, parked_until, patience},
    breaker::{Admits, Breaker, Ended, Freed},
    calendar::{Calendar, Room},
    line::Line,
    window::Window,
};
use crate::domain::{
    plan::Now,
    time::{Timestamp, micros},
};

/// Time over which a cooldown spreads those who waited for its end, at most, µs.
const SPREAD: u64 = 10_000_000;
/// Rounds in which rates agree on an instant, at most.
const ROUNDS: usize = 64;
/// How long a step waits before it asks again, when no instant within the
/// horizon of a rate is free.
const REVISIT: Duration = Duration::from_secs(60);

/// The states of targets, by the names of [`Bound::state`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    states: BTreeMap<Box<str>, TargetState>,
    /// Those at which steps are parked.
    parked: BTreeSet<Box<str>>,
}

/// What one target has granted, promised and spent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetState {
    /// Starts that are promised.
    pub calendar: Calendar,
    /// Who runs, and until when.
    pub permits: BTreeMap<Box<str>, Timestamp>,
    /// Who waits for a permit.
    pub line: Line,
    /// Who waits for the target to be back.
    pub parked: Line,
    /// What is known of its health.
    pub breaker: Breaker,
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
    /// The step is parked, waiting since this instant.
    Park {
        /// The instant.
        since: Timestamp,
    },
    /// An attempt has ended.
    Ended(Ended),
    /// A probe starts.
    Probe {
        /// The step: see [`super::breaker::mark_of`].
        step: u32,
        /// The end of its lease.
        until: Timestamp,
        /// Where in its span the wait for the next one falls, of 2¹⁶.
        draw: u16,
    },
    /// A start is granted or promised while the target is coming back.
    Pace,
    /// An order that held a breaker open has ended.
    Free {
        /// When, and what follows.
        freed: Freed,
        /// Starts a second that the target's rate allows, in thousandths; 0 without
        /// a rate.
        full: u64,
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
        /// For a breaker that has a say: starts a second that the target's rate
        /// allows, in thousandths; 0 without a rate.
        full: Option<u64>,
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

    /// Puts in what is known of a target's health, as a snapshot has it.
    pub fn put_health(&mut self, name: &str, parked: Line, breaker: Breaker) {
        if !parked.is_empty() {
            self.parked.insert(name.into());
        }
        let state = self.states.entry(name.into()).or_default();
        (state.parked, state.breaker) = (parked, breaker);
    }

    /// Tells what a decision has to know of the targets' episodes.
    pub fn tell_episodes(&self, bounds: &mut [Bound]) {
        for bound in bounds.iter_mut().filter(|bound| bound.is_paced()) {
            bound.episodes = self.breaker(bound).episodes();
        }
    }

    /// Whether a decision was made on the episodes that there are.
    #[must_use]
    pub fn knows_episodes(&self, asks: &Asks) -> bool {
        asks.breakers().all(|bound| bound.episodes.mark == self.breaker(bound).mark())
    }

    /// The breaker of a target, as a decision sees it.
    fn breaker(&self, bound: &Bound) -> Cow<'_, Breaker> {
        let known = self.state(&bound.state).map(|state| Cow::Borrowed(&state.breaker));
        bound.as_freed(known.unwrap_or_default())
    }

    /// Whether any step is parked.
    #[must_use]
    pub fn has_parked(&self) -> bool {
        !self.parked.is_empty()
    }

    /// Steps that are parked and may go on, at most `limit` of each target: those
    /// that have waited longest where it is back, one at random where it may be
    /// tried. `forced` knows what operators say of breakers, by state.
    #[must_use]
    pub fn called(
        &self,
        now: Timestamp,
        limit: usize,
        forced: impl Fn(&str) -> Option<ForcedState>,
    ) -> Vec<Box<str>> {
        let parked = self.parked.iter().filter(|_| !planted!("parked-not-called"));
        let states = parked.filter_map(|name| Some((name, self.state(name)?)));
        states.flat_map(|(name, state)| state.called(now, limit, forced(name))).collect()
    }

    /// Ends the cooldown of a target, by an operator's order: what grows after it
    /// grows from now on.
    pub fn lift(&mut self, state: &str, now: Timestamp) {
        if let Some(state) = self.states.get_mut(state) {
            state.cooldown = state.cooldown.min(now);
            if !planted!("lift-begins-no-ramp") {
                state.breaker.lift(now);
            }
        }
    }

    /// Whose turn it is at a state with so many permits: as many as are free, the
    /// longest waiting first, at most `limit`.
    #[must_use]
    pub fn heads(&self, state: &str, permits: u32, now: Now, limit: usize) -> Vec<Box<str>> {
        let Some(state) = self.state(state) else { return Vec::new() };
        let free = u64::from(permits).saturating_sub(state.live("", now.leases));
        let free = usize::try_from(free).unwrap_or(usize::MAX).min(limit);
        state.line.iter().take(free).map(Box::from).collect()
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
                if !planted!("promise-not-given-back") {
                    state.calendar.give_back(rate.grid(), at);
                }
            }
            Effect::Permit { until } => {
                state.leave(member);
                state.permits.insert(member.into(), until);
            }
            Effect::Release => {
                state.leave(member);
                state.permits.remove(member);
            }
            Effect::Queue { since } => {
                state.leave(member);
                state.permits.remove(member);
                state.line.join(member, since);
            }
            Effect::Park { since } => {
                state.leave(member);
                state.permits.remove(member);
                state.parked.join(member, since);
                self.parked.insert(charge.state.clone());
                return;
            }
            Effect::Ended(ended) => state.breaker.ended(&ended, now),
            Effect::Probe { step, until, draw } => state.breaker.probe(step, until, draw, now),
            Effect::Pace => state.breaker.pace(),
            Effect::Free { freed, full } => state.breaker.free(freed, full),
            Effect::Count { width, cost } => state.window.count(width, cost, now),
            Effect::Cool { until, full } => {
                state.cooldown = state.cooldown.max(until);
                if let Some(full) = full {
                    state.breaker.cool(until, full, now);
                }
            }
        }
        if state.parked.is_empty() {
            self.parked.remove(&charge.state);
        }
    }
}

/// How far ahead of their starts those who were parked are called, so that who
/// comes fresh finds room.
const AHEAD: Duration = Duration::from_secs(1);
/// Who came so recently goes on before those who have waited longest, every other
/// time, µs.
const FRESH: u64 = 30_000_000;
/// Of how many that have waited longest one is chosen to try.
const CHOICE: usize = 1024;

/// How long a state is kept that is of no use; longer than any retry budget's
/// window and its own look back.
const KEPT_IDLE: u64 = 2 * 3600 * 1_000_000;

impl TargetState {
    fn is_idle(&self, now: Timestamp) -> bool {
        let past = Timestamp::from_micros(now.as_micros().saturating_sub(KEPT_IDLE));
        let latest = self.window.stretches.last_key_value().map(|(number, _)| *number);
        self.permits.is_empty()
            && self.line.is_empty()
            && self.parked.is_empty()
            && self.breaker.is_idle(past)
            && self.cooldown <= past
            && latest.is_none_or(|number| self.window.is_past(number, past))
            && self.calendar.is_idle(past)
    }

    fn leave(&mut self, member: &str) {
        self.line.leave(member);
        self.parked.leave(member);
    }

    /// Who is parked and may go on.
    fn called(&self, now: Timestamp, limit: usize, forced: Option<ForcedState>) -> Vec<Box<str>> {
        let admits = match forced {
            Some(ForcedState::Open) => return Vec::new(),
            Some(ForcedState::Closed) => Admits::Any,
            // Nobody in particular asks: 0 is no step that has tried, and no host.
            None => self.breaker.admits(0, 0, false, now),
        };
        let soon = match admits {
            Admits::Parked(_) => return Vec::new(),
            Admits::Probe => {
                let choice = self.parked.len().min(CHOICE);
                let drawn = usize::try_from(now.as_micros() / 1000).unwrap_or_default() % choice;
                return self.parked.iter().skip(drawn).take(1).map(Box::from).collect();
            }
            Admits::Ramp(from) => from <= now.plus(AHEAD),
            Admits::Any | Admits::OtherHost(_) => true,
        };
        let is_soon = |room: Room| room.from <= now.plus(AHEAD);
        let has_room = self.calendar.is_new() || self.calendar.room(now).is_some_and(is_soon);
        if !(soon && has_room) {
            return Vec::new();
        }
        // In turns, one who came just now and one who has waited longest.
        let fresh = Timestamp::from_micros(now.as_micros().saturating_sub(FRESH));
        let mut called: Vec<&str> = Vec::new();
        let longest = self.parked.iter().map(Some);
        let latest = self.parked.since(fresh).map(Some).chain(std::iter::repeat(None));
        for member in latest.zip(longest).flat_map(|(latest, longest)| [latest, longest]).flatten()
        {
            if called.len() == limit {
                break;
            }
            if !called.contains(&member) {
                called.push(member);
            }
        }
        called.into_iter().map(Box::from).collect()
    }

    /// Permits in force, but for that of `member`. One is until no plan can be
    /// carried out any more that was made before its lease ended, and keeps it.
    fn live(&self, member: &str, leases: Timestamp) -> u64 {
        let leases = oldest(leases);
        let has_ended = |until: Timestamp| until <= leases && !planted!("permit-beyond-lease");
        let others = self.permits.iter().filter(|(known, _)| ***known != *member);
        others.filter(|(_, until)| !has_ended(**until)).count() as u64
    }

    /// Permits in force.
    #[must_use]
    pub fn permits_in_force(&self, leases: Timestamp) -> u64 {
        self.live("", leases)
    }

    /// How many stand in line before one who has been waiting since `since`, as
    /// far as it matters.
    fn before(&self, member: &str, since: Timestamp, matters: u64) -> u64 {
        if planted!("line-without-seniority") {
            return 0;
        }
        self.line.before(member, since, matters)
    }
}

/// What calendars are to know of: a start counts from when it was planned, which
/// may be a while ago when it is granted.
pub(super) fn oldest(now: Timestamp) -> Timestamp {
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
            Want::Reserve { from, other, since, .. } => {
                let cooled = self.cooled();
                match self.health(since) {
                    Health::Out(until) => self.parked(until.max(from).max(cooled)),
                    _ => {
                        let other = other.map(|other| other.max(cooled));
                        let from = self.lighter(from.max(cooled), other);
                        self.reserved(from)
                    }
                }
            }
            Want::Start { cost, since, comes, .. } => {
                let cooled = self.cooled();
                let cost = match self.health(since) {
                    Health::Out(until) => return self.parked(until),
                    Health::OtherHost => return Admission::OtherHost,
                    // A probe costs nothing.
                    Health::Probe => None,
                    Health::Well => cost,
                };
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
                let own = self.spread(bound, cooldown);
                self.find(Limit::Cooldown, bound, own, (0, 0));
                until = until.max(own);
            }
        }
        until
    }

    /// Where neither a rate nor a ramp paces those who waited, they come spread over
    /// a sixteenth of the time that they were kept away.
    fn spread(&self, bound: &Bound, cooldown: Timestamp) -> Timestamp {
        if bound.target.rate.is_some() || bound.has_breaker() {
            return cooldown;
        }
        let width = (micros(cooldown - self.now.at) / 16).min(SPREAD);
        cooldown.plus(Duration::from_micros((width * u64::from(self.asks.draw)) >> 16))
    }

    /// What breakers have to say; the worst counts.
    fn health(&mut self, since: Timestamp) -> Health {
        let asks = self.asks;
        let mut health = Health::Well;
        for bound in &asks.bounds {
            if let Some(until) = bound.forced_open() {
                health = health.max(self.parked_at(bound, Limit::Forced, since, until));
            } else if bound.has_breaker() {
                health = health.max(self.said(bound, since));
            } else if bound.is_watched() {
                self.watched(bound);
            }
        }
        health
    }

    /// What the breaker of a target says of the start.
    fn admits(&self, bound: &Bound) -> Admits {
        let is_start = matches!(self.asks.want, Want::Start { .. });
        let breaker = self.book.breaker(bound);
        breaker.admits(self.asks.step, self.asks.host, is_start, self.now.at)
    }

    /// What a breaker that has a say has to say.
    fn said(&mut self, bound: &Bound, since: Timestamp) -> Health {
        let now = self.now.at;
        match self.admits(bound) {
            Admits::Any | Admits::Ramp(_) => Health::Well,
            Admits::OtherHost(until) => {
                self.find(Limit::Host, bound, until, (0, 0));
                Health::OtherHost
            }
            Admits::Probe => {
                self.find(Limit::Breaker, bound, now, (0, 0));
                match self.asks.want {
                    Want::Start { .. } => Health::Probe,
                    _ => Health::Out(now),
                }
            }
            Admits::Parked(next) => self.parked_at(bound, Limit::Breaker, since, next),
        }
    }

    /// What one that only watches would have said.
    fn watched(&mut self, bound: &Bound) {
        match self.admits(bound) {
            Admits::Parked(at) | Admits::OtherHost(at) | Admits::Ramp(at) if self.now.at < at => {
                self.find(Limit::Observed, bound, at, (0, 0));
            }
            _ => {}
        }
    }

    /// The step is parked at a target whose next probe may start at an instant.
    fn parked_at(
        &mut self,
        bound: &Bound,
        limit: Limit,
        since: Timestamp,
        next: Timestamp,
    ) -> Health {
        let asks = self.asks;
        let comes = match asks.want {
            Want::Start { comes, .. } => comes,
            _ => Comes::ByItself,
        };
        let parked = self.book.state(&bound.state).map(|state| &state.parked);
        let before = parked.map_or(0, |parked| parked.before(&asks.member, since, PROBERS));
        let until = parked_until(before, asks.draw, comes, next, self.now.at);
        self.find(limit, bound, until, (before, 0));
        Health::Out(until)
    }

    /// Parked until an instant that is of use.
    fn parked(&self, until: Timestamp) -> Admission {
        match self.asks.latest {
            Some(latest) if latest <= self.now.at => Admission::TooLate,
            latest => Admission::Parked(latest.map_or(until, |latest| until.min(latest))),
        }
    }

    /// The earliest start that targets which are coming back admit.
    fn ramped(&mut self, from: Timestamp) -> Timestamp {
        let (asks, now) = (self.asks, self.now.at);
        let mut earliest = from;
        for bound in asks.breakers() {
            let breaker = self.book.breaker(bound);
            if let Admits::Ramp(admits) = breaker.admits(asks.step, 0, false, now)
                && !is_paced(asks, bound, now)
            {
                self.find(Limit::Ramp, bound, from.max(admits), (0, 0));
                earliest = earliest.max(admits);
            }
        }
        earliest
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
            let is_spent = spent + u64::from(budget.cost(cost)) > most;
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
        let earliest = self.ramped(now.max(cooled));
        let room = self.common(&wanted, earliest);
        match room {
            None => self.later(),
            Some(room) if room.from <= now => {
                self.rates_found(&wanted, now);
                self.rates_found(&kept, now);
                Admission::Now
            }
            // Where one rate has to be asked anew, all are: the step starts once.
            Some(_) => self.promised(earliest),
        }
    }

    /// Of two instants the one at which less is planned, the first where it is as much.
    /// Two choices keep thousands of steps that failed together as good as even
    /// (Azar, Broder, Karlin, Upfal, "Balanced Allocations").
    fn lighter(&self, first: Timestamp, other: Option<Timestamp>) -> Timestamp {
        let is_lighter = |other: &Timestamp| self.planned(*other) < self.planned(first);
        other.filter(is_lighter).filter(|_| !planted!("second-draw-not-taken")).unwrap_or(first)
    }

    /// How much of what rates allow around an instant is taken, in thousandths; the
    /// most of any.
    fn planned(&self, at: Timestamp) -> u32 {
        let states = self.asks.rates(self.asks.is_retry());
        let states = states.filter_map(|bound| self.book.state(&bound.state));
        states.map(|state| state.calendar.share(at)).max().unwrap_or_default()
    }

    /// The promise of a start from `from` on.
    fn reserved(&mut self, from: Timestamp) -> Admission {
        let from = self.ramped(from);
        self.promised(from)
    }

    /// The same from an instant on that breakers admit.
    fn promised(&mut self, from: Timestamp) -> Admission {
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

/// What breakers have to say of a start; the worst counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Health {
    /// Nothing against it.
    Well,
    /// It starts to show whether a target is back.
    Probe,
    /// Not on this host.
    OtherHost,
    /// A target is out of order: it comes again at this instant.
    Out(Timestamp),
}

/// Whether a start now is one that a target which is coming back has promised.
fn is_paced(asks: &Asks, bound: &Bound, now: Timestamp) -> bool {
    asks.promise(&bound.state)
        .is_some_and(|promise| promise.is_paced && now <= asks.promised.plus(promise.grace))
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
pub fn charges(asks: &Asks, admitted: &Admitted, now: Timestamp) -> Vec<Charge> {
    let mut due = Due { asks, admitted, now, charges: Vec::new() };
    due.freed();
    due.ended();
    due.cooled();
    due.rates();
    due.breakers();
    due.permits();
    due.counted();
    due.charges
}

/// What is charged, while it is put together.
struct Due<'a> {
    asks: &'a Asks,
    admitted: &'a Admitted,
    now: Timestamp,
    charges: Vec<Charge>,
}

impl Due<'_> {
    fn add(&mut self, state: &str, effect: Effect) {
        self.charges.push(Charge { state: state.into(), effect });
    }

    const fn is_start(&self) -> bool {
        matches!(self.asks.want, Want::Start { .. })
    }

    /// Whether the attempt starts by this decision.
    fn starts_now(&self) -> bool {
        self.is_start() && self.admitted.admission == Admission::Now
    }

    /// What every decision tells a breaker that was held open until just now.
    fn freed(&mut self) {
        let asks = self.asks;
        for bound in asks.breakers() {
            if let Some(freed) = bound.freed {
                self.add(&bound.state, Effect::Free { freed, full: bound.full() });
            }
        }
    }

    /// What the end of an attempt says of its targets.
    fn ended(&mut self) {
        let asks = self.asks;
        for bound in &asks.bounds {
            if let Some(ended) = asks.ended_at(bound) {
                self.add(&bound.state, Effect::Ended(ended));
            }
        }
    }

    fn cooled(&mut self) {
        let Some((state, until)) = &self.asks.cool else { return };
        let mut breakers = self.asks.breakers().filter(|bound| bound.has_breaker());
        let full = breakers.find(|bound| bound.state == *state).map(Bound::full);
        self.add(state, Effect::Cool { until: *until, full });
    }

    /// A step that starts within the grace of its promise has used it; in every
    /// other case it is given back.
    fn rates(&mut self) {
        let (asks, admission) = (self.asks, self.admitted.admission);
        let is_retry = asks.is_retry();
        let asks_start = matches!(asks.want, Want::Start { .. } | Want::Reserve { .. });
        for bound in &asks.bounds {
            let Some(rate) = bound.target.rate else { continue };
            let is_used = self.starts_now() && is_promised(asks, bound, self.now);
            let has_ticket = asks.promise(&bound.state).is_some_and(|promise| promise.is_current);
            if has_ticket && !is_used {
                self.add(&bound.state, Effect::GiveBack { rate, at: asks.promised });
            }
            match admission {
                _ if !rate.counts(is_retry) || is_used || !asks_start => {}
                Admission::Now if self.is_start() && !planted!("charge-forgotten") => {
                    self.add(&bound.state, Effect::Take { rate, at: self.now });
                }
                Admission::At(at) => self.add(&bound.state, Effect::Take { rate, at }),
                _ => {}
            }
        }
    }

    /// Probes, starts on a ramp, and those that are parked, as was found.
    fn breakers(&mut self) {
        let (asks, admitted) = (self.asks, self.admitted);
        let draw = asks.draw;
        for finding in &admitted.findings {
            match (finding.limit, asks.want, admitted.admission) {
                (Limit::Breaker, Want::Start { lease_until: until, .. }, Admission::Now) => {
                    self.add(&finding.state, Effect::Probe { step: asks.step, until, draw });
                }
                (
                    Limit::Breaker | Limit::Forced,
                    Want::Start { since, .. } | Want::Reserve { since, .. },
                    Admission::Parked(_),
                ) => self.add(&finding.state, Effect::Park { since }),
                (Limit::Ramp, _, Admission::Now | Admission::At(_)) => {
                    self.add(&finding.state, Effect::Pace);
                }
                _ => {}
            }
        }
    }

    /// Permits and places in line.
    fn permits(&mut self) {
        let (asks, admission) = (self.asks, self.admitted.admission);
        for state in &asks.held {
            if !self.keeps(state) && !planted!("permit-not-released") {
                self.add(state, Effect::Release);
            }
        }
        match (asks.want, admission) {
            // An attempt that ran before its target had permits takes one as well.
            (Want::Keep { lease_until }, _) if !planted!("permit-not-kept") => {
                for state in kept(asks) {
                    self.add(&state, Effect::Permit { until: lease_until });
                }
            }
            (Want::Start { lease_until, .. }, Admission::Now) => {
                for bound in asks.pools() {
                    self.add(&bound.state, Effect::Permit { until: lease_until });
                }
            }
            (Want::Start { since, .. }, Admission::InLine(_)) => {
                for bound in asks.pools() {
                    self.add(&bound.state, Effect::Queue { since });
                }
            }
            _ => {}
        }
    }

    /// Whether the step has something at a state from now on.
    fn keeps(&self, state: &str) -> bool {
        let is_here = |bound: &Bound| *bound.state == *state;
        match (self.asks.want, self.admitted.admission) {
            (Want::Keep { .. }, _) => true,
            (Want::Start { .. }, Admission::Now | Admission::InLine(_)) => {
                self.asks.pools().any(is_here)
            }
            (_, Admission::Parked(_)) => self
                .admitted
                .findings
                .iter()
                .any(|finding| finding.limit.parks() && *finding.state == *state),
            _ => false,
        }
    }

    /// Starts count in a budget, but for probes.
    fn counted(&mut self) {
        let asks = self.asks;
        let is_probe = self.admitted.findings.iter().any(|found| found.limit == Limit::Breaker);
        let counted = match asks.want {
            Want::Start { cost, .. } if self.starts_now() => Some(cost),
            _ => asks.counted,
        };
        // A probe is no retry to a budget, and no first attempt that earns one.
        let Some(cost) = counted.filter(|_| !(is_probe && self.starts_now())) else { return };
        for bound in &asks.bounds {
            if let Some(budget) = &bound.target.budget {
                let (width, cost) = (Window::width_of(budget), cost.map(|cost| budget.cost(cost)));
                self.add(&bound.state, Effect::Count { width, cost });
            }
        }
    }
}
