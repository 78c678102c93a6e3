"""Renders etcd's systemd unit and its configuration file from the inventory.

Owns which settings a member gets. Looks at no host, and refuses any value that could end its
quotes or its line and so become a setting of its own.
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Protocol
from urllib.parse import urlsplit

import jinja2

from tasks.config.compatibility import check_settings
from tasks.model.certificates import Role
from tasks.model.fields import ADDRESS_PLACE
from tasks.model.inventory import Inventory
from tasks.model.members import DesiredMember
from tasks.model.urls import has_name

MARK = "# Managed by etcd-runbooks"
"""How every file begins that is rendered here."""
TEMPLATES = Path(__file__).resolve().parents[2] / "templates"

_IN_QUOTES = re.compile(r"[^\x00-\x1f\x7f\u0085\u2028\u2029\"'\\$`]*")
_BARE = re.compile(r"[^\x00-\x1f\x7f\u0085\u2028\u2029\"'\\$`%\s;#][^\x00-\x20\x7f\"'\\$`%]*")
_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,31}")
"""What User= and Group= take in every systemd."""
_MEMBER_NAME = re.compile(r"[A-Za-z0-9._-]+")
# systemd.exec(5): what ProtectSystem=full makes read-only.
_READ_ONLY = ("/usr", "/boot", "/efi", "/etc")
_HOMES = ("/home", "/root", "/run/user")
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 - what PrivateTmp replaces


class InitialState(StrEnum):
    """What ETCD_INITIAL_CLUSTER_STATE tells a member without data.

    `new` makes a cluster together with the others; `existing` joins one that has already added
    this member.
    """

    NEW = "new"
    EXISTING = "existing"


class _Finalizer(Protocol):
    def __call__(self, value: object) -> str: ...


def _finalizer(allowed: re.Pattern[str]) -> _Finalizer:
    def finalize(value: object) -> str:
        text = str(value)
        if not allowed.fullmatch(text):
            raise ValueError(f"{text!r} could end its line or its quotes; it is not written")
        return text

    return finalize


def _templates(allowed: re.Pattern[str]) -> jinja2.Environment:
    """Make an environment in which every value is checked on its way into the text."""
    return jinja2.Environment(  # noqa: S701 - not HTML; finalize refuses what would break out
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        finalize=_finalizer(allowed),
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render_unit(inventory: Inventory, *, group: str | None = None) -> str:
    """Render the systemd unit; the group is the account's own name unless given.

    A group whose name a unit cannot have is left out: systemd takes the account's.

    A first start may take 10 minutes before systemd kills and tries again: it waits for quorum.
    Hardening that would hide a directory which etcd uses is left out. Raises ValueError for a
    value that cannot be written into a unit. Source: systemd.service(5), systemd.exec(5).
    """
    paths = inventory.paths
    layouts = [inventory.layout(host.name) for host in inventory.hosts]
    stores = tuple(path for each in layouts for path in each.data_directories)
    used = (
        paths.state,
        *stores,
        paths.certificates,
        paths.binaries,
        *(PurePosixPath(v) for v in inventory.etcd.settings.environment.values() if v[:1] == "/"),
    )
    return (
        _templates(_BARE)
        .get_template("etcd.service.j2")
        .render(
            cluster=inventory.name,
            account=inventory.etcd.run_as,
            group=_group(inventory.etcd.run_as if group is None else group),
            state=paths.state,
            configuration=paths.configuration,
            program=paths.binaries / "etcd",
            writes_below_protected=_any_below((paths.state,), _READ_ONLY),
            uses_home=_any_below(used, _HOMES),
            uses_tmp=_any_below(used, _TEMPORARY),
        )
    )


def _group(name: str) -> str | None:
    return name if _ACCOUNT.fullmatch(name) else None


def _any_below(paths: tuple[PurePosixPath, ...], roots: tuple[str, ...]) -> bool:
    return any(path.is_relative_to(root) for path in paths for root in roots)


def render_configuration(
    inventory: Inventory,
    member: DesiredMember,
    members: tuple[DesiredMember, ...],
    state: InitialState,
) -> str:
    """Render one member's etcd.conf, a systemd EnvironmentFile.

    `members` is the initial cluster in the order given, `member` among it. Times in milliseconds,
    sizes in bytes. Raises InvalidInventory for a setting that the wanted version refuses or
    ignores, and ValueError for a value that cannot be written or members that do not fit.
    Source: etcd.io/docs, "Configuration options".
    """
    check_settings(inventory)
    _check_members(member, members)
    layout = inventory.layout(member.name)
    return (
        _templates(_IN_QUOTES)
        .get_template("etcd.conf.j2")
        .render(
            name=member.member,
            data=layout.data,
            wal=layout.wal,
            listen_peer_url=_listen_url(member.peer_url),
            listen_client_url=_listen_url(member.client_url),
            peer_url=member.peer_url,
            client_url=member.client_url,
            initial_cluster=",".join(f"{each.member}={each.peer_url}" for each in members),
            initial_state=state.value,
            token=inventory.etcd.cluster_token,
            server=layout.pair(Role.SERVER),
            peer=layout.pair(Role.PEER),
            trusted=layout.trusted,
            peer_trusted=layout.peer_trusted,
            settings=inventory.etcd.settings,
            metrics_urls=_metrics_urls(inventory, member),
            needs_logger=inventory.etcd.version_tuple < (3, 5),
        )
    )


def _metrics_urls(inventory: Inventory, member: DesiredMember) -> str:
    address = urlsplit(member.client_url).netloc.rpartition(":")[0]
    if has_name(member.client_url):  # which nothing can listen on
        address = inventory.layout(member.name).address or address
    urls = inventory.etcd.settings.listen_metrics_urls
    return ",".join(url.replace(ADDRESS_PLACE, address) for url in urls)


def _check_members(member: DesiredMember, members: tuple[DesiredMember, ...]) -> None:
    if member not in members:
        raise ValueError(f"{member.name} is not among the members of its own initial cluster")
    for field in ("name", "member", "peer_url", "client_url"):
        values = [getattr(each, field) for each in members]
        if len(set(values)) < len(values):
            raise ValueError(f"two members have the same {field}: {', '.join(values)}")
    for each in members:
        # A comma or an equals sign would make two members of one in ETCD_INITIAL_CLUSTER.
        if not _MEMBER_NAME.fullmatch(each.member):
            raise ValueError(f"{each.member!r} is not a member's name")
        for url in (each.peer_url, each.client_url):
            _listen_url(url)


def _listen_url(url: str) -> str:
    """Make the URL on which all addresses of the advertised one's family are heard."""
    parts = urlsplit(url)
    is_plain = not parts.path and "," not in url and "@" not in url
    if parts.scheme != "https" or not parts.hostname or not is_plain or not parts.port:
        raise ValueError(f"{url!r} is not https://ADDRESS:PORT")
    host = "[::]" if ":" in parts.hostname else "0.0.0.0"  # noqa: S104 - TLS clients only
    return f"https://{host}:{parts.port}"
