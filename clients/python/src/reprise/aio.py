"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from typing_extensions import Self, Unpack

from .attempt import Attempt, Held, RunAttempt
from .client import CLOSE_PATIENCE, DELIVER_EVERY
from .connection import AioConnection
from .core import BeginOptions, ClientOptions, Core, Item, ReportOptions, RunReportOptions
from .effects import Answer, Call, Plan
from .errors import CallRefused, CancelRequested, LeaseLost
from .failure import Span, seconds
from .job import RunlessOptions, RunOptions, StepOptions
from .model import Begun, Decision, Heartbeat, Report, Run, RunStep, Step, StepState
from .service import logger

if TYPE_CHECKING:
    from .course import Course, Started

T = TypeVar("T")
A = TypeVar("A", bound="AsyncEntered")


class AsyncTransport(Protocol):
    """What makes calls: a connection, or a fake in somebody's tests."""

    async def call(self, call: Call) -> Answer:
        """Makes a call once."""
        ...

    async def close(self) -> None:
        """Lets go of what it holds."""
        ...


class AsyncClient:
    """Coordinates the retries of this process with those of all others. Tasks of one loop may share one."""

    def __init__(
        self,
        address: str | None = None,
        *,
        transport: AsyncTransport | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        **options: Unpack[ClientOptions],
    ) -> None:
        """Opens nothing yet: the first call does. As `Client`."""
        self._core = Core(address, options)
        self._transport: AsyncTransport = transport or AioConnection(self._core.settings)
        self._sleep = sleep
        self._courier: asyncio.Task[None] | None = None

    def step(self, step: str, **options: Unpack[StepOptions]) -> AsyncStepLoop:
        """The attempts of a step, as an `async for` over asynchronous context managers."""
        return AsyncStepLoop(self, self._core.course(step, options), AsyncAttempt)

    def run(self, run: str, **options: Unpack[RunOptions]) -> AsyncRunLoop:
        """The attempts of a run, as an `async for`. Steps begun within belong to it."""
        return AsyncRunLoop(self, self._core.run_course(run, options), AsyncRunAttempt)

    # The calls of the contract, one by one

    async def begin(self, step: str, *, run: str, **options: Unpack[BeginOptions]) -> Begun:
        """Asks for the right to run the next attempt of a step, or why not now."""
        return await self.execute(self._core.begin(step, run, options))

    async def heartbeat(self, step: str, *, run: str, fence: int, lease: Span | None = None) -> Heartbeat:
        """Extends the lease of a running attempt, for `lease` from now or as long as granted."""
        return await self.execute(self._core.heartbeat(step, run, fence, lease))

    async def report(self, step: str, *, run: str, **options: Unpack[ReportOptions]) -> Report:
        """Ends an attempt and returns the decision. Without a failure it succeeded."""
        return await self.execute(self._core.report(step, run, options))

    async def report_run(self, run: str, **options: Unpack[RunReportOptions]) -> Report:
        """Ends an attempt of a run and returns the decision. Without a failure it succeeded."""
        return await self.execute(self._core.report_run(run, options))

    async def report_batch(self, items: Sequence[Item]) -> list[Report | CallRefused]:
        """Ends several attempts, each by itself. A refused one is an error in the list."""
        return await self.execute(self._core.report_batch(items))

    async def get_step(self, step: str, *, run: str) -> Step | None:
        """Shows a step with its counters and latest attempts. None when there is no such step."""
        return await self.execute(self._core.get_step(step, run=run))

    async def get_run(self, run: str) -> Run | None:
        """Shows a run with its counters and latest attempts. None when there is no such run."""
        return await self.execute(self._core.get_run(run))

    async def run_steps(self, run: str, states: Sequence[StepState] = ()) -> list[RunStep]:
        """Lists the steps of the run's attempts by name: all of them, or those in these states."""
        return await self.execute(self._core.run_steps(run, states))

    # What is owed

    @property
    def owed(self) -> int:
        """Reports that the service has yet to hear."""
        return self._core.owed

    @property
    def dropped(self) -> int:
        """Reports that were dropped because more than `debts_max` were owed."""
        return self._core.service.debts.dropped

    async def flush(self, patience: Span | None = CLOSE_PATIENCE) -> bool:
        """Delivers what is owed. False when the service is still away after `patience`; None waits on."""
        return await self.execute(self._core.settle(None if patience is None else seconds(patience)))

    async def close(self) -> None:
        """Delivers what is owed, if the service is there, and closes the connection."""
        if self._courier is not None:
            self._courier.cancel()
        if self.owed and not await self.flush():
            logger.warning("%d reports were never delivered", self.owed)
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # Driving

    async def execute(self, plan: Plan[T]) -> T:
        """Does what a plan asks for, until it ends."""
        answer: Answer | None = None
        while True:
            try:
                effect = plan.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(effect, Call):
                answer = await self._transport.call(effect)
            else:
                await self._sleep(effect.seconds)
                answer = None

    def beat(self, course: Course, attempt: Held, started: Started) -> asyncio.Task[None] | None:
        """Starts keeping an attempt's lease. None when there is none to keep."""
        if started.grant.heartbeat_every <= 0 or not self._core.in_background:
            return None
        plan = self._core.keep(course, started, attempt._lease)
        return asyncio.create_task(self.execute(plan), name="reprise-heartbeat")

    def now(self) -> float:
        """Seconds by this client's clock."""
        return self._core.clock.now()

    def tell(self, attempt: Held, course: Course) -> None:
        """Tells whoever asked of the decision that followed an attempt, and delivers what is owed."""
        self._core.tell(attempt, course)
        idle = self._courier is None or self._courier.done()
        if self.owed and self._core.in_background and idle:
            self._courier = asyncio.create_task(self._deliver(), name="reprise-reports")

    async def _deliver(self) -> None:
        """Delivers what is owed as soon as the service is back."""
        while self.owed:
            await asyncio.sleep(DELIVER_EVERY * (0.5 + self._core.chance.unit()))
            try:
                await self.execute(self._core.settle(0.0))
            except Exception:
                logger.exception("reports could not be delivered")


class AsyncLoop(AsyncIterator[A], Generic[A]):
    """The attempts of one step or run: an `async for` over asynchronous context managers, once."""

    def __init__(
        self, client: AsyncClient, course: Course, attempt: Callable[[AsyncClient, Course, Started], A]
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

    async def __anext__(self) -> A:
        """Waits for the next attempt."""
        if self._latest is not None and not self._latest._ended:
            raise RuntimeError("the attempt before was never run: use `async with attempt:`")
        started = await self._client.execute(self._course.begin())
        if started is None:
            raise StopAsyncIteration
        self._latest = self._attempt(self._client, self._course, started)
        return self._latest


class AsyncEntered(Held):
    """An attempt that is run by `async with`: its heartbeats are sent from another task."""

    def __init__(self, client: AsyncClient, course: Course, started: Started) -> None:
        super().__init__(course, started, client.now)
        self._client = client
        self._heart: asyncio.Task[None] | None = None
        self._body: asyncio.Task[object] | None = None
        #: Whether it was this attempt that cancelled its body.
        self._cancelled_body = False

    async def __aenter__(self) -> Self:
        self._enter()
        self._body = asyncio.current_task()
        self._heart = self._client.beat(self._course, self, self._started)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self._leave()
        if self._heart is not None:
            self._heart.cancel()
        ours = self._why_cancelled(error)
        try:
            dealt_with = await self._client.execute(self._course.end(self._started, ours or error))
        finally:
            self._client.tell(self, self._course)
        if ours is not None and not dealt_with:
            raise ours from error
        return dealt_with

    def _told_of_loss(self) -> None:
        super()._told_of_loss()
        if self._course.job.when_lost == "cancel" and self._body is not None:
            self._cancelled_body = True
            self._body.cancel()

    def _why_cancelled(self, error: BaseException | None) -> LeaseLost | CancelRequested | None:
        """What stands for a cancellation of ours. None for anything else."""
        if not self._cancelled_body or not isinstance(error, asyncio.CancelledError):
            return None
        if self._others_cancel():
            return None
        try:
            self.check()
        except (LeaseLost, CancelRequested) as ours:
            return ours
        return None

    def _others_cancel(self) -> bool:
        """Takes our own cancellation back, where Python counts them: is there another?"""
        uncancel = getattr(self._body, "uncancel", None)
        return uncancel is not None and uncancel() > 0


class AsyncAttempt(AsyncEntered, Attempt):
    """An attempt of a step that is run by `async with`."""


class AsyncRunAttempt(AsyncEntered, RunAttempt):
    """An attempt of a run that is run by `async with`."""

    def step(self, step: str, **options: Unpack[RunlessOptions]) -> AsyncStepLoop:
        """The attempts of a step of this attempt, from whatever task."""
        return self._client.step(step, **self._own(options))

    async def succeeded_steps(self) -> list[str]:
        """Names of the run's steps that have succeeded. FROM_FAILURE they are those to leave out."""
        return [each.step for each in await self._client.run_steps(self.run, (StepState.SUCCEEDED,))]


class AsyncStepLoop(AsyncLoop[AsyncAttempt]):
    """The attempts of one step."""


class AsyncRunLoop(AsyncLoop[AsyncRunAttempt]):
    """The attempts of one run."""
