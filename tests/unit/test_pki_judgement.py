"""Judging a certificate: each state as one case, and none where all is well."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tasks.model.certificates import AuthorityPolicy, KeySpec, LeafPolicy, Role
from tasks.model.expiry import CertificateRow, Grade, Kind
from tasks.model.inventory import Expiry
from tasks.model.observation import FileState, LeafFiles
from tasks.pki.authority import create_authority
from tasks.pki.inspect import read_certificate
from tasks.pki.judgement import Place, judge_authorities, judge_pair
from tasks.pki.keys import make_key, public_pem
from tasks.pki.leaf import wanted_leaf

NOW = datetime(2026, 11, 24, 6, 0, tzinfo=UTC)
AUTHORITY = create_authority(AuthorityPolicy(), NOW)
STRANGER = create_authority(AuthorityPolicy(common_name="stranger"), NOW)
WANT = wanted_leaf(LeafPolicy(), Role.SERVER, "m1", ("10.0.0.1",), ("etcd.example.org",))
KEY = make_key(KeySpec())
PEM = AUTHORITY._issue(KEY.public_key(), WANT, NOW).decode()
PLACE = Place(
    cluster="c1",
    host="m1",
    label="server",
    path="/etc/etcd/ssl/server.pem",
    addresses=frozenset({"10.0.0.1"}),
    trusted=AUTHORITY.certificate_pem.decode(),
    authority=AUTHORITY.certificate_pem,
    expiry=Expiry(),
)
Found = set[tuple[Kind, Grade]]


def files(pem: str | None = PEM, mode: str = "0600", public: bytes | None = None) -> LeafFiles:
    """Make a pair on disk."""
    certificate = None if pem is None else FileState("0644", "etcd", "etcd", "x", pem)
    key = FileState(mode, "etcd", "etcd", "x")
    return LeafFiles(certificate, key, (public or public_pem(KEY.public_key())).decode())


def found(row: CertificateRow) -> Found:
    """Tell what was found and how bad it is."""
    return {(finding.kind, finding.grade) for finding in row.findings}


def judge(place: Place = PLACE, on_disk: LeafFiles | None = None, **ports: str | None) -> Found:
    """Judge a pair that both serve, unless said otherwise."""
    served = {2379: ports.get("served", PEM)}
    now = NOW + timedelta(minutes=1)
    return found(judge_pair(place, on_disk or files(), served, WANT, now))


def issue(**changes: object) -> str:
    """Sign the key for something else than what is wanted."""
    return AUTHORITY._issue(KEY.public_key(), replace(WANT, **changes), NOW).decode()  # type: ignore[arg-type]


def test_what_is_as_desired_has_no_finding() -> None:
    """Served, on disk and desired are one."""
    assert judge() == set()


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (timedelta(days=91), set()),
        (timedelta(days=89), {(Kind.EXPIRING, Grade.WARNING)}),
        (timedelta(days=29), {(Kind.EXPIRING, Grade.CRITICAL)}),
        (timedelta(0), {(Kind.EXPIRED, Grade.CRITICAL)}),
    ],
)
def test_the_windows_of_a_long_life(left: timedelta, expected: Found) -> None:
    """90 and 30 days before the end; from the end on it has expired."""
    pem = issue(validity=WANT.validity - timedelta(days=1))
    end = judge_pair(PLACE, files(pem), {}, WANT, NOW).not_after
    assert end is not None
    assert found(judge_pair(PLACE, files(pem), {}, WANT, end - left)) == expected


def test_a_leaf_that_ends_with_its_authority_is_told_as_the_authority_s_end() -> None:
    """One problem is one finding, until it has expired."""
    end = judge_pair(PLACE, files(), {}, WANT, NOW).not_after
    assert end is not None
    near = end - timedelta(days=29)
    assert found(judge_pair(PLACE, files(), {}, WANT, near)) == set()
    assert found(judge_authorities(PLACE, near)[0]) == {(Kind.EXPIRING, Grade.CRITICAL)}
    assert found(judge_pair(PLACE, files(), {}, WANT, end)) == {(Kind.EXPIRED, Grade.CRITICAL)}


def test_a_short_life_is_not_told_from_its_first_day() -> None:
    """A week's certificate: a third and a sixth of its life."""
    pem = issue(validity=timedelta(days=6))
    for hours, expected in (
        (1, set()),
        (24 * 4 + 6, {(Kind.EXPIRING, Grade.WARNING)}),
        (24 * 5 + 6, {(Kind.EXPIRING, Grade.CRITICAL)}),
    ):
        row = judge_pair(PLACE, files(pem), {}, WANT, NOW + timedelta(hours=hours))
        assert found(row) == expected


CASES: dict[str, tuple[Found, LeafFiles]] = {
    "none": ({(Kind.MISSING, Grade.CRITICAL)}, files(None)),
    "not a certificate": ({(Kind.MISSING, Grade.CRITICAL)}, files("nonsense")),
    "another's key": (
        {(Kind.MISMATCHED, Grade.CRITICAL)},
        files(public=public_pem(make_key(KeySpec()).public_key())),
    ),
    "key open to all": ({(Kind.EXPOSED, Grade.CRITICAL)}, files(mode="0644")),
    "key open to the group": ({(Kind.EXPOSED, Grade.WARNING)}, files(mode="0640")),
    "without the address": (
        {(Kind.NAMES, Grade.CRITICAL)},
        files(issue(sans=tuple(s for s in WANT.sans if s != "10.0.0.1"))),
    ),
    "without another name": (
        {(Kind.NAMES, Grade.WARNING)},
        files(issue(sans=tuple(s for s in WANT.sans if s != "etcd.example.org"))),
    ),
    "without client auth": (
        {(Kind.USAGES, Grade.CRITICAL)},
        files(issue(usages=tuple(u for u in WANT.usages if u != "client auth"))),
    ),
    "another subject": ({(Kind.DIFFERING, Grade.WARNING)}, files(issue(common_name="x"))),
    "signed by a stranger": (
        {(Kind.UNTRUSTED, Grade.CRITICAL), (Kind.DIFFERING, Grade.WARNING)},
        files(STRANGER._issue(KEY.public_key(), WANT, NOW).decode()),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_on_disk(name: str) -> None:
    """One finding, and as bad as it is; what is served is the same."""
    expected, on_disk = CASES[name]
    text = on_disk.certificate.text if on_disk.certificate else None
    row = judge_pair(PLACE, on_disk, {}, WANT, NOW + timedelta(minutes=1))
    assert found(row) == expected, text


def test_what_is_served_differs_or_is_nothing() -> None:
    """Stale until etcd reads its files; nothing is critical."""
    assert judge(served=issue()) == {(Kind.STALE, Grade.WARNING)}
    assert judge(served=None) == {(Kind.UNSERVED, Grade.CRITICAL)}


def test_where_kubeadm_issues_nobody_minds_the_policy() -> None:
    """Key, subject and further names are its own."""
    place = replace(PLACE, has_policy=False)
    pem = issue(common_name="kube", sans=(*WANT.sans, "kubernetes.default"))
    assert judge(place, files(pem), served=pem) == set()


def test_a_runner_without_the_authority_judges_by_what_the_host_trusts() -> None:
    """As right after an adoption."""
    assert judge(replace(PLACE, authority=None)) == set()


def test_the_authorities_of_a_host() -> None:
    """Their own ends, the runner's among them, and that there is one at all."""
    assert [found(row) for row in judge_authorities(PLACE, NOW)] == [set()]
    late = NOW + timedelta(hours=43800) - timedelta(days=10)
    assert [found(row) for row in judge_authorities(PLACE, late)] == [
        {(Kind.EXPIRING, Grade.CRITICAL)}
    ]
    other = replace(PLACE, trusted=STRANGER.certificate_pem.decode())
    assert (Kind.UNTRUSTED, Grade.WARNING) in found(judge_authorities(other, NOW)[-1])
    nothing = replace(PLACE, trusted="")
    assert found(judge_authorities(nothing, NOW)[0]) == {(Kind.MISSING, Grade.CRITICAL)}


def test_an_ended_authority_that_nobody_needs_is_no_finding() -> None:
    """It was left in the trusted file; where it signed what is there, its end is told."""
    old = create_authority(AuthorityPolicy(common_name="old"), NOW - timedelta(days=9999))
    both = replace(PLACE, trusted=(old.certificate_pem + AUTHORITY.certificate_pem).decode())
    expired, kept = {(Kind.EXPIRED, Grade.CRITICAL)}, files()
    signed = files(old._issue(KEY.public_key(), WANT, NOW - timedelta(days=9998)).decode())
    bare = replace(both, authority=None)
    for place, pairs, wanted in (
        (both, [kept], set()),
        (bare, [kept], set()),
        (both, [kept, signed], expired),
        (bare, [], expired),
        (replace(both, trusted=old.certificate_pem.decode()), [kept], expired),
    ):
        assert found(judge_authorities(place, NOW, None, pairs)[0]) == wanted
    first = LeafFiles(None, FileState("0600", "root", "root", "x"), None)
    assert found(judge_authorities(both, NOW, first, [kept])[0]) == expired


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (None, set()),
        (FileState("0600", "root", "root", "x"), set()),
        (FileState("0640", "root", "root", "x"), {(Kind.EXPOSED, Grade.WARNING)}),
        (FileState("0644", "root", "root", "x"), {(Kind.EXPOSED, Grade.CRITICAL)}),
    ],
)
def test_an_authority_s_key_on_its_host(key: FileState | None, expected: Found) -> None:
    """Kubeadm leaves it there; it may be elsewhere."""
    public = read_certificate(AUTHORITY.certificate_pem).public_key_pem.decode()
    own = LeafFiles(None, key, public if key else None)
    assert found(judge_authorities(PLACE, NOW, own)[0]) == expected
    other = LeafFiles(None, key, public_pem(KEY.public_key()).decode() if key else None)
    mismatched = {(Kind.MISMATCHED, Grade.CRITICAL)} if key else set()
    assert found(judge_authorities(PLACE, NOW, other)[0]) == expected | mismatched
