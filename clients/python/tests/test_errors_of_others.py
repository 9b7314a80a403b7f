"""Errors that packages really raise. The client imports none of them."""

from __future__ import annotations

import builtins
import email.message
import http.client
import subprocess
import sys
import urllib.error
from pathlib import Path

import botocore.exceptions
import google.api_core.exceptions
import grpc
import httpx
import pytest
import requests
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

import reprise
from reprise import Failure, FailureClass
from reprise.classify import Classification, built_in

THROTTLED, TIMEOUT, TRANSIENT, FAILURE = (
    FailureClass.THROTTLED,
    FailureClass.TIMEOUT,
    FailureClass.TRANSIENT,
    FailureClass.FAILURE,
)
REQUEST = httpx.Request("GET", "http://target")


def of_httpx(status: int, headers: dict[str, str]) -> BaseException:
    response = httpx.Response(status, headers=headers, request=REQUEST)
    try:
        response.raise_for_status()
    except httpx.HTTPStatusError as error:
        return error
    raise AssertionError


def of_requests(status: int, headers: dict[str, str]) -> BaseException:
    response = requests.Response()
    response.status_code = status
    response.headers.update(headers)
    try:
        response.raise_for_status()
    except requests.HTTPError as error:
        return error
    raise AssertionError


def of_urllib(status: int, headers: dict[str, str]) -> BaseException:
    message = email.message.Message()
    for name, value in headers.items():
        message[name] = value
    return urllib.error.HTTPError("http://target", status, "said", message, None)


def of_botocore(status: int, headers: dict[str, str], code: str = "Whatever") -> BaseException:
    # botocore keeps headers in lower case.
    lower = {name.lower(): value for name, value in headers.items()}
    response = {
        "Error": {"Code": code, "Message": "said"},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": lower},
    }
    error: BaseException = botocore.exceptions.ClientError(response, "PutItem")
    return error


def of_google(status: int, headers: dict[str, str]) -> BaseException:
    response = requests.Response()
    response.status_code = status
    response.headers.update(headers)
    error: BaseException = google.api_core.exceptions.from_http_status(status, "said", response=response)
    return error


ALL = [of_httpx, of_requests, of_urllib, of_botocore, of_google]


@pytest.mark.parametrize("make", ALL)
def test_a_throttled_call_is_read_with_its_pushback(make: object) -> None:
    assert callable(make)
    failure = built_in(make(429, {"Retry-After": "7"}))
    assert (failure.failure_class, failure.http_status, failure.pushback) == (THROTTLED, 429, 7.0)


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize(("status", "kind"), [(404, FAILURE), (502, TRANSIENT), (504, TIMEOUT)])
def test_a_status_is_read(make: object, status: int, kind: FailureClass) -> None:
    assert callable(make)
    failure = built_in(make(status, {}))
    assert (failure.failure_class, failure.pushback) == (kind, None)
    assert failure.http_status == status


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ConnectError("refused", request=REQUEST), TRANSIENT),
        (httpx.ReadError("reset", request=REQUEST), TRANSIENT),
        (httpx.RemoteProtocolError("cut", request=REQUEST), TRANSIENT),
        (httpx.ConnectTimeout("slow", request=REQUEST), TIMEOUT),
        (httpx.ReadTimeout("slow", request=REQUEST), TIMEOUT),
        (httpx.PoolTimeout("slow", request=REQUEST), TIMEOUT),
        (httpx.InvalidURL("bad"), FAILURE),
        (requests.ConnectionError("refused"), TRANSIENT),
        (requests.ConnectTimeout("slow"), TIMEOUT),
        (requests.ReadTimeout("slow"), TIMEOUT),
        (requests.exceptions.ChunkedEncodingError("cut"), FAILURE),
        (requests.exceptions.InvalidURL("bad"), FAILURE),
        (urllib.error.URLError("refused"), TRANSIENT),
        (http.client.RemoteDisconnected("cut"), TRANSIENT),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="http://target"), TRANSIENT),
        (botocore.exceptions.ReadTimeoutError(endpoint_url="http://target"), TIMEOUT),
        (botocore.exceptions.ConnectTimeoutError(endpoint_url="http://target"), TIMEOUT),
        (botocore.exceptions.NoCredentialsError(), FAILURE),
        (of_botocore(400, {}, "ThrottlingException"), THROTTLED),
        (of_botocore(400, {}, "ProvisionedThroughputExceededException"), THROTTLED),
        (of_botocore(503, {}, "SlowDown"), THROTTLED),
        (of_botocore(400, {}, "ValidationException"), FAILURE),
        (google.api_core.exceptions.ServiceUnavailable("away"), TRANSIENT),
        (google.api_core.exceptions.ResourceExhausted("quota"), THROTTLED),
        (google.api_core.exceptions.DeadlineExceeded("slow"), TIMEOUT),
        (google.api_core.exceptions.NotFound("none"), FAILURE),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value.value,
)
def test_other_errors_are_read(error: BaseException, kind: FailureClass) -> None:
    assert built_in(error).failure_class is kind


def test_details_of_google_are_read() -> None:
    info = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=3, nanos=500_000_000))
    error = google.api_core.exceptions.from_grpc_status(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "quota", details=[info]
    )
    failure = built_in(error)
    assert (failure.failure_class, failure.grpc_code, failure.pushback) == (THROTTLED, 8, 3.5)


def test_a_call_of_grpc_is_read() -> None:
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/none.None/None")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=5)
    failure = built_in(caught.value)
    assert (failure.failure_class, failure.grpc_code) == (TRANSIENT, 14)


def test_types_messages_and_fingerprints() -> None:
    def fail() -> None:
        raise httpx.ConnectTimeout("slow", request=REQUEST)

    failures = []
    for _ in range(2):
        with pytest.raises(httpx.ConnectTimeout) as caught:
            fail()
        failures.append(built_in(caught.value))
    assert failures[0].error_type == "httpx.ConnectTimeout"
    assert failures[0].message == "slow"
    assert failures[0].cause == failures[1].cause
    assert len(failures[0].cause) == 16
    assert built_in(ValueError("x")).error_type == "ValueError"
    assert built_in(ValueError("x")).cause != failures[0].cause


@pytest.mark.skipif(sys.version_info < (3, 11), reason="there are no groups")
def test_a_group_is_what_all_of_it_is() -> None:
    group = getattr(builtins, "ExceptionGroup", None)
    assert group is not None
    throttled = group("tasks", [of_httpx(429, {"Retry-After": "3"}), of_httpx(429, {"Retry-After": "9"})])
    assert (built_in(throttled).failure_class, built_in(throttled).pushback) == (THROTTLED, 9.0)
    assert built_in(group("tasks", [TimeoutError(), ValueError()])).failure_class is FAILURE


def test_a_classifier_of_the_users_comes_first() -> None:
    def by_class(error: BaseException) -> FailureClass | None:
        return THROTTLED if "quota" in str(error) else None

    def whole(error: BaseException) -> Failure | None:
        return Failure(TRANSIENT, target="warehouse-db", retryable=False) if "db" in str(error) else None

    read = Classification([by_class, whole])
    throttled = read.failure(ValueError("over quota"))
    assert (throttled.failure_class, throttled.message) == (THROTTLED, "over quota")
    of_db = read.failure(ValueError("db"))
    assert (of_db.failure_class, of_db.target, of_db.retryable) == (TRANSIENT, "warehouse-db", False)
    assert (of_db.error_type, of_db.message) == ("ValueError", "db")
    assert read.failure(ValueError("other")).failure_class is FAILURE


def test_what_cannot_be_read_is_reported_all_the_same() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

        def code(self) -> int:
            raise RuntimeError

    def broken(error: BaseException) -> FailureClass | None:
        raise RuntimeError

    failure = Classification([broken]).failure(Mute())
    assert failure.failure_class is FAILURE
    assert "cannot be shown" in failure.message


def test_none_of_them_is_imported() -> None:
    wanted = ("requests", "httpx", "botocore", "google.api_core", "tenacity", "stamina")
    script = f"import sys, reprise; print([name for name in {wanted!r} if name in sys.modules])"
    environment = {"PYTHONPATH": str(Path(reprise.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
