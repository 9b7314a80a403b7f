"""Client of Reprise: may this step be tried again, and when?

    import reprise

    client = reprise.Client()
    for attempt in client.step("load/orders", run="2026-11-22", policy="nightly"):
        with attempt:
            load_orders()

The service answers for all processes at once; the loop waits, heartbeats, reports and
obeys. While no service answers the process decides alone, conservatively, and says so.
"""

from .aio import AsyncAttempt, AsyncClient, AsyncRunAttempt, AsyncRunLoop, AsyncStepLoop
from .attempt import Attempt, RunAttempt, current_attempt, current_run
from .classify import Classifier
from .client import Client, RunLoop, StepLoop, SyncAttempt, SyncRunAttempt
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
    Resume,
    Run,
    RunStep,
    Step,
    StepState,
    Verdict,
)
from .once import once, once_async
from .policy import Backoff, Policy, Rule, RunRetries
from .retry_after import retry_after
from .settings import Tls
from .version import __version__

__all__ = [
    "NEVER",
    "AlreadyDone",
    "AsyncAttempt",
    "AsyncClient",
    "AsyncRunAttempt",
    "AsyncRunLoop",
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
    "Resume",
    "RetryLater",
    "RetryRequested",
    "Rule",
    "Run",
    "RunAttempt",
    "RunLoop",
    "RunRetries",
    "RunStep",
    "Step",
    "StepLoop",
    "StepState",
    "Stopped",
    "SyncAttempt",
    "SyncRunAttempt",
    "Tls",
    "Unanswered",
    "Verdict",
    "__version__",
    "current_attempt",
    "current_run",
    "decision_of",
    "default_async_client",
    "default_client",
    "once",
    "once_async",
    "retry",
    "retry_after",
]
