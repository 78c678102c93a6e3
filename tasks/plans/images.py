"""Which image brings a static pod's etcd to a version, and whether kubeadm would leave it. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from tasks.model.kubeadm import CONFIGMAP, ClusterConfiguration, Installed

_VERSION = re.compile(r"(?<![\d.])\d+\.\d+\.\d+(?![\d.])")
_UPLOAD = "`kubeadm init phase upload-config kubeadm --config FILE`"
_EDIT = "`kubectl -n kube-system edit configmap kubeadm-config`"


@dataclass(frozen=True, slots=True)
class Choice:
    """The image of each host at the version that is wanted; or why none may be written.

    `warning` is what is to be weighed where they may be.
    """

    images: Mapping[str, str] = field(default_factory=dict)
    refusal: str = ""
    warning: str = ""


def choose_images(
    goal: str,
    told: ClusterConfiguration | None,
    now: Mapping[str, str],
    running: Mapping[str, str],
    installed: Installed,
) -> Choice:
    """Choose the images, as kubeadm was `told` to write them; None: there is no kubeadm's word.

    `now` are the images of the manifests, and `running` the versions that run, by host.
    `installed` is the kubeadm that the nodes have.
    """
    if told is None:
        return _choose_alike(goal, now, running, installed)
    if not told.tag:
        return Choice(refusal=_owned(goal, tuple(now), running, installed))
    if version_of(told.tag) != goal:
        return Choice(
            refusal=f"kubeadm's ClusterConfiguration pins etcd.local.imageTag: {told.tag}, which "
            f"kubeadm writes into each manifest at its next upgrade, and etcd.version is {goal}; "
            f"make both say the same ({_EDIT} on a node with kubectl)"
        )
    return Choice(dict.fromkeys(now, told.image))


def version_of(image: str) -> str:
    """Read the version that an image's tag tells; empty where it tells none."""
    _, _, tag = image.rpartition(":")
    found = _VERSION.search(tag)
    return found[0] if found and "@" not in image else ""


def _choose_alike(
    goal: str, now: Mapping[str, str], running: Mapping[str, str], installed: Installed
) -> Choice:
    """Change the version in the tags: of no kubeadm's cluster nobody else says the image."""
    found = {}
    for host, image in now.items():
        told = version_of(image)
        if not told or told not in {goal, running.get(host, told)}:
            return Choice(
                refusal=f"{host}: which image has etcd {goal} cannot be told from {image}, whose "
                f"tag does not say {running.get(host) or 'the version that runs'}, and there is no "
                f"{CONFIGMAP} that says it: {_UPLOAD} writes one, in which etcd.local.imageTag "
                "can be pinned; without kubeadm, let all manifests' tags say the version first"
            )
        before, colon, tag = image.rpartition(":")
        found[host] = f"{before}{colon}{tag.replace(told, goal, 1)}"
    if not installed.release:
        return Choice(found)
    lost = (
        f"kubeadm {installed.release} is there, but no {CONFIGMAP}, without which no `kubeadm "
        "upgrade` goes: nothing says who owns etcd's version, and the one in each image's tag is "
        f"changed. {_UPLOAD} writes it again; etcd.local.imageTag in it keeps {goal} at the next "
        "upgrade"
    )
    return Choice(found, warning=lost)


def _owned(
    goal: str, hosts: Collection[str], running: Mapping[str, str], installed: Installed
) -> str:
    done = [name for name in hosts if running.get(name) == goal]
    pin = (
        f"pin it ({_EDIT}: `imageTag` under `local` of `etcd`), and run this again: then the image "
        "is changed here, and kubeadm leaves it"
    )
    after = (
        "then upgrade_cluster again, which compares versions and data, and harden_members, whose "
        "change kubeadm takes back"
    )
    if done:
        left = [name for name in hosts if name not in done]
        return (
            f"kubeadm owns etcd's version: {', '.join(done)} has etcd {goal} already, and "
            f"{', '.join(left)} not yet. Where its command has not ended well, type it again; on "
            f"{', '.join(left)} it is `kubeadm upgrade node`, one at a time, each once all members "
            f"are healthy; {after}. Or {pin}"
        )
    first, *others = hosts
    is_right = version_of(installed.image) == goal
    release = installed.release if is_right and installed.release else "VERSION"
    brings = f" ({installed.release}, which is installed, brings {installed.image})"
    brings = brings if installed.image else ""
    each = f", on each other ({', '.join(others)}) `kubeadm upgrade node`" if others else ""
    return (
        "kubeadm owns etcd's version: its ClusterConfiguration pins no etcd.local.imageTag, so "
        "that each of its upgrades writes its own release's image into every manifest. Either "
        f"upgrade Kubernetes to a release that brings etcd {goal}{brings}: on {first} `kubeadm "
        f"upgrade plan` and `kubeadm upgrade apply v{release}`{each}, one at a time; {after}. "
        f"Or {pin}"
    )
