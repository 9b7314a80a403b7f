"""What tasks of several processes say themselves of when they ran.

A task says so by `with seen():`; a test reads it back and holds it to a limit. So a limit is
proven by the tasks, not by the service that kept it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

#: Names the file that tasks write to.
FILE = "EVIDENCE_FILE"

#: How long in seconds a process may take. One that needs longer has failed.
PATIENCE = 480.0


@dataclass(frozen=True)
class Seen:
    """One attempt, by the monotonic clock that all processes of a machine share."""

    start: float
    end: float
    #: Who ran it: the process, and what it calls itself.
    process: int
    name: str


@contextmanager
def seen(name: str = "task") -> Iterator[None]:
    """Writes down when its body started and ended."""
    start = time.monotonic()
    try:
        yield
    finally:
        line = f"{start} {time.monotonic()} {os.getpid()} {name}\n"
        # One short append is indivisible, whoever else writes.
        with Path(os.environ[FILE]).open("a") as file:
            file.write(line)


def meet(processes: int = 2) -> None:
    """Returns in each process when so many have called it: what follows they do side by side."""
    file = Path(os.environ[FILE])
    file.with_name(f"{file.name}.ready.{os.getpid()}").touch()
    end = time.monotonic() + PATIENCE
    while len(list(file.parent.glob(f"{file.name}.ready.*"))) < processes:
        assert time.monotonic() < end, "the others never came"
        time.sleep(0.01)


def read(file: Path) -> list[Seen]:
    """What was written down, by start."""
    whole, _, _ = file.read_text().rpartition("\n")  # What follows is being written.
    lines = (line.split(maxsplit=3) for line in whole.splitlines())
    return sorted(
        (Seen(float(start), float(end), int(process), name) for start, end, process, name in lines),
        key=lambda one: one.start,
    )


def most_at_once(attempts: Sequence[Seen]) -> int:
    """How many ran at the same time at most."""
    return max(sum(one.start <= at.start < one.end for one in attempts) for at in attempts)


def rate_excess(starts: Sequence[float], *, per_second: float, burst: int) -> float:
    """Starts beyond `per_second · L + burst` in the worst interval of any length L. At most 0 by the law."""
    ordered = sorted(starts)
    return max(
        (last - first + 1) - (per_second * (ordered[last] - ordered[first]) + burst)
        for first in range(len(ordered))
        for last in range(first, len(ordered))
    )


@dataclass(frozen=True)
class Command:
    """A process to be run: what runs which script, and where that finds its modules."""

    script: Path
    arguments: tuple[str, ...] = ()
    python: str = sys.executable
    path: tuple[str, ...] = tuple(sys.path)


def run_together(commands: Sequence[Command], environment: Mapping[str, str]) -> None:
    """Runs processes at the same time, until all have ended well or one has not."""
    end = time.monotonic() + PATIENCE
    with ExitStack() as stack:
        running = [stack.enter_context(_running(each, environment)) for each in commands]
        while any(each.poll() is None for each in running):
            assert time.monotonic() < end, "they take too long"
            for each in running:
                each.fail_if_failed()
            time.sleep(0.02)
        for each in running:
            each.fail_if_failed()


class _Running:
    """A process, and what it says: to a file, so that nobody has to listen."""

    def __init__(self, process: subprocess.Popen[bytes], said: IO[bytes]) -> None:
        self.poll = process.poll
        self._said = said

    def fail_if_failed(self) -> None:
        """Raises with what the process said when it ended otherwise than well."""
        if self.poll():
            self._said.seek(0)
            raise AssertionError(self._said.read().decode(errors="replace"))


@contextmanager
def _running(command: Command, environment: Mapping[str, str]) -> Iterator[_Running]:
    path = os.pathsep.join(filter(None, command.path))
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [command.python, str(command.script), *command.arguments],
            env={**os.environ, "PYTHONPATH": path, **environment},
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        try:
            yield _Running(process, said)
        finally:
            process.kill()
            process.wait()
