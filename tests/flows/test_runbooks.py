"""Every runbook is where an operator looks for it: command line, deployments, README."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cyclopts import CycloptsError
from prefect import Flow
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from ruamel.yaml import YAML

from flows import __main__ as commands
from flows.__main__ import main, runbook_names
from tasks.engine.frame import tags_for

ROOT = Path(__file__).parents[2]
DEPLOYMENTS = YAML(typ="safe").load(ROOT / "prefect.yaml")["deployments"]


def test_each_runbook_has_one_deployment_of_its_name() -> None:
    """File, function and deployment have the same name."""
    assert sorted(deployment["name"] for deployment in DEPLOYMENTS) == runbook_names()
    for deployment in DEPLOYMENTS:
        name = deployment["name"]
        assert deployment["entrypoint"] == f"flows/{name}.py:{name}"


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: str(d["name"]))
def test_a_worker_can_load_each_entrypoint(
    deployment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entrypoint imports as a worker imports it, from the checkout's root."""
    monkeypatch.chdir(ROOT)
    flow: Flow[..., Any] = load_flow_from_entrypoint(
        deployment["entrypoint"], use_placeholder_flow=False
    )
    assert flow.name == deployment["name"]
    parameters = set(inspect.signature(flow.fn).parameters)
    assert set(deployment.get("parameters", {})) <= parameters
    known = tags_for(flow.name, inspect.signature(flow.fn), {})
    assert set(deployment["tags"]) == {"etcd-runbooks", *known[1:2]}


def test_no_arguments_list_the_runbooks(capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m flows` shows what there is."""
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in runbook_names())


def test_the_list_of_runbooks_does_not_wait_for_prefect() -> None:
    """It is what one types first, and Prefect takes seconds to load."""
    asks = "from flows.__main__ import main; main(['--help']); assert 'prefect' not in sys.modules"
    subprocess.run([sys.executable, "-c", f"import sys; {asks}"], cwd=ROOT, check=True)


def test_help_shows_the_flows_own_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is started for it."""
    assert main(["bootstrap_cluster", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--cluster" in shown
    assert "--dry-run" in shown


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: str(d["name"]))
def test_each_parameter_is_explained_in_the_form_and_on_the_command_line(
    deployment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the same words, from the flow's docstring: nobody has to look in two places."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "400")
    flow: Flow[..., Any] = load_flow_from_entrypoint(
        deployment["entrypoint"], use_placeholder_flow=False
    )
    assert main([deployment["name"], "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, field in parameter_schema(flow).properties.items():
        explanation = " ".join(field.get("description", "").replace("`", "").split())
        assert explanation, f"{name} has no help in the form"
        assert explanation in shown, f"{name} has no help, or another, on the command line"


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: str(d["name"]))
def test_a_deployment_that_changes_something_shows_its_plan_first(
    deployment: dict[str, Any],
) -> None:
    """Who starts it from the UI unticks `dry_run`; and no limit of Prefect's can end a run."""
    assert ("read-only" in deployment["tags"]) != ("changes" in deployment["tags"])
    if "changes" in deployment["tags"]:
        assert deployment["parameters"]["dry_run"] is True
        assert "concurrency_limit" not in deployment


@pytest.mark.parametrize("arguments", [["no_such_runbook"], ["--no-such-option"]])
def test_a_wrong_command_line_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2, and the word that is wrong is shown."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert arguments[0] in captured.err + captured.out


@pytest.mark.parametrize("name", [*runbook_names(), "approve"])
def test_a_wrong_command_line_points_to_its_own_help(name: str) -> None:
    """What is wrong is said, and what to type next."""
    said = commands._explain([name], CycloptsError(msg="a parameter is missing"))
    assert str(said).startswith("refused: a parameter is missing. Nothing was changed")
    assert f"python -m flows {name} --help" in str(said)


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: str(d["name"]))
def test_prefect_takes_the_parameters_of_a_flow_before_its_run(deployment: dict[str, Any]) -> None:
    """Their types are resolved where the runbook is written, not where its decorator is."""
    flow: Flow[..., Any] = load_flow_from_entrypoint(
        deployment["entrypoint"], use_placeholder_flow=False
    )
    fields = flow.parameters.properties
    given = {
        name: ["x"] if fields[name].get("type") == "array" else "x"
        for name in flow.parameters.required or ()
    }
    assert flow.validate_parameters(given).keys() == fields.keys()
