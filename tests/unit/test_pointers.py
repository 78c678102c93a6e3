"""Every message that points to a runbook: the table of them, found in the source, and followed.

A pointer that is not in the table fails, and so does one in the table that no message has any more.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
import shlex
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App

from flows import __main__ as commands
from tasks.model import pointers
from tasks.model.pointers import Value

ROOT = Path(__file__).parents[2]
RUNBOOKS = sorted(path.stem for path in (ROOT / "flows").glob("[!_]*.py"))
LIKE_A_RUNBOOK = re.compile(
    r"\b(?:(?:bootstrap|adopt|check|show|rotate|recover|replace|add|remove|update|move|harden"
    r"|restore|take|rehearse|reclaim|repair|apply|upgrade)"
    r"_(?:cluster|health|certificates|authority|member|leader|quorum|snapshot|space|corruption|retention)s?)\b"
)
OPTION = re.compile(r"(?<![\w-])--([a-z][a-z-]+)")
HELPERS = {"pointer", "parameter"}

SHELL = ("hosts", "embedded")
"""Folders whose strings are commands of other programs, with options of their own."""

OTHERS_OPTIONS = {
    ("tasks/plans/adopted_reasons.py", "name"),
    *(("tasks/model/rbac.py", x) for x in ("user", "endpoints", "cacert", "cert", "key")),
}
"""Options that messages name and that are another program's: etcd's and etcdctl's."""

NAMED: dict[str, set[str]] = {
    "tasks/procedures/adoption.py": {"adopt_cluster", "rotate_certificates"},
    "tasks/engine/authority.py": {"bootstrap_cluster", "check_health"},
    "tasks/etcd/failures.py": {"check_certificates", "recover_certificates"},
    "tasks/procedures/expiry.py": {"rotate_authority"},
    "tasks/procedures/drafting.py": {"add_member"},
    "tasks/pki/authority.py": {"recover_certificates"},
    "tasks/model/settings.py": {"upgrade_cluster"},
    "tasks/plans/bootstrap.py": {"bootstrap_cluster", "upgrade_cluster"},
    "tasks/plans/corruption.py": {"restore_cluster"},
    "tasks/plans/diagnosis.py": {"check_certificates", "reclaim_space", "rotate_certificates"},
    "tasks/plans/fences.py": {"check_health"},
    "tasks/plans/health.py": {"repair_corruption"},
    "tasks/plans/kubeadm.py": {"bootstrap_cluster"},
    "tasks/plans/images.py": {"harden_members", "upgrade_cluster"},
    "tasks/plans/nodes.py": {"harden_members"},
    "tasks/plans/refilled.py": {"harden_members"},
    "tasks/plans/reconfiguration.py": {"remove_member", "replace_member"},
    "tasks/plans/sharing.py": {"rotate_certificates"},
    "tasks/plans/sources.py": {"rotate_certificates"},
    "tasks/plans/restore_consent.py": {"recover_quorum", "replace_member"},
    "tasks/plans/survivors.py": {"replace_member", "restore_cluster"},
    "tasks/plans/upgrade_findings.py": {"reclaim_space", "replace_member", "restore_cluster"},
    "tasks/procedures/upgrade_sight.py": {"show_member"},
    "tasks/steps/upgrades.py": {"check_health"},
    "tasks/plans/voters.py": {"recover_certificates", "recover_quorum", "restore_cluster"},
    "tasks/plans/recovery.py": {"rotate_authority"},
    "tasks/plans/restarts.py": {"rotate_authority"},
    "tasks/plans/rotation.py": {"check_health", "recover_certificates"},
    "tasks/plans/succession.py": {"recover_certificates", "rotate_certificates"},
    "tasks/steps/restarts.py": {"check_health"},
}
"""The runbooks that a module's messages name in plain words, without parameters."""

POINTERS: dict[str, list[tuple[str, tuple[str, ...], dict[str, Value]]]] = {
    "tasks/report/snapshots.py": [
        ("pointer", ("take_snapshot",), {"clusters": ["main"]}),
        ("pointer", ("rehearse_snapshot",), {"clusters": ["main"]}),
    ],
    "flows/recover_certificates.py": [
        ("parameter", ("recover_certificates",), {"consent": True}),
    ],
    "flows/repair_corruption.py": [("pointer", ("reclaim_space",), {"cluster": "c1"})],
    "flows/rotate_authority.py": [
        ("parameter", ("rotate_authority",), {"accept_shared": True}),
    ],
    "tasks/plans/upgrade_findings.py": [
        ("parameter", ("upgrade_cluster",), {"accept": ["settings"]}),
    ],
    "tasks/plans/upgrade_routes.py": [
        (
            "pointer",
            ("restore_cluster",),
            {"cluster": "c1", "snapshot": "FILE", "consent": "c1", "accept": ["old-revisions"]},
        ),
    ],
    "tasks/procedures/adoption.py": [
        ("parameter", ("adopt_cluster",), {"output": "FILE"}),
        ("parameter", ("adopt_cluster",), {"unit": "UNIT"}),
    ],
    "tasks/model/inventory_file.py": [
        (
            "parameter",
            ("check_certificates", "rehearse_snapshot", "take_snapshot"),
            {"clusters": ["CLUSTER"]},
        )
    ],
    "tasks/procedures/rehearsing.py": [("pointer", ("take_snapshot",), {"clusters": ["main"]})],
    "tasks/plans/adopted_reasons.py": [
        ("parameter", ("adopt_cluster",), {"hosts": ["HOST", "..."]})
    ],
    "tasks/plans/agreement.py": [
        ("pointer", ("replace_member",), {"member": ["m1"]}),
        ("pointer", ("remove_member",), {"member": ["m1"], "write_inventory": True}),
        ("pointer", ("update_member",), {"member": "m1", "address": "10.0.0.1"}),
        ("pointer", ("remove_member",), {"member": ["8e9e05c52164694d"]}),
    ],
    "tasks/model/cluster.py": [
        ("pointer", ("replace_member",), {"member": ["m1"]}),
        ("pointer", ("remove_member",), {"member": ["m1"], "write_inventory": True}),
    ],
    "tasks/model/histories.py": [("pointer", ("replace_member",), {"member": ["m1"]})],
    "tasks/procedures/outlook.py": [
        ("pointer", ("remove_member",), {"member": ["m1"]}),
        ("parameter", ("replace_member",), {"replacement": ["m4=10.0.0.4"]}),
    ],
    "tasks/plans/health.py": [
        ("pointer", ("repair_corruption",), {"cluster": "c1"}),
        ("pointer", ("replace_member",), {"cluster": "c1", "member": ["m1"]}),
        (
            "pointer",
            ("replace_member",),
            {"cluster": "c1", "member": ["m1"], "replacement": ["m4=10.0.0.4"]},
        ),
        ("pointer", ("recover_certificates",), {"cluster": "c1"}),
        ("pointer", ("recover_quorum",), {"cluster": "c1"}),
        ("pointer", ("restore_cluster",), {"cluster": "c1"}),
        ("pointer", ("reclaim_space",), {"cluster": "c1"}),
        ("pointer", ("repair_corruption",), {"cluster": "c1"}),
        ("pointer", ("replace_member",), {"cluster": "c1", "member": ["NAME"]}),
    ],
    "tasks/plans/kubeadm.py": [
        ("pointer", ("remove_member",), {"cluster": "c1", "member": ["m1"]})
    ],
    "tasks/plans/fences.py": [
        ("pointer", ("recover_quorum",), {"consent": "c1", "without": ["m2", "m3"]}),
        ("pointer", ("replace_member",), {"member": ["m2", "m3"]}),
    ],
    "tasks/plans/leaves.py": [("pointer", ("replace_member",), {"member": ["m1"]})],
    "tasks/plans/member_hosts.py": [("pointer", ("remove_member",), {"member": ["m1"]})],
    "tasks/plans/reconfiguration.py": [
        ("parameter", ("replace_member",), {"replacement": ["m4=10.0.0.4"]}),
    ],
    "tasks/plans/recovery.py": [
        ("parameter", ("recover_certificates",), {"consent": True}),
        ("parameter", ("recover_certificates",), {"consent": True}),
        ("parameter", ("recover_certificates",), {"consent": True}),
    ],
    "tasks/plans/restoration.py": [
        ("pointer", ("replace_member",), {"member": ["m1", "m2"]}),
        ("parameter", ("restore_cluster",), {"again": True}),
        ("pointer", ("replace_member",), {"member": ["m1", "m2"]}),
        ("pointer", ("replace_member",), {"member": ["m1", "m2"]}),
    ],
    "tasks/plans/restore_consent.py": [
        ("parameter", ("restore_cluster", "recover_quorum"), {"without": ["m1", "m2"]}),
        ("parameter", ("restore_cluster", "recover_quorum"), {"consent": "c1"}),
        ("parameter", ("restore_cluster", "recover_quorum"), {"accept": ["stopped-apiservers"]}),
        ("parameter", ("restore_cluster", "recover_quorum"), {"without": ["m1"]}),
        ("parameter", ("restore_cluster", "recover_quorum"), {"accept": ["old-revisions"]}),
    ],
    "tasks/procedures/corruption.py": [
        ("pointer", ("replace_member",), {"cluster": "c1", "member": ["m1"]}),
    ],
    "tasks/procedures/fetching.py": [
        ("parameter", ("restore_cluster",), {"snapshot": "c1-r1.db"}),
        ("parameter", ("restore_cluster",), {"file": "/backup/c1.db"}),
        ("parameter", ("restore_cluster",), {"accept": ["no-checksum"]}),
        ("parameter", ("restore_cluster",), {"accept": ["other-cluster"]}),
    ],
    "tasks/plans/quotas.py": [
        ("pointer", ("reclaim_space",), {"cluster": "c1", "raise_quota": True}),
    ],
    "tasks/plans/fullness.py": [("pointer", ("reclaim_space",), {"cluster": "c1"})],
    "tasks/plans/space.py": [
        ("parameter", ("reclaim_space",), {"stop_members": True}),
        ("parameter", ("reclaim_space",), {"keep_revisions": 0}),
    ],
    "tasks/steps/space.py": [("parameter", ("reclaim_space",), {"stop_members": True})],
    "tasks/plans/sharing.py": [("parameter", ("rotate_authority",), {"until": "certificates"})],
    "tasks/plans/succession.py": [
        ("parameter", ("rotate_authority",), {"accept_outage": True}),
        ("parameter", ("rotate_authority",), {"clients_trusting": ["calico", "felix"]}),
        ("parameter", ("rotate_authority",), {"clients_renewed": ["calico"]}),
    ],
    "tasks/steps/snapshots.py": [
        (
            "parameter",
            ("rotate_authority", "replace_member", "add_member", "remove_member", "update_member"),
            {"snapshot": "skip"},
        ),
        (
            "parameter",
            ("rotate_authority", "replace_member", "add_member", "remove_member", "update_member"),
            {"reason": "TEXT"},
        ),
    ],
    "tasks/steps/trust.py": [("parameter", ("rotate_authority",), {"replace": "0123456789ab"})],
}
"""By module, in the source's order: the helper, the runbooks that it may mean, and an example."""


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Parse every module whose strings people read."""
    for path in sorted([*(ROOT / "tasks").rglob("*.py"), *(ROOT / "flows").glob("*.py")]):
        name = path.relative_to(ROOT)
        if not set(name.parts) & set(SHELL):
            yield str(name), ast.parse(path.read_text())


def messages(tree: ast.Module) -> Iterator[str]:
    """List the strings that hold more than a word; docstrings are help, not messages."""
    documents = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
            if id(node) not in documents and " " in text.strip():
                yield text


def pointer_calls(tree: ast.Module) -> list[tuple[str, str | None, set[str]]]:
    """List a module's pointers in order: the helper, the runbook, the parameters' names."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id not in HELPERS:
                continue
            first = node.args[0] if node.args else None
            name = str(first.value) if isinstance(first, ast.Constant) else None
            place = (node.lineno, node.col_offset)
            given = {str(keyword.arg) for keyword in node.keywords}
            found.append((place, (node.func.id, name, given)))
    return [call for _, call in sorted(found, key=lambda one: one[0])]


def test_every_pointer_is_in_the_table() -> None:
    """And the table holds nothing else; a runbook's name is never computed."""
    found: dict[str, list[tuple[str, str | None, set[str]]]] = {}
    for module, tree in modules():
        if module != "tasks/model/pointers.py" and (calls := pointer_calls(tree)):
            found[module] = calls
    assert found == {
        module: [(kind, names[0] if kind == "pointer" else None, set(p)) for kind, names, p in rows]
        for module, rows in POINTERS.items()
    }


def test_every_runbook_that_a_message_names_is_in_the_table() -> None:
    """There is one of each name."""
    found: dict[str, set[str]] = {}
    for module, tree in modules():
        for text in messages(tree):
            if names := set(LIKE_A_RUNBOOK.findall(text)):
                found.setdefault(module, set()).update(names)
    assert found == NAMED
    assert set().union(*found.values()) <= set(RUNBOOKS)


def test_no_message_names_an_option_without_its_parameter() -> None:
    """Who reads it in Prefect's UI has no command line: `tasks.model.pointers` says both."""
    ours = {name.replace("_", "-") for runbook in RUNBOOKS for name in parameters_of(runbook)}
    bare = [
        (module, option, text)
        for module, tree in modules()
        for text in messages(tree)
        for option in OPTION.findall(text)
        if option in ours and (module, option) not in OTHERS_OPTIONS
    ]
    assert bare == []


def function_of(runbook: str) -> Any:  # noqa: ANN401 - a flow's function
    """Get what the command line calls."""
    return getattr(importlib.import_module(f"flows.{runbook}"), runbook).fn


def parameters_of(runbook: str) -> Mapping[str, inspect.Parameter]:
    """Get a runbook's parameters."""
    return inspect.signature(function_of(runbook)).parameters


@pytest.mark.parametrize(
    ("kind", "runbook", "example"),
    [
        pytest.param(kind, runbook, example, id=f"{runbook}-{'-'.join(example)}-{n}")
        for n, (kind, runbooks, example) in enumerate(chain.from_iterable(POINTERS.values()))
        for runbook in runbooks
    ],
)
def test_a_pointer_can_be_followed(kind: str, runbook: str, example: dict[str, Value]) -> None:
    """The command line that it says is read as the parameters that it says."""
    said = (
        pointers.pointer(runbook, **example)
        if kind == "pointer"
        else (pointers.parameter(**example))
    )
    words = shlex.split(said[said.index("(command line: ") + len("(command line: ") : -1])
    words = words[1:] if kind == "pointer" else words
    for name, parameter in parameters_of(runbook).items():
        if parameter.default is inspect.Parameter.empty and name not in example:
            words += [f"--{name.replace('_', '-')}", "c1"]
    app = App()
    app.default(function_of(runbook))
    _, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    assert {name: bound.arguments[name] for name in example} == example
    for name in example:
        assert f"{name}=" in said


def test_an_answer_to_an_approval_can_be_typed() -> None:
    """As the message says it; the UI's button is named beside it."""
    said = pointers.answer("0f")
    _, _, words = said.rstrip(")").partition("python -m flows approve ")
    app = App()
    app.default(functools.partial(commands._approve, None))
    _, bound, _ = app.parse_args(shlex.split(words), exit_on_error=False, print_error=False)
    assert bound.arguments == {"run": "0f", "by": "NAME"}
    assert "Resume" in said


def test_a_pointer_without_parameters_is_the_name() -> None:
    """And false has an option of its own."""
    assert pointers.pointer("check_health") == "check_health"
    assert pointers.parameter(dry_run=False) == "dry_run=false (command line: --no-dry-run)"
