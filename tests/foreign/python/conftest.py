"""The Python client: grpcio, with code generated from the contract."""

import grpc
import pytest
from reprise.v1 import admin_service_pb2_grpc, retry_service_pb2_grpc

# How long any call may take. Far more than one needs.
PATIENCE = 10.0


@pytest.fixture
def channel(address, transport):
    """A channel to the server.

    Over a Unix socket grpcio would send the socket's path as the authority, which HTTP/2
    servers refuse; any valid name does.
    """
    target, options = address, []
    if transport == "unix":
        target, options = f"unix:{address}", [("grpc.default_authority", "localhost")]
    with grpc.insecure_channel(target, options) as channel:
        grpc.channel_ready_future(channel).result(PATIENCE)
        yield channel


@pytest.fixture
def workers(channel):
    return Patient(retry_service_pb2_grpc.RetryServiceStub(channel))


@pytest.fixture
def admin(channel):
    return Patient(admin_service_pb2_grpc.AdminServiceStub(channel))


class Patient:
    """A stub whose calls end after PATIENCE."""

    def __init__(self, stub):
        self.stub = stub

    def __getattr__(self, name):
        method = getattr(self.stub, name)
        return lambda request: method(request, timeout=PATIENCE)
