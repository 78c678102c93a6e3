"""A replacement that is typed again, and one of nobody: each says what is so, and nothing else.

One cluster for all: whoever is replaced is the spare host of the next test.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tasks.engine.journal import read_journal
from tasks.model.record import Event
from tests.integration.members import Scene, check_cluster, list_members, raise_cluster, replace
from tests.integration.runbooks import Prefect, run_runbook

if TYPE_CHECKING:
    from tests.lab.fixtures import StartLab
    from tests.lab.host import Host

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

OPENSSL = "/usr/bin/openssl"


@pytest.fixture(scope="module")
def scene(
    start_module_lab: StartLab, prefect: Prefect, tmp_path_factory: pytest.TempPathFactory
) -> Scene:
    """Three members and one spare host."""
    return raise_cluster(start_module_lab, prefect, tmp_path_factory.mktemp("scene"))


@contextmanager
def unable_to_ask(host: Host) -> Iterator[None]:
    """Let a host's openssl do all but connect to others."""
    script = f'#!/bin/sh\n[ "$1" = s_client ] && exit 1\nexec {OPENSSL}.real "$@"\n'
    host.run(
        f"mv {OPENSSL} {OPENSSL}.real && printf '%s' '{script}' > {OPENSSL} && chmod 755 {OPENSSL}"
    ).check()
    try:
        yield
    finally:
        host.run(f"mv {OPENSSL}.real {OPENSSL}").check()


def list_steps(prefect: Prefect) -> list[str]:
    """List the steps that the last run has done."""
    lines = read_journal(prefect.journals[-1])
    return [str(r.details["step"]) for r in lines if r.event is Event.STEP_FINISHED]


@pytest.mark.chaos
def test_a_member_that_is_none_is_answered_with_those_there_are(
    scene: Scene, prefect: Prefect
) -> None:
    """By the inventory where it is to join again, by the member list where another host joins."""
    members = list_members(scene.lab, "master01")
    for words in ((), ("--replacement", scene.address("master04"))):
        ended = run_runbook(
            prefect, "replace_member", scene.inventory, "--member", "master99", *words
        )
        assert ended.status == 2, ended.output
        assert "master99: no" in ended.output
        for name in ("master01", "master02", "master03"):
            assert name in ended.output.partition("master99: no")[2], ended.output
    assert list_members(scene.lab, "master01") == members


def test_a_replacement_in_place_that_failed_in_its_last_look_is_verified_and_done(
    scene: Scene, prefect: Prefect
) -> None:
    """The member is healthy by then, so that it is neither refused nor replaced once more."""
    scene.lab["master02"].power_cut()
    scene.lab["master02"].reinstall()
    words = ("--member", "master02")
    with unable_to_ask(scene.lab["master01"]):
        failed = run_runbook(prefect, "replace_member", scene.inventory, *words)
        assert failed.status == 1, failed.output
        assert "does not reach the peer port" in failed.output
    member = list_members(scene.lab, "master01")["master02"]["ID"]
    again = run_runbook(prefect, "replace_member", scene.inventory, *words)
    assert again.status == 0, again.output
    assert "is a healthy member in its own place: taken as replaced already" in again.output
    assert "nothing to do" in again.output
    assert "reach the other members on master01" in list_steps(prefect)
    assert list_members(scene.lab, "master01")["master02"]["ID"] == member
    check_cluster(prefect, scene, ["master01", "master02", "master03"])


def test_a_replacement_that_is_typed_again_claims_nothing_of_a_host_that_was_not_asked(
    scene: Scene, prefect: Prefect
) -> None:
    """The dead host is in the inventory no more; it is not called unreachable."""
    scene.lab["master03"].power_cut()
    ended = replace(prefect, scene, "master03", "master04")
    assert ended.status == 0, ended.output
    assert "master03" in ended.output
    assert "its etcd is not stopped" in ended.output
    again = replace(prefect, scene, "master03", "master04")
    assert again.status == 0, again.output
    assert "nothing was asked of its host" in again.output
    assert "cannot be reached" not in again.output
    assert "nothing to do" in again.output
    check_cluster(prefect, scene, ["master01", "master02", "master04"])
