"""The life of a cluster that somebody else has built, from its adoption on, under writers.

Each method is one event of its life: the runbook, and what must be true afterwards.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from tasks.model.inventory_file import load_inventory
from tests.integration.adoptions import adopt, describe, give_key, serials
from tests.integration.members import find_leader
from tests.integration.rotations import authority_digits
from tests.integration.runbooks import Ended, Prefect, etcdctl, run_runbook
from tests.integration.test_check_certificates import check, findings
from tests.integration.writers import DIRECTORY

if TYPE_CHECKING:
    from pathlib import Path

    from tests.field.layouts import Cluster
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
            for stem in (f"admin-{name}.pem", "etcd.pem")
            for path in laid.files
            if path.endswith(f"/{stem}")
        )
        key = certificate.replace(".pem", "-key.pem")
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
        ended = adopt(self.prefect, self.lab, self.inventory)
        assert ended.status == 0, ended.output
        give_key(self.inventory, self.cluster)
        return remarks(ended)

    def check(self) -> None:
        """See full health, sound certificates as desired, and no pair due."""
        ended = self.run("check_health")
        assert remarks(ended) == ["asked over HTTPS, with a certificate of this run's"]
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

    def recover(self) -> None:
        """Nothing is to be recovered where all is well."""
        ended = self.run("recover_certificates", "--dry-run")
        assert "nothing to do" in ended.stdout, ended.output


def remarks(ended: Ended) -> list[str]:
    """List what a run told beside its table."""
    return [line[2:] for line in ended.stdout.splitlines() if line.startswith("- ")]
