"""Prefect tasks whose retries the service decides: whether, when and how often.

    @task(reprise={"policy": "payments", "targets": ["payments-api"]})
    def charge(order_id): ...

Prefect keeps its engine: a retry is its `AwaitingRetry` with the decision's wait.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar

import reprise as rp
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from reprise.decorator import as_id
from reprise.job import StepOptions

import prefect

F = TypeVar("F", bound=Callable[..., Any])

#: More retries than any step has: the service counts, not Prefect.
_NO_BOUND = 1_000_000

#: How long the task run that is being decided about has to wait.
_delay: ContextVar[float] = ContextVar("reprise_prefect_delay", default=0.0)


class _Delays(list[float]):
    """What the engine reads the wait from, right after it has asked whether to retry.

    A list by type, since Prefect takes no function of the failure; the value belongs to
    the task run that asked, so that mapped runs do not see each other's.
    """

    def __getitem__(self, _: Any) -> Any:
        return _delay.get()


def task(
    *,
    reprise: StepOptions | None = None,
    client: rp.Client | rp.AsyncClient | None = None,
    **options: Any,
) -> Callable[[F], prefect.Task[Any, Any]]:
    """As `prefect.task`, but decided by the service. `reprise` holds the options of a step.

    Without a client it is the one that the environment describes; an async function
    needs an `AsyncClient`.
    """

    def decorate(function: F) -> prefect.Task[Any, Any]:
        coordinated = _coordinated(function, client, reprise or {})
        return prefect.task(
            coordinated,
            retries=_NO_BOUND,
            retry_condition_fn=_again,
            retry_delay_seconds=_Delays([0.0]),
            **options,
        )

    return decorate


def _again(task: Any, task_run: TaskRun, state: State[Any]) -> bool:
    """Whether the engine is to retry: what the attempt has left with says so, and when."""
    del task, task_run
    error = state.data
    if not isinstance(error, rp.RetryLater):
        return False
    _delay.set(error.delay)
    return True


def _coordinated(function: Callable[..., Any], client: Any, options: StepOptions) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        step, told = _step(options)
        with rp.once(client or rp.default_client(), step, **told):
            return function(*args, **kwargs)

    @functools.wraps(function)
    async def call_async(*args: Any, **kwargs: Any) -> Any:
        step, told = _step(options)
        async with rp.once_async(client or rp.default_async_client(), step, **told):
            return await function(*args, **kwargs)

    return call_async if inspect.iscoroutinefunction(function) else call


def _step(options: StepOptions) -> tuple[str, StepOptions]:
    """The step that this task run is: its run is the flow's."""
    context = TaskRunContext.get()
    if context is None:  # Called as a function: a step of its own.
        return "called", options
    run = context.task_run
    told: StepOptions = {
        "run": str(run.flow_run_id or run.id),
        "attempts_before": max(0, run.run_count - 1),
        **options,
    }
    return f"{as_id(context.task.name)}/{run.id}", told
