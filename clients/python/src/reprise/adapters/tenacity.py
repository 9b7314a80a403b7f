"""tenacity, steered by the service: whether, when and how often.

    @tenacity.retry(**coordinated(client, "charge", policy="payments"))
    def charge(order): ...

tenacity keeps its loop, its `sleep` and its callbacks; `retry`, `wait`, `stop` and
`before` are given. Each call of the function is a step with a run of its own unless
`run` says otherwise. With an `AsyncClient` the function has to be async.
"""

from __future__ import annotations

from typing import Any, cast

import tenacity
from typing_extensions import Unpack

from ..aio import AsyncClient
from ..client import Client
from ..job import StepOptions, apart
from .steered import AsyncSteered, Steered

#: Where the state of a call keeps the step that it is.
_STEP = "_reprise_step"


def coordinated(client: Client | AsyncClient, step: str, **options: Unpack[StepOptions]) -> dict[str, Any]:
    """Arguments of `tenacity.retry`. What else it takes may be given beside them."""
    given = {"wait": _wait, "stop": tenacity.stop_never, "reraise": True}
    if isinstance(client, Client):
        return {**given, **_blocking(client, step, options)}
    return {**given, **_asynchronous(client, step, options)}


def _blocking(client: Client, step: str, options: StepOptions) -> dict[str, Any]:
    def before(state: tenacity.RetryCallState) -> None:
        if not hasattr(state, _STEP):
            setattr(state, _STEP, Steered(client.step(step, **apart(options))))
        cast("Steered", getattr(state, _STEP)).begin()

    def retry(state: tenacity.RetryCallState) -> bool:
        return cast("Steered", getattr(state, _STEP)).end(_error(state))

    return {"before": before, "retry": retry}


def _asynchronous(client: AsyncClient, step: str, options: StepOptions) -> dict[str, Any]:
    async def before(state: tenacity.RetryCallState) -> None:
        if not hasattr(state, _STEP):
            setattr(state, _STEP, AsyncSteered(client.step(step, **apart(options))))
        await cast("AsyncSteered", getattr(state, _STEP)).begin()

    async def retry(state: tenacity.RetryCallState) -> bool:
        return await cast("AsyncSteered", getattr(state, _STEP)).end(_error(state))

    return {"before": before, "retry": retry}


def _wait(state: tenacity.RetryCallState) -> float:
    """What is left of the decision's delay; `before` waits for the rest, limits and leases."""
    steered: Steered | AsyncSteered = getattr(state, _STEP)
    return steered.course.due_in


def _error(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None
