"""The worker: maps kinds of tasks to functions, and runs them."""

from __future__ import annotations

import asyncio
import inspect
import signal
import socket
import threading
from typing import Any, Callable, Optional, Sequence, TypeVar

import grpc

from ._channel import Server
from ._context import cut
from ._convert import Seconds, of_type, put_duration, several, to_seconds, whole
from ._runner import Handler, Runner
from ._version import __version__
from .v1 import worker_pb2

F = TypeVar("F", bound=Callable[..., Any])

CONCURRENCY_MAX = 10_000
NAME_BYTES_MAX = 128


class Worker:
    """Runs tasks in this process.

        worker = Worker("http://127.0.0.1:50051", queues=["images"])

        @worker.task("resize", timeout=60)
        def resize(payload, context):
            ...
            return {"width": 100}

        worker.run()

    A task is run at least once. A worker that dies in the middle of one has it started elsewhere; so a handler must
    bear being run again, and `context.task_id` is a key for what must not happen twice.
    """

    def __init__(
        self,
        url: Optional[str] = None,
        *,
        queues: Sequence[str] = ("default",),
        concurrency: int = 16,
        name: Optional[str] = None,
        drain_timeout: Seconds = 30.0,
        credentials: Optional[grpc.ChannelCredentials] = None,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> None:
        """A worker of the server at `url`, with `credentials` and `metadata` as `Client` takes them.

        `concurrency` is how many tasks run at once. `name` is what it is called where workers are listed; its host name
        unless said. `drain_timeout` is how long what runs may go on once the worker is to end.
        """
        if not 1 <= concurrency <= CONCURRENCY_MAX:
            raise ValueError(f"concurrency must be from 1 to {CONCURRENCY_MAX}: {concurrency}")
        self._server = Server.of(url, credentials, metadata)
        self._queues = tuple(several(queues, "queues"))
        self._concurrency = concurrency
        self._name = cut(name or socket.gethostname() or "python", NAME_BYTES_MAX)
        self._drain_timeout = to_seconds(drain_timeout)
        self._handlers: dict[str, Handler] = {}
        self._lock = threading.Lock()
        self._running: Optional[tuple[Runner, asyncio.AbstractEventLoop]] = None

    def task(
        self,
        kind: str,
        *,
        timeout: Optional[Seconds] = None,
        max_attempts: Optional[int] = None,
        concurrency: Optional[int] = None,
        heartbeat_timeout: Optional[Seconds] = None,
    ) -> Callable[[F], F]:
        """Says that the function below runs the tasks of this kind. The function itself stays as it is.

        It is called with the payload, and with a `Context` if it needs two arguments; what it returns is the task's
        result, as JSON. An `async` function runs in the worker's event loop, any other in a thread. What it raises
        makes another attempt follow, unless it is `Permanent`, `RetryAfter` or `Snooze`.

        `timeout` is how long one attempt may take (five minutes unless said), `max_attempts` how many there are, and
        `concurrency` how many run at once in this worker. An attempt that says nothing for `heartbeat_timeout` is ended:
        see `Context.heartbeat`. A task that says otherwise for itself has its way, but for `concurrency`.
        """

        def register(function: F) -> F:
            self.add(
                kind,
                function,
                timeout=timeout,
                max_attempts=max_attempts,
                concurrency=concurrency,
                heartbeat_timeout=heartbeat_timeout,
            )
            return function

        return register

    def add(
        self,
        kind: str,
        function: Callable[..., Any],
        *,
        timeout: Optional[Seconds] = None,
        max_attempts: Optional[int] = None,
        concurrency: Optional[int] = None,
        heartbeat_timeout: Optional[Seconds] = None,
    ) -> None:
        """As `task`, for a function that is not written below a decorator."""
        if kind in self._handlers:
            raise ValueError(f"the kind {kind!r} has a handler already")
        if self._running is not None:
            raise RuntimeError("a worker that runs takes no more handlers")
        settings = worker_pb2.KindSettings(
            kind=of_type(kind, str, "kind"),
            max_attempts=whole(max_attempts, "max_attempts"),
            concurrency=whole(concurrency, "concurrency"),
        )
        put_duration(settings, "timeout", timeout)
        put_duration(settings, "heartbeat_timeout", heartbeat_timeout)
        self._handlers[kind] = Handler(kind, function, _is_async(function), _arguments(function), settings)

    def run(self) -> None:
        """Works until it is told to end: by SIGTERM or SIGINT, where this is the main thread, or by `drain`. Then it
        takes no more tasks, finishes those that run, and returns. A second signal makes it hand back at once what runs.

        Raises the error where the server refuses this worker for good when it first connects. A server that is away is
        waited for.
        """
        asyncio.run(self._run_with_signals())

    async def run_async(self) -> None:
        """As `run`, within an event loop that is there already, whose handlers of signals are left alone. Where the
        task that awaits this is cancelled, the worker ends at once, and what it ran is started elsewhere."""
        loop = asyncio.get_running_loop()
        runner = Runner(self._server, self._hello(), dict(self._handlers), self._drain_timeout)
        with self._lock:
            if self._running is not None:
                raise RuntimeError("the worker runs already")
            self._running = (runner, loop)
        try:
            await runner.run()
        finally:
            with self._lock:
                self._running = None

    def drain(self) -> None:
        """Makes a running worker end in good order; see `run`. The second time, at once. Any thread may call it."""
        with self._lock:
            if self._running is not None:
                runner, loop = self._running
                loop.call_soon_threadsafe(runner.drain)

    def _hello(self) -> worker_pb2.Hello:
        if not self._handlers:
            raise RuntimeError("the worker has no handlers: @worker.task says what runs which kind")
        return worker_pb2.Hello(
            name=self._name,
            queues=self._queues,
            kinds=[handler.settings for handler in self._handlers.values()],
            slots=self._concurrency,
            sdk=f"forebay-python/{__version__}",
        )

    async def _run_with_signals(self) -> None:
        restore = self._listen() if threading.current_thread() is threading.main_thread() else None
        try:
            await self.run_async()
        finally:
            if restore is not None:
                restore()

    def _listen(self) -> Callable[[], None]:
        """Drains at SIGTERM and SIGINT. Returns what undoes this."""

        def told(number: int, _frame: object) -> None:
            # Nothing but this is safe within a handler of signals; the lock of `drain` is not.
            running = self._running
            if running is not None:
                runner, loop = running
                loop.call_soon_threadsafe(runner.drain)

        before = {number: signal.signal(number, told) for number in (signal.SIGTERM, signal.SIGINT)}

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

        return restore


def _is_async(function: Callable[..., Any]) -> bool:
    called = getattr(function, "__call__", None)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


def _arguments(function: Callable[..., Any]) -> int:
    """With how many arguments a handler is called: the payload, and the context."""
    if not callable(function):
        raise TypeError(f"a handler must be a function, and not {function!r}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{function!r} is a generator; a handler returns one result")
    signature = inspect.signature(function)
    for count in (1, 2, 0):
        try:
            signature.bind(*range(count))
        except TypeError:
            continue
        return count
    raise TypeError(f"{function!r} must take the payload, and may take a context; it takes {signature}")
