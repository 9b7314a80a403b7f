"""The service as plans need it: asked until it answers or patience ends.

What an attempt has done is worth more than one lost call. A call that is repeated is
the same message, identity included, so that the service counts it once.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar, cast

from google.protobuf.message import Message

from . import wire
from ._proto import retry_service_pb2 as calls
from .effects import (
    AWAIT,
    BeginRequest,
    Call,
    Chance,
    Clock,
    Method,
    Plan,
    ReportRequest,
    Sleep,
    begin_method,
    report_method,
)
from .errors import CallRefused, NoService, Unanswered
from .model import Begun, Report, ReportStatus

#: Seconds between two tries of a call: drawn from zero to this, doubled each time.
PAUSE_MIN = 0.2
PAUSE_MAX = 5.0

#: Seconds that a try may take in an outage that has outlasted the patience: a service that
#: accepts calls and answers none would otherwise hold up every attempt for a whole timeout.
PROBE_TIMEOUT = 0.5

#: Longest wait of one call in seconds: less than a proxy on the way leaves it.
TOLD_EVERY = 20.0
#: Seconds before asking again about a step of which we could not be told, and as much again by chance.
UNTOLD = 1.0

logger = logging.getLogger("reprise")

_R = TypeVar("_R", bound=Message)


@dataclass(frozen=True)
class Patience:
    """How long a call is repeated. It is made once at least."""

    #: Seconds since somebody last answered any call of this client. None is for ever.
    away: float | None
    #: Seconds for a service that is there and asks for patience. None is for ever.
    busy: float | None = None


@dataclass(frozen=True)
class Heard:
    """An answer, and when the request that it answers was sent, by our clock."""

    message: Message
    sent_at: float


#: How long somebody who was told to end tries to report.
LAST_PATIENCE = Patience(away=2.0, busy=2.0)


@dataclass(frozen=True)
class Debt:
    """A report to be delivered."""

    report: ReportRequest
    #: The begin that was never answered, for an attempt that was then granted alone: the
    #: service may have granted it too. None for any other attempt.
    begin: BeginRequest | None = None


class Debts:
    """Reports that the service has yet to hear, in their order. Threads may share one."""

    def __init__(self, bound: int) -> None:
        #: Reports that were dropped because there were too many.
        self.dropped = 0
        self._bound = bound
        self._owed: deque[Debt] = deque()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._owed)

    def owe(self, debt: Debt) -> None:
        """Keeps a report. When there are too many the oldest goes: it matters least by now."""
        with self._lock:
            if len(self._owed) >= self._bound:
                self._owed.popleft()
                self.dropped += 1
                logger.warning("more than %d reports are owed; the oldest was dropped", self._bound)
            self._owed.append(debt)

    def first(self) -> Debt | None:
        """The report that is next. None when nothing is owed."""
        with self._lock:
            return self._owed[0] if self._owed else None

    def settled(self, debt: Debt) -> None:
        """Forgets a report, unless somebody else was faster."""
        with self._lock:
            if self._owed and self._owed[0] is debt:
                self._owed.popleft()


class Service:
    """Plans of calls, with what this client knows of the service's health."""

    def __init__(self, clock: Clock, chance: Chance, *, call_timeout: float, debts_max: int) -> None:
        self.clock = clock
        self.chance = chance
        self.call_timeout = call_timeout
        self.debts = Debts(debts_max)
        #: Since when nobody has answered. None while somebody does.
        self.away_since: float | None = None
        #: Whether the service says when a wait is over, as far as we know: older ones do not.
        self.tells = True

    def insist(self, method: Method, request: Message, patience: Patience) -> Plan[Heard]:
        """Repeats a call that carries its own identity until it is answered."""
        began = self.clock.now()
        window = PAUSE_MIN
        while True:
            sent = self.clock.now()
            answer = yield Call(method, request, self._timeout(patience, sent))
            if not isinstance(answer, Unanswered):
                self._back()
                return Heard(cast("Message", answer), sent)
            if not answer.may_pass:
                self._back()
                raise CallRefused(method.name, answer)
            pause = (answer.retry_delay or 0.0) + window * self.chance.unit()
            window = min(window * 2, PAUSE_MAX)
            if self._exhausted(answer, patience, pause, began, sent):
                raise NoService(method.name, answer)
            yield Sleep(pause)

    def begin(self, request: BeginRequest, patience: Patience) -> Plan[tuple[Begun, float]]:
        """Asks for an attempt: the answer, and when it was asked for."""
        heard = yield from self.insist(begin_method(request), request, patience)
        message = cast("calls.BeginAttemptResponse | calls.BeginRunResponse", heard.message)
        return wire.begun(message), heard.sent_at

    def report(self, request: ReportRequest, patience: Patience) -> Plan[Report]:
        """Tells how an attempt ended.

        A service that has lost the attempt of a step, as one that keeps nothing does when
        it restarts, is told of it as of one that was never begun.
        """
        method = report_method(request)
        try:
            heard = yield from self.insist(method, request, patience)
        except CallRefused as refused:
            if not request.fence or refused.answer.reason != "STEP_NOT_FOUND":
                raise
            anew = _copy(request)
            anew.fence, anew.request_id = 0, self.chance.identity()
            heard = yield from self.insist(method, anew, patience)
        return wire.report(cast("calls.ReportAttemptResponse | calls.ReportRunResponse", heard.message))

    def deliver(self, debt: Debt, patience: Patience) -> Plan[Report]:
        """Tells how an attempt ended that the service may have granted without our hearing of it.

        Its own grant is then what makes the report stale; the repeated begin has the fence.
        """
        report = yield from self.report(debt.report, patience)
        if report.status is not ReportStatus.STALE or debt.begin is None:
            return report
        grant = (yield from self.begin(debt.begin, patience))[0].grant
        if grant is None:
            return report
        fenced = _copy(debt.report)
        fenced.fence, fenced.request_id = grant.fence, b""
        return (yield from self.report(fenced, patience))

    def wait(self, request: calls.AwaitDecisionRequest, span: float) -> Plan[None]:
        """Waits until there is something to do for a step, at most so many seconds."""
        until = self.clock.now() + span
        while (left := until - self.clock.now()) > 0:
            asked, timeout = _copy(request), min(left, TOLD_EVERY)
            wire.fill_span(asked.timeout, timeout)
            answer = yield Call(AWAIT, asked, timeout + self.call_timeout)
            if isinstance(answer, Unanswered):
                yield Sleep(self._untold(answer, left))
                return
            if cast("calls.AwaitDecisionResponse", answer).state != calls.AWAIT_STATE_WAITING:
                return

    def _untold(self, answer: Unanswered, left: float) -> float:
        """How long to wait before asking about a step of which we could not be told."""
        self.tells = answer.code != "UNIMPLEMENTED"
        return min(left, (answer.retry_delay or UNTOLD) + UNTOLD * self.chance.unit())

    def settle(self, patience: Patience) -> Plan[None]:
        """Reports what could not be reported before; `NoService` when it still cannot be.

        Several may do so at once: whatever is sent twice is counted once, and nothing
        is sent before what was owed earlier has been heard.
        """
        while (owed := self.debts.first()) is not None:
            try:
                yield from self.deliver(owed, patience)
            except CallRefused as refused:
                logger.warning("a report of %s was refused later: %s", _name(owed.report), refused)
            self.debts.settled(owed)

    def _timeout(self, patience: Patience, now: float) -> float:
        if self.away_since is None or patience.away is None or now - self.away_since <= patience.away:
            return self.call_timeout
        return min(self.call_timeout, PROBE_TIMEOUT)

    def _exhausted(
        self, answer: Unanswered, patience: Patience, pause: float, began: float, sent: float
    ) -> bool:
        """Whether the next try would come after the end of our patience."""
        if answer.busy:
            self._back()
            limit, since = patience.busy, began
        else:
            if self.away_since is None:
                self.away_since = sent
                logger.warning("no service answers: %s", answer)
            limit, since = patience.away, self.away_since
        return limit is not None and self.clock.now() + pause - since > limit

    def _back(self) -> None:
        if self.away_since is not None:
            logger.info("the service answers again")
            self.away_since = None


def _copy(request: _R) -> _R:
    copy = type(request)()
    copy.CopyFrom(request)
    return copy


def _name(report: ReportRequest) -> str:
    return (
        f"run {report.run}" if isinstance(report, calls.ReportRunRequest) else f"{report.run} {report.step}"
    )
