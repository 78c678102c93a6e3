"""A lab: real hosts with systemd and sshd on a bridge of their own, from `start` to `down`."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from tests.lab import cgroups, network, teardown
from tests.lab.credentials import (
    authority_path,
    key_path,
    known_hosts_path,
    make_credentials,
    trust,
)
from tests.lab.errors import LabError
from tests.lab.etcd_programs import DEFAULT, get_programs
from tests.lab.host import Host
from tests.lab.installation import write_hosts
from tests.lab.inventory import check_place, write_inventory
from tests.lab.kubernetes import node
from tests.lab.kubernetes.programs import ETCD, get_kubernetes
from tests.lab.preparedness import unavailable_reason
from tests.lab.state import (
    NAME,
    STATE,
    LabRecord,
    Owner,
    boot_id,
    lab_group,
    list_records,
    locked,
    read_record,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

EtcdSource = Literal["directory", "installed"]
"""Where the inventory says etcd's programs are: on the runner, or on the hosts already."""


class Lab:
    """The hosts that one call of `start` began; a context manager that ends with `down`."""

    def __init__(self, record: LabRecord) -> None:
        self.record = record
        self.hosts = {name: Host(record, name, number) for name, number in record.hosts.items()}

    @classmethod
    def start(
        cls,
        name: str | None = None,
        *,
        hosts: int | Sequence[str] = 3,
        subnet: str | None = None,
        etcd: str = DEFAULT,
        etcd_source: EtcdSource = "directory",
        data_disk_mb: int | None = None,
        kubernetes: str | None = None,
        inventory: Path | None = None,
        owned: bool = True,
    ) -> Self:
        """Start a lab and return it when every host answers on port 22.

        `hosts` is a number (master01, master02, …) or names. `subnet` is the first free of
        10.77.N.0/24 unless given. `data_disk_mb` gives /var/lib a disk of that size that can be
        filled. `kubernetes` is a release that the hosts shall be nodes of: they have its programs
        and images, a container runtime that runs, and no cluster yet (`KubernetesCluster.form`);
        etcd's version is that release's then. The inventory file is written to `inventory`, or
        beside the lab's other files. An `owned` lab is removed by the next lab command or session
        once this process is dead.

        LabError says what is missing or taken; what had been started by then is gone again.
        """
        if (reason := unavailable_reason()) is not None:
            raise LabError(reason)
        if kubernetes is not None:
            if (reason := node.unavailable_reason()) is not None:
                raise LabError(reason)
            node.make_room()
            etcd = ETCD[get_kubernetes(kubernetes).version]
        programs = get_programs(etcd)
        own = cgroups.list_own_groups(controllers=kubernetes is not None)
        names = [f"master{n:02d}" for n in range(1, hosts + 1)] if isinstance(hosts, int) else hosts
        name = name or f"lab-{secrets.token_hex(3)}"
        record = LabRecord(
            name=name,
            slot=-1,
            subnet=subnet or "",
            boot=boot_id(),
            cgroups=tuple(str(group / lab_group(name)) for group in own),
            owner=Owner.current() if owned else None,
            inventory=str((inventory or STATE / name / f"{name}.yaml").absolute()),
            etcd=programs.version,
            etcd_source=etcd_source,
            data_disk_mb=data_disk_mb,
            kubernetes=kubernetes,
        )
        record = _register(record, names)
        lab = cls(record)
        try:
            network.make_bridge(record)
            make_credentials(record)
            check_place(lab.inventory)
            lab.inventory.parent.mkdir(parents=True, exist_ok=True)
            write_inventory(record, programs)
            lab._raise_hosts(list(lab.hosts.values()))
        except BaseException:
            teardown.remove(record)
            raise
        return lab

    @classmethod
    def get(cls, name: str) -> Self:
        """Find a lab that is up; LabError names those that are when it is not."""
        return cls(read_record(name))

    @property
    def name(self) -> str:
        """The lab's name, unique on this machine."""
        return self.record.name

    @property
    def directory(self) -> Path:
        """The lab's state: keys, known_hosts, authority, consoles."""
        return self.record.directory

    @property
    def gateway(self) -> str:
        """The runner's address on the lab's bridge."""
        return str(self.record.gateway)

    @property
    def key(self) -> Path:
        """The operator's private SSH key."""
        return key_path(self.record)

    @property
    def known_hosts(self) -> Path:
        """The hosts' SSH keys."""
        return known_hosts_path(self.record)

    @property
    def authority(self) -> Path:
        """The directory for the authority's files; holds `passphrase`."""
        return authority_path(self.record)

    @property
    def inventory(self) -> Path:
        """The inventory file for the project's command line."""
        return Path(self.record.inventory)

    def add_host(self, name: str | None = None) -> Host:
        """Start one more host (the next masterNN unless named); the inventory names it too."""
        with locked():
            record = read_record(self.name)
            record = record.with_host(name or f"master{len(record.hosts) + 1:02d}")
            record.write()
        self.record = record
        added, number = list(record.hosts.items())[-1]
        host = self.hosts[added] = Host(record, added, number)
        for other in self.hosts.values():
            if other is not host:
                write_hosts(other.root / "etc", record.addresses())
        self._raise_hosts([host])
        write_inventory(record, get_programs(record.etcd))
        return host

    def down(self) -> None:
        """Remove everything; a lab that is down already is no error."""
        teardown.remove(self.record)

    def __getitem__(self, name: str) -> Host:
        try:
            return self.hosts[name]
        except KeyError:
            known = ", ".join(self.hosts)
            raise LabError(f"{self.name} has no host {name!r}, but {known}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.down()

    def _raise_hosts(self, hosts: Sequence[Host]) -> None:
        """Install and boot hosts, all at once; the first error is raised when all have ended."""
        addresses = self.record.addresses()

        def raise_host(host: Host) -> None:
            host.install()
            write_hosts(host.root / "etc", addresses)
            trust(self.record, host.address, host.host_key)
            host.start()

        with ThreadPoolExecutor(len(hosts)) as pool:
            for ended in [pool.submit(raise_host, host) for host in hosts]:
                ended.result()


def _register(record: LabRecord, names: Sequence[str]) -> LabRecord:
    """Give a lab its slot and subnet, and write its record; LabError when its name is taken."""
    if not NAME.fullmatch(record.name):
        raise LabError(
            f"a lab cannot be named {record.name!r}: up to 31 of a-z, 0-9 and -, a letter first"
        )
    if not names:
        raise LabError(f"{record.name} needs at least one host")
    with locked():
        teardown.reap_under_lock()
        others = list_records()
        if record.directory.exists():
            raise LabError(
                f"a lab named {record.name} is up: choose another name, or end it with "
                f"`python -m tests.lab down --name {record.name}`"
            )
        slots, links = {other.slot for other in others}, network.list_links()
        slot = next(n for n in range(256) if n not in slots and f"etcdlab{n}" not in links)
        taken = [other.network for other in others]
        if record.subnet:
            subnet = network.check_subnet(record.subnet, taken)
        else:
            subnet = network.choose_subnet(taken)
        record = replace(record, slot=slot, subnet=str(subnet))
        for name in names:
            record = record.with_host(name)
        record.create()
    return record
