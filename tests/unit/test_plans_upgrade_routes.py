"""Ways from what runs to a version: hops, what is missing, and what cannot be gone back."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tasks.model.errors import Refused
from tasks.plans.upgrade_routes import (
    Minor,
    find_route,
    has_no_way_back,
    minor_of,
    way_back_sentence,
)
from tests.unit.plan_cases import inventory, snapshot_of

MANIFEST = snapshot_of(datetime(2026, 3, 1, 12, tzinfo=UTC), cluster_version="3.4.0")
KNOWN = ("3.5.16", "3.5.30", "3.6.4", "3.6.16", "3.7.3", "3.4.23")
HOSTS = ("a", "b", "c")


def runs(*versions: str) -> dict[str, str]:
    """Say what each of three hosts runs; one version is all of theirs."""
    return dict(zip(HOSTS, versions * (3 if len(versions) == 1 else 1), strict=True))


@pytest.mark.parametrize(
    ("running", "cluster", "goal", "hops"),
    [
        (runs("3.4.23"), "3.4", "3.5.30", ["3.5.30 abc"]),
        (runs("3.4.23"), "3.4", "3.7.3", ["3.5.30 abc", "3.6.16 abc", "3.7.3 abc"]),
        (runs("3.5.16"), "3.5", "3.6.16", ["3.5.30 abc", "3.6.16 abc"]),
        (runs("3.5.30"), "3.5", "3.6.16", ["3.6.16 abc"]),
        (runs("3.6.4"), "3.6", "3.7.3", ["3.6.16 abc", "3.7.3 abc"]),
        (runs("3.5.16"), "3.5", "3.5.30", ["3.5.30 abc"]),
        (runs("3.5.30"), "3.5", "3.5.16", ["3.5.16 abc"]),
        (runs("3.5.30", "3.4.23", "3.4.23"), "3.4", "3.6.16", ["3.5.30 bc", "3.6.16 abc"]),
        (runs("3.5.30", "3.4.23", "3.4.23"), "3.4", "3.4.23", ["3.4.23 a"]),
        (runs("3.6.16", "3.5.16", "3.5.30"), "3.5", "3.7.3",
         ["3.5.30 b", "3.6.16 bc", "3.7.3 abc"]),
        (runs("3.5.30"), "3.4", "3.7.3", ["3.6.16 abc", "3.7.3 abc"]),
        (runs("3.7.3"), "3.7", "3.5.30", ["3.6.16 abc down", "3.5.30 abc down"]),
        (runs("3.6.16"), "3.6", "3.5.16", ["3.5.16 abc down"]),
        (runs("3.7.3", "3.6.16", "3.6.16"), "3.6", "3.5.30",
         ["3.6.16 a", "3.5.30 abc down"]),
        (runs("3.7.3"), "3.7", "3.7.3", []),
    ],
)  # fmt: skip
def test_the_hops(running: dict[str, str], cluster: str, goal: str, hops: list[str]) -> None:
    """Each minor version once, over a patch that may leave it; a mixed cluster goes on."""
    found = find_route(running, minor_of(cluster), goal, KNOWN)
    told = [
        f"{hop.version} {''.join(hop.hosts)}{' down' if hop.enables else ''}" for hop in found.hops
    ]
    assert told == hops
    assert found.cancels is None


def test_a_downgrade_under_way_is_gone_on_with_or_called_off() -> None:
    """The cluster's version is the lower one from its beginning on."""
    mixed = runs("3.5.30", "3.6.16", "3.6.16")
    on = find_route(mixed, (3, 5), "3.5.30", KNOWN, (3, 5))
    assert (on.hops[0].hosts, on.hops[0].enables, on.cancels) == (("b", "c"), True, None)
    off = find_route(mixed, (3, 5), "3.6.16", KNOWN, (3, 5))
    assert (off.hops[0].hosts, off.cancels) == (("a",), "3.5")
    begun = find_route(runs("3.6.16"), (3, 5), "3.6.16", KNOWN, (3, 5))
    assert (begun.hops, begun.cancels) == ((), "3.5")


@pytest.mark.parametrize(
    ("running", "cluster", "goal", "known", "said"),
    [
        ("3.4.23", "3.4", "3.6.16", ("3.6.16",), "etcd 3.5: name one from 3.5.26 on"),
        ("3.5.16", "3.5", "3.6.16", ("3.5.16", "3.6.16"), "etcd 3.5: name one from 3.5.26 on"),
        ("3.6.4", "3.6", "3.7.3", ("3.6.4", "3.7.3"), "etcd 3.6: name one from 3.6.11 on"),
        ("3.5.30", "3.5", "3.6.16", (), "etcd.binaries does not say where"),
        ("3.5.30", "3.5", "3.4.23", KNOWN, "loses every write since it was taken"),
        ("3.5.30", "3.5", "3.5.23", KNOWN, "must not be run"),
    ],
)
def test_what_is_refused(
    running: str, cluster: str, goal: str, known: tuple[str, ...], said: str
) -> None:
    """What the inventory lacks, a way back that etcd does not have, a release of bad repute."""
    with pytest.raises(Refused) as refused:
        find_route(runs(running), minor_of(cluster), goal, known)
    assert said in refused.value.message


@pytest.mark.parametrize(
    ("goal", "downgrades_to", "rises", "hops"),
    [
        ("3.7.3", None, (3, 6), ["3.7.3"]),
        ("3.5.30", None, (3, 6), ["3.5.30 down"]),
        ("3.5.30", (3, 5), None, ["3.5.30 down"]),
        ("3.7.3", (3, 5), (3, 6), ["3.7.3"]),
    ],
)
def test_a_cluster_whose_version_is_about_to_rise_is_taken_as_risen(
    goal: str, downgrades_to: Minor | None, rises: Minor | None, hops: list[str]
) -> None:
    """A run died after a hop's last member; with a downgrade under way nothing rises."""
    found = find_route(runs("3.6.16"), (3, 5), goal, KNOWN, downgrades_to)
    assert found.rises == rises
    assert [f"{h.version}{' down' if h.enables else ''}" for h in found.hops] == hops


@pytest.mark.parametrize("cluster", ["3.5", "3.6"])
def test_where_etcd_has_no_way_back_the_snapshot_from_before_is_named(cluster: str) -> None:
    """With the command that restores it, and where the old programs are."""
    wanted = inventory(etcd={"version": "3.4.23"})
    assert has_no_way_back(minor_of(cluster), "3.4.23")
    said = way_back_sentence(wanted, MANIFEST)
    assert f"the newest is {MANIFEST.file}, of 2026-03-01 12:00Z" in said
    assert f"--snapshot {MANIFEST.file} --consent {wanted.name} --accept old-revisions" in said
    assert "under /var/backups/etcd-runbooks" in said
    assert way_back_sentence(wanted, None) == "the store has none of 3.4"
    with pytest.raises(Refused, match="since it was taken: there"):
        find_route(runs("3.5.30"), minor_of(cluster), "3.4.23", KNOWN, way_back="there")


def test_all_that_is_missing_is_told_at_once() -> None:
    """From 3.4 to 3.7 with nothing but the last."""
    with pytest.raises(Refused) as refused:
        find_route(runs("3.4.23"), (3, 4), "3.7.3", ("3.7.3",))
    assert "etcd 3.5: " in refused.value.message
    assert "etcd 3.6: " in refused.value.message
