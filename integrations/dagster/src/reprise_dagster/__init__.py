"""Dagster ops and assets whose retries the service decides: whether, when and how often.

    @dg.op
    @coordinated(policy="nightly", targets=["warehouse-db"])
    def load(context): ...

Dagster keeps its loop: a retry is its `RetryRequested` with the decision's wait, a stop its
`Failure` that allows none. Dagster's own `RetryPolicy` is not to be used beside it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ParamSpec, TypeVar

import reprise
from reprise.decorator import as_id
from reprise.job import RunlessOptions
from typing_extensions import Unpack

import dagster as dg

from .runs import RunFailed, execute_job, place

__all__ = ["RunFailed", "coordinated", "execute_job"]

P = ParamSpec("P")
R = TypeVar("R")

#: More retries than any step has: the service counts, not Dagster.
_NO_BOUND = 1_000_000


def coordinated(
    *, client: reprise.Client | None = None, **options: Unpack[RunlessOptions]
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Makes each execution of an op's or asset's function an attempt of a step.

    The run is Dagster's, the step is its step key, so that each step of each run has its
    own counters; under `execute_job` the run is that of Dagster's root run. Without a client it
    is the one that the environment describes.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise reprise.ConfigurationError(f"{function!r}: accepted is a plain function or generator")

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with _attempt(client, options):
                return function(*args, **kwargs)

        @functools.wraps(function)
        def generate(*args: Any, **kwargs: Any) -> Any:
            with _attempt(client, options):
                return (yield from function(*args, **kwargs))  # type: ignore[misc]

        return generate if inspect.isgeneratorfunction(function) else call  # type: ignore[return-value]

    return decorate


@contextmanager
def _attempt(client: reprise.Client | None, options: RunlessOptions) -> Iterator[None]:
    """One attempt of the step that is being executed, in Dagster's words."""
    context = dg.OpExecutionContext.get()
    run, run_attempt = place(context.run)
    told = {"run": run, "run_attempt": run_attempt, "attempts_before": context.retry_number, **options}
    try:
        with ExitStack() as stack:
            _enter(stack, client or reprise.default_client(), context, told)
            with _wishes():
                yield
    except reprise.RetryLater as later:
        context.log.info(f"reprise: {later.decision}")
        raise dg.RetryRequested(_NO_BOUND, later.delay) from (later.__cause__ or later)
    except dg.Failure:
        raise
    except Exception as error:
        decision = reprise.decision_of(error) or getattr(error, "decision", None)
        if decision is None:
            raise
        raise dg.Failure(f"{error}\nreprise: {decision}", allow_retries=False) from error


def _enter(
    stack: ExitStack, client: reprise.Client, context: dg.OpExecutionContext, told: dict[str, Any]
) -> None:
    """Enters the attempt.

    A body that had succeeded, but whose outputs Dagster could not keep, runs again in the
    next attempt of the run: its step there has a name of its own.
    """
    step = context.get_step_execution_context().step.key
    try:
        stack.enter_context(reprise.once(client, _id(step), **told))
    except reprise.AlreadyDone:
        if told["run_attempt"] <= 1:
            raise
        stack.enter_context(reprise.once(client, _id(f"{step}@{told['run_attempt']}"), **told))


@contextmanager
def _wishes() -> Iterator[None]:
    """What a body says in Dagster's words, in ours."""
    try:
        yield
    except dg.RetryRequested as asked:
        raise reprise.RetryRequested(
            str(asked.__cause__ or asked), delay=asked.seconds_to_wait, max_retries=asked.max_retries
        ) from asked.__cause__
    except dg.Failure as failure:
        if failure.allow_retries:
            raise
        raise reprise.NotRetryable(failure.description) from failure


def _id(step: str) -> str:
    """A mapped step's key has brackets, which ids have not."""
    return as_id(step.replace("[", "/").replace("]", ""))
