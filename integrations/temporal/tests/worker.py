"""What a worker does with a task from its queue, without the server that has the queue.

An execution is Temporal's own but for its ends: `ActivityEnvironment` stands for the worker,
and `run_activity` for the server, which obeys what the failure of an execution says.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import inspect
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor


class Innermost(ActivityInboundInterceptor):
    """Calls the activity's function, as the worker's own innermost interceptor does."""

    def __init__(self) -> None:
        pass

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        if inspect.iscoroutinefunction(input.fn):
            return await input.fn(*input.args)
        context = contextvars.copy_context()
        with ThreadPoolExecutor(1) as pool:
            return await asyncio.get_running_loop().run_in_executor(pool, context.run, input.fn, *input.args)


@dataclasses.dataclass(frozen=True)
class Scheduled:
    """An activity that a workflow has scheduled."""

    function: Any
    arguments: tuple[Any, ...] = ()
    workflow: str = dataclasses.field(default_factory=lambda: str(uuid.uuid4()))
    id: str = "1"

    def info(self, attempt: int) -> activity.Info:
        """What the server says of an execution."""
        return dataclasses.replace(
            ActivityEnvironment.default_info(),
            activity_id=self.id,
            activity_type=self.function.__name__,
            attempt=attempt,
            workflow_id="orders",
            workflow_run_id=self.workflow,
        )

    @property
    def run(self) -> str:
        """The run that Reprise knows it by."""
        return f"orders/{self.workflow}"

    @property
    def step(self) -> str:
        """The step."""
        return f"{self.function.__name__}/{self.id}"


async def execute(interceptor: Interceptor, scheduled: Scheduled, attempt: int = 1) -> Any:
    """One execution, through the interceptor."""
    environment = ActivityEnvironment()
    environment.info = scheduled.info(attempt)
    inbound = interceptor.intercept_activity(Innermost())
    asked = ExecuteActivityInput(scheduled.function, scheduled.arguments, None, {})
    return await environment.run(inbound.execute_activity, asked)


async def run_activity(interceptor: Interceptor, scheduled: Scheduled) -> Any:
    """Executions until one succeeds or fails for good, each when the one before has said."""
    attempt = 1
    while True:
        try:
            return await execute(interceptor, scheduled, attempt)
        except ApplicationError as error:
            if error.non_retryable:
                raise
            assert error.next_retry_delay is not None
            await asyncio.sleep(error.next_retry_delay.total_seconds())
        attempt += 1
