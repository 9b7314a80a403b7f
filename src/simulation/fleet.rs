//! The steps and their workers: what happens, in order.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use super::{
    START, after,
    chance::{Chance, Question},
    scenario::Scenario,
    strategy::{Ask, Kind, Next, Start, Strategy},
    tally::Tally,
    target::{BAD_HOST, Call, Caller, Target},
};
use crate::domain::time::Timestamp;

/// Hosts that ask for a step at once, at most.
const HOSTS_ASKED: u32 = 16;
/// How long until more do.
const ASKED_AGAIN: Duration = Duration::from_secs(1);

/// Runs a scenario under one strategy. Equal arguments give equal tallies.
#[must_use]
pub fn run(scenario: &Scenario, kind: Kind, seed: u64) -> Tally {
    let chance = Chance::new(seed);
    let target = Target::new(scenario, chance);
    let strategy = kind.strategy(scenario, &target, chance);
    let mut fleet = Fleet {
        scenario,
        chance,
        steps: Vec::new(),
        target,
        strategy,
        events: BinaryHeap::new(),
        happened: 0,
        tally: Tally::new(scenario),
    };
    fleet.arrive();
    fleet.happen();
    fleet.tally
}

struct Fleet<'a> {
    scenario: &'a Scenario,
    chance: Chance,
    steps: Vec<Step>,
    target: Target,
    strategy: Box<dyn Strategy>,
    /// What happens next: the earliest first, of those at once the first noted.
    events: BinaryHeap<Reverse<(Timestamp, u64, Event)>>,
    happened: u64,
    tally: Tally,
}

/// One step.
struct Step {
    arrived: Timestamp,
    attempts: u32,
    /// Hosts that asked for its next attempt.
    offers: u32,
    process: u32,
    is_fresh: bool,
    /// Where it runs, and the call that it makes.
    call: Option<(u32, Call)>,
}

/// What happens to a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// Its worker asks to start it.
    Asks(u32),
    /// Its call has ended.
    Ended(u32),
}

impl Fleet<'_> {
    /// Notes when steps arrive: the backlog at once, the fresh ones as they come.
    fn arrive(&mut self) {
        for _ in 0..self.scenario.steps {
            self.add_step(START);
        }
        let end = after(self.scenario.fresh_for);
        let mut at = START;
        while self.scenario.fresh_per_second > 0.0 {
            let number = self.steps.len() as u32;
            let drawn = self.chance.draw(Question::Arrival, number, 0);
            let gap = -(1.0 - drawn).ln() / self.scenario.fresh_per_second;
            at = at.plus(Duration::from_secs_f64(gap));
            if end <= at {
                break;
            }
            self.add_step(at);
        }
    }

    fn add_step(&mut self, arrived: Timestamp) {
        let number = self.steps.len() as u32;
        let process = self.chance.pick(Question::Process, number, 0, self.scenario.processes);
        let is_fresh = arrived > START && arrived >= after(self.scenario.recovery);
        self.steps.push(Step { arrived, attempts: 0, offers: 0, process, is_fresh, call: None });
        self.tally.arrived(arrived, is_fresh);
        self.note(arrived, Event::Asks(number));
    }

    fn note(&mut self, at: Timestamp, event: Event) {
        self.happened += 1;
        self.events.push(Reverse((at, self.happened, event)));
    }

    /// Everything up to the horizon.
    fn happen(&mut self) {
        let horizon = after(self.scenario.horizon);
        loop {
            let next = self.events.peek().map(|Reverse((at, ..))| *at);
            let release = self.strategy.next_release();
            let Some(now) = next.into_iter().chain(release).min() else { break };
            if horizon <= now {
                break;
            }
            // A release at the instant of an event comes after it.
            if next == Some(now) {
                if let Some(Reverse((_, _, event))) = self.events.pop() {
                    match event {
                        Event::Asks(step) => self.asks(step, now),
                        Event::Ended(step) => self.ended(step, now),
                    }
                }
            } else if let Some(step) = self.strategy.release(now) {
                self.asks(step, now);
            }
        }
    }

    fn ask(&self, step: u32, host: u32, now: Timestamp) -> Ask {
        let Step { arrived, attempts, process, is_fresh, .. } = self.steps[step as usize];
        Ask { step, attempt: attempts, process, host, is_fresh, arrived, now }
    }

    fn asks(&mut self, step: u32, now: Timestamp) {
        let attempt = self.steps[step as usize].attempts + 1;
        for _ in 0..HOSTS_ASKED {
            let host = self.next_host(step, attempt);
            let ask = Ask { attempt, ..self.ask(step, host, now) };
            match self.strategy.start(&ask) {
                Start::Now => return self.call(ask),
                Start::At(at) => return self.note(at.max(now), Event::Asks(step)),
                Start::Parked => return,
                Start::Lost => return self.lost(step, now),
                Start::OtherHost => {}
            }
        }
        self.note(now.plus(ASKED_AGAIN), Event::Asks(step));
    }

    /// The next host that asks for an attempt: a broken one is idle the sooner,
    /// and so draws more than its part.
    fn next_host(&mut self, step: u32, attempt: u32) -> u32 {
        let known = &mut self.steps[step as usize];
        let number = (attempt << 16) | (known.offers & 0xffff);
        known.offers += 1;
        let drawn = self.chance.draw(Question::Host, step, number);
        let hosts = self.scenario.processes;
        match self.scenario.profile.bad_node {
            None => (drawn * f64::from(hosts)) as u32,
            Some(part) if drawn < part => BAD_HOST,
            Some(part) => {
                let sound = (drawn - part) / (1.0 - part) * f64::from(hosts.saturating_sub(1));
                BAD_HOST + 1 + sound as u32
            }
        }
    }

    fn call(&mut self, ask: Ask) {
        let Ask { step, attempt, host, now, .. } = ask;
        let is_dead = self.target.dead_until(now).is_some();
        let call = self.target.call(Caller { step, attempt, host }, now);
        self.tally.called(&ask, is_dead);
        let known = &mut self.steps[step as usize];
        known.attempts = attempt;
        known.offers = 0;
        known.call = Some((host, call));
        self.note(call.ends, Event::Ended(step));
    }

    fn ended(&mut self, step: u32, now: Timestamp) {
        let Some((host, call)) = self.steps[step as usize].call.take() else { return };
        let ask = self.ask(step, host, now);
        match self.target.outcome(&call) {
            Ok(()) => {
                self.strategy.succeeded(&ask);
                self.tally.done(&ask);
            }
            Err(failing) => {
                self.tally.failed();
                match self.strategy.failed(&ask, failing) {
                    Next::At(at) => self.note(at.max(now), Event::Asks(step)),
                    Next::Parked => {}
                    Next::Lost => self.lost(step, now),
                }
            }
        }
    }

    fn lost(&mut self, step: u32, now: Timestamp) {
        let ask = self.ask(step, 0, now);
        self.tally.lost(&ask);
    }
}
