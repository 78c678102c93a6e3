"""Where a unit lets etcd see and write nothing: directories that links lead into. Pure.

systemd.exec(5): ProtectHome, ProtectSystem, PrivateTmp, ReadWritePaths. A place that the inventory
names itself is let through by the unit as it is rendered; where links lead the host alone knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from tasks.model.layout import Layout
from tasks.model.observation import HostObservation, HostTarget, Room
from tasks.model.plan import Finding, Severity

_HOMES = ("/home", "/root", "/run/user")
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 - what PrivateTmp hides
_SYSTEM = ("/usr", "/boot", "/efi")
_DIRECTIVE = re.compile(
    r"^\s*(ProtectHome|ProtectSystem|PrivateTmp|ReadWritePaths)\s*=\s*(.*?)\s*$"
)
_YES = ("yes", "true", "on", "1")


def hidden_findings(host: HostObservation, layout: Layout, target: HostTarget) -> Iterator[Finding]:
    """Refuse links into what the unit that the host shall have hides from etcd, or makes read-only.

    Without it etcd would die at its first start, with nothing but "permission denied".
    """
    likeness = target.likeness
    texts = [file.text for file in likeness.files] if likeness else [target.unit]
    said = _directives(texts)
    written = {layout.state, *layout.data_directories}
    used = {*written, layout.binaries, *layout.credentials}
    found = dict[str, str]()
    for room in host.rooms:
        path = PurePosixPath(room.path)
        if path in used and room.real != room.path:
            why = _why(room, said, writes=path in written)
            if why is not None:
                found.setdefault(room.real, f"{room.path} is a link to {room.real}, which {why}")
    way = (
        "take that out of the unit on the members, or move it elsewhere"
        if likeness
        else "name that directory itself in the inventory's paths, and the unit lets it through, "
        "or move it elsewhere"
    )
    for sentence in found.values():
        yield Finding(Severity.REFUSAL, host.host, f"{sentence}; {way}")


def _directives(texts: Iterable[str]) -> dict[str, str]:
    """Read what a unit and its drop-ins say; of lists all, of others the last."""
    said = dict[str, str]()
    for line in "\n".join(texts).splitlines():
        if found := _DIRECTIVE.match(line):
            name, value = found.groups()
            before = said.get(name, "") if name == "ReadWritePaths" and value else ""
            said[name] = f"{before} {value}".strip()
    return said


def _why(room: Room, said: dict[str, str], *, writes: bool) -> str | None:
    unit = "its unit"
    real = PurePosixPath(room.real)
    home = said.get("ProtectHome", "no")
    if _is_below(real, _HOMES) and home in (*_YES, "tmpfs"):
        return f"{unit} hides from etcd (ProtectHome={home})"
    if _is_below(real, _TEMPORARY) and said.get("PrivateTmp", "no") in _YES:
        return f"{unit} hides from etcd (PrivateTmp={said['PrivateTmp']})"
    allowed = tuple(path.lstrip("-+") for path in said.get("ReadWritePaths", "").split())
    if not writes or _is_below(real, allowed) or _is_below(PurePosixPath(room.path), allowed):
        return None
    if _is_below(real, _HOMES) and home == "read-only":
        return f"{unit} makes read-only for etcd (ProtectHome={home})"
    system = said.get("ProtectSystem", "no")
    roots = {"full": (*_SYSTEM, "/etc"), "strict": ("/",)}.get(system, _SYSTEM)
    if system in (*_YES, "full", "strict") and _is_below(real, roots):
        return f"{unit} makes read-only for etcd (ProtectSystem={system})"
    return None


def _is_below(path: PurePosixPath, roots: Iterable[str]) -> bool:
    return any(path.is_relative_to(root) for root in roots)
