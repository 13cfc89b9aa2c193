"""What a handler is told of the attempt that it makes, and what it can tell."""

from __future__ import annotations

import logging
import threading
import time
from contextvars import ContextVar
from datetime import datetime, timedelta, timezone
from typing import Optional, Protocol

from .outcomes import Cancelled

PROGRESS_BYTES_MAX = 256


class Listener(Protocol):
    """Whoever passes on what a handler tells."""

    def progress(self, fraction: float, message: str) -> None: ...

    def line(self, line: str) -> None: ...

    def alive(self) -> None: ...


class Context:
    """One attempt at a task. A handler is given it as its second argument, if it takes one.

    All of it may be used from any thread. `Context()` makes one that tells nobody, to test a handler with.
    """

    task_id: str
    """Which task. The same for all its attempts: a key for what must not happen twice."""
    kind: str
    """What it does."""
    queue: str
    """The queue it came through."""
    project: str
    """Whose it is."""
    attempt: int
    """The number of this attempt; the first is 1."""
    max_attempts: int
    """How many it may have."""
    fence: int
    """How often the task was started, this start included. It grows with every start, even where the one before was only
    interrupted: a system that remembers the highest it has seen for a task, and refuses lower ones, is safe from an
    attempt that was given up and goes on all the same."""
    timeout: float
    """How many seconds this attempt may take."""
    deadline: datetime
    """When that time is over, by the server's clock."""
    heartbeat_timeout: Optional[float]
    """After how many seconds without a word the attempt is ended; `None` where it need say nothing."""
    traceparent: str
    """The trace to go on with, as W3C's header; empty where there is none. Clients of this package that are used within
    a handler pass it on by themselves."""

    def __init__(
        self,
        listener: Optional[Listener] = None,
        *,
        task_id: str = "",
        kind: str = "",
        queue: str = "default",
        project: str = "default",
        attempt: int = 1,
        max_attempts: int = 1,
        fence: int = 1,
        timeout: float = 300.0,
        deadline: Optional[datetime] = None,
        traceparent: str = "",
        heartbeat_timeout: Optional[float] = None,
    ) -> None:
        self._listener = listener
        self._end = time.monotonic() + timeout
        self._reason: Optional[str] = None
        self._told = threading.Event()
        self.task_id = task_id
        self.kind = kind
        self.queue = queue
        self.project = project
        self.attempt = attempt
        self.max_attempts = max_attempts
        self.fence = fence
        self.timeout = timeout
        self.deadline = deadline or datetime.now(timezone.utc) + timedelta(seconds=timeout)
        self.traceparent = traceparent
        self.heartbeat_timeout = heartbeat_timeout

    def __repr__(self) -> str:
        return f"<Context of {self.kind} {self.task_id}, attempt {self.attempt} of {self.max_attempts}>"

    @property
    def time_left(self) -> float:
        """How many seconds are left of `timeout`, by this machine's clock; never less than 0."""
        return max(0.0, self._end - time.monotonic())

    @property
    def cancelled(self) -> bool:
        """Whether the attempt should end now. A handler that is a plain function should look here from time to time:
        nobody can end it from outside. One that is `async` is cancelled where it waits."""
        return self._reason is not None

    @property
    def cancel_reason(self) -> Optional[str]:
        """Why it should end: `cancelled` by somebody, `timed_out`, `shutdown` of worker or server, or `lost`, where the
        connection is gone and the task is started elsewhere. `None` as long as it may go on."""
        return self._reason

    def raise_if_cancelled(self) -> None:
        """Raises `Cancelled` where the attempt should end."""
        if self._reason is not None:
            raise Cancelled(self._reason)

    def sleep(self, seconds: float) -> None:
        """Sleeps, and raises `Cancelled` as soon as the attempt should end. For plain functions: it blocks."""
        self._told.wait(seconds)
        self.raise_if_cancelled()

    def progress(self, fraction: float, message: str = "") -> None:
        """Says how much is done, from 0 to 1, and what the handler is at. Cheap: of what is said in quick succession
        the latest is sent."""
        if not 0.0 <= fraction <= 1.0:
            if fraction != fraction:
                raise ValueError("a fraction is a number from 0 to 1, and not NaN")
            fraction = min(max(fraction, 0.0), 1.0)
        if self._listener is not None:
            self._listener.progress(fraction, cut(message, PROGRESS_BYTES_MAX))

    def heartbeat(self) -> None:
        """Says that the attempt is alive, where it has a `heartbeat_timeout`: progress and log lines say so, too. Cheap:
        say it as often as you like, and at least three times within that timeout. What is said in quick succession is
        sent together, after half a second at most, or a quarter of that timeout where that is less."""
        if self._listener is not None:
            self._listener.alive()

    def log(self, line: str) -> None:
        """Logs a line, or several. The last 8 KiB are kept with the task, where people find them."""
        if self._listener is not None:
            self._listener.line(str(line))

    def _stop(self, reason: str) -> bool:
        """Asks for the end. The first reason counts."""
        if self._reason is not None:
            return False
        self._reason = reason
        self._told.set()
        return True


current: ContextVar[Optional[Context]] = ContextVar("forebay_context", default=None)
"""The attempt that the running code is a part of."""


class TaskLogHandler(logging.Handler):
    """A handler for Python's `logging`, which adds what is logged within a task to the log of that task.

    logging.getLogger().addHandler(forebay.TaskLogHandler())
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Passes a record on. Does nothing outside of tasks."""
        context = current.get()
        if context is None:
            return
        try:
            context.log(self.format(record))
        except Exception:
            self.handleError(record)


def cut(text: str, bytes_max: int) -> str:
    """As much of a text as has so many bytes."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= bytes_max:
        return encoded.decode()
    return encoded[:bytes_max].decode("utf-8", "ignore")
