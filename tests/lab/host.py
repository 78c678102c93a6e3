"""A host and the faults that can befall it. Every fault has its undoing beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.lab import clock, network
from tests.lab.credentials import trust
from tests.lab.errors import LabError
from tests.lab.installation import OPERATOR, write_hosts
from tests.lab.machine import Machine
from tests.lab.state import read_record

if TYPE_CHECKING:
    from pathlib import Path


class Host(Machine):
    """A host of a lab: `start`, `stop`, `power_cut` and `run` of its machine, and faults."""

    __slots__ = ()

    def cut_cable(self) -> None:
        """Take the link down, until `plug_cable`; also over a restart of the host."""
        (self.directory / "unplugged").touch()
        self._set_plugged()

    def plug_cable(self) -> None:
        """Bring the link up again."""
        (self.directory / "unplugged").unlink(missing_ok=True)
        self._set_plugged()

    def freeze(self, unit: str) -> None:
        """Stop every process of a unit where it is (SIGSTOP); systemd still takes it for active."""
        self._signal(unit, "SIGSTOP")

    def thaw(self, unit: str) -> None:
        """Let a frozen unit's processes run on (SIGCONT)."""
        self._signal(unit, "SIGCONT")

    def fill_disk(self) -> None:
        """Fill the data disk (/var/lib) to the last byte; LabError without `data_disk_mb`."""
        filler = self._filler()
        block = bytes(1 << 16)
        with filler.open("ab", buffering=0) as file:
            while block:
                try:
                    file.write(block)
                except OSError:
                    block = block[: len(block) // 2]

    def free_disk(self) -> None:
        """Give back what `fill_disk` took."""
        self._filler().unlink(missing_ok=True)

    def skew_clock(self, seconds: int) -> None:
        """Let programs that start from now on see a clock that is `seconds` ahead (or behind).

        Only what asks libc: date, bash, openssl, sudo, new SSH sessions. Processes that run
        already, Go programs (etcd) and the kernel (file times, the journal) keep the true time.
        0 undoes it.
        """
        clock.skew(self.root, self.lab.directory, seconds)

    def block_port(self, port: int) -> None:
        """Drop what others send to a TCP port of this host; the host itself still reaches it.

        Needs a running host and ends with its power.
        """
        self._running_namespace()
        network.block_port(self.namespace, port)

    def unblock_port(self, port: int) -> None:
        """Let a blocked port be reached again."""
        network.unblock_port(self._running_namespace(), port)

    def revoke_sudo(self) -> None:
        """Revoke the operator's sudo."""
        rule, aside = self._sudo_rule()
        if rule.exists():
            rule.rename(aside)

    def restore_sudo(self) -> None:
        """Give the operator sudo again."""
        rule, aside = self._sudo_rule()
        if aside.exists():
            aside.rename(rule)

    def reinstall(self, *, trusted: bool = True) -> None:
        """Replace the host by a bare one of the same name and address, with new host keys; boot it.

        `trusted` says whether the operator's known_hosts has the new key or still the old one.
        """
        self.erase()
        self.install()
        record = read_record(self.lab.name)
        write_hosts(self.root / "etc", record.addresses())
        if trusted:
            trust(record, self.address, self.host_key)
        self.start()

    def _set_plugged(self) -> None:
        if network.cable(self.lab, self.number) in network.list_links():
            network.set_plugged(self.lab, self.number, plugged=self.is_plugged)

    def _signal(self, unit: str, signal: str) -> None:
        self.run(["systemctl", "kill", "--kill-whom=all", f"--signal={signal}", unit]).check()

    def _filler(self) -> Path:
        if self.lab.data_disk_mb is None:
            raise LabError(
                f"{self.name} has no data disk of its own to fill: start the lab with data_disk_mb"
            )
        return self.directory / "data" / "filler"

    def _running_namespace(self) -> Path:
        if not self.namespace.exists():
            raise self.error("is off: start it first")
        return self.namespace

    def _sudo_rule(self) -> tuple[Path, Path]:
        # sudo reads no file in sudoers.d whose name holds a dot.
        rule = self.root / "etc/sudoers.d" / OPERATOR
        return rule, rule.with_name(f"{OPERATOR}.revoked")
