"""Judging certificates on a host: what is found, and how bad it is. Pure; `now` is passed in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from tasks.model.errors import CertificateRefused
from tasks.model.expiry import CertificateFinding, CertificateRow, Grade, Kind
from tasks.model.inventory import Expiry
from tasks.model.observation import LeafFiles
from tasks.pki.inspect import (
    NOT_SIGNED,
    Aspect,
    CertificateFacts,
    Difference,
    compare,
    find_signer,
    read_bundle,
    read_certificate,
)
from tasks.pki.leaf import WantedLeaf

_ALWAYS = timedelta(0)
_KINDS = {
    Aspect.MISSING: Kind.MISSING,
    Aspect.UNREADABLE: Kind.MISSING,
    Aspect.EXPIRED: Kind.EXPIRED,
    Aspect.NOT_YET_VALID: Kind.NOT_YET_VALID,
    Aspect.KEY_MISSING: Kind.MISSING,
    Aspect.KEY_MATCH: Kind.MISMATCHED,
    Aspect.KEY_KIND: Kind.DIFFERING,
    Aspect.SUBJECT: Kind.DIFFERING,
    Aspect.IS_AUTHORITY: Kind.DIFFERING,
    Aspect.SAN_MISSING: Kind.NAMES,
    Aspect.SAN_UNWANTED: Kind.NAMES,
    Aspect.USAGE_MISSING: Kind.USAGES,
    Aspect.USAGE_UNWANTED: Kind.USAGES,
}
_CRITICAL = {
    Aspect.MISSING,
    Aspect.UNREADABLE,
    Aspect.EXPIRED,
    Aspect.NOT_YET_VALID,
    Aspect.KEY_MISSING,
    Aspect.KEY_MATCH,
    Aspect.IS_AUTHORITY,
}
_POLICY = {Aspect.KEY_KIND, Aspect.SUBJECT, Aspect.SAN_UNWANTED, Aspect.USAGE_UNWANTED}
_AUTHENTICATION = {"server auth", "client auth"}


@dataclass(frozen=True, slots=True)
class Place:
    """Which certificate is judged, and what holds for all of its host.

    `addresses` are those under which others dial the host; `trusted` is the text of its trusted
    file. Without `has_policy`, as where kubeadm issues, key, subject and additional names are
    nobody's concern.
    """

    cluster: str
    host: str
    label: str
    path: str
    addresses: frozenset[str]
    trusted: str | None
    authority: bytes | None
    expiry: Expiry
    has_policy: bool = True


def judge_pair(
    place: Place,
    files: LeafFiles,
    served: dict[int, str | None],
    want: WantedLeaf,
    now: datetime,
    key_mode: str = "0600",
) -> CertificateRow:
    """Judge one pair: `served` is what each port presents, PEM, `want` what it shall be."""
    text = files.certificate.text if files.certificate else None
    facts = _facts(text)
    differences = compare(text, want, place.authority, files.key_public, now, _ALWAYS)
    found = list(_judge_differences(place, differences, facts))
    if facts is not None and text is not None:
        signer = find_signer(text, place.trusted) if place.trusted is not None else None
        # A leaf that ends with its authority is told once, as the authority's end.
        if signer is None or facts.not_after < signer.not_after:
            found += _judge_end(place, facts, now)
        if place.trusted is not None and signer is None:
            sentence = "no authority that this host trusts has signed it"
            found.append(_finding(place, Kind.UNTRUSTED, Grade.CRITICAL, sentence, facts))
    if files.key is not None:
        found += _judge_mode(place, files.key.mode, key_mode, facts)
    presented = {port: _facts(pem) for port, pem in served.items()}
    found += _judge_served(place, facts, presented, now)
    return _row(place, facts, presented, found)


def judge_authorities(
    place: Place,
    now: datetime,
    files: LeafFiles | None = None,
    pairs: Iterable[LeafFiles] = (),
) -> tuple[CertificateRow, ...]:
    """Judge what a host trusts: each authority's own end, and that there is one.

    `files` are the authority's where its key may lie on the host, as kubeadm leaves it. One that
    has ended, and has signed none of the host's `pairs`, was left there: nobody misses it.
    """
    try:
        authorities = read_bundle(place.trusted or "")
    except CertificateRefused:
        sentence = "holds no certificate that can be read"
        found = [_finding(place, Kind.MISSING, Grade.CRITICAL, sentence, None)]
        return (_row(place, None, {}, found),)
    current = _facts(place.authority)
    needed = {current.fingerprint} if current else set()
    for pair in pairs:
        text = pair.certificate.text if pair.certificate else None
        signer = find_signer(text, place.trusted or "") if text else None
        needed |= {signer.fingerprint} if signer else set()
    rows = []
    for number, facts in enumerate(authorities):
        is_left = facts.not_after <= now and facts.fingerprint not in needed
        is_first = files is not None and number == 0  # with which kubeadm signs
        if is_left and not is_first and needed & {each.fingerprint for each in authorities}:
            rows.append(_row(place, facts, {}, []))
            continue
        found = list(_judge_end(place, facts, now))
        if files is not None and files.key is not None and number == 0:
            found += _judge_mode(place, files.key.mode, "0600", facts)
            if files.key_public not in {None, facts.public_key_pem.decode()}:
                # kubeadm's pkiutil signs with the first of a bundle.
                sentence = "the key beside it is not this authority's, which is the first there"
                found.append(_finding(place, Kind.MISMATCHED, Grade.CRITICAL, sentence, facts))
        if facts.not_after <= now:
            found.append(_finding(place, Kind.EXPIRED, Grade.CRITICAL, _ended(facts), facts))
        if not facts.is_authority:
            sentence = "is trusted as an authority and is none"
            found.append(_finding(place, Kind.UNTRUSTED, Grade.CRITICAL, sentence, facts))
        rows.append(_row(place, facts, {}, found))
    if current and current.fingerprint not in {facts.fingerprint for facts in authorities}:
        sentence = f"the runner's authority ({current.fingerprint[:12]}) is not trusted here"
        finding = _finding(place, Kind.UNTRUSTED, Grade.WARNING, sentence, None)
        rows.append(_row(place, None, {}, [finding]))
    return tuple(rows)


def _facts(pem: str | bytes | None) -> CertificateFacts | None:
    if pem is None:
        return None
    try:
        return read_certificate(pem)
    except CertificateRefused:
        return None


def _finding(
    place: Place, kind: Kind, grade: Grade, sentence: str, facts: CertificateFacts | None
) -> CertificateFinding:
    end = facts.not_after if facts else None
    return CertificateFinding(kind, grade, place.cluster, place.host, place.path, sentence, end)


def _judge_differences(
    place: Place, differences: tuple[Difference, ...], facts: CertificateFacts | None
) -> Iterator[CertificateFinding]:
    for one in differences:
        if one.aspect is Aspect.EXPIRING or (one.aspect in _POLICY and not place.has_policy):
            continue
        if one.aspect is Aspect.ISSUER:
            if place.authority is not None:
                sentence = f"{NOT_SIGNED} on the runner"
                yield _finding(place, Kind.DIFFERING, Grade.WARNING, sentence, facts)
            continue
        is_critical = (
            one.aspect in _CRITICAL
            or (one.aspect is Aspect.SAN_MISSING and one.about in place.addresses)
            or (one.aspect is Aspect.USAGE_MISSING and one.about in _AUTHENTICATION)
        )
        grade = Grade.CRITICAL if is_critical else Grade.WARNING
        yield _finding(place, _KINDS[one.aspect], grade, one.phrase, facts)


def _judge_end(
    place: Place, facts: CertificateFacts, now: datetime
) -> Iterator[CertificateFinding]:
    left, life = facts.not_after - now, facts.not_after - facts.not_before
    if left <= timedelta(0):
        return  # expired: told by its own
    ends = f"ends on {facts.not_after:%Y-%m-%d %H:%M} UTC, in {format_left(left)}"
    if left <= place.expiry.alarm_before(life):
        yield _finding(place, Kind.EXPIRING, Grade.CRITICAL, ends, facts)
    elif left <= place.expiry.warn_before(life):
        yield _finding(place, Kind.EXPIRING, Grade.WARNING, ends, facts)


def format_left(left: timedelta) -> str:
    """Write how long is left: days, or hours and minutes below two days."""
    if left >= timedelta(days=2):
        return f"{left.days} days"
    minutes = max(0, int(left.total_seconds() // 60))
    return f"{minutes // 60} h {minutes % 60} min"


def _ended(facts: CertificateFacts) -> str:
    return f"it expired on {facts.not_after:%Y-%m-%d %H:%M} UTC"


def _judge_mode(
    place: Place, mode: str, wanted: str, facts: CertificateFacts | None
) -> Iterator[CertificateFinding]:
    bits = int(mode, 8)
    if bits & 0o007:
        sentence = f"its key can be read by everybody (mode {mode}); chmod {wanted}, and renew it"
        yield _finding(place, Kind.EXPOSED, Grade.CRITICAL, sentence, facts)
    elif bits & 0o077 & ~int(wanted, 8):
        sentence = f"its key has mode {mode}, not {wanted}"
        yield _finding(place, Kind.EXPOSED, Grade.WARNING, sentence, facts)


def _judge_served(
    place: Place,
    facts: CertificateFacts | None,
    presented: dict[int, CertificateFacts | None],
    now: datetime,
) -> Iterator[CertificateFinding]:
    for port, other in presented.items():
        if other is None:
            sentence = f"port {port} presents no certificate; is etcd down?"
            yield _finding(place, Kind.UNSERVED, Grade.CRITICAL, sentence, facts)
        elif facts is None or other.fingerprint != facts.fingerprint:
            sentence = f"port {port} presents serial {other.serial:x}, not what is on disk"
            grade = Grade.CRITICAL if other.not_after <= now else Grade.WARNING
            yield _finding(place, Kind.STALE, grade, sentence, other)


def _row(
    place: Place,
    facts: CertificateFacts | None,
    presented: dict[int, CertificateFacts | None],
    findings: list[CertificateFinding],
) -> CertificateRow:
    served = tuple((port, one.serial if one else None) for port, one in presented.items())
    about = (place.cluster, place.host, place.label, place.path)
    if facts is None:
        return CertificateRow(*about, served=served, findings=tuple(findings))
    return CertificateRow(
        *about,
        facts.common_name,
        facts.issuer_common_name,
        facts.serial,
        facts.not_before,
        facts.not_after,
        served,
        tuple(findings),
    )
