"""The user as whom etcd is asked where its authentication (RBAC) is on, and that user's token.

Logging in goes through etcd's log, so that a token is good at every member. Each member forgets a
simple one when it restarts, and five minutes after it was last shown to that member: what is known
of a token is what the last answer said. Neither password nor token is in any text made here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

from tasks.etcd import wire
from tasks.model.errors import RunbookError

PAUSE_SECONDS = 1.0
"""So long after a log-in, failed or not, there is no other one."""
SPREAD_SECONDS = 0.05
"""A member knows a token once it has applied the log-in, a moment after the leader."""


class Login:
    """A user, its password and its present token; belongs to one event loop."""

    def __init__(self, user: str, password: str) -> None:
        self.user = user
        self.token: str | None = None
        self._password = password
        self._since = float("-inf")
        self._locks: dict[str, asyncio.Lock] = {}
        self._failures: dict[str, tuple[float, RunbookError]] = {}

    def __repr__(self) -> str:
        return f"Login({self.user!r})"

    def apart(self) -> Login:
        """Make another one of the same user, for another event loop."""
        return Login(self.user, self._password)

    @property
    def call(self) -> wire.Call:
        """The call that logs in."""
        return wire.authenticate(self.user, self._password)

    async def renew(
        self, url: str, refused: str | None, log_in: Callable[[], Awaitable[str]]
    ) -> None:
        """Get another token than the one that the member at `url` refused; one log-in for all.

        A new one is not made before it had time to reach that member. Raises what `log_in` raises,
        for a second without asking again.
        """
        async with self._locks.setdefault(url, asyncio.Lock()):
            if self.token != refused:
                return
            failed_at, failure = self._failures.get(url, (float("-inf"), None))
            if failure is not None and monotonic() - failed_at < PAUSE_SECONDS:
                raise failure
            if monotonic() - self._since < PAUSE_SECONDS:
                await asyncio.sleep(SPREAD_SECONDS)
                return
            try:
                token = await log_in()
            except RunbookError as error:
                self._failures[url] = monotonic(), error
                raise
            self.token, self._since = token, monotonic()
