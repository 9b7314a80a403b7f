//! One vector: imported faithfully, decided on virtual time, compared.

use super::{
    meaning::Meaning,
    report,
    stage::{START, Stage, Told, instant},
    vector::{Expected, Failed, Vector},
};
use crate::{
    config::problem::Problems,
    dialect::{self, ImportedPolicy, Reading, System, Unit},
    domain::{
        decision::{Reason, Settled, Verdict},
        failure::{Failure, FailureClass},
        policy::{
            Policy,
            spec::{HoldAnswer, PolicySpec},
        },
        time::{Timestamp, micros},
    },
};

/// How a vector went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As expected.
    Met,
    /// Not as expected, and what was otherwise.
    Missed(String),
    /// Nothing here could decide it, and why.
    OutOfScope(String),
}

/// What came of a vector, and what was not compared.
#[derive(Clone, Debug)]
pub struct Ran {
    /// How it went.
    pub outcome: Outcome,
    /// What the vector expects beyond what is compared.
    pub uncompared: Vec<String>,
}

/// Runs a vector.
pub fn run(vector: &Vector) -> Ran {
    let mut uncompared = Vec::new();
    let outcome = match System::from_name(&vector.system) {
        None => {
            let reason = format!("there is no dialect of {:?}", vector.system);
            Outcome::OutOfScope(reason)
        }
        Some(system) => match (Case { system, vector, uncompared: &mut uncompared }).run() {
            Ok(()) => Outcome::Met,
            Err(missed) => Outcome::Missed(missed),
        },
    };
    Ran { outcome, uncompared }
}

/// A vector of a system that is known.
struct Case<'a> {
    system: System,
    vector: &'a Vector,
    uncompared: &'a mut Vec<String>,
}

/// What followed a failure.
struct Followed {
    settled: Settled,
    told: Told,
    /// When the verdict was given, if not at once.
    decided_after: Option<f64>,
    /// Whether a person was asked.
    was_held: bool,
    class: Option<FailureClass>,
}

/// The policies that decide.
struct Policies {
    step: Option<Policy>,
    run: Option<(Policy, &'static str)>,
}

impl Case<'_> {
    fn run(&mut self) -> Result<(), String> {
        let (failures, expected) = (&self.vector.failures, &self.vector.expected);
        if failures.len() != expected.len() {
            return Err(format!("{} failures, {} expected", failures.len(), expected.len()));
        }
        for (number, (failed, expected)) in (1..).zip(failures.iter().zip(expected)) {
            for (key, value) in failed.unknown.iter().chain(&expected.unknown) {
                self.uncompared.push(format!("failure {number}: {key}: {value}"));
            }
        }
        let config = self.config();
        match dialect::import(self.system, Reading::Faithful, "config", &config) {
            Err(problems) => self.refused(&problems),
            Ok(imported) => self.decide(&policies(&imported.policies)?),
        }
    }

    /// The configuration as a file of the system.
    fn config(&self) -> String {
        let mut config = self.vector.config.clone();
        if let (System::Zenml, Some(config)) = (self.system, config.as_object_mut()) {
            config.entry("retry").or_insert(serde_json::Value::Null);
        }
        config.to_string()
    }

    /// The configuration is refused: it was to be, and for that reason.
    fn refused(&self, problems: &Problems) -> Result<(), String> {
        let told = || format!("the configuration is refused: {}", problems.briefly());
        let (Some(expected), Some(failed)) =
            (self.vector.expected.first(), self.vector.failures.first())
        else {
            return Err(told());
        };
        let reason = expected.reason.as_deref().unwrap_or_default();
        let wrong = match Meaning::of(self.system, reason, failed) {
            Some(Meaning::Wrong(fields)) => Some(fields),
            _ => None,
        };
        let names_it = wrong.is_none_or(|fields| {
            let about = |field: &&str| problems.0.iter().any(|at| at.field.ends_with(field));
            fields.iter().any(about)
        });
        let is_expected = !expected.retry && (expected.config_error || wrong.is_some());
        if !is_expected || !names_it {
            return Err(told());
        }
        if let Some(after) = expected.decided_after_s {
            return Err(format!("the configuration is refused at once, not after {after} s"));
        }
        match expected.terminal_phase.as_deref() {
            None | Some("Error") => Ok(()),
            Some(phase) => Err(format!("a configuration error ends in Error, not in {phase}")),
        }
    }

    fn decide(&mut self, policies: &Policies) -> Result<(), String> {
        if let Some(at) = self.vector.expected.iter().position(|expected| expected.config_error) {
            return Err(format!("failure {}: the configuration is accepted", at + 1));
        }
        let deadline = self
            .vector
            .config("workflow_deadline_s")
            .and_then(serde_json::Value::as_f64)
            .map(instant);
        let mut theatre = Theatre::of(self, policies, deadline)?;
        theatre.before(self)?;
        for (at, (failed, expected)) in
            self.vector.failures.iter().zip(&self.vector.expected).enumerate()
        {
            let followed = theatre
                .fail(self, failed)
                .map_err(|wrong| format!("failure {}: {wrong}", at + 1))?;
            self.compare(failed, expected, &followed, theatre.resume())
                .map_err(|wrong| format!("failure {}: {wrong}", at + 1))?;
        }
        Ok(())
    }

    fn compare(
        &mut self,
        failed: &Failed,
        expected: &Expected,
        followed: &Followed,
        resume: Option<&'static str>,
    ) -> Result<(), String> {
        let settled = &followed.settled;
        let retries = matches!(settled.verdict, Verdict::Retry(_));
        if retries != expected.retry {
            return Err(format!(
                "{} ({}), expected {}",
                verdict(settled.verdict),
                settled.reason.sentence(),
                if expected.retry { "a retry" } else { "no retry" }
            ));
        }
        if retries {
            self.compare_delay(failed, expected, followed)?;
        }
        let after = expected.decided_after_s;
        match (after, followed.decided_after) {
            (None, None) => {}
            (Some(expected), Some(after)) if close(after, expected) => {}
            (expected, after) => {
                return Err(format!("decided after {after:?} s, expected {expected:?}"));
            }
        }
        self.compare_reason(failed, expected, followed)?;
        compare_state(failed, expected, followed)?;
        same("strategy", resume, expected.strategy.as_deref())?;
        same(
            "resume_from",
            Some(followed.told.decision.resume_from.as_str()),
            expected.resume_from.as_deref(),
        )
    }

    fn compare_delay(
        &self,
        failed: &Failed,
        expected: &Expected,
        followed: &Followed,
    ) -> Result<(), String> {
        let Verdict::Retry(at) = followed.settled.verdict else { return Ok(()) };
        let drawn = (at - instant(failed.at_s)).as_secs_f64();
        let window = followed.told.window.filter(|_| !followed.was_held);
        let (least, most) = window
            .map_or((drawn, drawn), |window| (window.min.as_secs_f64(), window.max.as_secs_f64()));
        if let Some(delay) = expected.delay_s
            && !(close(least, delay) && close(most, delay))
        {
            return Err(format!("waits {}, expected {delay} s", range(least, most)));
        }
        if let Some([low, high]) = expected.delay_range_s {
            let inside = |delay: f64| {
                (delay >= low || close(delay, low)) && (delay <= high || close(delay, high))
            };
            let exact = close(least, low) && close(most, high);
            // Jitter of an op is known exactly; other ranges are what may happen.
            let is_jitter = self.vector.config("level").is_some_and(|level| level == "op");
            if !inside(least) || !inside(most) || (is_jitter && !exact) {
                return Err(format!("waits {}, expected {low} to {high} s", range(least, most)));
            }
            // Instants have an end; what is beyond it was compared above.
            if window.is_some_and(|window| micros(window.max) < u64::MAX / 4) && !inside(drawn) {
                return Err(format!("waits {drawn} s, outside its own window"));
            }
        }
        Ok(())
    }

    fn compare_reason(
        &mut self,
        failed: &Failed,
        expected: &Expected,
        followed: &Followed,
    ) -> Result<(), String> {
        let Some(reason) = expected.reason.as_deref() else { return Ok(()) };
        let settled = &followed.settled;
        match Meaning::of(self.system, reason, failed) {
            Some(meaning) => {
                let counted = settled.counters.uncounted == 0
                    || settled.rule.is_none()
                    || settled.reason != Reason::Backoff;
                let said = if meaning.is_of(settled, counted) {
                    return Ok(());
                } else {
                    settled.rule.as_ref().map_or("no rule", |rule| rule.as_str())
                };
                Err(format!("the reason is {:?} ({said}), expected {reason:?}", settled.reason))
            }
            None if expected.retry => Ok(()),
            None => {
                self.uncompared.push(format!("reason {reason:?}"));
                Ok(())
            }
        }
    }
}

/// What the step became.
fn compare_state(failed: &Failed, expected: &Expected, followed: &Followed) -> Result<(), String> {
    let settled = &followed.settled;
    let phase = followed.class.map(|class| match class {
        FailureClass::Error | FailureClass::Crash => "Error",
        // What a shutdown ends keeps the phase that it had.
        FailureClass::Canceled => failed.class.as_str(),
        _ => "Failed",
    });
    same("terminal_phase", phase, expected.terminal_phase.as_deref())?;
    if let Some(by) = expected.next_attempt_deadline_s {
        let ends_by = followed.told.decision.ends_by;
        if ends_by != Some(instant(by)) {
            return Err(format!("the next attempt ends by {ends_by:?}, expected {by} s"));
        }
    }
    let action = if followed.was_held && (expected.retry || expected.action.is_none()) {
        "await_guidance"
    } else {
        match (settled.verdict, settled.reason) {
            (Verdict::Hold(_), _) => "await_guidance",
            (Verdict::Done, _) => "ignore",
            (Verdict::Retry(_), _) => "retry",
            _ => "fail",
        }
    };
    // Excluding a machine ends its step, and the others go on.
    let wanted = expected
        .action
        .as_deref()
        .map(|wanted| if wanted.to_lowercase().contains("exclude") { "ignore" } else { wanted });
    same("action", Some(action), wanted)?;
    if let Some(allowed) = &expected.allowed_guidance {
        let mut offered = followed.told.decision.hold_answers.clone();
        let mut wanted = Vec::new();
        for answer in allowed {
            wanted.push(guidance(answer)?);
        }
        offered.sort_by_key(|answer| answer.name());
        wanted.sort_by_key(|answer| answer.name());
        if offered != wanted {
            return Err(format!("allowed guidance is {offered:?}, expected {wanted:?}"));
        }
    }
    Ok(())
}

fn same(what: &str, is: Option<&str>, expected: Option<&str>) -> Result<(), String> {
    match expected {
        Some(expected) if is != Some(expected) => {
            Err(format!("{what} is {}, expected {expected}", is.unwrap_or("none")))
        }
        _ => Ok(()),
    }
}

/// Octopus' names of answers.
fn guidance(name: &str) -> Result<HoldAnswer, String> {
    match name.to_lowercase().as_str() {
        "fail" => Ok(HoldAnswer::Fail),
        "retry" => Ok(HoldAnswer::Retry),
        "ignore" => Ok(HoldAnswer::Skip),
        name if name.starts_with("exclude") => Ok(HoldAnswer::ExcludeHost),
        _ => Err(format!("{name:?} is no guidance")),
    }
}

fn policies(imported: &[ImportedPolicy]) -> Result<Policies, String> {
    let parse = |spec: &PolicySpec| Policy::parse(spec).map_err(|wrong| wrong.to_string());
    let mut policies = Policies { step: None, run: None };
    for imported in imported {
        match imported.unit {
            Unit::Step if policies.step.is_none() => policies.step = Some(parse(&imported.spec)?),
            Unit::Run(resume) if policies.run.is_none() => {
                policies.run = Some((parse(&imported.spec)?, resume.name()));
            }
            Unit::Step | Unit::Run(_) => {}
        }
    }
    Ok(policies)
}

/// The step, the run, or both, one within the other.
struct Theatre<'p> {
    step: Option<Stage<'p>>,
    step_policy: Option<&'p Policy>,
    run: Option<Stage<'p>>,
    resume: Option<&'static str>,
    run_number: u32,
}

impl<'p> Theatre<'p> {
    fn of(
        case: &Case<'_>,
        policies: &'p Policies,
        deadline: Option<Timestamp>,
    ) -> Result<Self, String> {
        let has_runs = case.vector.failures.iter().any(|failed| failed.run.is_some());
        let run = policies.run.as_ref().map(|(policy, resume)| (policy, *resume));
        let step_policy = policies.step.as_ref().filter(|_| run.is_none() || has_runs);
        if step_policy.is_none() && run.is_none() {
            return Err("nothing was imported that decides".to_owned());
        }
        Ok(Self {
            step: step_policy.map(|policy| Stage::new(policy, "run-1", deadline)),
            step_policy,
            run: run.map(|(policy, _)| Stage::new(policy, "run", deadline)),
            resume: run.map(|(_, resume)| resume),
            run_number: 1,
        })
    }

    const fn resume(&self) -> Option<&'static str> {
        self.resume
    }

    /// Re-executions by hand belong to the group, and each of its runs failed.
    fn before(&mut self, case: &Case<'_>) -> Result<(), String> {
        let by_hand = case.vector.config("manual_reexecutions_before");
        let by_hand = by_hand.and_then(serde_json::Value::as_u64).unwrap_or(0).min(1000);
        let Some(run) = &mut self.run else { return Ok(()) };
        for _ in 0..by_hand {
            if run.is_waiting() {
                run.fail(run_failure(), START)?;
            }
        }
        Ok(())
    }

    fn fail(&mut self, case: &Case<'_>, failed: &Failed) -> Result<Followed, String> {
        let failure = report::failure(case.system, case.vector, failed);
        let at = instant(failed.at_s);
        self.enter_run(failed.run);
        let Some(step) = &mut self.step else {
            let Some(run) = &mut self.run else { return Err("nothing decides".to_owned()) };
            return fail_stage(run, failure, failed, at);
        };
        let followed = fail_stage(step, failure, failed, at)?;
        match &mut self.run {
            // The op is given up: the run fails with it.
            Some(run) if followed.settled.verdict == Verdict::Stop => {
                fail_stage(run, run_failure(), &Failed::default(), at)
            }
            _ => Ok(followed),
        }
    }

    /// Each run of a group counts the attempts of its ops anew.
    fn enter_run(&mut self, number: Option<u32>) {
        let number = number.unwrap_or(self.run_number);
        if number != self.run_number {
            self.run_number = number;
            self.step =
                self.step_policy.map(|policy| Stage::new(policy, format!("run-{number}"), None));
        }
    }
}

/// A run that failed because a step did.
fn run_failure() -> Failure {
    Failure { error_type: "STEP_FAILURE".to_owned(), ..Failure::of(FailureClass::Failure) }
}

fn fail_stage(
    stage: &mut Stage<'_>,
    failure: Failure,
    failed: &Failed,
    at: Timestamp,
) -> Result<Followed, String> {
    // Attempts that the vector leaves out failed alike, and where a person was
    // asked there was another one.
    let first = failed.attempt.unwrap_or(0);
    while stage.next_number() < first && stage.is_waiting() {
        let told = stage.fail(failure.clone(), at)?;
        if told.decision.hold_answers.contains(&HoldAnswer::Retry) {
            stage.answered(HoldAnswer::Retry, at)?;
        }
    }
    let told = stage.fail(failure, at)?;
    let mut settled = told.decision.settled.clone();
    let mut decided_after = None;
    if let (Reason::Stopping, Verdict::Wait(Some(until))) = (settled.reason, settled.verdict) {
        decided_after = Some((until - at).as_secs_f64());
        stage.passes(until)?;
        settled = stage.standing().cloned().ok_or("no decision is left")?;
    }
    let was_held = matches!(settled.verdict, Verdict::Hold(_));
    if let (true, Some(answer)) = (was_held, failed.guidance.as_deref()) {
        let answer = guidance(answer)?;
        // What is not offered cannot be chosen.
        if told.decision.hold_answers.contains(&answer) {
            settled = stage.answered(ends_as(answer), at)?;
        }
    }
    let class = stage.latest_class();
    Ok(Followed { settled, told, decided_after, was_held, class })
}

/// A machine that is excluded is not deployed to any more: its step is skipped.
const fn ends_as(answer: HoldAnswer) -> HoldAnswer {
    match answer {
        HoldAnswer::ExcludeHost => HoldAnswer::Skip,
        answer => answer,
    }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Retry(_) => "a retry",
        Verdict::Wait(_) => "a wait",
        Verdict::Stop => "a stop",
        Verdict::Hold(_) => "a hold",
        Verdict::Done => "done",
    }
}

fn range(least: f64, most: f64) -> String {
    if close(least, most) { format!("{least} s") } else { format!("{least} to {most} s") }
}

/// Equal to the microsecond, or as well as a number can say.
fn close(one: f64, other: f64) -> bool {
    let tolerance = 1.5e-6_f64.max(one.abs().max(other.abs()) * 1e-12);
    (one - other).abs() <= tolerance
}
