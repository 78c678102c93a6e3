"""What a restore takes from a cluster, what forbids it, and what an operator must say."""

from __future__ import annotations

from tasks.model.errors import Refused
from tasks.model.inventory import Inventory
from tasks.model.plan import Plan
from tasks.model.pointers import parameter
from tasks.model.restores import RestoreHost, RestoreSource
from tasks.model.snapshots import EncryptionFile, Manifest
from tasks.plans.restoration import ReadyData
from tasks.plans.restore_marks import Wanted, can_raise

ROOM = 1.2
"""The snapshot and what is restored of it lie side by side; a write-ahead log comes to it."""
LOG_BYTES = 192 << 20


def check_hosts(inventory: Inventory, absent: dict[str, str], left: frozenset[str]) -> None:
    """Raise Refused for hosts that cannot be reached and are not said to be gone for good."""
    if strange := sorted(left - {host.name for host in inventory.hosts}):
        raise Refused(f"without: {inventory.name} has no host {', '.join(strange)}")
    if lost := {name: why for name, why in absent.items() if name not in left}:
        told = "\n  - ".join(f"{name}: {why}" for name, why in lost.items())
        raise Refused(
            f"{len(lost)} host(s) of {inventory.name} cannot be reached:\n  - {told}\nNothing was "
            "changed. A host that comes back with its old data would serve these to whoever asks "
            "it. Bring them back, or say that they are gone for good and kept from starting: "
            + parameter(without=sorted(lost))
        )
    if not {host.name for host in inventory.hosts} - left:
        raise Refused("without: no host is left to restore")


def check_consent(inventory: Inventory, consent: str | None, loss: str) -> None:
    """Raise Refused unless the operator typed the cluster's name, with what is lost."""
    if consent != inventory.name:
        raise Refused(
            f"{loss}\nNothing was changed; with "
            f"{parameter(consent=inventory.name)} this is taken and done"
        )


def check_apiservers(inventory: Inventory, wanted: Wanted) -> None:
    """Raise Refused for API servers that this run cannot stop, unless the operator has done it."""
    if not wanted.unheard or wanted.accepts_apiservers:
        return
    manifests = {one.name: one.manifest for one in inventory.kube_apiservers}
    told = "\n  - ".join(
        f"{name}: {why}; there: mv {manifests[name]} /root/, and wait until its process is gone"
        for name, why in wanted.unheard
    )
    raise Refused(
        f"{len(wanted.unheard)} API server(s) of {inventory.name} cannot be stopped by this run, "
        f"and would write what they remember of the old data:\n  - {told}\nNothing was changed. "
        f"Stop them by hand, and say so: {parameter(accept=['stopped-apiservers'])}. They are "
        "started again when the cluster serves, by moving the manifests back"
    )


def restore_loss(
    inventory: Inventory,
    source: RestoreSource,
    highest: int,
    hosts: tuple[RestoreHost, ...],
    *,
    serves: bool,
) -> str:
    """Say what a restore takes from a cluster, as far as it is known, and what would lose less."""
    known = f"revision {source.revision}" if source.revision else "a revision that is not known yet"
    lost = (
        f"; revision {highest} was recorded since, so that {highest - source.revision} change(s) "
        "at least are lost"
        if 0 < source.revision < highest
        else ""
    )
    having = ", ".join(h.host for h in hosts if h.has_data and not h.marked)
    still = ""
    if serves:
        still = (
            "\nThe cluster serves: its clients are cut off, and all that they have written since "
            "is lost, too"
        )
    elif having:
        still = f"\nThere are data on {having}: recover_quorum would lose nothing that they have"
    return (
        f"{inventory.name} would be restored from {source.told}, which ends at {known}{lost}. What "
        f"was written after it is not in it, and who wrote it was told that it was kept.{still}"
    )


def unrehearsed(inventory: Inventory, source: RestoreSource) -> tuple[str, ...]:
    """Say that a snapshot is not rehearsed first; raises Refused where nothing else vouches."""
    lacks = (
        f"the runner has no etcd {inventory.etcd.version} to rehearse it with (snapshots.programs "
        "names a directory of the runner)"
    )
    if not source.has_checksum:
        raise Refused(
            f"{source.told} has no checksum, so it is taken only after a rehearsal, and {lacks}. "
            "Nothing was changed"
        )
    return (f"the snapshot is whole, and was not rehearsed: {lacks}",)


def encryption_warnings(
    manifest: Manifest | None, present: tuple[EncryptionFile, ...]
) -> tuple[str, ...]:
    """Say with which files API servers had encrypted what is in the snapshot, and who has them."""
    sums: dict[str, str] = {}
    for file in manifest.encryption if manifest else ():
        sums.setdefault(file.sha256, file.path)
    now = {file.sha256 for file in present}
    return tuple(
        f"API servers had encrypted by {path} (sha256 {sha256}) when the snapshot was taken, and "
        + ("it is there now" if sha256 in now else "no API server that was asked has it now: ")
        + ("" if sha256 in now else "put it back before they start, or they read no secret")
        for sha256, path in sums.items()
    )


def refuse_sourceless(inventory: Inventory, plan: Plan) -> None:
    """Raise Refused where a recovery has begun and a host has lost what was made ready there.

    The survivor's data are set aside by then, and nobody has the snapshot any more.
    """
    if lost := sorted(plan.hosts_of(ReadyData)):
        data = ", ".join(str(inventory.layout(name).data) for name in lost[:1])
        raise Refused(
            f"{', '.join(lost)} has lost what this recovery had made ready there. The data of "
            f"before are beside those in place ({data}.replaced-*, or within a mount point): put "
            "them back on the survivor, remove what was restored there, and run this again. "
            "Nothing was changed"
        )


def refuse_unable(
    inventory: Inventory, wanted: Wanted, hosts: tuple[RestoreHost, ...], *, is_new: bool
) -> None:
    """Raise Refused for hosts that cannot be restored: no room, no programs, a port that is taken.

    And, without consent, where no revision can be raised.
    """
    version, reasons = inventory.etcd.version, []
    needed = int((2 * wanted.size + LOG_BYTES) * ROOM)
    for host in hosts:
        if host.best_tools(version) is None and not wanted.has_programs:
            seen = ", ".join(
                f"{t.directory} has {t.version or 'none that runs'}" for t in host.tools
            )
            reasons.append(
                f"{host.host}: it has no etcd {version} with etcdutl, or etcdctl before 3.6 "
                f"({seen or 'none was found'}), and the runner has none to lend: name a directory "
                "of the runner with snapshots.programs in the inventory"
            )
        if is_new and host.free < needed:
            reasons.append(
                f"{host.host}: {host.stage.parent} has {host.free >> 20} MiB free, and "
                f"{needed >> 20} MiB are needed, since the old data stay"
            )
        if not host.is_installed:
            reasons.append(
                f"{host.host}: nothing starts etcd there; leave it out with "
                f"{parameter(without=[host.host])}, and let it join afterwards (replace_member)"
            )
        if host.port_user:
            reasons.append(
                f"{host.host}: the port that etcd is to have until it is verified is taken "
                f"({host.port_user}); end that program"
            )
    if reasons:
        raise Refused(
            f"{inventory.name} cannot be restored; nothing was changed:\n  - "
            + "\n  - ".join(reasons)
        )
    if is_new and not can_raise(inventory, hosts) and not wanted.accepts_old_revisions:
        raise Refused(
            f"etcd {version} cannot raise the revision of what it restores (etcdutl has "
            "--bump-revision from 3.5 on). Clients that watch go on from the revisions that they "
            "have seen, up to "
            f"{max(wanted.highest, wanted.revision)}, which the restored cluster gives to other "
            "writes: they miss changes without a word until they are restarted, every API server, "
            "controller and kubelet among them. Nothing was changed; with "
            f"{parameter(accept=['old-revisions'])} it is restored so, and you restart them all"
        )
