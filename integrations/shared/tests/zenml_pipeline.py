"""A ZenML pipeline whose steps run one after another, when the others are ready."""

import work
from reprise_zenml import coordinated

import evidence
from zenml import pipeline, step


@step
@coordinated(**work.OPTIONS)
def train() -> None:
    work.attempt("zenml")


@step
def ready() -> None:
    evidence.meet(3)


@pipeline(enable_cache=False)
def training() -> None:
    ready()
    before = ["ready"]
    for part in range(work.ZENML_STEPS):
        train(after=before, id=f"train-{part}")
        before = [f"train-{part}"]


if __name__ == "__main__":
    training()
