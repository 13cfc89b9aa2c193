"""What is raised for what gRPC, or a server in the middle of a stream, says."""

import pickle
import re

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

import forebay
from forebay import _failure
from forebay.v1 import task_pb2
from support import ROOT


class Failed(grpc.RpcError):
    """A call that has failed, as gRPC tells of it."""

    def __init__(self, code, details, *messages, raw=None):
        packed = []
        for message in messages:
            packed.append(any_pb2.Any())
            packed[-1].Pack(message)
        status = status_pb2.Status(details=packed).SerializeToString()
        self._told = (code, details, [("other", "x"), (_failure.DETAILS, status if raw is None else raw)])

    def code(self):
        return self._told[0]

    def details(self):
        return self._told[1]

    def trailing_metadata(self):
        return self._told[2]


def raised(*arguments, **options):
    return _failure.of_call(Failed(*arguments, **options), "host:1")


def test_details_are_read():
    error = raised(
        grpc.StatusCode.INVALID_ARGUMENT,
        "kind: must match (and 1 more)",
        error_details_pb2.ErrorInfo(reason="invalid_request", domain="forebay", metadata={"state": "running"}),
        error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(field="kind", description="must match"),
                error_details_pb2.BadRequest.FieldViolation(field="tags[1]", description="is empty"),
            ]
        ),
        error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=2, nanos=500_000_000)),
        error_details_pb2.Help(),
    )
    assert type(error) is forebay.InvalidRequestError
    assert (error.code, error.detail, error.retry_after, error.state) == (
        "invalid_request",
        "kind: must match (and 1 more)",
        2.5,
        "running",
    )
    assert error.status == "INVALID_ARGUMENT"
    assert error.violations == (("kind", "must match"), ("tags[1]", "is empty"))
    assert str(error).splitlines()[1:] == ["  kind: must match", "  tags[1]: is empty"]


def test_what_no_server_of_ours_has_said_is_told_apart():
    away = raised(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses; x", raw=b"")
    assert (type(away), away.code) == (forebay.UnavailableError, "not_connected")
    broken = raised(grpc.StatusCode.UNAVAILABLE, "Socket closed", raw=b"\xff spoilt")
    assert (type(broken), broken.code) == (forebay.UnavailableError, "unreachable")
    assert raised(grpc.StatusCode.INTERNAL, "Internal error from Core").code == "unreachable"
    slow = raised(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
    assert (type(slow), slow.code) == (forebay.RequestTimeoutError, "deadline_exceeded")
    assert isinstance(slow, TimeoutError)
    other = raised(grpc.StatusCode.PERMISSION_DENIED, "")
    assert (type(other), other.code, str(other)) == (forebay.ApiError, "permission_denied", "permission_denied (permission_denied)")
    stranger = raised(grpc.StatusCode.UNIMPLEMENTED, "Received http2 header with status: 404", raw=b"")
    assert (type(stranger), stranger.code) == (forebay.ApiError, "unimplemented")
    assert stranger.detail.startswith("host:1 has no gRPC API of Forebay, whose port is 50051")


def test_each_code_is_raised_alike_by_calls_and_within_streams():
    """The table is the server's own."""
    table = (ROOT / "api/src/error.rs").read_text()
    rows = re.findall(r'^    \w+ = "(\w+)", \d+, (\w+), ', table, re.MULTILINE)
    assert len(rows) > 20
    for code, status in rows:
        status = re.sub("(?<!^)([A-Z])", r"_\1", status).upper()
        by_call = raised(grpc.StatusCode[status], "x", error_details_pb2.ErrorInfo(reason=code, domain="forebay"))
        problem = _failure.of_problem(task_pb2.Problem(code=code, detail="x"))
        assert by_call.code == problem.code == code
        # What is no answer to a submission cannot come within its stream.
        if status not in ("UNIMPLEMENTED", "NOT_FOUND", "FAILED_PRECONDITION", "DEADLINE_EXCEEDED"):
            assert type(by_call) is type(problem), code


def test_a_problem_has_all_of_it():
    problem = task_pb2.Problem(
        code="backlog_full",
        detail="no room",
        violations=[task_pb2.FieldViolation(field="kind", description="x")],
        retry_after=duration_pb2.Duration(seconds=2),
    )
    error = _failure.of_problem(problem)
    assert type(error) is forebay.OverloadedError
    assert (error.retry_after, error.violations, error.state, error.status) == (2.0, (("kind", "x"),), None, None)


@pytest.mark.parametrize(
    "error",
    [
        forebay.InvalidRequestError("x", code="invalid_request", violations=[forebay.Violation("a", "b")]),
        forebay.RequestTimeoutError("x", code="deadline_exceeded", retry_after=1.0),
        forebay.WaitTimeoutError("id", 2.0),
        forebay.RetryAfter(3, "m"),
        forebay.Snooze(1.5),
        forebay.Permanent("never"),
        forebay.Cancelled("shutdown"),
    ],
)
def test_errors_survive_being_pickled(error):
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


def test_every_public_name_has_a_description():
    for name in forebay.__all__:
        if name != "__version__":
            assert getattr(forebay, name).__doc__, name
