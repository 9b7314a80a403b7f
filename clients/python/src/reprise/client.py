"""The client for threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from typing_extensions import Self, Unpack

from .attempt import Attempt, Held, RunAttempt
from .connection import Connection
from .core import BeginOptions, ClientOptions, Core, Item, ReportOptions, RunReportOptions
from .effects import Answer, Call, Plan
from .errors import CallRefused, ConfigurationError
from .failure import Span, seconds
from .heartbeat import Heart
from .job import LoopOptions, RunlessOptions, RunOptions, StepOptions
from .model import Begun, Decision, Heartbeat, Report, Run, RunStep, Step, StepState
from .service import logger

if TYPE_CHECKING:
    from .course import Course, Started

T = TypeVar("T")
A = TypeVar("A", bound="Entered")

#: Seconds that closing tries to deliver what is owed.
CLOSE_PATIENCE = 2.0
#: Seconds between two tries of a delivery in the background.
DELIVER_EVERY = 1.0


class Transport(Protocol):
    """What makes calls: a connection, or a fake in somebody's tests."""

    def call(self, call: Call) -> Answer:
        """Makes a call once."""
        ...

    def close(self) -> None:
        """Lets go of what it holds."""
        ...


class Client:
    """Coordinates the retries of this process with those of all others. Threads may share one."""

    def __init__(
        self,
        address: str | None = None,
        *,
        transport: Transport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        **options: Unpack[ClientOptions],
    ) -> None:
        """Opens nothing yet: the first call does.

        `address` is unix:/path, http://host:port, https://host:port or host:port. Else
        `REPRISE_ADDR`, then a socket where one usually is, then 127.0.0.1:7070.
        `transport` and `sleep` are for tests.
        """
        self._core = Core(address, options)
        self._transport = transport or Connection(self._core.settings)
        self._sleep = sleep
        self._closed = threading.Event()
        self._courier: threading.Thread | None = None
        self._courier_lock = threading.Lock()

    def step(self, step: str, **options: Unpack[StepOptions]) -> StepLoop:
        """The attempts of a step, as a loop over context managers."""
        _check(options)
        return StepLoop(self, self._core.course(step, options), SyncAttempt)

    def run(self, run: str, **options: Unpack[RunOptions]) -> RunLoop:
        """The attempts of a run, as a loop over context managers. Steps begun within belong to it."""
        _check(options)
        return RunLoop(self, self._core.run_course(run, options), SyncRunAttempt)

    # The calls of the contract, one by one

    def begin(self, step: str, *, run: str, **options: Unpack[BeginOptions]) -> Begun:
        """Asks for the right to run the next attempt of a step, or why not now."""
        return self.execute(self._core.begin(step, run, options))

    def heartbeat(self, step: str, *, run: str, fence: int, lease: Span | None = None) -> Heartbeat:
        """Extends the lease of a running attempt, for `lease` from now or as long as granted."""
        return self.execute(self._core.heartbeat(step, run, fence, lease))

    def report(self, step: str, *, run: str, **options: Unpack[ReportOptions]) -> Report:
        """Ends an attempt and returns the decision. Without a failure it succeeded."""
        return self.execute(self._core.report(step, run, options))

    def report_run(self, run: str, **options: Unpack[RunReportOptions]) -> Report:
        """Ends an attempt of a run and returns the decision. Without a failure it succeeded."""
        return self.execute(self._core.report_run(run, options))

    def report_batch(self, items: Sequence[Item]) -> list[Report | CallRefused]:
        """Ends several attempts, each by itself. A refused one is an error in the list."""
        return self.execute(self._core.report_batch(items))

    def get_step(self, step: str, *, run: str) -> Step | None:
        """Shows a step with its counters and latest attempts. None when there is no such step."""
        return self.execute(self._core.get_step(step, run=run))

    def get_run(self, run: str) -> Run | None:
        """Shows a run with its counters and latest attempts. None when there is no such run."""
        return self.execute(self._core.get_run(run))

    def run_steps(self, run: str, states: Sequence[StepState] = ()) -> list[RunStep]:
        """Lists the steps of the run's attempts by name: all of them, or those in these states."""
        return self.execute(self._core.run_steps(run, states))

    # What is owed

    @property
    def owed(self) -> int:
        """Reports that the service has yet to hear."""
        return self._core.owed

    @property
    def dropped(self) -> int:
        """Reports that were dropped because more than `debts_max` were owed."""
        return self._core.service.debts.dropped

    def flush(self, patience: Span | None = CLOSE_PATIENCE) -> bool:
        """Delivers what is owed. False when the service is still away after `patience` seconds."""
        within = None if patience is None else seconds(patience)
        return self.execute(self._core.settle(within))

    def close(self) -> None:
        """Delivers what is owed, if the service is there, and closes the connection."""
        if self.owed and not self.flush():
            logger.warning("%d reports were never delivered", self.owed)
        self._closed.set()
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Driving

    def execute(self, plan: Plan[T]) -> T:
        """Does what a plan asks for, until it ends."""
        answer: Answer | None = None
        while True:
            try:
                effect = plan.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(effect, Call):
                answer = self._transport.call(effect)
            else:
                self._sleep(effect.seconds)
                answer = None

    def beat(self, course: Course, attempt: Held, started: Started) -> Heart | None:
        """Starts keeping an attempt's lease. None when there is none to keep."""
        if started.grant.heartbeat_every <= 0 or not self._core.in_background:
            return None
        plan = self._core.keep(course, started, attempt._lease)
        heart = Heart(plan, self._transport.call)
        heart.start()
        return heart

    def now(self) -> float:
        """Seconds by this client's clock."""
        return self._core.clock.now()

    def tell(self, attempt: Held, course: Course) -> None:
        """Tells whoever asked of the decision that followed an attempt, and delivers what is owed."""
        self._core.tell(attempt, course)
        if self.owed and self._core.in_background:
            self._send_courier()

    def _send_courier(self) -> None:
        with self._courier_lock:
            if self._courier is not None and self._courier.is_alive():
                return
            self._courier = threading.Thread(target=self._deliver, name="reprise-reports", daemon=True)
            self._courier.start()

    def _deliver(self) -> None:
        """Delivers what is owed as soon as the service is back."""
        while self.owed and not self._closed.wait(DELIVER_EVERY * (0.5 + self._core.chance.unit())):
            try:
                self.execute(self._core.settle(0.0))
            except Exception:
                logger.exception("reports could not be delivered")


def _check(options: LoopOptions) -> None:
    if options.get("when_lost") == "cancel":
        raise ConfigurationError("when_lost='cancel': a thread cannot be cancelled; accepted is 'tell'")


class Loop(Iterator[A], Generic[A]):
    """The attempts of one step or run: a loop over context managers, once."""

    def __init__(
        self, client: Client, course: Course, attempt: Callable[[Client, Course, Started], A]
    ) -> None:
        self._client = client
        self._course = course
        self._attempt = attempt
        self._latest: A | None = None

    @property
    def decision(self) -> Decision | None:
        """The latest decision. None before the first one."""
        return self._course.decision

    @property
    def local(self) -> bool:
        """Whether that was made by this process alone, because no service answered."""
        return self._course.local

    @property
    def succeeded(self) -> bool:
        """Whether an attempt of this loop succeeded. False for what was done before."""
        return self._course.succeeded

    @property
    def course(self) -> Course:
        """All that is known of the step or run here."""
        return self._course

    def __next__(self) -> A:
        """Waits for the next attempt."""
        if self._latest is not None and not self._latest._ended:
            raise RuntimeError("the attempt before was never run: use `with attempt:`")
        started = self._client.execute(self._course.begin())
        if started is None:
            raise StopIteration
        self._latest = self._attempt(self._client, self._course, started)
        return self._latest


class Entered(Held):
    """An attempt that is run by `with`: its heartbeats are sent from another thread."""

    def __init__(self, client: Client, course: Course, started: Started) -> None:
        super().__init__(course, started, client.now)
        self._client = client
        self._heart: Heart | None = None

    def __enter__(self) -> Self:
        self._enter()
        self._heart = self._client.beat(self._course, self, self._started)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if self._heart is not None:
            self._heart.stop()
        self._leave()
        try:
            return self._client.execute(self._course.end(self._started, error))
        finally:
            self._client.tell(self, self._course)


class SyncAttempt(Entered, Attempt):
    """An attempt of a step that is run by `with`."""


class SyncRunAttempt(Entered, RunAttempt):
    """An attempt of a run that is run by `with`."""

    def step(self, step: str, **options: Unpack[RunlessOptions]) -> StepLoop:
        """The attempts of a step of this attempt, from whatever thread."""
        return self._client.step(step, **self._own(options))

    def succeeded_steps(self) -> list[str]:
        """Names of the run's steps that have succeeded. FROM_FAILURE they are those to leave out."""
        return [each.step for each in self._client.run_steps(self.run, (StepState.SUCCEEDED,))]


class StepLoop(Loop[SyncAttempt]):
    """The attempts of one step."""


class RunLoop(Loop[SyncRunAttempt]):
    """The attempts of one run."""
