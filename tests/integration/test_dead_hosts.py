"""One host without power: it holds no runbook up, and hides nobody, however hosts are reached."""

from __future__ import annotations

import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ruamel.yaml import YAML

from tasks.engine.journal import read_journal
from tasks.hosts.connection import REMEMBER_SECONDS
from tasks.model.record import Event
from tests.integration.members import Scene, find_leader, list_members, raise_cluster
from tests.integration.runbooks import (
    HANG_SECONDS,
    Ended,
    Prefect,
    finish,
    run_runbook,
    start_runbook,
)
from tests.lab.errors import LabError

if TYPE_CHECKING:
    from tests.lab.fixtures import StartLab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

MEMBERS = ("master01", "master02", "master03")
VICTIMS = ("none", "follower", "leader", "first")
WAYS = ("direct", "jump host", "names")
IN_CI = {("first", "jump host")}
INSTANTLY_SECONDS = 2.0
"""A host that was silent a moment ago is not asked again, and its step fails at once."""
PATIENCE_SECONDS = HANG_SECONDS
"""On a machine that many tests share; that nobody is held up is seen from `count_attempts`."""


@dataclass(frozen=True, slots=True)
class Access:
    """How the runner reaches the hosts: an inventory, and names that only its runs resolve."""

    inventory: Path
    hosts: Path | None = None

    def run(self, prefect: Prefect, runbook: str, *options: str, named: str = "--cluster") -> Ended:
        """Run a runbook to its end, with these names."""
        started = start_runbook(
            prefect, runbook, self.inventory, *options, named=named, names=self.hosts
        )
        return finish(started)

    def without_passphrase(self) -> Access:
        """Get the same way for whoever does not have the authority's secret."""
        text = self.inventory.read_text()
        path = self.inventory.with_name(f"blind-{self.inventory.name}")
        path.write_text(text.replace("/passphrase", "/nobody-has-it"))
        assert path.read_text() != text
        return replace(self, inventory=path)


def reach(scene: Scene, files: Path, kind: str) -> Access:
    """Write the inventory of one kind of access."""
    text, lab = scene.inventory.read_text(), scene.lab
    path = files / f"{kind.replace(' ', '-')}.yaml"
    if kind == "direct":
        return Access(scene.inventory)
    if kind == "jump host":
        jump = f"ssh:\n  jump_host: {{address: {lab['master04'].address}}}\n"
        path.write_text(text.replace("ssh:\n", jump, 1))
        assert "jump_host" in path.read_text()
        return Access(path)
    names, known = files / "hosts", files / "known_hosts"
    keys, lines = lab.known_hosts.read_text(), []
    for name in MEMBERS:
        address = lab[name].address
        text = text.replace(f"address: {address}", f"address: {name}.lab.test")
        keys = keys.replace(f"{address} ", f"{name}.lab.test,{address} ")
        lines.append(f"{address} {name}.lab.test\n")
    known.write_text(keys)
    names.write_text("127.0.0.1 localhost\n" + "".join(lines))
    path.write_text(text.replace(str(lab.known_hosts), str(known)))
    assert "lab.test" in path.read_text()
    return Access(path, names)


def count_attempts(prefect: Prefect, ended: Ended, host: str | None) -> Counter[str]:
    """Count how often a run waited in vain for a host in each step, from its journals."""
    found = re.search(r"\brun ([0-9a-f-]{36})", ended.output)
    assert found is not None, ended.output
    return Counter(
        str(line.details["step"])
        for path in prefect.journals
        if found[1] in path.name
        for line in read_journal(path)
        if line.event is Event.STEP_FAILED
        and line.details["host"] == host
        and line.details["seconds"] > INSTANTLY_SECONDS
    )


@dataclass(slots=True)
class Field:
    """The module's cluster, each way to it, and which of its hosts has no power now."""

    scene: Scene
    ways: dict[str, Access]
    victim: str = "none"
    dead: str | None = None

    def bring_about(self, victim: str) -> None:
        """Let nobody be dead but the victim; one that is dead already stays so."""
        if victim == self.victim:
            return
        if self.dead is not None:
            self.scene.lab[self.dead].start()
            wait_until_up(self.scene, self.dead)
        leader = find_leader(self.scene.lab, list(MEMBERS))
        follower = next(host for host in reversed(MEMBERS) if host != leader)
        self.dead = {"none": None, "follower": follower, "leader": leader, "first": MEMBERS[0]}[
            victim
        ]
        self.victim = victim
        if self.dead is not None:
            self.scene.lab[self.dead].power_cut()


def wait_until_up(scene: Scene, host: str) -> None:
    """Wait until a host's member serves again."""
    deadline = time.monotonic() + HANG_SECONDS
    while True:
        try:
            list_members(scene.lab, host)
        except LabError:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        else:
            return


@pytest.fixture(scope="module")
def field(
    start_module_lab: StartLab, prefect: Prefect, tmp_path_factory: pytest.TempPathFactory
) -> Field:
    """Three members and one bare host, which is the jump host and could replace a member."""
    files = tmp_path_factory.mktemp("field")
    scene = raise_cluster(start_module_lab, prefect, files)
    # Names in the place of addresses are in certificates; without them all pairs would be due.
    yaml = YAML()
    yaml.width = 200
    content = yaml.load(scene.inventory)
    for host in content["hosts"]:
        host["extra_sans"] = [f"{host['name']}.lab.test"]
    yaml.dump(content, scene.inventory)
    ended = run_runbook(prefect, "rotate_certificates", scene.inventory)
    assert ended.status == 0, ended.output
    return Field(scene, {way: reach(scene, files, way) for way in WAYS})


def check_runbooks(field: Field, way: str, prefect: Prefect) -> None:
    """Run each runbook; with a dead host none lies, none is held up, and it is named.

    Those that only look go on beside each other and beside those that take the lock.
    """
    access, dead, scene = field.ways[way], field.dead, field.scene
    alive = next(host for host in MEMBERS if host != dead)

    def expect(
        status: int,
        runbook: str,
        *options: str,
        named: str = "--cluster",
        access: Access = access,
    ) -> str:
        began = time.monotonic()
        ended = access.run(prefect, runbook, *options, named=named)
        seconds = time.monotonic() - began
        print(f"{way}, {dead}: {runbook} {ended.status} in {seconds:.1f} s")  # noqa: T201
        assert ended.status == status, ended.output
        assert seconds < PATIENCE_SECONDS, ended.output
        attempts = count_attempts(prefect, ended, dead)
        # What is known of a host is forgotten after a while, and it is asked again.
        asked = max(attempts.values(), default=0)
        assert asked <= 2 + seconds // REMEMBER_SECONDS, (runbook, attempts)
        told = [x for x in ended.stderr.splitlines() if f"{dead}: " in x and "SSH" in x]
        assert len(told) <= 1, ended.stderr
        for lie in ("quorum is lost", "Traceback", "not the same", "no member answers"):
            assert lie not in ended.output, ended.output
        return ended.output

    def locking() -> None:
        expect(0, "move_leader")
        said = expect(3 if dead else 0, "rotate_certificates")
        assert dead is None or f"  - {dead}: " in said, said

    def looking() -> None:
        table = expect(1 if dead else 0, "check_health")
        assert all(name in table for name in MEMBERS), table
        expect(3 if dead else 0, "recover_certificates", "--dry-run")
        expect(1 if dead else 0, "check_certificates", named="--clusters")
        blind = expect(1 if dead else 0, "check_health", access=access.without_passphrase())
        assert "asked on the hosts, with the members' own pairs" in blind, blind
        assert all(name in blind for name in MEMBERS), blind

    def planning() -> None:
        said = expect(2, "rotate_authority", "--dry-run")
        assert ("needs every host" if dead else "no rotation is under way") in said, said
        said = expect(2, "remove_member", "--member", alive, "--dry-run")
        assert "unknown" not in said, said
        if dead:
            said = expect(
                *(0, "replace_member", "--member", dead, "--dry-run"),
                *("--replacement", scene.address("master04")),
            )
            assert f"remove the member {dead}" in said, said

    with ThreadPoolExecutor() as pool:
        lanes = [pool.submit(lane) for lane in (locking, looking, planning)]
    for lane in lanes:
        lane.result()


@pytest.mark.parametrize(
    ("victim", "way"),
    [
        pytest.param(
            victim,
            way,
            id=f"{victim}, {way}",
            marks=() if (victim, way) in IN_CI else pytest.mark.chaos,
        )
        for victim in VICTIMS
        for way in WAYS
    ],
)
def test_a_dead_host_holds_no_runbook_up_and_hides_nobody(
    field: Field, prefect: Prefect, victim: str, way: str
) -> None:
    """Nobody, a follower, the leader or the inventory's first; behind a jump host, and by name."""
    field.bring_about(victim)
    check_runbooks(field, way, prefect)


def test_hosts_that_were_not_seen_are_not_called_right(
    start_lab: StartLab, prefect: Prefect, tmp_path: Path
) -> None:
    """A wrong port: nothing is known, which is a result and an exit status of its own."""
    scene = raise_cluster(start_lab, prefect, tmp_path, members=1, spare=0)
    scene.inventory.write_text(
        scene.inventory.read_text().replace("ssh:\n", "ssh:\n  port: 9\n", 1)
    )
    access = Access(scene.inventory)
    ended = access.run(prefect, "rotate_certificates", "--dry-run")
    assert ended.status == 3, ended.output
    assert "nothing is known of their certificates" in ended.output
    assert "nothing to do" not in ended.output
    checked = access.run(prefect, "check_certificates", named="--clusters")
    assert checked.status == 1, checked.output
    assert "no SSH connection" in checked.output
