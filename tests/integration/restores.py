"""What tests of restores share: a cluster with some keys and a snapshot, and what a run does."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from tasks.engine.journal import read_journal
from tasks.model.record import Event
from tests.integration.runbooks import Prefect, etcdctl, run_runbook

if TYPE_CHECKING:
    from tests.lab.lab import Lab

KEYS = 30
LEAP = 1_000_000_000
DATA = "/var/lib/etcd/default.etcd"


def header(lab: Lab, host: str) -> dict[str, int]:
    """Ask one member for its cluster's id and its revision."""
    (row,) = json.loads(etcdctl(lab, "endpoint", "status", "-w", "json", on=host))
    return dict(row["Status"]["header"])


def keys_of(lab: Lab, host: str) -> set[str]:
    """List the keys that one member has."""
    return set(etcdctl(lab, "get", "", "--prefix", "--keys-only", on=host).split())


def lose(lab: Lab, *names: str) -> None:
    """Let members die at once, and their data be gone, as with their disks."""
    for name in names:
        lab[name].run(
            f"systemctl kill --signal=KILL etcd; systemctl stop etcd; rm -rf {DATA}"
        ).check()


def processes(lab: Lab) -> dict[str, str]:
    """Tell which process each member is."""
    asked = ["systemctl", "show", "etcd", "-p", "MainPID", "-p", "ActiveEnterTimestamp"]
    return {name: host.run(asked).check().stdout for name, host in lab.hosts.items()}


def check_whole(lab: Lab, prefect: Prefect) -> None:
    """See full health, data that etcd's account owns, and nothing that a restore left behind."""
    ended = run_runbook(prefect, "check_health", lab)
    assert ended.status == 0, ended.output
    for host in lab.hosts.values():
        assert host.run(f"stat -c %U {DATA}/member/snap/db").stdout.strip() == "etcd"
        left = host.run(f"ls -d {DATA}.etcd-runbooks* 2>/dev/null; systemctl list-units 'etcd-*'")
        assert "etcd-runbooks" not in left.stdout
        host.run(f"rm -rf {DATA}.replaced-*").check()  # the lab's disks are memory


ALL = ("master01", "master02", "master03")
EVERYWHERE = (
    "restore the snapshot beside the data",
    "stop the member",
    "put what is ready in place",
    "start etcd where no client is",
    "let clients in",
    "mark the restore as done",
)
BEFORE = ("lock the cluster", "see what a restore finds")
STEPS = {
    "restore_cluster": Counter(
        [
            *(f"{step} on {host}" for step in (*BEFORE, *EVERYWHERE) for host in ALL),
            "restore the snapshot where no client is",
            "see what was restored, before clients come",
            *["verify the cluster"] * 2,
        ]
    ),
    "recover_quorum": Counter(
        [
            *(f"{step} on {host}" for step in (*BEFORE, *EVERYWHERE) for host in ALL),
            *(f"stop the member on {host}" for host in ALL),
            "read the end of the log on master01",
            "run a copy of the data alone on master01",
            "see what the copy has",
            "take a snapshot of the survivor on master01",
            "remove the copy on master01",
            "put the survivor's snapshot into the store",
            "see what was restored, before clients come",
            *["verify the cluster"] * 2,
        ]
    ),
}
"""What a whole run does; a recovery stops members before it reads the survivor's data, too."""


def check_table(prefect: Prefect, runbook: str) -> None:
    """See that the last run did what the table says: a step that is added must be added here."""
    records = read_journal(prefect.journals[-1])
    done = Counter(r.details["step"] for r in records if r.event is Event.STEP_FINISHED)
    assert done == STEPS[runbook]
