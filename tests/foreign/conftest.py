"""Where the server is: every test runs once over TCP and once over the Unix socket."""

import uuid

import pytest


def pytest_addoption(parser):
    parser.addoption("--tcp", required=True, help="HOST:PORT of a running server")
    parser.addoption("--unix", required=True, help="path of the same server's socket")


@pytest.fixture(params=["tcp", "unix"])
def transport(request):
    return request.param


@pytest.fixture
def address(request, transport):
    """HOST:PORT or a path, as the transport says."""
    return request.config.getoption(f"--{transport}")


@pytest.fixture
def run():
    """A run that nothing else has used, so that one server serves many sessions of tests."""
    return f"run-{uuid.uuid4()}"
