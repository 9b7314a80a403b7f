//! From where a step stands to where it stands next: which ways there are, and what
//! else holds between two looks at it, whatever rule, model or laws say.
//!
//! It knows one thing that was done, its answer, and the step before and after.

use crate::history::{Call, Observed, Op, Status, View};

/// Where a step may stand, in the order of the table; the first is nowhere.
const STATES: [&str; 8] =
    ["UNKNOWN", "WAITING", "RUNNING", "HELD", "SUCCEEDED", "FAILED", "SKIPPED", "CANCELED"];

/// What may lead from the state of a row to that of a column: `b` a begin, `r` a
/// report, `o` an order, `t` time. Whoever is to be begun again after an end belongs to
/// a run that is tried again, which the laws hold.
const WAYS: [[&str; 8]; 8] = [
    // UNKNOWN WAITING RUNNING HELD  SUCCEEDED FAILED SKIPPED CANCELED
    ["brot", "r", "b", "r", "r", "r", "r", ""],
    ["", "brot", "b", "br", "ro", "brot", "ro", "o"],
    ["", "rt", "brot", "rt", "r", "rt", "rt", "rt"],
    ["", "ot", "b", "brot", "ro", "bot", "ot", "o"],
    ["t", "", "b", "", "brot", "b", "", ""],
    ["t", "o", "b", "", "ro", "brot", "o", ""],
    ["t", "o", "b", "", "ro", "b", "brot", ""],
    ["t", "o", "b", "", "ro", "b", "o", "brot"],
];

/// Checks what one call has done to a step.
///
/// # Errors
/// What must not be.
pub fn check(
    before: Option<&View>,
    op: &Op,
    observed: &Observed,
    after: Option<&View>,
) -> Result<(), String> {
    let told = |wrong: String| format!("{wrong}: {op:?} -> {observed:?}, {before:#?}, {after:#?}");
    moved(before, &op.call, after).map_err(told)?;
    if let Some(after) = after {
        sound(after).map_err(|wrong| told(wrong.to_owned()))?;
        numbered(before, observed, after).map_err(|wrong| told(wrong.to_owned()))?;
    }
    if let (Some(before), Some(after)) = (before, after) {
        ended_once(before, observed, after).map_err(|wrong| told(wrong.to_owned()))?;
    }
    if changes_nothing(observed) && before.map(fixed) != after.map(fixed) {
        return Err(told("something changed where nothing was to".to_owned()));
    }
    Ok(())
}

fn moved(before: Option<&View>, call: &Call, after: Option<&View>) -> Result<(), String> {
    let place = |view: Option<&View>| {
        let state = view.map_or("UNKNOWN", |view| view.state);
        STATES.iter().position(|known| *known == state).expect("a state")
    };
    let cause = match call {
        Call::Begin { .. } => 'b',
        Call::Report { .. } => 'r',
        Call::Order { .. } => 'o',
        Call::Tick => 't',
        // Nothing moves by it.
        Call::Heartbeat { .. } if place(before) == place(after) => return Ok(()),
        Call::Heartbeat { .. } => 'h',
    };
    let (from, to) = (place(before), place(after));
    if WAYS[from][to].contains(cause) {
        return Ok(());
    }
    Err(format!("nothing leads from {} to {} by this", STATES[from], STATES[to]))
}

/// What holds wherever it stands.
fn sound(view: &View) -> Result<(), &'static str> {
    let numbers: Vec<u32> = view.attempts.iter().map(|(number, _)| *number).collect();
    law(numbers.len() <= 16, "sixteen attempts are remembered at most")?;
    law(
        numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]),
        "the numbers of attempts are dense",
    )?;
    law(
        numbers.last().copied().unwrap_or(0) == view.counters.attempts,
        "the latest attempt is the one that was counted last",
    )?;
    let running = view.attempts.iter().filter(|(_, outcome)| outcome.is_empty());
    let is_running = view.state == "RUNNING";
    law(running.count() == usize::from(is_running), "attempts are outcomes and what runs")?;
    let is_last = view.attempts.last().is_some_and(|(_, outcome)| outcome.is_empty());
    law(is_last == is_running, "what runs is the latest attempt")?;
    law(!view.is_to_stop || is_running, "who does not run is not to stop")?;
    let is_over = matches!(view.state, "SUCCEEDED" | "FAILED" | "SKIPPED" | "CANCELED");
    law(!is_over || view.next_at.is_none(), "what is over awaits nothing")?;
    let awaits = matches!(view.state, "WAITING" | "RUNNING");
    law(!awaits || view.next_at.is_some(), "what waits or runs does until an instant")
}

/// One number for each attempt that begins, and none for anything else.
fn numbered(before: Option<&View>, observed: &Observed, after: &View) -> Result<(), &'static str> {
    let was_running = before.is_some_and(|before| before.state == "RUNNING");
    let begins = match observed {
        Observed::Granted(grant) => !grant.replayed,
        Observed::Reported { status, replayed, .. } => {
            *status == Status::Recorded && !replayed && !was_running
        }
        _ => false,
    };
    let attempts = before.map_or(0, |before| before.counters.attempts);
    law(
        after.counters.attempts == attempts + u32::from(begins),
        "each attempt that begins has one number",
    )
}

/// Each attempt has one outcome; a crash is replaced once, by a success that came late.
fn ended_once(before: &View, observed: &Observed, after: &View) -> Result<(), &'static str> {
    let is_late = matches!(observed, Observed::Reported { status: Status::Late, .. });
    for (number, outcome) in before.attempts.iter().filter(|(_, outcome)| !outcome.is_empty()) {
        let Some((_, now)) = after.attempts.iter().find(|(known, _)| known == number) else {
            continue;
        };
        let is_replaced = is_late && outcome == "CRASH" && now == "SUCCESS";
        law(outcome == now || is_replaced, "an attempt has one outcome")?;
    }
    law(before.progress <= after.progress, "who has come so far has come so far")?;
    law(before.extra_retries <= after.extra_retries, "what was allowed is allowed")
}

/// Whether the answer says that the call had no effect.
fn changes_nothing(observed: &Observed) -> bool {
    match observed {
        Observed::Granted(grant) => grant.replayed,
        Observed::Refused(decision) => decision.verdict == "WAIT",
        Observed::Reported { status, replayed, .. } => *replayed || *status == Status::Stale,
        Observed::Ordered { replayed, .. } => *replayed,
        Observed::Lost | Observed::Failed(_) => true,
        Observed::Held { .. } | Observed::Ticked | Observed::Forgotten => false,
    }
}

/// What time alone does not change.
fn fixed(view: &View) -> View {
    View { next_at: None, ..view.clone() }
}

fn law(holds: bool, law: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(law) }
}

mod tests {
    use super::*;
    use crate::history::{Begin, Counts, Granted};

    fn view(state: &'static str, outcomes: &[&str]) -> View {
        let attempts = outcomes.len() as u32;
        View {
            state,
            next_at: matches!(state, "WAITING" | "RUNNING").then_some(9),
            counters: Counts { attempts, ..Counts::default() },
            attempts: (1..=attempts).zip(outcomes.iter().map(ToString::to_string)).collect(),
            decision: None,
            resume_from: String::new(),
            progress: 0,
            extra_retries: 0,
            is_to_stop: false,
        }
    }

    fn granted(attempt: u32) -> (Op, Observed) {
        let grant = Granted {
            attempt,
            fence: 5,
            began_at: 0,
            lease_until: 9,
            replayed: false,
            excluded_hosts: Vec::new(),
            ends_by: None,
            counters: Counts::default(),
        };
        let call = Call::Begin { request: 1, said: Begin::default() };
        (Op { at: 0, step: 0, call }, Observed::Granted(grant))
    }

    fn ticked() -> (Op, Observed) {
        (Op { at: 0, step: 0, call: Call::Tick }, Observed::Ticked)
    }

    #[test]
    fn every_wrong_step_is_named() {
        let running = || view("RUNNING", &["CRASH", ""]);
        for (expected, before, (op, observed), after) in [
            ("nothing leads", view("CANCELED", &[]), ticked(), view("FAILED", &[])),
            ("dense", view("WAITING", &["CRASH"]), granted(2), {
                let mut gap = running();
                gap.attempts[0].0 = 0;
                gap
            }),
            ("one number", running(), granted(3), running()),
            ("one outcome", running(), ticked(), view("WAITING", &["ERROR", "CRASH"])),
            ("what runs", running(), ticked(), view("RUNNING", &["CRASH", "CRASH"])),
            ("latest attempt", view("WAITING", &["CRASH"]), granted(2), {
                let mut uncounted = running();
                uncounted.counters.attempts = 1;
                uncounted
            }),
        ] {
            let wrong = check(Some(&before), &op, &observed, Some(&after)).unwrap_err();
            assert!(wrong.contains(expected), "{expected}: {wrong}");
        }
        let lost = Observed::Lost;
        let beat = Call::Heartbeat { fence: 1, lease: None, progress: None };
        let op = Op { at: 0, step: 0, call: beat };
        let further = View { progress: 1, ..running() };
        let wrong = check(Some(&running()), &op, &lost, Some(&further)).unwrap_err();
        assert!(wrong.contains("where nothing was to"), "{wrong}");
        let (op, observed) = ticked();
        assert_eq!(check(Some(&running()), &op, &observed, Some(&running())), Ok(()));
    }
}
