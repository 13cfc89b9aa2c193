"""Between Python's values and those of the `.proto` files."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any, Optional, Union

from google.protobuf import duration_pb2, timestamp_pb2

Seconds = Union[float, int, timedelta]
"""A duration: a number of seconds, or a timedelta."""

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def to_json(value: Any) -> bytes:
    """JSON text. Raises TypeError or ValueError for what JSON cannot say, NaN included."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def from_json(text: bytes) -> Any:
    """The value of JSON text; `None` where there is no text."""
    return json.loads(text) if text else None


def to_duration(value: Seconds, what: str) -> duration_pb2.Duration:
    """A duration, which is neither negative nor endless."""
    span = value if isinstance(value, timedelta) else timedelta(seconds=value)
    if span < timedelta(0):
        raise ValueError(f"{what} must not be negative: {value!r}")
    duration = duration_pb2.Duration()
    duration.FromTimedelta(span)
    return duration


def to_seconds(value: Seconds) -> float:
    """A duration as a number of seconds."""
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


def seconds(duration: duration_pb2.Duration) -> float:
    """A number of seconds."""
    return duration.seconds + duration.nanos / 1e9


def to_timestamp(at: datetime, what: str) -> timestamp_pb2.Timestamp:
    """A point in time."""
    if at.tzinfo is None:
        raise ValueError(f"{what} must have a time zone, such as datetime.now(timezone.utc) has: {at!r}")
    span = at - _EPOCH
    whole = span // timedelta(seconds=1)
    micros = (span - timedelta(seconds=whole)) // timedelta(microseconds=1)
    return timestamp_pb2.Timestamp(seconds=whole, nanos=micros * 1_000)


def to_datetime(at: timestamp_pb2.Timestamp) -> datetime:
    """A point in time, in UTC."""
    return _EPOCH + timedelta(seconds=at.seconds, microseconds=at.nanos // 1_000)


def said(message: Any, field: str) -> Optional[datetime]:
    """A point in time that may not be set."""
    return to_datetime(getattr(message, field)) if message.HasField(field) else None
