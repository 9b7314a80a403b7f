from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from . import failure_pb2 as _failure_pb2
from . import policy_pb2 as _policy_pb2
from . import run_pb2 as _run_pb2
from . import step_pb2 as _step_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AwaitState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AWAIT_STATE_UNSPECIFIED: _ClassVar[AwaitState]
    AWAIT_STATE_READY: _ClassVar[AwaitState]
    AWAIT_STATE_CHANGED: _ClassVar[AwaitState]
    AWAIT_STATE_WAITING: _ClassVar[AwaitState]

class LeaseState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEASE_STATE_UNSPECIFIED: _ClassVar[LeaseState]
    LEASE_STATE_HELD: _ClassVar[LeaseState]
    LEASE_STATE_LOST: _ClassVar[LeaseState]

class ReportStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REPORT_STATUS_UNSPECIFIED: _ClassVar[ReportStatus]
    REPORT_STATUS_RECORDED: _ClassVar[ReportStatus]
    REPORT_STATUS_STALE: _ClassVar[ReportStatus]
    REPORT_STATUS_LATE: _ClassVar[ReportStatus]
AWAIT_STATE_UNSPECIFIED: AwaitState
AWAIT_STATE_READY: AwaitState
AWAIT_STATE_CHANGED: AwaitState
AWAIT_STATE_WAITING: AwaitState
LEASE_STATE_UNSPECIFIED: LeaseState
LEASE_STATE_HELD: LeaseState
LEASE_STATE_LOST: LeaseState
REPORT_STATUS_UNSPECIFIED: ReportStatus
REPORT_STATUS_RECORDED: ReportStatus
REPORT_STATUS_STALE: ReportStatus
REPORT_STATUS_LATE: ReportStatus

class BeginAttemptRequest(_message.Message):
    __slots__ = ("namespace", "run", "step", "request_id", "policy_name", "inline_policy", "lease", "host", "worker", "kind", "targets", "queue", "deadline", "time_left", "awaits", "payload", "run_attempt", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    POLICY_NAME_FIELD_NUMBER: _ClassVar[int]
    INLINE_POLICY_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    TIME_LEFT_FIELD_NUMBER: _ClassVar[int]
    AWAITS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    RUN_ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    run: str
    step: str
    request_id: bytes
    policy_name: str
    inline_policy: _policy_pb2.Policy
    lease: _duration_pb2.Duration
    host: str
    worker: str
    kind: str
    targets: _containers.RepeatedScalarFieldContainer[str]
    queue: str
    deadline: _timestamp_pb2.Timestamp
    time_left: _duration_pb2.Duration
    awaits: bool
    payload: bytes
    run_attempt: int
    labels: _containers.ScalarMap[str, str]
    def __init__(self, namespace: _Optional[str] = ..., run: _Optional[str] = ..., step: _Optional[str] = ..., request_id: _Optional[bytes] = ..., policy_name: _Optional[str] = ..., inline_policy: _Optional[_Union[_policy_pb2.Policy, _Mapping]] = ..., lease: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., host: _Optional[str] = ..., worker: _Optional[str] = ..., kind: _Optional[str] = ..., targets: _Optional[_Iterable[str]] = ..., queue: _Optional[str] = ..., deadline: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., time_left: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., awaits: bool = ..., payload: _Optional[bytes] = ..., run_attempt: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class BeginAttemptResponse(_message.Message):
    __slots__ = ("grant", "refusal", "replayed")
    GRANT_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    grant: Grant
    refusal: _step_pb2.Decision
    replayed: bool
    def __init__(self, grant: _Optional[_Union[Grant, _Mapping]] = ..., refusal: _Optional[_Union[_step_pb2.Decision, _Mapping]] = ..., replayed: bool = ...) -> None: ...

class Grant(_message.Message):
    __slots__ = ("attempt", "fence", "lease_until", "lease", "heartbeat_every", "began_at", "counters", "resume_from", "ends_by", "excluded_hosts", "policy", "run_retries_left")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    LEASE_UNTIL_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_EVERY_FIELD_NUMBER: _ClassVar[int]
    BEGAN_AT_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    RESUME_FROM_FIELD_NUMBER: _ClassVar[int]
    ENDS_BY_FIELD_NUMBER: _ClassVar[int]
    EXCLUDED_HOSTS_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    RUN_RETRIES_LEFT_FIELD_NUMBER: _ClassVar[int]
    attempt: int
    fence: int
    lease_until: _timestamp_pb2.Timestamp
    lease: _duration_pb2.Duration
    heartbeat_every: _duration_pb2.Duration
    began_at: _timestamp_pb2.Timestamp
    counters: _step_pb2.Counters
    resume_from: str
    ends_by: _timestamp_pb2.Timestamp
    excluded_hosts: _containers.RepeatedCompositeFieldContainer[_step_pb2.ExcludedHost]
    policy: _step_pb2.PolicyReference
    run_retries_left: int
    def __init__(self, attempt: _Optional[int] = ..., fence: _Optional[int] = ..., lease_until: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., lease: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., heartbeat_every: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., began_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., counters: _Optional[_Union[_step_pb2.Counters, _Mapping]] = ..., resume_from: _Optional[str] = ..., ends_by: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., excluded_hosts: _Optional[_Iterable[_Union[_step_pb2.ExcludedHost, _Mapping]]] = ..., policy: _Optional[_Union[_step_pb2.PolicyReference, _Mapping]] = ..., run_retries_left: _Optional[int] = ...) -> None: ...

class AwaitDecisionRequest(_message.Message):
    __slots__ = ("namespace", "run", "step", "timeout")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    run: str
    step: str
    timeout: _duration_pb2.Duration
    def __init__(self, namespace: _Optional[str] = ..., run: _Optional[str] = ..., step: _Optional[str] = ..., timeout: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class AwaitDecisionResponse(_message.Message):
    __slots__ = ("state", "decision")
    STATE_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    state: AwaitState
    decision: _step_pb2.Decision
    def __init__(self, state: _Optional[_Union[AwaitState, str]] = ..., decision: _Optional[_Union[_step_pb2.Decision, _Mapping]] = ...) -> None: ...

class ClaimDueRequest(_message.Message):
    __slots__ = ("namespace", "queue", "request_id", "max_steps", "lease", "host", "worker", "timeout", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MAX_STEPS_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    queue: str
    request_id: bytes
    max_steps: int
    lease: _duration_pb2.Duration
    host: str
    worker: str
    timeout: _duration_pb2.Duration
    labels: _containers.ScalarMap[str, str]
    def __init__(self, namespace: _Optional[str] = ..., queue: _Optional[str] = ..., request_id: _Optional[bytes] = ..., max_steps: _Optional[int] = ..., lease: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., host: _Optional[str] = ..., worker: _Optional[str] = ..., timeout: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ClaimDueResponse(_message.Message):
    __slots__ = ("steps",)
    STEPS_FIELD_NUMBER: _ClassVar[int]
    steps: _containers.RepeatedCompositeFieldContainer[ClaimedStep]
    def __init__(self, steps: _Optional[_Iterable[_Union[ClaimedStep, _Mapping]]] = ...) -> None: ...

class ClaimedStep(_message.Message):
    __slots__ = ("run", "step", "kind", "targets", "payload", "grant", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    RUN_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    run: str
    step: str
    kind: str
    targets: _containers.RepeatedScalarFieldContainer[str]
    payload: bytes
    grant: Grant
    labels: _containers.ScalarMap[str, str]
    def __init__(self, run: _Optional[str] = ..., step: _Optional[str] = ..., kind: _Optional[str] = ..., targets: _Optional[_Iterable[str]] = ..., payload: _Optional[bytes] = ..., grant: _Optional[_Union[Grant, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class StreamDueRequest(_message.Message):
    __slots__ = ("namespace", "queue", "request_id", "max_running", "lease", "host", "worker", "labels", "running")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MAX_RUNNING_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    queue: str
    request_id: bytes
    max_running: int
    lease: _duration_pb2.Duration
    host: str
    worker: str
    labels: _containers.ScalarMap[str, str]
    running: _containers.RepeatedCompositeFieldContainer[RunningAttempt]
    def __init__(self, namespace: _Optional[str] = ..., queue: _Optional[str] = ..., request_id: _Optional[bytes] = ..., max_running: _Optional[int] = ..., lease: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., host: _Optional[str] = ..., worker: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., running: _Optional[_Iterable[_Union[RunningAttempt, _Mapping]]] = ...) -> None: ...

class RunningAttempt(_message.Message):
    __slots__ = ("run", "step", "fence")
    RUN_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    run: str
    step: str
    fence: int
    def __init__(self, run: _Optional[str] = ..., step: _Optional[str] = ..., fence: _Optional[int] = ...) -> None: ...

class StreamDueResponse(_message.Message):
    __slots__ = ("steps",)
    STEPS_FIELD_NUMBER: _ClassVar[int]
    steps: _containers.RepeatedCompositeFieldContainer[ClaimedStep]
    def __init__(self, steps: _Optional[_Iterable[_Union[ClaimedStep, _Mapping]]] = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("namespace", "run", "step", "fence", "lease", "progress")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    run: str
    step: str
    fence: int
    lease: _duration_pb2.Duration
    progress: int
    def __init__(self, namespace: _Optional[str] = ..., run: _Optional[str] = ..., step: _Optional[str] = ..., fence: _Optional[int] = ..., lease: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., progress: _Optional[int] = ...) -> None: ...

class HeartbeatResponse(_message.Message):
    __slots__ = ("state", "lease_until", "lease", "cancel_requested")
    STATE_FIELD_NUMBER: _ClassVar[int]
    LEASE_UNTIL_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    CANCEL_REQUESTED_FIELD_NUMBER: _ClassVar[int]
    state: LeaseState
    lease_until: _timestamp_pb2.Timestamp
    lease: _duration_pb2.Duration
    cancel_requested: bool
    def __init__(self, state: _Optional[_Union[LeaseState, str]] = ..., lease_until: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., lease: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., cancel_requested: bool = ...) -> None: ...

class ReportAttemptRequest(_message.Message):
    __slots__ = ("namespace", "run", "step", "fence", "attempt", "request_id", "success", "failure", "policy_name", "inline_policy", "kind", "targets", "deadline", "time_left", "run_attempt")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    POLICY_NAME_FIELD_NUMBER: _ClassVar[int]
    INLINE_POLICY_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    TIME_LEFT_FIELD_NUMBER: _ClassVar[int]
    RUN_ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    run: str
    step: str
    fence: int
    attempt: int
    request_id: bytes
    success: Success
    failure: _failure_pb2.Failure
    policy_name: str
    inline_policy: _policy_pb2.Policy
    kind: str
    targets: _containers.RepeatedScalarFieldContainer[str]
    deadline: _timestamp_pb2.Timestamp
    time_left: _duration_pb2.Duration
    run_attempt: int
    def __init__(self, namespace: _Optional[str] = ..., run: _Optional[str] = ..., step: _Optional[str] = ..., fence: _Optional[int] = ..., attempt: _Optional[int] = ..., request_id: _Optional[bytes] = ..., success: _Optional[_Union[Success, _Mapping]] = ..., failure: _Optional[_Union[_failure_pb2.Failure, _Mapping]] = ..., policy_name: _Optional[str] = ..., inline_policy: _Optional[_Union[_policy_pb2.Policy, _Mapping]] = ..., kind: _Optional[str] = ..., targets: _Optional[_Iterable[str]] = ..., deadline: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., time_left: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., run_attempt: _Optional[int] = ...) -> None: ...

class Success(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReportAttemptResponse(_message.Message):
    __slots__ = ("decision", "attempt", "status", "replayed")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    decision: _step_pb2.Decision
    attempt: int
    status: ReportStatus
    replayed: bool
    def __init__(self, decision: _Optional[_Union[_step_pb2.Decision, _Mapping]] = ..., attempt: _Optional[int] = ..., status: _Optional[_Union[ReportStatus, str]] = ..., replayed: bool = ...) -> None: ...

class BatchReportAttemptsRequest(_message.Message):
    __slots__ = ("namespace", "reports")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    reports: _containers.RepeatedCompositeFieldContainer[ReportAttemptRequest]
    def __init__(self, namespace: _Optional[str] = ..., reports: _Optional[_Iterable[_Union[ReportAttemptRequest, _Mapping]]] = ...) -> None: ...

class BatchReportAttemptsResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[BatchReportResult]
    def __init__(self, results: _Optional[_Iterable[_Union[BatchReportResult, _Mapping]]] = ...) -> None: ...

class BatchReportResult(_message.Message):
    __slots__ = ("run", "step", "response", "error")
    RUN_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    run: str
    step: str
    response: ReportAttemptResponse
    error: _status_pb2.Status
    def __init__(self, run: _Optional[str] = ..., step: _Optional[str] = ..., response: _Optional[_Union[ReportAttemptResponse, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class GetStepRequest(_message.Message):
    __slots__ = ("namespace", "run", "step")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    run: str
    step: str
    def __init__(self, namespace: _Optional[str] = ..., run: _Optional[str] = ..., step: _Optional[str] = ...) -> None: ...

class GetStepResponse(_message.Message):
    __slots__ = ("step",)
    STEP_FIELD_NUMBER: _ClassVar[int]
    step: _step_pb2.Step
    def __init__(self, step: _Optional[_Union[_step_pb2.Step, _Mapping]] = ...) -> None: ...

class BeginRunRequest(_message.Message):
    __slots__ = ("namespace", "run", "request_id", "policy_name", "inline_policy", "lease", "host", "worker", "deadline", "time_left")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    POLICY_NAME_FIELD_NUMBER: _ClassVar[int]
    INLINE_POLICY_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    TIME_LEFT_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    run: str
    request_id: bytes
    policy_name: str
    inline_policy: _policy_pb2.Policy
    lease: _duration_pb2.Duration
    host: str
    worker: str
    deadline: _timestamp_pb2.Timestamp
    time_left: _duration_pb2.Duration
    def __init__(self, namespace: _Optional[str] = ..., run: _Optional[str] = ..., request_id: _Optional[bytes] = ..., policy_name: _Optional[str] = ..., inline_policy: _Optional[_Union[_policy_pb2.Policy, _Mapping]] = ..., lease: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., host: _Optional[str] = ..., worker: _Optional[str] = ..., deadline: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., time_left: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class BeginRunResponse(_message.Message):
    __slots__ = ("grant", "refusal", "replayed")
    GRANT_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    grant: RunGrant
    refusal: _step_pb2.Decision
    replayed: bool
    def __init__(self, grant: _Optional[_Union[RunGrant, _Mapping]] = ..., refusal: _Optional[_Union[_step_pb2.Decision, _Mapping]] = ..., replayed: bool = ...) -> None: ...

class RunGrant(_message.Message):
    __slots__ = ("attempt", "fence", "lease_until", "lease", "heartbeat_every", "began_at", "counters", "ends_by", "policy", "resume", "retries_left")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    LEASE_UNTIL_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_EVERY_FIELD_NUMBER: _ClassVar[int]
    BEGAN_AT_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    ENDS_BY_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    RETRIES_LEFT_FIELD_NUMBER: _ClassVar[int]
    attempt: int
    fence: int
    lease_until: _timestamp_pb2.Timestamp
    lease: _duration_pb2.Duration
    heartbeat_every: _duration_pb2.Duration
    began_at: _timestamp_pb2.Timestamp
    counters: _step_pb2.Counters
    ends_by: _timestamp_pb2.Timestamp
    policy: _step_pb2.PolicyReference
    resume: _policy_pb2.Resume
    retries_left: int
    def __init__(self, attempt: _Optional[int] = ..., fence: _Optional[int] = ..., lease_until: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., lease: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., heartbeat_every: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., began_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., counters: _Optional[_Union[_step_pb2.Counters, _Mapping]] = ..., ends_by: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., policy: _Optional[_Union[_step_pb2.PolicyReference, _Mapping]] = ..., resume: _Optional[_Union[_policy_pb2.Resume, str]] = ..., retries_left: _Optional[int] = ...) -> None: ...

class ReportRunRequest(_message.Message):
    __slots__ = ("namespace", "run", "fence", "attempt", "request_id", "success", "failure", "step_failed", "policy_name", "inline_policy", "deadline", "time_left")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    STEP_FAILED_FIELD_NUMBER: _ClassVar[int]
    POLICY_NAME_FIELD_NUMBER: _ClassVar[int]
    INLINE_POLICY_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    TIME_LEFT_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    run: str
    fence: int
    attempt: int
    request_id: bytes
    success: Success
    failure: _failure_pb2.Failure
    step_failed: bool
    policy_name: str
    inline_policy: _policy_pb2.Policy
    deadline: _timestamp_pb2.Timestamp
    time_left: _duration_pb2.Duration
    def __init__(self, namespace: _Optional[str] = ..., run: _Optional[str] = ..., fence: _Optional[int] = ..., attempt: _Optional[int] = ..., request_id: _Optional[bytes] = ..., success: _Optional[_Union[Success, _Mapping]] = ..., failure: _Optional[_Union[_failure_pb2.Failure, _Mapping]] = ..., step_failed: bool = ..., policy_name: _Optional[str] = ..., inline_policy: _Optional[_Union[_policy_pb2.Policy, _Mapping]] = ..., deadline: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., time_left: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ReportRunResponse(_message.Message):
    __slots__ = ("decision", "attempt", "status", "replayed", "resume")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    decision: _step_pb2.Decision
    attempt: int
    status: ReportStatus
    replayed: bool
    resume: _policy_pb2.Resume
    def __init__(self, decision: _Optional[_Union[_step_pb2.Decision, _Mapping]] = ..., attempt: _Optional[int] = ..., status: _Optional[_Union[ReportStatus, str]] = ..., replayed: bool = ..., resume: _Optional[_Union[_policy_pb2.Resume, str]] = ...) -> None: ...
