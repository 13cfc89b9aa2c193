"""What a task may ask for beyond being run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Optional, Sequence

from ._convert import Seconds, put_duration, said, seconds, spoken, text, to_duration
from .v1 import task_pb2


@dataclass(frozen=True)
class Retry:
    """How a task is tried again: each part that is said overrides that of its handler."""

    base: Optional[Seconds] = None
    """The longest wait after the first attempt; each wait is by chance between nothing and its longest."""
    factor: Optional[float] = None
    """By how much that grows with each attempt; from 1 to 100."""
    cap: Optional[Seconds] = None
    """No wait is longer."""
    delays: Sequence[Seconds] = ()
    """The waits themselves instead, after the first attempt, the second, and so on; the last of them for all that
    follow."""

    def _message(self) -> task_pb2.TaskRetry:
        message = task_pb2.TaskRetry(factor=self.factor)
        put_duration(message, "base", self.base)
        put_duration(message, "cap", self.cap)
        message.delays.extend(to_duration(delay, "delays") for delay in self.delays)
        return message

    @classmethod
    def _of(cls, message: task_pb2.TaskRetry) -> Retry:
        return cls(
            base=spoken(message, "base"),
            factor=message.factor if message.HasField("factor") else None,
            cap=spoken(message, "cap"),
            delays=tuple(map(seconds, message.delays)),
        )


@dataclass(frozen=True)
class Unique:
    """What a task must be the only one of, among the unfinished ones of its kind in its project."""

    key: Optional[str] = None
    """A name for it; its payload unless said."""
    window: Optional[Seconds] = None
    """For how long after it was accepted others are in conflict with it even if it is finished."""
    on_conflict: Optional[str] = None
    """`return` answers with the task that is there, `reject` refuses with a `ConflictError`, `replace` cancels that one
    and takes its place unless it runs; `return` unless said."""

    def _message(self) -> task_pb2.Unique:
        message = task_pb2.Unique(key=self.key, on_conflict=text(self.on_conflict, "on_conflict"))
        put_duration(message, "window", self.window)
        return message


@dataclass(frozen=True)
class TaskUnique:
    """What a task is the only one of."""

    mark: str
    """A hash of its kind and key, or of its kind and payload: tasks with the same mark are in conflict."""
    until: Optional[datetime]
    """Until when others are in conflict with it although it is finished."""
    on_conflict: str
    """`return`, `reject` or `replace`."""

    @classmethod
    def _of(cls, message: task_pb2.TaskUnique) -> TaskUnique:
        return cls(message.mark, said(message, "until"), message.on_conflict)
