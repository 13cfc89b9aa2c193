"""Client, server and worker together: the real server, and a worker of this package.

FOREBAY_TEST_GRPC_URL names a server to test with instead of one that is started here: that of a test in Rust, which has
a broker, PostgreSQL and processes of their own.
"""

import asyncio
import logging
import pathlib
import threading
import time

import pytest

import forebay
from forebay import TaskState
from support import Program, Running, eventually

WORK = pathlib.Path(__file__).parent / "programs" / "work.py"
ELSEWHERE_WITHIN = 20.0
"""What a killed worker ran starts elsewhere within so many seconds, however busy the machine is: less than the lease."""


@pytest.fixture
def client(server):
    with forebay.Client(server.url) as client:
        yield client


@pytest.fixture
def worker(server, queue):
    return forebay.Worker(server.url, queues=[queue], concurrency=8, name="tests")


def work_for(server, queue, drain_timeout=30):
    return Program(WORK, queue, drain_timeout, FOREBAY_GRPC_URL=server.url)


def test_payload_result_progress_and_log_get_through(client, worker, queue):
    looked = threading.Event()

    @worker.task("resize", timeout=60, max_attempts=7)
    def resize(payload, context):
        context.progress(0.25, "a quarter")
        context.log("looked at it")
        assert looked.wait(30)
        return {"path": payload["path"], "attempt": context.attempt, "of": context.max_attempts}

    with Running(worker):
        task = client.submit("resize", {"path": "ä.png"}, queue=queue)
        running = eventually(lambda: (now := client.get(task)).progress and now, "progress is kept")
        assert (running.state, running.progress.fraction, running.progress.message) == ("running", 0.25, "a quarter")
        looked.set()
        ended = client.wait(task, timeout=30)
    assert (ended.state, ended.result) == (TaskState.SUCCEEDED, {"path": "ä.png", "attempt": 1, "of": 7})
    assert ended.log == "looked at it\n"
    assert ended.worker


def test_what_a_handler_says_becomes_of_its_task(client, worker, queue):
    started = []

    @worker.task("later")
    def later(payload, context):
        started.append(context.fence)
        if context.fence == 1:
            raise forebay.Snooze(0.1)
        if context.attempt == 1:
            raise forebay.RetryAfter(0.1, "not now")
        return "at last"

    @worker.task("never")
    async def never():
        raise forebay.Permanent("no use")

    @worker.task("wrong", max_attempts=1)
    async def wrong():
        raise LookupError("not there")

    with Running(worker):
        tasks = [client.submit(kind, queue=queue) for kind in ("later", "never", "wrong")]
        later_, never_, wrong_ = [client.wait(task, timeout=30) for task in tasks]
    assert (later_.state, later_.result, later_.attempt, started) == ("succeeded", "at last", 2, [1, 2, 3])
    assert [error.outcome for error in later_.errors if error.outcome == "failed"] == ["failed"]
    assert (never_.state, never_.attempt, never_.error.message) == ("failed", 1, "no use")
    assert (wrong_.state, wrong_.error.message) == ("failed", "LookupError: not there")
    assert 'raise LookupError("not there")' in wrong_.log


def test_a_cancellation_and_a_timeout_reach_the_handler(client, worker, queue):
    reasons = []

    @worker.task("thread", max_attempts=1)
    def thread(payload, context):
        try:
            context.sleep(60)
        finally:
            reasons.append(context.cancel_reason)

    @worker.task("loop", max_attempts=1)
    async def loop(payload, context):
        try:
            await asyncio.sleep(60)
        finally:
            reasons.append(context.cancel_reason)

    with Running(worker):
        for kind in ("thread", "loop"):
            task = client.submit(kind, queue=queue)
            eventually(lambda: client.get(task).state == "running", "it runs")
            client.cancel(task)
            assert client.wait(task, timeout=30).state is TaskState.CANCELLED
            late = client.wait(client.submit(kind, queue=queue, timeout=0.3), timeout=30)
            assert (late.state, late.error.outcome) == (TaskState.FAILED, "timed_out")
    assert reasons == ["cancelled", "timed_out"] * 2


def test_an_attempt_that_says_nothing_is_ended_and_one_that_does_is_not(client, worker, queue):
    reasons = []

    @worker.task("quiet", heartbeat_timeout=1, max_attempts=1)
    def quiet(payload, context):
        try:
            context.sleep(30)
        finally:
            reasons.append((context.cancel_reason, context.heartbeat_timeout))

    @worker.task("alive", heartbeat_timeout=1, max_attempts=1)
    def alive(payload, context):
        until = time.monotonic() + 3
        while time.monotonic() < until:
            context.sleep(0.1)
            context.heartbeat()
        return "done"

    with Running(worker):
        silent, speaking = client.submit("quiet", queue=queue), client.submit("alive", queue=queue)
        ended = client.wait(silent, timeout=30)
        assert (ended.state, ended.error.outcome) == (TaskState.FAILED, "timed_out")
        assert "heartbeat timeout" in ended.error.message
        assert client.wait(speaking, timeout=30).result == "done"
        eventually(lambda: reasons == [("timed_out", 1.0)], "the handler was told")


def test_many_tasks_are_each_run_once_and_never_more_than_allowed(client, worker, queue):
    lock = threading.Lock()
    ran, running, most = [], {"thread": 0, "loop": 0}, {"thread": 0, "loop": 0}

    def begin(kind, payload):
        with lock:
            ran.append(payload)
            running[kind] += 1
            most[kind] = max(most[kind], running[kind])

    def end(kind):
        with lock:
            running[kind] -= 1

    @worker.task("thread", concurrency=2)
    def thread(payload):
        begin("thread", payload)
        time.sleep(0.002)
        end("thread")
        return payload

    @worker.task("loop", concurrency=3)
    async def loop(payload):
        begin("loop", payload)
        await asyncio.sleep(0.002)
        end("loop")
        return payload

    count = 400
    with Running(worker):
        new = [forebay.NewTask(("thread", "loop")[n % 2], n, queue=queue) for n in range(count)]
        ids = [result.id for result in client.submit_many(new)]
        results = [client.wait(id, timeout=60).result for id in ids]
    assert results == list(range(count))
    assert sorted(ran) == list(range(count)), "one has run twice, or not at all"
    assert most["thread"] <= 2 and most["loop"] <= 3


def test_what_a_killed_worker_ran_finishes_elsewhere(client, server, queue):
    with work_for(server, queue) as first:
        tasks = [client.submit("work", {"seconds": [600, 0]}, queue=queue, max_attempts=1) for _ in range(4)]
        for task in tasks:
            first.says(f"started {task.id}")
        with work_for(server, queue) as second:
            first.kill()
            killed = time.monotonic()
            ended = [client.wait(task, timeout=60) for task in tasks]
            took = time.monotonic() - killed
            for task in ended:
                assert (task.state, task.result) == (TaskState.SUCCEEDED, second.process.pid)
                assert (task.attempt, [error.outcome for error in task.errors]) == (1, ["lost"])
            assert second.terminate() == 0
    assert took < ELSEWHERE_WITHIN, f"it took {took:.1f} s"


def test_sigterm_lets_what_runs_finish(client, server, queue):
    with work_for(server, queue) as program:
        task = client.submit("work", {"seconds": [2]}, queue=queue)
        program.says(f"started {task.id}")
        assert program.terminate() == 0
        program.says("ended")
        after = client.submit("work", {"seconds": [0]}, queue=queue)
        ended = client.wait(task, timeout=30)
        assert (ended.state, ended.errors, ended.result) == (TaskState.SUCCEEDED, (), program.process.pid)
        assert not client.get(after).is_final


def test_what_a_drain_cannot_wait_for_runs_elsewhere_at_no_cost(client, server, queue):
    with work_for(server, queue, drain_timeout=0.2) as first:
        task = client.submit("work", {"seconds": [600, 0]}, queue=queue, max_attempts=1)
        first.says(f"started {task.id}")
        assert first.terminate() == 0
    with work_for(server, queue) as second:
        ended = client.wait(task, timeout=30)
        assert (ended.state, ended.result, ended.attempt) == (TaskState.SUCCEEDED, second.process.pid, 1)
        assert "lost" not in [error.outcome for error in ended.errors]


def test_a_handler_may_use_both_clients(client, worker, server, queue, caplog):
    """Two event loops that use gRPC in one process wake each other, and log errors: a worker has none."""

    @worker.task("parent")
    async def parent(payload, context):
        async with forebay.AsyncClient(server.url) as mine:
            children = [await mine.submit("child", n, queue=queue) for n in range(20)]
            return [(await mine.wait(child, timeout=30)).result for child in children]

    @worker.task("child")
    def child(payload):
        return client.get(client.submit("grandchild", payload, queue=queue, delay=3600)).payload

    with Running(worker), caplog.at_level(logging.ERROR, "asyncio"):
        ended = client.wait(client.submit("parent", queue=queue), timeout=60)
    assert ended.result == list(range(20)), ended
    assert not caplog.records


def test_a_worker_that_says_nonsense_is_told_so(server):
    worker = forebay.Worker(server.url, queues=["No Queue"])
    worker.add("No Kind", lambda: None)
    with pytest.raises(forebay.InvalidRequestError) as caught:
        worker.run()
    assert {violation.field for violation in caught.value.violations} == {"queues[0]", "kinds[0].kind"}


def test_a_worker_outlives_its_server(own_server, queue):
    """What runs while the server ends is finished, and after that the worker is there again."""
    worker = forebay.Worker(own_server.url, queues=[queue])
    release = threading.Event()

    @worker.task("wait")
    def wait(payload, context):
        context.log("waits")
        assert release.wait(30)
        return context.fence

    with forebay.Client(own_server.url) as client, Running(worker):
        task = client.submit("wait", queue=queue)
        eventually(lambda: client.get(task).state == "running", "it runs")
        stop = threading.Thread(target=own_server.stop)
        stop.start()
        time.sleep(0.5)
        release.set()
        stop.join()
        own_server.start()
        ended = client.wait(task, timeout=60)
        assert (ended.state, ended.result, ended.errors) == (TaskState.SUCCEEDED, 1, ())
        again = client.wait(client.submit("wait", queue=queue), timeout=60)
        assert again.result == 1
