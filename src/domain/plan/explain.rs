//! Why a step waits, and what change would bring its start forward.
//!
//! It is told of the present. What a decision rested on is not kept with it, and
//! something else may stand in the way by now: so what the record knows is joined
//! with what the targets have in use. What would help is found by looking for the
//! start again without each constraint in turn.

use super::{Now, Reason, Terms, ends_by, has_place, limits::Before};
use crate::domain::{
    decision::{Constraint, ConstraintKind, Load, Verdict},
    limit::{Bound, breaker::Standing, usage::Usage, window::Window},
    record::{Record, State},
    time::Timestamp,
};

/// Why a step that waits does not start yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// When it may start as things stand, now at the earliest; None where nobody can
    /// say.
    pub starts_at: Option<Timestamp>,
    /// What bounds its start: first what decides the instant, then what would come
    /// next. What is met already is here as well.
    pub constraints: Vec<Stands>,
    /// When the step ends whatever happens, and what bounds it.
    pub ends_by: Option<(Timestamp, Reason)>,
}

/// A constraint as it stands now.
#[derive(Clone, Debug, PartialEq)]
pub struct Stands {
    /// The constraint. [`Timestamp::NEVER`] is an instant that nobody can tell.
    pub constraint: Constraint,
    /// How many go before the step, where it stands in a line.
    pub before: Option<u64>,
    /// The operator's order that it is.
    pub order: Option<Order>,
    /// When the step could start if this did not bound it, at the earliest; None where
    /// it would change nothing, or nobody can say.
    pub without: Option<Timestamp>,
    /// Of an instant that was searched for: where the search would begin to find room
    /// now.
    anew: Option<Timestamp>,
}

/// An order of an operator, for those who wait for its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Why.
    pub reason: String,
    /// Who ordered it; empty when that was not said.
    pub by: String,
}

/// Why a step waits at `now`; None where it does not wait. `used` are the uses of the
/// targets that bound it, in the order of [`Terms::bounds`].
#[must_use]
pub fn explain(
    terms: &Terms<'_>,
    record: &Record,
    used: &[Usage],
    now: Now,
) -> Option<Explanation> {
    let State::Waiting { due } = record.state else { return None };
    let cost = Before::of(terms, Some(record)).and_then(|before| before.cost());
    let mut stands: Vec<Stands> = own_wait(record, due).into_iter().map(Stands::of_step).collect();
    stands.extend(own_pause(record, now.at));
    for (bound, used) in terms.bounds.iter().zip(used) {
        let target = AtTarget { bound, used, record, due, cost, now: now.at };
        stands.extend(target.stands());
    }
    stands.extend(told(record, due, &stands, now.at));
    let starts = start(&stands, None, now.at);
    for at in 0..stands.len() {
        let without = start(&stands, Some(at), now.at);
        stands[at].without = (without < starts).then_some(without);
        let constraint = &mut stands[at].constraint;
        constraint.binding = starts > now.at && constraint.earliest == starts;
    }
    stands.sort_by_key(|stands| std::cmp::Reverse(stands.constraint.earliest));
    Some(Explanation {
        starts_at: (starts < Timestamp::NEVER).then_some(starts),
        constraints: stands,
        ends_by: ends_by(terms, record),
    })
}

/// The wait that the latest decision about a failure asked for. An order to go on
/// sooner ends it.
fn own_wait(record: &Record, due: Timestamp) -> Option<Constraint> {
    let end = record.latest()?.end.as_ref()?;
    let (Verdict::Retry(at) | Verdict::Wait(Some(at))) = end.settled.verdict else { return None };
    let kind = match end.settled.reason {
        Reason::Pushback => ConstraintKind::Pushback,
        Reason::Wish => ConstraintKind::Wish,
        _ => ConstraintKind::Backoff,
    };
    let earliest = end.at.plus(record.last_delay).min(at).min(due);
    Some(Constraint { kind, key: String::new(), earliest, firm: true, binding: false, load: None })
}

/// The pause of the step itself.
fn own_pause(record: &Record, now: Timestamp) -> Option<Stands> {
    let pause = record.paused_at(now)?;
    let constraint = Constraint {
        kind: ConstraintKind::Pause,
        key: String::new(),
        earliest: pause.until.unwrap_or(Timestamp::NEVER),
        firm: false,
        binding: false,
        load: None,
    };
    let order = Order { reason: pause.reason.to_string(), by: pause.by.to_string() };
    Some(Stands { order: Some(order), ..Stands::of_step(constraint) })
}

/// The instant that the step was told, where nothing that stands by now accounts for
/// it: nobody may begin it before. Who stands in a line is woken instead.
fn told(record: &Record, due: Timestamp, stands: &[Stands], now: Timestamp) -> Option<Stands> {
    let is_accounted = stands.iter().any(|stands| stands.constraint.earliest >= due);
    if has_place(record) || due <= now || is_accounted {
        return None;
    }
    let constraint = Constraint {
        kind: ConstraintKind::Ticket,
        key: String::new(),
        earliest: due,
        firm: true,
        binding: false,
        load: None,
    };
    Some(Stands { anew: Some(now), ..Stands::of_step(constraint) })
}

/// When a step may start that all of them bound, but for one. What was searched for
/// is searched for again where the instant from which it was has come earlier.
fn start(stands: &[Stands], without: Option<usize>, now: Timestamp) -> Timestamp {
    let others = || {
        let others = stands.iter().enumerate().filter(move |(at, _)| Some(*at) != without);
        others.map(|(_, stands)| stands)
    };
    let given = |stands: &mut dyn Iterator<Item = &Stands>| {
        let given = stands.filter(|stands| stands.anew.is_none());
        given.map(|stands| stands.constraint.earliest).fold(now, Timestamp::max)
    };
    let from = given(&mut others());
    let is_earlier = from < given(&mut stands.iter());
    let found = others().filter_map(|stands| {
        let anew = stands.anew?;
        Some(if is_earlier {
            anew.min(stands.constraint.earliest)
        } else {
            stands.constraint.earliest
        })
    });
    found.fold(from, Timestamp::max)
}

impl Stands {
    const fn of_step(constraint: Constraint) -> Self {
        Self { constraint, before: None, order: None, without: None, anew: None }
    }
}

/// A target that bounds a step which waits.
struct AtTarget<'a> {
    bound: &'a Bound,
    used: &'a Usage,
    record: &'a Record,
    /// When the step is due.
    due: Timestamp,
    /// What its next start costs a budget; None for a first attempt.
    cost: Option<u32>,
    now: Timestamp,
}

impl AtTarget<'_> {
    fn stands(&self) -> impl Iterator<Item = Stands> {
        let all = [
            self.pause(),
            self.forced(),
            self.cooldown(),
            self.breaker(),
            self.rate(),
            self.permits(),
            self.budget(),
        ];
        all.into_iter().flatten()
    }

    fn stands_of(&self, kind: ConstraintKind, earliest: Timestamp, firm: bool) -> Stands {
        let key = self.bound.state.to_string();
        let earliest = earliest.max(self.now);
        Stands::of_step(Constraint { kind, key, earliest, firm, binding: false, load: None })
    }

    fn load(&self, (used, limit): (u64, u64)) -> Option<Load> {
        Some(Load { used, limit, revision: self.bound.revision })
    }

    /// Whether the step has the promise of a start, and is not too late for it.
    fn has_ticket(&self) -> bool {
        let tickets = self.record.claims.iter().flat_map(|claims| &claims.tickets);
        let mut own = tickets.filter(|ticket| ticket.state == self.bound.state);
        own.any(|ticket| self.now <= self.due.plus(ticket.grace))
    }

    fn pause(&self) -> Option<Stands> {
        let pause = self.bound.pause.as_ref()?;
        let until = pause.until.unwrap_or(Timestamp::NEVER);
        let stands = self.stands_of(ConstraintKind::Pause, until, false);
        let order = Order { reason: pause.reason.clone(), by: pause.by.clone() };
        Some(Stands { order: Some(order), ..stands })
    }

    fn forced(&self) -> Option<Stands> {
        let until = self.bound.forced_open()?;
        let forced = self.bound.forced.as_ref()?;
        let order = Order { reason: forced.reason.clone(), by: forced.by.clone() };
        let stands = self.stands_of(ConstraintKind::Forced, until, false);
        Some(Stands { order: Some(order), before: self.used.before_parked, ..stands })
    }

    /// At a target with a breaker it is a ramp that begins later.
    fn cooldown(&self) -> Option<Stands> {
        let until = match self.used.breaker {
            Some(Standing::Ramp { since, .. }) if self.bound.has_breaker() => Some(since),
            _ => self.used.cooldown,
        };
        let until = until.filter(|until| self.now < *until)?;
        Some(self.stands_of(ConstraintKind::Cooldown, until, true))
    }

    fn breaker(&self) -> Option<Stands> {
        let standing = self.used.breaker.filter(|_| self.bound.is_paced())?;
        let stands = match standing {
            Standing::Open { .. } if !self.bound.has_breaker() => return None,
            Standing::Open { next_probe, .. } => {
                self.stands_of(ConstraintKind::Breaker, next_probe, false)
            }
            Standing::Ramp { since, next, .. } if since <= self.now => {
                let promised = self.has_ticket();
                let earliest = if promised { self.due } else { next };
                let stands = self.stands_of(ConstraintKind::Ramp, earliest, promised);
                Stands { anew: Some(next), ..stands }
            }
            Standing::Ramp { .. } | Standing::Closed => return None,
        };
        Some(Stands { before: self.used.before_parked, ..stands })
    }

    fn rate(&self) -> Option<Stands> {
        self.bound.target.rate.filter(|rate| rate.counts(self.cost.is_some()))?;
        let promised = self.has_ticket();
        let room = self.used.room.unwrap_or(Timestamp::NEVER);
        let earliest = if promised { self.due } else { room };
        let mut stands = self.stands_of(ConstraintKind::Rate, earliest, promised);
        stands.constraint.load = self.used.starts.and_then(|starts| self.load(starts));
        Some(Stands { anew: Some(room.max(self.now)), ..stands })
    }

    /// Where none is free nobody can say when one will be.
    fn permits(&self) -> Option<Stands> {
        let (running, most) = self.used.permits?;
        let before = self.used.before_in_line.unwrap_or(self.used.in_line);
        let is_short = running + before >= most;
        let earliest = if is_short { Timestamp::NEVER } else { self.now };
        let mut stands = self.stands_of(ConstraintKind::Concurrency, earliest, false);
        stands.constraint.load = self.load((running, most));
        Some(Stands { before: self.used.before_in_line, ..stands })
    }

    fn budget(&self) -> Option<Stands> {
        let (budget, spent) = (self.bound.target.budget.as_ref()?, self.used.spent?);
        let cost = u64::from(self.cost?);
        let is_spent = spent.0 + cost > spent.1;
        let stretch = std::time::Duration::from_micros(Window::width_of(budget));
        let earliest = if is_spent { self.now.plus(stretch) } else { self.now };
        let mut stands = self.stands_of(ConstraintKind::Budget, earliest, false);
        stands.constraint.load = self.load(spent);
        Some(stands)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn given(kind: ConstraintKind, seconds: u64) -> Stands {
        let (key, earliest) = (String::new(), at(seconds));
        Stands::of_step(Constraint { kind, key, earliest, firm: true, binding: false, load: None })
    }

    /// Promised for an instant, and admitted anew at another.
    fn found(seconds: u64, anew: u64) -> Stands {
        Stands { anew: Some(at(anew)), ..given(ConstraintKind::Rate, seconds) }
    }

    #[test]
    fn what_comes_last_decides_and_without_it_the_next_does() {
        let stands = [given(ConstraintKind::Backoff, 60), given(ConstraintKind::Cooldown, 90)];
        let starts = |without| start(&stands, without, at(10));
        assert_eq!((starts(None), starts(Some(0)), starts(Some(1))), (at(90), at(90), at(60)));
    }

    #[test]
    fn a_promise_is_sought_anew_where_it_was_sought_from_a_later_instant() {
        // The rate had room a second after the backoff, and has some now.
        let stands =
            [given(ConstraintKind::Backoff, 60), found(61, 12), given(ConstraintKind::Budget, 10)];
        let starts = |without| start(&stands, without, at(10));
        assert_eq!((starts(None), starts(Some(0)), starts(Some(1))), (at(61), at(12), at(60)));
        assert_eq!(starts(Some(2)), at(61), "what is met is in nobody's way");
    }

    #[test]
    fn nothing_starts_before_now_and_nobody_knows_the_end_of_what_has_none() {
        assert_eq!(start(&[given(ConstraintKind::Backoff, 5)], None, at(10)), at(10));
        let mut pause = given(ConstraintKind::Pause, 0);
        pause.constraint.earliest = Timestamp::NEVER;
        let stands = [pause, given(ConstraintKind::Backoff, 60)];
        assert_eq!(start(&stands, None, at(10)), Timestamp::NEVER);
        assert_eq!(start(&stands, Some(0), at(10)), at(60));
    }
}
