"""New connections to every member, one after the other: which were refused, and why.

The client's own pair is read once, so that only what the members serve and trust is told; one that
`follows` reads its files each time, as a careful client does while an authority is replaced.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from functools import partial
from typing import TYPE_CHECKING

from tests.lab.watching import Watching

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

REQUEST = b"GET /version HTTP/1.0\r\nHost: etcd\r\n\r\n"
SECONDS = 5.0
PAUSE_SECONDS = 0.02


class Handshakes(Watching):
    """Connects for as long as the block; `files` are a client's, as for `Writers`."""

    def __init__(self, addresses: Mapping[str, str], files: Path, *, follows: bool = False) -> None:
        self._files, self._follows = files, follows
        self._context = self._read()
        self.done = dict.fromkeys(addresses, 0)
        self.refused: dict[str, list[str]] = {name: [] for name in addresses}
        connects = (partial(self._connect, *item) for item in addresses.items())
        super().__init__(PAUSE_SECONDS, *connects)

    def _read(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self._files / "ca.pem"))
        context.load_cert_chain(self._files / "client.pem", self._files / "client-key.pem")
        return context

    def _connect(self, name: str, address: str) -> None:
        if self._follows:
            with contextlib.suppress(OSError):  # between the renames of its own pair
                self._context = self._read()
        context = self._context
        try:
            with (
                socket.create_connection((address, 2379), SECONDS) as plain,
                context.wrap_socket(plain, server_hostname=address) as wrapped,
            ):
                wrapped.sendall(REQUEST)
                said = wrapped.recv(64)
        except OSError as error:
            self.refused[name].append(str(error))
            return
        if b" 200 " in said:
            self.done[name] += 1
        else:
            self.refused[name].append(repr(said))
