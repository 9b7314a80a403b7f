from . import policy_pb2 as _policy_pb2
from . import step_pb2 as _step_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetRunRequest(_message.Message):
    __slots__ = ("namespace", "run")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    run: str
    def __init__(self, namespace: _Optional[str] = ..., run: _Optional[str] = ...) -> None: ...

class GetRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("record", "resume", "retries_left")
    RECORD_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    RETRIES_LEFT_FIELD_NUMBER: _ClassVar[int]
    record: _step_pb2.Step
    resume: _policy_pb2.Resume
    retries_left: int
    def __init__(self, record: _Optional[_Union[_step_pb2.Step, _Mapping]] = ..., resume: _Optional[_Union[_policy_pb2.Resume, str]] = ..., retries_left: _Optional[int] = ...) -> None: ...

class ListRunStepsRequest(_message.Message):
    __slots__ = ("namespace", "run", "states", "page_size", "page_token")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    run: str
    states: _containers.RepeatedScalarFieldContainer[_step_pb2.StepState]
    page_size: int
    page_token: str
    def __init__(self, namespace: _Optional[str] = ..., run: _Optional[str] = ..., states: _Optional[_Iterable[_Union[_step_pb2.StepState, str]]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListRunStepsResponse(_message.Message):
    __slots__ = ("steps", "next_page_token")
    STEPS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    steps: _containers.RepeatedCompositeFieldContainer[RunStep]
    next_page_token: str
    def __init__(self, steps: _Optional[_Iterable[_Union[RunStep, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class RunStep(_message.Message):
    __slots__ = ("step", "state", "counters", "run_attempt")
    STEP_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    RUN_ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    step: str
    state: _step_pb2.StepState
    counters: _step_pb2.Counters
    run_attempt: int
    def __init__(self, step: _Optional[str] = ..., state: _Optional[_Union[_step_pb2.StepState, str]] = ..., counters: _Optional[_Union[_step_pb2.Counters, _Mapping]] = ..., run_attempt: _Optional[int] = ...) -> None: ...
