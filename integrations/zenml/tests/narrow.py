"""A pipeline whose three steps need the same narrow pool, one after another."""

import time

from reprise_zenml import coordinated

import evidence
from zenml import pipeline, step


@step
@coordinated(policy="quick", targets=["narrow-pool"])
def load() -> None:
    with evidence.seen():
        time.sleep(0.2)


@pipeline(enable_cache=False)
def narrow() -> None:
    before: list[str] = []
    for part in ("one", "two", "three"):
        load(after=before, id=part)
        before = [part]


if __name__ == "__main__":
    evidence.meet()
    narrow()
