"""A real server, and the client from this repository."""

from __future__ import annotations

import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

CLIENT = Path(__file__).resolve().parent.parent / "clients/python"
sys.path[:0] = [str(CLIENT / "src"), str(CLIENT / "tests")]


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
