"""What Argo's controller does with a template that has a retryStrategy, pod by pod.

The rules are those of docs/coming-from/argo.md, which `reprise conformance` holds to cases of
Argo's own tests: phase by policy, then the limit, then the expression, over variables that are
texts. An expression of ours reads the same in Python as in Argo's language.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from types import SimpleNamespace

from hera.workflows import Container, RetryStrategy

#: What Argo reads where a pod ended without an exit code.
UNKNOWN = -1


def again(strategy: RetryStrategy, exit_code: int, retries: int) -> bool:
    """Whether Argo starts another pod after one that did not succeed."""
    assert strategy.retry_policy == "Always"
    assert strategy.backoff is None
    if retries >= int(strategy.limit):
        return False
    last = SimpleNamespace(exitCode=str(exit_code), status="Error" if exit_code == UNKNOWN else "Failed")
    names = {"asInt": int, "lastRetry": last, "retries": str(retries)}
    answer = eval(strategy.expression, {"__builtins__": {}}, names)
    assert isinstance(answer, bool)
    return answer


def pod(template: Container, variables: Mapping[str, str]) -> list[str]:
    """The command line of the template's pod, with Argo's variables filled in."""
    line = [*template.command, *template.args]
    for name, value in variables.items():
        line = [word.replace("{{" + name + "}}", value) for word in line]
    assert not any("{{" in word for word in line)
    return line


def run_template(template: Container, variables: Mapping[str, str]) -> list[int]:
    """Pods until one succeeds or Argo starts no other; the exit code of each."""
    codes: list[int] = []
    while True:
        ended = subprocess.run(pod(template, variables), capture_output=True, check=False)
        codes.append(ended.returncode)
        if ended.returncode == 0 or not again(template.retry_strategy, ended.returncode, len(codes) - 1):
            return codes
