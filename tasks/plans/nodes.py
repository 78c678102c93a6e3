"""What is wrong on a control-plane node, and what is only to be known; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from tasks.model.cluster import ClusterHealth
from tasks.model.inventory import Inventory
from tasks.model.layout import MANIFEST
from tasks.model.nodes import NodeObservation
from tasks.model.plan import Finding, Severity
from tasks.model.pods import apiserver_pod
from tasks.plans.refilled import find_refilled

HARDEN = "harden_members lets it end at once"
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_NO_KUBEADM = "there is no kubeadm, which makes a node anew, its certificates and its kubeconfigs"
INITIAL_CLUSTER, INITIAL_STATE = "initial-cluster", "initial-cluster-state"


def find_strays(node: NodeObservation) -> tuple[str, ...]:
    """Tell the files that are one pod's, of which the kubelet runs the one that sorts last."""
    by_label: dict[str, list[str]] = {}
    for pod in node.pods:
        by_label.setdefault(pod.label, []).append(pod.file.path)
    return tuple(
        f"{' and '.join(paths)} are the same pod, {label}: the kubelet runs {paths[-1]}, whose "
        "name sorts last, and takes no notice of the others; move all but one out of that directory"
        for label, paths in by_label.items()
        if len(paths) > 1
    )


NO_MANIFEST = (
    "no file of the static pods' directory is etcd's pod, kube-system/etcd, and no run has taken "
    "one out. An upgrade by kubeadm that broke off has set it aside as "
    "/etc/kubernetes/tmp/kubeadm-backup-manifests-*/etcd.yaml: mv it back; where there is none, "
    "`kubeadm init phase etcd local --config FILE` on the node writes one, with the "
    "ClusterConfiguration in FILE; then harden_members"
)


def find_problems(node: NodeObservation) -> tuple[str, ...]:
    """List what keeps a node's etcd from being what its manifest says."""
    pod, process = node.pod, node.process
    found = [*find_strays(node), *map(_taken_out, node.taken_out)]
    if pod is None:
        lost = find_lost_manifest(node)
        return (*found, *((lost,) if lost else ()), *_kubelet(node))
    found += [f"its manifest is not understood: {fault}" for fault in node.settings.faults]
    if process is None:
        found.append(f"{pod.file.path} is there, and no etcd of that pod runs")
    elif not node.settings.faults:
        found += [
            f"{pod.file.path} says --{name}={wanted or 'nothing'}, and what runs has "
            f"{running or 'nothing'}: the kubelet has not taken the file"
            for name, wanted, running in find_differences(node)
        ]
    return (*found, *_kubelet(node))


def find_lost(node: NodeObservation) -> tuple[str, ...]:
    """Name the pods, etcd's and the API server's, that a node has no manifest of, here or kept."""
    kept = {path.stem for path in node.taken_out}
    names = (MANIFEST.stem, apiserver_pod(MANIFEST).manifest.stem)
    return tuple(name for name in names if not node.named(name) and name not in kept)


def find_lost_manifest(node: NodeObservation) -> str | None:
    """Say that nothing on a node says how its etcd starts, and the ways to a manifest."""
    return NO_MANIFEST if MANIFEST.stem in find_lost(node) else None


def _taken_out(path: PurePosixPath) -> str:
    place = path.parent.parent / MANIFEST.parent.name
    return (
        f"a run that did not end has taken {path.name} out of {place}; run the same runbook again, "
        f"it goes on from there, or put it back (etcd's first): mv {path} {place}/"
    )


def find_hindrances(node: NodeObservation, inventory: Inventory) -> tuple[str, ...]:
    """List what keeps a node's member from being changed, by this or a run that goes on.

    A kubelet that is deaf is stopped and started again by a change, where that is allowed.
    """
    paths = {file.path.rpartition("/")[0] for file in node.files}
    directory = (node.kubelet.directory or "").rstrip("/")
    found = [*find_strays(node), *map(str, node.settings.faults)]
    if directory and paths and paths != {directory}:
        found.append(f"the kubelet reads its pods in {directory}; say so in paths.manifest")
    may_restart = inventory.layout(node.host).restarts_kubelet
    if node.kubelet.has_seen_api is False and not may_restart:
        found.append(f"{_deaf(node)} (the inventory's restarts_kubelet forbids a run to do that)")
    return (*found, *find_lacking(node))


def find_lacking(node: NodeObservation) -> tuple[str, ...]:
    """Name what a node's pods cannot be started without, and is not there; what runs goes on."""
    found = []
    if node.versions.get("kubelet") is None and not node.kubelet.is_active:
        found.append("there is no kubelet, which alone starts what is put in")
    if not runtime(node):
        found.append("no container runtime runs (containerd, crio): nothing would start again")
    return tuple(found)


def find_unable(
    inventory: Inventory, nodes: Iterable[NodeObservation], touched: Collection[str]
) -> tuple[Finding, ...]:
    """Refuse for the hindrances of the touched nodes."""
    return tuple(
        Finding(Severity.REFUSAL, node.host, sentence)
        for node in nodes
        if node.host in touched
        for sentence in find_hindrances(node, inventory)
    )


def find_obstructions(
    inventory: Inventory, nodes: Collection[NodeObservation], touched: Collection[str]
) -> tuple[Finding, ...]:
    """List what forbids to change members: the touched nodes' hindrances; of others a warning.

    Without kubeadm a member changes all the same, but not what is left to it.
    """
    refused = find_unable(inventory, nodes, touched)
    warned = (
        Finding(Severity.WARNING, node.host, _taken_out(path))
        for node in nodes
        if node.host not in touched
        for path in node.taken_out
        if path.name == MANIFEST.name
    )
    lacking = (
        Finding(
            Severity.WARNING,
            node.host,
            _NO_KUBEADM,
        )
        for node in nodes
        if node.host in touched and node.versions.get("kubeadm") is None
    )
    return (*refused, *warned, *lacking)


def find_even(count: int) -> tuple[Finding, ...]:
    """Warn of an even number of control planes, before members are restarted."""
    if count % 2:
        return ()
    said = f"{count} control planes bear no more failures than {count - 1}: {(count - 1) // 2}"
    return (Finding(Severity.WARNING, None, said),)


def find_paused(nodes: Iterable[NodeObservation]) -> frozenset[str]:
    """Name the nodes whose API server was taken out, and whose etcd was not."""
    return frozenset(
        node.host
        for node in nodes
        if {path.name for path in node.taken_out} == {apiserver_pod(MANIFEST).manifest.name}
    )


def find_unsettled(
    nodes: Iterable[NodeObservation], joining: Collection[str], begun: Collection[str]
) -> frozenset[str]:
    """Name those that join, or have joined by a run that died, whose manifests say so still."""
    return frozenset(
        node.host
        for node in nodes
        if node.host in joining
        and (node.host in begun or node.taken_out or not node.settings.begins_nothing)
    )


def find_differences(node: NodeObservation) -> tuple[tuple[str, str, str], ...]:
    """List the settings of which the manifest says another value than the process has."""
    running = node.running
    if running is None:
        return ()
    return tuple(
        (name, node.settings.value(name), running.value(name))
        for name in sorted({*node.settings, *running})
        if node.settings.value(name) != running.value(name)
    )


def _deaf(node: NodeObservation) -> str:
    return (
        f"the kubelet has not met its API server ({node.kubelet.api}) since it started: it stops "
        "no pod and takes no changed manifest until it has; bring that API server back, or "
        "restart the kubelet (systemctl restart kubelet) once it answers"
    )


def _kubelet(node: NodeObservation) -> Iterable[str]:
    kubelet = node.kubelet
    yield from find_lacking(node)
    if not kubelet.is_active:
        if node.versions.get("kubelet") is not None:
            yield "the kubelet does not run: nothing starts etcd there, and no change is taken"
        return
    if kubelet.has_seen_api is False:
        yield _deaf(node)
    paths = {file.path.rpartition("/")[0] for file in node.files}
    if kubelet.directory and paths and paths != {kubelet.directory.rstrip("/")}:
        yield (
            f"the kubelet reads its pods in {kubelet.directory}, and not in "
            f"{' and '.join(sorted(paths))}; say so in paths.manifest"
        )


def find_remarks(node: NodeObservation, members: int) -> tuple[str, ...]:
    """List what is to be known of a node of a cluster with so many members."""
    found = [f"the kubelet does not take {notice}" for notice in node.broken]
    if is_alone_on_disk(node, members):
        found.append(
            "its manifest's --initial-cluster names this member alone, without "
            "--initial-cluster-state=existing: when its disk is lost while the others have no "
            f"leader, it comes up as a healthy empty cluster with the same ids; {HARDEN}"
        )
    elif node.pod and members > 1 and not node.settings.begins_nothing:
        found.append(
            "its manifest's --initial-cluster names other members: when its disk is lost, it votes "
            f"with an empty log, so that a quorum may lack what was acknowledged; {HARDEN}"
        )
    kubelet, kubeadm = (node.versions.get(name) for name in ("kubelet", "kubeadm"))
    if kubeadm is None:
        found.append(f"{_NO_KUBEADM}; install the one of the kubelet's version, {kubelet or '?'}")
    elif kubelet is not None and kubelet != kubeadm:
        found.append(
            f"kubeadm is {kubeadm} and the kubelet {kubelet}: what kubeadm writes anew there is as "
            "of its own version"
        )
    return tuple(found)


def is_alone_on_disk(node: NodeObservation, members: int) -> bool:
    """Whether the member would begin a cluster of its own without its data, as kubeadm leaves it.

    `kubeadm init` and each upgrade write so; where it is the only member, that is right.
    """
    named = node.settings.split(INITIAL_CLUSTER)
    state = node.settings.value(INITIAL_STATE, "new")
    return node.pod is not None and members > 1 and len(named) <= 1 and state == "new"


def runtime(node: NodeObservation) -> str:
    """Name what runs the containers, with its version; empty where none of the known does."""
    found = ((name, node.versions.get(name)) for name in ("containerd", "crio"))
    return ", ".join(f"{name} {version}" for name, version in found if version)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is wrong with a cluster's nodes, and what is only to be known; each names its hosts."""

    problems: tuple[str, ...]
    remarks: tuple[str, ...]


def judge_nodes(
    inventory: Inventory, nodes: tuple[NodeObservation, ...], health: ClusterHealth
) -> Judgement:
    """Judge the nodes of a stacked cluster; of no nodes nothing is said."""
    listed = health.seen_members()
    problems = [(node.host, sentence) for node in nodes for sentence in find_problems(node)]
    remarks: list[tuple[str, str]] = []
    for node in nodes:
        data = node.mounts.on_host(PurePosixPath(node.settings.value("data-dir") or "/"))
        wanted = inventory.layout(node.host).data
        if node.pod and not node.settings.faults and data != wanted:
            problems.append(
                (
                    node.host,
                    f"its manifest keeps etcd's data in {data or 'no volume of the host'}, and the "
                    f"inventory says {wanted}; say so in paths.data_directory",
                )
            )
        remarks += [(node.host, sentence) for sentence in find_remarks(node, len(listed))]
    remarks += [(f.host or "", f.sentence) for f in find_refilled(nodes, health)]
    if nodes and len(nodes) == len(inventory.hosts):
        remarks += [("", finding.sentence) for finding in find_even(len(nodes))]
    if nodes:
        problems += [
            (
                member.host,
                f"the member list has its peer URL {url}, which no other node reaches: no member "
                "can be added before `etcdctl member update` gives it the node's address",
            )
            for member in listed
            for url in member.member.peer_urls
            if (urlsplit(url).hostname or "") in LOOPBACK
        ]
    return Judgement(_told(problems), _told(remarks))


def _told(rows: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(f"{host}: {sentence}" if host else sentence for host, sentence in rows)


def find_reasons(nodes: Iterable[NodeObservation]) -> tuple[Finding, ...]:
    """List what forbids to change anything on nodes, or is to be weighed.

    Where two files are one pod, nobody knows which of them the next hand will edit.
    """
    found = []
    for node in nodes:
        strays = find_strays(node)
        found += [
            Finding(Severity.REFUSAL if said in strays else Severity.WARNING, node.host, said)
            for said in find_problems(node)
        ]
    return tuple(found)
