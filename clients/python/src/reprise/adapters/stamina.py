"""stamina, steered by the service: whether, when and how often.

    @retry(client, "charge", policy="payments")
    def charge(order): ...

    for attempt in retry_context(client, "charge", policy="payments"):
        with attempt:
            ...

stamina keeps its loop, its instrumentation and its testing mode. Each call is a step
with a run of its own unless `run` says otherwise.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TypeVar, cast

import stamina
from typing_extensions import ParamSpec, Unpack

from ..aio import AsyncClient
from ..client import Client
from ..errors import ConfigurationError
from ..job import StepOptions, apart
from .steered import AsyncSteered, Steered

P = ParamSpec("P")
R = TypeVar("R")


class Hook:
    """What stamina asks whether to go on: the decision that was just made."""

    def __init__(self) -> None:
        self.wait: float | None = None

    def __call__(self, error: Exception) -> bool | float:
        """Seconds to wait before another attempt, or False for none."""
        return False if self.wait is None else self.wait


class SteeredAttempt:
    """stamina's attempt, within one of ours."""

    def __init__(self, steered: Steered, hook: Hook, attempt: stamina.Attempt) -> None:
        self._steered = steered
        self._hook = hook
        self._attempt = attempt

    @property
    def num(self) -> int:
        """Number of the attempt, as stamina counts."""
        return self._attempt.num

    def __enter__(self) -> SteeredAttempt:
        self._attempt.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        again = self._steered.end(error)
        self._hook.wait = self._steered.course.due_in if again else None
        return self._attempt.__exit__(kind, error, trace)


def retry_context(client: Client, step: str, **options: Unpack[StepOptions]) -> Iterator[SteeredAttempt]:
    """As `stamina.retry_context`, but decided by the service."""
    steered, hook = Steered(client.step(step, **apart(options))), Hook()
    for attempt in stamina.retry_context(on=hook, attempts=None, timeout=None):
        steered.begin()
        yield SteeredAttempt(steered, hook, attempt)


def retry(
    client: Client | AsyncClient, step: str, **options: Unpack[StepOptions]
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """As `stamina.retry`, but decided by the service. An async function needs an `AsyncClient`."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if inspect.iscoroutinefunction(function) != isinstance(client, AsyncClient):
            raise ConfigurationError("an async function needs an AsyncClient, a plain one a Client")
        if isinstance(client, AsyncClient):
            return cast("Callable[P, R]", _asynchronous(client, step, options, function))
        return _blocking(client, step, options, function)

    return decorate


def _blocking(client: Client, step: str, options: StepOptions, function: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        for attempt in retry_context(client, step, **options):
            with attempt:
                result = function(*args, **kwargs)
        return result

    return call


def _asynchronous(
    client: AsyncClient, step: str, options: StepOptions, function: Callable[..., Any]
) -> Callable[..., Any]:
    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        steered, hook = AsyncSteered(client.step(step, **apart(options))), Hook()
        async for attempt in stamina.retry_context(on=hook, attempts=None, timeout=None):
            await steered.begin()
            with attempt:
                result = await _run(steered, hook, function(*args, **kwargs))
        return result

    return call


async def _run(steered: AsyncSteered, hook: Hook, body: Any) -> Any:
    """Runs one attempt: its end is reported before stamina hears of it."""
    try:
        result = await body
    except BaseException as error:
        again = await steered.end(error)
        hook.wait = steered.course.due_in if again else None
        raise
    await steered.end(None)
    return result
