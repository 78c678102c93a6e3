"""Asking another host's port, by the script itself, of sockets of this machine's loopback."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tasks.hosts.sessions import dial_command, parse_dials
from tasks.model.observation import Reachability
from tests.contract.local_host import LocalHost

ADDRESSES = ("127.0.0.1", "::1")


@pytest.fixture(params=ADDRESSES)
def silent(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """Listen, as etcd does, without a word before the caller's."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        listener.bind((request.param, 0))
        listener.listen()
        yield request.param, listener.getsockname()[1]


def dial(targets: tuple[tuple[str, str, int], ...], *, hears: bool) -> dict[str, Reachability]:
    """Dial, and tell what each target met."""
    command = dial_command(targets, hears_names=hears)
    (result,) = asyncio.run(LocalHost().run(command))
    return {name: met for (name, _), met in parse_dials(result).items()}


def test_a_silent_port_is_open_at_once(silent: tuple[str, int]) -> None:
    """Where no listener of ours can be, its name is not waited for."""
    began = time.monotonic()
    assert dial((("m2", *silent),), hears=False) == {"m2": Reachability.OPEN}
    quick = time.monotonic() - began
    began = time.monotonic()
    assert dial((("m2", *silent),), hears=True) == {"m2": Reachability.OPEN}
    assert time.monotonic() - began > quick


@pytest.mark.parametrize("hears", [True, False])
@pytest.mark.parametrize("address", ADDRESSES)
def test_a_port_that_nobody_listens_at_is_refused(address: str, *, hears: bool) -> None:
    """And told as such, beside others."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as free:
        free.bind((address, 0))  # bound, and not listening
        port = free.getsockname()[1]
        assert dial((("m2", address, port),), hears=hears) == {"m2": Reachability.REFUSED}


def test_nobody_to_ask_is_no_fault() -> None:
    """A cluster of one, or a host that only writes."""
    assert dial((), hears=False) == {}
