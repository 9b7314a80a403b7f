"""What the service says, as values: decisions, grants, steps.

Spans are in seconds, instants are aware datetimes in UTC. Each value keeps the
message that it was read from, for what is rarely needed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from ._proto import retry_service_pb2, run_pb2, step_pb2


class _Word(Enum):
    """A word of the contract. One that this client does not know reads as UNSPECIFIED."""

    @classmethod
    def _missing_(cls, value: object) -> _Word:
        del value
        unspecified: _Word = cls["UNSPECIFIED"]
        return unspecified


class Verdict(_Word):
    """What follows."""

    #: A word that this client does not know; it is read as WAIT.
    UNSPECIFIED = "UNSPECIFIED"
    #: Try again at the decision's instant.
    RETRY = "RETRY"
    #: Ask again at the decision's instant; nothing was counted.
    WAIT = "WAIT"
    #: Do not try again.
    STOP = "STOP"
    #: A person decides.
    HOLD = "HOLD"
    #: Nothing is left to do: the step succeeded or was skipped.
    DONE = "DONE"


class Reason(_Word):
    """Why a decision is as it is; the contract's `Reason` says more of each."""

    UNSPECIFIED = "UNSPECIFIED"

    BACKOFF = "BACKOFF"
    PUSHBACK = "PUSHBACK"
    WISH = "WISH"
    CRASHED = "CRASHED"
    ANSWERED = "ANSWERED"
    OUTAGE = "OUTAGE"
    ORDERED = "ORDERED"
    UNSTARTED = "UNSTARTED"

    NOT_DUE = "NOT_DUE"
    IN_PROGRESS = "IN_PROGRESS"
    STOPPING = "STOPPING"
    EXCLUDED_HOST = "EXCLUDED_HOST"
    LIMITED = "LIMITED"
    IN_LINE = "IN_LINE"
    PAUSED = "PAUSED"
    BREAKER_OPEN = "BREAKER_OPEN"

    RETRIES_SPENT = "RETRIES_SPENT"
    RULE = "RULE"
    NOT_RETRYABLE = "NOT_RETRYABLE"
    PUSHBACK_NEVER = "PUSHBACK_NEVER"
    MAX_ELAPSED = "MAX_ELAPSED"
    DEADLINE = "DEADLINE"
    CEILING = "CEILING"
    STEP_KIND = "STEP_KIND"
    CRASHES_SPENT = "CRASHES_SPENT"
    UNCOUNTED_SPENT = "UNCOUNTED_SPENT"
    SCHEDULE_ENDED = "SCHEDULE_ENDED"
    CANCELED = "CANCELED"
    ABANDONED = "ABANDONED"
    BUDGET_SPENT = "BUDGET_SPENT"
    RUN_OVER = "RUN_OVER"
    RUN_SUPERSEDED = "RUN_SUPERSEDED"
    RUN_RETRIES_SPENT = "RUN_RETRIES_SPENT"
    STEP_FAILED = "STEP_FAILED"
    GIVEN_UP = "GIVEN_UP"

    EXHAUSTED = "EXHAUSTED"
    HELD_BY_RULE = "HELD_BY_RULE"

    SUCCEEDED = "SUCCEEDED"
    SKIPPED = "SKIPPED"


class Resume(_Word):
    """Where a run goes on that is tried again."""

    #: There is nothing to go on with, or a word that this client does not know.
    UNSPECIFIED = "UNSPECIFIED"
    #: Steps that succeeded are not run again.
    FROM_FAILURE = "FROM_FAILURE"
    #: Every step is run again.
    ALL_STEPS = "ALL_STEPS"


class ReportStatus(_Word):
    """How a report was taken."""

    UNSPECIFIED = "UNSPECIFIED"
    #: It ended the attempt.
    RECORDED = "RECORDED"
    #: Another attempt has taken over, or the outcome was recorded before: nothing changed.
    STALE = "STALE"
    #: It came after the lease had ended: a success still counts, a failure is evidence.
    LATE = "LATE"


class LeaseState(_Word):
    """How a lease stands."""

    #: A word that this client does not know; it is read as LOST.
    UNSPECIFIED = "UNSPECIFIED"
    HELD = "HELD"
    LOST = "LOST"


class StepState(_Word):
    """Where a step stands."""

    UNSPECIFIED = "UNSPECIFIED"
    WAITING = "WAITING"
    RUNNING = "RUNNING"
    HELD = "HELD"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    CANCELED = "CANCELED"


@dataclass(frozen=True)
class Counters:
    """What has been counted for a step."""

    #: Attempts begun since the step was created.
    attempts: int = 0
    #: Retries counted by the policy's own counter.
    retries: int = 0
    #: Retries granted after crashes.
    crashes: int = 0
    #: Retries that rules did not count.
    uncounted: int = 0
    #: Retries granted after failures that belong to outages of their targets.
    forgiven: int = 0


@dataclass(frozen=True)
class Decision:
    """The answer: may this step be tried again, and when?"""

    verdict: Verdict
    reason: Reason = Reason.UNSPECIFIED
    #: The same in a sentence for people. Not stable.
    explanation: str = ""
    #: Seconds from the arrival of the answer until the next attempt, or until it makes
    #: sense to ask again. None when there is no such instant.
    delay: float | None = None
    #: The same by the service's clock.
    not_before: datetime | None = None
    #: HOLD: seconds from the decision until the default answer is taken. None when nothing
    #: ends it.
    held_for: float | None = None
    #: Name of the rule that decided. Empty when none matched.
    rule: str = ""
    #: Name of the policy that was applied. Empty for an inline one and the built-in one.
    policy: str = ""
    policy_revision: int = 0
    counters: Counters = field(default_factory=Counters)
    #: Hosts that should not run the next attempt.
    excluded_hosts: tuple[str, ...] = ()
    #: The action to resume from. Empty means from the start.
    resume_from: str = ""
    #: True when this process decided alone, because no service answered.
    local: bool = False
    #: The whole answer. None for a local decision.
    message: step_pb2.Decision | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        why = self.explanation or self.reason.value.lower().replace("_", " ")
        return f"{self.verdict.value}{' (decided locally)' if self.local else ''}: {why}"


@dataclass(frozen=True)
class Grant:
    """The right to run an attempt until its lease ends."""

    #: Number of the attempt, from 1.
    attempt: int
    #: Grows with every grant of the step. 0 for an attempt that no service knows of.
    fence: int
    #: Seconds from the sending of the request until the lease ends without a heartbeat.
    #: 0 when it has ended, or when there is none.
    lease: float
    #: Seconds between heartbeats. 0 when there is no lease.
    heartbeat_every: float
    counters: Counters = field(default_factory=Counters)
    #: The action to resume from. Empty means from the start.
    resume_from: str = ""
    #: Seconds until the step ends whatever happens. None when nothing bounds it.
    time_left: float | None = None
    excluded_hosts: tuple[str, ...] = ()
    #: Of a run alone: where it goes on.
    resume: Resume = Resume.UNSPECIFIED
    #: Retries that all steps of the run have left together. None when nothing bounds them.
    run_retries_left: int | None = None
    #: True when this process granted it alone.
    local: bool = False
    message: retry_service_pb2.Grant | retry_service_pb2.RunGrant | None = field(
        default=None, repr=False, compare=False
    )


@dataclass(frozen=True)
class Begun:
    """Answer to a begin: exactly one of `grant` and `refusal` is there."""

    grant: Grant | None = None
    refusal: Decision | None = None
    #: True when the same call was answered before.
    replayed: bool = False


@dataclass(frozen=True)
class Heartbeat:
    """Answer to a heartbeat."""

    state: LeaseState
    #: Seconds from the sending of the request until the lease ends. 0 when it is lost.
    lease: float = 0.0
    #: True when the attempt should stop: the step was cancelled.
    cancel_requested: bool = False


@dataclass(frozen=True)
class Report:
    """Answer to a report."""

    decision: Decision
    #: Number of the attempt that the report was about.
    attempt: int
    status: ReportStatus = ReportStatus.RECORDED
    #: True when the same report was answered before.
    replayed: bool = False


@dataclass(frozen=True)
class Step:
    """A step with its counters."""

    run: str
    step: str
    state: StepState
    counters: Counters
    #: Seconds until something happens next. None when nothing is due.
    next_event_in: float | None
    #: The latest decision. None before the first one.
    decision: Decision | None
    #: Everything, the latest attempts included.
    message: step_pb2.Step = field(repr=False, compare=False)


@dataclass(frozen=True)
class Run:
    """A run as a whole, with its counters."""

    run: str
    #: As of a step: what is remembered of it.
    state: StepState
    counters: Counters
    #: Where its next attempt goes on.
    resume: Resume
    #: Retries that all of its steps have left together. None when nothing bounds them.
    retries_left: int | None
    #: Seconds until something happens next. None when nothing is due.
    next_event_in: float | None
    #: The latest decision. None before the first one.
    decision: Decision | None
    #: Everything, the latest attempts included.
    message: run_pb2.Run = field(repr=False, compare=False)


@dataclass(frozen=True)
class RunStep:
    """A step that was begun with an attempt of a run."""

    step: str
    state: StepState
    counters: Counters
    #: The attempt of the run that its counters belong to.
    run_attempt: int
