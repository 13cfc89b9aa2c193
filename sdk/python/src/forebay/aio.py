"""The client for programs with an event loop. The twin of `client`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
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


class AsyncClient:
    """Submits tasks, and tells what became of them, without holding up the event loop.

    Belongs to the event loop that it is first used in; all tasks of that loop may share it. Otherwise it is as `Client`.

        async with AsyncClient("http://127.0.0.1:50051") as client:
            task = await client.submit("resize", {"path": "a.png"})
            task = await client.wait(task, timeout=30)
    """

    queues: AsyncQueues
    """The server's queues."""
    schedules: AsyncSchedules
    """The server's schedules."""
    limits: AsyncLimits
    """The server's limits."""

    def __init__(
        self,
        url: Optional[str] = None,
        *,
        timeout: float = 30.0,
        credentials: Optional[grpc.ChannelCredentials] = None,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> None:
        """A client of the server at `url`; see `Client`."""
        self._server = Server.of(url, credentials, metadata)
        self._timeout = timeout
        self._budget = Budget()
        self._channel: Optional[grpc.aio.Channel] = None
        self._stubs: Optional[_calls.Stubs] = None
        self.queues = AsyncQueues(self)
        self.schedules = AsyncSchedules(self)
        self.limits = AsyncLimits(self)

    async def close(self) -> None:
        """Ends the connection, and what is under way on it."""
        if self._channel is not None:
            await self._channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        await self.close()

    async def submit(
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
        """Submits a task; see `Client.submit`."""
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
        return await self._call(_calls.submit(new))

    def submit_many(self, tasks: Union[Iterable[NewTask], AsyncIterable[NewTask]]) -> AsyncIterator[SubmitResult]:
        """Submits tasks as one stream; see `Client.submit_many`."""
        return self._submit_many(tasks)

    async def get(self, task: TaskOrId) -> Task:
        """Reads a task; see `Client.get`."""
        return await self._read(task)

    async def wait(self, task: TaskOrId, timeout: Optional[Seconds] = None) -> Task:
        """Waits until a task is final, and returns it as it is then; see `Client.wait`."""
        deadline = _calls.Deadline(task, timeout, may_read=True)
        while True:
            try:
                reads = deadline.only_reads
                found = await (self._read(deadline.id, deadline.left()) if reads else self._follow(deadline))
                if found.is_final:
                    return found
            except errors.ApiError as error:
                deadline.failed(error)
            await asyncio.sleep(deadline.pause())

    def watch(self, task: TaskOrId, *, after: str = "") -> AsyncIterator[TaskUpdate]:
        """Tells where a task stands, then each change; see `Client.watch`."""
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
    ) -> AsyncIterator[Task]:
        """All tasks that fit, newest first; see `Client.list`."""
        request = _calls.filtered(state, queue, kind, tag, created_after, created_before, page_size)
        return self._pages(request)

    async def cancel(self, task: TaskOrId) -> Task:
        """Cancels a task; see `Client.cancel`."""
        return await self._call(_calls.cancel(task))

    async def retry(self, task: TaskOrId) -> Task:
        """Brings a failed, cancelled or expired task back; see `Client.retry`."""
        return await self._call(_calls.retry(task))

    async def explain(self, task: TaskOrId) -> Explanation:
        """Says why a task is where it is; see `Client.explain`."""
        return await self._recorded(_calls.explain(task))

    def _open(self) -> _calls.Stubs:
        # Not before there is an event loop that it can belong to.
        if self._stubs is None:
            self._channel = self._server.connect_aio()
            self._stubs = _calls.Stubs(self._channel)
        return self._stubs

    async def _read(self, task: TaskOrId, recorded_within: Optional[float] = None) -> Task:
        return await self._recorded(_calls.get(task), recorded_within)

    async def _recorded(self, call: _calls.Call[T], within: Optional[float] = None) -> T:
        recording = _calls.Recording(within)
        while True:
            try:
                return await self._call(call)
            except errors.UnavailableError as error:
                pause = recording.pause(error)
                if pause is None:
                    raise
            await asyncio.sleep(pause)

    async def _call(self, call: _calls.Call[T]) -> T:
        tries = Tries(self._budget, call.safe)
        while True:
            try:
                method = self._open().method(call)
                response = await method(call.request, timeout=self._timeout, metadata=self._server.call_metadata())
                return call.read(response)
            except grpc.RpcError as failed:
                error = of_call(failed, self._server.target)
                pause = tries.pause(error)
                if pause is None:
                    raise error from failed
            await asyncio.sleep(pause)

    async def _pages(self, request: task_pb2.ListTasksRequest) -> AsyncGenerator[Task, None]:
        while True:
            tasks, request.page_token = await self._call(_calls.page(request))
            for task in tasks:
                yield task
            if not request.page_token:
                return

    async def _follow(self, deadline: _calls.Deadline) -> Task:
        updates = self._watch(deadline, "")
        try:
            async for update in updates:
                if update.state.is_final and update.task is not None:
                    return update.task
        finally:
            await updates.aclose()
        raise _calls.ended_early()

    async def _watch(self, deadline: _calls.Deadline, cursor: str) -> AsyncGenerator[TaskUpdate, None]:
        tries = StreamTries(self._budget)
        told = ""
        while True:
            failed: Optional[grpc.RpcError] = None
            heard = False
            request, metadata = _calls.watch(deadline.id, cursor), self._server.call_metadata()
            tries.opened()
            call = self._open().tasks.WatchTask(request, timeout=deadline.left(), metadata=metadata)
            try:
                async for response in call:
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
            if failed is None and not heard and cursor and (await self.get(deadline.id)).is_final:
                # It became final meanwhile, or was so when `cursor` was given out. It is told unless it was then.
                cursor, told = "", cursor
                continue
            deadline.left()
            # Where there is no place to follow it, it may be read.
            pause = None if deadline.may_read and error.code == "overloaded" else tries.pause(error)
            if pause is None:
                raise error from failed
            await asyncio.sleep(deadline.within(pause))

    async def _submit_many(
        self, tasks: Union[Iterable[NewTask], AsyncIterable[NewTask]]
    ) -> AsyncGenerator[SubmitResult, None]:
        feed = _Feed(tasks)
        tries = StreamTries(self._budget)
        try:
            while True:
                failed: Optional[grpc.RpcError] = None
                tries.opened()
                call = self._open().tasks.SubmitTasks(feed.requests(), metadata=self._server.call_metadata())
                try:
                    async for response in call:
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
                if pause is None:
                    await feed.end()
                for result in feed.broken(error, gives_up=pause is None):
                    yield result
                if pause is None:
                    feed.check()
                    raise error from failed
                if feed.is_done():
                    return
                await asyncio.sleep(pause)
        finally:
            await feed.end()


class AsyncQueues:
    """The queues of a server; see `Queues`."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def list(self) -> Sequence[Queue]:
        """All that were ever used, by name."""
        return await self._client._call(_calls.queues())

    async def get(self, name: str) -> Queue:
        """One of them. Raises `NotFoundError` where it was never used."""
        return await self._client._call(_calls.queue(name))

    async def pause(self, name: str) -> Queue:
        """Pauses it; see `Queues.pause`."""
        return await self._client._call(_calls.pause_queue(name))

    async def resume(self, name: str) -> Queue:
        """Lets it go on. Raises `NotFoundError` where it was never used."""
        return await self._client._call(_calls.resume_queue(name))


class AsyncSchedules:
    """The schedules of a server; see `Schedules`."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def put(
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
        """Makes a schedule, or replaces the one of that name as a whole; see `Schedules.put`."""
        new = spec(cron, task, time_zone, overlap, catch_up, jitter, paused)
        return await self._client._call(_calls.put_schedule(name, new))

    async def get(self, name: str, *, upcoming: Optional[int] = None) -> Schedule:
        """Reads one, with its next ticks; see `Schedules.get`."""
        return await self._client._call(_calls.schedule(name, upcoming))

    async def list(self, *, page_size: Optional[int] = None) -> AsyncIterator[Schedule]:
        """All of them, by name. Pages of `page_size`, up to 200, are fetched as they are needed."""
        request = schedule_pb2.ListSchedulesRequest(page_size=whole(page_size, "page_size"))
        while True:
            schedules, request.page_token = await self._client._call(_calls.schedules(request))
            for schedule in schedules:
                yield schedule
            if not request.page_token:
                return

    async def pause(self, name: str) -> Schedule:
        """Lets it rest: no tick is fired, and none of that time is made up for."""
        return await self._client._call(_calls.pause_schedule(name))

    async def resume(self, name: str) -> Schedule:
        """Lets it go on, with the next tick."""
        return await self._client._call(_calls.resume_schedule(name))

    async def delete(self, name: str) -> None:
        """Deletes it. The tasks that it has submitted stay. Raises `NotFoundError` where there is none."""
        await self._client._call(_calls.delete_schedule(name))


class AsyncLimits:
    """The limits of a server; see `Limits`."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def put(
        self,
        name: str,
        *,
        queue: Optional[str] = None,
        kind: Optional[str] = None,
        by_key: bool = False,
        concurrency: Optional[int] = None,
        rate: Optional[Rate] = None,
    ) -> Limit:
        """Makes a limit, or replaces the one of that name as a whole; see `Limits.put`."""
        new = limits.spec(queue, kind, by_key, concurrency, rate)
        return await self._client._call(_calls.put_limit(name, new))

    async def get(self, name: str) -> Limit:
        """Reads one, and how much it is used. Raises `NotFoundError` where there is none."""
        return await self._client._call(_calls.limit(name))

    async def list(self, *, page_size: Optional[int] = None) -> AsyncIterator[Limit]:
        """All of them, by name. Pages of `page_size`, up to 200, are fetched as they are needed."""
        request = limit_pb2.ListLimitsRequest(page_size=whole(page_size, "page_size"))
        while True:
            found, request.page_token = await self._client._call(_calls.limits(request))
            for limit in found:
                yield limit
            if not request.page_token:
                return

    async def delete(self, name: str) -> None:
        """Deletes it. What it held back goes on. Raises `NotFoundError` where there is none."""
        await self._client._call(_calls.delete_limit(name))


class _Feed:
    """Hands submissions to gRPC. They are asked for in a task of their own, which outlives a stream that breaks."""

    def __init__(self, tasks: Union[Iterable[NewTask], AsyncIterable[NewTask]]) -> None:
        self._upload = _calls.Upload()
        self._changed = asyncio.Event()
        self._stream = 0
        self._asking = asyncio.ensure_future(self._ask(tasks))

    def close(self) -> None:
        """No more is handed to the stream. gRPC goes on asking for it, even where the call is over."""
        self._stream += 1
        self._changed.set()

    async def end(self) -> None:
        """No more is asked for."""
        self.close()
        self._asking.cancel()
        await asyncio.gather(self._asking, return_exceptions=True)

    def check(self) -> None:
        """Raises what the iterator of tasks has raised, if it has."""
        if self._asking.done() and not self._asking.cancelled():
            self._asking.result()

    def is_done(self) -> bool:
        """Whether all is answered. Raises what the iterator of tasks has raised, if it has, once it is."""
        if not self._upload.is_done():
            return False
        self.check()
        return True

    def answered(self, response: task_pb2.SubmitTasksResponse) -> SubmitResult:
        self._changed.set()
        return self._upload.answered(response)

    def broken(self, error: errors.ApiError, *, gives_up: bool) -> Sequence[SubmitResult]:
        # There is room again.
        self._changed.set()
        return self._upload.broken(error, gives_up=gives_up)

    def requests(self) -> AsyncIterator[task_pb2.SubmitTaskRequest]:
        self._stream += 1
        return self._requests(self._stream)

    async def _requests(self, stream: int) -> AsyncGenerator[task_pb2.SubmitTaskRequest, None]:
        while self._stream == stream:
            request = self._upload.next()
            if request is not None:
                yield request
            elif self._upload.exhausted:
                return
            else:
                await self._change()

    async def _ask(self, tasks: Union[Iterable[NewTask], AsyncIterable[NewTask]]) -> None:
        try:
            async for new in _each(tasks):
                while not self._upload.has_room():
                    await self._change()
                self._upload.add(new)
                self._changed.set()
        finally:
            self._upload.exhausted = True
            self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


async def _each(tasks: Union[Iterable[NewTask], AsyncIterable[NewTask]]) -> AsyncGenerator[NewTask, None]:
    if isinstance(tasks, AsyncIterable):
        async for task in tasks:
            yield task
    else:
        for task in tasks:
            yield task
