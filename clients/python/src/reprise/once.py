"""One attempt, for callers whose own machinery comes back for the next one."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator

from typing_extensions import Unpack

from .aio import AsyncAttempt, AsyncClient
from .client import Client, SyncAttempt
from .course import Course
from .errors import RetryLater
from .job import StepOptions


@contextlib.contextmanager
def once(client: Client, step: str, **options: Unpack[StepOptions]) -> Iterator[SyncAttempt]:
    """Runs one attempt of a step in a `with`, for an orchestrator that retries by itself.

    When there is to be another attempt, or this one may not start yet, `RetryLater` says in
    how many seconds to come back (`max_wait`, nothing by default, is waited for in place). A
    step that is to stop raises what the attempt raised, or `Stopped`; one that is done
    already `AlreadyDone`. `attempts_before` should be what the orchestrator has counted.
    """
    loop = client.step(step, **_in_place(options))
    attempt = next(loop, None)
    if attempt is None:
        raise _left(loop.course)
    failed: BaseException | None = None
    with attempt:
        try:
            yield attempt
        except BaseException as error:
            failed = error
            raise
    if not loop.succeeded:
        raise _left(loop.course) from failed


@contextlib.asynccontextmanager
async def once_async(
    client: AsyncClient, step: str, **options: Unpack[StepOptions]
) -> AsyncIterator[AsyncAttempt]:
    """As `once`, in an `async with`."""
    loop = client.step(step, **_in_place(options))
    attempt = await anext(loop, None)
    if attempt is None:
        raise _left(loop.course)
    failed: BaseException | None = None
    async with attempt:
        try:
            yield attempt
        except BaseException as error:
            failed = error
            raise
    if not loop.succeeded:
        raise _left(loop.course) from failed


def _in_place(options: StepOptions) -> StepOptions:
    """Nothing is waited for in place, unless the caller says so."""
    within: StepOptions = {"max_wait": 0, **options}
    return within


def _left(course: Course) -> Exception:
    """Why there is no success of ours: somebody else's, or a retry that is due at once."""
    done = course.done_before() if course.over else None
    if done is not None or course.decision is None:
        return done or RuntimeError("the step is over")
    return RetryLater(f"{course.job.run} {course.job.step}", course.decision, course.due_in)
