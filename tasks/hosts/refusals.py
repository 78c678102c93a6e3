"""What an SSH server that is up says no to, in sentences that lead out."""

from __future__ import annotations

SESSIONS = 10
"""OpenSSH's default of MaxSessions."""


def no_session(reason: str) -> str:
    """Say that a connection gets no further session."""
    return (
        f"its SSH server opens no further session on a connection ({reason}): a run needs some at "
        f"once, set MaxSessions in its sshd_config to at least {SESSIONS}"
    )


def no_command(user: str) -> str:
    """Say that a session was opened, and the command in it was not taken."""
    return (
        f"its SSH server lets {user} run no command (the exec request was refused): allow it there "
        "for this account and key, or name another in ssh.user"
    )


def no_root(user: str, status: int, stderr: str) -> str:
    """Say why no script could be run as root."""
    said = stderr.strip() or f"the shell ended with status {status}"
    if "sudo" in said and "tty" in said:
        return (
            f"sudo -n wants a terminal of {user} ({said.splitlines()[-1]}); allow it without one "
            f"with 'Defaults:{user} !requiretty' in /etc/sudoers.d"
        )
    if "sudo" in said:
        return (
            f"sudo -n is denied to {user} ({said.splitlines()[-1]}); allow it with "
            f"'{user} ALL=(ALL) NOPASSWD: ALL' in /etc/sudoers.d"
        )
    return f"no root shell for {user}: {said}"
