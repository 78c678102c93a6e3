"""Seeing the nodes whose etcd the kubelet runs: what their files say, and what really runs."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from itertools import chain

from tasks.config.launch import NotUnderstood
from tasks.config.pods import read_mounts, read_pods
from tasks.config.settings import read_process, read_settings
from tasks.engine.run import Run, step, together
from tasks.hosts import nodes, sessions
from tasks.hosts.connection import HostConnection
from tasks.model.errors import RunbookError
from tasks.model.member_settings import SettingsFiles
from tasks.model.members import DesiredMember
from tasks.model.nodes import NodeObservation
from tasks.model.observation import Path, Reachability
from tasks.model.urls import split_url

LOOK_SECONDS = 30.0
DIAL_SECONDS = 15.0


@step("see the node of {host}", retry_delays_seconds=(1.0,))
async def observe_node(run: Run, host: HostConnection) -> NodeObservation | None:
    """See a node's pods, what runs of them, and its kubelet; None where a unit runs etcd."""
    layout = run.inventory.layout(host.name)
    if layout.manifest is None:
        return None
    look = nodes.node_command(layout.manifest.parent, layout.data)
    (result,) = await host.run(look, timeout_seconds=LOOK_SECONDS)
    return read_node(nodes.parse_node(host.name, result))


def read_node(seen: NodeObservation) -> NodeObservation:
    """Read what a node's files say, and what its etcd was started with."""
    pods, broken = read_pods(seen.files)
    seen = replace(seen, pods=pods, broken=broken)
    pod, process = seen.pod, seen.process
    if pod is None:
        return seen
    files = SettingsFiles("", seen.hostname, (), (), pod.file)
    settings = read_settings(files)
    if process is not None:
        place = f"process {process.pid}"
        running = read_process(process.arguments, process.variables, files, place)
        seen = replace(seen, running=running)
    try:
        return replace(seen, settings=settings, mounts=read_mounts(pod.file))
    except NotUnderstood as error:
        faults = (*settings.faults, error.notice)
        return replace(seen, settings=replace(settings, faults=faults))


async def observe_nodes(
    run: Run, without: frozenset[str] = frozenset()
) -> tuple[tuple[NodeObservation, ...], dict[str, str]]:
    """See all nodes at once; the second part names those that could not be seen, with the reason.

    Both are empty where units run the members.
    """
    silent: dict[str, str] = {}

    async def see(host: HostConnection) -> NodeObservation | None:
        try:
            return await observe_node(run, host)
        except RunbookError as error:
            silent[host.name] = error.message
            return None

    hosts = [host for host in run.hosts.values() if host.name not in without]
    having = [host for host in hosts if run.inventory.layout(host.name).manifest]
    seen = await together(map(see, having))
    return tuple(node for node in seen if node is not None), silent


@step("reach the other nodes' ports from {host}", retry_delays_seconds=(1.0,))
async def dial_others(
    _run: Run, host: HostConnection, targets: tuple[tuple[str, str, int], ...]
) -> tuple[Path, ...]:
    """Connect from a node to others' ports, each (host, address, port), and tell what was met."""
    (result,) = await host.run(
        sessions.dial_command(targets, hears_names=False), timeout_seconds=DIAL_SECONDS
    )
    met = sessions.parse_dials(result)
    return tuple(
        Path(host.name, name, address, port, met.get((name, port), Reachability.TIMED_OUT))
        for name, address, port in targets
    )


async def observe_ways(
    run: Run, seen: tuple[NodeObservation, ...], members: tuple[DesiredMember, ...]
) -> tuple[Path, ...]:
    """Connect from every node that was seen to every other's etcd and API server, all at once."""
    by_name = {member.name: member for member in members}
    targets = []
    for node in seen:
        if (member := by_name.get(node.host)) is None:
            continue
        peer = split_url(member.peer_url)
        places = (peer, split_url(member.client_url), node.api_address(peer[0]))
        targets += [(node.host, *place) for place in dict.fromkeys(filter(None, places))]

    async def dial(node: NodeObservation) -> tuple[Path, ...]:
        others = tuple(target for target in targets if target[0] != node.host)
        with suppress(RunbookError):  # lost since it was seen, which the next look tells
            return await dial_others(run, run.hosts[node.host], others) if others else ()
        return ()

    return tuple(chain.from_iterable(await together(map(dial, seen))))
