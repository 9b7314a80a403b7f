"""What every task of the test does, whoever runs it."""

from __future__ import annotations

import os
import time
from typing import Final

import reprise
from reprise.job import RunlessOptions

import evidence

#: What a task says of itself. It waits for a service that is away: alone it would know no limit.
OPTIONS: Final[RunlessOptions] = {"policy": "quick", "targets": ["warehouse-db"], "offline": "wait"}

#: Tasks of the systems, each of which is attempted twice; the script has as many as it takes.
DAGSTER_OPS = 4
ZENML_STEPS = 4
ATTEMPTS_OF_OTHERS: Final = {"dagster": DAGSTER_OPS * 2, "zenml": ZENML_STEPS * 2}

#: How long an attempt takes, in seconds.
TAKES = 0.4


def attempt(name: str) -> None:
    """One attempt. The first one of a task fails, so that there are retries to be limited, too."""
    with evidence.seen(name):
        time.sleep(TAKES)
    running = reprise.current_attempt()
    assert running is not None
    assert not running.local, os.getpid()
    if running.number == 1:
        raise ConnectionResetError
