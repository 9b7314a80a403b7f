//! One vector: imported faithfully, decided on virtual time, compared.

use super::{
    compare::{Comparison, Followed},
    meaning::Meaning,
    report,
    stage::{START, Stage, instant},
    vector::{Failed, Vector},
};
use crate::{
    config::problem::Problems,
    dialect::{self, ImportedPolicy, Reading, System, Unit},
    domain::{
        decision::{Reason, Verdict},
        failure::{Failure, FailureClass},
        policy::{
            Policy,
            spec::{HoldAnswer, PolicySpec},
        },
        time::Timestamp,
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
            let told = |wrong: String| format!("failure {}: {wrong}", at + 1);
            let followed = theatre.fail(self, failed).map_err(told)?;
            let resume = theatre.resume();
            let comparison =
                Comparison { system: self.system, failed, expected, followed: &followed, resume };
            let is_op = self.vector.config("level").is_some_and(|level| level == "op");
            comparison.check(is_op).map_err(told)?;
            self.uncompared.extend(comparison.reason_unknown());
        }
        Ok(())
    }
}

/// Octopus' names of answers.
pub fn guidance(name: &str) -> Result<HoldAnswer, String> {
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
