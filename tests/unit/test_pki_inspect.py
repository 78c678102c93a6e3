"""How a certificate on a host differs from the wanted one."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from tasks.model.certificates import AuthorityPolicy, KeySpec, SubjectName, Usage
from tasks.model.errors import AuthorityRefused, CertificateRefused
from tasks.pki.authority import Authority, create_authority
from tasks.pki.inspect import (
    find_differences,
    find_intermediate,
    pick_signer,
    read_bundle,
    read_certificate,
)
from tasks.pki.keys import make_key, public_pem
from tasks.pki.names import distinguished_name
from tests.unit.pki_requests import (
    NOW,
    P256,
    WANT,
    YEARS,
    make_request,
    shared_authority,
    with_version,
)

DAY = timedelta(days=1)
AUTHORITY = shared_authority().certificate_pem
KEY = make_key(P256)
PUBLIC = public_pem(KEY.public_key())
CERTIFICATE = shared_authority().sign(make_request(key=KEY), WANT, NOW)
STRANGE = with_version(CERTIFICATE, b"CERTIFICATE")
SHORT = dataclasses.replace(WANT, validity=30 * DAY)
SHORT_CERTIFICATE = shared_authority().sign(make_request(SHORT, KEY), SHORT, NOW)
OTHER_AUTHORITY = create_authority(AuthorityPolicy(key=P256), NOW)


def differences(**change: Any) -> tuple[str, ...]:  # noqa: ANN401 - each argument has its own type
    """Compare the planned certificate with the plan, except for what is given."""
    arguments: dict[str, Any] = {
        "certificate_pem": CERTIFICATE,
        "want": WANT,
        "authority_pem": AUTHORITY,
        "key_public_pem": PUBLIC,
        "now": NOW,
        "renew_before": 30 * DAY,
    }
    return find_differences(**arguments | change)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"certificate_pem": CERTIFICATE.decode(), "key_public_pem": PUBLIC.decode().strip()},
        {"want": dataclasses.replace(WANT, sans=WANT.sans[::-1])},
        {"want": dataclasses.replace(WANT, usages=(Usage.DIGITAL_SIGNATURE, *WANT.usages[1:]))},
        {"want": dataclasses.replace(WANT, validity=DAY)},
        {"now": NOW + YEARS - 31 * DAY},
    ],
)
def test_a_certificate_as_wanted_has_no_differences(change: dict[str, Any]) -> None:
    """So nothing is done; order, spelling and how long a new one would be valid do not matter."""
    assert differences(**change) == ()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"certificate_pem": None}, ("there is none",)),
        ({"certificate_pem": b"junk"}, ("it is not a certificate that can be read",)),
        ({"certificate_pem": STRANGE}, ("it is not a certificate that can be read",)),
        ({"certificate_pem": "ü"}, ("it is not a certificate that can be read",)),
        (
            {"authority_pem": OTHER_AUTHORITY.certificate_pem},
            ("it is not signed by the cluster's authority",),
        ),
        ({"authority_pem": None}, ("it is not signed by the cluster's authority",)),
        ({"key_public_pem": None}, ("its key is missing or cannot be read",)),
        (
            {"key_public_pem": public_pem(make_key(P256).public_key())},
            ("it does not match its key",),
        ),
        (
            {"want": dataclasses.replace(WANT, common_name="master02")},
            ("its subject is CN=master01, not CN=master02",),
        ),
        (
            {"want": dataclasses.replace(WANT, names=(SubjectName(O="x"),))},
            ("its subject is CN=master01, not CN=master01,O=x",),
        ),
        (
            {"want": dataclasses.replace(WANT, sans=(*WANT.sans, "10.0.0.1"))},
            ("it lacks the SAN 10.0.0.1",),
        ),
        (
            {"want": dataclasses.replace(WANT, sans=WANT.sans[1:])},
            ("it has the SAN master01, unwanted",),
        ),
        (
            {"want": dataclasses.replace(WANT, usages=WANT.usages[:-1])},
            ("it has the usage client auth, unwanted",),
        ),
        (
            {"want": dataclasses.replace(WANT, key=KeySpec(algo="rsa", size=2048))},
            ("its key is ECDSA 256, not RSA 2048",),
        ),
        (
            {"certificate_pem": SHORT_CERTIFICATE, "renew_before": 31 * DAY},
            ("it expires on 2026-12-24 02:55 UTC",),
        ),
        (
            {"certificate_pem": SHORT_CERTIFICATE, "now": NOW + 40 * DAY},
            ("it expired on 2026-12-24 02:55 UTC",),
        ),
        ({"now": NOW - DAY}, ("it is not valid before 2026-11-24 02:55 UTC",)),
    ],
)
def test_each_difference_has_its_phrase(change: dict[str, Any], told: tuple[str, ...]) -> None:
    """Exactly what differs, and nothing else."""
    assert differences(**change) == told


def test_all_differences_are_told_at_once() -> None:
    """In one order: whose it is, when, its key, its content."""
    told = differences(authority_pem=None, key_public_pem=None, now=NOW + YEARS)
    assert [phrase.split()[1] for phrase in told] == ["is", "expired", "key"]


def test_a_certificate_that_ends_with_its_authority_is_not_renewed_in_vain() -> None:
    """A new one would end on the same day, so each run would renew it again."""
    late = NOW + YEARS - 20 * DAY
    clipped = shared_authority().sign(make_request(key=KEY), WANT, late)
    assert differences(certificate_pem=clipped, now=late) == ()
    over = shared_authority().facts.not_after
    assert differences(certificate_pem=clipped, now=over) == ("it expired on 2031-11-23 02:55 UTC",)


def test_an_authority_with_the_same_name_and_another_key_is_another() -> None:
    """The signature counts, not the name."""
    foreign = OTHER_AUTHORITY.sign(make_request(key=KEY), WANT, NOW)
    assert read_certificate(foreign).issuer_common_name == "etcd"
    assert differences(certificate_pem=foreign) == ("it is not signed by the cluster's authority",)


def test_extensions_that_nobody_planned_are_differences() -> None:
    """A certificate that may sign others is not the planned one; what no policy says is not one."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.load_pem_x509_certificate(CERTIFICATE).subject)
        .issuer_name(x509.load_pem_x509_certificate(AUTHORITY).subject)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + YEARS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.OID_CODE_SIGNING]), critical=False)
    )
    pem = builder.sign(shared_authority()._key, hashes.SHA256()).public_bytes(
        serialization.Encoding.PEM
    )
    told = differences(certificate_pem=pem)
    assert "it is an authority's" in told
    assert not any("1.3.6.1.5.5.7.3.3" in phrase for phrase in told)
    assert "it lacks the usage server auth" in told
    assert "it lacks the usage signing" not in told, "without the extension all is allowed"
    assert "it lacks the SAN localhost" in told


def test_an_authority_that_cannot_be_read_is_the_runners_fault() -> None:
    """It is not told as a difference of every certificate."""
    with pytest.raises(AuthorityRefused, match=r"authority\.certificate cannot be read"):
        differences(authority_pem=b"junk")


def test_a_certificate_tells_its_facts() -> None:
    """What reports and schedules look at."""
    facts = read_certificate(CERTIFICATE)
    raw = x509.load_pem_x509_certificate(CERTIFICATE)
    assert facts.common_name == "master01"
    assert facts.issuer_common_name == "etcd"
    assert facts.serial == raw.serial_number
    assert facts.sans == {"master01", "192.168.100.200", "fd00::1", "127.0.0.1", "localhost"}
    assert facts.usages == set(WANT.usages)
    assert facts.key == "ECDSA 256"
    assert facts.fingerprint == raw.fingerprint(hashes.SHA256()).hex()
    assert facts.public_key_pem == PUBLIC
    assert facts.not_before.utcoffset() == timedelta()


def test_a_bundle_is_read_whole() -> None:
    """As the hosts have it while authorities change."""
    bundle = AUTHORITY + OTHER_AUTHORITY.certificate_pem
    assert read_bundle(bundle) == (shared_authority().facts, OTHER_AUTHORITY.facts)
    assert read_certificate(bundle) == shared_authority().facts


@pytest.mark.parametrize(
    "pem",
    ["", b"junk", CERTIFICATE[:100], b"\xff", STRANGE],
    # Named, for a random certificate is no name: workers must agree on the names of tests.
    ids=["empty", "junk", "cut off", "no text", "strange"],
)
def test_what_is_no_certificate_is_refused(pem: bytes | str) -> None:
    """Never an error of the library's own."""
    with pytest.raises(CertificateRefused, match="cannot be read"):
        read_bundle(pem)


def test_an_intermediate_authority_is_told_from_a_root() -> None:
    """Where it stands behind the certificate in its file, or among the trusted ones."""
    root, key = OTHER_AUTHORITY, make_key(P256)
    own = x509.load_pem_x509_certificate(root.certificate_pem)
    middle = (
        x509.CertificateBuilder()
        .subject_name(distinguished_name("issuing", ()))
        .issuer_name(own.subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(own.not_valid_before_utc)
        .not_valid_after(own.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(root._key, hashes.SHA256())
    )
    leaf = Authority(middle, key).sign(make_request(key=KEY), WANT, NOW)
    middle_pem = middle.public_bytes(serialization.Encoding.PEM)
    assert find_intermediate(leaf + middle_pem, root.certificate_pem) == "issuing"
    assert find_intermediate(leaf, root.certificate_pem + middle_pem) == "issuing"
    assert find_intermediate(leaf, root.certificate_pem) is None
    assert find_intermediate(CERTIFICATE + AUTHORITY, AUTHORITY) is None


def test_the_authority_of_a_bundle_is_the_root_that_signed() -> None:
    """In whichever order; none where it is not among them."""
    other = OTHER_AUTHORITY.certificate_pem
    for bundle in (other + AUTHORITY, AUTHORITY + other, AUTHORITY):
        picked = pick_signer(CERTIFICATE, bundle)
        assert picked is not None
        assert read_certificate(picked) == read_certificate(AUTHORITY)
    assert pick_signer(CERTIFICATE, other) is None
    assert pick_signer("", AUTHORITY) is None
