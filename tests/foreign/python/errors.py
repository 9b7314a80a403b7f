"""Reads the typed details of a refused call."""

import contextlib
from dataclasses import dataclass

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status


@dataclass
class Refused:
    """What a call that could not be carried out says about it."""

    code: grpc.StatusCode = None
    info: error_details_pb2.ErrorInfo = None
    # Field to description.
    violations: dict = None

    def read(self, code, details):
        self.code = code
        (self.info,) = unpacked(details, error_details_pb2.ErrorInfo)
        self.violations = {
            violation.field: violation.description
            for bad in unpacked(details, error_details_pb2.BadRequest)
            for violation in bad.field_violations
        }
        assert self.info.reason and self.info.domain


@contextlib.contextmanager
def refused(code):
    """The block's call fails with this code and exactly one ErrorInfo."""
    answer = Refused()
    with pytest.raises(grpc.RpcError) as caught:
        yield answer
    assert caught.value.code() == code, caught.value
    answer.read(code, rpc_status.from_call(caught.value).details)


def unpacked(details, kind):
    """The details of one type."""
    found = []
    for detail in details:
        message = kind()
        if detail.Unpack(message):
            found.append(message)
    return found
