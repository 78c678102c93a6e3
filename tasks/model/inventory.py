"""The inventory: one file a cluster, the state that the operator wants.

Owns the file as a whole; its parts are in the modules beside this one, with their rules and their
defaults (the procedures' own). Reading the file is in `inventory_file`; nothing here looks at a
host.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any, Self

from pydantic import Field, model_validator

from tasks.model.certificates import (
    KUBEADM_POLICY,
    CertificatePolicy,
    LeafPolicy,
    Role,
    Strict,
    check_usages,
)
from tasks.model.clients import Client, KubeApiserver, LoadBalancer
from tasks.model.credentials import EtcdUser, Passphrase
from tasks.model.errors import Refused
from tasks.model.fields import Address, Name, fill, is_same_host
from tasks.model.layout import MANIFEST, Layout, Pair, PairFiles, Paths, group_pairs
from tasks.model.machines import Host, Ssh
from tasks.model.retention import Retention
from tasks.model.settings import Etcd
from tasks.model.snapshots import SnapshotRules

KUBEADM = PurePosixPath("/etc/kubernetes/pki")
"""kubeadm's cmd/kubeadm/app/constants: CertificatesDir."""
KUBEADM_NAMES = {
    "server": "etcd-server",
    "peer": "etcd-peer",
    "client": "etcd-healthcheck-client",
}
"""What `kubeadm certs` calls the pairs of these roles."""
KUBEADM_AUTHORITY, KUBEADM_CLIENT = "etcd-ca", "apiserver-etcd-client"
NOT_OF_STACKED = ("certificates", "configuration", "unit", "binaries")
"""Paths that an external member has and a stacked one has not."""

_LABELS = {"ssh_address": "address", "member_name": "member"}


class Topology(StrEnum):
    """Where etcd's members run."""

    EXTERNAL = "external"
    STACKED = "stacked"


class Approval(StrEnum):
    """Whether a plan that changes something waits for a person, and not for who asked for it."""

    NONE = "none"
    REQUIRED = "required"
    SECOND_PERSON = "second_person"


class Expiry(Strict):
    """When an end is near: so many days before it, yet never more than a share of the life.

    The share keeps a certificate that lives for a week from being told on its first day.
    """

    warning_days: int = Field(90, ge=1, examples=[90])
    critical_days: int = Field(30, ge=1, examples=[30])
    warning_share: float = Field(1 / 3, gt=0, le=1, examples=[0.33])
    critical_share: float = Field(1 / 6, gt=0, le=1, examples=[0.16])

    @model_validator(mode="after")
    def _critical_is_later(self) -> Self:
        if self.critical_days > self.warning_days or self.critical_share > self.warning_share:
            msg = "critical_days and critical_share must not be more than the warning's"
            raise ValueError(msg)
        return self

    def warn_before(self, life: timedelta) -> timedelta:
        """How long before the end of a certificate with this life it is due for renewal."""
        return min(timedelta(days=self.warning_days), life * self.warning_share)

    def alarm_before(self, life: timedelta) -> timedelta:
        """How long before the end it is critical."""
        return min(timedelta(days=self.critical_days), life * self.critical_share)


class Authority(Strict):
    """The certificate authority's files on the runner; made when both are missing.

    A stacked cluster's key lies where kubeadm put it, on its hosts (`on_hosts`), unless the
    inventory has a key: then the certificate here, if there is one, is what the runner goes by.
    """

    certificate: Path = Field(examples=["lab3-authority/ca.pem"])
    key: Path = Field(
        description="Encrypted PKCS #8; never on the hosts.", examples=["lab3-authority/ca-key.pem"]
    )
    passphrase: Passphrase
    on_hosts: bool = Field(False, description="Set where a stacked cluster names no key here.")


class Inventory(Strict):
    """One cluster as the operator wants it."""

    name: Name = Field(examples=["lab3"])
    topology: Topology = Topology.EXTERNAL
    hosts: tuple[Host, ...] = Field(min_length=1, examples=[[{"name": "master01"}]])
    even_members: bool = Field(
        False, description="Allow an even number of members, which tolerates no more failures."
    )
    restarts_kubelet: bool = Field(
        True,
        description="Of a stacked cluster: whether a run may restart a node's kubelet before it "
        "restarts etcd or an API server; no container ends with it. Else the kubelet's back-off is "
        "waited for, which grows with each restart.",
    )
    ssh: Ssh = Ssh()
    etcd: Etcd
    paths: Paths = Paths()
    certificates: CertificatePolicy = CertificatePolicy()
    cfssl_directory: Path | None = Field(
        None, description="cfssl's ca-config.json and *-csr.json, laid over `certificates`."
    )
    authority: Authority
    login: EtcdUser | None = Field(
        None, description="As whom etcd is asked where its authentication (RBAC) is on."
    )
    extra_sans: tuple[Address, ...] = Field((), examples=[["etcd.example.org"]])
    clients: tuple[Client, ...] = Field((), description="Certificates outside etcd.")
    kube_apiservers: tuple[KubeApiserver, ...] = Field(
        (), description="Whose --etcd-servers follow the members."
    )
    load_balancers: tuple[LoadBalancer, ...] = Field((), description="Whose servers follow them.")
    expiry: Expiry = Expiry()
    snapshots: SnapshotRules = SnapshotRules()
    retention: Retention = Retention()
    approval: Approval = Field(
        Approval.NONE, description="Whether runs that change something wait for a person."
    )

    @model_validator(mode="before")
    @classmethod
    def _is_preset(cls, content: Any) -> Any:  # noqa: ANN401 - what the file holds
        """Fill in what kubeadm decides, so that a stacked cluster's operator is not asked."""
        if not isinstance(content, dict) or content.get("topology") != Topology.STACKED:
            return content
        etcd, authority = content.get("etcd"), content.get("authority", {})
        if isinstance(etcd, dict):
            content = content | {"etcd": {"run_as": "root"} | etcd}
        if isinstance(authority, dict) and "key" not in authority:
            directory = f"{content.get('name')}-authority"
            preset = {
                "certificate": f"{directory}/ca.pem",
                "key": f"{directory}/ca-key.pem",
                "passphrase": {"env": "ETCD_CA_PASSPHRASE"},
            }
            content = content | {"authority": preset | authority | {"on_hosts": True}}
        return content

    @model_validator(mode="after")
    def _is_asked_no_more_than_needed(self) -> Self:
        if self.topology is Topology.EXTERNAL:
            unfit = ["paths.manifest"] if self.paths.manifest != MANIFEST else []
            unfit += ["authority.on_hosts"] if self.authority.on_hosts else []
            unfit += [] if self.restarts_kubelet else ["restarts_kubelet"]
        else:
            unfit = [f"paths.{n}" for n in NOT_OF_STACKED if n in self.paths.model_fields_set]
            unfit += ["certificates"] if self.certificates != CertificatePolicy() else []
        if unfit:
            msg = f"{unfit[0]}: {self.topology} clusters have no such thing; take it out"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _others_fit(self) -> Self:
        hosts = {host.name for host in self.hosts}
        names = set(hosts)
        for field, others in (
            ("clients", self.clients),
            ("kube_apiservers", self.kube_apiservers),
            ("load_balancers", self.load_balancers),
        ):
            for other in others:
                if other.name in names:
                    kind = "client or host" if field == "clients" else "machine"
                    msg = f"{field}: {other.name} is the name of another {kind}"
                    raise ValueError(msg)
                names.add(other.name)
                if other.host is not None and other.host not in hosts:
                    where = f"is on the host {other.host}, which is not in hosts"
                    msg = f"{field}: {other.name} {where}"
                    raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        for host in self.hosts:
            layout = self.layout(host.name)
            if layout.client_port == layout.peer_port:
                both = f"port {layout.peer_port} is its clients' port and its peers'"
                msg = f"hosts: {host.name}: {both}; each needs its own"
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _hosts_policies_fit(self) -> Self:
        for host in self.hosts:
            for role in host.certificates:
                try:
                    check_usages(role, self.leaf_policy(host.name, role))
                except ValueError as error:
                    msg = f"hosts: {host.name}: {error}"
                    raise ValueError(msg) from error
        return self

    @property
    def dependents(self) -> tuple[KubeApiserver | LoadBalancer, ...]:
        """All that list the members."""
        return (*self.kube_apiservers, *self.load_balancers)

    @model_validator(mode="after")
    def _hosts_differ(self) -> Self:
        for field in ("name", "member_name", "ssh_address", "peer_address", "client_address"):
            seen: dict[str, str] = {}
            for host in self.hosts:
                value = getattr(host, field)
                if value is None:
                    continue
                if value in seen:
                    label = _LABELS.get(field, field)
                    msg = (
                        f"hosts: two hosts have the {label} {value} "
                        f"({seen[value]} and {host.name}); each needs its own"
                    )
                    raise ValueError(msg)
                seen[value] = host.name
        return self

    def host(self, name: str) -> Host:
        """Get one host by its name; raises KeyError."""
        return {host.name: host for host in self.hosts}[name]

    def called(self, word: str) -> Host | None:
        """Find the host that an operator calls so, by its name, its member's or its address.

        Where nobody is called so to the letter, case and domain do not matter. Raises Refused where
        the word is one host's name and another one's member's.
        """
        found = [host for host in self.hosts if word in host.names]
        if not found:
            found = [h for h in self.hosts if any(is_same_host(word, name) for name in h.names)]
        if len(found) > 1:
            told = "; ".join(f"{h.name} with the member {h.member_name}" for h in found)
            raise Refused(f"{word} may be meant of several hosts: {told}; say the member's id")
        return found[0] if found else None

    @property
    def has_pods(self) -> bool:
        """Whether a member is a static pod, of kubeadm's or as kubeadm makes them."""
        return any(self.layout(host.name).is_pod for host in self.hosts)

    def layout(self, name: str) -> Layout:
        """Say how a host's member runs; one that the inventory lacks runs as `paths` says."""
        host = next(
            (host for host in self.hosts if host.name == name), Host.model_construct(name=name)
        )
        paths = self.paths
        own = host.member_name

        def filled(template: str | None) -> PurePosixPath | None:
            return PurePosixPath(fill(template, name, own)) if template else None

        pairs = group_pairs(
            {role: host.pairs.get(role) or self.pair_files(role) for role in Role}, name, own
        )
        is_pod = self.topology is Topology.STACKED
        data, state = filled(host.data_directory), paths.state
        if data is not None:
            state = data.parent if data.name == "default.etcd" else data
        authority = None
        if is_pod:
            pairs = tuple(replace(p, label=KUBEADM_NAMES.get(p.label, p.label)) for p in pairs)
            client = KUBEADM / KUBEADM_CLIENT
            pairs += (_kubeadm_pair(client.name, (Role.CLIENT,), client),)
            authority = _kubeadm_pair(KUBEADM_AUTHORITY, (), self.trusted.with_suffix(""))
        return Layout(
            host=name,
            member=own,
            pairs=pairs,
            trusted=self.trusted,
            peer_trusted=paths.peer_trusted or self.trusted,
            configuration=paths.configuration,
            state=state,
            data=data
            or filled(paths.data_directory)
            or (paths.state if is_pod else paths.state / "default.etcd"),
            wal=filled(host.wal_directory or paths.wal_directory),
            unit=paths.unit,
            binaries=paths.binaries,
            peer_address=host.peer_address or host.fixed_address,
            client_address=host.client_address or host.fixed_address,
            peer_port=host.peer_port or self.etcd.peer_port,
            client_port=host.client_port or self.etcd.client_port,
            manifest=paths.manifest if is_pod else None,
            authority=authority,
            restarts_kubelet=self.restarts_kubelet,
            address=host.fixed_address,
        )

    def leaf_policy(self, name: str, role: Role) -> LeafPolicy:
        """Say how a host's certificates of one role are made."""
        policy = self.certificates.leaf(role)
        if self.topology is Topology.STACKED:
            policy = KUBEADM_POLICY.leaf(role)
        own = next((host.certificates.get(role) for host in self.hosts if host.name == name), None)
        return own.laid_over(policy) if own else policy

    def accounts(self, name: str) -> tuple[str, ...]:
        """List the accounts that a host needs: etcd's own, and whose its certificates are."""
        found = [self.etcd.run_as]
        for pair in self.layout(name).pairs:
            access = self.leaf_policy(name, pair.roles[0]).access
            found += [a for a in (access.owner, access.group) if a] if access else []
        return tuple(a for a in dict.fromkeys(found) if a != "root")

    def pair_files(self, role: Role) -> PairFiles:
        """Get the files of one role, as they are on every host that says nothing else."""
        return self.paths.pairs.get(role) or self._default_pair(role)

    def _default_pair(self, role: Role) -> PairFiles:
        if self.topology is Topology.STACKED:
            stem = {
                Role.SERVER: KUBEADM / "etcd/server",
                Role.PEER: KUBEADM / "etcd/peer",
                Role.CLIENT: KUBEADM / "etcd/healthcheck-client",
            }[role]
            return PairFiles(certificate=f"{stem}.crt", key=f"{stem}.key")
        directory = self.paths.certificates
        return PairFiles(
            certificate=f"{directory / role.certificate_file}", key=f"{directory / role.key_file}"
        )

    @property
    def trusted(self) -> PurePosixPath:
        """The file of the authorities that the members trust."""
        if self.topology is Topology.STACKED and self.paths.trusted is None:
            return KUBEADM / "etcd/ca.crt"
        return self.paths.authority


def _kubeadm_pair(label: str, roles: tuple[Role, ...], stem: PurePosixPath) -> Pair:
    return Pair(label, roles, stem.with_suffix(".crt"), stem.with_suffix(".key"))
