"""The behaviour that clients in every language share, as cases."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import subprocess
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, timezone
from typing import Any, cast

import grpc
import pytest
from google.protobuf import any_pb2, json_format
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from server import ROOT

import reprise
from reprise._proto import policy_pb2
from reprise._proto import retry_service_pb2 as calls
from reprise.aio import AsyncStepLoop
from reprise.classify import built_in
from reprise.client import StepLoop
from reprise.course import Course
from reprise.effects import AWAIT, HEARTBEAT, METHODS, Answer, Call
from reprise.errors import Unanswered
from reprise.fallback import Alone, Fallback
from reprise.heartbeat import Lease, keep
from reprise.model import Counters
from reprise.retry_after import retry_after
from reprise.service import Service
from reprise.settings import Address
from reprise.testing import FakeService, FixedChance, VirtualClock

FOLDER = ROOT / "tests/vectors/client"
Case = dict[str, Any]


def cases(name: str) -> pytest.MarkDecorator:
    found = json.loads((FOLDER / name).read_text())["cases"]
    ids = [str(case.get("name", number)) for number, case in enumerate(found)]
    return pytest.mark.parametrize("case", found, ids=ids)


# The course of a step


class Script(FakeService):
    """Answers as a case says, and holds what is asked to what it expects."""

    def __init__(self, case: Case) -> None:
        super().__init__(draw=case.get("client", {}).get("draw", 0.5))
        self.left = list(case["exchange"])
        self._names: dict[str, str] = {}

    def answer(self, call: Call) -> Answer:
        if call.method is AWAIT and (not self.left or self.left[0]["call"] != AWAIT.name):
            return self._wait(cast("calls.AwaitDecisionRequest", call.request))
        assert self.left, f"at {self.clock.time} nothing was expected: {call}"
        expected = self.left.pop(0)
        assert call.method.name == expected["call"]
        assert self.clock.time == pytest.approx(expected["at_s"], abs=1e-6)
        self.matches(expected["request"], json_format.MessageToDict(call.request))
        self.clock.advance(expected.get("after_s", 0))
        return scripted(expected, {method.name: method for method in METHODS}[call.method.name].response)

    def matches(self, expected: Any, found: Any) -> None:
        if isinstance(expected, dict):
            for name, value in expected.items():
                self.matches(value, found.get(name))
        elif isinstance(expected, str) and expected.startswith("$"):
            assert self._names.setdefault(expected, found) == found
            assert len(set(self._names.values())) == len(self._names), "another name is other bytes"
        else:
            assert found == expected


def scripted(entry: Case, response: type[Message]) -> Answer:
    if "error" in entry:
        error = entry["error"]
        return Unanswered(error["code"], "scripted", error.get("retry_delay_s"), error.get("reason", ""))
    return json_format.ParseDict(entry["answer"], response())


class Scripted(Exception):
    """What an attempt of a case raises."""


def classifier(error: BaseException) -> reprise.Failure | None:
    if not isinstance(error, Scripted):
        return None
    told = error.args[0]
    return reprise.Failure(
        reprise.FailureClass(told["class"]),
        retryable=told.get("retryable", True),
        pushback=told.get("pushback_s"),
    )


def options(case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
    step = dict(case.get("step", {}))
    if "inline_policy" in step:
        step["policy"] = json_format.ParseDict(step.pop("inline_policy"), policy_pb2.Policy())
    for name in ("lease_s", "time_left_s", "max_wait_s"):
        if name in step:
            step[name.removesuffix("_s")] = step.pop(name)
    client = {"patience": case.get("client", {}).get("patience_s", 1.0), "classifiers": [classifier]}
    return client, {"run": "r", **step}


def act(script: Script, attempt: Case, cancellation: type[BaseException]) -> None:
    """What the body of an attempt does."""
    script.clock.advance(attempt["takes_s"])
    if attempt.get("canceled"):
        raise cancellation
    if "fails" in attempt:
        raise Scripted(attempt["fails"])


@cases("course.json")
def test_course(case: Case) -> None:
    script = Script(case)
    ours, said = options(case)
    client = script.client(**ours)
    loop = client.step("s", **said)
    bodies = list(case["attempts"])

    def go() -> None:
        for attempt in loop:
            with attempt:
                act(script, bodies.pop(0), KeyboardInterrupt)

    raised = caught(go)
    check(case, script, loop, bodies, raised, client.owed)


@cases("course.json")
async def test_course_in_asyncio(case: Case) -> None:
    script = Script(case)
    ours, said = options(case)
    client = script.async_client(**ours)
    loop = client.step("s", **said)
    bodies = list(case["attempts"])

    async def go() -> None:
        async for attempt in loop:
            async with attempt:
                act(script, bodies.pop(0), asyncio.CancelledError)

    raised = await caught_async(go)
    check(case, script, loop, bodies, raised, client.owed)


def caught(go: Callable[[], None]) -> BaseException | None:
    try:
        go()
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, AssertionError):
            raise
        return error
    return None


async def caught_async(go: Callable[[], Awaitable[None]]) -> BaseException | None:
    try:
        await go()
    except (Exception, asyncio.CancelledError) as error:
        if isinstance(error, AssertionError):
            raise
        return error
    return None


ENDS: dict[str, type[BaseException] | tuple[type[BaseException], ...]] = {
    "failed": Scripted,
    "canceled": (KeyboardInterrupt, asyncio.CancelledError),
    "stopped": reprise.Stopped,
    "on-hold": reprise.OnHold,
    "retry-later": reprise.RetryLater,
    "no-service": reprise.NoService,
    "refused": reprise.CallRefused,
}


def check(
    case: Case,
    script: Script,
    loop: StepLoop | AsyncStepLoop,
    bodies: list[Case],
    raised: BaseException | None,
    owed: int,
) -> None:
    ends, course = case["ends"], loop.course
    assert script.left == [], "calls that were never made"
    assert bodies == [], "attempts that were never run"
    if ends["how"] in ENDS:
        assert isinstance(raised, ENDS[ends["how"]]), raised
    else:
        assert raised is None
        assert course.succeeded == (ends["how"] == "succeeded")
    assert script.clock.time == pytest.approx(ends["at_s"], abs=1e-6)
    assert told(course, ends, owed) == {key: ends[key] for key in TOLD if key in ends}


TOLD = ("verdict", "reason", "local", "status", "owed")


def told(course: Course, ends: Case, owed: int) -> Case:
    decision, status = course.decision, course.status
    found = {
        "verdict": decision.verdict.value if decision else None,
        "reason": decision.reason.value if decision else None,
        "local": course.local,
        "status": status.value if status else None,
        "owed": owed,
    }
    return {key: value for key, value in found.items() if key in ends}


# Heartbeats


@cases("heartbeat.json")
def test_heartbeat(case: Case) -> None:
    clock = VirtualClock()
    service = Service(clock, FixedChance(), call_timeout=5.0, debts_max=1)
    told_at: list[float] = []
    lease = Lease(case["lease_s"], 0.0, lambda: told_at.append(clock.time))
    plan = keep(service, lease, calls.HeartbeatRequest(), case["every_s"])
    left = list(case["exchange"])
    answer: Answer | None = None
    while True:
        try:
            effect = plan.send(answer)
        except StopIteration:
            break
        answer = None
        if isinstance(effect, Call):
            expected = left.pop(0)
            assert clock.time == pytest.approx(expected["at_s"])
            answer = scripted(expected, HEARTBEAT.response)
        elif clock.time + effect.seconds > case["until_s"]:
            break
        else:
            clock.sleep(effect.seconds)
    ends = case["ends"]
    assert left == []
    assert lease.lost == ends["lost"]
    assert lease.cancel_requested == ends.get("cancel_requested", False)
    assert told_at == ([ends["told_at_s"]] if "told_at_s" in ends else [])
    if "lease_until_s" in ends:
        assert lease.until == pytest.approx(ends["lease_until_s"])


# Errors


class Response:
    def __init__(self, status: int, headers: dict[str, str]) -> None:
        self.status_code = status
        self.headers = headers


class StatusError(Exception):
    """What httpx and requests raise looks like this."""

    def __init__(self, error: Case) -> None:
        super().__init__(f"status {error['http_status']}")
        self.response = Response(error["http_status"], error.get("headers", {}))


class RpcError(Exception):
    """What grpc raises looks like this."""

    def __init__(self, error: Case) -> None:
        super().__init__("rpc")
        self._error = error

    def code(self) -> grpc.StatusCode:
        return {code.value[0]: code for code in grpc.StatusCode}[self._error["grpc_code"]]

    def trailing_metadata(self) -> list[tuple[str, bytes]]:
        if "retry_info_s" not in self._error:
            return []
        info = error_details_pb2.RetryInfo()
        info.retry_delay.FromTimedelta(timedelta(seconds=self._error["retry_info_s"]))
        detail = any_pb2.Any()
        detail.Pack(info)
        status = status_pb2.Status(code=self._error["grpc_code"], details=[detail])
        return [("grpc-status-details-bin", status.SerializeToString())]


def raised_from(cause: BaseException) -> BaseException:
    try:
        raise ValueError("wrapper") from cause
    except ValueError as error:
        return error


def raised_while(handling: BaseException) -> BaseException:
    try:
        try:
            raise handling
        except BaseException:
            raise ValueError("another")  # noqa: B904 - without a relation is the case
    except ValueError as error:
        return error


def not_retryable(error: Case) -> BaseException:
    told = reprise.NotRetryable("no")
    if "http_status" in error:
        told.__cause__ = StatusError(error)
    return told


KINDS: dict[str, Callable[[Case], BaseException]] = {
    "connection-refused": lambda _: ConnectionRefusedError(),
    "connection-reset": lambda _: ConnectionResetError(),
    "name-not-resolved": lambda _: socket.gaierror(-2, "not known"),
    "timeout": lambda _: TimeoutError(),
    "interrupted": lambda _: KeyboardInterrupt(),
    "task-cancelled": lambda _: asyncio.CancelledError(),
    "disk-full": lambda _: OSError(errno.ENOSPC, "full"),
    "out-of-memory": lambda _: MemoryError(),
    "file-not-found": lambda _: FileNotFoundError(errno.ENOENT, "missing"),
    "process-exited": lambda e: subprocess.CalledProcessError(e["exit_code"], "cmd"),
    "process-killed": lambda e: subprocess.CalledProcessError(-e["signal"], "cmd"),
    "process-timed-out": lambda _: subprocess.TimeoutExpired("cmd", 1.0),
    "bug": lambda _: KeyError("missing"),
    "wrapped": lambda e: raised_from(StatusError(e)),
    "while-handling": lambda e: raised_while(StatusError(e)),
    "wish": lambda e: reprise.RetryRequested(delay=e["wish_delay_s"], max_retries=e["wish_max_retries"]),
    "not-retryable": not_retryable,
}


def build(error: Case) -> BaseException:
    if "kind" in error:
        return KINDS[error["kind"]](error)
    return StatusError(error) if "http_status" in error else RpcError(error)


@cases("classify.json")
def test_classify(case: Case) -> None:
    failure = built_in(build(case["error"]))
    assert failure.failure_class.value == case["class"]
    assert failure.pushback == case.get("pushback_s")
    assert failure.exit_code == case.get("exit_code")
    assert failure.signal == case.get("signal")
    assert failure.wish_delay == case.get("wish_delay_s")
    assert failure.wish_max_retries == case.get("wish_max_retries")
    assert failure.retryable == case.get("retryable", True)
    if "kind" not in case["error"]:
        assert failure.http_status == case["error"].get("http_status")
        assert failure.grpc_code == case["error"].get("grpc_code")


@cases("retry_after.json")
def test_retry_after(case: Case) -> None:
    now = datetime(2026, 10, 21, 7, 28, tzinfo=timezone.utc)
    assert retry_after(case["value"], date=case.get("date"), now=now) == case["seconds"]


@cases("fallback.json")
def test_fallback(case: Case) -> None:
    given = case["fallback"]
    fallback = Fallback(given["max_retries"], given["delay_s"], given["factor"], given["delay_max_s"])
    alone = Alone(fallback, FixedChance(case["draw"]), Counters(), None)
    failure = reprise.Failure(reprise.FailureClass.TRANSIENT)
    waits = []
    while (decision := alone.decide(failure, None)).verdict is reprise.Verdict.RETRY:
        waits.append(cast("float", decision.delay))
    assert waits == pytest.approx(case["waits_s"])
    assert (decision.verdict, decision.local) == (reprise.Verdict.STOP, True)


@cases("address.json")
def test_address(case: Case) -> None:
    if case.get("refused"):
        with pytest.raises(reprise.ConfigurationError, match="accepted is|must be absolute"):
            Address.parse(case["address"])
    else:
        assert Address.parse(case["address"]) == Address(case["target"], case["tls"])
