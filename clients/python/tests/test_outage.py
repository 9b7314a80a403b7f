"""A real server that is absent, killed and restarted; processes that share its limits."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from server import Server

import reprise
from reprise import AsyncClient, Backoff, Client, Fallback, Policy, StepState, Unanswered, Verdict
from reprise.connection import Connection
from reprise.effects import BEGIN, Answer, Call
from reprise.settings import Settings

AT_ONCE = Policy(max_retries=5)
#: A fallback that does not keep a test waiting.
SOON = Fallback(max_retries=3, delay=0.05)


def until(condition: object, patience: float = 20.0) -> None:
    """Waits for something that another thread brings about."""
    assert callable(condition)
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


def test_without_a_service_the_process_decides_alone(own_server: Server, run: str) -> None:
    calls = 0
    with Client(own_server.tcp, patience=0.1, fallback=SOON) as client:
        loop = client.step("load", run=run)
        for attempt in loop:
            with attempt:
                calls += 1
                assert attempt.local
                assert attempt.fence == 0
                if calls < 3:
                    raise ConnectionResetError
        assert loop.succeeded
        assert loop.local
        assert client.owed == 3


def test_alone_the_retries_are_few(own_server: Server, run: str) -> None:
    calls = 0
    with Client(own_server.unix, patience=0.1, fallback=SOON) as client:
        with pytest.raises(ConnectionResetError) as caught:
            for attempt in client.step("load", run=run, policy=Policy(max_retries=100)):
                with attempt:
                    calls += 1
                    raise ConnectionResetError
    assert calls == 4
    decision = reprise.decision_of(caught.value)
    assert decision is not None
    assert decision.local
    assert decision.verdict is Verdict.STOP


def test_an_inline_policy_that_allows_fewer_is_obeyed(own_server: Server, run: str) -> None:
    calls = 0
    with Client(own_server.tcp, patience=0.1, fallback=SOON) as client:
        with pytest.raises(ConnectionResetError):
            for attempt in client.step("load", run=run, policy=Policy(max_retries=1)):
                with attempt:
                    calls += 1
                    raise ConnectionResetError
    assert calls == 2


@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_what_happened_alone_is_delivered_in_order(own_server: Server, run: str, transport: str) -> None:
    address = own_server.tcp if transport == "tcp" else own_server.unix
    with Client(address, patience=0.1, fallback=SOON) as client:
        for attempt in client.step("load", run=run, policy=AT_ONCE):
            with attempt:
                if attempt.number < 3:
                    raise ConnectionResetError(f"attempt {attempt.number}")
        assert client.owed == 3
        own_server.start()
        until(lambda: client.owed == 0)
        step = client.get_step("load", run=run)
    assert step is not None
    assert (step.state, step.counters.attempts, step.counters.retries) == (StepState.SUCCEEDED, 3, 2)
    messages = [attempt.message for attempt in step.message.attempts]
    assert messages == ["attempt 1", "attempt 2", ""]


async def test_the_same_in_asyncio(own_server: Server, run: str) -> None:
    async with AsyncClient(own_server.unix, patience=0.1, fallback=SOON) as client:
        async for attempt in client.step("load", run=run, policy=AT_ONCE):
            async with attempt:
                if attempt.number < 2:
                    raise ConnectionResetError
        assert client.owed == 2
        await asyncio.to_thread(own_server.start)
        assert await client.flush(20)
        step = await client.get_step("load", run=run)
    assert step is not None
    assert (step.state, step.counters.attempts) == (StepState.SUCCEEDED, 2)


def test_a_server_killed_in_the_middle_is_fallen_back_on_and_told_later(own_server: Server, run: str) -> None:
    own_server.start()
    seen = []
    with Client(own_server.tcp, patience=0.2, fallback=SOON) as client:
        loop = client.step("load", run=run, policy=AT_ONCE)
        for attempt in loop:
            with attempt:
                seen.append((attempt.number, attempt.local))
                if attempt.number == 1:
                    raise ConnectionResetError("before")
                if attempt.number == 2:
                    own_server.kill()
                    raise ConnectionResetError("killed")
                if attempt.number == 3:
                    raise ConnectionResetError("alone")
                if attempt.number == 4:
                    own_server.start()
        assert [number for number, _ in seen] == [1, 2, 3, 4]
        assert seen[:3] == [(1, False), (2, False), (3, True)]
        until(lambda: client.owed == 0)
        step = client.get_step("load", run=run)
    assert step is not None
    assert (step.state, step.counters.attempts) == (StepState.SUCCEEDED, 4)
    assert [each.message for each in step.message.attempts] == ["before", "killed", "alone", ""]


def test_an_attempt_that_was_granted_without_our_hearing_of_it_counts(
    shared_server: Server, run: str
) -> None:
    """The answer to the begin is lost on its way; the attempt then runs alone, and succeeds."""

    class Losing(Connection):
        lost = False

        def call(self, call: Call) -> Answer:
            answer = super().call(call)
            if call.method is BEGIN and not self.lost:
                self.lost = True
                return Unanswered("UNAVAILABLE", "the answer was lost")
            return answer

    transport = Losing(Settings.of(shared_server.tcp))
    with Client(transport=transport, patience=0, in_background=False) as client:
        loop = client.step("load", run=run)
        for attempt in loop:
            with attempt:
                assert attempt.local
        assert loop.succeeded
        assert not loop.local
        step = client.get_step("load", run=run)
    assert step is not None
    assert (step.state, step.counters.attempts) == (StepState.SUCCEEDED, 1)


def test_many_threads_and_a_server_that_is_killed_twice(own_server: Server, run: str) -> None:
    """Whatever was lost on the way, in the end the service knows of every step that it succeeded."""
    own_server.start()
    generous = Fallback(max_retries=50, delay=0.02, factor=1.0)
    ready = threading.Semaphore(0)
    with Client(own_server.unix, patience=0.05, call_timeout=2, fallback=generous) as client:

        def work(worker: int) -> None:
            for number in range(12):
                for attempt in client.step(f"s{worker}-{number}", run=run, policy=Policy(max_retries=100)):
                    with attempt:
                        ready.release()
                        if attempt.number == 1:
                            raise ConnectionResetError

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
        for thread in threads:
            thread.start()
        for _ in range(2):
            for _ in range(40):
                assert ready.acquire(timeout=20)
            own_server.kill()
            for _ in range(20):
                assert ready.acquire(timeout=20)
            own_server.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        until(lambda: client.owed == 0)
        for worker in range(8):
            for number in range(12):
                step = client.get_step(f"s{worker}-{number}", run=run)
                assert step is not None
                assert step.state is StepState.SUCCEEDED, (worker, number, step)


def test_who_would_rather_wait_waits(own_server: Server, run: str) -> None:
    own_server.start()
    with Client(own_server.tcp, patience=0.1) as client:
        loop = client.step("load", run=run, policy=AT_ONCE, offline="wait")
        for attempt in loop:
            with attempt:
                assert not attempt.local
                if attempt.number == 1:
                    own_server.kill()
                    back = threading.Timer(0.7, own_server.start)
                    back.start()
                    raise ConnectionResetError
        back.join()
        assert loop.succeeded
        assert not loop.local
        assert attempt.number == 2
        assert client.owed == 0


def test_who_would_rather_fail_fails(own_server: Server, run: str) -> None:
    with Client(own_server.tcp, patience=0.1) as client, pytest.raises(reprise.NoService):
        next(client.step("load", run=run, offline="fail"))


def test_the_service_takes_over_again(own_server: Server, run: str) -> None:
    """A begin that finds the service again is granted by it, with everything that happened before."""
    patient = Fallback(max_retries=100, delay=0.05)
    seen = []
    with Client(own_server.tcp, patience=0.1, fallback=patient, in_background=False) as client:
        for attempt in client.step("load", run=run, policy=Policy(max_retries=100)):
            with attempt:
                seen.append(attempt.number)
                if attempt.number == 1:
                    own_server.start()
                if attempt.local:
                    raise ConnectionResetError
        assert client.owed == 0
    assert seen == list(range(1, len(seen) + 1))


WORKER = """
import sys, time
from reprise import Backoff, Client, Policy
address, run, worker, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
print("ready", flush=True)
sys.stdin.readline()
with Client(address) as client:
    for number in range(count):
        for attempt in client.step(f"call-{worker}-{number}", run=run, targets=["slow-api"], offline="fail"):
            with attempt:
                print(attempt._started.grant.message.began_at.ToMicroseconds(), flush=True)
"""


def test_two_processes_share_a_rate(shared_server: Server, run: str) -> None:
    """10 a second and 2 at once, over both: 24 starts take more than two seconds."""
    command = [sys.executable, "-c", WORKER]
    environment = {"PYTHONPATH": str(Path(reprise.__file__).parent.parent), "PATH": ""}
    addresses = [shared_server.tcp, shared_server.unix]
    workers = [
        subprocess.Popen(
            [*command, address, run, str(number), "12"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number, address in enumerate(addresses)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    outputs = []
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        output, _ = worker.communicate(timeout=60)
        assert worker.returncode == 0
        outputs.append([int(line) for line in output.split()])
    assert [len(each) for each in outputs] == [12, 12]
    starts = sorted(at for each in outputs for at in each)
    for first, one in enumerate(starts):
        for later, other in enumerate(starts[first:]):
            span = (other - one) / 1e6
            assert later + 1 <= 10 * span + 2 + 1e-6, "more than the rate allows"


def test_a_fork_has_a_connection_of_its_own(shared_server: Server, run: str) -> None:
    """Prefork workers inherit a client that their parent has already used."""
    script = """
import os, sys
from reprise import Client
client = Client(sys.argv[1])
assert client.begin("parent", run=sys.argv[2]).grant
child = os.fork()
if child == 0:
    granted = client.begin("child", run=sys.argv[2]).grant
    os._exit(0 if granted else 1)
_, status = os.waitpid(child, 0)
assert client.begin("parent-again", run=sys.argv[2]).grant
sys.exit(os.waitstatus_to_exitcode(status))
"""
    environment = {"PYTHONPATH": str(Path(reprise.__file__).parent.parent)}
    command = [sys.executable, "-W", "ignore", "-c", script, shared_server.tcp, run]
    done = subprocess.run(command, env=environment, timeout=60, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_service_that_accepts_and_never_answers_holds_nobody_up(run: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with Client(address, call_timeout=1, patience=0.1, fallback=SOON, in_background=False) as client:
            began = time.monotonic()
            for attempt in client.step("load", run=run):
                with attempt:
                    assert attempt.local
                    if attempt.number < 3:
                        raise ConnectionResetError
            # One whole timeout, then half a second for each of five calls.
            assert time.monotonic() - began < 5
            assert client.owed == 3


def test_backoff_is_the_services(shared_server: Server, run: str) -> None:
    policy = Policy(max_retries=1, backoff=Backoff.exponential(0.3, jitter="none"))
    with Client(shared_server.tcp) as client:
        for attempt in client.step("load", run=run, policy=policy):
            with attempt:
                if attempt.number == 1:
                    failed = time.monotonic()
                    raise ConnectionResetError
                assert time.monotonic() - failed >= 0.3
