"""What an SSH server or sudo that is up says no to, in sentences that lead out.

Each is one sentence: what a login says of its own, and marks of ours, are left out.
"""

from __future__ import annotations

import re

SESSIONS = 10
"""OpenSSH's default of MaxSessions."""
LONGEST = 200
LAST = "as the last one of /etc/sudoers (visudo)"
"""The last line that matches counts: in sudoers.d one below `@includedir`, or in a file that sorts
after, would beat it, and which it is an account that is refused cannot read."""
NO_LISTING = "sudo: a password is required"

_SPECIAL = re.compile(r"""([@!=:,()\\"' ])""")
_MISSING = re.compile(r"not found|no such file|unknown command", re.IGNORECASE)
_SHELLS = re.compile(r"(^|[\s,:])(ALL|/\S*/(bash|sh))(?=\s*(,|$))")


def no_session(reason: str) -> str:
    """Say that a connection gets no further session."""
    return (
        f"its SSH server opens no further session on a connection ({reason}): a run needs some at "
        f"once, set MaxSessions in its sshd_config to at least {SESSIONS}"
    )


DROPPED = (
    "its SSH server ended the connection before it said who it is: it has too many logins at once "
    "(MaxStartups), or lets this address in no more (a ban, hosts.deny)"
)


def no_forwarding(where: str) -> str:
    """Say that a jump host leads nowhere."""
    return (
        f"the jump host does not forward to {where} (administratively prohibited): allow it in "
        "its sshd_config (AllowTcpForwarding yes, PermitOpen any)"
    )


def no_tunnel(address: str, port: int) -> str:
    """Say that a host behind a jump host does not let its member's port be reached through it."""
    return (
        f"its SSH server does not forward to {address} port {port} (administratively "
        "prohibited), by which etcd is asked behind a jump host: allow it in its sshd_config "
        "(AllowTcpForwarding yes, PermitOpen any)"
    )


def no_command(user: str) -> str:
    """Say that a session was opened, and the command in it was not taken."""
    return (
        f"its SSH server lets {user} run no command (the exec request was refused): allow it there "
        "for this account and key, or name another in ssh.user"
    )


def wants_password(stderr: str) -> bool:
    """Whether sudo wanted a password, which it does for several reasons; see `no_root`."""
    return _reason(stderr).startswith(NO_LISTING)


def no_root(user: str, status: int, stderr: str, listed: str = "") -> str:
    """Say why no script could be run as root; `listed` is what `sudo -n -l` showed of the account.

    Sudo asks for a password before it says that a command is not allowed.
    """
    said = _reason(stderr) or f"the shell ended with status {status}"
    name = _SPECIAL.sub(r"\\\1", user)
    allow = f"'{name} ALL=(ALL) NOPASSWD: ALL'"
    mend = f"with the line {allow} {LAST}"
    if re.search(r"sudo:.*\btty\b", said):
        lift = f"'Defaults:{name} !requiretty'"
        return (
            f"sudo wants a terminal of {user} ({said}), and a runner has none: lift requiretty "
            f"with the line {lift} {LAST}"
        )
    if _MISSING.search(said) and re.search(r"sudo: \S*bash: |^(?!.*sudo).*\bbash\b", said):
        return f"there is no bash for {user} ({said}): install it"
    if _MISSING.search(said) and "sudo" in said:
        return (
            f"there is no sudo for {user} ({said}): install it, and allow it {mend}; or log in as "
            "root (ssh.user)"
        )
    if said.startswith(NO_LISTING):
        return _password_wanted(user, said, listed, mend)
    if said.startswith(("sudo:", "Sorry, user")):
        return f"sudo -n is refused to {user} ({said}); if it is not allowed there, allow it {mend}"
    return f"no root shell for {user}: {said}"


def _password_wanted(user: str, said: str, listed: str, mend: str) -> str:
    rules = _rules(listed)
    if rules and not any(map(_SHELLS.search, rules)):
        return (
            f"sudo lets {user} run some commands as root, and bash is not among them "
            f"({'; '.join(rules)[:LONGEST]}): allow it {mend}"
        )
    if any("NOPASSWD" in rule for rule in rules if _SHELLS.search(rule)):
        return (
            f"sudo wants a password of {user} ({said}) although one line says NOPASSWD: a later "
            f"one says otherwise, and the last that matches counts; allow it {mend}"
        )
    return (
        f"sudo wants a password of {user} ({said}), and nobody is there to type it: allow it "
        f"without one {mend}"
    )


def _rules(listed: str) -> list[str]:
    """Get what an account may run, from `sudo -l`; long lines are folded and indented deeper."""
    _, found, rest = listed.partition("may run the following commands")
    rules: list[str] = []
    for line in rest.splitlines()[1:] if found else []:
        if line.startswith("        ") and rules:
            rules[-1] += f" {line.strip()}"
        elif line.startswith("    "):
            rules.append(line.strip())
        else:
            break
    return rules


def _reason(stderr: str) -> str:
    """Get the line that tells why: sudo's or a shell's; else the last that was said."""
    lines = [line.strip() for line in stderr.splitlines()]
    lines = [line for line in lines if line and "mark-" not in line]
    told = [line for line in lines if re.match(r"(sudo|bash|env): |Sorry, user ", line)]
    told += [line for line in lines if _MISSING.search(line)]
    return (told or lines or [""])[0 if told else -1][:LONGEST]
