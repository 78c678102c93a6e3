"""A member that the kubelet runs, and the API server on it: out, edited, and in again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from shlex import quote
from time import monotonic

from tasks.config.launch import NotUnderstood
from tasks.config.settings import changed_files
from tasks.engine.run import Run, step
from tasks.hosts import files, pods
from tasks.hosts.batch import Command
from tasks.hosts.connection import HostConnection
from tasks.hosts.kubelet import StaticPod
from tasks.model.errors import CommandFailed, Refused
from tasks.model.member_settings import SettingsFiles, TextFile
from tasks.model.pods import apiserver_pod
from tasks.plans.dependents import UpdateNodeApiserver
from tasks.plans.recovery import RestoreManifest

Edit = Callable[[SettingsFiles], SettingsFiles]


def _pod(run: Run, host: HostConnection) -> StaticPod:
    layout = run.inventory.layout(host.name)
    if layout.manifest is None:
        raise Refused("its etcd is no static pod", host=host.name)
    return StaticPod(layout.manifest, layout.restarts_kubelet)


@step("take the API server and etcd out on {host}")
async def take_out(run: Run, host: HostConnection) -> bool:
    """Take both manifests out and wait until both are gone; they are kept beside their directory.

    After a failure they are out, and what runs on is told.
    """
    run.absences.leave(host.name, monotonic())
    (result,) = await host.run(
        _pod(run, host).stop_command(), changes=True, timeout_seconds=pods.LIMIT_SECONDS
    )
    return files.parse_change(result)


@step("compare the manifest of {host}")
async def differs(run: Run, host: HostConnection, edit: Edit) -> tuple[str, ...]:
    """Tell the file that an edit would change, wherever the manifest lies; none where none is."""
    (result,) = await host.run(_pod(run, host).settings_command())
    edited = _edited(host, _pod(run, host).parse_settings(result), edit)
    return tuple(file.path for file in edited)


@step("write the manifest of {host} while it is out")
async def edit_manifest(run: Run, host: HostConnection, edit: Edit) -> bool:
    """Edit the manifest that is taken out, the old one copied aside; whether it changed.

    Raises CommandFailed, with file and line, where that cannot be done, or where the manifest is
    not out; nothing is changed then.
    """
    own = _pod(run, host)
    (result,) = await host.run(own.settings_command())
    changed = _edited(host, own.parse_settings(result), edit)
    for file in changed:
        if PurePosixPath(file.path) == own.manifest:
            raise CommandFailed(host.name, f"edit {own.manifest}", 1, "it is not taken out")
        await host.run(
            files.write_text_command(file, backup=run.inventory.paths.backups / run.backup),
            changes=True,
        )
    return bool(changed)


def _edited(host: HostConnection, before: SettingsFiles, edit: Edit) -> tuple[TextFile, ...]:
    if before.manifest is None:
        raise CommandFailed(host.name, "edit etcd's manifest", 1, "there is none")
    try:
        return changed_files(before, edit(before))
    except NotUnderstood as error:
        raise CommandFailed(host.name, "edit etcd's manifest", 1, str(error)) from error


@step("write a lost manifest of {host}")
async def restore_manifest(run: Run, host: HostConnection, planned: RestoreManifest) -> bool:
    """Write a manifest beside its directory, and let it be renamed into it; nobody waits."""
    kept, manifests = PurePosixPath(planned.file.path), _pod(run, host).manifest.parent
    place, rename = quote(str(kept.parent)), quote(str(manifests / kept.name))
    await host.run(
        Command("make the directory of kept manifests", f"install -d -m 0700 {place}"),
        files.write_text_command(planned.file, backup=run.inventory.paths.backups / run.backup),
        Command(f"put {kept.name} in", f"mv -nT {quote(str(kept))} {rename}\nsync {rename}"),
        changes=True,
    )
    return True


@step("put etcd in on {host}")
async def put_in(run: Run, host: HostConnection) -> bool:
    """Put etcd's manifest in, if it is out, and wait until its process runs.

    A data directory that was set aside is made as kubeadm makes it; the kubelet would open it to
    everyone.
    """
    data = quote(str(run.inventory.layout(host.name).data))
    _, result = await host.run(
        Command("make the data directory", f"[ -d {data} ] || install -d -m 0700 {data}"),
        _pod(run, host).start_command(),
        changes=True,
        timeout_seconds=pods.LIMIT_SECONDS,
    )
    return files.parse_change(result)


@step("put the API server in on {host}")
async def resume(run: Run, host: HostConnection) -> bool:
    """Put the API server's manifest in, if it is out, and wait until it is ready."""
    (result,) = await host.run(
        _pod(run, host).resume_command(), changes=True, timeout_seconds=pods.LIMIT_SECONDS
    )
    if was_out := files.parse_change(result):
        run.absences.come_back(host.name, monotonic())
    else:
        run.absences.forget(host.name)
    return was_out


@step("change the API server's list of members on {host}")
async def rewrite_apiserver(run: Run, host: HostConnection, planned: UpdateNodeApiserver) -> bool:
    """Take an API server out, write its manifest, put it in, and wait until it is ready.

    The old manifest is copied aside. Where the run dies, it is in, or kept beside its directory.
    """
    own = _pod(run, host)
    kept = TextFile(str(apiserver_pod(own.manifest).kept), planned.text, mode="0600")
    run.absences.leave(host.name, monotonic())
    await host.run(
        own.pause_command(),
        files.write_text_command(kept, backup=run.inventory.paths.backups / run.backup),
        own.resume_command(),
        changes=True,
        timeout_seconds=pods.LIMIT_SECONDS,
    )
    run.absences.come_back(host.name, monotonic())
    return True
