"""The client for programs without an event loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from datetime import datetime
from types import TracebackType
from typing import Any, Optional, Sequence, TypeVar, Union

import grpc

from . import _calls, errors, limits
from ._channel import Server
from ._convert import Seconds, whole
from ._failure import of_call
from ._retry import Budget, StreamTries, Tries
from .explain import Explanation
from .limits import Limit, Rate
from .queues import Queue
from .schedules import Schedule, spec
from .task import NewTask, SubmitResult, Task, TaskOrId, TaskState, TaskUpdate
from .terms import Retry, Unique
from .v1 import limit_pb2, schedule_pb2, task_pb2

T = TypeVar("T")


class Client:
    """Submits tasks, and tells what became of them.

    Any number of threads may share one. It connects when it is first used, and again whenever that is needed. Calls
    that may be made twice are tried a few times where the server is away or overloaded.

        with Client("http://127.0.0.1:50051") as client:
            task = client.submit("resize", {"path": "a.png"})
            task = client.wait(task, timeout=30)
    """

    queues: Queues
    """The server's queues."""
    schedules: Schedules
    """The server's schedules."""
    limits: Limits
    """The server's limits."""

    def __init__(
        self,
        url: Optional[str] = None,
        *,
        timeout: float = 30.0,
        credentials: Optional[grpc.ChannelCredentials] = None,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> None:
        """A client of the server at `url`: `http://host:port`, or `https://host:port` for TLS. Unless said, it is what
        the variable FOREBAY_GRPC_URL says, or `http://127.0.0.1:50051`.

        `timeout` is how many seconds an answer may take. `credentials` are for TLS with certificates of your own;
        `metadata` goes with each call, for a proxy that asks who is calling, say.
        """
        self._server = Server.of(url, credentials, metadata)
        self._timeout = timeout
        self._budget = Budget()
        self._channel = self._server.connect()
        self._stubs = _calls.Stubs(self._channel)
        self.queues = Queues(self)
        self.schedules = Schedules(self)
        self.limits = Limits(self)

    def close(self) -> None:
        """Ends the connection, and what is under way on it."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    def submit(
        self,
        kind: str,
        payload: Any = None,
        *,
        queue: Optional[str] = None,
        priority: Optional[str] = None,
        tags: Sequence[str] = (),
        run_at: Optional[datetime] = None,
        delay: Optional[Seconds] = None,
        max_attempts: Optional[int] = None,
        timeout: Optional[Seconds] = None,
        idempotency_key: Optional[str] = None,
        project: Optional[str] = None,
        expires_at: Optional[datetime] = None,
        schedule_to_start_timeout: Optional[Seconds] = None,
        heartbeat_timeout: Optional[Seconds] = None,
        retry: Optional[Retry] = None,
        limit_key: Optional[str] = None,
        unique: Optional[Unique] = None,
        after: Sequence[TaskOrId] = (),
        on_dependency_failure: Optional[str] = None,
        notify: Sequence[str] = (),
    ) -> Task:
        """Submits a task; see `NewTask` for what may be said of it. Once this returns the task is durable.

        With an `idempotency_key` it is tried again wherever that may help, and names the same task each time. Without
        one it is tried again only where it was surely not accepted; on any other `UnavailableError` or
        `RequestTimeoutError` it may have been.
        """
        new = NewTask(
            kind,
            payload,
            queue=queue,
            priority=priority,
            tags=tags,
            run_at=run_at,
            delay=delay,
            max_attempts=max_attempts,
            timeout=timeout,
            idempotency_key=idempotency_key,
            project=project,
            expires_at=expires_at,
            schedule_to_start_timeout=schedule_to_start_timeout,
            heartbeat_timeout=heartbeat_timeout,
            retry=retry,
            limit_key=limit_key,
            unique=unique,
            after=after,
            on_dependency_failure=on_dependency_failure,
            notify=notify,
        )
        return self._call(_calls.submit(new))

    def submit_many(self, tasks: Iterable[NewTask]) -> Iterator[SubmitResult]:
        """Submits tasks as one stream, and returns what becomes of each, in their order. Takes no more of them than
        the server can accept and you read the results of, so `tasks` may be endless, and nothing is submitted before the
        first result is asked for. `tasks` is run through in a thread of its own.

        One that is refused does not end the others: its result has the `error`. Where the connection breaks, those with
        an idempotency key are sent again, and the others are told as not known: with the error that it broke with.
        Where it cannot be taken up again, all that were taken are told so, and then that error is raised.
        """
        return self._submit_many(tasks)

    def get(self, task: TaskOrId) -> Task:
        """Reads a task. One that was just submitted may not be recorded yet: that is waited for."""
        return self._read(task)

    def wait(self, task: TaskOrId, timeout: Optional[Seconds] = None) -> Task:
        """Waits until a task is final, and returns it as it is then, however it ended: look at its `state`.

        Raises `WaitTimeoutError` where it is not final after `timeout`. The task goes on; `cancel` ends it.
        """
        deadline = _calls.Deadline(task, timeout, may_read=True)
        while True:
            try:
                found = self._read(deadline.id, deadline.left()) if deadline.only_reads else self._follow(deadline)
                if found.is_final:
                    return found
            except errors.ApiError as error:
                deadline.failed(error)
            self._rest(deadline.pause())

    def watch(self, task: TaskOrId, *, after: str = "") -> Iterator[TaskUpdate]:
        """Tells where a task stands, then each change, and ends after a final state. `after` is the cursor of the last
        update that was seen, to go on after it. Goes on by itself where the connection breaks."""
        return self._watch(_calls.Deadline(task, None), after)

    def list(
        self,
        *,
        state: Union[TaskState, str, None] = None,
        queue: Optional[str] = None,
        kind: Optional[str] = None,
        tag: Optional[str] = None,
        created_after: Optional[datetime] = None,
        created_before: Optional[datetime] = None,
        page_size: Optional[int] = None,
    ) -> Iterator[Task]:
        """All tasks that fit, newest first. Pages of `page_size`, up to 200, are fetched as they are needed."""
        request = _calls.filtered(state, queue, kind, tag, created_after, created_before, page_size)
        return self._pages(request)

    def cancel(self, task: TaskOrId) -> Task:
        """Cancels a task. One that runs is told to stop, and is cancelled when it has. Raises `ConflictError` where it
        is final already."""
        return self._call(_calls.cancel(task))

    def retry(self, task: TaskOrId) -> Task:
        """Brings a failed, cancelled or expired task back, with all its attempts. Raises `ConflictError` in any other
        state."""
        return self._call(_calls.retry(task))

    def explain(self, task: TaskOrId) -> Explanation:
        """Says why a task is where it is: the one thing that it waits for."""
        return self._recorded(_calls.explain(task))

    def _read(self, task: TaskOrId, recorded_within: Optional[float] = None) -> Task:
        return self._recorded(_calls.get(task), recorded_within)

    def _recorded(self, call: _calls.Call[T], within: Optional[float] = None) -> T:
        recording = _calls.Recording(within)
        while True:
            try:
                return self._call(call)
            except errors.UnavailableError as error:
                pause = recording.pause(error)
                if pause is None:
                    raise
            # The server has just answered: there is no need to connect meanwhile.
            time.sleep(pause)

    def _call(self, call: _calls.Call[T]) -> T:
        tries = Tries(self._budget, call.safe)
        while True:
            try:
                method = self._stubs.method(call)
                response = method(call.request, timeout=self._timeout, metadata=self._server.call_metadata())
                return call.read(response)
            except grpc.RpcError as failed:
                error = of_call(failed, self._server.target)
                pause = tries.pause(error)
                if pause is None:
                    raise error from failed
            self._rest(pause)

    def _rest(self, pause: float) -> None:
        """Sleeps. The channel connects meanwhile, which it does only while somebody waits for it."""
        ready = grpc.channel_ready_future(self._channel)
        time.sleep(pause)
        ready.cancel()

    def _pages(self, request: task_pb2.ListTasksRequest) -> Iterator[Task]:
        while True:
            tasks, request.page_token = self._call(_calls.page(request))
            yield from tasks
            if not request.page_token:
                return

    def _follow(self, deadline: _calls.Deadline) -> Task:
        with closing(self._watch(deadline, "")) as updates:
            for update in updates:
                if update.state.is_final and update.task is not None:
                    return update.task
        raise _calls.ended_early()

    def _watch(self, deadline: _calls.Deadline, cursor: str) -> Generator[TaskUpdate, None, None]:
        tries = StreamTries(self._budget)
        told = ""
        while True:
            failed: Optional[grpc.RpcError] = None
            heard = False
            request, metadata = _calls.watch(deadline.id, cursor), self._server.call_metadata()
            tries.opened()
            call = self._stubs.tasks.WatchTask(request, timeout=deadline.left(), metadata=metadata)
            try:
                for response in call:
                    update, heard = TaskUpdate._of(response), True
                    if update.cursor == told:
                        return
                    yield update
                    if update.state.is_final:
                        return
                    cursor = update.cursor
                    tries.begin()
                error = _calls.ended_early()
            except grpc.RpcError as broken:
                failed, error = broken, of_call(broken, self._server.target)
            finally:
                call.cancel()
            if failed is None and not heard and cursor and self.get(deadline.id).is_final:
                # It became final meanwhile, or was so when `cursor` was given out. It is told unless it was then.
                cursor, told = "", cursor
                continue
            deadline.left()
            # Where there is no place to follow it, it may be read.
            pause = None if deadline.may_read and error.code == "overloaded" else tries.pause(error)
            if pause is None:
                raise error from failed
            self._rest(deadline.within(pause))

    def _submit_many(self, tasks: Iterable[NewTask]) -> Iterator[SubmitResult]:
        feed = _Feed(iter(tasks))
        tries = StreamTries(self._budget)
        while True:
            failed: Optional[grpc.RpcError] = None
            stream = feed.open()
            tries.opened()
            call = self._stubs.tasks.SubmitTasks(stream, metadata=self._server.call_metadata())
            try:
                for response in call:
                    result = feed.answered(response)
                    tries.begin()
                    yield result
                error = _calls.ended_early()
            except grpc.RpcError as broken:
                failed, error = broken, of_call(broken, self._server.target)
            except errors.ApiError as unusable:
                error = unusable
            finally:
                feed.close()
                call.cancel()
            if feed.is_done():
                return
            pause = tries.pause(error)
            yield from feed.broken(error, gives_up=pause is None)
            if pause is None:
                feed.check()
                raise error from failed
            if feed.is_done():
                return
            self._rest(pause)


class Queues:
    """The queues of a server: `client.queues`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self) -> Sequence[Queue]:
        """All that were ever used, by name."""
        return self._client._call(_calls.queues())

    def get(self, name: str) -> Queue:
        """One of them. Raises `NotFoundError` where it was never used."""
        return self._client._call(_calls.queue(name))

    def pause(self, name: str) -> Queue:
        """Pauses it: its tasks are accepted and kept, and none is started. What runs goes on. A queue that was never
        used may be paused; to pause one twice changes nothing."""
        return self._client._call(_calls.pause_queue(name))

    def resume(self, name: str) -> Queue:
        """Lets it go on. Raises `NotFoundError` where it was never used."""
        return self._client._call(_calls.resume_queue(name))


class Schedules:
    """The schedules of a server: `client.schedules`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def put(
        self,
        name: str,
        cron: str,
        task: NewTask,
        *,
        time_zone: Optional[str] = None,
        overlap: Optional[str] = None,
        catch_up: Optional[Seconds] = None,
        jitter: Optional[Seconds] = None,
        paused: bool = False,
    ) -> Schedule:
        """Makes a schedule, or replaces the one of that name as a whole; to put the same again changes nothing.

        `cron` has five fields, or six with seconds first, and is of the wall clock in `time_zone` (UTC unless said).
        `overlap` is what happens at a tick while the task of an earlier one is unfinished: `skip` (unless said),
        `queue` or `allow`. `catch_up` is how late a tick may still be fired, `jitter` by how much each is moved at most.
        """
        new = spec(cron, task, time_zone, overlap, catch_up, jitter, paused)
        return self._client._call(_calls.put_schedule(name, new))

    def get(self, name: str, *, upcoming: Optional[int] = None) -> Schedule:
        """Reads one, with its next ticks: `upcoming` of them, five unless said. Raises `NotFoundError` where there is
        none."""
        return self._client._call(_calls.schedule(name, upcoming))

    def list(self, *, page_size: Optional[int] = None) -> Iterator[Schedule]:
        """All of them, by name. Pages of `page_size`, up to 200, are fetched as they are needed."""
        request = schedule_pb2.ListSchedulesRequest(page_size=whole(page_size, "page_size"))
        while True:
            schedules, request.page_token = self._client._call(_calls.schedules(request))
            yield from schedules
            if not request.page_token:
                return

    def pause(self, name: str) -> Schedule:
        """Lets it rest: no tick is fired, and none of that time is made up for."""
        return self._client._call(_calls.pause_schedule(name))

    def resume(self, name: str) -> Schedule:
        """Lets it go on, with the next tick."""
        return self._client._call(_calls.resume_schedule(name))

    def delete(self, name: str) -> None:
        """Deletes it. The tasks that it has submitted stay. Raises `NotFoundError` where there is none."""
        self._client._call(_calls.delete_schedule(name))


class Limits:
    """The limits of a server: `client.limits`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def put(
        self,
        name: str,
        *,
        queue: Optional[str] = None,
        kind: Optional[str] = None,
        by_key: bool = False,
        concurrency: Optional[int] = None,
        rate: Optional[Rate] = None,
    ) -> Limit:
        """Makes a limit, or replaces the one of that name as a whole. It holds for whatever is started a second later.

        It counts the tasks of a `queue` and of a `kind`, or all where neither is said; with `by_key` those that have a
        `limit_key`, each key by itself. So many run at a time as `concurrency` says, and start as `rate` says.
        """
        new = limits.spec(queue, kind, by_key, concurrency, rate)
        return self._client._call(_calls.put_limit(name, new))

    def get(self, name: str) -> Limit:
        """Reads one, and how much it is used. Raises `NotFoundError` where there is none."""
        return self._client._call(_calls.limit(name))

    def list(self, *, page_size: Optional[int] = None) -> Iterator[Limit]:
        """All of them, by name. Pages of `page_size`, up to 200, are fetched as they are needed."""
        request = limit_pb2.ListLimitsRequest(page_size=whole(page_size, "page_size"))
        while True:
            found, request.page_token = self._client._call(_calls.limits(request))
            yield from found
            if not request.page_token:
                return

    def delete(self, name: str) -> None:
        """Deletes it. What it held back goes on. Raises `NotFoundError` where there is none."""
        self._client._call(_calls.delete_limit(name))


class _Feed:
    """Hands submissions to gRPC, which asks for them in a thread of its own; one stream after the other."""

    def __init__(self, tasks: Iterator[NewTask]) -> None:
        self._tasks = tasks
        self._upload = _calls.Upload()
        self._changed = threading.Condition()
        # Whoever asks the iterator for more: it may take its time, and the answers go on meanwhile.
        self._asking = threading.Lock()
        self._stream = 0
        self._fault: Optional[BaseException] = None

    def open(self) -> Iterator[task_pb2.SubmitTaskRequest]:
        with self._changed:
            self._stream += 1
            return self._requests(self._stream)

    def close(self) -> None:
        """No more is handed to the stream."""
        with self._changed:
            self._stream += 1
            self._changed.notify_all()

    def check(self) -> None:
        """Raises what the iterator of tasks has raised, if it has."""
        if self._fault is not None:
            raise self._fault

    def is_done(self) -> bool:
        """Whether all is answered. Raises what the iterator of tasks has raised, if it has, once it is."""
        with self._changed:
            if not self._upload.is_done():
                return False
        self.check()
        return True

    def answered(self, response: task_pb2.SubmitTasksResponse) -> SubmitResult:
        with self._changed:
            self._changed.notify_all()
            return self._upload.answered(response)

    def broken(self, error: errors.ApiError, *, gives_up: bool) -> Sequence[SubmitResult]:
        with self._changed:
            return self._upload.broken(error, gives_up=gives_up)

    def _requests(self, stream: int) -> Iterator[task_pb2.SubmitTaskRequest]:
        while True:
            with self._changed:
                request = self._upload.next() if self._stream == stream else None
            if request is not None:
                yield request
            elif not self._fill(stream):
                return

    def _fill(self, stream: int) -> bool:
        """Takes one more from the iterator; `False` where there is none for this stream."""
        with self._asking:
            with self._changed:
                # A stream before this one may have asked for a task that came too late for it.
                while self._stream == stream and not (self._upload.has_unsent() or self._upload.has_room()):
                    self._changed.wait()
                if self._stream != stream:
                    return False
                if self._upload.has_unsent() or self._upload.exhausted:
                    return self._upload.has_unsent()
            try:
                new = next(self._tasks)
                with self._changed:
                    self._upload.add(new)
            except StopIteration:
                self._upload.exhausted = True
            except BaseException as fault:
                self._fault = fault
                self._upload.exhausted = True
            return True
