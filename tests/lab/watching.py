"""A look at something again and again, beside what a test does."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class Watching:
    """Calls each of `looks` in a thread of its own, with a pause, for as long as the block."""

    def __init__(self, pause_seconds: float, *looks: Callable[[], None]) -> None:
        self._pause_seconds = pause_seconds
        self._ends = threading.Event()
        self._threads = [
            threading.Thread(target=self._go_on, args=(look,), daemon=True) for look in looks
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _go_on(self, look: Callable[[], None]) -> None:
        while True:
            look()
            if self._ends.wait(self._pause_seconds):
                return
