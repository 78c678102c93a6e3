"""The authority's files on the runner: where the passphrase comes from, and what an end finds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from tasks.engine.authority import (
    check_authority,
    make_authority,
    opened_authority,
    read_authority_certificate,
    read_passphrase,
)
from tasks.engine.journal import Journal
from tasks.engine.secret import read_secret
from tasks.model.certificates import AuthorityPolicy
from tasks.model.credentials import Passphrase, Password
from tasks.model.errors import AuthorityRefused, Refused
from tasks.model.inventory import Inventory
from tasks.model.observation import FileState, PairsObservation
from tasks.pki.authority import create_authority, is_encrypted
from tasks.plans.bootstrap import AUTHORITY, MakeAuthority, trust_text
from tasks.steps.trust import find_strangers

STEP = MakeAuthority(stage=AUTHORITY, host=None, sentence="make it")


@pytest.fixture
def inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Inventory:
    """Make an inventory whose authority is in a directory of the test's."""
    monkeypatch.setenv("TEST_PASSPHRASE", "correct horse")
    authority = {
        "certificate": tmp_path / "authority" / "ca.pem",
        "key": tmp_path / "authority" / "ca-key.pem",
        "passphrase": {"env": "TEST_PASSPHRASE"},
    }
    return Inventory.model_validate(
        {
            "name": "c1",
            "hosts": [{"name": "m1", "address": "10.0.0.1"}],
            "etcd": {"version": "3.5.16"},
            "authority": authority,
        }
    )


class FakeRun:
    """What making an authority needs of a run."""

    def __init__(self, inventory: Inventory, tmp_path: Path) -> None:
        self.inventory = inventory
        self.backup = "20260102T030405Z-abcdef01"
        self.journal = Journal(tmp_path / "journal.jsonl")


def test_further_authorities_in_a_trusted_file_are_told(
    inventory: Inventory, tmp_path: Path
) -> None:
    """Whoever has their certificates would be locked out; an expired one lets nobody in anyway."""
    now = datetime.now(UTC)
    ours, live = (create_authority(AuthorityPolicy(common_name=n), now) for n in ("ours", "live"))
    ended = create_authority(AuthorityPolicy(common_name="ended"), now - timedelta(days=9999))
    inventory.authority.certificate.parent.mkdir()
    inventory.authority.certificate.write_bytes(ours.certificate_pem)
    inventory.authority.key.write_text("never opened")
    run: Any = FakeRun(inventory, tmp_path)
    texts = [each.certificate_pem.decode() for each in (ended, ours, live)]

    def told(*held: str) -> tuple[str, ...]:
        trusted = FileState("0644", "root", "root", "", "".join(held))
        return find_strangers(run, PairsObservation("m1", 0.0, 0.0, None, trusted, None, {}, {}))

    assert told(*texts[:2]) == ()
    (only,) = told(*texts)
    assert only.startswith("m1: its trusted file has a further authority, 'live' (")
    assert told("no certificate") == told(texts[2]) == ()
    like = FileState("0640", "root", "etcd", "", "".join(texts))
    assert trust_text(texts[1], like) == like.text, "who joins trusts whom the others do"
    assert trust_text(texts[1], replace(like, text=texts[2])) == texts[1]
    assert trust_text(texts[1], None) == texts[1]


async def make(inventory: Inventory, tmp_path: Path) -> None:
    """Run the step that makes the authority."""
    run: Any = FakeRun(inventory, tmp_path)
    with run.journal:
        assert await make_authority.fn(run, STEP) is True


async def test_a_new_authority_is_encrypted_and_its_files_are_the_owners(
    inventory: Inventory, tmp_path: Path
) -> None:
    """The key is sealed with mode 0600 in a directory of mode 0700, and opens again."""
    await make(inventory, tmp_path)
    key = inventory.authority.key
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.parent.stat().st_mode & 0o777 == 0o700
    assert is_encrypted(key.read_bytes())
    authority = await opened_authority(inventory)
    assert authority.certificate_pem == read_authority_certificate(inventory)


async def test_a_creation_that_died_before_the_certificate_is_begun_anew(
    inventory: Inventory, tmp_path: Path
) -> None:
    """A key without a certificate has signed nothing; it is kept aside, not deleted."""
    await make(inventory, tmp_path)
    inventory.authority.certificate.unlink()
    orphan = inventory.authority.key.read_bytes()
    await check_authority(inventory)
    await make(inventory, tmp_path)
    (kept,) = inventory.authority.key.parent.glob("ca-key.pem.unused-*")
    assert kept.read_bytes() == orphan
    await opened_authority(inventory)


async def test_a_certificate_without_its_key_is_refused(
    inventory: Inventory, tmp_path: Path
) -> None:
    """A new key would make an authority that the hosts do not trust."""
    await make(inventory, tmp_path)
    inventory.authority.key.unlink()
    with pytest.raises(AuthorityRefused, match="put the key that belongs to it there"):
        await check_authority(inventory)


async def test_an_adopted_key_in_the_clear_is_encrypted_in_place(inventory: Inventory) -> None:
    """Cfssl writes ca-key.pem in the clear; after the first signing it is not any more."""
    made = create_authority(AuthorityPolicy(), datetime.now(UTC))
    clear = made._key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    inventory.authority.key.parent.mkdir()
    inventory.authority.key.write_bytes(clear)
    inventory.authority.certificate.write_bytes(made.certificate_pem)
    await opened_authority(inventory)
    assert is_encrypted(inventory.authority.key.read_bytes())
    await opened_authority(inventory)


async def test_a_wrong_passphrase_is_refused(
    inventory: Inventory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the field and the files, and not the passphrase."""
    await make(inventory, tmp_path)
    monkeypatch.setenv("TEST_PASSPHRASE", "battery staple")
    with pytest.raises(AuthorityRefused, match="passphrase") as raised:
        await check_authority(inventory)
    assert str(inventory.authority.key) in str(raised.value)
    assert "battery" not in str(raised.value)


async def test_the_passphrase_is_read_from_a_private_file(tmp_path: Path) -> None:
    """One line; its end is not part of it."""
    file = tmp_path / "passphrase"
    file.write_text("correct horse\n")
    file.chmod(0o600)
    assert await read_passphrase(Passphrase(file=file)) == b"correct horse"


@pytest.mark.parametrize(
    ("mode", "content", "says"),
    [(0o644, "correct horse", "chmod 600"), (0o600, "\n", "empty"), (None, "", "there is no")],
)
async def test_a_passphrase_file_that_is_no_use_is_refused(
    tmp_path: Path, mode: int | None, content: str, says: str
) -> None:
    """Readable by others, empty, or missing."""
    file = tmp_path / "passphrase"
    if mode is not None:
        file.write_text(content)
        file.chmod(mode)
    with pytest.raises(AuthorityRefused, match=says):
        await read_passphrase(Passphrase(file=file))


async def test_a_passphrase_variable_that_is_not_set_is_refused() -> None:
    """The message names the variable."""
    with pytest.raises(AuthorityRefused, match="NO_SUCH_VARIABLE"):
        await read_passphrase(Passphrase(env="NO_SUCH_VARIABLE"))


async def test_a_secret_is_refused_by_its_field() -> None:
    """Whose secret it is, and where the inventory says that it lies."""
    with pytest.raises(Refused, match=r"^login.password.env: the environment variable NO_SUCH"):
        await read_secret(Password(env="NO_SUCH_VARIABLE"), "login.password")
