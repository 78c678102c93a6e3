"""What of a stacked cluster is kubeadm's own, and what recovery and a new address do there."""

from __future__ import annotations

import re
from dataclasses import replace
from difflib import ndiff

import pytest
from pydantic import ValidationError

from tasks.config.alike import etcd_alike, other_address
from tasks.config.annotations import readdress_annotation
from tasks.config.dependents import edit_etcd_servers
from tasks.config.editing import name_at_its_address, name_itself_alone, readdress
from tasks.config.probes import lengthen_startup, restore_startup
from tasks.hosts.kubelet import StaticPod
from tasks.model.dependents import Moves
from tasks.model.errors import Refused
from tasks.model.inventory import Inventory
from tasks.model.layout import MANIFEST
from tasks.model.members import Member, SeenMember
from tasks.plans.kubeadm import address_left, refuse_to_join
from tasks.plans.member_changes import plan_move
from tasks.plans.recovery import Damage, ReviveApiserver, plan_recovery
from tests.unit.plan_cases import bare
from tests.unit.test_plans_hardening import (
    KUBEADM,
    MEMBERS,
    NAMES,
    RELEASES,
    changed,
    manifest,
    node,
    stacked,
)
from tests.unit.test_plans_member_changes import wanted

LIVE = tuple(
    SeenMember(
        Member(number, m.member, (m.peer_url,), (m.client_url,)), is_healthy=True, host=m.name
    )
    for number, m in enumerate(MEMBERS, 1)
)


def test_recovered_api_servers_come_last_and_kubeadms_part_is_said() -> None:
    """Those whose trusted file changes are started anew."""
    damage = Damage(has_expired_authority=False, distrusting=("m2",), work={}, down=NAMES)
    plan = plan_recovery(stacked(), damage, None, {}, consent=False)
    revived = [step for step in plan.in_order() if isinstance(step, ReviveApiserver)]
    assert plan.in_order()[-3:] == tuple(revived)
    assert [step.host for step in revived if step.restarts] == ["m2"]
    assert "kubeadm certs renew all" in plan.warnings[0]


def test_a_new_node_is_kubeadms_and_whether_it_may_join_is_said() -> None:
    """A member that is down is named with the command that takes it out."""
    with pytest.raises(Refused, match=r"`kubeadm join --control-plane`.*3 of 3 members are heal"):
        refuse_to_join(stacked(), {"m4"}, LIVE)
    down = (replace(LIVE[0], is_healthy=False), *LIVE[1:])
    with pytest.raises(Refused, match="first bring back or remove m1"):
        refuse_to_join(stacked(), {"m4"}, down)


def test_the_annotation_follows_the_address_and_nothing_else_changes() -> None:
    """Kubeadm's other commands dial what it says; a manifest without it stays."""
    before = manifest("1.37")
    after = readdress_annotation(before, "https://10.0.0.9:2379")
    _, line = changed(before, after)
    assert line == "+     kubeadm.kubernetes.io/etcd.advertise-client-urls: https://10.0.0.9:2379"
    assert readdress_annotation(after, "https://10.0.0.9:2379") == after


def test_a_new_address_is_written_by_the_kubelets_laws() -> None:
    """Pairs first; then the list; the manifest while both are out; the API server last."""
    moved = wanted("m2", "10.0.0.9")
    work = {"m2": {"etcd-server": ("it does not name 10.0.0.9",), "etcd-peer": ()}}
    plan = plan_move(
        stacked(),
        LIVE,
        moved,
        bare("m2"),
        None,
        work,
        restarts=True,
        outdated={},
        further=(),
        warnings=(),
    )
    kinds = [type(step).__name__ for step in plan.in_order()]
    assert kinds == [
        "StageLeaves",
        "SwapLeaves",
        "UpdateMember",
        "ReaddressMember",
        "ResumeApiserver",
    ]
    said = next(s.sentence for s in plan.steps if type(s).__name__ == "ReaddressMember")
    assert said.startswith("take kube-apiserver.yaml and etcd.yaml out of")
    (left,) = address_left(stacked(), [node("m2", kubeconfigs={"kubelet.conf": "x"})], moved)
    assert "kubelet.conf where they name the former address" in left


def test_its_own_entry_of_the_initial_cluster_has_the_new_address() -> None:
    """Or a wiped one would end for another reason than it shall; once is enough."""
    before, own = manifest("1.37"), wanted("m1", "10.0.0.9")
    moved = replace(own, member="master01")
    after = name_at_its_address(before, moved)
    assert changed(before, after)[1] == "+     - --initial-cluster=master01=https://10.0.0.9:2380"
    assert name_at_its_address(after, moved) == after
    assert name_at_its_address(before, own) == before


@pytest.mark.parametrize("release", RELEASES)
def test_an_edit_that_has_nothing_to_do_changes_no_byte(release: str) -> None:
    """Of any release's manifest: the same address, a probe that is long enough, its own etcd."""
    before = manifest(release)
    hardened = name_itself_alone(before)
    own = replace(wanted("m1", "10.0.0.1"), member="master01")
    former = (own.peer_url, own.client_url)
    assert readdress(before, own, former) == before
    assert readdress_annotation(before, own.client_url) == before
    assert lengthen_startup(before, 0) == restore_startup(before) == before
    assert name_itself_alone(restore_startup(hardened)) == hardened
    apiserver = (KUBEADM / "kube-apiserver.yaml").read_text()
    moves = Moves((own.client_url,), (MEMBERS[1],), MEMBERS)
    assert edit_etcd_servers(apiserver, moves) == (apiserver, "https://127.0.0.1:2379")


def test_a_kubelet_that_must_not_be_restarted_is_not() -> None:
    """Its back-off is waited for; a deaf one is told before anything is taken out."""
    pod = StaticPod(MANIFEST, restarts_kubelet=False)
    commands = (
        pod.restart_command(),
        pod.stop_command(),
        pod.pause_command(),
        pod.resume_command(),
        *pod.revive_apiserver_commands(restarts=True),
    )
    assert not [c.name for c in commands if re.search("systemctl (restart|stop)", c.script)]
    assert "within 330 s" in pod.restart_command().script
    assert "(restarts_kubelet)" in pod.stop_command().script
    free = StaticPod(MANIFEST)
    assert "systemctl restart kubelet" in free.restart_command().script


def test_an_external_cluster_has_no_kubelet() -> None:
    """The option is refused there."""
    content = {
        "name": "c1",
        "hosts": [{"name": "m1"}],
        "etcd": {"version": "3.5.16"},
        "authority": {"certificate": "a", "key": "b", "passphrase": {"env": "CA"}},
        "restarts_kubelet": False,
    }
    with pytest.raises(ValidationError, match="restarts_kubelet: external clusters have no such"):
        Inventory.model_validate(content)


def test_a_lost_manifest_is_written_as_on_another_node() -> None:
    """Its own name and addresses, and it begins nothing; all else as kubeadm wrote it."""
    before = manifest("1.37").manifest
    assert before is not None
    model, own = replace(MEMBERS[0], member="master01"), wanted("m2", "10.0.0.21")
    after = etcd_alike(before, model, own, "/k/etcd.yaml")
    lines = list(ndiff(before.text.splitlines(), after.text.splitlines()))
    assert [line[6:] for line in lines if line[0] == "+"] == [
        "kubeadm.kubernetes.io/etcd.advertise-client-urls: https://10.0.0.21:2379",
        "- --advertise-client-urls=https://10.0.0.21:2379",
        "- --initial-advertise-peer-urls=https://10.0.0.21:2380",
        "- --initial-cluster=m2=https://10.0.0.21:2380",
        "- --initial-cluster-state=existing",
        "- --listen-client-urls=https://127.0.0.1:2379,https://10.0.0.21:2379",
        "- --listen-peer-urls=https://10.0.0.21:2380",
        "- --name=m2",
    ]
    assert other_address("10.0.0.1 10.0.0.11 110.0.0.1", model, own) == (
        "10.0.0.21 10.0.0.11 110.0.0.1"
    )
