"""What a handler raises to say what should become of its task. Whatever else it raises is tried again, while the task
has attempts left."""

from __future__ import annotations

from ._convert import Seconds, to_seconds


class Permanent(Exception):
    """Another attempt is no use: the task fails for good."""


class RetryAfter(Exception):
    """The attempt has failed, and another makes sense after `delay`."""

    def __init__(self, delay: Seconds, message: str = "") -> None:
        self.delay = _delay(delay)
        super().__init__(delay, message)
        self.message = message

    def __str__(self) -> str:
        return self.message or f"to be tried again after {self.delay:g} s"


class Snooze(Exception):
    """Nothing went wrong, it is too early: start the task again after `delay`. Uses up no attempt."""

    def __init__(self, delay: Seconds) -> None:
        self.delay = _delay(delay)
        super().__init__(delay)

    def __str__(self) -> str:
        return f"snoozed for {self.delay:g} s"


class Cancelled(Exception):
    """The attempt should end, and does. Raised by `Context.raise_if_cancelled` and `Context.sleep`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _delay(delay: Seconds) -> float:
    seconds = to_seconds(delay)
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"a delay must be a number of seconds, and not negative: {delay!r}")
    return seconds
