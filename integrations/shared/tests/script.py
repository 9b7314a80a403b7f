"""A plain script with three threads, at work from when the others are ready until they are done."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import reprise
import work

import evidence


@reprise.retry("export", **work.OPTIONS)
def export() -> None:
    work.attempt("script")


def export_until_the_others_are_done(_: int) -> None:
    file = Path(os.environ[evidence.FILE])
    while True:
        export()
        done = Counter(one.name for one in evidence.read(file))
        if all(done[name] == attempts for name, attempts in work.ATTEMPTS_OF_OTHERS.items()):
            return


if __name__ == "__main__":
    evidence.meet(3)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(export_until_the_others_are_done, range(3)))
