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
from .outcomes import Cancelled, Permanent, RetryAfter, Snooze
from .task import AttemptError, NewTask, SubmitResult, Task, TaskProgress, TaskState, TaskUpdate
from .worker import Worker

__all__ = [
    "ApiError",
    "AsyncClient",
    "AttemptError",
    "Cancelled",
    "Client",
    "ConflictError",
    "Context",
    "ForebayError",
    "IdempotencyKeyReusedError",
    "InvalidRequestError",
    "NewTask",
    "NotFoundError",
    "OverloadedError",
    "Permanent",
    "RequestTimeoutError",
    "RetryAfter",
    "Snooze",
    "SubmitResult",
    "Task",
    "TaskLogHandler",
    "TaskProgress",
    "TaskState",
    "TaskUpdate",
    "UnavailableError",
    "Violation",
    "WaitTimeoutError",
    "Worker",
    "__version__",
]
