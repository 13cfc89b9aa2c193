"""Between Python's values and those of the `.proto` files."""

from __future__ import annotations

import json
import operator
from datetime import datetime, timedelta, timezone
from typing import Any, Iterable, Optional, TypeVar, Union

from google.protobuf import duration_pb2, timestamp_pb2

T = TypeVar("T")

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
    duration = duration_pb2.Duration()
    try:
        span = value if isinstance(value, timedelta) else timedelta(seconds=value)
        duration.FromTimedelta(span)
    except TypeError:
        raise TypeError(f"{what} must be a number of seconds, or a timedelta: {value!r}") from None
    except (ValueError, OverflowError):
        raise ValueError(f"{what} must be a number of seconds that has an end: {value!r}") from None
    if span < timedelta(0):
        raise ValueError(f"{what} must not be negative: {value!r}")
    return duration


def to_seconds(value: Seconds) -> float:
    """A duration as a number of seconds."""
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


def seconds(duration: duration_pb2.Duration) -> float:
    """A number of seconds."""
    return duration.seconds + duration.nanos / 1e9


def to_timestamp(at: datetime, what: str) -> timestamp_pb2.Timestamp:
    """A point in time."""
    if not isinstance(at, datetime):
        raise TypeError(f"{what} must be a datetime: {at!r}")
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


def spoken(message: Any, field: str) -> Optional[float]:
    """A number of seconds that may not be set."""
    return seconds(getattr(message, field)) if message.HasField(field) else None


def put_duration(message: Any, field: str, value: Optional[Seconds]) -> None:
    """Sets a duration, where there is one."""
    if value is not None:
        getattr(message, field).CopyFrom(to_duration(value, field))


def put_timestamp(message: Any, field: str, at: Optional[datetime]) -> None:
    """Sets a point in time, where there is one."""
    if at is not None:
        getattr(message, field).CopyFrom(to_timestamp(at, field))


def several(values: Iterable[str], what: str) -> list[str]:
    """What should be many texts. One text is many texts, too, and is refused."""
    if isinstance(values, str):
        raise TypeError(f"{what} must be several strings, such as a list has, and not one")
    return [of_type(value, str, what) for value in values]


def of_type(value: T, kind: type, what: str) -> T:
    """What must be of a type."""
    if not isinstance(value, kind):
        raise TypeError(f"{what} must be of the type {kind.__name__}, and not {type(value).__name__}")
    return value


def text(value: Optional[str], what: str) -> str:
    """A text that may be left out, which is sent as an empty one; so one that is given must not be empty."""
    if value is None:
        return ""
    if of_type(value, str, what) == "":
        raise ValueError(f"{what} must not be empty; None is as if it were not given")
    return value


def whole(value: Optional[int], what: str) -> Optional[int]:
    """A number that may be left out, and fits into a message."""
    if value is None:
        return None
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{what} must be a whole number: {value!r}") from None
    if not 0 <= number < 2**31:
        raise ValueError(f"{what} is out of range: {value!r}")
    return number
