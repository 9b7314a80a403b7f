"""Decides while no service answers: few retries, far apart, and flagged.

No other process is known here, so nothing that several share is held to. What is
granted is therefore less than any sensible policy would.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .failure import Failure, FailureClass, Never
from .model import Counters, Decision, Grant, Reason, Verdict

if TYPE_CHECKING:
    from .effects import Chance


@dataclass(frozen=True)
class Fallback:
    """What a process grants itself in one outage."""

    #: Retries of a step at most; an inline policy that allows fewer is obeyed.
    max_retries: int = 3
    #: Seconds: the first wait is drawn from zero to this.
    delay: float = 1.0
    #: What each further window is multiplied by. At least 1.
    factor: float = 2.0
    #: Seconds: the widest window.
    delay_max: float = 60.0

    def window(self, retry: int) -> float:
        """The window that the wait before retry k, from 1, is drawn from."""
        window = self.delay
        for _ in range(min(retry - 1, 64)):
            window = min(window * self.factor, self.delay_max)
        return min(window, self.delay_max)


class Alone:
    """One step in one outage."""

    def __init__(
        self,
        fallback: Fallback,
        chance: Chance,
        known: Counters,
        max_retries: int | None,
        attempts_before: int = 0,
    ) -> None:
        """`attempts_before` were made by others whom nobody was there to hold back either."""
        self._fallback = fallback
        self._chance = chance
        self._attempts = max(known.attempts, attempts_before)
        #: Retries that are charged to this outage.
        self._retries = attempts_before
        #: Retries that the service counted before it went away.
        self._before = max(0, known.retries - attempts_before)
        #: What an inline policy allows. None when no such is known.
        self._max_retries = max_retries

    def grant(self, time_left: float | None) -> Grant:
        """Grants the next attempt. Its number is what we think it is."""
        self._attempts += 1
        return Grant(
            attempt=self._attempts,
            fence=0,
            lease=0.0,
            heartbeat_every=0.0,
            counters=self._counters(),
            time_left=time_left,
            local=True,
        )

    def decide(self, failure: Failure | None, time_left: float | None) -> Decision:
        """What follows an attempt. `failure` is None for one that succeeded."""
        if failure is None:
            return self._say(Verdict.DONE, Reason.SUCCEEDED)
        refusal = self._refusal(failure)
        if refusal is not None:
            return self._say(Verdict.STOP, refusal)
        delay, reason = self._delay(failure)
        if time_left is not None and delay >= time_left:
            return self._say(Verdict.STOP, Reason.DEADLINE)
        self._retries += 1
        return self._say(Verdict.RETRY, reason, delay)

    def _refusal(self, failure: Failure) -> Reason | None:
        if failure.failure_class is FailureClass.CANCELED:
            return Reason.CANCELED
        if not failure.retryable:
            return Reason.NOT_RETRYABLE
        if isinstance(failure.pushback, Never):
            return Reason.PUSHBACK_NEVER
        bounds = [self._max_retries, failure.wish_max_retries]
        spent = any(bound is not None and self._before + self._retries >= bound for bound in bounds)
        return Reason.RETRIES_SPENT if spent or self._retries >= self._fallback.max_retries else None

    def _delay(self, failure: Failure) -> tuple[float, Reason]:
        """Full jitter; what the target and the worker asked for are lower bounds."""
        drawn = self._fallback.window(self._retries + 1) * self._chance.unit()
        pushback = failure.pushback if isinstance(failure.pushback, (int, float)) else 0.0
        wished = failure.wish_delay or 0.0
        delay = max(drawn, pushback, wished)
        if delay == drawn:
            return delay, Reason.BACKOFF
        return delay, Reason.PUSHBACK if delay == pushback else Reason.WISH

    def _say(self, verdict: Verdict, reason: Reason, delay: float | None = None) -> Decision:
        return Decision(verdict, reason, delay=delay, counters=self._counters(), local=True)

    def _counters(self) -> Counters:
        return Counters(attempts=self._attempts, retries=self._before + self._retries)
