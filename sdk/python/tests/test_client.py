"""Both clients, against the real server."""

import threading
import uuid
from datetime import datetime, timedelta, timezone

import pytest

import forebay
from forebay import NewTask, TaskState
from support import eventually


@pytest.fixture
def client(connect, server):
    return connect(server.url)


def test_a_task_is_submitted_waited_for_and_read(client):
    task = client.submit("echo", {"hello": ["wörld", None, 1.5]}, tags=["a", "b"], priority="high")
    assert (task.kind, task.queue, task.priority, task.tags) == ("echo", "default", "high", ("a", "b"))
    assert task.payload == {"hello": ["wörld", None, 1.5]}
    ended = client.wait(task, timeout=30)
    assert ended.state == TaskState.SUCCEEDED == "succeeded"
    assert ended.is_final and ended.result == task.payload
    assert ended.created_at.tzinfo is not None
    assert ended.created_at <= ended.started_at <= ended.finished_at
    assert (ended.error, ended.errors, ended.attempt) == (None, (), 1)
    assert client.get(ended.id) == ended


def test_what_is_said_of_a_task_is_kept(client, queue):
    at = datetime(2031, 1, 1, tzinfo=timezone(timedelta(hours=2))) - timedelta(microseconds=1)
    at = min(at, datetime.now(timezone.utc) + timedelta(days=300))
    task = client.submit("later", queue=queue, run_at=at, max_attempts=2, timeout=timedelta(seconds=1.5), project="mine")
    assert (task.state, task.run_at, task.max_attempts, task.timeout) == (TaskState.SCHEDULED, at, 2, 1.5)
    assert (task.queue, task.project, task.payload) == (queue, "mine", None)
    soon = client.submit("later", queue=queue, delay=60)
    assert 50 < (soon.run_at - soon.created_at).total_seconds() < 70


def test_a_failure_is_told(client):
    task = client.submit("fail", {"message": "no luck"}, max_attempts=1)
    ended = client.wait(task.id, timeout=30)
    assert ended.state is TaskState.FAILED
    assert ended.error == ended.errors[-1]
    assert (ended.error.attempt, ended.error.outcome) == (1, "failed")
    assert "no luck" in ended.error.message


def test_waiting_ends_in_time_and_the_task_goes_on(client):
    task = client.submit("sleep", {"seconds": 30})
    with pytest.raises(forebay.WaitTimeoutError) as caught:
        client.wait(task, timeout=0.3)
    assert caught.value.task_id == task.id and isinstance(caught.value, TimeoutError)
    assert "0.3 s" in str(caught.value)
    assert client.cancel(task).cancel_requested or client.get(task).is_final
    assert client.wait(task, timeout=30).state is TaskState.CANCELLED


def test_a_task_is_watched_and_resumed(client, queue):
    task = client.submit("echo", queue=queue, delay=3600)
    seen = []
    updates = client.watch(task)
    for update in updates:
        seen.append(update)
        if len(seen) == 1:
            client.cancel(task)
    assert [update.state for update in seen] == [TaskState.SCHEDULED, TaskState.CANCELLED]
    assert seen[0].task.id == seen[-1].task.id == task.id
    assert [update.state for update in client.watch(task, after=seen[0].cursor)] == [TaskState.CANCELLED]
    assert list(client.watch(task, after=seen[-1].cursor)) == []


def test_a_task_is_cancelled_and_retried(client, queue):
    task = client.submit("echo", 1, queue=queue, delay=3600)
    assert client.cancel(task).state is TaskState.CANCELLED
    with pytest.raises(forebay.ConflictError) as caught:
        client.cancel(task)
    assert (caught.value.code, caught.value.state) == ("state_conflict", "cancelled")
    assert not client.retry(task.id).is_final


def test_tasks_are_listed_over_pages(client, queue):
    ids = [client.submit("echo", number, queue=queue, delay=3600, tags=[f"t{number % 2}"]).id for number in range(7)]
    eventually(lambda: len(list(client.list(queue=queue))) == 7, "all tasks are recorded")
    assert [task.id for task in client.list(queue=queue, page_size=3)] == ids[::-1]
    assert [task.payload for task in client.list(queue=queue, tag="t1", state="scheduled")] == [5, 3, 1]
    assert list(client.list(queue=queue, state=TaskState.RUNNING)) == []
    middle = client.get(ids[3]).created_at
    assert [task.payload for task in client.list(queue=queue, created_after=middle)] == [6, 5, 4]
    with pytest.raises(forebay.InvalidRequestError) as caught:
        list(client.list(page_size=1_000))
    assert caught.value.violations[0].field == "page_size"
    with pytest.raises(ValueError, match="sleeping"):
        client.list(state="sleeping")


def test_many_are_submitted_as_one_stream(client, queue):
    def tasks():
        for number in range(2_500):
            yield NewTask("echo" if number % 500 else "NO SUCH KIND", number, queue=queue, delay=3600)

    results = list(client.submit_many(tasks()))
    assert [result.index for result in results] == list(range(2_500))
    refused = [result for result in results if result.error]
    assert [result.index for result in refused] == [0, 500, 1_000, 1_500, 2_000]
    assert isinstance(refused[0].error, forebay.InvalidRequestError) and refused[0].id is None
    assert refused[0].error.violations[0].field == "kind"
    assert {result.state for result in results if not result.error} == {TaskState.SCHEDULED}
    assert client.get(results[-1].id).payload == 2_499


def test_a_fault_in_the_iterator_of_many_is_raised(client, queue):
    def tasks():
        yield NewTask("echo", queue=queue, delay=3600)
        raise LookupError("mine")

    results = client.submit_many(tasks())
    assert next(iter(results)).error is None
    with pytest.raises(LookupError, match="mine"):
        next(iter(results))
    with pytest.raises(TypeError, match="NewTask"):
        list(client.submit_many(["echo"]))
    assert list(client.submit_many([])) == []


def test_one_of_many_that_no_stream_can_carry_does_not_take_others_with_it(client, queue):
    """A server would end the stream, and leave it open what became of those before."""
    new = [NewTask("echo", payload, queue=queue, delay=3600) for payload in ("first", "x" * 300_000, "x" * 5_000_000)]
    results = client.submit_many(new)
    assert next(iter(results)).error is None
    assert next(iter(results)).error.code == "payload_too_large"
    with pytest.raises(ValueError, match="task 2 has 50000.. bytes, of which 4194304 can be sent"):
        next(iter(results))


def test_many_may_be_left_in_the_middle(client, queue):
    def endless():
        while True:
            yield NewTask("echo", queue=queue, delay=3600)

    results = client.submit_many(endless())
    assert next(results).error is None
    results.close()
    assert client.submit("echo", queue=queue, delay=3600).id


def test_the_same_key_is_the_same_task(client, queue):
    key = uuid.uuid4().hex
    first = client.submit("echo", 1, queue=queue, delay=3600, idempotency_key=key)
    assert client.submit("echo", 1, queue=queue, delay=3600, idempotency_key=key).id == first.id
    with pytest.raises(forebay.IdempotencyKeyReusedError) as caught:
        client.submit("echo", 2, queue=queue, delay=3600, idempotency_key=key)
    assert caught.value.code == "idempotency_key_reused"


def test_mistakes_are_told_by_field(client):
    with pytest.raises(forebay.InvalidRequestError) as caught:
        client.submit("No Kind", queue="No Queue", tags=["", "ok"], timeout=-0.0)
    error = caught.value
    assert error.code == "invalid_request"
    assert {violation.field for violation in error.violations} >= {"kind", "queue", "tags[0]"}
    assert all(violation.field in str(error) for violation in error.violations)
    assert error.retry_after is None
    with pytest.raises(forebay.NotFoundError) as caught:
        client.get("0199c36c-0000-7000-8000-000000000000")
    assert caught.value.code == "task_not_found"
    with pytest.raises(forebay.InvalidRequestError):
        client.get("no id")
    with pytest.raises(forebay.InvalidRequestError) as caught:
        client.submit("echo", "x" * 262_144)
    assert caught.value.code == "payload_too_large"


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"payload": {1, 2}}, "type set is not JSON"),
        ({"payload": float("nan")}, "not JSON"),
        ({"tags": "one"}, "tags must be several"),
        ({"tags": [1]}, "tags must be of the type str, and not int"),
        ({"delay": -1}, "delay must not be negative"),
        ({"delay": "5m"}, "delay must be a number of seconds"),
        ({"delay": float("inf")}, "delay must be a number of seconds that has an end"),
        ({"timeout": 1e15}, "timeout must be a number of seconds that has an end"),
        ({"run_at": datetime(2030, 1, 1)}, "run_at must have a time zone"),
        ({"run_at": "2030-01-01T00:00:00Z"}, "run_at must be a datetime"),
        ({"max_attempts": "3"}, "max_attempts must be a whole number"),
        ({"max_attempts": 2**40}, "max_attempts is out of range"),
        ({"idempotency_key": ""}, "idempotency_key must not be empty"),
        ({"limit_key": ""}, "limit_key must not be empty"),
        ({"queue": 5}, "queue must be of the type str, and not int"),
        ({"retry": {"base": 1}}, "retry must be of the type Retry, and not dict"),
        ({"retry": forebay.Retry(delays=["1s"])}, "delays must be a number of seconds"),
        ({"unique": True}, "unique must be of the type Unique, and not bool"),
        ({"after": "one"}, "after must be several"),
        ({"after": [1]}, "a task or its id is needed, and not int"),
        ({"notify": "one"}, "notify must be several"),
        ({"heartbeat_timeout": -1}, "heartbeat_timeout must not be negative"),
        ({"expires_at": datetime(2030, 1, 1)}, "expires_at must have a time zone"),
    ],
)
def test_what_no_server_need_be_asked_is_refused_here(client, wrong, said):
    with pytest.raises((TypeError, ValueError), match=said):
        client.submit("echo", **wrong)


def test_many_may_come_from_anything_that_gives_them(client):
    task = client.submit("echo", tags=(tag for tag in ("a", "b")))
    assert client.get(task).tags == ("a", "b")


def test_what_else_can_not_be_meant_is_refused_here(client):
    with pytest.raises(ValueError, match="either"):
        client.submit("echo", run_at=datetime.now(timezone.utc), delay=1)


def test_a_server_that_is_not_there_is_told_in_one_sentence(connect):
    client = connect("http://127.0.0.1:1")
    with pytest.raises(forebay.UnavailableError) as caught:
        client.get("0199c36c-0000-7000-8000-000000000000")
    assert caught.value.code == "not_connected"
    assert str(caught.value).startswith("cannot reach 127.0.0.1:1: ")


def test_a_task_is_waited_for_while_the_server_starts_again(connect, own_server):
    client = connect(own_server.url)
    task = client.submit("echo", "still here", delay=3)
    restart = threading.Thread(target=lambda: (own_server.stop(), own_server.start()))
    restart.start()
    ended = client.wait(task, timeout=60)
    restart.join()
    assert (ended.state, ended.result) == (TaskState.SUCCEEDED, "still here")


def test_many_go_on_over_a_restart(connect, own_server, queue):
    """Those with a key are each accepted once; of those without, it is told where nobody knows."""
    client = connect(own_server.url)
    restart = threading.Thread(target=lambda: (own_server.stop(), own_server.start()))

    def tasks():
        for number in range(3_000):
            if number == 1_500:
                restart.start()
            key = f"{queue}-{number}" if number % 10 else None
            yield NewTask("echo", number, queue=queue, delay=3600, idempotency_key=key)

    results = list(client.submit_many(tasks()))
    restart.join()
    assert sorted(result.index for result in results) == list(range(3_000))
    unknown = [result for result in results if result.error]
    for result in unknown:
        # A server that is about to stop refuses, and says so; that is no secret either.
        assert isinstance(result.error, forebay.UnavailableError), result
        assert result.index % 10 == 0 or result.error.code == "shutting_down"
    accepted = {result.index for result in results if not result.error}
    found = [task.payload for task in client.list(queue=queue, page_size=200)]
    assert len(found) == len(set(found)), "one was submitted twice"
    assert accepted <= set(found)


def test_metadata_goes_with_each_call(connect, server):
    client = connect(server.url, metadata=[("x-request-id", "mine")])
    assert client.submit("echo").id


def test_threads_share_a_client(server):
    with forebay.Client(server.url) as client:
        found = []

        def work(number):
            found.append(client.wait(client.submit("echo", number), timeout=30).result)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(found) == list(range(16))


def test_a_closed_client_says_so(server):
    client = forebay.Client(server.url)
    client.close()
    with pytest.raises(ValueError, match="closed"):
        client.submit("echo")
