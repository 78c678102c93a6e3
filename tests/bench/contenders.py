"""Who is measured: each brings the same bare hosts to the same cluster, from one command.

A contender gets a lab that is up and an empty directory; its time is that of the whole process,
interpreter and imports included, since that is what an operator waits for.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tasks.engine.journal import read_journal
from tasks.model.inventory import Inventory
from tasks.model.inventory_file import load_inventory
from tasks.model.settings import DirectoryBinaries
from tests.bench.phases import Phase, split_run
from tests.bench.server import PrefectServer, runner_environment
from tests.lab.lab import Lab

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LIMIT_SECONDS = 180.0


class ContenderFailed(Exception):
    """A contender's process ended with an error, or took too long."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """How long it took, in seconds; `phases` only where there is a journal."""

    seconds: float
    phases: dict[Phase, float] = field(default_factory=dict)


Contender = Callable[[Lab, Path], Measurement]


def shell_script(lab: Lab, work: Path) -> Measurement:
    """Follow the procedures, serially."""
    inventory = load_inventory(str(lab.inventory))
    directory, programs = _programs(inventory)
    pki = work / "pki"
    pki.mkdir()
    environment = {
        **os.environ,
        "HOSTS": " ".join(f"{host.name}={host.address}" for host in lab.hosts.values()),
        "SSH_USER": inventory.ssh.user,
        "SSH_KEY": str(lab.key),
        "KNOWN_HOSTS": str(lab.known_hosts),
        "BINARIES": str(directory),
        "PROGRAMS": " ".join(programs),
        "WORK": str(pki),
    }
    return Measurement(_timed([str(HERE / "procedures.sh")], work, environment))


def ansible_playbook(ansible: Path) -> Contender:
    """Make the contender that plays the playbook with the `ansible-playbook` of a venv."""

    def play(lab: Lab, work: Path) -> Measurement:
        inventory = load_inventory(str(lab.inventory))
        directory, programs = _programs(inventory)
        pki = work / "pki"
        pki.mkdir()
        hosts = {host.name: {"ansible_host": host.address} for host in lab.hosts.values()}
        listed = {
            "etcd": {
                "hosts": hosts,
                "vars": {
                    "ansible_user": inventory.ssh.user,
                    "ansible_ssh_private_key_file": str(lab.key),
                    "binaries": str(directory),
                    "programs": programs,
                    "pki": str(pki),
                },
            }
        }
        path = work / "hosts.json"
        path.write_text(json.dumps(listed, indent=1))
        sockets = work / "cp"
        ssh = f"-o ControlMaster=auto -o ControlPersist=60s -o UserKnownHostsFile={lab.known_hosts}"
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("ANSIBLE")},
            "ANSIBLE_CONFIG": str(HERE / "ansible" / "ansible.cfg"),
            "ANSIBLE_HOME": str(work.parent / "ansible"),
            "ANSIBLE_SSH_ARGS": ssh,
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(sockets),
            "LC_ALL": "C.UTF-8",
        }
        playbook = str(HERE / "ansible" / "playbook.yml")
        try:
            command = [str(ansible / "bin" / "ansible-playbook"), "-i", str(path), playbook]
            return Measurement(_timed(command, work, environment))
        finally:
            leave_connections(sockets)

    return play


def leave_connections(sockets: Path) -> None:
    """End SSH's connections that persist, which would outlive the hosts."""
    for socket in sockets.glob("*"):
        leave = ["ssh", "-O", "exit", "-o", f"ControlPath={socket}", "none"]
        subprocess.run(leave, check=False, capture_output=True, timeout=10)


def with_embedded_api(home: Path) -> Contender:
    """Make the contender `bootstrap_cluster`, which starts its own API over a home."""
    home.mkdir(parents=True, exist_ok=True)
    return lambda lab, work: _bootstrap(lab, work, home, None)


def with_server(server: PrefectServer) -> Contender:
    """Make the contender `bootstrap_cluster`, with a server that runs already."""

    def run(lab: Lab, work: Path) -> Measurement:
        with server.awake():
            return _bootstrap(lab, work, server.home, server.api)

    return run


def plan_only(lab: Lab, work: Path, server: PrefectServer) -> None:
    """Let a server see a first run, which changes nothing on the hosts."""
    with server.awake():
        _bootstrap(lab, work, server.home, server.api, "--dry-run")


def _bootstrap(lab: Lab, work: Path, home: Path, api: str | None, *options: str) -> Measurement:
    journals = home / "etcd-runbooks" / "journal" / lab.name
    before = set(journals.glob("*.jsonl"))
    command = [sys.executable, "-m", "flows", "bootstrap_cluster", "--cluster", str(lab.inventory)]
    began = time.time()
    seconds = _timed([*command, *options], work, runner_environment(home, api))
    (journal,) = set(journals.glob("*.jsonl")) - before
    return Measurement(seconds, split_run(read_journal(journal), began, began + seconds))


def _timed(command: Sequence[str], work: Path, environment: dict[str, str]) -> float:
    """Run a command to its end; returns seconds, raises ContenderFailed with its last words."""
    log = work / "output.log"
    with log.open("w") as output:
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            status = process.wait(LIMIT_SECONDS)
            seconds = time.monotonic() - began
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise ContenderFailed(f"{command[0]} took over {LIMIT_SECONDS:g} s") from error
    if status:
        raise ContenderFailed(f"{command[0]}: status {status}\n{log.read_text()[-3000:]}")
    return seconds


def _programs(inventory: Inventory) -> tuple[Path, list[str]]:
    binaries = inventory.etcd.binaries
    if not isinstance(binaries, DirectoryBinaries):
        raise TypeError("the benchmark uploads the programs from a directory")
    return binaries.path, [str(name) for name in binaries.sha256]
