"""Certificate signing requests: what a host needs to make one, and the check of what comes back.

The host makes the key and the request with openssl; nothing here is secret. Nothing of a request
but its public key is ever used.
"""

from __future__ import annotations

import re

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from tasks.model.certificates import KeySpec
from tasks.model.errors import CertificateRefused
from tasks.pki.inspect import UNREADABLE
from tasks.pki.keys import key_name
from tasks.pki.leaf import WantedLeaf
from tasks.pki.names import (
    distinguished_name,
    is_ip_san,
    name_attributes,
    read_sans,
    subject_parts,
)

_CURVES = {256: "P-256", 384: "P-384", 521: "P-521"}
_EXTENSION_REQUEST = x509.ObjectIdentifier("1.2.840.113549.1.9.14")
# config(5ssl): these begin a comment, a quoted part, a variable or an escape.
_SPECIAL = re.compile(r"""([\\"'`$#])""")


def openssl_key_command(spec: KeySpec) -> tuple[str, ...]:
    """Write openssl's argv that makes a key, PKCS #8 PEM; `-out` and its file are to be added."""
    if spec.algo == "rsa":
        options: tuple[str, ...] = (f"rsa_keygen_bits:{spec.size}",)
    elif spec.algo == "ed25519":
        options = ()
    else:
        # Go reads named curves only; openssl before 1.1 writes the parameters out.
        options = (f"ec_paramgen_curve:{_CURVES[spec.size]}", "ec_param_enc:named_curve")
    algorithm = {"rsa": "RSA", "ecdsa": "EC", "ed25519": "ED25519"}[spec.algo]
    pairs = tuple(part for option in options for part in ("-pkeyopt", option))
    return ("openssl", "genpkey", "-algorithm", algorithm, *pairs)


def openssl_request_config(want: WantedLeaf) -> str:
    """Write the configuration for `openssl req -new -key K -config FILE`; ASCII or UTF-8 text.

    `want` comes from `wanted_leaf`, which has refused what cannot stand in a certificate; raises
    ValueError for one that does not. Source: config(5ssl), openssl-req(1ssl).
    """
    lines = [
        "[req]",
        "prompt = no",
        "utf8 = yes",
        "string_mask = utf8only",
        "distinguished_name = subject",
    ]
    if want.sans:
        lines.append("req_extensions = extensions")
    lines.append("[subject]")
    for part, values in subject_parts(want.common_name, want.names).items():
        # A plus puts a value into the same set as the one before; the number makes keys differ.
        lines += [
            f"{number}.{'+' if number else ''}{part} = {_escape(value)}"
            for number, value in enumerate(values)
        ]
    if want.sans:
        lines += ["[extensions]", "subjectAltName = @names", "[names]"]
        lines += [
            f"{'IP' if is_ip_san(san) else 'DNS'}.{number} = {_escape(san)}"
            for number, san in enumerate(want.sans)
        ]
    return "\n".join([*lines, ""])


def _escape(value: str) -> str:
    if not value.isprintable():
        raise ValueError(f"{value!r} has characters that do not print")
    return _SPECIAL.sub(r"\\\1", value)


def checked_public_key(request_pem: bytes, want: WantedLeaf) -> CertificatePublicKeyTypes:
    """Check that a request is exactly what was planned, and take its public key.

    Its signature, its kind of key, its subject and its alternative names; nothing may be missing
    and nothing else be asked for. Raises CertificateRefused that names all that differs.
    """
    what = f"the signing request for the {want.role} certificate"
    try:
        request = x509.load_pem_x509_csr(request_pem)
        is_signed = request.is_signature_valid
        key = request.public_key()
        differences = _differences(request, want)
    except UNREADABLE as error:
        raise CertificateRefused(f"{what} cannot be read: {error}") from error
    if not is_signed:
        raise CertificateRefused(f"{what} is not signed by its own key")
    if differences:
        raise CertificateRefused(f"{what} is not what was planned: {'; '.join(differences)}")
    return key


def _differences(request: x509.CertificateSigningRequest, want: WantedLeaf) -> list[str]:
    differences = []
    planned = distinguished_name(want.common_name, want.names)
    if name_attributes(request.subject) != name_attributes(planned):
        differences.append(
            f"its subject is {request.subject.rfc4514_string() or 'empty'}, "
            f"not {planned.rfc4514_string()}"
        )
    if (kind := key_name(request.public_key())) != str(want.key):
        differences.append(f"its key is {kind}, not {want.key}")
    asked, sans = read_sans(request.extensions), set(want.sans)
    differences += [f"it asks for the name {san}" for san in sorted(asked - sans)]
    differences += [f"it lacks the name {san}" for san in sorted(sans - asked)]
    differences += [
        f"it asks for the extension {extension.oid.dotted_string}"
        for extension in request.extensions
        if not isinstance(extension.value, x509.SubjectAlternativeName)
    ]
    differences += [
        f"it has the attribute {attribute.oid.dotted_string}"
        for attribute in request.attributes
        if attribute.oid != _EXTENSION_REQUEST
    ]
    return differences
