"""The image of a static pod's etcd: what a manifest says, and what kubeadm was told to write."""

from __future__ import annotations

from dataclasses import replace

from tasks.config.launch import NotUnderstood
from tasks.config.manifest import find_container
from tasks.config.scalars import compose, place_of, text_slots
from tasks.config.trees import get, text_of
from tasks.model.kubeadm import CONFIGMAP, REGISTRY, ClusterConfiguration
from tasks.model.member_settings import SettingsFiles, TextFile


def read_image(file: TextFile) -> str:
    """Read the image that etcd's container has; raises NotUnderstood where there is none."""
    container = find_container(file)
    image = text_of(get(container, "image"))
    if not image:
        raise NotUnderstood(place_of(file.path, container), "its container has no image")
    return image


def name_image(files: SettingsFiles, image: str) -> SettingsFiles:
    """Give a static pod's etcd another image, and leave every other byte; raises NotUnderstood."""
    file = files.manifest
    if file is None or read_image(file) == image:
        return files
    node = get(find_container(file), "image")
    for slot in text_slots(file.path, node) if node is not None else ():
        try:
            text = file.text[: slot.start] + slot.write(image) + file.text[slot.end :]
        except ValueError:
            continue
        edited = replace(file, text=text)
        if read_image(edited) == image:
            return replace(files, manifest=edited)
    place = place_of(file.path, node or find_container(file))
    raise NotUnderstood(place, f"the image cannot be made {image} here; do it by hand")


def read_configuration(text: str) -> ClusterConfiguration:
    """Read kubeadm's ClusterConfiguration; raises NotUnderstood."""
    root = compose(CONFIGMAP, text)
    local = get(get(root, "etcd"), "local")
    repository = text_of(get(local, "imageRepository")) or text_of(get(root, "imageRepository"))
    return ClusterConfiguration(
        (repository or REGISTRY).rstrip("/"),
        text_of(get(local, "imageTag")),
    )
