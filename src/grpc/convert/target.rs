//! Targets, as the contract and as the domain write them, and what operators
//! ask about them.

use super::{
    admin::{Page, page},
    answer::{instant, span},
    check::{Check, Invalid, Part, shown},
    force,
};
use crate::{
    domain::{
        limit::{
            Pause, Starts, Target, WhenSpent,
            breaker::Standing,
            spec::{BreakerSpec, BudgetSpec, ConcurrencySpec, RateSpec, TargetSpec},
            usage::Usage,
        },
        time::{Span, Timestamp},
    },
    proto,
    service::{PauseEnd, PauseOrder, TargetWrite, etag},
    store::configuration::TargetEntry,
};

/// Longest reason of an order, in bytes.
const REASON_MAX: usize = 512;
/// Longest name of who gives it, in bytes.
const BY_MAX: usize = 128;

/// Names a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetName {
    /// Its namespace, an id.
    pub namespace: String,
    /// Its name, an id.
    pub name: String,
}

/// A target to be created or changed.
#[derive(Clone, Debug)]
pub struct TargetChange {
    /// Which one.
    pub name: TargetName,
    /// What the change rests on.
    pub write: TargetWrite,
    /// What it allows, as given.
    spec: TargetSpec,
    /// Which parts of it change.
    parts: Vec<TargetPart>,
}

impl TargetChange {
    /// What it will allow, of what it allows now.
    #[must_use]
    pub fn apply(&self, current: &TargetSpec) -> TargetSpec {
        let mut spec = current.clone();
        for part in &self.parts {
            part.copy(&self.spec, &mut spec);
        }
        spec
    }
}

/// Reads a call of `CreateTarget`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn create(request: proto::CreateTargetRequest) -> Result<TargetChange, Invalid> {
    let write = TargetWrite {
        validate_only: request.validate_only,
        may_be_missing: true,
        ..TargetWrite::default()
    };
    let check = Check::default();
    changed(check, request.namespace, request.target, write, TargetPart::ALL.to_vec())
}

/// Reads a call of `UpdateTarget`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn update(request: proto::UpdateTargetRequest) -> Result<TargetChange, Invalid> {
    let write = TargetWrite {
        etag: request.target.as_ref().map(|target| target.etag.clone()).unwrap_or_default(),
        validate_only: request.validate_only,
        may_exist: true,
        may_be_missing: request.allow_missing,
    };
    let mut check = Check::default();
    let parts = masked(&mut check, &request.update_mask.unwrap_or_default().paths);
    changed(check, request.namespace, request.target, write, parts)
}

/// Reads a call of `GetTarget`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn get(request: proto::GetTargetRequest) -> Result<TargetName, Invalid> {
    let mut check = Check::default();
    let name = target_name(&mut check, request.namespace, request.name);
    check.finish(name)
}

/// Reads a call of `ListTargets`: the namespace and the page.
///
/// # Errors
/// Everything that is wrong with it.
pub fn list(request: proto::ListTargetsRequest) -> Result<(String, Page), Invalid> {
    let mut check = Check::default();
    let namespace = check.namespace(request.namespace);
    let page = page(&mut check, request.page_size, request.page_token);
    check.finish((namespace, page))
}

/// Reads a call of `DeleteTarget`: the target and the etag that it must have;
/// an empty one deletes it whatever it is now.
///
/// # Errors
/// Everything that is wrong with it.
pub fn delete(request: proto::DeleteTargetRequest) -> Result<(TargetName, String), Invalid> {
    let mut check = Check::default();
    let name = target_name(&mut check, request.namespace, request.name);
    check.finish((name, request.etag))
}

/// Reads a call of `PauseTarget`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn pause(request: proto::PauseTargetRequest) -> Result<(TargetName, PauseOrder), Invalid> {
    use proto::pause_target_request::End;
    let mut check = Check::default();
    let name = target_name(&mut check, request.namespace, request.name);
    by_whom(&mut check, &request.reason, &request.by);
    let end = match request.end {
        Some(End::Until(until)) => check.instant("until", Some(until)).map(PauseEnd::At),
        Some(End::PauseFor(span)) => {
            check.positive_span("pause_for", Some(span)).map(PauseEnd::After)
        }
        None => None,
    };
    check.finish((name, PauseOrder { reason: request.reason, by: request.by, end }))
}

/// Reads a call of `GetTargetUsage`: the target and the run.
///
/// # Errors
/// Everything that is wrong with it.
pub fn usage(request: proto::GetTargetUsageRequest) -> Result<(TargetName, String), Invalid> {
    let mut check = Check::default();
    let name = target_name(&mut check, request.namespace, request.name);
    if !request.run.is_empty() {
        check.name("run", &request.run);
    }
    check.finish((name, request.run))
}

/// What is used of a target's limits, as it is told.
#[must_use]
pub fn usage_to_proto(usage: &Usage) -> proto::TargetUsage {
    let of = |used: Option<(u64, u64)>| used.map(|(used, limit)| proto::LimitUse { used, limit });
    proto::TargetUsage {
        rate: of(usage.starts),
        concurrency: of(usage.permits),
        budget: of(usage.spent),
        in_line: usage.in_line,
        cooldown_until: usage.cooldown.map(instant),
        breaker: usage.breaker.map(|standing| proto::BreakerStanding {
            forced: usage.forced.as_ref().map(force::to_proto),
            ..standing_to_proto(standing)
        }),
        parked: usage.parked,
        ejected_hosts: usage.ejected_hosts,
        at: Some(instant(usage.at)),
    }
}

fn standing_to_proto(standing: Standing) -> proto::BreakerStanding {
    use proto::BreakerState;
    let (state, since, until, started) = match standing {
        Standing::Closed => (BreakerState::Closed, None, None, 0),
        Standing::Open { since, next_probe } => {
            (BreakerState::Open, Some(since), Some(next_probe), 0)
        }
        Standing::Ramp { since, until, started, .. } => {
            (BreakerState::Ramp, Some(since), Some(until), started)
        }
    };
    proto::BreakerStanding {
        state: state as i32,
        since: since.map(instant),
        until: until.map(instant),
        started,
        forced: None,
    }
}

/// Reads a call of `ResumeTarget`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn resume(request: proto::ResumeTargetRequest) -> Result<TargetName, Invalid> {
    let mut check = Check::default();
    let name = target_name(&mut check, request.namespace, request.name);
    check.finish(name)
}

/// Reads what a target found in the field `prefix` of an answer allows.
///
/// # Errors
/// Everything that is wrong with it.
pub fn from_proto(target: &proto::Target, prefix: &'static str) -> Result<TargetSpec, Invalid> {
    let mut check = Check::default();
    let spec = check.within(Part::Field(prefix), |check| read(check, target));
    check.finish(spec)
}

/// What a target allows, as the contract writes it.
#[must_use]
pub fn to_proto(spec: &TargetSpec) -> proto::Target {
    proto::Target {
        rate: spec.rate.as_ref().map(rate_to_proto),
        concurrency: spec.concurrency.map(|bound| proto::Concurrency { max: bound.max }),
        budget: spec.budget.map(budget_to_proto),
        breaker: spec.breaker.map(|breaker| proto::Breaker {
            slow_after: breaker.slow_after.map(|slow| span(slow.0)),
            observe_only: breaker.observe_only,
        }),
        every_step: spec.every_step,
        each_run: spec.each_run,
    }
}

/// A target as it is told at the instant `now`.
#[must_use]
pub fn named_to_proto(
    namespace: &str,
    name: &str,
    entry: &TargetEntry,
    now: Timestamp,
) -> proto::NamedTarget {
    let pause = entry.pause.as_ref().filter(|pause| pause.holds_at(now));
    let forced = entry.forced.as_ref().filter(|forced| forced.holds_at(now));
    proto::NamedTarget {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        target: Some(to_proto(&entry.spec)),
        revision: entry.revision,
        etag: etag(entry.revision),
        update_time: Some(instant(entry.updated_at)),
        pause: pause.map(pause_to_proto),
        forced_breaker: forced.map(force::to_proto),
    }
}

fn rate_to_proto(rate: &RateSpec) -> proto::Rate {
    let on = match rate.on {
        Starts::All => proto::CountedStarts::All,
        Starts::Retries => proto::CountedStarts::Retries,
    };
    proto::Rate {
        limit: rate.limit,
        period: rate.period.map(|period| span(period.0)),
        burst: rate.burst,
        on: on as i32,
    }
}

fn budget_to_proto(budget: BudgetSpec) -> proto::RetryBudget {
    let when_spent = match budget.when_spent {
        WhenSpent::Wait => proto::WhenSpent::Wait,
        WhenSpent::Stop => proto::WhenSpent::Stop,
    };
    proto::RetryBudget {
        ratio: budget.ratio,
        floor: budget.floor,
        window: budget.window.map(|window| span(window.0)),
        when_spent: when_spent as i32,
    }
}

fn pause_to_proto(pause: &Pause) -> proto::TargetPause {
    proto::TargetPause {
        reason: pause.reason.clone(),
        by: pause.by.clone(),
        since: Some(instant(pause.since)),
        until: pause.until.map(instant),
    }
}

/// Why an order is given, and by whom.
pub(super) fn by_whom(check: &mut Check, reason: &str, by: &str) {
    if reason.is_empty() {
        check.required("reason");
    }
    plain_text(check, "reason", reason, REASON_MAX);
    plain_text(check, "by", by, BY_MAX);
}

/// The name of a target, checked.
pub(super) fn target_name(check: &mut Check, namespace: String, name: String) -> TargetName {
    let namespace = check.namespace(namespace);
    check.name("name", &name);
    TargetName { namespace, name }
}

/// A text that is shown to people as it is.
pub(super) fn plain_text(check: &mut Check, field: &str, text: &str, bytes_max: usize) {
    check.text(field, text, bytes_max);
    if text.chars().any(char::is_control) {
        check.refuse(field, shown(text), "accepted: a text without control characters");
    }
}

fn changed(
    mut check: Check,
    namespace: String,
    given: Option<proto::NamedTarget>,
    write: TargetWrite,
    parts: Vec<TargetPart>,
) -> Result<TargetChange, Invalid> {
    let namespace = check.namespace(namespace);
    if given.is_none() {
        check.required("target");
    }
    let given = given.unwrap_or_default();
    let spec = check.within(Part::Field("target"), |check| {
        check.name("name", &given.name);
        if given.target.is_none() {
            check.required("target");
        }
        check.within(Part::Field("target"), |check| read(check, &given.target.unwrap_or_default()))
    });
    let name = TargetName { namespace, name: given.name };
    let change = check.finish(TargetChange { name, write, spec, parts })?;
    // Each part holds or not whatever the others say, so that what does not
    // change need not be known here.
    match Target::parse(&change.apply(&TargetSpec::default())) {
        Ok(_) => Ok(change),
        Err(violations) => Err(Invalid::of_violations(violations, "target.target")),
    }
}

fn read(check: &mut Check, target: &proto::Target) -> TargetSpec {
    TargetSpec {
        rate: target
            .rate
            .as_ref()
            .map(|rate| check.within(Part::Field("rate"), |check| read_rate(check, rate))),
        concurrency: target.concurrency.map(|bound| ConcurrencySpec { max: bound.max }),
        budget: target
            .budget
            .as_ref()
            .map(|budget| check.within(Part::Field("budget"), |check| read_budget(check, budget))),
        breaker: target.breaker.as_ref().map(|breaker| {
            check.within(Part::Field("breaker"), |check| read_breaker(check, breaker))
        }),
        every_step: target.every_step,
        each_run: target.each_run,
    }
}

fn read_breaker(check: &mut Check, breaker: &proto::Breaker) -> BreakerSpec {
    BreakerSpec {
        slow_after: check.span("slow_after", breaker.slow_after).map(Span),
        observe_only: breaker.observe_only,
    }
}

fn read_rate(check: &mut Check, rate: &proto::Rate) -> RateSpec {
    use proto::CountedStarts;
    let on = match CountedStarts::try_from(rate.on) {
        Ok(CountedStarts::Unspecified | CountedStarts::All) => Starts::All,
        Ok(CountedStarts::Retries) => Starts::Retries,
        Err(_) => {
            check.refuse("on", rate.on.to_string(), "accepted: ALL or RETRIES");
            Starts::All
        }
    };
    RateSpec {
        limit: rate.limit,
        period: check.span("period", rate.period).map(Span),
        burst: rate.burst,
        on,
    }
}

fn read_budget(check: &mut Check, budget: &proto::RetryBudget) -> BudgetSpec {
    use proto::WhenSpent as Given;
    let when_spent = match Given::try_from(budget.when_spent) {
        Ok(Given::Unspecified | Given::Wait) => WhenSpent::Wait,
        Ok(Given::Stop) => WhenSpent::Stop,
        Err(_) => {
            check.refuse("when_spent", budget.when_spent.to_string(), "accepted: WAIT or STOP");
            WhenSpent::Wait
        }
    };
    BudgetSpec {
        ratio: budget.ratio,
        floor: budget.floor,
        window: check.span("window", budget.window).map(Span),
        when_spent,
    }
}

/// A part of a target that can change by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TargetPart {
    Rate,
    Concurrency,
    Budget,
    Breaker,
    EveryStep,
    EachRun,
}

impl TargetPart {
    const ALL: [Self; 6] = [
        Self::Rate,
        Self::Concurrency,
        Self::Budget,
        Self::Breaker,
        Self::EveryStep,
        Self::EachRun,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Concurrency => "concurrency",
            Self::Budget => "budget",
            Self::Breaker => "breaker",
            Self::EveryStep => "every_step",
            Self::EachRun => "each_run",
        }
    }

    fn copy(self, from: &TargetSpec, to: &mut TargetSpec) {
        match self {
            Self::Rate => to.rate.clone_from(&from.rate),
            Self::Concurrency => to.concurrency = from.concurrency,
            Self::Budget => to.budget = from.budget,
            Self::Breaker => to.breaker = from.breaker,
            Self::EveryStep => to.every_step = from.every_step,
            Self::EachRun => to.each_run = from.each_run,
        }
    }
}

/// The parts that a mask names; all of them when it names nothing.
fn masked(check: &mut Check, paths: &[String]) -> Vec<TargetPart> {
    if paths.is_empty() {
        return TargetPart::ALL.to_vec();
    }
    let mut parts = Vec::new();
    for path in paths {
        let named = TargetPart::ALL
            .into_iter()
            .find(|part| path.strip_prefix("target.") == Some(part.name()));
        match (path.as_str(), named) {
            ("*" | "target", _) => parts.extend(TargetPart::ALL),
            (_, Some(part)) => parts.push(part),
            (_, None) => check.refuse("update_mask", shown(path), MASK_ACCEPTED),
        }
    }
    parts
}

const MASK_ACCEPTED: &str = "accepted: target, or any of target.rate, target.concurrency, \
     target.budget, target.every_step and target.each_run";
