"""Policies given with a call. A named one lives at the service and is given by its name.

What is checked is checked by the service, which names field, value and what would
be accepted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from ._proto import failure_pb2, policy_pb2
from .failure import FailureClass, Span, seconds

Jitter = Literal["none", "full", "equal", "base", "decorrelated"]
Action = Literal["retry", "retry_uncounted", "stop", "hold", "skip"]


@dataclass(frozen=True)
class Backoff:
    """The wait before each retry. Made by one of its shapes."""

    message: policy_pb2.Backoff

    @staticmethod
    def none() -> Backoff:
        """No wait: a retry is due at once."""
        return Backoff(policy_pb2.Backoff())

    @staticmethod
    def fixed(delay: Span, *, jitter: Jitter | float = "full") -> Backoff:
        """The same wait each time."""
        message = policy_pb2.Backoff(jitter=_jitter(jitter))
        message.fixed.delay.FromMicroseconds(_micros(delay))
        return Backoff(message)

    @staticmethod
    def exponential(
        delay: Span,
        *,
        factor: float = 2.0,
        max_delay: Span | None = None,
        jitter: Jitter | float = "full",
    ) -> Backoff:
        """`delay` before the first retry, multiplied by `factor` each time, `max_delay` at most."""
        message = policy_pb2.Backoff(jitter=_jitter(jitter))
        message.exponential.delay.FromMicroseconds(_micros(delay))
        message.exponential.factor = factor
        if max_delay is not None:
            message.max_delay.FromMicroseconds(_micros(max_delay))
        return Backoff(message)

    @staticmethod
    def schedule(*delays: Span, then_stop: bool = False, jitter: Jitter | float = "none") -> Backoff:
        """The waits one by one. The last one repeats, unless the step is to stop then."""
        message = policy_pb2.Backoff(jitter=_jitter(jitter))
        for delay in delays:
            message.schedule.delays.add().FromMicroseconds(_micros(delay))
        if then_stop:
            message.schedule.end = policy_pb2.SCHEDULE_END_STOP
        return Backoff(message)


@dataclass(frozen=True)
class Rule:
    """One line of a policy. All that is given must match; within one field any value does."""

    #: 1 to 32 characters of a-z, 0-9 and dash.
    name: str
    action: Action
    classes: tuple[FailureClass, ...] = ()
    #: Compared exactly; a trailing * matches any continuation.
    error_types: tuple[str, ...] = ()
    #: A gRPC name such as "UNAVAILABLE", an HTTP status such as "503", or "5xx".
    codes: tuple[str, ...] = ()
    exit_codes: tuple[int, ...] = ()
    #: A regular expression (RE2) searched for in the message.
    message_pattern: str = ""
    #: A CEL condition.
    condition: str = ""
    #: Retries of this rule at most, for the two actions that retry.
    max_retries: int | None = None
    #: Backoff of this rule, for the two actions that retry. None means the policy's.
    backoff: Backoff | None = None

    def message(self) -> policy_pb2.Rule:
        """The rule as the contract writes it."""
        match = policy_pb2.Match(
            classes=[class_number(each) for each in self.classes],
            error_types=self.error_types,
            codes=self.codes,
            exit_codes=[policy_pb2.ExitCodeRange(min=code, max=code) for code in self.exit_codes],
            message_pattern=self.message_pattern,
            condition=self.condition,
        )
        rule = policy_pb2.Rule(name=self.name, match=match)
        action = getattr(rule, self.action)
        action.SetInParent()
        if self.max_retries is not None:
            action.max_retries = self.max_retries
        if self.backoff is not None:
            action.backoff.CopyFrom(self.backoff.message)
        return rule


@dataclass(frozen=True)
class RunRetries:
    """What holds for runs that follow a policy, beside what counts their attempts."""

    #: Where a run goes on that is tried again.
    resume: Literal["from_failure", "all_steps"] = "from_failure"
    #: Whether the counters of its steps begin anew then, or go on.
    step_counters: Literal["reset", "carry"] = "reset"
    #: Whether a run that failed because a step did is left to the steps' own retries.
    ignore_step_failures: bool = False
    #: Retries of all steps together, over all attempts of the run. None means no bound.
    max_total_retries: int | None = None

    def message(self) -> policy_pb2.RunRetries:
        """The same as the contract writes it."""
        return policy_pb2.RunRetries(
            resume=f"RESUME_{self.resume.upper()}",
            step_counters=f"STEP_COUNTERS_{self.step_counters.upper()}",
            ignore_step_failures=self.ignore_step_failures,
            max_total_retries=self.max_total_retries,
        )


@dataclass(frozen=True)
class Policy:
    """Named rules of retrying, given inline. The first rule that matches decides."""

    #: Retries, not attempts. None has no limit but the namespace's ceiling.
    max_retries: int | None
    #: How long after the first start a retry may still start.
    max_elapsed: Span | None = None
    #: None waits not at all.
    backoff: Backoff | None = None
    rules: tuple[Rule, ...] = ()
    #: Retries after crashes, which have a counter of their own. None means 3.
    max_crash_retries: int | None = None
    #: What happens when the retries are spent.
    on_exhaustion: Literal["stop", "hold"] = "stop"
    #: Of no use for a step.
    run: RunRetries | None = None

    def message(self) -> policy_pb2.Policy:
        """The policy as the contract writes it."""
        message = policy_pb2.Policy(
            max_retries=self.max_retries,
            max_crash_retries=self.max_crash_retries,
            rules=[rule.message() for rule in self.rules],
        )
        if self.max_elapsed is not None:
            message.max_elapsed.FromMicroseconds(_micros(self.max_elapsed))
        if self.backoff is not None:
            message.backoff.CopyFrom(self.backoff.message)
        if self.on_exhaustion == "hold":
            message.on_exhaustion.hold.SetInParent()
        if self.run is not None:
            message.run.CopyFrom(self.run.message())
        return message


#: A policy of the namespace by its name, or one that is given here. None keeps the one
#: that the step has; a new step takes the namespace's default.
PolicyChoice = str | Policy | policy_pb2.Policy | None


def inline(policy: PolicyChoice) -> policy_pb2.Policy | None:
    """The policy that is given here. None when it is named, or there is none."""
    if isinstance(policy, Policy):
        return policy.message()
    return None if policy is None or isinstance(policy, str) else policy


def class_number(failure_class: FailureClass) -> failure_pb2.FailureClass:
    """The class as the contract numbers it."""
    return cast(
        "failure_pb2.FailureClass", failure_pb2.FailureClass.Value(f"FAILURE_CLASS_{failure_class.value}")
    )


def _jitter(jitter: Jitter | float) -> policy_pb2.Jitter:
    if isinstance(jitter, str):
        return policy_pb2.Jitter(kind=f"JITTER_KIND_{jitter.upper()}")
    return policy_pb2.Jitter(kind=policy_pb2.JITTER_KIND_RATIO, ratio=jitter)


def _micros(span: Span) -> int:
    return round(seconds(span) * 1_000_000)
