"""A member that has begun anew under its old ids, which prove nothing; etcd's counts tell it.

etcd computes both ids from the words of --initial-cluster and its token, so that a wiped first node
of kubeadm's, whose peers have no leader, comes up as a healthy cluster of itself alone, with the
cluster id and the member id that it had. Its term and its index begin again at the bottom.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tasks.model.pointers import pointer

if TYPE_CHECKING:
    from tasks.model.cluster import EndpointHealth


def find_newcomers(endpoints: Iterable[EndpointHealth]) -> dict[str, str]:
    """Find the members that lead a history of their own, by host, each with a sentence.

    One that leads itself alone, while others list it among several and have counted further.
    """
    told = [(e, e.status) for e in endpoints if e.status is not None]
    found = {}
    for one, own in told:
        if own.leader != own.member_id or [m.id for m in one.members] != [own.member_id]:
            continue
        others = [
            (each.name, status)
            for each, status in told
            if each is not one
            and status.cluster_id == own.cluster_id
            and len(each.members) > 1
            and any(m.id == own.member_id for m in each.members)
            and (status.raft_term > own.raft_term or status.raft_index > own.raft_index)
        ]
        if others:
            names = ", ".join(
                f"{name} (term {s.raft_term}, index {s.raft_index})" for name, s in others
            )
            again = pointer("replace_member", member=[one.name])
            found[one.name] = (
                f"{one.name} has begun another history, alone, at term {own.raft_term} and index "
                f"{own.raft_index}, and is not the member that {names} know under the same ids: "
                "what it acknowledges is not the cluster's. Stop its etcd, and the API server "
                f"that lives on it, bring the others back until they lead, then {again}"
            )
    return found
