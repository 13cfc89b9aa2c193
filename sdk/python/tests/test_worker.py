"""The worker, against a server that does as each test says."""

import asyncio
import json
import logging
import threading
import time

import grpc
import pytest
from google.protobuf import duration_pb2

import forebay
from forebay._context import current
from forebay.v1 import worker_pb2
from support import Running, Scripted, eventually


def worker_for(service, **options):
    return forebay.Worker(service.url, **options)


def test_hello_says_what_the_worker_can_do(scripted):
    worker = worker_for(scripted, queues=["images", "mails"], concurrency=7, name="me")

    @worker.task("resize", timeout=90, max_attempts=3, concurrency=2)
    def resize(payload):
        return payload

    worker.add("mail", lambda payload: None)
    with Running(worker):
        _, hello = scripted.welcomed()
    assert (hello.name, list(hello.queues), hello.slots) == ("me", ["images", "mails"], 7)
    assert hello.sdk == f"forebay-python/{forebay.__version__}"
    first, second = hello.kinds
    assert (first.kind, first.timeout.seconds, first.max_attempts, first.concurrency) == ("resize", 90, 3, 2)
    assert second.kind == "mail"
    assert not any(second.HasField(field) for field in ("timeout", "max_attempts", "concurrency"))


def test_a_handler_is_given_payload_and_context_and_returns_the_result(scripted):
    worker = worker_for(scripted)
    seen = []

    @worker.task("both")
    def both(payload, context):
        seen.append(context)
        return {"got": payload, "of": context.attempt}

    @worker.task("payload-only")
    def payload_only(payload, retries=3):
        return [payload, retries]

    @worker.task("nothing")
    def nothing():
        pass

    @worker.task("coroutine")
    async def coroutine(payload, context):
        await asyncio.sleep(0)
        return context.task_id

    with Running(worker):
        call, _ = scripted.welcomed()
        traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        call.start("a", "both", '{"ä": [1, null]}'.encode(), fence=4, attempt=2, max_attempts=9, traceparent=traceparent)
        task_id, outcome, body = call.finish()
        assert (task_id, outcome, json.loads(body.result)) == ("a", "succeeded", {"got": {"ä": [1, None]}, "of": 2})
        call.start("b", "payload-only", b'"x"')
        assert json.loads(call.finish()[2].result) == ["x", 3]
        call.start("c", "nothing")
        assert call.finish()[2].result == b"null"
        call.start("d", "coroutine")
        assert json.loads(call.finish()[2].result) == "d"
    context = seen[0]
    assert (context.task_id, context.kind, context.queue, context.project) == ("a", "both", "default", "default")
    assert (context.fence, context.max_attempts, context.timeout) == (4, 9, 60.0)
    assert context.traceparent == traceparent
    assert 0 < context.time_left <= 60 and context.deadline.tzinfo is not None


def test_what_a_handler_raises_decides_what_becomes_of_its_task(scripted):
    worker = worker_for(scripted)
    errors = {
        "retryable": ValueError("no luck"),
        "empty": KeyError(),
        "permanent": forebay.Permanent("never"),
        "later": forebay.RetryAfter(90.5, "busy"),
        "early": forebay.Snooze(3),
        "exit": SystemExit(1),
        "surrogate": ValueError("\ud800"),
    }

    @worker.task("raise")
    def plain(kind):
        raise errors[kind]

    @worker.task("raise-async")
    async def coroutine(kind):
        raise errors[kind]

    with Running(worker):
        call, _ = scripted.welcomed()

        def raised(kind, name):
            call.start(name, kind, json.dumps(name).encode())
            return call.finish()[1:]

        for kind in ("raise", "raise-async"):
            outcome, failed = raised(kind, "retryable")
            assert (outcome, failed.message) == ("failed", "ValueError: no luck")
            assert not failed.permanent and not failed.HasField("retry_after")
            assert raised(kind, "empty")[1].message == "KeyError"
            failed = raised(kind, "permanent")[1]
            assert (failed.message, failed.permanent) == ("never", True)
            failed = raised(kind, "later")[1]
            assert (failed.message, failed.permanent) == ("busy", False)
            assert (failed.retry_after.seconds, failed.retry_after.nanos) == (90, 500_000_000)
            outcome, snoozed = raised(kind, "early")
            assert (outcome, snoozed.delay.seconds) == ("snoozed", 3)
            assert raised(kind, "exit")[1].message == "SystemExit: 1"
            assert raised(kind, "surrogate")[0] == "failed"
        # The traceback is where people look for it.
        logged = [line for each in call.heard for line in each.log_lines.lines]
        assert 'raise errors[kind]' in "\n".join(logged)


class Mute(Exception):
    def __str__(self):
        raise ValueError("no words")


class MutePermanent(Mute, forebay.Permanent):
    pass


class Forgetful(forebay.RetryAfter):
    def __init__(self):
        pass


class Rude(BaseException):
    def __str__(self):
        raise SystemExit(1)


def test_whatever_a_handler_raises_is_told_and_its_place_is_free_again(scripted):
    worker = worker_for(scripted, concurrency=1)
    errors = {
        "mute": Mute,
        "mute-permanent": MutePermanent,
        "forgetful": Forgetful,
        "rude": Rude,
        "later-than-ever": lambda: forebay.RetryAfter(1e300),
        "snoozes-for-ever": lambda: forebay.Snooze(1e300),
    }

    @worker.task("raise")
    def plain(kind):
        raise errors[kind]()

    @worker.task("raise-async")
    async def coroutine(kind):
        raise errors[kind]()

    names = ["Mute", "MutePermanent", "Forgetful", "Rude", "RetryAfter", "Snooze"]
    with Running(worker):
        call, _ = scripted.welcomed()
        for kind in ("raise", "raise-async"):
            for error, name in zip(errors, names):
                call.start(f"{kind} {error}", kind, json.dumps(error).encode())
                task_id, outcome, failed = call.finish()
                assert (task_id, outcome) == (f"{kind} {error}", "failed")
                assert failed.message.startswith(f"{name}, which cannot be told")
                assert failed.permanent == (error == "mute-permanent")


@pytest.mark.parametrize("result", [float("nan"), object(), "x" * 262_143, {1: {2}}])
def test_a_result_that_cannot_be_kept_fails_the_task_for_good(scripted, result):
    worker = worker_for(scripted)
    worker.add("odd", lambda: result)
    with Running(worker):
        call, _ = scripted.welcomed()
        call.start("a", "odd")
        _, outcome, failed = call.finish()
    assert (outcome, failed.permanent) == ("failed", True)
    assert "result" in failed.message


def test_the_largest_result_is_kept(scripted):
    worker = worker_for(scripted)
    worker.add("large", lambda: "x" * 262_142)
    with Running(worker):
        call, _ = scripted.welcomed()
        call.start("a", "large")
        _, outcome, body = call.finish()
    assert (outcome, len(body.result)) == ("succeeded", 262_144)


def test_heartbeats_go_on_whatever_handlers_do(scripted):
    worker = worker_for(scripted)
    release = threading.Event()

    @worker.task("block-thread")
    def block_thread():
        release.wait(30)

    @worker.task("block-loop")
    async def block_loop():
        release.wait(30)

    with Running(worker):
        began = time.monotonic()
        call, _ = scripted.welcomed(heartbeat=0.1)
        call.start("a", "block-thread")
        call.start("b", "block-loop")
        before = call.count("heartbeat")
        eventually(lambda: call.count("heartbeat") >= before + 10, "heartbeats while the event loop is blocked")
        count, took = call.count("heartbeat"), time.monotonic() - began
        release.set()
        assert {call.finish()[0], call.finish()[0]} == {"a", "b"}
    assert count <= took / 0.1 + 1, "more often than it was asked for"


def test_handlers_run_side_by_side(scripted):
    worker = worker_for(scripted, concurrency=4)
    together = threading.Barrier(2, timeout=20)
    met = []

    @worker.task("thread")
    def thread():
        together.wait()

    @worker.task("loop")
    async def loop():
        met.append(asyncio.Event())
        if len(met) == 2:
            met[0].set()
        else:
            await asyncio.wait_for(met[0].wait(), 20)

    with Running(worker):
        call, _ = scripted.welcomed()
        for number, kind in enumerate(["thread", "loop", "thread", "loop"]):
            call.start(str(number), kind)
        assert [call.finish()[1] for _ in range(4)] == ["succeeded"] * 4


def test_a_stop_reaches_handlers_in_their_own_way(scripted):
    worker = worker_for(scripted)
    reasons = []

    @worker.task("looks")
    def looks(payload, context):
        while not context.cancelled:
            time.sleep(0.01)
        reasons.append(context.cancel_reason)
        return "in time all the same"

    @worker.task("sleeps")
    def sleeps(payload, context):
        context.sleep(60)

    @worker.task("waits")
    async def waits(payload, context):
        try:
            await asyncio.sleep(60)
        finally:
            reasons.append(context.cancel_reason)

    with Running(worker):
        call, _ = scripted.welcomed()
        for kind in ("looks", "sleeps", "waits"):
            call.start(kind, kind)
        call.stop("looks", worker_pb2.Stop.REASON_TIMED_OUT)
        assert call.finish()[:2] == ("looks", "succeeded")
        call.stop("sleeps", worker_pb2.Stop.REASON_CANCELLED)
        task_id, outcome, failed = call.finish()
        assert (task_id, outcome, failed.message) == ("sleeps", "failed", "ended early: cancelled")
        call.stop("waits", worker_pb2.Stop.REASON_SHUTDOWN)
        task_id, outcome, failed = call.finish()
        assert (task_id, outcome, failed.message) == ("waits", "failed", "ended early: shutdown")
    assert reasons == ["timed_out", "shutdown"]


def test_a_stop_that_comes_with_its_start_is_answered(scripted):
    worker = worker_for(scripted)

    @worker.task("async")
    async def coroutine():
        await asyncio.sleep(60)

    @worker.task("thread")
    def thread(payload, context):
        context.sleep(60)

    with Running(worker):
        call, _ = scripted.welcomed()
        for number in range(50):
            for kind in ("async", "thread"):
                call.start(f"{kind}-{number}", kind)
                call.stop(f"{kind}-{number}")
        finished = {call.finish()[0] for _ in range(100)}
    assert len(finished) == 100


def test_progress_and_log_come_before_the_outcome_and_are_put_together(scripted):
    worker = worker_for(scripted)

    @worker.task("talk")
    def talk(payload, context):
        for step in range(1_000):
            context.progress(step / 999, f"step {step}")
            context.log(f"line {step}\nand more")
        context.progress(7, "ü" * 500)

    with Running(worker):
        call, _ = scripted.welcomed()
        call.start("a", "talk")
        call.finish()
    told = [each for each in call.heard if each.WhichOneof("message") in ("progress", "log_lines", "finish")]
    assert told[-1].WhichOneof("message") == "finish"
    assert len(told) < 20, "each is sent by itself"
    progress = [each.progress for each in told if each.WhichOneof("message") == "progress"]
    assert progress[-1].fraction == 1.0
    assert progress[-1].message == "ü" * 128
    lines = [line for each in told for line in each.log_lines.lines]
    assert lines[-2:] == ["line 999", "and more"]
    assert all(sum(len(line) + 1 for line in each.log_lines.lines) <= 8_192 for each in told)


def test_progress_is_told_while_a_task_runs_even_with_a_blocked_loop(scripted):
    worker = worker_for(scripted)
    release = threading.Event()

    @worker.task("slow")
    async def slow(payload, context):
        context.progress(0.5, "half")
        release.wait(30)

    with Running(worker):
        call, _ = scripted.welcomed()
        call.start("a", "slow")
        progress = call.next("progress")
        release.set()
        call.finish()
    assert (progress.fraction, progress.message) == (0.5, "half")
    assert (progress.id.task_id, progress.id.fence) == ("a", 1)


def test_a_handler_that_says_nothing_else_says_that_it_is_alive(scripted):
    worker = worker_for(scripted)
    release = threading.Event()
    settings = {}

    @worker.task("quiet", heartbeat_timeout=1.5)
    def quiet(payload, context):
        settings[context.task_id] = context.heartbeat_timeout
        for _ in range(1_000):
            context.heartbeat()
        release.wait(30)

    with Running(worker):
        call, hello = scripted.welcomed(heartbeat=60)
        call.start("a", "quiet", heartbeat_timeout=duration_pb2.Duration(seconds=2))
        call.start("b", "quiet", fence=3)
        named = set()
        while len(named) < 2:
            named |= {(each.task_id, each.fence) for each in call.next("heartbeat").alive}
        release.set()
        for _ in range(2):
            call.finish()
    assert named == {("a", 1), ("b", 3)}
    assert call.count("heartbeat") < 10, "each is sent by itself"
    assert settings == {"a": 2.0, "b": None}
    assert hello.kinds[0].heartbeat_timeout.ToTimedelta().total_seconds() == 1.5
    forebay.Context().heartbeat()


def test_what_has_little_time_to_be_heard_is_heard_in_time(scripted):
    """A short heartbeat timeout makes what is said wait for less than half a second."""
    worker, heard = forebay.Worker(scripted.url), threading.Event()

    @worker.task("speaks", heartbeat_timeout=0.2)
    def speaks(payload, context):
        while not heard.is_set():
            context.heartbeat()
            context.sleep(0.01)

    with Running(worker):
        call, _ = scripted.welcomed(heartbeat=60)
        call.start("a", "speaks", heartbeat_timeout=duration_pb2.Duration(nanos=200_000_000))
        call.next("heartbeat")
        began = time.monotonic()
        for _ in range(20):
            call.next("heartbeat")
        took = time.monotonic() - began
        heard.set()
        assert call.finish()[:2] == ("a", "succeeded")
    assert took < 5, f"20 words took {took:.1f} s, and would take 10 where each waits for half a second"


def test_who_waits_for_a_place_is_not_timed_out_for_its_silence(scripted):
    worker, release = forebay.Worker(scripted.url, concurrency=1), threading.Event()

    @worker.task("holds")
    def holds(payload, context):
        assert release.wait(30)

    @worker.task("speaks", heartbeat_timeout=1)
    def speaks(payload, context):
        raise AssertionError("there is no place for it")

    with Running(worker):
        call, _ = scripted.welcomed(heartbeat=60)
        call.start("a", "holds")
        # A server that counts otherwise: what runs on another stream, say.
        call.start("b", "speaks", heartbeat_timeout=duration_pb2.Duration(seconds=1))
        began = time.monotonic()
        assert call.finish()[:2] == ("b", "snoozed")
        took = time.monotonic() - began
        release.set()
        assert call.finish()[:2] == ("a", "succeeded")
    assert took < 3, f"it waited for {took:.1f} s"


def test_progress_of_nan_is_a_mistake():
    with pytest.raises(ValueError, match="NaN"):
        forebay.Context().progress(float("nan"))


def test_what_is_logged_within_a_task_is_logged_with_it(scripted):
    worker = worker_for(scripted)
    logger = logging.getLogger("test_worker")
    logger.setLevel(logging.INFO)
    handler = forebay.TaskLogHandler()
    logger.addHandler(handler)

    @worker.task("thread")
    def thread():
        logger.info("from a %s", "thread")

    @worker.task("loop")
    async def loop():
        await asyncio.sleep(0)
        logger.info("from the loop")

    try:
        with Running(worker):
            call, _ = scripted.welcomed()
            logger.info("outside")
            for kind, line in (("thread", "from a thread"), ("loop", "from the loop")):
                call.start(kind, kind)
                said = call.next("log_lines")
                assert (said.id.task_id, list(said.lines)) == (kind, [line])
    finally:
        logger.removeHandler(handler)


def test_a_broken_stream_is_opened_again_and_its_tasks_are_told(scripted):
    worker = worker_for(scripted)
    told = []

    @worker.task("wait")
    def wait(payload, context):
        try:
            context.log("here")
            context.sleep(60)
        finally:
            told.append(context.cancel_reason)

    with Running(worker):
        call, _ = scripted.welcomed()
        call.start("a", "wait")
        call.next("log_lines")
        call.abort(grpc.StatusCode.UNAVAILABLE, "gone")
        again, hello = scripted.welcomed()
        assert hello.slots == 16
        again.start("a", "wait", fence=2)
        again.next("log_lines")
        again.stop("a", fence=2)
        assert again.finish()[0] == "a"
    assert told == ["lost", "cancelled"]


def test_a_server_that_is_away_is_waited_for():
    with Scripted() as service:
        port = service.port
    worker = forebay.Worker(f"127.0.0.1:{port}")
    worker.add("echo", lambda payload: payload)
    with Running(worker) as running:
        time.sleep(0.5)
        assert running.is_alive
        with Scripted(port) as service:
            call, _ = service.welcomed()
            call.start("a")
            assert call.finish()[1] == "succeeded"


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "UNIMPLEMENTED", "PERMISSION_DENIED", "UNAUTHENTICATED"])
def test_a_worker_that_is_refused_for_good_ends_with_the_error(scripted, code):
    worker = worker_for(scripted)
    worker.add("echo", lambda payload: payload)
    with Running(worker) as running:
        scripted.call().abort(grpc.StatusCode[code], "slots: too many")
        with pytest.raises(forebay.ApiError, match="slots: too many"):
            running.join()


def test_a_refusal_after_a_welcome_is_no_reason_to_give_up(scripted):
    worker = worker_for(scripted)
    worker.add("echo", lambda payload: payload)
    with Running(worker):
        scripted.welcomed()[0].abort(grpc.StatusCode.UNIMPLEMENTED, "an old server")
        scripted.welcomed()


def test_a_server_that_drains_is_left_while_its_tasks_go_on(scripted):
    worker = worker_for(scripted, concurrency=2)
    release = threading.Event()

    @worker.task("wait")
    def wait():
        release.wait(30)
        return "old"

    @worker.task("echo")
    async def echo(payload):
        return payload

    with Running(worker):
        old, _ = scripted.welcomed()
        old.start("a", "wait")
        old.drain()
        new, hello = scripted.welcomed()
        assert hello.slots == 2
        new.start("b", "echo")
        assert new.finish()[:2] == ("b", "succeeded")
        release.set()
        task_id, outcome, _ = old.finish()
        assert (task_id, outcome) == ("a", "succeeded")
        old.end()
        new.start("c", "echo")
        assert new.finish()[0] == "c", "the end of the old stream has hurt the new one"


def test_two_streams_share_the_places(scripted, monkeypatch):
    monkeypatch.setattr("forebay._runner.PLACE_WITHIN", 2.0)
    worker = worker_for(scripted, concurrency=2)
    release = threading.Event()
    running, most = [], []

    @worker.task("wait", concurrency=1)
    def wait():
        running.append(1)
        most.append(len(running))
        release.wait(30)
        running.pop()

    with Running(worker):
        old, _ = scripted.welcomed()
        old.start("a", "wait")
        eventually(lambda: running, "the first runs")
        old.drain()
        new, _ = scripted.welcomed()
        new.start("b", "wait")
        task_id, outcome, snoozed = new.finish()
        assert (task_id, outcome) == ("b", "snoozed"), "it has neither run nor been handed back"
        assert snoozed.delay.seconds == 1
        new.start("c", "wait")
        release.set()
        assert old.finish()[0] == "a"
        assert new.finish()[:2] == ("c", "succeeded")
    assert max(most) == 1


def test_a_drain_finishes_what_runs(scripted):
    worker = worker_for(scripted)
    release = threading.Event()

    @worker.task("wait")
    def wait():
        release.wait(30)
        return "done"

    with Running(worker) as running:
        call, _ = scripted.welcomed()
        call.ends_by_itself = False
        call.start("a", "wait")
        worker.drain()
        call.next("drain")
        release.set()
        assert call.finish()[:2] == ("a", "succeeded")
        assert running.is_alive, "it must wait for the server to end the stream"
        call.end()
        running.join()


def test_a_drain_hands_back_what_takes_too_long(scripted, monkeypatch):
    monkeypatch.setattr("forebay._runner.STOP_GRACE", 2.0)
    worker = worker_for(scripted, drain_timeout=0.2)
    release = threading.Event()

    @worker.task("deaf")
    def deaf():
        release.wait(30)

    @worker.task("waits")
    async def waits():
        await asyncio.sleep(60)

    @worker.task("quick")
    def quick(payload, context):
        while not context.cancelled:
            time.sleep(0.01)
        return context.cancel_reason

    with Running(worker) as running:
        call, _ = scripted.welcomed()
        for kind in ("deaf", "waits", "quick"):
            call.start(kind, kind)
        call.start("barrier", "quick")
        worker.drain()
        call.next("drain")
        outcomes = {}
        for _ in range(4):
            task_id, outcome, body = call.finish()
            outcomes[task_id] = (outcome, body)
        call.end()
        running.join()
    release.set()
    assert outcomes["deaf"][0] == outcomes["waits"][0] == "snoozed"
    assert outcomes["deaf"][1].delay.seconds == 0
    assert outcomes["quick"][0] == "succeeded" and json.loads(outcomes["quick"][1].result) == "shutdown"


def test_a_second_drain_is_in_a_hurry(scripted, monkeypatch):
    worker = worker_for(scripted, drain_timeout=60)

    @worker.task("waits")
    async def waits():
        await asyncio.sleep(60)

    with Running(worker) as running:
        call, _ = scripted.welcomed()
        call.start("a", "waits")
        worker.drain()
        call.next("drain")
        worker.drain()
        assert call.finish()[:2] == ("a", "snoozed")
        call.end()
        running.join()


def test_a_drain_before_any_server_has_answered_ends(scripted):
    worker = worker_for(scripted)
    worker.add("echo", lambda payload: payload)
    with Running(worker) as running:
        call = scripted.call()
        call.next("hello")
        worker.drain()
        running.join()
        assert call.ended.wait(10)


def test_a_server_without_a_welcome_is_given_up(scripted, monkeypatch):
    monkeypatch.setattr("forebay._runner.WELCOME_WITHIN", 0.2)
    worker = worker_for(scripted)
    worker.add("echo", lambda payload: payload)
    with Running(worker):
        first = scripted.call()
        assert first.ended.wait(10)
        scripted.welcomed()


def test_run_async_leaves_the_loop_to_its_owner(scripted):
    worker = worker_for(scripted)
    worker.add("echo", lambda payload: payload)

    async def main():
        work = asyncio.create_task(worker.run_async())
        call, _ = await asyncio.to_thread(scripted.welcomed)
        call.start("a")
        assert (await asyncio.to_thread(call.finish))[1] == "succeeded"
        with pytest.raises(RuntimeError, match="already"):
            await worker.run_async()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert await asyncio.to_thread(call.ended.wait, 10)

    asyncio.run(main())


def test_mistakes_are_told_when_they_are_made():
    worker = forebay.Worker()
    with pytest.raises(RuntimeError, match="no handlers"):
        worker.run()
    worker.add("a", lambda payload: None)
    with pytest.raises(ValueError, match="already"):
        worker.add("a", lambda payload: None)
    with pytest.raises(TypeError, match="must take the payload"):
        worker.add("b", lambda one, two, three: None)
    with pytest.raises(TypeError, match="must take the payload"):
        worker.add("b", eval("lambda payload, *, context: None"))
    with pytest.raises(TypeError, match="generator"):
        worker.add("b", eval("lambda: (yield)"))
    with pytest.raises(ValueError, match="negative"):
        worker.add("b", lambda: None, timeout=-1)
    with pytest.raises(TypeError, match="several"):
        forebay.Worker(queues="default")
    with pytest.raises(ValueError, match="concurrency"):
        forebay.Worker(concurrency=0)
    for url in ("ftp://host", "http://host/path", "http://", "http://me:secret@host"):
        with pytest.raises(ValueError, match="URL"):
            forebay.Worker(url)
    with pytest.raises(ValueError, match="negative"):
        forebay.Snooze(-1)


def test_a_handler_can_be_tested_by_itself():
    worker = forebay.Worker()

    @worker.task("double")
    def double(payload, context):
        context.progress(1.5, "done")
        context.log("doubled")
        context.raise_if_cancelled()
        return 2 * payload

    context = forebay.Context(attempt=2)
    assert double(21, context) == 42
    assert context.time_left > 0 and context.deadline.tzinfo is not None
    assert "attempt 2" in repr(context)


def test_the_trace_of_a_task_goes_on_with_what_its_handler_submits():
    client = forebay.Client(metadata=[("x-a", "b")])
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    token = current.set(forebay.Context(traceparent=traceparent))
    try:
        assert client._server.call_metadata() == (("x-a", "b"), ("traceparent", traceparent))
    finally:
        current.reset(token)
    assert client._server.call_metadata() == (("x-a", "b"),)
    client.close()
