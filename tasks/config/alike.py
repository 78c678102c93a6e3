"""A static pod's manifest written anew by another node's: its own name and addresses in it.

kubeadm's manifests of one cluster differ in these alone.
"""

from __future__ import annotations

import re
from dataclasses import replace

from tasks.config.annotations import readdress_annotation
from tasks.config.editing import name_existing
from tasks.config.launch import NotUnderstood
from tasks.config.settings import edit_settings, read_settings
from tasks.model.member_settings import (
    CLIENT_ADDRESSES,
    PEER_ADDRESSES,
    Place,
    SettingsFiles,
    TextFile,
)
from tasks.model.members import DesiredMember
from tasks.model.urls import split_url


def other_address(text: str, model: DesiredMember, own: DesiredMember) -> str:
    """Exchange a node's addresses for another's, wherever they stand as a whole."""
    for theirs, ours in ((model.peer_url, own.peer_url), (model.client_url, own.client_url)):
        old, new = split_url(theirs)[0], split_url(ours)[0]
        text = re.sub(rf"(?<![\w.:]){re.escape(old)}(?![\w.]|:[\da-f]*:)", new, text)
    return text


def etcd_alike(file: TextFile, model: DesiredMember, own: DesiredMember, path: str) -> TextFile:
    """Write a member's manifest by another's, so that it begins nothing; raises NotUnderstood.

    It starts with the data that are there, and ends without them.
    """
    text = other_address(file.text, model, own)
    files = SettingsFiles("", "", (), (), replace(file, path=path, text=text, mode="0600"))
    files = name_existing(edit_settings(files, {"name": own.member}), (own,))
    files = readdress_annotation(files, own.client_url)
    found = read_settings(files)
    for names, url in ((PEER_ADDRESSES, own.peer_url), (CLIENT_ADDRESSES, own.client_url)):
        if url not in found.split(names[0]):
            raise NotUnderstood(Place(path), f"its {names[0]} cannot be made {url}")
    if files.manifest is None:
        raise NotUnderstood(Place(path), "it is no manifest")
    return files.manifest
