"""The calls that both clients make: what is asked, how the answer is read, and what may be asked twice. No I/O."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Callable, Generic, Optional, TypeVar, Union

from . import errors
from ._convert import Seconds, to_seconds, to_timestamp
from ._failure import STREAM_ENDED, of_problem
from ._retry import is_surely_not_accepted, may_help
from .task import NewTask, SubmitResult, Task, TaskState
from .v1 import task_pb2

T = TypeVar("T")

TaskOrId = Union[Task, str]
"""A task, or its id."""

UNANSWERED_MAX = 1_000
"""So many submissions of a stream are under way; then no more are taken until some are answered."""


@dataclass(frozen=True)
class Call(Generic[T]):
    """A call of TaskService."""

    method: str
    request: Any
    read: Callable[[Any], T]
    safe: Callable[[errors.ApiError], bool]


def _never(_: errors.ApiError) -> bool:
    return False


def _task(response: Any) -> Task:
    return Task._of(response.task)


def id_of(task: TaskOrId) -> str:
    return task.id if isinstance(task, Task) else task


def submit(new: NewTask) -> Call[Task]:
    safe = may_help if new.idempotency_key else is_surely_not_accepted
    return Call("SubmitTask", new._request(), _task, safe)


def get(task: TaskOrId) -> Call[Task]:
    return Call("GetTask", task_pb2.GetTaskRequest(id=id_of(task)), _task, _is_read_again)


def _is_read_again(error: errors.ApiError) -> bool:
    # What is not recorded yet is looked for by whoever asked: see `Recording`.
    return may_help(error) and error.code != NOT_YET_RECORDED


def cancel(task: TaskOrId) -> Call[Task]:
    return Call("CancelTask", task_pb2.CancelTaskRequest(id=id_of(task)), _task, _never)


def retry(task: TaskOrId) -> Call[Task]:
    return Call("RetryTask", task_pb2.RetryTaskRequest(id=id_of(task)), _task, _never)


def page(request: task_pb2.ListTasksRequest) -> Call[tuple[list[Task], str]]:
    def read(response: Any) -> tuple[list[Task], str]:
        return [Task._of(task) for task in response.tasks], response.next_page_token

    return Call("ListTasks", request, read, may_help)


def filtered(
    state: Union[TaskState, str, None],
    queue: Optional[str],
    kind: Optional[str],
    tag: Optional[str],
    created_after: Optional[datetime],
    created_before: Optional[datetime],
    page_size: Optional[int],
) -> task_pb2.ListTasksRequest:
    request = task_pb2.ListTasksRequest(
        queue=queue or "", kind=kind or "", tag=tag or "", page_size=0 if page_size is None else page_size
    )
    if state is not None:
        request.state = TaskState(state)._number()
    if created_after is not None:
        request.created_after.CopyFrom(to_timestamp(created_after, "created_after"))
    if created_before is not None:
        request.created_before.CopyFrom(to_timestamp(created_before, "created_before"))
    return request


def watch(id: str, cursor: str) -> task_pb2.WatchTaskRequest:
    return task_pb2.WatchTaskRequest(id=id, after=cursor)


NOT_YET_RECORDED = "not_yet_recorded"
RECORDED_WITHIN = 10.0
"""A task that was accepted is read again for so many seconds, while the server says that it is not recorded yet,"""
RECORDED_PAUSE = 0.1
"""so many seconds after each answer. The server waits, too, before it says so."""


class Recording:
    """For how long a task is waited for that is accepted and not recorded yet. That is no failure of the server: it
    uses up no retries."""

    def __init__(self, within: Optional[float] = None) -> None:
        self._end = time.monotonic() + (RECORDED_WITHIN if within is None else min(within, RECORDED_WITHIN))

    def pause(self, error: errors.ApiError) -> Optional[float]:
        """After how many seconds to read it again; `None` where the error stands."""
        left = self._end - time.monotonic()
        return min(RECORDED_PAUSE, left) if error.code == NOT_YET_RECORDED and left > 0 else None


LOOK_FIRST = 0.1
LOOK_MAX = 2.0
"""Who can't be told of a change looks again after this many seconds, at first and at most."""


class Deadline:
    """Until when a task is waited for."""

    def __init__(self, task: TaskOrId, timeout: Optional[Seconds], *, may_read: bool = False) -> None:
        self.id = id_of(task)
        self.may_read = may_read
        self._timeout = None if timeout is None else to_seconds(timeout)
        self._end = None if self._timeout is None else time.monotonic() + self._timeout
        self._look = LOOK_FIRST
        self.only_reads = False

    def left(self) -> Optional[float]:
        """How many seconds are left; `None` where there is no end. Raises WaitTimeoutError where there are none."""
        if self._end is None or self._timeout is None:
            return None
        left = self._end - time.monotonic()
        if left <= 0:
            raise errors.WaitTimeoutError(self.id, self._timeout)
        return left

    def within(self, pause: float) -> float:
        """A pause, or as much of it as is left."""
        left = self.left()
        return pause if left is None else min(pause, left)

    def failed(self, error: errors.ApiError) -> None:
        """Following or reading it has failed. Raises the error where trying on is no use."""
        if error.code == "overloaded":
            # There is no place to follow tasks, but perhaps one to read them.
            self.only_reads = True
        elif self._end is None or not may_help(error):
            raise error

    def pause(self) -> float:
        """After how many seconds to look again."""
        pause, self._look = self._look, min(2 * self._look, LOOK_MAX)
        return self.within(pause)


def ended_early() -> errors.ApiError:
    return errors.UnavailableError("the server ended the stream before its end", code=STREAM_ENDED)


def _out_of_order(index: int, expected: int) -> errors.ApiError:
    detail = f"the server answered number {index} of the stream before number {expected}"
    return errors.ApiError(detail, code="internal")


@dataclass
class _Sent:
    index: int
    request: task_pb2.SubmitTaskRequest


class Upload:
    """The submissions of one `submit_many` that are not answered yet. Where its stream breaks, those with a key are
    sent again on the next; of the others nobody knows. Whoever shares it between threads locks it."""

    # Of `_unanswered`, the first `_sent` were handed to the stream, which has answered `_answered` others.

    def __init__(self) -> None:
        self._unanswered: deque[_Sent] = deque()
        self._sent = 0
        self._answered = 0
        self._count = 0
        self.exhausted = False

    def add(self, new: NewTask) -> None:
        """Takes a submission, which is the next to be sent, after others that wait."""
        if not isinstance(new, NewTask):
            raise TypeError(f"submit_many takes NewTask, and not {type(new).__name__}")
        self._unanswered.append(_Sent(self._count, new._request()))
        self._count += 1

    def has_room(self) -> bool:
        return len(self._unanswered) < UNANSWERED_MAX

    def is_done(self) -> bool:
        return self.exhausted and not self._unanswered

    def has_unsent(self) -> bool:
        return self._sent < len(self._unanswered)

    def next(self) -> Optional[task_pb2.SubmitTaskRequest]:
        """What to send next; `None` where all was sent that there is."""
        if not self.has_unsent():
            return None
        self._sent += 1
        return self._unanswered[self._sent - 1].request

    def answered(self, response: task_pb2.SubmitTasksResponse) -> SubmitResult:
        """Answers come in the order of the requests. Raises an error where the stream is of no more use."""
        if response.index != self._answered or self._sent == 0:
            raise _out_of_order(response.index, self._answered)
        problem = of_problem(response.problem) if response.WhichOneof("result") == "problem" else None
        if problem is not None and problem.code == "shutting_down":
            # It stands for this one and all after it: another server takes them.
            raise problem
        sent = self._unanswered.popleft()
        self._sent -= 1
        self._answered += 1
        if problem is not None:
            return SubmitResult(sent.index, None, None, problem)
        receipt = response.accepted
        return SubmitResult(sent.index, receipt.id, TaskState._of(receipt.state), None)

    def broken(self, error: errors.ApiError, *, gives_up: bool = False) -> list[SubmitResult]:
        """The stream is over. Those that were sent without a key stay unknown; the rest is to be sent again, unless
        there will be no other stream: then all that were taken are told of."""
        sent = [self._unanswered.popleft() for _ in range(len(self._unanswered) if gives_up else self._sent)]
        self._sent = self._answered = 0
        again = [] if gives_up else sent
        keep = [one for one in again if one.request.idempotency_key or is_surely_not_accepted(error)]
        self._unanswered.extendleft(reversed(keep))
        kept = {one.index for one in keep}
        return [SubmitResult(one.index, None, None, error) for one in sent if one.index not in kept]
