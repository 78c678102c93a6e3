"""What tests of odd hosts share: a lab, an inventory of its own, and the runbooks on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.integration.runbooks import Ended, Prefect, run_runbook

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.lab import Lab


@dataclass(frozen=True, slots=True)
class OddScene:
    """A lab, an inventory of its own, and the runbooks on it."""

    lab: Lab
    inventory: Path
    prefect: Prefect

    def run(self, runbook: str, *words: str, status: int = 0, named: str = "--cluster") -> Ended:
        """Run a runbook, which must end so."""
        ended = run_runbook(self.prefect, runbook, self.inventory, *words, named=named)
        assert ended.status == status, ended.output
        return ended

    def joining(self, name: str) -> str:
        """Write a host as the runbooks want one that joins."""
        return f"{name}={self.lab[name].address}"


def write_inventory(lab: Lab, path: Path, names: list[str], more: str) -> Path:
    """Write the lab's inventory with these hosts alone, and with more fields."""
    lines = lab.inventory.read_text().splitlines(keepends=True)
    others = [f"name: {name}," for name in lab.hosts if name not in names]
    path.write_text("".join(x for x in lines if not any(o in x for o in others)) + more)
    return path
