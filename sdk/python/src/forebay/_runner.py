"""Runs a worker: keeps a stream to a server, runs handlers for what it is told to start, and ends in good order.

All of this happens in one event loop, which is also that of handlers that are `async`. Handlers that are plain functions
run in threads, and what is sent and received has threads of its own: see `_stream`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Callable, Optional

from . import _finish, errors
from ._channel import Server
from ._context import Context, current
from ._convert import from_json, seconds, spoken, to_datetime
from ._failure import DEADLINE_EXCEEDED
from ._places import Places
from ._retry import jitter
from ._stream import Notebook, StartKey, Stream
from ._threads import Threads
from .v1 import worker_pb2

log = logging.getLogger("forebay")

WELCOME_WITHIN = 30.0
"""A server that has not answered Hello after so many seconds is given up."""
PLACE_WITHIN = 5.0
"""What is to be started waits so long for a place, where another stream's tasks hold them all; then it is handed back,"""
NO_PLACE_DELAY = 1.0
"""to be started again after so long."""
RECONNECT_FIRST = 0.2
RECONNECT_MAX = 10.0
"""The pauses before a new stream are random: up to the first at first, then growing up to the second."""
STABLE_AFTER = 5.0
"""A stream that has lasted so long was a good one: pauses begin anew."""
STOP_GRACE = 2.0
"""How long handlers have to end once they were told to stop, at the end of a drain."""
FLUSH_WITHIN = 5.0
"""How long the server has to take what was said last."""

# What no server will answer differently later.
_HOPELESS = ("INVALID_ARGUMENT", "UNIMPLEMENTED", "UNAUTHENTICATED", "PERMISSION_DENIED")


@dataclass(frozen=True)
class Handler:
    """What runs the tasks of a kind."""

    kind: str
    function: Callable[..., Any]
    is_async: bool
    arguments: int
    """It takes the payload if this is 1, and the context, too, if it is 2."""
    settings: worker_pb2.KindSettings

    def call(self, payload: bytes, context: Context) -> Any:
        """Calls it, and returns what it returns."""
        return self.function(*(from_json(payload), context)[: self.arguments])


class Run:
    """One start of one task."""

    def __init__(self, stream: Stream, start: worker_pb2.Start) -> None:
        self.key = StartKey.of(start.id)
        self.payload = start.payload
        self.task: Optional[asyncio.Task[None]] = None
        # Whether cancelling `task` ends it: neither before its first step nor while it waits for a thread.
        self.interruptible = False
        self.handed_back = False
        self._stream = stream
        self.context = Context(
            Notebook(stream, self.key),
            task_id=start.id.task_id,
            kind=start.kind,
            queue=start.queue,
            project=start.project,
            attempt=start.attempt,
            max_attempts=start.max_attempts,
            fence=start.id.fence,
            timeout=seconds(start.timeout),
            deadline=to_datetime(start.deadline),
            traceparent=start.traceparent,
            heartbeat_timeout=spoken(start, "heartbeat_timeout"),
        )

    def stop(self, reason: str) -> None:
        """Tells the handler to end."""
        if self.context._stop(reason) and self.task is not None and self.interruptible:
            self.task.cancel()

    def conclude(self, finish: worker_pb2.Finish) -> None:
        """Tells the server how it has ended."""
        if self.handed_back and finish.WhichOneof("outcome") != "succeeded":
            finish = _finish.snoozed(0)
        self._stream.finish(self.key, finish)


class Session:
    """A stream, as the event loop sees it."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        loop = asyncio.get_running_loop()
        self.runs: dict[StartKey, Run] = {}
        self.left = asyncio.Event()
        """Set when no more tasks come on it."""
        self.over = asyncio.Event()
        self.error: Optional[errors.ApiError] = None
        self.welcomed = False
        self.drained = False
        self.began = time.monotonic()
        self.stream = Stream(runner.server, runner.hello, loop, self._hear, self._end)
        self.stream.open()
        self._patience = loop.call_later(WELCOME_WITHIN, self._not_welcomed)

    def drain(self) -> None:
        """Asks for no more tasks."""
        self.left.set()
        self.stream.drain()
        if not self.welcomed:
            self._patience.cancel()
            self._patience = asyncio.get_running_loop().call_later(STOP_GRACE, self.stream.cancel)

    def _not_welcomed(self) -> None:
        target = self._runner.server.target
        self.error = errors.RequestTimeoutError(f"{target} did not welcome the worker in time", code=DEADLINE_EXCEEDED)
        self.stream.cancel()

    def _hear(self, message: worker_pb2.WorkResponse) -> None:
        which = message.WhichOneof("message")
        if which == "welcome":
            self._patience.cancel()
            self.welcomed = True
            log.info("connected to %s as worker %s", self._runner.server.target, message.welcome.worker_id)
        elif which == "start":
            run = Run(self.stream, message.start)
            if self._runner.hands_back:
                # It was on its way when the server was told to send no more.
                run.conclude(_finish.snoozed(0))
                return
            self.runs[run.key] = run
            run.task = self._runner.spawn(self._run(run))
        elif which == "stop":
            stopped = self.runs.get(StartKey.of(message.stop.id))
            if stopped is not None:
                stopped.stop(_stop_reason(message.stop.reason))
        elif which == "drain":
            log.info("%s ends; what runs is finished", self._runner.server.target)
            self.drained = True
            self.left.set()

    async def _run(self, run: Run) -> None:
        try:
            await self._runner.serve(run)
        finally:
            self.runs.pop(run.key, None)

    def _end(self, error: Optional[errors.ApiError]) -> None:
        self._patience.cancel()
        self.error = self.error or error
        if self.runs:
            log.warning("%d tasks are lost with the stream to %s", len(self.runs), self._runner.server.target)
        for run in list(self.runs.values()):
            run.stop("lost")
        self.left.set()
        self.over.set()


class Runner:
    """A worker at work."""

    def __init__(
        self, server: Server, hello: worker_pb2.Hello, handlers: dict[str, Handler], drain_timeout: float
    ) -> None:
        self.server, self.hello = server, hello
        self._handlers = handlers
        self._drain_timeout = drain_timeout
        limits = {kind: each.settings.concurrency for kind, each in handlers.items()}
        self._places = Places(hello.slots, {kind: limit for kind, limit in limits.items() if limit})
        self._threads = Threads()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sessions: list[Session] = []
        self._draining = asyncio.Event()
        self._hurry = asyncio.Event()
        self.hands_back = False
        """Whether the time to finish anything is over."""

    def drain(self) -> None:
        """Takes no more tasks, and ends when those that run are finished. The second time: ends now."""
        if self._draining.is_set():
            self._hurry.set()
        self._draining.set()

    async def run(self) -> None:
        """Works until it is drained. Raises where no server will ever take this worker."""
        try:
            await self._keep_connected()
            await self._drain()
        finally:
            for session in self._open():
                session.stream.cancel()
            for task in self._tasks:
                task.cancel()
            self._threads.close()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Starts a task of the event loop, and keeps it from being forgotten."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def serve(self, run: Run) -> None:
        """Runs a handler, and tells how it has ended."""
        context = run.context
        try:
            context.raise_if_cancelled()
            run.interruptible = True
            handler = self._handlers[context.kind]
            # While it waits it says nothing.
            silence = PLACE_WITHIN if context.heartbeat_timeout is None else context.heartbeat_timeout / 2
            if not await self._places.take(context.kind, min(PLACE_WITHIN, silence)):
                run.conclude(_finish.snoozed(NO_PLACE_DELAY))
                return
            try:
                finish = await (self._await(handler, run) if handler.is_async else self._thread(handler, run))
            finally:
                self._places.give(context.kind)
        except BaseException as error:
            finish = _finish.raised(error, context)
            if isinstance(error, KeyboardInterrupt):
                # It is meant for whoever runs the event loop.
                run.conclude(finish)
                raise
        run.conclude(finish)

    async def _await(self, handler: Handler, run: Run) -> worker_pb2.Finish:
        current.set(run.context)
        return _finish.succeeded(await handler.call(run.payload, run.context))

    async def _thread(self, handler: Handler, run: Run) -> worker_pb2.Finish:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[worker_pb2.Finish] = loop.create_future()

        def tell(finish: worker_pb2.Finish) -> None:
            if not done.done():
                done.set_result(finish)

        def work() -> None:
            token = current.set(run.context)
            try:
                finish = _finish.succeeded(handler.call(run.payload, run.context))
            except BaseException as error:
                finish = _finish.raised(error, run.context)
            current.reset(token)
            try:
                loop.call_soon_threadsafe(tell, finish)
            except RuntimeError:
                # The worker has ended without waiting for this.
                pass

        run.interruptible = False
        self._threads.run(work)
        return await done

    def _open(self) -> list[Session]:
        """The streams that are not over."""
        self._sessions = [session for session in self._sessions if not session.over.is_set()]
        return self._sessions

    async def _keep_connected(self) -> None:
        failures = 0
        welcomed = False
        while not self._draining.is_set():
            session = Session(self)
            self._open().append(session)
            await _first(session.left.wait(), self._draining.wait())
            if self._draining.is_set():
                return
            welcomed = welcomed or session.welcomed
            lasted = time.monotonic() - session.began
            failures = 1 if session.welcomed and lasted > STABLE_AFTER else failures + 1
            pause = jitter(failures, RECONNECT_FIRST, RECONNECT_MAX)
            if session.over.is_set():
                pause += self._judge(session, welcomed)
            await _first(asyncio.sleep(pause), self._draining.wait())

    def _judge(self, session: Session, welcomed: bool) -> float:
        """A stream is over: how long to wait in any case. Raises its error where no other will fare better."""
        error = session.error
        if error is None:
            log.info("%s has ended the stream", self.server.target)
            return 0.0
        # A worker that was welcomed once is right, and what refuses it now is on its way out or in.
        if not welcomed and error.status in _HOPELESS:
            raise error
        log.warning("the stream to %s has ended, and is opened again: %s", self.server.target, error)
        return error.retry_after or 0.0

    async def _drain(self) -> None:
        for session in self._open():
            session.drain()
        if await self._all_over(self._drain_timeout):
            return
        self.hands_back = True
        runs = [run for session in self._open() for run in session.runs.values()]
        if runs:
            log.warning("%d tasks are handed back unfinished", len(runs))
        for run in runs:
            run.handed_back = True
            run.stop("shutdown")
        await self._all_over(STOP_GRACE)
        for run in runs:
            run.conclude(_finish.snoozed(0))
        # Even in a hurry: what was said is to be heard.
        self._hurry.clear()
        await self._all_over(FLUSH_WITHIN)

    async def _all_over(self, within: float) -> bool:
        waiting = [asyncio.ensure_future(session.over.wait()) for session in self._open()]
        if waiting:
            await _first(asyncio.wait(waiting, timeout=within), self._hurry.wait())
            for each in waiting:
                each.cancel()
        return not self._open()


async def _first(*waits: Coroutine[Any, Any, Any]) -> None:
    """Waits until one of these is over, and gives up the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def _stop_reason(reason: int) -> str:
    if reason == worker_pb2.Stop.REASON_TIMED_OUT:
        return "timed_out"
    return "shutdown" if reason == worker_pb2.Stop.REASON_SHUTDOWN else "cancelled"
