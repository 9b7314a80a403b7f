"""Temporal's activities and interceptors, without its server, against a real one of ours."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import reprise
from reprise import Backoff, Policy, StepState
from reprise._proto.failure_pb2 import FAILURE_CLASS_CANCELED
from reprise_temporal import Coordination, coordinated
from temporalio import activity
from temporalio.exceptions import ApplicationError, CancelledError
from worker import Scheduled, execute, run_activity

import evidence

QUICK = Policy(max_retries=2, backoff=Backoff.fixed(0.3, jitter="none"))


@pytest.fixture
def perform(server: object) -> Callable[..., Any]:
    """Performs something with an interceptor that speaks to the server."""

    def perform(what: Callable[..., Any], scheduled: Scheduled, **options: Any) -> Any:
        async def main() -> Any:
            async with reprise.AsyncClient(server.unix) as client:
                return await what(Coordination(client=client, policy=QUICK), scheduled, **options)

        return asyncio.run(main())

    return perform


def step_of(client: reprise.Client, scheduled: Scheduled) -> reprise.Step:
    step = client.get_step(scheduled.step, run=scheduled.run)
    assert step is not None
    return step


def test_an_activity_is_retried_as_decided(client: reprise.Client, perform: Callable[..., Any]) -> None:
    starts: list[float] = []

    @activity.defn
    async def load() -> str:
        starts.append(time.monotonic())
        assert reprise.current_attempt().number == len(starts) == activity.info().attempt
        if len(starts) < 3:
            raise ConnectionResetError
        return "done"

    scheduled = Scheduled(load)
    assert perform(run_activity, scheduled) == "done"
    assert all(later - one >= 0.3 for one, later in zip(starts, starts[1:], strict=False))
    step = step_of(client, scheduled)
    assert (step.state, step.counters.attempts) == (StepState.SUCCEEDED, 3)


def test_a_plain_function_is_retried_too(perform: Callable[..., Any]) -> None:
    calls: list[int] = []

    @activity.defn
    def load(order: int) -> int:
        calls.append(order)
        assert reprise.current_attempt().number == len(calls)
        if len(calls) < 2:
            raise TimeoutError
        return order

    assert perform(run_activity, Scheduled(load, (7,))) == 7
    assert calls == [7, 7]


def test_a_stop_is_an_error_that_is_not_retried(perform: Callable[..., Any]) -> None:
    calls: list[int] = []

    @activity.defn
    @coordinated(policy=Policy(max_retries=1, backoff=Backoff.none()))
    async def load() -> None:
        calls.append(1)
        raise ValueError("bad input")

    with pytest.raises(ApplicationError, match="bad input") as caught:
        perform(run_activity, Scheduled(load))
    assert len(calls) == 2
    assert (caught.value.type, caught.value.non_retryable) == ("ValueError", True)
    assert isinstance(caught.value.__cause__, ValueError)


def test_what_an_activity_says_of_its_error_is_kept(perform: Callable[..., Any]) -> None:
    @activity.defn
    async def load() -> None:
        raise ApplicationError("out of stock", {"order": 7}, type="OutOfStock")

    with pytest.raises(ApplicationError) as caught:
        perform(execute, Scheduled(load))
    error = caught.value
    assert (error.message, error.type, error.details) == ("out of stock", "OutOfStock", ({"order": 7},))
    assert error.next_retry_delay is not None
    assert 0 < error.next_retry_delay.total_seconds() <= 0.3


def test_a_wish_of_the_activity_is_passed_on(perform: Callable[..., Any]) -> None:
    starts: list[float] = []

    @activity.defn
    async def load() -> None:
        starts.append(time.monotonic())
        if len(starts) < 2:
            raise ApplicationError("later", next_retry_delay=timedelta(seconds=0.8))

    perform(run_activity, Scheduled(load))
    assert starts[1] - starts[0] >= 0.8


def test_an_error_that_is_not_to_be_retried_is_passed_on(
    client: reprise.Client, perform: Callable[..., Any]
) -> None:
    @activity.defn
    async def load() -> None:
        raise ApplicationError("never", type="Never", non_retryable=True)

    scheduled = Scheduled(load)
    with pytest.raises(ApplicationError, match="never") as caught:
        perform(run_activity, scheduled)
    assert caught.value.type == "Never"
    decision = step_of(client, scheduled).decision
    assert decision is not None
    assert decision.reason is reprise.Reason.NOT_RETRYABLE


def test_a_cancelled_activity_is_told_of_as_one(client: reprise.Client, perform: Callable[..., Any]) -> None:
    @activity.defn
    def load() -> None:
        raise CancelledError("the workflow was cancelled")

    scheduled = Scheduled(load)
    with pytest.raises(asyncio.CancelledError):
        perform(execute, scheduled)
    (attempt,) = step_of(client, scheduled).message.attempts
    assert attempt.HasField("ended_at")
    assert getattr(attempt, "class") == FAILURE_CLASS_CANCELED


def test_an_activity_that_is_completed_elsewhere_has_not_failed(
    client: reprise.Client, perform: Callable[..., Any]
) -> None:
    @activity.defn
    async def load() -> None:
        activity.raise_complete_async()

    scheduled = Scheduled(load)
    with pytest.raises(activity._CompleteAsyncError):
        perform(execute, scheduled)
    assert step_of(client, scheduled).state is StepState.SUCCEEDED


def test_an_activity_that_may_not_start_yet_is_come_back_for(
    client: reprise.Client, perform: Callable[..., Any]
) -> None:
    """It is not kept waiting in its worker: others need the place."""
    begun = client.begin("holder", run="temporal-holders", targets=["narrow-pool"])
    assert begun.grant is not None
    calls: list[int] = []

    @activity.defn
    @coordinated(targets=["narrow-pool"])
    async def load() -> None:
        calls.append(1)

    scheduled = Scheduled(load)
    with pytest.raises(ApplicationError) as caught:
        perform(execute, scheduled)
    assert caught.value.next_retry_delay is not None
    assert calls == []
    client.report("holder", run="temporal-holders", fence=begun.grant.fence)
    perform(run_activity, scheduled)
    assert step_of(client, scheduled).counters.attempts == 1


def test_limits_hold_across_processes(two_processes: Callable[..., list[evidence.Seen]]) -> None:
    attempts = two_processes(Path(__file__).parent / "narrow.py")
    assert len(attempts) == 8
    assert evidence.most_at_once(attempts) == 1


def test_counts_survive_a_restart(
    client: reprise.Client, perform: Callable[..., Any], power_cut: Callable[[], None]
) -> None:
    calls: list[int] = []

    @activity.defn
    async def load() -> None:
        calls.append(1)
        if len(calls) == 2:
            power_cut()
        raise ConnectionResetError

    scheduled = Scheduled(load)
    with pytest.raises(ApplicationError):
        perform(run_activity, scheduled)
    assert len(calls) == 3
    assert step_of(client, scheduled).counters.attempts == 3
