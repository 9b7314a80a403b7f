"""Airflow itself, its scheduling in process, against a real server."""

from __future__ import annotations

import json

import pytest
import reprise
import stories
from airflow.sdk import DAG
from reprise import StepState
from reprise_airflow import CoordinatedRetryPolicy


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


def test_without_a_service_airflow_decides() -> None:
    assert outcome(stories.alone_dag)[0] == "failed"


def test_a_policy_is_the_same_after_its_journey() -> None:
    policy = CoordinatedRetryPolicy("nightly", ("warehouse-db",), "unix:/run/r.sock")
    again = CoordinatedRetryPolicy.deserialize(json.loads(json.dumps(policy.serialize())))
    assert vars(again) == vars(policy)
