"""Client of Reprise: may this step be tried again, and when?

    import reprise

    client = reprise.Client()
    for attempt in client.step("load/orders", run="2026-11-22", policy="nightly"):
        with attempt:
            load_orders()

The service answers for all processes at once; the loop waits, heartbeats, reports and
obeys. While no service answers the process decides alone, conservatively, and says so.
"""

from .aio import AsyncAttempt, AsyncClient, AsyncStepLoop
from .attempt import Attempt, current_attempt
from .classify import Classifier
from .client import Client, StepLoop, SyncAttempt
from .core import Item
from .decorator import default_async_client, default_client, retry
from .errors import (
    AlreadyDone,
    CallRefused,
    CancelRequested,
    ConfigurationError,
    LeaseLost,
    NoService,
    OnHold,
    RepriseError,
    RetryLater,
    Stopped,
    Unanswered,
    decision_of,
)
from .failure import NEVER, Executed, Failure, FailureClass, NotRetryable, RetryRequested
from .fallback import Fallback
from .model import (
    Begun,
    Counters,
    Decision,
    Grant,
    Heartbeat,
    LeaseState,
    Reason,
    Report,
    ReportStatus,
    Step,
    StepState,
    Verdict,
)
from .once import once, once_async
from .policy import Backoff, Policy, Rule
from .retry_after import retry_after
from .settings import Tls
from .version import __version__

__all__ = [
    "NEVER",
    "AlreadyDone",
    "AsyncAttempt",
    "AsyncClient",
    "AsyncStepLoop",
    "Attempt",
    "Backoff",
    "Begun",
    "CallRefused",
    "CancelRequested",
    "Classifier",
    "Client",
    "ConfigurationError",
    "Counters",
    "Decision",
    "Executed",
    "Failure",
    "FailureClass",
    "Fallback",
    "Grant",
    "Heartbeat",
    "Item",
    "LeaseLost",
    "LeaseState",
    "NoService",
    "NotRetryable",
    "OnHold",
    "Policy",
    "Reason",
    "Report",
    "ReportStatus",
    "RepriseError",
    "RetryLater",
    "RetryRequested",
    "Rule",
    "Step",
    "StepLoop",
    "StepState",
    "Stopped",
    "SyncAttempt",
    "Tls",
    "Unanswered",
    "Verdict",
    "__version__",
    "current_attempt",
    "decision_of",
    "default_async_client",
    "default_client",
    "once",
    "once_async",
    "retry",
    "retry_after",
]
