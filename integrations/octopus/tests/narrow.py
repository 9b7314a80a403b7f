"""Three deployments, one after another, of an action that needs the same narrow pool as everybody's.

narrow.py FOLDER
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from deployment import Deployment, package

import evidence

folder = Path(sys.argv[1]) / str(os.getpid())
folder.mkdir()
package(folder, "publish", "import evidence, time\nwith evidence.seen():\n    time.sleep(0.2)\n")
variables = {"Reprise.Policy": "quick", "Reprise.Targets": "narrow-pool"}
evidence.meet()
for part in ("one", "two", "three"):
    assert Deployment(folder, f"narrow-{os.getpid()}-{part}", variables=variables).run("Publish") == 0
