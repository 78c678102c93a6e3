"""A whole cluster from one snapshot: on every host the same, as a cluster with ids of its own.

All that can be wrong with the snapshot is found before a member is stopped, and data are made ready
beside those in place. Then all are stopped, what is in place is set aside, and etcd runs where no
client reaches it until it is known to have what the snapshot has.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.model.errors import Refused
from tasks.model.inventory import Inventory
from tasks.model.plan import Plan, Stage, Step
from tasks.model.pointers import parameter, pointer
from tasks.model.restores import Mark, RestoreHost
from tasks.plans.recovery import ReviveApiserver
from tasks.plans.restore_marks import Wanted

PROVIDE = Stage(1, "lend etcd's programs, all hosts at once")
HALT = Stage(2, "stop what is left, all hosts at once")
REPLAY = Stage(3, "the survivor's log, where no client is")
READY = Stage(4, "make ready beside the data, all hosts at once")
STOP = Stage(5, "stop, all hosts at once")
PLACE = Stage(6, "put in place, all hosts at once")
ISOLATE = Stage(7, "start where no client is, all hosts at once")
PROVE = Stage(8, "verify before clients come")
OPEN = Stage(9, "let clients in, all hosts at once")
VERIFY = Stage(10, "verify")
SERVE = Stage(11, "bring the API servers back, all at once")


@dataclass(frozen=True, slots=True, kw_only=True)
class StopMember(Step):
    """Stop a host's API server, where one lives on its member, and the member."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaySurvivor(Step):
    """Run a copy of the survivor's data alone, all of its log counted, and take a snapshot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RehearseSource(Step):
    """Restore the snapshot on the runner, before anything is stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvideTools(Step):
    """Put etcd's programs on a host where there are none to restore with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyData(Step):
    """Upload the snapshot and restore it beside the member's data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceData(Step):
    """Set what is in place aside, and put what is ready there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IsolateMember(Step):
    """Start etcd with its peers' port, and a port for the runner alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProveData(Step):
    """See that the members are one cluster, and have what the snapshot has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenMember(Step):
    """End the isolated etcd and start the member as it always starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOpened(Step):
    """Wait until the members serve clients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkOpened(Step):
    """Note on the host that the restore is over."""


def plan_fence(inventory: Inventory, wanted: Wanted, hosts: tuple[RestoreHost, ...]) -> Plan | None:
    """Plan how old members that came back after a recovery are stopped, on the hosts left out.

    None where the recovery is not over, or none of those hosts can be reached.
    """
    names, first = tuple(sorted(host.host for host in hosts)), hosts[0].marked
    is_over = (
        first is not None
        and first.hosts == names
        and all(first.is_same(h.marked) and h.marked.opened and h.runs for h in hosts if h.marked)
        and all(host.marked for host in hosts)
    )
    if not is_over or not wanted.reached:
        return None
    back = pointer("replace_member", member=list(wanted.reached))
    return Plan(
        wanted.runbook,
        inventory.name,
        f"the cluster is {', '.join(names)} alone; {', '.join(wanted.reached)} serve nobody",
        tuple(_stop_steps(inventory, list(wanted.reached), STOP)),
        (f"{back} lets them join the cluster that was recovered",),
    )


def plan_nothing(inventory: Inventory, runbook: str, told: str, done: Mark) -> Plan:
    """Plan nothing, since the cluster's data come from this snapshot already."""
    goal = (
        f"the data in place were restored from {told} already ({done.token}), and may have been "
        f"written to since; {parameter(again=True)} restores it once more"
    )
    return Plan(runbook, inventory.name, goal, ())


def plan_restoration(
    inventory: Inventory,
    wanted: Wanted,
    hosts: tuple[RestoreHost, ...],
    mark: Mark,
    survivor: str | None,
    warnings: tuple[str, ...] = (),
) -> Plan:
    """Plan what is left until the cluster serves what the snapshot has.

    `mark` is `choose_mark`'s; `survivor` is whose log is the source, where a snapshot is still to
    be taken of it. A host that runs what was put in place was opened by a run that had verified.
    """
    placed = {h.host for h in hosts if mark.is_same(h.marked)}
    lacking = tuple(h for h in hosts if h.host not in placed and not mark.is_same(h.staged))
    names = [host.host for host in hosts]
    steps: list[Step] = _provision_steps(inventory, hosts)
    if any(h.runs and h.host in placed for h in hosts):
        _refuse_lost(sorted(set(names) - placed))
    else:
        stopped = [*names, *wanted.reached]
        if survivor is not None and lacking:
            steps += _stop_steps(inventory, stopped, HALT)
            steps.append(
                ReplaySurvivor(
                    stage=REPLAY,
                    host=survivor,
                    sentence="run a copy of its data alone, on the loopback, with all of its log "
                    "counted, and take a verified snapshot of it",
                )
            )
        steps += _ready_steps(wanted, lacking, mark, rehearses=survivor is None)
        steps += _stop_steps(inventory, stopped, STOP)
        steps += [
            PlaceData(
                stage=PLACE,
                host=name,
                sentence=f"set {' and '.join(map(str, inventory.layout(name).data_directories))} "
                "aside, and put what is ready there",
            )
            for name in names
            if name not in placed
        ]
        steps += _isolation_steps(names)
    return Plan(
        wanted.runbook,
        inventory.name,
        f"{len(names)} member(s) that serve {wanted.told}, as a cluster with ids of its own",
        (*steps, *_opening_steps(inventory, names)),
        (*warnings, *_left_out(inventory, wanted), *_restarts(inventory, mark)),
    )


def _refuse_lost(lost: list[str]) -> None:
    if lost:
        raise Refused(
            f"the restored cluster serves already, and {', '.join(lost)} has lost what was "
            f"restored there; nothing was changed: {pointer('replace_member', member=lost)} lets "
            "it join again"
        )


def _stop_steps(inventory: Inventory, names: list[str], stage: Stage) -> list[Step]:
    return [
        StopMember(stage=stage, host=name, sentence=inventory.layout(name).stopping)
        for name in names
    ]


def _provision_steps(inventory: Inventory, hosts: tuple[RestoreHost, ...]) -> list[Step]:
    said = "put etcd's programs there for the restore, in /var/lib/etcd-runbooks/tools"
    found = [(host.host, host.best_tools(inventory.etcd.version)) for host in hosts]
    return [
        ProvideTools(stage=PROVIDE, host=name, sentence=said)
        for name, tools in found
        if tools is None or tools.is_inside
    ]


def _ready_steps(
    wanted: Wanted,
    lacking: tuple[RestoreHost, ...],
    mark: Mark,
    *,
    rehearses: bool,
) -> list[Step]:
    steps: list[Step] = []
    if lacking and rehearses and not wanted.is_rehearsed:
        said = "restore the snapshot on the runner, and see what it has"
        steps.append(RehearseSource(stage=READY, host=None, sentence=said))
    raised = (
        f"its revision raised to {mark.revision} or above, all before it compacted"
        if mark.raised
        else "its revisions as they were"
    )
    for host in lacking:
        said = f"restore it beside the data, in {host.stage}: {raised}"
        steps.append(ReadyData(stage=READY, host=host.host, sentence=said))
    return steps


def _isolation_steps(names: list[str]) -> list[Step]:
    said = "start etcd on a port of the loopback, for this run alone"
    return [
        *(IsolateMember(stage=ISOLATE, host=name, sentence=said) for name in names),
        ProveData(
            stage=PROVE,
            host=None,
            sentence=f"see {', '.join(names)} be one cluster, all with the snapshot's data",
        ),
    ]


def _opening_steps(inventory: Inventory, names: list[str]) -> list[Step]:
    steps: list[Step] = [
        OpenMember(
            stage=OPEN,
            host=name,
            sentence=f"end that etcd, and start {inventory.layout(name).member} as always",
        )
        for name in names
    ]
    steps.append(VerifyOpened(stage=VERIFY, host=None, sentence="see every member serve"))
    for name in names:
        if inventory.layout(name).has_apiserver:
            said = "let its API server run and be ready"
            steps.append(ReviveApiserver(stage=SERVE, host=name, sentence=said, restarts=False))
        said = "note that the restore is over"
        steps.append(MarkOpened(stage=SERVE, host=name, sentence=said))
    return steps


def _left_out(inventory: Inventory, wanted: Wanted) -> tuple[str, ...]:
    if not wanted.left:
        return ()
    names = sorted(wanted.left)
    ends = "; ".join(f"{name}: {inventory.layout(name).ending}" for name in names)
    return (
        f"{', '.join(names)} is no member of what is restored. If it comes back with its old data "
        "it cannot join and changes nothing here, for it belongs to another cluster id; but where "
        "most of the old members come back they serve the old data to clients that ask them. Keep "
        f"them from starting ({ends}), then {pointer('replace_member', member=names)} lets them "
        "join",
    )


def _restarts(inventory: Inventory, mark: Mark) -> tuple[str, ...]:
    """Say who remembers what is no more, and must be started anew."""
    outside = [one.name for one in inventory.kube_apiservers]
    servers = (
        f"the API servers ({', '.join(outside)}: stop them before, start them after)"
        if outside
        else "API servers (those that live on the members are stopped first and started last)"
    )
    why = (
        "every watch of an old revision is cancelled, and clients that handle that list anew"
        if mark.raised
        else "they go on from revisions that other writes have now"
    )
    return (
        f"restart when it serves, in this order: {servers}, kube-controller-manager and "
        "kube-scheduler, every kubelet, and what else watches: network plugins, operators "
        f"({why})",
    )
