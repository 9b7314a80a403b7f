"""Temporal activities whose retries the service decides: whether, when and how often.

    Worker(..., interceptors=[Coordination(policy="payments")])

Temporal keeps its queue: a retry is its own, after the decision's wait, and a stop an error
that it does not retry. Workflow code is not touched, and never asks anybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import reprise
from reprise.decorator import as_id
from reprise.job import RunlessOptions, StepOptions
from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.exceptions import CancelledError as ActivityCancelled
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor
from typing_extensions import Unpack

F = TypeVar("F", bound=Callable[..., Any])

#: Where an activity carries its own options.
_OPTIONS = "__reprise_options__"


def coordinated(**options: Unpack[RunlessOptions]) -> Callable[[F], F]:
    """Says of an activity what goes beyond what the interceptor says of all of them."""

    def decorate(function: F) -> F:
        setattr(function, _OPTIONS, options)
        return function

    return decorate


class Coordination(Interceptor):
    """Makes each execution of each activity of a worker an attempt of a step.

    The run is the workflow's, the step the activity's type and id. The options hold for
    every activity that `coordinated` says nothing else of. Without a client it is the one
    that the environment describes.
    """

    def __init__(
        self, *, client: reprise.AsyncClient | None = None, **options: Unpack[RunlessOptions]
    ) -> None:
        self._client = client
        self._options = options

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        """Called by the worker for each execution."""
        return _Attempts(next, self._client, self._options)


class _Attempts(ActivityInboundInterceptor):
    """One execution of an activity."""

    def __init__(
        self, inner: ActivityInboundInterceptor, client: reprise.AsyncClient | None, options: RunlessOptions
    ) -> None:
        super().__init__(inner)
        self._client = client
        self._options = options

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        """Runs the activity as one attempt, and says in Temporal's words what follows."""
        try:
            return await self._attempt(input)
        except reprise.RetryLater as later:
            _raise_in_words_of_temporal(later.__cause__ or later, retry_in=later.delay)
        except Exception as error:
            if not isinstance(error, reprise.errors.Decided) and reprise.decision_of(error) is None:
                raise
            _raise_in_words_of_temporal(error)

    async def _attempt(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        step, told = _step(activity.info())
        options: StepOptions = {**told, **self._options, **getattr(input.fn, _OPTIONS, {})}
        elsewhere: BaseException = _CompletedElsewhere()
        async with reprise.once_async(self._client or reprise.default_async_client(), step, **options):
            try:
                return await super().execute_activity(input)
            except _CompletedElsewhere as error:
                elsewhere = error  # No failure: somebody else tells Temporal of the result.
            except ActivityCancelled as error:
                raise asyncio.CancelledError from error
            except ApplicationError as error:
                raise _wish(error) from error
        raise elsewhere


def _step(info: activity.Info) -> tuple[str, StepOptions]:
    """The step that an activity is. Ids of activities are anew in each run of a workflow."""
    within = f"{info.workflow_id}/{info.workflow_run_id}" if info.in_workflow else info.activity_run_id
    told: StepOptions = {"run": as_id(within or info.activity_id), "attempts_before": info.attempt - 1}
    return as_id(f"{info.activity_type}/{info.activity_id}"), told


def _wish(error: ApplicationError) -> BaseException:
    """What an activity says in Temporal's words, in ours. Most say nothing of retries."""
    if error.non_retryable:
        return reprise.NotRetryable(str(error))
    if error.next_retry_delay is not None:
        return reprise.RetryRequested(str(error), delay=error.next_retry_delay)
    return error


def _raise_in_words_of_temporal(error: BaseException, *, retry_in: float | None = None) -> NoReturn:
    """Raises what failed so that Temporal retries it after so many seconds, or, without any, never."""
    said = error.__cause__ if isinstance(error, (reprise.RetryRequested, reprise.NotRetryable)) else None
    told = said if isinstance(said, ApplicationError) else error
    known = told if isinstance(told, ApplicationError) else None
    raise ApplicationError(
        known.message if known else str(told),
        *(known.details if known else ()),
        type=known.type if known else type(told).__name__,
        non_retryable=retry_in is None,
        next_retry_delay=None if retry_in is None else timedelta(seconds=retry_in),
    ) from error


def _completed_elsewhere() -> type[BaseException]:
    """What `activity.raise_complete_async` raises; Temporal gives it no public name."""
    try:
        activity.raise_complete_async()
    except BaseException as error:
        return type(error)


_CompletedElsewhere = _completed_elsewhere()
