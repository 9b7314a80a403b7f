"""The package itself: generated code, samples, the wheel, an encrypted connection."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import types
import venv
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from server import ROOT, Server

import reprise
from reprise import Client, Tls
from reprise.effects import METHODS, Call
from reprise.errors import Unanswered
from reprise.testing import FakeService

HERE = Path(__file__).resolve().parent.parent


def test_the_generated_code_is_that_of_the_contract(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(HERE / "generate"), str(tmp_path)], check=True)
    kept = HERE / "src/reprise/_proto"
    names = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert names == {path.name for path in kept.iterdir() if path.is_file()}
    for name in names:
        assert (tmp_path / name).read_text() == (kept / name).read_text(), f"{name}: run generate"


def test_every_call_of_the_contract_is_there() -> None:
    service = (ROOT / "proto/reprise/v1/retry_service.proto").read_text()
    calls = set(re.findall(r"rpc (\w+)\(", service))
    # What only another kind of worker needs.
    elsewhere = {"ClaimDue", "StreamDue"}
    assert calls - elsewhere == {method.name for method in METHODS}


def samples() -> list[str]:
    """The README's code, in order."""
    return re.findall(r"```python\n(.*?)```", (HERE / "README.md").read_text(), re.DOTALL)


def test_the_samples_of_the_readme_run(
    shared_server: Server, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As written, one after the other, against a server; the runs are made fresh."""
    monkeypatch.setenv("REPRISE_ADDR", shared_server.unix)
    done: list[str] = []

    class DeadlockDetected(Exception):
        pass

    def charge(order: str) -> str:
        done.append(order)
        return order

    def fail(error: Exception) -> None:
        raise error

    scope: dict[str, Any] = {
        "pytest": pytest,
        "DeadlockDetected": DeadlockDetected,
        "load_orders": lambda resume_from: done.append("load_orders"),
        "call_payments_api": charge,
        "publish": lambda: fail(TimeoutError()),
        "come_back_in": lambda delay: done.append(f"in {delay:.1f}"),
        "sync": lambda: done.append("sync"),
        "parts": lambda: ["a", "b"],
        "extract": lambda: done.append("extract"),
        "load": lambda: done.append("load"),
        "write": lambda part, fence: done.append(f"{part}{fence > 0}"),
        "print": lambda decision: done.append(decision.verdict.value),
    }
    policies = {"nightly": "quick", "payments": "quick"}
    for number, sample in enumerate(samples()):
        text = sample.replace("2026-11-22", f"{run}-{number}")
        for theirs, ours in policies.items():
            text = text.replace(f'"{theirs}"', f'"{ours}"')
        exec(compile(text, f"README sample {number}", "exec"), scope)
        if "def charge" in text:
            assert scope["charge"]("order-7") == "order-7"
    scope["test_orders_are_loaded_in_the_end"]()
    assert done == [
        "load_orders",
        "order-7",
        "extract",
        "load",
        "sync",
        "aTrue",
        "bTrue",
        "order-7",
        "in 0.1",
        "RETRY",
    ]


def test_the_package_says_how_it_is_used() -> None:
    """The sample of the module's own documentation."""
    assert reprise.__doc__ is not None
    sample = textwrap.dedent(re.findall(r"\n\n((?:    .*\n|\n)+)", reprise.__doc__)[0])
    scope: dict[str, Any] = {"load_orders": lambda: None}
    fake = FakeService()
    exec(sample.replace("reprise.Client()", "fake.client()"), {**scope, "fake": fake})
    assert len(fake.reports) == 1


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    script = f"import hatchling.build; print(hatchling.build.build_wheel({str(folder)!r}))"
    subprocess.run([sys.executable, "-c", script], cwd=HERE, check=True, capture_output=True)
    (made,) = folder.glob("*.whl")
    return made


def test_a_wheel_has_everything(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = {
        f"reprise/{path.relative_to(HERE / 'src/reprise')}"
        for path in (HERE / "src/reprise").rglob("*.py*")
        if "__pycache__" not in path.parts
    }
    assert sources | {"reprise/py.typed"} <= names
    assert not any("test_" in name for name in names)


def test_an_installed_wheel_works(wheel: Path, shared_server: Server, run: str, tmp_path: Path) -> None:
    """In an environment of its own, which borrows only what the package depends on."""
    venv.create(tmp_path / "venv", with_pip=False)
    (site,) = (tmp_path / "venv/lib").glob("python3.*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (site / "borrowed.pth").write_text(str(Path(grpc.__file__).parent.parent))
    script = textwrap.dedent("""
        import sys, reprise
        for attempt in reprise.Client(sys.argv[1]).step("load", run=sys.argv[2]):
            with attempt:
                print(reprise.__file__, attempt.local)
    """)
    command = [str(tmp_path / "venv/bin/python"), "-c", script, shared_server.tcp, run]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout.split()
    assert Path(said[0]).is_relative_to(tmp_path)
    assert said[1] == "False"


# An encrypted connection: the server has none yet, so a fake answers behind gRPC's own.


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject, *files]
    subprocess.run(command, check=True, capture_output=True)
    return folder


class Told:
    """What a served fake was told beside the request."""

    def __init__(self) -> None:
        self.metadata: dict[str, str] = {}
        self.deadlines: list[float] = []


@pytest.fixture
def served(certificate: Path) -> Iterator[types.SimpleNamespace]:
    """A fake over TLS."""
    fake, told = FakeService(), Told()
    server = grpc.server(ThreadPoolExecutor(2))

    def handler(method: Any) -> grpc.RpcMethodHandler[Any, Any]:
        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            told.metadata = {key: str(value) for key, value in context.invocation_metadata()}
            told.deadlines.append(context.time_remaining() or float("inf"))
            answered = fake.answer(Call(method, request, 1.0))
            assert not isinstance(answered, Unanswered)
            return answered

        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=method.request.FromString,
            response_serializer=method.response.SerializeToString,
        )

    handlers = {method.name: handler(method) for method in METHODS}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("reprise.v1.RetryService", handlers),)
    )
    pair = ((certificate / "key.pem").read_bytes(), (certificate / "cert.pem").read_bytes())
    port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([pair]))
    server.start()
    yield types.SimpleNamespace(address=f"https://localhost:{port}", told=told, fake=fake)
    server.stop(None)


def test_an_encrypted_connection_carries_the_token(
    served: types.SimpleNamespace, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPRISE_ADDR", served.address)
    monkeypatch.setenv("REPRISE_TLS_CA", str(certificate / "cert.pem"))
    monkeypatch.setenv("REPRISE_TOKEN", "secret")
    with Client(call_timeout=3) as client:
        for attempt in client.step("load"):
            with attempt:
                assert not attempt.local
    assert served.told.metadata["authorization"] == "Bearer secret"
    assert served.told.metadata["user-agent"].startswith(f"reprise-python/{reprise.__version__}")
    assert all(0 < deadline < 4 for deadline in served.told.deadlines)


def test_a_stranger_is_not_trusted(served: types.SimpleNamespace) -> None:
    with Client(served.address, patience=0) as client, pytest.raises(reprise.NoService):
        next(client.step("load", offline="fail"))


def test_a_certificate_that_cannot_be_read_is_named(served: types.SimpleNamespace) -> None:
    with Client(served.address, tls=Tls(ca="/nowhere.pem")) as client:
        with pytest.raises(reprise.ConfigurationError, match="nowhere"):
            next(client.step("load"))
