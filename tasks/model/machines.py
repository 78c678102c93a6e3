"""The machines of a cluster, and how the runner logs in to them."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from tasks.model.certificates import LeafOverride, Role, Strict
from tasks.model.credentials import KeyPassphrase
from tasks.model.fields import (
    Address,
    FileTemplate,
    LoginName,
    MemberName,
    Name,
    Port,
    is_ip_address,
)
from tasks.model.layout import PairFiles


class JumpHost(Strict):
    """The SSH host through which all others are reached."""

    address: Address = Field(examples=["bastion.example.org"])
    port: Port = 22
    user: LoginName | None = None


class Ssh(Strict):
    """How the runner logs in; paths are relative to the inventory file."""

    user: LoginName = Field("root", examples=["operator"])
    port: Port = Field(22, examples=[22])
    key: Path | None = Field(
        None, description="Private key; without it the SSH agent.", examples=["~/.ssh/id_ed25519"]
    )
    key_passphrase: KeyPassphrase | None = Field(
        None,
        description="Where no agent has the key and no terminal asks.",
    )
    config: Path | None = Field(
        None,
        description="A file as ~/.ssh/config is, for what is not said here; without it, none.",
        examples=["~/.ssh/config"],
    )
    known_hosts: Path = Field(
        Path("~/.ssh/known_hosts"), description="Host keys; an unknown one is refused."
    )
    jump_host: JumpHost | None = None
    connect_timeout_seconds: float = Field(10.0, gt=0, le=120, examples=[10])


class SshOverride(Strict):
    """What is different for one host."""

    user: LoginName | None = None
    port: Port | None = None
    key: Path | None = None
    key_passphrase: KeyPassphrase | None = None


class Host(Strict):
    """One machine with a member of etcd's.

    What is said here of files holds for this host alone; what is left out is as `paths` says.
    """

    name: Name = Field(examples=["master01"])
    member: MemberName | None = Field(
        None,
        description="etcd's own name for its member; without it, the host's name.",
        examples=["etcd1"],
    )
    address: Address | None = Field(
        None, description="Where SSH goes; without it, the name.", examples=["192.168.100.200"]
    )
    peer_address: Address | None = Field(
        None,
        description="What the URL that it tells its peers has, an address or a name; without it, "
        "`address`.",
        examples=["192.168.100.200"],
    )
    client_address: Address | None = Field(
        None,
        description="The same of the URL that it tells clients.",
        examples=["192.168.100.200"],
    )
    client_port: Port | None = Field(None, description="Where it is not `etcd.client_port`.")
    peer_port: Port | None = Field(None, description="Where it is not `etcd.peer_port`.")
    ssh: SshOverride = SshOverride()
    extra_sans: tuple[Address, ...] = Field((), examples=[["etcd01.example.org"]])
    pairs: dict[Role, PairFiles] = Field(
        default_factory=dict, description="Pairs that lie elsewhere than `paths.pairs` says."
    )
    data_directory: FileTemplate | None = Field(
        None, description="Etcd's data, where they do not lie as `paths` says."
    )
    wal_directory: FileTemplate | None = Field(
        None, description="Etcd's write-ahead log, where it does not lie as `paths` says."
    )
    certificates: dict[Role, LeafOverride] = Field(
        default_factory=dict, description="What of `certificates` is different on this host."
    )

    @property
    def member_name(self) -> str:
        """What etcd calls its member."""
        return self.member or self.name

    @property
    def names(self) -> frozenset[str]:
        """What an operator may call it: its name, its member's, where SSH goes."""
        return frozenset({self.name, self.member_name, self.ssh_address})

    @property
    def ssh_address(self) -> str:
        """Where SSH connects."""
        return self.address or self.name

    @property
    def fixed_address(self) -> str | None:
        """The address for etcd's URLs as far as the inventory fixes it; None is detected."""
        return self.address if self.address and is_ip_address(self.address) else None
