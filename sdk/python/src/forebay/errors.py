"""What calls raise.

`ForebayError` is above all of them. What a server refused is an `ApiError` with the stable `code` that is listed under
docs/errors; its subclasses are what a program may want to tell apart.
"""

from __future__ import annotations

from typing import NamedTuple, Optional, Sequence


class ForebayError(Exception):
    """Above every error that this package raises by itself."""


class Violation(NamedTuple):
    """One field of a request that is at fault."""

    field: str
    """Where: `payload`, `tags[1]`."""
    description: str
    """What is wrong and what is allowed."""


class ApiError(ForebayError):
    """A call did not succeed."""

    code: str
    """The stable name of the error, such as `invalid_request`. Where no server of Forebay has answered, `not_connected`
    (nothing was sent), `unreachable` (it broke off), `stream_ended`, or the name of gRPC's status."""
    detail: str
    """What went wrong this time, in words."""
    violations: tuple[Violation, ...]
    """The fields at fault."""
    retry_after: Optional[float]
    """How many seconds to wait before trying again; `None` where trying the same again is no use, or nobody knows."""
    state: Optional[str]
    """The state of the task, where that is what forbids it."""
    status: Optional[str]
    """The status of gRPC, such as `UNAVAILABLE`; `None` where a stream told of one of many."""

    def __init__(
        self,
        detail: str,
        *,
        code: str = "unknown",
        violations: Sequence[Violation] = (),
        retry_after: Optional[float] = None,
        state: Optional[str] = None,
        status: Optional[str] = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.violations = tuple(violations)
        self.retry_after = retry_after
        self.state = state
        self.status = status

    def __str__(self) -> str:
        text = f"{self.detail} ({self.code})"
        # The detail tells a single field at fault already.
        if len(self.violations) > 1:
            text += "".join(f"\n  {field}: {description}" for field, description in self.violations)
        return text

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions are pickled by their positional arguments alone, unless said otherwise.
        return (_unpickled, (type(self), self.__dict__.copy(), self.detail))


def _unpickled(kind: type[ApiError], attributes: dict[str, object], detail: str) -> ApiError:
    error = kind(detail)
    error.__dict__.update(attributes)
    return error


class InvalidRequestError(ApiError):
    """The request is at fault, and will be again. `violations` names each field."""


class NotFoundError(ApiError):
    """There is no such task, queue, schedule or limit."""


class ConflictError(ApiError):
    """The task's `state` does not allow this; or, where the code is `unique_conflict`, there is a task that the new one may
    not stand beside."""


class IdempotencyKeyReusedError(ApiError):
    """The idempotency key is in use with another request."""


class OverloadedError(ApiError):
    """There is no room for more tasks at the moment."""


class UnavailableError(ApiError):
    """Nobody can serve this at the moment: no server, or one whose broker or store is away."""


class RequestTimeoutError(ApiError, TimeoutError):
    """No answer came in time."""


class WaitTimeoutError(ForebayError, TimeoutError):
    """The task was not final within the time that was given to it. It goes on."""

    task_id: str
    """Which task."""

    def __init__(self, task_id: str, timeout: float) -> None:
        super().__init__(task_id, timeout)
        self.task_id = task_id
        self.timeout = timeout

    def __str__(self) -> str:
        return f"the task {self.task_id} was not final within {self.timeout:g} s"
