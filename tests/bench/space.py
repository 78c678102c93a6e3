"""`python -m tests.bench.space`: a large database defragmented, by etcdctl and by reclaim_space.

One cluster of three in one run, in turn: `etcdctl defrag` on the leader, as it is done by hand, and
`reclaim_space` on all three, once serving and once with members stopped. Clients write all the
time: one at each member, which stays there, and a careful one, which waits a second for an answer
and then goes to the next member. Told is the longest time without an acknowledged write: on all
members together, of the careful client, and on the member that fared worst. Then the quota is
filled up, and the time is told from the start of `reclaim_space` to the first write.
Exit status: 0 measured, 1 not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import httpx

from tasks.engine.journal import read_journal
from tests.bench.server import runner_environment
from tests.integration.members import Scene, find_leader, raise_cluster
from tests.integration.runbooks import Prefect, etcdctl
from tests.lab.lab import Lab
from tests.lab.preparedness import unavailable_reason

ROOT = Path(__file__).parents[2]
RUN_SECONDS = 600.0
LOT_MEGABYTES = 250
VALUE_BYTES = 10_000
"""About a Pod's. Etcd defragments 10,000 keys in one transaction, which is held in memory."""
VALUES_AT_ONCE = 100
SETTLE_SECONDS = 2.0
TOLD = 3
MEMBERS = ["master01", "master02", "master03"]

Times = list[list[float]]
"""When each client had its writes acknowledged, in seconds since the epoch."""


def main() -> int:
    """Measure both in turn; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.space", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=2000, help="of data (2000)")
    parser.add_argument("--etcd", default="3.6.16", help="version (3.6.16)")
    parser.add_argument("--serving-only", action="store_true", help="do not fill the quota up")
    options = parser.parse_args()
    if (reason := unavailable_reason()) is not None:
        print(f"bench: {reason}")
        return 1
    quota = int(options.megabytes * 1.2 + 200) << 20
    with (
        tempfile.TemporaryDirectory(prefix="etcd-bench-") as directory,
        Lab.start(
            "bench-d", hosts=3, etcd=options.etcd, data_disk_mb=options.megabytes * 3 + 1000
        ) as lab,
    ):
        work = Path(directory)
        text = lab.inventory.read_text()
        # Else each member keeps all that was written in its log and in its memory, too.
        catchup = "ETCD_SNAPSHOT_CATCHUP_ENTRIES"
        if options.etcd < "3.6":
            catchup = catchup.replace("_", "_EXPERIMENTAL_", 1)
        settings = (
            f"settings: {{quota_backend_bytes: {quota}, snapshot_count: 500, "
            f"environment: {{{catchup}: '100'}}}}"
        )
        lab.inventory.write_text(text.replace("settings: {}", settings))
        scene = raise_cluster(lambda **_: lab, Prefect(work / "home"), work, spare=0)
        for _ in range(options.megabytes // LOT_MEGABYTES):
            _fill(scene)  # the same keys: the last lot is data, not history
        _forget_settings(lab)
        print(f"{_size(lab) / 1e9:.2f} GB, etcd {options.etcd}, {os.cpu_count()} cores", flush=True)
        _measure_both(scene, work)
        if not options.serving_only:
            _measure_nospace(scene, work)
    return 0


def _fill(scene: Scene) -> None:
    """Write a lot of values that cannot be compressed, over the same keys as every lot."""
    url = f"https://{scene.lab[MEMBERS[0]].address}:2379/v3/kv/txn"
    context = ssl.create_default_context(cafile=str(scene.clients / "ca.pem"))
    context.load_cert_chain(scene.clients / "client.pem", scene.clients / "client-key.pem")
    with httpx.Client(verify=context, timeout=RUN_SECONDS) as http:
        keys = range((LOT_MEGABYTES << 20) // VALUE_BYTES)
        for first in keys[::VALUES_AT_ONCE]:
            puts = [
                {
                    "requestPut": {
                        "key": b64encode(f"fill/{n}".encode()).decode(),
                        "value": b64encode(os.urandom(VALUE_BYTES)).decode(),
                    }
                }
                for n in keys[first : first + VALUES_AT_ONCE]
            ]
            http.post(url, json={"success": puts}).raise_for_status()


def _forget_settings(lab: Lab) -> None:
    """Let the members keep as much of their logs as they do by default, after the filling."""
    for name in MEMBERS:
        lab[name].run("sed -i /SNAPSHOT_/d /etc/etcd/etcd.conf && systemctl restart etcd").check()
        time.sleep(SETTLE_SECONDS)


def _measure_both(scene: Scene, work: Path) -> None:
    lab = scene.lab
    reclaim = ("--free-percent", "0", "--keep-minutes", "100000")
    for name in ("idle", "etcdctl defrag", "reclaim_space", "reclaim_space --stop-members"):
        with writers(scene, work / name) as logs:
            began = time.time()
            if name == "idle":
                time.sleep(5)
            elif name == "etcdctl defrag":
                leader = find_leader(lab, MEMBERS)
                etcdctl(lab, "--command-timeout=300s", "defrag", on=leader)
            else:
                _run(scene, work, *reclaim, *name.split()[1:])
            ended = time.time()
        *members, careful = read(logs)
        every = sorted(at for rows in members for at in rows)
        worst = max(longest(rows, began, ended) for rows in members)
        print(
            f"{name}: {ended - began:.1f} s; longest without a write: on all members "
            f"{longest(every, began, ended):.3f} s, of the careful client "
            f"{longest(careful, began, ended):.3f} s, on the worst member {worst:.3f} s",
            flush=True,
        )
        for who, rows in zip(("all", *MEMBERS, "careful"), (every, *members, careful), strict=True):
            print(f"  {who}: longest {tell_longest(rows, began, ended)}", flush=True)
        if name.startswith("reclaim_space"):
            _tell_steps(Prefect(work / "home"), began)


def _measure_nospace(scene: Scene, work: Path) -> None:
    """Fill the quota with history, while clients write, and lead out."""
    lab = scene.lab
    with writers(scene, work / "nospace") as logs:
        while "NOSPACE" not in etcdctl(lab, "alarm", "list"):
            try:
                _fill(scene)
            except httpx.HTTPStatusError as error:
                if "space exceeded" not in error.response.text:
                    raise
        full = _size(lab)
        began = time.time()
        _run(scene, work)
        ended = time.time()
        time.sleep(SETTLE_SECONDS)
    first = min(at for rows in read(logs) for at in rows if at > began)
    print(
        f"NOSPACE at {full / 1e9:.2f} GB: writable after {first - began:.1f} s, all done after "
        f"{ended - began:.1f} s, {_size(lab) / 1e9:.2f} GB then",
        flush=True,
    )


@contextmanager
def writers(scene: Scene, directory: Path) -> Iterator[list[Path]]:
    """Let a client write to each member, and a careful one to all; gives their logs so."""
    directory.mkdir()
    urls = [f"https://{scene.lab[name].address}:2379" for name in MEMBERS]
    logs = [directory / name for name in (*MEMBERS, "careful")]
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.integration.writers", str(scene.clients), str(log)),
                *(f"writer/{log.name}-{time.time_ns()}", *(urls[at : at + 1] or urls)),
            ],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
        )
        for at, log in enumerate(logs)
    ]
    try:
        time.sleep(SETTLE_SECONDS)
        yield logs
    finally:
        for process in processes:
            process.kill()
            process.wait()


def read(logs: list[Path]) -> Times:
    """Read when each client's writes were acknowledged; a cut last line is left."""
    return [[json.loads(line)[1] for line in log.read_text().split("\n")[:-1]] for log in logs]


def longest(rows: list[float], began: float, ended: float) -> float:
    """Tell the longest time without an acknowledged write."""
    return max(later - earlier for earlier, later in _pauses(rows, began, ended))


def tell_longest(rows: list[float], began: float, ended: float) -> str:
    """Tell the three longest, and when in the run they were."""
    most = sorted(_pauses(rows, began, ended), key=lambda pause: pause[0] - pause[1])[:TOLD]
    return ", ".join(f"{b - a:.3f} s at {a - began:.2f}" for a, b in most)


def _pauses(rows: list[float], began: float, ended: float) -> Iterator[tuple[float, float]]:
    return pairwise([began, *(at for at in rows if began < at < ended), ended])


def _tell_steps(prefect: Prefect, began: float) -> None:
    """Tell when in the run leadership was handed over, and members were defragmented."""
    for record in read_journal(prefect.journals[-1]):
        step = str(record.details.get("step", ""))
        if step.startswith(("defragment", "move leadership")):
            print(f"  {record.time - began:7.2f} {record.event} {step}", flush=True)


def _size(lab: Lab) -> int:
    rows = json.loads(etcdctl(lab, "endpoint", "status", "-w", "json"))
    return max(int(row["Status"]["dbSize"]) for row in rows)


def _run(scene: Scene, work: Path, *options: str) -> None:
    log = work / "log"
    with log.open("w") as output:
        ended = subprocess.run(
            [
                *(sys.executable, "-m", "flows", "reclaim_space"),
                *("--cluster", str(scene.inventory), *options),
            ],
            cwd=ROOT,
            env=runner_environment(work / "home"),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            timeout=RUN_SECONDS,
            check=False,
        )
    told = [line for line in log.read_text().splitlines() if "defragment" in line or "gap" in line]
    print("\n".join(f"  {line}" for line in told), flush=True)
    if ended.returncode != 0:
        sys.exit(f"bench: reclaim_space failed:\n{log.read_text()}")


if __name__ == "__main__":
    sys.exit(main())
