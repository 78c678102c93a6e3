"""A team's inventories in git: what one worker's machine writes, the other's next run has."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tasks.engine.checkout import synchronize
from tasks.model.errors import Refused

WHY = "rotate_authority: done (run 1)"


def git(directory: Path, *words: str) -> str:
    """Run git as an operator does."""
    author = ("-c", "user.name=operator", "-c", "user.email=operator@example.org")
    command = ["git", "-C", str(directory), *author, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def clones(tmp_path: Path) -> tuple[Path, Path]:
    """Make a repository with an inventory, and the checkouts of two machines."""
    bare, one, other = (tmp_path / name for name in ("team.git", "one", "other"))
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch=main", str(bare))
    git(tmp_path, "clone", "--quiet", str(bare), str(one))
    git(one, "checkout", "--quiet", "-b", "main")
    (one / "main.yaml").write_text("name: main\n")
    git(one, "add", ".")
    git(one, "commit", "--quiet", "--message", "main")
    git(one, "push", "--quiet", "--set-upstream", "origin", "main")
    git(tmp_path, "clone", "--quiet", str(bare), str(other))
    return one, other


async def test_what_one_machine_writes_the_other_has(clones: tuple[Path, Path]) -> None:
    """Also where both have written, and nothing of what is only being written."""
    one, other = clones
    (one / "main").mkdir()
    (one / "main" / "ca.pem").write_text("certificate")
    (one / "main" / "ca-key.pem.1234abcd").write_text("being written")
    (other / "second.yaml").write_text("name: second\n")
    await synchronize(WHY, one)
    await synchronize("adopt_cluster: done (run 2)", other)
    await synchronize("nothing", one)
    for clone in clones:
        assert (clone / "main" / "ca.pem").read_text() == "certificate"
        assert (clone / "second.yaml").exists()
    assert not (other / "main" / "ca-key.pem.1234abcd").exists()
    subjects = git(one, "log", "--format=%s").splitlines()
    assert sorted(subjects) == ["adopt_cluster: done (run 2)", "main", WHY]


async def test_what_git_cannot_do_is_refused_with_the_way_out(clones: tuple[Path, Path]) -> None:
    """Nothing that was written is lost by it, and it is done when git can."""
    one, other = clones
    away = one.parent / "team.git"
    away.rename(aside := one.parent / "away")
    (one / "main.yaml").write_text("name: main\nhosts: []\n")
    with pytest.raises(Refused, match=f"git -C {one} pull --rebase"):
        await synchronize(WHY, one)
    aside.rename(away)
    await synchronize("later", one)
    await synchronize("later", other)
    assert (other / "main.yaml").read_text() == "name: main\nhosts: []\n"


async def test_a_conflict_is_a_persons(clones: tuple[Path, Path]) -> None:
    """The message says where; it is no run's to decide, and none makes it worse."""
    for number, clone in enumerate(clones):
        (clone / "main.yaml").write_text(f"name: main{number}\n")
    await synchronize(WHY, clones[0])
    for _ in range(2):
        with pytest.raises(Refused, match="onflict"):
            await synchronize(WHY, clones[1])
    assert (clones[1] / "main.yaml").read_text() == "name: main1\n"


async def test_a_directory_that_is_no_checkout_is_left_alone(tmp_path: Path) -> None:
    """Such as deployments/clusters of this repository."""
    (tmp_path / "main.yaml").write_text("name: main\n")
    await synchronize(WHY, tmp_path)
    assert not (tmp_path / ".git").exists()
