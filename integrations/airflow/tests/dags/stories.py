"""DAGs of the tests. They are in a file of their own since Airflow reads DAGs from files."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, get_current_context
from airflow.sdk.exceptions import AirflowFailException
from reprise_airflow import coordinated

import evidence


def flaky() -> None:
    starts = Path(os.environ["STORIES_FOLDER"]) / "starts"
    with starts.open("a") as file:
        file.write("started\n")
    if len(starts.read_text().split()) < 3:
        raise ConnectionResetError


def seen() -> None:
    """Fails twice, and writes down when it ran as whose try."""
    context = get_current_context()
    ti = context["ti"]
    with evidence.seen(f"{ti.dag_id}/{ti.run_id} {ti.task_id}"):
        if ti.try_number < 3:
            raise ConnectionResetError


def cut_off() -> None:
    """What happens while a task runs: a test says it."""


def interrupted() -> None:
    if get_current_context()["ti"].try_number == 2:
        cut_off()
    raise ConnectionResetError


def over() -> None:
    raise AirflowFailException("never")


def broken() -> None:
    raise ValueError("bad input")


with DAG("flaky", schedule=None) as flaky_dag:
    PythonOperator(task_id="load", python_callable=flaky, **coordinated("quick"))

# For an operator that nobody wrapped: a shell command.
with DAG("broken", schedule=None) as broken_dag:
    BashOperator(task_id="load", bash_command="exit 3", **coordinated("once"))

# At a target that takes one start a second.
with DAG("narrow", schedule=None) as narrow_dag:
    for part in ("one", "two"):
        PythonOperator(task_id=part, python_callable=seen, **coordinated("quick", targets=("narrow-rate",)))

with DAG("interrupted", schedule=None) as interrupted_dag:
    PythonOperator(task_id="load", python_callable=interrupted, **coordinated("quick"))

with DAG("over", schedule=None) as over_dag:
    PythonOperator(task_id="load", python_callable=over, **coordinated("quick"))

with DAG("alone", schedule=None) as alone_dag:
    alone = {"retries": 1, "retry_delay": dt.timedelta(seconds=0.1)}
    PythonOperator(
        task_id="load", python_callable=broken, **{**coordinated("quick", address="127.0.0.1:1"), **alone}
    )
