from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FailureClass(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FAILURE_CLASS_UNSPECIFIED: _ClassVar[FailureClass]
    FAILURE_CLASS_FAILURE: _ClassVar[FailureClass]
    FAILURE_CLASS_ERROR: _ClassVar[FailureClass]
    FAILURE_CLASS_TRANSIENT: _ClassVar[FailureClass]
    FAILURE_CLASS_TIMEOUT: _ClassVar[FailureClass]
    FAILURE_CLASS_THROTTLED: _ClassVar[FailureClass]
    FAILURE_CLASS_CRASH: _ClassVar[FailureClass]
    FAILURE_CLASS_CANCELED: _ClassVar[FailureClass]

class Executed(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXECUTED_UNSPECIFIED: _ClassVar[Executed]
    EXECUTED_NO: _ClassVar[Executed]
    EXECUTED_MAYBE: _ClassVar[Executed]
    EXECUTED_YES: _ClassVar[Executed]
FAILURE_CLASS_UNSPECIFIED: FailureClass
FAILURE_CLASS_FAILURE: FailureClass
FAILURE_CLASS_ERROR: FailureClass
FAILURE_CLASS_TRANSIENT: FailureClass
FAILURE_CLASS_TIMEOUT: FailureClass
FAILURE_CLASS_THROTTLED: FailureClass
FAILURE_CLASS_CRASH: FailureClass
FAILURE_CLASS_CANCELED: FailureClass
EXECUTED_UNSPECIFIED: Executed
EXECUTED_NO: Executed
EXECUTED_MAYBE: Executed
EXECUTED_YES: Executed

class Failure(_message.Message):
    __slots__ = ("error_type", "grpc_code", "http_status", "exit_code", "signal", "message", "cause", "host", "worker", "duration", "target", "pushback", "wish", "retryable", "executed", "action")
    CLASS_FIELD_NUMBER: _ClassVar[int]
    ERROR_TYPE_FIELD_NUMBER: _ClassVar[int]
    GRPC_CODE_FIELD_NUMBER: _ClassVar[int]
    HTTP_STATUS_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    PUSHBACK_FIELD_NUMBER: _ClassVar[int]
    WISH_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    EXECUTED_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    error_type: str
    grpc_code: int
    http_status: int
    exit_code: int
    signal: int
    message: str
    cause: str
    host: str
    worker: str
    duration: _duration_pb2.Duration
    target: str
    pushback: Pushback
    wish: RetryWish
    retryable: bool
    executed: Executed
    action: str
    def __init__(self, error_type: _Optional[str] = ..., grpc_code: _Optional[int] = ..., http_status: _Optional[int] = ..., exit_code: _Optional[int] = ..., signal: _Optional[int] = ..., message: _Optional[str] = ..., cause: _Optional[str] = ..., host: _Optional[str] = ..., worker: _Optional[str] = ..., duration: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., target: _Optional[str] = ..., pushback: _Optional[_Union[Pushback, _Mapping]] = ..., wish: _Optional[_Union[RetryWish, _Mapping]] = ..., retryable: bool = ..., executed: _Optional[_Union[Executed, str]] = ..., action: _Optional[str] = ..., **kwargs) -> None: ...

class Pushback(_message.Message):
    __slots__ = ("after", "time", "never")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    NEVER_FIELD_NUMBER: _ClassVar[int]
    after: _duration_pb2.Duration
    time: _timestamp_pb2.Timestamp
    never: bool
    def __init__(self, after: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., never: bool = ...) -> None: ...

class RetryWish(_message.Message):
    __slots__ = ("max_retries", "delay")
    MAX_RETRIES_FIELD_NUMBER: _ClassVar[int]
    DELAY_FIELD_NUMBER: _ClassVar[int]
    max_retries: int
    delay: _duration_pb2.Duration
    def __init__(self, max_retries: _Optional[int] = ..., delay: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...
