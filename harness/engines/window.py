"""How many requests a server is sent at once: as many as it bears."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

START = 8
"""Requests at once before anything is known of the server."""
SLOWDOWN = 4.0
"""Where a token takes so many times as long as when the server was fastest, more requests would only queue there."""

_SMOOTHING = 0.1  # weight of the latest reply in the average pace
_FORGETTING = 1.01  # so that one lucky reply is no yardstick for ever: it counts for half after 70 replies

_log = logging.getLogger(__name__)


class Window:
    """Lets requests pass, in order, while fewer than `limit` are under way. For one event loop.

    The limit grows by one with each reply until the server first complains, later by one in each round of replies. A
    complaint halves it, once for all requests that were sent before (additive increase, multiplicative decrease, as TCP
    does). It does not grow while replies are much slower than they have been.
    """

    def __init__(self, most: int) -> None:
        """Open.

        Args:
            most: the largest limit, at least 1.
        """
        self.limit = float(min(START, most))
        self._most = most
        self._in_use = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._round = 0
        self._not_before = 0.0
        self._pace_s: float | None = None
        self._best_pace_s = float("inf")

    @asynccontextmanager
    async def place(self) -> AsyncIterator[int]:
        """Wait for a place and hold it; gives the round, to be passed to `complained`."""
        await self._enter()
        try:
            loop = asyncio.get_running_loop()
            while (pause_s := self._not_before - loop.time()) > 0:
                await asyncio.sleep(pause_s)
            yield self._round
        finally:
            self._leave()

    def answered(self, pace_s: float) -> None:
        """Count a reply.

        Args:
            pace_s: seconds that it took, divided by its tokens.
        """
        old = self._pace_s
        self._pace_s = pace_s if old is None else old + _SMOOTHING * (pace_s - old)
        self._best_pace_s = min(self._best_pace_s * _FORGETTING, self._pace_s)
        # Replies with few requests under way say nothing about what more would do.
        if self._pace_s <= SLOWDOWN * self._best_pace_s and 2 * self._in_use >= self.limit:
            self.limit = min(self._most, self.limit + (1 / self.limit if self._round else 1))
            self._wake()

    def complained(self, round_: int, *, pause_s: float = 0) -> None:
        """Count a reply that says that there are too many requests, or none in time.

        Args:
            round_: of the request.
            pause_s: for how long nothing is to be sent.
        """
        if pause_s > 0:
            self._not_before = max(self._not_before, asyncio.get_running_loop().time() + pause_s)
        if round_ < self._round:
            return
        if not self._round:
            _log.warning("the server cannot answer %d requests at once: sending fewer", int(self.limit))
        self._round += 1
        self.limit = max(1.0, self.limit / 2)

    async def _enter(self) -> None:
        if self._in_use < int(self.limit) and not self._waiting:
            self._in_use += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with suppress(ValueError):  # `_wake` may have passed over it
                    self._waiting.remove(turn)
            else:  # the place has been given to it already
                self._leave()
            raise

    def _leave(self) -> None:
        self._in_use -= 1
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self._in_use < int(self.limit):
            turn = self._waiting.popleft()
            if not turn.cancelled():
                self._in_use += 1
                turn.set_result(None)
