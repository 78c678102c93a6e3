"""`make demo` works from any checkout, and whatever was left of the lab that it uses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab import mounts, network, teardown
from tests.lab.etcd_programs import INSTALLED, get_programs
from tests.lab.lab import Lab
from tests.lab.preparedness import unavailable_reason
from tests.lab.state import list_records

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
SECONDS = 300.0
NOT_CLONED = (".venv*", ".git", ".*_cache", "__pycache__", ".hypothesis")


@pytest.fixture
def name() -> Iterator[str]:
    """Name a lab that nobody else's demo uses; it is gone after the test."""
    if (reason := unavailable_reason()) is not None:
        pytest.skip(reason)
    name = f"demo-{os.getpid()}"
    yield name
    for record in list_records():
        if record.name == name:
            teardown.remove(record)


def clone(directory: Path) -> Path:
    """Make a second checkout, which has this one's programs and none of its inventories."""
    shutil.copytree(ROOT, directory, ignore=shutil.ignore_patterns(*NOT_CLONED))
    clusters = directory / "deployments" / "clusters"
    for inventory in clusters.glob("*.yaml"):
        if inventory.name != "example.yaml":
            inventory.unlink()
    venv, programs = directory / ".venv", Path(sys.executable).parents[1]
    venv.mkdir()
    for part in ("bin", "lib"):
        (venv / part).symlink_to(programs / part)
    shutil.copy(programs / "pyvenv.cfg", venv)
    (venv / ".complete").touch()
    return directory


def demo(checkout: Path, name: str, etcd: str = "") -> subprocess.CompletedProcess[str]:
    """Run `make demo` in a checkout."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MAKE"))}
    return subprocess.run(
        ["make", "demo", f"LAB={name}", f"ETCD={etcd}"],
        cwd=checkout,
        env={**inherited, "PREFECT_HOME": str(checkout / "prefect")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def check_up(ended: subprocess.CompletedProcess[str], checkout: Path, name: str) -> Lab:
    """Check that the demo ended well, its inventory is in the checkout, and all hosts are on."""
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "The cluster is up." in ended.stdout
    assert (checkout / "deployments/clusters" / f"{name}.yaml").exists()
    lab = Lab.get(name)
    assert all(host.is_running for host in lab.hosts.values())
    return lab


def test_the_demo_brings_up_what_is_not_there(name: str, tmp_path: Path) -> None:
    """From a second clone, over killed, frozen and cut-off hosts, and over half a removal."""
    first, second = clone(tmp_path / "first"), clone(tmp_path / "second")
    lab = check_up(demo(first, name, INSTALLED), first, name)
    places = [checkout / f"deployments/clusters/{name}.yaml" for checkout in (first, second)]

    # Hosts were killed, or worse, and this checkout has never heard of the lab.
    lab["master01"].power_cut()
    lab["master02"].freeze("etcd.service")
    lab["master03"].cut_cable()
    lab = check_up(demo(second, name), second, name)
    assert places[0].read_text() == places[1].read_text()

    # Another etcd is not put under the cluster that is there.
    told = demo(second, name, "3.5.16")
    assert told.returncode != 0
    assert f"has etcd {get_programs(INSTALLED).version}, not 3.5.16" in told.stderr
    assert f"tests.lab down --name {name}" in told.stderr

    # A removal was killed when the first host's disk was gone, as were the inventories.
    network.remove_bridge(lab.record)
    lab["master01"].power_cut()
    mounts.unmount_below(lab["master01"].directory)
    for place in places:
        place.unlink()
    check_up(demo(first, name, INSTALLED), first, name)

    teardown.remove(Lab.get(name).record)
    assert not any(place.exists() for place in places)


def test_what_an_earlier_boot_left_is_no_lab(name: str, tmp_path: Path) -> None:
    """A record of another boot, and a directory that lost its record, are cleared away."""
    inventory = tmp_path / f"{name}.yaml"
    up = ["-m", "tests.lab", "up", "1", "--etcd", INSTALLED, "--inventory", str(inventory)]
    command = [sys.executable, *up, "--name", name]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    record = Lab.get(name).directory / "lab.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "boot": "an earlier one"}))
    again = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    # Whoever looked first has removed it.
    assert "1 hosts in" in again.stdout

    before = Lab.get(name)
    record.unlink()
    again = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert "1 hosts in" in again.stdout
    lab = Lab.get(name)
    assert lab.record.identity != before.record.identity
    assert lab["master01"].run("hostname").stdout == "master01\n"
    assert inventory.exists()
    network.remove_bridge(before.record)
