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
SILENCE = "stop the API servers, all at once"
SILENCE_FIRST = Stage(2, SILENCE)
HALT = Stage(3, "stop what is left, all hosts at once")
REPLAY = Stage(4, "the survivor's log, where no client is")
READY = Stage(5, "make ready beside the data, all hosts at once")
SILENCE_THEN = Stage(6, SILENCE)
STOP = Stage(7, "stop, all hosts at once")
PLACE = Stage(8, "put in place, all hosts at once")
ISOLATE = Stage(9, "start where no client is, all hosts at once")
PROVE = Stage(10, "verify before clients come")
OPEN = Stage(11, "let clients in, all hosts at once")
VERIFY = Stage(12, "verify")
SERVE = Stage(13, "bring the API servers back, all at once")
CONCLUDE = Stage(14, "note that it is over, all hosts at once")

STOPPED_SECONDS, STOPPED_SECONDS_A_GIGABYTE = 6, 4
REPLAYED_SECONDS, REPLAYED_SECONDS_A_GIGABYTE = 9, 22
"""From the first stop to the first client that is served, and what a survivor's log and snapshot
take beside it: `make bench-restores`, three hosts on one machine of two cores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SilenceApiserver(Step):
    """Stop an API server that lives on no member, before the members."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeApiserver(Step):
    """Start it again, and wait until it serves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSource(Step):
    """Put the snapshot of the survivor into the store, with its manifest."""


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
    """Plan how old members that came back after a restore are stopped, on the hosts left out.

    None where the restore is not over, or none of those hosts can be reached. Which ones serve the
    data of before is remembered by the cluster's id, or all hosts that are left bear its mark.
    """
    names, first = tuple(sorted(host.host for host in hosts)), hosts[0].marked
    is_over = (
        first is not None
        and first.hosts == names
        and all(first.is_same(h.marked) and h.marked.opened and h.runs for h in hosts if h.marked)
        and all(host.marked for host in hosts)
    )
    back = wanted.reached if is_over else wanted.fenced
    if not back:
        return None
    joins = pointer("replace_member", member=list(back))
    return Plan(
        wanted.runbook,
        inventory.name,
        f"the cluster is {', '.join(names)} alone; {', '.join(back)} serve nobody",
        tuple(_stop_steps(inventory, list(back), STOP)),
        (f"{joins} lets them join the cluster that was restored",),
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
            steps += _silence_steps(inventory, wanted, SILENCE_FIRST)
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
        if survivor is None or not lacking:
            steps += _silence_steps(inventory, wanted, SILENCE_THEN)
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
        (
            *steps,
            *_opening_steps(inventory, names),
            *_serving_steps(
                inventory,
                wanted,
                names,
                stores=any(isinstance(one, ReplaySurvivor) for one in steps),
            ),
        ),
        (
            *warnings,
            *_away(wanted, steps),
            *_left_out(inventory, wanted),
            *_restarts(inventory, wanted, mark),
        ),
    )


def _away(wanted: Wanted, steps: list[Step]) -> tuple[str, ...]:
    """Say for how long nobody is served, where this run is what stops the members."""
    if not any(isinstance(step, StopMember) for step in steps):
        return ()
    gigabytes = wanted.size / 1e9
    seconds = STOPPED_SECONDS + STOPPED_SECONDS_A_GIGABYTE * gigabytes
    if any(isinstance(step, ReplaySurvivor) for step in steps):
        seconds += REPLAYED_SECONDS + REPLAYED_SECONDS_A_GIGABYTE * gigabytes
    return (
        f"clients are served about {seconds:.0f} s after the first member is stopped "
        f"({max(wanted.size, 1 << 20) >> 20} MiB of data; more where links or disks are slow)",
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
    kept = "its revisions as they were"
    raised = f"its revision raised to {mark.revision} or above, all before it compacted"
    for host in lacking:
        said = f"restore it beside the data, in {host.stage}: "
        sentence = said + (raised if mark.raised else kept)
        essence = said + ("its revision raised" if mark.raised else kept)
        steps.append(ReadyData(stage=READY, host=host.host, sentence=sentence, essence=essence))
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
    return steps


def _serving_steps(
    inventory: Inventory, wanted: Wanted, names: list[str], *, stores: bool
) -> list[Step]:
    """Let API servers come; that it is over is noted last, so that no run forgets one of them."""
    steps: list[Step] = []
    if stores:
        said = "put the survivor's snapshot into the store, with its manifest"
        steps.append(StoreSource(stage=SERVE, host=None, sentence=said))
    said = "let its API server run and be ready"
    steps += [
        ReviveApiserver(stage=SERVE, host=name, sentence=said, restarts=False)
        for name in names
        if inventory.layout(name).has_apiserver
    ]
    manifests = {one.name: one.manifest for one in inventory.kube_apiservers}
    steps += [
        ResumeApiserver(
            stage=SERVE,
            host=name,
            sentence=f"put {manifests[name]} back and wait until its API server is live",
        )
        for name in wanted.apiservers
    ]
    said = "note that the restore is over"
    return [*steps, *(MarkOpened(stage=CONCLUDE, host=name, sentence=said) for name in names)]


def _silence_steps(inventory: Inventory, wanted: Wanted, stage: Stage) -> list[Step]:
    manifests = {one.name: one.manifest for one in inventory.kube_apiservers}
    return [
        SilenceApiserver(
            stage=stage,
            host=name,
            sentence=f"take {manifests[name]} out and wait until its API server is gone",
        )
        for name in wanted.apiservers
    ]


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


def _restarts(inventory: Inventory, wanted: Wanted, mark: Mark) -> tuple[str, ...]:
    """Say who remembers what is no more, and must be started anew."""
    own = [h.name for h in inventory.hosts if inventory.layout(h.name).has_apiserver]
    stopped = [name for name in (*own, *wanted.apiservers) if name not in wanted.left]
    by_hand = [name for name, _ in wanted.unheard]
    told = [f"{', '.join(stopped)} by this run: stopped first, started last"] if stopped else []
    told += [f"{', '.join(by_hand)} by you: stop them before, start them after"] if by_hand else []
    if not told:
        told = ["kube_apiservers of the inventory names none: stop yours before, start them after"]
    why = (
        "every watch of an old revision is cancelled, and clients that handle that list anew"
        if mark.raised
        else "they go on from revisions that other writes have now"
    )
    return (
        f"restart when it serves, in this order: API servers ({'; '.join(told)}), "
        "kube-controller-manager and kube-scheduler, every kubelet, and what else watches: "
        f"network plugins, operators ({why})",
    )
