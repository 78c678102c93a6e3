"""What a new operator gets wrong before any host is asked, typed as it is typed."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.homes import prepare_home
from tests.integration.runbooks import Prefect, run_runbook

INVENTORY = """\
name: mistaken
hosts:
  - {{name: m1, address: 127.0.0.1}}
ssh: {{user: nobody, known_hosts: known_hosts, port: {port}}}
etcd: {{version: 3.7.3}}
authority: {{certificate: nowhere/ca.pem, key: nowhere/ca-key.pem, passphrase: {{file: secret}}}}
"""


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Write an inventory without an authority, of a host where nothing listens."""
    path = tmp_path_factory.mktemp("mistakes") / "c.yaml"
    path.with_name("known_hosts").touch()
    with socket.socket() as held:  # bound and deaf, so that nobody else gets the port
        held.bind(("127.0.0.1", 0))
        path.write_text(INVENTORY.format(port=held.getsockname()[1]))
        yield path


@pytest.mark.parametrize(
    ("runbook", "status", "told"),
    [
        ("recover_certificates", 2, "put the one there that signed this cluster's certificates"),
        ("show_member", 3, "  - m1: cannot be seen: no SSH connection to nobody@127.0.0.1 port"),
    ],
)
def test_what_cannot_be_done_is_said_with_the_way_out(
    inventory: Path, tmp_path: Path, runbook: str, status: int, told: str
) -> None:
    """An authority's folder that is missing; a host that was not seen is not called shown."""
    ended = run_runbook(Prefect(prepare_home(tmp_path)), runbook, inventory)
    assert ended.status == status, ended.output
    assert told in ended.stderr
    assert ended.stderr.rstrip().endswith("Nothing was changed.")
    assert "done:" not in ended.stdout
