"""New connections to every member, one after the other: which were refused, and why.

The client's own pair is read once, so that only what the members serve and trust is told.
"""

from __future__ import annotations

import socket
import ssl
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

REQUEST = b"GET /version HTTP/1.0\r\nHost: etcd\r\n\r\n"
SECONDS = 5.0
PAUSE_SECONDS = 0.02


class Handshakes:
    """Connects for as long as the block; `files` are a client's, as for `Writers`."""

    def __init__(self, addresses: Mapping[str, str], files: Path) -> None:
        self._context = ssl.create_default_context(cafile=str(files / "ca.pem"))
        self._context.load_cert_chain(files / "client.pem", files / "client-key.pem")
        self._ends = threading.Event()
        self.done = dict.fromkeys(addresses, 0)
        self.refused: dict[str, list[str]] = {name: [] for name in addresses}
        self._threads = [
            threading.Thread(target=self._connect, args=item, daemon=True)
            for item in addresses.items()
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

    def _connect(self, name: str, address: str) -> None:
        while not self._ends.wait(PAUSE_SECONDS):
            try:
                with (
                    socket.create_connection((address, 2379), SECONDS) as plain,
                    self._context.wrap_socket(plain, server_hostname=address) as wrapped,
                ):
                    wrapped.sendall(REQUEST)
                    said = wrapped.recv(64)
            except OSError as error:
                self.refused[name].append(str(error))
                continue
            if b" 200 " in said:
                self.done[name] += 1
            else:
                self.refused[name].append(repr(said))
