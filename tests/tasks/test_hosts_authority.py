"""An authority that kubeadm left on its hosts: read to sign, kept nowhere else."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from tasks.engine.authority import client_trust, signing_authority
from tasks.hosts.nodes import node_command, parse_node
from tasks.model.certificates import AuthorityPolicy
from tasks.model.errors import AuthorityRefused, Refused
from tasks.model.inventory import Inventory
from tasks.model.observation import FileState, PairsObservation
from tasks.pki.authority import Authority, create_authority
from tasks.procedures.rotation import Sight, refuse_distrust
from tests.contract.local_host import LocalHost

NOW = datetime.now(UTC)
OURS = create_authority(AuthorityPolicy(common_name="etcd-ca"), NOW)
NEXT = create_authority(AuthorityPolicy(common_name="etcd-ca"), NOW)


class FakeRun:
    """What signing needs of a run, with this machine for its hosts."""

    def __init__(self, tmp_path: Path) -> None:
        content = {
            "name": "k1",
            "topology": "stacked",
            "hosts": [{"name": "m1"}, {"name": "m2"}, {"name": "m3"}],
            "etcd": {"version": "3.7.3"},
            "paths": {"trusted": str(tmp_path / "ca.crt")},
            "authority": {"certificate": str(tmp_path / "known.pem")},
        }
        self.inventory = Inventory.model_validate(content)
        self.hosts = {name: LocalHost(name) for name in ("m1", "m2", "m3")}


def lay(tmp_path: Path, *authorities: Authority) -> Any:  # noqa: ANN401 - a run's stand-in
    """Put an authority's files onto the host, of several the certificates as one bundle."""
    bundle = b"".join(each.certificate_pem for each in authorities)
    (tmp_path / "ca.crt").write_bytes(bundle)
    (tmp_path / "ca.key").write_bytes(_key_of(authorities[0]))
    return FakeRun(tmp_path)


def _key_of(authority: Authority) -> bytes:
    sealed = authority.seal_key(b"x" * 12)
    key: Any = serialization.load_pem_private_key(sealed, b"x" * 12)
    traditional = serialization.PrivateFormat.TraditionalOpenSSL
    none = serialization.NoEncryption()
    pem: bytes = key.private_bytes(serialization.Encoding.PEM, traditional, none)
    return pem


async def test_the_first_of_a_bundle_signs(tmp_path: Path) -> None:
    """As it does for kubeadm; clients trust all of it."""
    run = lay(tmp_path, OURS, NEXT)
    assert (await signing_authority(run)).certificate_pem.strip() == OURS.certificate_pem.strip()
    assert client_trust(run).count(b"BEGIN CERTIFICATE") == 2
    assert not run.inventory.authority.certificate.exists()


async def test_what_signs_is_the_certificate_of_the_key(tmp_path: Path) -> None:
    """A rotation that died has put the next one first; without a certificate nothing is signed."""
    run = lay(tmp_path, OURS, NEXT)
    (tmp_path / "ca.crt").write_bytes(NEXT.certificate_pem + OURS.certificate_pem)
    assert (await signing_authority(run)).certificate_pem.strip() == OURS.certificate_pem.strip()
    (tmp_path / "ca.crt").write_bytes(NEXT.certificate_pem)
    with pytest.raises(AuthorityRefused, match=r"ca.key is not there, or not the key of"):
        await signing_authority(run)


async def test_a_runner_that_knows_another_authority_signs_nothing(tmp_path: Path) -> None:
    """It was replaced by somebody else, or this is another cluster."""
    run = lay(tmp_path, OURS)
    (tmp_path / "known.pem").write_bytes(NEXT.certificate_pem)
    with pytest.raises(AuthorityRefused, match="this runner knows another one"):
        await signing_authority(run)
    (tmp_path / "known.pem").write_bytes(OURS.certificate_pem)
    assert await signing_authority(run)


async def test_an_external_authority_is_asked_for(tmp_path: Path) -> None:
    """No host has its key; what was tried is told by host."""
    run = lay(tmp_path, OURS)
    (tmp_path / "ca.key").unlink()
    with pytest.raises(AuthorityRefused, match="no host of k1 gives the authority's key") as error:
        await signing_authority(run)
    assert all(name in error.value.message for name in run.hosts)
    assert "under `authority` in the inventory" in error.value.message


async def test_a_host_without_a_kubelet_tells_so(tmp_path: Path) -> None:
    """The script runs to its end where there is nothing of Kubernetes'; files are read."""
    (tmp_path / "etcd.yaml").write_text("kind: Pod\nmetadata: {name: etcd}\n")
    (tmp_path / "more").mkdir()
    data = tmp_path / "data"
    (data / "member").mkdir(parents=True)
    (result,) = await LocalHost().run(node_command(PurePosixPath(tmp_path), PurePosixPath(data)))
    seen = parse_node("m1", result)
    assert seen.born is None or time.time() - 60 < seen.born <= time.time()
    (bare,) = await LocalHost().run(node_command(PurePosixPath(tmp_path), PurePosixPath("/none")))
    assert parse_node("m1", bare).born is None
    assert [file.path for file in seen.files] == [str(tmp_path / "etcd.yaml")]
    assert not seen.kubelet.is_active
    assert seen.hostname


async def test_a_node_with_another_authority_keeps_all_from_being_rotated(tmp_path: Path) -> None:
    """Its peers would turn away what the first node's key signs; a bundle with both is fine."""
    run = lay(tmp_path, OURS)
    signer = (await signing_authority(run)).certificate_pem
    both = NEXT.certificate_pem + OURS.certificate_pem

    def sight(*bundles: bytes) -> Sight:
        trusted = [FileState("0644", "root", "root", "x", pem.decode()) for pem in bundles]
        seen = {
            name: PairsObservation(name, 0.0, 0.0, None, file, None, {}, {})
            for name, file in zip(run.hosts, trusted, strict=True)
        }
        return Sight((), seen, {}, {})

    refuse_distrust(run, sight(OURS.certificate_pem, both, both), signer)
    with pytest.raises(Refused, match=r"m2, m3: .* there lacks the authority"):
        refuse_distrust(run, sight(both, NEXT.certificate_pem, b"x"), signer)
