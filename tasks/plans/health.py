"""What of a cluster's health forbids a change: which of the three answers each change asks for.

`find_obstacles` of gate and obstacles count healthy voters. Here is what no count shows: data
that differs between members, and etcd's own authentication.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from tasks.model.certificates import Role
from tasks.model.cluster import ClusterHealth
from tasks.model.corruption import INCONSISTENT
from tasks.model.errors import Refused
from tasks.model.histories import find_newcomers
from tasks.model.inventory import Inventory
from tasks.model.members import AlarmType, format_id
from tasks.model.pointers import pointer
from tasks.model.space import mebibytes
from tasks.plans.quotas import tell_raise

DEFAULT_QUOTA = 2 << 30
"""Etcd's, where no setting or 0 is given; https://etcd.io/docs/v3.5/op-guide/configuration."""


def down_way_out(inventory: Inventory, health: ClusterHealth) -> str | None:
    """Say how the members that do not answer come back; None when all do, or none can be asked."""
    down = [e.name for e in health.endpoints if not e.is_up]
    if not down or health.rbac:
        return None
    layouts = [inventory.layout(name) for name in down]
    unit, names = " ".join(dict.fromkeys(one.service for one in layouts)), ", ".join(down)
    is_pod = all(one.manifest for one in layouts)
    back = (
        f"to bring back {names}: the node's power and network, then on it `systemctl status "
        "kubelet` and `crictl ps --all --name etcd`; the end of "
        "/var/log/pods/kube-system_etcd-*/etcd/*.log says why etcd ends"
        if is_pod
        else f"to bring back {names}: the host's power and network, then on it `systemctl start "
        f"{unit}`; `journalctl -u {unit}` says why it ends"
    )
    differs = f"Where that is its data (`{INCONSISTENT}`): " + pointer(
        "repair_corruption", cluster=inventory.name
    )
    serves = health.reads_linearizable and not find_newcomers(health.endpoints)
    if serves and is_pod:
        lost = pointer("replace_member", cluster=inventory.name, member=down)
        return f"{back}. {differs}. Where its data are gone, or the node for good: {lost}"
    if serves:
        lost = pointer(
            "replace_member",
            cluster=inventory.name,
            member=down,
            replacement=["NAME=ADDRESS"] * len(down),
        )
        return f"{back}. {differs}. Where a host is gone for good: {lost}"
    healed = pointer("recover_certificates", cluster=inventory.name)
    gone = pointer("recover_quorum", cluster=inventory.name)
    lost = pointer("restore_cluster", cluster=inventory.name)
    return (
        f"{back}. Where certificates keep them down: {healed}. Where most members are gone for "
        f"good: {gone}; where all data are: {lost}"
    )


def refuse_unseen(health: ClusterHealth) -> None:
    """Raise Refused when etcd's authentication keeps this engine from seeing the members."""
    if health.rbac:
        raise Refused(health.rbac)


def corrupt_sentence(names: Iterable[str]) -> str:
    """Say that data differs, of whom etcd says so, and how to find out."""
    return (
        f"{', '.join(names)}: etcd raised the alarm CORRUPT: its data differs from the other "
        "members'. Neither members nor data are changed before it is known which copy is right; "
        "repair_corruption finds it and heals the others"
    )


def refuse_corrupt(health: ClusterHealth) -> None:
    """Raise Refused, naming the members, while a CORRUPT alarm is raised."""
    if names := corrupt_names(health):
        raise Refused(corrupt_sentence(names))


def corrupt_names(health: ClusterHealth) -> tuple[str, ...]:
    """Name the members that raised CORRUPT."""
    return tuple(
        health.member_name(alarm.member_id)
        for alarm in health.alarms
        if alarm.type is AlarmType.CORRUPT
    )


def alarm_sentences(
    inventory: Inventory, health: ClusterHealth, quotas: dict[int, int]
) -> tuple[str, ...]:
    """Tell each alarm once, by its member's name, with what is known of it and the way out.

    `quotas` are in bytes, by member id. The commands are for this very cluster.
    """
    told = []
    statuses = {e.status.member_id: e.status for e in health.endpoints if e.status}
    for alarm, sentence in zip(health.alarms, health.find_alarms(), strict=True):
        status = statuses.get(alarm.member_id)
        if alarm.type is AlarmType.NOSPACE and status is not None:
            quota = quotas.get(alarm.member_id)
            limit = f"quota {mebibytes(quota)}" if quota else "quota not known"
            sizes = f"{mebibytes(status.db_size)}, {mebibytes(status.db_size_in_use)} in use"
            told.append(f"{sentence} (database {sizes}, {limit})")
        else:
            told.append(sentence)
    kinds = {alarm.type for alarm in health.alarms}
    if AlarmType.CORRUPT in kinds:
        told.append(_corrupt_way_out(inventory, health))
    elif AlarmType.NOSPACE in kinds:
        told.append(_space_way_out(inventory, health, quotas.values()))
    return tuple(told)


def _etcdctl(inventory: Inventory, health: ClusterHealth) -> tuple[str, list[str], list[str]]:
    """Give a host to work on, the lines that define the commands, and the URLs, leader last."""
    up = [e for e in health.endpoints if e.is_up] or list(health.endpoints)
    leader = health.leader_name
    urls = [e.endpoint for e in sorted(up, key=lambda e: e.name == leader)]
    host = up[0].name
    layout = inventory.layout(host)
    pair = layout.pair(Role.SERVER)
    # Etcd's image has no shell, but it has etcdctl.
    inside = "crictl exec $(crictl ps --quiet --name '^etcd$') etcdctl"
    program = inside if layout.manifest else f"{layout.binaries}/etcdctl"
    flags = f"--cacert={layout.trusted} --cert={pair.certificate} --key={pair.key}"
    return (
        host,
        [
            f'etcdctl="{program} {flags}"',
            f"all={','.join(urls)}",
        ],
        urls,
    )


def _space_way_out(inventory: Inventory, health: ClusterHealth, quotas: Collection[int]) -> str:
    host, lines, urls = _etcdctl(inventory, health)
    lines += [
        f"revision=$($etcdctl --endpoints={urls[0]} endpoint status -w json "
        "| grep -o '\"revision\":[0-9]*' | head -n 1 | cut -d: -f2)",
        "$etcdctl --endpoints=$all compact $revision",
        *(f"$etcdctl --endpoints={url} defrag" for url in urls),
        "$etcdctl --endpoints=$all alarm disarm",
    ]
    return (
        f"{pointer('reclaim_space', cluster=inventory.name)} leads out of NOSPACE and says what "
        f"fills the database. By hand, the way out of NOSPACE, on {host} as root: compact, "
        "defragment one member after the other (each serves nobody meanwhile), take the alarm "
        "back. Where nearly all of the quota is in use, delete keys before, or "
        f"{tell_raise(inventory, quotas)}:" + "".join(f"\n    {line}" for line in lines)
    )


def _corrupt_way_out(inventory: Inventory, health: ClusterHealth) -> str:
    """Say how the wrong copy leaves; asked of the others, since who is removed stops answering."""
    host, lines, _ = _etcdctl(inventory, health)
    named = {a.member_id for a in health.alarms if a.type is AlarmType.CORRUPT and a.member_id}
    gone, others = "ID", "URL"
    if len(named) == 1:
        gone = format_id(*named)
        others = ",".join(
            e.endpoint for e in health.endpoints if e.status and e.status.member_id not in named
        )
    lines += [
        "$etcdctl --endpoints=$all endpoint hashkv",
        f"$etcdctl --endpoints={others} member remove {gone}",
        # A cluster serves nobody for some seconds after it has lost its leader.
        f"$etcdctl --command-timeout=30s --endpoints={others} alarm disarm",
    ]
    what = "" if named else " (ID is its id, URL another member's)"
    return (
        f"{pointer('repair_corruption', cluster=inventory.name)} finds the wrong copy and heals "
        f"it. By hand, the way out of CORRUPT, on {host} as root: compare the hashes; the member "
        f"whose hash is alone has the wrong data. Remove that one by its id{what}, and take the "
        f"alarm back; then {pointer('replace_member', cluster=inventory.name, member=['NAME'])} "
        "lets it join anew:" + "".join(f"\n    {line}" for line in lines)
    )


def order_sources(health: ClusterHealth) -> tuple[str, ...]:
    """Order whose snapshot to take, by URL: healthy followers, the furthest first, then the leader.

    By URL, because a member that gets another address is asked at both, under one name.
    """
    able = [
        (e.status.leader != e.status.member_id, e.status.raft_applied_index, e.endpoint)
        for e in health.endpoints
        if e.status and e.is_healthy and not e.status.is_learner
    ]
    return tuple(url for _, _, url in sorted(able, reverse=True))
