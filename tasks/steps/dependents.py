"""What else lists the members: kube-apiservers and load balancers, as the inventory declares."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from tasks.config.dependents import (
    edit_apiserver_backend,
    edit_backend,
    edit_etcd_servers,
)
from tasks.engine.run import Run, step, together
from tasks.hosts import dependents as hosts
from tasks.hosts import files
from tasks.hosts.connection import HostConnection
from tasks.model.clients import KubeApiserver, LoadBalancer
from tasks.model.dependents import Moves
from tasks.model.errors import Refused, RunbookError
from tasks.model.nodes import NodeObservation
from tasks.model.observation import FileState
from tasks.model.plan import Step
from tasks.plans.apiservers import CHANGED
from tasks.plans.dependents import (
    APISERVERS,
    BALANCERS,
    TellHook,
    UpdateApiserver,
    UpdateHaproxy,
    UpdateNodeApiserver,
)

SKIPPABLE = ("kube_apiservers", "load_balancers")


@step("read the member list on {host}", retry_delays_seconds=(1.0,))
async def read_list(
    _run: Run, host: HostConnection, declared: KubeApiserver | LoadBalancer
) -> tuple[str | None, str]:
    """Read the file that lists the members, and what a hook was last told."""
    if isinstance(declared, KubeApiserver):
        path = declared.manifest
    elif declared.haproxy is not None:
        path = declared.haproxy.configuration
    else:
        (told,) = await host.run(hosts.told_command(declared.name))
        return None, told.stdout
    (result,) = await host.run(files.read_file_command(path))
    found = files.parse_file(result)
    if found is None:
        raise Refused(f"{declared.name}: there is no {path}; correct the inventory")
    return found.text, ""


async def plan_updates(run: Run, moves: Moves, skip: Sequence[str]) -> tuple[Step, ...]:
    """Read every declared list and plan its change; raises Refused for one that cannot be."""
    inventory = run.inventory
    declared: list[KubeApiserver | LoadBalancer] = []
    if "kube_apiservers" not in skip:
        declared += inventory.kube_apiservers
    if "load_balancers" not in skip:
        declared += inventory.load_balancers

    async def plan(one: KubeApiserver | LoadBalancer) -> Step | None:
        kind = "kube_apiservers" if isinstance(one, KubeApiserver) else "load_balancers"
        try:
            text, told = await read_list(run, run.clients[one.name], one)
            return _plan_update(one, text or "", told, moves)
        except (RunbookError, ValueError) as error:
            raise Refused(
                f"{one.name}: its list of members cannot be brought up to date: {error}; "
                f"leave it to be done by hand with skip: {kind}"
            ) from error

    return tuple(found for found in await together(map(plan, declared)) if found is not None)


def plan_node_updates(
    run: Run,
    seen: Iterable[NodeObservation],
    moves: Moves,
    leaving: Collection[str],
    skip: Sequence[str],
) -> tuple[Step, ...]:
    """Plan the change of each API server on a member whose manifest lists the members.

    kubeadm lets each ask its own etcd alone, which stays. One that the inventory declares is
    planned as such. Raises Refused for a manifest that is not understood.
    """
    declared = {one.host for one in run.inventory.kube_apiservers}
    steps: list[Step] = []
    for node in seen:
        file = node.apiserver
        if file is None or node.host in {*declared, *leaving} or "kube_apiservers" in skip:
            continue
        try:
            edited, servers = edit_etcd_servers(file.text, moves)
        except ValueError as error:
            raise Refused(
                f"{node.host}: the list of members in {file.path} cannot be brought up to date: "
                f"{error}; leave it to be done by hand with skip: kube_apiservers"
            ) from error
        if edited != file.text:
            sentence = (
                f"take its API server out, set --etcd-servers={servers} in its manifest, put it in "
                f"and wait until it is ready ({CHANGED})"
            )
            steps.append(
                UpdateNodeApiserver(
                    stage=APISERVERS, host=node.host, sentence=sentence, text=edited
                )
            )
    return tuple(steps)


def _plan_update(
    one: KubeApiserver | LoadBalancer, text: str, told: str, moves: Moves
) -> Step | None:
    if isinstance(one, KubeApiserver):
        edited, servers = edit_etcd_servers(text, moves)
        if edited == text:
            return None
        return UpdateApiserver(
            stage=APISERVERS,
            host=one.name,
            sentence=f"set --etcd-servers={servers} in {one.manifest}, wait for {one.livez}",
            text=edited,
            servers=servers,
        )
    if one.haproxy is not None:
        edited = edit_backend(text, one.haproxy.backend, moves)
        if edited == text:  # it may be before the API servers that live on the members
            edited = edit_apiserver_backend(text, one.haproxy.backend, moves)
        if edited == text:
            return None
        return UpdateHaproxy(
            stage=BALANCERS,
            host=one.name,
            sentence=f"list {', '.join(m.name for m in moves.goal)} in the section "
            f"{one.haproxy.backend} of {one.haproxy.configuration}, check and reload",
            text=edited,
        )
    if told == moves.endpoints:
        return None
    return TellHook(
        stage=BALANCERS,
        host=one.name,
        sentence=f"run the hook with ETCD_ENDPOINTS={moves.endpoints}",
        endpoints=moves.endpoints,
    )


@step("update the kube-apiserver on {host}", retry_delays_seconds=())
async def update_apiserver(run: Run, host: HostConnection, planned: UpdateApiserver) -> bool:
    """Write the manifest and wait until its kube-apiserver is live; raises CommandFailed.

    The old manifest is kept outside of the kubelet's directory.
    """
    one = next(x for x in run.inventory.kube_apiservers if x.name == planned.host)
    (found,) = await host.run(files.read_file_command(one.manifest, with_text=False))
    state = files.parse_file(found, with_text=False)
    (written,) = await host.run(
        files.rewrite_file_command(
            one.manifest,
            state or FileState("0600", "root", "root", ""),
            planned.text,
            backup=run.inventory.paths.backups / run.backup,
        ),
        changes=True,
    )
    await host.run(
        hosts.wait_for_apiserver_command(planned.servers, one.livez),
        timeout_seconds=hosts.LIVEZ_SECONDS + 30,
    )
    return files.parse_change(written)


@step("update HAProxy on {host}")
async def update_haproxy(run: Run, host: HostConnection, planned: UpdateHaproxy) -> bool:
    """Let HAProxy check the new file, write it and reload; the old one is kept aside."""
    one = next(x for x in run.inventory.load_balancers if x.name == planned.host)
    if one.haproxy is None:
        return False
    path = one.haproxy.configuration
    (found,) = await host.run(files.read_file_command(path, with_text=False))
    state = files.parse_file(found, with_text=False)
    results = await host.run(
        files.rewrite_file_command(
            path,
            state or FileState("0644", "root", "root", ""),
            planned.text,
            backup=run.inventory.paths.backups / run.backup,
            validate=hosts.check_haproxy(),
        ),
        hosts.reload_command(one.haproxy.service),
        changes=True,
    )
    return files.parse_change(results[0])


@step("tell the load balancer on {host}")
async def tell_hook(run: Run, host: HostConnection, planned: TellHook) -> bool:
    """Run the hook, unless it was told these endpoints before; raises CommandFailed."""
    one = next(x for x in run.inventory.load_balancers if x.name == planned.host)
    (result,) = await host.run(
        hosts.hook_command(one.name, one.hook or ":", planned.endpoints),
        changes=True,
        timeout_seconds=120,
    )
    return files.parse_change(result)
