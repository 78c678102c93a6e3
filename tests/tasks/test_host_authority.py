"""An authority that lies on its hosts: made, exchanged, retired there, and cut off anywhere."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography import x509

from tasks.engine import host_authority
from tasks.engine.authority import (
    expired_authority,
    known_authorities,
    signing_authority,
    trust_bundle,
)
from tasks.engine.run import Run
from tasks.hosts.batch import Command
from tasks.hosts.connection import HostConnection
from tasks.model.certificates import AuthorityPolicy, Generation
from tasks.model.errors import AuthorityRefused, HostUnreachable
from tasks.model.inventory import Inventory
from tasks.pki.authority import create_authority
from tasks.pki.inspect import find_issuer, read_bundle, read_certificate
from tasks.steps.succession import pin_authority
from tests.contract.local_host import LocalHost

NOW = datetime.now(UTC)
OURS = create_authority(AuthorityPolicy(common_name="etcd-ca"), NOW)
NAMES = ("m1", "m2", "m3")
PKI = "/etc/kubernetes/pki/etcd"
CURRENT, NEXT, PREVIOUS = Generation.CURRENT, Generation.NEXT, Generation.PREVIOUS


class RootedHost(LocalHost):
    """This machine with a directory of its own in the place of /etc and /var."""

    def __init__(self, name: str, root: Path) -> None:
        super().__init__(name)
        self.root = root
        self.left = -1
        """Batches until the host is cut off; negative is never."""

    async def _execute(
        self, stdin: str | bytes, timeout_seconds: float, command: str | None = None
    ) -> tuple[int, str, str]:
        if self.left == 0:
            raise HostUnreachable("cut off", host=self.name)
        self.left -= 1
        assert isinstance(stdin, str)
        script = stdin.replace("/etc/kubernetes", f"{self.root}/etc/kubernetes")
        script = script.replace("/var/backups", f"{self.root}/var/backups")
        return await super()._execute(script, timeout_seconds, command)


class Nodes(Run):
    """A run on three nodes of which each has the authority; nothing of it is recorded."""

    backup = "20260101T000000Z-test"

    def __init__(self, root: Path) -> None:  # has neither journal nor connections
        hosts = [{"name": name} for name in NAMES]
        content = {
            "name": "k1",
            "topology": "stacked",
            "hosts": hosts,
            "etcd": {"version": "3.7.3"},
        }
        content["authority"] = {"certificate": str(root / "known.pem")}
        self.inventory = Inventory.model_validate(content)
        self.hosts: dict[str, HostConnection] = {}
        self.authorities: dict[Generation, bytes] = {}
        self.trusted = b""
        self.roots = {name: root / name for name in NAMES}
        for name, place in self.roots.items():
            (place / PKI.lstrip("/")).mkdir(parents=True)
            self.write(name, "ca.crt", OURS.certificate_pem)
            self.write(name, "ca.key", OURS.bare_key())
            self.hosts[name] = RootedHost(name, place)

    def path(self, host: str, name: str) -> Path:
        """Get a file of the authority's directory."""
        return self.roots[host] / PKI.lstrip("/") / name

    def write(self, host: str, name: str, content: bytes) -> None:
        """Put a file there."""
        self.path(host, name).write_bytes(content)
        self.path(host, name).chmod(0o600 if name.endswith(".key") else 0o644)

    def signers(self) -> set[str]:
        """Fingerprint of what kubeadm would sign with on each host: the first, by the key."""
        found = set()
        for name in NAMES:
            facts = read_bundle(self.path(name, "ca.crt").read_bytes())[0]
            key = self.path(name, "ca.key").read_text()
            assert "PRIVATE KEY" in key
            found.add(facts.fingerprint)
        return found

    def others(self) -> set[str]:
        """Names of what lies beside the authority on any host."""
        listed = {path.name for name in NAMES for path in self.path(name, "").iterdir()}
        return listed - {"ca.crt", "ca.key"}


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    """Three nodes with one authority."""
    return Nodes(tmp_path)


async def rotate(run: Nodes) -> None:
    """Do what a rotation does with the authority, from whatever state it is in."""
    known = await host_authority.see_authorities(run)
    if PREVIOUS not in known:
        await host_authority.make_on_hosts(run)
        await host_authority.exchange_on_hosts(run, NEXT)
    await host_authority.retire_on_hosts(run)


async def test_the_successor_is_what_kubeadm_made_but_for_key_and_times(nodes: Nodes) -> None:
    """Subject, names, usages and the length of life; and both are what is trusted meanwhile."""
    assert await host_authority.make_on_hosts(nodes)
    known = known_authorities(nodes)
    assert set(known) == {CURRENT, NEXT}
    old, new = (x509.load_pem_x509_certificate(known[each]) for each in (CURRENT, NEXT))
    assert new.subject == old.subject
    assert new.public_key() != old.public_key()
    assert [e.oid for e in new.extensions] == [e.oid for e in old.extensions]
    assert len(read_bundle(trust_bundle(nodes))) == 2
    assert not await host_authority.make_on_hosts(nodes), "it is made once"
    modes = {nodes.path(name, "ca.next.key").stat().st_mode & 0o777 for name in NAMES}
    assert modes == {0o600}


async def test_after_the_exchange_the_new_one_signs_everywhere(nodes: Nodes) -> None:
    """It stands first in the bundle; the old one is beside it until it is retired."""
    await host_authority.make_on_hosts(nodes)
    new = read_certificate(known_authorities(nodes)[NEXT]).fingerprint
    assert await host_authority.exchange_on_hosts(nodes, NEXT)
    assert set(known_authorities(nodes)) == {CURRENT, PREVIOUS}
    assert nodes.signers() == {new}
    signer = await signing_authority(nodes)
    assert signer.facts.fingerprint == new
    old = await signing_authority(nodes, PREVIOUS)
    assert old.facts.fingerprint == OURS.facts.fingerprint
    assert not await host_authority.exchange_on_hosts(nodes, NEXT)
    assert await host_authority.retire_on_hosts(nodes)
    assert nodes.others() == set()
    (kept,) = (nodes.roots["m1"] / "var/backups").rglob("ca.previous.key")
    assert nodes.backup in kept.parts
    assert kept.stat().st_mode & 0o777 == 0o600


async def test_going_back_gives_the_old_one_its_place(nodes: Nodes) -> None:
    """The same exchange the other way."""
    await host_authority.make_on_hosts(nodes)
    await host_authority.exchange_on_hosts(nodes, NEXT)
    await host_authority.exchange_on_hosts(nodes, PREVIOUS)
    assert nodes.signers() == {OURS.facts.fingerprint}
    assert set(known_authorities(nodes)) == {CURRENT, NEXT}


@pytest.mark.parametrize("host", ["m1", "m3"])
@pytest.mark.parametrize("batches", range(1, 9))
async def test_a_run_that_is_cut_off_anywhere_is_ended_by_the_next(
    tmp_path: Path, host: str, batches: int
) -> None:
    """One host goes away after any number of answers; what it has then the next run finds."""
    run = Nodes(tmp_path)
    cut = cast(RootedHost, run.hosts[host])
    cut.left = batches
    with contextlib.suppress(AuthorityRefused, HostUnreachable):
        await rotate(run)
    cut.left = -1
    await rotate(run)
    assert len(run.signers()) == 1
    assert OURS.facts.fingerprint not in run.signers()
    assert run.others() == set()
    signer = await signing_authority(run)
    assert {signer.facts.fingerprint} == run.signers()
    now = datetime.now(UTC)
    client, _ = signer.issue_client("x", signer.facts.not_after - now, now)
    assert find_issuer(client, {"it": signer.certificate_pem}) == "it"


async def test_keys_of_different_authorities_are_told_by_host(nodes: Nodes) -> None:
    """Somebody else replaced one by hand; neither is called the cluster's."""
    stranger = create_authority(AuthorityPolicy(common_name="etcd-ca"), NOW)
    nodes.write("m2", "ca.crt", stranger.certificate_pem + OURS.certificate_pem)
    nodes.write("m2", "ca.key", stranger.bare_key())
    with pytest.raises(AuthorityRefused, match="keys of different authorities") as error:
        await signing_authority(nodes)
    assert f"m2: {stranger.facts.fingerprint[:12]}" in error.value.message


async def test_a_key_is_in_no_script_and_in_no_transcript(nodes: Nodes) -> None:
    """What is written goes by standard input, and no command's text has it."""
    seen: list[str] = []

    def note(_host: str, command: Command, _result: object) -> None:
        seen.append(repr(command))

    for name in NAMES:
        connection: Any = nodes.hosts[name]
        connection._on_result = note
    await rotate(nodes)
    assert seen
    keys = (OURS.bare_key().decode(), nodes.path("m1", "ca.key").read_text())
    secrets = [line for key in keys for line in key.splitlines()[1:-1]]
    assert not [text for text in seen if any(line in text for line in secrets)]


async def test_the_runners_copy_follows_the_rotation(nodes: Nodes) -> None:
    """An adoption has left it; until the old one is retired the runner may go by either."""
    copy = nodes.inventory.authority.certificate
    copy.write_bytes(OURS.certificate_pem)
    await signing_authority(nodes)
    await host_authority.make_on_hosts(nodes)
    await host_authority.exchange_on_hosts(nodes, NEXT)
    await signing_authority(nodes)
    pin_authority(nodes)
    await host_authority.retire_on_hosts(nodes)
    assert {read_certificate(copy.read_bytes()).fingerprint} == nodes.signers()
    await signing_authority(nodes)


async def test_an_expired_one_is_renewed_where_it_lies(nodes: Nodes) -> None:
    """With the same key, on the first node; a run that dies then leaves what the next one takes."""
    ended = OURS.renewed(timedelta(minutes=30), NOW - timedelta(hours=1)).certificate_pem
    for name in NAMES:
        nodes.write(name, "ca.crt", ended)
    with pytest.raises(AuthorityRefused, match="expired"):
        await signing_authority(nodes)
    expired = await expired_authority(nodes)
    assert expired is not None
    await host_authority.renew_on_hosts(nodes, expired)
    assert nodes.path("m2", "ca.crt").read_bytes() == ended
    assert await expired_authority(nodes) is None
    renewed = (await signing_authority(nodes)).certificate_pem
    assert known_authorities(nodes) == {CURRENT: renewed}
    assert nodes.path("m1", "ca.crt").read_bytes() == renewed
    now = read_certificate(renewed)
    assert now.public_key_pem == read_certificate(ended).public_key_pem
    assert now.not_after - now.not_before == timedelta(minutes=30)
