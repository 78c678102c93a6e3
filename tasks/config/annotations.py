"""The annotation by which kubeadm tells its other commands where a node's etcd is asked."""

from __future__ import annotations

from dataclasses import replace

from tasks.config.launch import NotUnderstood
from tasks.config.scalars import compose, place_of, text_slots
from tasks.config.trees import get, text_of
from tasks.model.member_settings import SettingsFiles

ADVERTISED = "kubeadm.kubernetes.io/etcd.advertise-client-urls"
"""kubeadm's cmd/kubeadm/app/constants: what `kubeadm join` and `upgrade` dial."""


def readdress_annotation(files: SettingsFiles, client_url: str) -> SettingsFiles:
    """Let kubeadm's annotation name a member's client URL; a manifest without it stays as it is.

    Raises NotUnderstood where it cannot be written.
    """
    file = files.manifest
    if file is None:
        return files
    annotations = get(get(compose(file.path, file.text), "metadata"), "annotations")
    node = get(annotations, ADVERTISED)
    if node is None or text_of(node) == client_url:
        return files
    slot = next(iter(text_slots(file.path, node)), None)
    if slot is None:
        raise NotUnderstood(place_of(file.path, node), f"{ADVERTISED} cannot be written here")
    text = file.text[: slot.start] + slot.write(client_url) + file.text[slot.end :]
    return replace(files, manifest=replace(file, text=text))
