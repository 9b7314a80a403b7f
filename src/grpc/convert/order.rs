//! Orders about steps and lists of them: read, and told.

use prost::Message as _;

use super::{
    admin::{PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX},
    answer::{self, instant},
    check::{Check, Invalid, Part, shown},
    policy::{answer_number, class_number, hold_answer},
    request::{LABEL_MAX, identity, request_id},
    target::plain_text,
};
use crate::{
    domain::{
        draw,
        event::Deadline,
        id::StepName,
        order::{Extension, Footing, Given, Order, Stage, StepPause, What},
        plan::Ordered,
        record::{Identity, Record, State},
        time::Timestamp,
    },
    proto::{self, extend_step_request, pause_step_request},
    service::{ListedStep, StepFilter},
};

/// Retries that one order allows more, at most.
const MORE_RETRIES_MAX: u32 = 1000;

/// An order about a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The step.
    pub step: StepName,
    /// The order.
    pub order: Order,
}

/// Which steps are to be listed, and from where on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListCall {
    /// The namespace, an id.
    pub namespace: String,
    /// Which steps.
    pub filter: StepFilter,
    /// Where the page before has ended; 0 begins at the start.
    pub from: u64,
    /// Steps of a page.
    pub size: usize,
}

/// Reads a call of `RetryStep`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn retry(request: proto::RetryStepRequest) -> Result<Call, Invalid> {
    call("retry", request.order, &[], |_| What::Retry)
}

/// Reads a call of `SkipStep`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn skip(request: proto::SkipStepRequest) -> Result<Call, Invalid> {
    call("skip", request.order, &[], |_| What::Skip)
}

/// Reads a call of `SucceedStep`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn succeed(request: proto::SucceedStepRequest) -> Result<Call, Invalid> {
    call("succeed", request.order, &[], |_| What::Succeed)
}

/// Reads a call of `FailStep`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn fail(request: proto::FailStepRequest) -> Result<Call, Invalid> {
    call("fail", request.order, &[], |_| What::Fail)
}

/// Reads a call of `CancelStep`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn cancel(request: proto::CancelStepRequest) -> Result<Call, Invalid> {
    call("cancel", request.order, &[], |_| What::Cancel)
}

/// Reads a call of `ResetStep`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn reset(request: proto::ResetStepRequest) -> Result<Call, Invalid> {
    call("reset", request.order, &[], |_| What::Reset)
}

/// Reads a call of `ResumeStep`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn resume(request: proto::ResumeStepRequest) -> Result<Call, Invalid> {
    call("resume", request.order, &[], |_| What::Resume)
}

/// Reads a call of `ExtendStep`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn extend(mut request: proto::ExtendStepRequest) -> Result<Call, Invalid> {
    use extend_step_request::Deadline as Given;
    let order = request.order.take();
    call("extend", order, &request.encode_to_vec(), |check| {
        let retries = request.more_retries;
        if retries > MORE_RETRIES_MAX {
            let accepted = format!("accepted: at most {MORE_RETRIES_MAX}");
            check.refuse("more_retries", retries.to_string(), accepted);
        }
        if retries == 0 && request.deadline.is_none() {
            check.refuse("more_retries", "0", "accepted: at least 1, or a later deadline");
        }
        let deadline = match request.deadline {
            Some(Given::Time(at)) => check.instant("time", Some(at)).map(Deadline::At),
            Some(Given::TimeLeft(span)) => {
                check.positive_span("time_left", Some(span)).map(Deadline::After)
            }
            None => None,
        };
        What::Extend(Extension { retries, deadline })
    })
}

/// Reads a call of `PauseStep`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn pause(mut request: proto::PauseStepRequest) -> Result<Call, Invalid> {
    use pause_step_request::End;
    let order = request.order.take();
    call("pause", order, &request.encode_to_vec(), |check| {
        What::Pause(match request.end {
            Some(End::Until(until)) => check.instant("until", Some(until)).map(Deadline::At),
            Some(End::PauseFor(span)) => {
                check.positive_span("pause_for", Some(span)).map(Deadline::After)
            }
            None => None,
        })
    })
}

/// Reads a call of `ResolveHold`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn resolve(mut request: proto::ResolveHoldRequest) -> Result<Call, Invalid> {
    let order = request.order.take();
    call("resolve", order, &request.encode_to_vec(), |check| {
        What::Resolve(hold_answer(check, "answer", request.answer))
    })
}

/// Reads an order: `verb` and `rest` are what it says beside its `header`.
fn call(
    verb: &str,
    header: Option<proto::StepOrder>,
    rest: &[u8],
    what: impl FnOnce(&mut Check) -> What,
) -> Result<Call, Invalid> {
    let mut check = Check::default();
    if header.is_none() {
        check.required("order");
    }
    let header = header.unwrap_or_default();
    let said = proto::StepOrder { request_id: Vec::new().into(), ..header.clone() };
    let payload = draw::digest(&[verb.as_bytes(), &said.encode_to_vec(), rest].concat());
    let (step, id) = check.within(Part::Field("order"), |check| {
        let step = check.step_or_run(header.namespace, header.run, header.step);
        request_id(check, &header.request_id);
        for (field, text) in [("reason", &header.reason), ("by", &header.by)] {
            if text.is_empty() {
                check.required(field);
            }
            plain_text(check, field, text, LABEL_MAX);
        }
        (step, identity(&header.request_id))
    });
    let what = what(&mut check);
    let order = Order {
        identity: Identity { id, payload },
        by: header.by.into(),
        reason: header.reason.into(),
        what,
    };
    check.finish(Call { step, order })
}

/// Reads a call of `ListSteps`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn list(request: proto::ListStepsRequest) -> Result<ListCall, Invalid> {
    let mut check = Check::default();
    let namespace = check.namespace(request.namespace);
    let mut stages = Vec::new();
    for number in request.states {
        match stages_of(number) {
            [] => check.refuse("states", number.to_string(), STATES_ACCEPTED),
            known => stages.extend(known),
        }
    }
    let run = check.optional_id("run", &request.run);
    let queue = check.optional_id("queue", &request.queue);
    let size = request.page_size;
    if size > PAGE_SIZE_MAX {
        let accepted = format!("accepted: at most {PAGE_SIZE_MAX}; 0 means {PAGE_SIZE_DEFAULT}");
        check.refuse("page_size", size.to_string(), accepted);
    }
    let from =
        if request.page_token.is_empty() { Some(0) } else { request.page_token.parse().ok() };
    if from.is_none() {
        let accepted = "accepted: next_page_token of the page before";
        check.refuse("page_token", shown(&request.page_token), accepted);
    }
    let filter = StepFilter {
        stages,
        run: run.map(|run| run.to_string()),
        queue,
        ended_in_outage: request.ended_in_outage,
        is_paused: request.paused,
    };
    let size = if size == 0 { PAGE_SIZE_DEFAULT } else { size.min(PAGE_SIZE_MAX) };
    check.finish(ListCall {
        namespace,
        filter,
        from: from.unwrap_or_default(),
        size: size as usize,
    })
}

const STATES_ACCEPTED: &str = "accepted: STEP_STATE_WAITING, STEP_STATE_RUNNING, STEP_STATE_HELD, STEP_STATE_SUCCEEDED, \
     STEP_STATE_FAILED, STEP_STATE_SKIPPED and STEP_STATE_CANCELED";

/// The stages that are told as one state.
fn stages_of(number: i32) -> &'static [Stage] {
    use crate::domain::record::Ending;
    match proto::StepState::try_from(number) {
        Ok(proto::StepState::Waiting) => &[Stage::Waiting, Stage::Stopping],
        Ok(proto::StepState::Running) => &[Stage::Running],
        Ok(proto::StepState::Held) => &[Stage::Held],
        Ok(proto::StepState::Succeeded) => &[Stage::Over(Ending::Succeeded)],
        Ok(proto::StepState::Failed) => &[Stage::Over(Ending::Failed)],
        Ok(proto::StepState::Skipped) => &[Stage::Over(Ending::Skipped)],
        Ok(proto::StepState::Canceled) => &[Stage::Over(Ending::Canceled)],
        Ok(proto::StepState::Unspecified) | Err(_) => &[],
    }
}

/// A stage as it is told.
const fn stage_to_proto(stage: Stage) -> proto::StepState {
    use crate::domain::record::Ending;
    match stage {
        Stage::Waiting | Stage::Stopping => proto::StepState::Waiting,
        Stage::Running => proto::StepState::Running,
        Stage::Held => proto::StepState::Held,
        Stage::Over(Ending::Succeeded) => proto::StepState::Succeeded,
        Stage::Over(Ending::Failed) => proto::StepState::Failed,
        Stage::Over(Ending::Skipped) => proto::StepState::Skipped,
        Stage::Over(Ending::Canceled) => proto::StepState::Canceled,
    }
}

/// What became of an order.
#[must_use]
pub fn outcome(ordered: &Ordered, step: proto::Step) -> proto::StepOrderOutcome {
    proto::StepOrderOutcome {
        step: Some(step),
        order: Some(given(&ordered.given)),
        replayed: ordered.replayed,
    }
}

/// An order as it is told.
#[must_use]
pub fn given(given: &Given) -> proto::GivenOrder {
    let (answer, more_retries) = match given.what {
        What::Resolve(answer) => (answer_number(answer), 0),
        What::Extend(extension) => (0, extension.retries),
        _ => (0, 0),
    };
    proto::GivenOrder {
        kind: kind(given.what) as i32,
        at: Some(instant(given.at)),
        by: given.by.to_string(),
        reason: given.reason.to_string(),
        answer,
        more_retries,
        before: Some(footing(given.before)),
        after: Some(footing(given.after)),
    }
}

const fn kind(what: What) -> proto::OrderKind {
    match what {
        What::Retry => proto::OrderKind::Retry,
        What::Skip => proto::OrderKind::Skip,
        What::Succeed => proto::OrderKind::Succeed,
        What::Fail => proto::OrderKind::Fail,
        What::Cancel => proto::OrderKind::Cancel,
        What::Reset => proto::OrderKind::Reset,
        What::Extend(_) => proto::OrderKind::Extend,
        What::Pause(_) => proto::OrderKind::Pause,
        What::Resume => proto::OrderKind::Resume,
        What::Resolve(_) => proto::OrderKind::Resolve,
    }
}

const fn footing(footing: Footing) -> proto::StepFooting {
    proto::StepFooting { state: stage_to_proto(footing.stage) as i32, retries: footing.retries }
}

/// A pause as it is told.
#[must_use]
pub fn pause_to_proto(pause: &StepPause) -> proto::StepPause {
    proto::StepPause {
        since: Some(instant(pause.since)),
        until: pause.until.map(instant),
        by: pause.by.to_string(),
        reason: pause.reason.to_string(),
    }
}

/// A step in a list, at the store's time `at`.
#[must_use]
pub fn summary(listed: ListedStep, at: Timestamp) -> proto::StepSummary {
    let ListedStep { name, record } = listed;
    let (held_since, hold_answers) = match &record.state {
        State::Held(hold) => {
            let answers = hold.answers_left(record.manual_retries);
            let answers = answers.into_iter().map(answer_number).collect();
            (Some(instant(hold.since)), answers)
        }
        _ => (None, Vec::new()),
    };
    let latest = record.latest();
    let class =
        record.attempts.iter().rev().find_map(|attempt| attempt.end.as_ref()?.outcome.class());
    proto::StepSummary {
        run: name.run,
        step: name.step,
        state: stage_to_proto(Stage::of(&record.state)) as i32,
        counters: Some(answer::counters(&record.counters)),
        reason: record.decision().map_or(0, |settled| answer::reason_number(settled.reason)),
        class: class.map_or(0, class_number),
        next_event_at: next_event_at(&record).map(instant),
        held_since,
        hold_answers,
        paused: record.paused_at(at).is_some(),
        ended_in_outage: record.ended_in_outage(),
        kind: record.kind.to_string(),
        queue: record.queue.as_ref().map(ToString::to_string).unwrap_or_default(),
        host: latest.and_then(|latest| latest.host.as_deref()).unwrap_or_default().to_owned(),
    }
}

const fn next_event_at(record: &Record) -> Option<Timestamp> {
    match &record.state {
        State::Waiting { due: at } | State::Stopping { at, .. } => Some(*at),
        State::Running { lease_until } => Some(*lease_until),
        State::Held(hold) => hold.until,
        State::Over { .. } => None,
    }
}
