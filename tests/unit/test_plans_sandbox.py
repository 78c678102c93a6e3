"""Links that lead to where the unit lets etcd see or write nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tasks.config.rendering import render_unit
from tasks.model.inventory import Inventory
from tasks.model.member_settings import TextFile
from tasks.model.observation import HostTarget, Likeness, Room
from tasks.plans.sandbox import hidden_findings
from tests.unit.plan_cases import bare, inventory


def told(inventory: Inventory, links: dict[str, str], *texts: str) -> list[str]:
    """Say what is refused of a host that has these links; the unit is ours but for `texts`."""
    rooms = tuple(
        Room(path, real, real, "/", 9 << 30, "0755", "root", True, False, True, "")
        for path, real in links.items()
    )
    target = HostTarget("m1", render_unit(inventory), "", None, {}, {})
    if texts:
        files = tuple(TextFile(f"/etc/systemd/system/{n}", text) for n, text in enumerate(texts))
        target = replace(target, likeness=Likeness("m2", "", files))
    found = hidden_findings(bare(rooms=rooms), inventory.layout("m1"), target)
    return [str(each) for each in found]


@pytest.mark.parametrize(
    ("links", "paths", "says"),
    [
        ({"/var/lib/etcd": "/var/lib/etcd"}, {}, None),
        ({"/var/lib/etcd": "/srv/etcd", "/etc/etcd/ssl/ca.pem": "/srv/ca.pem"}, {}, None),
        ({"/var/lib/etcd": "/home/big/etcd"}, {}, "hides from etcd (ProtectHome=yes)"),
        ({"/etc/etcd/ssl/ca.pem": "/root/ca.pem"}, {}, "hides from etcd (ProtectHome=yes)"),
        ({"/var/lib/etcd": "/var/tmp/x"}, {}, "hides from etcd (PrivateTmp=yes)"),  # noqa: S108
        ({"/var/lib/etcd": "/usr/local/etcd"}, {}, "read-only for etcd (ProtectSystem=full)"),
        ({"/etc/etcd/ssl/ca.pem": "/usr/share/ca.pem"}, {}, None),
        ({"/home/big": "/home/bigger"}, {"state": "/home/big"}, None),
        ({"/home/big": "/home/big"}, {"state": "/home/big"}, None),
        ({"/etc/elsewhere": "/home/big"}, {}, None),
    ],
)
def test_a_link_into_what_the_unit_hides_is_refused(
    links: dict[str, str], paths: dict[str, str], says: str | None
) -> None:
    """What is only read may be read-only; what the inventory names itself is let through."""
    found = told(inventory(paths=paths), links)
    assert len(found) == (says is not None)
    assert says is None or says in found[0]
    assert says is None or "name that directory itself in the inventory's paths" in found[0]


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (("[Service]\nExecStart=/usr/bin/etcd\n",), None),
        (("[Service]\nProtectHome=yes\n", "[Service]\nProtectHome=no\n"), None),
        (("[Service]\nProtectHome = read-only\n",), "read-only for etcd (ProtectHome=read-only)"),
        (("ProtectHome=tmpfs\n",), "hides from etcd (ProtectHome=tmpfs)"),
        (("ProtectSystem=strict\n",), "read-only for etcd (ProtectSystem=strict)"),
        (("ProtectSystem=strict\nReadWritePaths=-/var/lib/etcd\n",), None),
    ],
)
def test_a_unit_made_like_the_members_is_asked_itself(
    texts: tuple[str, ...], says: str | None
) -> None:
    """Its drop-ins, too; it stays as the members' are."""
    found = told(inventory(), {"/var/lib/etcd": "/home/big/etcd"}, *texts)
    assert len(found) == (says is not None)
    assert says is None or says in found[0]
    assert says is None or "take that out of the unit on the members" in found[0]
