"""Writing the inventory file at the end of a change of the members."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tasks.model.errors import InventoryEdited
from tasks.plans.member_changes import INVENTORY, WriteInventory
from tasks.steps.reconfiguration import write_inventory

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
