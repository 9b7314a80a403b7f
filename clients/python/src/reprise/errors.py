"""Why a step, or a call, did not come to its end."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .model import Decision

#: Where an exception carries the decision that ended its step.
_DECISION = "__reprise_decision__"
#: Where it carries that it left a step, rather than code between steps.
_OF_STEP = "__reprise_of_step__"


class RepriseError(Exception):
    """Base of what this package raises."""


class ConfigurationError(RepriseError):
    """A setting that cannot be used: which one, and what would be accepted."""


@dataclass(frozen=True)
class Unanswered:
    """Why a call has no answer."""

    #: Name of the gRPC status code, such as "UNAVAILABLE".
    code: str
    message: str = ""
    #: Seconds after which the service asked to be called again. None when it did not ask.
    retry_delay: float | None = None
    #: Reason of the service's `ErrorInfo`, such as "POLICY_NOT_FOUND". Empty without one.
    reason: str = ""
    #: What was wrong, by field.
    violations: Mapping[str, str] = field(default_factory=dict)

    @property
    def may_pass(self) -> bool:
        """Whether the same call may succeed later."""
        passing = self.code in {"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED"}
        # The service gives a reason with each of its errors: one without came from the way to it.
        cut = not self.reason and self.code in {"UNKNOWN", "INTERNAL"}
        return passing or cut or self.retry_delay is not None

    @property
    def busy(self) -> bool:
        """Whether a service is there and asks for patience."""
        return self.code == "RESOURCE_EXHAUSTED"

    def __str__(self) -> str:
        fields = "".join(f"; {name}: {why}" for name, why in self.violations.items())
        return f"{self.code}{f' ({self.reason})' if self.reason else ''}: {self.message}{fields}"


class CallRefused(RepriseError):
    """The service answered that it will not carry a call out."""

    def __init__(self, method: str, answer: Unanswered) -> None:
        super().__init__(f"{method}: {answer}")
        #: What the service said.
        self.answer = answer


class NoService(RepriseError):
    """Nobody answered for as long as we were patient."""

    def __init__(self, method: str, answer: Unanswered) -> None:
        super().__init__(f"{method}: no service answers: {answer}")
        #: What stood in the way at the last try.
        self.answer = answer


class Decided(RepriseError):
    """Base of errors that carry the decision which led to them."""

    def __init__(self, name: str, decision: Decision) -> None:
        super().__init__(f"{name}: {decision}")
        self.decision = decision


class Stopped(Decided):
    """The step is over and failed, and no attempt of ours had raised anything."""


class AlreadyDone(Decided):
    """The step was done before, so that there is no value to return."""


class OnHold(Decided):
    """A person decides, and we were told not to wait."""


class RetryLater(Decided):
    """The next attempt is further away than we were told to wait."""

    def __init__(self, name: str, decision: Decision, delay: float) -> None:
        super().__init__(name, decision)
        #: Seconds from when this was raised until it makes sense to come back.
        self.delay = delay


class LeaseLost(RepriseError):
    """Another attempt may be running: this one should stop its side effects."""


class CancelRequested(RepriseError):
    """The step was cancelled."""


def decision_of(error: BaseException) -> Decision | None:
    """The decision that ended the step which this exception left. None when there is none."""
    decision: Decision | None = getattr(error, _DECISION, None)
    return decision


def attach(error: BaseException, decision: Decision) -> None:
    """Lets the exception that leaves a step tell why it was not tried again."""
    if isinstance(error, Decided):
        return
    # One with slots has no room for it; the note will have to do.
    with contextlib.suppress(AttributeError):
        setattr(error, _DECISION, decision)
    note(error, f"reprise: {decision}")


def note(error: BaseException, text: str) -> None:
    """Adds a note where Python has notes."""
    add_note = getattr(error, "add_note", None)
    if add_note is not None:
        add_note(text)


def left_step(error: BaseException) -> None:
    """Lets an exception tell that it has ended a step."""
    with contextlib.suppress(AttributeError):
        setattr(error, _OF_STEP, True)


def is_of_step(error: BaseException | None) -> bool:
    """Whether an exception has ended a step, or was raised because of one that has."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if getattr(error, _OF_STEP, False) or any(map(is_of_step, _grouped(error))):
            return True
        error = error.__cause__
    return False


def _grouped(error: BaseException) -> Sequence[BaseException]:
    """What an exception group is made of, where Python has groups."""
    parts = getattr(error, "exceptions", ())
    return [part for part in parts if isinstance(part, BaseException)] if isinstance(parts, tuple) else []
