"""One stream of WorkerService.Work: what is said and heard on it, in threads of its own.

Heartbeats, progress and log lines are sent by the thread that gRPC asks for requests in. So neither a handler that
blocks nor an event loop that is blocked can silence a worker. What is heard is handed to the event loop, which decides.

This is gRPC's API for threads, and not `grpc.aio`, on purpose: two event loops of one process that both use `grpc.aio`
wake each other and log errors, and a handler may well use an `AsyncClient` on its own loop.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Callable, NamedTuple, Optional

import grpc

from . import errors
from ._channel import Server
from ._context import cut
from ._convert import seconds, spoken
from ._failure import UNREACHABLE, of_call
from .v1 import worker_pb2, worker_pb2_grpc

NOTES_EVERY = 0.5
"""What tasks tell of themselves is sent at most every so many seconds; what comes in between is put together."""
NOTES_OF_TIMEOUT = 4
"""What has a heartbeat timeout is told of after this part of it, where that is sooner: handlers speak three times."""
LOG_BYTES_MAX = 8 * 1024
"""As much of what a task has logged since is sent: no more is kept with it."""
HEARTBEAT_MIN = 0.05
"""Heartbeats are no closer than this, whatever a server asks for."""

_HEARTBEAT = worker_pb2.WorkRequest(heartbeat=worker_pb2.Heartbeat())


class StartKey(NamedTuple):
    """Names one start of one task."""

    task_id: str
    fence: int

    @classmethod
    def of(cls, id: worker_pb2.StartId) -> StartKey:
        return cls(id.task_id, id.fence)

    def message(self) -> worker_pb2.StartId:
        return worker_pb2.StartId(task_id=self.task_id, fence=self.fence)


class _Notes:
    """What a task has told of itself and was not sent yet."""

    def __init__(self) -> None:
        self.progress: Optional[tuple[float, str]] = None
        self.alive = False
        self.lines: deque[str] = deque()
        self._bytes = 0

    def log(self, text: str) -> None:
        for line in text.splitlines() or [""]:
            line = cut(line, LOG_BYTES_MAX - 1)
            self.lines.append(line)
            self._bytes += len(line.encode()) + 1
        while self._bytes > LOG_BYTES_MAX:
            self._bytes -= len(self.lines.popleft().encode()) + 1

    def says_no_more_than_that(self) -> bool:
        """Whether it has said that it is alive, and nothing that says so by the way."""
        return self.alive and not self.lines and self.progress is None

    def messages(self, key: StartKey) -> Iterator[worker_pb2.WorkRequest]:
        if self.lines:
            yield worker_pb2.WorkRequest(log_lines=worker_pb2.LogLines(id=key.message(), lines=self.lines))
        if self.progress is not None:
            fraction, message = self.progress
            progress = worker_pb2.Progress(id=key.message(), fraction=fraction, message=message)
            yield worker_pb2.WorkRequest(progress=progress)


def _notes_every(start: worker_pb2.Start) -> float:
    timeout = spoken(start, "heartbeat_timeout")
    return NOTES_EVERY if timeout is None else min(NOTES_EVERY, max(timeout / NOTES_OF_TIMEOUT, HEARTBEAT_MIN))


class Notebook(NamedTuple):
    """Where a task tells of itself: the listener of its context."""

    stream: Stream
    key: StartKey

    def progress(self, fraction: float, message: str) -> None:
        self.stream.progress(self.key, fraction, message)

    def line(self, line: str) -> None:
        self.stream.line(self.key, line)

    def alive(self) -> None:
        self.stream.alive(self.key)


class Stream:
    """A stream, from Hello to its end."""

    def __init__(
        self,
        server: Server,
        hello: worker_pb2.Hello,
        loop: asyncio.AbstractEventLoop,
        on_message: Callable[[worker_pb2.WorkResponse], None],
        on_end: Callable[[Optional[errors.ApiError]], None],
    ) -> None:
        """`on_message` is called in the event loop with each message, and at last `on_end`, with the error where it has
        not ended in good order."""
        self._server, self._hello, self._loop = server, hello, loop
        self._on_message, self._on_end = on_message, on_end
        self._changed = threading.Condition()
        self._outbox: deque[worker_pb2.WorkRequest] = deque()
        self._notes: dict[StartKey, _Notes] = {}
        self._noted_at = float("-inf")
        self._notes_every = NOTES_EVERY
        # The starts that were not finished yet, each with how long its notes may wait: what is told of others is not sent.
        self._running: dict[StartKey, float] = {}
        self._heartbeat: Optional[float] = None
        self._over = False
        # A connection of its own: that of another stream may lead to a server that is about to end.
        self._channel = server.connect(alone=True)

    def open(self) -> None:
        """Begins. Does not wait for anything."""
        stub = worker_pb2_grpc.WorkerServiceStub(self._channel)
        self._call = stub.Work(self._requests(), metadata=self._server.metadata)
        threading.Thread(target=self._read, name="forebay-stream", daemon=True).start()

    def cancel(self) -> None:
        """Ends it, without a word."""
        self._call.cancel()

    def drain(self) -> None:
        """Asks for no more tasks. The server ends the stream when those that run are finished."""
        with self._changed:
            self._outbox.append(worker_pb2.WorkRequest(drain=worker_pb2.Drain()))
            self._changed.notify()

    def finish(self, key: StartKey, finish: worker_pb2.Finish) -> None:
        """Tells how a start has ended, the first time that it is called for it."""
        with self._changed:
            if key not in self._running:
                return
            del self._running[key]
            notes = self._notes.pop(key, None)
            if notes is not None:
                self._outbox.extend(notes.messages(key))
            finish.id.CopyFrom(key.message())
            self._outbox.append(worker_pb2.WorkRequest(finish=finish))
            self._changed.notify()

    def progress(self, key: StartKey, fraction: float, message: str) -> None:
        """Tells how far a task is."""
        with self._changed:
            if notes := self._notes_of(key):
                notes.progress = (fraction, message)

    def line(self, key: StartKey, line: str) -> None:
        """Tells what a task has logged."""
        with self._changed:
            if notes := self._notes_of(key):
                notes.log(line)

    def alive(self, key: StartKey) -> None:
        """Tells that a task is alive."""
        with self._changed:
            if notes := self._notes_of(key):
                notes.alive = True

    def _notes_of(self, key: StartKey) -> Optional[_Notes]:
        """Where to add what a task tells; `None` where nobody hears it any more."""
        every = self._running.get(key)
        if every is None:
            return None
        self._notes_every = min(self._notes_every, every)
        self._changed.notify()
        return self._notes.setdefault(key, _Notes())

    def _requests(self) -> Iterator[worker_pb2.WorkRequest]:
        yield worker_pb2.WorkRequest(hello=self._hello)
        said_at = time.monotonic()
        while True:
            with self._changed:
                request = self._next(said_at)
                while request is None:
                    if self._over:
                        return
                    self._changed.wait(self._due_in(said_at))
                    request = self._next(said_at)
            yield request
            said_at = time.monotonic()

    def _next(self, said_at: float) -> Optional[worker_pb2.WorkRequest]:
        """What is to be said now."""
        now = time.monotonic()
        if self._notes and now >= self._noted_at + self._notes_every:
            self._noted_at, self._notes_every = now, NOTES_EVERY
            alive = [key.message() for key, notes in self._notes.items() if notes.says_no_more_than_that()]
            for key, notes in self._notes.items():
                self._outbox.extend(notes.messages(key))
            if alive:
                self._outbox.append(worker_pb2.WorkRequest(heartbeat=worker_pb2.Heartbeat(alive=alive)))
            self._notes.clear()
        if self._outbox:
            return self._outbox.popleft()
        if self._heartbeat is not None and now >= said_at + self._heartbeat:
            return _HEARTBEAT
        return None

    def _due_in(self, said_at: float) -> Optional[float]:
        """For how long there is nothing to say, unless something happens."""
        due = [] if self._heartbeat is None else [said_at + self._heartbeat]
        if self._notes:
            due.append(self._noted_at + self._notes_every)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _read(self) -> None:
        error: Optional[errors.ApiError] = None
        try:
            for message in self._call:
                self._hear(message)
        except grpc.RpcError as failed:
            error = of_call(failed, self._server.target)
        except Exception as failed:
            error = errors.UnavailableError(f"the stream cannot be read: {failed}", code=UNREACHABLE)
            self._call.cancel()
        with self._changed:
            self._over = True
            self._running.clear()
            self._notes.clear()
            self._changed.notify()
        self._channel.close()
        self._post(self._on_end, error)

    def _hear(self, message: worker_pb2.WorkResponse) -> None:
        which = message.WhichOneof("message")
        with self._changed:
            if which == "welcome":
                self._heartbeat = max(seconds(message.welcome.heartbeat_interval), HEARTBEAT_MIN)
                self._changed.notify()
            elif which == "start":
                self._running[StartKey.of(message.start.id)] = _notes_every(message.start)
        self._post(self._on_message, message)

    def _post(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            # The loop is closed: nobody is there any more who could decide anything.
            self._call.cancel()
