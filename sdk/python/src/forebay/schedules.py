"""Schedules: tasks that are submitted by the clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Optional

from ._convert import Seconds, of_type, put_duration, said, seconds, text, to_datetime
from .task import NewTask
from .v1 import schedule_pb2

_OVERLAPS = {
    "skip": schedule_pb2.OVERLAP_SKIP,
    "queue": schedule_pb2.OVERLAP_QUEUE,
    "allow": schedule_pb2.OVERLAP_ALLOW,
}


@dataclass(frozen=True)
class Schedule:
    """When to submit what."""

    name: str
    cron: str
    """At which times of the wall clock."""
    time_zone: str
    """Whose wall clock: a name such as `Europe/Berlin`."""
    task: NewTask
    """What is submitted at each tick."""
    overlap: str
    """What happens at a tick while the task of an earlier one is unfinished: `skip`, `queue` or `allow`; `unknown`
    where this version of the package does not know it."""
    catch_up: float
    """How many seconds late a tick may still be fired."""
    jitter: float
    """By how many seconds each tick is moved at most."""
    paused: bool
    """Whether it rests."""
    next: tuple[datetime, ...]
    """Its next ticks, the earliest first."""
    last_tick: Optional[datetime]
    """The last tick that was fired."""
    last_task_id: Optional[str]
    """The task of that tick."""
    created_at: datetime
    updated_at: datetime

    @classmethod
    def _of(cls, message: schedule_pb2.Schedule) -> Schedule:
        spec = message.spec
        overlaps = {number: name for name, number in _OVERLAPS.items()}
        return cls(
            name=message.name,
            cron=spec.cron,
            time_zone=spec.time_zone,
            task=NewTask._of(spec.task),
            overlap=overlaps.get(spec.overlap, "unknown"),
            catch_up=seconds(spec.catch_up),
            jitter=seconds(spec.jitter),
            paused=spec.paused,
            next=tuple(map(to_datetime, message.next)),
            last_tick=said(message, "last_tick"),
            last_task_id=message.last_task_id or None,
            created_at=to_datetime(message.created_at),
            updated_at=to_datetime(message.updated_at),
        )


def spec(
    cron: str,
    task: NewTask,
    time_zone: Optional[str],
    overlap: Optional[str],
    catch_up: Optional[Seconds],
    jitter: Optional[Seconds],
    paused: bool,
) -> schedule_pb2.ScheduleSpec:
    """When to submit what, as it is sent."""
    if overlap is not None and overlap not in _OVERLAPS:
        raise ValueError(f"overlap must be one of {', '.join(_OVERLAPS)}: {overlap!r}")
    message = schedule_pb2.ScheduleSpec(
        cron=cron,
        time_zone=text(time_zone, "time_zone"),
        task=of_type(task, NewTask, "task")._request(),
        paused=paused,
    )
    if overlap is not None:
        message.overlap = _OVERLAPS[overlap]
    put_duration(message, "catch_up", catch_up)
    put_duration(message, "jitter", jitter)
    return message
