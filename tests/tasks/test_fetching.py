"""What a restore takes: the highest revision that was seen, and whose snapshot a file is."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect.settings import PREFECT_HOME, temporary_settings

from tasks.engine.remembered import recall
from tasks.engine.run import open_run
from tasks.model.errors import Refused
from tasks.model.members import DesiredMember, format_id
from tasks.model.restores import RestoreSource
from tasks.procedures.fetching import Request, refuse_other_cluster
from tasks.steps import snapshots
from tasks.steps.revisions import (
    forget_fenced,
    note_fenced,
    note_pending,
    note_revision,
    read_revision,
    tell_fenced,
)
from tests.unit.plan_cases import inventory
from tests.unit.test_plans_restoration import answers
from tests.unit.test_plans_retention import NOW, taken

MEMBERS = (DesiredMember("m1", "https://10.0.0.1:2380", "https://10.0.0.1:2379"),)


async def test_the_highest_revision_is_kept(tmp_path: Path) -> None:
    """A lower one that is seen later, and a file that is spoilt, take nothing back."""
    with temporary_settings({PREFECT_HOME: tmp_path}):
        async with open_run(inventory(), "check_health") as run:
            assert read_revision(run) == 0
            for seen in (5, 3, 0):
                note_revision(run, seen)
            assert read_revision(run) == 5
            (tmp_path / "etcd-runbooks" / "revisions" / "c1.json").write_text("{")
            assert read_revision(run) == 0
            note_revision(run, 7)
            assert read_revision(run) == 7


async def test_what_a_restore_has_ended_is_remembered_and_shared(tmp_path: Path) -> None:
    """By a run that died and the one that finished it; another runner learns it from the store."""
    own = inventory(snapshots={"store": str(tmp_path / "store"), "proven_within_hours": None})
    with temporary_settings({PREFECT_HOME: tmp_path / "one"}):
        async with open_run(own, "recover_quorum") as run:
            note_revision(run, 5)
            note_pending(run, {"a"})
            fenced = note_fenced(run, {"b"}, {"b"})
            assert list(fenced) == ["a"]
            assert (recall("c1").pending, read_revision(run)) == ((), 5)
            await snapshots.share_fenced(run, fenced)
    with temporary_settings({PREFECT_HOME: tmp_path / "other"}):
        async with open_run(own, "check_health") as run:
            assert recall("c1").fenced == {}
            await snapshots.tell_proven.fn(run)
            assert recall("c1").fenced == fenced


async def test_what_was_taken_back_on_every_host_is_forgotten(tmp_path: Path) -> None:
    """Also where a cluster of the same name and addresses was made anew: it has the same id."""
    with temporary_settings({PREFECT_HOME: tmp_path}):
        async with open_run(inventory(), "check_health") as run:
            note_fenced(run, {format_id(10)}, set())
            for ids in ({"m1": 10, "m2": 10, "m3": 0}, {"m1": 10, "m2": 10, "m3": 11}):
                assert not forget_fenced(run, answers(**ids))
                assert "m1, m2 came back" in tell_fenced(run, answers(**ids))[0]
            assert forget_fenced(run, answers(m1=10, m2=10, m3=10))
            assert recall("c1").fenced == {}


def source(tmp_path: Path, url: str, cluster: str | None) -> RestoreSource:
    """Make a file that lists a member as etcd does."""
    file = tmp_path / "one.db"
    file.write_bytes(b'..{"id":1,"peerURLs":["%s"],"name":"m1"}..' % url.encode())
    manifest = taken(NOW).model_copy(update={"cluster": cluster}) if cluster else None
    return RestoreSource(file, "f", "a file", 1, "s", 1, None, manifest)


@pytest.mark.parametrize(
    ("url", "cluster", "said"),
    [
        (MEMBERS[0].peer_url, None, None),
        (MEMBERS[0].peer_url, "c1", None),
        ("https://10.9.9.9:2380", None, "none of its members is one of c1's"),
        (MEMBERS[0].peer_url, "other", "a snapshot of the cluster other"),
    ],
)
def test_another_clusters_snapshot_needs_a_word(
    tmp_path: Path, url: str, cluster: str | None, said: str | None
) -> None:
    """By its manifest, or by the members that it lists."""
    found = source(tmp_path, url, cluster)
    wanted = Request(None, None, frozenset())
    if said is None:
        refuse_other_cluster(inventory(), found, MEMBERS, wanted)
        return
    with pytest.raises(Refused, match=said):
        refuse_other_cluster(inventory(), found, MEMBERS, wanted)
    accepted = Request(None, None, frozenset({"other-cluster"}))
    refuse_other_cluster(inventory(), found, MEMBERS, accepted)
