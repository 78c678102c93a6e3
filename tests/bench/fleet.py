"""`python -m tests.bench.fleet`: 100 clusters looked at by two workers of a team's server.

The endpoints are those of `tests.bench.certificates`: 300 hosts to log in to, a hundred of which
are one, with one of three members. Nothing is wrong with them, and a run that ends as if something
were is no measurement. Each worker has a checkout and a PREFECT_HOME of its own, as on two
machines. What is measured is from the moment that the runs are asked for to
the end of the last one, with the workers' memory and that of all their runs. Exit status: 0
measured, 1 not measured.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench.certificates import (
    ADDRESSES,
    RUN_SECONDS,
    bootstrap,
    further_addresses,
    tree_mebibytes,
    write_inventories,
)
from tests.integration.runbooks import Prefect, prefect_server
from tests.integration.teams import copy_checkout, deploy, worker
from tests.lab.lab import Lab
from tests.lab.preparedness import unavailable_reason

WATCH_SECONDS = 1.0
"""Reading all processes' memory five times a second would take a tenth of a core."""
ENDS = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def main() -> int:
    """Measure each runbook in one run and in two at once; returns the exit status."""
    if (reason := unavailable_reason()) is not None:
        print(f"bench: {reason}")
        return 1
    with tempfile.TemporaryDirectory(prefix="etcd-bench-") as directory:
        work = Path(directory)
        with Lab.start("bench", hosts=3) as lab, further_addresses(lab) as addresses:
            inventories = write_inventories(lab, addresses, work)
            bootstrap(inventories[0], home(work / "home"))
            with team(work, inventories) as (prefect, workers):
                names = [path.stem for path in inventories[1:]]
                halves = [names[: ADDRESSES // 2], names[ADDRESSES // 2 :]]
                for runbook in ("check_certificates", "check_fleet"):
                    measure(prefect, workers, runbook, [names])
                    measure(prefect, workers, runbook, halves)
    return 0


def home(path: Path) -> Path:
    """Make a PREFECT_HOME."""
    path.mkdir()
    return path


@contextlib.contextmanager
def team(work: Path, inventories: Sequence[Path]) -> Iterator[tuple[Prefect, list[int]]]:
    """Start a server and two workers that have the inventories; gives the workers' processes."""
    with prefect_server(home(work / "server")) as prefect, contextlib.ExitStack() as stack:
        processes = []
        for number in (1, 2):
            checkout = copy_checkout(work / f"checkout{number}")
            for path in inventories[1:]:
                (checkout / "deployments" / "clusters" / path.name).write_text(path.read_text())
            for one in ("check_certificates", "check_fleet"):
                deploy(prefect, "--name", one, checkout=checkout)
            own = Prefect(home(work / f"worker{number}"), prefect.api)
            processes.append(stack.enter_context(worker(own, checkout)).pid)
        yield prefect, processes


def measure(prefect: Prefect, workers: list[int], runbook: str, parts: list[list[str]]) -> None:
    """Ask for the runs, wait for all ends, and print seconds and the peak of memory."""
    deployment = prefect.get(f"/deployments/name/{runbook}/{runbook}")["id"]
    peak, ended = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(WATCH_SECONDS):
            peak = max(peak, sum(map(tree_mebibytes, workers)))

    watching = threading.Thread(target=watch)
    watching.start()
    began = time.monotonic()
    asked = f"/deployments/{deployment}/create_flow_run"
    runs = [prefect.ask(asked, {"parameters": {"clusters": part}})["id"] for part in parts]
    states: dict[str, tuple[str, str]] = {}
    while any(states.get(run, ("", ""))[0] not in ENDS for run in runs):
        if time.monotonic() - began > RUN_SECONDS:
            raise SystemExit(f"{runbook} did not end: {states}")
        time.sleep(0.5)
        found = {run: prefect.get(f"/flow_runs/{run}")["state"] for run in runs}
        states = {run: (state["type"], state["name"]) for run, state in found.items()}
    seconds = time.monotonic() - began
    ended.set()
    watching.join()
    for run, (kind, name) in states.items():
        if kind != "COMPLETED":
            said = prefect.get(f"/flow_runs/{run}")["state"]["message"]
            raise SystemExit(f"{runbook} ended as {name}, and is no measurement: {said}")
    print(
        f"{runbook}, {sum(map(len, parts))} clusters in {len(parts)} run(s) on 2 workers: "
        f"{seconds:.1f} s, {peak:.0f} MiB at the peak of both workers",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
