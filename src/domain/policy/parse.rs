//! From a policy as written to one that holds: every violation at once, each
//! with the field, the value and what would be accepted.

use std::{collections::HashSet, time::Duration};

use super::{
    Action, AntiAffinity, CodePattern, Exhaustion, HoldTerms, Match, Policy, Rule, RuleName,
    RunRetries, StopTiming, TypePattern,
    spec::{
        AntiAffinityMode, AntiAffinitySpec, BackoffSpec, ExhaustionSpec, ExitCodesSpec, HoldAnswer,
        HoldSpec, JitterSpec, MatchSpec, PolicySpec, PushbackSpec, RetrySpec, RuleSpec, RunSpec,
        ScheduleEndSpec, StopTimingSpec,
    },
};
use crate::domain::{
    backoff::{Backoff, Jitter, Shape},
    condition::Condition,
    failure::Code,
    pattern::Pattern,
    time::Span,
    violation::{Check, Violations},
};

/// Entries at most in any list of a policy.
pub const LIST_MAX: usize = 64;
/// Ceiling on uncounted retries when the rule names none.
pub const UNCOUNTED_DEFAULT: u32 = 100;
/// Largest ceiling on uncounted retries.
pub const UNCOUNTED_MAX: u32 = 10_000;
/// Retries after crashes when the policy names no number.
pub const CRASH_RETRIES_DEFAULT: u32 = 3;
/// Longest wait that a pushback leads to when the policy names none.
pub const PUSHBACK_MAX_DEFAULT: Duration = Duration::from_secs(3600);
/// How long a host is softly avoided when the policy does not say.
pub const DECAY_DEFAULT: Duration = Duration::from_secs(600);
/// Manual retries when the policy names no number, as Octopus Deploy has it.
pub const MANUAL_RETRIES_DEFAULT: u32 = 10;
/// Largest bound on the retries of all steps of a run.
pub const TOTAL_RETRIES_MAX: u32 = 1_000_000;
/// Longest name of a kind or an error type, in bytes.
const NAME_MAX: usize = 256;

impl Policy {
    /// Checks a policy as written.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn parse(spec: &PolicySpec) -> Result<Self, Violations> {
        let mut check = Check::default();
        let policy = check.policy(spec);
        check.finish(policy)
    }
}

impl Check {
    fn policy(&mut self, spec: &PolicySpec) -> Policy {
        let backoff = spec
            .backoff
            .as_ref()
            .map_or(Backoff::NONE, |backoff| self.within("backoff", |c| c.backoff(backoff)));
        let (pushback_min, pushback_max) =
            self.within("pushback", |c| c.pushback(spec.pushback.unwrap_or_default()));
        self.bounded("rules", spec.rules.len());
        self.bounded("never_retry_kinds", spec.never_retry_kinds.len());
        self.bounded("quirks", spec.quirks.len());
        for (at, kind) in spec.never_retry_kinds.iter().enumerate() {
            if kind.is_empty() || kind.len() > 128 {
                self.refuse(
                    &format!("never_retry_kinds[{at}]"),
                    format!("{kind:?}"),
                    "accepted: 1 to 128 bytes",
                );
            }
        }
        Policy {
            max_retries: spec.max_retries,
            max_elapsed: self.positive("max_elapsed", spec.max_elapsed),
            backoff,
            rules: self.rules(&spec.rules),
            pushback_min,
            pushback_max,
            max_crash_retries: spec.max_crash_retries.unwrap_or(CRASH_RETRIES_DEFAULT),
            reset_after: self.positive("reset_after", spec.reset_after),
            reset_on_progress: spec.reset_on_progress,
            anti_affinity: self.within("host_anti_affinity", |c| {
                c.anti_affinity(spec.host_anti_affinity.unwrap_or_default())
            }),
            on_exhaustion: spec
                .on_exhaustion
                .as_ref()
                .map_or(Exhaustion::Stop(StopTiming::AtOnce), |end| {
                    self.within("on_exhaustion", |c| c.exhaustion(end))
                }),
            never_retry_kinds: spec.never_retry_kinds.clone(),
            quirks: spec.quirks.clone(),
            run: self.within("run", |c| c.run(spec.run.unwrap_or_default())),
        }
    }

    fn run(&mut self, spec: RunSpec) -> RunRetries {
        if spec.max_total_retries.is_some_and(|max| max > TOTAL_RETRIES_MAX) {
            self.refuse(
                "max_total_retries",
                spec.max_total_retries.unwrap_or_default().to_string(),
                format!("accepted: 0 to {TOTAL_RETRIES_MAX}; leave it out for no bound"),
            );
        }
        let RunSpec { resume, step_counters, ignore_step_failures, max_total_retries } = spec;
        RunRetries { resume, step_counters, ignore_step_failures, max_total_retries }
    }

    fn bounded(&mut self, field: &str, len: usize) {
        if len > LIST_MAX {
            self.refuse(field, format!("{len} entries"), format!("accepted: at most {LIST_MAX}"));
        }
    }

    fn positive(&mut self, field: &str, span: Option<Span>) -> Option<Duration> {
        if span.is_some_and(|span| span.0.is_zero()) {
            self.refuse(field, "0s", "accepted: more than zero; leave it out for no limit");
        }
        span.map(|span| span.0)
    }

    fn rules(&mut self, specs: &[RuleSpec]) -> Vec<Rule> {
        let mut seen = HashSet::new();
        specs
            .iter()
            .take(LIST_MAX)
            .enumerate()
            .map(|(at, spec)| {
                if !seen.insert(spec.name.as_str()) {
                    self.within(format!("rules[{at}]"), |c| {
                        c.refuse(
                            "name",
                            format!("{:?}", spec.name),
                            "another rule has this name; accepted: a name of its own",
                        )
                    });
                }
                self.within(format!("rules[{at}]"), |c| c.rule(spec))
            })
            .collect()
    }

    fn rule(&mut self, spec: &RuleSpec) -> Rule {
        let name = RuleName::parse(&spec.name).unwrap_or_else(|| {
            self.refuse(
                "name",
                format!("{:?}", spec.name),
                "accepted: 1 to 32 characters of a-z, 0-9 and dash",
            );
            RuleName("invalid".into())
        });
        let matches = spec
            .matches
            .as_ref()
            .map(|m| self.within("match", |c| c.matches(m)))
            .unwrap_or_default();
        Rule { name, matches, action: self.action(spec) }
    }

    fn action(&mut self, spec: &RuleSpec) -> Action {
        let mut actions = Vec::new();
        if let Some(retry) = &spec.retry {
            actions.push(self.within("retry", |c| c.retry(retry)));
        }
        if let Some(retry) = &spec.retry_uncounted {
            actions.push(self.within("retry_uncounted", |c| c.retry_uncounted(retry)));
        }
        if let Some(stop) = spec.stop {
            actions.push(Action::Stop(stop.into()));
        }
        if let Some(hold) = &spec.hold {
            actions.push(Action::Hold(self.within("hold", |c| c.hold(hold))));
        }
        if spec.skip.is_some() {
            actions.push(Action::Skip);
        }
        if actions.len() != 1 {
            self.refuse(
                "",
                format!("{} actions", actions.len()),
                "accepted: exactly one of retry, retry_uncounted, stop, hold and skip",
            );
        }
        actions.pop().unwrap_or(Action::Skip)
    }

    fn retry(&mut self, spec: &RetrySpec) -> Action {
        Action::Retry { max_retries: spec.max_retries, backoff: self.own_backoff(spec) }
    }

    fn retry_uncounted(&mut self, spec: &RetrySpec) -> Action {
        let max_retries = spec.max_retries.unwrap_or(UNCOUNTED_DEFAULT);
        if !(1..=UNCOUNTED_MAX).contains(&max_retries) {
            self.refuse(
                "max_retries",
                max_retries,
                format!(
                    "accepted: 1 to {UNCOUNTED_MAX}, since what never counts must end somewhere"
                ),
            );
        }
        Action::RetryUncounted { max_retries, backoff: self.own_backoff(spec) }
    }

    fn own_backoff(&mut self, spec: &RetrySpec) -> Option<Backoff> {
        spec.backoff.as_ref().map(|backoff| self.within("backoff", |c| c.backoff(backoff)))
    }

    fn matches(&mut self, spec: &MatchSpec) -> Match {
        for (field, len) in [
            ("classes", spec.classes.len()),
            ("error_types", spec.error_types.len()),
            ("codes", spec.codes.len()),
            ("exit_codes", spec.exit_codes.len()),
        ] {
            self.bounded(field, len);
        }
        Match {
            classes: spec.classes.clone(),
            error_types: spec
                .error_types
                .iter()
                .enumerate()
                .map(|(at, text)| self.error_type(at, text))
                .collect(),
            codes: spec
                .codes
                .iter()
                .enumerate()
                .filter_map(|(at, text)| self.code(at, text))
                .collect(),
            exit_codes: spec
                .exit_codes
                .iter()
                .enumerate()
                .map(|(at, codes)| self.exit_codes(at, *codes))
                .collect(),
            message: self.pattern(&spec.message_pattern),
            condition: self.condition(&spec.condition),
        }
    }

    fn error_type(&mut self, at: usize, text: &str) -> TypePattern {
        if text.is_empty() || text.len() > NAME_MAX {
            self.refuse(
                &format!("error_types[{at}]"),
                format!("{text:?}"),
                format!("accepted: 1 to {NAME_MAX} bytes, with * at the end for any continuation"),
            );
        }
        match text.strip_suffix('*') {
            Some(prefix) => TypePattern::Prefix(prefix.to_owned()),
            None => TypePattern::Exact(text.to_owned()),
        }
    }

    fn code(&mut self, at: usize, text: &str) -> Option<CodePattern> {
        let code = CodePattern::parse(text);
        if code.is_none() {
            self.refuse(&format!("codes[{at}]"), format!("{text:?}"), "accepted: a gRPC code such as UNAVAILABLE, an HTTP status from 100 to 599, or 1xx to 5xx");
        }
        code
    }

    fn exit_codes(&mut self, at: usize, codes: ExitCodesSpec) -> (i32, i32) {
        let (min, max) = match codes {
            ExitCodesSpec::One(code) => (code, code),
            ExitCodesSpec::Range { min, max } => (min, max),
        };
        if min > max {
            self.refuse(
                &format!("exit_codes[{at}]"),
                format!("{min} to {max}"),
                "accepted: min not above max",
            );
        }
        (min, max)
    }

    fn pattern(&mut self, source: &str) -> Option<Pattern> {
        if source.is_empty() {
            return None;
        }
        Pattern::parse(source)
            .map_err(|error| {
                self.refuse("message_pattern", format!("{source:?}"), error.to_string())
            })
            .ok()
    }

    fn condition(&mut self, source: &str) -> Option<Condition> {
        if source.is_empty() {
            return None;
        }
        Condition::parse(source)
            .map_err(|error| self.refuse("condition", format!("{source:?}"), error.to_string()))
            .ok()
    }

    fn backoff(&mut self, spec: &BackoffSpec) -> Backoff {
        let delay_max = self.positive("max_delay", spec.max_delay).unwrap_or(Duration::MAX);
        let shape = self.shape(spec);
        let jitter = self.jitter(spec.jitter.unwrap_or(JitterSpec::None), shape.as_ref());
        let shape = shape.unwrap_or(Shape::Fixed { delay: Duration::ZERO });
        Backoff { shape, delay_max, first_delay: spec.first_delay.map(|span| span.0), jitter }
    }

    /// None when there is no wait at all.
    fn shape(&mut self, spec: &BackoffSpec) -> Option<Shape> {
        let mut shapes = Vec::new();
        if let Some(fixed) = spec.fixed {
            shapes.push(Shape::Fixed { delay: fixed.delay.0 });
        }
        if let Some(linear) = spec.linear {
            let delay = linear.delay.0;
            shapes.push(Shape::Linear {
                delay,
                increment: linear.increment.map_or(delay, |span| span.0),
            });
        }
        if let Some(exponential) = spec.exponential {
            let factor = exponential.factor.unwrap_or(2.0);
            if !factor.is_finite() || factor < 0.0 {
                self.refuse("exponential.factor", factor, "accepted: 0 or more");
            }
            shapes.push(Shape::Exponential {
                delay: exponential.delay.0,
                factor,
                doublings_max: exponential.max_doublings.unwrap_or(u32::MAX),
            });
        }
        if let Some(sum) = spec.doubling_sum {
            shapes.push(Shape::DoublingSum { delay: sum.delay.0 });
        }
        if let Some(fibonacci) = spec.fibonacci {
            shapes.push(Shape::Fibonacci { delay: fibonacci.delay.0 });
        }
        if let Some(schedule) = &spec.schedule {
            if schedule.delays.is_empty() || schedule.delays.len() > LIST_MAX {
                self.refuse(
                    "schedule.delays",
                    format!("{} entries", schedule.delays.len()),
                    format!("accepted: 1 to {LIST_MAX}"),
                );
            }
            let repeats = schedule.end == ScheduleEndSpec::Repeat;
            shapes.push(Shape::Schedule {
                delays: schedule.delays.iter().map(|span| span.0).collect(),
                repeats,
            });
        }
        if shapes.len() > 1 {
            self.refuse("", format!("{} shapes", shapes.len()), "accepted: one of fixed, linear, exponential, doubling_sum, fibonacci and schedule, or none of them");
        }
        shapes.pop()
    }

    fn jitter(&mut self, spec: JitterSpec, shape: Option<&Shape>) -> Jitter {
        match spec {
            JitterSpec::None => Jitter::None,
            _ if shape.is_none() => {
                self.refuse("jitter", "without a shape", "there is no wait to draw from; accepted: a shape such as fixed or exponential beside it");
                Jitter::None
            }
            JitterSpec::Full => Jitter::Full,
            JitterSpec::Equal => Jitter::Equal,
            JitterSpec::Ratio(ratio) => {
                if !(ratio > 0.0 && ratio <= 1.0) {
                    self.refuse("jitter.ratio", ratio, "accepted: more than 0 and at most 1");
                }
                Jitter::Ratio(ratio)
            }
            JitterSpec::Base | JitterSpec::Decorrelated
                if matches!(shape, Some(Shape::Schedule { .. })) =>
            {
                self.refuse(
                    "jitter",
                    "with a schedule",
                    "a schedule has no base delay; accepted: none, full, equal or a ratio",
                );
                Jitter::None
            }
            JitterSpec::Base => Jitter::Base,
            JitterSpec::Decorrelated => Jitter::Decorrelated,
        }
    }

    fn pushback(&mut self, spec: PushbackSpec) -> (Duration, Duration) {
        let min = spec.min.map_or(Duration::ZERO, |span| span.0);
        let max = spec.max.map_or(PUSHBACK_MAX_DEFAULT.max(min), |span| span.0);
        if min > max {
            self.refuse("max", Span(max), format!("accepted: at least min, {}", Span(min)));
        }
        (min, max)
    }

    fn anti_affinity(&mut self, spec: AntiAffinitySpec) -> AntiAffinity {
        if spec.decay.is_some() && spec.mode != AntiAffinityMode::Soft {
            let decay = spec.decay.unwrap_or_default();
            self.refuse(
                "decay",
                decay,
                "only soft anti-affinity decays; accepted: mode soft, or no decay",
            );
        }
        AntiAffinity {
            mode: spec.mode,
            decay: self.positive("decay", spec.decay).unwrap_or(DECAY_DEFAULT),
        }
    }

    fn exhaustion(&mut self, spec: &ExhaustionSpec) -> Exhaustion {
        match (spec.stop, &spec.hold) {
            (Some(timing), None) => Exhaustion::Stop(timing.into()),
            (None, Some(hold)) => Exhaustion::Hold(self.within("hold", |c| c.hold(hold))),
            (stop, _) => {
                let given = if stop.is_some() { "both" } else { "neither" };
                self.refuse("", given, "accepted: exactly one of stop and hold");
                Exhaustion::Stop(StopTiming::AtOnce)
            }
        }
    }

    fn hold(&mut self, spec: &HoldSpec) -> HoldTerms {
        let allowed =
            if spec.allowed.is_empty() { HoldAnswer::ALL.to_vec() } else { spec.allowed.clone() };
        let default_answer = spec.default_answer.unwrap_or(HoldAnswer::Fail);
        if spec.timeout.is_some() && !allowed.contains(&default_answer) {
            self.refuse(
                "default_answer",
                default_answer.name(),
                "accepted: one of the allowed answers",
            );
        }
        if default_answer == HoldAnswer::ExcludeHost {
            self.refuse(
                "default_answer",
                default_answer.name(),
                "only a person can say which host; accepted: RETRY, SKIP or FAIL",
            );
        }
        HoldTerms {
            allowed,
            timeout: self.positive("timeout", spec.timeout),
            default_answer,
            max_manual_retries: spec.max_manual_retries.unwrap_or(MANUAL_RETRIES_DEFAULT),
        }
    }
}

impl From<StopTimingSpec> for StopTiming {
    fn from(spec: StopTimingSpec) -> Self {
        match spec {
            StopTimingSpec::AtOnce => Self::AtOnce,
            StopTimingSpec::AfterBackoff => Self::AfterBackoff,
        }
    }
}

impl CodePattern {
    fn parse(text: &str) -> Option<Self> {
        // Digits and nothing else: a number may also begin with a plus sign.
        if text.starts_with('+') {
            return None;
        }
        if let Some(class) = text.strip_suffix("xx") {
            return class.parse().ok().filter(|class| (1..=5).contains(class)).map(Self::HttpClass);
        }
        let status =
            text.parse().ok().filter(|status| (100..=599).contains(status)).map(Code::Http);
        status.or_else(|| Code::from_grpc_name(text)).map(Self::Exact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::violation::Violation;

    fn violations(yaml: &str) -> Vec<Violation> {
        let spec: PolicySpec =
            serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"));
        Policy::parse(&spec).err().map(|violations| violations.0).unwrap_or_default()
    }

    #[test]
    fn every_violation_names_its_field_its_value_and_what_is_accepted() {
        let rule = |rest: &str| format!("{{rules: [{{name: a, retry: {{}}}}, {{{rest}}}]}}");
        let matching = |part: &str| rule(&format!("name: b, match: {{{part}}}, stop: at_once"));
        let long = "x".repeat(257);
        for (yaml, field, value) in [
            ("{max_elapsed: 0s}".to_owned(), "max_elapsed", "0s"),
            ("{reset_after: 0}".to_owned(), "reset_after", "0s"),
            (
                "{backoff: {fixed: {delay: 1s}, max_delay: 0s}}".to_owned(),
                "backoff.max_delay",
                "0s",
            ),
            (
                "{backoff: {fixed: {delay: 1s}, fibonacci: {delay: 1s}}}".to_owned(),
                "backoff",
                "2 shapes",
            ),
            (
                "{backoff: {exponential: {delay: 1s, factor: -1}}}".to_owned(),
                "backoff.exponential.factor",
                "-1",
            ),
            (
                "{backoff: {exponential: {delay: 1s, factor: .nan}}}".to_owned(),
                "backoff.exponential.factor",
                "NaN",
            ),
            (
                "{backoff: {exponential: {delay: 1s, factor: .inf}}}".to_owned(),
                "backoff.exponential.factor",
                "inf",
            ),
            (
                "{backoff: {schedule: {delays: []}}}".to_owned(),
                "backoff.schedule.delays",
                "0 entries",
            ),
            (
                "{backoff: {fixed: {delay: 1s}, jitter: {ratio: 0}}}".to_owned(),
                "backoff.jitter.ratio",
                "0",
            ),
            (
                "{backoff: {fixed: {delay: 1s}, jitter: {ratio: 1.5}}}".to_owned(),
                "backoff.jitter.ratio",
                "1.5",
            ),
            (
                "{backoff: {schedule: {delays: [1s]}, jitter: base}}".to_owned(),
                "backoff.jitter",
                "with a schedule",
            ),
            ("{backoff: {jitter: full}}".to_owned(), "backoff.jitter", "without a shape"),
            ("{pushback: {min: 2s, max: 1s}}".to_owned(), "pushback.max", "1s"),
            (
                "{host_anti_affinity: {mode: hard, decay: 5s}}".to_owned(),
                "host_anti_affinity.decay",
                "5s",
            ),
            (
                "{host_anti_affinity: {mode: soft, decay: 0s}}".to_owned(),
                "host_anti_affinity.decay",
                "0s",
            ),
            ("{on_exhaustion: {}}".to_owned(), "on_exhaustion", "neither"),
            ("{on_exhaustion: {stop: at_once, hold: {}}}".to_owned(), "on_exhaustion", "both"),
            (
                "{on_exhaustion: {hold: {timeout: 0s}}}".to_owned(),
                "on_exhaustion.hold.timeout",
                "0s",
            ),
            (
                "{on_exhaustion: {hold: {timeout: 5s, allowed: [RETRY]}}}".to_owned(),
                "on_exhaustion.hold.default_answer",
                "FAIL",
            ),
            (
                "{on_exhaustion: {hold: {default_answer: EXCLUDE_HOST}}}".to_owned(),
                "on_exhaustion.hold.default_answer",
                "EXCLUDE_HOST",
            ),
            ("{never_retry_kinds: ['']}".to_owned(), "never_retry_kinds[0]", "\"\""),
            (rule("name: a, stop: at_once"), "rules[1].name", "\"a\""),
            (rule("name: Not OK, stop: at_once"), "rules[1].name", "\"Not OK\""),
            (rule("name: b"), "rules[1]", "0 actions"),
            (rule("name: b, stop: at_once, skip: {}"), "rules[1]", "2 actions"),
            (
                rule("name: b, retry_uncounted: {max_retries: 0}"),
                "rules[1].retry_uncounted.max_retries",
                "0",
            ),
            (
                rule("name: b, retry_uncounted: {max_retries: 10001}"),
                "rules[1].retry_uncounted.max_retries",
                "10001",
            ),
            (
                rule("name: b, retry: {backoff: {fixed: {delay: 1s}, max_delay: 0s}}"),
                "rules[1].retry.backoff.max_delay",
                "0s",
            ),
            (matching("codes: [UNAVAILABEL]"), "rules[1].match.codes[0]", "\"UNAVAILABEL\""),
            (matching("codes: ['600']"), "rules[1].match.codes[0]", "\"600\""),
            (matching("codes: [6xx]"), "rules[1].match.codes[0]", "\"6xx\""),
            (matching("codes: ['+503']"), "rules[1].match.codes[0]", "\"+503\""),
            (matching("error_types: ['']"), "rules[1].match.error_types[0]", "\"\""),
            (matching(&format!("error_types: [{long}]")), "rules[1].match.error_types[0]", "\"xxx"),
            (matching("exit_codes: [{min: 2, max: 1}]"), "rules[1].match.exit_codes[0]", "2 to 1"),
            (matching("message_pattern: '('"), "rules[1].match.message_pattern", "\"(\""),
            (
                matching("condition: 'failure.colour'"),
                "rules[1].match.condition",
                "\"failure.colour\"",
            ),
        ] {
            let found = violations(&yaml);
            assert_eq!(found.len(), 1, "{yaml}: {found:?}");
            assert_eq!(found[0].field, field, "{yaml}");
            assert!(found[0].value.starts_with(value), "{yaml}: {:?}", found[0].value);
            assert!(found[0].problem.contains("accepted"), "{yaml}: {}", found[0].problem);
            assert!(found[0].value.chars().count() <= 81, "{yaml}");
        }
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let yaml = "{max_elapsed: 0s, backoff: {schedule: {delays: []}}, rules: [{name: '', match: {codes: [x, z]}}]}";
        let fields: Vec<String> =
            violations(yaml).into_iter().map(|violation| violation.field).collect();
        assert_eq!(
            fields,
            [
                "backoff.schedule.delays",
                "max_elapsed",
                "rules[0].name",
                "rules[0].match.codes[0]",
                "rules[0].match.codes[1]",
                "rules[0]"
            ]
        );
    }

    #[test]
    fn lists_are_bounded() {
        let many = |item: &str| vec![item; LIST_MAX + 1].join(", ");
        for (yaml, field) in [
            (format!("{{never_retry_kinds: [{}]}}", many("a")), "never_retry_kinds"),
            (
                format!("{{backoff: {{schedule: {{delays: [{}]}}}}}}", many("1s")),
                "backoff.schedule.delays",
            ),
            (
                format!(
                    "{{rules: [{{name: a, skip: {{}}, match: {{exit_codes: [{}]}}}}]}}",
                    many("1")
                ),
                "rules[0].match.exit_codes",
            ),
        ] {
            let found = violations(&yaml);
            assert!(
                found.len() == 1 && found[0].field == field && found[0].value == "65 entries",
                "{found:?}"
            );
        }
        let rules: Vec<String> =
            (0..=LIST_MAX).map(|at| format!("{{name: r{at}, skip: {{}}}}")).collect();
        let found = violations(&format!("{{rules: [{}]}}", rules.join(", ")));
        assert!(found.len() == 1 && found[0].field == "rules", "{found:?}");
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let policy = Policy::parse(&PolicySpec::default()).unwrap();
        assert_eq!(policy.max_retries, None);
        assert_eq!(policy.backoff, Backoff::NONE);
        assert_eq!(
            (policy.pushback_min, policy.pushback_max),
            (Duration::ZERO, PUSHBACK_MAX_DEFAULT)
        );
        assert_eq!(policy.max_crash_retries, CRASH_RETRIES_DEFAULT);
        assert_eq!(policy.on_exhaustion, Exhaustion::Stop(StopTiming::AtOnce));
        assert_eq!(
            policy.anti_affinity,
            AntiAffinity { mode: AntiAffinityMode::None, decay: DECAY_DEFAULT }
        );
    }

    #[test]
    fn a_policy_is_stored_as_it_was_written() {
        let yaml = "
max_retries: 3
backoff: {exponential: {delay: 1s}, jitter: {ratio: 0.2}, max_delay: 1m}
rules:
  - {name: a, match: {classes: [TRANSIENT], exit_codes: [1, {min: 3, max: 5}], codes: [5xx]}, retry_uncounted: {}}
  - {name: b, hold: {allowed: [FAIL, EXCLUDE_HOST], timeout: 1h}}
on_exhaustion: {stop: after_backoff}
";
        let spec: PolicySpec = serde_saphyr::from_str(yaml).unwrap();
        let stored = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<PolicySpec>(&stored).unwrap(), spec);
        assert!(
            serde_saphyr::from_str::<PolicySpec>("{max_retires: 3}").is_err(),
            "a name that nobody knows is an error"
        );
    }
}
