"""An operator in Python: policies, their guards, and trying one out."""

import uuid

import grpc
import pytest
from errors import refused
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc
from reprise.v1 import admin_service_pb2 as calls
from reprise.v1 import failure_pb2, policy_pb2, step_pb2


@pytest.fixture
def name():
    """A name that no policy has."""
    return f"policy-{uuid.uuid4()}"


def policy(name, max_retries=2, etag=""):
    backoff = policy_pb2.Backoff(
        exponential=policy_pb2.ExponentialBackoff(delay=Duration(seconds=1)),
        jitter=policy_pb2.Jitter(kind=policy_pb2.JITTER_KIND_FULL),
    )
    return calls.NamedPolicy(
        name=name, etag=etag, policy=policy_pb2.Policy(max_retries=max_retries, backoff=backoff)
    )


def failure():
    return failure_pb2.Failure(**{"class": failure_pb2.FAILURE_CLASS_TRANSIENT})


def test_a_policy_changes_only_under_its_current_etag(admin, name):
    created = admin.CreatePolicy(calls.CreatePolicyRequest(policy=policy(name))).policy
    assert created.revision == 1
    assert created.etag and created.digest
    with refused(grpc.StatusCode.ALREADY_EXISTS):
        admin.CreatePolicy(calls.CreatePolicyRequest(policy=policy(name)))

    update = calls.UpdatePolicyRequest(policy=policy(name, max_retries=5, etag=created.etag))
    updated = admin.UpdatePolicy(update).policy
    assert updated.revision == 2
    assert updated.etag != created.etag
    stale = calls.UpdatePolicyRequest(policy=policy(name, max_retries=7, etag=created.etag))
    with refused(grpc.StatusCode.ABORTED):
        admin.UpdatePolicy(stale)

    shown = admin.GetPolicy(calls.GetPolicyRequest(name=name)).policy
    assert shown.policy.max_retries == 5
    admin.DeletePolicy(calls.DeletePolicyRequest(name=name, etag=updated.etag))


def test_a_bad_policy_is_refused_by_field(admin, name):
    bad = policy(name)
    bad.policy.backoff.exponential.factor = -1.0
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as answer:
        admin.CreatePolicy(calls.CreatePolicyRequest(policy=bad))
    assert [field for field in answer.violations if field.endswith("backoff.exponential.factor")]


def test_evaluate_shows_each_decision_with_its_bounds(admin, name):
    admin.CreatePolicy(calls.CreatePolicyRequest(policy=policy(name)))
    request = calls.EvaluateRequest(policy_name=name, failures=[failure()] * 5)
    decisions = admin.Evaluate(request).decisions
    retry, stop = step_pb2.VERDICT_RETRY, step_pb2.VERDICT_STOP
    assert [each.decision.verdict for each in decisions] == [retry, retry, stop]
    assert decisions[2].decision.reason == step_pb2.REASON_RETRIES_SPENT
    for each, longest in zip(decisions[:2], (1, 2), strict=True):
        assert each.delay_min == Duration()
        assert each.delay_max == Duration(seconds=longest)
        assert each.decision.delay.ToNanoseconds() <= each.delay_max.ToNanoseconds()
    assert admin.Evaluate(request).decisions[0].decision.delay == decisions[0].decision.delay


def test_the_server_tells_what_it_is_and_that_it_serves(admin, channel):
    info = admin.GetServerInfo(calls.GetServerInfoRequest())
    assert info.version and info.store and info.durability
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "reprise.v1.RetryService"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
