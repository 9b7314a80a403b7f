//! The same history by another clock.
//!
//! A step that moves to another store is told by that store's time from then
//! on. Every instant moves by the same span, so what was due in a minute is due
//! in a minute, and nothing changes its order. Fences are no instants, although
//! they are drawn from time: a worker shows the fence it was granted, so it
//! stays, and [`Record::begin`] sees to it that the next one is above it.

use super::{
    decision::{Settled, Verdict},
    event::Deadline,
    order::{Extension, Given, Orders, StepPause, What},
    record::{Attempt, Claims, End, Hold, Record, State},
    time::Timestamp,
};

/// How far one clock is ahead of another, µs; below zero when it is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shift(i64);

impl Shift {
    /// From a clock that shows `from` to one that shows `to` at that moment.
    #[must_use]
    pub fn between(from: Timestamp, to: Timestamp) -> Self {
        let micros = i128::from(to.as_micros()) - i128::from(from.as_micros());
        let end = if micros < 0 { i64::MIN } else { i64::MAX };
        Self(i64::try_from(micros).unwrap_or(end))
    }

    /// The shift, µs.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// An instant by the other clock. What is never to come stays so.
    #[must_use]
    pub const fn instant(self, at: Timestamp) -> Timestamp {
        match at {
            Timestamp::NEVER => at,
            at => Timestamp::from_micros(at.as_micros().saturating_add_signed(self.0)),
        }
    }

    fn all<'a>(self, instants: impl IntoIterator<Item = &'a mut Timestamp>) {
        for at in instants {
            *at = self.instant(*at);
        }
    }

    /// A record by the other clock.
    ///
    /// Records are taken apart in full here, so that whoever adds a field has to
    /// say whether it is an instant.
    #[must_use]
    pub fn record(self, mut record: Record) -> Record {
        let Record {
            version: _,
            state,
            counters: _,
            fence: _,
            created_at,
            first_began_at,
            held_for: _,
            lease: _,
            last_delay: _,
            policy: _,
            kind: _,
            targets: _,
            queue: _,
            payload: _,
            labels: _,
            is_silent: _,
            silent_claims: _,
            deadline,
            resume_from: _,
            worker: _,
            manual_retries: _,
            attempts,
            standing,
            of_run: _,
            claims,
            orders,
            progress: _,
            has_moved: _,
        } = &mut record;
        self.state(state);
        self.all([created_at]);
        self.all(first_began_at);
        self.all(deadline);
        attempts.iter_mut().for_each(|attempt| self.attempt(attempt));
        standing.iter_mut().for_each(|settled| self.settled(settled));
        if let Some(claims) = claims {
            let Claims { since, tickets, held } = &mut **claims;
            self.all(since);
            // Promises and places stay behind with the targets' states: the step
            // asks anew when it comes. A permit ends with its attempt.
            tickets.clear();
            if !matches!(state, State::Running { .. }) {
                held.clear();
            }
        }
        if let Some(orders) = orders {
            self.orders(orders);
        }
        record
    }

    fn orders(self, orders: &mut Orders) {
        let Orders {
            given,
            pause,
            is_cancel_requested: _,
            is_retry_ordered: _,
            extra_retries: _,
            excluded_hosts: _,
        } = orders;
        for given in given {
            let Given { identity: _, at, by: _, reason: _, what, before: _, after: _ } = given;
            self.all([at]);
            if let What::Pause(Some(Deadline::At(at)))
            | What::Extend(Extension { deadline: Some(Deadline::At(at)), .. }) = what
            {
                self.all([at]);
            }
        }
        if let Some(StepPause { since, counted_to, until, by: _, reason: _ }) = pause {
            self.all([since, counted_to]);
            self.all(until);
        }
    }

    fn state(self, state: &mut State) {
        match state {
            State::Waiting { due } => self.all([due]),
            State::Stopping { at, verdict } => {
                self.all([at]);
                self.settled(verdict);
            }
            State::Running { lease_until } => self.all([lease_until]),
            State::Held(hold) => {
                let Hold { since, until, allowed: _, default_answer: _, max_manual_retries: _ } =
                    hold;
                self.all([since]);
                self.all(until);
            }
            State::Over { ending: _, purge_at } => self.all([purge_at]),
        }
    }

    fn attempt(self, attempt: &mut Attempt) {
        let Attempt { number: _, fence: _, began_at, begun_by: _, host: _, began_with: _, end } =
            attempt;
        self.all([began_at]);
        if let Some(end) = end {
            let End { at, outcome: _, reported_by: _, late: _, settled, counted: _, fault: _ } =
                end;
            self.all([at]);
            self.settled(settled);
        }
    }

    fn settled(self, settled: &mut Settled) {
        let Settled { verdict, reason: _, rule: _, revision: _, counters: _, decided_at } = settled;
        self.all([decided_at]);
        match verdict {
            Verdict::Retry(at) => self.all([at]),
            Verdict::Wait(at) | Verdict::Hold(at) => self.all(at),
            Verdict::Stop | Verdict::Done => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_moves_by_the_difference_of_the_clocks() {
        let at = Timestamp::from_micros;
        for (from, to, instant, moved) in [
            (100, 150, 1000, 1050),
            (150, 100, 1000, 950),
            (100, 100, 1000, 1000),
            (1000, 0, 10, 0),
            (0, 10, u64::MAX, u64::MAX),
            (0, u64::MAX, 5, 5 + (u64::MAX >> 1)),
        ] {
            let shift = Shift::between(at(from), at(to));
            assert_eq!(shift.instant(at(instant)), at(moved), "{from} {to} {instant}");
        }
    }
}
