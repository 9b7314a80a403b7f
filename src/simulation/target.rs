//! The dependency that all steps call.

use std::{collections::VecDeque, time::Duration};

use super::{
    START, after,
    chance::{Chance, Question},
    scenario::{Overload, Profile, Scenario},
};
use crate::domain::{failure::FailureClass, time::Timestamp};

/// How long an answer takes beside the work, and a refusal altogether.
const ANSWER: Duration = Duration::from_millis(50);
/// How soon a broken host fails an attempt.
const BROKEN_HOST: Duration = Duration::from_millis(10);
/// The host that is broken, where one is.
pub const BAD_HOST: u32 = 0;
/// How long after being down a target is not what it was.
const CONVALESCENCE: Duration = Duration::from_secs(60);
/// What it serves at first, of what it can.
const AT_FIRST: f64 = 0.2;
/// How long an overload throws a fragile one back.
const RELAPSE: Duration = Duration::from_secs(5);

/// The target of a run.
#[derive(Clone, Debug)]
pub struct Target {
    capacity: f64,
    overload: Overload,
    profile: Profile,
    timeout: Duration,
    chance: Chance,
    /// When those in line will have been served, in order.
    line: VecDeque<Timestamp>,
    /// Calls that may come at once, where more are rejected, as of `filled`.
    room: f64,
    filled: Timestamp,
    /// When a fragile target was last thrown back, and until when.
    relapse: Option<(Timestamp, Timestamp)>,
    /// Since when it has been up, as far as the line knows.
    up_since: Option<Timestamp>,
}

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The step.
    pub step: u32,
    /// Number of the attempt.
    pub attempt: u32,
    /// Where it runs.
    pub host: u32,
}

/// A call under way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Call {
    /// When it was made.
    pub made: Timestamp,
    /// When it ends.
    pub ends: Timestamp,
    /// How it ends, if the target stays up.
    fate: Result<(), Failing>,
}

/// How a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failing {
    /// The class that a worker reports.
    pub class: FailureClass,
    /// How long the target asks to wait.
    pub retry_after: Option<Duration>,
}

impl Failing {
    /// A failure of a class, without a word about when to come again.
    #[must_use]
    pub const fn of(class: FailureClass) -> Self {
        Self { class, retry_after: None }
    }
}

impl Target {
    /// The target of a scenario, at its beginning.
    #[must_use]
    pub fn new(scenario: &Scenario, chance: Chance) -> Self {
        Self {
            capacity: f64::from(scenario.capacity.get()),
            overload: scenario.overload,
            profile: scenario.profile.clone(),
            timeout: scenario.call_timeout,
            chance,
            line: VecDeque::new(),
            room: f64::from(scenario.capacity.get()),
            filled: START,
            relapse: None,
            up_since: None,
        }
    }

    /// Until when no call can succeed, if none can now.
    #[must_use]
    pub fn dead_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.throttled_until(now).or_else(|| self.down_until(now))
    }

    fn throttled_until(&self, now: Timestamp) -> Option<Timestamp> {
        let until = after(self.profile.throttled_until);
        (now < until).then_some(until)
    }

    fn down_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.downs().find(|(from, until)| *from <= now && now < *until).map(|(_, until)| until)
    }

    fn downs(&self) -> impl Iterator<Item = (Timestamp, Timestamp)> {
        let planned = self.profile.down.iter().map(|(from, until)| (after(*from), after(*until)));
        planned.chain(self.relapse)
    }

    /// When it was last down, if it ever was.
    fn recovered(&self, now: Timestamp) -> Option<Timestamp> {
        self.downs().map(|(_, until)| until).filter(|until| *until <= now).max()
    }

    /// Calls that it can serve a second at an instant when it is up.
    #[must_use]
    pub fn capacity_at(&self, now: Timestamp) -> f64 {
        let Some(up) = self.recovered(now).filter(|_| self.profile.slow_start) else {
            return self.capacity;
        };
        let part = (now - up).as_secs_f64() / CONVALESCENCE.as_secs_f64();
        self.capacity * (AT_FIRST + (1.0 - AT_FIRST) * part.min(1.0))
    }

    /// Takes a call.
    pub fn call(&mut self, caller: Caller, now: Timestamp) -> Call {
        if self.profile.bad_node.is_some() && caller.host == BAD_HOST {
            return failed(now, BROKEN_HOST, Failing::of(FailureClass::Error));
        }
        if let Some(until) = self.throttled_until(now) {
            let retry_after = Some(until - now);
            return failed(now, ANSWER, Failing { class: FailureClass::Throttled, retry_after });
        }
        if self.down_until(now).is_some() {
            return failed(now, ANSWER, Failing::of(FailureClass::Transient));
        }
        self.wake(now);
        let done = match self.overload {
            Overload::Queue(most) => self.queued(most, now),
            Overload::Reject => self.admitted(now),
        };
        match done {
            Some(done) => self.worked(caller, now, done.plus(ANSWER)),
            None => {
                self.overloaded(now);
                failed(now, ANSWER, Failing::of(FailureClass::Transient))
            }
        }
    }

    /// How a call ended: what went down while it was under way took it along.
    ///
    /// # Errors
    /// When it failed, and how.
    pub fn outcome(&self, call: &Call) -> Result<(), Failing> {
        let fell = self.downs().any(|(from, _)| call.made < from && from <= call.ends);
        match call.fate {
            Ok(()) if fell => Err(Failing::of(FailureClass::Transient)),
            fate => fate,
        }
    }

    /// Forgets the line that it had before it was down.
    fn wake(&mut self, now: Timestamp) {
        let up = self.recovered(now);
        if up != self.up_since {
            self.up_since = up;
            self.line.clear();
            self.room = self.capacity_at(now);
            self.filled = now;
        }
    }

    /// When the call will have been served; None where the line is full.
    fn queued(&mut self, most: u32, now: Timestamp) -> Option<Timestamp> {
        while self.line.front().is_some_and(|done| *done <= now) {
            self.line.pop_front();
        }
        if self.line.len() >= most as usize {
            return None;
        }
        let turn = self.line.back().copied().unwrap_or(now).max(now);
        let done = turn.plus(Duration::from_secs_f64(1.0 / self.capacity_at(turn)));
        self.line.push_back(done);
        Some(done)
    }

    /// When the call will have been served; None where it is too many.
    fn admitted(&mut self, now: Timestamp) -> Option<Timestamp> {
        let capacity = self.capacity_at(now);
        self.room = (self.room + (now - self.filled).as_secs_f64() * capacity).min(capacity);
        self.filled = now;
        if self.room < 1.0 {
            return None;
        }
        self.room -= 1.0;
        Some(now)
    }

    fn overloaded(&mut self, now: Timestamp) {
        let is_weak = self.recovered(now).is_some_and(|up| now - up < CONVALESCENCE);
        if self.profile.fragile && is_weak {
            self.relapse = Some((now, now.plus(RELAPSE)));
        }
    }

    /// A call that the target works on, for as long as its worker waits.
    fn worked(&self, caller: Caller, made: Timestamp, ends: Timestamp) -> Call {
        let given_up = made.plus(self.timeout);
        if given_up < ends {
            let fate = Err(Failing::of(FailureClass::Timeout));
            return Call { made, ends: given_up, fate };
        }
        let is_failing = self.profile.failing.is_some_and(|failing| {
            let drawn = self.chance.draw(Question::Failing, caller.step, caller.attempt);
            made < after(failing.until) && drawn < failing.part
        });
        let fate = if is_failing { Err(Failing::of(FailureClass::Transient)) } else { Ok(()) };
        Call { made, ends, fate }
    }
}

fn failed(made: Timestamp, lasts: Duration, failing: Failing) -> Call {
    Call { made, ends: made.plus(lasts), fate: Err(failing) }
}
