"""Why a task is where it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Optional

from ._convert import said, to_datetime
from .task import TaskState
from .v1 import task_pb2


@dataclass(frozen=True)
class Hold:
    """A limit that holds a task back."""

    limit: str
    """Its name."""
    key: Optional[str]
    """The key that is counted by itself; `None` where the limit goes by none."""
    running: int
    """How many run that count to it."""
    concurrency: Optional[int]
    """How many may."""
    next_at: Optional[datetime]
    """When its rate lets the task go."""
    ahead: int
    """How many that it holds back go first."""

    @classmethod
    def _of(cls, message: task_pb2.TaskHold) -> Hold:
        return cls(
            limit=message.limit,
            key=message.key or None,
            running=message.running,
            concurrency=message.concurrency if message.HasField("concurrency") else None,
            next_at=said(message, "next_at"),
            ahead=message.ahead,
        )


@dataclass(frozen=True)
class Explanation:
    """Why a task is where it is. What does not fit the reason is `None`."""

    id: str
    state: TaskState
    reason: str
    """The one thing that it waits for, by a stable name such as `waits_for_time` or `no_worker`."""
    detail: str
    """The same in a sentence, for people."""
    run_at: Optional[datetime]
    """When it is due."""
    next_attempt: Optional[int]
    """The number of the attempt that comes next."""
    ahead: Optional[int]
    """How many go before it."""
    ahead_is_exact: bool
    """Whether these are all; where not, there may be more."""
    worker: Optional[str]
    """The worker that runs it, or ran it last."""
    worker_name: Optional[str]
    """What that worker is called, where it is alive."""
    limit: Optional[Hold]
    """The limit that holds it back."""
    blocked_on: tuple[str, ...]
    """The tasks that it waits for."""
    batch: Optional[str]
    """The batch that it waits for."""
    at: datetime
    """When this was so."""

    @classmethod
    def _of(cls, message: task_pb2.TaskExplanation) -> Explanation:
        def known(field: str) -> Any:
            return getattr(message, field) if message.HasField(field) else None

        return cls(
            id=message.id,
            state=TaskState._of(message.state),
            reason=message.reason,
            detail=message.detail,
            run_at=said(message, "run_at"),
            next_attempt=known("next_attempt"),
            ahead=known("ahead"),
            ahead_is_exact=message.ahead_is_exact,
            worker=message.worker or None,
            worker_name=message.worker_name or None,
            limit=Hold._of(message.limit) if message.HasField("limit") else None,
            blocked_on=tuple(message.blocked_on),
            batch=message.batch or None,
            at=to_datetime(message.at),
        )
