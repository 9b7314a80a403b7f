"""Three runs of a DAG whose task fails twice, in an Airflow of its own.

narrow.py HOME     HOME is one that is ready: it is copied
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import evidence

with tempfile.TemporaryDirectory() as folder:
    home = Path(folder, "airflow")
    shutil.copytree(sys.argv[1], home)
    os.environ["AIRFLOW_HOME"] = str(home)
    os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{home}/airflow.db"
    import stories

    evidence.meet()
    assert str(stories.narrow_dag.test().state) == "success"
