"""What is sent to a host's bash: several commands in one round trip, or one script that talks.

A command is bash, with an optional payload on its standard input. A batch is one script sent on
standard input of one remote `bash` (nothing of it is ever in argv, and no login shell has to
understand it): each command runs in its own subshell, and its exit status and times come back
between marks, since what a login says of its own may stand before, between and behind. The floor
is bash 4.2 with the tools of its time (`tests/unit/test_scripts.py`). Pure; `connection` sends it.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

FENCED_OUT = 76
"""Exit status of a batch that found the cluster's lock in other hands; no command was run."""
SHELL = "bash -s"
BEGIN = "begin"
"""What a talking script says first, on both its outputs."""
OLDEST_BASH = (4, 2)

# A root login's variables may make bash read a file of noise, and cd and grep say more.
_PRELUDE = f"""
unset BASH_ENV ENV CDPATH GREP_OPTIONS
export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
umask 077
if [ $((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1])) -lt {OLDEST_BASH[0] * 100 + OLDEST_BASH[1]} ]
then echo "bash: $BASH_VERSION is too old" >&2; exit 1; fi
""".lstrip()


@dataclass(frozen=True, slots=True)
class Command:
    """A shell script for a host, by the name that the transcript shows.

    The script holds no secret, and neither does the payload: keys are made where they stay.
    """

    name: str
    script: str
    payload: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended; `seconds` is its own time on the host."""

    name: str
    status: int
    stdout: str
    stderr: str
    seconds: float


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The results of the commands that ran, and the host's clock (seconds since the epoch)."""

    results: tuple[Result, ...]
    began: float
    ended: float

    def clock_offset(self, sent: float, received: float) -> tuple[float, float]:
        """Tell the host's clock minus the runner's, and how uncertain that is, in seconds.

        As NTP does: the first reading is later than `sent`, the last earlier than `received`.
        """
        least, most = self.ended - received, self.began - sent
        return (least + most) / 2, abs(most - least) / 2

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def __getitem__(self, index: int) -> Result:
        return self.results[index]


def batch_script(
    commands: tuple[Command, ...], token: str, *, fence: str | None = None, keep_going: bool = False
) -> str:
    """Write the script that runs the commands in turn, each under `set -euo pipefail`.

    It stops after the first that fails, unless `keep_going`. `token` must be unguessable: it
    marks where one answer ends. With a `fence` (shell that fails when the cluster's lock is no
    longer ours) nothing runs when that fails, and the status is FENCED_OUT.
    """
    lines = [
        f"{_PRELUDE}batch() {{",
        # Asking the kernel how long it is up starts no process, which `date` would each time.
        "read -r up _ < /proc/uptime",
        f'printf \'\\n{token} begin %s %s\\n\' "$(date +%s.%N)" "$up"',
        f"printf '\\n{token} begin\\n' >&2",
    ]
    if fence is not None:
        lines.append(f"( {fence}\n) </dev/null || exit {FENCED_OUT}")
    for index, command in enumerate(commands):
        source = "</dev/null" if command.payload is None else f"<<'{token}'"
        lines += ["( set -euo pipefail", command.script, f") {source}"]
        if command.payload is not None:
            lines += [command.payload.removesuffix("\n"), token]
        lines += [
            "status=$?",
            "read -r up _ < /proc/uptime",
            f"printf '\\n{token} {index} %s %s\\n' $status $up",
            f"printf '\\n{token} {index}\\n' >&2",
        ]
        if not keep_going:
            lines.append("[ $status -eq 0 ] || exit 0")
    # One function, called last: a script that was cut off on its way runs nothing.
    return "\n".join([*lines, "}", "batch", "exit 0", ""])


def parse_batch(
    commands: tuple[Command, ...], token: str, stdout: str, stderr: str
) -> BatchResult | None:
    """Read a batch's output; None when the script never began (see standard error).

    A command that was cut off has no result, and neither have those after it.
    """
    begin = re.search(rf"\n{token} begin (\S+) (\S+)\n", stdout)
    if begin is None:
        return None
    error_begin = re.search(rf"\n{token} begin\n", stderr)
    position, error_position = begin.end(), error_begin.end() if error_begin else 0
    began = float(begin.group(1))
    first_up = up = float(begin.group(2))
    results = []
    for index, command in enumerate(commands):
        mark = re.compile(rf"\n{token} {index} (\d+) (\S+)\n").search(stdout, position)
        if mark is None:
            break
        error_mark = re.compile(rf"\n{token} {index}\n").search(stderr, error_position)
        error_end = error_mark.start() if error_mark else len(stderr)
        started, up = up, float(mark.group(2))
        results.append(
            Result(
                command.name,
                int(mark.group(1)),
                stdout[position : mark.start()],
                stderr[error_position:error_end],
                up - started,
            )
        )
        position, error_position = mark.end(), error_mark.end() if error_mark else len(stderr)
    return BatchResult(tuple(results), began, began + up - first_up)


def make_token() -> str:
    """Make an unguessable mark."""
    return f"mark-{secrets.token_hex(12)}"


def talking_script(body: str, token: str) -> str:
    """Write the script that runs one body, whose words for us go through `say`.

    The body reads what is sent behind the script. It is one function that is called last, as in a
    batch; `hear` tells its words from all others.
    """
    return f"""{_PRELUDE}say() {{ printf '\\n{token} %s\\n' "$*"; }}
talk() {{
say {BEGIN}; say {BEGIN} >&2
set -euo pipefail
{body}
}}
talk; exit
"""


def hear(line: str, token: str) -> str | None:
    """Read one line of a talking script; None where it is not the script's own."""
    words = line.rstrip("\r\n")
    return words.removeprefix(f"{token} ") if words.startswith(f"{token} ") else None
