"""What makes a host's logins odd, as shell for root on its console: accounts, sshd, sudo."""

from __future__ import annotations

SSHD = "/etc/ssh/sshd_config.d/00-variant.conf"
RELOAD = """systemctl reload ssh; sleep 0.2
until ss -ltn 'sport = :22' | grep -q :22; do sleep 0.05; done"""


def shell(path: str, user: str = "operator") -> str:
    """Give an account another login shell."""
    return f"sed -i 's#^\\({user}:.*:\\)[^:]*$#\\1{path}#' /etc/passwd"


def sshd(*lines: str) -> str:
    """Write settings of the SSH server's before all others."""
    text = "\\n".join(lines)
    return f"printf '{text}\\n' > {SSHD}; {RELOAD}"


def bashrc(line: str, user: str = "operator") -> str:
    """Give an account a .bashrc."""
    return f"cat > /home/{user}/.bashrc <<'END'\n{line}\nEND"


def account(name: str) -> str:
    """Give the host another account that logs in and may do all, as the operator."""
    there = f"/home/{name}"
    sudoers = name.replace("@", r"\@")
    return (
        f"echo '{name}:x:2000:2000::{there}:/bin/bash' >> /etc/passwd; "
        f"echo '{name}:*:20000:0:99999:7:::' >> /etc/shadow; "
        f"cp -r /home/operator {there}; chown -R 2000:2000 {there}; "
        f"echo '{sudoers} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/zz-a"
    )


def below(line: str) -> str:
    """Append a line to sudoers: below the include of sudoers.d, whose lines it beats."""
    return f"grep -q '^@includedir' /etc/sudoers && echo '{line}' >> /etc/sudoers"
