"""Images of static pods' etcd: which, who owns them, and one line of a manifest changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tasks.config.images import name_image, read_configuration, read_image
from tasks.config.translation import translate
from tasks.hosts.batch import Result
from tasks.hosts.images import failed_sentence, parse_configuration, parse_installed
from tasks.model.errors import Refused, Transient
from tasks.model.kubeadm import ClusterConfiguration, Installed
from tasks.model.plan import Severity
from tasks.model.upgrades import LogRemnants
from tasks.plans.images import choose_images, version_of
from tasks.plans.upgrade_findings import find_down, find_findings
from tasks.plans.upgrade_routes import find_route
from tasks.plans.upgrades import UpgradeMember, Work
from tests.unit.test_plans_hardening import RELEASES, changed, manifest
from tests.unit.test_plans_upgrades import plan, upgrades, weighed

TOLD = """\
apiServer: {}
apiVersion: kubeadm.k8s.io/v1beta4
etcd:
  local:
    dataDir: /var/lib/etcd
    imageTag: 3.7.3-0
imageRepository: registry.example/k8s
kind: ClusterConfiguration
kubernetesVersion: v1.34.4
"""
NOW = dict.fromkeys(("m1", "m2"), "registry.k8s.io/etcd:3.6.16-0")
KUBEADM = Installed("1.34.4", "registry.k8s.io/etcd:3.6.5-0")
RUNNING = dict.fromkeys(NOW, "3.6.16")


@pytest.mark.parametrize("release", RELEASES)
def test_an_image_changed_is_one_line_changed(release: str) -> None:
    """The same image stays byte for byte."""
    before = manifest(release)
    assert before.manifest
    was = read_image(before.manifest)
    after = name_image(before, "registry.example/k8s/etcd:3.7.3-0")
    assert changed(before, after) == [
        f"-     image: {was}",
        "+     image: registry.example/k8s/etcd:3.7.3-0",
    ]
    assert name_image(before, was) == before
    assert name_image(after, was) == before


def test_what_kubeadm_was_told_is_read_with_its_own_defaults() -> None:
    """Etcd's own repository counts before the cluster's."""
    assert read_configuration(TOLD).image == "registry.example/k8s/etcd:3.7.3-0"
    own = TOLD.replace("    imageTag", "    imageRepository: other.example/\n    imageTag")
    assert read_configuration(own).image == "other.example/etcd:3.7.3-0"
    bare = read_configuration("kubernetesVersion: v1.37.2\netcd: {local: {}}\n")
    assert bare == ClusterConfiguration("registry.k8s.io", "")
    assert bare.image == ""


def test_a_configuration_that_is_not_there_is_no_answer_that_failed() -> None:
    """404 is kubeadm's absence; everything else is unknown."""

    def parse(said: str) -> str | None:
        return parse_configuration(Result("ask", 0, said, "", 0.0))

    assert parse('{"kind": "Status"}\n404') is None
    assert parse('{"data": {"ClusterConfiguration": "a: b"}}\n200') == "a: b"
    for said in ("\n000", '{"kind": "Status"}\n401', "", '{"data": null}\n200'):
        with pytest.raises(Transient):
            parse(said)
    with pytest.raises(Refused, match="create rolebinding kubeadm:nodes-kubeadm-config --role="):
        parse('{"kind": "Status"}\n403')


@pytest.mark.parametrize(
    ("told", "now", "wanted"),
    [
        (ClusterConfiguration(tag="3.7.3-0"), {}, "registry.k8s.io/etcd:3.7.3-0"),
        (ClusterConfiguration(tag="v3.7.3"), {}, "registry.k8s.io/etcd:v3.7.3"),
        (None, {}, "registry.k8s.io/etcd:3.7.3-0"),
        (None, {"m2": "registry.k8s.io/etcd:3.7.3-0"}, "registry.k8s.io/etcd:3.7.3-0"),
    ],
)
def test_the_image_is_the_pinned_one_or_alike(
    told: ClusterConfiguration | None, now: dict[str, str], wanted: str
) -> None:
    """Without kubeadm the tag's version is changed, also where a run has begun."""
    choice = choose_images("3.7.3", told, NOW | now, RUNNING, KUBEADM)
    assert set(choice.images.values()) == {wanted}
    assert choice.refusal == ""
    assert choice.warning.startswith("kubeadm 1.34.4 is there, but no ConfigMap") is (told is None)
    assert choose_images("3.7.3", told, NOW | now, RUNNING, Installed()).warning == ""


@pytest.mark.parametrize(
    ("told", "now", "said"),
    [
        (ClusterConfiguration(), {}, "`kubeadm upgrade apply vVERSION`, on each other (m2)"),
        (ClusterConfiguration(tag="3.6.5-0"), {}, "pins etcd.local.imageTag: 3.6.5-0"),
        (None, {"m2": "registry.k8s.io/etcd:3.6.5-0"}, "m2: which image has etcd 3.7.3"),
        (None, {"m2": "registry.k8s.io/etcd@sha256:3.6.16"}, "m2: which image has etcd 3.7.3"),
        (None, {"m2": "etcd:latest"}, "no ConfigMap kube-system/kubeadm-config that says it"),
    ],
)
def test_an_image_that_somebody_else_owns_or_nobody_knows_is_not_written(
    told: ClusterConfiguration | None, now: dict[str, str], said: str
) -> None:
    """The way out is said."""
    assert said in choose_images("3.7.3", told, NOW | now, RUNNING, KUBEADM).refusal


def test_the_release_that_is_installed_is_named_with_what_it_brings() -> None:
    """Where it brings what is wanted, the command is whole."""

    def said(text: str) -> str:
        told = parse_installed(Result("ask", 0, text, "", 0.0))
        return choose_images("3.7.3", ClusterConfiguration(), NOW, RUNNING, told).refusal

    brings = "v1.38.0\nregistry.k8s.io/etcd:3.7.3-0\n"
    assert "`kubeadm upgrade apply v1.38.0`, on each other (m2) `kubeadm" in said(brings)
    assert "etcd 3.7.3: on m1 `kubeadm upgrade plan` and `kubeadm upgrade apply vV" in said("")
    other = said("v1.37.2\nregistry.k8s.io/etcd:3.7.0-0\n")
    assert "1.37.2, which is installed, brings registry.k8s.io/etcd:3.7.0-0" in other
    assert "apply vVERSION" in other


@pytest.mark.parametrize(
    ("status", "said", "why"),
    [
        (1, "E1128 a line\npulling image: not found\n", "had there: pulling image: not found\n"),
        (1, r'time="now" level=error msg="pulling: \"x\": EOF"', 'had there: pulling: "x": EOF\n'),
        (124, "", "had there: not within 300 s\n"),
        (137, "", "had there: status 137\n"),
    ],
)
def test_an_image_that_cannot_be_had_is_said_with_the_ways_to_it(
    status: int, said: str, why: str
) -> None:
    """The runtime's last line is the reason."""
    told = failed_sentence("registry.k8s.io/etcd:3.7.3-0", status, said)
    assert why in told
    assert "`crictl pull registry.k8s.io/etcd:3.7.3-0` there tells" in told


def test_what_kubeadm_has_done_already_is_not_asked_for_again() -> None:
    """Between two nodes its command for the rest alone is said."""
    said = choose_images("3.7.3", ClusterConfiguration(), NOW, RUNNING | {"m1": "3.7.3"}, KUBEADM)
    assert "m1 has etcd 3.7.3 already, and m2 not yet" in said.refusal
    assert "on m2 it is `kubeadm upgrade node`" in said.refusal
    assert "apply" not in said.refusal


@pytest.mark.parametrize("release", ["1.28", "1.31"])
def test_arguments_of_older_manifests_are_translated_with_the_image(release: str) -> None:
    """Those that 3.7 does not know."""
    before = manifest(release)
    done = translate(before, (3, 7))
    after = name_image(done.files, "registry.k8s.io/etcd:3.7.3-0")
    assert done.faults == ()
    assert [line for line in changed(before, after) if line[0] == "+"] == [
        "+     - --feature-gates=InitialCorruptCheck=true",
        "+     - --watch-progress-notify-interval=5s",
        "+     image: registry.k8s.io/etcd:3.7.3-0",
    ]


def test_a_port_of_a_registry_is_no_version() -> None:
    """The tag is what follows the last colon."""
    assert version_of("10.0.0.1:5000/etcd:3.5.16-0") == "3.5.16"
    assert version_of("10.0.0.1:5000/etcd") == ""


def pod(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - any field
    """Make what an upgrade sees of a static pod."""
    image = "registry.k8s.io/etcd:{}-0"
    return {"program": image.format("3.6.16"), "image": image.format("3.7.3"), **changes}


def test_pods_get_images_and_nothing_is_put_beside() -> None:
    """Fetched on all nodes first; one node at a time, the leader last."""
    seen = weighed("3.7.3", "3.6.16", {name: pod() for name in ("m1", "m2", "m3")})
    made = plan(seen)
    kinds = [type(step).__name__ for step in made.in_order()]
    hop = ["UpgradeMember"] * 3 + ["AwaitVersion", "CompareData"]
    assert kinds == ["FetchImage"] * 3 + hop
    assert [name for name, _, _ in upgrades(made)] == ["m2", "m3", "m1"]
    said = next(step.sentence for step in made.steps if isinstance(step, UpgradeMember))
    assert "make its image registry.k8s.io/etcd:3.7.3-0" in said


def test_a_node_that_a_run_left_out_is_gone_on_with() -> None:
    """Before all others, also where every member runs the version."""
    hosts = {name: pod() for name in ("m1", "m2", "m3")}
    hosts["m3"] = pod(running=None, disk="3.6.16", taken_out=True)
    seen = weighed("3.7.3", "3.6.16", hosts)
    ill = replace(seen.health.endpoints[2], is_healthy=False, status=None, error="is down")
    health = replace(seen.health, endpoints=(*seen.health.endpoints[:2], ill))
    seen = replace(seen, health=health)
    assert find_down(seen) == {"m3"}
    assert [name for name, _, _ in upgrades(plan(seen))] == ["m3", "m2", "m1"]
    left = weighed("3.7.3", "3.7.3", {"m2": pod(taken_out=True)})
    assert [name for name, _, _ in upgrades(plan(left))] == ["m2"]


def test_a_pod_whose_log_ends_the_version_is_refused() -> None:
    """No snapshot of its log is forced there."""
    hosts = {"m1": pod(log=LogRemnants(own=3))}
    found = find_findings(weighed("3.7.3", "3.6.16", hosts), ())
    refused = [f for f in found if f.severity is Severity.REFUSAL]
    assert [f.host for f in refused] == ["m1"]
    assert "its log holds what etcd 3.7 ends for" in refused[0].sentence
    assert not [
        f
        for f in find_findings(weighed("3.6.16", "3.7.3", hosts), ())
        if f.severity is Severity.REFUSAL
    ]


def test_a_pod_that_serves_the_v2_api_is_refused() -> None:
    """It is no step of a pod's upgrade to end it."""
    seen = weighed("3.6.16", hosts={"m2": pod(has_v2_api=True)})
    refused = [f for f in find_findings(seen, ()) if f.severity is Severity.REFUSAL]
    assert [f.host for f in refused] == ["m2"]
    assert "take --enable-v2 out of its manifest first" in refused[0].sentence


def test_a_way_over_images_names_the_version_that_comes_first() -> None:
    """There are no programs to be named."""
    with pytest.raises(Refused, match=r"make one from 3.6.11 on etcd.version first, with its im"):
        find_route({"m1": "3.6.5"}, (3, 6), "3.7.3", (), by_images=True)
    route = find_route({"m1": "3.6.16"}, (3, 6), "3.7.3", (), by_images=True)
    assert Work(route).route.versions == ("3.7.3",)
