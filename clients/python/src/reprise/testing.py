"""A service for tests: in the process, in virtual time, with decisions as scripted.

    fake = FakeService()
    fake.decides(retry(after=30), stop("RULE"))
    with pytest.raises(ValueError):
        for attempt in fake.client().step("load"):
            with attempt:
                raise ValueError("bad input")
    assert fake.waits == [30.0]

Nothing sleeps and nothing is sent. What is not scripted is decided by a simple rule:
`max_retries` retries, each `delay` seconds after the failure. Runs are decided like steps, go on as
`resume` says, and bound nothing.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from google.protobuf.message import Message

from . import wire
from ._proto import retry_service_pb2 as calls
from ._proto import run_pb2, step_pb2
from .aio import AsyncClient
from .client import Client
from .effects import (
    AWAIT,
    BEGIN,
    BEGIN_RUN,
    GET_RUN,
    GET_STEP,
    HEARTBEAT,
    LIST_RUN_STEPS,
    REPORT,
    REPORT_BATCH,
    REPORT_RUN,
    Answer,
    Call,
    Method,
)
from .errors import Unanswered
from .failure import Span, seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typing_extensions import Unpack

    from .core import ClientOptions

_M = TypeVar("_M", bound=Message)

#: Seconds of a lease that nobody asked for.
_LEASE = 30.0

#: What the fake answers while it is away.
AWAY = Unanswered("UNAVAILABLE", "the fake is away")


class VirtualClock:
    """Time that passes only when somebody waits."""

    def __init__(self) -> None:
        self.time = 0.0
        #: How long was waited, wait by wait.
        self.waits: list[float] = []
        self._alarms: list[tuple[float, Callable[[], None]]] = []

    def now(self) -> float:
        """Seconds since the beginning."""
        return self.time

    def sleep(self, span: float, *, more: bool = False) -> None:
        """Waits. `more` goes on with the latest wait."""
        if more:
            self.waits[-1] += span
        else:
            self.waits.append(span)
        self.advance(span)

    async def sleep_async(self, span: float) -> None:
        """Waits, in a task."""
        self.sleep(span)

    def advance(self, span: float) -> None:
        """Lets time pass that nobody waits for, such as the time that an attempt takes."""
        until = self.time + span
        for alarm in sorted((a for a in self._alarms if a[0] <= until), key=lambda a: a[0]):
            self._alarms.remove(alarm)
            self.time = max(self.time, alarm[0])
            alarm[1]()
        self.time = until

    def at(self, instant: float, do: Callable[[], None]) -> None:
        """Does something when an instant has come."""
        self._alarms.append((instant, do))


class FixedChance:
    """Chance that is known: always the same draw, and identities that are counted."""

    def __init__(self, draw: float = 0.5) -> None:
        self.draw = draw
        self._identities = 0

    def unit(self) -> float:
        """The draw."""
        return self.draw

    def identity(self) -> bytes:
        """The next of 1, 2, 3 in 16 bytes."""
        self._identities += 1
        return self._identities.to_bytes(16, "big")


@dataclass(frozen=True)
class Recorded:
    """A call that was made."""

    #: Seconds since the beginning.
    at: float
    #: Its name in the contract, such as "ReportAttempt".
    name: str
    request: Message
    answer: Answer


@dataclass
class _Step:
    """What the fake remembers of a step, or of a run, which is one without a name."""

    attempts: int = 0
    retries: int = 0
    due: float = 0.0
    fence: int = 0
    #: The decision that ended it. None while it is not over.
    end: step_pb2.Decision | None = None
    begun: dict[bytes, calls.BeginAttemptResponse] = field(default_factory=dict)
    #: The attempt of the run that it was begun with. 0 for none.
    run_attempt: int = 0


class FakeService:
    """A service in this process."""

    def __init__(
        self,
        *,
        max_retries: int = 3,
        delay: Span = 1.0,
        draw: float = 0.5,
        resume: Literal["from_failure", "all_steps"] = "from_failure",
    ) -> None:
        self.clock = VirtualClock()
        self.chance = FixedChance(draw)
        #: The calls that were made, in order.
        self.calls: list[Recorded] = []
        #: Whether nobody answers.
        self.away = False
        #: Whether the latest call was a wait.
        self._waited = False
        self._max_retries = max_retries
        self._delay = seconds(delay)
        self._resume = f"RESUME_{resume.upper()}"
        self._steps: dict[tuple[str, str], _Step] = defaultdict(_Step)
        self._decisions: deque[step_pb2.Decision] = deque()
        self._refusals: deque[step_pb2.Decision] = deque()
        self._answers: dict[str, deque[Answer]] = defaultdict(deque)

    def client(self, **options: Unpack[ClientOptions]) -> Client:
        """A client of this service, in its time."""
        return Client(
            "127.0.0.1:1", transport=_Transport(self), sleep=self.clock.sleep, **self._options(options)
        )

    def async_client(self, **options: Unpack[ClientOptions]) -> AsyncClient:
        """A client of this service for asyncio, in its time."""
        return AsyncClient(
            "127.0.0.1:1",
            transport=_AsyncTransport(self),
            sleep=self.clock.sleep_async,
            **self._options(options),
        )

    def decides(self, *decisions: step_pb2.Decision) -> None:
        """What the next reports of failures are answered, in order."""
        self._decisions.extend(decisions)

    def refuses(self, *decisions: step_pb2.Decision) -> None:
        """What the next begins are refused with, in order."""
        self._refusals.extend(decisions)

    def answers(self, method: Method | str, *answers: Answer) -> None:
        """What the next calls of one kind are answered, whatever they say."""
        self._answers[method if isinstance(method, str) else method.name].extend(answers)

    @property
    def waits(self) -> list[float]:
        """How long the client waited, wait by wait."""
        return self.clock.waits

    def requests(self, method: Method | str) -> list[Message]:
        """The requests of one kind of call, in order."""
        name = method if isinstance(method, str) else method.name
        return [call.request for call in self.calls if call.name == name]

    @property
    def reports(self) -> list[calls.ReportAttemptRequest]:
        """The reports that were made, in order, those in vain among them."""
        return cast("list[calls.ReportAttemptRequest]", self.requests(REPORT))

    def answer(self, call: Call) -> Answer:
        """Answers a call. A wait to be told is one of `waits` and no call, unless its answer was scripted."""
        if call.method is AWAIT and not self.away and not self._answers[AWAIT.name]:
            return self._wait(cast("calls.AwaitDecisionRequest", call.request))
        self._waited = False
        answer = self._answer(call)
        self.calls.append(Recorded(self.clock.now(), call.method.name, _copy(call.request), answer))
        return answer

    def _options(self, options: ClientOptions) -> ClientOptions:
        ours: ClientOptions = {"clock": self.clock, "chance": self.chance, "in_background": False}
        return {**ours, **options}

    def _answer(self, call: Call) -> Answer:
        if self.away:
            return AWAY
        scripted = self._answers[call.method.name]
        if scripted:
            return scripted.popleft()
        answers: dict[str, Callable[[Any], Answer]] = {
            BEGIN.name: self._begin,
            REPORT.name: self._report,
            REPORT_BATCH.name: self._batch,
            HEARTBEAT.name: self._heartbeat,
            GET_STEP.name: self._get_step,
            BEGIN_RUN.name: self._begin_run,
            REPORT_RUN.name: self._report_run,
            GET_RUN.name: self._get_run,
            LIST_RUN_STEPS.name: self._run_steps,
        }
        return answers[call.method.name](call.request)

    def _wait(self, request: calls.AwaitDecisionRequest) -> calls.AwaitDecisionResponse:
        """Nobody tells anything: what is asked for goes by, as one wait however many calls it takes."""
        self.clock.sleep(wire.span(request.timeout), more=self._waited)
        self._waited = True
        return calls.AwaitDecisionResponse(state=calls.AWAIT_STATE_WAITING)

    def _begin(self, request: calls.BeginAttemptRequest) -> calls.BeginAttemptResponse:
        step = self._steps[request.run, request.step]
        self._of_run(step, request.run_attempt)
        known = step.begun.get(request.request_id)
        if known is not None:
            replay = _copy(known)
            replay.replayed = True
            return replay
        response = calls.BeginAttemptResponse()
        refusal = self._refusal(step)
        if refusal is not None:
            response.refusal.CopyFrom(refusal)
            return response
        step.attempts += 1
        step.fence += 1
        grant = response.grant
        grant.attempt, grant.fence = step.attempts, step.fence
        lease = wire.span(request.lease) if request.HasField("lease") else _LEASE
        wire.fill_span(grant.lease, lease)
        wire.fill_span(grant.heartbeat_every, lease / 3)
        grant.counters.attempts, grant.counters.retries = step.attempts, step.retries
        step.begun[request.request_id] = response
        return response

    def _refusal(self, step: _Step) -> step_pb2.Decision | None:
        if self._refusals:
            return self._refusals.popleft()
        if step.end is not None:
            return step.end
        left = step.due - self.clock.now()
        return wait(left, "NOT_DUE") if left > 0 else None

    def _report(self, request: calls.ReportAttemptRequest) -> calls.ReportAttemptResponse:
        step = self._steps[request.run, request.step]
        if not request.fence:
            step.attempts += 1
        decision = _copy(self._decision(step, request))
        decision.counters.attempts, decision.counters.retries = step.attempts, step.retries
        return calls.ReportAttemptResponse(
            decision=decision, attempt=step.attempts, status=calls.REPORT_STATUS_RECORDED
        )

    def _decision(self, step: _Step, request: calls.ReportAttemptRequest) -> step_pb2.Decision:
        if request.HasField("success"):
            step.end = done()
            return step.end
        decision = self._decisions.popleft() if self._decisions else self._by_rule(step, request)
        if decision.verdict == step_pb2.VERDICT_RETRY:
            step.retries += 1
            step.due = self.clock.now() + wire.span(decision.delay)
        elif decision.verdict in (step_pb2.VERDICT_STOP, step_pb2.VERDICT_DONE):
            step.end = decision
        return decision

    def _by_rule(self, step: _Step, request: calls.ReportAttemptRequest) -> step_pb2.Decision:
        failure = request.failure
        if failure.HasField("retryable") and not failure.retryable:
            return stop("NOT_RETRYABLE")
        if wire.word_of_class(failure) == "CANCELED":
            return stop("CANCELED")
        return stop("RETRIES_SPENT") if step.retries >= self._max_retries else retry(self._delay)

    def _batch(self, request: calls.BatchReportAttemptsRequest) -> calls.BatchReportAttemptsResponse:
        results = [
            calls.BatchReportResult(run=each.run, step=each.step, response=self._report(each))
            for each in request.reports
        ]
        return calls.BatchReportAttemptsResponse(results=results)

    def _heartbeat(self, request: calls.HeartbeatRequest) -> calls.HeartbeatResponse:
        step = self._steps[request.run, request.step]
        if request.fence != step.fence or step.end is not None:
            return calls.HeartbeatResponse(state=calls.LEASE_STATE_LOST)
        response = calls.HeartbeatResponse(state=calls.LEASE_STATE_HELD)
        wire.fill_span(response.lease, wire.span(request.lease) or _LEASE)
        return response

    def _get_step(self, request: calls.GetStepRequest) -> Answer:
        key = (request.run, request.step)
        if key not in self._steps:
            return Unanswered("NOT_FOUND", "there is no such step", reason="STEP_NOT_FOUND")
        return calls.GetStepResponse(step=self._record(*key))

    def _record(self, run: str, name: str) -> step_pb2.Step:
        step = self._steps[run, name]
        message = step_pb2.Step(run=run, step=name, fence=step.fence)
        message.counters.attempts, message.counters.retries = step.attempts, step.retries
        message.state = step_pb2.STEP_STATE_WAITING
        if step.end is not None:
            won = step.end.verdict == step_pb2.VERDICT_DONE
            message.state = step_pb2.STEP_STATE_SUCCEEDED if won else step_pb2.STEP_STATE_FAILED
        return message

    def _of_run(self, step: _Step, run_attempt: int) -> None:
        """A step as a later attempt of its run finds it: begun anew, unless it is over and stays so."""
        if run_attempt <= step.run_attempt:
            return
        is_of_earlier = step.run_attempt > 0 or (run_attempt > 1 and step.end is not None)
        if is_of_earlier and step.end is not None and not self._starts_again(step.end):
            return
        if is_of_earlier:
            step.end, step.retries = None, 0
        step.run_attempt = run_attempt

    def _starts_again(self, end: step_pb2.Decision) -> bool:
        return end.verdict == step_pb2.VERDICT_STOP or self._resume == "RESUME_ALL_STEPS"

    def _begin_run(self, request: calls.BeginRunRequest) -> calls.BeginRunResponse:
        begin = calls.BeginAttemptRequest(run=request.run, request_id=request.request_id)
        if request.HasField("lease"):
            begin.lease.CopyFrom(request.lease)
        as_step = self._begin(begin)
        response = calls.BeginRunResponse(replayed=as_step.replayed)
        if as_step.HasField("refusal"):
            response.refusal.CopyFrom(as_step.refusal)
            return response
        grant = as_step.grant
        response.grant.CopyFrom(
            calls.RunGrant(
                attempt=grant.attempt,
                fence=grant.fence,
                lease=grant.lease,
                heartbeat_every=grant.heartbeat_every,
                counters=grant.counters,
                resume=self._resume,
            )
        )
        return response

    def _report_run(self, request: calls.ReportRunRequest) -> calls.ReportRunResponse:
        as_step = calls.ReportAttemptRequest(run=request.run, fence=request.fence)
        if request.HasField("failure"):
            as_step.failure.CopyFrom(request.failure)
        else:
            as_step.success.SetInParent()
        report = self._report(as_step)
        return calls.ReportRunResponse(decision=report.decision, attempt=report.attempt, status=report.status)

    def _get_run(self, request: run_pb2.GetRunRequest) -> Answer:
        if (request.run, "") not in self._steps:
            return Unanswered("NOT_FOUND", "there is no such run", reason="RUN_NOT_FOUND")
        run = run_pb2.Run(record=self._record(request.run, ""), resume=self._resume)
        return run_pb2.GetRunResponse(run=run)

    def _run_steps(self, request: run_pb2.ListRunStepsRequest) -> run_pb2.ListRunStepsResponse:
        response = run_pb2.ListRunStepsResponse()
        for run, name in sorted(self._steps):
            record, run_attempt = self._record(run, name), self._steps[run, name].run_attempt
            is_wanted = not request.states or record.state in request.states
            if run == request.run and run_attempt > 0 and is_wanted:
                response.steps.add(
                    step=name, state=record.state, counters=record.counters, run_attempt=run_attempt
                )
        return response


class _Transport:
    def __init__(self, fake: FakeService) -> None:
        self._fake = fake

    def call(self, call: Call) -> Answer:
        return self._fake.answer(call)

    def close(self) -> None:
        pass


class _AsyncTransport:
    def __init__(self, fake: FakeService) -> None:
        self._fake = fake

    async def call(self, call: Call) -> Answer:
        return self._fake.answer(call)

    async def close(self) -> None:
        pass


def retry(after: Span = 0.0, reason: str = "BACKOFF") -> step_pb2.Decision:
    """Try again after so long."""
    return _decision("RETRY", reason, after)


def wait(until: Span | None = None, reason: str = "NOT_DUE") -> step_pb2.Decision:
    """Ask again after so long. None names no instant."""
    return _decision("WAIT", reason, until)


def stop(reason: str = "RETRIES_SPENT") -> step_pb2.Decision:
    """Do not try again."""
    return _decision("STOP", reason)


def hold(reason: str = "EXHAUSTED") -> step_pb2.Decision:
    """A person decides."""
    return _decision("HOLD", reason)


def done(reason: str = "SUCCEEDED") -> step_pb2.Decision:
    """Nothing is left to do."""
    return _decision("DONE", reason)


def away(times: int = 1, retry_delay: Span | None = None) -> Iterable[Answer]:
    """So many answers of nobody, for `FakeService.answers`."""
    delay = None if retry_delay is None else seconds(retry_delay)
    return [Unanswered("UNAVAILABLE", "scripted", delay)] * times


def _decision(verdict: str, reason: str, delay: Span | None = None) -> step_pb2.Decision:
    decision = step_pb2.Decision(verdict=f"VERDICT_{verdict}", reason=f"REASON_{reason}")
    if delay is not None:
        wire.fill_span(decision.delay, seconds(delay))
    return decision


def _copy(message: _M) -> _M:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
