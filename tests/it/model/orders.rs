//! What operators order, as the model has it.

use super::{Model, NAMESPACE, Place, Step, bound};
use crate::history::{Observed, Problem, Wanted};

/// Orders that a step remembers.
const REMEMBERED: usize = 4;

/// An order that was carried out.
pub struct Done {
    request: u64,
    wanted: Wanted,
    after: &'static str,
}

impl Model {
    pub(super) fn order(
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
        let observed = match step.carry_out(wanted, at) {
            Ok(()) => {
                let after = step.stage();
                step.orders.push(Done { request, wanted, after });
                Observed::Ordered { after, replayed: false }
            }
            Err(why) => Observed::Failed(Problem::Order(why)),
        };
        (Some(step), observed)
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

    fn carry_out(&mut self, wanted: Wanted, at: u64) -> Result<(), &'static str> {
        match (wanted, self.stage()) {
            (Wanted::Resolve(answer), "HELD") => self.resolve(answer, at),
            (Wanted::Retry, "HELD") => self.resolve("RETRY", at),
            (Wanted::Skip, "HELD") => self.resolve("SKIP", at),
            (Wanted::Resolve(_), _) => Err("not held"),
            (Wanted::Retry | Wanted::Skip, "RUNNING") => Err("in progress"),
            (Wanted::Retry | Wanted::Skip, "SUCCEEDED") | (Wanted::Skip, "SKIPPED") => Err("over"),
            (Wanted::Retry, _) => {
                self.before_its_bounds(at)?;
                self.try_now("ORDERED", at);
                Ok(())
            }
            (Wanted::Skip, _) => {
                self.end_by_order("SKIPPED", "DONE", "SKIPPED", at);
                Ok(())
            }
            (
                Wanted::Cancel | Wanted::Pause | Wanted::Resume,
                "SUCCEEDED" | "FAILED" | "SKIPPED" | "CANCELED",
            ) => Err("over"),
            (Wanted::Cancel, "RUNNING") => {
                self.is_to_stop = true;
                Ok(())
            }
            (Wanted::Cancel, _) => {
                self.leave_hold(at);
                self.end_by_order("CANCELED", "STOP", "CANCELED", at);
                Ok(())
            }
            (Wanted::Pause, _) => {
                if !self.is_paused() {
                    self.pauses.push((at, None));
                }
                Ok(())
            }
            (Wanted::Resume, _) => {
                if !self.is_paused() {
                    return Err("not paused");
                }
                self.end_pause(at);
                if let Place::Waiting(due) = &mut self.place {
                    *due = at.max(*due);
                }
                Ok(())
            }
        }
    }

    fn resolve(&mut self, answer: &'static str, at: u64) -> Result<(), &'static str> {
        let Place::Held { terms, .. } = &self.place else { return Err("not held") };
        let is_retry = matches!(answer, "RETRY" | "EXCLUDE_HOST");
        if is_retry && terms.manual_max <= self.manual_retries {
            return Err("spent");
        }
        if !terms.allowed.contains(&answer) {
            return Err("not allowed");
        }
        if is_retry {
            self.before_its_bounds(at)?;
            if answer == "EXCLUDE_HOST" {
                let host = self.latest().host.clone();
                if host.is_empty() {
                    return Err("host unknown");
                }
                if !self.hosts_left_out.contains(&host) {
                    self.hosts_left_out.push(host);
                }
            }
            self.leave_hold(at);
            self.manual_retries += 1;
            self.try_now("ANSWERED", at);
            return Ok(());
        }
        self.leave_hold(at);
        match answer {
            "SKIP" => self.end_by_order("SKIPPED", "DONE", "SKIPPED", at),
            _ => self.end_by_order("FAILED", "STOP", "GIVEN_UP", at),
        }
        Ok(())
    }

    fn before_its_bounds(&self, at: u64) -> Result<(), &'static str> {
        match bound(self, None) {
            Some((latest, _)) if latest < at => Err("past bound"),
            _ => Ok(()),
        }
    }

    fn try_now(&mut self, reason: &str, at: u64) {
        self.place = Place::Waiting(at);
        self.later = Some(self.decision("RETRY", Some(at), reason, "", at));
        self.is_ordered = true;
    }

    fn end_by_order(&mut self, how: &'static str, verdict: &'static str, reason: &str, at: u64) {
        self.place = Place::Over(how, at + NAMESPACE.retention);
        self.later = Some(self.decision(verdict, None, reason, "", at));
    }

    /// A hold that is over: from when until when it was.
    pub(super) fn leave_hold(&mut self, at: u64) {
        if let Place::Held { since, .. } = self.place {
            self.holds.push((since, at));
        }
    }

    pub(super) fn is_paused(&self) -> bool {
        self.pauses.last().is_some_and(|(_, end)| end.is_none())
    }

    pub(super) fn end_pause(&mut self, at: u64) {
        if let Some((_, end @ None)) = self.pauses.last_mut() {
            *end = Some(at);
        }
    }

    /// How long its time has stood still by now: while it was held, and while it was
    /// paused; never both at once. A hold counts when it is over.
    pub(super) fn stood_still(&self) -> u64 {
        let open = match self.place {
            Place::Held { since, .. } => since,
            _ => u64::MAX,
        };
        let pauses = self.pauses.iter().map(|(since, end)| {
            let end = end.unwrap_or(self.seen_at).min(open);
            (*since.min(&end), end)
        });
        let mut spans: Vec<(u64, u64)> = self.holds.iter().copied().chain(pauses).collect();
        spans.sort_unstable();
        let (mut total, mut to) = (0, 0);
        for (since, end) in spans {
            total += end.saturating_sub(since.max(to));
            to = to.max(end);
        }
        total
    }
}
