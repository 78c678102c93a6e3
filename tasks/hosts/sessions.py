"""Scripts that are held open: the cluster's lock, and a listener for the reachability probe.

Each says a first line when it stands (`say`, see `batch.talking_script`), and ends when its
standard input does: when the runner dies, however it dies, the session ends, and with it the lock.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from shlex import quote
from typing import Protocol

from tasks.hosts.batch import Command, Result
from tasks.model.errors import RunbookError
from tasks.model.observation import Reachability

LOCKS = PurePosixPath("/run/etcd-runbooks")
ACTIVATE = (
    "systemd-socket-activate",
    *(f"{lib}/systemd/systemd-activate" for lib in ("/usr/lib", "/lib")),
)
"""What listens and starts a program for each connection; systemd before 230 has the latter."""
HELD_BY_ANOTHER = 75
SILENCE_LIMIT_SECONDS = 30
"""A holder that says nothing for so long has lost its lock: a runner frozen, or cut off."""


class Session(Protocol):
    """A script that is held open on a host, spoken to line by line."""

    async def read_line(self, timeout_seconds: float) -> str:
        """Read one line; empty when the session has ended. Raises CommandTimedOut."""

    async def ask(self, line: str, timeout_seconds: float) -> str:
        """Send a line and read one; empty when the session has ended."""

    def exit_status(self) -> int | None:
        """Tell how the session ended; None while it runs."""

    async def why_refused(self) -> RunbookError | None:
        """Tell that sudo did not let it begin; None when something else ended it."""


def lock_session(cluster: str, run_id: str, holder: str) -> str:
    """Write the script that takes the cluster's lock on a host and keeps it.

    Says `locked`, then each line that it is sent. Ends with HELD_BY_ANOTHER, after the holder's
    sentence, when another run has it.
    """
    lock, owner = quote(f"{LOCKS}/{cluster}.lock"), quote(f"{LOCKS}/{cluster}.holder")
    return f"""
install -d -m 0755 {LOCKS}
exec 9>>{lock}
flock --nonblock 9 || {{
  say "$(tail -n 1 {owner} 2>/dev/null || echo "another run, which has just begun")"
  exit {HELD_BY_ANOTHER}; }}
printf '%s\\n' {quote(run_id)} {quote(holder)} > {owner}.new
mv -fT {owner}.new {owner}
say locked
while read -r -t {SILENCE_LIMIT_SECONDS} line; do say "$line"; done
"""


def lock_fence(cluster: str, run_id: str) -> str:
    """Write the shell that fails when the lock on this host is not held, or not by this run.

    A mutating batch begins with it, so that a runner which was frozen for longer than the lock
    lasts cannot act on a host that another run has taken meanwhile.
    """
    lock, owner = quote(f"{LOCKS}/{cluster}.lock"), quote(f"{LOCKS}/{cluster}.holder")
    return (
        f'[ "$(head -n 1 {owner} 2>/dev/null)" = {quote(run_id)} ] && '
        f"! flock --nonblock {lock} true"
    )


def listener_session(hostname: str, ports: tuple[int, ...]) -> str:
    """Write the script that answers each connection to the ports with the host's name."""
    listen = " ".join(f"--listen={port}" for port in ports)
    return f"""
for activate in {" ".join(ACTIVATE)}; do command -v "$activate" >/dev/null && break; done
# What systemd before 230 has does that always.
inetd=--inetd; "$activate" --help 2>&1 | grep -q -e "$inetd" || inetd=
timeout 20 "$activate" {listen} --accept $inetd /bin/echo {quote(hostname)} >/dev/null 2>&1 9>&- &
listener=$!
trap 'kill $listener 2>/dev/null || :' EXIT
for port in {" ".join(map(str, ports))}; do
  until [ -n "$(ss -ltn "sport = :$port" | sed 1d)" ]; do
    kill -0 $listener 2>/dev/null || exit 1
    sleep 0.02
  done
done
say listening
while read -r -t 20 _; do :; done
"""


def dial_command(targets: tuple[tuple[str, str, int], ...], *, hears_names: bool = True) -> Command:
    """Connect to each (host name, address, port) at once, and tell what answered.

    Our listener says its host's name at once; etcd waits for the caller to speak first, and is not
    given that half second where no listener of ours can be.
    """
    hear = "read -r -t 0.5 -u 3 line" if hears_names else "line="
    dials = "\n".join(
        f"( status=0; answer=$(timeout 3 bash -c 'exec 3<>/dev/tcp/{address}/{port} && "
        f'{{ {hear}; echo "open $line"; }}\' 2>&1) || status=$?; '
        f"echo \"{name} {address} {port} $status ${{answer##*$'\\n'}}\" ) &"
        for name, address, port in targets
    )
    return Command("reach the other hosts' ports", f"{dials}\nwait")


def parse_dials(result: Result) -> dict[tuple[str, int], Reachability]:
    """Read what each (host name, port) met; a listener that is not ours counts as open."""
    found = {}
    for line in result.stdout.splitlines():
        name, _, port, status, *answer = line.split()
        if answer[:1] == ["open"]:
            other = len(answer) > 1 and answer[1] != name
            met = Reachability.WRONG_HOST if other else Reachability.OPEN
        elif status == "124":
            met = Reachability.TIMED_OUT
        else:
            met = Reachability.REFUSED
        found[name, int(port)] = met
    return found
