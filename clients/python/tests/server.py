"""A real server of a test: started, killed, restarted."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

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
