"""Passphrases of SSH keys, asked for at the command line before a run begins.

What is typed stays in this process's memory. Where there is no terminal, nothing is asked: the run
is refused with the ways out.
"""

from __future__ import annotations

import asyncio
import getpass
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tasks.hosts.keys import find_locked, try_passphrase
from tasks.hosts.ways import find_way
from tasks.model.errors import RunbookError
from tasks.model.inventory_file import load_inventory
from tasks.model.machines import Host

ATTEMPTS = 3


def unlock_keys(clusters: Iterable[str], keys: Iterable[str]) -> None:
    """Ask for the passphrase of each key that needs one: of inventories, and of those named.

    One that the inventory points to, or that an agent makes unnecessary, is not asked for.
    """
    if not sys.stdin.isatty():
        return
    found = [Path(key).expanduser().absolute() for key in keys]
    for cluster in clusters:
        with suppress(RunbookError):  # the run says what is wrong with the inventory
            inventory = load_inventory(cluster)
            others = (*inventory.clients, *inventory.dependents)
            own = [Host(name=o.name, address=o.address, ssh=o.ssh) for o in others if not o.host]
            for host in (*inventory.hosts, *own):
                way = find_way(host, inventory.ssh)
                for leg in (*way.jumps, way.host):
                    found += [] if leg.passphrase else leg.keys
    for path in asyncio.run(find_locked(tuple(dict.fromkeys(found)))):
        for _ in range(ATTEMPTS):
            said = getpass.getpass(f"Passphrase of {path}: ")
            if not said or try_passphrase(path, said.encode()):
                break
