"""The benchmark: `python -m tests.bench` measures bootstrap_cluster against a script and Ansible.

All contenders in each round, in turning order, each on bare hosts of its own; one machine does
it all, so nothing else should run on it. Aims are printed, never asserted. Exit status: 0
measured, 1 not measured.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from rich.console import Console

from tests.bench.contenders import (
    Contender,
    ContenderFailed,
    Measurement,
    ansible_playbook,
    plan_only,
    shell_script,
    with_embedded_api,
    with_server,
)
from tests.bench.hosts import NotACluster, bare_hosts, check_cluster, time_to_healthy
from tests.bench.server import PrefectServer, prefect_server
from tests.bench.tables import (
    ANSIBLE,
    COLD,
    FLOOR,
    SCRIPT,
    SERVED,
    Results,
    machine_line,
    print_results,
)
from tests.lab.errors import LabError
from tests.lab.preparedness import unavailable_reason

ROOT = Path(__file__).parents[2]
ANSIBLE_VENV = ROOT / ".venv-bench"
ANSIBLE_CORE = "ansible-core>=2.18"
INSTALL_SECONDS = 600.0
TOOLS = {"cfssl": "golang-cfssl", "cfssljson": "golang-cfssl", "rsync": "rsync"}


def main() -> int:
    """Do what the command line says; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each (3)")
    parser.add_argument("--hosts", type=int, default=3, help="an odd number (3)")
    parser.add_argument("--etcd", default="3.5.16", help="version (3.5.16)")
    options = parser.parse_args()
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 140)
    if options.rounds < 1 or options.hosts % 2 == 0:
        parser.error("at least one round, and an odd number of hosts")
    if (reason := unavailable_reason() or _missing_tools()) is not None:
        console.print(f"bench: {reason}")
        return 1
    try:
        install_ansible(ANSIBLE_VENV)
        with _directory() as work:
            results, first = measure(options.rounds, options.hosts, options.etcd, work, console)
    except (ContenderFailed, LabError, NotACluster, subprocess.SubprocessError) as error:
        console.print(f"bench: {error}", markup=False)
        return 1
    console.print(machine_line(ANSIBLE_VENV, options.etcd, options.hosts))
    print_results(console, results, first)
    return 0


def measure(
    rounds: int, hosts: int, etcd: str, work: Path, console: Console
) -> tuple[Results, Measurement]:
    """Measure everybody in each round; returns the results and the very first run."""
    numbers = count()

    def one(name: str, contender: Contender, results: Results) -> Measurement:
        with bare_hosts(hosts, etcd) as lab:
            own = work / str(next(numbers))
            own.mkdir()
            found = contender(lab, own)
            check_cluster(lab)
            console.print(f"  {name}: {found.seconds:.2f} s", highlight=False)
            if name == SERVED:
                start = time_to_healthy(lab)
                console.print(f"  {FLOOR}: {start:.2f} s", highlight=False)
                results[FLOOR].append(Measurement(start))
        return found

    results: Results = {name: [] for name in (SCRIPT, ANSIBLE, COLD, SERVED, FLOOR)}
    cold = with_embedded_api(work / "cold")
    first = one("very first run", cold, results)
    with prefect_server(work / "served") as server:
        _warm(hosts, etcd, work, server)
        contenders = {
            SCRIPT: shell_script,
            ANSIBLE: ansible_playbook(ANSIBLE_VENV),
            COLD: cold,
            SERVED: with_server(server),
        }
        order = list(contenders)
        for number in range(rounds):
            console.print(f"round {number + 1} of {rounds}", highlight=False)
            for name in order:
                results[name].append(one(name, contenders[name], results))
            order = [*order[1:], order[0]]
    return results, first


def _warm(hosts: int, etcd: str, work: Path, server: PrefectServer) -> None:
    """Let the server have seen a run, as one that runs for days has."""
    with bare_hosts(hosts, etcd) as lab:
        own = work / "warm"
        own.mkdir()
        plan_only(lab, own, server)


def install_ansible(venv: Path) -> None:
    """Make Ansible's own virtual environment, unless it is there."""
    if (venv / ".complete").is_file():
        return
    print(f"installing ansible-core in {venv} (about a minute)", flush=True)
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(venv)],
        [str(venv / "bin" / "pip"), "install", "--quiet", ANSIBLE_CORE],
    ):
        subprocess.run(command, check=True, timeout=INSTALL_SECONDS, stdin=subprocess.DEVNULL)
    (venv / ".complete").touch()


def _missing_tools() -> str | None:
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    return f"it needs Debian packages: apt-get install -y {' '.join(missing)}" if missing else None


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="etcd-bench-") as directory:
        yield Path(directory)


if __name__ == "__main__":
    sys.exit(main())
