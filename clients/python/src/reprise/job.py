"""A step to be worked on, and the requests that tell of it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Literal

from typing_extensions import TypedDict

from . import wire
from ._proto import retry_service_pb2 as calls
from .errors import ConfigurationError
from .failure import Failure, Span, seconds
from .policy import PolicyChoice, inline

if TYPE_CHECKING:
    from .attempt import Attempt
    from .settings import Settings

#: Which exceptions are worth a retry: types, or a predicate. The others are reported as
#: not retryable.
On = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]

#: What happens while no service answers: this process decides alone, waits, or gives up.
Offline = Literal["local", "wait", "fail"]

#: What happens to an attempt whose lease is lost or whose step was cancelled.
WhenLost = Literal["tell", "cancel"]


class RunlessOptions(TypedDict, total=False):
    """What may be said of a step but for its run. All of it may be absent."""

    #: A policy by name, or one given here. None keeps the one that the step has; a new step
    #: takes the namespace's default.
    policy: PolicyChoice
    #: Kind of the step, such as "send-email": policies may refuse retries by kind.
    kind: str
    #: What the step calls or needs. At most 8.
    targets: Sequence[str]
    #: Queue from which any worker may claim its retries. Empty means that we come back.
    queue: str
    #: How long an attempt is taken for alive without a word. None means the namespace's.
    lease: Span | None
    #: Time from now in which the step must have ended. None means no bound.
    time_left: Span | None
    #: The same as an instant. At most one of the two may be given.
    deadline: datetime | None
    #: Longest wait for an attempt to be granted; `RetryLater` is raised when it is longer.
    max_wait: Span | None
    #: Whether a step on hold is waited for; if not, `OnHold` is raised. True by default.
    wait_for_person: bool
    #: What happens while no service answers: "local" (the default) decides in this process,
    #: "wait" waits, "fail" raises `NoService`.
    offline: Offline
    #: Attempts that were made of it elsewhere, by an orchestrator that counts them: they
    #: are what bounds a process that decides alone and forgets the step in between.
    attempts_before: int
    #: Which exceptions are worth a retry. The others are reported as not retryable.
    on: On | None
    #: Called when an attempt's lease is lost or its step cancelled: on the heartbeat's thread,
    #: or in the event loop.
    on_lost: Callable[[Attempt], None] | None
    #: What happens to the attempt then: "tell" (the default) sets `attempt.lost` or
    #: `attempt.cancel_requested`; "cancel", in asyncio alone, cancels its body as well, which
    #: then fails with `LeaseLost` or `CancelRequested`.
    when_lost: WhenLost


class StepOptions(RunlessOptions, total=False):
    """What may be said of a step."""

    #: The execution that the step belongs to. Without one the step is this caller's alone,
    #: under a run of its own.
    run: str | None


@dataclass(frozen=True)
class Job:
    """One step with what was said about it, in seconds. `StepOptions` says what each part means."""

    step: str
    run: str
    policy: PolicyChoice = None
    kind: str = ""
    targets: tuple[str, ...] = ()
    queue: str = ""
    lease: float | None = None
    time_left: float | None = None
    max_wait: float | None = None
    wait_for_person: bool = True
    offline: Offline = "local"
    attempts_before: int = 0
    on: On | None = None
    on_lost: Callable[[Attempt], None] | None = None
    when_lost: WhenLost = "tell"

    @staticmethod
    def of(step: str, options: StepOptions) -> Job:
        """Reads what a caller says of a step."""
        targets, offline = options.get("targets", ()), options.get("offline", "local")
        if isinstance(targets, str):
            raise ConfigurationError(f"targets={targets!r}: accepted is a sequence of names")
        if offline not in {"local", "wait", "fail"}:
            raise ConfigurationError(f"offline={offline!r}: accepted is local, wait or fail")
        return Job(
            step=step,
            run=options.get("run") or str(uuid.uuid4()),
            policy=options.get("policy"),
            kind=options.get("kind", ""),
            targets=tuple(targets),
            queue=options.get("queue", ""),
            lease=_optional(options.get("lease")),
            time_left=_time_left(_optional(options.get("time_left")), options.get("deadline")),
            max_wait=_optional(options.get("max_wait")),
            wait_for_person=options.get("wait_for_person", True),
            offline=offline,
            attempts_before=options.get("attempts_before", 0),
            on=options.get("on"),
            on_lost=options.get("on_lost"),
            when_lost=options.get("when_lost", "tell"),
        )

    def begin(
        self, settings: Settings, request_id: bytes, time_left: float | None
    ) -> calls.BeginAttemptRequest:
        """Asks for the next attempt."""
        request = calls.BeginAttemptRequest(
            namespace=settings.namespace,
            run=self.run,
            step=self.step,
            request_id=request_id,
            host=wire.cut(settings.host, 128),
            worker=wire.cut(settings.worker, 128),
            kind=self.kind,
            targets=self.targets,
            queue=self.queue,
        )
        fill_policy(request, self.policy)
        if self.lease is not None:
            wire.fill_span(request.lease, self.lease)
        if time_left is not None:
            # More than zero, says the contract; who has none left is refused for it.
            wire.fill_span(request.time_left, max(time_left, 0.000_001))
        return request

    def report(
        self, settings: Settings, failure: Failure | None, *, fence: int = 0, request_id: bytes = b""
    ) -> calls.ReportAttemptRequest:
        """Tells how an attempt ended. All of the job goes with it, should the service have to begin it."""
        request = calls.ReportAttemptRequest(
            namespace=settings.namespace,
            run=self.run,
            step=self.step,
            fence=fence,
            request_id=request_id,
            kind=self.kind,
            targets=self.targets,
        )
        fill_policy(request, self.policy)
        fill_outcome(request, failure)
        return request

    def worth_a_retry(self, error: BaseException) -> bool:
        """Whether `on` speaks for the exception."""
        if self.on is None:
            return True
        if isinstance(self.on, (type, tuple)):
            return isinstance(error, self.on)
        return self.on(error)


def fill_policy(
    request: calls.BeginAttemptRequest | calls.ReportAttemptRequest, policy: PolicyChoice
) -> None:
    """Writes a choice of policy into a request."""
    given = inline(policy)
    if isinstance(policy, str):
        request.policy_name = policy
    elif given is not None:
        request.inline_policy.CopyFrom(given)


def fill_outcome(request: calls.ReportAttemptRequest, failure: Failure | None) -> None:
    """Writes how an attempt ended into a report. None is a success."""
    if failure is None:
        request.success.SetInParent()
    else:
        request.failure.CopyFrom(wire.failure(failure))


def _optional(span: Span | None) -> float | None:
    return None if span is None else seconds(span)


def _time_left(time_left: float | None, deadline: datetime | None) -> float | None:
    """A deadline is turned into a span at once, so that only our own clock has a say."""
    if deadline is None:
        return time_left
    if time_left is not None:
        raise ConfigurationError("time_left and deadline: at most one of the two may be given")
    if deadline.tzinfo is None:
        raise ConfigurationError("deadline: accepted is a datetime with a time zone")
    return (deadline - datetime.now(timezone.utc)).total_seconds()
