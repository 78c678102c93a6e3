"""Programs on the runner: what is named is what is there, before any host is asked."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.model.errors import InvalidInventory
from tasks.model.settings import ArchiveBinaries, DirectoryBinaries
from tasks.steps.installation import load_binaries

SHOWN = b"\x7fELF go.etcd.io/etcd/server 3.6.16 go1.25"
PACKED = b"\x7fELF UPX"


def archive(path: Path, content: bytes) -> ArchiveBinaries:
    """Pack one program, as etcd's releases are packed."""
    with tarfile.open(path, "w:gz") as packed:
        entry = tarfile.TarInfo("etcd-linux-amd64/etcd")
        entry.size = len(content)
        packed.addfile(entry, io.BytesIO(content))
    digits = hashlib.sha256(path.read_bytes()).hexdigest()
    return ArchiveBinaries(source="archive", path=path, sha256=digits)


def directory(path: Path, content: bytes) -> DirectoryBinaries:
    """Write one program."""
    path.mkdir()
    (path / "etcd").write_bytes(content)
    digits = hashlib.sha256(content).hexdigest()
    return DirectoryBinaries(source="directory", path=path, sha256={"etcd": digits})


@pytest.mark.parametrize("kind", [archive, directory])
def test_another_versions_program_is_refused_by_the_field_that_names_it(
    kind: Callable[[Path, bytes], ArchiveBinaries | DirectoryBinaries], tmp_path: Path
) -> None:
    """Its sum is right; what is packed shows nothing, and is asked on the hosts."""
    binaries = kind(tmp_path / "shown", SHOWN)
    assert load_binaries(binaries, "3.6.16", "etcd.binaries").contents == {"etcd": SHOWN}
    with pytest.raises(
        InvalidInventory, match=r"etcd\.versions\.3\.5\.30\.path: .* is not 3\.5\.30"
    ):
        load_binaries(binaries, "3.5.30", "etcd.versions.3.5.30")
    packed = kind(tmp_path / "packed", PACKED)
    assert load_binaries(packed, "3.5.30", "etcd.binaries").contents == {"etcd": PACKED}


def test_what_is_wrong_with_a_program_is_told_by_its_field(tmp_path: Path) -> None:
    """Also where it is not etcd.binaries that names it."""
    binaries = directory(tmp_path / "shown", SHOWN)
    (binaries.path / "etcd").write_bytes(PACKED)
    with pytest.raises(InvalidInventory, match=r"etcd\.versions\.3\.6\.16\.sha256\.etcd: "):
        load_binaries(binaries, "3.6.16", "etcd.versions.3.6.16")
    (binaries.path / "etcd").unlink()
    with pytest.raises(InvalidInventory, match=r"etcd\.versions\.3\.6\.16\.path: there is no"):
        load_binaries(binaries, "3.6.16", "etcd.versions.3.6.16")
