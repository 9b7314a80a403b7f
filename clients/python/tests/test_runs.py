"""Runs against a real server: tried again as a whole, with the steps that they have done left out."""

from __future__ import annotations

import asyncio
import threading

import pytest
from server import Server

import reprise
from reprise import (
    AsyncClient,
    Backoff,
    Client,
    Failure,
    FailureClass,
    Policy,
    Reason,
    Resume,
    RunRetries,
    StepState,
    Verdict,
)
from reprise.effects import REPORT_RUN
from reprise.testing import FakeService

SOON = Backoff.fixed(0.05, jitter="none")
#: A step has one retry, a run one as well.
STEPS = Policy(max_retries=1, backoff=SOON)
RUNS = Policy(max_retries=1, backoff=SOON)
TEN = [f"s{number:02}" for number in range(1, 11)]


class Seventh:
    """Ten pieces of work of which the seventh fails until it is mended."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.mended = False

    def work(self, step: str) -> None:
        if step == "s07" and not self.mended:
            raise ConnectionResetError(step)
        self.done.append(step)


def test_a_run_of_ten_steps_goes_on_at_the_seventh(address: str, run: str) -> None:
    seventh, tried, before = Seventh(), [], []
    with Client(address) as client:
        loop = client.run(run, policy=RUNS)
        for attempt in loop:
            with attempt:
                before.append((attempt.number, attempt.resume, attempt.succeeded_steps()))
                for step in TEN:
                    for one in client.step(step, policy=STEPS):
                        with one:
                            tried.append(step)
                            assert one.run == run
                            assert reprise.current_run() is attempt
                            assert reprise.current_attempt() is one
                            seventh.work(step)
            # Reached when the run goes on: the step's own retry was spent.
            seventh.mended = True
        assert reprise.current_run() is None
        assert seventh.done == TEN
        assert tried == [*TEN[:6], "s07", "s07", "s07", *TEN[7:]]
        assert [each[0] for each in before] == [1, 2]
        assert [each[2] for each in before] == [[], TEN[:6]]
        assert before[1][1] is Resume.FROM_FAILURE
        assert loop.succeeded
        told = client.get_run(run)
        assert told is not None
        assert (told.state, told.counters.attempts, told.counters.retries) == (StepState.SUCCEEDED, 2, 1)
        steps = {each.step: each for each in client.run_steps(run)}
        assert sorted(steps) == TEN
        assert (steps["s01"].run_attempt, steps["s07"].run_attempt) == (1, 2)
        assert steps["s07"].counters.attempts == 3
        assert client.run_steps(run, [StepState.FAILED]) == []
        assert list(client.run(run)) == []
        assert client.get_run("nobody") is None


async def test_the_same_in_asyncio(address: str, run: str) -> None:
    seventh, tried = Seventh(), []
    async with AsyncClient(address) as client:
        async for attempt in client.run(run, policy=RUNS):
            async with attempt:
                for step in TEN:
                    async for one in attempt.step(step, policy=STEPS):
                        async with one:
                            tried.append(step)
                            seventh.work(step)
            if not seventh.mended:
                assert await attempt.succeeded_steps() == TEN[:6]
            seventh.mended = True
        assert tried == [*TEN[:6], "s07", "s07", "s07", *TEN[7:]]
        assert len(await client.run_steps(run, [StepState.SUCCEEDED])) == 10
        told = await client.get_run(run)
        assert told is not None
        assert told.state is StepState.SUCCEEDED


async def test_tasks_of_a_run_belong_to_it_and_fail_it_together(address: str, run: str) -> None:
    """Steps side by side; the one that fails is known as a step's failure through the group it comes in."""
    policy = Policy(max_retries=5, backoff=SOON, run=RunRetries(ignore_step_failures=True))

    class Group(Exception):
        """Looks like what a task group raises, where Python has such."""

        def __init__(self, exceptions: tuple[BaseException, ...]) -> None:
            super().__init__("some failed")
            self.exceptions = exceptions

    async with AsyncClient(address) as client:

        async def work(step: str) -> None:
            async for one in client.step(step, policy=Policy(max_retries=0)):
                async with one:
                    if step == "b":
                        raise ConnectionResetError

        with pytest.raises(Group) as caught:
            async for attempt in client.run(run, policy=policy):
                async with attempt:
                    ended = await asyncio.gather(*map(work, "abc"), return_exceptions=True)
                    raise Group(tuple(each for each in ended if each is not None))
        assert [each.step for each in await client.run_steps(run)] == ["a", "b", "c"]
    decision = reprise.decision_of(caught.value)
    assert decision is not None
    assert decision.reason is Reason.STEP_FAILED


def test_a_run_that_is_out_of_retries_raises_what_the_step_raised(address: str, run: str) -> None:
    with Client(address) as client, pytest.raises(ValueError, match="bad input") as caught:
        for attempt in client.run(run):
            with attempt:
                for one in client.step("load", policy=Policy(max_retries=0)):
                    with one:
                        raise ValueError("bad input")
    decision = reprise.decision_of(caught.value)
    assert decision is not None
    assert (decision.verdict, decision.reason) == (Verdict.STOP, Reason.RETRIES_SPENT)


def test_all_steps_share_the_runs_bound_on_retries(address: str, run: str) -> None:
    """A step alone has nine retries, in each of two attempts of the run: together they have three."""
    bound = Policy(max_retries=1, backoff=SOON, run=RunRetries(max_total_retries=3))
    patient = Policy(max_retries=9, backoff=SOON)
    tried, left = 0, []
    with Client(address) as client:
        with pytest.raises(reprise.Stopped) as caught:
            for attempt in client.run(run, policy=bound):
                with attempt:
                    left.append(attempt.retries_left)
                    for one in client.step("load", policy=patient):
                        with one:
                            tried += 1
                            raise ConnectionResetError
        told = client.get_run(run)
    assert tried == 4
    assert left == [3, 0]
    assert caught.value.decision.reason is Reason.RUN_RETRIES_SPENT
    assert told is not None
    assert told.retries_left == 0


def test_what_a_step_failed_with_may_be_left_to_the_step(address: str, run: str) -> None:
    """The run says whose failure it was: one of its own is worth a retry here, one of a step is not."""
    policy = Policy(max_retries=5, backoff=SOON, run=RunRetries(ignore_step_failures=True))
    numbers = []
    with Client(address) as client, pytest.raises(RuntimeError, match="in vain") as caught:
        for attempt in client.run(run, policy=policy):
            with attempt:
                numbers.append(attempt.number)
                if attempt.number == 1:
                    raise ValueError("the run's own")
                try:
                    for one in client.step("load", policy=Policy(max_retries=0)):
                        with one:
                            raise ConnectionResetError
                except ConnectionResetError as error:
                    raise RuntimeError("in vain") from error
    assert numbers == [1, 2]
    decision = reprise.decision_of(caught.value)
    assert decision is not None
    assert decision.reason is Reason.STEP_FAILED


def test_a_step_of_another_thread_belongs_to_the_attempt_that_begins_it(address: str, run: str) -> None:
    def work(attempt: reprise.SyncRunAttempt) -> None:
        for one in attempt.step("load"):
            with one:
                assert reprise.current_run() is None

    with Client(address) as client:
        for attempt in client.run(run):
            with attempt:
                thread = threading.Thread(target=work, args=[attempt])
                thread.start()
                thread.join()
                assert attempt.succeeded_steps() == ["load"]


def test_a_step_of_another_process_belongs_by_the_attempts_number(address: str, run: str) -> None:
    with Client(address) as client, Client(address) as elsewhere:
        for attempt in client.run(run):
            with attempt:
                for one in elsewhere.step("load", run=run, run_attempt=attempt.number):
                    with one:
                        pass
                assert attempt.succeeded_steps() == ["load"]
                with pytest.raises(reprise.CallRefused):
                    next(elsewhere.step("more", run=run, run_attempt=7))


def test_a_call_of_a_function_within_a_run_has_a_run_of_its_own(address: str, run: str) -> None:
    """Else its second call would be the step that is done."""
    with Client(address) as client:
        charged: list[int] = []

        @reprise.retry("charge", client=client)
        def charge(order: int) -> None:
            charged.append(order)

        for attempt in client.run(run):
            with attempt:
                charge(1)
                charge(2)
                for one in client.step("load", run=f"{run}/other"):
                    with one:
                        pass
        assert charged == [1, 2]
        assert client.run_steps(run) == []


def test_heartbeats_keep_the_lease_of_a_run(address: str, run: str) -> None:
    beaten = threading.Event()
    with Client(address) as client, Client(address) as rival:
        for attempt in client.run(run, lease=1):
            with attempt:
                first = attempt._lease.until
                while attempt._lease.until == first:  # Until a heartbeat has extended it.
                    assert not beaten.wait(0.05)
                assert not attempt.lost
                with pytest.raises(reprise.RetryLater) as caught:
                    next(rival.run(run, max_wait=0))
                assert caught.value.decision.reason is Reason.IN_PROGRESS
        told = client.get_run(run)
    assert told is not None
    assert told.counters.attempts == 1


def test_a_run_is_remembered_over_a_restart(own_server: Server) -> None:
    own_server.start()
    tried = []
    with Client(own_server.unix, patience=10) as client:
        for attempt in client.run("nightly", policy=RUNS):
            with attempt:
                for step in ("extract", "load"):
                    for one in client.step(step, policy=Policy(max_retries=0)):
                        with one:
                            tried.append(step)
                            if tried == ["extract", "load"]:
                                own_server.kill()
                                own_server.start()
                                raise ConnectionResetError
        told = client.get_run("nightly")
    assert tried == ["extract", "load", "load"]
    assert told is not None
    assert (told.state, told.counters.attempts) == (StepState.SUCCEEDED, 2)


def test_a_run_without_a_service_is_decided_here_and_reported_later(own_server: Server) -> None:
    numbers = []
    with Client(own_server.unix, patience=0, fallback=reprise.Fallback(delay=0.01)) as client:
        loop = client.run("nightly", policy=RUNS)
        for attempt in loop:
            with attempt:
                numbers.append((attempt.number, attempt.local))
                if len(numbers) == 1:
                    raise ConnectionResetError
        assert numbers == [(1, True), (2, True)]
        assert loop.succeeded
        assert client.owed == 2
        own_server.start()
        assert client.flush(patience=10)
        told = client.get_run("nightly")
    assert told is not None
    assert told.counters.attempts >= 1


def test_attempts_of_a_run_may_be_reported_one_by_one(address: str, run: str) -> None:
    """By somebody who only hears how they ended: each has an identity, and counts once."""
    first, second = bytes(15) + b"1", bytes(15) + b"2"
    failure = Failure(FailureClass.FAILURE, error_type="STEP_FAILURE")
    with Client(address) as client:
        told = client.report_run(run, request_id=first, failure=failure, step_failed=True, policy=RUNS)
        assert (told.attempt, told.decision.verdict, told.replayed) == (1, Verdict.RETRY, False)
        again = client.report_run(run, request_id=first, failure=failure, step_failed=True, policy=RUNS)
        assert (again.attempt, again.decision.verdict, again.replayed) == (1, Verdict.RETRY, True)
        ended = client.report_run(run, request_id=second)
        assert (ended.attempt, ended.decision.verdict) == (2, Verdict.DONE)
        known = client.get_run(run)
    assert known is not None
    assert (known.state, known.counters.attempts) == (StepState.SUCCEEDED, 2)


async def test_attempts_of_a_run_are_reported_in_asyncio_too(address: str, run: str) -> None:
    policy = Policy(max_retries=5, backoff=SOON, run=RunRetries(ignore_step_failures=True))
    async with AsyncClient(address) as client:
        told = await client.report_run(run, failure=FailureClass.FAILURE, step_failed=True, policy=policy)
    assert told.decision.reason is Reason.STEP_FAILED


def test_a_run_without_a_policy_is_not_tried_again_alone(fake: FakeService) -> None:
    fake.away = True
    with pytest.raises(ValueError):
        for attempt in fake.client(patience=0).run("nightly"):
            with attempt:
                raise ValueError


def test_the_fake_knows_runs() -> None:
    fake, done = FakeService(max_retries=1, delay=60), []
    client = fake.client()
    for attempt in client.run("nightly", policy="nightly"):
        with attempt:
            for step in ("extract", "load"):
                for one in client.step(step, policy="quick", on=TimeoutError):
                    with one:
                        if step == "load" and attempt.number == 1:
                            raise ValueError
                        done.append(step)
            assert attempt.succeeded_steps() == ["extract", "load"]
    assert done == ["extract", "load"]
    assert fake.waits == [60.0]
    reports = [report.step_failed for report in fake.requests(REPORT_RUN)]  # type: ignore[attr-defined]
    assert reports == [True, False]
    told = client.get_run("nightly")
    assert told is not None
    assert told.state is StepState.SUCCEEDED
    assert client.get_run("nobody") is None


def test_the_fake_goes_on_where_the_run_failed() -> None:
    client = FakeService(max_retries=1).client()
    assert done_twice(client) == ["extract", "load"]
    assert {each.step: each.run_attempt for each in client.run_steps("nightly")} == {"extract": 1, "load": 2}


def test_the_fake_begins_all_steps_anew_when_told_so() -> None:
    client = FakeService(max_retries=1, resume="all_steps").client()
    assert done_twice(client) == ["extract", "extract", "load"]
    told = client.get_run("nightly")
    assert told is not None
    assert told.resume is Resume.ALL_STEPS
    steps = {each.step: each for each in client.run_steps("nightly")}
    assert {step: each.run_attempt for step, each in steps.items()} == {"extract": 2, "load": 2}
    assert {step: each.counters.retries for step, each in steps.items()} == {"extract": 0, "load": 0}
    assert steps["extract"].counters.attempts == 2, "numbers go on"


def done_twice(client: Client) -> list[str]:
    """What was done by two attempts of a run, in the first of which `load` fails for good."""
    done = []
    for attempt in client.run("nightly"):
        with attempt:
            for step in ("extract", "load"):
                for one in client.step(step, on=TimeoutError):
                    with one:
                        if step == "load" and attempt.number == 1:
                            raise ValueError
                        done.append(step)
    return done
