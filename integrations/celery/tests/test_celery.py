"""Celery itself, with a worker and a broker in memory, against a real server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import reprise
from celery.contrib.testing.worker import start_worker
from celery.worker import WorkController
from reprise import Backoff, Policy, StepState
from reprise_celery import CoordinatedTask

import celery
import evidence

QUICK = Policy(max_retries=2, backoff=Backoff.fixed(0.3, jitter="none"))


class Base(CoordinatedTask):
    abstract = True
    reprise = {"policy": QUICK}


@pytest.fixture(scope="module")
def worker() -> Iterator[WorkController]:
    """A worker with one place. It takes seconds to stop, so there is one for all tests."""
    app = celery.Celery("tests", broker="memory://", backend="cache+memory://")
    app.conf.broker_transport_options = {"polling_interval": 0.05}  # A second without it.
    with start_worker(app, perform_ping_check=False, pool="solo") as started:
        yield started


def task(worker: WorkController, client: reprise.Client, function: object, **options: object) -> celery.Task:
    name = f"{function.__name__}-{time.monotonic_ns()}"
    made = worker.app.task(base=Base, name=name, reprise_client=client, **options)(function)
    worker.consumer.update_strategies()  # It has started before this task was made.
    assert made.reprise_client is client
    return made


def step_of(client: reprise.Client, made: celery.Task, result: object) -> reprise.Step:
    step = client.get_step(f"{made.name}/{result.id}", run=result.id)
    assert step is not None
    return step


def test_a_task_is_retried_as_decided(worker: WorkController, client: reprise.Client) -> None:
    starts: list[float] = []

    def flaky() -> str:
        starts.append(time.monotonic())
        assert reprise.current_attempt().number == len(starts)
        if len(starts) < 3:
            raise ConnectionResetError
        return "done"

    made = task(worker, client, flaky)
    result = made.delay()
    assert result.get(timeout=20) == "done"
    assert all(later - one >= 0.3 for one, later in zip(starts, starts[1:], strict=False))
    step = step_of(client, made, result)
    assert (step.state, step.counters.attempts, step.counters.retries) == (StepState.SUCCEEDED, 3, 2)


def test_a_stop_raises_what_the_task_raised(worker: WorkController, client: reprise.Client) -> None:
    calls = []

    def broken(order: int) -> None:
        calls.append(order)
        raise ValueError(f"order {order}")

    made = task(worker, client, broken)
    with pytest.raises(ValueError, match="order 7"):
        made.delay(7).get(timeout=20)
    assert calls == [7, 7, 7]


def test_a_wish_is_passed_on(worker: WorkController, client: reprise.Client) -> None:
    starts: list[float] = []

    def wishing(self: celery.Task) -> str:
        starts.append(time.monotonic())
        if len(starts) < 2:
            raise self.retry(exc=OSError("later"), countdown=0.8)
        return "done"

    made = task(worker, client, wishing, bind=True)
    assert made.delay().get(timeout=20) == "done"
    assert starts[1] - starts[0] >= 0.8


def test_a_task_that_has_to_wait_leaves_its_worker_free(
    worker: WorkController, client: reprise.Client
) -> None:
    """The worker has one place: it could do nothing else if the task waited in it."""
    order: list[str] = []

    def waiting() -> str:
        order.append("waiting")
        return "done"

    def other() -> str:
        order.append("other")
        return "done"

    begun = client.begin("holder", run="holders", targets=["narrow-pool"])
    assert begun.grant is not None
    made = task(worker, client, waiting, reprise={"policy": QUICK, "targets": ["narrow-pool"]})
    quick = task(worker, client, other)
    first = made.delay()
    assert quick.delay().get(timeout=20) == "done"
    client.report("holder", run="holders", fence=begun.grant.fence)
    assert first.get(timeout=30) == "done"
    assert order == ["other", "waiting"]
    assert step_of(client, made, first).counters.attempts == 1


def test_a_task_that_is_called_as_a_function_is_one(worker: WorkController, client: reprise.Client) -> None:
    def plain(order: int) -> int:
        return order

    assert task(worker, client, plain)(7) == 7


def test_limits_hold_across_processes(two_processes: Callable[..., list[evidence.Seen]]) -> None:
    attempts = two_processes(Path(__file__).with_name("narrow.py"))
    assert len(attempts) == 6
    assert evidence.most_at_once(attempts) == 1


def test_counts_survive_a_restart(
    worker: WorkController, client: reprise.Client, power_cut: Callable[[], None]
) -> None:
    calls: list[int] = []

    def broken() -> None:
        calls.append(1)
        if len(calls) == 2:
            power_cut()
        raise ConnectionResetError

    made = task(worker, client, broken)
    result = made.delay()
    with pytest.raises(ConnectionResetError):
        result.get(timeout=60)
    assert len(calls) == 3
    assert step_of(client, made, result).counters.attempts == 3
