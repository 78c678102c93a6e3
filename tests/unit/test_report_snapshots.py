"""What is said of a snapshot: how old the last proven one is, and what it does not hold."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from tasks.model.snapshots import EncryptionFile, SnapshotRules
from tasks.report.snapshots import proven_sentence, snapshot_remarks
from tests.unit.test_plans_retention import NOW, taken

PROVES = "rehearse_snapshot --clusters main)"


def before(hours: float) -> datetime:
    """Give the time so many hours ago."""
    return NOW - timedelta(hours=hours)


@pytest.mark.parametrize(
    ("newest", "proven", "said"),
    [
        (None, None, "there is no snapshot in /b: take_snapshot"),
        (taken(before(5)), None, f"no snapshot is proven; the newest, {taken(before(5)).file}, is"),
        (taken(before(5)), None, PROVES),
        (taken(before(47.9), proven=True), taken(before(47.9), proven=True), "of 47 h ago"),
        (
            taken(before(1)),
            taken(before(49), proven=True),
            "of 2 days ago; the newest one is of 1 h",
        ),
    ],
)
def test_the_age_of_the_last_proven_is_told(newest: None, proven: None, said: str) -> None:
    """Or how one comes to be."""
    assert said in proven_sentence("main", "/b", newest, proven, NOW)


@pytest.mark.parametrize(
    ("hours", "age", "is_stale"),
    [
        (168, 167, False),
        (168, 169, True),
        (168, None, True),
        (None, 9000, False),
        (None, None, False),
    ],
)
def test_a_proven_snapshot_is_too_old_by_its_datas_age(
    hours: int | None, age: int | None, is_stale: bool
) -> None:
    """None at all is too old, too; where nobody asks, nothing is."""
    proven = None if age is None else taken(before(age), proven=True)
    assert SnapshotRules(proven_within_hours=hours).is_stale(proven, NOW) == is_stale


def test_what_api_servers_encrypt_with_is_named_by_file_and_fingerprint() -> None:
    """One sentence a configuration; that they differ, and who was not asked, is told."""
    same = [EncryptionFile(host=h, path="/etc/enc.yaml", sha256="aa") for h in ("m1", "m2")]
    odd = EncryptionFile(host="m3", path="/etc/enc.yaml", sha256="bb")
    one = taken(NOW).model_copy(update={"encryption": tuple(same)})
    (_, told) = snapshot_remarks(one, "/b/x.db", ())
    assert "/etc/enc.yaml on m1, /etc/enc.yaml on m2 (sha256 aa): keep it elsewhere" in told
    both = one.model_copy(update={"encryption": (*same, odd), "encryption_unseen": ("m4",)})
    told = "; ".join(snapshot_remarks(both, "/b/x.db", ()))
    assert "do not encrypt by the same configuration" in told
    assert "API servers of m4 encrypt is not known" in told
