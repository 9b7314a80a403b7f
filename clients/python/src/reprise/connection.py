"""The channel to the service: one for each process, opened with the first call.

Connections are made here and nowhere else, so that each has the same bounds: grpc
itself never repeats a call, a lost connection is looked for every second or so, and
over a Unix socket the authority is a name, since HTTP/2 servers refuse a path.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any, cast

import grpc
import grpc.aio
from google.rpc import status_pb2

from . import wire
from .effects import METHODS, Answer, Call
from .errors import Unanswered
from .settings import Settings, read_file
from .version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from google.protobuf.message import Message

#: The answer to a call that an await was cancelled in, or whose channel was closed.
_CLOSED = Unanswered("CANCELLED", "the client is closed")


def options(settings: Settings) -> list[tuple[str, Any]]:
    """What a channel is opened with."""
    chosen: list[tuple[str, Any]] = [
        # Calls are repeated by `insist`, which knows what is safe to repeat and when.
        ("grpc.enable_retries", 0),
        # By default a lost service would be looked for every two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 500),
        ("grpc.max_reconnect_backoff_ms", 2000),
        # A peer that vanished without a word is given up after 20 seconds.
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.max_receive_message_length", 4 << 20),
        # Clients in one process fail and recover apart.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.primary_user_agent", f"reprise-python/{__version__}"),
    ]
    if settings.address.socket:
        chosen.append(("grpc.default_authority", "localhost"))
    return chosen


def credentials(settings: Settings) -> grpc.ChannelCredentials | None:
    """What the channel is encrypted with. None for clear text."""
    if not settings.address.tls:
        return None
    tls = settings.tls
    ca, cert, key = (None if path is None else read_file(path) for path in (tls.ca, tls.cert, tls.key))
    return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)


class Connection:
    """The service over a channel, for threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._pid = 0
        self._channel: grpc.Channel | None = None
        self._calls: dict[str, Callable[..., Message]] = {}

    def call(self, call: Call) -> Answer:
        """Makes a call once."""
        try:
            stub = self._stub(call.method.name)
            return stub(call.request, timeout=call.timeout, metadata=self._settings.metadata())
        except grpc.RpcError as error:
            return unanswered(error)
        except ValueError:  # What grpc says of a channel that was closed meanwhile.
            return _CLOSED

    def close(self) -> None:
        """Closes the channel; the next call opens another."""
        with self._lock:
            channel, self._channel, self._calls = self._channel, None, {}
        if channel is not None:
            channel.close()

    def _stub(self, name: str) -> Callable[..., Message]:
        with self._lock:
            # A fork inherits a channel whose threads have stayed behind: it gets its own.
            if self._channel is None or self._pid != os.getpid():
                self._channel, self._pid = self._open(), os.getpid()
                self._calls = _stubs(self._channel)
            return self._calls[name]

    def _open(self) -> grpc.Channel:
        target, secure = self._settings.address.target, credentials(self._settings)
        if secure is None:
            return grpc.insecure_channel(target, options(self._settings))
        return grpc.secure_channel(target, secure, options(self._settings))


class AioConnection:
    """The service over a channel, for tasks of one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._channel: grpc.aio.Channel | None = None
        self._calls: dict[str, Callable[..., Any]] = {}

    async def call(self, call: Call) -> Answer:
        """Makes a call once."""
        stub = self._stub(call.method.name)
        try:
            answer = await stub(call.request, timeout=call.timeout, metadata=self._settings.metadata())
        except grpc.RpcError as error:
            return unanswered(error)
        except grpc.aio.UsageError:
            return _CLOSED
        return cast("Answer", answer)

    async def close(self) -> None:
        """Closes the channel; the next call opens another."""
        channel, self._channel, self._calls = self._channel, None, {}
        if channel is not None:
            await channel.close()

    def _stub(self, name: str) -> Callable[..., Any]:
        if self._channel is None:
            self._channel = self._open()
            self._calls = _stubs(self._channel)
        return self._calls[name]

    def _open(self) -> grpc.aio.Channel:
        target, secure = self._settings.address.target, credentials(self._settings)
        if secure is None:
            return grpc.aio.insecure_channel(target, options(self._settings))
        return grpc.aio.secure_channel(target, secure, options(self._settings))


def _stubs(channel: Any) -> dict[str, Callable[..., Any]]:
    return {
        method.name: channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        for method in METHODS
    }


def unanswered(error: grpc.RpcError) -> Unanswered:
    """Reads what gRPC says of a call without an answer, with the service's details."""
    told = cast("grpc.Call", error)
    code: grpc.StatusCode = told.code()
    for key, value in _trailing(told):
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            with contextlib.suppress(ValueError):
                return wire.unanswered(status_pb2.Status.FromString(value))
    return Unanswered(code.name, told.details() or "")


def _trailing(told: grpc.Call) -> Sequence[tuple[str, str | bytes]]:
    return cast("Sequence[tuple[str, str | bytes]]", told.trailing_metadata() or ())
