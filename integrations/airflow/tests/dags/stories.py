"""DAGs of the tests. They are in a file of their own since Airflow reads DAGs from files."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException
from reprise_airflow import coordinated


def flaky() -> None:
    starts = Path(os.environ["STORIES_FOLDER"]) / "starts"
    with starts.open("a") as file:
        file.write("started\n")
    if len(starts.read_text().split()) < 3:
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

with DAG("over", schedule=None) as over_dag:
    PythonOperator(task_id="load", python_callable=over, **coordinated("quick"))

with DAG("alone", schedule=None) as alone_dag:
    alone = {"retries": 1, "retry_delay": dt.timedelta(seconds=0.1)}
    PythonOperator(
        task_id="load", python_callable=broken, **{**coordinated("quick", address="127.0.0.1:1"), **alone}
    )
