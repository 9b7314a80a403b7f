"""The script of a step, run as Octopus's Calamari runs it, against a real server.

Octopus Deploy itself is closed source: its variables and its bootstrap are emulated.
"""

from __future__ import annotations

import subprocess
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import deployment
import pytest
import reprise
from deployment import PROCESS, Deployment, package
from reprise import StepState
from server import binary

import evidence

#: Where the imported policies are, so that those of the other tests stay.
NAMESPACE = "octopus"

#: A program that counts its runs, and fails as often as it is told to.
COUNTING = """
import sys, pathlib, time
runs = pathlib.Path("runs")
with runs.open("a") as file:
    file.write(f"{time.monotonic()}\\n")
sys.exit(3 if len(runs.read_text().split()) <= FAILURES else 0)
"""

#: One that writes down where it begins.
RESUMING = """
import os, pathlib
pathlib.Path("began").write_text(os.environ["REPRISE_RESUME_FROM"])
"""


def reprise_command(*arguments: str) -> str:
    return subprocess.run([binary(), *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="session")
def _imported(server: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The retries of the example's process, as policies."""
    imported = reprise_command("policy", "import", "--from", "octopus", str(PROCESS))
    policies = tmp_path_factory.mktemp("policies") / "policies.yaml"
    policies.write_text(f"namespaces:\n  {NAMESPACE}:\n{textwrap.indent(imported, '    ')}")
    reprise_command("namespace", "create", NAMESPACE, "--addr", server.unix)
    reprise_command("policy", "apply", str(policies), "--addr", server.unix)


@pytest.fixture
def octopus(server: object, _imported: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """A deployment of the example."""
    for name, value in deployment.environment(server.unix, binary(), tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("REPRISE_NAMESPACE", NAMESPACE)
    return Deployment(tmp_path, f"Deployments-{uuid.uuid4()}")


@pytest.fixture
def client(server: object) -> Iterator[reprise.Client]:
    with reprise.Client(server.unix, namespace=NAMESPACE) as made:
        yield made


def counting(failures: int) -> str:
    return COUNTING.replace("FAILURES", str(failures))


def runs(octopus: Deployment) -> list[float]:
    return [float(line) for line in (octopus.folder / "runs").read_text().split()]


def step_of(client: reprise.Client, octopus: Deployment, action: str) -> reprise.Step:
    found = client.get_step(f"{action}/{octopus.machine}", run=octopus.id)
    assert found is not None
    return found


def test_an_action_is_retried_as_its_imported_policy_decides(
    client: reprise.Client, octopus: Deployment
) -> None:
    """The first retry at once, then one a second."""
    package(octopus.folder, "migrate", counting(2))
    assert octopus.run("Migrate database") == 0
    first, second, third = runs(octopus)
    assert second - first < 0.9
    assert third - second >= 0.95
    step = step_of(client, octopus, "Migrate-database")
    assert (step.state, step.counters.attempts) == (StepState.SUCCEEDED, 3)
    assert step.decision is not None
    assert step.message.policy.name == "Migrate-database"


def test_a_stop_fails_the_action_with_its_own_exit_code(client: reprise.Client, octopus: Deployment) -> None:
    package(octopus.folder, "publish", counting(9))
    assert octopus.run("Publish") == 3
    assert len(runs(octopus)) == 2
    assert step_of(client, octopus, "Publish").state is StepState.FAILED


def test_a_deployment_that_is_run_again_does_not_repeat_what_succeeded(octopus: Deployment) -> None:
    package(octopus.folder, "migrate", counting(0))
    assert octopus.run("Migrate database") == 0
    assert octopus.run("Migrate database") == 0
    assert len(runs(octopus)) == 1


def test_an_attempt_resumes_from_the_action_that_failed(client: reprise.Client, octopus: Deployment) -> None:
    """Whoever had the attempt before has said which."""
    named = {"run": octopus.id, "policy": "Migrate-database"}
    begun = client.begin("Migrate-database/web-01", **named)
    assert begun.grant is not None
    failed = reprise.Failure(reprise.FailureClass.FAILURE, action="indexes")
    client.report("Migrate-database/web-01", run=octopus.id, fence=begun.grant.fence, failure=failed)
    package(octopus.folder, "migrate", RESUMING)
    assert octopus.run("Migrate database") == 0
    assert (octopus.folder / "began").read_text() == "indexes"


def test_machines_count_by_themselves(client: reprise.Client, octopus: Deployment) -> None:
    package(octopus.folder, "publish", counting(1))
    other = Deployment(octopus.folder, octopus.id, machine="web 02")
    assert octopus.run("Publish") == 0
    assert other.run("Publish") == 0
    assert step_of(client, octopus, "Publish").counters.attempts == 2
    found = client.get_step("Publish/web-02", run=octopus.id)
    assert found is not None
    assert found.counters.attempts == 1


def test_variables_of_the_project_come_first(client: reprise.Client, octopus: Deployment) -> None:
    variables = {
        "Reprise.Run": "orders/1.2.3/production",
        "Reprise.Policy": "Migrate-database",
        "Reprise.Targets": "warehouse-db search",
    }
    package(octopus.folder, "publish", counting(0))
    named = Deployment(octopus.folder, octopus.id, variables=variables)
    assert named.run("Publish") == 0
    step = client.get_step("Publish/web-01", run="orders/1.2.3/production")
    assert step is not None
    assert step.message.policy.name == "Migrate-database"
    assert list(step.message.targets) == ["warehouse-db", "search"]


def test_limits_hold_across_deployments(
    octopus: Deployment,
    two_processes: Callable[..., list[evidence.Seen]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Its policies and targets are those of the other namespace.
    monkeypatch.delenv("REPRISE_NAMESPACE")
    script = Path(__file__).with_name("narrow.py")
    attempts = two_processes(script, str(octopus.folder), processes=6)
    assert len(attempts) == 6
    assert evidence.most_at_once(attempts) == 1


def test_counts_survive_a_restart(
    client: reprise.Client, octopus: Deployment, power_cut: Callable[[], None]
) -> None:
    """The server ends between two runs of the program, and the script goes on."""
    package(octopus.folder, "migrate", counting(9))
    running = octopus.start("Migrate database")
    while not (octopus.folder / "runs").exists() or len(runs(octopus)) < 2:
        assert running.poll() is None
        time.sleep(0.01)
    power_cut()
    assert running.wait(60) == 3
    assert len(runs(octopus)) == 4
    assert step_of(client, octopus, "Migrate-database").counters.attempts == 4
