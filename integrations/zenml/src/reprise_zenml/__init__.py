"""ZenML steps whose retries the service decides: whether, when and how often.

    @step
    @coordinated(policy="nightly", targets=["warehouse-db"])
    def load() -> int: ...

ZenML asks nobody about a retry, and its own are fixed when the pipeline is written. So the
attempts are made within the one step run that ZenML sees, on any orchestrator alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import reprise
from reprise.decorator import as_id
from reprise.job import RunlessOptions
from typing_extensions import Unpack

from zenml import get_step_context

P = ParamSpec("P")
R = TypeVar("R")


def coordinated(
    *, client: reprise.Client | None = None, **options: Unpack[RunlessOptions]
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Makes a step's function attempts of a step here: it is called until it succeeds, or is to stop.

    The run is the pipeline run, the step its name in it, so that each step of each run has
    its own counters, and keeps them should its process be lost and ZenML run it again.
    Without a client it is the one that the environment describes.
    """
    return reprise.retry(_step, run=_run, client=client, **options)


def _run(*_: Any, **__: Any) -> str:
    return str(get_step_context().pipeline_run.id)


def _step(*_: Any, **__: Any) -> str:
    return as_id(get_step_context().step_run.name)
