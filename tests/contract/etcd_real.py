"""Real etcd clusters on loopback, with mutual TLS, for the contract suite.

Owns the processes that it starts: all are killed in `close`, whatever happened.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import socket
import ssl
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tasks.etcd import wire
from tasks.etcd.client import EtcdClient
from tasks.etcd.gateway import Endpoint
from tasks.etcd.login import Login
from tasks.etcd.tls import client_context
from tasks.model.members import DesiredMember
from tests.contract.etcd_users import PASSWORDS, READER, ROOT

DOWNLOADED = Path("/var/cache/etcd-runbooks-lab/etcd")
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


def find_binaries() -> dict[str, Path]:
    """Find etcd on this machine, by version; empty where there is none."""
    candidates = [Path("/usr/bin/etcd"), *sorted(DOWNLOADED.glob("*/etcd"))]
    found: dict[str, Path] = {}
    for path in candidates:
        if path.is_file() and os.access(path, os.X_OK):
            told = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
            version = re.search(r"etcd Version: (\S+)", told.stdout)
            if version:
                found.setdefault(version[1], path)
    return found


def free_ports(count: int) -> list[int]:
    """Pick TCP ports that nobody holds at this moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@dataclass(frozen=True)
class Leaf:
    """A certificate and its key, PEM."""

    certificate: bytes
    key: bytes


class TestAuthority:
    """A certificate authority that signs whatever a test asks, also what is wrong."""

    __test__ = False

    def __init__(self, name: str = "test authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.pem = certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        *addresses: str,
        usages: tuple[x509.ObjectIdentifier, ...] = BOTH,
        is_expired: bool = False,
        common_name: str | None = "test",
    ) -> Leaf:
        """Issue a leaf for IP addresses; an expired one ended a day ago."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + timedelta(days=-1 if is_expired else 1))
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        )
        if addresses:
            names = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return Leaf(
            certificate.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )


@dataclass
class RealCluster:
    """Members of one version; member `i`, counted from 0, is named etcd<i+1>."""

    binary: Path
    directory: Path
    size: int = 3
    server_usages: tuple[x509.ObjectIdentifier, ...] = BOTH
    flags: tuple[str, ...] = ()
    authority: TestAuthority = field(default_factory=TestAuthority)
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = self.size + 1
        urls = [f"https://127.0.0.1:{port}" for port in free_ports(2 * count)]
        *voters, self.learner = (
            DesiredMember(f"etcd{i + 1}", urls[i], urls[i + count]) for i in range(count)
        )
        self.members = tuple(voters)
        self.endpoints = tuple(Endpoint(m.name, m.client_url) for m in self.members)

    def start(self) -> None:
        """Write the certificates and start all members; returns before they are ready."""
        self._write("ca.pem", self.authority.pem)
        self.write_leaf("server", self.authority.issue("127.0.0.1", usages=self.server_usages))
        self.write_leaf("peer", self.authority.issue("127.0.0.1"))
        self.heal()

    def heal(self) -> None:
        """Start all members that do not run."""
        for i in range(self.size):
            if i not in self.processes:
                self.start_member(i)

    def write_leaf(self, name: str, leaf: Leaf) -> None:
        """Put a pair where the members read it, which they do on each handshake."""
        self._write(f"{name}.pem", leaf.certificate)
        self._write(f"{name}-key.pem", leaf.key)

    def start_member(self, i: int) -> None:
        """Start one member on the data that it has; the one after the last is the learner."""
        d = self.directory
        is_learner = i == self.size
        initial = (*self.members, self.learner) if is_learner else self.members
        member = initial[i]
        command = [
            *(str(self.binary), f"--name={member.name}", f"--data-dir={d / member.name}"),
            f"--listen-client-urls={member.client_url}",
            f"--advertise-client-urls={member.client_url}",
            f"--listen-peer-urls={member.peer_url}",
            f"--initial-advertise-peer-urls={member.peer_url}",
            "--initial-cluster=" + ",".join(f"{m.name}={m.peer_url}" for m in initial),
            f"--initial-cluster-state={'existing' if is_learner else 'new'}",
            *("--heartbeat-interval=20", "--election-timeout=200"),  # a first leader soon
            "--strict-reconfig-check=false",  # which refuses an add until 5 s after the start
            *("--logger=zap", "--client-cert-auth"),
            *(f"--cert-file={d}/server.pem", f"--key-file={d}/server-key.pem"),
            *(f"--trusted-ca-file={d}/ca.pem", f"--peer-trusted-ca-file={d}/ca.pem"),
            *(f"--peer-cert-file={d}/peer.pem", f"--peer-key-file={d}/peer-key.pem"),
            "--peer-client-cert-auth",
            *self.flags,
        ]
        with (d / f"{member.name}.log").open("ab") as log:
            self.processes[i] = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def kill(self, *members: int) -> None:
        """Kill members, as a power cut does, and wait until they are gone."""
        for i in members:
            self.processes[i].kill()
        for i in members:
            self.processes.pop(i).wait(timeout=10)

    def close(self) -> None:
        """Kill all that were started here, and remove their data: 64 MB and more a member."""
        self.kill(*self.processes)
        for member in (*self.members, self.learner):
            shutil.rmtree(self.directory / member.name, ignore_errors=True)

    def client_tls(self, common_name: str | None = "test") -> ssl.SSLContext:
        """Make the context of a client that the cluster accepts."""
        usages = (ExtendedKeyUsageOID.CLIENT_AUTH,)
        leaf = self.authority.issue(usages=usages, common_name=common_name)
        return client_context(self.authority.pem, leaf.certificate, leaf.key)

    async def raise_nospace(self, i: int) -> None:
        """Raise member `i`'s NOSPACE alarm, as a full quota does."""
        await self._alarm(i, "ACTIVATE", "NOSPACE")

    async def clear_nospace(self, i: int) -> None:
        """Take member `i`'s NOSPACE alarm back."""
        await self._alarm(i, "DEACTIVATE", "NOSPACE")

    async def raise_corrupt(self, i: int) -> None:
        """Raise member `i`'s CORRUPT alarm, as a check that finds a difference does."""
        await self._alarm(i, "ACTIVATE", "CORRUPT")

    async def _alarm(self, i: int, action: str, kind: str) -> None:
        async with self.client() as client:
            status = await client.get_status(self.endpoints[i])
        alarm = {"action": action, "memberID": str(status.member_id), "alarm": kind}
        (await self._post("maintenance/alarm", alarm)).raise_for_status()

    async def write(self, count: int) -> None:
        """Put that many keys, twice each, and compact the first half of that history."""
        for number in (*range(count), *range(count)):
            pair = {"key": wire.encode_bytes(b"key%d" % number), "value": "AAAA"}
            (await self._post("kv/put", pair)).raise_for_status()
        (await self._post("kv/compaction", {"revision": str(count)})).raise_for_status()

    async def put(self, *keys: str) -> None:
        """Put keys, once each, by the first member."""
        for key in keys:
            pair = {"key": wire.encode_bytes(key.encode()), "value": "AAAA"}
            (await self._post("kv/put", pair)).raise_for_status()

    async def fill(self) -> None:
        """Put one key again and again until the quota is reached; compact all of its history."""
        pair = {"key": wire.encode_bytes(b"filler"), "value": "AAAA" * 250_000}
        while (answer := await self._post("kv/put", pair)).is_success:
            revision = answer.json()["header"]["revision"]
        assert "space exceeded" in answer.text
        compaction = {"revision": revision, "physical": True}
        (await self._post("kv/compaction", compaction)).raise_for_status()

    async def add_learner(self) -> DesiredMember:
        """Add a fourth member as a learner, which does not start."""
        body = {"peerURLs": [self.learner.peer_url], "isLearner": True}
        (await self._post("cluster/member/add", body)).raise_for_status()
        return self.learner

    async def start_learner(self) -> Endpoint:
        """Start the fourth member, which must have been added."""
        self.start_member(self.size)
        return Endpoint(self.learner.name, self.learner.client_url)

    async def enable_auth(self) -> None:
        """Turn on RBAC, with all of the suite's users, of whom one has no role."""
        calls: list[tuple[str, dict[str, Any]]] = [("auth/role/add", {"name": ROOT})]
        for name, password in PASSWORDS.items():
            calls.append(("auth/user/add", {"name": name, "password": password}))
            if name != READER:
                calls.append(("auth/user/grant", {"user": name, "role": ROOT}))
        for path, body in (*calls, ("auth/enable", {})):
            (await self._post(path, body)).raise_for_status()

    async def change_password(self, user: str, password: str) -> None:
        """Give a user another password, where RBAC is on."""
        root = await self._post("auth/authenticate", {"name": ROOT, "password": PASSWORDS[ROOT]})
        changed = {"name": user, "password": password}
        answer = await self._post("auth/user/changepw", changed, root.json()["token"])
        answer.raise_for_status()

    async def _post(
        self, path: str, body: dict[str, Any], token: str | None = None
    ) -> httpx.Response:
        headers = {"Authorization": token} if token else {}
        async with httpx.AsyncClient(verify=self.client_tls(None), trust_env=False) as http:
            url = f"{self.endpoints[0].url}/v3/{path}"
            return await http.post(url, json=body, headers=headers)

    def client(
        self,
        timeout_seconds: float = 1.0,
        endpoints: tuple[Endpoint, ...] | None = None,
        login: Login | None = None,
    ) -> EtcdClient:
        """Make the client that the cluster accepts; without a common name if it logs in."""
        tls = self.client_tls(None if login else "test")
        return EtcdClient(endpoints or self.endpoints, tls, timeout_seconds, login=login)

    def _write(self, name: str, content: bytes) -> None:
        (self.directory / name).write_bytes(content)
