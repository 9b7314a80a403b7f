"""Calls with `buf curl`, which learns the contract from the server's reflection."""

import base64
import json
import os
import subprocess
from pathlib import Path
import sys

import pytest

BUF = Path(sys.executable).with_name("buf")


@pytest.fixture
def curl(address, transport):
    """Carries out one call: (exit code, answer or error)."""
    where, host = [], address
    if transport == "unix":
        where, host = ["--unix-socket", address], "localhost"

    def call(method, body):
        url = f"http://{host}/reprise.v1.{method}"
        command = [BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", *where, "-d", json.dumps(body), url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        return done.returncode, json.loads(done.stdout or done.stderr)

    return call


def request_id():
    return base64.b64encode(os.urandom(16)).decode()


def test_a_step_begins_fails_and_is_shown(curl, run):
    names = {"run": run, "step": "load"}
    code, begun = curl("RetryService/BeginAttempt", {**names, "requestId": request_id()})
    assert code == 0, begun
    assert begun["grant"]["attempt"] == 1

    report = {**names, "fence": begun["grant"]["fence"], "failure": {"class": "FAILURE_CLASS_TRANSIENT"}}
    code, answer = curl("RetryService/ReportAttempt", report)
    assert code == 0, answer
    assert answer["decision"]["verdict"] == "VERDICT_RETRY"

    code, shown = curl("RetryService/GetStep", names)
    assert code == 0, shown
    assert shown["step"]["state"] == "STEP_STATE_WAITING"


def test_a_bad_call_is_explained(curl, run):
    code, error = curl("RetryService/BeginAttempt", {"run": run, "step": "load", "requestId": "AAAA"})
    assert code != 0
    assert error["code"] == "invalid_argument"
    kinds = [detail["type"] for detail in error["details"]]
    assert sorted(kinds) == ["google.rpc.BadRequest", "google.rpc.ErrorInfo"]


def test_the_server_tells_what_it_is(curl):
    code, info = curl("AdminService/GetServerInfo", {})
    assert code == 0, info
    assert info["version"]
