"""A step to be worked on, and the requests that tell of it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal

from typing_extensions import TypedDict

from . import wire
from ._proto import retry_service_pb2 as calls
from .effects import BeginRequest, ReportRequest
from .errors import ConfigurationError
from .failure import Failure, Span, seconds
from .policy import PolicyChoice, inline

if TYPE_CHECKING:
    from .attempt import Attempt, RunAttempt
    from .settings import Settings

#: Which exceptions are worth a retry: types, or a predicate. The others are reported as
#: not retryable.
On = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]

#: What happens while no service answers: this process decides alone, waits, or gives up.
Offline = Literal["local", "wait", "fail"]

#: What happens to an attempt whose lease is lost or whose step was cancelled.
WhenLost = Literal["tell", "cancel"]


class LoopOptions(TypedDict, total=False):
    """What may be said of steps and of runs alike. All of it may be absent."""

    #: A policy by name, or one given here. None keeps the one that the step or run has; a new
    #: step takes the namespace's default, a new run is not retried.
    policy: PolicyChoice
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
    #: What happens to an attempt whose lease is lost or which was cancelled: "tell" (the
    #: default) sets `attempt.lost` or `attempt.cancel_requested`; "cancel", in asyncio alone,
    #: cancels its body as well, which then fails with `LeaseLost` or `CancelRequested`.
    when_lost: WhenLost


class RunOptions(LoopOptions, total=False):
    """What may be said of a run."""

    #: As of a step.
    on_lost: Callable[[RunAttempt], None] | None


class RunlessOptions(LoopOptions, total=False):
    """What may be said of a step but for its run."""

    #: Kind of the step, such as "send-email": policies may refuse retries by kind.
    kind: str
    #: What the step calls or needs. At most 8.
    targets: Sequence[str]
    #: Queue from which any worker may claim its retries. Empty means that we come back.
    queue: str
    #: Called when an attempt's lease is lost or its step cancelled: on the heartbeat's thread,
    #: or in the event loop.
    on_lost: Callable[[Attempt], None] | None


class StepOptions(RunlessOptions, total=False):
    """What may be said of a step."""

    #: The execution that the step belongs to. Without one it is the run whose attempt this code
    #: runs in; else the step is this caller's alone, under a run of its own.
    run: str | None
    #: The attempt of the run that the step belongs to, as `RunAttempt.number` says it. Absent in
    #: the attempt itself, which is found; 0 for a run that nobody has begun.
    run_attempt: int


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
    on_lost: Callable[[Any], None] | None = None
    when_lost: WhenLost = "tell"
    run_attempt: int = 0

    @staticmethod
    def of(step: str, options: StepOptions) -> Job:
        """Reads what a caller says of a step."""
        targets = options.get("targets", ())
        if isinstance(targets, str):
            raise ConfigurationError(f"targets={targets!r}: accepted is a sequence of names")
        return Job(
            step=step,
            run=options.get("run") or str(uuid.uuid4()),
            kind=options.get("kind", ""),
            targets=tuple(targets),
            queue=options.get("queue", ""),
            on_lost=options.get("on_lost"),
            run_attempt=options.get("run_attempt", 0),
            **_alike(options),
        )

    @property
    def name(self) -> str:
        """The step, for people."""
        return f"{self.run} {self.step}"

    @property
    def retries_alone(self) -> int | None:
        """Retries at most while no service answers. None when nothing is said of it here."""
        policy = inline(self.policy)
        return policy.max_retries if policy is not None and policy.HasField("max_retries") else None

    def begin(self, settings: Settings, request_id: bytes, time_left: float | None) -> BeginRequest:
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
            run_attempt=self.run_attempt,
        )
        fill_begin(request, self, time_left)
        return request

    def report(
        self,
        settings: Settings,
        failure: Failure | None,
        *,
        of_step: bool = False,
        fence: int = 0,
        request_id: bytes = b"",
    ) -> ReportRequest:
        """Tells how an attempt ended. All of the job goes with it, should the service have to begin it.

        `of_step` says that what has failed is a step within it.
        """
        del of_step
        request = calls.ReportAttemptRequest(
            namespace=settings.namespace,
            run=self.run,
            step=self.step,
            fence=fence,
            request_id=request_id,
            kind=self.kind,
            targets=self.targets,
            run_attempt=self.run_attempt,
        )
        fill_policy(request, self.policy)
        fill_outcome(request, failure)
        return request

    def wait(self, settings: Settings) -> calls.AwaitDecisionRequest:
        """Waits until there is something to do."""
        return calls.AwaitDecisionRequest(namespace=settings.namespace, run=self.run, step=self.step)

    def worth_a_retry(self, error: BaseException) -> bool:
        """Whether `on` speaks for the exception."""
        if self.on is None:
            return True
        if isinstance(self.on, (type, tuple)):
            return isinstance(error, self.on)
        return self.on(error)


@dataclass(frozen=True)
class RunJob(Job):
    """A run, which is to the service a step without a name."""

    @staticmethod
    def of_run(run: str, options: RunOptions) -> RunJob:
        """Reads what a caller says of a run."""
        return RunJob(step="", run=run, on_lost=options.get("on_lost"), **_alike(options))

    @property
    def name(self) -> str:
        """The run, for people."""
        return f"run {self.run}"

    @property
    def retries_alone(self) -> int | None:
        """A run without a policy is not retried, whoever decides."""
        return 0 if self.policy is None else super().retries_alone

    def begin(self, settings: Settings, request_id: bytes, time_left: float | None) -> BeginRequest:
        """Asks for the next attempt of the run."""
        request = calls.BeginRunRequest(
            namespace=settings.namespace,
            run=self.run,
            request_id=request_id,
            host=wire.cut(settings.host, 128),
            worker=wire.cut(settings.worker, 128),
        )
        fill_begin(request, self, time_left)
        return request

    def report(
        self,
        settings: Settings,
        failure: Failure | None,
        *,
        of_step: bool = False,
        fence: int = 0,
        request_id: bytes = b"",
    ) -> ReportRequest:
        """Tells how an attempt of the run ended."""
        request = calls.ReportRunRequest(
            namespace=settings.namespace,
            run=self.run,
            fence=fence,
            request_id=request_id,
            step_failed=of_step and failure is not None,
        )
        fill_policy(request, self.policy)
        fill_outcome(request, failure)
        return request


def fill_begin(request: BeginRequest, job: Job, time_left: float | None) -> None:
    """Writes into a request what holds for steps and runs alike."""
    fill_policy(request, job.policy)
    if job.lease is not None:
        wire.fill_span(request.lease, job.lease)
    if time_left is not None:
        # More than zero, says the contract; who has none left is refused for it.
        wire.fill_span(request.time_left, max(time_left, 0.000_001))


def fill_policy(request: BeginRequest | ReportRequest, policy: PolicyChoice) -> None:
    """Writes a choice of policy into a request."""
    given = inline(policy)
    if isinstance(policy, str):
        request.policy_name = policy
    elif given is not None:
        request.inline_policy.CopyFrom(given)


def fill_outcome(request: ReportRequest, failure: Failure | None) -> None:
    """Writes how an attempt ended into a report. None is a success."""
    if failure is None:
        request.success.SetInParent()
    else:
        request.failure.CopyFrom(wire.failure(failure))


def apart(options: StepOptions) -> StepOptions:
    """The same for a call that may be one of many of its name: no step of the run around it, unless told."""
    return {**options, "run": options.get("run") or str(uuid.uuid4())}


class _Alike(TypedDict):
    """What jobs of both kinds are made with."""

    policy: PolicyChoice
    lease: float | None
    time_left: float | None
    max_wait: float | None
    wait_for_person: bool
    offline: Offline
    attempts_before: int
    on: On | None
    when_lost: WhenLost


def _alike(options: LoopOptions) -> _Alike:
    offline = options.get("offline", "local")
    if offline not in {"local", "wait", "fail"}:
        raise ConfigurationError(f"offline={offline!r}: accepted is local, wait or fail")
    return {
        "policy": options.get("policy"),
        "lease": _optional(options.get("lease")),
        "time_left": _time_left(_optional(options.get("time_left")), options.get("deadline")),
        "max_wait": _optional(options.get("max_wait")),
        "wait_for_person": options.get("wait_for_person", True),
        "offline": offline,
        "attempts_before": options.get("attempts_before", 0),
        "on": options.get("on"),
        "when_lost": options.get("when_lost", "tell"),
    }


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
