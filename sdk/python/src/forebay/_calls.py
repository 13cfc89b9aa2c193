"""The calls that both clients make: what is asked, how the answer is read, and what may be asked twice. No I/O."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Callable, Generic, Optional, TypeVar, Union

from . import errors
from ._convert import Seconds, of_type, put_timestamp, text, to_seconds, whole
from ._failure import STREAM_ENDED, of_problem
from ._retry import is_surely_not_accepted, may_help
from .explain import Explanation
from .limits import Limit
from .queues import Queue
from .schedules import Schedule
from .task import NewTask, SubmitResult, Task, TaskOrId, TaskState, id_of
from .v1 import (
    limit_pb2,
    limit_pb2_grpc,
    queue_pb2,
    queue_pb2_grpc,
    schedule_pb2,
    schedule_pb2_grpc,
    task_pb2,
    task_pb2_grpc,
)

T = TypeVar("T")

UNANSWERED_MAX = 1_000
"""So many submissions of a stream are under way; then no more are taken until some are answered."""
REQUEST_BYTES_MAX = 4 * 1024 * 1024
"""A server ends the stream on which a larger one comes, with all that is on it."""


@dataclass(frozen=True)
class Call(Generic[T]):
    """A call that is answered once."""

    method: str
    request: Any
    read: Callable[[Any], T]
    safe: Callable[[errors.ApiError], bool]
    service: str = "tasks"


class Stubs:
    """The services on a channel."""

    def __init__(self, channel: Any) -> None:
        self.tasks: Any = task_pb2_grpc.TaskServiceStub(channel)
        self.queues: Any = queue_pb2_grpc.QueueServiceStub(channel)
        self.schedules: Any = schedule_pb2_grpc.ScheduleServiceStub(channel)
        self.limits: Any = limit_pb2_grpc.LimitServiceStub(channel)

    def method(self, call: Call[Any]) -> Any:
        """What makes a call."""
        return getattr(getattr(self, call.service), call.method)


def _never(_: errors.ApiError) -> bool:
    return False


def _task(response: Any) -> Task:
    return Task._of(response.task)


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


def explain(task: TaskOrId) -> Call[Explanation]:
    def read(response: task_pb2.ExplainTaskResponse) -> Explanation:
        return Explanation._of(response.explanation)

    return Call("ExplainTask", task_pb2.ExplainTaskRequest(id=id_of(task)), read, _is_read_again)


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
        queue=text(queue, "queue"),
        kind=text(kind, "kind"),
        tag=text(tag, "tag"),
        page_size=whole(page_size, "page_size"),
    )
    if state is not None:
        request.state = TaskState(state)._number()
    put_timestamp(request, "created_after", created_after)
    put_timestamp(request, "created_before", created_before)
    return request


def _queue(response: Any) -> Queue:
    return Queue._of(response.queue)


def queues() -> Call[list[Queue]]:
    def read(response: queue_pb2.ListQueuesResponse) -> list[Queue]:
        return [Queue._of(queue) for queue in response.queues]

    return Call("ListQueues", queue_pb2.ListQueuesRequest(), read, may_help, "queues")


def queue(name: str) -> Call[Queue]:
    return Call("GetQueue", queue_pb2.GetQueueRequest(name=name), _queue, may_help, "queues")


# What is done twice here is as if it had been done once.
def pause_queue(name: str) -> Call[Queue]:
    return Call("PauseQueue", queue_pb2.PauseQueueRequest(name=name), _queue, may_help, "queues")


def resume_queue(name: str) -> Call[Queue]:
    return Call("ResumeQueue", queue_pb2.ResumeQueueRequest(name=name), _queue, may_help, "queues")


def _schedule(response: Any) -> Schedule:
    return Schedule._of(response.schedule)


def put_schedule(name: str, spec: schedule_pb2.ScheduleSpec) -> Call[Schedule]:
    request = schedule_pb2.PutScheduleRequest(name=name, spec=spec)
    return Call("PutSchedule", request, _schedule, may_help, "schedules")


def schedule(name: str, upcoming: Optional[int] = None) -> Call[Schedule]:
    request = schedule_pb2.GetScheduleRequest(name=name, upcoming=whole(upcoming, "upcoming"))
    return Call("GetSchedule", request, _schedule, may_help, "schedules")


def pause_schedule(name: str) -> Call[Schedule]:
    return Call("PauseSchedule", schedule_pb2.PauseScheduleRequest(name=name), _schedule, may_help, "schedules")


def resume_schedule(name: str) -> Call[Schedule]:
    return Call("ResumeSchedule", schedule_pb2.ResumeScheduleRequest(name=name), _schedule, may_help, "schedules")


def schedules(request: schedule_pb2.ListSchedulesRequest) -> Call[tuple[list[Schedule], str]]:
    def read(response: schedule_pb2.ListSchedulesResponse) -> tuple[list[Schedule], str]:
        return [Schedule._of(schedule) for schedule in response.schedules], response.next_page_token

    return Call("ListSchedules", request, read, may_help, "schedules")


def delete_schedule(name: str) -> Call[None]:
    # The second time it is not there, which would be told as an error.
    request = schedule_pb2.DeleteScheduleRequest(name=name)
    return Call("DeleteSchedule", request, lambda _: None, is_surely_not_accepted, "schedules")


def _limit(response: Any) -> Limit:
    return Limit._of(response.limit)


def put_limit(name: str, spec: limit_pb2.LimitSpec) -> Call[Limit]:
    return Call("PutLimit", limit_pb2.PutLimitRequest(name=name, spec=spec), _limit, may_help, "limits")


def limit(name: str) -> Call[Limit]:
    return Call("GetLimit", limit_pb2.GetLimitRequest(name=name), _limit, may_help, "limits")


def limits(request: limit_pb2.ListLimitsRequest) -> Call[tuple[list[Limit], str]]:
    def read(response: limit_pb2.ListLimitsResponse) -> tuple[list[Limit], str]:
        return [Limit._of(limit) for limit in response.limits], response.next_page_token

    return Call("ListLimits", request, read, may_help, "limits")


def delete_limit(name: str) -> Call[None]:
    # As for a schedule.
    request = limit_pb2.DeleteLimitRequest(name=name)
    return Call("DeleteLimit", request, lambda _: None, is_surely_not_accepted, "limits")


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
        request = of_type(new, NewTask, "what submit_many takes")._request()
        size = request.ByteSize()
        if size > REQUEST_BYTES_MAX:
            raise ValueError(f"task {self._count} has {size} bytes, of which {REQUEST_BYTES_MAX} can be sent")
        self._unanswered.append(_Sent(self._count, request))
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
