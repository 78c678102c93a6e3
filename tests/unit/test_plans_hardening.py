"""Members that begin nothing without their data: the edit, and the order of the nodes."""

from __future__ import annotations

from dataclasses import replace
from difflib import ndiff
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from tasks.config.editing import name_existing, name_itself_alone
from tasks.config.launch import NotUnderstood
from tasks.config.probes import lengthen_startup, restore_startup
from tasks.config.settings import read_settings
from tasks.model.cluster import ClusterHealth
from tasks.model.endpoints import EndpointHealth, EndpointStatus
from tasks.model.errors import Refused
from tasks.model.histories import first_id
from tasks.model.inventory import Inventory
from tasks.model.member_settings import Settings, SettingsFiles, TextFile
from tasks.model.members import DesiredMember, Member
from tasks.model.nodes import Kubelet, NodeObservation
from tasks.model.observation import DataDirectory, ServiceState, ServiceStatus
from tasks.model.plan import Plan
from tasks.plans.hardening import plan_hardening
from tasks.plans.kubeadm import nodes_left
from tasks.plans.member_changes import plan_members
from tasks.plans.member_hosts import find_leavers
from tasks.plans.nodes import (
    find_obstructions,
    find_paused,
    find_problems,
    find_unsettled,
)
from tasks.plans.refilled import find_refilled
from tests.unit.plan_cases import bare
from tests.unit.test_plans_member_changes import seen, wanted

KUBEADM = Path(__file__).parents[1] / "fixtures" / "settings" / "kubeadm"
RELEASES = ("1.28", "1.31", "1.34", "1.37")
NAMES = ("m1", "m2", "m3")
MEMBERS = tuple(wanted(name, f"10.0.0.{n}") for n, name in enumerate(NAMES, 1))
DIRECTORY, KEPT = "/etc/kubernetes/manifests", "/etc/kubernetes/etcd-runbooks"


def stacked() -> Inventory:
    """Make an inventory of three nodes of kubeadm's."""
    return Inventory.model_validate(
        {
            "name": "c1",
            "topology": "stacked",
            "hosts": [{"name": n, "address": f"10.0.0.{i}"} for i, n in enumerate(NAMES, 1)],
            "etcd": {"version": "3.5.16"},
        }
    )


def manifest(release: str) -> SettingsFiles:
    """Read a release's manifest as the first node has it."""
    text = (KUBEADM / f"{release}.yaml").read_text()
    return SettingsFiles("", "m1", (), (), TextFile(f"{DIRECTORY}/etcd.yaml", text, "0600"))


def changed(before: SettingsFiles, after: SettingsFiles) -> list[str]:
    """List the lines that differ."""
    assert before.manifest
    assert after.manifest
    lines = ndiff(before.manifest.text.splitlines(), after.manifest.text.splitlines())
    return [line for line in lines if line[0] in "+-"]


@pytest.mark.parametrize("release", RELEASES)
def test_one_argument_added_is_one_line_added(release: str) -> None:
    """What is hardened already stays byte for byte."""
    before = manifest(release)
    after = name_itself_alone(before)
    assert changed(before, after) == ["+     - --initial-cluster-state=existing"]
    assert name_itself_alone(after) == after
    assert not read_settings(before).begins_nothing
    assert read_settings(after).begins_nothing


@pytest.mark.parametrize("release", RELEASES)
def test_one_that_joins_names_all_and_is_not_hardened(release: str) -> None:
    """With all their names etcd would ask the others, and vote with an empty log."""
    joining = name_existing(
        manifest(release), (DesiredMember("m", "https://m:2380", "", "master01"), MEMBERS[1])
    )
    text = joining.manifest.text if joining.manifest else ""
    assert "    - --initial-cluster=master01=https://m:2380,m2=https://10.0.0.2:2380\n" in text
    assert not read_settings(joining).begins_nothing
    alone = name_itself_alone(joining)
    assert changed(joining, alone)[1] == "+     - --initial-cluster=master01=https://m:2380"


def test_a_manifest_that_does_not_name_its_member_is_left() -> None:
    """Which entry is its own is not guessed."""
    other = manifest("1.37")
    assert other.manifest
    text = other.manifest.text.replace("--name=master01", "--name=another")
    renamed = SettingsFiles("", "m1", (), (), TextFile("/etcd.yaml", text))
    with pytest.raises(NotUnderstood, match="does not name it once"):
        name_itself_alone(renamed)


def node(name: str, *taken_out: str, **more: Any) -> NodeObservation:  # noqa: ANN401 - any field
    """See a node whose API server or etcd a run may have taken out."""
    files = [f for f in ("etcd.yaml", "kube-apiserver.yaml") if f not in taken_out]
    facts: dict[str, Any] = {
        "host": name,
        "hostname": name,
        "files": tuple(TextFile(f"{DIRECTORY}/{file}", "") for file in files),
        "processes": (),
        "kubelet": Kubelet(True, DIRECTORY, "https://m:6443", True, True),
        "versions": dict.fromkeys(("kubelet", "kubeadm", "containerd"), "1.37.2"),
        "kept": tuple(PurePosixPath(KEPT) / file for file in taken_out),
        "kubeconfigs": {"admin.conf": "https://10.0.0.1:6443"},
    }
    return NodeObservation(**(facts | more))


def health(*ill: str, leader: int = 1) -> ClusterHealth:
    """Make health in which some members are ill."""
    return ClusterHealth(
        tuple(
            EndpointHealth(
                name,
                f"https://10.0.0.{n}:2379",
                name not in ill,
                EndpointStatus(7, n, "3.7.3", leader, 1, 1, 1, 1, 1),
                error="down" if name in ill else None,
            )
            for n, name in enumerate(NAMES, 1)
        ),
        reads_linearizable=True,
    )


def plan(*nodes: NodeObservation, ill: tuple[str, ...] = ()) -> Plan:
    """Plan to harden all of three nodes."""
    by_name = {name: node(name) for name in NAMES} | {n.host: n for n in nodes}
    return plan_hardening(stacked(), MEMBERS, health(*ill), by_name, NAMES)


def test_the_leader_is_last_and_each_api_server_is_told() -> None:
    """One at a time; who asks one node's API server alone is named."""
    made = plan()
    assert [step.host for step in made.steps] == ["m2", "m3", "m1"]
    assert all(stage.is_serial for stage in made.stages())
    assert "API server is away for about 15 s" in made.steps[0].sentence
    assert (
        "m2: admin.conf asks https://10.0.0.1:6443, which is no node's own address" in made.warnings
    )


def test_what_an_earlier_run_took_out_comes_first() -> None:
    """Also where it is the leader's; its member is down, and no other is touched before."""
    made = plan(node("m3", "etcd.yaml", "kube-apiserver.yaml"), ill=("m3",))
    assert [step.host for step in made.steps] == ["m3", "m2", "m1"]
    assert "end what a run has begun there" in made.steps[0].sentence


def test_no_second_member_is_touched_while_one_is_down() -> None:
    """The count that shows it is told."""
    with pytest.raises(Refused, match="1 of 3 members would be healthy, and 2 are needed"):
        plan(ill=("m3",))


def test_one_that_is_hardened_needs_nothing() -> None:
    """No step, no warning."""
    made = plan_hardening(stacked(), MEMBERS, health(), {n: node(n) for n in NAMES}, ())
    assert (made.steps, made.warnings) == ((), ())


def test_a_manifest_that_is_taken_out_is_a_problem_with_its_way_back() -> None:
    """For check_health, show_member and every plan."""
    said = find_problems(node("m1", "etcd.yaml"))
    assert f"mv {KEPT}/etcd.yaml {DIRECTORY}/" in said[0]
    assert "no file of" not in "".join(said)
    assert find_paused([node("m1", "kube-apiserver.yaml"), node("m2", "etcd.yaml")]) == {"m1"}
    (warned,) = find_obstructions(stacked(), [node("m1", "etcd.yaml")], {"m2"})
    assert "taken etcd.yaml out" in warned.sentence
    assert find_obstructions(stacked(), [node("m1", "etcd.yaml")], {"m1"}) == ()


def test_a_wiped_member_is_replaced_on_its_own_node() -> None:
    """Its pods go out, it joins as a learner, and its API server comes back last, as all do."""
    live = (seen(1), seen(2), seen(3, up=False))
    host = bare(
        "m3",
        service=ServiceStatus(ServiceState.INACTIVE, is_enabled=True),
        data=DataDirectory.EMPTY,
        settings=manifest("1.37"),
    )
    joining = (MEMBERS[2],)
    made = plan_members(
        "replace_member",
        stacked(),
        live,
        find_leavers(("m3",), stacked(), live, joining),
        joining,
        {"m1": bare("m1"), "m3": host},
        {},
        planned=False,
        configured=frozenset(),
        outdated={},
        paused=frozenset({"m1", "m3"}),
        unsettled=frozenset({"m3"}),
    )
    assert [(step.host, type(step).__name__) for step in made.steps] == [
        ("m3", "RetireHost"),
        (None, "RemoveMember"),
        (None, "AddLearner"),
        ("m3", "JoinMember"),
        (None, "PromoteMember"),
        ("m3", "SettleMember"),
        ("m1", "ResumeApiserver"),
        ("m3", "ResumeApiserver"),
    ]
    assert "take kube-apiserver.yaml and etcd.yaml out of" in made.steps[0].sentence
    assert f"write {DIRECTORY}/etcd.yaml with exactly the live members" in made.steps[3].sentence


@pytest.mark.parametrize("release", RELEASES)
def test_a_learner_that_needs_long_is_not_killed(release: str) -> None:
    """One line, while it joins; then it is byte for byte as before."""
    before = manifest(release)
    assert lengthen_startup(before, 239) == before
    long = lengthen_startup(before, 1001)
    added = [line for line in changed(before, long) if line[0] == "+"]
    assert added == ["+       failureThreshold: 101 # was 24, while it joins"]
    assert lengthen_startup(long, 5000) == long
    assert restore_startup(long) == before


def test_one_that_is_replaced_and_hardened_has_nothing_to_do() -> None:
    """One that a run has left joined, and one that leaves now, get their manifest as it stays."""
    hardened = node("m1", settings=read_settings(name_itself_alone(manifest("1.37"))))
    joined = node("m2", settings=read_settings(name_existing(manifest("1.37"), MEMBERS)))
    assert find_unsettled([hardened, joined], NAMES, ()) == {"m2"}
    assert find_unsettled([hardened, joined], NAMES, {"m1"}) == {"m1", "m2"}


def test_what_is_left_to_kubeadm_is_said() -> None:
    """Of a node that is gone, and of one whose member leaves."""
    (rebuilt,) = nodes_left(stacked(), {"m3"}, {"m3"})
    assert "kubeadm join --control-plane" in rebuilt
    (leaves,) = nodes_left(stacked(), set(), {"m2"})
    assert "`kubeadm reset` on m2, and `kubectl delete node m2`" in leaves
    assert KEPT in leaves


@pytest.mark.parametrize(
    ("born", "told"),
    [
        ((1_000, 1_060, 1_090), []),
        ((5_000, 1_060, 1_090), ["m1"]),
        ((5_000, 4_950, None), []),
        ((5_000, None, None), []),
        ((None, 1_060, 1_090), []),
        ((1_000, 5_000, 1_090), []),
    ],
    ids=["as it began", "refilled", "soon after", "alone in telling", "nobody knows", "replaced"],
)
@pytest.mark.parametrize("began", [1, 2], ids=["one began it", "restored: all did"])
@pytest.mark.parametrize("is_hard", [False, True], ids=["soft", "hardened"])
def test_a_wiped_leader_that_was_filled_again_is_told(
    born: tuple[int | None, ...], told: list[str], began: int, *, is_hard: bool
) -> None:
    """Its id says that it began the cluster, and members that joined it have older data."""
    rows = tuple(
        Member(first_id((m.peer_url,)) if n < began else n, m.name, (m.peer_url,), (m.client_url,))
        for n, m in enumerate(MEMBERS)
    )
    seen = replace(health().endpoints[0], members=rows)
    found = ClusterHealth((seen,), reads_linearizable=True)
    settings = read_settings(name_itself_alone(manifest("1.37"))) if is_hard else Settings()
    nodes = [node(name, born=at, settings=settings) for name, at in zip(NAMES, born, strict=True)]
    warned = find_refilled(nodes, found)
    assert [f.host for f in warned] == (told if began == 1 and not is_hard else [])
    assert all("younger than those of m2, m3, which joined it" in f.sentence for f in warned)
