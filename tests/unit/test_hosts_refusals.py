"""Why no script can be run as root on a host, with what leads out."""

from __future__ import annotations

import pytest

from tasks.hosts.refusals import no_root


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("sudo: a password is required", "nobody is there to type it: allow it without one"),
        ("sudo: a password is required", "'ops ALL=(ALL) NOPASSWD: ALL' as the last one of /e"),
        ("lecture\nsudo: ops is not in the sudoers file.", "(sudo: ops is not in the sudoers"),
        ("sudo: sorry, you must have a tty to run sudo", "'Defaults:ops !requiretty'"),
        ("bash: line 1: sudo: command not found", "there is no sudo for ops"),
        ("sh: 1: sudo: not found", "there is no sudo for ops"),
        ("sudo: Command not found.", "there is no sudo for ops"),
        ("fish: Unknown command: sudo", "there is no sudo for ops"),
        ("zsh:1: command not found: sudo", "there is no sudo for ops"),
        ("env: 'sudo': No such file or directory", "there is no sudo for ops"),
        ("sudo: bash: command not found", "there is no bash for ops"),
        ("sh: 1: bash: not found", "there is no bash for ops"),
        ("bash: 4.1.2(1)-release is too old", "bash: 4.1.2(1)-release is too old"),
        ("Use sudo with care.\nmark-0 0\nnologin: no", "no root shell for ops: nologin: no"),
        ("This account is currently not available.", "no root shell for ops: This account"),
        ("", "the shell ended with status 1"),
    ],
)
def test_no_root_says_what_to_allow(said: str, words: str) -> None:
    """A password, a terminal, a shell that is none."""
    assert words in no_root("ops", 1, said)


PASSWORD = "sudo: a password is required"
LISTED = (
    "Matching Defaults entries for ops on h:\n    env_reset\n\n"
    "User ops may run the following commands on h:\n"
)


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        ("    (ALL : ALL) ALL\n    (root) NOPASSWD: /usr/bin/id\n", "nobody is there to type it"),
        ("    (root) NOPASSWD: /usr/bin/id, /usr/bin/\n        journalctl\n", "is not among them"),
        ("    (ALL) NOPASSWD: ALL\n    (ALL : ALL) ALL\n", "the last that matches counts"),
        ("    (root) NOPASSWD: /bin/bash\n    (ALL) ALL\n", "the last that matches counts"),
    ],
)
def test_a_password_that_is_wanted_has_three_reasons(listed: str, words: str) -> None:
    """All were told to add NOPASSWD, which was there."""
    assert words in no_root("ops", 1, PASSWORD, LISTED + listed)


def test_a_name_is_written_as_sudoers_takes_it() -> None:
    """Of a directory's account the line would mean a host otherwise."""
    assert r"'svc\@corp.example.org ALL=(ALL)" in no_root("svc@corp.example.org", 1, PASSWORD)


def test_a_refusal_is_one_sentence() -> None:
    """It was 250 lines of marks."""
    marks = "".join(f"mark-0123 {n}\n" for n in range(250))
    told = no_root("ops", 1, f"{marks}bash: line 9: unbound variable {'x' * 900}\n")
    assert "mark-" not in told
    assert "\n" not in told
    assert len(told) < 300
