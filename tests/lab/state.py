"""What is known about each lab, kept under STATE so that any process can find and end it.

One directory a lab; `lab.json` in it is written whole or not at all, before anything is started.
Owns no process, mount or link: `teardown` finds those by the names that are defined here.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

STATE = Path("/run/etcd-runbooks-lab")

DISKS = Path("/var/cache/etcd-runbooks-lab/disks")
"""Where hosts keep what can lie neither on an overlay nor in memory; one directory a lab."""

UNBORN, GONE = ".unborn.", ".gone."
"""How directories begin that are not yet, or no more, a lab's; no name of a lab begins so."""

FIRST_HOST = 11
"""The last octet of the first host's address; the bridge (the runner) is .1."""

NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


def lab_group(name: str) -> str:
    """Name the control group above all of a lab's processes."""
    return f"etcd-runbooks-lab.{name}"


@dataclass(frozen=True, slots=True)
class Owner:
    """The process a lab belongs to; start time and boot tell it from a later one of its id."""

    pid: int
    started: int
    boot: str

    @classmethod
    def current(cls) -> Self:
        """Name this process."""
        return cls(os.getpid(), _start_time(os.getpid()) or 0, boot_id())

    @property
    def is_alive(self) -> bool:
        """Tell whether that very process still runs."""
        return self.boot == boot_id() and self.started == _start_time(self.pid)


@dataclass(frozen=True, slots=True)
class LabRecord:
    """One lab as it was asked for. `hosts` maps names to the last octets of addresses.

    `owner` is None for a lab that stays until `down`. `cgroups` are the directories of the control
    group above all of its processes. `kubernetes` is the release that the hosts are made nodes for,
    None for hosts without any. `slot` is unique among the labs of this machine and keeps
    link names within IFNAMSIZ (15 characters). `identity` tells a lab from a later one of its
    name or slot.
    """

    name: str
    slot: int
    subnet: str
    boot: str
    cgroups: tuple[str, ...]
    owner: Owner | None
    inventory: str
    etcd: str
    etcd_source: str
    data_disk_mb: int | None
    kubernetes: str | None = None
    hosts: Mapping[str, int] = field(default_factory=dict)
    identity: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def directory(self) -> Path:
        """Everything of this lab, mounts included."""
        return STATE / self.name

    @property
    def disks(self) -> Path:
        """What of its hosts lies on this machine's disk."""
        return DISKS / self.name

    @property
    def bridge(self) -> str:
        """The bridge's link name."""
        return f"etcdlab{self.slot}"

    @property
    def cable_prefix(self) -> str:
        """How the link names of this lab's cables begin; a number follows."""
        return f"el{self.slot}h"

    def cgroup(self, host: str = "") -> list[Path]:
        """List the directories of a host's control group, or of the whole lab's."""
        return [Path(directory) / host for directory in self.cgroups]

    @property
    def network(self) -> IPv4Network:
        """The subnet."""
        return IPv4Network(self.subnet)

    @property
    def gateway(self) -> IPv4Address:
        """The runner's address on the bridge."""
        return self.network.network_address + 1

    def address(self, number: int) -> IPv4Address:
        """Tell the address of the host with that number."""
        return self.network.network_address + number

    @property
    def is_abandoned(self) -> bool:
        """Tell whether nobody can want it: its owner died, or the machine was restarted."""
        return self.boot != boot_id() or (self.owner is not None and not self.owner.is_alive)

    def addresses(self) -> dict[str, str]:
        """Map the hosts' names to their addresses."""
        return {name: str(self.address(number)) for name, number in self.hosts.items()}

    def with_host(self, name: str) -> LabRecord:
        """Return the record with one more host, of the next free number."""
        if not NAME.fullmatch(name):
            raise LabError(
                f"a host cannot be named {name!r}: up to 31 of a-z, 0-9 and -, a letter first"
            )
        if name in self.hosts:
            raise LabError(f"{self.name} has a host {name} already: choose another name")
        number = max(self.hosts.values(), default=FIRST_HOST - 1) + 1
        network = self.network
        if not network.network_address < self.address(number) < network.broadcast_address:
            raise LabError(
                f"{self.subnet} has no room for {name}: start the lab on a larger subnet"
            )
        return replace(self, hosts={**self.hosts, name: number})

    def create(self) -> None:
        """Make the lab's directory with its record in it, or nothing. Hold the lock."""
        unborn = STATE / f"{UNBORN}{self.name}.{os.getpid()}"
        unborn.mkdir(mode=0o755)
        (unborn / "lab.json").write_text(json.dumps(asdict(self), indent=1))
        unborn.rename(self.directory)

    def write(self) -> None:
        """Write `lab.json` whole, or leave the old one."""
        path = self.directory / "lab.json"
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(asdict(self), indent=1))
        temporary.rename(path)


def read_record(name: str) -> LabRecord:
    """Read a lab's record; LabError says which labs there are when there is none of that name."""
    try:
        raw: dict[str, Any] = json.loads((STATE / name / "lab.json").read_text())
    except FileNotFoundError:
        known = ", ".join(record.name for record in list_records()) or "none"
        raise LabError(f"no lab is named {name!r} (labs that are up: {known})") from None
    owner = raw.pop("owner")
    cgroups = tuple(raw.pop("cgroups"))
    # Another checkout's lab may have facts that this one does not know.
    ours = {each.name for each in fields(LabRecord)} & set(raw)
    return LabRecord(
        owner=owner and Owner(**owner), cgroups=cgroups, **{fact: raw[fact] for fact in ours}
    )


def list_records() -> list[LabRecord]:
    """Read every lab's record, by name; a lab that is going down at this moment is left out."""
    records = []
    for path in sorted(STATE.glob("*/lab.json")):
        try:
            records.append(read_record(path.parent.name))
        except LabError:
            continue
    return records


@contextmanager
def locked() -> Iterator[None]:
    """Hold the machine's lab lock: names, slots and subnets are given out under it."""
    STATE.mkdir(mode=0o755, exist_ok=True)
    with (STATE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def boot_id() -> str:
    """Tell this boot of the machine from others."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start_time(pid: int) -> int | None:
    """Read when a process started, in clock ticks since boot; None when it runs no more."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = stat[stat.rindex(")") + 2 :].split()
    return None if state in "ZX" else int(fields[18])
