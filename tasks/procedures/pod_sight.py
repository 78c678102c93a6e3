"""What an upgrade sees of members that are static pods: their images, and who owns these.

Composes steps; changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks.config.images import read_configuration, read_image
from tasks.config.launch import NotUnderstood
from tasks.engine.run import Run, together
from tasks.hosts.connection import HostConnection
from tasks.hosts.upgrades import ProgramSight
from tasks.model.cluster import ClusterHealth
from tasks.model.errors import Refused, RunbookError, Transient, Unverified
from tasks.model.kubeadm import ClusterConfiguration, Installed
from tasks.model.member_settings import SettingsFiles
from tasks.model.members import DesiredMember
from tasks.model.nodes import NodeObservation
from tasks.model.plan import Finding, Severity
from tasks.model.upgrades import LogRemnants, UpgradeSight
from tasks.plans.images import Choice, choose_images, version_of
from tasks.plans.nodes import NO_MANIFEST, find_unable
from tasks.plans.refilled import find_refilled
from tasks.plans.ways import find_closed
from tasks.steps import nodes, upgrades

Looked = tuple[ProgramSight, LogRemnants, SettingsFiles]


@dataclass(frozen=True, slots=True)
class Pods:
    """The hosts as an upgrade sees them, the nodes, and what forbids it or is to be weighed."""

    sights: Mapping[str, UpgradeSight] = field(default_factory=dict)
    nodes: tuple[NodeObservation, ...] = ()
    against: tuple[Finding, ...] = ()
    absent: Mapping[str, str] = field(default_factory=dict)


async def see_pods(
    run: Run, members: tuple[DesiredMember, ...], found: ClusterHealth, without: frozenset[str]
) -> Pods:
    """See every host whose member is a static pod; of others there is nothing."""
    seen, silent = await nodes.observe_nodes(run, without)
    if not seen:
        return Pods(absent=silent)
    looked = dict(
        zip(
            (node.host for node in seen),
            await together(upgrades.see_pod(run, run.hosts[node.host]) for node in seen),
            strict=True,
        )
    )
    now = {name: _image(name, written) for name, (_, _, written) in looked.items()}
    running = {node.host: _version(node) for node in seen}
    choice = await _choose(run, now, running)
    goal = run.inventory.etcd.version
    against = [
        *find_unable(run.inventory, seen, frozenset(now)),
        *find_closed(run.inventory, await nodes.observe_ways(run, seen, members)),
        *find_refilled(seen, found),
    ]
    if any(version != goal for version in running.values()):
        told = ((Severity.REFUSAL, choice.refusal), (Severity.WARNING, choice.warning))
        against += [Finding(severity, None, sentence) for severity, sentence in told if sentence]
    sights = {
        node.host: _sight(node, looked[node.host], now, running, choice, goal) for node in seen
    }
    return Pods(sights, seen, tuple(against), silent)


def _image(name: str, written: SettingsFiles) -> str:
    if written.manifest is None:
        raise Refused(NO_MANIFEST, host=name)
    try:
        return read_image(written.manifest)
    except NotUnderstood as error:
        raise Refused(str(error), host=name) from error


def _version(node: NodeObservation) -> str | None:
    """Tell what runs; a node whose manifest is out has its process still, or none."""
    process = node.process or next(iter(node.processes if not node.pod else ()), None)
    return process.version if process else None


async def _choose(run: Run, now: Mapping[str, str], running: Mapping[str, str | None]) -> Choice:
    versions = {name: version for name, version in running.items() if version}
    goal = run.inventory.etcd.version
    try:
        told, installed = await _ask_any(run, [run.hosts[name] for name in now])
    except Refused as error:
        return Choice(refusal=str(error))
    except RunbookError as error:
        return Choice(
            refusal="no node's API server tells whether kubeadm owns etcd's version: "
            f"{error.message}; bring one back first"
        )
    return choose_images(goal, told, now, versions, installed)


async def _ask_any(
    run: Run, hosts: list[HostConnection]
) -> tuple[ClusterConfiguration | None, Installed]:
    """Ask one node after the other, until one tells or refuses; raises that, or the last's error.

    What one refuses, all do: it is the cluster's.
    """
    *others, last = hosts
    for host in others:
        try:
            return _read(*await upgrades.ask_kubeadm(run, host))
        except (Transient, Unverified):
            continue
    return _read(*await upgrades.ask_kubeadm(run, last))


def _read(text: str | None, installed: Installed) -> tuple[ClusterConfiguration | None, Installed]:
    try:
        return None if text is None else read_configuration(text), installed
    except NotUnderstood as error:
        raise Refused(str(error)) from error


def _sight(
    node: NodeObservation,
    looked: Looked,
    now: Mapping[str, str],
    running: Mapping[str, str | None],
    choice: Choice,
    goal: str,
) -> UpgradeSight:
    program, log, written = looked
    wanted = choice.images.get(node.host, "")
    own = now[node.host]
    # What others run with it is surer than what its tag says.
    alike = (version for name, version in running.items() if version and now[name] == own)
    disk = goal if own == wanted else next(alike, version_of(own) or None)
    return UpgradeSight(
        node.host,
        running[node.host],
        disk,
        own,
        program.real,
        program.architecture,
        "",
        is_own_unit=True,
        free=program.free,
        data_free=program.data_free,
        quota=0,
        settings=written,
        log=log,
        image=wanted or own,
        taken_out=bool(node.taken_out),
    )
