"""A job with three ops that need the same narrow pool."""

import time

from reprise_dagster import coordinated

import dagster as dg
import evidence


@dg.op
@coordinated(policy="quick", targets=["narrow-pool"])
def load() -> None:
    with evidence.seen():
        time.sleep(0.2)


@dg.job
def narrow() -> None:
    for part in ("one", "two", "three"):
        load.alias(part)()


evidence.meet()
assert narrow.execute_in_process().success
