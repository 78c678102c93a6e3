"""Who trusts which authority, and who is signed by which: what an authority's succession asks.

Authorities are named by their certificate's SHA-256 fingerprint in hexadecimal.
"""

from __future__ import annotations

from dataclasses import dataclass, field

UNMADE = "unmade"
"""Stands for the fingerprint of an authority that the plan has yet to make."""


@dataclass(frozen=True, slots=True)
class TrustView:
    """One member or client: what its files and, for a member, its running etcd say.

    `accepted` are the authorities whose clients the running etcd accepts on both ports, which
    tells what it has loaded; for a client, which cannot be asked, the same as `trusted`.
    `issuers` has the signer of each pair on disk, `served` those of what both ports present;
    None is a signer that is not the cluster's.
    """

    name: str
    trusted: frozenset[str]
    accepted: frozenset[str]
    issuers: dict[str, str | None] = field(default_factory=dict)
    served: frozenset[str | None] = frozenset()
    has_pending_change: bool = False
