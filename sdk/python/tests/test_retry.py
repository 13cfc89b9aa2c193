"""How often, and when, a call is made again."""

import pytest

import forebay
from forebay import _retry
from forebay._calls import UNANSWERED_MAX, Deadline, Upload
from forebay.v1 import task_pb2


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets, and no luck."""

    class Clock:
        now = 1_000.0

    monkeypatch.setattr("time.monotonic", lambda: Clock.now)
    monkeypatch.setattr("random.random", lambda: 1.0)
    return Clock


def away(retry_after=None, code="store_unavailable"):
    return forebay.UnavailableError("away", code=code, retry_after=retry_after)


def test_pauses_grow_and_honour_the_server(clock):
    tries = _retry.Tries(_retry.Budget())
    assert [tries.pause(away()), tries.pause(away(3)), tries.pause(away())] == [0.2, 3.4, 0.8]
    assert tries.pause(away()) is None, "that is often enough"
    assert _retry.jitter(40) == _retry.PAUSE_MAX


def test_what_is_wanted_much_later_is_left_to_the_caller(clock):
    assert _retry.Tries(_retry.Budget()).pause(away(60)) is None
    tries = _retry.Tries(_retry.Budget())
    clock.now += 14.9
    assert tries.pause(away()) is None


def test_a_mistake_is_not_repeated(clock):
    for kind in (forebay.InvalidRequestError, forebay.NotFoundError, forebay.ConflictError, forebay.ApiError):
        assert _retry.Tries(_retry.Budget()).pause(kind("x")) is None
    for kind in (forebay.UnavailableError, forebay.OverloadedError, forebay.RequestTimeoutError):
        assert _retry.Tries(_retry.Budget()).pause(kind("x")) is not None


def test_without_a_key_only_what_was_surely_not_accepted_is_submitted_again(clock):
    from forebay import _calls

    for key, code, again in [
        (None, "overloaded", True),
        (None, "not_connected", True),
        (None, "stream_ended", True),
        (None, "unreachable", False),
        (None, "broker_unavailable", False),
        ("mine", "unreachable", True),
        ("mine", "broker_unavailable", True),
    ]:
        call = _calls.submit(forebay.NewTask("echo", idempotency_key=key))
        assert (_retry.Tries(_retry.Budget(), call.safe).pause(away(code=code)) is not None) is again, code


def test_retries_cannot_multiply_an_outage(clock):
    budget, extra = _retry.Budget(), 0
    for _ in range(1_000):
        tries = _retry.Tries(budget)
        while tries.pause(away()) is not None:
            extra += 1
    assert 10 <= extra <= 1_000 / 5 + 20


def test_a_stream_that_has_lasted_is_opened_again_however_long_ago_it_began(clock):
    tries = _retry.StreamTries(_retry.Budget())
    for _ in range(3):
        clock.now += 3_600
        assert tries.pause(away()) == 0.2
        tries.opened()
    pauses = []
    while (pause := tries.pause(away())) is not None:
        pauses.append(pause)
        clock.now += pause
        tries.opened()
    assert pauses[:5] == [0.4, 0.8, 1.6, 3.2, 5.0] and 25 < sum(pauses) <= _retry.STREAM_WITHIN
    tries.begin()
    assert tries.pause(away()) == 0.2


def test_a_deadline_cuts_pauses_short(clock):
    deadline = Deadline("id", 1.0)
    assert (deadline.left(), deadline.within(5.0), deadline.pause()) == (1.0, 1.0, 0.1)
    clock.now += 1.0
    with pytest.raises(forebay.WaitTimeoutError):
        deadline.left()
    endless = Deadline("id", None)
    assert (endless.left(), endless.within(5.0)) == (None, 5.0)
    with pytest.raises(forebay.UnavailableError):
        endless.failed(away())
    endless.failed(away(code="overloaded"))
    assert endless.only_reads, "there may be a place to read it"


def test_what_was_sent_without_a_key_is_told_and_the_rest_is_sent_again():
    upload = Upload()
    for key in ("a", None, "c", None):
        upload.add(forebay.NewTask("echo", idempotency_key=key))
    sent = [upload.next() for _ in range(3)]
    accepted = task_pb2.SubmitTasksResponse(index=0, accepted=task_pb2.TaskReceipt(id="x", state="TASK_STATE_QUEUED"))
    result = upload.answered(accepted)
    assert (result.index, result.id, result.state) == (0, "x", "queued")
    unknown = upload.broken(away(code="unreachable"))
    assert [(one.index, one.error.code) for one in unknown] == [(1, "unreachable")]
    assert upload.next() == sent[2]
    assert not upload.next().idempotency_key
    assert upload.next() is None
    assert upload.broken(away(code="not_connected")) == [], "nothing was accepted"
    assert upload.has_unsent()


def test_no_more_are_taken_than_can_be_answered():
    upload = Upload()
    for _ in range(UNANSWERED_MAX):
        assert upload.has_room()
        upload.add(forebay.NewTask("echo"))
    assert not upload.has_room()
