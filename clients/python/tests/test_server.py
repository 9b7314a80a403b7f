"""The client against a real server, over TCP and over a Unix socket."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from server import binary

import reprise
from reprise import (
    AsyncClient,
    Backoff,
    Client,
    FailureClass,
    Policy,
    Reason,
    ReportStatus,
    StepState,
    Verdict,
)
from reprise.connection import AioConnection, Connection
from reprise.effects import HEARTBEAT, Answer, Call
from reprise.settings import Settings

QUICK = Policy(max_retries=3, backoff=Backoff.fixed(0.1, jitter="none"))


class Flaky:
    """Fails so many times, then works."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.calls = 0
        self._failures = failures
        self._error = error or ConnectionResetError("peer")

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self._failures:
            raise self._error
        return "done"


def test_a_step_fails_waits_and_succeeds(address: str, run: str) -> None:
    work = Flaky(2)
    with Client(address) as client:
        began = time.monotonic()
        loop = client.step("load", run=run, policy=QUICK)
        numbers = []
        for attempt in loop:
            with attempt:
                numbers.append(attempt.number)
                work()
        assert numbers == [1, 2, 3]
        assert time.monotonic() - began >= 0.2
        assert loop.succeeded
        assert not loop.local
        assert loop.decision is not None
        assert loop.decision.verdict is Verdict.DONE

        step = client.get_step("load", run=run)
        assert step is not None
        assert (step.state, step.counters.attempts, step.counters.retries) == (StepState.SUCCEEDED, 3, 2)
        assert step.message.attempts[0].error_type == "ConnectionResetError"


async def test_the_same_in_asyncio(address: str, run: str) -> None:
    work = Flaky(2)
    async with AsyncClient(address) as client:
        loop = client.step("load", run=run, policy="quick")
        async for attempt in loop:
            async with attempt:
                assert reprise.current_attempt() is attempt
                work()
        assert work.calls == 3
        assert loop.succeeded
        step = await client.get_step("load", run=run)
        assert step is not None
        assert step.state is StepState.SUCCEEDED


def test_the_last_exception_is_raised_with_the_decision(address: str, run: str) -> None:
    work = Flaky(9, ValueError("bad input"))
    with Client(address) as client, pytest.raises(ValueError, match="bad input") as caught:
        for attempt in client.step("load", run=run, policy=Policy(max_retries=1)):
            with attempt:
                work()
    assert work.calls == 2
    decision = reprise.decision_of(caught.value)
    assert decision is not None
    assert (decision.verdict, decision.reason) == (Verdict.STOP, Reason.RETRIES_SPENT)
    assert not decision.local
    if hasattr(caught.value, "__notes__"):
        assert "STOP" in caught.value.__notes__[0]


def test_a_step_that_is_done_is_not_run_again(address: str, run: str) -> None:
    with Client(address) as client:
        for attempt in client.step("load", run=run):
            with attempt:
                pass
        loop = client.step("load", run=run)
        assert list(loop) == []
        assert loop.decision is not None
        assert loop.decision.verdict is Verdict.DONE
        assert not loop.succeeded


def test_a_step_that_has_failed_before_is_not_run_again(address: str, run: str) -> None:
    with Client(address) as client:
        client.report("load", run=run, attempt=1, failure=FailureClass.FAILURE, policy="once")
        with pytest.raises(reprise.Stopped) as caught:
            next(client.step("load", run=run))
    assert caught.value.decision.reason is Reason.RETRIES_SPENT


def test_every_call_by_itself(address: str, run: str) -> None:
    with Client(address) as client:
        identity = os.urandom(16)
        begun = client.begin("load", run=run, request_id=identity, lease=20)
        assert begun.grant is not None
        again = client.begin("load", run=run, request_id=identity, lease=20)
        assert again.replayed
        assert again.grant is not None
        assert again.grant.fence == begun.grant.fence
        refusal = client.begin("load", run=run).refusal
        assert refusal is not None
        assert refusal.reason is Reason.IN_PROGRESS
        beat = client.heartbeat("load", run=run, fence=begun.grant.fence)
        assert beat.state is reprise.LeaseState.HELD
        assert 19 < beat.lease <= 20
        report = client.report("load", run=run, fence=begun.grant.fence)
        assert report.status is ReportStatus.RECORDED
        assert report.decision.verdict is Verdict.DONE
        assert client.report("load", run=run, fence=begun.grant.fence).replayed
        assert client.get_step("nobody", run=run) is None


def test_a_batch_is_answered_item_by_item(address: str, run: str) -> None:
    items: list[reprise.Item] = [{"run": run, "step": f"s{n}", "attempt": 1} for n in range(300)]
    items[7]["failure"] = FailureClass.TRANSIENT
    items[8]["policy"] = "nowhere"
    with Client(address) as client:
        results = client.report_batch(items)
    assert len(results) == 300
    failed, refused = results[7], results[8]
    assert isinstance(failed, reprise.Report)
    assert failed.decision.verdict is Verdict.RETRY
    assert isinstance(refused, reprise.CallRefused)
    assert refused.answer.reason == "POLICY_NOT_FOUND"
    done = [each for each in results if isinstance(each, reprise.Report)]
    assert sum(each.decision.verdict is Verdict.DONE for each in done) == 298


def test_what_is_wrong_is_told_by_field(address: str, run: str) -> None:
    with Client(address) as client, pytest.raises(reprise.CallRefused) as caught:
        next(client.step("bad name!", run=run))
    assert caught.value.answer.code == "INVALID_ARGUMENT"
    assert "step" in caught.value.answer.violations


def test_a_hold_is_waited_for_until_its_time_is_up(address: str, run: str) -> None:
    with Client(address) as client:
        with pytest.raises(reprise.OnHold) as caught:
            for attempt in client.step("load", run=run, policy="people", wait_for_person=False):
                with attempt:
                    raise ValueError("bad input")
        assert isinstance(caught.value.__cause__, ValueError)
        assert caught.value.decision.verdict is Verdict.HOLD
        with pytest.raises(reprise.Stopped):
            next(client.step("load", run=run))


def test_pushback_is_passed_on(address: str, run: str) -> None:
    class Throttled(Exception):
        retry_after = 600.0

    with Client(address) as client, pytest.raises(reprise.RetryLater) as caught:
        for attempt in client.step("load", run=run, policy=QUICK, max_wait=1):
            with attempt:
                raise Throttled
    assert caught.value.decision.reason is Reason.PUSHBACK
    assert caught.value.decision.delay == pytest.approx(600, abs=1)


def test_a_deadline_ends_the_step(address: str, run: str) -> None:
    policy = Policy(max_retries=9, backoff=Backoff.fixed(60, jitter="none"))
    with Client(address) as client, pytest.raises(ValueError) as caught:
        for attempt in client.step("load", run=run, policy=policy, time_left=5):
            with attempt:
                assert attempt.time_left is not None
                assert 4 < attempt.time_left <= 5
                raise ValueError
    decision = reprise.decision_of(caught.value)
    assert decision is not None
    assert decision.reason is Reason.DEADLINE


def test_an_interrupt_is_reported_as_cancelled(address: str, run: str) -> None:
    with Client(address) as client:
        with pytest.raises(KeyboardInterrupt):
            for attempt in client.step("load", run=run, policy=QUICK):
                with attempt:
                    raise KeyboardInterrupt
        step = client.get_step("load", run=run)
    assert step is not None
    assert step.decision is not None
    assert (step.state, step.decision.reason) == (StepState.FAILED, Reason.CANCELED)


async def test_a_cancelled_task_is_reported_as_cancelled(address: str, run: str) -> None:
    async with AsyncClient(address) as client:
        inside = asyncio.Event()

        async def work() -> None:
            async for attempt in client.step("load", run=run, policy=QUICK):
                async with attempt:
                    inside.set()
                    await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        step = await client.get_step("load", run=run)
    assert step is not None
    assert step.decision is not None
    assert step.decision.reason is Reason.CANCELED


def test_heartbeats_keep_a_lease_longer_than_it_lasts(address: str, run: str) -> None:
    with Client(address) as client, Client(address) as rival:
        for attempt in client.step("load", run=run, lease=1):
            with attempt:
                time.sleep(2.2)  # Longer than the lease: it is what is tested.
                refusal = rival.begin("load", run=run).refusal
                assert refusal is not None
                assert refusal.reason is Reason.IN_PROGRESS
                assert not attempt.lost
        step = client.get_step("load", run=run)
    assert step is not None
    assert step.counters.attempts == 1


class Gate(Connection):
    """A connection whose heartbeats are held back, as those of a process that was paused."""

    def __init__(self, address: str) -> None:
        super().__init__(Settings.of(address))
        self.open = threading.Event()

    def call(self, call: Call) -> Answer:
        if call.method is HEARTBEAT:
            self.open.wait()
        return super().call(call)


class AioGate(AioConnection):
    """The same for asyncio."""

    def __init__(self, address: str) -> None:
        super().__init__(Settings.of(address))
        self.open = asyncio.Event()

    async def call(self, call: Call) -> Answer:
        if call.method is HEARTBEAT:
            await self.open.wait()
        return await super().call(call)


AT_ONCE = Policy(max_retries=3)


async def test_a_task_whose_lease_is_lost_is_cancelled(address: str, run: str) -> None:
    """Another worker takes over while the first one is paused; its work is what counts."""
    gate = AioGate(address)
    async with AsyncClient(transport=gate) as client, AsyncClient(address) as rival:
        loop = client.step("load", run=run, lease=1, policy=AT_ONCE, when_lost="cancel")
        async for attempt in loop:
            async with attempt:
                async for other in rival.step("load", run=run):
                    async with other:
                        assert other.number == 2
                gate.open.set()
                await asyncio.Event().wait()
        assert attempt.lost
        assert not loop.succeeded
        assert loop.decision is not None
        assert loop.decision.verdict is Verdict.DONE
        assert loop.course.status is ReportStatus.STALE


def test_a_thread_whose_lease_is_lost_is_told(address: str, run: str) -> None:
    told = threading.Event()
    gate = Gate(address)
    with Client(transport=gate) as client, Client(address) as rival:

        @reprise.retry("load", run=run, client=client, policy=AT_ONCE, lease=1, on_lost=lambda _: told.set())
        def work() -> None:
            attempt = reprise.current_attempt()
            assert attempt is not None
            for other in rival.step("load", run=run):
                with other:
                    pass
            gate.open.set()
            assert told.wait(10)
            attempt.check()

        with pytest.raises(reprise.AlreadyDone):
            work()
        step = client.get_step("load", run=run)
    assert step is not None
    assert step.counters.crashes == 1


def test_a_pool_of_one_is_held_by_one(address: str, run: str) -> None:
    with Client(address) as client:
        begun = client.begin("one", run=run, targets=["narrow-pool"])
        assert begun.grant is not None
        refusal = client.begin("two", run=run, targets=["narrow-pool"]).refusal
        assert refusal is not None
        assert refusal.reason is Reason.IN_LINE
        client.report("one", run=run, fence=begun.grant.fence)
        for attempt in client.step("two", run=run, targets=["narrow-pool"], max_wait=20):
            with attempt:
                assert attempt.number == 1


def test_a_socket_is_found_by_the_environment(
    shared_server: object, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(getattr(shared_server, "path", None), Path)
    monkeypatch.setenv("REPRISE_ADDR", shared_server.unix)  # type: ignore[attr-defined]

    @reprise.retry(policy="quick")
    def work() -> int:
        attempt = reprise.current_attempt()
        assert attempt is not None
        assert not attempt.local
        return attempt.number

    assert work() == 1


class Counting(Connection):
    """A connection that counts its calls."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.calls: Counter[str] = Counter()

    def call(self, call: Call) -> Answer:
        self.calls[call.method.name] += 1
        return super().call(call)


def answer_hold(address: str, run: str) -> None:
    """Answers for a person as soon as the step is held."""
    with Client(address) as client:
        while (step := client.get_step("load", run=run)) is None or step.state is not StepState.HELD:
            time.sleep(0.02)
    command = [str(binary()), "hold", "resolve", run, "load", "--answer", "retry", "--reason", "mended"]
    subprocess.run([*command, "--by", "ann", "--addr", address], check=True, capture_output=True)


def test_the_answer_of_a_person_is_told_at_once(address: str, run: str) -> None:
    connection = Counting(Settings.of(address))
    with Client(address, transport=connection) as client:
        loop = client.step("load", run=run, policy="patient")
        for attempt in loop:
            with attempt:
                if attempt.number == 1:
                    threading.Thread(target=answer_hold, args=(address, run)).start()
                    raise ConnectionResetError("peer")
        assert loop.succeeded
    assert connection.calls["AwaitDecision"] > 0
    assert connection.calls["BeginAttempt"] == 2, "it was told, and has not asked again and again"
