"""The startup probe of a static pod's etcd: longer while a member joins, and as it was again.

/readyz fails as long as a member is a learner, so that the kubelet would kill one that needs more
time for its log than the probe gives. What the number was stands beside it, in a comment.
"""

from __future__ import annotations

import re
from dataclasses import replace

from tasks.config.manifest import find_container
from tasks.config.trees import get, text_of
from tasks.model.member_settings import SettingsFiles

PERIOD_SECONDS = 10
"""Kubernetes' own for a probe that says none."""
_MARK = re.compile(
    r"^(?P<start>[ \t]*failureThreshold:[ \t]*)\d+ # was (?P<was>\d+), while it joins$",
    re.MULTILINE,
)


def lengthen_startup(files: SettingsFiles, seconds: float) -> SettingsFiles:
    """Give a pod's start at least so long; one that has it, or has no probe, stays as it is."""
    file = files.manifest
    if file is None or _MARK.search(file.text):
        return files
    probe = get(find_container(file), "startupProbe")
    node = get(probe, "failureThreshold")
    was = text_of(node)
    if node is None or not was.isdecimal():
        return files
    period = text_of(get(probe, "periodSeconds"))
    each = int(period) if period.isdecimal() else PERIOD_SECONDS
    if int(was) * each >= seconds:
        return files
    wanted = f"{-int(-seconds // each)} # was {was}, while it joins"
    before, after = file.text[: node.start_mark.index], file.text[node.end_mark.index :]
    return replace(files, manifest=replace(file, text=f"{before}{wanted}{after}"))


def restore_startup(files: SettingsFiles) -> SettingsFiles:
    """Give the probe its own number again."""
    file = files.manifest
    if file is None:
        return files
    text = _MARK.sub(lambda found: f"{found['start']}{found['was']}", file.text)
    return replace(files, manifest=replace(file, text=text))
