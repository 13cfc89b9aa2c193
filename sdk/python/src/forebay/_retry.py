"""Tries again what may be tried again: with growing, random pauses, as late as the server asks for, a few times, and
within a budget, so that a thousand callers of a server in trouble do not make four thousand."""

from __future__ import annotations

import random
import threading
import time
from typing import Callable, Optional

from . import errors
from ._failure import NOT_CONNECTED, STREAM_ENDED

ATTEMPTS_MAX = 4
"""How often a call is made, at most."""
PAUSE = 0.2
"""The first pause is random, up to this many seconds; each further one up to twice the one before, up to the next."""
PAUSE_MAX = 5.0
BEGUN_WITHIN = 15.0
"""No attempt begins later than this many seconds after the first."""
STREAM_WITHIN = 30.0
"""A stream that breaks is opened again for so long, as often as it takes: a server may be restarting."""
STABLE_AFTER = 10.0
"""One that has lasted for so long was a good one, even if there was nothing to say: no attempt to connect takes so long."""
BUDGET_SHARE = 0.2
"""Retries may be this share of the calls of late,"""
BUDGET_PER_SECOND = 1.0
"""and one a second in any case."""
BUDGET_SECONDS = 10.0
"""What may be saved up."""

# The server has said no before it took the task, or has ended a stream in good order, and with an answer to all it took.
_SURELY_NOT_ACCEPTED = frozenset({"overloaded", "backlog_full", "shutting_down", NOT_CONNECTED, STREAM_ENDED})


def jitter(attempt: int, first: float = PAUSE, most: float = PAUSE_MAX) -> float:
    """The pause after attempt number `attempt`: up to `first` seconds, twice that the next time, up to `most`."""
    ceiling: float = min(first * 2 ** min(attempt - 1, 32), most)
    return random.random() * ceiling


def may_help(error: errors.ApiError) -> bool:
    """Whether the same call may succeed at another time."""
    return isinstance(error, (errors.UnavailableError, errors.OverloadedError, errors.RequestTimeoutError))


def is_surely_not_accepted(error: errors.ApiError) -> bool:
    """Whether it is safe to submit again what has no idempotency key."""
    return error.code in _SURELY_NOT_ACCEPTED


class Budget:
    """How many retries the calls of one client may have. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._saved = BUDGET_SECONDS * BUDGET_PER_SECOND
        self._at = time.monotonic()

    def deposit(self) -> None:
        """A call is made."""
        with self._lock:
            self._saved = min(self._saved + BUDGET_SHARE, self._most())

    def withdraw(self) -> bool:
        """Whether there is a retry left; it is used up by this."""
        with self._lock:
            now = time.monotonic()
            self._saved = min(self._saved + (now - self._at) * BUDGET_PER_SECOND, self._most())
            self._at = now
            if self._saved < 1:
                return False
            self._saved -= 1
            return True

    @staticmethod
    def _most() -> float:
        return 10 * BUDGET_SECONDS * BUDGET_PER_SECOND


class Tries:
    """The attempts of one call."""

    def __init__(
        self,
        budget: Budget,
        safe: Callable[[errors.ApiError], bool] = may_help,
        attempts_max: Optional[int] = ATTEMPTS_MAX,
        within: float = BEGUN_WITHIN,
    ) -> None:
        self._budget, self._safe = budget, safe
        self._attempts_max, self._within = attempts_max, within
        self._budget.deposit()
        self.begin()

    def begin(self) -> None:
        """Counts anew."""
        self._attempt, self._began = 1, time.monotonic()

    def pause(self, error: errors.ApiError) -> Optional[float]:
        """After how many seconds to try again; `None` where the error stands."""
        if not self._safe(error) or self._attempt == self._attempts_max:
            return None
        pause = (error.retry_after or 0.0) + jitter(self._attempt)
        if time.monotonic() + pause > self._began + self._within or not self._budget.withdraw():
            return None
        self._attempt += 1
        return pause


class StreamTries(Tries):
    """The attempts to keep up a stream. They are counted anew when it has brought something, or has lasted."""

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, may_help, None, STREAM_WITHIN)
        self.opened()

    def opened(self) -> None:
        """The stream is opened."""
        self._opened_at = time.monotonic()

    def pause(self, error: errors.ApiError) -> Optional[float]:
        if time.monotonic() - self._opened_at > STABLE_AFTER:
            self.begin()
        return super().pause(error)
