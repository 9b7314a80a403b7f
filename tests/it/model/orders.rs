//! What operators order, as the model has it.

use super::{Judge, NAMESPACE, Place, Step};
use crate::history::{Observed, Problem, Wanted};

/// Orders that a step remembers.
const REMEMBERED: usize = 4;

/// An order that was carried out.
#[derive(Clone)]
pub struct Done {
    request: u64,
    wanted: Wanted,
    after: &'static str,
}

/// Time in which nothing of a step starts.
#[derive(Clone)]
pub struct Pause {
    since: u64,
    /// When it ends by itself.
    until: Option<u64>,
    /// When it was found to have ended.
    end: Option<u64>,
}

impl Judge<'_> {
    pub(super) fn order(
        &self,
        known: Option<Step>,
        request: u64,
        wanted: Wanted,
        at: u64,
    ) -> (Option<Step>, Observed) {
        let Some(mut step) = known else { return (None, Observed::Failed(Problem::UnknownStep)) };
        let before = step.orders.iter().rev().take(REMEMBERED).find(|done| done.request == request);
        if let Some(done) = before {
            let observed = if done.wanted == wanted {
                Observed::Ordered { after: done.after, replayed: true }
            } else {
                Observed::Failed(Problem::IdentityReused)
            };
            return (Some(step), observed);
        }
        let observed = match self.carry_out(&mut step, wanted, at) {
            Ok(()) => {
                let after = step.stage();
                step.orders.push(Done { request, wanted, after });
                Observed::Ordered { after, replayed: false }
            }
            Err(why) => Observed::Failed(Problem::Order(why)),
        };
        (Some(step), observed)
    }

    fn carry_out(&self, step: &mut Step, wanted: Wanted, at: u64) -> Result<(), &'static str> {
        match (wanted, step.stage()) {
            (Wanted::Resolve(answer), "HELD") => self.resolve(step, answer, at),
            (Wanted::Retry, "HELD") => self.resolve(step, "RETRY", at),
            (Wanted::Skip, "HELD") => self.resolve(step, "SKIP", at),
            (Wanted::Fail, "HELD") => self.resolve(step, "FAIL", at),
            (Wanted::Resolve(_), _) => Err("not held"),
            (Wanted::Retry | Wanted::Skip | Wanted::Succeed | Wanted::Fail, "RUNNING") => {
                Err("in progress")
            }
            (
                Wanted::Fail | Wanted::Cancel | Wanted::Pause(_) | Wanted::Resume,
                "SUCCEEDED" | "FAILED" | "SKIPPED" | "CANCELED",
            )
            | (Wanted::Skip, "SKIPPED")
            | (_, "SUCCEEDED") => Err("over"),
            (Wanted::Retry, _) => {
                self.before_its_bounds(step, at)?;
                step.try_now("ORDERED", at);
                Ok(())
            }
            (Wanted::Skip, _) => step.end_by_order("SKIPPED", "DONE", "SKIPPED", at),
            (Wanted::Fail, _) => step.end_by_order("FAILED", "STOP", "GIVEN_UP", at),
            (Wanted::Succeed, _) => {
                step.resume_from.clear();
                step.end_by_order("SUCCEEDED", "DONE", "SUCCEEDED", at)
            }
            (Wanted::Cancel, "RUNNING") => {
                step.is_to_stop = true;
                Ok(())
            }
            (Wanted::Cancel, _) => step.end_by_order("CANCELED", "STOP", "CANCELED", at),
            (Wanted::Reset, _) => {
                step.begin_counters_anew();
                Ok(())
            }
            (Wanted::Extend(retries, time_left), _) => step.extend(retries, time_left, at),
            (Wanted::Pause(span), _) => {
                step.pause(span.map(|span| at + span), at);
                Ok(())
            }
            (Wanted::Resume, _) => step.resume(at),
        }
    }

    fn resolve(&self, step: &mut Step, answer: &'static str, at: u64) -> Result<(), &'static str> {
        let Place::Held { terms, .. } = &step.place else { return Err("not held") };
        let is_retry = matches!(answer, "RETRY" | "EXCLUDE_HOST");
        if is_retry && terms.manual_max <= step.manual_retries {
            return Err("spent");
        }
        if !terms.allowed.contains(&answer) {
            return Err("not allowed");
        }
        if !is_retry {
            return match answer {
                "SKIP" => step.end_by_order("SKIPPED", "DONE", "SKIPPED", at),
                _ => step.end_by_order("FAILED", "STOP", "GIVEN_UP", at),
            };
        }
        self.before_its_bounds(step, at)?;
        if answer == "EXCLUDE_HOST" {
            let host = step.latest().host.clone();
            if host.is_empty() {
                return Err("host unknown");
            }
            if !step.hosts_left_out.contains(&host) {
                step.hosts_left_out.push(host);
            }
        }
        step.leave_hold(at);
        step.manual_retries += 1;
        step.try_now("ANSWERED", at);
        Ok(())
    }

    /// Nothing is tried again past what no order extends, nor when the run is over.
    fn before_its_bounds(&self, step: &Step, at: u64) -> Result<(), &'static str> {
        match self.bound(step, None, at) {
            _ if self.run_is_over() => Err("past bound"),
            Some((latest, _)) if latest < at => Err("past bound"),
            _ => Ok(()),
        }
    }
}

impl Step {
    fn stage(&self) -> &'static str {
        match &self.place {
            Place::Waiting(_) => "WAITING",
            Place::Stopping(..) => "STOPPING",
            Place::Running(_) => "RUNNING",
            Place::Held { .. } => "HELD",
            Place::Over(how, _) => how,
        }
    }

    /// Numbers go on.
    pub(super) fn begin_counters_anew(&mut self) {
        let is_running = self.tries.last().is_some_and(|latest| latest.end.is_none());
        self.counted_from = self.tries.len() - usize::from(is_running);
        self.manual_retries = 0;
    }

    /// With the next attempt begins the time that `max_elapsed` bounds.
    pub(super) fn begin_time_anew(&mut self, at: u64) {
        (self.timed_from, self.timed_since) = (self.tries.len(), at);
    }

    fn extend(
        &mut self,
        retries: u32,
        time_left: Option<u64>,
        at: u64,
    ) -> Result<(), &'static str> {
        if let Some(left) = time_left {
            let deadline = self.deadline.as_mut().ok_or("no deadline")?;
            if at + left <= *deadline {
                return Err("not later");
            }
            *deadline = at + left;
        }
        self.extra_retries += retries;
        Ok(())
    }

    /// One that is paused keeps the beginning of its pause, and takes the rest.
    fn pause(&mut self, until: Option<u64>, at: u64) {
        match self.pauses.last_mut() {
            Some(pause) if pause.end.is_none() => pause.until = until,
            _ => self.pauses.push(Pause { since: at, until, end: None }),
        }
    }

    fn resume(&mut self, at: u64) -> Result<(), &'static str> {
        if !self.is_paused() {
            return Err("not paused");
        }
        self.end_pause(at);
        Ok(())
    }

    pub(super) fn try_now(&mut self, reason: &str, at: u64) {
        self.place = Place::Waiting(at);
        self.later = Some(self.decision("RETRY", Some(at), reason, "", at));
        self.is_ordered = true;
    }

    fn end_by_order(
        &mut self,
        how: &'static str,
        verdict: &'static str,
        reason: &str,
        at: u64,
    ) -> Result<(), &'static str> {
        self.leave_hold(at);
        self.place = Place::Over(how, at + NAMESPACE.retention);
        self.later = Some(self.decision(verdict, None, reason, "", at));
        Ok(())
    }

    /// A hold that is over: from when until when it was.
    pub(super) fn leave_hold(&mut self, at: u64) {
        if let Place::Held { since, .. } = self.place {
            self.holds.push((since, at));
        }
    }

    pub(super) fn is_paused(&self) -> bool {
        self.pauses.last().is_some_and(|pause| pause.end.is_none())
    }

    /// When its pause ends by itself.
    pub(super) fn paused_until(&self) -> Option<u64> {
        self.pauses.last().and_then(|pause| pause.until)
    }

    /// What was due in a pause is due when it ends.
    pub(super) fn end_pause(&mut self, at: u64) {
        if let Some(pause) = self.pauses.last_mut().filter(|pause| pause.end.is_none()) {
            pause.end = Some(at);
            if let Place::Waiting(due) = &mut self.place {
                *due = at.max(*due);
            }
        }
    }

    /// A pause whose time is up has ended.
    pub(super) fn reach(&mut self, at: u64) {
        let open = self.pauses.last().filter(|pause| pause.end.is_none());
        if let Some(until) = open.and_then(|pause| pause.until).filter(|until| *until <= at) {
            self.end_pause(until);
        }
    }

    /// How long its time has stood still by now: while it was held, and while it was
    /// paused; never both at once. A hold counts when it is over.
    pub(super) fn stood_still(&self, at: u64) -> u64 {
        let open = match self.place {
            Place::Held { since, .. } => since,
            _ => u64::MAX,
        };
        let pauses = self.pauses.iter().map(|Pause { since, until, end }| {
            let end = end.unwrap_or(until.map_or(at, |until| until.min(at))).min(open);
            (*since.min(&end), end)
        });
        let mut spans: Vec<(u64, u64)> = self.holds.iter().copied().chain(pauses).collect();
        spans.sort_unstable();
        let (mut total, mut to) = (0, self.timed_since);
        for (since, end) in spans {
            total += end.saturating_sub(since.max(to));
            to = to.max(end);
        }
        total
    }
}
