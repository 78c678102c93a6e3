"""The life of a cluster that somebody else has built, from its adoption on, under writers.

Each method is one event of its life: the runbook, and what must be true afterwards.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from tasks.model.inventory_file import load_inventory
from tasks.model.pointers import pointer
from tests.integration.adoptions import adopt, describe, give_key, serials
from tests.integration.members import find_leader
from tests.integration.rotations import authority_digits
from tests.integration.runbooks import Ended, Prefect, etcdctl, run_runbook
from tests.integration.test_check_certificates import check, findings
from tests.integration.test_corruption import SECRET, rot
from tests.integration.writers import DIRECTORY
from tests.lab.etcd_programs import get_programs

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path, PurePosixPath

    from tests.field.layouts import Cluster, File
    from tests.lab.lab import Lab

witness = partial(etcdctl, ssl=DIRECTORY)

CLIENT = """
clients:
- name: writer
  host: master01
  certificate: {directory}/client.pem
  key: {directory}/client-key.pem
  trusted: {directory}/ca.pem
"""


def give_client_files(lab: Lab, cluster: Cluster) -> None:
    """Give writers and etcdctl a pair on every host: a client's, or the one that all share."""
    for name, laid in cluster.hosts.items():
        certificate = next(
            path
            for stem in (f"admin-{name}.pem", "etcd.pem", "tls.crt", "host.pem", "client.pem")
            for path in laid.files
            if path.endswith(f"/{stem}")
        )
        key = certificate.replace(".pem", "-key.pem").replace(".crt", ".key")
        trusted = laid.settings["ETCD_TRUSTED_CA_FILE"]
        lab[name].run(
            f"mkdir -p {DIRECTORY}; cp {trusted} {DIRECTORY}/ca.pem; "
            f"cp {certificate} {DIRECTORY}/client.pem; cp {key} {DIRECTORY}/client-key.pem"
        ).check()


@dataclass(slots=True)
class FieldLife:
    """A cluster on the lab's first hosts; `told` has each run's runbook and seconds."""

    lab: Lab
    cluster: Cluster
    prefect: Prefect
    files: Path
    told: list[str] = field(default_factory=list)

    @property
    def inventory(self) -> Path:
        """Where the adoption writes."""
        return self.files / "adopted.yaml"

    @property
    def members(self) -> list[str]:
        """The hosts that the inventory names now."""
        return [host.name for host in load_inventory(str(self.inventory)).hosts]

    def run(self, runbook: str, *options: str, status: int = 0) -> Ended:
        """Run a runbook, and note how long it took."""
        began = time.monotonic()
        ended = run_runbook(self.prefect, runbook, self.inventory, *options)
        self.told.append(f"{runbook} {time.monotonic() - began:.0f} s")
        assert ended.status == status, ended.output
        return ended

    def adopt(self) -> list[str]:
        """Adopt, give it the authority's key; returns what was remarked."""
        unit = ("--unit", f"{self.cluster.unit}.service")
        ended = adopt(self.prefect, self.lab, self.inventory, *unit)
        assert ended.status == 0, ended.output
        give_key(self.inventory, self.cluster)
        return remarks(ended)

    def check(self) -> None:
        """See full health, sound certificates as desired, and no pair due."""
        ended = self.run("check_health")
        told = [one for one in remarks(ended) if "snapshot" not in one and "space: " not in one]
        assert told == ["asked over HTTPS, with a certificate of this run's"]
        ended, found = check(self.prefect, self.files, self.inventory)
        assert findings(found) == set(), ended.output
        assert [c["findings"] for c in found["clusters"]] == [[]]
        assert ended.status == 0, ended.output

    def rotate(self) -> None:
        """Nothing is due; all of them are exchanged, and are as they were but for their numbers."""
        ended = self.run("rotate_certificates", "--dry-run")
        assert "no pair is due" in ended.stdout, ended.output
        pairs, numbers = describe(self.lab, self.inventory), serials(self.lab, self.inventory)
        self.run("rotate_certificates", "--which", "all")
        assert describe(self.lab, self.inventory) == pairs
        assert not serials(self.lab, self.inventory) & numbers

    def declare_writer(self) -> None:
        """Name the writers' pair, so that an authority's rotation brings it the new one."""
        text = CLIENT.format(directory=DIRECTORY)
        self.inventory.write_text(self.inventory.read_text() + text)

    def make_absent(self, directory: PurePosixPath, stems: Iterable[str], *hosts: str) -> None:
        """See declared clients get pairs on hosts that were made anew, where they have none."""
        files = [directory / f"{stem}.pem" for stem in stems]
        for host in hosts:
            assert not self.lab[host].run(["ls", *map(str, files)]).stdout
        self.run("rotate_certificates")
        verify = ["openssl", "verify", "-CAfile", str(directory / "ca.pem"), *map(str, files)]
        for host in hosts:
            self.lab[host].run(verify).check()

    def rotate_authority(self, *options: str, status: int = 0) -> Ended:
        """Replace the authority that signs now."""
        digits = authority_digits(self.inventory)
        return self.run("rotate_authority", "--replace", digits, *options, status=status)

    def move_leader(self) -> None:
        """Give the leadership to another member, by its own name."""
        leader = find_leader(self.lab, self.members, ssl=DIRECTORY)
        other = next(name for name in self.members if name != leader)
        member = load_inventory(str(self.inventory)).layout(other).member
        self.run("move_leader", "--to", member)
        assert find_leader(self.lab, self.members, ssl=DIRECTORY) == other

    def exchange_certificates(self) -> None:
        """Exchange all pairs, and the authority, with the leader elsewhere in between."""
        self.check()
        self.rotate()
        self.move_leader()
        self.declare_writer()
        self.rotate_authority()
        self.check()

    def recover(self) -> None:
        """Nothing is to be recovered where all is well."""
        ended = self.run("recover_certificates", "--dry-run")
        assert "nothing to do" in ended.stdout, ended.output

    def aim_at(self, version: str, *further: str) -> None:
        """Let the inventory want a version, and know the programs of further ones."""
        with self._edited() as etcd:
            etcd["version"] = version
            etcd["binaries"] = _known(version)
            etcd["versions"] = {one: _known(one) for one in further if one != version}

    def upgrade(self, version: str, *further: str) -> None:
        """Bring all members to a version, by further ones where they are on the way."""
        self.aim_at(version, *further)
        self.run("upgrade_cluster", "--accept", "settings")
        assert self.versions() == {version}

    def versions(self) -> set[str]:
        """Tell which versions the members say they run."""
        rows = json.loads(witness(self.lab, "endpoint", "status", "-w", "json", on="master01"))
        return {row["Status"]["version"] for row in rows}

    def raise_quota(self, size: int) -> None:
        """Give all members another quota, wherever the cluster keeps its settings."""
        with self._edited() as etcd:
            etcd.setdefault("settings", {})["quota_backend_bytes"] = size
        self.run("reclaim_space", "--raise-quota")
        for name in self.members:
            metrics = self.lab[name].run(
                f"curl -fsS --cacert {DIRECTORY}/ca.pem --cert {DIRECTORY}/client.pem --key "
                f"{DIRECTORY}/client-key.pem https://{self.lab[name].address}:2379/metrics"
            )
            found = re.search(r"(?m)^etcd_server_quota_backend_bytes (\S+)$", metrics.stdout)
            assert found
            assert float(found[1]) == size, name

    def repair(self, victim: str) -> None:
        """Change a value behind a member's back: found by the hashes, and healed."""
        witness(self.lab, "put", "told", SECRET, on="master01")
        data = load_inventory(str(self.inventory)).layout(victim).data
        rot(self.lab[victim], f"{self.cluster.unit}.service", str(data))
        self.run("repair_corruption")
        for name in self.members:
            words = ("get", "told", "--print-value-only", "--consistency=s")
            assert witness(self.lab, *words, on=name).strip() == SECRET

    @contextmanager
    def _edited(self) -> Iterator[dict[str, Any]]:
        yaml = YAML()
        found = yaml.load(self.inventory)
        yield found["etcd"]
        yaml.dump(found, self.inventory)

    def address(self, host: str) -> str:
        """Write a host as the runbooks want one that joins."""
        return f"{host}={self.lab[host].address}"

    def replace(self, dead: str, spare: str) -> None:
        """Take the power from a host, and let another join in its place as the cluster is."""
        self.lab[dead].power_cut()
        words = ("--member", dead, "--replacement", self.address(spare), "--write-inventory")
        ended = self.run("replace_member", *words)
        assert f"`systemctl disable --now {self.cluster.unit}.service`" in ended.stdout
        self.see_alike(spare)

    def replace_in_place(self, name: str) -> None:
        """Take everything from a host, and let it join again."""
        self.lab[name].power_cut()
        self.lab[name].reinstall()
        self.run("replace_member", "--member", name)
        self.see_alike(name)

    def add(self, *hosts: str) -> None:
        """Let hosts join."""
        words = [word for host in hosts for word in ("--member", self.address(host))]
        self.run("add_member", *words, "--write-inventory")
        for host in hosts:
            self.see_alike(host)

    def see_alike(self, name: str) -> None:
        """See that a host that joined has the cluster's own unit, settings, modes and owners."""
        first = next(iter(self.cluster.hosts))
        old, new = self.lab[first], self.lab[name]
        for path in settings_files(self.cluster.hosts[first].files):
            lines = [names_of(host.run(["cat", path]).check().stdout) for host in (old, new)]
            assert lines[0] == lines[1], path
        access = ["stat", "-c", "%a %U:%G", str(load_inventory(str(self.inventory)).trusted)]
        known = {
            self.lab[host].run(access).stdout
            for host in self.members
            if host != name and self.lab[host].is_running
        }
        assert new.run(access).check().stdout in known
        listen = new.run("ss -Hltn | awk '{print $4}'").check().stdout.split()
        assert "127.0.0.1:2379" in listen
        assert f"{new.address}:2380" in listen

    def update(self, name: str) -> None:
        """Give a member's host another address: that alone is changed, wherever it stands."""
        self.move(name, self.give_address(name))

    def give_address(self, name: str) -> str:
        """Give a host a second address, from which it reaches the others."""
        host = self.lab[name]
        prefix, _, last = host.address.rpartition(".")
        address = f"{prefix}.{int(last) + 100}"
        link = "$(ip -o address show scope global | awk '{print $2; exit}')"
        route = f"ip route replace {prefix}.0/24 dev {link} src {address}"
        host.run(f"ip address add {address}/24 dev {link}; {route}").check()
        known = self.lab.known_hosts.read_text()
        added = [x.replace(host.address, address) for x in known.splitlines() if host.address in x]
        self.lab.known_hosts.write_text(known + "\n".join(added) + "\n")
        return address

    def move(self, name: str, address: str) -> None:
        """Let a member go to another address of its host's: that alone is changed in its files."""
        host = self.lab[name]
        files = settings_files(self.cluster.hosts[next(iter(self.cluster.hosts))].files)
        before = {path: host.run(["cat", path]).check().stdout for path in files}
        words = ("--member", name, "--address", address, "--write-inventory")
        self.run("update_member", *words)
        for path, text in before.items():
            after = host.run(["cat", path]).check().stdout
            assert after == text.replace(f"//{host.address}:", f"//{address}:"), path

    def remove_while_away(self, away: str, *others: str) -> None:
        """removed-while-away: the report and check_health name the command, and it finishes it."""
        self.lab[away].power_cut()
        words = [word for name in (away, *others) for word in ("--member", name)]
        ended = self.run("remove_member", *words)
        command = pointer("remove_member", member=[away])
        assert command in ended.stdout
        self.lab[away].start()
        unit = self.cluster.unit
        assert "enabled" in self.lab[away].run(f"systemctl is-enabled {unit}").stdout
        member = load_inventory(str(self.inventory)).layout(away).member
        found = self.run("check_health", status=1)
        assert pointer("remove_member", member=[member], write_inventory=True) in found.output
        self.run("remove_member", *words, "--write-inventory")
        assert "disabled" in self.lab[away].run(f"systemctl is-enabled {unit}").stdout
        assert self.lab[away].run(f"systemctl is-active {unit}").stdout.strip() != "active"


def _known(version: str) -> dict[str, object]:
    made = get_programs(version)
    return {"source": "directory", "path": str(made.directory), "sha256": dict(made.sha256)}


def settings_files(files: dict[str, File]) -> list[str]:
    """List what says how etcd runs: the unit, and a file of variables."""
    return [path for path in files if path.endswith((".service", ".env"))]


def names_of(text: str) -> list[str]:
    """List the names of a file's settings in order, whatever their values."""
    return [line.strip().partition("=")[0] for line in text.splitlines()]


def remarks(ended: Ended) -> list[str]:
    """List what a run told beside its table."""
    return [line[2:] for line in ended.stdout.splitlines() if line.startswith("- ")]
