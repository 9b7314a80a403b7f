"""What a worker reports of an attempt that failed."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum

#: A span: seconds, or a timedelta.
Span = float | timedelta


def seconds(span: Span) -> float:
    """The span in seconds."""
    return span.total_seconds() if isinstance(span, timedelta) else float(span)


class FailureClass(Enum):
    """What kind of failure."""

    #: The work itself failed.
    FAILURE = "FAILURE"
    #: The platform failed the work.
    ERROR = "ERROR"
    #: A passing fault of something the work depends on.
    TRANSIENT = "TRANSIENT"
    #: It took too long.
    TIMEOUT = "TIMEOUT"
    #: The target asked for less.
    THROTTLED = "THROTTLED"
    #: The worker vanished.
    CRASH = "CRASH"
    #: Somebody stopped it.
    CANCELED = "CANCELED"


class Executed(Enum):
    """Whether the work took effect."""

    NO = "NO"
    MAYBE = "MAYBE"
    YES = "YES"


class Never(Enum):
    """ "Do not come back", as a target says it."""

    NEVER = "NEVER"


#: Pushback of a target that does not want to be called again.
NEVER = Never.NEVER


@dataclass(frozen=True)
class Failure:
    """How a failed attempt is to be read. All but the class may be absent."""

    failure_class: FailureClass
    #: Type of the error, such as "httpx.ConnectTimeout". Longer ones are cut.
    error_type: str = ""
    message: str = ""
    #: HTTP status, 100 to 599. None when there was none.
    http_status: int | None = None
    #: gRPC status code, 1 to 16. None when there was none, or there is an HTTP status.
    grpc_code: int | None = None
    exit_code: int | None = None
    #: Signal that ended a process, 1 to 64.
    signal: int | None = None
    #: Fingerprint of the cause, equal for failures with the same one.
    cause: str = ""
    #: The target at fault. Empty when unknown.
    target: str = ""
    #: Seconds for which the target asked not to be called, or NEVER. None when it did not.
    pushback: float | Never | None = None
    #: Exact wait that the worker asks for, in seconds. None leaves it to the policy.
    wish_delay: float | None = None
    #: Retries at most that the worker asks for. None leaves it to the policy.
    wish_max_retries: int | None = None
    #: False when another try is pointless.
    retryable: bool = True
    #: Whether the work took effect. None when unknown.
    executed: Executed | None = None
    #: The action inside the step that failed; the next attempt is told to resume from it.
    action: str = ""
    #: Seconds that the attempt ran. None means the time since it began.
    duration: float | None = field(default=None, compare=False)


class RetryRequested(Exception):
    """Raised in an attempt to ask for a retry, as the worker's own wish.

    Rules of the policy come before it; what neither it nor they say is the policy's.
    """

    def __init__(
        self,
        message: str = "the attempt asks for a retry",
        *,
        delay: Span | None = None,
        max_retries: int | None = None,
    ) -> None:
        super().__init__(message)
        #: Exact wait in seconds. None leaves it to the policy.
        self.delay = None if delay is None else seconds(delay)
        #: Retries at most. None leaves it to the policy.
        self.max_retries = max_retries


class NotRetryable(Exception):
    """Raised in an attempt, often `from` the cause, when another try is pointless."""
