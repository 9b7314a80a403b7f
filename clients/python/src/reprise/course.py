"""The course of one step: ask, run, report, wait, and ask again.

This is the state machine of every loop and decorator, written as plans: it says
what to do next, and `client` or `aio` does it. What runs between `begin` and `end` is
the caller's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ._proto import retry_service_pb2 as calls
from .effects import BeginRequest, Plan, ReportRequest, Sleep
from .errors import (
    AlreadyDone,
    CallRefused,
    NoService,
    OnHold,
    RepriseError,
    RetryLater,
    Stopped,
    attach,
    is_of_step,
    left_step,
    note,
)
from .fallback import Alone, Fallback
from .model import Begun, Counters, Decision, Grant, Reason, ReportStatus, Verdict
from .service import LAST_PATIENCE, Debt, Patience, Service

if TYPE_CHECKING:
    from .classify import Classification
    from .failure import Failure
    from .job import Job
    from .settings import Settings

#: Seconds before asking again where the answer names no instant, and as much again by chance.
ASK_AGAIN = 1.0
#: The same for a step that a person decides about.
ASK_PERSON_AGAIN = 5.0
#: Longest wait in seconds to be told of something, before we ask by ourselves.
TOLD_WITHIN = 300.0
#: What may be over at any time: anything else lasts until the instant that was told.
OPEN_ENDED = frozenset({Reason.IN_LINE, Reason.IN_PROGRESS, Reason.PAUSED})
#: Shortest wait in seconds before asking again.
WAIT_MIN = 0.05
#: How long in seconds a report is repeated to a service that is there but busy.
REPORT_BUSY = 60.0

logger = logging.getLogger("reprise")


@dataclass(frozen=True)
class Context:
    """What the steps of one client share."""

    service: Service
    settings: Settings
    classification: Classification
    fallback: Fallback
    #: Seconds for which nobody has to answer before this process decides alone.
    patience: float


@dataclass(frozen=True)
class Started:
    """An attempt that may run."""

    grant: Grant
    #: When the request for it was sent, by our clock.
    sent_at: float
    #: When it was granted, by our clock.
    began_at: float


class Course:
    """One step on its way, as this worker sees it."""

    def __init__(self, job: Job, context: Context) -> None:
        self.job = job
        #: The latest decision. None before the first one.
        self.decision: Decision | None = None
        #: Whether nothing is left to do here.
        self.over = False
        #: How the latest report was taken. None when none was.
        self.status: ReportStatus | None = None
        #: Whether an attempt of ours succeeded.
        self.succeeded = False
        #: Why the latest report was not heard. None when it was.
        self.unreported: RepriseError | None = None
        self._context = context
        self._service = context.service
        self._clock = context.service.clock
        self._chance = context.service.chance
        #: What the latest attempt raised. None before one has failed.
        self._error: BaseException | None = None
        #: What to leave with. None while there is no reason to.
        self._leave: BaseException | None = None
        #: When the next attempt may be asked for.
        self._due = self._clock.now()
        #: Whether the service says when the wait is over.
        self._is_told = False
        #: Since when no attempt was granted. None while one runs.
        self._waiting_since: float | None = None
        #: When the begin that was answered last was sent. Nothing before the first one.
        self._sent_at = self._due
        #: The begin that nobody has answered, until the attempt granted instead is reported.
        self._unanswered: BeginRequest | None = None
        self._alone: Alone | None = None
        self._known = Counters()
        self._told_time_left = False
        self._ends_at = None if job.time_left is None else self._due + job.time_left

    @property
    def settings(self) -> Settings:
        """Whom it is asked of."""
        return self._context.settings

    @property
    def local(self) -> bool:
        """Whether the latest decision was made by this process alone."""
        return self.decision is not None and self.decision.local

    def done_before(self) -> AlreadyDone | None:
        """The error of a caller who needs a value where there is none. None when there is one."""
        if self.succeeded or self.decision is None:
            return None
        return AlreadyDone(self.job.name, self.decision)

    @property
    def due_in(self) -> float:
        """Seconds until `begin` may be called. Not negative; zero where it waits to be told."""
        return 0.0 if self._is_told else self._left

    @property
    def _left(self) -> float:
        return max(0.0, self._due - self._clock.now())

    # Beginning

    def begin(self) -> Plan[Started | None]:
        """Waits for the next attempt. None when the step is over; raises what ended it."""
        try:
            return (yield from self._begin())
        except Exception as error:
            self._left_by(error)
            raise

    def _begin(self) -> Plan[Started | None]:
        while not self.over:
            yield from self._pause()
            begun = yield from self._ask()
            if begun.grant is not None and not _ended(begun):
                return self._started(begun.grant)
            if begun.refusal is not None:
                self._follow(begun.refusal)
                self._raise_if_left()
        return None

    def _pause(self) -> Plan[None]:
        """Waits until the next attempt may be asked for."""
        if self._is_told:
            earliest = min(self._due, self._clock.now() + WAIT_MIN)
            yield from self._service.wait(self.job.wait(self.settings), self._left)
            # However soon it is told, no answer makes a busy loop.
            self._is_told, self._due = False, max(earliest, self._clock.now())
        if self._left > 0:
            yield Sleep(self._left)

    def _ask(self) -> Plan[Begun]:
        """The service's answer, or our own where it may be."""
        try:
            return (yield from self._ask_service())
        except NoService as silence:
            if silence.answer.busy:
                raise self._busy(silence) from self._error or silence
            if self.job.offline != "local":
                raise
        return Begun(grant=self._by_ourselves().grant(self._time_left()))

    def _ask_service(self) -> Plan[Begun]:
        """What is owed is told first: what follows may depend on it."""
        patience = self._patience(busy=self.job.max_wait)
        yield from self._service.settle(patience)
        time_left = None if self._told_time_left else self._time_left()
        request = self.job.begin(self._context.settings, self._chance.identity(), time_left)
        if isinstance(request, calls.BeginAttemptRequest):
            # Who may leave soon is told when to come by itself.
            stays = self.job.max_wait is None or self.job.max_wait >= TOLD_WITHIN
            request.awaits = stays and self._service.tells
        self._unanswered = request
        begun, self._sent_at = yield from self._service.begin(request, patience)
        self._unanswered = None
        self._told_time_left, self._alone = True, None
        return begun

    def _busy(self, silence: NoService) -> RetryLater:
        """A service that is there has not given the step away: it is waited for, or come back to."""
        pause = max(silence.answer.retry_delay or 0.0, ASK_AGAIN)
        self.over = True
        self.decision = Decision(Verdict.WAIT, explanation=str(silence.answer), delay=pause)
        return RetryLater(self.job.name, self.decision, pause)

    def _started(self, grant: Grant) -> Started:
        now = self._clock.now()
        self._known, self._waiting_since = grant.counters, None
        if grant.time_left is not None:
            self._ends_at = now + grant.time_left
        return Started(grant, self._sent_at, now)

    # Ending

    def end(self, started: Started, error: BaseException | None) -> Plan[bool]:
        """Reports how an attempt ended. True when the exception is dealt with."""
        try:
            dealt_with = yield from self._end(started, error)
        except Exception as other:
            self._left_by(other)
            raise
        if error is not None and not dealt_with:
            self._left_by(error)
        return dealt_with

    def _left_by(self, error: BaseException) -> None:
        """A run is told which failures are those of its steps, and has none of its own to tell."""
        if self.job.step:
            left_step(error)

    def _end(self, started: Started, error: BaseException | None) -> Plan[bool]:
        failure = self._failure(started, error)
        told = error is not None and not isinstance(error, Exception)
        patience = LAST_PATIENCE if told else self._patience(busy=REPORT_BUSY)
        decision = yield from self._report(started, failure, is_of_step(error), patience)
        self._error = error
        if error is None or failure is None:
            self.over, self.succeeded = True, True
            self.decision = decision or self.decision
            return False
        if told or decision is None:
            self._end_with(error, decision)
            return False
        self._follow(decision)
        return self._dealt_with(error)

    def _failure(self, started: Started, error: BaseException | None) -> Failure | None:
        """What an exception is reported as. None for success, an `exit(0)` among it."""
        if error is None or (isinstance(error, SystemExit) and not error.code):
            return None
        failure = self._context.classification.failure(error)
        if not self.job.worth_a_retry(error):
            failure = replace(failure, retryable=False)
        if failure.duration is None:
            failure = replace(failure, duration=self._clock.now() - started.began_at)
        return failure

    def _report(
        self, started: Started, failure: Failure | None, of_step: bool, patience: Patience
    ) -> Plan[Decision | None]:
        """The decision, the service's or our own. None when there is none to follow."""
        debt = Debt(self._report_request(started, failure, of_step), self._unanswered)
        self._unanswered = None
        self.status = self.unreported = None
        try:
            yield from self._service.settle(patience)
            report = yield from self._service.deliver(debt, patience)
            self.status, self._alone = report.status, None
            return report.decision
        except NoService as no_service:
            self.unreported = no_service
        except CallRefused as refused:
            logger.warning("%s: the report was refused: %s", self.job.name, refused)
            self.unreported = refused
            return None
        self._service.debts.owe(debt)
        if self.job.offline == "local" or failure is None:
            return self._by_ourselves().decide(failure, self._time_left())
        return None

    def _report_request(self, started: Started, failure: Failure | None, of_step: bool) -> ReportRequest:
        """An attempt that the service does not know of is begun by its report."""
        settings, fence = self._context.settings, started.grant.fence
        identity = b"" if fence else self._chance.identity()
        return self.job.report(settings, failure, of_step=of_step, fence=fence, request_id=identity)

    def _end_with(self, error: BaseException, decision: Decision | None) -> None:
        """The step is over for us, and the exception goes its way."""
        self.over, self.decision = True, decision or self.decision
        if decision is not None:
            attach(error, decision)
        elif self.unreported is not None:
            note(error, f"reprise: not reported: {self.unreported}")

    def _dealt_with(self, error: BaseException) -> bool:
        """Whether a failed attempt's exception needs to go no further."""
        leave, self._leave = self._leave, None
        if leave is error:
            return False
        if leave is not None:
            raise leave from error
        return True

    # Following

    def _follow(self, decision: Decision) -> None:
        """Does what a decision says."""
        self.decision = decision
        self._is_told = self._will_be_told(decision)
        if decision.verdict is Verdict.DONE:
            self.over = True
        elif decision.verdict is Verdict.STOP:
            self._stop(decision)
        elif decision.verdict is Verdict.HOLD:
            self._hold(decision)
        elif decision.verdict is Verdict.RETRY:
            self._wait(decision, decision.delay or 0.0)
        else:
            untold = TOLD_WITHIN if self._is_told else self._spread(ASK_AGAIN)
            self._wait(decision, untold if decision.delay is None else decision.delay)

    def _will_be_told(self, decision: Decision) -> bool:
        """Whether the service says when a wait is over. It cannot when a step may run on this host."""
        waits = decision.verdict in (Verdict.WAIT, Verdict.HOLD)
        return (
            waits
            and self._service.tells
            and not decision.local
            and decision.reason is not Reason.EXCLUDED_HOST
        )

    def _stop(self, decision: Decision) -> None:
        self.over = True
        if self._error is None:
            self._leave = Stopped(self.job.name, decision)
        else:
            self._leave = self._error
            attach(self._error, decision)

    def _hold(self, decision: Decision) -> None:
        if self.job.wait_for_person:
            pause = TOLD_WITHIN if self._is_told else self._spread(ASK_PERSON_AGAIN)
            self._wait(decision, pause if decision.held_for is None else min(pause, decision.held_for))
        else:
            self.over, self._leave = True, OnHold(self.job.name, decision)

    def _wait(self, decision: Decision, pause: float) -> None:
        """Waits, unless all the waiting for this attempt would take too long."""
        if decision.verdict is not Verdict.RETRY:
            pause = max(pause, WAIT_MIN)
        now = self._clock.now()
        if self._waiting_since is None:
            self._waiting_since = now
        longest = self.job.max_wait
        left = None if longest is None else longest - (now - self._waiting_since)
        if left is not None and left > 0 and self._is_open_ended(decision):
            pause = min(pause, left)
        if left is not None and pause > left:
            self.over, self._leave = True, RetryLater(self.job.name, decision, pause)
        self._due = now + pause

    def _is_open_ended(self, decision: Decision) -> bool:
        return self._is_told and (decision.verdict is Verdict.HOLD or decision.reason in OPEN_ENDED)

    def _raise_if_left(self) -> None:
        leave, self._leave = self._leave, None
        if leave is None:
            return
        if leave is self._error or self._error is None:
            raise leave
        raise leave from self._error

    # What we know

    def _by_ourselves(self) -> Alone:
        if self._alone is None:
            logger.warning("%s: deciding locally, since no service answers", self.job.name)
            self._alone = Alone(
                self._context.fallback,
                self._chance,
                self._known,
                self.job.retries_alone,
                self.job.attempts_before,
            )
        return self._alone

    def _patience(self, busy: float | None) -> Patience:
        return Patience(None if self.job.offline == "wait" else self._context.patience, busy)

    def _time_left(self) -> float | None:
        return None if self._ends_at is None else self._ends_at - self._clock.now()

    def _spread(self, pause: float) -> float:
        return pause * (1 + self._chance.unit())


def _ended(begun: Begun) -> bool:
    """Whether a replayed grant's attempt has ended meanwhile: it must not be run."""
    return begun.replayed and begun.grant is not None and begun.grant.lease <= 0
