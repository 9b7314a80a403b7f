"""Dagster itself, in process, against a real server.

Annotations are not postponed here: Dagster looks at that of `context`.
"""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import reprise
from reprise import Backoff, Policy, StepState
from reprise_dagster import coordinated

import dagster as dg
import evidence

QUICK = Policy(max_retries=2, backoff=Backoff.fixed(0.3, jitter="none"))


def events(result: dg.ExecuteInProcessResult, kind: dg.DagsterEventType) -> list[dg.DagsterEvent]:
    return [event for event in result.all_events if event.event_type is kind]


def run_op(op: dg.OpDefinition) -> dg.ExecuteInProcessResult:
    @dg.job
    def job() -> None:
        op()

    return job.execute_in_process(raise_on_error=False)


def test_an_op_is_retried_as_decided(client: reprise.Client) -> None:
    starts: list[float] = []

    @dg.op
    @coordinated(policy=QUICK, client=client)
    def load(context: dg.OpExecutionContext) -> str:
        starts.append(time.monotonic())
        assert reprise.current_attempt().number == len(starts) == context.retry_number + 1
        if len(starts) < 3:
            raise ConnectionResetError
        return "done"

    result = run_op(load)
    assert result.success
    assert result.output_for_node("load") == "done"
    assert len(events(result, dg.DagsterEventType.STEP_UP_FOR_RETRY)) == 2
    assert all(later - one >= 0.3 for one, later in zip(starts, starts[1:], strict=False))
    step = client.get_step("load", run=result.run_id)
    assert step is not None
    assert (step.state, step.counters.attempts) == (StepState.SUCCEEDED, 3)


def test_a_stop_is_a_failure_that_allows_no_retries(client: reprise.Client) -> None:
    calls: list[int] = []

    @dg.op
    @coordinated(policy=Policy(max_retries=1), client=client)
    def load() -> None:
        calls.append(1)
        raise ValueError("bad input")

    result = run_op(load)
    assert not result.success
    assert len(calls) == 2
    (failure,) = events(result, dg.DagsterEventType.STEP_FAILURE)
    said = failure.step_failure_data.error
    assert "bad input" in str(said)
    assert "STOP" in str(said)


def test_an_asset_is_retried_as_decided(client: reprise.Client) -> None:
    calls: list[int] = []

    @dg.asset
    @coordinated(policy=QUICK, client=client)
    def orders() -> int:
        calls.append(1)
        if len(calls) < 2:
            raise TimeoutError
        return 7

    result = dg.materialize([orders], raise_on_error=False)
    assert result.success
    assert result.output_for_node("orders") == 7


def test_an_op_that_yields_is_retried_too(client: reprise.Client) -> None:
    calls: list[int] = []

    @dg.op(out={"one": dg.Out(), "two": dg.Out()})
    @coordinated(policy=QUICK, client=client)
    def load():  # type: ignore[no-untyped-def]
        calls.append(1)
        if len(calls) < 2:
            raise TimeoutError
        yield dg.Output(1, "one")
        yield dg.Output(2, "two")

    result = run_op(load)
    assert result.success
    assert result.output_for_node("load", "two") == 2
    step = client.get_step("load", run=result.run_id)
    assert step is not None
    assert step.state is StepState.SUCCEEDED


def test_a_wish_of_the_body_is_passed_on(client: reprise.Client) -> None:
    starts: list[float] = []

    @dg.op
    @coordinated(policy=QUICK, client=client)
    def load() -> None:
        starts.append(time.monotonic())
        if len(starts) < 2:
            raise dg.RetryRequested(max_retries=5, seconds_to_wait=0.8)

    assert run_op(load).success
    assert starts[1] - starts[0] >= 0.8


def test_a_failure_that_allows_no_retries_is_passed_on(client: reprise.Client) -> None:
    calls: list[int] = []

    @dg.op
    @coordinated(policy=QUICK, client=client)
    def load() -> None:
        calls.append(1)
        raise dg.Failure("never", allow_retries=False)

    result = run_op(load)
    assert not result.success
    assert calls == [1]
    step = client.get_step("load", run=result.run_id)
    assert step is not None
    assert step.decision is not None
    assert step.decision.reason is reprise.Reason.NOT_RETRYABLE


def test_an_op_that_may_not_start_yet_is_come_back_for(client: reprise.Client) -> None:
    """Whoever holds the only permit lets go of it when the op has been refused once."""
    begun = client.begin("holder", run="dagster-holders", targets=["narrow-pool"])
    assert begun.grant is not None
    fence = begun.grant.fence
    refused: list[str] = []

    class Watching:
        """A client that notices the refusal."""

        def __getattr__(self, name: str) -> object:
            return getattr(client, name)

        def step(self, *args: object, **options: object) -> object:
            if refused:
                client.report("holder", run="dagster-holders", fence=fence)
            refused.append("asked")
            return client.step(*args, **options)

    @dg.op
    @coordinated(policy=QUICK, targets=["narrow-pool"], client=Watching())
    def watched() -> int:
        return reprise.current_attempt().number

    result = run_op(watched)
    assert result.success
    assert result.output_for_node("watched") == 1
    assert len(events(result, dg.DagsterEventType.STEP_UP_FOR_RETRY)) >= 1


def test_async_functions_are_refused(client: reprise.Client) -> None:
    async def load() -> None: ...

    with pytest.raises(reprise.ConfigurationError):
        coordinated(client=client)(load)


def test_limits_hold_across_processes(two_processes: Callable[..., list[evidence.Seen]]) -> None:
    attempts = two_processes(Path(__file__).with_name("narrow.py"))
    assert len(attempts) == 6
    assert evidence.most_at_once(attempts) == 1


def test_counts_survive_a_restart(client: reprise.Client, power_cut: Callable[[], None]) -> None:
    calls: list[int] = []

    @dg.op
    @coordinated(policy=QUICK, client=client)
    def load() -> None:
        calls.append(1)
        if len(calls) == 2:
            power_cut()
        raise ConnectionResetError

    result = run_op(load)
    assert not result.success
    assert len(calls) == 3
    step = client.get_step("load", run=result.run_id)
    assert step is not None
    assert step.counters.attempts == 3
