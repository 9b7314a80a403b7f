"""One attempt, as the code inside it sees it."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING

from .errors import CancelRequested, LeaseLost
from .heartbeat import Lease

if TYPE_CHECKING:
    from collections.abc import Callable

    from .course import Course, Started
    from .model import Decision

_current: ContextVar[Attempt | None] = ContextVar("reprise_attempt", default=None)


def current_attempt() -> Attempt | None:
    """The attempt that this code runs in. None outside of one."""
    return _current.get()


class Attempt:
    """One try of a step. What it knows of its lease changes while it runs."""

    def __init__(self, course: Course, started: Started, now: Callable[[], float]) -> None:
        self._course = course
        self._started = started
        self._now = now
        self._lease = Lease(started.grant.lease, started.sent_at, self._told_of_loss)
        self._token: Token[Attempt | None] | None = None
        self._ended = False

    @property
    def run(self) -> str:
        """Run that the step belongs to."""
        return self._course.job.run

    @property
    def step(self) -> str:
        """Name of the step within the run."""
        return self._course.job.step

    @property
    def number(self) -> int:
        """Number of the attempt, from 1. A guess when `local`."""
        return self._started.grant.attempt

    @property
    def fence(self) -> int:
        """Grows with every grant of the step, for those who refuse a stale writer. 0 when `local`."""
        return self._started.grant.fence

    @property
    def resume_from(self) -> str:
        """The action to resume from. Empty means from the start."""
        return self._started.grant.resume_from

    @property
    def excluded_hosts(self) -> tuple[str, ...]:
        """Hosts that should not run it."""
        return self._started.grant.excluded_hosts

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
        """Whether the step was cancelled, and the attempt should stop."""
        return self._lease.cancel_requested

    @property
    def time_left(self) -> float | None:
        """Seconds until the step ends whatever happens. None when nothing bounds it."""
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
            raise CancelRequested(f"{self.run} {self.step} was cancelled")
        if self.lost:
            raise LeaseLost(f"{self.run} {self.step}: {self.lost_because}")

    def _told_of_loss(self) -> None:
        """The lease is lost, or the step cancelled."""
        if self._course.job.on_lost is not None:
            self._course.job.on_lost(self)

    def _enter(self) -> None:
        if self._token is not None or self._ended:
            raise RuntimeError("an attempt is entered once")
        self._token = _current.set(self)

    def _leave(self) -> None:
        self._lease.end()
        self._ended = True
        if self._token is not None:
            # An attempt that was entered in another context has left nothing in this one.
            with contextlib.suppress(ValueError):
                _current.reset(self._token)
            self._token = None
