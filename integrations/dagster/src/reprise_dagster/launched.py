"""Runs that a schedule, a sensor or a person launches, and whose retries the service decides.

    python -m reprise_dagster.launched --workspace workspace.yaml

A process beside Dagster's daemon, in place of the daemon's run retries. It tells the service of each
failed run that has the tag `reprise/policy`, and launches a re-execution when the service says so.
It keeps nothing: what it knows is in Dagster's storage and at the service.
"""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import time
import uuid
from collections.abc import Iterator

import reprise

# What Dagster's daemon does, but for the question whether and when.
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, RETRY_STRATEGY_TAG, RUN_FAILURE_REASON_TAG
from dagster._core.workspace.context import IWorkspaceProcessContext, WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._daemon.auto_run_reexecution.auto_run_reexecution import retry_run
from reprise import Failure, FailureClass, Resume, StepState

import dagster as dg

from .runs import place, what_failed

#: Names the policy that decides about a run.
POLICY_TAG = "reprise/policy"
#: What became of a failed run that is not retried: "FAILED of RUN ID". Dagster copies tags to re-executions.
_OUTCOME_TAG = "reprise/run_retry"

#: Seconds between two looks, as those of Dagster's daemon.
EVERY = 5.0
#: Seconds between two looks at what code there is, as those of Dagster's daemon.
REFRESH_EVERY = 60.0
#: How far back the first look goes, in days: what ended while nobody looked, and what has waited or
#: been held since then. The service gives up what nobody comes for after seven, unless told otherwise.
FIRST_LOOK = 8.0
#: How far back each other one goes: the clocks of Dagster's processes may differ by so much.
EACH_LOOK = dt.timedelta(minutes=5)

_ENDED = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.CANCELED]

#: Classes of what Dagster says of failed runs; of anything else ERROR is said.
_CLASSES = {
    "STEP_FAILURE": FailureClass.FAILURE,
    "RUN_EXCEPTION": FailureClass.FAILURE,
    "START_TIMEOUT": FailureClass.TIMEOUT,
    "UNEXPECTED_TERMINATION": FailureClass.CRASH,
    "RUN_WORKER_RESTART": FailureClass.CRASH,
}

logger = logging.getLogger("reprise.dagster")


class LaunchedRuns:
    """The runs of one instance that have ended, and what is to become of them."""

    def __init__(
        self, context: IWorkspaceProcessContext, client: reprise.Client, first_look: float = FIRST_LOOK
    ) -> None:
        self._context = context
        self._instance = context.instance
        self._client = client
        #: Runs to be dealt with, by id: whether the service was told of them.
        self._open: dict[str, bool] = {}
        #: Until when everything was seen.
        self._seen_until = _now() - dt.timedelta(days=first_look)

    def look(self) -> None:
        """Deals with what has ended since the last look, and with what was to wait until now."""
        now = _now()
        for run in self._instance.get_runs(dg.RunsFilter(statuses=_ENDED, updated_after=self._seen_until)):
            if self._is_open(run):
                self._open.setdefault(run.run_id, False)
        self._seen_until = now - EACH_LOOK
        for run_id in list(self._open):
            try:
                self._deal_with(run_id)
            except reprise.RepriseError as error:
                logger.warning("run %s: %s", run_id, error)  # It is looked at again.
            except Exception:  # Whatever is wrong with one run, the others go on.
                logger.exception("run %s is looked at again", run_id)

    def _is_open(self, run: dg.DagsterRun) -> bool:
        """Whether a run that has ended is left to us, and not dealt with."""
        if POLICY_TAG not in run.tags or place(run)[1] or run.tags.get(_OUTCOME_TAG, "").endswith(run.run_id):
            return False
        retry = self._retry_of(run)
        return retry is None or retry.status is dg.DagsterRunStatus.NOT_STARTED

    def _retry_of(self, run: dg.DagsterRun) -> dg.DagsterRun | None:
        """The re-execution that was launched for a run, not by hand. None when there is none."""
        retry = self._instance.get_run_by_id(run.tags.get(AUTO_RETRY_RUN_ID_TAG, ""))
        return retry if retry is not None and retry.parent_run_id == run.run_id else None

    def _first_of(self, run: dg.DagsterRun) -> dg.DagsterRun:
        """The run that this one is a retry of, or a retry of its retry; it names the run at the service."""
        while run.parent_run_id is not None:
            parent = self._instance.get_run_by_id(run.parent_run_id)
            if parent is None or parent.tags.get(AUTO_RETRY_RUN_ID_TAG) != run.run_id:
                break
            run = parent
        return run

    def _deal_with(self, run_id: str) -> None:
        run = self._instance.get_run_by_id(run_id)
        if run is None or not self._is_open(run):
            del self._open[run_id]
            return
        name = self._first_of(run).run_id
        failed = run.status is dg.DagsterRunStatus.FAILURE
        if not failed and name == run_id:  # Nobody has heard of it, nor has to.
            del self._open[run_id]
            return
        if not self._open[run_id]:
            self._report(run, name)
            self._open[run_id] = True
        self._follow(run, self._client.get_run(name))

    def _report(self, run: dg.DagsterRun, name: str) -> None:
        """Tells how a run ended. It counts once, since its identity is that of the run."""
        reason = run.tags.get(RUN_FAILURE_REASON_TAG, "UNKNOWN")
        report = self._client.report_run(
            name,
            request_id=uuid.UUID(run.run_id).bytes,
            failure=self._failure(run, reason),
            step_failed=reason == "STEP_FAILURE",
            policy=run.tags[POLICY_TAG],
        )
        if not report.replayed:
            self._tell(run, report.decision)

    def _failure(self, run: dg.DagsterRun, reason: str) -> Failure | None:
        if run.status is dg.DagsterRunStatus.SUCCESS:
            return None
        if run.status is dg.DagsterRunStatus.CANCELED:
            return Failure(FailureClass.CANCELED)
        return Failure(
            _CLASSES.get(reason, FailureClass.ERROR),
            error_type=reason,
            message="; ".join(what_failed(self._failures(run))),
        )

    def _failures(self, run: dg.DagsterRun) -> Iterator[dg.DagsterEvent]:
        for entry in self._instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
            if entry.dagster_event is not None:
                yield entry.dagster_event

    def _follow(self, run: dg.DagsterRun, told: reprise.Run | None) -> None:
        """Does what the service says by now: a person may have decided otherwise meanwhile."""
        if told is None or told.state in (StepState.HELD, StepState.RUNNING):
            return
        if told.state is not StepState.WAITING:
            self._instance.add_run_tags(run.run_id, {_OUTCOME_TAG: f"{told.state.value} of {run.run_id}"})
            del self._open[run.run_id]
        elif told.decision is None or not told.decision.delay:
            self._launch(run, told)

    def _launch(self, run: dg.DagsterRun, told: reprise.Run) -> None:
        if told.resume is Resume.ALL_STEPS:
            self._instance.add_run_tags(run.run_id, {RETRY_STRATEGY_TAG: told.resume.value})
        try:
            retry_run(self._again(run), self._context)
            problem = "Dagster has not launched it, and says why in the log of the run"
        except Exception as error:
            logger.exception("run %s could not be launched again", run.run_id)
            problem = f"{type(error).__name__}: {error}"
        if self._is_open(self._again(run)):
            # Dagster would leave it at that; here it is one more failed attempt.
            failure = Failure(FailureClass.ERROR, action="launch", message=problem)
            self._tell(run, self._client.report_run(told.run, failure=failure).decision)
        else:
            del self._open[run.run_id]

    def _again(self, run: dg.DagsterRun) -> dg.DagsterRun:
        """The run with the tags that it has by now."""
        return self._instance.get_run_by_id(run.run_id) or run

    def _tell(self, run: dg.DagsterRun, decision: reprise.Decision) -> None:
        """Writes a decision where people look for it: into the log of the run that it is about."""
        self._instance.report_engine_event(f"reprise: {decision}", run)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc)


def main() -> None:
    """Looks after the runs of the instance that `DAGSTER_HOME` names, until it is stopped."""
    parser = argparse.ArgumentParser(prog="python -m reprise_dagster.launched", description=main.__doc__)
    parser.add_argument(
        "-w",
        "--workspace",
        action="append",
        metavar="FILE",
        help="workspace.yaml, as Dagster's daemon has it",
    )
    parser.add_argument(
        "--every", type=float, default=EVERY, metavar="SECONDS", help="between two looks (%(default)s)"
    )
    parser.add_argument(
        "--first-look",
        type=float,
        default=FIRST_LOOK,
        metavar="DAYS",
        help="how far back it looks for failed runs when it starts: longer than retries wait (%(default)s)",
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    target = WorkspaceFileTarget(options.workspace or ["workspace.yaml"])
    with dg.DagsterInstance.get() as instance, WorkspaceProcessContext(instance, target) as context:
        runs = LaunchedRuns(context, reprise.default_client(), options.first_look)
        _look_after(runs, context, options.every)


def _look_after(runs: LaunchedRuns, context: WorkspaceProcessContext, every: float) -> None:
    refreshed = time.monotonic()
    while True:
        try:
            runs.look()
            if time.monotonic() - refreshed >= REFRESH_EVERY:
                refreshed = time.monotonic()
                context.refresh_workspace()
        except Exception:
            logger.exception("it is looked again")
        time.sleep(every)


if __name__ == "__main__":
    main()
