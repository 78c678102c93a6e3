"""What a member has logged in the last hour, counted on its host.

The counts alone come back: etcd's lines on slow requests have keys in them.
"""

from __future__ import annotations

from shlex import quote

from tasks.hosts.batch import Command, Result
from tasks.model.layout import Layout

SAYINGS = {
    "apply request took too long": r"apply request took too long|took too long \(.*\) to execute",
    "slow fdatasync": r"slow fdatasync|sync duration of .*, expected less than",
    "failed to send out heartbeat on time": "failed to send out heartbeat on time",
    "lost leader": "lost leader",
    "elected leader": "elected leader",
    "rejected connection": "rejected connection",
    "prober detected unhealthy status": (
        "prober detected unhealthy status|health check for peer .* could not connect"
    ),
    "dropped internal Raft message": "dropped internal [Rr]aft message",
    "request cluster ID mismatch": "request cluster ID mismatch",
    "waiting for ReadIndex response took too long": (
        "waiting for ReadIndex response took too long|timed out waiting for read index response"
    ),
    "database space exceeded": "database space exceeded",
}
"""Etcd's words for what an expert looks for: of 3.5 to 3.7 and, after a bar, 3.4's own."""
MINUTES = 60


def count_logs_command(layout: Layout) -> Command:
    """Count them in the unit's journal, or in the static pod's log of the last hour."""
    if layout.is_pod:
        # A container's log is a file of lines that begin with their time.
        read = (
            f"since=$(date -u -d '-{MINUTES} minutes' +%Y-%m-%dT%H:%M:%S)\n"
            "told() { { cat /var/log/pods/kube-system_etcd-*/etcd/*.log 2>/dev/null || :; } | "
            "awk -v since=\"$since\" 'substr($1, 1, 19) >= since'; }"
        )
    else:
        # Without --quiet it says on a line that there is none.
        read = (
            f"told() {{ journalctl --quiet --no-pager --output=cat --since='-{MINUTES} min' "
            f"--unit={quote(layout.service)}; }}"
        )
    counts = "\n".join(f"count {quote(word)} {quote(pattern)}" for word, pattern in SAYINGS.items())
    script = f"""
{read}
said=$(told)
[ -n "$said" ] || exit 0
echo told
count() {{
  local number
  number=$(grep -cE -e "$2" <<<"$said") || :
  if [ "$number" -gt 0 ]; then printf '%s\\t%s\\n' "$number" "$1"; fi
}}
{counts}
"""
    return Command("count what the member logged", script.strip())


def parse_log_counts(result: Result) -> dict[str, int] | None:
    """Read the answer of `count_logs_command`: how often by what; None where nothing was logged."""
    first, *rest = result.stdout.splitlines() or [""]
    if first != "told":
        return None
    lines = (line.split("\t", 1) for line in rest)
    return {word: int(count) for count, word in lines}
