"""Forms of the UI: choices for what the inventories know, the reason asked for, no files."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from prefect.utilities.callables import parameter_schema

from flows.__main__ import runbook_names
from tasks.report.forms import has_choices, shape_cluster_form, shape_form

CLUSTERS = {"main": ["m1", "m2"], "other": ["a1"]}


def form(runbook: str, *, changes: bool = True) -> dict[str, Any]:
    """Shape a runbook's form, twice: the second time changes nothing."""
    flow = getattr(importlib.import_module(f"flows.{runbook}"), runbook)
    once = shape_form(parameter_schema(flow).model_dump(), CLUSTERS, changes=changes)
    assert shape_form(once, CLUSTERS, changes=changes) == once
    return once


def order(shaped: dict[str, Any]) -> list[str]:
    """List the fields as the form shows them."""
    return sorted(
        shaped["properties"], key=lambda name: int(shaped["properties"][name]["position"])
    )


def test_a_change_asks_for_cluster_reason_and_dry_run_first() -> None:
    """The cluster is chosen, the hosts of each are told, the reason must be there."""
    shaped = form("replace_member")
    fields = shaped["properties"]
    assert order(shaped)[:4] == ["cluster", "reason", "dry_run", "member"]
    assert shaped["required"] == ["cluster", "member", "reason"]
    assert fields["cluster"]["enum"] == ["main", "other"]
    assert fields["reason"]["minLength"] == 1
    assert fields["member"]["description"].endswith("There are: main: m1, m2; other: a1")
    assert fields["snapshot"]["enum"] == ["take", "skip"]
    assert fields["skip"]["type"] == "array"
    assert "path" not in fields["cluster"]["description"]


def test_a_check_takes_any_number_of_clusters_and_no_file() -> None:
    """And no reason."""
    shaped = form("check_certificates", changes=False)
    assert shaped["properties"]["clusters"]["items"]["enum"] == ["main", "other"]
    assert "json_path" not in shaped["properties"]
    assert shaped["required"] == []


def test_who_adopts_a_cluster_names_it() -> None:
    """It is none of those that there are."""
    fields = form("adopt_cluster", changes=False)["properties"]
    assert "enum" not in fields["cluster"]
    assert "output" not in fields


CHOICES = [
    ("replace_member", "member", "array"),
    ("remove_member", "member", "array"),
    ("show_member", "member", "array"),
    ("recover_quorum", "without", "array"),
    ("update_member", "member", "string"),
    ("move_leader", "to", "string"),
]


@pytest.mark.parametrize(("runbook", "name", "kind"), CHOICES)
def test_members_are_chosen_where_the_form_is_of_one_cluster(
    runbook: str, name: str, kind: str
) -> None:
    """It asks for no cluster; of a single host Prefect makes no list, and it is told instead."""
    flow = getattr(importlib.import_module(f"flows.{runbook}"), runbook)
    schema = parameter_schema(flow).model_dump()
    assert has_choices(schema)
    shaped = shape_cluster_form(schema, "main", ["m1", "m2"], changes=True)
    field = shaped["properties"][name]
    assert "cluster" not in shaped["properties"]
    assert "cluster" not in shaped["required"]
    assert field["type"] == kind
    assert (field["items"] if kind == "array" else field)["enum"] == ["m1", "m2"]
    assert "There are" not in field["description"]
    assert order(shaped)[:2] == ["reason", "dry_run"] or runbook == "show_member"
    assert shape_cluster_form(form(runbook), "main", ["m1", "m2"], changes=True) == shaped
    alone = shape_cluster_form(schema, "main", ["m1"], changes=True)["properties"][name]
    assert alone["description"].endswith("There are: main: m1")


def test_only_runbooks_that_name_members_of_one_cluster_have_such_forms() -> None:
    """A host that joins is none of those that there are."""
    flows = {n: getattr(importlib.import_module(f"flows.{n}"), n) for n in runbook_names()}
    found = {n for n, flow in flows.items() if has_choices(parameter_schema(flow).model_dump())}
    assert {name for name, _, _ in CHOICES} <= found
    assert not found & {"add_member", "check_health", "check_fleet", "adopt_cluster"}


@pytest.mark.parametrize("runbook", runbook_names())
def test_every_field_has_its_help_and_its_place(runbook: str) -> None:
    """Without inventories nothing is chosen, and what is chosen goes when they go."""
    shaped = form(runbook)
    fields = shaped["properties"]
    assert all(field["description"] for field in fields.values())
    assert [fields[name]["position"] for name in order(shaped)] == list(range(len(fields)))
    assert set(shaped["required"]) <= set(fields)
