"""Celery tasks whose retries the service decides: whether, when and how often.

    @app.task(base=CoordinatedTask, reprise={"policy": "payments", "targets": ["payments-api"]})
    def charge(order_id): ...

Celery keeps the queue: a retry is a message with a countdown. A task that has to wait for
a limit goes back to the queue likewise, and its worker is free meanwhile.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar

import reprise
from celery.exceptions import Ignore, Reject, Retry
from reprise.job import StepOptions

import celery


class CoordinatedTask(celery.Task):
    """A task that is a step: its id names it, so that each retry is an attempt of the same one."""

    abstract = True
    #: The service has the last word; Celery's own count would end a task that merely waits.
    max_retries = None
    #: What is said of the step: the options of `reprise.Client.step`.
    reprise: ClassVar[StepOptions] = {}
    #: The client. None takes the one that the environment describes.
    reprise_client: ClassVar[reprise.Client | None] = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the task as one attempt."""
        if self.request.id is None:  # Called as a function: nobody could come back for a retry.
            return super().__call__(*args, **kwargs)
        try:
            return self._attempt(args, kwargs)
        except reprise.RetryLater as later:
            # Celery wants the reason as an exception: what failed, or that it had to wait.
            reason = later.__cause__ or later
            raise self.retry(exc=reason, countdown=later.delay, max_retries=None, throw=False) from reason
        except reprise.AlreadyDone:
            # A message that was delivered twice: the first one has the result.
            raise Ignore from None

    def _attempt(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        options: StepOptions = {
            "run": self.request.root_id or self.request.id,
            "attempts_before": self.request.retries,
            **self.reprise,
        }
        ignored: Ignore | None = None
        client = self.reprise_client or reprise.default_client()
        with reprise.once(client, f"{self.name}/{self.request.id}", **options):
            try:
                return super().__call__(*args, **kwargs)
            except Ignore as error:
                ignored = error  # No failure: the task has said that it has no result.
            except Retry as asked:
                raise _wish(asked) from asked.exc
            except Reject as error:
                raise reprise.RetryRequested(f"rejected: {error.reason}") from error
        raise ignored or Ignore


def _wish(asked: Retry) -> reprise.RetryRequested:
    """A task's own `self.retry` as a wish: the service decides, and is told when."""
    when = asked.when
    if isinstance(when, dt.datetime):
        when = max(0.0, (when - dt.datetime.now(when.tzinfo)).total_seconds())
    return reprise.RetryRequested(str(asked), delay=when)
