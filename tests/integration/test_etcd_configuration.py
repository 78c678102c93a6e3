"""The rendered unit and etcd.conf before their real readers: systemd-analyze and etcd."""

from __future__ import annotations

import re
import ssl
import subprocess
import time
from pathlib import Path, PurePosixPath

import httpx
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from tasks.config.parsing import parse_configuration, validate_configuration
from tasks.config.rendering import InitialState, render_configuration, render_unit
from tasks.etcd.tls import client_context
from tasks.model.credentials import Passphrase
from tasks.model.inventory import Authority, Inventory
from tasks.model.layout import Paths
from tasks.model.machines import Host
from tasks.model.members import DesiredMember
from tasks.model.settings import Etcd, Settings
from tests.contract.etcd_real import TestAuthority, find_binaries, free_ports

ANALYZE = Path("/usr/bin/systemd-analyze")
ETCD = Path("/usr/bin/etcd")
BINARIES = find_binaries()
HEALTHY_WITHIN_SECONDS = 120.0
SETTINGS = Settings(
    snapshot_count=10_000,
    quota_backend_bytes=1 << 30,
    auto_compaction_mode="periodic",
    auto_compaction_retention="8h",
    log_level="info",
    environment={"ETCD_MAX_REQUEST_BYTES": "1572864", "ETCD_MAX_TXN_OPS": "256"},
)


def make_inventory(version: str, paths: Paths) -> Inventory:
    """Make a cluster of one on this machine, run by root, which is in every image."""
    minor = tuple(map(int, version.split(".")[:2]))
    settings = SETTINGS
    if minor >= (3, 6):
        settings = settings.model_copy(update={"snapshot_count": None})
    return Inventory(
        name="one",
        hosts=(Host(name="etcd1", address="127.0.0.1"),),
        etcd=Etcd(version=version, run_as="root", settings=settings),
        paths=paths,
        authority=Authority(
            certificate=Path("ca.pem"), key=Path("ca-key.pem"), passphrase=Passphrase(env="X")
        ),
    )


@pytest.mark.skipif(not ANALYZE.exists(), reason="no systemd-analyze")
@pytest.mark.skipif(not ETCD.exists(), reason="no etcd in /usr/bin")
@pytest.mark.parametrize("state", ["/var/lib/etcd", "/home/etcd", "/usr/lib/etcd", "/var/tmp/etcd"])  # noqa: S108 - no file is made
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path, state: str) -> None:
    """Not a word from `systemd-analyze verify`, wherever the state lies."""
    paths = Paths(binaries=PurePosixPath("/usr/bin"), state=PurePosixPath(state))
    inventory = make_inventory("3.4.23", paths)
    unit = tmp_path / inventory.paths.service
    unit.write_text(render_unit(inventory))
    told = subprocess.run(
        [ANALYZE, "verify", "--man=no", unit],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    # Other units of this machine that are drawn in are not ours to judge.
    about_ours = [line for line in (told.stdout + told.stderr).splitlines() if unit.name in line]
    assert about_ours == []
    assert told.returncode == 0, told.stderr


def wait_until_healthy(url: str, tls: ssl.SSLContext, process: subprocess.Popen[bytes]) -> None:
    """Ask /health until it is true; fails when etcd ends or takes too long."""
    deadline = time.monotonic() + HEALTHY_WITHIN_SECONDS
    with httpx.Client(verify=tls, trust_env=False, timeout=2) as http:
        while time.monotonic() < deadline:
            assert process.poll() is None, f"etcd ended with status {process.returncode}"
            try:
                if http.get(f"{url}/health").json().get("health") == "true":
                    return
            except (httpx.HTTPError, ValueError):
                pass
            time.sleep(0.1)
    pytest.fail(f"not healthy within {HEALTHY_WITHIN_SECONDS} s")


@pytest.mark.parametrize("version", sorted(BINARIES) or [pytest.param("", marks=pytest.mark.skip)])
def test_etcd_starts_from_the_rendered_environment(tmp_path: Path, version: str) -> None:
    """Every variable is known to this version, the member is healthy, and wants certificates."""
    paths = Paths(state=PurePosixPath(tmp_path), certificates=PurePosixPath(tmp_path / "ssl"))
    peer_url, client_url = (f"https://127.0.0.1:{port}" for port in free_ports(2))
    member = DesiredMember("etcd1", peer_url, client_url)
    text = render_configuration(make_inventory(version, paths), member, (member,), InitialState.NEW)
    validate_configuration(text)
    # All but the addresses on which it listens is as rendered: no test is open to the network.
    environment = parse_configuration(text) | {
        "ETCD_LISTEN_PEER_URLS": peer_url,
        "ETCD_LISTEN_CLIENT_URLS": client_url,
    }
    authority = TestAuthority()
    (tmp_path / "ssl").mkdir()
    (tmp_path / "ssl/ca.pem").write_bytes(authority.pem)
    for role in ("server", "peer"):
        leaf = authority.issue("127.0.0.1")
        (tmp_path / f"ssl/{role}.pem").write_bytes(leaf.certificate)
        (tmp_path / f"ssl/{role}-key.pem").write_bytes(leaf.key)
    mine = authority.issue(usages=(ExtendedKeyUsageOID.CLIENT_AUTH,))
    log = tmp_path / "etcd.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [BINARIES[version]],
            env=environment,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        tls = client_context(authority.pem, mine.certificate, mine.key)
        wait_until_healthy(client_url, tls, process)
        with (
            httpx.Client(verify=anonymous_context(authority), trust_env=False) as stranger,
            pytest.raises(httpx.TransportError),
        ):
            stranger.get(f"{client_url}/health")
    finally:
        process.kill()
        process.wait(timeout=10)
    told = log.read_text()
    assert not re.findall(r"(?i)unrecognized environment variable[^\n]*", told)
    assert not re.findall(r"(?i)[^\n]*(?:deprecated|shadowed|conflicting)[^\n]*", told)
    # The other way round, so that a change of etcd's words does not blind the line above.
    assert "recognized and used environment variable" in told
    used = set(re.findall(r"recognized[^\n]*?\b(ETCD_[A-Z0-9_]+)", told))
    assert used == set(environment)


def anonymous_context(authority: TestAuthority) -> ssl.SSLContext:
    """Make the context of a client that trusts the authority and shows no certificate."""
    return ssl.create_default_context(cadata=authority.pem.decode())
