"""What was seen of an etcd that somebody else has set up, as its own process tells it."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.model.cluster import Member


@dataclass(frozen=True, slots=True)
class FoundEtcd:
    """Etcd on one host: `settings` are flags and variables alike, by their ETCD_ names.

    They are the process's, made of its `arguments` and `variables`; where etcd does not run, those
    of its unit's files. `unknown` says what could not be understood of these, `skipped` what etcd
    or systemd passes over in them, `others` which further etcds run on the host.
    `environment_file` is the first that sets something of etcd's. `keys_of_authority` are private
    keys that lie beside the trusted file. `members` is what the member told, None where it could
    not be asked.
    """

    host: str
    unit_path: str
    environment_file: str | None
    account: str
    program: str
    version: str | None
    is_running: bool
    settings: dict[str, str]
    trusted_text: str | None = None
    keys_of_authority: tuple[str, ...] = ()
    files_beside: tuple[str, ...] = ()
    members: tuple[Member, ...] | None = None
    told: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The member's name, or the host's where it has none."""
        return self.setting("NAME") or self.host

    def setting(self, name: str, otherwise: str = "") -> str:
        """Get one setting by etcd's name without the prefix, or what etcd takes without it."""
        return self.settings.get(f"ETCD_{name}", otherwise)
