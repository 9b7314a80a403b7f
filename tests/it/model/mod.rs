//! A second opinion about a step's life.
//!
//! Written from the contract's words, in its own plain types, and sharing no
//! line with the rule: it keeps everything that ever happened to a step in
//! lists and counts it anew whenever it is asked. Where chance has a say, it
//! knows the bounds and takes over the instant that was drawn.

pub mod agreement;
mod claims;
mod orders;
pub mod policies;
pub mod runs;

use std::collections::BTreeMap;

use crate::history::{
    Begin, Call, Counts, Failed, Granted, Name, Observed, Op, Problem, Pushback, RUN, Seen, Status,
    View,
};
use policies::{Action, Exhausted, Facts, Plain, S, Terms, Waits};
use runs::{PlainRun, Told};

/// What a namespace says, in microseconds.
#[derive(Clone, Copy)]
pub struct Namespace {
    pub lease: u64,
    pub retries_ceiling: u32,
    pub elapsed_ceiling: u64,
    pub retention: u64,
    pub abandon_after: u64,
}

/// Small enough for histories to reach its ceilings.
pub const NAMESPACE: Namespace = Namespace {
    lease: 30 * S,
    retries_ceiling: 9,
    elapsed_ceiling: 3 * 3600 * S,
    retention: 3600 * S,
    abandon_after: 7200 * S,
};

/// What chance decided, as the subject shows it: the instant at which the step
/// is due, and whether a pushback set it. None when it does not wait.
pub type Drawn = Option<(u64, bool)>;

/// Attempts that a step remembers.
const REMEMBERED: usize = 16;
/// Attempts in a row that are not counted since the work did not start.
const UNSTARTED: usize = 3;

pub struct Model {
    policy: Plain,
    of_run: PlainRun,
    steps: BTreeMap<u8, Step>,
}

/// What applies to a step while one thing is done to it.
struct Judge<'a> {
    policy: &'a Plain,
    /// Its run, where it belongs to one.
    run: Option<Told>,
    /// Whether it is a run that leaves failures of its steps to them.
    ignores_steps: bool,
}

#[derive(Clone)]
struct Step {
    tries: Vec<Try>,
    place: Place,
    kind: String,
    deadline: Option<u64>,
    /// Holds that have ended: since when, and when.
    holds: Vec<(u64, u64)>,
    pauses: Vec<orders::Pause>,
    orders: Vec<orders::Done>,
    /// Whether its next attempt was ordered.
    is_ordered: bool,
    /// Whether the running attempt was asked to stop.
    is_to_stop: bool,
    /// Hosts that an operator excluded.
    hosts_left_out: Vec<String>,
    manual_retries: u32,
    /// Retries that orders allow beyond the policy's.
    extra_retries: u32,
    /// The first attempt whose end counts, by its place.
    counted_from: usize,
    /// The first attempt whose time counts, by its place, and since when what stands
    /// still is none of it.
    timed_from: usize,
    timed_since: u64,
    /// The furthest that any attempt has told to have come.
    progress: u64,
    /// The attempt of its run that its counters belong to.
    of_run: u32,
    /// It is a run that nobody has given a policy.
    is_not_retried: bool,
    resume_from: String,
    /// A decision that was made after that of the latest attempt.
    later: Option<Seen>,
}

#[derive(Clone)]
struct Try {
    fence: u64,
    began_at: u64,
    begun_by: Option<(u64, Begin)>,
    host: String,
    /// Length of the lease that was granted.
    lease: u64,
    /// The latest instant at which its worker was heard.
    heard_at: u64,
    /// It has come further than any before it.
    has_moved: bool,
    /// What had been counted when it was granted.
    began_with: Counts,
    end: Option<End>,
}

#[derive(Clone)]
struct End {
    at: u64,
    /// `SUCCESS`, `CRASH` for a lease that ended, or the class of the failure.
    outcome: String,
    /// Class of the failure; empty for a success.
    class: &'static str,
    /// Request id, if that named it, and what was said.
    said: Option<(Option<u64>, Option<Failed>)>,
    late: bool,
    /// It was healthy: what was counted before does not count any longer.
    healthy: bool,
    /// Name of the counter that the retry was counted on.
    counted: Option<Counter>,
    /// The wait that followed, when it was retried.
    waited: Option<u64>,
    decision: Seen,
}

#[derive(Clone, PartialEq)]
enum Counter {
    Retries,
    Crashes,
    /// On none.
    Unstarted,
    Rule(String),
    Uncounted(String),
}

#[derive(Clone)]
enum Place {
    Waiting(u64),
    Stopping(u64, Seen),
    Running(u64),
    Held { since: u64, until: Option<u64>, terms: Terms },
    Over(&'static str, u64),
}

/// What follows a failure.
enum Verdict {
    Retry {
        reason: &'static str,
        bounds: (u64, u64),
        counter: Counter,
    },
    Stop(&'static str),
    /// Retries are spent, and this is when the next would have started.
    Spent(&'static str, (u64, u64)),
    StopLater(&'static str, (u64, u64)),
    Hold(Terms),
    Skip,
}

impl Model {
    pub fn new(policy: Plain, of_run: PlainRun) -> Self {
        Self { policy, of_run, steps: BTreeMap::new() }
    }

    /// Attempts that a step has begun.
    pub fn attempts(&self, step: u8) -> u32 {
        self.steps.get(&step).map_or(0, Step::attempts)
    }

    /// Fence of an attempt, as it was granted.
    pub fn fence(&self, step: u8, attempt: u32) -> Option<u64> {
        let tries = &self.steps.get(&step)?.tries;
        tries
            .get(attempt.checked_sub(1)? as usize)
            .map(|attempt| attempt.fence)
            .filter(|fence| *fence > 0)
    }

    /// Whether a lease, a hold or a wait has ended by `at` and nobody has told.
    pub fn is_overdue(&self, step: u8, at: u64) -> bool {
        self.steps.get(&step).is_some_and(|step| step.is_overdue(at))
    }

    /// What is to be seen of `op`, where chance did as is told in `drawn` and
    /// `granted` is the fence that the subject gave.
    pub fn apply(&mut self, op: &Op, drawn: Drawn, granted: u64) -> Observed {
        let mut known = self.steps.remove(&op.step);
        known.iter_mut().for_each(|step| step.reach(op.at));
        let not_retried = runs::not_retried();
        let judge = self.judge(op, known.as_ref(), &not_retried);
        let (step, observed) = judge.hears(known, op, drawn, granted);
        if let Some(mut step) = step {
            if let Place::Over(..) = step.place {
                step.end_pause(op.at);
                step.is_to_stop = false;
            }
            self.steps.insert(op.step, step);
        }
        observed
    }

    fn judge<'a>(&'a self, op: &Op, known: Option<&Step>, not_retried: &'a Plain) -> Judge<'a> {
        let run = self.told(op, known);
        if op.step != RUN {
            return Judge { policy: &self.policy, run, ignores_steps: false };
        }
        // Who begins it names the policy.
        let is_begin = matches!(op.call, Call::Begin { .. });
        if !is_begin && known.is_none_or(|run| run.is_not_retried) {
            return Judge { policy: not_retried, run, ignores_steps: false };
        }
        let PlainRun { policy, ignores_steps, .. } = &self.of_run;
        Judge { policy, run, ignores_steps: *ignores_steps }
    }

    /// Where the step stands.
    pub fn look(&self, step: u8) -> Option<View> {
        self.steps.get(&step).map(Step::view)
    }
}

impl Judge<'_> {
    fn hears(
        &self,
        known: Option<Step>,
        op: &Op,
        drawn: Drawn,
        granted: u64,
    ) -> (Option<Step>, Observed) {
        match &op.call {
            Call::Begin { request, said } => self.begin(known, *request, said, op.at, granted),
            Call::Heartbeat { fence, lease, progress } => {
                self.heartbeat(known, *fence, *lease, *progress, op.at)
            }
            Call::Report { name, failure } => {
                let is_run = op.step == RUN;
                let known = known.or_else(|| Step::unheard_of(*name, is_run, op.at));
                self.report(known, *name, failure.as_ref(), op.at, drawn)
            }
            Call::Order { request, wanted } => self.order(known, *request, *wanted, op.at),
            Call::Tick => {
                let mut known = known;
                while known.as_ref().is_some_and(|step| step.is_overdue(op.at)) {
                    (known, _) = self.tick(known, op.at, drawn);
                }
                self.tick(known, op.at, drawn)
            }
        }
    }

    fn begin(
        &self,
        known: Option<Step>,
        request: u64,
        said: &Begin,
        at: u64,
        fence: u64,
    ) -> (Option<Step>, Observed) {
        let mut known = known;
        let is_unknown_attempt = said.of_run > self.run.map_or(0, |run| run.attempt);
        let begun_before = known.as_ref().and_then(|step| step.begun_before(request, said));
        if let Some(observed) = begun_before.filter(|_| !is_unknown_attempt) {
            return (known, observed);
        }
        if let Some(observed) = self.of_its_run(&mut known, said, at) {
            return (known, observed);
        }
        let Some(step) = known else {
            return self.start(Step::new(at), request, said, at, fence);
        };
        // A refusal leaves it as it was.
        let as_it_was = step.clone();
        let step = self.found(step, at);
        let refusal = match &step.place {
            Place::Waiting(due) if step.is_paused() => {
                step.wait("PAUSED", step.paused_until().map(|until| until.max(*due)), at)
            }
            Place::Waiting(due) if at < *due => step.wait("NOT_DUE", Some(*due), at),
            Place::Waiting(_) if self.excluded(&step, at).contains(&(said.host.clone(), true)) => {
                step.wait("EXCLUDED_HOST", None, at)
            }
            Place::Waiting(_) => return self.start(step, request, said, at, fence),
            Place::Stopping(until, _) => step.wait("STOPPING", Some(*until), at),
            Place::Running(until) => step.wait("IN_PROGRESS", Some(*until), at),
            Place::Held { .. } | Place::Over(..) => step.standing(),
        };
        (Some(as_it_was), Observed::Refused(refusal))
    }

    fn start(
        &self,
        mut step: Step,
        request: u64,
        said: &Begin,
        at: u64,
        fence: u64,
    ) -> (Option<Step>, Observed) {
        if !said.kind.is_empty() {
            step.kind.clone_from(&said.kind);
        }
        if let Some(left) = said.time_left {
            step.deadline = Some(at + left);
        }
        step.of_run = step.of_run.max(said.of_run);
        step.is_not_retried = false;
        // What a person orders may take longer than the policy gives a step.
        let is_answered = step.later.as_ref().is_some_and(|later| later.reason == "ANSWERED");
        let is_ordered = step.is_ordered || is_answered;
        let is_over =
            self.bound(&step, self.policy.max_elapsed, at).is_some_and(|(bound, _)| bound < at);
        let max_elapsed = self.policy.max_elapsed.filter(|_| !(is_ordered && is_over));
        if let Some((_, reason)) =
            self.bound(&step, max_elapsed, at).filter(|(bound, _)| *bound < at)
        {
            let refusal = match &self.policy.exhausted {
                Exhausted::Hold(terms) if reason == "MAX_ELAPSED" => {
                    step.hold(terms, "EXHAUSTED", reason, "", at)
                }
                _ => step.give_up(reason, "", at),
            };
            step.later = Some(refusal.clone());
            let is_known = !step.tries.is_empty();
            return (is_known.then_some(step), Observed::Refused(refusal));
        }
        let excluded_hosts = self.excluded(&step, at);
        let lease = said.lease.unwrap_or(NAMESPACE.lease);
        let counters = Counts { attempts: step.attempts() + 1, ..step.counts() };
        step.tries.push(Try {
            fence,
            began_at: at,
            begun_by: Some((request, said.clone())),
            host: said.host.clone(),
            lease,
            heard_at: at,
            has_moved: false,
            began_with: counters.clone(),
            end: None,
        });
        (step.later, step.is_ordered) = (None, false);
        step.place = Place::Running(at + lease);
        let grant = Granted {
            attempt: step.attempts(),
            fence,
            began_at: at,
            lease_until: at + lease,
            replayed: false,
            excluded_hosts,
            ends_by: self.bound(&step, max_elapsed, at).map(|(bound, _)| bound),
            counters,
        };
        (Some(step), Observed::Granted(grant))
    }

    fn report(
        &self,
        known: Option<Step>,
        name: Name,
        failure: Option<&Failed>,
        at: u64,
        drawn: Drawn,
    ) -> (Option<Step>, Observed) {
        let Some(step) = known else {
            let problem = match name {
                Name::Number(_) => Problem::AttemptGap(1),
                Name::Fence(_) | Name::Request(_) => Problem::UnknownStep,
            };
            return (None, Observed::Failed(problem));
        };
        let next = step.attempts() + 1;
        let index = match name {
            Name::Fence(fence) => match step.place_of(|_, attempt| attempt.fence == fence) {
                Some(index) if step.tries[index].end.is_none() => {
                    return self.end(step, None, failure, at, drawn);
                }
                Some(index) => index,
                None => return step.stale(next - 1, at),
            },
            Name::Number(number) if number > next => {
                return (Some(step), Observed::Failed(Problem::AttemptGap(next)));
            }
            Name::Number(number) if number == next => {
                return self.implicit(step, name, failure, at, drawn);
            }
            Name::Number(number) => match step
                .place_of(|index, attempt| index as u32 + 1 == number && attempt.end.is_some())
            {
                Some(index) => index,
                None => return step.stale(number, at),
            },
            Name::Request(id) => {
                match step.place_of(|_, attempt| attempt.reported_as() == Some(id)) {
                    Some(index) => index,
                    None => return self.implicit(step, name, failure, at, drawn),
                }
            }
        };
        self.about_the_past(step, index, name, failure, at)
    }

    /// A report about an attempt that has an outcome.
    fn about_the_past(
        &self,
        mut step: Step,
        index: usize,
        name: Name,
        failure: Option<&Failed>,
        at: u64,
    ) -> (Option<Step>, Observed) {
        let attempt = index as u32 + 1;
        let is_latest = index + 1 == step.tries.len();
        let standing = step.standing();
        let end = step.tries[index].end.as_mut().expect("it has an outcome");
        match &end.said {
            Some((_, before)) if say_the_same(before.as_ref(), failure) => {
                let status = if end.late { Status::Late } else { Status::Recorded };
                let decision = end.decision.clone();
                (Some(step), Observed::Reported { attempt, status, replayed: true, decision })
            }
            Some(_) => (Some(step), Observed::Failed(Problem::IdentityReused)),
            None if !is_latest => step.stale(attempt, at),
            None => {
                end.said = Some((request_of(name), failure.cloned()));
                end.late = true;
                let decision = if failure.is_some() {
                    end.decision = standing.clone();
                    standing
                } else {
                    end.at = at;
                    end.outcome = "SUCCESS".to_owned();
                    end.class = "";
                    end.counted = None;
                    step.succeed(at)
                };
                (
                    Some(step),
                    Observed::Reported { attempt, status: Status::Late, replayed: false, decision },
                )
            }
        }
    }

    /// The next attempt, begun by its report.
    fn implicit(
        &self,
        mut step: Step,
        name: Name,
        failure: Option<&Failed>,
        at: u64,
        drawn: Drawn,
    ) -> (Option<Step>, Observed) {
        let Place::Waiting(_) = step.place else {
            let latest = step.attempts();
            return step.stale(latest, at);
        };
        let ran = failure.and_then(|failure| failure.ran).unwrap_or(0);
        let before =
            step.tries.last().and_then(|attempt| attempt.end.as_ref()).map_or(0, |end| end.at);
        let began_at = (at - ran).max(before);
        let host = failure.map(|failure| failure.host.clone()).unwrap_or_default();
        (step.later, step.is_ordered) = (None, false);
        let began_with = step.counts();
        step.tries.push(Try {
            fence: 0,
            began_at,
            begun_by: None,
            host,
            lease: 0,
            heard_at: at,
            has_moved: false,
            began_with,
            end: None,
        });
        self.end(step, request_of(name), failure, at, drawn)
    }

    /// Ends the running attempt by a report.
    fn end(
        &self,
        mut step: Step,
        request: Option<u64>,
        failure: Option<&Failed>,
        at: u64,
        drawn: Drawn,
    ) -> (Option<Step>, Observed) {
        let attempt = step.attempts();
        let said = Some((request, failure.cloned()));
        let decision = match failure {
            None => {
                let pending = step.decision("DONE", None, "SUCCEEDED", "", at);
                step.latest().end = Some(End {
                    at,
                    outcome: "SUCCESS".to_owned(),
                    class: "",
                    said,
                    late: false,
                    healthy: false,
                    counted: None,
                    waited: None,
                    decision: pending,
                });
                step.succeed(at)
            }
            Some(failed) => {
                let latest = step.latest();
                if !failed.host.is_empty() {
                    latest.host.clone_from(&failed.host);
                }
                let ran = failed.ran.unwrap_or(at - latest.began_at);
                step.resume_from.clone_from(&failed.action);
                self.fail(&mut step, failed, failed.class, said, ran, at, drawn)
            }
        };
        (
            Some(step),
            Observed::Reported { attempt, status: Status::Recorded, replayed: false, decision },
        )
    }

    fn tick(&self, known: Option<Step>, at: u64, drawn: Drawn) -> (Option<Step>, Observed) {
        let Some(mut step) = known else { return (None, Observed::Ticked) };
        match &step.place {
            Place::Running(until) if *until <= at => {
                let latest = step.latest();
                let known_alive = latest.heard_at - latest.began_at;
                self.fail(&mut step, &Failed::of("CRASH"), "CRASH", None, known_alive, at, drawn);
            }
            Place::Stopping(until, stop) if *until <= at => {
                step.later = Some(stop.clone());
                step.place = Place::Over("FAILED", at + NAMESPACE.retention);
            }
            Place::Held { until: Some(until), terms, .. } if *until <= at => {
                let terms = terms.clone();
                step.leave_hold(at);
                let held = step.standing();
                let may_retry = step.manual_retries < terms.manual_max;
                let decision = match terms.default {
                    "SKIP" => {
                        step.place = Place::Over("SKIPPED", at + NAMESPACE.retention);
                        step.decision("DONE", None, "SKIPPED", "", at)
                    }
                    "RETRY" if may_retry => {
                        step.manual_retries += 1;
                        step.place = Place::Waiting(at);
                        step.decision("RETRY", Some(at), "ANSWERED", "", at)
                    }
                    _ => {
                        step.place = Place::Over("FAILED", at + NAMESPACE.retention);
                        match &*held.reason {
                            "HELD_BY_RULE" => step.decision("STOP", None, "RULE", &held.rule, at),
                            _ => step.decision("STOP", None, "RETRIES_SPENT", &held.rule, at),
                        }
                    }
                };
                step.later = Some(decision);
            }
            Place::Waiting(due) if due + NAMESPACE.abandon_after <= at && !step.is_paused() => {
                step.later = Some(step.decision("STOP", None, "ABANDONED", "", at));
                step.place = Place::Over("FAILED", at + NAMESPACE.retention);
            }
            Place::Over(how, purge_at) if *purge_at <= at => {
                if self.run.is_none_or(|run| !run.is_known) {
                    return (None, Observed::Forgotten);
                }
                // As long as its run, which may be tried again by order.
                step.place = Place::Over(how, at + NAMESPACE.retention);
            }
            _ => {}
        }
        (Some(step), Observed::Ticked)
    }

    /// Ends the latest attempt as failed and decides what follows.
    #[expect(clippy::too_many_arguments, reason = "what is known about a failure, once")]
    fn fail(
        &self,
        step: &mut Step,
        failed: &Failed,
        class: &'static str,
        said: Option<(Option<u64>, Option<Failed>)>,
        ran: u64,
        at: u64,
        drawn: Drawn,
    ) -> Seen {
        let ran_long = self.policy.reset_after.is_some_and(|healthy| ran >= healthy);
        let healthy = ran_long || self.policy.reset_on_progress && step.latest().has_moved;
        let undecided = step.decision("STOP", None, "RULE", "", at);
        step.latest().end = Some(End {
            at,
            outcome: class.to_owned(),
            class,
            said,
            late: false,
            healthy,
            counted: None,
            waited: None,
            decision: undecided,
        });
        if step.is_to_stop {
            step.place = Place::Over("CANCELED", at + NAMESPACE.retention);
            let decision = step.decision("STOP", None, "CANCELED", "", at);
            step.latest().end.as_mut().expect("it was just ended").decision = decision.clone();
            return decision;
        }
        let rule = self.policy.rules.iter().find(|rule| {
            let classes: Vec<&str> = step
                .remembered()
                .rev()
                .filter_map(|(_, attempt)| attempt.end.as_ref())
                .map(|end| end.class)
                .collect();
            (rule.fits)(&Facts {
                class,
                http: failed.http,
                exit: failed.exit,
                classes,
                retries: step.counts().retries,
            })
        });
        let verdict = self.verdict(step, failed, class, rule, at, drawn);
        let name = rule.map_or("", |rule| rule.name);
        let decision = self.follow(step, verdict, name, at, drawn);
        step.latest().end.as_mut().expect("it was just ended").decision = decision.clone();
        decision
    }

    /// Worker's never, then rules, then the worker's wish, then the defaults.
    fn verdict(
        &self,
        step: &Step,
        failed: &Failed,
        class: &str,
        rule: Option<&policies::Rule>,
        at: u64,
        drawn: Drawn,
    ) -> Verdict {
        let policy = &self.policy;
        if !failed.retryable {
            return Verdict::Stop("NOT_RETRYABLE");
        }
        if failed.pushback == Some(Pushback::Never) {
            return Verdict::Stop("PUSHBACK_NEVER");
        }
        if self.run_is_over() {
            return Verdict::Stop("RUN_OVER");
        }
        if failed.of_step && self.ignores_steps {
            return Verdict::Stop("STEP_FAILED");
        }
        if policy.kinds.contains(&&*step.kind) {
            return Verdict::Stop("STEP_KIND");
        }
        let wished = failed.wish_retries.or(policy.max_retries);
        let (counter, most, own, spent): (_, _, Option<Waits>, _) =
            match rule.map(|rule| (rule.name, &rule.action)) {
                Some((_, Action::StopNow)) => return Verdict::Stop("RULE"),
                Some((_, Action::Hold(terms))) => return Verdict::Hold(terms.clone()),
                Some((_, Action::Skip)) => return Verdict::Skip,
                Some((name, Action::Retry(Some(most), own))) => {
                    (Counter::Rule(name.to_owned()), Some(*most), *own, "RETRIES_SPENT")
                }
                Some((_, Action::Retry(None, own))) => {
                    (Counter::Retries, wished, *own, "RETRIES_SPENT")
                }
                Some((name, Action::Uncounted(most, own))) => {
                    (Counter::Uncounted(name.to_owned()), Some(*most), *own, "UNCOUNTED_SPENT")
                }
                None if class == "CANCELED" => return Verdict::Stop("CANCELED"),
                None if class == "CRASH" => {
                    (Counter::Crashes, Some(policy.max_crash_retries), None, "CRASHES_SPENT")
                }
                Some((_, Action::StopLater)) | None => {
                    (Counter::Retries, wished, None, "RETRIES_SPENT")
                }
            };
        let stops_later = matches!(rule.map(|rule| &rule.action), Some(Action::StopLater));
        let is_free = failed.unstarted && !stops_later && step.free_in_a_row() < UNSTARTED;
        let (counter, most) = match is_free {
            true => (Counter::Unstarted, None),
            false => (counter, most.map(|most| most + step.extra_retries)),
        };
        let used = step.on(&counter);
        let wish = failed.wish_delay.filter(|_| own.is_none() && !is_free);
        let wait = match wish {
            Some(exactly) => Some((exactly, exactly)),
            None if is_free => Some((0, 0)),
            None => own.unwrap_or(policy.backoff)(used + 1, step.waited_before()),
        };
        let reason = match &counter {
            _ if wish.is_some() => "WISH",
            Counter::Crashes => "CRASHED",
            Counter::Unstarted => "UNSTARTED",
            _ => "BACKOFF",
        };
        let (reason, bounds) = wait
            .map_or((reason, (at, at)), |wait| self.pushed_back(failed, reason, wait, at, drawn));
        if stops_later {
            return Verdict::StopLater("RULE", bounds);
        }
        if most.is_some_and(|most| used >= most) {
            return Verdict::Spent(spent, bounds);
        }
        let counts = step.counts();
        if counts.retries + counts.crashes + counts.by_rule.values().sum::<u32>()
            >= NAMESPACE.retries_ceiling
        {
            return Verdict::Stop("CEILING");
        }
        if wait.is_none() {
            return Verdict::Spent("SCHEDULE_ENDED", (at, at));
        }
        Verdict::Retry { reason, bounds, counter }
    }

    /// The instants between which the next attempt starts. A pushback is a
    /// lower bound; jitter that it would swallow is added on top of it.
    fn pushed_back(
        &self,
        failed: &Failed,
        reason: &'static str,
        wait: (u64, u64),
        at: u64,
        drawn: Drawn,
    ) -> (&'static str, (u64, u64)) {
        let (least, most) = wait;
        let bounds = (at + least, at + most);
        let Some(Pushback::After(asked)) = failed.pushback else { return (reason, bounds) };
        let asked = asked.clamp(self.policy.pushback.0, self.policy.pushback.1);
        if asked > most {
            return ("PUSHBACK", (at + asked, at + asked + (most - least)));
        }
        if asked <= least {
            return (reason, bounds);
        }
        // The wait that was drawn is shorter than the pushback, or it is not.
        let (pushed_to, not_pushed_to) = (at + asked + (asked - least), at + most);
        match drawn {
            Some((_, true)) => ("PUSHBACK", (at + asked, pushed_to)),
            Some((_, false)) => (reason, (at + asked, not_pushed_to)),
            // It does not wait: either may have led past the latest start.
            None => (reason, (at + asked, pushed_to.max(not_pushed_to))),
        }
    }

    fn follow(&self, step: &mut Step, verdict: Verdict, rule: &str, at: u64, drawn: Drawn) -> Seen {
        match verdict {
            Verdict::Retry { reason, bounds, counter } => {
                let bound = self.bound(step, self.policy.max_elapsed, at);
                let latest = bound.map_or(u64::MAX, |(latest, _)| latest);
                let Some(due) =
                    instant((bounds.0, bounds.1.min(latest)), drawn, bounds.1 <= latest)
                else {
                    let reason = bound.map_or("", |(_, reason)| reason);
                    return if reason == "MAX_ELAPSED" {
                        self.exhaust(step, reason, bounds, rule, at, drawn)
                    } else {
                        step.give_up(reason, rule, at)
                    };
                };
                let end = step.latest().end.as_mut().expect("it was just ended");
                end.counted = Some(counter);
                end.waited = Some(due - at);
                step.place = Place::Waiting(due);
                step.decision("RETRY", Some(due), reason, rule, at)
            }
            Verdict::Stop(reason) => step.give_up(reason, rule, at),
            Verdict::Spent(reason, would_start) => {
                self.exhaust(step, reason, would_start, rule, at, drawn)
            }
            Verdict::StopLater(reason, would_start) => {
                step.give_up_later(reason, would_start, rule, at, drawn)
            }
            Verdict::Hold(terms) => step.hold(&terms, "HELD_BY_RULE", "RULE", rule, at),
            Verdict::Skip => {
                step.place = Place::Over("SKIPPED", at + NAMESPACE.retention);
                step.decision("DONE", None, "SKIPPED", rule, at)
            }
        }
    }

    fn exhaust(
        &self,
        step: &mut Step,
        reason: &'static str,
        would_start: (u64, u64),
        rule: &str,
        at: u64,
        drawn: Drawn,
    ) -> Seen {
        match &self.policy.exhausted {
            Exhausted::StopNow => step.give_up(reason, rule, at),
            Exhausted::StopLater => step.give_up_later(reason, would_start, rule, at, drawn),
            Exhausted::Hold(terms) => step.hold(terms, "EXHAUSTED", reason, rule, at),
        }
    }

    /// When the step ends whatever happens, and why.
    fn bound(&self, step: &Step, max_elapsed: Option<u64>, at: u64) -> Option<(u64, &'static str)> {
        bound(step, max_elapsed, self.run.and_then(|run| run.ends_by), at)
    }

    fn heartbeat(
        &self,
        known: Option<Step>,
        fence: u64,
        lease: Option<u64>,
        progress: Option<u64>,
        at: u64,
    ) -> (Option<Step>, Observed) {
        let Some(mut step) = known else { return (None, Observed::Failed(Problem::UnknownStep)) };
        let Place::Running(until) = step.place else { return (Some(step), Observed::Lost) };
        let before = step.progress;
        let latest = step.latest();
        if latest.fence != fence {
            return (Some(step), Observed::Lost);
        }
        latest.heard_at = at;
        let lease_until = until.max(at + lease.unwrap_or(latest.lease));
        if let Some(further) = progress.filter(|progress| before < *progress) {
            latest.has_moved = true;
            step.progress = further;
        }
        step.place = Place::Running(lease_until);
        let cancel = step.is_to_stop || self.run_is_over();
        (Some(step), Observed::Held { lease_until, cancel })
    }

    /// Hosts of failed attempts, the latest first.
    fn excluded(&self, step: &Step, at: u64) -> Vec<(String, bool)> {
        let mut hosts: Vec<(String, bool)> =
            step.hosts_left_out.iter().rev().map(|host| (host.clone(), true)).collect();
        let Some((strictly, decay)) = self.policy.hosts else { return hosts };
        for (_, attempt) in step.remembered().rev() {
            let Some(end) = &attempt.end else { continue };
            let failed = !end.class.is_empty() && end.class != "CANCELED";
            let avoided = strictly || at < end.at + decay;
            if failed
                && avoided
                && !attempt.host.is_empty()
                && !hosts.iter().any(|(host, _)| *host == attempt.host)
            {
                hosts.push((attempt.host.clone(), strictly));
            }
        }
        hosts
    }
}

/// When a step whose run ends then ends whatever happens, and why.
fn bound(
    step: &Step,
    max_elapsed: Option<u64>,
    run_ends_by: Option<u64>,
    at: u64,
) -> Option<(u64, &'static str)> {
    let elapsed = step.tries.get(step.timed_from).map(|first| {
        let (span, reason) = match max_elapsed {
            Some(span) if span <= NAMESPACE.elapsed_ceiling => (span, "MAX_ELAPSED"),
            _ => (NAMESPACE.elapsed_ceiling, "CEILING"),
        };
        (first.began_at + step.stood_still(at) + span, reason)
    });
    let deadlines = step.deadline.into_iter().chain(run_ends_by);
    let deadline = deadlines.min().map(|deadline| (deadline, "DEADLINE"));
    match (elapsed, deadline) {
        (Some(elapsed), Some(deadline)) if deadline.0 < elapsed.0 => Some(deadline),
        (Some(elapsed), _) => Some(elapsed),
        (None, deadline) => deadline,
    }
}

/// Whether two reports are the same one, as far as what they say goes.
fn say_the_same(one: Option<&Failed>, other: Option<&Failed>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => one.says_as(other),
        _ => false,
    }
}

fn request_of(name: Name) -> Option<u64> {
    match name {
        Name::Request(id) => Some(id),
        Name::Fence(_) | Name::Number(_) => None,
    }
}

/// The instant within the bounds: the one that was drawn, if it can have been,
/// and else any one when there `must` be one.
fn instant((least, most): (u64, u64), drawn: Drawn, must: bool) -> Option<u64> {
    if least > most {
        return None;
    }
    let drawn = drawn.map(|(drawn, _)| drawn).filter(|drawn| (least..=most).contains(drawn));
    drawn.or_else(|| must.then_some(least))
}

/// The retries that these attempts were given.
fn counted(tries: &[Try]) -> Counts {
    let mut counts = Counts::default();
    for end in tries.iter().filter_map(|attempt| attempt.end.as_ref()) {
        if end.healthy {
            counts = Counts::default();
        }
        match &end.counted {
            None | Some(Counter::Unstarted) => {}
            Some(Counter::Retries) => counts.retries += 1,
            Some(Counter::Crashes) => counts.crashes += 1,
            Some(Counter::Rule(rule)) => *counts.by_rule.entry(rule.clone()).or_default() += 1,
            Some(Counter::Uncounted(rule)) => {
                counts.uncounted += 1;
                *counts.by_rule.entry(rule.clone()).or_default() += 1;
            }
        }
    }
    counts
}

impl Try {
    /// The request id under which its end was reported.
    fn reported_as(&self) -> Option<u64> {
        self.end.as_ref()?.said.as_ref()?.0
    }
}

impl Step {
    fn new(at: u64) -> Self {
        Self {
            tries: Vec::new(),
            place: Place::Waiting(at),
            kind: String::new(),
            deadline: None,
            holds: Vec::new(),
            pauses: Vec::new(),
            orders: Vec::new(),
            is_ordered: false,
            is_to_stop: false,
            hosts_left_out: Vec::new(),
            manual_retries: 0,
            extra_retries: 0,
            counted_from: 0,
            timed_from: 0,
            timed_since: 0,
            progress: 0,
            of_run: 0,
            is_not_retried: false,
            resume_from: String::new(),
            later: None,
        }
    }

    /// One whose first attempt this report can begin. A run is then without a policy.
    fn unheard_of(name: Name, is_run: bool, at: u64) -> Option<Self> {
        let begins = matches!(name, Name::Number(1) | Name::Request(_));
        begins.then(|| Self { is_not_retried: is_run, ..Self::new(at) })
    }

    fn is_overdue(&self, at: u64) -> bool {
        match &self.place {
            Place::Running(until) | Place::Stopping(until, _) => *until <= at,
            Place::Held { until, .. } => until.is_some_and(|until| until <= at),
            Place::Waiting(_) | Place::Over(..) => false,
        }
    }

    fn attempts(&self) -> u32 {
        self.tries.len() as u32
    }

    fn latest(&mut self) -> &mut Try {
        self.tries.last_mut().expect("an attempt was begun")
    }

    /// The latest attempts, with their places in the list.
    fn remembered(&self) -> impl DoubleEndedIterator<Item = (usize, &Try)> {
        let forgotten = self.tries.len().saturating_sub(REMEMBERED);
        (forgotten..self.tries.len()).map(|index| (index, &self.tries[index]))
    }

    /// The place of the latest remembered attempt that fits.
    fn place_of(&self, fits: impl Fn(usize, &Try) -> bool) -> Option<usize> {
        self.remembered()
            .rev()
            .find(|(index, attempt)| fits(*index, attempt))
            .map(|(index, _)| index)
    }

    /// The answer to a begin that was answered with a grant before.
    fn begun_before(&self, request: u64, said: &Begin) -> Option<Observed> {
        let index = self.place_of(|_, attempt| {
            attempt.begun_by.as_ref().is_some_and(|(id, _)| *id == request)
        })?;
        let attempt = &self.tries[index];
        if attempt.begun_by.as_ref().is_some_and(|(_, before)| !before.says_as(said)) {
            return Some(Observed::Failed(Problem::IdentityReused));
        }
        Some(Observed::Granted(Granted {
            attempt: index as u32 + 1,
            fence: attempt.fence,
            began_at: attempt.began_at,
            lease_until: match (&attempt.end, &self.place) {
                (Some(end), _) => end.at,
                (None, Place::Running(until)) => *until,
                (None, _) => unreachable!("an attempt without an end runs"),
            },
            replayed: true,
            excluded_hosts: Vec::new(),
            ends_by: None,
            counters: attempt.began_with.clone(),
        }))
    }

    /// Counts everything, from the first attempt that counts.
    fn counts(&self) -> Counts {
        Counts { attempts: self.attempts(), ..counted(&self.tries[self.counted_from..]) }
    }

    /// How many attempts before the latest, in a row, were not counted.
    fn free_in_a_row(&self) -> usize {
        let ends = self.remembered().rev().skip(1).map(|(_, attempt)| attempt.end.as_ref());
        ends.take_while(|end| end.is_some_and(|end| end.counted == Some(Counter::Unstarted)))
            .count()
    }

    fn on(&self, counter: &Counter) -> u32 {
        let counts = self.counts();
        match counter {
            Counter::Retries => counts.retries,
            Counter::Crashes => counts.crashes,
            Counter::Unstarted => 0,
            Counter::Rule(rule) | Counter::Uncounted(rule) => {
                counts.by_rule.get(rule).copied().unwrap_or(0)
            }
        }
    }

    /// The wait before the latest retry; zero when there was none since the
    /// counters were last reset.
    fn waited_before(&self) -> u64 {
        let ends: Vec<&End> = self.tries[self.counted_from..]
            .iter()
            .filter_map(|attempt| attempt.end.as_ref())
            .collect();
        let since = ends.iter().rposition(|end| end.healthy).unwrap_or(0);
        ends[since..].iter().rev().find_map(|end| end.waited).unwrap_or(0)
    }

    fn decision(
        &self,
        verdict: &'static str,
        at: Option<u64>,
        reason: &str,
        rule: &str,
        decided_at: u64,
    ) -> Seen {
        Seen {
            verdict,
            at,
            reason: reason.to_owned(),
            rule: rule.to_owned(),
            counters: self.counts(),
            decided_at,
            hold_answers: Vec::new(),
        }
    }

    fn wait(&self, reason: &str, until: Option<u64>, at: u64) -> Seen {
        self.decision("WAIT", until, reason, "", at)
    }

    fn standing(&self) -> Seen {
        let made = self.later.clone().or_else(|| {
            self.tries
                .iter()
                .rev()
                .find_map(|attempt| attempt.end.as_ref())
                .map(|end| end.decision.clone())
        });
        let mut made = made.expect("a decision was made");
        made.hold_answers.clear();
        if let Place::Held { terms, .. } = &self.place {
            made.hold_answers = self.answers_left(terms);
        }
        made
    }

    fn stale(self, attempt: u32, at: u64) -> (Option<Self>, Observed) {
        let decision = match self.place {
            Place::Running(until) => self.wait("IN_PROGRESS", Some(until), at),
            _ => self.standing(),
        };
        (
            Some(self),
            Observed::Reported { attempt, status: Status::Stale, replayed: false, decision },
        )
    }

    fn succeed(&mut self, at: u64) -> Seen {
        self.later = None;
        self.resume_from.clear();
        self.place = Place::Over("SUCCEEDED", at + NAMESPACE.retention);
        let done = self.decision("DONE", None, "SUCCEEDED", "", at);
        self.latest().end.as_mut().expect("it has ended").decision = done.clone();
        done
    }

    fn give_up(&mut self, reason: &str, rule: &str, at: u64) -> Seen {
        self.place = Place::Over("FAILED", at + NAMESPACE.retention);
        self.decision("STOP", None, reason, rule, at)
    }

    fn give_up_later(
        &mut self,
        reason: &str,
        would_start: (u64, u64),
        rule: &str,
        at: u64,
        drawn: Drawn,
    ) -> Seen {
        let until = instant(would_start, drawn, true).unwrap_or(would_start.0);
        self.place = Place::Stopping(until, self.decision("STOP", None, reason, rule, at));
        self.decision("WAIT", Some(until), "STOPPING", rule, at)
    }

    /// What a person may answer by now: counters that began anew allow retries again.
    fn answers_left(&self, terms: &Terms) -> Vec<String> {
        let may_retry = self.manual_retries < terms.manual_max;
        let is_left = |answer: &&&str| may_retry || !matches!(**answer, "RETRY" | "EXCLUDE_HOST");
        terms.allowed.iter().filter(is_left).map(ToString::to_string).collect()
    }

    /// A person decides, if there is anything left to decide.
    fn hold(&mut self, terms: &Terms, held: &str, otherwise: &str, rule: &str, at: u64) -> Seen {
        let allowed = self.answers_left(terms);
        if allowed.is_empty() {
            return self.give_up(otherwise, rule, at);
        }
        let until = terms.timeout.map(|timeout| at + timeout);
        let mut decision = self.decision("HOLD", until, held, rule, at);
        decision.hold_answers = allowed;
        self.place = Place::Held { since: at, until, terms: terms.clone() };
        decision
    }

    fn view(&self) -> View {
        let (state, next_at) = match &self.place {
            Place::Waiting(due) => ("WAITING", Some(*due)),
            Place::Stopping(until, _) => ("WAITING", Some(*until)),
            Place::Running(until) => ("RUNNING", Some(*until)),
            Place::Held { until, .. } => ("HELD", *until),
            Place::Over(how, _) => (*how, None),
        };
        View {
            state,
            next_at,
            counters: self.counts(),
            attempts: self
                .remembered()
                .map(|(index, attempt)| {
                    (
                        index as u32 + 1,
                        attempt.end.as_ref().map_or(String::new(), |end| end.outcome.clone()),
                    )
                })
                .collect(),
            decision: (state != "RUNNING")
                .then(|| Seen { hold_answers: Vec::new(), ..self.standing() }),
            resume_from: self.resume_from.clone(),
            progress: self.progress,
            extra_retries: self.extra_retries,
            is_to_stop: self.is_to_stop,
        }
    }
}
