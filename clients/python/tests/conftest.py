"""A real server, started for the tests that need one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from reprise.testing import FakeService

ROOT = Path(__file__).resolve().parents[3]

#: How long in seconds a server has to take connections. One that needs longer has failed.
PATIENCE = 30.0


def binary() -> Path:
    """The server under test."""
    return Path(os.environ.get("REPRISE_BINARY") or ROOT / "target/debug/reprise").resolve()


class Server:
    """One server with a place of its own, over TCP and a Unix socket."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = int(probe.getsockname()[1])
        self.tcp = f"127.0.0.1:{self.port}"
        self.path = folder / "reprise.sock"
        self.unix = f"unix:{self.path}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it takes connections. What it kept it has again."""
        addresses = ["--listen", self.tcp, "--listen", self.unix, "--metrics", "none"]
        command = [str(binary()), "serve", *addresses, "--data", str(self._folder / "data")]
        policies = ["--policies", str(Path(__file__).parent / "policies.yaml")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen([*command, *policies], stdout=log, stderr=log)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            assert self._process.poll() is None, (self._folder / "log").read_text()
            if self._connects():
                return
            time.sleep(0.02)
        raise AssertionError("the server took no connections")

    def _connects(self) -> bool:
        with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
            return tcp.connect_ex(("127.0.0.1", self.port)) == 0 and unix.connect_ex(str(self.path)) == 0

    def kill(self) -> None:
        """Ends it as a power cut would."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """Ends it, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(PATIENCE)


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
