"""From what gRPC says to what this package raises."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from . import errors
from ._convert import seconds
from .v1 import task_pb2

DETAILS = "grpc-status-details-bin"
# Codes of our own, where no server gave one: it broke off or was never answered; there was no connection, so nothing
# was sent; it took too long, which a server that notices first calls the same; and it ended a stream in good order, but
# early.
UNREACHABLE = "unreachable"
NOT_CONNECTED = "not_connected"
DEADLINE_EXCEEDED = "deadline_exceeded"
STREAM_ENDED = "stream_ended"

# gRPC tells these apart by its words alone. Where the words change, fewer calls are tried again.
_NEVER_SENT = ("failed to connect to all addresses", "DNS resolution failed")

_BY_STATUS: dict[grpc.StatusCode, type[errors.ApiError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidRequestError,
    grpc.StatusCode.NOT_FOUND: errors.NotFoundError,
    grpc.StatusCode.FAILED_PRECONDITION: errors.ConflictError,
    grpc.StatusCode.ALREADY_EXISTS: errors.IdempotencyKeyReusedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.OverloadedError,
    grpc.StatusCode.UNAVAILABLE: errors.UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.RequestTimeoutError,
}

# Codes that a program may want to tell apart from others of the same status.
_APART: dict[str, type[errors.ApiError]] = {"unique_conflict": errors.ConflictError}

# A problem within a stream has a code and no status. What is not here is the request's fault.
_BY_CODE: dict[str, type[errors.ApiError]] = {
    **_APART,
    "idempotency_key_reused": errors.IdempotencyKeyReusedError,
    "backlog_full": errors.OverloadedError,
    "overloaded": errors.UnavailableError,
    "broker_unavailable": errors.UnavailableError,
    "store_unavailable": errors.UnavailableError,
    "not_yet_recorded": errors.UnavailableError,
    "shutting_down": errors.UnavailableError,
    "internal": errors.ApiError,
}


def of_call(error: grpc.RpcError, target: str) -> errors.ApiError:
    """The error of a call that gRPC says has failed. `target` is whom it was made to."""
    status: grpc.StatusCode = error.code()
    detail: str = error.details() or ""
    fields: dict[str, Any] = {"status": status.name}
    for message in _details(error):
        if isinstance(message, error_details_pb2.ErrorInfo):
            fields["code"] = message.reason
            fields["state"] = message.metadata.get("state")
        elif isinstance(message, error_details_pb2.BadRequest):
            fields["violations"] = [errors.Violation(v.field, v.description) for v in message.field_violations]
        elif isinstance(message, error_details_pb2.RetryInfo):
            fields["retry_after"] = seconds(message.retry_delay)
    if "code" not in fields:
        # No server of ours said this: it is gRPC's own. Where a server ends a stream just when grpc.aio sends something,
        # that hides what the server said behind an INTERNAL of its own: then nobody knows what became of what was sent.
        if status in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL):
            status = grpc.StatusCode.UNAVAILABLE
            fields["code"] = NOT_CONNECTED if detail.startswith(_NEVER_SENT) else UNREACHABLE
            detail = f"cannot reach {target}: {detail}"
        elif status is grpc.StatusCode.DEADLINE_EXCEEDED:
            fields["code"], detail = DEADLINE_EXCEEDED, f"{target} did not answer in time"
        elif status is grpc.StatusCode.UNIMPLEMENTED:
            fields["code"] = status.name.lower()
            detail = f"{target} has no gRPC API of Forebay, whose port is 50051 unless set otherwise: {detail}"
        else:
            fields["code"], detail = status.name.lower(), detail or status.name.lower()
    kind = _APART.get(fields["code"]) or _BY_STATUS.get(status, errors.ApiError)
    return kind(detail, **fields)


def of_problem(problem: task_pb2.Problem) -> errors.ApiError:
    """The error that is told of one request within a stream."""
    kind = _BY_CODE.get(problem.code, errors.InvalidRequestError)
    return kind(
        problem.detail,
        code=problem.code,
        violations=[errors.Violation(v.field, v.description) for v in problem.violations],
        retry_after=seconds(problem.retry_after) if problem.HasField("retry_after") else None,
    )


def _details(error: grpc.RpcError) -> list[Any]:
    trailing: Any = error.trailing_metadata() or ()
    # No dict(…): what grpc.aio gives looks like one to it, and is none.
    trailers = {key: value for key, value in trailing}
    if DETAILS not in trailers:
        return []
    known = (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)
    messages = []
    try:
        for any_message in status_pb2.Status.FromString(trailers[DETAILS]).details:
            for kind in known:
                if any_message.Is(kind.DESCRIPTOR):
                    messages.append(kind.FromString(any_message.value))
    except DecodeError:
        # Whoever is in between has spoilt them. The status itself is left.
        return []
    return messages
