"""Steps for what else lists the members."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.model.plan import Stage, Step

APISERVERS = Stage(4, "kube-apiservers, one at a time", is_serial=True)
BALANCERS = Stage(5, "load balancers, all at once")


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateApiserver(Step):
    """Write the manifest and wait until the new kube-apiserver is live."""

    text: str
    servers: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateNodeApiserver(Step):
    """Change the list of an API server that lives on a member, by the kubelet's laws."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateHaproxy(Step):
    """Write the checked configuration and reload."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TellHook(Step):
    """Run the hook with the endpoints that there are."""

    endpoints: str
