"""Forms on a real server: one more deployment for each cluster, whose members are chosen."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
from pathlib import Path
from typing import Any

import pytest

from tests.integration.runbooks import Prefect, prefect_server
from tests.integration.teams import copy_checkout, deploy

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.lab,
    pytest.mark.one_etcd,
    pytest.mark.timeout(300),
]

INVENTORY = """
name: {name}
hosts: [{{name: {name}1, address: 127.0.0.8}}, {{name: {name}2, address: 127.0.0.9}}]
etcd: {{version: 3.6.16, binaries: {{source: installed}}}}
authority: {{certificate: ca.pem, key: ca-key.pem, passphrase: {{env: NONE}}}}
"""


def shape_forms(prefect: Prefect, checkout: Path) -> str:
    """Bring the forms up to date; returns what was said."""
    ended = subprocess.run(
        [sys.executable, "-m", "tasks.engine.forms"],
        cwd=checkout,
        env=prefect.environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return ended.stdout


def names(prefect: Prefect) -> set[str]:
    """Name all deployments."""
    found: list[dict[str, Any]] = prefect.ask("/deployments/filter", {})
    return {one["name"] for one in found}


def test_members_are_chosen_in_the_form_of_their_cluster(tmp_path: Path) -> None:
    """A new inventory brings one, one that is gone takes it away, a broken one changes none."""
    home = tmp_path / "home"
    home.mkdir()
    checkout = copy_checkout(tmp_path / "checkout")
    clusters = checkout / "deployments" / "clusters"
    for path in clusters.glob("*.yaml"):
        path.unlink()
    for name in ("main", "edge"):
        (clusters / f"{name}.yaml").write_text(INVENTORY.format(name=name))
    with prefect_server(home) as prefect:
        for runbook in ("move_leader", "check_health"):
            deploy(prefect, "--name", runbook, checkout=checkout)
        assert "move_leader-main: brought up to date" in shape_forms(prefect, checkout)
        assert "brought" not in shape_forms(prefect, checkout)
        common = {"move_leader", "check_health"}
        assert names(prefect) == common | {"move_leader-main", "move_leader-edge"}
        made = prefect.get("/deployments/name/move_leader/move_leader-main")
        assert made["parameters"] == {"dry_run": True, "cluster": "main"}
        choices = made["parameter_openapi_schema"]["properties"]["to"]["enum"]
        assert choices == ["main1", "main2"]
        start = f"/deployments/{made['id']}/create_flow_run"
        run = prefect.ask(start, {"parameters": {"to": "main2", "reason": "a test"}})
        assert run["parameters"]["cluster"] == "main"
        with pytest.raises(urllib.error.HTTPError, match=r"409|422"):
            prefect.ask(start, {"parameters": {"to": "edge1", "reason": "a test"}})
        (clusters / "main.yaml").write_text("name: [")
        (clusters / "edge.yaml").unlink()
        assert "move_leader-edge: removed" in shape_forms(prefect, checkout)
        assert names(prefect) == common | {"move_leader-main"}
