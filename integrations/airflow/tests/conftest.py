"""Airflow with a place and a database of its own, made before it is imported."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

DAGS = Path(__file__).parent / "dags"
HOME = tempfile.TemporaryDirectory()
os.environ.update(
    AIRFLOW_HOME=HOME.name,
    AIRFLOW__CORE__DAGS_FOLDER=str(DAGS),
    # Where the tasks of the stories count their tries.
    STORIES_FOLDER=HOME.name,
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__UNIT_TEST_MODE="False",
    AIRFLOW__LOGGING__LOGGING_LEVEL="ERROR",
)
sys.path.append(str(DAGS))
subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True)
