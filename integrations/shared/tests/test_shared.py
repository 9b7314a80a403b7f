"""A Dagster job, a ZenML pipeline and a plain script share the limits of one target.

Each runs in a process and an environment of its own; what they have in common is the service.
"""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import work
from server import binary

import evidence
from evidence import Command

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]

#: The limits.
AT_ONCE = 2
STARTS_PER_SECOND = 4.0
BURST = 2


def command(script: str, system: str = "") -> Command:
    """A process of a system, in its environment."""
    paths = [HERE, ROOT / "integrations", ROOT / "clients/python/src"]
    if not system:
        return Command(HERE / script, path=tuple(map(str, paths)))
    python = ROOT / f".tools/integration-{system}/bin/python"
    paths.append(ROOT / f"integrations/{system}/src")
    return Command(HERE / script, python=str(python), path=tuple(map(str, paths)))


@pytest.fixture
def environment(server: object, tmp_path: Path) -> dict[str, str]:
    """Where the service is; and a place for each system."""
    limits = [f"--concurrency={AT_ONCE}", f"--rate={STARTS_PER_SECOND:.0f}/1s", f"--burst={BURST}"]
    create = [binary(), "target", "create", "warehouse-db", *limits, "--addr", server.unix]
    subprocess.run(create, check=True, capture_output=True)
    return {
        "REPRISE_ADDR": server.unix,
        evidence.FILE: str(tmp_path / "evidence"),
        "DAGSTER_HOME": "",
        "ZENML_CONFIG_PATH": str(tmp_path / "zenml"),
        "ZENML_ANALYTICS_OPT_IN": "false",
        "ZENML_LOGGING_VERBOSITY": "ERROR",
    }


def test_three_systems_share_one_target(environment: dict[str, str], power_cut: Callable[[], None]) -> None:
    file = Path(environment[evidence.FILE])
    commands = [
        command("script.py"),
        command("dagster_job.py", "dagster"),
        command("zenml_pipeline.py", "zenml"),
    ]
    with ThreadPoolExecutor(1) as pool:
        cutting = pool.submit(cut_halfway, file, power_cut)
        evidence.run_together(commands, environment)
        cutting.result()

    attempts = evidence.read(file)
    assert work.ATTEMPTS_OF_OTHERS.items() <= Counter(one.name for one in attempts).items()
    assert {("dagster", "script"), ("script", "zenml")} <= side_by_side(attempts)
    assert evidence.most_at_once(attempts) == AT_ONCE
    starts = [one.start for one in attempts]
    assert evidence.rate_excess(starts, per_second=STARTS_PER_SECOND, burst=BURST) <= 0


def cut_halfway(file: Path, power_cut: Callable[[], None]) -> None:
    """Ends the server as a power cut would, and starts it again, while all three are at work."""
    end = time.monotonic() + evidence.PATIENCE
    while len({one.name for one in evidence.read(file)} if file.exists() else ()) < 3:
        assert time.monotonic() < end, "they were never at work together"
        time.sleep(0.05)
    power_cut()


def side_by_side(attempts: list[evidence.Seen]) -> set[tuple[str, str]]:
    """Which systems had attempts that ran at the same time."""
    return {
        (min(one.name, other.name), max(one.name, other.name))
        for one in attempts
        for other in attempts
        if one.start < other.end and other.start < one.end
    }
