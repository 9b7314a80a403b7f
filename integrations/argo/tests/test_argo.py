"""Manifests as Argo's schema has them, and their commands, run with a real server as its controller does."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nightly
import pytest
import reprise
import yaml
from argo_workflows.configuration import Configuration
from argo_workflows.model.io_argoproj_workflow_v1alpha1_workflow import IoArgoprojWorkflowV1alpha1Workflow
from argo_workflows.model_utils import validate_and_convert_types
from controller import UNKNOWN, again, pod, run_template
from hera.workflows import Container
from reprise import StepState
from reprise_argo import coordinated, retry_strategy
from server import binary

import evidence

TASK = str(Path(__file__).with_name("task.py"))
EXAMPLE = Path(nightly.__file__).with_suffix(".yaml")


@pytest.fixture(autouse=True)
def _pod(server: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a pod finds: the binary, and where the service is."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/reprise").symlink_to(binary())
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("REPRISE_ADDR", server.unix)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    monkeypatch.setenv(evidence.FILE, str(tmp_path / "evidence"))


@pytest.fixture
def variables() -> dict[str, str]:
    """Argo's, for a workflow that nobody else has."""
    return {"workflow.uid": str(uuid.uuid4())}


def template(*command: str, **options: Any) -> Container:
    return Container(name="load", image="loader", **coordinated(command, step="load", **options))


def unknown_fields(model: Any, path: str = "") -> list[str]:
    """Fields that the schema has not: Argo would drop them without a word."""
    found = []
    for name, value in model._data_store.items():
        if name not in model.openapi_types:
            found.append(f"{path}.{name}")
        for part in value if isinstance(value, list) else [value]:
            if hasattr(part, "_data_store"):
                found += unknown_fields(part, f"{path}.{name}")
    return found


def read_as_argo(manifest: Any) -> Any:
    """The manifest in the types that are made from Argo's schema; one that does not fit raises."""
    types = (IoArgoprojWorkflowV1alpha1Workflow,)
    converted = copy.deepcopy(manifest)  # It is converted in place.
    return validate_and_convert_types(converted, types, ["manifest"], True, True, Configuration())


def test_the_example_fits_the_schema() -> None:
    workflow = read_as_argo(yaml.safe_load(EXAMPLE.read_text()))
    assert unknown_fields(workflow) == []
    assert {each.name for each in workflow.spec.templates if "retry_strategy" in each} == {"load", "publish"}


def test_the_schema_finds_what_does_not_fit() -> None:
    manifest = nightly.nightly().to_dict()
    manifest["spec"]["templates"][0]["retryStrategy"]["expresion"] = "true"
    assert unknown_fields(read_as_argo(manifest)) == [".spec.templates.retry_strategy.expresion"]
    manifest["spec"]["templates"][0]["retryStrategy"]["limit"] = ["3"]
    with pytest.raises(TypeError):
        read_as_argo(manifest)


def test_the_example_is_what_its_program_writes() -> None:
    assert EXAMPLE.read_text() == nightly.nightly().to_yaml()


def test_argo_s_language_has_the_expression() -> None:
    """The importer reads that language, and refuses what Argo would end a node for."""
    command = [str(binary()), "policy", "import", "--from", "argo", str(EXAMPLE)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "failure.exit_code in [75, -1, 137, 143]" in said


@pytest.mark.parametrize(
    ("exit_code", "asked_again"),
    [
        (75, True),
        (78, False),
        (UNKNOWN, True),
        (137, True),
        (143, True),
        (1, False),
        (2, False),
        (127, False),
    ],
)
def test_who_is_asked_again(exit_code: int, asked_again: bool) -> None:
    assert again(retry_strategy(), exit_code, 0) is asked_again


def test_a_template_is_retried_as_decided(
    client: reprise.Client, variables: dict[str, str], tmp_path: Path
) -> None:
    flaky = template(sys.executable, TASK, str(tmp_path), "2", policy="quick")
    assert run_template(flaky, variables) == [75, 75, 0]
    step = client.get_step("load", run=variables["workflow.uid"])
    assert (step.state, step.counters.attempts) == (StepState.SUCCEEDED, 3)


def test_a_wait_is_sat_out_in_the_next_pod(variables: dict[str, str], tmp_path: Path) -> None:
    inline = ["--max-retries", "1", "--backoff", "fixed", "--delay", "1s", "--jitter", "none"]
    flaky = template(sys.executable, TASK, str(tmp_path), "1", options=inline)
    assert run_template(flaky, variables) == [75, 0]
    first, second = evidence.read(tmp_path / "evidence")
    assert second.start - first.end >= 0.95


def test_a_stop_ends_the_template(variables: dict[str, str], tmp_path: Path) -> None:
    broken = template(sys.executable, TASK, str(tmp_path), "9", policy="quick")
    assert run_template(broken, variables) == [75, 75, 75, 78]
    assert run_template(broken, variables) == [78]
    assert len(evidence.read(tmp_path / "evidence")) == 4


def test_a_pod_that_is_killed_is_a_crash(
    client: reprise.Client, variables: dict[str, str], tmp_path: Path
) -> None:
    """Argo knows no exit code then, and the next pod is answered when the lease has ended."""
    sleeper = template(
        "sh", "-c", "touch $0/started; exec sleep 60", str(tmp_path), options=["--lease", "1s"]
    )
    with subprocess.Popen(pod(sleeper, variables), start_new_session=True) as first:
        while not (tmp_path / "started").exists():
            time.sleep(0.01)
        os.killpg(first.pid, signal.SIGKILL)
    assert again(sleeper.retry_strategy, UNKNOWN, 0)
    assert run_template(template("true"), variables) == [0]
    step = client.get_step("load", run=variables["workflow.uid"])
    assert (step.counters.attempts, step.counters.crashes) == (2, 1)


def test_limits_hold_across_controllers(
    two_processes: Callable[..., list[evidence.Seen]], tmp_path: Path
) -> None:
    attempts = two_processes(Path(__file__).with_name("narrow.py"), str(tmp_path), processes=6)
    assert len(attempts) == 6
    assert evidence.most_at_once(attempts) == 1


def test_counts_survive_a_restart(
    client: reprise.Client, variables: dict[str, str], tmp_path: Path, power_cut: Callable[[], None]
) -> None:
    broken = template(sys.executable, TASK, str(tmp_path), "9", policy="quick")
    codes = []
    while codes[-1:] != [78]:
        ended = subprocess.run(pod(broken, variables), capture_output=True, check=False)
        codes.append(ended.returncode)
        power_cut()
    assert codes == [75, 75, 75, 78]
    step = client.get_step("load", run=variables["workflow.uid"])
    assert (step.state, step.counters.attempts) == (StepState.FAILED, 4)
