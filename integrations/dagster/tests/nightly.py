"""Jobs whose ops leave a line in the file `EVIDENCE` whenever one of them starts.

The op `load` fails as often as `FAILURES` says; `keep` succeeds, but its output cannot be kept
the first time. Annotations are not postponed: Dagster looks at them.
"""

import os
from pathlib import Path

from reprise import Backoff, Policy
from reprise_dagster import coordinated

import dagster as dg

SOON = Backoff.fixed(0.1, jitter="none")
STEPS = Policy(max_retries=1, backoff=SOON)


def started(op: str) -> int:
    """Says that an op has started; how often it has."""
    file = Path(os.environ["EVIDENCE"])
    with file.open("a") as lines:
        lines.write(f"{op}\n")
    return file.read_text().split().count(op)


@dg.op
@coordinated(policy=STEPS)
def extract() -> int:
    started("extract")
    return 7


@dg.op
@coordinated(policy=STEPS)
def load(orders: int) -> int:
    if started("load") <= int(os.environ["FAILURES"]):
        raise ConnectionResetError("peer")
    return orders


@dg.op
@coordinated(policy=STEPS)
def publish(orders: int) -> None:
    started("publish")
    assert orders == 7


@dg.job(executor_def=dg.in_process_executor)
def nightly() -> None:
    publish(load(extract()))


@dg.job
def spread() -> None:
    """The same in a process of its own for each op."""
    publish(load(extract()))


class Forgetful(dg.IOManager):
    """Keeps nothing the first time."""

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        del context, obj
        if started("kept") == 1:
            raise OSError("no room")

    def load_input(self, context: dg.InputContext) -> object:
        raise NotImplementedError


@dg.op(out=dg.Out(io_manager_key="forgetful"))
@coordinated(policy=STEPS)
def keep() -> int:
    return started("keep")


@dg.job(
    resource_defs={"forgetful": dg.IOManagerDefinition.hardcoded_io_manager(Forgetful())},
    executor_def=dg.in_process_executor,
)
def kept() -> None:
    keep()
