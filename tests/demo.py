"""The demo: three hosts come up, `bootstrap_cluster` makes them a cluster, `check_health` shows it.

Every command is shown as you would type it. The hosts stay until `python -m tests.lab down`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.lab.preparedness import unavailable_reason
from tests.lab.state import list_records

ROOT = Path(__file__).parents[1]
LAB = "lab3"
NEXT = f"""
The cluster is up. What you can do now, in this directory:

  .venv/bin/python -m flows bootstrap_cluster --cluster {LAB}      again: it changes nothing
  .venv/bin/python -m flows check_health --cluster {LAB}
  .venv/bin/python -m tests.lab freeze {LAB}/master02 etcd.service  then check_health, then thaw
  .venv/bin/prefect server start                                the runs, at http://127.0.0.1:4200
  .venv/bin/python -m tests.lab down --name {LAB}                  take the hosts down
"""
ELSEWHERE = f"""
The demo starts real hosts on this machine, and this machine cannot have them:
{{reason}}.

On your own hosts: copy deployments/clusters/example.yaml to {LAB}.yaml beside it, put your
hosts, key and known_hosts in, and run

  .venv/bin/python -m flows bootstrap_cluster --cluster {LAB} --dry-run
"""


def main() -> int:
    """Run the demo; returns the exit status of the first command that fails."""
    if (reason := unavailable_reason()) is not None:
        print(ELSEWHERE.format(reason=reason))
        return 1
    python = str(Path(sys.executable).relative_to(ROOT))
    commands = [
        f"{python} -m flows bootstrap_cluster --cluster {LAB} --reason demo",
        f"{python} -m flows check_health --cluster {LAB}",
    ]
    if LAB not in {record.name for record in list_records()}:
        commands.insert(0, f"{python} -m tests.lab up 3 --name {LAB}")
    for command in commands:
        print(f"\n$ {command}", flush=True)
        ended = subprocess.run(command.split(), cwd=ROOT, check=False)
        if ended.returncode:
            return ended.returncode
    print(NEXT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
