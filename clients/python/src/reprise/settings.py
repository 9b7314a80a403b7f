"""Where the service is and how it is called: from arguments, else from the environment.

The variables are those of the command line: `REPRISE_ADDR`, `REPRISE_NAMESPACE`,
`REPRISE_CALL_TIMEOUT`; beside them `REPRISE_TLS_CA`, `REPRISE_TLS_CERT`,
`REPRISE_TLS_KEY`, `REPRISE_TOKEN` and `REPRISE_TOKEN_FILE`.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from .errors import ConfigurationError
from .failure import Span, seconds

#: Where a socket is looked for when no address is given, and the port after it.
SYSTEM_SOCKET = "/run/reprise/reprise.sock"
DEFAULT_PORT = "http://127.0.0.1:7070"

_ACCEPTED = "accepted is unix:/path, http://host:port, https://host:port or host:port"
_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)?", re.ASCII)
_UNITS = {"ms": 0.001, "s": 1.0, None: 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Address:
    """Where the service listens. Only `parse` makes one."""

    #: As gRPC wants it: unix:/path or host:port.
    target: str
    #: Whether the connection is encrypted.
    tls: bool

    @staticmethod
    def parse(text: str) -> Address:
        """Reads any of the accepted forms."""
        if text.startswith("unix:"):
            path = text.removeprefix("unix:").removeprefix("//")
            if not path.startswith("/"):
                raise ConfigurationError(f"address {text!r}: the socket's path must be absolute; {_ACCEPTED}")
            return Address(f"unix:{path}", tls=False)
        try:
            parts = urlsplit(text if "://" in text else f"http://{text}")
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host or not port or parts.scheme not in {"http", "https"} or parts.path not in {"", "/"}:
            raise ConfigurationError(f"address {text!r}: {_ACCEPTED}")
        bracketed = f"[{host}]" if ":" in host else host
        return Address(f"{bracketed}:{port}", tls=parts.scheme == "https")

    @staticmethod
    def default_here(environment: Mapping[str, str]) -> Address:
        """The address used when none is given: a socket that exists, else the port."""
        folder = environment.get("XDG_RUNTIME_DIR")
        for path in ([f"{folder}/reprise.sock"] if folder else []) + [SYSTEM_SOCKET]:
            if Path(path).exists():
                return Address(f"unix:{path}", tls=False)
        return Address.parse(DEFAULT_PORT)

    @property
    def socket(self) -> bool:
        """Whether it is a Unix socket."""
        return self.target.startswith("unix:")

    @property
    def private(self) -> bool:
        """Whether nobody but this machine sees what is sent in clear text."""
        if self.socket:
            return True
        host = self.target.rpartition(":")[0].strip("[]")
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


@dataclass(frozen=True)
class Tls:
    """What a connection is encrypted with: PEM files."""

    #: Who vouches for the service. None trusts what gRPC ships.
    ca: str | None = None
    #: Our own certificate and key, where the service wants to know us.
    cert: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class Settings:
    """How the service is called. Only `of` makes one, so it fits together."""

    address: Address
    namespace: str
    #: Seconds that one try of a call may take.
    call_timeout: float
    tls: Tls
    #: Sent as a bearer token with each call. None sends none.
    token: str | None = field(repr=False)
    #: File that the token is read from at each call, so that it may be renewed.
    token_file: str | None
    #: Host and worker that attempts are begun for.
    host: str
    worker: str

    @staticmethod
    def of(
        address: str | None = None,
        *,
        namespace: str | None = None,
        call_timeout: Span | None = None,
        tls: Tls | None = None,
        token: str | None = None,
        host: str | None = None,
        worker: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Settings:
        """What is given; the environment's word for the rest; then the defaults."""
        variables = os.environ if environment is None else environment
        addr = address or variables.get("REPRISE_ADDR")
        where = Address.parse(addr) if addr else Address.default_here(variables)
        here = host or socket.gethostname()
        settings = Settings(
            address=where,
            namespace=namespace or variables.get("REPRISE_NAMESPACE", ""),
            call_timeout=_call_timeout(call_timeout, variables),
            tls=tls or _tls(variables),
            token=token or variables.get("REPRISE_TOKEN"),
            token_file=variables.get("REPRISE_TOKEN_FILE"),
            host=here,
            worker=worker or f"{here}:{os.getpid()}",
        )
        return settings.checked()

    def checked(self) -> Settings:
        """Refuses what would send a secret in clear text, or half an identity."""
        if (self.token or self.token_file) and not (self.address.tls or self.address.private):
            raise ConfigurationError(
                f"a token would go to {self.address.target} in clear text; "
                "accepted is https://, a Unix socket or loopback"
            )
        if (self.tls.cert is None) != (self.tls.key is None):
            raise ConfigurationError("REPRISE_TLS_CERT and REPRISE_TLS_KEY are given together or not at all")
        return self

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with each call."""
        token = self.token
        if token is None and self.token_file:
            token = read_file(self.token_file).decode().strip()
        return (("authorization", f"Bearer {token}"),) if token else ()


def read_file(path: str) -> bytes:
    """A file that a setting names."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error


def _tls(variables: Mapping[str, str]) -> Tls:
    return Tls(*(variables.get(f"REPRISE_TLS_{part}") for part in ("CA", "CERT", "KEY")))


def _call_timeout(given: Span | None, variables: Mapping[str, str]) -> float:
    if given is not None:
        return seconds(given)
    return parse_span("REPRISE_CALL_TIMEOUT", variables.get("REPRISE_CALL_TIMEOUT", "5s"))


def parse_span(name: str, text: str) -> float:
    """Seconds of a span such as 250ms, 5s or 1m; a bare number is seconds."""
    found = _SPAN.fullmatch(text.strip())
    span = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if span <= 0:
        raise ConfigurationError(f"{name}={text!r}: accepted is a span such as 250ms, 5s or 1m")
    return span
