"""A flow with three tasks that need the same narrow pool, with the Prefect server of the tests."""

from __future__ import annotations

import time

from reprise_prefect import task

import evidence
import prefect


@task(reprise={"policy": "quick", "targets": ["narrow-pool"]})
def load(part: str) -> str:
    with evidence.seen():
        time.sleep(0.2)
    return part


@prefect.flow
def narrow() -> list[str]:
    return [each.result() for each in load.map(["one", "two", "three"])]


evidence.meet()
narrow()
