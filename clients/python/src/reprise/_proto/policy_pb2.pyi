from google.protobuf import duration_pb2 as _duration_pb2
from . import failure_pb2 as _failure_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Resume(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RESUME_UNSPECIFIED: _ClassVar[Resume]
    RESUME_FROM_FAILURE: _ClassVar[Resume]
    RESUME_ALL_STEPS: _ClassVar[Resume]

class StepCounters(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STEP_COUNTERS_UNSPECIFIED: _ClassVar[StepCounters]
    STEP_COUNTERS_RESET: _ClassVar[StepCounters]
    STEP_COUNTERS_CARRY: _ClassVar[StepCounters]

class Quirk(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    QUIRK_UNSPECIFIED: _ClassVar[Quirk]
    QUIRK_BOUNDS_FIRST: _ClassVar[Quirk]
    QUIRK_BACKOFF_NOT_WAITED: _ClassVar[Quirk]

class StopTiming(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STOP_TIMING_UNSPECIFIED: _ClassVar[StopTiming]
    STOP_TIMING_AT_ONCE: _ClassVar[StopTiming]
    STOP_TIMING_AFTER_BACKOFF: _ClassVar[StopTiming]

class HoldAnswer(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HOLD_ANSWER_UNSPECIFIED: _ClassVar[HoldAnswer]
    HOLD_ANSWER_RETRY: _ClassVar[HoldAnswer]
    HOLD_ANSWER_SKIP: _ClassVar[HoldAnswer]
    HOLD_ANSWER_FAIL: _ClassVar[HoldAnswer]
    HOLD_ANSWER_EXCLUDE_HOST: _ClassVar[HoldAnswer]

class ScheduleEnd(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCHEDULE_END_UNSPECIFIED: _ClassVar[ScheduleEnd]
    SCHEDULE_END_REPEAT: _ClassVar[ScheduleEnd]
    SCHEDULE_END_STOP: _ClassVar[ScheduleEnd]

class JitterKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JITTER_KIND_UNSPECIFIED: _ClassVar[JitterKind]
    JITTER_KIND_NONE: _ClassVar[JitterKind]
    JITTER_KIND_FULL: _ClassVar[JitterKind]
    JITTER_KIND_EQUAL: _ClassVar[JitterKind]
    JITTER_KIND_RATIO: _ClassVar[JitterKind]
    JITTER_KIND_BASE: _ClassVar[JitterKind]
    JITTER_KIND_DECORRELATED: _ClassVar[JitterKind]

class AntiAffinityMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ANTI_AFFINITY_MODE_UNSPECIFIED: _ClassVar[AntiAffinityMode]
    ANTI_AFFINITY_MODE_NONE: _ClassVar[AntiAffinityMode]
    ANTI_AFFINITY_MODE_SOFT: _ClassVar[AntiAffinityMode]
    ANTI_AFFINITY_MODE_HARD: _ClassVar[AntiAffinityMode]
RESUME_UNSPECIFIED: Resume
RESUME_FROM_FAILURE: Resume
RESUME_ALL_STEPS: Resume
STEP_COUNTERS_UNSPECIFIED: StepCounters
STEP_COUNTERS_RESET: StepCounters
STEP_COUNTERS_CARRY: StepCounters
QUIRK_UNSPECIFIED: Quirk
QUIRK_BOUNDS_FIRST: Quirk
QUIRK_BACKOFF_NOT_WAITED: Quirk
STOP_TIMING_UNSPECIFIED: StopTiming
STOP_TIMING_AT_ONCE: StopTiming
STOP_TIMING_AFTER_BACKOFF: StopTiming
HOLD_ANSWER_UNSPECIFIED: HoldAnswer
HOLD_ANSWER_RETRY: HoldAnswer
HOLD_ANSWER_SKIP: HoldAnswer
HOLD_ANSWER_FAIL: HoldAnswer
HOLD_ANSWER_EXCLUDE_HOST: HoldAnswer
SCHEDULE_END_UNSPECIFIED: ScheduleEnd
SCHEDULE_END_REPEAT: ScheduleEnd
SCHEDULE_END_STOP: ScheduleEnd
JITTER_KIND_UNSPECIFIED: JitterKind
JITTER_KIND_NONE: JitterKind
JITTER_KIND_FULL: JitterKind
JITTER_KIND_EQUAL: JitterKind
JITTER_KIND_RATIO: JitterKind
JITTER_KIND_BASE: JitterKind
JITTER_KIND_DECORRELATED: JitterKind
ANTI_AFFINITY_MODE_UNSPECIFIED: AntiAffinityMode
ANTI_AFFINITY_MODE_NONE: AntiAffinityMode
ANTI_AFFINITY_MODE_SOFT: AntiAffinityMode
ANTI_AFFINITY_MODE_HARD: AntiAffinityMode

class Policy(_message.Message):
    __slots__ = ("max_retries", "max_elapsed", "backoff", "rules", "pushback", "max_crash_retries", "reset_after", "reset_on_progress", "host_anti_affinity", "on_exhaustion", "never_retry_kinds", "quirks", "run")
    MAX_RETRIES_FIELD_NUMBER: _ClassVar[int]
    MAX_ELAPSED_FIELD_NUMBER: _ClassVar[int]
    BACKOFF_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    PUSHBACK_FIELD_NUMBER: _ClassVar[int]
    MAX_CRASH_RETRIES_FIELD_NUMBER: _ClassVar[int]
    RESET_AFTER_FIELD_NUMBER: _ClassVar[int]
    RESET_ON_PROGRESS_FIELD_NUMBER: _ClassVar[int]
    HOST_ANTI_AFFINITY_FIELD_NUMBER: _ClassVar[int]
    ON_EXHAUSTION_FIELD_NUMBER: _ClassVar[int]
    NEVER_RETRY_KINDS_FIELD_NUMBER: _ClassVar[int]
    QUIRKS_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    max_retries: int
    max_elapsed: _duration_pb2.Duration
    backoff: Backoff
    rules: _containers.RepeatedCompositeFieldContainer[Rule]
    pushback: PushbackBounds
    max_crash_retries: int
    reset_after: _duration_pb2.Duration
    reset_on_progress: bool
    host_anti_affinity: HostAntiAffinity
    on_exhaustion: Exhaustion
    never_retry_kinds: _containers.RepeatedScalarFieldContainer[str]
    quirks: _containers.RepeatedScalarFieldContainer[Quirk]
    run: RunRetries
    def __init__(self, max_retries: _Optional[int] = ..., max_elapsed: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., backoff: _Optional[_Union[Backoff, _Mapping]] = ..., rules: _Optional[_Iterable[_Union[Rule, _Mapping]]] = ..., pushback: _Optional[_Union[PushbackBounds, _Mapping]] = ..., max_crash_retries: _Optional[int] = ..., reset_after: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., reset_on_progress: bool = ..., host_anti_affinity: _Optional[_Union[HostAntiAffinity, _Mapping]] = ..., on_exhaustion: _Optional[_Union[Exhaustion, _Mapping]] = ..., never_retry_kinds: _Optional[_Iterable[str]] = ..., quirks: _Optional[_Iterable[_Union[Quirk, str]]] = ..., run: _Optional[_Union[RunRetries, _Mapping]] = ...) -> None: ...

class RunRetries(_message.Message):
    __slots__ = ("resume", "step_counters", "ignore_step_failures", "max_total_retries")
    RESUME_FIELD_NUMBER: _ClassVar[int]
    STEP_COUNTERS_FIELD_NUMBER: _ClassVar[int]
    IGNORE_STEP_FAILURES_FIELD_NUMBER: _ClassVar[int]
    MAX_TOTAL_RETRIES_FIELD_NUMBER: _ClassVar[int]
    resume: Resume
    step_counters: StepCounters
    ignore_step_failures: bool
    max_total_retries: int
    def __init__(self, resume: _Optional[_Union[Resume, str]] = ..., step_counters: _Optional[_Union[StepCounters, str]] = ..., ignore_step_failures: bool = ..., max_total_retries: _Optional[int] = ...) -> None: ...

class Rule(_message.Message):
    __slots__ = ("name", "match", "retry", "retry_uncounted", "stop", "hold", "skip")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MATCH_FIELD_NUMBER: _ClassVar[int]
    RETRY_FIELD_NUMBER: _ClassVar[int]
    RETRY_UNCOUNTED_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    HOLD_FIELD_NUMBER: _ClassVar[int]
    SKIP_FIELD_NUMBER: _ClassVar[int]
    name: str
    match: Match
    retry: RetryAction
    retry_uncounted: RetryUncountedAction
    stop: StopAction
    hold: HoldAction
    skip: SkipAction
    def __init__(self, name: _Optional[str] = ..., match: _Optional[_Union[Match, _Mapping]] = ..., retry: _Optional[_Union[RetryAction, _Mapping]] = ..., retry_uncounted: _Optional[_Union[RetryUncountedAction, _Mapping]] = ..., stop: _Optional[_Union[StopAction, _Mapping]] = ..., hold: _Optional[_Union[HoldAction, _Mapping]] = ..., skip: _Optional[_Union[SkipAction, _Mapping]] = ...) -> None: ...

class Match(_message.Message):
    __slots__ = ("classes", "error_types", "codes", "exit_codes", "message_pattern", "condition")
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    ERROR_TYPES_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODES_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_PATTERN_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    classes: _containers.RepeatedScalarFieldContainer[_failure_pb2.FailureClass]
    error_types: _containers.RepeatedScalarFieldContainer[str]
    codes: _containers.RepeatedScalarFieldContainer[str]
    exit_codes: _containers.RepeatedCompositeFieldContainer[ExitCodeRange]
    message_pattern: str
    condition: str
    def __init__(self, classes: _Optional[_Iterable[_Union[_failure_pb2.FailureClass, str]]] = ..., error_types: _Optional[_Iterable[str]] = ..., codes: _Optional[_Iterable[str]] = ..., exit_codes: _Optional[_Iterable[_Union[ExitCodeRange, _Mapping]]] = ..., message_pattern: _Optional[str] = ..., condition: _Optional[str] = ...) -> None: ...

class ExitCodeRange(_message.Message):
    __slots__ = ("min", "max")
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    min: int
    max: int
    def __init__(self, min: _Optional[int] = ..., max: _Optional[int] = ...) -> None: ...

class RetryAction(_message.Message):
    __slots__ = ("max_retries", "backoff")
    MAX_RETRIES_FIELD_NUMBER: _ClassVar[int]
    BACKOFF_FIELD_NUMBER: _ClassVar[int]
    max_retries: int
    backoff: Backoff
    def __init__(self, max_retries: _Optional[int] = ..., backoff: _Optional[_Union[Backoff, _Mapping]] = ...) -> None: ...

class RetryUncountedAction(_message.Message):
    __slots__ = ("max_retries", "backoff")
    MAX_RETRIES_FIELD_NUMBER: _ClassVar[int]
    BACKOFF_FIELD_NUMBER: _ClassVar[int]
    max_retries: int
    backoff: Backoff
    def __init__(self, max_retries: _Optional[int] = ..., backoff: _Optional[_Union[Backoff, _Mapping]] = ...) -> None: ...

class StopAction(_message.Message):
    __slots__ = ("timing",)
    TIMING_FIELD_NUMBER: _ClassVar[int]
    timing: StopTiming
    def __init__(self, timing: _Optional[_Union[StopTiming, str]] = ...) -> None: ...

class HoldAction(_message.Message):
    __slots__ = ("terms",)
    TERMS_FIELD_NUMBER: _ClassVar[int]
    terms: HoldTerms
    def __init__(self, terms: _Optional[_Union[HoldTerms, _Mapping]] = ...) -> None: ...

class SkipAction(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Exhaustion(_message.Message):
    __slots__ = ("stop", "hold")
    STOP_FIELD_NUMBER: _ClassVar[int]
    HOLD_FIELD_NUMBER: _ClassVar[int]
    stop: StopAction
    hold: HoldTerms
    def __init__(self, stop: _Optional[_Union[StopAction, _Mapping]] = ..., hold: _Optional[_Union[HoldTerms, _Mapping]] = ...) -> None: ...

class HoldTerms(_message.Message):
    __slots__ = ("allowed", "timeout", "default_answer", "max_manual_retries")
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_ANSWER_FIELD_NUMBER: _ClassVar[int]
    MAX_MANUAL_RETRIES_FIELD_NUMBER: _ClassVar[int]
    allowed: _containers.RepeatedScalarFieldContainer[HoldAnswer]
    timeout: _duration_pb2.Duration
    default_answer: HoldAnswer
    max_manual_retries: int
    def __init__(self, allowed: _Optional[_Iterable[_Union[HoldAnswer, str]]] = ..., timeout: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., default_answer: _Optional[_Union[HoldAnswer, str]] = ..., max_manual_retries: _Optional[int] = ...) -> None: ...

class Backoff(_message.Message):
    __slots__ = ("fixed", "linear", "exponential", "doubling_sum", "fibonacci", "schedule", "max_delay", "first_delay", "jitter")
    FIXED_FIELD_NUMBER: _ClassVar[int]
    LINEAR_FIELD_NUMBER: _ClassVar[int]
    EXPONENTIAL_FIELD_NUMBER: _ClassVar[int]
    DOUBLING_SUM_FIELD_NUMBER: _ClassVar[int]
    FIBONACCI_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    MAX_DELAY_FIELD_NUMBER: _ClassVar[int]
    FIRST_DELAY_FIELD_NUMBER: _ClassVar[int]
    JITTER_FIELD_NUMBER: _ClassVar[int]
    fixed: FixedBackoff
    linear: LinearBackoff
    exponential: ExponentialBackoff
    doubling_sum: DoublingSumBackoff
    fibonacci: FibonacciBackoff
    schedule: ScheduleBackoff
    max_delay: _duration_pb2.Duration
    first_delay: _duration_pb2.Duration
    jitter: Jitter
    def __init__(self, fixed: _Optional[_Union[FixedBackoff, _Mapping]] = ..., linear: _Optional[_Union[LinearBackoff, _Mapping]] = ..., exponential: _Optional[_Union[ExponentialBackoff, _Mapping]] = ..., doubling_sum: _Optional[_Union[DoublingSumBackoff, _Mapping]] = ..., fibonacci: _Optional[_Union[FibonacciBackoff, _Mapping]] = ..., schedule: _Optional[_Union[ScheduleBackoff, _Mapping]] = ..., max_delay: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., first_delay: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., jitter: _Optional[_Union[Jitter, _Mapping]] = ...) -> None: ...

class FixedBackoff(_message.Message):
    __slots__ = ("delay",)
    DELAY_FIELD_NUMBER: _ClassVar[int]
    delay: _duration_pb2.Duration
    def __init__(self, delay: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class LinearBackoff(_message.Message):
    __slots__ = ("delay", "increment")
    DELAY_FIELD_NUMBER: _ClassVar[int]
    INCREMENT_FIELD_NUMBER: _ClassVar[int]
    delay: _duration_pb2.Duration
    increment: _duration_pb2.Duration
    def __init__(self, delay: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., increment: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ExponentialBackoff(_message.Message):
    __slots__ = ("delay", "factor", "max_doublings")
    DELAY_FIELD_NUMBER: _ClassVar[int]
    FACTOR_FIELD_NUMBER: _ClassVar[int]
    MAX_DOUBLINGS_FIELD_NUMBER: _ClassVar[int]
    delay: _duration_pb2.Duration
    factor: float
    max_doublings: int
    def __init__(self, delay: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., factor: _Optional[float] = ..., max_doublings: _Optional[int] = ...) -> None: ...

class DoublingSumBackoff(_message.Message):
    __slots__ = ("delay",)
    DELAY_FIELD_NUMBER: _ClassVar[int]
    delay: _duration_pb2.Duration
    def __init__(self, delay: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class FibonacciBackoff(_message.Message):
    __slots__ = ("delay",)
    DELAY_FIELD_NUMBER: _ClassVar[int]
    delay: _duration_pb2.Duration
    def __init__(self, delay: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ScheduleBackoff(_message.Message):
    __slots__ = ("delays", "end")
    DELAYS_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    delays: _containers.RepeatedCompositeFieldContainer[_duration_pb2.Duration]
    end: ScheduleEnd
    def __init__(self, delays: _Optional[_Iterable[_Union[_duration_pb2.Duration, _Mapping]]] = ..., end: _Optional[_Union[ScheduleEnd, str]] = ...) -> None: ...

class Jitter(_message.Message):
    __slots__ = ("kind", "ratio")
    KIND_FIELD_NUMBER: _ClassVar[int]
    RATIO_FIELD_NUMBER: _ClassVar[int]
    kind: JitterKind
    ratio: float
    def __init__(self, kind: _Optional[_Union[JitterKind, str]] = ..., ratio: _Optional[float] = ...) -> None: ...

class PushbackBounds(_message.Message):
    __slots__ = ("min", "max")
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    min: _duration_pb2.Duration
    max: _duration_pb2.Duration
    def __init__(self, min: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., max: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class HostAntiAffinity(_message.Message):
    __slots__ = ("mode", "decay")
    MODE_FIELD_NUMBER: _ClassVar[int]
    DECAY_FIELD_NUMBER: _ClassVar[int]
    mode: AntiAffinityMode
    decay: _duration_pb2.Duration
    def __init__(self, mode: _Optional[_Union[AntiAffinityMode, str]] = ..., decay: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...
