//! Why a step is where it is, in prose.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::{text, view, why};

/// The whole story of a step: where it stands, what happened last, what
/// bounded the decision or stands in the way by now, what has been counted, and
/// what can be done.
pub fn step(step: &view::Step, why: Option<&why::Explanation>) -> String {
    let now = step.read_at.unwrap_or_else(Timestamp::now);
    let mut story = format!("{}\n", standing(step, now));
    let paragraphs = [
        step.attempts.last().map(|attempt| last_attempt(attempt, now)),
        step.decision.as_ref().map(|decision| decided(decision, now, why.is_none())),
        why.map(|why| why.in_words(now)),
        step.pause
            .as_ref()
            .map(|pause| format!("Nothing of it starts: paused {}.\n", pause.in_words(now))),
        Some(orders(step)).filter(|orders| !orders.is_empty()),
        Some(counted(step, now)),
        Some(next_steps(step)),
    ];
    for paragraph in paragraphs.into_iter().flatten() {
        let _ = write!(story, "\n{paragraph}");
    }
    story
}

fn standing(step: &view::Step, now: Timestamp) -> String {
    let name = format!("{}/{}/{}", step.namespace, step.run, step.step);
    let when = step.next_event_at.map(|at| text::relative(at, now));
    let when = when.as_deref().unwrap_or("an unknown time");
    match step.state {
        "WAITING" if step.next_event_at.is_some_and(|at| at <= now) => {
            format!("{name} is due since {when} and waits for a worker to begin it.")
        }
        "WAITING" => format!("{name} waits for its next attempt, due {when}."),
        "RUNNING" => format!(
            "{name} runs attempt {}; its lease ends {when} unless the worker extends it.",
            step.counters.attempts
        ),
        "HELD" => format!("{name} waits for a person to decide."),
        "SUCCEEDED" => format!("{name} is over: it succeeded."),
        "FAILED" => format!("{name} is over: it was given up."),
        "SKIPPED" => format!("{name} is over: it was skipped."),
        "CANCELED" => format!("{name} is over: it was cancelled."),
        state => format!("{name} is {}.", text::words(state)),
    }
}

fn last_attempt(attempt: &view::Attempt, now: Timestamp) -> String {
    let mut line = format!("Attempt {}", attempt.number);
    if let Some(began) = attempt.began_at {
        let _ = write!(line, " began at {}", text::clock_time(began, now));
    }
    if let Some(host) = &attempt.host {
        let _ = write!(line, " on {host}");
    }
    let _ = match (attempt.outcome, attempt.seconds) {
        (None, _) => write!(line, " and still runs."),
        (_, None) => write!(line, ", outcome: {}.", outcome(attempt)),
        (_, Some(seconds)) => {
            let ran = text::duration(text::from_seconds(seconds));
            write!(line, " and ended after {ran}: {}.", outcome(attempt))
        }
    };
    if let Some(code) = attempt.exit_code {
        let _ = write!(line, " Exit code {code}.");
    }
    if let Some(error_type) = &attempt.error_type {
        let _ = write!(line, " Error type {error_type}.");
    }
    line.push('\n');
    let texts = [("It said", &attempt.message), ("Too late it said", &attempt.late_message)];
    for (said, message) in texts {
        if let Some(message) = message {
            let _ = writeln!(line, "{said}: {}", message.trim_end().replace('\n', "\n  "));
        }
    }
    line
}

/// How an attempt ended, in a word or two.
pub fn outcome(attempt: &view::Attempt) -> String {
    match (attempt.outcome, attempt.class) {
        (None, _) => "running".to_owned(),
        (Some("FAILURE"), Some(class)) if class != "FAILURE" => {
            format!("failure ({})", text::words(class))
        }
        (Some(outcome), _) => text::words(outcome),
    }
}

fn decided(decision: &view::Decision, now: Timestamp, with_constraints: bool) -> String {
    let mut text = format!("Decision: {}", text::words(decision.verdict));
    if let Some(at) = decision.not_before {
        let _ = write!(text, " {}", text::relative(at, now));
    }
    let _ = write!(text, ", because: {}", text::words(decision.reason));
    if let Some(rule) = &decision.rule {
        let _ = write!(text, ", by rule {rule}");
    }
    if let Some(policy) = &decision.policy {
        let _ = write!(text, " of the policy {}", policy.in_words());
    }
    text.push_str(".\n");
    if !decision.explanation.is_empty() {
        let _ = writeln!(text, "{}", decision.explanation);
    }
    for constraint in decision.constraints.iter().filter(|_| with_constraints) {
        let _ = writeln!(text, "  {}", bounded(constraint, now));
    }
    for excluded in &decision.excluded_hosts {
        let how = if excluded.hard { "may not" } else { "should rather not" };
        let _ = writeln!(text, "  host {} {how} run the next attempt", excluded.host);
    }
    text
}

fn bounded(constraint: &view::Constraint, now: Timestamp) -> String {
    let mut line = text::words(constraint.kind);
    if let Some(key) = &constraint.key {
        let _ = write!(line, " of {key}");
    }
    if let Some(earliest) = constraint.earliest {
        let _ = write!(line, ": not before {}", text::relative(earliest, now));
    }
    if let (Some(used), Some(limit)) = (constraint.used, constraint.limit) {
        let of = if constraint.kind == "BUDGET" { " (thousandths of a retry)" } else { "" };
        let _ = write!(line, ", {used} of {limit} used{of}");
    }
    let kept = if constraint.firm { "reserved" } else { "checked again at the start" };
    let decisive = if constraint.binding { ", this decided the instant" } else { "" };
    format!("{line} ({kept}{decisive})")
}

fn counted(step: &view::Step, now: Timestamp) -> String {
    let counters = &step.counters;
    let attempts = match counters.attempts {
        1 => "1 attempt".to_owned(),
        n => format!("{n} attempts"),
    };
    let ends = step.ends_by.map(|at| text::relative(at, now));
    let ends = ends.map(|at| format!(" Whatever happens, it ends {at}.")).unwrap_or_default();
    format!("Counted so far: {attempts}, retries: {}.{ends}\n", retries(counters))
}

/// Retries by the counter that counted them.
pub fn retries(counters: &view::Counters) -> String {
    let mut parts = vec![counters.retries.to_string()];
    let by_rule = counters.retries_by_rule.iter();
    parts.extend(by_rule.map(|(rule, count)| format!("{count} by rule {rule}")));
    if counters.crashes > 0 {
        parts.push(format!("{} after crashes", counters.crashes));
    }
    parts.join(", ")
}

/// The orders that were given about a step, a line each.
pub fn orders(step: &view::Step) -> String {
    let now = step.read_at.unwrap_or_else(Timestamp::now);
    let line = |order: &view::Order| {
        let at = order.at.map(|at| text::clock_time(at, now)).unwrap_or_default();
        let answer = order.answer.map(|answer| format!(" {}", text::words(answer)));
        let (before, after) = (text::words(order.before.state), text::words(order.after.state));
        let what = text::words(order.kind) + &answer.unwrap_or_default();
        format!("Order at {at} by {}: {what} ({before} → {after}): {}\n", order.by, order.reason)
    };
    step.orders.iter().map(line).collect()
}

fn next_steps(step: &view::Step) -> String {
    let name = format!("{} {}", step.run, step.step);
    let held = format!(
        "A person has to answer, with what may be answered: `reprise hold resolve {name} --answer … --reason …`."
    );
    let failed = format!(
        "`reprise step retry {name} --reason …` has it tried once more, `reprise step reset` first begins its counters anew."
    );
    let paused = format!("`reprise step resume {name} --reason …` ends its pause.");
    let steps = match step.state {
        "WAITING" if step.pause.is_some() => &paused,
        "WAITING" => "The worker that comes back for it begins it; nothing else is needed.",
        "RUNNING" => "Wait for the attempt, or for its lease to end.",
        "HELD" => &held,
        "FAILED" | "CANCELED" => &failed,
        _ => "Nothing is left to do.",
    };
    format!("Next: {steps}\n      `reprise step get {name}` lists the attempts.\n")
}
