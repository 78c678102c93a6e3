"""Reading a certificate as the policy that it follows, in the inventory's own words."""

from __future__ import annotations

import ipaddress
from datetime import timedelta

from cryptography import x509

from tasks.model.adoption import FoundLeaf
from tasks.model.certificates import SubjectName, Usage
from tasks.pki.inspect import UNREADABLE
from tasks.pki.keys import key_name, read_key_spec
from tasks.pki.names import PARTS, canonical_san, read_sans
from tasks.pki.usages import read_usages

_HOUR = timedelta(hours=1)


def read_leaf(pem: str | None) -> FoundLeaf | None:
    """Read what the first certificate of a PEM text is; None for one that cannot be read.

    What the inventory has no word for, so that a new certificate will not have it, is named in
    `unkept`.
    """
    try:
        certificate, *further = x509.load_pem_x509_certificates(
            (pem or "").encode(errors="replace")
        )
        sans = read_sans(certificate.extensions)
        usages = read_usages(certificate.extensions)
        parts, unkept = _read_subject(certificate.subject)
        kind = key_name(certificate.public_key())
        life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    except UNREADABLE:
        return None
    known = {str(usage) for usage in Usage}
    key = read_key_spec(kind)
    unkept += [f"the alternative name {san}" for san in sorted(sans) if not _is_kept(san)]
    unkept += [f"the usage {usage}" for usage in sorted(usages - known)]
    unkept += [] if key else [f"the kind of key, {kind}"]
    unkept += ["what stands behind it in its file"] if further else []
    unkept += [] if "CN" in parts else ["that its subject has no common name"]
    names = parts.pop("CN", [""])
    unkept += [f"the further common name {name}" for name in names[1:]]
    return FoundLeaf(
        common_name=names[0],
        names=_subject_names(parts),
        key=key,
        validity=max(_HOUR, timedelta(hours=round(life / _HOUR))),
        usages=tuple(usage for usage in Usage if usage in usages),
        sans=tuple(sorted((s for s in sans if _is_kept(s)), key=_by_kind)),
        unkept=tuple(unkept),
    )


def _read_subject(subject: x509.Name) -> tuple[dict[str, list[str]], list[str]]:
    words = {oid: part for part, (oid, _) in PARTS.items()}
    parts: dict[str, list[str]] = {}
    unkept = []
    for attribute in subject:
        part, value = words.get(attribute.oid), str(attribute.value)
        if part is None:
            unkept.append(f"{attribute.rfc4514_attribute_name} {value} of the subject")
        else:
            parts.setdefault(part, []).append(value)
    return parts, unkept


def _subject_names(parts: dict[str, list[str]]) -> tuple[SubjectName, ...]:
    """Put the parts into cfssl's list: the first values of all into one entry, and so on."""
    longest = max(map(len, parts.values()), default=0)
    return tuple(
        SubjectName(**{part: values[n] for part, values in parts.items() if n < len(values)})
        for n in range(longest)
    )


def _is_kept(san: str) -> bool:
    try:
        return canonical_san(san) == san
    except ValueError:
        return False


def _by_kind(san: str) -> tuple[int, int, int, str]:
    """Names before addresses, and those in their order."""
    try:
        address = ipaddress.ip_address(san)
    except ValueError:
        return (0, 0, 0, san)
    return (1, address.version, int(address), san)
