"""Tasks, as they are submitted and as they are read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Optional, Sequence

from ._convert import Seconds, from_json, said, seconds, to_datetime, to_duration, to_json, to_timestamp
from .errors import ApiError
from .v1 import task_pb2


class TaskState(str, Enum):
    """Where a task stands. Compares equal to its name: `task.state == "running"`."""

    SCHEDULED = "scheduled"
    """It waits for its time."""
    BLOCKED = "blocked"
    """It waits for other tasks."""
    THROTTLED = "throttled"
    """A limit holds it back."""
    QUEUED = "queued"
    """It waits for a free worker."""
    RUNNING = "running"
    """A worker runs it."""
    RETRYING = "retrying"
    """An attempt has failed, and it waits for the next."""
    SUCCEEDED = "succeeded"
    """Final: it has a result."""
    FAILED = "failed"
    """Final: its last attempt has failed, or one that made others no use."""
    CANCELLED = "cancelled"
    """Final: somebody cancelled it."""
    EXPIRED = "expired"
    """Final: it was not started in time."""
    UNKNOWN = "unknown"
    """A state that this version of the package does not know."""

    @property
    def is_final(self) -> bool:
        """Whether it stays like this, unless somebody retries the task."""
        return self in _FINAL

    def __str__(self) -> str:
        return self.value

    @classmethod
    def _of(cls, number: int) -> TaskState:
        try:
            name = task_pb2.TaskState.Name(number)
            return cls[name[len("TASK_STATE_") :]]
        except (ValueError, KeyError):
            return cls.UNKNOWN

    def _number(self) -> Any:
        return task_pb2.TaskState.Value(f"TASK_STATE_{self.name}")


_FINAL = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED, TaskState.EXPIRED})


@dataclass(frozen=True)
class AttemptError:
    """An attempt that did not succeed."""

    attempt: int
    """Which; the first is 1."""
    outcome: str
    """`failed`, `timed_out`, `lost`, `interrupted`, `cancelled` or `snoozed`."""
    message: str
    """What went wrong."""
    at: datetime
    """When."""


@dataclass(frozen=True)
class TaskProgress:
    """How far a running task is, as its handler said last."""

    fraction: float
    """How much is done, from 0 to 1."""
    message: str
    """What it is at."""
    at: datetime
    """When that was said."""


@dataclass(frozen=True)
class Task:
    """A task as it stood when it was read."""

    id: str
    kind: str
    queue: str
    state: TaskState
    priority: str
    """`high`, `default` or `low`."""
    payload: Any
    """What its handler is given."""
    result: Any
    """What its handler returned; `None` until it succeeded."""
    error: Optional[AttemptError]
    """The latest attempt that did not succeed."""
    attempt: int
    """How many attempts were charged to it, the present one included."""
    max_attempts: Optional[int]
    """How many it may have; `None` until a handler is known that says so."""
    tags: tuple[str, ...]
    run_at: Optional[datetime]
    """When it became or becomes due."""
    created_at: datetime
    started_at: Optional[datetime]
    finished_at: Optional[datetime]
    timeout: Optional[float]
    """How many seconds one attempt may take."""
    worker: str
    """The worker that runs it, or ran it last; empty where there was none."""
    errors: tuple[AttemptError, ...]
    """The attempts that did not succeed, the latest last."""
    project: str
    log: str
    """The tail of what its latest attempt logged."""
    cancel_requested: bool
    """Whether it is to be cancelled but still runs."""
    progress: Optional[TaskProgress]
    """How far its latest attempt is, or came."""

    @property
    def is_final(self) -> bool:
        """Whether it has ended."""
        return self.state.is_final

    @classmethod
    def _of(cls, message: task_pb2.Task) -> Task:
        return cls(
            id=message.id,
            kind=message.kind,
            queue=message.queue,
            state=TaskState._of(message.state),
            priority=message.priority,
            payload=from_json(message.payload),
            result=from_json(message.result),
            error=_attempt_error(message.error) if message.HasField("error") else None,
            attempt=message.attempt,
            max_attempts=message.max_attempts if message.HasField("max_attempts") else None,
            tags=tuple(message.tags),
            run_at=said(message, "run_at"),
            created_at=to_datetime(message.created_at),
            started_at=said(message, "started_at"),
            finished_at=said(message, "finished_at"),
            timeout=seconds(message.timeout) if message.HasField("timeout") else None,
            worker=message.worker,
            errors=tuple(map(_attempt_error, message.errors)),
            project=message.project,
            log=message.log,
            cancel_requested=message.cancel_requested,
            progress=_progress(message.progress) if message.HasField("progress") else None,
        )


def _attempt_error(message: task_pb2.AttemptError) -> AttemptError:
    return AttemptError(message.attempt, message.outcome, message.message, to_datetime(message.at))


def _progress(message: task_pb2.TaskProgress) -> TaskProgress:
    return TaskProgress(message.fraction, message.message, to_datetime(message.at))


@dataclass(frozen=True)
class TaskUpdate:
    """One step in the life of a task that is watched, or news of how far it is within that step."""

    state: TaskState
    attempt: int
    at: datetime
    """Since when."""
    task: Optional[Task]
    """The whole task, on the first update and on the one that is final."""
    progress: Optional[TaskProgress]
    """How far it is, where it has said so since the update before."""
    cursor: str
    """Names this step: give it to `watch` to go on after it."""

    @classmethod
    def _of(cls, message: task_pb2.WatchTaskResponse) -> TaskUpdate:
        return cls(
            state=TaskState._of(message.state),
            attempt=message.attempt,
            at=to_datetime(message.at),
            task=Task._of(message.task) if message.HasField("task") else None,
            progress=_progress(message.progress) if message.HasField("progress") else None,
            cursor=message.cursor,
        )


@dataclass(frozen=True)
class NewTask:
    """A task to submit. Only `kind` is needed."""

    kind: str
    """What to do."""
    payload: Any = None
    """What its handler is given: anything that JSON can say, up to 256 KiB of it."""
    queue: Optional[str] = None
    """Which pool of workers does it; `default` unless said."""
    priority: Optional[str] = None
    """`high`, `default` or `low`; `default` unless said."""
    tags: Sequence[str] = ()
    """Labels to find it by, at most 16."""
    run_at: Optional[datetime] = None
    """Not before this time."""
    delay: Optional[Seconds] = None
    """Not before this long from now."""
    max_attempts: Optional[int] = None
    """How many attempts it may have; what its handler says, unless said."""
    timeout: Optional[Seconds] = None
    """How long one attempt may take; what its handler says, unless said."""
    idempotency_key: Optional[str] = None
    """Names this task for at least 24 hours: submitting it again under this name is the same task. With a key a
    submission is tried again wherever that may help; without one only where it was surely not accepted."""
    project: Optional[str] = None
    """Whose it is; `default` unless said."""

    def _request(self) -> task_pb2.SubmitTaskRequest:
        if self.run_at is not None and self.delay is not None:
            raise ValueError("a task has either run_at or delay")
        if isinstance(self.tags, str):
            raise TypeError("tags must be several strings, such as a list has, and not one")
        request = task_pb2.SubmitTaskRequest(
            kind=self.kind,
            queue=self.queue or "",
            priority=self.priority or "",
            payload=to_json(self.payload),
            tags=self.tags,
            max_attempts=self.max_attempts,
            idempotency_key=self.idempotency_key or "",
            project=self.project or "",
        )
        if self.run_at is not None:
            request.run_at.CopyFrom(to_timestamp(self.run_at, "run_at"))
        if self.delay is not None:
            request.delay.CopyFrom(to_duration(self.delay, "delay"))
        if self.timeout is not None:
            request.timeout.CopyFrom(to_duration(self.timeout, "timeout"))
        return request


@dataclass(frozen=True)
class SubmitResult:
    """What became of one of many submissions."""

    index: int
    """Which, counted from 0."""
    id: Optional[str]
    """The task's id; `None` where it was refused."""
    state: Optional[TaskState]
    """Where it stands: as accepted, or, where its idempotency key was known, wherever it is by now."""
    error: Optional[ApiError]
    """Why it was refused; `None` where it was accepted."""
