"""One step whose loop belongs to another library: it is told what to do, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..aio import AsyncAttempt, AsyncStepLoop
    from ..client import StepLoop, SyncAttempt
    from ..course import Course


class Steered:
    """A step in the hands of a library that runs the attempts itself."""

    def __init__(self, loop: StepLoop) -> None:
        self._loop = loop
        self._attempt: SyncAttempt | None = None

    @property
    def course(self) -> Course:
        """All that is known of the step."""
        return self._loop.course

    def begin(self) -> None:
        """Waits for the next attempt and enters it. `AlreadyDone` when there is none."""
        attempt = next(self._loop, None)
        if attempt is None:
            raise_done(self.course)
        else:
            self._attempt = attempt
            attempt.__enter__()

    def end(self, error: BaseException | None) -> bool:
        """Leaves the attempt. True when there is to be another."""
        attempt, self._attempt = self._attempt, None
        if attempt is None:
            return False
        swallowed = attempt.__exit__(None if error is None else type(error), error, None)
        if swallowed and self.course.over:
            # Done by somebody else, while our attempt failed: there is no value to go on with.
            raise_done(self.course)
        return swallowed


class AsyncSteered:
    """The same for asyncio."""

    def __init__(self, loop: AsyncStepLoop) -> None:
        self._loop = loop
        self._attempt: AsyncAttempt | None = None

    @property
    def course(self) -> Course:
        """All that is known of the step."""
        return self._loop.course

    async def begin(self) -> None:
        """Waits for the next attempt and enters it. `AlreadyDone` when there is none."""
        async for attempt in self._loop:
            self._attempt = attempt
            await attempt.__aenter__()
            return
        raise_done(self.course)

    async def end(self, error: BaseException | None) -> bool:
        """Leaves the attempt. True when there is to be another."""
        attempt, self._attempt = self._attempt, None
        if attempt is None:
            return False
        swallowed = await attempt.__aexit__(None if error is None else type(error), error, None)
        if swallowed and self.course.over:
            raise_done(self.course)
        return swallowed


def raise_done(course: Course) -> None:
    """Raises `AlreadyDone` for a step that is over without a success of ours."""
    error = course.done_before()
    if error is not None:
        raise error
