"""A verified snapshot before anything is changed that could not be taken back."""

from __future__ import annotations

from pathlib import Path

from prefect.settings import get_current_settings

from tasks.engine.run import Run, step
from tasks.etcd.client import EtcdClient
from tasks.etcd.snapshots import save_snapshot
from tasks.model.errors import EtcdUnavailable, Refused
from tasks.model.pointers import parameter
from tasks.plans.health import choose_source


def snapshot_directory() -> Path:
    """Where snapshots lie on the runner: in PREFECT_HOME, beside the journal."""
    return get_current_settings().home / "etcd-runbooks" / "snapshots"


def check_skip(snapshot: str | None, reason: str | None) -> None:
    """Raise Refused when the snapshot is to be skipped without a reason."""
    if snapshot == "skip" and not reason:
        raise Refused(
            f"{parameter(snapshot='skip')} needs a reason, which is kept in the record: add "
            + parameter(reason="TEXT")
        )


@step("save a snapshot")
async def take_snapshot(run: Run, client: EtcdClient) -> str:
    """Save and verify a snapshot on the runner, from the healthy follower that is furthest.

    Returns its path. Raises EtcdUnavailable; nothing of the cluster is changed.
    """
    # By URL: a member that gets another address is asked at both, under one name.
    url = choose_source(await client.observe_cluster())
    endpoint = next((e for e in client.endpoints if e.url == url), None)
    if endpoint is None:
        raise EtcdUnavailable("no healthy member can be asked for a snapshot")
    path = snapshot_directory() / run.inventory.name / f"{run.backup}.db"
    await save_snapshot(client, endpoint, path)
    return str(path)
