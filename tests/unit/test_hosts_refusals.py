"""Why no script can be run as root on a host, with what leads out."""

from __future__ import annotations

import pytest

from tasks.hosts.refusals import no_root


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("sudo: a password is required", "NOPASSWD: ALL' in /etc/sudoers.d"),
        ("lecture\nsudo: ops is not in the sudoers file.", "(sudo: ops is not in the sudoers"),
        ("sudo: sorry, you must have a tty to run sudo", "'Defaults:ops !requiretty'"),
        ("This account is currently not available.", "no root shell for ops: This account"),
        ("", "the shell ended with status 1"),
    ],
)
def test_no_root_says_what_to_allow(said: str, words: str) -> None:
    """A password, a terminal, a shell that is none."""
    assert words in no_root("ops", 1, said)
