"""`python -m tests.bench.restores`: a lost quorum, by etcd's own page and by `recover_quorum`.

One cluster of three on the same hosts, in one run, in turn: two members die and their data are
gone, clients write all the time. Timed from the start of the command to the first write that a
client has acknowledged, and to the command's end, which sees every member healthy. Members fold
their log after every ten entries, or gigabytes of it would stay in their memory.
Exit status: 0 measured, 1 not measured.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.server import prefect_server, runner_environment
from tests.integration.members import Scene, fill, raise_cluster
from tests.integration.runbooks import Prefect
from tests.integration.writers import Writers
from tests.lab.installation import OPERATOR
from tests.lab.lab import Lab
from tests.lab.preparedness import unavailable_reason

HERE = Path(__file__).parent
ROOT = Path(__file__).parents[2]
RUN_SECONDS = 900.0
LOT_MEGABYTES, LOTS_IN_MEMORY = 100, 4
QUOTA_BYTES = 8 << 30
COPIES = 4
"""Of the data on a host's disk at once: the old ones, a copy, the snapshot, what is restored."""
SURVIVOR = "master01"
DATA = "/var/lib/etcd/default.etcd"


@dataclass
class Times:
    """Seconds of each round: until a client was served, and until the command ended."""

    served: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)


def main() -> int:
    """Measure both in turn; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.restores", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each (3)")
    parser.add_argument("--megabytes", type=int, default=100, help="of data, in hundreds (100)")
    parser.add_argument("--etcd", default="3.6.16", help="version (3.6.16)")
    options = parser.parse_args()
    if (reason := unavailable_reason()) is not None:
        print(f"bench: {reason}")
        return 1
    times = {"by hand": Times(), "recover_quorum": Times()}
    with (
        tempfile.TemporaryDirectory(prefix="etcd-bench-") as directory,
        Lab.start(
            "bench-r",
            hosts=3,
            etcd=options.etcd,
            data_disk_mb=COPIES * options.megabytes + 2000,
        ) as lab,
        prefect_server(Path(directory) / "home") as server,
        server.awake(),
    ):
        work = Path(directory)
        settings = f"settings: {{quota_backend_bytes: {QUOTA_BYTES}, snapshot_count: 10}}"
        text = lab.inventory.read_text().replace("settings: {}", settings)
        lab.inventory.write_text(text)
        scene = raise_cluster(lambda **_: lab, Prefect(server.home, server.api), work, spare=0)
        environment = runner_environment(server.home, server.api)
        fill_all(scene, options.megabytes)
        for number in range(options.rounds):
            for name, found in times.items():
                own = work / f"{number}{name.replace(' ', '')}"
                own.mkdir(mode=0o700)
                command, extra = commands(scene, own)[name]
                if not measure(scene, own, command, {**environment, **extra}, found):
                    return 1
                print(
                    f"{name}: served after {found.served[-1]:.1f} s, ended after "
                    f"{found.ended[-1]:.1f} s",
                    flush=True,
                )
                trim(lab)
    for name, found in times.items():
        print(
            f"{name}: median of {options.rounds}: served after "
            f"{statistics.median(found.served):.1f} s, ended {statistics.median(found.ended):.1f} s"
        )
    return 0


def fill_all(scene: Scene, megabytes: int) -> None:
    """Fill the cluster; members are restarted in between, for each has its log in memory, too."""
    for number in range(1, megabytes // LOT_MEGABYTES + 1):
        fill(scene.lab, SURVIVOR, LOT_MEGABYTES)
        if number % LOTS_IN_MEMORY == 0:
            for command in ("restart --no-block", "start"):
                for name in scene.members:
                    scene.lab[name].run(f"systemctl {command} etcd", timeout=60).check()


def measure(
    scene: Scene, work: Path, command: list[str], environment: dict[str, str], found: Times
) -> bool:
    """Lose a majority and run one contender, with clients that never pause; whether it did it."""
    lab, log = scene.lab, work / "log"
    lost = [name for name in scene.members if name != SURVIVOR]
    with Writers(lab, work, files=scene.clients) as writers, log.open("w") as output:
        for name in lost:
            lab[name].run(
                f"systemctl kill -s KILL etcd; systemctl stop etcd; rm -rf {DATA}"
            ).check()
            time.sleep(2)
        began, at = time.monotonic(), time.time()
        ended = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            timeout=RUN_SECONDS,
            check=False,
        )
        found.ended.append(time.monotonic() - began)
        time.sleep(2)
        acknowledged = [when for rows in writers.read() for _, when in rows if when > at]
    if ended.returncode != 0 or not acknowledged:
        print(f"bench: it failed:\n{log.read_text()}")
        return False
    found.served.append(min(acknowledged) - at)
    report = writers.check(on=SURVIVOR)
    print(f"{report.acknowledged} writes, {len(report.lost)} lost")
    return True


def trim(lab: Lab) -> None:
    """Remove what was set aside: the hosts' disks are memory."""
    for host in lab.hosts.values():
        host.run("rm -rf /var/lib/etcd/left-* /var/lib/etcd/default.etcd.*").check()


def commands(scene: Scene, work: Path) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Write both contenders' commands and what they need in their environment."""
    lab = scene.lab
    script = {
        "SURVIVOR": scene.address(SURVIVOR),
        "HOSTS": " ".join(map(scene.address, scene.members)),
        "SSH_USER": OPERATOR,
        "SSH_KEY": str(lab.key),
        "KNOWN_HOSTS": str(lab.known_hosts),
        "WORK": str(work),
        "HOME": os.environ.get("HOME", "/"),
    }
    runbook = [
        *(sys.executable, "-m", "flows", "recover_quorum", "--cluster", str(scene.inventory)),
        *("--consent", lab.name),
    ]
    return {
        "by hand": (["bash", str(HERE / "restore.sh")], script),
        "recover_quorum": (runbook, {}),
    }


if __name__ == "__main__":
    sys.exit(main())
