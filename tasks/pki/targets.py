"""What each pair of a cluster shall be: the members' by the policy, a client's as it is."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from tasks.model.certificates import FileAccess, Role, Usage
from tasks.model.clients import Client
from tasks.model.inventory import KUBEADM_CLIENT, Inventory
from tasks.model.layout import Pair
from tasks.model.machines import Host
from tasks.model.members import DesiredMember
from tasks.model.observation import LeafFiles, PairsObservation
from tasks.pki.inspect import find_signer, read_certificate
from tasks.pki.leaf import WantedLeaf, wanted_leaf
from tasks.pki.policy import read_leaf


@dataclass(frozen=True, slots=True)
class LeafTarget:
    """One pair as it shall be, whose its files are, and who may read them."""

    pair: Pair
    want: WantedLeaf
    owner: str
    group: str
    certificate_mode: str = "0644"
    key_mode: str = "0600"


def wanted_leaves(
    inventory: Inventory, host: Host, member: DesiredMember
) -> dict[Role, WantedLeaf]:
    """Say what each of a host's certificates shall be; one file's is the same in each role."""
    urls = (member.peer_url, member.client_url)
    addresses = [url.removeprefix("https://").rsplit(":", 1)[0].strip("[]") for url in urls]
    extra = (*host.extra_sans, *inventory.extra_sans)
    # A name in the place of an address is what clients use, too, where the policy says so.
    place = host.address.lower() if host.address else None
    wanted: dict[Role, WantedLeaf] = {}
    for pair in inventory.layout(host.name).pairs:
        role = pair.roles[0]
        policy = inventory.leaf_policy(host.name, role)
        want = wanted_leaf(policy, role, host.name, tuple(addresses), extra, member.member, place)
        wanted |= dict.fromkeys((r for r in pair.roles if r not in wanted), want)
    return wanted


def member_targets(
    inventory: Inventory,
    member: DesiredMember,
    group: str | None,
    seen: PairsObservation | None = None,
) -> dict[str, LeafTarget]:
    """Say what each pair of a member's host shall be, by label.

    Kubeadm's are kept as they were `seen`, for a ClusterConfiguration may have asked for any key.
    """
    wanted = wanted_leaves(inventory, inventory.host(member.name), member)
    account = inventory.etcd.run_as
    targets = {}
    for pair in inventory.layout(member.name).pairs:
        # The client's pair is for operators and their tools, through sudo.
        is_etcds = any(role.is_for_members for role in pair.roles)
        owner, owning = (account, group or account) if is_etcds else ("root", "root")
        access = inventory.leaf_policy(member.name, pair.roles[0]).access or FileAccess()
        want = wanted[pair.roles[0]]
        if pair.label == KUBEADM_CLIENT:
            want = replace(want, common_name=f"kube-{pair.label}")
        targets[pair.label] = LeafTarget(
            pair,
            want,
            access.owner or owner,
            access.group or owning,
            access.certificate_mode,
            access.key_mode,
        )
    if seen is None or inventory.layout(member.name).manifest is None:
        return targets
    trusted = (seen.trusted.text if seen.trusted else None) or ""
    others = {host.member_name for host in inventory.hosts} - {member.member}
    return {
        label: target
        if _is_another_members(seen.pairs[label], others)
        else _kept(target, seen.pairs[label], trusted)
        for label, target in targets.items()
    }


def _is_another_members(seen: LeafFiles, others: Collection[str]) -> bool:
    """Whether a pair was copied from another host; nothing of what it is is to be kept."""
    found = read_leaf(seen.certificate.text if seen.certificate else None)
    return found is not None and found.common_name in others


def client_targets(
    inventory: Inventory, client: Client, seen: PairsObservation | None = None
) -> dict[str, LeafTarget]:
    """Say what the pair of a client outside etcd shall be; none where the operator renews it.

    What was `seen` there is kept: a kube-apiserver's serves under names that etcd knows nothing of.
    """
    if not client.managed or client.certificate is None or client.key is None:
        return {}
    policy = inventory.certificates.client
    if client.common_name:
        policy = policy.model_copy(update={"common_name": client.common_name})
    want = wanted_leaf(policy, Role.CLIENT, client.name, (), ())
    pair = Pair(str(Role.CLIENT), (Role.CLIENT,), client.certificate, client.key)
    target = LeafTarget(pair, want, client.owner, client.group)
    if seen is None:
        return {pair.label: target}
    trusted = (seen.trusted.text if seen.trusted else None) or ""
    return {pair.label: _as_found(client, target, seen.pairs[pair.label], trusted)}


def _as_found(client: Client, target: LeafTarget, seen: LeafFiles, trusted: str) -> LeafTarget:
    """Keep what a client's pair is, but for what the inventory says of it."""
    kept, given = _kept(target, seen, trusted), client.model_fields_set
    return replace(
        kept,
        want=replace(kept.want, common_name=client.common_name or kept.want.common_name),
        owner=client.owner if "owner" in given else kept.owner,
        group=client.group if "group" in given else kept.group,
    )


def _kept(target: LeafTarget, seen: LeafFiles, trusted: str) -> LeafTarget:
    """Keep what a pair is; what cannot be read of it is as the target has it."""
    pem = seen.certificate.text if seen.certificate else None
    found = read_leaf(pem)
    if found is None or seen.certificate is None:
        return target
    signer = find_signer(pem or "", trusted)
    # One that was cut short by the end of its authority says nothing of how long it shall last.
    is_cut = signer is not None and read_certificate(pem or "").not_after >= signer.not_after
    needed = target.want.role.needed_usages
    want = replace(
        target.want,
        common_name=found.common_name or target.want.common_name,
        names=found.names,
        # What has to be there is added: an address that has changed since.
        sans=tuple(dict.fromkeys((*found.sans, *target.want.sans))),
        key=found.key or target.want.key,
        usages=tuple(u for u in Usage if u in found.usages or u in needed),
        validity=target.want.validity if is_cut else found.validity,
    )
    key = seen.key or seen.certificate
    return replace(
        target,
        want=want,
        owner=key.owner,
        group=key.group,
        certificate_mode=seen.certificate.mode,
        key_mode=f"0{int(key.mode, 8) & 0o770:03o}" if seen.key else target.key_mode,
    )
