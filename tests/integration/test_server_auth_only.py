"""server-auth-only: servers' pairs that are no client's: etcd serves, its JSON gateway does not."""

from __future__ import annotations

import sys
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.field.hosts import lay
from tests.field.odd import profiles
from tests.integration.adoptions import adopt, give_key
from tests.integration.runbooks import Prefect, run_runbook
from tests.integration.test_check_certificates import check, findings

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.fixtures import StartLab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.chaos, pytest.mark.timeout(1800), pytest.mark.one_etcd]

WRITE = """
export ETCDCTL_API=3
while :; do
  /usr/local/bin/etcdctl --endpoints={urls} --cacert=/etc/etcd/ssl/ca.pem --command-timeout=2s \
    --cert=/etc/etcd/ssl/client.pem --key=/etc/etcd/ssl/client-key.pem put k $(date +%s.%N) \
    > /dev/null 2>&1 && date +%s.%N >> /run/written
  sleep 0.1
done
"""
"""A writer by gRPC: the gateway is what does not work. A client's TLS is read at each start."""


@pytest.mark.parametrize("etcd", ["3.5.16", "3.7.3"])
def test_it_is_adopted_told_and_put_right_without_an_outage(
    etcd: str, start_lab: StartLab, prefect: Prefect, tmp_path: Path
) -> None:
    """After it has stood for ten minutes, so that gRPC's back-off is as long as it gets."""
    lab = start_lab(hosts=3, etcd=etcd, etcd_source="installed")
    cluster = profiles(tmp_path, {h.name: h.address for h in lab.hosts.values()})
    lay(lab, cluster)
    stood = time.monotonic()
    output = tmp_path / "adopted.yaml"
    ended = adopt(prefect, lab, output)
    assert ended.status == 0, ended.output
    assert "it lacks the usage client auth" in ended.stdout
    give_key(output, cluster)
    ended = run_runbook(prefect, "check_health", output)
    assert ended.status == 1, ended.output
    assert "the JSON gateway cannot reach its own etcd" in ended.output
    assert "recover_certificates" in ended.output
    ended, found = check(prefect, tmp_path, output)
    assert ended.status == 1, ended.output
    assert findings(found) != set()
    ended = run_runbook(prefect, "rotate_certificates", output)
    assert ended.status == 2, ended.output
    assert "recover_certificates" in ended.stderr
    time.sleep(max(0.0, 600 - (time.monotonic() - stood)))
    before = [host.run("pgrep -x etcd").check().stdout for host in lab.hosts.values()]
    urls = ",".join(f"https://{host.address}:2379" for host in lab.hosts.values())
    first = lab["master01"]
    first.run(["systemd-run", "--unit=writer", "bash", "-c", WRITE.format(urls=urls)]).check()
    began = time.monotonic()
    ended = run_runbook(prefect, "recover_certificates", output)
    sys.stdout.write(f"\nrecovered in {time.monotonic() - began:.0f} s\n")
    assert ended.status == 0, ended.output
    first.run("systemctl stop writer").check()
    written = [float(line) for line in first.run("cat /run/written").check().stdout.split()]
    gaps = [b - a for a, b in pairwise(written)]
    sys.stdout.write(f"{len(written)} writes, longest gap {max(gaps):.2f} s\n")
    assert max(gaps) < 5
    assert [h.run("pgrep -x etcd").check().stdout for h in lab.hosts.values()] == before
    assert run_runbook(prefect, "check_health", output).status == 0
    assert run_runbook(prefect, "rotate_certificates", output).status == 0
