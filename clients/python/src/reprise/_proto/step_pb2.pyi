from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from . import failure_pb2 as _failure_pb2
from . import policy_pb2 as _policy_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_RETRY: _ClassVar[Verdict]
    VERDICT_WAIT: _ClassVar[Verdict]
    VERDICT_STOP: _ClassVar[Verdict]
    VERDICT_HOLD: _ClassVar[Verdict]
    VERDICT_DONE: _ClassVar[Verdict]

class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASON_UNSPECIFIED: _ClassVar[Reason]
    REASON_BACKOFF: _ClassVar[Reason]
    REASON_PUSHBACK: _ClassVar[Reason]
    REASON_WISH: _ClassVar[Reason]
    REASON_CRASHED: _ClassVar[Reason]
    REASON_ANSWERED: _ClassVar[Reason]
    REASON_OUTAGE: _ClassVar[Reason]
    REASON_ORDERED: _ClassVar[Reason]
    REASON_UNSTARTED: _ClassVar[Reason]
    REASON_NOT_DUE: _ClassVar[Reason]
    REASON_IN_PROGRESS: _ClassVar[Reason]
    REASON_STOPPING: _ClassVar[Reason]
    REASON_EXCLUDED_HOST: _ClassVar[Reason]
    REASON_LIMITED: _ClassVar[Reason]
    REASON_IN_LINE: _ClassVar[Reason]
    REASON_PAUSED: _ClassVar[Reason]
    REASON_BREAKER_OPEN: _ClassVar[Reason]
    REASON_RETRIES_SPENT: _ClassVar[Reason]
    REASON_RULE: _ClassVar[Reason]
    REASON_NOT_RETRYABLE: _ClassVar[Reason]
    REASON_PUSHBACK_NEVER: _ClassVar[Reason]
    REASON_MAX_ELAPSED: _ClassVar[Reason]
    REASON_DEADLINE: _ClassVar[Reason]
    REASON_CEILING: _ClassVar[Reason]
    REASON_STEP_KIND: _ClassVar[Reason]
    REASON_CRASHES_SPENT: _ClassVar[Reason]
    REASON_UNCOUNTED_SPENT: _ClassVar[Reason]
    REASON_SCHEDULE_ENDED: _ClassVar[Reason]
    REASON_CANCELED: _ClassVar[Reason]
    REASON_ABANDONED: _ClassVar[Reason]
    REASON_BUDGET_SPENT: _ClassVar[Reason]
    REASON_RUN_OVER: _ClassVar[Reason]
    REASON_RUN_SUPERSEDED: _ClassVar[Reason]
    REASON_RUN_RETRIES_SPENT: _ClassVar[Reason]
    REASON_STEP_FAILED: _ClassVar[Reason]
    REASON_GIVEN_UP: _ClassVar[Reason]
    REASON_EXHAUSTED: _ClassVar[Reason]
    REASON_HELD_BY_RULE: _ClassVar[Reason]
    REASON_SUCCEEDED: _ClassVar[Reason]
    REASON_SKIPPED: _ClassVar[Reason]

class ConstraintKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONSTRAINT_KIND_UNSPECIFIED: _ClassVar[ConstraintKind]
    CONSTRAINT_KIND_BACKOFF: _ClassVar[ConstraintKind]
    CONSTRAINT_KIND_PUSHBACK: _ClassVar[ConstraintKind]
    CONSTRAINT_KIND_WISH: _ClassVar[ConstraintKind]
    CONSTRAINT_KIND_LEASE: _ClassVar[ConstraintKind]
    CONSTRAINT_KIND_RATE: _ClassVar[ConstraintKind]
    CONSTRAINT_KIND_CONCURRENCY: _ClassVar[ConstraintKind]
    CONSTRAINT_KIND_BUDGET: _ClassVar[ConstraintKind]
    CONSTRAINT_KIND_COOLDOWN: _ClassVar[ConstraintKind]
    CONSTRAINT_KIND_PAUSE: _ClassVar[ConstraintKind]
    CONSTRAINT_KIND_BREAKER: _ClassVar[ConstraintKind]
    CONSTRAINT_KIND_RAMP: _ClassVar[ConstraintKind]
    CONSTRAINT_KIND_HOST: _ClassVar[ConstraintKind]
    CONSTRAINT_KIND_TICKET: _ClassVar[ConstraintKind]
    CONSTRAINT_KIND_FORCED: _ClassVar[ConstraintKind]
    CONSTRAINT_KIND_OBSERVED: _ClassVar[ConstraintKind]

class StepState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STEP_STATE_UNSPECIFIED: _ClassVar[StepState]
    STEP_STATE_WAITING: _ClassVar[StepState]
    STEP_STATE_RUNNING: _ClassVar[StepState]
    STEP_STATE_HELD: _ClassVar[StepState]
    STEP_STATE_SUCCEEDED: _ClassVar[StepState]
    STEP_STATE_FAILED: _ClassVar[StepState]
    STEP_STATE_SKIPPED: _ClassVar[StepState]
    STEP_STATE_CANCELED: _ClassVar[StepState]

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_SUCCESS: _ClassVar[Outcome]
    OUTCOME_FAILURE: _ClassVar[Outcome]
    OUTCOME_CRASH: _ClassVar[Outcome]

class OrderKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ORDER_KIND_UNSPECIFIED: _ClassVar[OrderKind]
    ORDER_KIND_RETRY: _ClassVar[OrderKind]
    ORDER_KIND_SKIP: _ClassVar[OrderKind]
    ORDER_KIND_SUCCEED: _ClassVar[OrderKind]
    ORDER_KIND_FAIL: _ClassVar[OrderKind]
    ORDER_KIND_CANCEL: _ClassVar[OrderKind]
    ORDER_KIND_RESET: _ClassVar[OrderKind]
    ORDER_KIND_EXTEND: _ClassVar[OrderKind]
    ORDER_KIND_PAUSE: _ClassVar[OrderKind]
    ORDER_KIND_RESUME: _ClassVar[OrderKind]
    ORDER_KIND_RESOLVE: _ClassVar[OrderKind]
VERDICT_UNSPECIFIED: Verdict
VERDICT_RETRY: Verdict
VERDICT_WAIT: Verdict
VERDICT_STOP: Verdict
VERDICT_HOLD: Verdict
VERDICT_DONE: Verdict
REASON_UNSPECIFIED: Reason
REASON_BACKOFF: Reason
REASON_PUSHBACK: Reason
REASON_WISH: Reason
REASON_CRASHED: Reason
REASON_ANSWERED: Reason
REASON_OUTAGE: Reason
REASON_ORDERED: Reason
REASON_UNSTARTED: Reason
REASON_NOT_DUE: Reason
REASON_IN_PROGRESS: Reason
REASON_STOPPING: Reason
REASON_EXCLUDED_HOST: Reason
REASON_LIMITED: Reason
REASON_IN_LINE: Reason
REASON_PAUSED: Reason
REASON_BREAKER_OPEN: Reason
REASON_RETRIES_SPENT: Reason
REASON_RULE: Reason
REASON_NOT_RETRYABLE: Reason
REASON_PUSHBACK_NEVER: Reason
REASON_MAX_ELAPSED: Reason
REASON_DEADLINE: Reason
REASON_CEILING: Reason
REASON_STEP_KIND: Reason
REASON_CRASHES_SPENT: Reason
REASON_UNCOUNTED_SPENT: Reason
REASON_SCHEDULE_ENDED: Reason
REASON_CANCELED: Reason
REASON_ABANDONED: Reason
REASON_BUDGET_SPENT: Reason
REASON_RUN_OVER: Reason
REASON_RUN_SUPERSEDED: Reason
REASON_RUN_RETRIES_SPENT: Reason
REASON_STEP_FAILED: Reason
REASON_GIVEN_UP: Reason
REASON_EXHAUSTED: Reason
REASON_HELD_BY_RULE: Reason
REASON_SUCCEEDED: Reason
REASON_SKIPPED: Reason
CONSTRAINT_KIND_UNSPECIFIED: ConstraintKind
CONSTRAINT_KIND_BACKOFF: ConstraintKind
CONSTRAINT_KIND_PUSHBACK: ConstraintKind
CONSTRAINT_KIND_WISH: ConstraintKind
CONSTRAINT_KIND_LEASE: ConstraintKind
CONSTRAINT_KIND_RATE: ConstraintKind
CONSTRAINT_KIND_CONCURRENCY: ConstraintKind
CONSTRAINT_KIND_BUDGET: ConstraintKind
CONSTRAINT_KIND_COOLDOWN: ConstraintKind
CONSTRAINT_KIND_PAUSE: ConstraintKind
CONSTRAINT_KIND_BREAKER: ConstraintKind
CONSTRAINT_KIND_RAMP: ConstraintKind
CONSTRAINT_KIND_HOST: ConstraintKind
CONSTRAINT_KIND_TICKET: ConstraintKind
CONSTRAINT_KIND_FORCED: ConstraintKind
CONSTRAINT_KIND_OBSERVED: ConstraintKind
STEP_STATE_UNSPECIFIED: StepState
STEP_STATE_WAITING: StepState
STEP_STATE_RUNNING: StepState
STEP_STATE_HELD: StepState
STEP_STATE_SUCCEEDED: StepState
STEP_STATE_FAILED: StepState
STEP_STATE_SKIPPED: StepState
STEP_STATE_CANCELED: StepState
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_SUCCESS: Outcome
OUTCOME_FAILURE: Outcome
OUTCOME_CRASH: Outcome
ORDER_KIND_UNSPECIFIED: OrderKind
ORDER_KIND_RETRY: OrderKind
ORDER_KIND_SKIP: OrderKind
ORDER_KIND_SUCCEED: OrderKind
ORDER_KIND_FAIL: OrderKind
ORDER_KIND_CANCEL: OrderKind
ORDER_KIND_RESET: OrderKind
ORDER_KIND_EXTEND: OrderKind
ORDER_KIND_PAUSE: OrderKind
ORDER_KIND_RESUME: OrderKind
ORDER_KIND_RESOLVE: OrderKind

class Decision(_message.Message):
    __slots__ = ("verdict", "reason", "explanation", "not_before", "delay", "decided_at", "rule", "policy", "counters", "constraints", "excluded_hosts", "resume_from", "ends_by", "hold_answers", "held_until")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    NOT_BEFORE_FIELD_NUMBER: _ClassVar[int]
    DELAY_FIELD_NUMBER: _ClassVar[int]
    DECIDED_AT_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    CONSTRAINTS_FIELD_NUMBER: _ClassVar[int]
    EXCLUDED_HOSTS_FIELD_NUMBER: _ClassVar[int]
    RESUME_FROM_FIELD_NUMBER: _ClassVar[int]
    ENDS_BY_FIELD_NUMBER: _ClassVar[int]
    HOLD_ANSWERS_FIELD_NUMBER: _ClassVar[int]
    HELD_UNTIL_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    reason: Reason
    explanation: str
    not_before: _timestamp_pb2.Timestamp
    delay: _duration_pb2.Duration
    decided_at: _timestamp_pb2.Timestamp
    rule: str
    policy: PolicyReference
    counters: Counters
    constraints: _containers.RepeatedCompositeFieldContainer[Constraint]
    excluded_hosts: _containers.RepeatedCompositeFieldContainer[ExcludedHost]
    resume_from: str
    ends_by: _timestamp_pb2.Timestamp
    hold_answers: _containers.RepeatedScalarFieldContainer[_policy_pb2.HoldAnswer]
    held_until: _timestamp_pb2.Timestamp
    def __init__(self, verdict: _Optional[_Union[Verdict, str]] = ..., reason: _Optional[_Union[Reason, str]] = ..., explanation: _Optional[str] = ..., not_before: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., delay: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., decided_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., rule: _Optional[str] = ..., policy: _Optional[_Union[PolicyReference, _Mapping]] = ..., counters: _Optional[_Union[Counters, _Mapping]] = ..., constraints: _Optional[_Iterable[_Union[Constraint, _Mapping]]] = ..., excluded_hosts: _Optional[_Iterable[_Union[ExcludedHost, _Mapping]]] = ..., resume_from: _Optional[str] = ..., ends_by: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., hold_answers: _Optional[_Iterable[_Union[_policy_pb2.HoldAnswer, str]]] = ..., held_until: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class PolicyReference(_message.Message):
    __slots__ = ("name", "revision", "digest", "built_in")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    BUILT_IN_FIELD_NUMBER: _ClassVar[int]
    name: str
    revision: int
    digest: str
    built_in: bool
    def __init__(self, name: _Optional[str] = ..., revision: _Optional[int] = ..., digest: _Optional[str] = ..., built_in: bool = ...) -> None: ...

class Counters(_message.Message):
    __slots__ = ("attempts", "retries", "retries_by_rule", "uncounted", "crashes", "forgiven")
    class RetriesByRuleEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    RETRIES_FIELD_NUMBER: _ClassVar[int]
    RETRIES_BY_RULE_FIELD_NUMBER: _ClassVar[int]
    UNCOUNTED_FIELD_NUMBER: _ClassVar[int]
    CRASHES_FIELD_NUMBER: _ClassVar[int]
    FORGIVEN_FIELD_NUMBER: _ClassVar[int]
    attempts: int
    retries: int
    retries_by_rule: _containers.ScalarMap[str, int]
    uncounted: int
    crashes: int
    forgiven: int
    def __init__(self, attempts: _Optional[int] = ..., retries: _Optional[int] = ..., retries_by_rule: _Optional[_Mapping[str, int]] = ..., uncounted: _Optional[int] = ..., crashes: _Optional[int] = ..., forgiven: _Optional[int] = ...) -> None: ...

class Constraint(_message.Message):
    __slots__ = ("kind", "key", "earliest", "firm", "binding", "used", "limit", "revision")
    KIND_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    EARLIEST_FIELD_NUMBER: _ClassVar[int]
    FIRM_FIELD_NUMBER: _ClassVar[int]
    BINDING_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    kind: ConstraintKind
    key: str
    earliest: _timestamp_pb2.Timestamp
    firm: bool
    binding: bool
    used: int
    limit: int
    revision: int
    def __init__(self, kind: _Optional[_Union[ConstraintKind, str]] = ..., key: _Optional[str] = ..., earliest: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., firm: bool = ..., binding: bool = ..., used: _Optional[int] = ..., limit: _Optional[int] = ..., revision: _Optional[int] = ...) -> None: ...

class ExcludedHost(_message.Message):
    __slots__ = ("host", "hard")
    HOST_FIELD_NUMBER: _ClassVar[int]
    HARD_FIELD_NUMBER: _ClassVar[int]
    host: str
    hard: bool
    def __init__(self, host: _Optional[str] = ..., hard: bool = ...) -> None: ...

class Attempt(_message.Message):
    __slots__ = ("number", "began_at", "ended_at", "outcome", "exit_code", "host", "decision", "message", "error_type", "worker", "cause", "late_message")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    BEGAN_AT_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    CLASS_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ERROR_TYPE_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    LATE_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    number: int
    began_at: _timestamp_pb2.Timestamp
    ended_at: _timestamp_pb2.Timestamp
    outcome: Outcome
    exit_code: int
    host: str
    decision: Decision
    message: str
    error_type: str
    worker: str
    cause: str
    late_message: str
    def __init__(self, number: _Optional[int] = ..., began_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., ended_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., exit_code: _Optional[int] = ..., host: _Optional[str] = ..., decision: _Optional[_Union[Decision, _Mapping]] = ..., message: _Optional[str] = ..., error_type: _Optional[str] = ..., worker: _Optional[str] = ..., cause: _Optional[str] = ..., late_message: _Optional[str] = ..., **kwargs) -> None: ...

class Step(_message.Message):
    __slots__ = ("namespace", "run", "step", "state", "counters", "attempts", "policy", "next_event_at", "first_began_at", "deadline", "kind", "targets", "queue", "fence", "resume_from", "decision", "read_at", "purge_at", "ends_by", "orders", "pause", "cancel_requested", "extra_retries", "manual_retries", "held_since", "progress", "labels")
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
    STATE_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    NEXT_EVENT_AT_FIELD_NUMBER: _ClassVar[int]
    FIRST_BEGAN_AT_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    RESUME_FROM_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    READ_AT_FIELD_NUMBER: _ClassVar[int]
    PURGE_AT_FIELD_NUMBER: _ClassVar[int]
    ENDS_BY_FIELD_NUMBER: _ClassVar[int]
    ORDERS_FIELD_NUMBER: _ClassVar[int]
    PAUSE_FIELD_NUMBER: _ClassVar[int]
    CANCEL_REQUESTED_FIELD_NUMBER: _ClassVar[int]
    EXTRA_RETRIES_FIELD_NUMBER: _ClassVar[int]
    MANUAL_RETRIES_FIELD_NUMBER: _ClassVar[int]
    HELD_SINCE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    run: str
    step: str
    state: StepState
    counters: Counters
    attempts: _containers.RepeatedCompositeFieldContainer[Attempt]
    policy: PolicyReference
    next_event_at: _timestamp_pb2.Timestamp
    first_began_at: _timestamp_pb2.Timestamp
    deadline: _timestamp_pb2.Timestamp
    kind: str
    targets: _containers.RepeatedScalarFieldContainer[str]
    queue: str
    fence: int
    resume_from: str
    decision: Decision
    read_at: _timestamp_pb2.Timestamp
    purge_at: _timestamp_pb2.Timestamp
    ends_by: _timestamp_pb2.Timestamp
    orders: _containers.RepeatedCompositeFieldContainer[GivenOrder]
    pause: StepPause
    cancel_requested: bool
    extra_retries: int
    manual_retries: int
    held_since: _timestamp_pb2.Timestamp
    progress: int
    labels: _containers.ScalarMap[str, str]
    def __init__(self, namespace: _Optional[str] = ..., run: _Optional[str] = ..., step: _Optional[str] = ..., state: _Optional[_Union[StepState, str]] = ..., counters: _Optional[_Union[Counters, _Mapping]] = ..., attempts: _Optional[_Iterable[_Union[Attempt, _Mapping]]] = ..., policy: _Optional[_Union[PolicyReference, _Mapping]] = ..., next_event_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., first_began_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., deadline: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., kind: _Optional[str] = ..., targets: _Optional[_Iterable[str]] = ..., queue: _Optional[str] = ..., fence: _Optional[int] = ..., resume_from: _Optional[str] = ..., decision: _Optional[_Union[Decision, _Mapping]] = ..., read_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., purge_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., ends_by: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., orders: _Optional[_Iterable[_Union[GivenOrder, _Mapping]]] = ..., pause: _Optional[_Union[StepPause, _Mapping]] = ..., cancel_requested: bool = ..., extra_retries: _Optional[int] = ..., manual_retries: _Optional[int] = ..., held_since: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., progress: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class StepFooting(_message.Message):
    __slots__ = ("state", "retries")
    STATE_FIELD_NUMBER: _ClassVar[int]
    RETRIES_FIELD_NUMBER: _ClassVar[int]
    state: StepState
    retries: int
    def __init__(self, state: _Optional[_Union[StepState, str]] = ..., retries: _Optional[int] = ...) -> None: ...

class GivenOrder(_message.Message):
    __slots__ = ("kind", "at", "by", "reason", "answer", "more_retries", "before", "after")
    KIND_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    MORE_RETRIES_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    kind: OrderKind
    at: _timestamp_pb2.Timestamp
    by: str
    reason: str
    answer: _policy_pb2.HoldAnswer
    more_retries: int
    before: StepFooting
    after: StepFooting
    def __init__(self, kind: _Optional[_Union[OrderKind, str]] = ..., at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., by: _Optional[str] = ..., reason: _Optional[str] = ..., answer: _Optional[_Union[_policy_pb2.HoldAnswer, str]] = ..., more_retries: _Optional[int] = ..., before: _Optional[_Union[StepFooting, _Mapping]] = ..., after: _Optional[_Union[StepFooting, _Mapping]] = ...) -> None: ...

class StepPause(_message.Message):
    __slots__ = ("since", "until", "by", "reason")
    SINCE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    since: _timestamp_pb2.Timestamp
    until: _timestamp_pb2.Timestamp
    by: str
    reason: str
    def __init__(self, since: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., until: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., by: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...
