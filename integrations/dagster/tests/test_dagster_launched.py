"""Runs that Dagster launches itself, from a workspace, on an instance that keeps them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import reprise
from dagster._cli.job import _create_run
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget, PythonFileTarget
from reprise import Reason, StepState
from reprise_dagster.launched import POLICY_TAG, LaunchedRuns
from server import binary

import dagster as dg
import evidence

HERE = Path(__file__).parent
NAMESPACE = "launched"
#: Without a queue, which Dagster's daemon would have to take runs from.
INSTANCE = "run_coordinator: { module: dagster.core.run_coordinator, class: DefaultRunCoordinator }"


@pytest.fixture(scope="module")
def evidence_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evidence")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of Dagster's instance."""
    made = tmp_path_factory.mktemp("dagster")
    (made / "dagster.yaml").write_text(INSTANCE)
    return made


@pytest.fixture(scope="module")
def workspace(home: Path, evidence_folder: Path) -> Iterator[WorkspaceProcessContext]:
    """One for all tests: its code server is a process that takes seconds to start."""
    target = PythonFileTarget(str(HERE / "launchable.py"), "nightly", str(HERE), "nightly")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVIDENCE_FOLDER", str(evidence_folder))
        with (
            dg.DagsterInstance.from_config(str(home)) as instance,
            WorkspaceProcessContext(instance, target) as made,
        ):
            yield made


@pytest.fixture(scope="module")
def policies(server: object) -> None:
    command = [binary(), "policy", "apply", HERE / "launched.yaml", "-n", NAMESPACE, "--addr", server.unix]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def client(server: object, policies: None) -> Iterator[reprise.Client]:
    with reprise.Client(server.unix, namespace=NAMESPACE) as made:
        yield made


@pytest.fixture
def launch(workspace: WorkspaceProcessContext) -> Callable[..., dg.DagsterRun]:
    """Launches the job, as a schedule does, until it has ended."""

    def launch(policy: str, failures: int) -> dg.DagsterRun:
        instance, request = workspace.instance, workspace.create_request_context()
        (location,) = request.code_locations
        (repository,) = location.get_repositories().values()
        run = _create_run(
            instance=instance,
            code_location=location,
            remote_repo=repository,
            remote_job=repository.get_full_job("nightly"),
            run_config={},
            tags={POLICY_TAG: policy, "failures": str(failures)},
            op_selection=None,
            run_id=None,
        )
        instance.submit_run(run.run_id, request)
        return ended(instance, run.run_id)

    return launch


@pytest.fixture
def seen(evidence_folder: Path) -> Callable[[dg.DagsterRun], list[str]]:
    """Which ops have started, in order, in a run and its re-executions."""
    return lambda run: (evidence_folder / run.run_id).read_text().split()


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + evidence.PATIENCE
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def ended(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun:
    wait_until(lambda: instance.get_run_by_id(run_id).is_finished)
    return instance.get_run_by_id(run_id)


def state(client: reprise.Client, run: dg.DagsterRun) -> StepState | None:
    told = client.get_run(run.run_id)
    return told and told.state


def retries(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[dg.DagsterRun]:
    _, group = instance.get_run_group(run.run_id)
    return [each for each in group if each.run_id != run.run_id]


def latest(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRun:
    return (retries(instance, run) or [run])[0]


def look_until(workspace: WorkspaceProcessContext, client: reprise.Client, is_so: Callable[[], bool]) -> None:
    """Each look is that of a process that has just started: nothing has to be remembered."""

    def look() -> bool:
        LaunchedRuns(workspace, client).look()
        return is_so()

    wait_until(look)


def said(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[str]:
    """What the log of a run says of decisions."""
    messages = [entry.message for entry in instance.all_logs(run.run_id)]
    return [
        message.partition(":")[2].split()[0].strip(":")
        for message in messages
        if message.startswith("reprise: ")
    ]


def test_a_failed_run_is_launched_again_where_it_failed(
    workspace: WorkspaceProcessContext,
    client: reprise.Client,
    launch: Callable[..., dg.DagsterRun],
    seen: Callable[[dg.DagsterRun], list[str]],
) -> None:
    run = launch("once-more", failures=1)
    assert run.status is dg.DagsterRunStatus.FAILURE
    look_until(workspace, client, lambda: bool(retries(workspace.instance, run)))
    (retry,) = retries(workspace.instance, run)
    retry = ended(workspace.instance, retry.run_id)
    assert retry.is_success
    assert (retry.parent_run_id, retry.root_run_id) == (run.run_id, run.run_id)
    LaunchedRuns(workspace, client).look()
    told = client.get_run(run.run_id)
    assert told is not None
    assert (told.state, told.counters.attempts) == (StepState.SUCCEEDED, 2)
    first = told.message.record.attempts[0]
    assert (first.error_type, first.message) == ("STEP_FAILURE", "load: ConnectionResetError: peer")
    assert seen(run) == ["extract", "load", "load"]
    assert said(workspace.instance, run) == ["RETRY"]
    assert said(workspace.instance, retry) == ["DONE"]


def test_the_process_launches_every_op_again_where_the_policy_says_so(
    workspace: WorkspaceProcessContext,
    client: reprise.Client,
    launch: Callable[..., dg.DagsterRun],
    seen: Callable[[dg.DagsterRun], list[str]],
    home: Path,
    evidence_folder: Path,
    server: object,
) -> None:
    run = launch("all-anew", failures=9)
    code = {"relative_path": str(HERE / "launchable.py"), "attribute": "nightly", "location_name": "nightly"}
    (home / "workspace.yaml").write_text(json.dumps({"load_from": [{"python_file": code}]}))
    command = [sys.executable, "-m", "reprise_dagster.launched", "-w", str(home / "workspace.yaml")]
    environment = {
        "DAGSTER_HOME": str(home),
        "EVIDENCE_FOLDER": str(evidence_folder),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "REPRISE_ADDR": server.unix,
        "REPRISE_NAMESPACE": NAMESPACE,
    }
    with subprocess.Popen([*command, "--every", "0.5"], env={**os.environ, **environment}) as process:
        try:
            wait_until(lambda: "reprise/run_retry" in latest(workspace.instance, run).tags)
        finally:
            process.terminate()
    (retry,) = retries(workspace.instance, run)
    assert retry.tags["reprise/run_retry"] == f"FAILED of {retry.run_id}"
    assert seen(run) == ["extract", "load", "extract", "load"]
    assert said(workspace.instance, run) == ["RETRY"]
    assert said(workspace.instance, retry) == ["STOP"]
    LaunchedRuns(workspace, client).look()
    told = client.get_run(run.run_id)
    assert told is not None
    assert told.counters.attempts == 2


def test_a_run_that_is_not_to_be_retried_is_not(
    workspace: WorkspaceProcessContext, client: reprise.Client, launch: Callable[..., dg.DagsterRun]
) -> None:
    run = launch("never", failures=9)
    for _ in range(2):
        LaunchedRuns(workspace, client).look()
    assert retries(workspace.instance, run) == []
    assert said(workspace.instance, run) == ["STOP"]
    told = client.get_run(run.run_id)
    assert told is not None
    assert told.counters.attempts == 1


def test_a_retry_is_not_launched_before_its_instant_and_not_after_it_was_cancelled(
    workspace: WorkspaceProcessContext,
    client: reprise.Client,
    launch: Callable[..., dg.DagsterRun],
    server: object,
) -> None:
    run = launch("patient", failures=9)
    runs = LaunchedRuns(workspace, client)
    runs.look()
    runs.look()
    assert said(workspace.instance, run) == ["RETRY"]
    cancel = [binary(), "run", "cancel", run.run_id, "--reason", "test", "-n", NAMESPACE]
    subprocess.run([*cancel, "--addr", server.unix], check=True, capture_output=True)
    runs.look()
    assert retries(workspace.instance, run) == []
    tags = workspace.instance.get_run_by_id(run.run_id).tags
    assert tags["reprise/run_retry"] == f"CANCELED of {run.run_id}"


def test_a_retry_that_cannot_be_launched_is_a_failed_attempt(
    workspace: WorkspaceProcessContext, client: reprise.Client, launch: Callable[..., dg.DagsterRun]
) -> None:
    """Its code is gone: nothing can be launched."""
    run = launch("once-more", failures=9)
    with WorkspaceProcessContext(workspace.instance, EmptyWorkspaceTarget()) as nowhere:
        look_until(nowhere, client, lambda: state(client, run) is StepState.FAILED)
    assert said(workspace.instance, run) == ["RETRY", "STOP"]
    told = client.get_run(run.run_id)
    assert told is not None
    assert told.decision is not None
    assert told.decision.reason is Reason.RETRIES_SPENT
    assert told.message.record.attempts[1].message.startswith("DagsterCodeLocationNotFoundError")


def test_what_is_wrong_with_one_run_stops_no_other(
    workspace: WorkspaceProcessContext,
    client: reprise.Client,
    launch: Callable[..., dg.DagsterRun],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dagster's storage cannot read the log of the one that is dealt with first."""
    run, broken = launch("never", failures=9), launch("never", failures=9)
    read = dg.DagsterInstance.all_logs

    def all_logs(self: dg.DagsterInstance, run_id: str, **options: object) -> object:
        if run_id == broken.run_id:
            raise OSError("unreadable")
        return read(self, run_id, **options)

    monkeypatch.setattr(dg.DagsterInstance, "all_logs", all_logs)
    for _ in range(2):
        LaunchedRuns(workspace, client).look()
    assert state(client, run) is StepState.FAILED
    assert state(client, broken) is None
    monkeypatch.undo()
    LaunchedRuns(workspace, client).look()
    assert state(client, broken) is StepState.FAILED


def test_a_run_that_succeeds_is_left_alone(
    workspace: WorkspaceProcessContext, client: reprise.Client, launch: Callable[..., dg.DagsterRun]
) -> None:
    """The service need not hear of a run that succeeds and was never retried."""
    run = launch("once-more", failures=0)
    LaunchedRuns(workspace, client).look()
    assert client.get_run(run.run_id) is None
