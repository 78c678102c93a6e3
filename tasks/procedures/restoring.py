"""Manifests that a stacked node has lost: written anew by another node's. Composes no step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

from tasks.config.alike import etcd_alike, other_address
from tasks.config.launch import NotUnderstood
from tasks.model.member_settings import TextFile
from tasks.model.members import DesiredMember
from tasks.model.nodes import NodeObservation
from tasks.model.pods import etcd_pod
from tasks.plans.nodes import find_lost
from tasks.plans.recovery import SWAP, RestoreManifest
from tasks.procedures.rotation import Sight


def restore(seen: Sight, manifest: PurePosixPath) -> tuple[RestoreManifest, ...]:
    """Plan what nodes have lost, each by the first other node that has it; `manifest` is etcd's.

    A node without any pair of etcd's was reset, and a cluster of which no node has a manifest has
    nothing to go by: nothing is planned for these.
    """
    members = {member.name: member for member in seen.members}
    steps = []
    for node in seen.nodes:
        own = members.get(node.host)
        pairs = seen.observed[node.host].pairs.values() if node.host in seen.observed else ()
        if own is None or not any(pair.certificate or pair.key for pair in pairs):
            continue
        for name in find_lost(node):
            step = _restore(name, own, seen.nodes, members, manifest)
            steps += [step] if step else []
    return tuple(steps)


def _restore(
    name: str,
    own: DesiredMember,
    nodes: tuple[NodeObservation, ...],
    members: dict[str, DesiredMember],
    manifest: PurePosixPath,
) -> RestoreManifest | None:
    path = etcd_pod(manifest).kept.with_name(f"{name}.yaml")
    for node in nodes:
        pods, model = node.named(name), members.get(node.host)
        if node.host == own.name or not pods or model is None:
            continue
        file = pods[-1].file
        try:
            made = (
                etcd_alike(file, model, own, str(path))
                if name == manifest.stem
                else replace(file, text=other_address(file.text, model, own))
            )
        except NotUnderstood:
            continue
        return RestoreManifest(
            stage=SWAP,
            host=own.name,
            sentence=f"write {path.name}, which is lost, as on {node.host}, with its own name and "
            "addresses in it",
            file=TextFile(str(path), made.text, "0600"),
        )
    return None
