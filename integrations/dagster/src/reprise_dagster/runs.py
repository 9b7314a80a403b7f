"""Jobs whose run retries the service decides: whether, when, and where a re-execution goes on.

    run = execute_job(dg.reconstructable(nightly), instance, policy="nightly")

A job is a run to the service, under the id of Dagster's root run, and each of Dagster's
runs of it is an attempt. Ops and assets under `coordinated` are steps of that attempt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import reprise

# As `dagster.execute_job` does it, which lets nobody know a run's id before it is over.
from dagster._core.definitions.reconstruct import ReconstructableJob
from dagster._core.execution.api import execute_run
from dagster._core.storage.tags import PARENT_RUN_ID_TAG, ROOT_RUN_ID_TAG
from dagster._core.utils import make_new_run_id
from reprise.errors import left_step
from reprise.job import RunOptions
from typing_extensions import Unpack

import dagster as dg

#: Which attempt of its run at the service a run of Dagster's is: "2 of PARENT RUN ID".
#: Dagster copies tags to a re-execution by hand, whose parent is another one.
_ATTEMPT_TAG = "reprise/run_attempt"


class RunFailed(Exception):
    """A run of Dagster's ended without success."""


def execute_job(
    job: ReconstructableJob,
    instance: dg.DagsterInstance,
    *,
    run_id: str | None = None,
    run_config: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    client: reprise.Client | None = None,
    **options: Unpack[RunOptions],
) -> dg.DagsterRun:
    """Executes a job, and executes it again as long as the service says so; the last run of it.

    What has succeeded is left out of a re-execution, unless the policy resumes ALL_STEPS.
    `run_id` is that of the root run: the same once more goes on where another process
    left. The options are those of `reprise.Client.run`.
    """
    root = run_id or make_new_run_id()
    executions = _Executions(job, instance, root, run_config or {}, tags or {})
    loop = (client or reprise.default_client()).run(root, **options)
    try:
        for attempt in loop:
            with attempt:
                executions.execute(attempt)
            executions.tell(loop.decision)
    except RunFailed:
        executions.tell(loop.decision)
    last = executions.latest()
    if last is None:
        raise reprise.AlreadyDone(root, loop.decision) if loop.decision else RunFailed(root)
    return last


@dataclass(frozen=True)
class _Executions:
    """The runs of Dagster's that one job has."""

    job: ReconstructableJob
    instance: dg.DagsterInstance
    root: str
    run_config: Mapping[str, Any]
    tags: Mapping[str, str]

    def latest(self) -> dg.DagsterRun | None:
        """The newest of them. None before the first one."""
        again = self.instance.get_runs(dg.RunsFilter(tags={ROOT_RUN_ID_TAG: self.root}), limit=1)
        return again[0] if again else self.instance.get_run_by_id(self.root)

    def execute(self, attempt: reprise.SyncRunAttempt) -> None:
        """Executes what this attempt of the run has to do. `RunFailed` when that fails."""
        parent = self.latest()
        if parent is not None and not parent.is_finished:
            # Else its lease would be held, and this attempt would not have been granted.
            self.instance.report_run_failed(parent, "reprise: the process of this run has vanished")
            parent = self.latest()
        if parent is not None and parent.is_success:
            return
        tags = _tags(attempt, parent)
        result = self._first(tags) if parent is None else self._again(attempt, parent, tags)
        if not result.success:
            raise _failure(result)

    def tell(self, decision: reprise.Decision | None) -> None:
        """Writes a decision where people look for it: into the log of the run that it is about."""
        latest = self.latest()
        if latest is not None and decision is not None:
            self.instance.report_engine_event(f"reprise: {decision}", latest)

    def _first(self, tags: Mapping[str, str]) -> dg.JobExecutionResult:
        definition = self.job.get_definition()
        run = self.instance.create_run_for_job(
            definition,
            run_id=self.root,
            run_config=self.run_config,
            tags={**definition.run_tags, **self.tags, **tags},
            job_code_origin=self.job.get_python_origin(),
        )
        return execute_run(self.job, run, self.instance)

    def _again(
        self, attempt: reprise.SyncRunAttempt, parent: dg.DagsterRun, tags: Mapping[str, str]
    ) -> dg.JobExecutionResult:
        every_step = attempt.resume is reprise.Resume.ALL_STEPS
        choice = dg.ReexecutionOptions(parent.run_id)
        if not every_step:
            choice = dg.ReexecutionOptions.from_failure(parent.run_id, self.instance)
        # Those by which Dagster finds the runs of a group, and shows them as one.
        group = {ROOT_RUN_ID_TAG: self.root, PARENT_RUN_ID_TAG: parent.run_id}
        told = {**self.tags, **group, **tags}
        return dg.execute_job(self.job, self.instance, tags=told, reexecution_options=choice)


def place(run: dg.DagsterRun) -> tuple[str, int]:
    """The run at the service that steps of a run of Dagster's belong to, and its attempt, 0 for none."""
    number, _, parent = run.tags.get(_ATTEMPT_TAG, "").partition(" of ")
    if number.isdecimal() and parent == (run.parent_run_id or "nothing"):
        return run.root_run_id or run.run_id, int(number)
    return run.run_id, 0


def _tags(attempt: reprise.SyncRunAttempt, parent: dg.DagsterRun | None) -> dict[str, str]:
    number = attempt.number_at_service
    return {_ATTEMPT_TAG: f"{number} of {'nothing' if parent is None else parent.run_id}"} if number else {}


def _failure(result: dg.JobExecutionResult) -> RunFailed:
    """What a run is reported with: what its steps failed with, and that it were steps."""
    said = list(what_failed(result.filter_events(lambda event: event.is_step_failure)))
    failed = RunFailed("; ".join(said) or "the run failed outside of its steps")
    if said:
        left_step(failed)
    return failed


def what_failed(failures: Iterable[dg.DagsterEvent]) -> Iterator[str]:
    """Each failure of a step, in a line."""
    for event in failures:
        error = event.step_failure_data.error
        root = error and (error.cause or error)
        yield f"{event.step_key}: {root.message.strip() if root else 'failed'}"
