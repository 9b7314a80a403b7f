"""A Dagster job whose ops run one after another, when the others are ready."""

import work
from reprise_dagster import coordinated

import dagster as dg
import evidence


@dg.op(out=dg.Out(dg.Nothing))
def ready() -> None:
    evidence.meet(3)


@dg.op(ins={"begun": dg.In(dg.Nothing)})
# Waits in the op, which hears of its turn at once; come back for, it would often be too late.
@coordinated(max_wait=60, **work.OPTIONS)
def load() -> None:
    work.attempt("dagster")


@dg.job
def nightly() -> None:
    begun = ready()
    for part in range(work.DAGSTER_OPS):
        load.alias(f"load_{part}")(begun)


if __name__ == "__main__":
    assert nightly.execute_in_process().success
