"""API servers on members, and a balancer before them, follow them; kubeadm's own ask none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from tasks.config.dependents import edit_apiserver_backend
from tasks.engine.run import Run
from tasks.hosts.batch import Result
from tasks.hosts.nodes import parse_node
from tasks.model.dependents import Moves
from tasks.model.errors import Refused
from tasks.model.member_settings import TextFile
from tasks.model.members import DesiredMember
from tasks.model.nodes import NodeObservation
from tasks.plans.dependents import UpdateNodeApiserver
from tasks.steps.dependents import plan_node_updates
from tests.unit.test_plans_hardening import KEPT, MEMBERS, node, stacked

URLS = tuple(member.client_url for member in MEMBERS)
NEW = DesiredMember("m2", "https://10.0.0.9:2380", "https://10.0.0.9:2379")
MOVED = Moves((URLS[1],), (NEW,), (MEMBERS[0], NEW, MEMBERS[2]))
MANIFEST = """\
apiVersion: v1
kind: Pod
spec:
  containers:
  - command: # ours
    - kube-apiserver
    - --etcd-servers={}
"""


def listing(*urls: str) -> TextFile:
    """Make the manifest of an API server that asks these."""
    text = MANIFEST.format(",".join(urls))
    return TextFile("/etc/kubernetes/etcd-runbooks/kube-apiserver.yaml", text)


def planned(
    *nodes: NodeObservation, leaving: tuple[str, ...] = (), skip: tuple[str, ...] = ()
) -> list[UpdateNodeApiserver]:
    """Plan what follows a member that has moved."""
    run = cast("Run", SimpleNamespace(inventory=stacked()))
    found = plan_node_updates(run, nodes, MOVED, leaving, skip)
    return cast("list[UpdateNodeApiserver]", list(found))


def test_each_that_lists_the_members_is_changed_one_line() -> None:
    """One at a time, out and in; the one on the loopback stays, and so does one that leaves."""
    every = node("m1", kept_files=(listing(*URLS),))
    own = node("m2", kept_files=(listing("https://127.0.0.1:2379"),))
    gone = node("m3", kept_files=(listing(*URLS),))
    (step,) = planned(every, own, gone, leaving=("m3",))
    assert step.host == "m1"
    assert step.stage.is_serial
    assert "away for about 15 s" in step.sentence
    assert step.text == listing(URLS[0], NEW.client_url, URLS[2]).text
    assert planned(every, skip=("kube_apiservers",)) == []


def test_one_that_is_not_understood_is_refused_with_the_way_around() -> None:
    """Two lists are no list."""
    twice = TextFile("/kube-apiserver.yaml", listing(*URLS).text + "    - --etcd-servers=x\n")
    with pytest.raises(Refused, match=r"2 lines set --etcd-servers.*skip: kube_apiservers"):
        planned(node("m1", kept_files=(twice,)))


def test_a_manifest_that_is_out_is_seen_with_its_text() -> None:
    """A node whose API server a run has taken out is changed like the others."""
    text = f"kept={KEPT}/kube-apiserver.yaml\nout=YTogMQo=\n"
    seen = parse_node("m1", Result("", 0, text, "", 0.0))
    assert seen.apiserver == TextFile(f"{KEPT}/kube-apiserver.yaml", "a: 1\n")


SECTION = """\
listen api
    bind :6443
    server m1 10.0.0.1:6443 check
    server m2 10.0.0.2:6443 check
    server m3 10.0.0.3:{port} check
"""


@pytest.mark.parametrize(("port", "follows"), [(6443, True), (8443, False)])
def test_a_balancer_before_the_api_servers_follows(port: int, *, follows: bool) -> None:
    """At their port; servers at several ports are something else."""
    before = SECTION.format(port=port)
    after = before.replace("10.0.0.2", "10.0.0.9") if follows else before
    assert edit_apiserver_backend(before, "api", MOVED) == after
