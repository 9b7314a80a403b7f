"""Airflow tasks whose retries the service decides: whether, when and how often.

    BashOperator(task_id="load", bash_command="…", **coordinated(policy="nightly"))

Airflow keeps its scheduler: how each try ended is reported, and the decision becomes the
delay of the retry, or the end of the task. It works with any operator, since nothing is
wrapped; so a try is not begun, and targets hold it to their rates and cooldowns alone.
"""

from __future__ import annotations

import hashlib
import logging
from datetime import timedelta
from typing import Any

import reprise as rp
from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy
from airflow.sdk.exceptions import AirflowFailException
from reprise.classify import built_in
from reprise.decorator import as_id

log = logging.getLogger("reprise")

#: More retries than any step has: the service counts, not Airflow.
_NO_BOUND = 1_000_000

#: How long a step on hold, or one that names no instant, is left alone.
_ASK_AGAIN = timedelta(minutes=1)


class CoordinatedRetryPolicy(RetryPolicy):
    """Asks the service about each try that failed.

    Where no service answers Airflow's own `retry_delay` and `retries` decide.
    """

    def __init__(self, policy: str = "", targets: tuple[str, ...] = (), address: str = "") -> None:
        #: Name of a policy of the namespace. Empty means the namespace's default.
        self.policy = policy
        self.targets = tuple(targets)
        #: Where the service is. Empty means where the environment says.
        self.address = address

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Any = None
    ) -> RetryDecision:
        """What follows a try that failed."""
        del max_tries
        if context is None:
            return RetryDecision.default()
        try:
            decision = self.report(context["ti"], try_number, built_in(exception)).decision
        except rp.RepriseError:
            log.exception("reprise could not be asked; Airflow's own settings decide")
            return RetryDecision.default()
        return _in_words_of_airflow(decision)

    def report(self, ti: Any, try_number: int, failure: rp.Failure | None) -> rp.Report:
        """Tells how a try ended. Told twice it counts once."""
        run, step = names(ti)
        with rp.Client(self.address or None) as client:
            return client.report(
                step,
                run=run,
                failure=failure,
                request_id=identity(ti, try_number),
                policy=self.policy or None,
                targets=self.targets,
            )

    def serialize(self) -> dict[str, Any]:
        """What makes the same policy again."""
        return {"policy": self.policy, "targets": list(self.targets), "address": self.address}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> CoordinatedRetryPolicy:
        """The policy that was serialised."""
        return cls(data["policy"], tuple(data["targets"]), data["address"])


def coordinated(policy: str = "", *, targets: tuple[str, ...] = (), address: str = "") -> dict[str, Any]:
    """Arguments of any operator, or `default_args` of a DAG: its retries, and what tells of its end."""
    asked = CoordinatedRetryPolicy(policy, targets, address)

    def succeeded(context: Any) -> None:
        _tell(asked, context["ti"], None)

    def failed(context: Any) -> None:
        # Airflow asks no policy about a task that says itself that it is over.
        error = context.get("exception")
        if isinstance(error, AirflowFailException):
            failure = built_in(error)
            _tell(
                asked, context["ti"], rp.Failure(failure.failure_class, message=str(error), retryable=False)
            )

    return {
        "retries": _NO_BOUND,
        "retry_policy": asked,
        "on_success_callback": succeeded,
        "on_failure_callback": failed,
    }


def names(ti: Any) -> tuple[str, str]:
    """The run and the step that a task instance is."""
    mapped = f"/{ti.map_index}" if ti.map_index >= 0 else ""
    return as_id(f"{ti.dag_id}/{ti.run_id}"), as_id(f"{ti.task_id}{mapped}")


def identity(ti: Any, try_number: int) -> bytes:
    """The same 16 bytes whenever one try is told of."""
    name = "\0".join([*names(ti), str(try_number)])
    return hashlib.sha256(name.encode()).digest()[:16]


def _tell(asked: CoordinatedRetryPolicy, ti: Any, failure: rp.Failure | None) -> None:
    try:
        asked.report(ti, ti.try_number, failure)
    except rp.RepriseError:
        log.exception("the end of the task could not be reported")


def _in_words_of_airflow(decision: rp.Decision) -> RetryDecision:
    if decision.verdict is rp.Verdict.STOP:
        return RetryDecision.fail(reason=str(decision))
    if decision.verdict is rp.Verdict.DONE:
        # The step is over, and Airflow runs it again: somebody has cleared it.
        return RetryDecision.default()
    delay = _ASK_AGAIN if decision.delay is None else timedelta(seconds=decision.delay)
    return RetryDecision.retry(delay=delay, reason=str(decision))
