"""Connecting TCP to a host: who is up answers at once, and who is not is not waited for long."""

from __future__ import annotations

import asyncio
import errno
import socket

ANSWER_SECONDS = 4.0
"""A kernel that is up answers TCP at once, however busy its host: after three unanswered
attempts (0, 1, 3 s) nobody is there. The login has the inventory's longer limit."""


class Unanswered(OSError):
    """Nobody answered: no host is there, or nothing gets through to it."""


async def dial(address: str, port: int, limit_seconds: float) -> socket.socket:
    """Connect to the first of a name's addresses that takes it.

    Raises Unanswered, and OSError when the host answers that it does not.
    """
    try:
        async with asyncio.timeout(limit_seconds):
            return await _dial_each(address, port)
    except TimeoutError as error:
        raise Unanswered("no answer in time") from error
    except OSError as error:
        if error.errno == errno.EHOSTUNREACH:
            raise Unanswered("no host answers there") from error
        raise


async def _dial_each(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    failure: OSError = OSError("the name has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    ):
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
