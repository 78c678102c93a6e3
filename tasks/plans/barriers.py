"""What keeps a barrier of an authority's rotation shut, from what was seen; pure."""

from __future__ import annotations

from tasks.model.trust import TrustView


def find_trust_obstacles(views: tuple[TrustView, ...], wanted: frozenset[str]) -> tuple[str, ...]:
    """List who does not trust exactly these authorities, on disk or in the running etcd."""
    found = [
        f"{view.name}: its trusted file holds {_names(view.trusted)}, not {_names(wanted)}"
        for view in views
        if view.trusted != wanted
    ]
    found += [
        f"{view.name}: its running etcd accepts {_names(view.accepted)}, not {_names(wanted)}"
        for view in views
        if view.trusted == wanted and view.accepted != wanted
    ]
    found += [
        f"{view.name}: its files were changed, and what uses them was not made to read them since"
        for view in views
        if view.has_pending_change
    ]
    return tuple(found)


def find_issuer_obstacles(views: tuple[TrustView, ...], target: str) -> tuple[str, ...]:
    """List the pairs that the target has not signed, on disk or served."""
    found = [
        f"{view.name}: its {label} pair is signed by {name_authority(issuer)}"
        for view in views
        for label, issuer in view.issuers.items()
        if issuer != target
    ]
    found += [
        f"{view.name}: serves a certificate of {name_authority(issuer)}"
        for view in views
        for issuer in view.served
        if issuer != target
    ]
    return tuple(found)


def _names(authorities: frozenset[str]) -> str:
    return " and ".join(name[:12] for name in sorted(authorities)) or "none"


def name_authority(issuer: str | None) -> str:
    """Name the authority that has signed something."""
    return f"authority {issuer[:12]}" if issuer else "another authority"
