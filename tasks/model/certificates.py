"""What certificates shall look like: roles, keys, subjects, usages and validity.

Owns the policy and the reading of cfssl's JSON files into it. Makes no key and signs nothing.
"""

from __future__ import annotations

import json
import re
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from tasks.model.fields import Account

if TYPE_CHECKING:
    from pathlib import Path

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def parse_duration(text: object) -> object:
    """Turn Go's duration ("43800h", "1h30m") into a timedelta, which passes unchanged itself.

    Raises ValueError for what is none (a bare number has no unit), is zero or has no end.
    """
    if isinstance(text, timedelta):
        return text
    found = _DURATION.fullmatch(str(text))
    hours, minutes, seconds = (int(part or 0) for part in (found.groups() if found else (0, 0, 0)))
    try:
        length = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError as error:
        msg = f"{text!r} is longer than a certificate can last"
        raise ValueError(msg) from error
    if not length:
        msg = f"{text!r} is not a duration in hours, minutes and seconds, such as 43800h or 1h30m"
        raise ValueError(msg)
    return length


def format_duration(length: timedelta) -> str:
    """Write a duration as Go does, in whole hours where it can be."""
    seconds = int(length.total_seconds())
    return f"{seconds // 3600}h" if seconds % 3600 == 0 else f"{seconds}s"


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration),
    WithJsonSchema({"type": "string", "pattern": r"^(\d+h)?(\d+m)?(\d+s)?$"}),
]


Mode = Annotated[str, Field(pattern=r"^0[0-7]{3}$", examples=["0640"])]
"""Of a file, in octal."""


class Strict(BaseModel):
    """A model that refuses fields it does not know and cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Role(StrEnum):
    """What a leaf certificate is for; the value is its file's stem, as in the procedures."""

    SERVER = "server"
    PEER = "peer"
    CLIENT = "client"

    @property
    def certificate_file(self) -> str:
        """The certificate's file name under the certificates directory."""
        return f"{self.value}.pem"

    @property
    def key_file(self) -> str:
        """The private key's file name under the certificates directory."""
        return f"{self.value}-key.pem"

    @property
    def is_for_members(self) -> bool:
        """Whether etcd itself presents it, so that it names the host."""
        return self is not Role.CLIENT

    @property
    def needed_usages(self) -> tuple[Usage, ...]:
        """The usages without which etcd does not work."""
        return (
            (Usage.SERVER_AUTH, Usage.CLIENT_AUTH) if self.is_for_members else (Usage.CLIENT_AUTH,)
        )


class Generation(StrEnum):
    """Which authority: the one that signs, one that shall, or one that did until now."""

    CURRENT = "current"
    NEXT = "next"
    PREVIOUS = "previous"


class Usage(StrEnum):
    """A key usage, by cfssl's names."""

    SIGNING = "signing"
    DIGITAL_SIGNATURE = "digital signature"
    CONTENT_COMMITMENT = "content commitment"
    KEY_ENCIPHERMENT = "key encipherment"
    KEY_AGREEMENT = "key agreement"
    DATA_ENCIPHERMENT = "data encipherment"
    SERVER_AUTH = "server auth"
    CLIENT_AUTH = "client auth"


class KeySpec(Strict):
    """A private key's algorithm and its size in bits; Ed25519 has one size."""

    algo: Literal["rsa", "ecdsa", "ed25519"] = "ecdsa"
    size: int = 256

    @model_validator(mode="after")
    def _size_fits(self) -> Self:
        sizes = {
            "rsa": (2048, 3072, 4096, 8192),
            "ecdsa": (256, 384, 521),
            "ed25519": (256,),
        }[self.algo]
        if self.size not in sizes:
            msg = f"{self.algo} keys have {', '.join(map(str, sizes))} bits, not {self.size}"
            raise ValueError(msg)
        return self

    def __str__(self) -> str:
        return "Ed25519" if self.algo == "ed25519" else f"{self.algo.upper()} {self.size}"


class SubjectName(Strict):
    """One entry of cfssl's `names`: parts of the distinguished name beside the common name."""

    C: str | None = Field(None, max_length=2, description="Country, two letters.")
    ST: str | None = Field(None, description="State or province.")
    L: str | None = Field(None, description="Locality.")
    O: str | None = Field(None, description="Organization.")  # noqa: E741 - X.520's own letter
    OU: str | None = Field(None, description="Organizational unit.")


class AuthorityPolicy(Strict):
    """How a new authority's certificate is made."""

    common_name: str = Field("etcd", min_length=1)
    names: tuple[SubjectName, ...] = ()
    key: KeySpec = KeySpec(algo="rsa", size=2048)
    validity: Duration = Field(timedelta(hours=43800), examples=["43800h"])


class FileAccess(Strict):
    """Whose a pair's files are, and who may read them; without owner and group, etcd's account."""

    owner: Account | None = Field(None, examples=["root"])
    group: Account | None = Field(None, examples=["etcd"])
    certificate_mode: Mode = "0644"
    key_mode: Mode = "0600"


class LeafPolicy(Strict):
    """How one role's certificates are made; without a common name it is the host's name.

    In texts "{host}" and "{member}" stand for the host's name and its member's.
    """

    common_name: str | None = Field(None, min_length=1, examples=["etcd-member-{host}"])
    names: tuple[SubjectName, ...] = ()
    key: KeySpec = KeySpec(algo="ecdsa", size=256)
    validity: Duration = Field(timedelta(hours=43800), examples=["43800h"])
    usages: tuple[Usage, ...] = (
        Usage.SIGNING,
        Usage.KEY_ENCIPHERMENT,
        Usage.SERVER_AUTH,
        Usage.CLIENT_AUTH,
    )
    own_names: tuple[str, ...] = Field(
        ("{host}", "{address}", "127.0.0.1", "localhost"),
        description="What a server's and a peer's certificate names beside the addresses of the "
        "member's URLs; {address} is where SSH goes. What cannot stand there is left out.",
    )
    hosts: tuple[str, ...] = Field((), description="Further subject alternative names.")
    access: FileAccess | None = Field(
        None, description="Whose the files are; without it etcd's, a client's pair root's."
    )


class LeafOverride(Strict):
    """What is different for one role's pair on one host; what is left out is the cluster's."""

    common_name: str | None = Field(None, min_length=1)
    names: tuple[SubjectName, ...] | None = None
    key: KeySpec | None = None
    validity: Duration | None = None
    usages: tuple[Usage, ...] | None = None
    own_names: tuple[str, ...] | None = None
    hosts: tuple[str, ...] | None = None
    access: FileAccess | None = None

    def laid_over(self, policy: LeafPolicy) -> LeafPolicy:
        """Take from a policy what is not different."""
        own = {name: getattr(self, name) for name in self.model_fields_set}
        return policy.model_copy(update={k: v for k, v in own.items() if v is not None})


def check_usages(role: Role, policy: LeafPolicy) -> None:
    """Raise ValueError for a policy without the usages that etcd needs in this role.

    Peers are clients of each other, and the gateway dials etcd with the server's certificate:
    without client auth every /v3 call answers 503 while /health is fine.
    """
    if missing := [u for u in role.needed_usages if u not in policy.usages]:
        plural = "s" if len(role.needed_usages) > 1 else ""
        needed = " and ".join(f"'{usage}'" for usage in role.needed_usages)
        msg = f"{role} certificates need the usage{plural} {needed}; {missing[0]!r} is missing"
        raise ValueError(msg)


class CertificatePolicy(Strict):
    """What every certificate of a cluster shall be; the defaults are the procedures' own."""

    authority: AuthorityPolicy = AuthorityPolicy()
    server: LeafPolicy = LeafPolicy()
    peer: LeafPolicy = LeafPolicy()
    client: LeafPolicy = LeafPolicy(
        common_name="client",
        usages=(Usage.SIGNING, Usage.KEY_ENCIPHERMENT, Usage.CLIENT_AUTH),
    )

    @model_validator(mode="after")
    def _members_authenticate_both_ways(self) -> Self:
        for role in Role:
            check_usages(role, self.leaf(role))
        return self

    def leaf(self, role: Role) -> LeafPolicy:
        """Get the policy of one role's certificates."""
        return {Role.SERVER: self.server, Role.PEER: self.peer, Role.CLIENT: self.client}[role]


def _kubeadm_leaf(common_name: str, *authentication: Usage) -> LeafPolicy:
    return LeafPolicy(
        common_name=common_name,
        key=KeySpec(algo="rsa", size=2048),
        validity=timedelta(hours=8760),
        usages=(Usage.DIGITAL_SIGNATURE, Usage.KEY_ENCIPHERMENT, *authentication),
        own_names=("{member}", "localhost", "127.0.0.1", "::1"),
    )


KUBEADM_POLICY = CertificatePolicy(
    server=_kubeadm_leaf("{member}", Usage.SERVER_AUTH, Usage.CLIENT_AUTH),
    peer=_kubeadm_leaf("{member}", Usage.SERVER_AUTH, Usage.CLIENT_AUTH),
    client=_kubeadm_leaf("kube-etcd-healthcheck-client", Usage.CLIENT_AUTH),
)
"""What kubeadm's certificates have at least; a ClusterConfiguration may ask for other keys."""


def read_cfssl_policy(directory: Path, base: CertificatePolicy) -> CertificatePolicy:
    """Lay cfssl's files in `directory` over a policy.

    Read where they exist: ca-config.json (profiles server, peer, client), ca-csr.json, and for
    each role <role>.json or <role>-csr.json. Raises ValueError that names the file when one
    cannot be used as it is, or when there is none at all.
    Source: cfssl's doc/cmd/cfssl.txt, signer and csr packages.
    """
    config = _read_json(directory / "ca-config.json")
    signing = (config or {}).get("signing", {})
    updates: dict[str, dict[str, Any]] = {}
    authority = _read_json(directory / "ca-csr.json")
    if authority is not None:
        updates["authority"] = _request_fields(authority)
        if "expiry" in authority.get("ca", {}):
            updates["authority"]["validity"] = authority["ca"]["expiry"]
    for role in Role:
        profile = signing.get("profiles", {}).get(role.value) or signing.get("default", {})
        request = _read_json(directory / f"{role}.json", directory / f"{role}-csr.json")
        fields = _request_fields(request) if request is not None else {}
        if "expiry" in profile:
            fields["validity"] = profile["expiry"]
        if "usages" in profile:
            fields["usages"] = profile["usages"]
        if request is not None and request.get("hosts"):
            fields["hosts"] = request["hosts"]
        updates[role.value] = fields
    if config is None and authority is None and not any(updates.values()):
        msg = f"{directory} has no ca-config.json, ca-csr.json or <role>-csr.json"
        raise ValueError(msg)
    merged = {
        part: base.model_dump()[part] | updates.get(part, {})
        for part in CertificatePolicy.model_fields
    }
    return CertificatePolicy.model_validate(merged)


def _request_fields(request: dict[str, Any]) -> dict[str, Any]:
    names = {"CN": "common_name", "key": "key", "names": "names"}
    return {ours: request[theirs] for theirs, ours in names.items() if theirs in request}


def _read_json(*candidates: Path) -> dict[str, Any] | None:
    for path in candidates:
        if path.is_file():
            try:
                found = json.loads(path.read_text())
            except ValueError as error:
                msg = f"{path} is not JSON: {error}"
                raise ValueError(msg) from error
            if not isinstance(found, dict):
                msg = f"{path} is not a JSON object"
                raise ValueError(msg)
            return found
    return None
