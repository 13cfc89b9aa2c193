"""Forebay: durable tasks. A client that submits them, and a worker that runs them.

    from forebay import Client, Worker
"""

from ._context import Context, TaskLogHandler
from ._version import __version__
from .aio import AsyncClient
from .client import Client
from .errors import (
    ApiError,
    ConflictError,
    ForebayError,
    IdempotencyKeyReusedError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    RequestTimeoutError,
    UnavailableError,
    Violation,
    WaitTimeoutError,
)
from .explain import Explanation, Hold
from .limits import Limit, Rate
from .outcomes import Cancelled, Permanent, RetryAfter, Snooze
from .queues import Queue
from .schedules import Schedule
from .task import AttemptError, NewTask, SubmitResult, Task, TaskProgress, TaskState, TaskUpdate
from .terms import Retry, TaskUnique, Unique
from .worker import Worker

__all__ = [
    "ApiError",
    "AsyncClient",
    "AttemptError",
    "Cancelled",
    "Client",
    "ConflictError",
    "Context",
    "Explanation",
    "ForebayError",
    "Hold",
    "IdempotencyKeyReusedError",
    "InvalidRequestError",
    "Limit",
    "NewTask",
    "NotFoundError",
    "OverloadedError",
    "Permanent",
    "Queue",
    "Rate",
    "RequestTimeoutError",
    "Retry",
    "RetryAfter",
    "Schedule",
    "Snooze",
    "SubmitResult",
    "Task",
    "TaskLogHandler",
    "TaskProgress",
    "TaskState",
    "TaskUnique",
    "TaskUpdate",
    "UnavailableError",
    "Unique",
    "Violation",
    "WaitTimeoutError",
    "Worker",
    "__version__",
]
