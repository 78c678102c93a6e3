"""etcd with RBAC on: who has no user is told how to get one, and then all works.

The commands that the refusal shows are typed as they are shown, with the passwords that they ask
for.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.integration.members import Scene, raise_cluster, replace
from tests.integration.rbac import USER, enable_rbac, name_user, write_password
from tests.integration.rotations import authority_digits, served_serials
from tests.integration.runbooks import Ended, Prefect, etcdctl, run_runbook

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.fixtures import StartLab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.chaos, pytest.mark.timeout(1500)]

ROOT, PASSWORD = "secret", "marker-of-the-user"


def run(prefect: Prefect, scene: Scene, runbook: str, *options: str) -> Ended:
    """Run a runbook that must end well, and say nothing of the password."""
    ended = run_runbook(prefect, runbook, scene.inventory, *options)
    assert ended.status == 0, (runbook, ended.output)
    assert PASSWORD not in ended.output
    return ended


def test_rbac_is_refused_without_a_user_and_works_with_one(
    start_lab: StartLab, prefect: Prefect, tmp_path: Path
) -> None:
    """Every runbook says who it must be; with the user made and named each does its work."""
    scene = raise_cluster(start_lab, prefect, tmp_path, spare=2)
    lab = scene.lab
    enable_rbac(lab, root=ROOT)
    for runbook, status, options in (
        ("check_health", 1, ()),
        ("move_leader", 2, ()),
        ("rotate_certificates", 2, ("--which", "all")),
        ("rotate_authority", 2, ("--replace", authority_digits(scene.inventory))),
        ("bootstrap_cluster", 2, ()),
        ("remove_member", 2, ("--member", "master03")),
        ("add_member", 2, ("--member", scene.address("master04"))),
        ("update_member", 2, ("--member", "master03", "--address", lab["master04"].address)),
        ("replace_member", 2, ("--member", "master03", "--planned")),
    ):
        ended = run_runbook(prefect, runbook, scene.inventory, *options)
        assert "authentication (RBAC) is on" in ended.stderr, (runbook, ended.output)
        assert ended.status == status, (runbook, ended.output)
    shown = re.findall(r"etcdctl --user root (user .*)", ended.stderr)
    assert len(shown) == 2, ended.stderr
    for command in shown:
        words = command.replace(f"add {USER}", f"add {USER}:{PASSWORD}").split()
        etcdctl(lab, "--user", f"root:{ROOT}", *words)

    password = write_password(tmp_path / "etcd-password", PASSWORD)
    name_user(scene.inventory, password)
    assert "asked over HTTPS" in run(prefect, scene, "check_health").stdout
    run(prefect, scene, "move_leader")
    before = served_serials(lab["master01"])
    run(prefect, scene, "rotate_certificates", "--which", "all")
    assert not set(before) & set(served_serials(lab["master01"]))
    lab["master03"].power_cut()
    replaced = replace(prefect, scene, "master03", "master04")
    assert replaced.status == 0, replaced.output
    assert "longest" in replaced.output
    digits = authority_digits(scene.inventory)
    run(prefect, scene, "rotate_authority", "--replace", digits)
    scene.inventory.write_text("even_members: true\n" + scene.inventory.read_text())
    run(prefect, scene, "add_member", "--member", scene.address("master05"), "--write-inventory")
    run(prefect, scene, "remove_member", "--member", "master05", "--write-inventory")
    run(prefect, scene, "check_health")
    assert scene.members == ["master01", "master02", "master04"]
    write_password(password, "wrong")
    refused = run_runbook(prefect, "move_leader", scene.inventory)
    assert refused.status == 2, refused.output
    assert "login.password" in refused.stderr
    password.unlink()
    refused = run_runbook(prefect, "rotate_certificates", scene.inventory)
    assert refused.status == 2, refused.output
    assert "login.password.file: there is no" in refused.stderr
