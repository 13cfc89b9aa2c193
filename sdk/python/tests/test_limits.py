"""Limits with both clients, against the real server."""

from datetime import timedelta

import pytest

import forebay
from forebay import Rate, TaskState
from support import eventually


@pytest.fixture
def client(connect, server):
    return connect(server.url)


@pytest.fixture
def limit(client, queue):
    """The name of a limit that is not there in the end."""
    yield queue
    try:
        client.limits.delete(queue)
    except forebay.NotFoundError:
        pass


def test_a_limit_is_put_read_and_deleted(client, limit):
    made = client.limits.put(
        limit, queue="slow", kind="echo", by_key=True, concurrency=2, rate=Rate(10, per=timedelta(seconds=2), burst=3)
    )
    assert (made.name, made.queue, made.kind, made.by_key) == (limit, "slow", "echo", True)
    assert (made.concurrency, made.rate) == (2, Rate(10, 2.0, 3))
    read = client.limits.get(limit)
    assert (read.running, read.waiting, read.created_at) == (0, 0, made.created_at)
    replaced = client.limits.put(limit, concurrency=1)
    assert (replaced.queue, replaced.kind, replaced.by_key, replaced.rate) == (None, None, False, None)
    client.limits.delete(limit)
    with pytest.raises(forebay.NotFoundError) as caught:
        client.limits.get(limit)
    assert caught.value.code == "limit_not_found"
    with pytest.raises(forebay.InvalidRequestError):
        client.limits.put(limit)


def test_what_a_limit_holds_back_says_so(client, limit):
    client.limits.put(limit, kind="sleep", by_key=True, concurrency=1)
    assert limit in [each.name for each in client.limits.list(page_size=1)]
    eventually(lambda: _is_held(client, limit), "a limit holds within a second")
    running = next(client.list(kind="sleep", tag=limit, state="running"))
    held = next(client.list(kind="sleep", tag=limit, state="throttled"))
    why = client.explain(held)
    assert (why.reason, why.state) == ("held_by_limit", TaskState.THROTTLED)
    assert (why.limit.limit, why.limit.key, why.limit.running, why.limit.concurrency) == (limit, limit, 1, 1)
    client.cancel(running)
    assert client.wait(running, timeout=30).state is TaskState.CANCELLED
    eventually(lambda: client.get(held).state is TaskState.RUNNING, "the next one runs")
    client.cancel(held)


def _is_held(client, name):
    """Whether of two tasks with the same key one waits. They are cancelled where both run."""
    tasks = [client.submit("sleep", {"seconds": 300}, tags=[name], limit_key=name) for _ in range(2)]
    states = eventually(
        lambda: (found := sorted(client.get(task).state for task in tasks)) and found[0] in ("running", "throttled") and found,
        "both have been looked at",
    )
    if states == ["running", "throttled"]:
        return True
    for task in tasks:
        client.cancel(task)
        client.wait(task, timeout=30)
    return False


def test_what_a_task_waits_for_is_explained(client, queue):
    later = client.submit("echo", queue=queue, delay=3600)
    why = client.explain(later)
    assert (why.id, why.state, why.reason) == (later.id, TaskState.SCHEDULED, "waits_for_time")
    assert (why.run_at, why.next_attempt, why.limit, why.blocked_on) == (later.run_at, 1, None, ())
    assert why.detail.startswith("It ")
    blocked = client.explain(client.submit("echo", queue=queue, after=[later]))
    assert (blocked.reason, blocked.blocked_on) == ("waits_for_tasks", (later.id,))
    unheard = client.submit("echo", queue=queue)
    nobody = eventually(
        lambda: (found := client.explain(unheard)).reason == "no_worker" and found, "nobody works on the queue"
    )
    assert nobody.worker is None
    with pytest.raises(forebay.NotFoundError):
        client.explain("0199c36c-0000-7000-8000-000000000000")
