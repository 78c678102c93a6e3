"""Judging control-plane nodes: what the kubelet does not tell by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from pydantic import ValidationError

from tasks.hosts.batch import Result
from tasks.hosts.nodes import parse_node
from tasks.model.adoption import FoundEtcd
from tasks.model.cluster import ClusterHealth
from tasks.model.errors import Refused
from tasks.model.inventory import Inventory
from tasks.model.member_settings import TextFile
from tasks.model.members import Member
from tasks.model.nodes import EtcdProcess, Kubelet, NodeObservation
from tasks.plans.adopted_files import name_hosts
from tasks.plans.adoption import adopt, find_pairs
from tasks.plans.adoption_remarks import authority_remarks, find_remarks
from tasks.plans.kubeadm import refuse_bootstrap
from tasks.plans.nodes import find_problems, judge_nodes
from tasks.plans.nodes import find_remarks as remarks_of
from tasks.procedures.adopted_settings import take_pod
from tasks.steps.nodes import read_node

FIXTURES = Path(__file__).parents[1] / "fixtures" / "settings" / "kubeadm"
DIRECTORY = "/etc/kubernetes/manifests"
ETCD = (FIXTURES / "1.37.yaml").read_text()
WORDS = tuple(
    line.strip()[2:] for line in ETCD.splitlines() if line.startswith(("    - etcd", "    - --"))
)
UNSEEN = ClusterHealth((), reads_linearizable=False)
VERSIONS = {"kubelet": "1.37.2", "kubeadm": "1.37.2", "containerd": "1.6.20", "crio": None}


def node(
    files: dict[str, str] | None = None,
    words: tuple[str, ...] = WORDS,
    pod: str = "kube-system_etcd-master01_c0ffee",
    *,
    seen: bool | None = True,
    directory: str | None = DIRECTORY,
) -> NodeObservation:
    """Make what is seen of a node as kubeadm 1.37 leaves it."""
    texts = {"etcd.yaml": ETCD, "kube-apiserver.yaml": api()} if files is None else files
    return read_node(
        NodeObservation(
            host="master01",
            hostname="master01",
            files=tuple(TextFile(f"{DIRECTORY}/{name}", text) for name, text in texts.items()),
            processes=(EtcdProcess(7, pod, "kubepods/x", 1, "root", "3.7.3", words, {}),),
            kubelet=Kubelet(
                directory is not None, directory, "https://m:6443", seen or False, seen
            ),
            versions=VERSIONS,
        )
    )


def api() -> str:
    """Read the API server's manifest."""
    return (FIXTURES / "kube-apiserver.yaml").read_text()


def test_a_node_as_kubeadm_leaves_it_is_sound() -> None:
    """Alone, it may name itself alone; its process is what the manifest says."""
    assert find_problems(node()) == ()
    assert remarks_of(node(), 1) == ()
    found = node()
    assert found.process is not None
    assert found.running is not None
    assert found.running.value("name") == "master01"


def test_manifest_backup() -> None:
    """The copy in the same directory is what the kubelet runs; edits of etcd.yaml do nothing."""
    (said,) = find_problems(node({"etcd.yaml": ETCD, "etcd.yaml.backup": ETCD}))
    assert "etcd.yaml and /etc/kubernetes/manifests/etcd.yaml.backup are the same pod" in said
    assert "the kubelet runs /etc/kubernetes/manifests/etcd.yaml.backup" in said
    assert find_problems(node({"etcd.yaml": ETCD, ".etcd.yaml.backup": ETCD})) == ()


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (node({}), "no file of the static pods' directory is etcd's pod"),
        (node(pod="default_etcd-0_c0ffee"), "no etcd of that pod runs"),
        (node(pod="kube-system_etcd-events-master01_c0ffee"), "no etcd of that pod runs"),
        (node(words=(*WORDS, "--snapshot-count=5")), "says --snapshot-count=10000, and what runs"),
        (node(seen=False), "has not met its API server (https://m:6443)"),
        (node(directory=None), "the kubelet does not run"),
        (node(directory="/etc/k/m/"), "reads its pods in /etc/k/m/, and not in /etc/kubernetes"),
        (
            node({"etcd.yaml": ETCD.replace("--name=master01", "--name=$(X)")}),
            "its manifest is not understood: /etc/kubernetes/manifests/etcd.yaml:26",
        ),
    ],
)
def test_what_is_not_as_the_files_say(seen: NodeObservation, said: str) -> None:
    """One sentence each."""
    (found,) = find_problems(seen)
    assert said in found


def test_a_kubelet_of_which_nothing_is_told_is_no_finding() -> None:
    """Its journal may be gone, and anonymous requests forbidden."""
    assert find_problems(node(seen=None)) == ()


def test_the_split_brain_that_kubeadm_leaves_on_disk() -> None:
    """Itself alone without a state, where there are others: the first node, and after upgrades."""
    assert "names this member alone" in remarks_of(node(), 3)[0]
    all_named = ETCD.replace("--initial-cluster=", "--initial-cluster=m2=https://10.0.0.2:2380,")
    assert "votes with an empty log" in remarks_of(node({"etcd.yaml": all_named}), 3)[0]
    hardened = ETCD.replace("    - --key", "    - --initial-cluster-state=existing\n    - --key", 1)
    assert remarks_of(node({"etcd.yaml": hardened}), 3) == ()


def test_what_is_missing_on_a_node_is_named() -> None:
    """And what the kubelet logs alone: a file that is no pod."""
    bare = replace(
        node({"etcd.yaml": ETCD, "old": ""}, directory=None), versions=dict.fromkeys(VERSIONS)
    )
    ignored, kubeadm = remarks_of(bare, 1)
    assert ignored == "the kubelet does not take /etc/kubernetes/manifests/old: it is empty"
    assert kubeadm.startswith("there is no kubeadm, which makes a node anew")
    assert find_problems(bare) == (
        "there is no kubelet, which alone starts what is put in",
        "no container runtime runs (containerd, crio): nothing would start again",
    )
    (stale,) = remarks_of(replace(node(), versions=VERSIONS | {"kubeadm": "1.36.0"}), 1)
    assert stale.startswith("kubeadm is 1.36.0 and the kubelet 1.37.2: ")


def test_hostpath_restored_is_told_where_the_inventory_has_the_old_data() -> None:
    """The live data are where the volume says."""
    text = ETCD.replace("path: /var/lib/etcd\n", "path: /var/lib/etcd-from-backup\n")
    content = {
        "name": "c1",
        "topology": "stacked",
        "hosts": [{"name": "master01", "address": "10.0.0.1"}],
        "etcd": {"version": "3.7.3"},
    }
    restored = node({"etcd.yaml": text})
    (said,) = judge_nodes(Inventory.model_validate(content), (restored,), UNSEEN).problems
    assert "/var/lib/etcd-from-backup, and the inventory says /var/lib/etcd" in said
    content["paths"] = {"data_directory": "/var/lib/etcd-from-backup"}
    assert not judge_nodes(Inventory.model_validate(content), (restored,), UNSEEN).problems


@pytest.mark.parametrize(
    ("said", "has_seen"),
    [
        ("", None),
        ("said=Kubelet version\n", False),
        ("said=Kubelet version\nsaid=Successfully registered node\n", True),
        ("said=Node was previously registered\n", True),
        ("ready=yes\n", True),
    ],
)
def test_whether_a_kubelet_has_met_its_api_server(said: str, has_seen: bool | None) -> None:
    """By what it logged since it started; a journal that has lost that tells nothing."""
    text = f"hostname=m\ndirectory=/etc/kubernetes/manifests\napi=https://m:6443\n{said}"
    assert parse_node("m", Result("", 0, text, "", 0.0)).kubelet.has_seen_api is has_seen


ADDRESSES = {f"master0{n}": f"10.0.0.{n}" for n in (1, 2, 3)}


def etcd(number: int, old: str = "", new: str = "", *, with_words: bool = False) -> FoundEtcd:
    """Make what an adoption finds of a node; the manifest may be another one."""
    own = {"master01": f"master0{number}", "10.0.0.1": f"10.0.0.{number}"}
    assert old in ETCD
    text, words = ETCD.replace(old, new, 1) if old else ETCD, WORDS
    for before, after in own.items():
        text = text.replace(before, after)
        words = tuple(word.replace(before, after) for word in words)
    if with_words:
        words = tuple(word.replace(old, new) for word in words)
    made = take_pod(replace(node({"etcd.yaml": text}, words), host=f"master0{number}"))
    members = tuple(Member(n, f"master0{n}", (f"https://10.0.0.{n}:2380",), ()) for n in (1, 2, 3))
    return replace(made, pairs=find_pairs(made), members=members)


def adopted(*etcds: FoundEtcd) -> Inventory:
    """Adopt, and read the inventory back as it is written."""
    made = Inventory.model_validate(adopt("k1", etcds, ADDRESSES, {}, frozenset(ADDRESSES)))
    return Inventory.model_validate(made.model_dump(mode="json", exclude_defaults=True))


def test_what_kubeadm_made_is_adopted_as_the_preset() -> None:
    """Nothing of it is asked for: neither a unit nor an authority's passphrase."""
    made = adopted(*map(etcd, (1, 2, 3)))
    assert made.paths.model_fields_set <= {"pairs", "trusted"}
    assert made.authority.on_hosts
    layout = made.layout("master02")
    assert [pair.label for pair in layout.pairs] == [
        "etcd-server",
        "etcd-peer",
        "etcd-healthcheck-client",
        "apiserver-etcd-client",
    ]
    assert str(layout.manifest) == f"{DIRECTORY}/etcd.yaml"
    assert str(layout.data) == "/var/lib/etcd"
    assert layout.authority is not None
    assert str(layout.authority.key) == "/etc/kubernetes/pki/etcd/ca.key"


def test_an_adopted_pods_files_are_the_hosts() -> None:
    """The directory that was restored, and certificates behind another mount."""
    data = ("path: /var/lib/etcd\n", "path: /srv/etcd\n")
    assert str(adopted(*(etcd(n, *data) for n in (1, 2, 3))).layout("master01").data) == "/srv/etcd"
    pki = ("path: /etc/kubernetes/pki/etcd\n", "path: /srv/pki\n")
    layout = adopted(*(etcd(n, *pki) for n in (1, 2, 3))).layout("master01")
    assert {str(path.parent) for path in layout.credentials} == {"/srv/pki", "/etc/kubernetes/pki"}
    assert layout.authority is not None
    assert str(layout.authority.key) == "/srv/pki/ca.key"


@pytest.mark.parametrize(
    ("etcds", "said"),
    [
        ((etcd(1), etcd(2)), "the member master03 .* is in the member list"),
        (
            (etcd(1), etcd(2), etcd(3, "mountPath: /var/lib/etcd", "mountPath: /x")),
            "--data-dir=/var/lib/etcd lies in no volume of the host's",
        ),
        (
            (etcd(1), etcd(2), etcd(3, "--name=", "--name=$(X)")),
            "its settings cannot be read: .*etcd.yaml:26",
        ),
    ],
)
def test_what_cannot_be_adopted_is_refused(etcds: tuple[FoundEtcd, ...], said: str) -> None:
    """With the host's name."""
    with pytest.raises(Refused, match=said):
        adopted(*etcds)


def test_files_of_one_pod_keep_a_node_from_being_adopted() -> None:
    """Which of them counts is not to be guessed at."""
    stray = take_pod(node({"etcd.yaml": ETCD, "etcd.yaml.bak": ETCD}))
    assert any("are the same pod" in reason for reason in stray.unknown)


def test_remarks_of_an_adopted_node() -> None:
    """The key stays where it is; the split brain on disk is told of its node alone."""
    key = "/etc/kubernetes/pki/etcd/ca.key"
    found = [replace(etcd(n), keys_of_authority=(key,)) for n in (1, 2)]
    state = ("    - --key-file", "    - --initial-cluster-state=existing\n    - --key-file")
    found.append(etcd(3, *state))
    remarks = find_remarks(name_hosts(tuple(found), frozenset(ADDRESSES)))
    assert [r.partition(":")[0] for r in remarks] == ["master01, master02"]
    assert "names this member alone" in remarks[0]
    assert "on master01, master02" in authority_remarks(tuple(found))[0]
    assert "external one" in authority_remarks(tuple(found[2:]))[0]


def test_bootstrap_is_kubeadms_own() -> None:
    """With its commands, before anything is changed; an external cluster is not refused."""
    with pytest.raises(Refused, match="bootstrap_cluster makes no nodes: `kubeadm init`"):
        refuse_bootstrap(adopted(*map(etcd, (1, 2, 3))))
    content = {
        "name": "c1",
        "hosts": [{"name": "m1"}],
        "etcd": {"version": "3.5.16"},
        "authority": {"certificate": "a", "key": "b", "passphrase": {"env": "CA"}},
    }
    refuse_bootstrap(Inventory.model_validate(content))


def test_an_etcd_for_events_is_not_the_nodes_own() -> None:
    """Its pod's name begins like etcd's; a node may have another name than its host."""
    own = "kube-system_etcd-events-master01_c0ffee"
    assert node(pod=own).process is None
    renamed = replace(node(pod="kube-system_etcd-n1.example_c0ffee"), node="n1.example")
    assert renamed.process is not None


def test_a_lost_manifest_is_told_with_where_kubeadm_keeps_it() -> None:
    """One that a run has taken out is not lost."""
    lost = node({"kube-apiserver.yaml": api()})
    (said,) = find_problems(lost)
    assert "/etc/kubernetes/tmp/kubeadm-backup-manifests-*/etcd.yaml" in said
    assert "kubeadm init phase etcd local" in said
    kept = PurePosixPath("/etc/kubernetes/etcd-runbooks/etcd.yaml")
    (said,) = find_problems(replace(lost, kept=(kept,)))
    assert "it goes on from there, or put it back" in said


@pytest.mark.parametrize(
    ("topology", "content", "said"),
    [
        ("stacked", {"paths": {"unit": "/etc/systemd/system/etcd.service"}}, "paths.unit: stacked"),
        ("stacked", {"certificates": {"client": {"common_name": "x"}}}, "certificates: stacked"),
        ("external", {"paths": {"manifest": "/m/etcd.yaml"}}, "paths.manifest: external"),
    ],
)
def test_a_topology_is_not_told_what_it_has_not(
    topology: str, content: dict[str, object], said: str
) -> None:
    """It would have no effect."""
    base = {
        "name": "k",
        "topology": topology,
        "hosts": [{"name": "a"}],
        "etcd": {"version": "3.7.3"},
    }
    base |= {"authority": {"certificate": "a", "key": "b", "passphrase": {"env": "CA"}}}
    Inventory.model_validate(base)
    with pytest.raises(ValidationError, match=f"{said} clusters have no such thing"):
        Inventory.model_validate(base | content)
