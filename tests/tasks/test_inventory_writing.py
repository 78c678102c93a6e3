"""Writing the inventory file at the end of a change of the members, and of an adoption."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tasks.engine.journal import Journal, read_journal
from tasks.model.errors import InventoryEdited, Refused
from tasks.model.record import Event
from tasks.plans.member_changes import INVENTORY, WriteInventory
from tasks.procedures import adoption
from tasks.steps.reconfiguration import write_inventory
from tests.unit.plan_cases import inventory
from tests.unit.test_plans_adoption import ALL

BEFORE, AFTER = "hosts:\n  - m1\n", "hosts:\n  - m2\n"


def write(path: Path) -> bool:
    """Perform the step on a file, without a run."""
    step = WriteInventory(stage=INVENTORY, host=None, sentence="", text=AFTER, before=BEFORE)
    do = write_inventory.fn.__wrapped__  # type: ignore[attr-defined]
    return bool(asyncio.run(do(None, step, path)))


def test_an_inventory_that_was_edited_during_the_run_is_not_overwritten(tmp_path: Path) -> None:
    """What was edited and what should have been written are both told."""
    path = tmp_path / "c1.yaml"
    path.write_text(BEFORE + "# by hand\n")
    with pytest.raises(InventoryEdited) as raised:
        write(path)
    assert "+# by hand" in raised.value.message
    assert "+  - m2" in raised.value.message
    assert path.read_text() == BEFORE + "# by hand\n"


def test_an_inventory_is_written_once(tmp_path: Path) -> None:
    """One that says it already is left alone."""
    path = tmp_path / "c1.yaml"
    path.write_text(BEFORE)
    assert write(path)
    assert path.read_text() == AFTER
    assert not write(path)


async def test_what_an_adoption_writes_is_told(tmp_path: Path) -> None:
    """The inventory and the authority's certificate; where one cannot be written, neither is."""
    do = adoption.write_inventory.fn.__wrapped__  # type: ignore[attr-defined]
    certificate = tmp_path / "authority" / "ca.pem"
    paths = {"certificate": str(certificate), "key": str(tmp_path / "authority" / "ca-key.pem")}
    wanted = inventory(authority={**paths, "passphrase": {"env": "X"}})
    bundle = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    seen = (replace(ALL[0], trusted_text=bundle, authority_text=bundle),)
    with Journal(tmp_path / "journal.jsonl") as journal:
        run = SimpleNamespace(journal=journal)
        (tmp_path / "taken").mkdir()
        with pytest.raises(Refused, match="nothing was written"):
            await do(run, tmp_path / "taken", "name: c1\n", wanted, seen)
        assert not certificate.exists()
        assert await do(run, tmp_path / "c1.yaml", "name: c1\n", wanted, seen) is True
    assert certificate.read_text() == bundle
    (told,) = (r for r in read_journal(tmp_path / "journal.jsonl") if r.event is Event.PROGRESS)
    assert told.details["text"] == f"wrote {tmp_path / 'c1.yaml'} and {certificate}"
