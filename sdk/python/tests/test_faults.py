"""What clients do where a server, or the way there, is in trouble."""

import asyncio
import threading
import time

import pytest

import forebay
from forebay import NewTask
from forebay.v1 import task_pb2
from support import Blocking, Proxy, Running, finishes, refuse

QUEUED = task_pb2.TASK_STATE_QUEUED
RUNNING = task_pb2.TASK_STATE_RUNNING
SUCCEEDED = task_pb2.TASK_STATE_SUCCEEDED


def task(state=QUEUED, **fields):
    return task_pb2.Task(id="t", kind="echo", state=state, **fields)


def failing(times, then, *refusal):
    """Refuses so many times, and then answers."""
    left = [times]

    def answer(request, context):
        if left[0]:
            left[0] -= 1
            refuse(context, *refusal)
        return then

    return answer


@pytest.mark.parametrize("code, status", [("overloaded", "UNAVAILABLE"), ("backlog_full", "RESOURCE_EXHAUSTED")])
def test_what_was_surely_not_accepted_is_submitted_again(connect, tasks, code, status):
    tasks.answers["SubmitTask"] = failing(2, task_pb2.SubmitTaskResponse(task=task()), status, code, 0.01)
    assert connect(tasks.url).submit("echo").id == "t"
    assert len(tasks.calls) == 3


def test_what_may_have_been_accepted_is_submitted_again_only_with_a_key(connect, tasks):
    answer = task_pb2.SubmitTaskResponse(task=task())
    tasks.answers["SubmitTask"] = failing(1, answer, "UNAVAILABLE", "broker_unavailable", 0.01)
    client = connect(tasks.url)
    with pytest.raises(forebay.UnavailableError) as caught:
        client.submit("echo")
    assert (caught.value.code, caught.value.retry_after, len(tasks.calls)) == ("broker_unavailable", 0.01, 1)
    tasks.answers["SubmitTask"] = failing(1, answer, "UNAVAILABLE", "broker_unavailable", 0.01)
    assert client.submit("echo", idempotency_key="mine").id == "t"
    assert [call.idempotency_key for call in tasks.calls] == ["", "mine", "mine"]


def test_a_cancellation_is_sent_once(connect, tasks):
    tasks.answers["CancelTask"] = failing(1, None, "UNAVAILABLE", "store_unavailable", 0.01)
    with pytest.raises(forebay.UnavailableError):
        connect(tasks.url).cancel("t")
    assert len(tasks.calls) == 1


def test_a_server_that_hangs_is_given_up(connect, tasks):
    release = threading.Event()
    tasks.answers["GetTask"] = lambda request, context: release.wait(30)
    began = time.monotonic()
    try:
        with pytest.raises(forebay.RequestTimeoutError) as caught:
            connect(tasks.url, timeout=0.1).get("t")
    finally:
        release.set()
    assert caught.value.code == "deadline_exceeded"
    assert 2 <= len(tasks.calls) <= 4 and time.monotonic() - began < 10


def test_a_task_that_is_not_recorded_yet_is_waited_for(connect, tasks):
    answer = task_pb2.GetTaskResponse(task=task())
    tasks.answers["GetTask"] = failing(2, answer, "UNAVAILABLE", "not_yet_recorded", 0.01)
    assert connect(tasks.url).get("t").id == "t"


def test_waiting_for_the_recorder_uses_up_no_retries_and_ends(connect, tasks, monkeypatch):
    answer = task_pb2.GetTaskResponse(task=task())
    client = connect(tasks.url)
    tasks.answers["GetTask"] = failing(20, answer, "UNAVAILABLE", "not_yet_recorded", 0.01)
    monkeypatch.setattr("forebay._calls.RECORDED_PAUSE", 0.01)
    assert client.get("t").id == "t"
    assert len(tasks.calls) == 21
    monkeypatch.setattr("forebay._calls.RECORDED_WITHIN", 0.2)
    tasks.answers["GetTask"] = failing(10_000, answer, "UNAVAILABLE", "not_yet_recorded", 0.01)
    with pytest.raises(forebay.UnavailableError) as caught:
        client.get("t")
    assert caught.value.code == "not_yet_recorded"


def test_where_there_is_no_place_to_follow_a_task_it_is_read(connect, tasks):
    looks = []

    def get(request, context):
        looks.append(request)
        return task_pb2.GetTaskResponse(task=task(SUCCEEDED if len(looks) > 2 else RUNNING, result=b"7"))

    tasks.answers["GetTask"] = get
    tasks.answers["WatchTask"] = lambda request, context: refuse(context, "UNAVAILABLE", "overloaded", 0.01)
    assert connect(tasks.url).wait("t").result == 7
    assert len(looks) == 3


def test_a_watch_goes_on_after_what_it_has_seen(connect, tasks):
    def step(state, cursor, **fields):
        return task_pb2.WatchTaskResponse(state=state, cursor=cursor, **fields)

    def watch(request, context):
        if request.after == "":
            yield step(QUEUED, "1", task=task())
            refuse(context, "UNAVAILABLE", "shutting_down", 0.01)
        elif request.after == "1":
            yield step(RUNNING, "2")
            yield step(RUNNING, "2", progress=task_pb2.TaskProgress(fraction=0.5, message="half"))
            # It ends in good order, as a server does that is about to end.
        else:
            assert request.after == "2"
            yield step(SUCCEEDED, "3", task=task(SUCCEEDED))

    tasks.answers["WatchTask"] = watch
    updates = list(connect(tasks.url).watch("t"))
    assert [update.cursor for update in updates] == ["1", "2", "2", "3"]
    assert [update.progress and update.progress.message for update in updates] == [None, None, "half", None]
    assert [call.after for call in tasks.calls] == ["", "1", "2"]


@pytest.mark.parametrize("final", ["told", "new"])
def test_a_watch_that_is_ended_without_a_word_looks_whether_there_is_more(connect, tasks, final):
    cursor = "9" if final == "told" else "8"

    def watch(request, context):
        if request.after == "":
            yield task_pb2.WatchTaskResponse(state=SUCCEEDED, cursor="9", task=task(SUCCEEDED))

    tasks.answers["WatchTask"] = watch
    tasks.answers["GetTask"] = lambda request, context: task_pb2.GetTaskResponse(task=task(SUCCEEDED))
    updates = list(connect(tasks.url).watch("t", after=cursor))
    assert [update.cursor for update in updates] == ([] if final == "told" else ["9"])


def accept(request, index):
    return task_pb2.SubmitTasksResponse(index=index, accepted=task_pb2.TaskReceipt(id=f"t{request.payload.decode()}"))


@pytest.mark.parametrize("how", ["aborted", "ended"])
def test_a_stream_of_submissions_that_breaks_is_taken_up_again(connect, tasks, how):
    """It ends after ten answers, and where it breaks it has taken ten more."""
    taken = [[], []]

    def first(requests, context):
        for index in range(20 if how == "aborted" else 10):
            request = next(requests)
            taken[0].append(request)
            if index < 10:
                yield accept(request, index)
        if how == "aborted":
            refuse(context, "UNAVAILABLE", "broker_unavailable", 0.01)

    def second(requests, context):
        for index, request in enumerate(requests):
            taken[1].append(request)
            yield accept(request, index)

    streams = [first, second]
    tasks.answers["SubmitTasks"] = lambda requests, context: streams.pop(0)(requests, context)
    new = [NewTask("echo", n, idempotency_key=f"k{n}" if n % 2 else None) for n in range(50)]
    results = list(connect(tasks.url).submit_many(new))
    assert sorted(result.index for result in results) == list(range(50))
    unknown = [result.index for result in results if result.error]
    again = [int(request.payload) for request in taken[1]]
    # In good order means that all it took was answered. Where grpc.aio has just tried to send, it does not tell how it was.
    if how == "ended" and not unknown:
        assert again == list(range(10, 50))
    else:
        assert how == "ended" or set(range(10, 20, 2)) <= set(unknown)
        assert not any(index % 2 for index in unknown)
        assert [n for n in again if n % 2] == list(range(11, 50, 2))
        assert not set(again) & set(unknown), "one may be there twice"
    assert all(result.id == f"t{result.index}" for result in results if not result.error)


def test_a_full_window_of_submissions_is_told_as_unknown_and_the_rest_goes_on(connect, tasks):
    """The stream breaks with all that may be under way unanswered, and none of it has a key."""

    def first(requests, context):
        for _ in range(1_000):
            next(requests)
        refuse(context, "UNAVAILABLE", "broker_unavailable", 0.01)

    def second(requests, context):
        for index, request in enumerate(requests):
            yield accept(request, index)

    streams = [first, second]
    tasks.answers["SubmitTasks"] = lambda requests, context: streams.pop(0)(requests, context) or ()
    client = connect(tasks.url)
    results = finishes(lambda: list(client.submit_many([NewTask("echo", n) for n in range(2_300)])))
    assert [result.index for result in results] == list(range(2_300))
    assert all(isinstance(result.error, forebay.UnavailableError) for result in results[:1_000])
    assert [result.id for result in results[1_000:]] == [f"t{n}" for n in range(1_000, 2_300)]


def test_what_comes_while_there_is_no_stream_goes_to_the_next(connect, tasks):
    """The input is slow: it brings more after the stream is broken, and before there is another."""
    broken = threading.Event()

    def first(requests, context):
        yield accept(next(requests), 0)
        broken.set()
        refuse(context, "UNAVAILABLE", "broker_unavailable", 0.6)

    def second(requests, context):
        for index, request in enumerate(requests):
            yield accept(request, index)

    def slow():
        yield NewTask("echo", 0)
        assert broken.wait(30)
        for n in range(1, 12):
            time.sleep(0.1)
            yield NewTask("echo", n)

    async def slow_async():
        yield NewTask("echo", 0)
        assert await asyncio.to_thread(broken.wait, 30)
        for n in range(1, 12):
            await asyncio.sleep(0.1)
            yield NewTask("echo", n)

    streams = [first, second]
    tasks.answers["SubmitTasks"] = lambda requests, context: streams.pop(0)(requests, context)
    client = connect(tasks.url)
    new = slow_async() if isinstance(client, Blocking) else slow()
    results = finishes(lambda: list(client.submit_many(new)))
    assert [(result.index, result.id, result.error) for result in results] == [(n, f"t{n}", None) for n in range(12)]


@pytest.mark.parametrize("status", ["UNKNOWN", "CANCELLED", "UNAVAILABLE"])
def test_what_was_taken_is_told_before_a_stream_is_given_up(connect, tasks, monkeypatch, status):
    monkeypatch.setattr("forebay._retry.STREAM_WITHIN", 0.0)

    def answer(requests, context):
        taken = list(requests)
        yield accept(taken[0], 0)
        refuse(context, status, "odd", 0.01)

    tasks.answers["SubmitTasks"] = answer
    new = [NewTask("echo", n, idempotency_key=f"k{n}" if n % 2 else None) for n in range(4)]
    results = []
    with pytest.raises(forebay.ApiError) as caught:
        for result in connect(tasks.url).submit_many(new):
            results.append(result)
    assert [(result.index, result.id) for result in results] == [(0, "t0"), (1, None), (2, None), (3, None)]
    assert all(result.error is caught.value for result in results[1:])


def test_an_answer_to_another_submission_is_an_error_and_never_taken_for_the_next(connect, tasks):
    def answer(requests, context):
        for index, request in enumerate(requests):
            yield accept(request, index if index < 1 else index + 1)

    tasks.answers["SubmitTasks"] = answer
    results = []
    with pytest.raises(forebay.ApiError, match="number 2 of the stream before number 1"):
        for result in connect(tasks.url).submit_many([NewTask("echo", n) for n in range(3)]):
            results.append(result)
    assert results[0].id == "t0"
    assert results[1:] and all(result.id is None and result.error for result in results[1:])


def test_another_server_takes_what_one_that_ends_did_not(connect, tasks):
    def first(requests, context):
        for index, request in enumerate(requests):
            if index < 2:
                yield accept(request, index)
            else:
                problem = task_pb2.Problem(code="shutting_down", detail="it ends")
                yield task_pb2.SubmitTasksResponse(index=index, problem=problem)

    def second(requests, context):
        for index, request in enumerate(requests):
            yield accept(request, index)

    streams = [first, second]
    tasks.answers["SubmitTasks"] = lambda requests, context: streams.pop(0)(requests, context)
    new = [NewTask("echo", n, idempotency_key=f"k{n}" if n % 2 else None) for n in range(20)]
    results = list(connect(tasks.url).submit_many(new))
    assert [(result.index, result.id, result.error) for result in results] == [(n, f"t{n}", None) for n in range(20)]


def test_a_stream_of_submissions_is_given_up_in_the_end(connect, tasks, monkeypatch):
    monkeypatch.setattr("forebay._retry.STREAM_WITHIN", 0.5)
    tasks.answers["SubmitTasks"] = lambda requests, context: refuse(context, "UNAVAILABLE", "overloaded", 0.01)
    # The second is what grpc.aio calls it where it has just tried to send.
    with pytest.raises(forebay.UnavailableError, match="overloaded|Internal error from Core"):
        list(connect(tasks.url).submit_many([NewTask("echo", idempotency_key="mine")]))


def test_no_more_is_taken_from_the_caller_than_can_be_answered(connect, tasks):
    taken, asked = [], []
    release = threading.Event()

    def answer(requests, context):
        for index, request in enumerate(requests):
            taken.append(request)
            release.wait(30)
            yield accept(request, index)

    def new():
        for n in range(5_000):
            asked.append(n)
            if n == 2_500:
                raise AssertionError("it has asked for far too many")
            yield NewTask("echo", n)

    tasks.answers["SubmitTasks"] = answer
    results = connect(tasks.url).submit_many(new())
    timer = threading.Timer(0.5, release.set)
    timer.start()
    assert next(results).id == "t0"
    assert len(asked) <= 1_100
    results.close()


def test_a_worker_notices_a_connection_that_has_fallen_silent(scripted, monkeypatch):
    from forebay import _channel

    options = dict(_channel._OPTIONS)
    for name in ("grpc.keepalive_time_ms", "grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms"):
        options[name] = options[name] // 20
    monkeypatch.setattr(_channel, "_OPTIONS", list(options.items()))
    told = []
    with Proxy(scripted.port) as proxy:
        worker = forebay.Worker(proxy.url)

        @worker.task("wait")
        def wait(payload, context):
            try:
                context.log("here")
                context.sleep(60)
            finally:
                told.append(context.cancel_reason)

        with Running(worker):
            call, _ = scripted.welcomed(heartbeat=60)
            call.start("a", "wait")
            call.next("log_lines")
            proxy.fall_silent()
            again, _ = scripted.welcomed()
            again.start("b", "wait")
            again.next("log_lines")
            assert told == ["lost"]
