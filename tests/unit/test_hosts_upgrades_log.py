"""Whether a snapshot is later than what of the v2 store is in a log: by the index of the last."""

from __future__ import annotations

import pytest

from tasks.hosts.batch import Result
from tasks.hosts.upgrades import parse_log

BEFORE = (
    "0000080310acffd7cb0e1a0e080310c8a5a0dcd782a0bc661818980000000000000008021098d1be8e081a8d01"
    "0800100318192284010881c8e49a90c4a8e412"
)
"""What etcd 3.5.30 wrote before a request of index 25, 0x19."""


@pytest.mark.parametrize(
    ("told", "is_saved"),
    [
        (f"saved=0000000000000021\nbefore={BEFORE}", True),
        (f"saved=0000000000000019\nbefore={BEFORE}", True),
        (f"saved=0000000000000018\nbefore={BEFORE}", False),
        (f"saved=0000000000000021\nbefore={BEFORE[:-40]}", False),
        ("saved=0000000000000021\nbefore=", False),
        ("", False),
    ],
)
def test_what_a_snapshot_has_is_read_no_more(told: str, is_saved: bool) -> None:
    """What is not understood counts as read; a snapshot with keys of the v2 store ends 3.6."""
    counted = "entries=3\nwrites=1\nown=2\n"
    seen = parse_log(Result("look", 0, f"{counted}{told}\n", "", 0.0))
    assert (seen.entries, seen.writes, seen.own, seen.is_saved) == (4, 1, 2, is_saved)
    assert seen.ends((3, 6)) is not is_saved
    keys = parse_log(Result("look", 0, f"{counted}{told}\nkeys=yes\n", "", 0.0))
    assert keys.ends((3, 6))
