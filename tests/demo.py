"""The demo: three hosts come up, `bootstrap_cluster` makes them a cluster, `check_health` shows it.

With `--kubernetes` they are nodes that kubeadm has made a stacked cluster of.

Every command is shown as you would type it. The hosts stay until `python -m tests.lab down`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from tests.lab.preparedness import unavailable_reason

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
        "target": "demo-kubernetes" if options.kubernetes else "demo",
        "variables": (f" LAB={lab}" if lab != usual else "")
        + (f" ETCD={options.etcd}" if options.etcd else "")
        + (f" KUBERNETES={options.kubernetes}" if options.kubernetes else ""),
    }
    if (reason := unavailable_reason()) is not None:
        print(ELSEWHERE.format(reason=reason, **words))
        return 1
    up = [python, "-m", "tests.lab", "up", "3", "--name", lab]
    commands = [
        [*up, "--kubernetes", options.kubernetes]
        if options.kubernetes
        else [*up, *(("--etcd", options.etcd) if options.etcd else ())],
    ]
    if not options.kubernetes:
        commands += [
            [python, "-m", "flows", "bootstrap_cluster", "--cluster", lab, "--reason", "demo"],
            [python, "-m", "flows", "check_health", "--cluster", lab],
        ]
    for command in commands:
        print(f"\n$ {' '.join(command)}", flush=True)
        ended = subprocess.run(command, cwd=ROOT, check=False)
        if ended.returncode:
            # The lab's own message says what to do.
            print("" if command is commands[0] else FAILED.format(**words), end="")
            return ended.returncode
    print((KUBERNETES_NEXT if options.kubernetes else NEXT).format(**words))
    return 0


def _shown(program: Path) -> str:
    """Name a program as it is typed in this directory."""
    return str(program.relative_to(ROOT) if program.is_relative_to(ROOT) else program)


if __name__ == "__main__":
    sys.exit(main())
