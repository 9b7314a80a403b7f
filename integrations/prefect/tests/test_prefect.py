"""Prefect itself, with its ephemeral server, against a real server of ours."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import reprise
from prefect.runtime import flow_run, task_run
from prefect.settings import PREFECT_API_URL
from reprise import Backoff, Policy, StepState
from reprise_prefect import task

import evidence
import prefect

QUICK = Policy(max_retries=2, backoff=Backoff.fixed(0.5, jitter="none"))


def test_a_task_is_retried_as_decided(client: reprise.Client) -> None:
    starts: list[float] = []
    names: list[str] = []

    @task(reprise={"policy": QUICK}, client=client, name="load")
    def load() -> str:
        starts.append(time.monotonic())
        names[:] = [flow_run.id, task_run.id]
        assert reprise.current_attempt().number == len(starts)
        if len(starts) < 3:
            raise ConnectionResetError
        return "done"

    @prefect.flow
    def orders() -> str:
        return load()

    assert orders() == "done"
    assert all(later - one >= 0.5 for one, later in zip(starts, starts[1:], strict=False))
    step = client.get_step(f"load/{names[1]}", run=names[0])
    assert step is not None
    assert (step.state, step.counters.attempts) == (StepState.SUCCEEDED, 3)


def test_a_stop_fails_the_task_with_what_it_raised(client: reprise.Client) -> None:
    calls: list[int] = []

    @task(reprise={"policy": Policy(max_retries=1)}, client=client)
    def load() -> None:
        calls.append(1)
        raise ValueError("bad input")

    @prefect.flow
    def orders() -> None:
        load()

    with pytest.raises(ValueError, match="bad input"):
        orders()
    assert len(calls) == 2


def test_mapped_runs_wait_each_for_their_own(client: reprise.Client) -> None:
    """Each asks for another wait, at the same time."""
    starts: dict[float, list[float]] = {0.2: [], 1.2: []}

    @task(reprise={"policy": QUICK}, client=client)
    def load(wait: float) -> float:
        starts[wait].append(time.monotonic())
        if len(starts[wait]) < 2:
            raise reprise.RetryRequested(delay=wait)
        return wait

    @prefect.flow
    def orders() -> list[float]:
        return [each.result() for each in load.map(list(starts))]

    assert orders() == list(starts)
    for wait, (first, second) in starts.items():
        assert wait <= second - first < wait + 0.9


def test_an_async_task_is_retried_too(server: object) -> None:
    calls: list[int] = []

    async def main() -> str:
        async with reprise.AsyncClient(server.unix) as client:

            @task(reprise={"policy": QUICK}, client=client)
            async def load() -> str:
                calls.append(1)
                if len(calls) < 2:
                    raise TimeoutError
                return "done"

            @prefect.flow
            async def orders() -> str:
                return await load()

            return await orders()

    assert asyncio.run(main()) == "done"
    assert len(calls) == 2


def test_limits_hold_across_processes(
    two_processes: Callable[..., list[evidence.Seen]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))
    attempts = two_processes(Path(__file__).with_name("narrow.py"))
    assert len(attempts) == 6
    assert evidence.most_at_once(attempts) == 1


def test_counts_survive_a_restart(client: reprise.Client, power_cut: Callable[[], None]) -> None:
    calls: list[int] = []
    names: list[str] = []

    @task(reprise={"policy": QUICK}, client=client, name="load")
    def load() -> None:
        names[:] = [flow_run.id, task_run.id]
        calls.append(1)
        if len(calls) == 2:
            power_cut()
        raise ConnectionResetError

    @prefect.flow
    def orders() -> None:
        load()

    with pytest.raises(ConnectionResetError):
        orders()
    assert len(calls) == 3
    step = client.get_step(f"load/{names[1]}", run=names[0])
    assert step is not None
    assert step.counters.attempts == 3
