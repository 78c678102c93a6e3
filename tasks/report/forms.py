"""The forms of Prefect's UI: what the inventories know is chosen there, and not typed.

Made of the schema that Prefect derives from a runbook's signature and docstring; doing it twice
changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

FIRST = ("cluster", "clusters", "reason", "dry_run")
"""In this order before all others, which stay in theirs."""
NOT_THERE = ("json_path", "output")
"""Files of the worker's: the command line's alone."""
THERE_ARE = "\n\nThere are: "
ADOPTS = "hosts"
"""A parameter of what makes a new inventory: its name is none of those that there are."""
NAMING_HOSTS = ("member", "replacement", "host", "to")
"""Parameters that name members or hosts of the chosen cluster, which a form cannot follow."""

Schema = dict[str, Any]


def shape_form(
    schema: Mapping[str, Any], clusters: Mapping[str, Sequence[str]], *, changes: bool
) -> Schema:
    """Make a form of a runbook's schema; `clusters` are by name, each with its hosts.

    A runbook that changes something asks for the reason. Names of hosts are told beside the field:
    a form's choices do not depend on another field's.
    """
    form = deepcopy(dict(schema))
    fields: dict[str, Schema] = form["properties"]
    for name in NOT_THERE:
        fields.pop(name, None)
    required = [name for name in form.get("required", []) if name in fields]
    for name, field in fields.items():
        lists = [kind for kind in field.get("anyOf", ()) if kind.get("type") == "array"]
        if lists:  # or null, for which the form would ask: an empty list says the same
            fields[name] = _plain(field, lists[0])
    if clusters and "cluster" in fields and ADOPTS not in fields:
        fields["cluster"] |= {"enum": list(clusters), "description": "which cluster"}
    if clusters and "clusters" in fields:
        items = {"type": "string", "enum": list(clusters)}
        help_ = "which clusters; none: every one"
        fields["clusters"] |= {"items": items, "uniqueItems": True, "description": help_}
    for name in NAMING_HOSTS:
        if clusters and name in fields:
            told = "; ".join(f"{one}: {', '.join(hosts)}" for one, hosts in clusters.items())
            help_, _, _ = fields[name].get("description", "").partition(THERE_ARE)
            fields[name]["description"] = f"{help_}{THERE_ARE}{told}"
    if changes and "reason" in fields:
        fields["reason"] = _plain(fields["reason"], {"type": "string", "minLength": 1})
        required = [*required, *(["reason"] if "reason" not in required else [])]
    first = [name for name in FIRST if name in fields]
    rest = sorted((n for n in fields if n not in first), key=lambda n: fields[n]["position"])
    for position, name in enumerate((*first, *rest)):
        fields[name]["position"] = position
    form["required"] = required
    return form


def _plain(field: Schema, kind: Schema) -> Schema:
    """Give a field one type, without the null that it had as a default."""
    kept: Schema = {key: field[key] for key in ("title", "description", "position") if key in field}
    return {**kept, **kind}
