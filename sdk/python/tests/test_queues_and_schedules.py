"""Queues and schedules with both clients, against the real server."""

from datetime import datetime, timedelta, timezone

import pytest

import forebay
from forebay import NewTask, TaskState
from support import eventually


@pytest.fixture
def client(connect, server):
    return connect(server.url)


def test_a_queue_is_counted(client, queue):
    task = client.submit("echo", queue=queue, delay=3600)
    counted = eventually(
        lambda: next((found for found in client.queues.list() if found.name == queue and found.scheduled), None),
        "the task is counted",
    )
    assert (counted.name, counted.paused, counted.stale, counted.problem) == (queue, False, False, None)
    assert abs(counted.at - datetime.now(timezone.utc)) < timedelta(minutes=1)
    assert client.queues.get(queue).scheduled == 1
    client.cancel(task)


def test_a_paused_queue_starts_nothing(client, queue):
    with pytest.raises(forebay.NotFoundError) as caught:
        client.queues.get(queue)
    assert caught.value.code == "queue_not_found"
    with pytest.raises(forebay.NotFoundError):
        client.queues.resume(queue)
    assert client.queues.pause(queue).paused is True
    assert client.queues.pause(queue).paused is True
    task = client.submit("echo", queue=queue)
    assert client.get(task).state is TaskState.QUEUED
    assert client.queues.get(queue).paused is True
    assert client.queues.resume(queue).paused is False
    with pytest.raises(forebay.InvalidRequestError) as caught:
        client.queues.pause("No!")
    assert caught.value.violations[0].field == "name"


@pytest.fixture
def schedule(client, queue):
    """The name of a schedule that is not there in the end."""
    yield queue
    try:
        client.schedules.delete(queue)
    except forebay.NotFoundError:
        pass


def test_a_schedule_is_put_read_and_deleted(client, schedule):
    task = NewTask("echo", {"days": 1}, queue="slow", tags=["a"], max_attempts=3, timeout=60, priority="low", project="shop")
    made = client.schedules.put(
        schedule,
        "*/30 8-17 * * mon-fri",
        task,
        time_zone="Europe/Berlin",
        overlap="queue",
        catch_up=timedelta(hours=1),
        jitter=1.5,
    )
    assert (made.name, made.cron, made.time_zone) == (schedule, "*/30 8-17 * * mon-fri", "Europe/Berlin")
    assert (made.overlap, made.catch_up, made.jitter, made.paused) == ("queue", 3600.0, 1.5, False)
    assert (made.task.kind, made.task.payload, made.task.queue, made.task.tags) == ("echo", {"days": 1}, "slow", ("a",))
    assert (made.task.max_attempts, made.task.timeout, made.task.priority, made.task.project) == (3, 60.0, "low", "shop")
    assert len(made.next) == 5 and list(made.next) == sorted(made.next)
    assert made.next[0] > datetime.now(timezone.utc) and made.next[0].minute in (0, 30)
    assert (made.last_tick, made.last_task_id) == (None, None)
    assert client.schedules.get(schedule) == made
    assert len(client.schedules.get(schedule, upcoming=2).next) == 2
    again = client.schedules.put(
        schedule, made.cron, made.task, time_zone=made.time_zone, overlap=made.overlap, catch_up=made.catch_up, jitter=made.jitter
    )
    assert again == made, "to put what was read changes nothing"
    assert schedule in [each.name for each in client.schedules.list(page_size=1)]
    assert client.schedules.delete(schedule) is None
    with pytest.raises(forebay.NotFoundError) as caught:
        client.schedules.delete(schedule)
    assert caught.value.code == "schedule_not_found"


def test_a_schedule_rests_and_goes_on(client, schedule, queue):
    made = client.schedules.put(schedule, "* * * * * *", NewTask("echo", queue=queue), overlap="allow", paused=True)
    assert (made.paused, made.next) == (True, ())
    resumed = client.schedules.resume(schedule)
    assert (resumed.paused, resumed.overlap, resumed.task) == (False, "allow", made.task)
    ticked = eventually(lambda: (found := client.schedules.get(schedule)).last_tick and found, "it has ticked")
    assert client.get(ticked.last_task_id).queue == queue
    assert client.schedules.pause(schedule).paused is True


def test_all_that_is_wrong_with_a_schedule_is_told(client):
    with pytest.raises(forebay.InvalidRequestError) as caught:
        client.schedules.put("wrong", "never", NewTask("Two Words", delay=1), time_zone="Mars/Olympus")
    assert {violation.field for violation in caught.value.violations} == {
        "spec.cron",
        "spec.task.delay",
        "spec.task.kind",
        "spec.time_zone",
    }
    with pytest.raises(TypeError, match="task must be of the type NewTask, and not str"):
        client.schedules.put("wrong", "* * * * *", "echo")
    with pytest.raises(ValueError, match="overlap"):
        client.schedules.put("wrong", "* * * * *", NewTask("echo"), overlap="sometimes")
    with pytest.raises(forebay.InvalidRequestError):
        list(client.schedules.list(page_size=1_000))
