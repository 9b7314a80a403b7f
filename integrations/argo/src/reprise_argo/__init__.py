"""Templates of Argo Workflows whose retries the service decides: whether, when and how often.

    Container(name="load", image="loader", **coordinated(["load-orders"], step="load"))

Argo asks nobody about a retry, but it reads the exit code of the pod before. So each pod runs
one attempt, `reprise exec --once`, whose exit code is the decision; its wait is sat out at the
start of the next pod.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hera.workflows import RetryStrategy
from hera.workflows.models import EnvVar

#: Exit codes after which another pod asks again: come again later; then what ends a pod before
#: it could say so: Argo knows no code (the pod was deleted, its node lost), SIGKILL, SIGTERM.
ASK_AGAIN = (75, -1, 137, 143)

#: What Argo evaluates after each pod. 78 is a stop, and any other code a mistake of ours.
EXPRESSION = f"asInt(lastRetry.exitCode) in {list(ASK_AGAIN)}"

#: More retries than any step has: the service counts, not Argo.
_NO_BOUND = 1_000_000


def retry_strategy() -> RetryStrategy:
    """The strategy of a template whose container runs `reprise exec --once`."""
    # No backoff: the attempt waits until its own instant.
    return RetryStrategy(limit=str(_NO_BOUND), retry_policy="Always", expression=EXPRESSION)


def coordinated(
    command: Sequence[str],
    *,
    step: str,
    policy: str = "",
    targets: Sequence[str] = (),
    options: Sequence[str] = (),
    address: str = "",
) -> dict[str, Any]:
    """Arguments of a container template: a command as a step, its exit code as the decision.

    The run is the workflow. `step` must tell the template's pods apart where it fans out: name
    it by what differs, as in `load/{{inputs.parameters.table}}`. `options` are further ones of
    `reprise exec`; without an address it is the one that the pod's environment describes.
    """
    said = ["--once", "--run", "{{workflow.uid}}", "--step", step]
    said += ["--policy", policy] if policy else []
    for target in targets:
        said += ["--target", target]
    return {
        "command": ["reprise", "exec"],
        "args": [*said, *options, "--", *command],
        "env": [EnvVar(name="REPRISE_ADDR", value=address)] if address else None,
        "retry_strategy": retry_strategy(),
    }
