"""One attempt, as the code inside it sees it."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, ClassVar

from .errors import CancelRequested, LeaseLost
from .heartbeat import Lease

if TYPE_CHECKING:
    from collections.abc import Callable

    from .course import Course, Started
    from .job import RunlessOptions, StepOptions
    from .model import Decision, Resume
    from .settings import Settings

_current: ContextVar[Held | None] = ContextVar("reprise_attempt", default=None)
_current_run: ContextVar[Held | None] = ContextVar("reprise_run_attempt", default=None)


def current_attempt() -> Attempt | None:
    """The attempt of a step that this code runs in. None outside of one."""
    held = _current.get()
    return held if isinstance(held, Attempt) else None


def current_run() -> RunAttempt | None:
    """The attempt of a run that this code runs in. None outside of one."""
    held = _current_run.get()
    return held if isinstance(held, RunAttempt) else None


class Held:
    """One try of a step or of a run. What it knows of its lease changes while it runs."""

    #: Where code within it finds it.
    _place: ClassVar[ContextVar[Held | None]] = _current

    def __init__(self, course: Course, started: Started, now: Callable[[], float]) -> None:
        self._course = course
        self._started = started
        self._now = now
        self._lease = Lease(started.grant.lease, started.sent_at, self._told_of_loss)
        self._token: Token[Held | None] | None = None
        self._ended = False

    @property
    def run(self) -> str:
        """The run, or that which the step belongs to."""
        return self._course.job.run

    @property
    def number(self) -> int:
        """Number of the attempt, from 1. A guess when `local`."""
        return self._started.grant.attempt

    @property
    def fence(self) -> int:
        """Grows with every grant, for those who refuse a stale writer. 0 when `local`."""
        return self._started.grant.fence

    @property
    def local(self) -> bool:
        """Whether this process granted it alone, because no service answered."""
        return self._started.grant.local

    @property
    def lost(self) -> bool:
        """Whether its lease has ended: another attempt may be running, and side effects should stop."""
        return self._lease.lost

    @property
    def lost_because(self) -> str:
        """Why, for people. Empty while the lease is held."""
        return self._lease.lost_because

    @property
    def cancel_requested(self) -> bool:
        """Whether the step or run was cancelled, and the attempt should stop."""
        return self._lease.cancel_requested

    @property
    def time_left(self) -> float | None:
        """Seconds until the step or run ends whatever happens. None when nothing bounds it."""
        bound = self._started.grant.time_left
        return None if bound is None else max(0.0, self._started.began_at + bound - self._now())

    @property
    def lease_left(self) -> float | None:
        """Seconds until the lease ends, by our clock. None for an attempt without one."""
        until = self._lease.until
        return None if until is None else max(0.0, until - self._now())

    @property
    def decision(self) -> Decision | None:
        """What followed. None while it runs."""
        return self._course.decision if self._ended else None

    def check(self) -> None:
        """Raises `LeaseLost` or `CancelRequested` when the attempt should stop; else does nothing."""
        if self.cancel_requested:
            raise CancelRequested(f"{self._course.job.name} was cancelled")
        if self.lost:
            raise LeaseLost(f"{self._course.job.name}: {self.lost_because}")

    def _told_of_loss(self) -> None:
        """The lease is lost, or the step or run cancelled."""
        if self._course.job.on_lost is not None:
            self._course.job.on_lost(self)

    def _enter(self) -> None:
        if self._token is not None or self._ended:
            raise RuntimeError("an attempt is entered once")
        self._token = self._place.set(self)

    def _leave(self) -> None:
        self._lease.end()
        self._ended = True
        if self._token is not None:
            # An attempt that was entered in another context has left nothing in this one.
            with contextlib.suppress(ValueError):
                self._place.reset(self._token)
            self._token = None


class Attempt(Held):
    """One try of a step."""

    @property
    def step(self) -> str:
        """Name of the step within the run."""
        return self._course.job.step

    @property
    def resume_from(self) -> str:
        """The action to resume from. Empty means from the start."""
        return self._started.grant.resume_from

    @property
    def excluded_hosts(self) -> tuple[str, ...]:
        """Hosts that should not run it."""
        return self._started.grant.excluded_hosts


class RunAttempt(Held):
    """One try of a run. Steps that are begun within it belong to it."""

    _place: ClassVar[ContextVar[Held | None]] = _current_run

    @property
    def resume(self) -> Resume:
        """Where it goes on: FROM_FAILURE leaves out the steps that have succeeded."""
        return self._started.grant.resume

    @property
    def retries_left(self) -> int | None:
        """Retries that all of its steps had left together when it began. None when nothing bounds them."""
        return self._started.grant.run_retries_left

    @property
    def number_at_service(self) -> int:
        """Number that its steps are begun with. 0 when `local`: no service knows the attempt."""
        return 0 if self.local else self.number

    def is_of(self, settings: Settings) -> bool:
        """Whether the service of these settings is the one that it was begun at."""
        ours = self._course.settings
        return (ours.address, ours.namespace) == (settings.address, settings.namespace)

    def _own(self, options: RunlessOptions) -> StepOptions:
        """What is said of a step, and that it belongs to this attempt."""
        return {**options, "run": self.run, "run_attempt": self.number_at_service}
