"""The demo: three hosts come up, `bootstrap_cluster` makes them a cluster, `check_health` shows it.

With `--kubernetes` they are nodes that kubeadm has made a stacked cluster of, which is adopted and
checked.

Every command is shown as you would type it. The hosts stay until `python -m tests.lab down`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from tests.lab.installation import OPERATOR
from tests.lab.lab import Lab
from tests.lab.preparedness import unavailable_reason
from tests.lab.state import STATE

ROOT = Path(__file__).parents[1]
LAB = "lab3"
KUBERNETES_LAB = "kube3"
NEXT = """
The cluster is up. What you can do now, in this directory:

  {python} -m flows bootstrap_cluster --cluster {lab}      again: it changes nothing
  {python} -m flows check_health --cluster {lab}
  {python} -m tests.lab freeze {lab}/master02 etcd.service  then check_health, then thaw
  {prefect} server start                                the runs, at http://127.0.0.1:4200
  {python} -m tests.lab down --name {lab}                  take the hosts down
"""
KUBERNETES_NEXT = """
Three control planes are up, each with its etcd. What you can do now, in this directory:

  {python} -m flows check_health --cluster {adopted}
  {python} -m tests.lab shell {lab}/master01             then crictl ps, or kubeadm certs
  {python} -m tests.lab power-cut {lab}/master02         then start {lab}/master02
  {python} -m tests.lab down --name {lab}                take the nodes down
"""
ELSEWHERE = """
The demo starts real hosts on this machine, and this machine cannot have them:
{reason}.

On your own hosts: copy deployments/clusters/example.yaml to {lab}.yaml beside it, put your
hosts, key and known_hosts in, and run

  {python} -m flows bootstrap_cluster --cluster {lab} --dry-run
"""
FAILED = """
The demo ends here. Its hosts stay as they are; to have new ones and to begin anew:

  {python} -m tests.lab down --name {lab} && make {target}{variables}
"""


def main() -> int:
    """Run the demo; returns the exit status of the first command that fails."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    named = f"the lab's name ({LAB}, {KUBERNETES_LAB}): make demo LAB=…"
    parser.add_argument("--lab", help=named)
    parser.add_argument("--etcd", help="etcd's version: make demo ETCD=3.7.3")
    parser.add_argument("--kubernetes", help="make demo-kubernetes KUBERNETES=1.37.2")
    options = parser.parse_args()
    usual = KUBERNETES_LAB if options.kubernetes else LAB
    lab, python = options.lab or usual, _shown(Path(sys.executable))
    words = {
        "lab": lab,
        "python": python,
        "prefect": _shown(Path(sys.executable).with_name("prefect")),
        "adopted": str(adopted_path(lab)),
        "target": "demo-kubernetes" if options.kubernetes else "demo",
        "variables": (f" LAB={lab}" if lab != usual else "")
        + (f" ETCD={options.etcd}" if options.etcd else "")
        + (f" KUBERNETES={options.kubernetes}" if options.kubernetes else ""),
    }
    if (reason := unavailable_reason()) is not None:
        print(ELSEWHERE.format(reason=reason, **words))
        return 1
    up = [python, "-m", "tests.lab", "up", "3", "--name", lab]
    if options.kubernetes:
        up += ["--kubernetes", options.kubernetes]
    elif options.etcd:
        up += ["--etcd", options.etcd]
    flows = [python, "-m", "flows"]
    commands = kubernetes_commands(flows, lab) if options.kubernetes else plain_commands(flows, lab)
    for command in chain([up], commands):
        print(f"\n$ {' '.join(command)}", flush=True)
        ended = subprocess.run(command, cwd=ROOT, check=False)
        if ended.returncode:
            # The lab's own message says what to do.
            print("" if command is up else FAILED.format(**words), end="")
            return ended.returncode
    print((KUBERNETES_NEXT if options.kubernetes else NEXT).format(**words))
    return 0


def plain_commands(flows: list[str], lab: str) -> Iterator[list[str]]:
    """List what is typed once three bare hosts are up."""
    yield [*flows, "bootstrap_cluster", "--cluster", lab, "--reason", "demo"]
    yield [*flows, "check_health", "--cluster", lab]


def kubernetes_commands(flows: list[str], lab: str) -> Iterator[list[str]]:
    """List what is typed once three control planes are up; their addresses are known then."""
    adopted = adopted_path(lab)
    if not adopted.exists():
        found = Lab.get(lab)
        hosts = [f"{host.name}={host.address}" for host in found.hosts.values()]
        named = [word for host in hosts for word in ("--hosts", host)]
        login = ["--user", OPERATOR, "--key", str(found.key)]
        login += ["--known-hosts", str(found.known_hosts), "--output", str(adopted)]
        yield [*flows, "adopt_cluster", "--cluster", lab, *named, *login, "--reason", "demo"]
    yield [*flows, "check_health", "--cluster", str(adopted)]
    yield [*flows, "check_certificates", "--clusters", str(adopted)]


def adopted_path(lab: str) -> Path:
    """Tell where the adopted cluster's inventory is: it goes with the lab."""
    return STATE / lab / "adopted.yaml"


def _shown(program: Path) -> str:
    """Name a program as it is typed in this directory."""
    return str(program.relative_to(ROOT) if program.is_relative_to(ROOT) else program)


if __name__ == "__main__":
    sys.exit(main())
