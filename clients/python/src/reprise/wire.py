"""The contract's messages to our values, and back."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, cast

import grpc
from google.rpc import error_details_pb2, status_pb2

from ._proto import failure_pb2, policy_pb2, run_pb2, step_pb2
from ._proto import retry_service_pb2 as calls
from .errors import Unanswered
from .failure import NEVER, Failure
from .model import (
    Begun,
    Counters,
    Decision,
    Grant,
    Heartbeat,
    LeaseState,
    Reason,
    Report,
    ReportStatus,
    Resume,
    Run,
    RunStep,
    Step,
    StepState,
    Verdict,
)
from .policy import class_number

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper as Words
    from google.protobuf.timestamp_pb2 import Timestamp

#: Names of gRPC's status codes, by number.
CODES = tuple(code.name for code in sorted(grpc.StatusCode, key=lambda code: int(code.value[0])))

# What the contract takes; the rest is cut here, since a long message is no reason
# to lose a report.
_ERROR_TYPE_BYTES = 256
_MESSAGE_BYTES = 4096
_SHORT_BYTES = 128

#: The longest span that a message is given. A thousand years are beyond any wait.
_SPAN_MAX = 1000 * 365 * 86400.0


def fill_span(message: Duration, span: float) -> None:
    """Writes seconds into a message; what is beyond any wait is cut."""
    message.FromMicroseconds(round(min(max(span, 0.0), _SPAN_MAX) * 1_000_000))


def span(message: Duration) -> float:
    """Seconds of a message."""
    return message.seconds + message.nanos / 1e9


def instant(message: Timestamp) -> datetime:
    """Instant of a message."""
    return message.ToDatetime(tzinfo=timezone.utc)


def failure(value: Failure) -> failure_pb2.Failure:
    """A failure as the contract writes it."""
    message = failure_pb2.Failure(
        error_type=cut(value.error_type, _ERROR_TYPE_BYTES),
        message=cut(value.message, _MESSAGE_BYTES),
        exit_code=value.exit_code,
        signal=value.signal,
        cause=cut(value.cause, _SHORT_BYTES),
        target=value.target,
        action=cut(value.action, _SHORT_BYTES),
    )
    setattr(message, "class", class_number(value.failure_class))
    if value.http_status is not None and 100 <= value.http_status <= 599:
        message.http_status = value.http_status
    elif value.grpc_code is not None and 1 <= value.grpc_code <= 16:
        message.grpc_code = value.grpc_code
    if value.executed is not None:
        message.executed = cast(
            "failure_pb2.Executed", failure_pb2.Executed.Value(f"EXECUTED_{value.executed.value}")
        )
    if not value.retryable:
        message.retryable = False
    if value.duration is not None:
        fill_span(message.duration, value.duration)
    _fill_pushback(message, value)
    _fill_wish(message, value)
    return message


def word_of_class(message: failure_pb2.Failure) -> str:
    """Class of a failure; the contract's name for it is a word of Python."""
    return _word(failure_pb2.FailureClass, getattr(message, "class"), "FAILURE_CLASS_")


def _fill_pushback(message: failure_pb2.Failure, value: Failure) -> None:
    if value.pushback is NEVER:
        message.pushback.never = True
    elif value.pushback is not None:
        fill_span(message.pushback.after, value.pushback)


def _fill_wish(message: failure_pb2.Failure, value: Failure) -> None:
    if value.wish_delay is not None:
        fill_span(message.wish.delay, value.wish_delay)
    if value.wish_max_retries is not None:
        message.wish.max_retries = value.wish_max_retries


def cut(text: str, size: int) -> str:
    """The text's beginning in at most so many bytes of UTF-8."""
    return text.encode("utf-8", "replace")[:size].decode("utf-8", "ignore")


def decision(message: step_pb2.Decision) -> Decision:
    """Reads a decision."""
    held_for = None
    if message.HasField("held_until"):
        held_for = (instant(message.held_until) - instant(message.decided_at)).total_seconds()
    return Decision(
        verdict=Verdict(_word(step_pb2.Verdict, message.verdict, "VERDICT_")),
        reason=Reason(_word(step_pb2.Reason, message.reason, "REASON_")),
        explanation=message.explanation,
        delay=span(message.delay) if message.HasField("delay") else None,
        not_before=instant(message.not_before) if message.HasField("not_before") else None,
        held_for=held_for,
        rule=message.rule,
        policy=message.policy.name,
        policy_revision=message.policy.revision,
        counters=counters(message.counters),
        excluded_hosts=tuple(each.host for each in message.excluded_hosts),
        resume_from=message.resume_from,
        message=message,
    )


def counters(message: step_pb2.Counters) -> Counters:
    """Reads counters."""
    return Counters(
        attempts=message.attempts,
        retries=message.retries,
        crashes=message.crashes,
        uncounted=message.uncounted,
        forgiven=message.forgiven,
    )


def begun(message: calls.BeginAttemptResponse | calls.BeginRunResponse) -> Begun:
    """Reads the answer to a begin. One in words that we do not know means: ask again."""
    if isinstance(message, calls.BeginRunResponse):
        if message.HasField("grant"):
            return Begun(grant=run_grant(message.grant), replayed=message.replayed)
    elif message.HasField("grant"):
        return Begun(grant=grant(message.grant), replayed=message.replayed)
    return Begun(refusal=decision(message.refusal), replayed=message.replayed)


def grant(message: calls.Grant) -> Grant:
    """Reads a grant."""
    return Grant(
        attempt=message.attempt,
        fence=message.fence,
        lease=span(message.lease),
        heartbeat_every=span(message.heartbeat_every),
        counters=counters(message.counters),
        resume_from=message.resume_from,
        time_left=_time_left(message),
        excluded_hosts=tuple(each.host for each in message.excluded_hosts),
        run_retries_left=message.run_retries_left if message.HasField("run_retries_left") else None,
        message=message,
    )


def run_grant(message: calls.RunGrant) -> Grant:
    """Reads the grant of a run."""
    return Grant(
        attempt=message.attempt,
        fence=message.fence,
        lease=span(message.lease),
        heartbeat_every=span(message.heartbeat_every),
        counters=counters(message.counters),
        time_left=_time_left(message),
        resume=_resume(message.resume),
        run_retries_left=message.retries_left if message.HasField("retries_left") else None,
        message=message,
    )


def _time_left(message: calls.Grant | calls.RunGrant) -> float | None:
    if not message.HasField("ends_by"):
        return None
    return max(0.0, (instant(message.ends_by) - instant(message.began_at)).total_seconds())


def _resume(number: int) -> Resume:
    return Resume(_word(policy_pb2.Resume, number, "RESUME_"))


def heartbeat(message: calls.HeartbeatResponse) -> Heartbeat:
    """Reads the answer to a heartbeat."""
    return Heartbeat(
        state=LeaseState(_word(calls.LeaseState, message.state, "LEASE_STATE_")),
        lease=span(message.lease),
        cancel_requested=message.cancel_requested,
    )


def report(message: calls.ReportAttemptResponse | calls.ReportRunResponse) -> Report:
    """Reads the answer to a report."""
    return Report(
        decision=decision(message.decision),
        attempt=message.attempt,
        status=ReportStatus(_word(calls.ReportStatus, message.status, "REPORT_STATUS_")),
        replayed=message.replayed,
    )


def step(message: step_pb2.Step) -> Step:
    """Reads a step."""
    return Step(
        run=message.run,
        step=message.step,
        state=_state(message.state),
        counters=counters(message.counters),
        next_event_in=_next_event_in(message),
        decision=decision(message.decision) if message.HasField("decision") else None,
        message=message,
    )


def run(message: run_pb2.Run) -> Run:
    """Reads a run."""
    record = message.record
    return Run(
        run=record.run,
        state=_state(record.state),
        counters=counters(record.counters),
        resume=_resume(message.resume),
        retries_left=message.retries_left if message.HasField("retries_left") else None,
        next_event_in=_next_event_in(record),
        decision=decision(record.decision) if record.HasField("decision") else None,
        message=message,
    )


def run_step(message: run_pb2.RunStep) -> RunStep:
    """Reads a step of a run."""
    return RunStep(message.step, _state(message.state), counters(message.counters), message.run_attempt)


def states(wanted: Iterable[StepState]) -> list[step_pb2.StepState]:
    """States as the contract numbers them."""
    return [
        cast("step_pb2.StepState", step_pb2.StepState.Value(f"STEP_STATE_{each.value}")) for each in wanted
    ]


def _state(number: int) -> StepState:
    return StepState(_word(step_pb2.StepState, number, "STEP_STATE_"))


def _next_event_in(message: step_pb2.Step) -> float | None:
    if not message.HasField("next_event_at"):
        return None
    return (instant(message.next_event_at) - instant(message.read_at)).total_seconds()


def unanswered(status: status_pb2.Status) -> Unanswered:
    """Reads a status with its details."""
    reason, retry_delay, violations = "", None, {}
    for detail in status.details:
        info, retry, bad = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.RetryInfo(),
            error_details_pb2.BadRequest(),
        )
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(retry):
            retry_delay = span(retry.retry_delay)
        elif detail.Unpack(bad):
            violations = {each.field: each.description for each in bad.field_violations}
    code = CODES[status.code] if 0 <= status.code < len(CODES) else "UNKNOWN"
    return Unanswered(code, status.message, retry_delay, reason, violations)


def _word(words: Words[int], number: int, prefix: str) -> str:
    """The word behind a number, without its prefix. Empty for one that we do not know."""
    try:
        return words.Name(number).removeprefix(prefix)
    except ValueError:
        return ""
