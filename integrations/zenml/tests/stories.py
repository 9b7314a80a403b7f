"""Steps and pipelines of the tests. They are in a module of their own since ZenML finds steps by it.

Annotations are not postponed here: ZenML looks at those of steps.
"""

from collections.abc import Callable

from reprise import Backoff, Policy
from reprise_zenml import coordinated
from zenml.config.retry_config import StepRetryConfig

from zenml import pipeline, step

QUICK = Policy(max_retries=2, backoff=Backoff.fixed(0.3, jitter="none"))


class Body:
    """What a step does: a test says it."""

    does: Callable[[], object] = staticmethod(lambda: None)


@step
@coordinated(policy=QUICK)
def load() -> str:
    Body.does()
    return "done"


@pipeline(enable_cache=False)
def loading() -> None:
    load()


@step(retry=StepRetryConfig(max_retries=2, delay=0, backoff=1))
@coordinated(policy=QUICK)
def load_again() -> None:
    Body.does()


@pipeline(enable_cache=False)
def loading_again() -> None:
    load_again()


@step
@coordinated(policy=QUICK)
def add(order: int) -> int:
    return order + 1


@step
@coordinated(policy=QUICK)
def double(added: int) -> int:
    return added * 2


@pipeline(enable_cache=False)
def counting() -> None:
    double(add(6))
