"""What a member has logged in the last hour, counted on its host.

The counts alone come back: etcd's lines on slow requests have keys in them.
"""

from __future__ import annotations

from shlex import quote

from tasks.hosts.batch import Command, Result
from tasks.model.layout import Layout

SAYINGS = (
    "apply request took too long",
    "slow fdatasync",
    "failed to send out heartbeat on time",
    "lost leader",
    "elected leader",
    "rejected connection",
    "prober detected unhealthy status",
    "dropped internal Raft message",
    "request cluster ID mismatch",
    "waiting for ReadIndex response took too long",
    "database space exceeded",
)
"""Etcd's words for what an expert looks for, as 3.4 to 3.7 write them."""
MINUTES = 60


def count_logs_command(layout: Layout) -> Command:
    """Count them in the unit's journal, or in the static pod's log of the last hour."""
    if layout.is_pod:
        # A container's log is a file of lines that begin with their time.
        read = (
            f"since=$(date -u -d '-{MINUTES} minutes' +%Y-%m-%dT%H:%M:%S)\n"
            "told() { cat /var/log/pods/kube-system_etcd-*/etcd/*.log 2>/dev/null | "
            "awk -v since=\"$since\" 'substr($1, 1, 19) >= since'; }"
        )
    else:
        read = (
            f"told() {{ journalctl --no-pager --output=cat --since='-{MINUTES} min' "
            f"--unit={quote(layout.service)}; }}"
        )
    words = " ".join(quote(word) for word in SAYINGS)
    script = f"""
{read}
said=$(told)
for word in {words}; do
  count=$(grep -cF -- "$word" <<<"$said")
  if [ "$count" -gt 0 ]; then printf '%s\\t%s\\n' "$count" "$word"; fi
done
true
"""
    return Command("count what the member logged", script.strip())


def parse_log_counts(result: Result) -> dict[str, int]:
    """Read the answer of `count_logs_command`: how often by what."""
    lines = (line.split("\t", 1) for line in result.stdout.splitlines())
    return {word: int(count) for count, word in lines}
