"""Functions as steps."""

from __future__ import annotations

import asyncio
import atexit
import functools
import inspect
import re
import threading
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from typing_extensions import ParamSpec, Unpack

from .aio import AsyncClient
from .client import Client
from .errors import ConfigurationError
from .job import RunlessOptions, StepOptions, apart
from .model import Decision

P = ParamSpec("P")
R = TypeVar("R")

#: A name, or what makes one from the arguments of the call.
Name = str | Callable[..., str] | None

_NOT_IN_IDS = re.compile(r"[^A-Za-z0-9._~:/@+-]")

_lock = threading.Lock()
_client: Client | None = None
_async_clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncClient] = (
    weakref.WeakKeyDictionary()
)


def default_client() -> Client:
    """The client of this process that the environment describes, opened when first asked for."""
    global _client
    with _lock:
        if _client is None:
            _client = Client()
            # What is owed at the end is tried once more.
            atexit.register(_client.close)
        return _client


def default_async_client() -> AsyncClient:
    """The same for the running event loop, each of which has its own."""
    loop = asyncio.get_running_loop()
    with _lock:
        if loop not in _async_clients:
            _async_clients[loop] = AsyncClient()
        return _async_clients[loop]


def retry(
    step: Name = None,
    *,
    run: Name = None,
    client: Client | AsyncClient | None = None,
    when_done: Callable[[Decision], Any] | None = None,
    **options: Unpack[RunlessOptions],
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Makes each call of a function, plain or async, a step.

    `step` and `run` are names, or are made from the arguments of the call. Without `step`
    it is the function's own name; without `run` each call has a run of its own. The
    client is the one that the environment describes, unless another is given. When the
    step was done before, the function is not called: `when_done` makes what is returned
    then from the decision, and without it `AlreadyDone` is raised, since there is no value.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        called = _Called(function, step, run, cast("StepOptions", options), when_done)
        if inspect.iscoroutinefunction(function):
            return cast("Callable[P, R]", called.asynchronous(client))
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigurationError(f"{function!r}: a generator cannot be a step; accepted is a function")
        return called.blocking(client)

    return decorate


class _Called:
    """A function with what was said about the steps that its calls are."""

    def __init__(
        self,
        function: Callable[..., Any],
        step: Name,
        run: Name,
        options: StepOptions,
        when_done: Callable[[Decision], Any] | None,
    ) -> None:
        self._function = function
        self._step = step or own_name(function)
        self._run = run
        self._options = options
        self._when_done = when_done

    def blocking(self, client: Client | AsyncClient | None) -> Callable[..., Any]:
        """For a plain function."""
        if isinstance(client, AsyncClient):
            raise ConfigurationError("a plain function needs a Client, not an AsyncClient")

        @functools.wraps(self._function)
        def call(*args: Any, **kwargs: Any) -> Any:
            loop = (client or default_client()).step(self._named(args, kwargs), **self._of_call(args, kwargs))
            for attempt in loop:
                with attempt:
                    result = self._function(*args, **kwargs)
            return result if loop.succeeded else self._done(loop.course.done_before(), loop.decision)

        return call

    def asynchronous(self, client: Client | AsyncClient | None) -> Callable[..., Awaitable[Any]]:
        """For an async function."""
        if isinstance(client, Client):
            raise ConfigurationError("an async function needs an AsyncClient, not a Client")

        @functools.wraps(self._function)
        async def call(*args: Any, **kwargs: Any) -> Any:
            options = self._of_call(args, kwargs)
            loop = (client or default_async_client()).step(self._named(args, kwargs), **options)
            async for attempt in loop:
                async with attempt:
                    result = await self._function(*args, **kwargs)
            return result if loop.succeeded else self._done(loop.course.done_before(), loop.decision)

        return call

    def _named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        return self._step if isinstance(self._step, str) else self._step(*args, **kwargs)

    def _of_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> StepOptions:
        run = self._run(*args, **kwargs) if callable(self._run) else self._run
        return apart({**self._options, "run": run})

    def _done(self, error: Exception | None, decision: Decision | None) -> Any:
        if error is None or decision is None:
            return None
        if self._when_done is None:
            raise error
        return self._when_done(decision)


def own_name(function: Callable[..., Any]) -> str:
    """The function's module and name, as an id."""
    return as_id(f"{function.__module__}.{function.__qualname__}".replace(".<locals>", ""))


def as_id(name: str) -> str:
    """A name with what ids do not take replaced, and its end where it is too long."""
    return _NOT_IN_IDS.sub("_", name)[-128:]
