"""A pair's exchange: two renames of one process, and what a death in the middle leaves behind."""

from __future__ import annotations

import asyncio
from pathlib import Path, PurePosixPath

import pytest

from tasks.hosts.batch import Command
from tasks.hosts.leaves import SWAPPING, discard_staged_command, swap_leaf_command
from tasks.model.errors import CommandFailed
from tests.contract.local_host import LocalHost
from tests.field.openssl import make_authority, make_pairs


def lay(tmp_path: Path, *, together: bool) -> tuple[PurePosixPath, PurePosixPath]:
    """Stage a new pair beside a live one, in one directory or in two."""
    made = tmp_path / "made"
    made.mkdir()
    make_authority(made, "/CN=ca")
    pairs = make_pairs(made, {"old": "/CN=old", "new": "/CN=new"}, "keyUsage=keyAgreement\n", 9)
    paths = [tmp_path / "certs" / "a.crt", tmp_path / ("certs" if together else "keys") / "a.key"]
    for path, kind in zip(paths, ("certificate", "key"), strict=True):
        path.parent.mkdir(exist_ok=True)
        path.write_text(getattr(pairs["old"], kind))
        path.with_name(f"{path.name}.new").write_text(getattr(pairs["new"], kind))
    return PurePosixPath(paths[0]), PurePosixPath(paths[1])


def do(command: Command) -> None:
    """Run it on this machine, as on a host."""
    asyncio.run(LocalHost().run(command))


@pytest.mark.parametrize("together", [True, False])
def test_a_pair_is_exchanged(tmp_path: Path, *, together: bool) -> None:
    """The new one is live, the old one aside, and nothing else is there."""
    certificate, key = lay(tmp_path, together=together)
    staged = {path: Path(f"{path}.new").read_text() for path in (certificate, key)}
    backup = PurePosixPath(tmp_path / "backup")
    do(swap_leaf_command(certificate, key, backup=backup))
    assert {path: Path(path).read_text() for path in staged} == staged
    left = {each.name for path in staged for each in Path(path).parent.iterdir()}
    assert left == {"a.crt", "a.key"}
    assert (tmp_path / "backup").exists()


def test_a_pair_that_does_not_match_is_not_exchanged(tmp_path: Path) -> None:
    """The live one stays, byte for byte."""
    certificate, key = lay(tmp_path, together=True)
    live = Path(key).read_text()
    Path(f"{key}.new").write_text(live)
    with pytest.raises(CommandFailed, match="do not match"):
        do(swap_leaf_command(certificate, key, backup=PurePosixPath(tmp_path / "backup")))
    assert Path(key).read_text() == live


def test_what_a_death_in_the_middle_left_is_taken_away(tmp_path: Path) -> None:
    """Only what an exchange makes; a file of a like name stays."""
    certificate, key = lay(tmp_path, together=True)
    between, other = tmp_path / "certs" / f"{SWAPPING}abcdefgh", tmp_path / "certs" / ".swap.mine"
    between.mkdir()
    (between / "a.key").write_text("a key")
    other.mkdir()
    do(discard_staged_command([(certificate, key)]))
    assert not between.exists()
    assert other.exists()
    assert not Path(f"{key}.new").exists()
