"""`python -m tests.bench.certificates`: 300 endpoints checked, beside Ansible on the same ones.

And the fleet of their 100 clusters.

Three hosts with a hundred further addresses each, so that there are 300 SSH and 600 TLS endpoints;
sshd and etcd listen on all of them. Both contenders read the same files and the same ports, with
40 hosts at once. Exit status: 0 measured, 1 not measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from ruamel.yaml import YAML

from tests.bench.__main__ import ANSIBLE_VENV, install_ansible
from tests.bench.contenders import leave_connections
from tests.bench.server import prefect_server, runner_environment
from tests.lab.lab import Lab
from tests.lab.preparedness import unavailable_reason

HERE = Path(__file__).parent
ROOT = Path(__file__).parents[2]
ADDRESSES = 100
HOSTS_AT_ONCE = 40
RUN_SECONDS = 900.0


def main() -> int:
    """Measure everybody once, in turn; returns the exit status."""
    if (reason := unavailable_reason()) is not None:
        print(f"bench: {reason}")
        return 1
    install_ansible(ANSIBLE_VENV)
    with tempfile.TemporaryDirectory(prefix="etcd-bench-") as directory:
        work = Path(directory)
        collections = fetch_collection(work)
        with Lab.start("bench", hosts=3) as lab, further_addresses(lab) as addresses:
            inventories = write_inventories(lab, addresses, work)
            home = work / "home"
            home.mkdir()
            bootstrap(inventories[0], home)
            tell("ansible-core and community.crypto", *ansible(lab, addresses, work, collections))
            command = check_command("check_certificates", inventories)
            fleet = check_command("check_fleet", inventories)
            tell("check_certificates, embedded API", *timed(command, runner_environment(home)))
            with prefect_server(work / "served") as server, server.awake():
                environment = runner_environment(server.home, server.api)
                tell("check_certificates, server running", *timed(command, environment))
                tell("check_fleet, server running", *timed(fleet, environment))
    return 0


def tell(name: str, seconds: float, mebibytes: float) -> None:
    """Print a measurement."""
    print(f"{name}: {seconds:.1f} s, {mebibytes:.0f} MiB at its peak", flush=True)


@contextlib.contextmanager
def further_addresses(lab: Lab) -> Iterator[dict[str, list[str]]]:
    """Give every host a hundred addresses, and the runner the way to them; undone at the end."""
    found: dict[str, list[str]] = {}
    with contextlib.ExitStack() as stack:
        for number, (name, host) in enumerate(lab.hosts.items(), 1):
            network = f"10.99.{number}"
            found[name] = [f"{network}.{last}" for last in range(1, ADDRESSES + 1)]
            host.run("; ".join(f"ip addr add {one}/32 dev lo" for one in found[name])).check()
            route = [f"{network}.0/24", "via", host.address]
            subprocess.run(["ip", "route", "add", *route], check=True)
            stack.callback(subprocess.run, ["ip", "route", "del", *route], check=False)
        yield found


def write_inventories(lab: Lab, addresses: dict[str, list[str]], work: Path) -> list[Path]:
    """Write the lab's own inventory and a hundred more, of three endpoints each."""
    every = [one for listed in addresses.values() for one in listed]
    lines = lab.known_hosts.read_text().splitlines()
    keys = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}
    known = work / "known_hosts"
    known.write_text(
        "\n".join(
            [
                *lines,
                *(
                    f"{one} {keys[lab[name].address]}"
                    for name, listed in addresses.items()
                    for one in listed
                ),
            ]
        )
        + "\n"
    )
    base = YAML(typ="safe").load(lab.inventory)
    base["ssh"]["known_hosts"] = str(known)
    # Every address is a name of every certificate, so that nothing is to be found.
    own = [host.address for host in lab.hosts.values()]
    base["extra_sans"] = [*own, *every]
    written = []
    for number in range(ADDRESSES + 1):
        content = dict(base)
        if number:
            content["name"] = f"bench{number}"
            content["hosts"] = [
                {
                    "name": name,
                    "address": listed[number - 1],
                    "peer_address": lab[name].address,
                    "client_address": lab[name].address,
                }
                for name, listed in addresses.items()
            ]
        path = work / f"{content['name']}.yaml"
        with path.open("w") as file:
            YAML(typ="safe").dump(content, file)
        written.append(path)
    return written


def bootstrap(inventory: Path, home: Path) -> None:
    """Bootstrap the cluster that answers on all addresses."""
    command = [sys.executable, "-m", "flows", "bootstrap_cluster", "--cluster", str(inventory)]
    subprocess.run(
        command,
        cwd=ROOT,
        env=runner_environment(home),
        check=True,
        timeout=RUN_SECONDS,
        stdout=subprocess.DEVNULL,
    )


def check_command(runbook: str, inventories: list[Path]) -> list[str]:
    """Make the command that looks at all the further clusters."""
    named = [word for path in inventories[1:] for word in ("--clusters", str(path))]
    return [sys.executable, "-m", "flows", runbook, *named]


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Run a command to its end; returns seconds and its peak in MiB, with all its children."""
    with tempfile.TemporaryFile("w+") as log:
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, tree_mebibytes(process.pid))
            if time.monotonic() - began > RUN_SECONDS:
                process.kill()
            time.sleep(0.1)
        seconds = time.monotonic() - began
        if process.returncode:
            log.seek(0)
            raise SystemExit(f"{command[0]} ended badly:\n{log.read()[-3000:]}")
    return seconds, peak


def tree_mebibytes(root: int) -> float:
    """Add up the proportional memory of a process and all that it has begun."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(status.parent.name))
    total, waiting = 0, [root]
    while waiting:
        process = waiting.pop()
        waiting += children.get(process, [])
        with contextlib.suppress(OSError, ValueError):
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
            (pss,) = (line for line in rollup.splitlines() if line.startswith("Pss:"))
            total += int(pss.split()[1])
    return total / 1024


def ansible(
    lab: Lab, addresses: dict[str, list[str]], work: Path, collections: Path
) -> tuple[float, float]:
    """Play the playbook on the same endpoints."""
    hosts = {one: {"ansible_host": one} for listed in addresses.values() for one in listed}
    access = {"ansible_user": "operator", "ansible_ssh_private_key_file": str(lab.key)}
    inventory = work / "hosts.json"
    inventory.write_text(json.dumps({"etcd": {"hosts": hosts, "vars": access}}))
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("ANSIBLE")},
        "ANSIBLE_CONFIG": str(HERE / "ansible" / "ansible.cfg"),
        "ANSIBLE_HOME": str(work / "ansible"),
        "ANSIBLE_COLLECTIONS_PATH": str(collections),
        "ANSIBLE_FORKS": str(HOSTS_AT_ONCE),
        "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=30s "
        f"-o UserKnownHostsFile={work / 'known_hosts'}",
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(work / "cp"),
        "LC_ALL": "C.UTF-8",
    }
    playbook = str(HERE / "ansible" / "certificates.yml")
    command = [str(ANSIBLE_VENV / "bin" / "ansible-playbook"), "-i", str(inventory), playbook]
    try:
        return timed(command, environment)
    finally:
        leave_connections(work / "cp")


def fetch_collection(work: Path) -> Path:
    """Get community.crypto out of the `ansible` package, which is far larger; returns its path."""
    pip = [str(ANSIBLE_VENV / "bin" / "pip"), "download", "--no-deps", "-q", "-d", str(work)]
    subprocess.run([*pip, "ansible"], check=True, timeout=RUN_SECONDS)
    (wheel,) = work.glob("ansible-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        prefix = "ansible_collections/community/crypto/"
        wanted = [name for name in archive.namelist() if name.startswith(prefix)]
        archive.extractall(work / "collections", wanted)
    wheel.unlink()
    return work / "collections"


if __name__ == "__main__":
    sys.exit(main())
