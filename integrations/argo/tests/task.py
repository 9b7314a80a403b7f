"""What a pod does: counts itself, and fails as often as it is told to.

task.py FOLDER FAILURES
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import evidence

folder, failures = Path(sys.argv[1]), int(sys.argv[2])
with evidence.seen():
    attempts = folder / "attempts"
    with attempts.open("a") as file:
        file.write("started\n")
    time.sleep(0.1)
if len(attempts.read_text().split()) <= failures:
    sys.exit(3)
