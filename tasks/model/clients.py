"""What uses a cluster from outside etcd: who has a certificate, and who lists the members."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Self

from pydantic import Field, model_validator

from tasks.model.certificates import Strict
from tasks.model.fields import Account, Address, HostPath, Name
from tasks.model.machines import SshOverride
from tasks.model.pods import APISERVER, PodFile


class Client(Strict):
    """A certificate of the cluster's outside etcd: a kube-apiserver's, a CNI's, a worker's.

    It is renewed as it is: its subject, names, usages, kind of key, life, owner and modes are
    kept, but for what is said here. With `managed: false` the operator renews it and installs what
    it trusts; runbooks only say when, and look at it where `certificate` is given.
    """

    name: Name = Field(examples=["worker01-calico"])
    host: Name | None = Field(None, description="The member's host that it is on.")
    address: Address | None = Field(None, description="Where SSH goes, on another machine.")
    ssh: SshOverride = SshOverride()
    certificate: HostPath | None = Field(None, examples=["/etc/calico/certs/cert.crt"])
    key: HostPath | None = Field(None, examples=["/etc/calico/certs/key.pem"])
    trusted: HostPath | None = Field(
        None, description="The authorities that it trusts.", examples=["/etc/calico/certs/ca.pem"]
    )
    common_name: str | None = Field(None, min_length=1, examples=["kube-apiserver-etcd-client"])
    owner: Account = "root"
    group: Account = "root"
    after_change: str | None = Field(
        None,
        description="Shell, as root, that makes it read its files again.",
        examples=["systemctl restart kube-apiserver"],
    )
    managed: bool = True

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        if self.certificate is None and self.managed:
            msg = f"client {self.name} has no certificate; name its file, or set managed: false"
            raise ValueError(msg)
        if self.managed and (self.key is None or self.trusted is None):
            msg = f"client {self.name} lacks key or trusted; name the files, or set managed: false"
            raise ValueError(msg)
        if self.certificate is not None and (self.host is None) == (self.address is None):
            msg = f"client {self.name} needs either host (a member's) or address"
            raise ValueError(msg)
        return self


class Dependent(Strict):
    """A machine that lists the members: on a member's host, or at an address of its own."""

    name: Name = Field(examples=["controlplane01"])
    host: Name | None = Field(None, description="The member's host that it is on.")
    address: Address | None = Field(None, description="Where SSH goes, on another machine.")
    ssh: SshOverride = SshOverride()

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if (self.host is None) == (self.address is None):
            msg = f"{self.name} needs either host (a member's) or address"
            raise ValueError(msg)
        return self


class KubeApiserver(Dependent):
    """A kube-apiserver as a static pod; --etcd-servers in its manifest follows the members."""

    manifest: HostPath = PurePosixPath("/etc/kubernetes/manifests/kube-apiserver.yaml")
    livez: str = Field(
        "https://127.0.0.1:6443/livez",
        pattern=r"^https?://[\w.:\[\]-]+/[\w/?=&-]*$",
        description="Asked on that machine after the change.",
    )

    @property
    def pod(self) -> PodFile:
        """Its manifest, and where that lies while it is taken out."""
        return PodFile(self.manifest, APISERVER)


class Haproxy(Strict):
    """A HAProxy with a section of servers for etcd's clients."""

    configuration: HostPath = PurePosixPath("/etc/haproxy/haproxy.cfg")
    backend: str = Field(
        pattern=r"^[\w.:-]+$", description="The backend or listen section.", examples=["etcd"]
    )
    service: str = Field("haproxy.service", pattern=r"^[\w.@-]+$")


class LoadBalancer(Dependent):
    """A load balancer before the members: HAProxy, or another one behind a hook."""

    haproxy: Haproxy | None = None
    hook: str | None = Field(
        None,
        description="Shell, as root there, with ETCD_ENDPOINTS; may be run twice.",
        examples=["/usr/local/sbin/etcd-endpoints"],
    )

    @model_validator(mode="after")
    def _has_one_way(self) -> Self:
        if (self.haproxy is None) == (self.hook is None):
            msg = f"{self.name} needs either haproxy or hook"
            raise ValueError(msg)
        return self
