//! What followed a failure, beside what a vector expects.

use super::{
    meaning::Meaning,
    run::guidance,
    stage::{Told, instant},
    vector::{Expected, Failed},
};
use crate::{
    dialect::System,
    domain::{
        decision::{Settled, Verdict},
        failure::FailureClass,
        time::micros,
    },
};

/// What followed a failure.
pub struct Followed {
    /// The decision in the end: after a wait for it, and a person's answer.
    pub settled: Settled,
    /// What was answered to the failure.
    pub told: Told,
    /// Seconds until the verdict was given, if not at once.
    pub decided_after: Option<f64>,
    /// Whether a person was asked.
    pub was_held: bool,
    /// How the attempt failed, as the record has it.
    pub class: Option<FailureClass>,
}

/// A failure with what followed and what is expected.
pub struct Comparison<'a> {
    /// The system.
    pub system: System,
    /// The failure.
    pub failed: &'a Failed,
    /// What the vector expects.
    pub expected: &'a Expected,
    /// What followed.
    pub followed: &'a Followed,
    /// What a further run begins with, where runs are retried.
    pub resume: Option<&'static str>,
}

impl Comparison<'_> {
    /// Says the first thing that is otherwise. `exact` ranges are the jitter's
    /// own; others are what may happen.
    pub fn check(&self, exact: bool) -> Result<(), String> {
        self.verdict()?;
        self.delay(exact)?;
        self.moment()?;
        self.reason()?;
        self.bounds()?;
        self.guidance()?;
        let phase = self.phase();
        let resume_from = self.followed.told.decision.resume_from.as_str();
        let expected = self.expected;
        same("terminal_phase", phase, expected.terminal_phase.as_deref())?;
        same("strategy", self.resume, expected.strategy.as_deref())?;
        same("resume_from", Some(resume_from), expected.resume_from.as_deref())
    }

    /// A reason that is in no table, and so was not compared. Why something is
    /// retried is mostly told in prose.
    pub fn reason_unknown(&self) -> Option<String> {
        let reason = self.expected.reason.as_deref().filter(|_| !self.expected.retry)?;
        let meaning = Meaning::of(self.system, reason, self.failed);
        meaning.is_none().then(|| format!("reason {reason:?}"))
    }

    fn verdict(&self) -> Result<(), String> {
        let settled = &self.followed.settled;
        if matches!(settled.verdict, Verdict::Retry(_)) == self.expected.retry {
            return Ok(());
        }
        let verdict = match settled.verdict {
            Verdict::Retry(_) => "a retry",
            Verdict::Wait(_) => "a wait",
            Verdict::Stop => "a stop",
            Verdict::Hold(_) => "a hold",
            Verdict::Done => "done",
        };
        let expected = if self.expected.retry { "a retry" } else { "no retry" };
        Err(format!("{verdict} ({}), expected {expected}", settled.reason.sentence()))
    }

    fn delay(&self, exact: bool) -> Result<(), String> {
        let Verdict::Retry(at) = self.followed.settled.verdict else { return Ok(()) };
        let drawn = (at - instant(self.failed.at_s)).as_secs_f64();
        let window = self.followed.told.window.filter(|_| !self.followed.was_held);
        let (least, most) = window
            .map_or((drawn, drawn), |window| (window.min.as_secs_f64(), window.max.as_secs_f64()));
        let waits = if close(least, most) {
            format!("waits {least} s")
        } else {
            format!("waits {least} to {most} s")
        };
        if let Some(delay) = self.expected.delay_s
            && !(close(least, delay) && close(most, delay))
        {
            return Err(format!("{waits}, expected {delay} s"));
        }
        let Some([low, high]) = self.expected.delay_range_s else { return Ok(()) };
        let inside = |delay: f64| {
            (delay >= low || close(delay, low)) && (delay <= high || close(delay, high))
        };
        let is_same = close(least, low) && close(most, high);
        if !inside(least) || !inside(most) || (exact && !is_same) {
            return Err(format!("{waits}, expected {low} to {high} s"));
        }
        // Instants have an end; what is beyond it was compared above.
        let has_instant = window.is_none_or(|window| micros(window.max) < u64::MAX / 4);
        if has_instant && !inside(drawn) {
            return Err(format!("waits {drawn} s, outside its own window"));
        }
        Ok(())
    }

    /// When the verdict is given.
    fn moment(&self) -> Result<(), String> {
        match (self.expected.decided_after_s, self.followed.decided_after) {
            (None, None) => Ok(()),
            (Some(expected), Some(after)) if close(after, expected) => Ok(()),
            (expected, after) => {
                let seconds = |after: Option<f64>| {
                    after.map_or("at once".to_owned(), |after| format!("after {after} s"))
                };
                Err(format!("decided {}, expected {}", seconds(after), seconds(expected)))
            }
        }
    }

    fn reason(&self) -> Result<(), String> {
        let Some(reason) = self.expected.reason.as_deref() else { return Ok(()) };
        let settled = &self.followed.settled;
        match Meaning::of(self.system, reason, self.failed) {
            Some(meaning) if !meaning.is_of(settled, self.followed.told.counted) => {
                let rule = settled.rule.as_ref().map_or("no rule", |rule| rule.as_str());
                Err(format!("the reason is {:?} ({rule}), expected {reason:?}", settled.reason))
            }
            _ => Ok(()),
        }
    }

    /// The phase in which Argo's node ends: that of its last child.
    fn phase(&self) -> Option<&str> {
        self.followed.class.map(|class| match class {
            FailureClass::Error | FailureClass::Crash => "Error",
            // What a shutdown ends keeps the phase that it had.
            FailureClass::Canceled => self.failed.class.as_str(),
            _ => "Failed",
        })
    }

    /// What the next attempt is held to.
    fn bounds(&self) -> Result<(), String> {
        let decision = &self.followed.told.decision;
        if let Some(by) = self.expected.next_attempt_deadline_s
            && decision.ends_by != Some(instant(by))
        {
            let ends_by = decision.ends_by.map_or("never".to_owned(), |at| at.to_string());
            return Err(format!("the next attempt ends by {ends_by}, expected {by} s"));
        }
        let Some(hosts) = &self.expected.excluded_hosts else { return Ok(()) };
        let excluded: Vec<&str> = decision.excluded_hosts.iter().map(|host| &*host.host).collect();
        let is_missing = |host: &String| !excluded.contains(&host.as_str());
        if excluded.len() != hosts.len() || hosts.iter().any(is_missing) {
            return Err(format!("excluded hosts are {excluded:?}, expected {hosts:?}"));
        }
        Ok(())
    }

    /// What becomes of the step, and what a person may answer.
    fn guidance(&self) -> Result<(), String> {
        let expected = self.expected;
        let action = match self.followed.settled.verdict {
            _ if self.followed.was_held && expected.retry => "await_guidance",
            Verdict::Hold(_) => "await_guidance",
            Verdict::Done => "ignore",
            Verdict::Retry(_) => "retry",
            Verdict::Stop | Verdict::Wait(_) => "fail",
        };
        let is_exclusion = |wanted: &str| wanted.to_lowercase().contains("exclude");
        // Excluding a machine ends its step, and the others go on.
        let wanted = expected.action.as_deref();
        let wanted = wanted.map(|wanted| if is_exclusion(wanted) { "ignore" } else { wanted });
        same("action", Some(action), wanted)?;
        let Some(allowed) = &expected.allowed_guidance else { return Ok(()) };
        let wanted: Result<Vec<_>, _> = allowed.iter().map(|name| guidance(name)).collect();
        let (mut wanted, mut offered) = (wanted?, self.followed.told.decision.hold_answers.clone());
        wanted.sort_by_key(|answer| answer.name());
        offered.sort_by_key(|answer| answer.name());
        if offered == wanted {
            return Ok(());
        }
        Err(format!("allowed guidance is {offered:?}, expected {wanted:?}"))
    }
}

fn same(what: &str, is: Option<&str>, expected: Option<&str>) -> Result<(), String> {
    match expected {
        Some(expected) if is != Some(expected) => {
            Err(format!("{what} is {}, expected {expected}", is.unwrap_or("none")))
        }
        _ => Ok(()),
    }
}

/// Equal to the microsecond, or as well as a number can say.
fn close(one: f64, other: f64) -> bool {
    let tolerance = 1.5e-6_f64.max(one.abs().max(other.abs()) * 1e-12);
    (one - other).abs() <= tolerance
}
