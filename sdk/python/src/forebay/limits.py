"""Limits: how many tasks run, or start, at a time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Optional

from ._convert import Seconds, of_type, put_duration, seconds, text, to_datetime, whole
from .v1 import limit_pb2


@dataclass(frozen=True)
class Rate:
    """So many starts in such a time, evenly spaced but for a burst after a rest."""

    count: int
    """How many, from 1."""
    per: Seconds = 1
    """In how long."""
    burst: Optional[int] = None
    """How many may start at once after a rest; as many as `count` unless said."""

    def _message(self) -> limit_pb2.Rate:
        message = limit_pb2.Rate(count=whole(self.count, "count"), burst=whole(self.burst, "burst"))
        put_duration(message, "per", self.per)
        return message

    @classmethod
    def _of(cls, message: limit_pb2.Rate) -> Rate:
        return cls(message.count, seconds(message.per), message.burst if message.HasField("burst") else None)


@dataclass(frozen=True)
class Limit:
    """A limit."""

    name: str
    queue: Optional[str]
    """Only tasks of this queue count."""
    kind: Optional[str]
    """Only tasks of this kind count."""
    by_key: bool
    """Whether only tasks with a `limit_key` count, those of each key by themselves."""
    concurrency: Optional[int]
    """How many may run at a time."""
    rate: Optional[Rate]
    """How many may start in a time."""
    running: Optional[int]
    """How many run that count to it, over all keys. Only where it is read by itself, and has a `concurrency`."""
    waiting: Optional[int]
    """How many it holds back, over all keys. Only where it is read by itself."""
    created_at: datetime
    updated_at: datetime

    @classmethod
    def _of(cls, message: limit_pb2.Limit) -> Limit:
        spec = message.spec
        return cls(
            name=message.name,
            queue=spec.queue or None,
            kind=spec.kind or None,
            by_key=spec.by_key,
            concurrency=spec.concurrency if spec.HasField("concurrency") else None,
            rate=Rate._of(spec.rate) if spec.HasField("rate") else None,
            running=message.running if message.HasField("running") else None,
            waiting=message.waiting if message.HasField("waiting") else None,
            created_at=to_datetime(message.created_at),
            updated_at=to_datetime(message.updated_at),
        )


def spec(
    queue: Optional[str], kind: Optional[str], by_key: bool, concurrency: Optional[int], rate: Optional[Rate]
) -> limit_pb2.LimitSpec:
    """Which tasks count, and how many of them may run or start, as it is sent."""
    return limit_pb2.LimitSpec(
        queue=text(queue, "queue"),
        kind=text(kind, "kind"),
        by_key=by_key,
        concurrency=whole(concurrency, "concurrency"),
        rate=None if rate is None else of_type(rate, Rate, "rate")._message(),
    )
