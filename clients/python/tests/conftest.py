"""A real server, started for the tests that need one."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from server import Server

from reprise.testing import FakeService


@pytest.fixture(scope="session")
def shared_server() -> Iterator[Server]:
    """A server that lives as long as the session: tests keep apart by their runs."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        server.start()
        yield server
        server.stop()


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server of one test, not yet started."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        yield server
        server.stop()


@pytest.fixture(params=["tcp", "unix"])
def address(request: pytest.FixtureRequest, shared_server: Server) -> str:
    """Both ways to one server."""
    return shared_server.tcp if request.param == "tcp" else shared_server.unix


@pytest.fixture
def run() -> str:
    """A run that nothing else has used."""
    return f"run-{uuid.uuid4()}"


@pytest.fixture
def fake() -> FakeService:
    """A service in virtual time."""
    return FakeService()
