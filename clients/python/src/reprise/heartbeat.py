"""Keeps the lease of a running attempt, and tells the attempt what becomes of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from . import wire
from .effects import HEARTBEAT, Call, Plan, Sleep
from .errors import Unanswered
from .model import LeaseState

if TYPE_CHECKING:
    from ._proto import retry_service_pb2 as calls
    from .effects import Answer
    from .service import Service

#: Longest time in seconds between two tries of a heartbeat.
BEAT_AGAIN = 1.0

logger = logging.getLogger("reprise")


class Lease:
    """The right to run an attempt, as its worker knows it. Threads may look at it."""

    def __init__(self, seconds: float, sent_at: float, tell: Callable[[], None]) -> None:
        #: When it ends by our clock. None for an attempt without a lease.
        self.until = sent_at + seconds if seconds > 0 else None
        #: Whether another attempt may be running.
        self.lost = False
        #: Why, for people. Empty while it is held.
        self.lost_because = ""
        #: Whether the step was cancelled.
        self.cancel_requested = False
        self._tell = tell
        self._ended = False

    def end(self) -> None:
        """The attempt is over: what a late beat learns concerns nobody."""
        self._ended = True

    @property
    def over(self) -> bool:
        """Whether nothing is left to be kept."""
        return self.lost or self._ended

    def extend(self, until: float) -> None:
        """The service has extended it."""
        self.until = until

    def cancel(self) -> None:
        """Somebody has cancelled the step."""
        if not self.cancel_requested and not self._ended:
            self.cancel_requested = True
            self._news()

    def lose(self, why: str) -> None:
        """It has ended, or nobody can say that it has not."""
        if not self._ended:
            self.lost, self.lost_because = True, why
            self._news()

    def _news(self) -> None:
        try:
            self._tell()
        except Exception:
            logger.exception("whoever was told of a lost lease has failed")


def keep(service: Service, lease: Lease, request: calls.HeartbeatRequest, every: float) -> Plan[None]:
    """Extends a lease until it is lost; whoever drives this stops it when the attempt ends."""
    pause = every
    while not lease.over:
        yield Sleep(pause)
        sent = service.clock.now()
        # One try may not use up the time of the next.
        answer = yield Call(HEARTBEAT, request, min(service.call_timeout, every))
        pause = _heard(service, lease, answer, sent, every)


def _heard(service: Service, lease: Lease, answer: Answer, sent: float, every: float) -> float:
    """Takes an answer to heart, and says how long to wait for the next beat."""
    if isinstance(answer, Unanswered):
        return _unheard(service, lease, answer, every)
    beat = wire.heartbeat(cast("calls.HeartbeatResponse", answer))
    if beat.state is not LeaseState.HELD:
        lease.lose("the service has ended the lease")
        return 0.0
    lease.extend(sent + beat.lease)
    if beat.cancel_requested:
        lease.cancel()
    return max(0.0, sent + every - service.clock.now())


def _unheard(service: Service, lease: Lease, answer: Unanswered, every: float) -> float:
    left = 0.0 if lease.until is None else lease.until - service.clock.now()
    if not answer.may_pass:
        lease.lose(f"the service does not know the lease: {answer}")
    elif left <= 0:
        lease.lose(f"the lease ended while no service answered: {answer}")
    pause = (answer.retry_delay or 0.0) + min(every, BEAT_AGAIN) * service.chance.unit()
    return max(0.0, min(pause, every, left))


class Heart:
    """Drives a plan on a thread of its own, until it is stopped."""

    def __init__(self, plan: Plan[None], call: Callable[[Call], Answer]) -> None:
        self._plan = plan
        self._call = call
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="reprise-heartbeat", daemon=True)

    def start(self) -> None:
        """Starts beating."""
        self._thread.start()

    def stop(self) -> None:
        """Ends beating. A beat that is under way is not waited for: it harms nobody."""
        self._stopped.set()

    def _beat(self) -> None:
        answer: Answer | None = None
        while True:
            try:
                effect = self._plan.send(answer)
            except StopIteration:
                return
            answer = None
            if isinstance(effect, Call):
                answer = self._call(effect)
            elif self._stopped.wait(effect.seconds):
                return
