"""tenacity and stamina, the real ones, steered by the service."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import stamina
import tenacity
from server import Server

import reprise
from reprise import AsyncClient, Client, Policy, StepState
from reprise.adapters import stamina as for_stamina
from reprise.adapters import tenacity as for_tenacity
from reprise.testing import FakeService, retry, stop


class Broken(Exception):
    pass


@pytest.fixture(autouse=True)
def _active() -> Iterator[None]:
    """stamina as in production, but without a word to a log."""
    stamina.instrumentation.set_on_retry_hooks([])
    yield
    stamina.instrumentation.set_on_retry_hooks(None)


class Flaky:
    """Fails so many times, then works."""

    def __init__(self, failures: int) -> None:
        self.calls = 0
        self._failures = failures

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self._failures:
            raise Broken(f"call {self.calls}")
        return "done"


# tenacity


def test_tenacity_waits_as_told(fake: FakeService) -> None:
    fake.decides(retry(after=30), retry(after=0))
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        fake.clock.advance(seconds)

    work = Flaky(2)
    steered = tenacity.retry(**for_tenacity.coordinated(fake.client(), "load"), sleep=sleep)(work)
    assert steered() == "done"
    assert slept == [30.0, 0.0]
    assert [report.WhichOneof("outcome") for report in fake.reports] == ["failure", "failure", "success"]


def test_tenacity_stops_as_told_and_raises_what_was_raised(fake: FakeService) -> None:
    fake.decides(stop("RULE"))
    work = Flaky(9)
    with pytest.raises(Broken) as caught:
        tenacity.retry(**for_tenacity.coordinated(fake.client(), "load"))(work)()
    assert work.calls == 1
    decision = reprise.decision_of(caught.value)
    assert decision is not None
    assert decision.reason is reprise.Reason.RULE


def test_each_call_under_tenacity_is_a_step(fake: FakeService) -> None:
    steered = tenacity.retry(**for_tenacity.coordinated(fake.client(), "load"))(Flaky(0))
    steered()
    steered()
    assert len({report.run for report in fake.reports}) == 2


def test_tenacity_does_not_run_what_is_done(fake: FakeService) -> None:
    steered = tenacity.retry(**for_tenacity.coordinated(fake.client(), "load", run="today"))
    work = Flaky(0)
    steered(work)()
    with pytest.raises(reprise.AlreadyDone):
        steered(work)()
    assert work.calls == 1


def test_tenacity_against_the_server(shared_server: Server, run: str) -> None:
    work = Flaky(2)
    with Client(shared_server.tcp) as client:
        given = for_tenacity.coordinated(client, "load", run=run, policy="quick")
        assert tenacity.retry(**given)(work)() == "done"
        step = client.get_step("load", run=run)
    assert step is not None
    assert (step.state, step.counters.attempts) == (StepState.SUCCEEDED, 3)


async def test_tenacity_in_asyncio_against_the_server(shared_server: Server, run: str) -> None:
    work = Flaky(2)
    async with AsyncClient(shared_server.unix) as client:

        @tenacity.retry(**for_tenacity.coordinated(client, "load", run=run, policy="quick"))  # type: ignore[untyped-decorator]
        async def load() -> str:
            assert reprise.current_attempt() is not None
            return work()

        assert await load() == "done"
        step = await client.get_step("load", run=run)
    assert step is not None
    assert (step.state, step.counters.attempts) == (StepState.SUCCEEDED, 3)


# stamina


def test_stamina_goes_on_as_told(shared_server: Server, run: str) -> None:
    work, told = Flaky(2), []
    stamina.instrumentation.set_on_retry_hooks([lambda details: told.append(details.wait_for)])
    with Client(shared_server.tcp) as client:
        loop = for_stamina.retry(client, "load", run=run, policy="quick")(work)
        assert loop() == "done"
        step = client.get_step("load", run=run)
    assert step is not None
    assert (step.state, step.counters.attempts) == (StepState.SUCCEEDED, 3)
    assert len(told) == 2
    assert all(0 < wait <= 0.1 for wait in told)


async def test_stamina_in_asyncio(shared_server: Server, run: str) -> None:
    work = Flaky(2)
    async with AsyncClient(shared_server.unix) as client:

        @for_stamina.retry(client, "load", run=run, policy=Policy(max_retries=2))
        async def load() -> str:
            return work()

        assert await load() == "done"
        step = await client.get_step("load", run=run)
    assert step is not None
    assert (step.state, step.counters.attempts) == (StepState.SUCCEEDED, 3)


def test_stamina_stops_as_told(fake: FakeService) -> None:
    fake.decides(stop("RULE"))
    with pytest.raises(Broken) as caught:
        for attempt in for_stamina.retry_context(fake.client(), "load"):
            with attempt:
                assert attempt.num == 1
                raise Broken
    assert reprise.decision_of(caught.value) is not None


def test_a_stamina_context_may_be_left_by_return(fake: FakeService) -> None:
    def work() -> str:
        for attempt in for_stamina.retry_context(fake.client(), "load"):
            with attempt:
                return "done"
        raise AssertionError

    assert work() == "done"
    assert fake.reports[-1].HasField("success")


def test_stamina_in_its_testing_mode_waits_for_nothing_of_its_own(fake: FakeService) -> None:
    work = Flaky(2)
    with stamina.set_testing(True, attempts=3):
        assert for_stamina.retry(fake.client(), "load")(work)() == "done"
    assert work.calls == 3


def test_functions_and_clients_have_to_match(fake: FakeService) -> None:
    with pytest.raises(reprise.ConfigurationError):
        for_stamina.retry(fake.async_client(), "load")(lambda: None)
