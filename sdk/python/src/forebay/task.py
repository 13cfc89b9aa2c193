"""Tasks, as they are submitted and as they are read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Optional, Sequence, Union

from ._convert import (
    Seconds,
    from_json,
    of_type,
    put_duration,
    put_timestamp,
    said,
    several,
    spoken,
    text,
    to_datetime,
    to_json,
    whole,
)
from .errors import ApiError
from .terms import Retry, TaskUnique, Unique
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
    expires_at: Optional[datetime] = None
    """It expires unless it has been started by then."""
    heartbeat_timeout: Optional[float] = None
    """An attempt that says nothing for so many seconds is ended."""
    retry: Optional[Retry] = None
    """How it is tried again, where that is not as its handler says."""
    limit_key: Optional[str] = None
    """What it counts to in limits by key."""
    unique: Optional[TaskUnique] = None
    """What it is the only one of."""
    after: tuple[str, ...] = ()
    """The tasks that it waits for, or waited for."""
    on_dependency_failure: Optional[str] = None
    """What happens where one of those does not succeed: `cancel` or `run`."""
    notify: tuple[str, ...] = ()
    """The webhooks that hear of its end."""
    batch: Optional[str] = None
    """The batch that it belongs to."""

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
            timeout=spoken(message, "timeout"),
            worker=message.worker,
            errors=tuple(map(_attempt_error, message.errors)),
            project=message.project,
            log=message.log,
            cancel_requested=message.cancel_requested,
            progress=_progress(message.progress) if message.HasField("progress") else None,
            expires_at=said(message, "expires_at"),
            heartbeat_timeout=spoken(message, "heartbeat_timeout"),
            retry=Retry._of(message.retry) if message.HasField("retry") else None,
            limit_key=message.limit_key or None,
            unique=TaskUnique._of(message.unique) if message.HasField("unique") else None,
            after=tuple(message.after),
            on_dependency_failure=message.on_dependency_failure or None,
            notify=tuple(message.notify),
            batch=message.batch or None,
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
    expires_at: Optional[datetime] = None
    """It expires unless it has been started by then."""
    schedule_to_start_timeout: Optional[Seconds] = None
    """It expires unless it is started so long after it was accepted, or after its `run_at`."""
    heartbeat_timeout: Optional[Seconds] = None
    """An attempt that says nothing for so long is ended; what its handler says, unless said."""
    retry: Optional[Retry] = None
    """How it is tried again; what its handler says, unless said."""
    limit_key: Optional[str] = None
    """What it counts to in limits by key."""
    unique: Optional[Unique] = None
    """What it must be the only one of. `Unique()` is: of all tasks with its kind and payload."""
    after: Sequence[TaskOrId] = ()
    """The tasks that must be final before it is started, at most 100."""
    on_dependency_failure: Optional[str] = None
    """What happens where one of those does not succeed: `cancel` it, or `run` it once all are final; `cancel` unless
    said."""
    notify: Sequence[str] = ()
    """Names of the webhooks that hear of its end, at most 8."""

    def _request(self) -> task_pb2.SubmitTaskRequest:
        if self.run_at is not None and self.delay is not None:
            raise ValueError("a task has either run_at or delay")
        request = task_pb2.SubmitTaskRequest(
            kind=of_type(self.kind, str, "kind"),
            queue=text(self.queue, "queue"),
            priority=text(self.priority, "priority"),
            payload=to_json(self.payload),
            tags=several(self.tags, "tags"),
            max_attempts=whole(self.max_attempts, "max_attempts"),
            idempotency_key=text(self.idempotency_key, "idempotency_key"),
            project=text(self.project, "project"),
            retry=None if self.retry is None else of_type(self.retry, Retry, "retry")._message(),
            limit_key=text(self.limit_key, "limit_key"),
            unique=None if self.unique is None else of_type(self.unique, Unique, "unique")._message(),
            after=_ids(self.after),
            on_dependency_failure=text(self.on_dependency_failure, "on_dependency_failure"),
            notify=several(self.notify, "notify"),
        )
        put_timestamp(request, "run_at", self.run_at)
        put_timestamp(request, "expires_at", self.expires_at)
        for field in ("delay", "timeout", "schedule_to_start_timeout", "heartbeat_timeout"):
            put_duration(request, field, getattr(self, field))
        return request

    @classmethod
    def _of(cls, message: task_pb2.SubmitTaskRequest) -> NewTask:
        """What a schedule submits: it has neither a time nor a key."""
        return cls(
            kind=message.kind,
            payload=from_json(message.payload),
            queue=message.queue or None,
            priority=message.priority or None,
            tags=tuple(message.tags),
            max_attempts=message.max_attempts if message.HasField("max_attempts") else None,
            timeout=spoken(message, "timeout"),
            project=message.project or None,
            heartbeat_timeout=spoken(message, "heartbeat_timeout"),
            retry=Retry._of(message.retry) if message.HasField("retry") else None,
            limit_key=message.limit_key or None,
            notify=tuple(message.notify),
        )


TaskOrId = Union[Task, str]
"""A task, or its id."""


def id_of(task: TaskOrId) -> str:
    """The id of a task."""
    id = task.id if isinstance(task, Task) else task
    if not isinstance(id, str):
        raise TypeError(f"a task or its id is needed, and not {type(task).__name__}")
    return id


def _ids(tasks: Sequence[TaskOrId]) -> list[str]:
    if isinstance(tasks, (str, Task)):
        raise TypeError("after must be several tasks or their ids, such as a list has, and not one")
    return [id_of(task) for task in tasks]


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
