"""Pairs that were staged and not swapped do not outlive a run that failed."""

from __future__ import annotations

import getpass
import grp
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from prefect.settings import PREFECT_HOME, temporary_settings

from tasks.engine.run import open_run
from tasks.model.certificates import AuthorityPolicy
from tasks.model.errors import AuthorityRefused, MemberFailed
from tasks.model.inventory import Inventory
from tasks.pki.authority import create_authority
from tasks.pki.targets import LeafTarget, client_targets
from tasks.plans.bootstrap import PREPARE
from tasks.plans.leaves import StageLeaves
from tasks.steps import certificates
from tests.contract.local_host import LocalHost

STAGE = StageLeaves(stage=PREPARE, host="m1", sentence="stage", name="worker", labels=("client",))


@pytest.fixture
def inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Inventory:
    """Make an inventory with an authority, and a client whose pair is in the test's folder."""
    monkeypatch.setenv("TEST_PASSPHRASE", "correct horse")
    made = create_authority(AuthorityPolicy(), datetime.now(UTC))
    certificate, key = tmp_path / "ca.pem", tmp_path / "ca-key.pem"
    certificate.write_bytes(made.certificate_pem)
    key.write_bytes(made.seal_key(b"correct horse"))
    key.chmod(0o600)
    (tmp_path / "live").mkdir()
    return Inventory.model_validate(
        {
            "name": "c1",
            "hosts": [{"name": "m1", "address": "10.0.0.1"}],
            "etcd": {"version": "3.5.16"},
            "authority": {
                "certificate": certificate,
                "key": key,
                "passphrase": {"env": "TEST_PASSPHRASE"},
            },
            "clients": [
                {
                    "name": "worker",
                    "host": "m1",
                    "certificate": str(tmp_path / "live" / "worker.pem"),
                    "key": str(tmp_path / "live" / "worker-key.pem"),
                    "trusted": str(tmp_path / "live" / "ca.pem"),
                    "owner": getpass.getuser(),
                    "group": grp.getgrgid(os.getgid()).gr_name,
                }
            ],
        }
    )


async def stage(inventory: Inventory, home: Path, then: Callable[[], None]) -> None:
    """Stage the client's pair on this machine in a run, as the step does on a host."""
    targets: dict[str, dict[str, LeafTarget]] = {
        "worker": client_targets(inventory, inventory.clients[0])
    }
    do: Any = certificates.stage_leaves
    with temporary_settings({PREFECT_HOME: home}):
        async with open_run(inventory, "rotate_certificates") as run:
            await do.fn(run, LocalHost("m1"), STAGE, targets)
            then()


def staged(tmp_path: Path) -> list[str]:
    """List what lies where the live pair would be."""
    return sorted(path.name for path in (tmp_path / "live").iterdir())


async def test_staged_pairs_are_taken_away_when_a_later_step_fails(
    inventory: Inventory, tmp_path: Path
) -> None:
    """On whichever host that was."""

    def fail() -> None:
        assert staged(tmp_path) == ["ca.pem", "worker-key.pem.new", "worker.pem.new"]
        raise MemberFailed("another host's fault", host="m2")

    with pytest.raises(MemberFailed):
        await stage(inventory, tmp_path / "home", fail)
    assert staged(tmp_path) == ["ca.pem"]


async def test_a_key_whose_request_was_not_signed_is_taken_away(
    inventory: Inventory, tmp_path: Path
) -> None:
    """The authority's key is gone; the host has made its own by then."""
    inventory.authority.key.unlink()
    with pytest.raises(AuthorityRefused):
        await stage(inventory, tmp_path / "home", lambda: None)
    assert staged(tmp_path) == []


async def test_staged_pairs_stay_until_they_are_swapped_where_all_goes_well(
    inventory: Inventory, tmp_path: Path
) -> None:
    """Only a failure takes them away."""
    await stage(inventory, tmp_path / "home", lambda: None)
    assert staged(tmp_path) == ["ca.pem", "worker-key.pem.new", "worker.pem.new"]


async def test_a_client_that_has_nothing_yet_gets_its_directories_and_what_it_trusts(
    inventory: Inventory, tmp_path: Path
) -> None:
    """What it trusts already is no business of its pair's."""
    trusted, place = tmp_path / "trust" / "ca.pem", tmp_path / "new" / "certs"
    paths = {
        "certificate": place / "a.pem",
        "key": place / "keys" / "a-key.pem",
        "trusted": trusted,
    }
    client = inventory.clients[0].model_copy(
        update={field: PurePosixPath(path) for field, path in paths.items()}
    )
    wanted = inventory.model_copy(update={"clients": (client,)})
    await stage(wanted, tmp_path / "home", lambda: None)
    assert (place / "a.pem.new").exists()
    assert (place / "keys" / "a-key.pem.new").stat().st_mode & 0o777 == 0o600
    assert trusted.read_bytes() == inventory.authority.certificate.read_bytes()
    trusted.write_text("others'")
    await stage(wanted, tmp_path / "home", lambda: None)
    assert trusted.read_text() == "others'"
