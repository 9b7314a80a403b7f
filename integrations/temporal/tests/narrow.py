"""A worker with four activities that need the same narrow pool; two of it run at once."""

from __future__ import annotations

import asyncio

import worker
from reprise_temporal import Coordination, coordinated
from temporalio import activity

import evidence


@activity.defn
@coordinated(targets=["narrow-pool"])
async def load() -> None:
    with evidence.seen():
        await asyncio.sleep(0.1)


async def main() -> None:
    coordination = Coordination(policy="quick")
    await asyncio.gather(*(worker.run_activity(coordination, worker.Scheduled(load)) for _ in range(4)))


evidence.meet()
asyncio.run(main())
