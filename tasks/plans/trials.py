"""What is tried before a plan begins, because only the plan says what it writes and needs. Pure.

Places that every run of a runbook may write are tried in the first look at a host (`plans/rooms`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from tasks.model.certificates import Generation
from tasks.model.inventory import Inventory
from tasks.model.layout import NOTES, generation_files
from tasks.model.members import DesiredMember
from tasks.model.plan import Plan, Step
from tasks.model.pods import etcd_pod
from tasks.plans.dependents import (
    TellHook,
    UpdateApiserver,
    UpdateHaproxy,
    UpdateNodeApiserver,
)
from tasks.plans.hardening import HardenMember
from tasks.plans.leaves import StageLeaves
from tasks.plans.member_changes import RefreshConfiguration, RetireHost
from tasks.plans.reconfiguration import JoinMember, ReaddressMember, SettleMember
from tasks.plans.recovery import RestoreManifest
from tasks.plans.restoration import SilenceApiserver
from tasks.plans.succession import (
    ExchangeAuthorities,
    MakeSuccessor,
    RetireAuthority,
    WriteTrust,
)

TAKING_OUT = (
    *(HardenMember, JoinMember, SettleMember, ReaddressMember, RestoreManifest, RetireHost),
    UpdateNodeApiserver,
)
"""Of a static pod: its manifest goes out, in, or both."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Files and directories by who has them, and members that must reach each other."""

    places: Mapping[str, frozenset[PurePosixPath]] = field(default_factory=dict)
    ways: tuple[DesiredMember, ...] = ()


def find_places(
    plan: Plan, inventory: Inventory, edited: Mapping[str, Iterable[str]] | None = None
) -> dict[str, frozenset[PurePosixPath]]:
    """Find what a plan writes beside what the first look has tried, by who has the step.

    `edited` are the files that a change of a member's settings would change.
    """
    found: dict[str, set[PurePosixPath]] = {}
    for step in plan.steps:
        if isinstance(step, MakeSuccessor | ExchangeAuthorities | RetireAuthority):
            for host in inventory.hosts:
                authority = inventory.layout(host.name).authority
                if authority is not None:
                    files = generation_files(authority, Generation.NEXT)
                    found.setdefault(host.name, set()).update(files)
        elif step.host is not None:
            found.setdefault(step.host, set()).update(_written(step, step.host, inventory))
            if isinstance(step, ReaddressMember | RefreshConfiguration | JoinMember):
                paths = (edited or {}).get(step.host, ())
                found[step.host].update(map(PurePosixPath, paths))
    backups = inventory.paths.backups
    return {name: frozenset({*paths, backups}) for name, paths in found.items() if paths}


def _written(step: Step, host: str, inventory: Inventory) -> Iterable[PurePosixPath]:
    if isinstance(step, SilenceApiserver):
        pod = next(x.pod for x in inventory.kube_apiservers if x.name == host)
        return (pod.manifest, pod.kept)
    layout = inventory.layout(host)
    if isinstance(step, TAKING_OUT) and layout.manifest is not None:
        return (layout.manifest, etcd_pod(layout.manifest).kept)
    if isinstance(step, StageLeaves | WriteTrust):
        tells = layout.has_apiserver or any(c.name == step.name for c in inventory.clients)
        return (NOTES,) if tells else ()
    if isinstance(step, UpdateApiserver):
        return (next(x.manifest for x in inventory.kube_apiservers if x.name == host),)
    if isinstance(step, UpdateHaproxy):
        balancers = (x.haproxy for x in inventory.load_balancers if x.name == host)
        return tuple(haproxy.configuration for haproxy in balancers if haproxy is not None)
    return (NOTES,) if isinstance(step, TellHook) else ()
