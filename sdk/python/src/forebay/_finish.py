"""From what a handler returns or raises to what the server is told."""

from __future__ import annotations

import asyncio
import traceback
from typing import Any

from . import outcomes
from ._context import Context, cut
from ._convert import to_duration, to_json
from .v1 import worker_pb2

RESULT_BYTES_MAX = 262_144
"""The largest result, in bytes of JSON."""
MESSAGE_BYTES_MAX = 8 * 1024
"""As much of an error's message is kept."""


def succeeded(result: Any) -> worker_pb2.Finish:
    """It has returned this."""
    try:
        text = to_json(result)
    except (TypeError, ValueError, RecursionError) as error:
        return failed(f"the result is not JSON: {error}", permanent=True)
    if len(text) > RESULT_BYTES_MAX:
        size = f"the result has {len(text)} bytes, and at most {RESULT_BYTES_MAX} are kept"
        return failed(f"{size}: store it elsewhere and return a reference", permanent=True)
    return worker_pb2.Finish(succeeded=worker_pb2.Succeeded(result=text))


def raised(error: BaseException, context: Context) -> worker_pb2.Finish:
    """It has raised this. Never raises: a start whose end is not told holds its place for ever."""
    try:
        return _raised(error, context)
    except BaseException as fault:
        # It cannot be put into words, or asks for a delay that nobody can wait for.
        message = f"{type(error).__qualname__}, which cannot be told ({type(fault).__qualname__})"
        return failed(message, permanent=isinstance(error, outcomes.Permanent))


def _raised(error: BaseException, context: Context) -> worker_pb2.Finish:
    if isinstance(error, outcomes.Snooze):
        return snoozed(error.delay)
    if isinstance(error, (outcomes.Cancelled, asyncio.CancelledError)) and context.cancelled:
        return failed(f"ended early: {context.cancel_reason}")
    said = isinstance(error, (outcomes.Permanent, outcomes.RetryAfter))
    if not said or error.__cause__ is not None:
        # Where people look for it.
        context.log("".join(traceback.format_exception(type(error), error, error.__traceback__)))
    if isinstance(error, outcomes.RetryAfter):
        return failed(str(error), retry_after=error.delay)
    if isinstance(error, outcomes.Permanent):
        return failed(str(error) or "failed for good", permanent=True)
    name, text = type(error).__qualname__, str(error)
    return failed(f"{name}: {text}" if text else name)


def failed(message: str, *, permanent: bool = False, retry_after: float | None = None) -> worker_pb2.Finish:
    """The attempt has failed."""
    outcome = worker_pb2.Failed(message=cut(message, MESSAGE_BYTES_MAX), permanent=permanent)
    if retry_after is not None:
        outcome.retry_after.CopyFrom(to_duration(retry_after, "retry_after"))
    return worker_pb2.Finish(failed=outcome)


def snoozed(delay: float) -> worker_pb2.Finish:
    """It is to be started again later, at no cost."""
    return worker_pb2.Finish(snoozed=worker_pb2.Snoozed(delay=to_duration(delay, "delay")))
