"""`python -m tests.bench.snapshots [GIGABYTES [ROUNDS]]`: take_snapshot beside etcdctl's own.

One member with so much data (2 without a word) that cannot be compressed, asked in turn in one run.
What is measured: seconds, and the most memory that the process had, less that of the same command
while the member was empty. `rehearse_snapshot` stands beside `etcdutl snapshot restore`, of which
it is a part. Exit status: 0 measured, 1 not measured.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ruamel.yaml import YAML

from tests.bench.server import runner_environment
from tests.integration.members import fill, raise_cluster
from tests.integration.runbooks import Prefect
from tests.lab.etcd_programs import DEFAULT, get_programs
from tests.lab.lab import Lab
from tests.lab.preparedness import unavailable_reason

ROOT = Path(__file__).parents[2]
ROUNDS = 3
LOT_MEGABYTES = 250
QUOTA_BYTES = 8 << 30
KEY = "age-keygen"

Measured = dict[str, list[tuple[float, float]]]
"""Seconds and MiB of each time, by what was done."""


def main() -> int:
    """Measure all in turn; returns the exit status."""
    if (reason := unavailable_reason()) is not None:
        print(f"bench: {reason}")
        return 1
    gigabytes = float(sys.argv[1]) if sys.argv[1:] else 2.0
    rounds = int(sys.argv[2]) if sys.argv[2:] else ROUNDS
    with (
        tempfile.TemporaryDirectory(prefix="etcd-bench-") as directory,
        Lab.start("bench", hosts=1, data_disk_mb=int(gigabytes * 3000) + 500) as lab,
    ):
        work = Path(directory)
        text = lab.inventory.read_text()
        quota = f"settings: {{quota_backend_bytes: {QUOTA_BYTES}}}"
        lab.inventory.write_text(text.replace("settings: {}", quota))
        scene = raise_cluster(lambda **_: lab, Prefect(work / "home"), work, spare=0)
        commands = contenders(lab, scene.inventory, scene.clients, work)
        idle = {name: run() for name, run in commands.items()}
        for _ in range(round(gigabytes * 1000 / LOT_MEGABYTES)):
            fill(lab, "master01", LOT_MEGABYTES)
        measured: Measured = {name: [] for name in commands}
        for _ in range(rounds):
            for name, run in commands.items():
                measured[name].append(run())
        size = (work / "saved.db").stat().st_size
    print(f"{size / 1e9:.2f} GB, {os.cpu_count()} cores, medians of {rounds}")
    for name, every in measured.items():
        seconds, memory = (statistics.median(one) for one in zip(*every, strict=True))
        more = memory - idle[name][1]
        print(f"{name}: {seconds:.1f} s, {more:.0f} MiB above its {idle[name][1]:.0f} when empty")
    return 0


def contenders(
    lab: Lab, inventory: Path, clients: Path, work: Path
) -> dict[str, Callable[[], tuple[float, float]]]:
    """Make what is run in turn, by name; each gives seconds and MiB."""
    programs = get_programs(DEFAULT).directory
    saved, restored = work / "saved.db", work / "restored"
    key = work / "key"
    subprocess.run([KEY, "-o", str(key)], check=True, capture_output=True)
    key.chmod(0o600)
    public = subprocess.run([KEY, "-y", str(key)], check=True, capture_output=True, text=True)
    bare = _with_rules(inventory, "bare", store=str(work / "bare"))
    sealed = _with_rules(
        inventory,
        "sealed",
        store=str(work / "sealed"),
        recipients=[public.stdout.strip()],
        identity={"file": str(key)},
    )
    tls = [f"--cacert={clients}/ca.pem", f"--cert={clients}/client.pem"]
    tls += [
        f"--key={clients}/client-key.pem",
        f"--endpoints=https://{lab['master01'].address}:2379",
    ]

    def runbook(name: str, path: Path) -> Callable[[], tuple[float, float]]:
        command = [sys.executable, "-m", "flows", name, "--clusters", str(path)]
        return lambda: _measure(command, work)

    def restore() -> tuple[float, float]:
        subprocess.run(["rm", "-rf", str(restored)], check=True)
        words = ["snapshot", "restore", str(saved), f"--data-dir={restored}"]
        return _measure([str(programs / "etcdutl"), *words], work)

    return {
        "etcdctl snapshot save": lambda: _measure(
            [str(programs / "etcdctl"), *tls, "snapshot", "save", str(saved)], work
        ),
        "take_snapshot": runbook("take_snapshot", bare),
        "take_snapshot, encrypted": runbook("take_snapshot", sealed),
        "etcdutl snapshot restore": restore,
        "rehearse_snapshot": runbook("rehearse_snapshot", bare),
        "rehearse_snapshot, encrypted": runbook("rehearse_snapshot", sealed),
    }


def _with_rules(inventory: Path, name: str, **rules: object) -> Path:
    """Write the inventory anew with these rules for snapshots; the newest alone is kept."""
    yaml = YAML()
    content = yaml.load(inventory)
    content["snapshots"] = {"keep": dict.fromkeys(("hourly", "daily"), 0), **rules}
    path = inventory.with_name(f"{inventory.stem}-{name}.yaml")
    with path.open("w") as file:
        yaml.dump(content, file)
    return path


def _measure(command: list[str], work: Path) -> tuple[float, float]:
    """Run a command to its end: its seconds, and the most MiB that it had in memory at once."""
    environment = {**runner_environment(work / "home"), "TMPDIR": str(work), "ETCDCTL_API": "3"}
    log = work / "log"
    began = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"bench: {' '.join(command)} failed:\n{log.read_text()}")
    return time.monotonic() - began, used.ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
