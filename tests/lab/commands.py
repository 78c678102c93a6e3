"""Runs commands, each with a time limit, and no standard input unless given.

Owns nothing that outlives the call: when the time is up, the whole process group is killed.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.lab.errors import CommandFailed, CommandTimedOut

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

TOOL_TIMEOUT = 30.0
"""Seconds for a command of the machine itself (ip, mount, ssh-keygen), which takes milliseconds."""


@dataclass(frozen=True, slots=True)
class Completed:
    """How a command ended. `where` is the host's name, or "this machine"."""

    where: str
    command: tuple[str, ...]
    status: int
    stdout: str
    stderr: str

    def check(self) -> Completed:
        """Return itself, or raise CommandFailed unless the status is 0."""
        if self.status != 0:
            raise CommandFailed(
                f"{self.where}: `{shlex.join(self.command)}` ended with status {self.status}: "
                f"{(self.stderr or self.stdout).strip()[-2000:] or 'no output'}"
            )
        return self


def execute(
    argv: Sequence[str],
    *,
    timeout: float = TOOL_TIMEOUT,
    text: str | None = None,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    where: str = "this machine",
    shown: Sequence[str] | None = None,
) -> Completed:
    """Run a command to its end with `text` on its standard input; any status is returned.

    `timeout` is in seconds, `directory` the working directory; `shown` stands for the command in
    messages. Raises CommandTimedOut after killing the command and what it started, and
    CommandFailed when there is no such program.
    """
    command = tuple(shown or argv)
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL if text is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=environment,
            cwd=directory,
        )
    except FileNotFoundError as error:
        raise CommandFailed(f"{where}: no such program: {argv[0]}") from error
    with process:
        try:
            stdout, stderr = process.communicate(
                None if text is None else text.encode(), timeout=timeout
            )
        except subprocess.TimeoutExpired as error:
            os.killpg(process.pid, signal.SIGKILL)
            raise CommandTimedOut(
                f"{where}: `{shlex.join(command)}` did not end within {timeout:g} s and was killed"
            ) from error
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return Completed(
        where,
        command,
        process.returncode,
        stdout.decode(errors="replace"),
        stderr.decode(errors="replace"),
    )


def run(*argv: str, timeout: float = TOOL_TIMEOUT, text: str | None = None) -> str:
    """Run a command of this machine and return its standard output; CommandFailed unless 0."""
    return execute(argv, timeout=timeout, text=text).check().stdout
