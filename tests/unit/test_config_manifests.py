"""Manifests of etcd's pod as kubeadm has written them: read, and edited by one line."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import pytest
from ruamel.yaml import YAML

from tasks.config.launch import NotUnderstood
from tasks.config.pods import read_mounts, read_pods
from tasks.config.settings import edit_settings, read_settings
from tasks.model.member_settings import TextFile
from tests.unit.settings_files import MANIFEST, of_manifest

FIXTURES = Path(__file__).parents[1] / "fixtures" / "settings" / "kubeadm"
RELEASES = ("1.28", "1.31", "1.34", "1.37")
MOUNT = "name: etcd-data\n  hostNetwork"
PKI = PurePosixPath("/etc/kubernetes/pki/etcd")


def read(name: str) -> str:
    """Read a manifest."""
    return (FIXTURES / f"{name}.yaml").read_text()


def as_json() -> str:
    """Write kubeadm's as JSON, which the kubelet takes as well."""
    return json.dumps(YAML(typ="safe").load(read("1.37")), indent=2)


def in_flow() -> str:
    """Write its command as one line."""
    text = read("1.37")
    start, end = text.index("  - command:\n"), text.index("    image:")
    words = [line.strip()[2:] for line in text[start:end].splitlines()[1:]]
    listed = ", ".join(f"'{word}'" for word in words)
    return f"{text[:start]}  - command: [{listed}]\n{text[end:]}"


def in_two_lists() -> str:
    """Give its flags as arguments, some of them in quotes, with comments between."""
    text = read("1.37").replace("    - etcd\n", "    - etcd\n    args: # flags\n    # the first\n")
    return text.replace("--name=master01", '"--name=master01" # own').replace(
        "--snapshot-count=10000", "--snapshot-count\n    - '10000'"
    )


ODD = {"json": as_json, "flow": in_flow, "two lists": in_two_lists}


@pytest.mark.parametrize("form", [*RELEASES, *ODD])
def test_every_argument_is_one_line(form: str) -> None:
    """Another value changes the line that has it; the value that is there changes no byte."""
    text = ODD[form]() if form in ODD else read(form)
    files = of_manifest(text)
    found = read_settings(files)
    assert not found.faults
    assert len(found) >= 18
    for name, setting in found.items():
        assert edit_settings(files, {name: setting.value}) == files
        value = setting.value.replace("10.0.0.1", "10.0.0.11") + "7"
        edited = edit_settings(files, {name: value}).text(MANIFEST) or ""
        before, after = text.splitlines(), edited.splitlines()
        assert len(before) == len(after)
        differing = [n for n, (a, b) in enumerate(zip(before, after, strict=True), 1) if a != b]
        assert len(differing) == 1
        assert read_settings(of_manifest(edited)).value(name) == value


def test_a_line_end_of_another_kind_stays() -> None:
    """And so does a file without one at its end."""
    text = read("1.37").replace("\n", "\r\n").rstrip()
    edited = edit_settings(of_manifest(text), {"name": "m2"}).text(MANIFEST)
    assert edited == text.replace("--name=master01", "--name=m2")


@pytest.mark.parametrize("release", RELEASES)
def test_paths_lie_where_the_volumes_say(release: str) -> None:
    """Kubeadm's are the same on both sides; outside of the volumes there is nothing."""
    mounts = read_mounts(TextFile(MANIFEST, read(release)))
    for path in (PKI / "server.key", PurePosixPath("/var/lib/etcd")):
        assert mounts.on_host(path) == path
    assert mounts.on_host(PurePosixPath("/var/lib/etcd2")) is None
    assert mounts.on_host(PurePosixPath("/")) is None


def test_hostpath_restored() -> None:
    """After a restore only the hostPath was changed: --data-dir names other, stale data there."""
    text = read("1.37").replace("path: /var/lib/etcd\n", "path: /var/lib/etcd-from-backup\n")
    mounts = read_mounts(TextFile(MANIFEST, text))
    restored = PurePosixPath("/var/lib/etcd-from-backup")
    assert mounts.on_host(PurePosixPath("/var/lib/etcd")) == restored
    assert mounts.on_host(PurePosixPath("/var/lib/etcd/member")) == restored / "member"


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        (MOUNT, MOUNT.replace("\n", "\n      subPath: a/b\n", 1), "a/b"),
        (MOUNT, MOUNT.replace("data", "none"), None),
        ("hostPath:\n      path: /var/lib/etcd\n", "emptyDir:\n      medium: x\n", None),
        ("mountPath: /var/lib/etcd\n", "mountPath: /var/lib\n", "etcd"),
        ("mountPath: /var/lib/etcd\n", "mountPath: /var/lib/etcd/\n", ""),
    ],
)  # fmt: skip
def test_what_a_mount_may_say(old: str, new: str, where: str | None) -> None:
    """A part of the volume, a volume of the pod's own, a directory above."""
    text = read("1.37").replace(
        "    - mountPath: /etc/kubernetes/pki/etcd\n      name: etcd-certs\n", ""
    )
    assert old in text
    mounts = read_mounts(TextFile(MANIFEST, text.replace(old, new)))
    found = mounts.on_host(PurePosixPath("/var/lib/etcd"))
    assert found == (None if where is None else PurePosixPath("/var/lib/etcd") / where)


def pods(**texts: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Name the files that are pods, in order, and what is said of the others."""
    files = [TextFile(f"/m/{name}", text) for name, text in texts.items()]
    found, broken = read_pods(files)
    assert {pod.label for pod in found} <= {"kube-system/etcd"}
    return tuple(pod.file.path[3:] for pod in found), tuple(map(str, broken))


def test_the_kubelet_runs_every_name_without_a_dot_before_it() -> None:
    """The one that sorts last wins, and that is no copy's fault."""
    text = read("1.37")
    names = ["etcd.yaml", "etcd.yaml.backup", "~j.yaml", "#l#", ".etcd.yaml.swp", "a.txt"]
    found, broken = pods(**dict.fromkeys(names, text))
    assert found == ("#l#", "a.txt", "etcd.yaml", "etcd.yaml.backup", "~j.yaml")
    assert broken == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty"),
        ("{kind: Pod, metadata: {name: etcd}}", "begins as JSON and is none"),
        ("kind: Pod\nmetadata: [", "it is not YAML"),
        ("kind: List\nmetadata: {name: etcd}", "it is no Pod with a name"),
        ("kind: Pod\nmetadata: {}", "it is no Pod with a name"),
        ("words", "it is no mapping"),
    ],
)
def test_what_the_kubelet_does_not_take_is_named(text: str, said: str) -> None:
    """By its file; the others count all the same."""
    found, broken = pods(a=text, b=as_json())
    assert found == ("b",)
    assert len(broken) == 1
    assert said in broken[0]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  - command:\n    - etcd\n", "  - args:\n", "has no command"),
        ("    - etcd\n", "    - sh\n    - -c\n", "is not etcd itself"),
        ("--name=master01", "--name=$(NAME)", "cannot be told"),
        ("--name=master01", "|\n      --name=master01", "without changing more"),
    ],
)
def test_what_cannot_be_edited_is_refused_with_its_place(old: str, new: str, said: str) -> None:
    """Nothing is changed."""
    with pytest.raises(NotUnderstood, match=r"etcd\.yaml:\d+: .*" + said):
        edit_settings(of_manifest(read("1.37").replace(old, new, 1)), {"name": "m2"})
