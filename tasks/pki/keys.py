"""Private keys in memory, and what a public key is called.

Owns the kinds of key that may be used at all: RSA, ECDSA on NIST's curves and Ed25519, as KeySpec
has them. Any other key is named, so that a refusal can say what it is.
"""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from pydantic import ValidationError

from tasks.model.certificates import KeySpec

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

_CURVES: dict[int, ec.EllipticCurve] = {
    256: ec.SECP256R1(),
    384: ec.SECP384R1(),
    521: ec.SECP521R1(),
}


def make_key(spec: KeySpec) -> PrivateKey:
    """Make a private key."""
    if spec.algo == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=spec.size)
    if spec.algo == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(_CURVES[spec.size])


def make_like(key: PrivateKey) -> PrivateKey:
    """Make a private key of another's kind and size."""
    if isinstance(key, rsa.RSAPrivateKey):
        return rsa.generate_private_key(public_exponent=65537, key_size=key.key_size)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return ec.generate_private_key(key.curve)
    return ed25519.Ed25519PrivateKey.generate()


def key_name(key: PublicKeyTypes) -> str:
    """Tell a public key's kind as KeySpec writes it ("ECDSA 256"); others by their own name.

    A curve that is not NIST's is told by its name: secp256k1 has 256 bits too.
    """
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        known = _CURVES.get(key.curve.key_size)
        if known is not None and known.name == key.curve.name:
            return f"ECDSA {key.curve.key_size}"
        return f"ECDSA on {key.curve.name}"
    return type(key).__name__.removesuffix("PublicKey")


def read_key_spec(name: str) -> KeySpec | None:
    """Read what `key_name` says; None for a kind that is not made here."""
    algorithm, _, size = name.partition(" ")
    try:
        return KeySpec.model_validate({"algo": algorithm.lower(), "size": size or 256})
    except ValidationError:
        return None


def signature_hash(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None:
    """Choose the hash that a key signs with, as strong as the key; Ed25519 has its own.

    Source: cfssl's signer.DefaultSigAlgo.
    """
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return None
    is_rsa = isinstance(key, rsa.RSAPrivateKey)
    if key.key_size >= (4096 if is_rsa else 521):
        return hashes.SHA512()
    if key.key_size >= (3072 if is_rsa else 384):
        return hashes.SHA384()
    return hashes.SHA256()


def private_pem(key: PrivateKey, passphrase: bytes | None = None) -> bytes:
    """Write a private key as PKCS #8 PEM, encrypted where there is a passphrase."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


def public_pem(key: PublicKeyTypes) -> bytes:
    """Write a public key as SubjectPublicKeyInfo PEM, as `openssl pkey -pubout` does."""
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
