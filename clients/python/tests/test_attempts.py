"""Loops, decorators and the fake: what a user sees."""

from __future__ import annotations

import asyncio
import json
import sys
import threading

import pytest

import reprise
from reprise import Reason, Verdict, settings
from reprise._proto import policy_pb2, retry_service_pb2, step_pb2
from reprise.errors import Unanswered
from reprise.fallback import Fallback
from reprise.model import LeaseState, ReportStatus, StepState
from reprise.testing import FakeService, away, done, hold, retry, stop, wait


class Broken(Exception):
    pass


# Loops


def test_decisions_are_obeyed(fake: FakeService) -> None:
    fake.decides(retry(after=30), stop("RULE"))
    fake.refuses(wait(5, "LIMITED"))
    with pytest.raises(Broken) as caught:
        for attempt in fake.client().step("load"):
            with attempt:
                raise Broken
    assert fake.waits == [5.0, 30.0]
    decision = reprise.decision_of(caught.value)
    assert decision is not None
    assert str(decision) == "STOP: rule"


def test_a_loop_may_be_left_after_success(fake: FakeService) -> None:
    for attempt in fake.client().step("load"):
        with attempt:
            break
    assert fake.reports[-1].HasField("success")


def test_an_attempt_that_was_never_run_is_a_mistake(fake: FakeService) -> None:
    with pytest.raises(RuntimeError, match="with attempt"):
        for _ in fake.client().step("load"):
            pass


def test_an_attempt_is_entered_once(fake: FakeService) -> None:
    attempt = next(fake.client().step("load"))
    with attempt:
        pass
    with pytest.raises(RuntimeError, match="once"), attempt:
        pass


def test_what_an_attempt_knows(fake: FakeService) -> None:
    loop = fake.client().step("load", run="today", lease=60, time_left=100)
    for attempt in loop:
        with attempt:
            assert (attempt.run, attempt.step, attempt.number) == ("today", "load", 1)
            assert attempt.fence > 0
            assert not (attempt.local or attempt.lost or attempt.cancel_requested)
            assert attempt.decision is None
            assert attempt.lease_left == 60
            fake.clock.advance(20)
            assert attempt.lease_left == 40
            attempt.check()
            assert reprise.current_attempt() is attempt
    assert reprise.current_attempt() is None
    assert attempt.decision is not None
    assert attempt.decision.verdict is Verdict.DONE


def test_steps_nest(fake: FakeService) -> None:
    client = fake.client()
    for outer in client.step("outer"):
        with outer:
            for inner in client.step("inner"):
                with inner:
                    assert reprise.current_attempt() is inner
            assert reprise.current_attempt() is outer


def test_exceptions_that_are_not_worth_it_are_reported_so(fake: FakeService) -> None:
    for on in (OSError, (OSError, KeyError), lambda error: isinstance(error, OSError)):
        with pytest.raises(Broken):
            for attempt in fake.client().step("load", on=on):
                with attempt:
                    raise Broken
        assert fake.reports[-1].failure.retryable is False
    assert fake.waits == []


def test_a_wish_is_passed_on(fake: FakeService) -> None:
    with pytest.raises(reprise.RetryRequested):
        for attempt in fake.client().step("load"):
            with attempt:
                raise reprise.RetryRequested(delay=12, max_retries=2)
    wish = fake.reports[0].failure.wish
    assert (wish.delay.seconds, wish.max_retries) == (12, 2)


def test_exit_codes_are_passed_on_and_obeyed(fake: FakeService) -> None:
    with pytest.raises(SystemExit):
        for attempt in fake.client().step("load"):
            with attempt:
                sys.exit(3)
    assert fake.reports[-1].failure.exit_code == 3
    with pytest.raises(SystemExit):
        for attempt in fake.client().step("load"):
            with attempt:
                sys.exit(0)
    assert fake.reports[-1].HasField("success")


def test_long_texts_are_cut_not_lost(fake: FakeService) -> None:
    with pytest.raises(Broken):
        for attempt in fake.client().step("load", on=OSError):
            with attempt:
                raise Broken("ä" * 5000 + "\ud800")
    assert len(fake.reports[0].failure.message.encode()) == 4096


def test_decisions_are_told_as_they_come() -> None:
    fake, told = FakeService(max_retries=1), []
    client = fake.client(on_decision=lambda attempt, decision: told.append((attempt.number, decision)))
    with pytest.raises(Broken):
        for attempt in client.step("load"):
            with attempt:
                raise Broken
    assert [(number, decision.verdict) for number, decision in told] == [
        (1, Verdict.RETRY),
        (2, Verdict.STOP),
    ]


def test_errors_with_slots_keep_their_decision_as_a_note(fake: FakeService) -> None:
    class Slotted(Exception):
        __slots__ = ()

    fake.decides(stop())
    with pytest.raises(Slotted):
        for attempt in fake.client().step("load"):
            with attempt:
                raise Slotted


def test_what_is_owed_is_bounded(fake: FakeService) -> None:
    fake.away = True
    client = fake.client(patience=0, debts_max=3, fallback=Fallback(max_retries=9))
    with pytest.raises(Broken):
        for attempt in client.step("load"):
            with attempt:
                raise Broken(str(attempt.number))
    assert (client.owed, client.dropped) == (3, 7)
    fake.away = False
    fake.calls.clear()
    assert client.flush()
    assert [report.failure.message for report in fake.reports] == ["8", "9", "10"]
    assert client.owed == 0


def test_closing_delivers_what_is_owed(fake: FakeService) -> None:
    fake.away = True
    with fake.client(patience=0) as client:
        for attempt in client.step("load"):
            with attempt:
                pass
        assert client.owed == 1
        fake.away = False
    assert client.owed == 0


def test_a_busy_service_is_waited_for_as_long_as_told(fake: FakeService) -> None:
    busy = Unanswered("RESOURCE_EXHAUSTED", "overloaded", 4.0, "OVERLOADED")
    fake.answers("BeginAttempt", busy, busy, busy)
    with pytest.raises(reprise.RetryLater) as later:
        next(fake.client().step("load", max_wait=10))
    assert later.value.delay == 4


@pytest.mark.parametrize(
    "options",
    [
        {"targets": "db"},
        {"offline": "maybe"},
        {"time_left": 1, "deadline": __import__("datetime").datetime.now()},
        {"deadline": __import__("datetime").datetime.now()},
        {"when_lost": "cancel"},
    ],
)
def test_options_that_make_no_sense_are_refused(fake: FakeService, options: dict[str, object]) -> None:
    with pytest.raises(reprise.ConfigurationError, match="accepted is|at most one"):
        fake.client().step("load", **options)  # type: ignore[arg-type]


# One attempt at a time


def test_one_attempt_at_a_time(fake: FakeService) -> None:
    client = fake.client()
    fake.decides(retry(after=30), retry(after=0), stop("RULE"))
    for expected in (30.0, 0.0):
        with pytest.raises(reprise.RetryLater) as later:
            with reprise.once(client, "load", run="today"):
                raise Broken
        assert later.value.delay == expected
        assert isinstance(later.value.__cause__, Broken)
        assert fake.waits == []
        fake.clock.advance(expected)
    with pytest.raises(Broken) as caught:
        with reprise.once(client, "load", run="today"):
            raise Broken
    assert reprise.decision_of(caught.value) is not None
    with pytest.raises(reprise.Stopped), reprise.once(client, "load", run="today"):
        raise AssertionError
    with reprise.once(client, "other", run="today") as attempt:
        assert attempt.number == 1
    with pytest.raises(reprise.AlreadyDone), reprise.once(client, "other", run="today"):
        raise AssertionError


async def test_one_attempt_at_a_time_in_asyncio(fake: FakeService) -> None:
    client = fake.async_client()
    fake.decides(retry(after=30))
    with pytest.raises(reprise.RetryLater) as later:
        async with reprise.once_async(client, "load", run="today"):
            raise Broken
    assert later.value.delay == 30
    fake.clock.advance(30)
    async with reprise.once_async(client, "load", run="today") as attempt:
        assert attempt.number == 2
    with pytest.raises(reprise.AlreadyDone):
        async with reprise.once_async(client, "load", run="today"):
            raise AssertionError


def test_an_attempt_that_may_not_start_yet_is_come_back_for(fake: FakeService) -> None:
    fake.refuses(wait(12, "IN_LINE"))
    with pytest.raises(reprise.RetryLater) as later:
        with reprise.once(fake.client(), "load"):
            raise AssertionError
    assert later.value.delay == 12


def test_one_attempt_at_a_time_is_bounded_alone_too(fake: FakeService) -> None:
    """Nobody remembers the step in between but the orchestrator."""
    fake.away = True
    client = fake.client(patience=0)
    for before in range(3):
        with pytest.raises(reprise.RetryLater) as later:
            with reprise.once(client, "load", attempts_before=before) as attempt:
                assert attempt.local
                raise Broken
        assert later.value.delay == 0.5 * 2**before
    with pytest.raises(Broken), reprise.once(client, "load", attempts_before=3):
        raise Broken


# asyncio


async def test_asyncio_obeys_the_same(fake: FakeService) -> None:
    fake.decides(retry(after=30), hold())
    with pytest.raises(reprise.OnHold):
        async for attempt in fake.async_client().step("load", wait_for_person=False):
            async with attempt:
                raise Broken
    assert fake.waits == [30.0]


async def test_a_timeout_around_a_step_cancels_it(fake: FakeService) -> None:
    async def work() -> None:
        async for attempt in fake.async_client().step("load"):
            async with attempt:
                await asyncio.Event().wait()

    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(work(), 0.01)
    assert reprise.wire.word_of_class(fake.reports[0].failure) == "CANCELED"


async def test_a_timeout_inside_an_attempt_is_a_timeout(fake: FakeService) -> None:
    async for attempt in fake.async_client().step("load"):
        async with attempt:
            if attempt.number == 1:
                await asyncio.wait_for(asyncio.Event().wait(), 0.01)
    assert reprise.wire.word_of_class(fake.reports[0].failure) == "TIMEOUT"


# Functions


def test_a_function_is_a_step(fake: FakeService) -> None:
    calls: list[int] = []

    @reprise.retry("charge", policy="payments", targets=["payments-api"], client=fake.client())
    def charge(order: int, *, amount: float) -> str:
        calls.append(order)
        if len(calls) < 3:
            raise Broken
        return f"{order}:{amount}"

    assert charge(7, amount=1.5) == "7:1.5"
    assert charge.__name__ == "charge"
    report = fake.reports[0]
    assert (report.step, report.policy_name, list(report.targets)) == ("charge", "payments", ["payments-api"])
    assert len({report.run for report in fake.reports}) == 1
    charge(8, amount=1)
    assert len({report.run for report in fake.reports}) == 2


async def test_so_is_an_async_one(fake: FakeService) -> None:
    calls: list[int] = []

    @reprise.retry(
        step=lambda order: f"charge/{order}", run=lambda order: "today", client=fake.async_client()
    )
    async def charge(order: int) -> int:
        calls.append(order)
        if len(calls) < 2:
            raise Broken
        return order

    assert await charge(7) == 7
    assert (fake.reports[0].run, fake.reports[0].step) == ("today", "charge/7")
    with pytest.raises(reprise.AlreadyDone):
        await charge(7)


def test_a_method_is_a_step_too(fake: FakeService) -> None:
    class Till:
        @reprise.retry(client=fake.client())
        def charge(self, order: int) -> int:
            return order

    assert Till().charge(3) == 3
    assert fake.reports[0].step == f"{__name__}.test_a_method_is_a_step_too.Till.charge"


def test_what_is_done_is_not_done_again(fake: FakeService) -> None:
    calls: list[str] = []

    def decorate(**more: object) -> object:
        @reprise.retry("load", run="today", client=fake.client(), **more)  # type: ignore[arg-type]
        def load() -> str:
            calls.append("load")
            return "loaded"

        return load

    first, second, third = decorate(), decorate(), decorate(when_done=lambda decision: decision.reason)
    assert callable(first)
    assert callable(second)
    assert callable(third)
    assert first() == "loaded"
    with pytest.raises(reprise.AlreadyDone) as caught:
        second()
    assert caught.value.decision.reason is Reason.SUCCEEDED
    assert third() is Reason.SUCCEEDED
    assert calls == ["load"]


def test_what_cannot_be_a_step_is_refused(fake: FakeService) -> None:
    def generator() -> object:
        yield 1

    async def coroutine() -> None: ...

    with pytest.raises(reprise.ConfigurationError, match="generator"):
        reprise.retry()(generator)
    with pytest.raises(reprise.ConfigurationError, match="AsyncClient"):
        reprise.retry(client=fake.client())(coroutine)
    with pytest.raises(reprise.ConfigurationError, match="Client"):
        reprise.retry(client=fake.async_client())(lambda: None)


def test_threads_share_a_client(fake: FakeService) -> None:
    client, results = fake.client(), []

    def work(number: int) -> None:
        for attempt in client.step(f"s{number}"):
            with attempt:
                results.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(8))


# The fake


def test_the_fake_decides_by_a_simple_rule() -> None:
    fake = FakeService(max_retries=2, delay=10)
    with pytest.raises(Broken):
        for attempt in fake.client().step("load", run="today"):
            with attempt:
                raise Broken
    assert fake.waits == [10.0, 10.0]
    step = fake.client().get_step("load", run="today")
    assert step is not None
    assert (step.state, step.counters.attempts) == (StepState.FAILED, 3)
    with pytest.raises(reprise.Stopped):
        next(fake.client().step("load", run="today"))


def test_the_fake_answers_every_call(fake: FakeService) -> None:
    client = fake.client()
    begun = client.begin("load", run="r", request_id=b"1" * 16)
    assert begun.grant is not None
    assert client.begin("load", run="r", request_id=b"1" * 16).replayed
    assert client.heartbeat("load", run="r", fence=begun.grant.fence).state is LeaseState.HELD
    assert client.heartbeat("load", run="r", fence=99).state is LeaseState.LOST
    (report,) = client.report_batch([{"run": "r", "step": "load", "fence": begun.grant.fence}])
    assert isinstance(report, reprise.Report)
    assert report.status is ReportStatus.RECORDED
    assert client.get_step("nobody", run="r") is None


def test_the_fake_may_be_away(fake: FakeService) -> None:
    fake.answers("BeginAttempt", *away(2))
    client = fake.client(patience=10)
    for attempt in client.step("load"):
        with attempt:
            assert not attempt.local
    assert len(fake.requests("BeginAttempt")) == 3
    fake.refuses(done())
    assert list(client.step("load")) == []


# The contract's words


@pytest.mark.parametrize(
    ("ours", "theirs", "prefix"),
    [
        (reprise.Verdict, step_pb2.Verdict, "VERDICT_"),
        (reprise.Reason, step_pb2.Reason, "REASON_"),
        (reprise.StepState, step_pb2.StepState, "STEP_STATE_"),
        (reprise.ReportStatus, retry_service_pb2.ReportStatus, "REPORT_STATUS_"),
        (reprise.LeaseState, retry_service_pb2.LeaseState, "LEASE_STATE_"),
    ],
)
def test_every_word_of_the_contract_is_known(ours: object, theirs: object, prefix: str) -> None:
    words = {name.removeprefix(prefix) for name in theirs.keys()}  # type: ignore[attr-defined]
    assert {word.value for word in ours} == words  # type: ignore[attr-defined]


def test_policies_are_written_as_the_contract_has_them() -> None:
    policy = reprise.Policy(
        max_retries=5,
        max_elapsed=3600,
        backoff=reprise.Backoff.exponential(1, factor=3, max_delay=60),
        rules=(
            reprise.Rule("bad-input", "stop", exit_codes=(2,)),
            reprise.Rule("preempted", "retry_uncounted", message_pattern="evict", max_retries=20),
            reprise.Rule("throttled", "retry", classes=(reprise.FailureClass.THROTTLED,), max_retries=9),
            reprise.Rule("people", "hold", condition="failure.exit_code == 137"),
            reprise.Rule("skipped", "skip", codes=("404",)),
        ),
        on_exhaustion="hold",
    )
    message = policy.message()
    assert message.backoff.exponential.factor == 3
    assert message.backoff.jitter.kind == policy_pb2.JITTER_KIND_FULL
    assert [rule.WhichOneof("action") for rule in message.rules] == [
        "stop",
        "retry_uncounted",
        "retry",
        "hold",
        "skip",
    ]
    assert message.on_exhaustion.WhichOneof("outcome") == "hold"
    schedule = reprise.Backoff.schedule(1, 5, 25, then_stop=True).message.schedule
    assert [delay.seconds for delay in schedule.delays] == [1, 5, 25]
    assert reprise.Backoff.fixed(1, jitter=0.1).message.jitter.ratio == 0.1
    assert json.dumps(str(reprise.Backoff.none().message)) == '""'


# Settings


def test_settings_come_from_the_environment() -> None:
    read = settings.Settings.of(
        environment={
            "REPRISE_ADDR": "https://reprise:7443",
            "REPRISE_NAMESPACE": "team-a",
            "REPRISE_CALL_TIMEOUT": "250ms",
            "REPRISE_TLS_CA": "/etc/ca.pem",
            "REPRISE_TOKEN": "secret",
        }
    )
    assert (read.address.target, read.address.tls, read.namespace) == ("reprise:7443", True, "team-a")
    assert (read.call_timeout, read.tls.ca) == (0.25, "/etc/ca.pem")
    assert read.metadata() == (("authorization", "Bearer secret"),)
    assert "secret" not in repr(read)


def test_a_given_setting_comes_before_the_environment() -> None:
    read = settings.Settings.of(
        "127.0.0.1:1", namespace="b", call_timeout=2, environment={"REPRISE_NAMESPACE": "a"}
    )
    assert (read.namespace, read.call_timeout, read.metadata()) == ("b", 2.0, ())


def test_without_an_address_a_socket_that_exists_is_used(tmp_path: object) -> None:
    (tmp_path / "reprise.sock").touch()  # type: ignore[operator]
    found = settings.Address.default_here({"XDG_RUNTIME_DIR": str(tmp_path)})
    assert found.target == f"unix:{tmp_path}/reprise.sock"
    assert settings.Address.default_here({}).target in {"127.0.0.1:7070", "unix:/run/reprise/reprise.sock"}


@pytest.mark.parametrize("address", ["http://reprise:7070", "10.0.0.1:7070"])
def test_a_token_never_goes_out_in_clear_text(address: str) -> None:
    with pytest.raises(reprise.ConfigurationError, match="clear text"):
        settings.Settings.of(address, token="secret")


@pytest.mark.parametrize("address", ["unix:/r.sock", "127.0.0.1:1", "localhost:1", "[::1]:1", "https://r:1"])
def test_a_token_goes_where_nobody_listens(address: str) -> None:
    assert settings.Settings.of(address, token="secret").metadata()


def test_a_token_file_is_read_at_each_call(tmp_path: object) -> None:
    path = tmp_path / "token"  # type: ignore[operator]
    path.write_text("one\n")
    read = settings.Settings.of("127.0.0.1:1", environment={"REPRISE_TOKEN_FILE": str(path)})
    assert read.metadata() == (("authorization", "Bearer one"),)
    path.write_text("two\n")
    assert read.metadata() == (("authorization", "Bearer two"),)


@pytest.mark.parametrize("span", ["", "0s", "-1s", "soon", "5 days"])
def test_a_span_that_is_none_is_refused(span: str) -> None:
    with pytest.raises(reprise.ConfigurationError, match="accepted is a span"):
        settings.Settings.of("127.0.0.1:1", environment={"REPRISE_CALL_TIMEOUT": span})
