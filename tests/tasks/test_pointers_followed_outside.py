"""Messages that point on before any member is asked: authority, snapshot, adoption, files."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.engine.authority import write_private
from tasks.model import inventory_file
from tasks.model.certificates import AuthorityPolicy
from tasks.model.errors import Refused
from tasks.model.inventory import Inventory
from tasks.pki.authority import create_authority
from tasks.plans.succession import MakeSuccessor, Until, plan_succession
from tasks.procedures.adoption import provisional, target_path
from tasks.steps.snapshots import check_skip
from tasks.steps.trust import choose
from tests.unit.plan_cases import inventory
from tests.unit.test_plans_adoption import ALL, adopted


@pytest.fixture
def owned(tmp_path: Path) -> Inventory:
    """Make an inventory whose authority was made today."""
    made = create_authority(AuthorityPolicy(), datetime.now(UTC) - timedelta(hours=1))
    paths = {"certificate": str(tmp_path / "ca.pem"), "key": str(tmp_path / "ca-key.pem")}
    write_private(tmp_path / "ca.pem", made.certificate_pem, 0o644)
    write_private(tmp_path / "ca-key.pem", made.seal_key(b"secret"), 0o600)
    return inventory(authority={**paths, "passphrase": {"env": "X"}})


def said(check: Callable[..., object], *facts: object, **more: object) -> str:
    """Get the message of a check that refuses."""
    with pytest.raises(Refused) as refused:
        check(*facts, **more)
    return refused.value.message


def pointed(message: str, option: str) -> list[str]:
    """Read what a message says to add to the command line."""
    return re.findall(rf"--{option} (\S+?)\)", message)


def test_an_authority_that_is_not_due_is_replaced_by_its_digits(owned: Inventory) -> None:
    """The next one is made; the same command after the end finds another authority, and ends."""
    run: Any = SimpleNamespace(inventory=owned)
    message = said(choose, run, None, reverse=False)
    (digits,) = pointed(message, "replace")
    direction = choose(run, digits, reverse=False)
    assert direction is not None
    plan = plan_succession(owned, (), (), direction, None, Until.END)
    assert isinstance(plan.steps[0], MakeSuccessor)
    assert choose(run, "0" * 12, reverse=False) is None


def test_a_snapshot_is_skipped_with_the_reason_that_is_asked_for() -> None:
    """And only then."""
    message = said(check_skip, "skip", None)
    (word,) = pointed(message, "snapshot")
    (text,) = pointed(message, "reason")
    check_skip(word, text)


def test_an_inventory_that_exists_is_left_by_another_name(tmp_path: Path) -> None:
    """Adopting again writes beside it."""
    there = tmp_path / "c1.yaml"
    there.touch()
    assert pointed(said(target_path, "c1", str(there)), "output") == ["FILE"]
    assert target_path("c1", str(tmp_path / "FILE")) == tmp_path / "FILE"


def test_every_host_of_an_adopted_cluster_is_named() -> None:
    """Two were, and the third is known by its address."""
    message = said(adopted, *ALL[:2])
    assert pointed(message, "hosts") == ["..."]
    assert len(adopted(*ALL).hosts) == len(ALL)


def test_a_unit_of_another_name_is_named() -> None:
    """Everything is asked of that unit; on hosts it is followed by test_adoption."""
    asked = provisional("c1", ["m1=10.0.0.1"], {"user": "root", "known_hosts": "/k"}, "x.service")
    assert asked.paths.service == "x.service"
    assert asked.paths.unit == PurePosixPath("/etc/systemd/system/x.service")


def test_a_cluster_is_named_where_there_is_no_inventory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then there is one to check."""
    monkeypatch.setattr(inventory_file, "CLUSTERS", tmp_path)
    assert pointed(said(inventory_file.choose_clusters, None), "clusters") == ["CLUSTER"]
    assert inventory_file.choose_clusters(["CLUSTER"]) == ["CLUSTER"]
