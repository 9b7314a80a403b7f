//! What `exec` tells at each turn of its story.

use std::time::Duration;

use jiff::Timestamp;
use rustix::process::Signal;

use super::{
    Attempt, Exec, Unreported, delay_of, failure, messages::Event, service::NoAnswer, signals,
    supervise::Ended,
};
use crate::{
    cli::{error::headline, text},
    proto::{Decision, ReportStatus, Verdict},
};

/// A wait shorter than this is over before it is read.
const WORTH_TELLING: Duration = Duration::from_secs(1);

impl Exec {
    pub(super) fn tell_start(&self, attempt: &Attempt) {
        self.teller.tell(&Event::Started {
            namespace: self.job.namespace.clone(),
            run: self.job.run.clone(),
            step: self.job.step.clone(),
            attempt: attempt.number,
            policy: self.job.policy_in_words(attempt.policy.as_ref()),
        });
    }

    pub(super) fn tell_end(&self, attempt: &Attempt, ended: &Ended) {
        let (attempt, seconds) = (attempt.number, ended.ran.as_secs_f64());
        if ended.succeeded() {
            return self.teller.tell(&Event::Succeeded { attempt, seconds });
        }
        let class = self.job.classes.failure(ended).class();
        self.teller.tell(&Event::Failed {
            attempt,
            class: text::short_name(class.as_str_name(), "FAILURE_CLASS_"),
            cause: failure::in_words(ended),
            seconds,
        });
    }

    pub(super) fn tell_how_taken(&self, attempt: &Attempt, status: ReportStatus) {
        let attempt = attempt.number;
        match status {
            ReportStatus::Stale => self.teller.tell(&Event::Stale { attempt }),
            ReportStatus::Late => self.teller.tell(&Event::Late { attempt }),
            ReportStatus::Recorded | ReportStatus::Unspecified => {}
        }
    }

    pub(super) fn tell_unreported(&self, attempt: &Attempt, why: &Unreported) {
        let cause = match why {
            Unreported::NoAnswer(NoAnswer::Away { cause }) => cause.clone(),
            Unreported::NoAnswer(NoAnswer::Refused(status)) => headline(status),
            Unreported::Told(signal) => signals::name(signal.as_raw()),
        };
        self.teller.tell(&Event::Unreported { attempt: attempt.number, cause });
    }

    pub(super) fn tell_leaving(&self, signal: Signal) {
        let signal = signals::name(signal.as_raw());
        self.teller.tell(&Event::Interrupted { signal, run: self.job.run.clone() });
    }

    pub(super) fn tell_alone(&self) {
        let policy = match self.job.inline {
            Some(_) => "the inline policy",
            None => "the built-in policy",
        };
        self.teller.tell(&Event::Alone { policy: policy.to_owned() });
    }

    pub(super) fn tell_later(&self, pause: Duration) {
        self.teller.tell(&Event::Later { seconds: Some(pause.as_secs_f64()) });
    }

    pub(super) fn tell_decision(&mut self, decision: &Decision) {
        match decision.verdict() {
            Verdict::Retry => self.tell_retry(decision),
            Verdict::Stop => self.teller.tell(&Event::Stopped {
                reason: reason(decision),
                explanation: decision.explanation.clone(),
                attempts: decision.counters.as_ref().map_or(0, |counters| counters.attempts),
                local: self.local,
            }),
            Verdict::Done => self.teller.tell(&Event::Done { reason: reason(decision) }),
            Verdict::Hold => self.tell_wait(decision, held(decision)),
            Verdict::Wait | Verdict::Unspecified => {
                if delay_of(decision).is_none_or(|delay| delay >= WORTH_TELLING) {
                    self.tell_wait(decision, waiting(decision));
                }
            }
        }
    }

    /// Once for each reason.
    fn tell_wait(&mut self, decision: &Decision, event: Event) {
        if self.told_reason.replace(decision.reason) != Some(decision.reason) {
            self.teller.tell(&event);
        }
    }

    fn tell_retry(&self, decision: &Decision) {
        let (retry, own_counter) = retry_number(decision);
        let inline = self.job.inline.as_ref().filter(|_| !own_counter);
        let delay = delay_of(decision).unwrap_or_default();
        self.teller.tell(&Event::Retry {
            retry,
            max_retries: inline.and_then(|policy| policy.max_retries),
            seconds: delay.as_secs_f64(),
            not_before: instant(decision.not_before).unwrap_or_else(|| from_now(delay)),
            why: self.why_retry(decision),
            local: self.local,
        });
    }

    /// The reason, and where it comes from.
    fn why_retry(&self, decision: &Decision) -> String {
        let reason = text::words(reason(decision));
        if !decision.rule.is_empty() {
            return format!("{reason}, rule {}", decision.rule);
        }
        match self.job.inline {
            Some(_) => format!("{reason}: {}", self.job.inline_flags.backoff_in_words()),
            None => reason,
        }
    }
}

fn waiting(decision: &Decision) -> Event {
    Event::Waiting {
        reason: reason(decision),
        explanation: decision.explanation.clone(),
        seconds: delay_of(decision).map(|delay| delay.as_secs_f64()),
    }
}

fn held(decision: &Decision) -> Event {
    let answer = |answer: crate::proto::HoldAnswer| {
        text::short_name(answer.as_str_name(), "HOLD_ANSWER_").to_owned()
    };
    Event::Held {
        reason: reason(decision),
        explanation: decision.explanation.clone(),
        answers: decision.hold_answers().map(answer).collect(),
        until: instant(decision.held_until),
    }
}

fn reason(decision: &Decision) -> &'static str {
    text::short_name(decision.reason().as_str_name(), "REASON_")
}

/// Which retry it is on the counter that counted it, and whether that is a
/// counter other than the policy's.
fn retry_number(decision: &Decision) -> (u32, bool) {
    let Some(counters) = &decision.counters else {
        return (0, false);
    };
    if decision.reason() == crate::proto::Reason::Crashed {
        return (counters.crashes, true);
    }
    match counters.retries_by_rule.get(&decision.rule) {
        Some(&by_rule) => (by_rule, true),
        None => (counters.retries, false),
    }
}

fn instant(at: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    at.and_then(text::from_proto_timestamp)
}

fn from_now(delay: Duration) -> Timestamp {
    Timestamp::now().saturating_add(delay).unwrap_or(Timestamp::MAX)
}
