"""Runs of Dagster's that are executed again as the service decides, on an instance that keeps them."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import reprise
from reprise import Policy, Resume, RunRetries, StepState
from reprise_dagster import execute_job

import dagster as dg

sys.path.insert(0, str(Path(__file__).parent))
import nightly
from nightly import SOON

RUNS = Policy(max_retries=1, backoff=SOON)


@pytest.fixture
def instance(tmp_path: Path, server: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("REPRISE_ADDR", server.unix)
    monkeypatch.setenv("EVIDENCE", str(tmp_path / "evidence"))
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    (tmp_path / "evidence").touch()
    with dg.DagsterInstance.local_temp(str(tmp_path)) as made:
        yield made


@pytest.fixture
def seen(tmp_path: Path) -> Callable[[], list[str]]:
    """Which ops have started, in order."""
    return lambda: (tmp_path / "evidence").read_text().split()


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """How often `load` fails from the start."""
    return lambda number: monkeypatch.setenv("FAILURES", str(number))


def job(name: str) -> object:
    return dg.reconstructable(getattr(nightly, name))


@pytest.mark.parametrize("name", ["nightly", "spread"])
def test_a_job_goes_on_where_it_failed(
    client: reprise.Client,
    instance: dg.DagsterInstance,
    seen: Callable[[], list[str]],
    failures: Callable[[int], None],
    name: str,
) -> None:
    failures(2)
    run = execute_job(job(name), instance, client=client, policy=RUNS)
    assert run.is_success
    assert run.parent_run_id == run.root_run_id
    assert seen() == ["extract", "load", "load", "load", "publish"]
    told = client.get_run(run.root_run_id)
    assert told is not None
    assert (told.state, told.counters.attempts) == (StepState.SUCCEEDED, 2)
    steps = {each.step: each for each in client.run_steps(run.root_run_id)}
    assert {step: each.run_attempt for step, each in steps.items()} == {
        "extract": 1,
        "load": 2,
        "publish": 2,
    }
    assert steps["load"].counters.attempts == 3
    first = instance.get_run_by_id(run.root_run_id)
    said = [entry.message for entry in instance.all_logs(first.run_id)]
    assert any(message.startswith("reprise: RETRY") for message in said)


def test_a_job_that_is_to_stop_stops(
    client: reprise.Client,
    instance: dg.DagsterInstance,
    seen: Callable[[], list[str]],
    failures: Callable[[int], None],
) -> None:
    failures(99)
    run = execute_job(job("nightly"), instance, client=client, policy=RUNS)
    assert run.status is dg.DagsterRunStatus.FAILURE
    assert seen() == ["extract", *["load"] * 4]
    assert len(instance.get_runs()) == 2
    said = [entry.message for entry in instance.all_logs(run.run_id)]
    assert any(message.startswith("reprise: STOP") for message in said)


def test_a_failed_step_may_be_left_to_its_own_retries(
    client: reprise.Client,
    instance: dg.DagsterInstance,
    seen: Callable[[], list[str]],
    failures: Callable[[int], None],
) -> None:
    failures(99)
    policy = Policy(max_retries=5, backoff=SOON, run=RunRetries(ignore_step_failures=True))
    run = execute_job(job("nightly"), instance, client=client, policy=policy)
    assert seen() == ["extract", "load", "load"]
    told = client.get_run(run.run_id)
    assert told is not None
    assert told.decision is not None
    assert told.decision.reason is reprise.Reason.STEP_FAILED


def test_a_job_begins_anew_where_the_policy_says_so(
    client: reprise.Client,
    instance: dg.DagsterInstance,
    seen: Callable[[], list[str]],
    failures: Callable[[int], None],
) -> None:
    failures(2)
    policy = Policy(max_retries=1, backoff=SOON, run=RunRetries(resume="all_steps"))
    run = execute_job(job("nightly"), instance, client=client, policy=policy)
    assert run.is_success
    assert seen() == ["extract", "load", "load", "extract", "load", "publish"]


def test_a_job_whose_process_vanished_is_executed_again(
    client: reprise.Client,
    instance: dg.DagsterInstance,
    seen: Callable[[], list[str]],
    failures: Callable[[int], None],
) -> None:
    """It had begun an attempt, and a run of Dagster's that nobody will end."""
    failures(0)
    root = "6d6f3a2e-5b1c-4c0e-9a53-3f4f1f7f8b90"
    next(client.run(root, policy=RUNS, lease=1))
    definition = job("nightly").get_definition()
    instance.create_run_for_job(definition, run_id=root, status=dg.DagsterRunStatus.STARTED)
    run = execute_job(job("nightly"), instance, run_id=root, client=client, policy=RUNS)
    assert run.is_success
    assert run.parent_run_id == root
    assert instance.get_run_by_id(root).status is dg.DagsterRunStatus.FAILURE
    assert seen() == ["extract", "load", "publish"]
    told = client.get_run(root)
    assert told is not None
    assert (told.counters.attempts, told.counters.crashes) == (2, 1)


def test_an_op_whose_output_was_not_kept_runs_again(
    client: reprise.Client, instance: dg.DagsterInstance, seen: Callable[[], list[str]]
) -> None:
    run = execute_job(job("kept"), instance, client=client, policy=RUNS)
    assert run.is_success
    assert seen() == ["keep", "kept", "keep", "kept"]
    assert [each.step for each in client.run_steps(run.root_run_id)] == ["keep", "keep@2"]


def test_a_re_execution_by_hand_is_a_run_of_its_own(
    client: reprise.Client,
    instance: dg.DagsterInstance,
    seen: Callable[[], list[str]],
    failures: Callable[[int], None],
) -> None:
    """Dagster copies the tags of the run that is re-executed, and that one is over."""
    failures(2)
    failed = execute_job(job("nightly"), instance, client=client)
    assert failed.status is dg.DagsterRunStatus.FAILURE
    again = dg.ReexecutionOptions.from_failure(failed.run_id, instance)
    by_hand = dg.execute_job(job("nightly"), instance, tags=dict(failed.tags), reexecution_options=again)
    assert by_hand.success
    assert seen() == ["extract", "load", "load", "load", "publish"]
    step = client.get_step("load", run=by_hand.run_id)
    assert step is not None
    assert step.counters.attempts == 1


def test_the_counts_of_a_run_survive_a_restart(
    client: reprise.Client,
    instance: dg.DagsterInstance,
    seen: Callable[[], list[str]],
    failures: Callable[[int], None],
    power_cut: Callable[[], None],
) -> None:
    """The process leaves between the attempts, the server loses power, another process goes on.

    It is the last test: for ten seconds after a power cut no lease ends.
    """
    failures(99)
    root = "1f0e5c86-6a55-4c5c-8d5e-0d7e6f1c2a3b"
    with pytest.raises(reprise.RetryLater):
        execute_job(job("nightly"), instance, run_id=root, client=client, policy=RUNS, max_wait=0)
    power_cut()
    failures(0)
    run = execute_job(job("nightly"), instance, run_id=root, client=client, policy=RUNS)
    assert run.is_success
    assert run.root_run_id == root
    assert seen() == ["extract", "load", "load", "load", "publish"]
    told = client.get_run(root)
    assert told is not None
    assert (told.counters.attempts, told.counters.retries) == (2, 1)
    assert told.resume is Resume.FROM_FAILURE
    again = execute_job(job("nightly"), instance, run_id=root, client=client)
    assert again.run_id == run.run_id, "it is done"
