"""A worker with three tasks that need the same narrow pool, its broker in memory."""

from __future__ import annotations

import time

from celery.contrib.testing.worker import start_worker
from reprise_celery import CoordinatedTask

import celery
import evidence

app = celery.Celery("narrow", broker="memory://", backend="cache+memory://")
app.conf.broker_transport_options = {"polling_interval": 0.05}  # A second without it.


@app.task(base=CoordinatedTask, reprise={"policy": "quick", "targets": ["narrow-pool"]})
def load() -> None:
    with evidence.seen():
        time.sleep(0.2)


evidence.meet()
with start_worker(app, perform_ping_check=False, pool="solo"):
    for result in [load.delay() for _ in range(3)]:
        result.get(timeout=60)
