"""Argo's controller, with a template whose pods need the same narrow pool as everybody's.

narrow.py FOLDER     FOLDER is where its tasks count themselves
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import controller
from hera.workflows import Container
from reprise_argo import coordinated

import evidence

TASK = str(Path(__file__).with_name("task.py"))

folder = sys.argv[1]
command = [sys.executable, TASK, folder, "0"]
template = Container(
    name="load", image="loader", **coordinated(command, step="load", policy="quick", targets=["narrow-pool"])
)
evidence.meet()
for part in ("one", "two", "three"):
    assert controller.run_template(template, {"workflow.uid": f"narrow-{os.getpid()}-{part}"}) == [0]
