"""The TLS context of the run's own client certificate, made without touching a disk.

Owns how key material reaches OpenSSL. Issues nothing and connects to nothing.
"""

from __future__ import annotations

import os
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tasks.model.errors import CertificateRefused

if TYPE_CHECKING:
    from collections.abc import Iterator


def client_context(ca_pem: bytes, certificate_pem: bytes, key_pem: bytes) -> ssl.SSLContext:
    """Make the context that trusts `ca_pem` alone and presents the certificate; TLS 1.2 or newer.

    `ca_pem` may be a bundle, and `certificate_pem` a chain with the leaf first. The key must not
    be encrypted. Raises CertificateRefused when they are not PEM, do not fit each other, or are
    larger than a pipe holds (64 KiB on Linux).
    """
    # Not create_default_context: from Python 3.13 that one also sets VERIFY_X509_STRICT, which
    # refuses authorities that etcd itself accepts.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=ca_pem.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise CertificateRefused(f"the authority's certificate cannot be read: {error}") from error
    # load_cert_chain takes only paths, and a key in a file can outlive the run: a pipe cannot.
    with _as_path(certificate_pem) as certificate, _as_path(key_pem) as key:
        try:
            # A password is given so that OpenSSL never asks the terminal for one.
            context.load_cert_chain(certificate, key, password="")
        except OSError as error:  # ssl.SSLError, or a bare OSError when the key is no PEM
            raise CertificateRefused(
                "the run's client certificate and its key cannot be used together; both must be "
                f"PEM, the key not encrypted and the certificate's own: {error}"
            ) from error
    return context


@contextmanager
def _as_path(content: bytes) -> Iterator[str]:
    """Put bytes into a pipe and lend the path that reads them once."""
    reading, writing = os.pipe()
    try:
        try:
            os.set_blocking(writing, False)  # A full pipe would wait for a reader for ever.
            written = os.write(writing, content)
        finally:
            os.close(writing)
        if written < len(content):
            raise CertificateRefused(
                f"the client's certificate or key has {len(content)} bytes, of which a pipe "
                f"takes {written}: give the leaf and its intermediates only"
            )
        yield f"/dev/fd/{reading}"
    finally:
        os.close(reading)
