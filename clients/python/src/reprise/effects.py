"""What a plan asks its driver to do.

The whole behaviour of the client is written once, as plans: generators that yield
what is to be done next and are sent what came of it. They read no clock but the
one they are given, and neither block nor await. `client` drives them with threads
and `aio` with tasks; the tests drive them in virtual time.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message

from ._proto import retry_service_pb2 as calls
from ._proto import run_pb2
from .errors import Unanswered

T = TypeVar("T")


@dataclass(frozen=True)
class Method:
    """A call of the contract."""

    name: str
    request: type[Message]
    response: type[Message]

    @property
    def path(self) -> str:
        """Where gRPC finds it."""
        return f"/reprise.v1.RetryService/{self.name}"


BEGIN = Method("BeginAttempt", calls.BeginAttemptRequest, calls.BeginAttemptResponse)
HEARTBEAT = Method("Heartbeat", calls.HeartbeatRequest, calls.HeartbeatResponse)
REPORT = Method("ReportAttempt", calls.ReportAttemptRequest, calls.ReportAttemptResponse)
REPORT_BATCH = Method(
    "BatchReportAttempts", calls.BatchReportAttemptsRequest, calls.BatchReportAttemptsResponse
)
AWAIT = Method("AwaitDecision", calls.AwaitDecisionRequest, calls.AwaitDecisionResponse)
GET_STEP = Method("GetStep", calls.GetStepRequest, calls.GetStepResponse)
BEGIN_RUN = Method("BeginRun", calls.BeginRunRequest, calls.BeginRunResponse)
REPORT_RUN = Method("ReportRun", calls.ReportRunRequest, calls.ReportRunResponse)
GET_RUN = Method("GetRun", run_pb2.GetRunRequest, run_pb2.GetRunResponse)
LIST_RUN_STEPS = Method("ListRunSteps", run_pb2.ListRunStepsRequest, run_pb2.ListRunStepsResponse)
METHODS = (
    BEGIN,
    HEARTBEAT,
    REPORT,
    REPORT_BATCH,
    AWAIT,
    GET_STEP,
    BEGIN_RUN,
    REPORT_RUN,
    GET_RUN,
    LIST_RUN_STEPS,
)

#: Asks for an attempt, of a step or of a run.
BeginRequest = calls.BeginAttemptRequest | calls.BeginRunRequest
#: Tells how one ended.
ReportRequest = calls.ReportAttemptRequest | calls.ReportRunRequest


def begin_method(request: BeginRequest) -> Method:
    """The call that takes this request."""
    return BEGIN_RUN if isinstance(request, calls.BeginRunRequest) else BEGIN


def report_method(request: ReportRequest) -> Method:
    """The call that takes this request."""
    return REPORT_RUN if isinstance(request, calls.ReportRunRequest) else REPORT


@dataclass(frozen=True)
class Call:
    """Make this call once; the answer is a message of its response, or `Unanswered`."""

    method: Method
    request: Message
    #: Seconds after which the answer is no longer waited for.
    timeout: float


@dataclass(frozen=True)
class Sleep:
    """Let this many seconds pass."""

    seconds: float


Effect = Call | Sleep
#: A plan whose end is a T. What a Sleep is answered with does not matter.
Plan = Generator[Effect, Any, T]

Answer = Message | Unanswered


class Clock(Protocol):
    """A clock that only goes forward."""

    def now(self) -> float:
        """Seconds since some instant."""
        ...


class Chance(Protocol):
    """Where randomness comes from."""

    def unit(self) -> float:
        """Uniform in [0, 1)."""
        ...

    def identity(self) -> bytes:
        """16 random bytes."""
        ...
