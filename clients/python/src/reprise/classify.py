"""Exceptions to failures: what kind, which code, and what the target asked for.

Errors of httpx, requests, aiohttp, urllib, google.api_core, grpc and botocore are read
by what they look like, so that none of these has to be installed. A classifier of the
user's comes first.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import hashlib
import logging
import socket
import subprocess
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from google.rpc import status_pb2

from . import wire
from .errors import CancelRequested, LeaseLost
from .failure import Failure, FailureClass, NotRetryable, RetryRequested
from .retry_after import of_headers

#: Reads an exception: a whole failure, its class alone, or None for "ask the next one".
Classifier = Callable[[BaseException], "Failure | FailureClass | None"]

logger = logging.getLogger("reprise")

# How far the causes of an exception are followed. They may form a ring.
_CAUSES = 8

_HTTP: Mapping[int, FailureClass] = {
    408: FailureClass.TIMEOUT,
    425: FailureClass.TRANSIENT,
    429: FailureClass.THROTTLED,
    501: FailureClass.FAILURE,
    504: FailureClass.TIMEOUT,
    505: FailureClass.FAILURE,
    524: FailureClass.TIMEOUT,
}

_GRPC: Mapping[int, FailureClass] = {
    # Not CANCELED, which ends a step for good: proxies answer so for faults of their own.
    1: FailureClass.TRANSIENT,
    2: FailureClass.ERROR,
    4: FailureClass.TIMEOUT,
    8: FailureClass.THROTTLED,
    10: FailureClass.TRANSIENT,
    13: FailureClass.ERROR,
    14: FailureClass.TRANSIENT,
}

# Codes of AWS that say more than their status does.
_AWS: Mapping[str, FailureClass] = {
    **dict.fromkeys(
        (
            "BandwidthLimitExceeded",
            "EC2ThrottledException",
            "LimitExceededException",
            "PriorRequestNotComplete",
            "ProvisionedThroughputExceededException",
            "RequestLimitExceeded",
            "RequestThrottled",
            "RequestThrottledException",
            "SlowDown",
            "Throttling",
            "ThrottlingException",
            "ThrottledException",
            "TooManyRequestsException",
            "TransactionInProgressException",
        ),
        FailureClass.THROTTLED,
    ),
    **dict.fromkeys(("RequestTimeout", "RequestTimeoutException"), FailureClass.TIMEOUT),
}

_TIMEOUTS = (TimeoutError, asyncio.TimeoutError, concurrent.futures.TimeoutError, subprocess.TimeoutExpired)
_CANCELED = (KeyboardInterrupt, asyncio.CancelledError, GeneratorExit, CancelRequested)

# Names of classes, since their packages are not imported. Any class of an error's line counts.
_TIMEOUT_NAMES = frozenset(
    {"Timeout", "TimeoutException", "ServerTimeoutError", "ReadTimeoutError", "ConnectTimeoutError"}
)
_TRANSIENT_NAMES = frozenset(
    {
        "ClientConnectionError",  # aiohttp
        "ConnectionClosedError",  # botocore
        "EndpointConnectionError",
        "HTTPClientError",
        "IncompleteRead",  # http.client
        "NetworkError",  # httpx
        "OperationalError",  # the database is away, by PEP 249
        "ProtocolError",  # urllib3
        "ProxyError",
        "RemoteDisconnected",
        "RemoteProtocolError",
        "TransportError",
        "URLError",
    }
)

# What the machine has run out of is nobody's fault but the platform's.
_PLATFORM_ERRNO = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO})
_PASSING_ERRNO = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN})


class Classification:
    """Reads exceptions: by the user's classifiers, in their order, then by what is known."""

    def __init__(self, classifiers: Sequence[Classifier] = ()) -> None:
        self._classifiers = tuple(classifiers)

    def failure(self, error: BaseException) -> Failure:
        """What an exception is reported as."""
        read = built_in(error)
        for classifier in self._classifiers:
            told = _asked(classifier, error)
            if isinstance(told, FailureClass):
                return replace(read, failure_class=told)
            if told is not None:
                return replace(
                    told,
                    error_type=told.error_type or read.error_type,
                    message=told.message or read.message,
                    cause=told.cause or read.cause,
                )
        return read


def _asked(classifier: Classifier, error: BaseException) -> Failure | FailureClass | None:
    """A classifier that fails is no reason to lose the report."""
    try:
        return classifier(error)
    except Exception:
        logger.exception("a classifier has failed")
        return None


def built_in(error: BaseException) -> Failure:
    """Reads an exception without the user's classifiers."""
    read = _own(error) or _of_causes(error) or Failure(_class_of(error))
    wished = error if isinstance(error, RetryRequested) else None
    return replace(
        read,
        error_type=error_type(error),
        message=_text(error),
        cause=fingerprint(error),
        wish_delay=None if wished is None else wished.delay,
        wish_max_retries=None if wished is None else wished.max_retries,
        retryable=not isinstance(error, NotRetryable),
    )


def error_type(error: BaseException) -> str:
    """Where the exception's class lives and its name; built-in ones by their name alone."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return f"{error_type(error)} cannot be shown"


def fingerprint(error: BaseException) -> str:
    """16 hexadecimal digits, equal for errors of one type that were raised in one place."""
    frames = traceback.extract_tb(error.__traceback__)
    # Without the folder, which differs from host to host, and the line, from release to release.
    place = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else ""
    return hashlib.sha256(f"{error_type(error)}|{place}".encode()).hexdigest()[:16]


def _own(error: BaseException) -> Failure | None:
    """What somebody did to the attempt, told by the exception itself."""
    if isinstance(error, _CANCELED):
        return Failure(FailureClass.CANCELED)
    return Failure(FailureClass.ERROR) if isinstance(error, LeaseLost) else _exit(error)


def _of_causes(error: BaseException) -> Failure | None:
    """What the error tells, or else what it was raised `from`: a wrapper hides no status.

    An exception that was merely being handled meanwhile says nothing about this one.
    """
    each: BaseException | None = error
    for _ in range(_CAUSES):
        if each is None:
            return None
        found = _group(each) or _grpc(each) or _http(each) or _by_type(each)
        if found is not None:
            return found
        each = each.__cause__
    return None


def _group(error: BaseException) -> Failure | None:
    """A group of exceptions is what all of them are; of several kinds it is a failure."""
    members = [built_in(each) for each in _attribute_list(error, "exceptions") if isinstance(each, Exception)]
    classes = {member.failure_class for member in members}
    if len(classes) != 1:
        return Failure(FailureClass.FAILURE) if classes else None
    pushbacks = [each.pushback for each in members if isinstance(each.pushback, float)]
    return Failure(classes.pop(), pushback=max(pushbacks, default=None))


def _class_of(error: BaseException) -> FailureClass:
    """What is left when nothing is known: whatever is no `Exception` was meant to end us."""
    return FailureClass.FAILURE if isinstance(error, Exception) else FailureClass.CANCELED


def _exit(error: BaseException) -> Failure | None:
    if isinstance(error, SystemExit):
        return Failure(FailureClass.FAILURE, exit_code=error.code if isinstance(error.code, int) else 1)
    if not isinstance(error, subprocess.CalledProcessError):
        return None
    code = error.returncode
    if code < 0:
        return Failure(FailureClass.ERROR, signal=-code)
    return Failure(FailureClass.FAILURE, exit_code=code)


def _by_type(error: BaseException) -> Failure | None:
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, _TIMEOUTS) or names & _TIMEOUT_NAMES:
        return Failure(FailureClass.TIMEOUT)
    if isinstance(error, (ConnectionError, socket.gaierror)) or names & _TRANSIENT_NAMES:
        return Failure(FailureClass.TRANSIENT)
    # requests has a ConnectionError of its own, which is no built-in one.
    if "ConnectionError" in names:
        return Failure(FailureClass.TRANSIENT)
    if isinstance(error, MemoryError) or _errno(error) in _PLATFORM_ERRNO:
        return Failure(FailureClass.ERROR)
    return Failure(FailureClass.TRANSIENT) if _errno(error) in _PASSING_ERRNO else None


def _errno(error: BaseException) -> int | None:
    return error.errno if isinstance(error, OSError) else None


def _grpc(error: BaseException) -> Failure | None:
    """A status of gRPC: grpc's own errors, and those of google.api_core."""
    code = _grpc_code(error)
    if code is None:
        return None
    return Failure(_GRPC.get(code, FailureClass.FAILURE), grpc_code=code, pushback=_retry_info(error))


def _grpc_code(error: BaseException) -> int | None:
    code = getattr(error, "code", None)
    if callable(code):
        try:
            code = code()
        except Exception:  # noqa: BLE001, RUF100 - somebody else's method is no reason to fail
            return None
    elif _status(getattr(error, "response", None), "status_code") is None:
        # google.api_core names a code for what came over HTTP too; the status says more.
        code = getattr(error, "grpc_status_code", None)
    value = getattr(code, "value", None)
    number = value[0] if isinstance(value, tuple) and value else None
    return number if isinstance(number, int) and 1 <= number <= 16 else None


def _retry_info(error: BaseException) -> float | None:
    """When the details of a status ask to come back."""
    for detail in _attribute_list(error, "details"):
        delay = getattr(detail, "retry_delay", None)
        span = _span(delay)
        if span is not None:
            return span
    trailing = getattr(error, "trailing_metadata", None)
    if not callable(trailing):
        return None
    for key, value in trailing() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            return _of_status(value)
    return None


def _of_status(data: bytes) -> float | None:
    try:
        return wire.unanswered(status_pb2.Status.FromString(data)).retry_delay
    except ValueError:
        return None


def _attribute_list(error: BaseException, name: str) -> Sequence[Any]:
    value = getattr(error, name, None)
    return value if isinstance(value, (list, tuple)) else ()


def _http(error: BaseException) -> Failure | None:
    """A status of HTTP, wherever the error keeps it."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):
        return _botocore(response)
    status = _status(response, "status_code", "status") or _status(error, "status_code", "status", "code")
    pushback = _span(getattr(error, "retry_after", None))
    if status is None:
        return None if pushback is None else Failure(FailureClass.THROTTLED, pushback=pushback)
    for holder in (response, error):
        if pushback is None:
            pushback = of_headers(getattr(holder, "headers", None))
    return Failure(_class_of_status(status, pushback), http_status=status, pushback=pushback)


def _botocore(response: Mapping[str, Any]) -> Failure | None:
    meta = response.get("ResponseMetadata") or {}
    status = meta.get("HTTPStatusCode")
    code = (response.get("Error") or {}).get("Code")
    pushback = of_headers(meta.get("HTTPHeaders"))
    failure_class = _AWS.get(code) if isinstance(code, str) else None
    if not isinstance(status, int):
        return None if failure_class is None else Failure(failure_class, pushback=pushback)
    return Failure(failure_class or _class_of_status(status, pushback), http_status=status, pushback=pushback)


def _class_of_status(status: int, pushback: float | None) -> FailureClass:
    known = _HTTP.get(status)
    if known is not None:
        return known
    if status == 503 and pushback is not None:
        return FailureClass.THROTTLED
    return FailureClass.TRANSIENT if status >= 500 else FailureClass.FAILURE


def _status(holder: Any, *names: str) -> int | None:
    for name in names:
        value = getattr(holder, name, None)
        if isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599:
            return int(value)
    return None


def _span(value: Any) -> float | None:
    """Seconds, a timedelta, or a Duration of protobuf."""
    if isinstance(value, timedelta):
        return max(0.0, value.total_seconds())
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return max(0.0, float(value))
    parts = getattr(value, "seconds", None), getattr(value, "nanos", None)
    if isinstance(parts[0], int) and isinstance(parts[1], int):
        return max(0.0, parts[0] + parts[1] / 1e9)
    return None
