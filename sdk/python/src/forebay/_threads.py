"""Threads for handlers that are plain functions."""

from __future__ import annotations

import logging
import threading
from queue import SimpleQueue
from typing import Callable, Optional

log = logging.getLogger("forebay")


class Threads:
    """As many threads as there was ever work for at once; whoever hands in the work bounds that. They are kept for
    what comes next.

    Unlike those of `concurrent.futures` they do not keep the process from ending: a handler that never returns must
    not outlive its worker, whose tasks are started elsewhere.
    """

    def __init__(self) -> None:
        self._work: SimpleQueue[Optional[Callable[[], None]]] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._count = 0

    def run(self, work: Callable[[], None]) -> None:
        """Runs this at once, in a thread that is idle or a new one. It must not raise."""
        with self._lock:
            if self._idle > 0:
                self._idle -= 1
            else:
                self._count += 1
                threading.Thread(target=self._loop, name=f"forebay-handler-{self._count}", daemon=True).start()
            self._work.put(work)

    def close(self) -> None:
        """Ends the threads, each when it is done with its work."""
        with self._lock:
            for _ in range(self._count):
                self._work.put(None)

    def _loop(self) -> None:
        while True:
            work = self._work.get()
            if work is None:
                return
            try:
                work()
            except BaseException:
                # The thread is counted on.
                log.exception("a handler's thread has failed")
            del work
            with self._lock:
                self._idle += 1
