"""A code location with a job that a workspace launches.

Its ops leave a line in a file whenever one of them starts. The op `load` fails as often as the run's
tag `failures` says. Annotations are not postponed: Dagster looks at them.
"""

import os
from pathlib import Path

import dagster as dg


def started(context: dg.OpExecutionContext) -> int:
    """Says that an op has started; how often it has, in all runs of one group."""
    root = context.run.root_run_id or context.run.run_id
    file = Path(os.environ["EVIDENCE_FOLDER"], root)
    with file.open("a") as lines:
        lines.write(f"{context.op.name}\n")
    return file.read_text().split().count(context.op.name)


@dg.op
def extract(context: dg.OpExecutionContext) -> int:
    started(context)
    return 7


@dg.op
def load(context: dg.OpExecutionContext, orders: int) -> int:
    if started(context) <= int(context.run.tags["failures"]):
        raise ConnectionResetError("peer")
    return orders


@dg.job(executor_def=dg.in_process_executor)
def nightly() -> None:
    load(extract())
