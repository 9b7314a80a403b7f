//! What is remembered about one step.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{
    decision::{Counter, Counters, Settled, Verdict},
    failure::FailureClass,
    id::Id,
    labels::Labels,
    order::Orders,
    policy::spec::HoldAnswer,
    time::Timestamp,
};

/// Attempts remembered.
pub const HISTORY_MAX: usize = 16;

/// Everything that decisions about a step rest on. Error texts are not here:
/// see [`Evidence`].
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Grows by one with every write; what a commit compares.
    pub version: u64,
    /// Where the step stands.
    pub state: State,
    /// What has been counted.
    pub counters: Counters,
    /// Fence of the latest attempt. Only grows.
    pub fence: u64,
    /// When the step was first heard of.
    pub created_at: Timestamp,
    /// When the first attempt began.
    pub first_began_at: Option<Timestamp>,
    /// Time spent held or paused, during which `max_elapsed` stands still.
    pub held_for: Duration,
    /// How long the latest lease was granted for.
    pub lease: Duration,
    /// The wait that the policy asked for before the latest retry: at most so long,
    /// and not beyond the instant that the retry was told. See [`Record::last_wait`].
    pub last_delay: Duration,
    /// The policy that applies.
    pub policy: PolicyChoice,
    /// Kind of the step; empty when none was given.
    pub kind: Box<str>,
    /// Targets that it names.
    pub targets: Vec<Id>,
    /// Queue from which its retries may be claimed.
    pub queue: Option<Id>,
    /// What a worker is handed that claims it; empty when nothing was given.
    pub payload: Box<[u8]>,
    /// What tells it apart from other steps of its queue.
    pub labels: Labels,
    /// Whether the latest attempt was claimed, and nothing was heard of it since.
    pub is_silent: bool,
    /// Claims in a row of which nothing was heard until their leases ended.
    pub silent_claims: u32,
    /// When it must have ended.
    pub deadline: Option<Timestamp>,
    /// The action to resume from; empty means from the start.
    pub resume_from: Box<str>,
    /// Worker of the running attempt; empty when unknown.
    pub worker: Box<str>,
    /// Retries ordered by answers to holds.
    pub manual_retries: u32,
    /// The latest attempts, the newest last, at most [`HISTORY_MAX`].
    pub attempts: VecDeque<Attempt>,
    /// The standing decision, when it is not that of the latest attempt.
    pub standing: Option<Settled>,
    /// The attempt of its run that its counters belong to; 0 where the run was never
    /// begun. Of a run itself always 0.
    pub of_run: u32,
    /// What it has of targets with limits; None where it never met any.
    pub claims: Option<Box<Claims>>,
    /// What orders have left with it; None where none was ever given.
    pub orders: Option<Box<Orders>>,
    /// The furthest that any attempt has told to have come; 0 where none told.
    pub progress: u64,
    /// Whether the latest attempt has come further than any before it.
    pub has_moved: bool,
}

/// What a step has of targets with limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Since when it has been waiting for a start that limits refused.
    pub since: Option<Timestamp>,
    /// Starts that are promised to it, for the end of its wait.
    pub tickets: Vec<Ticket>,
    /// States at which it has a permit while it runs, a place in line while it
    /// waits.
    pub held: Vec<Box<str>>,
}

/// A start that a target has promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The state of the target.
    pub state: Box<str>,
    /// Revision of the target that promised it.
    pub revision: u64,
    /// By how much the start may come after the promised instant.
    pub grace: Duration,
    /// Which episodes the target had seen when it promised.
    pub mark: u32,
}

/// Where a step stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The next attempt may begin from `due` on.
    Waiting {
        /// The instant.
        due: Timestamp,
    },
    /// Given up, but not said so before `at`.
    Stopping {
        /// The instant.
        at: Timestamp,
        /// What is then said.
        verdict: Settled,
    },
    /// An attempt holds the lease.
    Running {
        /// When it ends without a heartbeat.
        lease_until: Timestamp,
    },
    /// A person decides.
    Held(Hold),
    /// Nothing follows.
    Over {
        /// How it ended.
        ending: Ending,
        /// When it is forgotten.
        purge_at: Timestamp,
    },
}

/// A step that waits for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Since when.
    pub since: Timestamp,
    /// When the default answer is taken.
    pub until: Option<Timestamp>,
    /// What the person may answer.
    pub allowed: Vec<HoldAnswer>,
    /// The answer taken when nobody answers.
    pub default_answer: HoldAnswer,
    /// Manual retries granted at most.
    pub max_manual_retries: u32,
}

impl Hold {
    /// The allowed answers, without those that run the step again once it was run so
    /// often by hand.
    #[must_use]
    pub fn answers_left(&self, manual_retries: u32) -> Vec<HoldAnswer> {
        answers_left(&self.allowed, manual_retries < self.max_manual_retries)
    }
}

/// Those of some answers that are left to a step which may, or may no more, be run
/// again by hand.
pub(super) fn answers_left(allowed: &[HoldAnswer], may_retry: bool) -> Vec<HoldAnswer> {
    let is_left = |answer: &HoldAnswer| {
        may_retry || !matches!(answer, HoldAnswer::Retry | HoldAnswer::ExcludeHost)
    };
    allowed.iter().copied().filter(is_left).collect()
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// An attempt succeeded.
    Succeeded,
    /// Given up.
    Failed,
    /// Gone on without it.
    Skipped,
    /// Cancelled by order.
    Canceled,
}

/// Which policy a step follows. Resolved anew at each decision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PolicyChoice {
    /// The namespace's default.
    Default,
    /// One of the namespace's, by name.
    Named(Id),
    /// One given with a call, by the digest of its content.
    Inline(u128),
}

/// One try of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// Its number, from 1, dense.
    pub number: u32,
    /// The fence of its lease.
    pub fence: u64,
    /// When it began.
    pub began_at: Timestamp,
    /// Who began it; None when it was begun by its report.
    pub begun_by: Option<Identity>,
    /// Host on which it ran.
    pub host: Option<Arc<str>>,
    /// What had been counted when it began; None where it is what the decision on the
    /// attempt before it left.
    pub began_with: Option<Box<Counters>>,
    /// How it ended; None while it runs.
    pub end: Option<End>,
}

/// Tells a repeated call from another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Digest of the call's `request_id`; 0 when it named the attempt itself.
    pub id: u64,
    /// Digest of what the call said.
    pub payload: u64,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// When its outcome was recorded.
    pub at: Timestamp,
    /// How.
    pub outcome: Outcome,
    /// Whose report it was; None when the lease ended without one.
    pub reported_by: Option<Identity>,
    /// Whether the report came after the lease had ended.
    pub late: bool,
    /// The decision that followed.
    pub settled: Settled,
    /// The counter on which that decision counted a retry.
    pub counted: Option<Counter>,
    /// The target at fault, where one with a breaker is: a mark of its state,
    /// and 0 for none.
    pub fault: u16,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It succeeded.
    Success,
    /// It failed.
    Failure {
        /// How the failure is read.
        class: FailureClass,
        /// The process's exit code.
        exit_code: Option<i32>,
    },
    /// Its lease ended without a word.
    Crash,
}

impl Outcome {
    /// The class of a failure or crash.
    #[must_use]
    pub const fn class(self) -> Option<FailureClass> {
        match self {
            Self::Success => None,
            Self::Failure { class, .. } => Some(class),
            Self::Crash => Some(FailureClass::Crash),
        }
    }

    /// The exit code, when one is known.
    #[must_use]
    pub const fn exit_code(self) -> Option<i32> {
        match self {
            Self::Failure { exit_code, .. } => exit_code,
            Self::Success | Self::Crash => None,
        }
    }
}

impl Record {
    /// A step that was just heard of.
    #[must_use]
    pub fn new(at: Timestamp, policy: PolicyChoice) -> Self {
        Self {
            version: 0,
            state: State::Waiting { due: at },
            counters: Counters::default(),
            fence: 0,
            created_at: at,
            first_began_at: None,
            held_for: Duration::ZERO,
            lease: Duration::ZERO,
            last_delay: Duration::ZERO,
            policy,
            kind: Box::default(),
            targets: Vec::new(),
            queue: None,
            payload: Box::default(),
            labels: Labels::default(),
            is_silent: false,
            silent_claims: 0,
            deadline: None,
            resume_from: Box::default(),
            worker: Box::default(),
            manual_retries: 0,
            attempts: VecDeque::new(),
            standing: None,
            of_run: 0,
            claims: None,
            orders: None,
            progress: 0,
            has_moved: false,
        }
    }

    /// Whether nothing follows.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.state, State::Over { .. })
    }

    /// Whether it was given up for a failure of a target that has a breaker.
    #[must_use]
    pub fn ended_in_outage(&self) -> bool {
        let is_failed = matches!(self.state, State::Over { ending: Ending::Failed, .. });
        let failed = self.attempts.iter().rev().find_map(|attempt| attempt.end.as_ref());
        is_failed && failed.is_some_and(|end| end.fault != 0)
    }

    /// The latest attempt.
    #[must_use]
    pub fn latest(&self) -> Option<&Attempt> {
        self.attempts.back()
    }

    /// The wait that the policy asked for before the latest attempt, for decorrelated
    /// jitter; what limits added is no part of it.
    #[must_use]
    pub fn last_wait(&self) -> Duration {
        let before = self.attempts.iter().rev().nth(1).and_then(|attempt| attempt.end.as_ref());
        match before.map(|end| (end.at, end.settled.verdict)) {
            Some((failed_at, Verdict::Retry(at))) => self.last_delay.min(at - failed_at),
            _ => self.last_delay,
        }
    }

    /// The standing decision.
    #[must_use]
    pub fn decision(&self) -> Option<&Settled> {
        self.standing.as_ref().or_else(|| {
            self.attempts
                .iter()
                .rev()
                .find_map(|attempt| attempt.end.as_ref())
                .map(|end| &end.settled)
        })
    }

    /// Begins the next attempt: numbers it, fences it, forgets the oldest one.
    ///
    /// The fence is above every earlier one of the step even when its record
    /// was purged or lost meanwhile, since it is at least the time in
    /// microseconds.
    pub fn begin(
        &mut self,
        began_at: Timestamp,
        begun_by: Option<Identity>,
        host: Option<Arc<str>>,
        at: Timestamp,
    ) -> u32 {
        let left = self.latest().and_then(|attempt| attempt.end.as_ref());
        let began_with = left
            .filter(|end| end.settled.counters != self.counters)
            .map(|_| Box::new(self.counters.clone()));
        self.counters.attempts = self.counters.attempts.saturating_add(1);
        self.fence = self.fence.saturating_add(1).max(at.as_micros());
        if planted!("fence-stands-still") {
            self.fence = 1;
        }
        self.first_began_at.get_or_insert(began_at);
        self.standing = None;
        self.has_moved = false;
        if let Some(orders) = &mut self.orders {
            orders.is_retry_ordered = false;
        }
        if self.attempts.len() == HISTORY_MAX {
            self.forget_oldest();
        }
        let number = self.counters.attempts;
        self.attempts.push_back(Attempt {
            number,
            began_with,
            fence: self.fence,
            began_at,
            begun_by,
            host,
            end: None,
        });
        number
    }

    /// Forgets the oldest attempt, but not what it left to the one after it.
    fn forget_oldest(&mut self) {
        let forgotten = self.attempts.pop_front().and_then(|attempt| attempt.end);
        if let (Some(end), Some(next)) = (forgotten, self.attempts.front_mut()) {
            next.began_with.get_or_insert_with(|| Box::new(end.settled.counters));
        }
    }
}

/// What went wrong in words, for the latest failures only. Kept apart from the
/// record, which is read and written far more often.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Evidence {
    /// The newest last, at most [`EVIDENCE_MAX`].
    pub failures: VecDeque<FailureText>,
}

/// Failures whose texts are kept.
pub const EVIDENCE_MAX: usize = 4;
/// Bytes kept of a message.
pub const MESSAGE_KEPT: usize = 512;

/// The texts of one failure, control characters escaped.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct FailureText {
    /// Number of the attempt.
    pub attempt: u32,
    /// Whether it was reported after the lease had ended.
    pub late: bool,
    /// What went wrong.
    pub message: String,
    /// Type of the error.
    pub error_type: String,
    /// Fingerprint of the cause.
    pub cause: String,
    /// The worker.
    pub worker: String,
}

impl Evidence {
    /// Keeps the texts of one more failure, in place of an earlier report about
    /// the same attempt.
    pub fn add(&mut self, text: FailureText) {
        self.failures.retain(|known| known.attempt != text.attempt || known.late != text.late);
        self.failures.push_back(text);
        while self.failures.len() > EVIDENCE_MAX {
            self.failures.pop_front();
        }
    }
}

/// A text as it is kept: whatever could break the line or turn its direction
/// escaped, so that it stays one readable line wherever it is shown, and cut to
/// `max` bytes at a character.
#[must_use]
pub fn kept(text: &str, max: usize) -> String {
    // Nearly every text, and much faster than going through its characters.
    if text.len() <= max && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.to_owned();
    }
    let mut kept = String::with_capacity(text.len().min(max));
    for char in text.chars() {
        let start = kept.len();
        if is_escaped(char) {
            kept.extend(char.escape_default());
        } else {
            kept.push(char);
        }
        if kept.len() > max {
            kept.truncate(start);
            break;
        }
    }
    kept
}

/// The end of a text, as much of it as [`kept`] keeps whole within `max` bytes:
/// for a text whose end tells more than its beginning.
#[must_use]
pub fn kept_end(text: &str, max: usize) -> &str {
    let mut room = max;
    let mut start = text.len();
    for (at, char) in text.char_indices().rev() {
        let takes = if is_escaped(char) { char.escape_default().len() } else { char.len_utf8() };
        let Some(left) = room.checked_sub(takes) else { break };
        (room, start) = (left, at);
    }
    &text[start..]
}

fn is_escaped(char: char) -> bool {
    char.is_control() || is_layout(char)
}

/// Characters that are not control characters but lay a text out: line and
/// paragraph separators, and the marks that turn its direction.
const fn is_layout(char: char) -> bool {
    matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_kept_text_is_one_line_and_not_too_long() {
        for (text, max, expected) in [
            ("read: timed out", 64, "read: timed out"),
            ("a\nb\tc\0", 64, "a\\nb\\tc\\u{0}"),
            ("a\u{2028}b\u{202e}c", 64, "a\\u{2028}b\\u{202e}c"),
            ("héé", 3, "hé"),
            ("héé", 2, "h"),
            ("ab\n", 3, "ab"),
            ("ab", 0, ""),
        ] {
            assert_eq!(kept(text, max), expected, "{text:?}");
        }
    }

    #[test]
    fn evidence_keeps_the_latest_failures_once_each() {
        let text = |attempt, late, message: &str| FailureText {
            attempt,
            late,
            message: message.to_owned(),
            ..FailureText::default()
        };
        let mut evidence = Evidence::default();
        for attempt in 1..=6 {
            evidence.add(text(attempt, false, "first"));
        }
        evidence.add(text(6, true, "late"));
        evidence.add(text(6, false, "again"));
        let kept: Vec<_> = evidence
            .failures
            .iter()
            .map(|text| (text.attempt, text.late, text.message.as_str()))
            .collect();
        assert_eq!(
            kept,
            [(4, false, "first"), (5, false, "first"), (6, true, "late"), (6, false, "again")]
        );
    }

    proptest! {
        #[test]
        fn keeping_never_splits_a_character(text in any::<String>(), max in 0..64_usize) {
            let kept = kept(&text, max);
            prop_assert!(kept.len() <= max);
            prop_assert!(!kept.chars().any(is_escaped));
        }

        #[test]
        fn a_kept_end_is_the_longest_that_is_kept_whole(text in "[a-cé\n\u{2028}]{0,80}", max in 0..64_usize) {
            let end = kept_end(&text, max);
            prop_assert!(text.ends_with(end));
            prop_assert!(kept(end, usize::MAX).len() <= max);
            if let Some(before) = text[..text.len() - end.len()].chars().next_back() {
                let longer = format!("{before}{end}");
                prop_assert!(kept(&longer, usize::MAX).len() > max);
            }
        }
    }
}
