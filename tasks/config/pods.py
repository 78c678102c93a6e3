"""Static pods: what the kubelet makes of the files in its directory, and where a pod's paths lie.

Owns the kubelet's rules for files (pkg/kubelet/config/file.go), as they were seen on 1.34 and 1.37.
What a pod's etcd is started with is in `manifest`.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable
from pathlib import PurePosixPath

from ruamel.yaml.nodes import MappingNode

from tasks.config.launch import NotUnderstood
from tasks.config.manifest import find_container
from tasks.config.scalars import compose, place_of
from tasks.config.trees import get, items, text_of
from tasks.model.member_settings import Notice, Place, TextFile
from tasks.model.nodes import Mounts, Pod


def read_pods(files: Iterable[TextFile]) -> tuple[tuple[Pod, ...], tuple[Notice, ...]]:
    """Read the pods of a directory's files, in the kubelet's order, and why others are none.

    A name that begins with a dot is passed over; whatever another ends with, it counts. Of two
    files with one pod's name the last is what runs.
    """
    pods: list[Pod] = []
    broken: list[Notice] = []
    for file in sorted(files, key=lambda each: each.path.encode()):
        if PurePosixPath(file.path).name.startswith("."):
            continue
        try:
            pods.append(_read_pod(file))
        except NotUnderstood as error:
            broken.append(error.notice)
    return tuple(pods), tuple(broken)


def _read_pod(file: TextFile) -> Pod:
    if not file.text.strip():
        raise NotUnderstood(Place(file.path), "it is empty")
    if file.text.lstrip().startswith("{"):
        try:
            json.loads(file.text)
        except ValueError as error:
            said = f"it begins as JSON and is none ({error}), so the kubelet does not take it"
            raise NotUnderstood(Place(file.path, 1), said) from error
    root = compose(file.path, file.text)
    metadata = get(root, "metadata")
    name = text_of(get(metadata, "name"))
    if text_of(get(root, "kind")) != "Pod" or not name:
        raise NotUnderstood(place_of(file.path, root), "it is no Pod with a name")
    return Pod(text_of(get(metadata, "namespace")) or "default", name, file)


def read_mounts(file: TextFile) -> Mounts:
    """Read where the paths of a pod's etcd lie on the host; raises NotUnderstood."""
    root = compose(file.path, file.text)
    container = find_container(file)
    volumes = {
        text_of(get(volume, "name")): text_of(get(get(volume, "hostPath"), "path"))
        for volume in items(get(get(root, "spec"), "volumes"))
    }
    places: list[tuple[PurePosixPath, PurePosixPath | None]] = []
    for mount in items(get(container, "volumeMounts")):
        inside, below = text_of(get(mount, "mountPath")), text_of(get(mount, "subPath"))
        outside = volumes.get(text_of(get(mount, "name")))
        if not isinstance(mount, MappingNode) or not inside:
            raise NotUnderstood(place_of(file.path, mount), "it is no volumeMount with a mountPath")
        # What an expression becomes only the kubelet knows.
        is_known = bool(outside) and get(mount, "subPathExpr") is None
        places.append((_clean(inside), _clean(f"{outside}/{below}") if is_known else None))
    return Mounts(tuple(places))


def _clean(path: str) -> PurePosixPath:
    return PurePosixPath("/" + posixpath.normpath(path).lstrip("/"))
