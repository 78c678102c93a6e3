"""Bare hosts for each measurement, and the outside view that tells that they became a cluster.

Every measurement gets hosts that were just installed, of the same names and addresses. Nothing
here is timed but `time_to_healthy`, the floor.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.lab.host import Host
from tests.lab.lab import Lab

LAB = "bench"
HEALTHY_SECONDS = 60.0
POLL_SECONDS = 0.005
SSL = Path("etc/etcd/ssl")


class NotACluster(Exception):
    """A contender ended well, but its hosts are no healthy cluster."""


@contextlib.contextmanager
def bare_hosts(count: int, etcd: str) -> Iterator[Lab]:
    """Start hosts that nothing was done to; they are removed with the block."""
    with Lab.start(LAB, hosts=count, etcd=etcd) as lab:
        # What booted a moment ago still settles (journal, timers); nobody shall pay for that.
        time.sleep(1.0)
        yield lab


def check_cluster(lab: Lab) -> None:
    """Raise NotACluster unless every member is healthy, enabled, and runs as its own account."""
    _wait_until_all_healthy(lab)
    for host in lab.hosts.values():
        seen = host.run(
            "systemctl is-enabled etcd; ps -o user= -C etcd; stat -c '%U %a' /var/lib/etcd"
        )
        if seen.stdout.split() != ["enabled", "etcd", "etcd", "700"]:
            raise NotACluster(f"{host.name}: {seen.stdout} {seen.stderr}")


def time_to_healthy(lab: Lab) -> float:
    """Empty the data directories of a cluster and time its start, in seconds.

    From the first `systemctl start --no-block`, on all hosts at once, to the last member's first
    healthy answer over HTTPS.
    """
    with ThreadPoolExecutor(len(lab.hosts)) as pool:
        list(pool.map(_empty, lab.hosts.values()))
        began = time.monotonic()
        starts = [
            pool.submit(host.run, ["systemctl", "start", "--no-block", "etcd"])
            for host in lab.hosts.values()
        ]
        for start in starts:
            start.result().check()
    _wait_until_all_healthy(lab)
    return time.monotonic() - began


def _empty(host: Host) -> None:
    host.run("systemctl stop etcd && rm -rf /var/lib/etcd/default.etcd && sync").check()


def _wait_until_all_healthy(lab: Lab) -> None:
    """Poll tightly, each member on its own; raises NotACluster."""
    with ThreadPoolExecutor(len(lab.hosts)) as pool:
        list(pool.map(_wait_until_healthy, lab.hosts.values()))


def _wait_until_healthy(host: Host) -> None:
    own = host.root / SSL
    try:
        context = ssl.create_default_context(cafile=own / "ca.pem")
        context.load_cert_chain(own / "client.pem", own / "client-key.pem")
    except OSError as error:
        raise NotACluster(f"{host.name}: no certificates for a client: {error}") from error
    deadline = time.monotonic() + HEALTHY_SECONDS
    while not _is_healthy(host.address, context):
        if time.monotonic() > deadline:
            raise NotACluster(f"{host.name} is not healthy after {HEALTHY_SECONDS:g} s")
        time.sleep(POLL_SECONDS)


def _is_healthy(address: str, context: ssl.SSLContext) -> bool:
    # /health reads through the quorum, as `etcdctl endpoint health` does.
    connection = http.client.HTTPSConnection(address, 2379, timeout=2, context=context)
    try:
        connection.request("GET", "/health")
        answer = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError):
        return False
    finally:
        connection.close()
    return bool(answer.get("health") == "true")
