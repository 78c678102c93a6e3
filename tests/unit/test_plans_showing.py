"""A member three ways: what differs is marked, and stands first."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from tasks.model.member_settings import Place, Setting, Settings
from tasks.model.members import Member, SeenMember
from tasks.model.nodes import Mounts
from tasks.plans.showing import MemberSight, Row, compare_member, describe, find_entry

URL = "https://10.0.0.1"
WRITTEN = {
    "name": "m1",
    "initial-advertise-peer-urls": f"{URL}:2380",
    "advertise-client-urls": f"{URL}:2379",
    "initial-cluster": f"m1={URL}:2380",
    "data-dir": "/var/lib/etcd",
}


def settings(values: dict[str, str]) -> Settings:
    """Make settings of values."""
    return Settings({n: Setting(n, v, Place("/m")) for n, v in values.items()})


def member(number: int, *, peer: str | None = None) -> SeenMember:
    """Make a member of the list."""
    at = f"https://10.0.0.{number}"
    return SeenMember(
        Member(number, f"m{number}", (peer or f"{at}:2380",), (f"{at}:2379",)),
        is_healthy=True,
        is_leader=number == 1,
    )


def sight(process: dict[str, str] | None, mounts: Mounts | None = None) -> MemberSight:
    """Make what was seen of m1."""
    runs = None if process is None else settings(WRITTEN | process)
    return MemberSight("m1", "/m", settings(WRITTEN), runs, "3.7.3", mounts)


def marked(seen: MemberSight, *listed: SeenMember) -> dict[str, str]:
    """Tell what is marked, and see that it stands first."""
    rows = compare_member(seen, listed)
    found = {row.name: row.mark for row in rows if row.mark}
    assert [row.name for row in rows][: len(found)] == list(found)
    return found


def test_where_all_three_agree_nothing_is_marked() -> None:
    """And each setting is there once."""
    assert marked(sight({}), member(1)) == {}
    assert len(compare_member(sight({}), (member(1),))) == len(WRITTEN)


@pytest.mark.parametrize(
    ("process", "listed", "found"),
    [
        ({"data-dir": "/old"}, (member(1),), {"data-dir": "what runs has another value"}),
        ({"snapshot-count": "5"}, (member(1),), {"snapshot-count": "what runs has another value"}),
        (
            {},
            (member(1, peer="https://127.0.0.1:2380"),),
            {
                "initial-advertise-peer-urls": "the cluster has it otherwise",
                "initial-cluster": "the cluster has it otherwise; read at a first start only",
            },
        ),
        ({}, (member(1), member(2)), {"initial-cluster": "the cluster has it otherwise; read at"}),
        (None, (member(1),), {}),
    ],
)
def test_what_differs(
    process: dict[str, str] | None, listed: tuple[SeenMember, ...], found: dict[str, str]
) -> None:
    """Between the files and the process, and between those and the member list."""
    seen = marked(sight(process), *listed)
    assert seen.keys() == found.keys()
    assert all(seen[name].startswith(words) for name, words in found.items())


def test_a_path_in_a_pod_is_shown_with_the_hosts() -> None:
    """As after a restore that changed the hostPath alone."""
    there = PurePosixPath("/var/lib/etcd-from-backup")
    mounts = Mounts(((PurePosixPath("/var/lib/etcd"), there),))
    rows = {row.name: row for row in compare_member(sight({}, mounts), ())}
    shown = "/var/lib/etcd (on the host /var/lib/etcd-from-backup)"
    assert rows["data-dir"] == Row("data-dir", shown, shown, "")


def test_a_password_is_not_shown() -> None:
    """Whatever has one."""
    secret = settings({"grpc-password": "x"})
    assert compare_member(MemberSight("m1", "/m", secret, None, None), ()) == ()


def test_a_member_is_described_in_a_line() -> None:
    """Also one that is none, and one that does not run."""
    own = find_entry(sight({}), (member(2), member(1)))
    assert describe(sight({}), own) == "m1: /m; etcd 3.7.3 runs; member 1, leader"
    assert "does not run; the member list has no such member" in describe(sight(None), None)
