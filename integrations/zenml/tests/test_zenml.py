"""ZenML itself: pipelines on its local orchestrator, against a real server."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import reprise
from reprise import StepState
from stories import Body, counting, loading, loading_again
from zenml.client import Client as ZenML
from zenml.enums import ExecutionStatus
from zenml.models import PipelineRunResponse

import evidence


@pytest.fixture(autouse=True)
def _address(server: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPRISE_ADDR", server.unix)


def latest(pipeline: str) -> PipelineRunResponse:
    """The latest run, as ZenML knows it."""
    return ZenML().get_pipeline(pipeline).last_run


def step_of(client: reprise.Client, run: PipelineRunResponse, name: str = "load") -> reprise.Step:
    found = client.get_step(name, run=str(run.id))
    assert found is not None
    return found


def test_a_step_is_retried_as_decided(client: reprise.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[float] = []

    def flaky() -> None:
        starts.append(time.monotonic())
        assert reprise.current_attempt().number == len(starts)
        if len(starts) < 3:
            raise ConnectionResetError

    monkeypatch.setattr(Body, "does", flaky)
    loading()
    run = latest("loading")
    assert run.status == ExecutionStatus.COMPLETED
    assert run.steps["load"].output.load() == "done"
    assert all(later - one >= 0.3 for one, later in zip(starts, starts[1:], strict=False))
    found = step_of(client, run)
    assert (found.state, found.counters.attempts) == (StepState.SUCCEEDED, 3)


def test_a_stop_fails_the_step(client: reprise.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def broken() -> None:
        calls.append(1)
        raise reprise.NotRetryable("bad input")

    monkeypatch.setattr(Body, "does", broken)
    with pytest.raises(RuntimeError):
        loading()
    run = latest("loading")
    assert calls == [1]
    assert run.status == ExecutionStatus.FAILED
    assert step_of(client, run).state is StepState.FAILED


def test_a_wish_of_the_body_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[float] = []

    def wishing() -> None:
        starts.append(time.monotonic())
        if len(starts) < 2:
            raise reprise.RetryRequested(delay=0.8)

    monkeypatch.setattr(Body, "does", wishing)
    loading()
    assert starts[1] - starts[0] >= 0.8


def test_retries_of_zenml_do_not_start_what_was_told_to_stop(
    client: reprise.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ZenML keeps them for a process that is lost; the step is the same one then."""
    calls: list[int] = []

    def broken() -> None:
        calls.append(1)
        raise reprise.NotRetryable("bad input")

    monkeypatch.setattr(Body, "does", broken)
    with pytest.raises(RuntimeError):
        loading_again()
    assert calls == [1]
    assert step_of(client, latest("loading_again"), "load_again").counters.attempts == 1


def test_values_pass_between_steps(client: reprise.Client) -> None:
    """ZenML moves them by the annotations of the functions."""
    counting()
    run = latest("counting")
    assert run.steps["double"].output.load() == 14
    assert step_of(client, run, "double").state is StepState.SUCCEEDED


def test_limits_hold_across_processes(two_processes: Callable[..., list[evidence.Seen]]) -> None:
    attempts = two_processes(Path(__file__).parent / "narrow.py")
    assert len(attempts) == 6
    assert evidence.most_at_once(attempts) == 1


def test_counts_survive_a_restart(
    client: reprise.Client, monkeypatch: pytest.MonkeyPatch, power_cut: Callable[[], None]
) -> None:
    calls: list[int] = []

    def broken() -> None:
        calls.append(1)
        if len(calls) == 2:
            power_cut()
        raise ConnectionResetError

    monkeypatch.setattr(Body, "does", broken)
    with pytest.raises(RuntimeError):
        loading()
    assert len(calls) == 3
    assert step_of(client, latest("loading")).counters.attempts == 3
