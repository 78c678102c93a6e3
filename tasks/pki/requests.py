"""What a host needs to make a key and a signing request with openssl; nothing here is secret."""

from __future__ import annotations

import re

from tasks.model.certificates import KeySpec
from tasks.model.errors import CertificateRefused
from tasks.model.inventory import is_ip_address
from tasks.pki.leaf import WantedLeaf

_SAFE = re.compile(r"[\w .:@*/()+-]+")
_CURVES = {256: "P-256", 384: "P-384", 521: "P-521"}


def openssl_key_command(spec: KeySpec) -> tuple[str, ...]:
    """Write openssl's argv that makes a PKCS #8 key; without its output file."""
    if spec.algo == "rsa":
        algorithm, option = "RSA", f"rsa_keygen_bits:{spec.size}"
    else:
        algorithm, option = "EC", f"ec_paramgen_curve:{_CURVES[spec.size]}"
    return ("openssl", "genpkey", "-algorithm", algorithm, "-pkeyopt", option)


def openssl_request_config(want: WantedLeaf) -> str:
    """Write the configuration for `openssl req -new -key K -config FILE`.

    Raises CertificateRefused for a name with characters that the file's syntax would read.
    """
    parts = [
        f"{number}.{part} = {_safe(value)}"
        for number, name in enumerate(want.names)
        for part in ("C", "ST", "L", "O", "OU")
        if (value := getattr(name, part)) is not None
    ]
    lines = ["[req]", "prompt = no", "utf8 = yes", "distinguished_name = subject"]
    if want.sans:
        lines.append("req_extensions = extensions")
    lines += ["[subject]", *parts, f"CN = {_safe(want.common_name)}"]
    if want.sans:
        lines += ["[extensions]", "subjectAltName = @names", "[names]"]
        lines += [
            f"{'IP' if is_ip_address(san) else 'DNS'}.{number} = {_safe(san)}"
            for number, san in enumerate(want.sans)
        ]
    return "\n".join([*lines, ""])


def _safe(value: str) -> str:
    if not _SAFE.fullmatch(value):
        raise CertificateRefused(f"{value!r} cannot stand in a certificate's name")
    return value
