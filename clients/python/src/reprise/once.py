"""One attempt, for callers whose own machinery comes back for the next one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from typing_extensions import Unpack

from .client import Client, SyncAttempt
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
    within: StepOptions = {"max_wait": 0, **options}
    loop = client.step(step, **within)
    attempt = next(loop, None)
    if attempt is None:
        raise _over(loop.course.done_before())
    failed: BaseException | None = None
    with attempt:
        try:
            yield attempt
        except BaseException as error:
            failed = error
            raise
    if loop.succeeded:
        return
    if not loop.course.over and loop.decision is not None:
        name = f"{attempt.run} {attempt.step}"
        raise RetryLater(name, loop.decision, loop.course.due_in) from failed
    raise _over(loop.course.done_before()) from failed


def _over(done: Exception | None) -> Exception:
    """What to raise where the caller needs an attempt, and the step is over."""
    return done or RuntimeError("the step is over")
