"""A nightly workflow: a table at a time is loaded, then all of them are published.

`python nightly.py` writes nightly.yaml.
"""

from __future__ import annotations

from pathlib import Path

from hera.workflows import DAG, Container, Task, Workflow
from hera.workflows.models import Parameter
from reprise_argo import coordinated

#: An image that has the command and `reprise`.
IMAGE = "registry.example.com/warehouse:1"

ADDRESS = "http://reprise.reprise.svc:7070"


def nightly() -> Workflow:
    """The workflow, as it is submitted."""
    with Workflow(generate_name="nightly-", entrypoint="main") as workflow:
        load = Container(
            name="load",
            image=IMAGE,
            inputs=[Parameter(name="table")],
            **coordinated(
                ["load-table", "{{inputs.parameters.table}}"],
                step="load/{{inputs.parameters.table}}",
                policy="nightly",
                targets=["warehouse-db"],
                address=ADDRESS,
            ),
        )
        publish = Container(
            name="publish",
            image=IMAGE,
            **coordinated(["publish"], step="publish", policy="nightly", address=ADDRESS),
        )
        with DAG(name="main"):
            loaded = Task(
                name="load",
                template=load,
                arguments={"table": "{{item.table}}"},
                with_items=[{"table": "orders"}, {"table": "customers"}, {"table": "payments"}],
            )
            loaded >> Task(name="publish", template=publish)
    return workflow


if __name__ == "__main__":
    Path(__file__).with_suffix(".yaml").write_text(nightly().to_yaml())
