"""New connections to every member, one after the other: which were refused, and why.

The client's own pair is read once, so that only what the members serve and trust is told.
"""

from __future__ import annotations

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

    def __init__(self, addresses: Mapping[str, str], files: Path) -> None:
        self._context = ssl.create_default_context(cafile=str(files / "ca.pem"))
        self._context.load_cert_chain(files / "client.pem", files / "client-key.pem")
        self.done = dict.fromkeys(addresses, 0)
        self.refused: dict[str, list[str]] = {name: [] for name in addresses}
        connects = (partial(self._connect, *item) for item in addresses.items())
        super().__init__(PAUSE_SECONDS, *connects)

    def _connect(self, name: str, address: str) -> None:
        try:
            with (
                socket.create_connection((address, 2379), SECONDS) as plain,
                self._context.wrap_socket(plain, server_hostname=address) as wrapped,
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
