"""Airflow itself, its scheduling in process, against a real server."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import reprise
import stories
from airflow.sdk import DAG
from reprise import StepState
from reprise_airflow import CoordinatedRetryPolicy
from server import binary

import evidence


@pytest.fixture(autouse=True)
def _address(server: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPRISE_ADDR", server.unix)


def outcome(dag: DAG) -> tuple[str, str]:
    """How a run of the DAG ends, and the run as the service knows it."""
    run = dag.test()
    return str(run.state), f"{run.dag_id}/{run.run_id}"


def step_of(client: reprise.Client, run: str) -> reprise.Step:
    found = client.get_step("load", run=run)
    assert found is not None
    return found


def test_a_task_is_retried_as_decided(client: reprise.Client) -> None:
    state, run = outcome(stories.flaky_dag)
    assert state == "success"
    step = step_of(client, run)
    assert (step.state, step.counters.attempts, step.counters.retries) == (StepState.SUCCEEDED, 3, 2)
    assert step.message.attempts[0].error_type == "ConnectionResetError"


def test_a_stop_ends_the_task(client: reprise.Client) -> None:
    state, run = outcome(stories.broken_dag)
    assert state == "failed"
    step = step_of(client, run)
    assert (step.state, step.counters.attempts) == (StepState.FAILED, 1)


def test_a_task_that_says_it_is_over_is_over(client: reprise.Client) -> None:
    state, run = outcome(stories.over_dag)
    assert state == "failed"
    decision = step_of(client, run).decision
    assert decision is not None
    assert decision.reason is reprise.Reason.NOT_RETRYABLE


def test_limits_hold_across_processes(
    client: reprise.Client, server: object, two_processes: Callable[..., list[evidence.Seen]]
) -> None:
    """A try is started at its instant, and the instants of all processes keep the rate."""
    limit = ["--rate", "1/1s", "--burst", "1", "--addr", server.unix]
    subprocess.run([binary(), "target", "create", "narrow-rate", *limit], check=True, capture_output=True)
    attempts = two_processes(Path(__file__).with_name("narrow.py"), os.environ["AIRFLOW_HOME"])
    instants: list[float] = []
    for name in {one.name for one in attempts}:
        run, task = name.split()
        step = client.get_step(task, run=run)
        assert step is not None
        decided = [each.decision.not_before.ToNanoseconds() / 1e9 for each in step.message.attempts[:-1]]
        retries = [one.start for one in attempts if one.name == name][1:]
        assert len(retries) == len(decided) == 2
        assert all(at_wall_clock(start) >= at for start, at in zip(retries, decided, strict=True))
        instants += decided
    assert len(instants) == 8
    assert evidence.rate_excess(instants, per_second=1.0, burst=1) <= 0


def at_wall_clock(instant: float) -> float:
    """An instant of the monotonic clock by the server's, and what the two may be apart."""
    return instant - time.monotonic() + time.time() + 0.1


def test_counts_survive_a_restart(
    client: reprise.Client, monkeypatch: pytest.MonkeyPatch, power_cut: Callable[[], None]
) -> None:
    monkeypatch.setattr(stories, "cut_off", power_cut)
    state, run = outcome(stories.interrupted_dag)
    assert state == "failed"
    step = step_of(client, run)
    assert (step.state, step.counters.attempts) == (StepState.FAILED, 4)


def test_without_a_service_airflow_decides() -> None:
    assert outcome(stories.alone_dag)[0] == "failed"


def test_a_policy_is_the_same_after_its_journey() -> None:
    policy = CoordinatedRetryPolicy("nightly", ("warehouse-db",), "unix:/run/r.sock")
    again = CoordinatedRetryPolicy.deserialize(json.loads(json.dumps(policy.serialize())))
    assert vars(again) == vars(policy)
