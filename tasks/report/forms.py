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
NAMING_HOSTS = ("member", "replacement", "host", "to", "without")
"""Parameters that name members or hosts of the chosen cluster, which a form cannot follow."""
CHOSEN = ("member", "to", "without")
"""Those of them that are members which there are, where the cluster is known."""
JOINS = "host that joins"
"""In the help of one that is none of them."""
MANY = 2
"""Of fewer choices Prefect's form makes no list."""

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
    _order(fields)
    form["required"] = required
    return form


def has_choices(schema: Mapping[str, Any]) -> bool:
    """Say whether a runbook's parameters name members that there are, of one cluster."""
    fields = schema["properties"]
    return "cluster" in fields and any(_is_chosen(fields, name) for name in CHOSEN)


def shape_cluster_form(
    schema: Mapping[str, Any], cluster: str, hosts: Sequence[str], *, changes: bool
) -> Schema:
    """Make a form for one cluster, which it does not ask for; its members are chosen."""
    form = shape_form(schema, {cluster: hosts}, changes=changes)
    fields: dict[str, Schema] = form["properties"]
    fields.pop("cluster", None)
    form["required"] = [name for name in form["required"] if name in fields]
    for name in CHOSEN:
        if len(hosts) < MANY or not _is_chosen(fields, name):
            continue
        choice: Schema = {"type": "string", "enum": list(hosts)}
        if fields[name].get("type") == "array":
            choice = {"type": "array", "items": choice, "uniqueItems": True}
        fields[name] = _plain(fields[name], choice)
        fields[name]["description"], _, _ = fields[name]["description"].partition(THERE_ARE)
    _order(fields)
    return form


def _is_chosen(fields: Mapping[str, Schema], name: str) -> bool:
    return name in fields and JOINS not in fields[name].get("description", "")


def _order(fields: dict[str, Schema]) -> None:
    first = [name for name in FIRST if name in fields]
    rest = sorted((n for n in fields if n not in first), key=lambda n: fields[n]["position"])
    for position, name in enumerate((*first, *rest)):
        fields[name]["position"] = position


def _plain(field: Schema, kind: Schema) -> Schema:
    """Give a field one type, without the null that it had as a default."""
    kept: Schema = {key: field[key] for key in ("title", "description", "position") if key in field}
    return {**kept, **kind}
