"""What a member has logged is counted on its host, by the words of each of etcd's two loggers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tasks.hosts.batch import batch_script, parse_batch
from tasks.hosts.logs import SAYINGS, count_logs_command, parse_log_counts
from tests.unit.plan_cases import inventory

TOKEN = "mark-of-this-test"
ZAP = r"""
{"level":"warn","msg":"apply request took too long","took":"1.2s","request":"key:\"a secret\""}
{"level":"warn","msg":"slow fdatasync","took":"2.1s","expected-duration":"1s"}
{"level":"warn","msg":"leader failed to send out heartbeat on time; took too long, leader is overl"}
{"level":"info","logger":"raft","msg":"raft.node: 8e9e05c52164694d lost leader 8e9e05 at term 2"}
{"level":"info","logger":"raft","msg":"raft.node: 8e9e05c52164694d elected leader 8e9e at term 3"}
{"level":"warn","msg":"rejected connection","remote-addr":"10.0.0.9:4431","error":"EOF"}
{"level":"warn","msg":"prober detected unhealthy status","round-tripper-name":"ROUND_TRIPPER_SNA"}
{"level":"warn","msg":"dropped internal Raft message since sending buffer is full"}
{"level":"warn","msg":"request cluster ID mismatch","cluster-id-from":"1","local":"2"}
{"level":"warn","msg":"waiting for ReadIndex response took too long, retrying"}
{"level":"warn","msg":"etcdserver: mvcc: database space exceeded"}
{"level":"info","msg":"compacted Raft logs"}
"""
CAPNSLOG = r"""
read-only range request "key:\"a secret\" " with result "range" took too long (1s) to execute
sync duration of 2.1s, expected less than 1s
failed to send out heartbeat on time (exceeded the 100ms timeout for 1.2s, to 8e9e05c52164694d)
raft.node: 8e9e05c52164694d lost leader 8e9e05c52164694d at term 2
raft.node: 8e9e05c52164694d elected leader 8e9e05c52164694d at term 3
rejected connection from "10.0.0.9:4431" (error "EOF", ServerName "")
health check for peer 8e9e05c52164694d could not connect: dial tcp: connect: connection refused
dropped internal raft message to 8e9e05c52164694d since sending buffer is full
request cluster ID mismatch (got 1 want 2)
timed out waiting for read index response (local node might have slow network)
etcdserver: mvcc: database space exceeded
compacted raft log at 5001
"""


def count(text: str | None, directory: Path) -> dict[str, int] | None:
    """Run the script with a journal that has this text; None for one that cannot be read."""
    (directory / "journal").write_text(text or "")
    does = "return 1" if text is None else f"cat {directory}/journal"
    commands = (count_logs_command(inventory().layout("m1")),)
    ended = subprocess.run(
        ["bash", "-s"],
        input=f"journalctl() {{ {does}; }}\n{batch_script(commands, TOKEN)}",
        capture_output=True,
        text=True,
        check=True,
    )
    assert "secret" not in ended.stdout + ended.stderr
    batch = parse_batch(commands, TOKEN, ended.stdout, ended.stderr)
    assert batch is not None
    if text is None:
        assert batch[0].status != 0
        return None
    assert batch[0].status == 0, batch[0]
    return parse_log_counts(batch[0])


@pytest.mark.parametrize("lines", [ZAP, CAPNSLOG], ids=["zap", "capnslog"])
def test_each_saying_is_counted(lines: str, tmp_path: Path) -> None:
    """Once for each line that says it, and no line for two."""
    assert count(lines.strip(), tmp_path) == dict.fromkeys(SAYINGS, 1)


def test_what_is_not_said_is_not_counted(tmp_path: Path) -> None:
    """One of them alone; none of them; and nothing at all, which is no good sign."""
    lost = next(line for line in ZAP.splitlines() if "lost leader" in line)
    assert count(f"{lost}\n{lost}\n", tmp_path) == {"lost leader": 2}
    assert count("compacted Raft logs\n", tmp_path) == {}
    assert count("", tmp_path) is None
    assert count(None, tmp_path) is None
