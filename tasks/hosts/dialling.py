"""Connecting TCP to a host: who is up answers at once, and who is not is not waited for long."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Sequence
from typing import Any

ANSWER_SECONDS = 4.0
"""A kernel that is up answers TCP at once, however busy its host: after three unanswered
attempts (0, 1, 3 s) nobody is there. The login has the inventory's longer limit."""


class Unanswered(OSError):
    """Nobody answered: no host is there, or nothing gets through to it."""


class Unresolved(OSError):
    """A name leads nowhere, as far as the runner knows; no host was asked."""


async def dial(address: str, port: int, limit_seconds: float) -> socket.socket:
    """Connect to the first of a name's addresses that takes it.

    Raises Unresolved, Unanswered, and OSError when the host answers that it does not.
    """
    found: Sequence[Any] | None = None
    try:
        async with asyncio.timeout(limit_seconds):
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(address, port, type=socket.SOCK_STREAM)
            return await _dial_each(found)
    except TimeoutError as error:
        if found is None:
            raise Unresolved("no name server answers in time") from error
        raise Unanswered("no answer in time") from error
    except socket.gaierror as error:
        raise Unresolved(error.strerror) from error
    except OSError as error:
        if error.errno == errno.EHOSTUNREACH:
            raise Unanswered("no host answers there") from error
        raise


async def _dial_each(found: Sequence[Any]) -> socket.socket:
    loop = asyncio.get_running_loop()
    failure: OSError = OSError("the name has no address")
    for family, kind, protocol, _, address in found:
        dialled = socket.socket(family, kind, protocol)
        dialled.setblocking(False)
        try:
            await loop.sock_connect(dialled, address)
        except BaseException as error:
            dialled.close()
            if not isinstance(error, OSError):
                raise
            failure = error
        else:
            return dialled
    raise failure
