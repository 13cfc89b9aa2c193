"""Queues: how full they are, and whether they are paused."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Optional

from ._convert import to_datetime
from .v1 import queue_pb2


@dataclass(frozen=True)
class Queue:
    """A queue as it was counted. What is `None` is not known at the moment."""

    name: str
    ready: Optional[int]
    """How many tasks wait for a free worker."""
    running: Optional[int]
    """How many run."""
    scheduled: Optional[int]
    """How many wait for a time."""
    paused: Optional[bool]
    """Whether none of its tasks is started."""
    at: datetime
    """When this was counted."""
    stale: bool
    """Whether the figures are older than they should be."""
    problem: Optional[str]
    """Which figures are missing, and why."""

    @classmethod
    def _of(cls, message: queue_pb2.Queue) -> Queue:
        def known(field: str) -> Any:
            return getattr(message, field) if message.HasField(field) else None

        return cls(
            name=message.name,
            ready=known("ready"),
            running=known("running"),
            scheduled=known("scheduled"),
            paused=known("paused"),
            at=to_datetime(message.at),
            stale=message.stale,
            problem=message.problem or None,
        )
