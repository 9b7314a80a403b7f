"""A worker in Python: the life of a step, and what goes wrong in one."""

import os
import time

import grpc
import pytest
from errors import Refused, refused
from google.protobuf.duration_pb2 import Duration
from reprise.v1 import failure_pb2, policy_pb2, step_pb2
from reprise.v1 import retry_service_pb2 as calls

# Long enough that the call right after a failure comes too early on a busy machine too.
BACKOFF = Duration(seconds=1, nanos=500_000_000)


def policy(max_retries=3):
    """A fixed backoff without jitter, so that the wait is known."""
    backoff = policy_pb2.Backoff(fixed=policy_pb2.FixedBackoff(delay=BACKOFF))
    return policy_pb2.Policy(max_retries=max_retries, backoff=backoff)


def begin_request(run, step="load", **more):
    return calls.BeginAttemptRequest(run=run, step=step, request_id=os.urandom(16), **more)


def transient():
    return failure_pb2.Failure(
        **{"class": failure_pb2.FAILURE_CLASS_TRANSIENT}, error_type="TimeoutError", grpc_code=14
    )


def same(one, other):
    """Whether two decisions are one: in verdict, reason, instant, rule, policy and counters."""
    parts = ("verdict", "reason", "not_before", "rule", "policy", "counters")
    return all(getattr(one, part) == getattr(other, part) for part in parts)


def seconds(duration):
    return duration.ToTimedelta().total_seconds()


def test_a_step_fails_waits_and_succeeds(workers, run):
    first = workers.BeginAttempt(begin_request(run, inline_policy=policy()))
    assert first.grant.attempt == 1
    assert not first.replayed
    assert seconds(first.grant.heartbeat_every) == pytest.approx(seconds(first.grant.lease) / 3, rel=0.01)

    beat = workers.Heartbeat(calls.HeartbeatRequest(run=run, step="load", fence=first.grant.fence))
    assert beat.state == calls.LEASE_STATE_HELD
    assert 0 < seconds(beat.lease) <= seconds(first.grant.lease)
    assert not beat.cancel_requested

    report = calls.ReportAttemptRequest(run=run, step="load", fence=first.grant.fence, failure=transient())
    answer = workers.ReportAttempt(report)
    assert (answer.attempt, answer.status, answer.replayed) == (1, calls.REPORT_STATUS_RECORDED, False)
    decision = answer.decision
    assert (decision.verdict, decision.reason) == (step_pb2.VERDICT_RETRY, step_pb2.REASON_BACKOFF)
    assert decision.delay == BACKOFF
    assert decision.not_before.ToNanoseconds() == decision.decided_at.ToNanoseconds() + BACKOFF.ToNanoseconds()

    again = workers.ReportAttempt(report)
    assert again.replayed
    assert same(again.decision, decision)

    early = workers.BeginAttempt(begin_request(run)).refusal
    assert (early.verdict, early.reason) == (step_pb2.VERDICT_WAIT, step_pb2.REASON_NOT_DUE)
    assert 0 < seconds(early.delay) <= seconds(BACKOFF)
    assert early.not_before == decision.not_before

    time.sleep(seconds(early.delay))
    request = begin_request(run)
    second = workers.BeginAttempt(request)
    assert second.grant.attempt == 2
    assert second.grant.fence > first.grant.fence
    repeated = workers.BeginAttempt(request)
    assert repeated.replayed
    assert (repeated.grant.attempt, repeated.grant.fence) == (2, second.grant.fence)

    success = calls.ReportAttemptRequest(run=run, step="load", fence=second.grant.fence, success={})
    done = workers.ReportAttempt(success).decision
    assert (done.verdict, done.reason) == (step_pb2.VERDICT_DONE, step_pb2.REASON_SUCCEEDED)
    assert workers.BeginAttempt(begin_request(run)).refusal.verdict == step_pb2.VERDICT_DONE

    step = workers.GetStep(calls.GetStepRequest(run=run, step="load")).step
    assert step.state == step_pb2.STEP_STATE_SUCCEEDED
    assert (step.counters.attempts, step.counters.retries) == (2, 1)
    assert [attempt.outcome for attempt in step.attempts] == [step_pb2.OUTCOME_FAILURE, step_pb2.OUTCOME_SUCCESS]
    assert step.attempts[0].error_type == "TimeoutError"


def test_reports_alone_are_counted_until_the_retries_are_spent(workers, run):
    verdicts = []
    for attempt in (1, 2):
        report = calls.ReportAttemptRequest(
            run=run, step="load", attempt=attempt, failure=transient(), inline_policy=policy(max_retries=1)
        )
        verdicts.append(workers.ReportAttempt(report).decision)
    assert [decision.verdict for decision in verdicts] == [step_pb2.VERDICT_RETRY, step_pb2.VERDICT_STOP]
    assert verdicts[1].reason == step_pb2.REASON_RETRIES_SPENT


def test_a_second_worker_waits_for_the_lease_of_the_first(workers, run):
    granted = workers.BeginAttempt(begin_request(run, lease=Duration(seconds=20))).grant
    refusal = workers.BeginAttempt(begin_request(run)).refusal
    assert (refusal.verdict, refusal.reason) == (step_pb2.VERDICT_WAIT, step_pb2.REASON_IN_PROGRESS)
    assert refusal.not_before == granted.lease_until


def test_a_stranger_to_the_lease_is_told_that_it_is_lost(workers, run):
    granted = workers.BeginAttempt(begin_request(run)).grant
    stranger = calls.HeartbeatRequest(run=run, step="load", fence=granted.fence + 1)
    assert workers.Heartbeat(stranger).state == calls.LEASE_STATE_LOST


def test_pushback_of_the_target_is_obeyed(workers, run):
    failure = transient()
    failure.pushback.after.FromSeconds(30)
    report = calls.ReportAttemptRequest(run=run, step="load", attempt=1, failure=failure, inline_policy=policy())
    decision = workers.ReportAttempt(report).decision
    assert (decision.verdict, decision.reason) == (step_pb2.VERDICT_RETRY, step_pb2.REASON_PUSHBACK)
    assert seconds(decision.delay) == pytest.approx(30, abs=0.1)


@pytest.mark.parametrize(
    ("field", "fault"),
    [
        ("run", {"run": "not an id"}),
        ("step", {"step": ""}),
        ("request_id", {"request_id": b"short"}),
        ("lease", {"lease": Duration(seconds=-1)}),
    ],
)
def test_bad_input_is_refused_by_field(workers, run, field, fault):
    request = begin_request(run)
    request.MergeFrom(calls.BeginAttemptRequest(**fault))
    for name, value in fault.items():
        if isinstance(value, (str, bytes)):
            setattr(request, name, value)
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as answer:
        workers.BeginAttempt(request)
    assert list(answer.violations) == [field]
    assert answer.violations[field]


def test_one_bad_item_harms_no_other_of_its_batch(workers, run):
    def item(step, **more):
        return calls.ReportAttemptRequest(run=run, step=step, inline_policy=policy(), **more)

    batch = calls.BatchReportAttemptsRequest(
        reports=[
            item("one", attempt=1, success={}),
            item("two", failure=transient()),
            item("three", attempt=1, failure=transient()),
        ]
    )
    one, two, three = workers.BatchReportAttempts(batch).results
    assert [(result.run, result.step) for result in (one, two, three)] == [(run, s) for s in ("one", "two", "three")]
    assert one.response.decision.verdict == step_pb2.VERDICT_DONE
    assert three.response.decision.verdict == step_pb2.VERDICT_RETRY
    assert two.WhichOneof("result") == "error"
    assert two.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    fault = Refused()
    fault.read(grpc.StatusCode.INVALID_ARGUMENT, two.error.details)
    assert fault.violations


def test_an_unknown_step_is_not_found(workers, run):
    with refused(grpc.StatusCode.NOT_FOUND):
        workers.GetStep(calls.GetStepRequest(run=run, step="nobody"))


def test_a_begin_given_up_and_repeated_counts_once(workers, run):
    request = begin_request(run)
    hasty = workers.stub.BeginAttempt
    with pytest.raises(grpc.RpcError) as caught:
        hasty(request, timeout=-1)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED

    pending = hasty.future(request, timeout=10)
    pending.cancel()
    assert pending.cancelled() or pending.code() == grpc.StatusCode.OK

    assert workers.BeginAttempt(request).grant.attempt == 1
    step = workers.GetStep(calls.GetStepRequest(run=run, step="load")).step
    assert step.counters.attempts == 1
