"""The lab's command line: `python -m tests.lab up 3 --etcd 3.5.16`, and faults by hand."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab import revival, teardown
from tests.lab.errors import LabError
from tests.lab.etcd_programs import DEFAULT, INSTALLED, NEWEST
from tests.lab.kubernetes.cluster import KubernetesCluster
from tests.lab.kubernetes.programs import ETCD, is_built
from tests.lab.lab import Lab
from tests.lab.state import list_records

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.lab.host import Host

CLUSTERS = Path(__file__).parents[2] / "deployments" / "clusters"
"""Where the project's command line looks for inventories."""

ACTIONS: dict[str, tuple[str, Callable[[Host], None]]] = {
    "start": ("boot a host that is off", lambda host: host.start()),
    "stop": ("shut a host down in order", lambda host: host.stop()),
    "power-cut": ("end everything in a host at once", lambda host: host.power_cut()),
    "cut-cable": ("take a host's link down", lambda host: host.cut_cable()),
    "plug-cable": ("bring a host's link up", lambda host: host.plug_cable()),
    "fill-disk": ("fill a host's data disk", lambda host: host.fill_disk()),
    "free-disk": ("free a host's data disk", lambda host: host.free_disk()),
    "revoke-sudo": ("revoke the operator's sudo", lambda host: host.revoke_sudo()),
    "restore-sudo": ("give the operator sudo again", lambda host: host.restore_sudo()),
    "reinstall": ("replace a host by a bare one", lambda host: host.reinstall()),
}
UNIT_ACTIONS: dict[str, tuple[str, Callable[[Host, str], None]]] = {
    "freeze": ("SIGSTOP a unit's processes", lambda host, unit: host.freeze(unit)),
    "thaw": ("SIGCONT a unit's processes", lambda host, unit: host.thaw(unit)),
}

NUMBER_ACTIONS: dict[str, tuple[str, str, Callable[[Host, int], None]]] = {
    "block-port": ("port", "drop what others send to a port", lambda h, n: h.block_port(n)),
    "unblock-port": ("port", "let a port be reached again", lambda h, n: h.unblock_port(n)),
    "skew-clock": ("seconds", "put a host's clock wrong; 0 undoes", lambda h, n: h.skew_clock(n)),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; 1 with one message when the lab cannot."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options) or 0)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


def up(options: argparse.Namespace) -> None:
    """Start a lab that stays until `down`; of one that is there, bring up what is not."""
    name = options.name or f"{'kube' if options.kubernetes else 'lab'}{options.hosts}"
    inventory = (options.inventory or CLUSTERS / f"{name}.yaml").absolute()
    began = time.monotonic()
    for removed in teardown.reap():
        print(f"{removed}: removed, the process that it belonged to is dead")
    if options.kubernetes and not is_built(options.kubernetes):
        built = f"Kubernetes {options.kubernetes} is built, once; it takes a quarter of an hour"
        print(f"{name}: {built} of two idle cores", flush=True)
    with revival.alone():
        found = revival.find(name)
        if found is not None and found.owner is None and not revival.is_whole(Lab(found)):
            print(f"{name}: half removed, with a host's disk gone; the rest is removed, too")
            teardown.remove(found)
            found = None
        if found is None:
            lab = Lab.start(
                name,
                hosts=options.hosts,
                subnet=options.subnet,
                etcd=options.etcd or DEFAULT,
                etcd_source=options.etcd_source,
                data_disk_mb=options.data_disk_mb,
                kubernetes=options.kubernetes,
                inventory=inventory,
                owned=False,
            )
            if options.kubernetes:
                _form(lab)
            done = [f"{options.hosts} hosts in {time.monotonic() - began:.1f} s, {inventory}"]
        else:
            lab = Lab(found)
            revival.check_as_asked(
                lab, hosts=options.hosts, etcd=options.etcd, kubernetes=options.kubernetes
            )
            done = revival.revive(lab, inventory)
    print(f"{name}: {'; '.join(done) or 'is up'}")
    for host in lab.hosts.values():
        print(
            f"  {host.name}  ssh -i {lab.key} -o UserKnownHostsFile={lab.known_hosts} "
            f"operator@{host.address}"
        )


def _form(lab: Lab) -> None:
    """Make the new nodes a cluster, or leave nothing of them."""
    try:
        KubernetesCluster.form(lab)
    except BaseException:
        lab.down()
        raise


def down(options: argparse.Namespace) -> None:
    """Remove one lab, or all."""
    if options.all:
        for record in list_records():
            teardown.remove(record)
    else:
        teardown.remove(_only_lab(options.name).record)


def list_labs(_: argparse.Namespace) -> None:
    """Print each lab with its hosts."""
    reaped = teardown.reap()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # whoever reads may have read enough
    for name in reaped:
        print(f"{name}: removed, the process that it belonged to is dead")
    for record in list_records():
        stays = f"of process {record.owner.pid}" if record.owner else "until `down`"
        what = f"Kubernetes {record.kubernetes}, " if record.kubernetes else ""
        what += f"etcd {record.etcd}"
        print(f"{record.name}  {record.subnet}  {what}  {stays}  {record.inventory}")
        for host in Lab(record).hosts.values():
            power = "on" if host.is_running else "off"
            cable = "" if host.is_plugged else ", cable cut"
            print(f"  {host.name}  {host.address}  {power}{cable}")


def add_host(options: argparse.Namespace) -> None:
    """Start one more host in a lab."""
    host = _only_lab(options.name).add_host(options.host)
    print(f"{host.name}  {host.address}")


def shell(options: argparse.Namespace) -> None:
    """Become a shell of root's on a host's console."""
    command = [*_host(options).console_command(), "bash", "--login"]
    os.execvp(command[0], command)  # noqa: S606 - the shell gets this terminal


def execute(options: argparse.Namespace) -> int:
    """Run a command as root on a host's console and end with its status."""
    words = options.words[1:] if options.words[:1] == ["--"] else options.words
    if not words:
        raise LabError("no command: python -m tests.lab exec HOST -- COMMAND")
    completed = _host(options).run(words, timeout=options.timeout)
    sys.stdout.write(completed.stdout)
    sys.stderr.write(completed.stderr)
    return completed.status


def _act(act: Callable[[Host], None], options: argparse.Namespace) -> None:
    act(_host(options))


def _act_on_unit(act: Callable[[Host, str], None], options: argparse.Namespace) -> None:
    act(_host(options), options.unit)


def _act_on_number(act: Callable[[Host, int], None], options: argparse.Namespace) -> None:
    act(_host(options), options.number)


def _only_lab(name: str | None) -> Lab:
    """Find the lab of that name, or the only one there is."""
    if name is not None:
        return Lab.get(name)
    names = [record.name for record in list_records()]
    if len(names) != 1:
        raise LabError(
            f"which lab? Say LAB/HOST, or --name LAB, with one of: {', '.join(names) or 'none'}"
        )
    return Lab.get(names[0])


def _host(options: argparse.Namespace) -> Host:
    """Find a host by `LAB/HOST`, or by its name when only one lab is up."""
    lab, _, host = options.host.rpartition("/")
    return _only_lab(lab or None)[host]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, text: str, command: Callable[[argparse.Namespace], int | None]
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(command=command)
        return added

    start = add("up", "start a lab, or what of it is off", up)
    start.add_argument("hosts", type=int, nargs="?", default=3, help="how many (3)")
    start.add_argument("--name", help="the lab's name (lab and the number of hosts)")
    start.add_argument("--subnet", help="the first free of 10.77.N.0/24")
    versions = f"3.4.23, {DEFAULT}, … or {INSTALLED} or {NEWEST} ({DEFAULT})"
    start.add_argument("--etcd", help=versions)
    sources = ("directory", "installed")
    start.add_argument("--etcd-source", choices=sources, default="directory")
    start.add_argument("--data-disk-mb", type=int, help="a disk for /var/lib that can be filled")
    start.add_argument(
        "--kubernetes", choices=list(ETCD), help="make them one cluster's control planes"
    )
    start.add_argument("--inventory", type=Path, help="deployments/clusters/NAME.yaml")
    end = add("down", "remove a lab", down)
    which = end.add_mutually_exclusive_group()
    which.add_argument("--name", help="the lab (the only one)")
    which.add_argument("--all", action="store_true", help="every lab of this machine")
    add("list", "list labs and hosts; remove those whose owner died", list_labs)
    more = add("add-host", "start one more host", add_host)
    more.add_argument("host", nargs="?", help="its name (the next masterNN)")
    more.add_argument("--name", help="the lab (the only one)")
    where = "HOST, or LAB/HOST when several labs are up"
    add("shell", "open root's shell on a host", shell).add_argument("host", help=where)
    console = add("exec", "run a command as root on a host", execute)
    console.add_argument("--timeout", type=float, default=60.0, help="seconds (60)")
    console.add_argument("host", help=where)
    console.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    for name, (text, act) in ACTIONS.items():
        add(name, text, partial(_act, act)).add_argument("host", help=where)
    for name, (what, text, act_with) in NUMBER_ACTIONS.items():
        number = add(name, text, partial(_act_on_number, act_with))
        number.add_argument("host", help=where)
        number.add_argument("number", type=int, metavar=what)
    for name, (text, act_on) in UNIT_ACTIONS.items():
        unit = add(name, text, partial(_act_on_unit, act_on))
        unit.add_argument("host", help=where)
        unit.add_argument("unit", nargs="?", default="etcd.service", help="(etcd.service)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
