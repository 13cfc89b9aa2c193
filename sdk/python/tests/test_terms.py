"""What a task may ask for beyond being run: with both clients, against the real server."""

from datetime import datetime, timedelta, timezone

import pytest

import forebay
from forebay import NewTask, Retry, TaskState, Unique
from support import eventually


@pytest.fixture
def client(connect, server):
    return connect(server.url)


def test_what_is_asked_for_is_kept(client, queue):
    first = client.submit("echo", queue=queue, delay=3600)
    expires_at = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(hours=2)
    task = client.submit(
        "echo",
        queue=queue,
        expires_at=expires_at,
        heartbeat_timeout=1.5,
        retry=Retry(base=timedelta(seconds=2), factor=3, cap=60),
        limit_key="customer-7",
        unique=Unique(key=queue, window=60, on_conflict="reject"),
        after=[first],
        on_dependency_failure="run",
    )
    assert task.expires_at == expires_at
    assert (task.heartbeat_timeout, task.retry) == (1.5, Retry(2.0, 3.0, 60.0, ()))
    assert (task.limit_key, task.unique.on_conflict) == ("customer-7", "reject")
    assert task.unique.mark and 50 < (task.unique.until - task.created_at).total_seconds() <= 60
    assert (task.after, task.on_dependency_failure) == ((first.id,), "run")
    assert client.get(task) == eventually(lambda: client.get(task), "it is recorded")
    assert client.get(task).state is TaskState.BLOCKED
    plain = client.submit("echo", queue=queue, delay=3600)
    assert (plain.expires_at, plain.retry, plain.limit_key, plain.unique, plain.after) == (None, None, None, None, ())
    assert (plain.on_dependency_failure, plain.notify, plain.batch, plain.heartbeat_timeout) == (None, (), None, None)


def test_a_task_waits_for_others(client):
    first = client.submit("echo", 1, delay=0.5)
    then = client.submit("echo", 2, after=[first.id])
    assert client.wait(then, timeout=30).state is TaskState.SUCCEEDED
    assert client.get(first).finished_at <= client.get(then).started_at


def test_one_of_a_kind_is_returned_or_refused(client, queue):
    only = {"queue": queue, "delay": 3600}
    first = client.submit("echo", 1, unique=Unique(key=queue), **only)
    assert client.submit("echo", 2, unique=Unique(key=queue), **only).id == first.id
    with pytest.raises(forebay.ConflictError) as caught:
        client.submit("echo", 3, unique=Unique(key=queue, on_conflict="reject"), **only)
    assert caught.value.code == "unique_conflict" and first.id in str(caught.value)
    replaced = client.submit("echo", 4, unique=Unique(key=queue, on_conflict="replace"), **only)
    eventually(lambda: client.get(first).state is TaskState.CANCELLED, "the first is replaced")
    assert client.get(replaced).state is TaskState.SCHEDULED


def test_a_task_expires(client, queue):
    task = client.submit("echo", queue=queue, schedule_to_start_timeout=0.2)
    assert client.wait(task, timeout=30).state is TaskState.EXPIRED


def test_many_have_terms_too(client, queue):
    results = list(client.submit_many([NewTask("echo", queue=queue, limit_key="k"), NewTask("echo")]))
    assert [result.error for result in results] == [None, None]
    assert client.get(results[0].id).limit_key == "k"
    refused = list(client.submit_many([NewTask("echo", retry=Retry(factor=0.5), after=["x"])]))[0].error
    assert {violation.field for violation in refused.violations} == {"retry.factor", "after[0]"}
