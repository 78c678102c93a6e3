"""Changing the members that others list: a kube-apiserver's manifest, a HAProxy backend.

The one line that names members is rewritten in place. What a file says besides is compared after
the edit, and a file that is not understood is refused rather than guessed at.
"""

from __future__ import annotations

import re
from copy import deepcopy
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.model.dependents import Moves

ARGUMENT = "--etcd-servers="

_LINE = re.compile(
    rf"^(?P<start>[ \t]*-[ \t]+[\"']?{ARGUMENT})(?P<urls>[^\"'\s]+)(?P<end>[\"']?[ \t]*)$",
    re.MULTILINE,
)
_SECTION = re.compile(r"^(\w[\w-]*)(?:[ \t]+(\S+))?.*$", re.MULTILINE)
_SERVER = re.compile(
    r"^(?P<start>[ \t]*server[ \t]+)(?P<name>\S+)(?P<gap>[ \t]+)(?P<address>\S+)(?P<rest>.*)$"
)


def edit_etcd_servers(manifest: str, moves: Moves) -> tuple[str, str]:
    """Rewrite --etcd-servers of a kube-apiserver's static pod; returns the text and the value.

    A manifest that lists none of the cluster's members comes back as it is. Raises ValueError for
    one that is not understood.
    """
    found = list(_LINE.finditer(manifest))
    if len(found) != 1:
        raise ValueError(f"{len(found)} lines set {ARGUMENT.rstrip('=')}; one is understood")
    before = found[0]["urls"]
    after = ",".join(moves.apply(before.split(",")))
    edited = _LINE.sub(lambda m: f"{m['start']}{after}{m['end']}", manifest)
    if _with_value(_load(manifest), before, after) != _load(edited):
        raise ValueError("the edit would change more than the members")
    return edited, after


def _load(text: str) -> Any:  # noqa: ANN401 - YAML
    try:
        return YAML(typ="safe").load(text)
    except YAMLError as error:
        raise ValueError(f"it is not YAML: {error}") from error


def _with_value(manifest: Any, before: str, after: str) -> Any:  # noqa: ANN401 - YAML
    if isinstance(manifest, dict):
        return {key: _with_value(value, before, after) for key, value in manifest.items()}
    if isinstance(manifest, list):
        return [_with_value(value, before, after) for value in manifest]
    return f"{ARGUMENT}{after}" if manifest == f"{ARGUMENT}{before}" else deepcopy(manifest)


def edit_backend(configuration: str, backend: str, moves: Moves) -> str:
    """Rewrite the servers of one HAProxy `backend` or `listen` section.

    One that joins gets the options of the one whose place it takes, or of the section's last
    server. A section that lists none of the members comes back as it is. Raises ValueError when
    there is no such section, or no server in it.
    """
    lines = configuration.splitlines(keepends=True)
    begin, end = _find_section(lines, backend)
    servers = {i: m for i in range(begin, end) if (m := _SERVER.match(lines[i].rstrip("\n")))}
    if not servers:
        raise ValueError(f"the section {backend} has no server line")
    rows = [(i, m, f"https://{m['address']}") for i, m in servers.items()]
    wanted = moves.apply([url for _, _, url in rows])
    if wanted == [url for _, _, url in rows]:
        return configuration
    kept = [(m, url) for _, m, url in rows if url in wanted]
    template = rows[-1][1]
    written = []
    for url in wanted:
        match = next((m for m, have in kept if have == url), None)
        if match is not None:
            written.append(f"{match[0]}\n")
            continue
        name, address = moves.name(url), url.removeprefix("https://")
        line = f"{template['start']}{name}{template['gap']}{address}{template['rest']}"
        written.append(f"{line}\n")
    first = min(servers)
    others = [lines[i] for i in range(first, end) if i not in servers]
    return "".join([*lines[:first], *written, *others, *lines[end:]])


def edit_apiserver_backend(configuration: str, backend: str, moves: Moves) -> str:
    """Rewrite a section whose servers are at the members' addresses, all at one other port.

    Those are the API servers that live on them. Any other section comes back as it is.
    """
    lines = configuration.splitlines()
    begin, end = _find_section([f"{line}\n" for line in lines], backend)
    found = filter(None, map(_SERVER.match, lines[begin:end]))
    ports = {match["address"].rpartition(":")[2] for match in found}
    if len(ports) != 1 or not (port := ports.pop()).isdigit():
        return configuration
    return edit_backend(configuration, backend, moves.at_port(int(port)))


def _find_section(lines: list[str], backend: str) -> tuple[int, int]:
    begin = None
    for index, line in enumerate(lines):
        match = _SECTION.match(line.rstrip("\n"))
        if match is None:
            continue
        if begin is not None:
            return begin, index
        if match[1] in ("backend", "listen") and match[2] == backend:
            begin = index + 1
    if begin is None:
        raise ValueError(f"there is no backend or listen section {backend}")
    return begin, len(lines)
