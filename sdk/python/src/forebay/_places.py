"""How many handlers run at once in this process, whichever streams their tasks came on.

The server keeps to the slots of each stream. But there are two while a server drains, and a handler may go on after its
stream has broken.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping


class Places:
    """Places for handlers, in all and of each kind. Belongs to one event loop."""

    def __init__(self, total: int, by_kind: Mapping[str, int]) -> None:
        self._free = total
        self._by_kind = by_kind
        self._taken: Counter[str] = Counter()
        self._waiting: dict[asyncio.Future[None], str] = {}

    async def take(self, kind: str, within: float) -> bool:
        """Takes a place, or waits for one; `False` where there is none in time."""
        if self._fits(kind):
            self._grant(kind)
            return True
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = kind
        try:
            await asyncio.wait({turn}, timeout=within)
        except asyncio.CancelledError:
            if turn.done():
                self.give(kind)
            raise
        finally:
            self._waiting.pop(turn, None)
        return turn.done()

    def give(self, kind: str) -> None:
        """Gives a place back, to whoever has waited longest and fits."""
        self._free += 1
        self._taken[kind] -= 1
        for turn, wanted in self._waiting.items():
            if self._fits(wanted):
                self._grant(wanted)
                del self._waiting[turn]
                turn.set_result(None)
                return

    def _fits(self, kind: str) -> bool:
        return self._free > 0 and (kind not in self._by_kind or self._taken[kind] < self._by_kind[kind])

    def _grant(self, kind: str) -> None:
        self._free -= 1
        self._taken[kind] += 1
