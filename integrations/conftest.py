"""A real server, and the client from this repository."""

from __future__ import annotations

import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CLIENT = HERE.parent / "clients/python"
sys.path[:0] = [str(HERE), str(CLIENT / "src"), str(CLIENT / "tests")]


@pytest.fixture(scope="session")
def server() -> Iterator[object]:
    """A server that lives as long as the session."""
    from server import Server

    with tempfile.TemporaryDirectory() as folder:
        started = Server(Path(folder))
        started.start()
        yield started
        started.stop()


@pytest.fixture
def client(server: object) -> Iterator[object]:
    """A client of it."""
    from reprise import Client

    with Client(server.unix) as made:
        yield made


@pytest.fixture
def run() -> str:
    """A run that nothing else has used."""
    return f"run-{uuid.uuid4()}"


@pytest.fixture
def power_cut(server: object) -> Callable[[], None]:
    """Ends the server as a power cut would, and starts it on what it kept."""

    def cut() -> None:
        server.kill()
        server.start()

    return cut


@pytest.fixture
def two_processes(server: object, tmp_path: Path) -> Callable[..., list[object]]:
    """Runs a script in two processes of the system at once; what its tasks saw, in order.

    `processes` is how many the tasks ran in, where each has one of its own.
    """
    import evidence

    def together(script: Path, *arguments: str, processes: int = 2) -> list[object]:
        file = tmp_path / "evidence"
        here = {"REPRISE_ADDR": server.unix, evidence.FILE: str(file)}
        evidence.run_together([evidence.Command(script, arguments)] * 2, here)
        attempts = evidence.read(file)
        assert len({one.process for one in attempts}) == processes
        return attempts

    return together
