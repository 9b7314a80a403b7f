"""What the blocking and the asyncio client have in common: everything but waiting."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from typing_extensions import Required, TypedDict

from . import wire
from ._proto import retry_service_pb2 as calls
from ._proto import run_pb2
from .attempt import Attempt, Held, current_run
from .classify import Classification, Classifier
from .course import Context, Course
from .effects import (
    BEGIN,
    GET_RUN,
    GET_STEP,
    HEARTBEAT,
    LIST_RUN_STEPS,
    REPORT_BATCH,
    Chance,
    Clock,
    Plan,
    ReportRequest,
)
from .errors import CallRefused, NoService, Unanswered
from .failure import Failure, FailureClass, Span, seconds
from .fallback import Fallback
from .heartbeat import Lease, keep
from .job import Job, RunJob, RunOptions, StepOptions, fill_outcome, fill_policy
from .model import Begun, Decision, Heartbeat, Report, Run, RunStep, Step, StepState
from .policy import PolicyChoice
from .service import Patience, Service, logger
from .settings import Settings, Tls

if TYPE_CHECKING:
    from .course import Started

#: Reports that are owed at most, unless the client is told otherwise.
DEBTS_MAX = 1000
#: Reports of one batch at most.
BATCH_MAX = 256
#: Steps of one page at most.
PAGE_MAX = 1000


class ClientOptions(TypedDict, total=False):
    """How a client is set up. What is absent comes from the environment, then from defaults."""

    #: Empty means "default". Else `REPRISE_NAMESPACE`.
    namespace: str | None
    #: How long one try of a call may take. Else `REPRISE_CALL_TIMEOUT`, then five seconds.
    call_timeout: Span | None
    #: What an https:// address is verified with. Else `REPRISE_TLS_CA`, `_CERT` and `_KEY`.
    tls: Tls | None
    #: Bearer token of each call. Else `REPRISE_TOKEN`, then the file `REPRISE_TOKEN_FILE`.
    token: str | None
    #: Host and worker that attempts are begun for. Else this host, and host:pid.
    host: str | None
    worker: str | None
    #: How long nobody has to answer before this process decides alone. A second by default.
    patience: Span
    #: What is granted then.
    fallback: Fallback | None
    #: Read exceptions before this package does, in their order.
    classifiers: Sequence[Classifier]
    #: Told of each decision that followed an attempt of a step.
    on_decision: Callable[[Attempt, Decision], None] | None
    #: Reports at most that are kept for a service that is away. A thousand by default.
    debts_max: int
    #: Whether heartbeats and what is owed are sent in the background. Tests may say no.
    in_background: bool
    #: Where time and chance come from, in tests.
    clock: Clock | None
    chance: Chance | None


class BeginOptions(TypedDict, total=False):
    """What may be said when an attempt is begun; `StepOptions` says what each means."""

    policy: PolicyChoice
    #: 16 bytes that stay the same when the caller repeats the call. Without them each call
    #: is a new one, however often it is sent.
    request_id: bytes
    kind: str
    targets: Sequence[str]
    queue: str
    lease: Span | None
    time_left: Span | None
    run_attempt: int


class ReportOptions(TypedDict, total=False):
    """What may be said of an attempt that ended.

    The attempt is named by its fence, else by its number, else by `request_id`; one that
    is named by none of them is the step's next, begun implicitly.
    """

    #: How it failed. Absent or None reports success.
    failure: Failure | FailureClass | None
    fence: int
    attempt: int
    #: 16 random bytes that stay the same when the caller repeats the report.
    request_id: bytes
    policy: PolicyChoice
    targets: Sequence[str]


class RunReportOptions(TypedDict, total=False):
    """What may be said of an attempt of a run that ended; it is named like one of a step."""

    #: How it failed. Absent or None reports success.
    failure: Failure | FailureClass | None
    #: Whether it failed because a step of it did.
    step_failed: bool
    fence: int
    attempt: int
    #: 16 bytes that stay the same when the caller repeats the report.
    request_id: bytes
    policy: PolicyChoice


class SystemClock:
    """The monotonic clock: what people do to the wall clock does not matter here."""

    def now(self) -> float:
        """Seconds since some instant."""
        return time.monotonic()


class SystemChance:
    """Python's random source for spreading, the system's for identities."""

    def unit(self) -> float:
        """Uniform in [0, 1)."""
        return random.random()

    def identity(self) -> bytes:
        """16 random bytes."""
        return os.urandom(16)


class Item(ReportOptions):
    """One report of a batch."""

    run: Required[str]
    step: Required[str]


class Core:
    """Plans for each thing that a client does."""

    def __init__(self, address: str | None, options: ClientOptions) -> None:
        self.settings = Settings.of(
            address,
            namespace=options.get("namespace"),
            call_timeout=options.get("call_timeout"),
            tls=options.get("tls"),
            token=options.get("token"),
            host=options.get("host"),
            worker=options.get("worker"),
        )
        self.patience = seconds(options.get("patience", 1.0))
        self.clock = options.get("clock") or SystemClock()
        self.chance = options.get("chance") or SystemChance()
        self.in_background = options.get("in_background", True)
        self.service = Service(
            self.clock,
            self.chance,
            call_timeout=self.settings.call_timeout,
            debts_max=options.get("debts_max", DEBTS_MAX),
        )
        self._on_decision = options.get("on_decision")
        self._context = Context(
            service=self.service,
            settings=self.settings,
            classification=Classification(options.get("classifiers", ())),
            fallback=options.get("fallback") or Fallback(),
            patience=self.patience,
        )

    def tell(self, attempt: Held, course: Course) -> None:
        """Tells whoever asked of the decision that followed an attempt."""
        if self._on_decision is None or course.decision is None or not isinstance(attempt, Attempt):
            return
        try:
            self._on_decision(attempt, course.decision)
        except Exception:
            logger.exception("whoever was told of a decision has failed")

    @property
    def owed(self) -> int:
        """Reports that the service has yet to hear."""
        return len(self.service.debts)

    def course(self, step: str, options: StepOptions) -> Course:
        """The course of a step, which belongs to the run around it unless another is named."""
        return Course(Job.of(step, self._within(options)), self._context)

    def run_course(self, run: str, options: RunOptions) -> Course:
        """The course of a run."""
        return Course(RunJob.of_run(run, options), self._context)

    def _within(self, options: StepOptions) -> StepOptions:
        around = current_run()
        if around is None or "run_attempt" in options or not around.is_of(self.settings):
            return options
        if (options.get("run") or around.run) != around.run:
            return options
        return {**options, "run": around.run, "run_attempt": around.number_at_service}

    def keep(self, course: Course, started: Started, lease: Lease) -> Plan[None]:
        """Keeps an attempt's lease."""
        request = calls.HeartbeatRequest(
            namespace=self.settings.namespace,
            run=course.job.run,
            step=course.job.step,
            fence=started.grant.fence,
        )
        return keep(self.service, lease, request, started.grant.heartbeat_every)

    # The calls of the contract, one by one

    def begin(self, step: str, run: str, options: BeginOptions) -> Plan[Begun]:
        """Asks for the right to run the next attempt."""
        lease, time_left = options.get("lease"), options.get("time_left")
        job = Job(
            step=step,
            run=run,
            policy=options.get("policy"),
            kind=options.get("kind", ""),
            targets=tuple(options.get("targets", ())),
            queue=options.get("queue", ""),
            lease=None if lease is None else seconds(lease),
            run_attempt=options.get("run_attempt", 0),
        )
        request_id = options.get("request_id") or self.chance.identity()
        request = job.begin(self.settings, request_id, None if time_left is None else seconds(time_left))
        heard = yield from self.service.insist(BEGIN, request, self._patience())
        return wire.begun(cast("calls.BeginAttemptResponse", heard.message))

    def heartbeat(self, step: str, run: str, fence: int, lease: Span | None) -> Plan[Heartbeat]:
        """Extends the lease of a running attempt."""
        request = calls.HeartbeatRequest(namespace=self.settings.namespace, run=run, step=step, fence=fence)
        if lease is not None:
            wire.fill_span(request.lease, seconds(lease))
        heard = yield from self.service.insist(HEARTBEAT, request, self._patience())
        return wire.heartbeat(cast("calls.HeartbeatResponse", heard.message))

    def report(self, step: str, run: str, options: ReportOptions) -> Plan[Report]:
        """Ends an attempt."""
        return self.service.report(self._report_request(step, run, options), self._patience())

    def report_run(self, run: str, options: RunReportOptions) -> Plan[Report]:
        """Ends an attempt of a run."""
        request = calls.ReportRunRequest(namespace=self.settings.namespace, run=run)
        request.step_failed = options.get("step_failed", False)
        self._fill_report(request, options)
        return self.service.report(request, self._patience())

    def report_batch(self, items: Sequence[Item]) -> Plan[list[Report | CallRefused]]:
        """Ends several attempts, each by itself, in as many calls as it takes."""
        results: list[Report | CallRefused] = []
        for start in range(0, len(items), BATCH_MAX):
            batch = [
                self._report_request(item["step"], item["run"], item)
                for item in items[start : start + BATCH_MAX]
            ]
            request = calls.BatchReportAttemptsRequest(namespace=self.settings.namespace, reports=batch)
            heard = yield from self.service.insist(REPORT_BATCH, request, self._patience())
            response = cast("calls.BatchReportAttemptsResponse", heard.message)
            results.extend(_batch_result(result) for result in response.results)
        return results

    def get_step(self, step: str, *, run: str) -> Plan[Step | None]:
        """Shows a step. None when there is no such step."""
        request = calls.GetStepRequest(namespace=self.settings.namespace, run=run, step=step)
        try:
            heard = yield from self.service.insist(GET_STEP, request, self._patience())
        except CallRefused as refused:
            if refused.answer.reason == "STEP_NOT_FOUND":
                return None
            raise
        return wire.step(cast("calls.GetStepResponse", heard.message).step)

    def get_run(self, run: str) -> Plan[Run | None]:
        """Shows a run. None when there is no such run."""
        request = run_pb2.GetRunRequest(namespace=self.settings.namespace, run=run)
        try:
            heard = yield from self.service.insist(GET_RUN, request, self._patience())
        except CallRefused as refused:
            if refused.answer.reason == "RUN_NOT_FOUND":
                return None
            raise
        return wire.run(cast("run_pb2.GetRunResponse", heard.message).run)

    def run_steps(self, run: str, states: Sequence[StepState]) -> Plan[list[RunStep]]:
        """Lists the steps of a run, all pages of them."""
        request = run_pb2.ListRunStepsRequest(
            namespace=self.settings.namespace, run=run, states=wire.states(states), page_size=PAGE_MAX
        )
        steps: list[RunStep] = []
        while True:
            heard = yield from self.service.insist(LIST_RUN_STEPS, request, self._patience())
            page = cast("run_pb2.ListRunStepsResponse", heard.message)
            steps.extend(wire.run_step(step) for step in page.steps)
            if not page.next_page_token:
                return steps
            request.page_token = page.next_page_token

    def settle(self, patience: float | None) -> Plan[bool]:
        """Delivers what is owed. False when not all of it was heard."""
        try:
            yield from self.service.settle(Patience(away=patience, busy=patience))
        except NoService:
            return False
        return True

    def _report_request(self, step: str, run: str, options: ReportOptions) -> calls.ReportAttemptRequest:
        request = calls.ReportAttemptRequest(
            namespace=self.settings.namespace, run=run, step=step, targets=options.get("targets", ())
        )
        self._fill_report(request, options)
        return request

    def _fill_report(self, request: ReportRequest, options: ReportOptions | RunReportOptions) -> None:
        """Writes which attempt ended, and how."""
        request.fence = options.get("fence", 0)
        request.attempt = 0 if request.fence else options.get("attempt", 0)
        request.request_id = options.get("request_id") or b""
        if not (request.fence or request.attempt or request.request_id):
            request.request_id = self.chance.identity()
        fill_policy(request, options.get("policy"))
        failure = options.get("failure")
        fill_outcome(request, Failure(failure) if isinstance(failure, FailureClass) else failure)

    def _patience(self) -> Patience:
        return Patience(away=self.patience, busy=self.patience)


def _batch_result(result: calls.BatchReportResult) -> Report | CallRefused:
    if result.HasField("error"):
        refused: Unanswered = wire.unanswered(result.error)
        return CallRefused("BatchReportAttempts", refused)
    return wire.report(result.response)
