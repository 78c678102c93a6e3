"""Every script that is sent to a host: bash 4.2 and the tools of its time can run it.

The floor is that of the oldest systems in use: bash 4.2, systemd 219, coreutils 8.22, iproute2
3.10, util-linux 2.23, OpenSSL 1.0.2. What came later and is tempting stands in `LATER`.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

import tasks.hosts
from tasks.hosts.batch import SHELL, Command, batch_script, parse_batch, talking_script
from tasks.hosts.kubelet import StaticPod
from tasks.hosts.services import SystemdUnit
from tasks.model.certificates import Generation
from tasks.model.layout import MANIFEST, Pair
from tasks.model.member_settings import TextFile
from tasks.model.observation import FileState
from tasks.model.pods import etcd_pod
from tasks.model.restores import RestoreTools
from tests.unit.plan_cases import inventory

TOKEN = "mark-of-this-test"
UNIT, POD = SystemdUnit("etcd.service"), StaticPod(MANIFEST)
FILE, OTHER = PurePosixPath("/etc/etcd/ssl/server.pem"), PurePosixPath("/etc/etcd/ssl/server-k.pem")
TALKS = ("_session", "upload_script")
NOT_SENT = {"batch_script", "talking_script", "no_session"}
SAMPLES: dict[str, Any] = {
    "str": "10.0.0.11",
    "str | None": "systemctl reload etcd",
    "int": 2379,
    "bool": True,
    "PurePosixPath": FILE,
    "PurePosixPath | None": OTHER,
    "Iterable[str]": ("etcd", "etcdctl"),
    "tuple[str, ...]": ("one", "two"),
    "tuple[int, ...]": (2379, 2380),
    "Iterable[PurePosixPath]": (FILE, OTHER),
    "Iterable[tuple[PurePosixPath, PurePosixPath]]": ((FILE, OTHER),),
    "tuple[tuple[str, str, int], ...]": (("m2", "10.0.0.12", 2380), ("m3", "fd00::3", 2380)),
    "Pair": Pair("server", (), FILE, OTHER),
    "PodFile": etcd_pod(MANIFEST),
    "Generation": Generation.NEXT,
    "FileState": FileState("0640", "root", "root", "0" * 64, "text\n"),
    "TextFile": TextFile("/etc/etcd/etcd.conf", "a=b\n"),
    "Supervisor": UNIT,
    "Layout": inventory(paths={"wal_directory": "/wal/etcd"}).layout("m1"),
    "SystemdUnit": UNIT,
    "RestoreTools": RestoreTools(PurePosixPath("/usr/local/bin"), "3.6.16", "etcdutl", bumps=True),
}
"""What a maker of scripts is called with, by its parameter's annotation."""

MEANT = {
    "SC2154": "coproc sets NAME_PID",
    "SC2174": "the directories above are there",
    "SC2254": "a pattern is handed to `case`",
}
"""What shellcheck objects to, and why it is so."""

LATER = {
    r"EPOCHREALTIME|EPOCHSECONDS|BASH_ARGV0|SRANDOM": ("$EPOCHREALTIME", "bash 5.0"),
    r"\$\{[^}]*@[A-Za-z]\}": ("${x@Q}", "bash 4.4"),
    r"\bwait -\w": ("wait -n", "bash 4.3"),
    r"\b(mapfile|readarray)\b.* -d": ("mapfile -t -d ''", "bash 4.4"),
    r"\b(local|declare|typeset) -\w*n": ("local -n x=y", "bash 4.3"),
    r"\blocal -(\s|;|$)": ("local -", "bash 4.4"),
    r"-v \w+\[": ("[[ -v a[1] ]]", "bash 4.3"),
    r"inherit_errexit": ("shopt -s inherit_errexit", "bash 4.4"),
    r"\[@\]\}": ('"${a[@]}"', "bash 4.4, where it is empty, under set -u"),
    r"\w+\[-\d+\]=": ("a[-1]=x", "bash 4.3"),
    r"systemctl\b.*(--value|--json|--now|--kill-whom|--what|--timestamp| -P )": (
        "systemctl show x -p MainPID --value", "systemd 230 and later",
    ),
    r"systemctl\b.* (revert|clean|freeze|thaw) ": ("systemctl revert x", "systemd 230 and later"),
    r"journalctl\b.*(--output-fields|--grep|--invocation|--namespace)": (
        "journalctl -u x --grep y", "systemd 236 and later",
    ),
    r"systemd-run\b.*(--wait|--pipe|--collect)": ("systemd-run --wait x", "systemd 232"),
    r"\bss -\w*[HOQ]|\bss\b.*--no-header": ("ss -Hltn", "iproute2 4.10"),
    r"\bip -\w*j|\bip\b.*-br(ief)?\b": ("ip -json addr", "iproute2 4.13"),
    r"\b(lsblk|findmnt|lscpu)\b.*(-J|--json)": ("findmnt -J", "util-linux 2.27"),
    r"\bflock\b.*(-F|--no-fork)\b": ("flock -F x y", "util-linux 2.29"),
    r"\bsync -": ("sync -f /x", "coreutils 8.24"),
    r"\bdd\b.*status=progress": ("dd status=progress", "coreutils 8.24"),
    r"\benv -\w*[SC]": ("env -S x", "coreutils 8.28"),
    r"\btimeout -\w*v": ("timeout -v 3 x", "coreutils 8.29"),
    r"\b(cut|head|tail|sha256sum) -\w*z|--ignore-missing": ("cut -z -f1", "coreutils 8.25"),
    r"\b(mv|cp|ls|cksum)\b.*(--exchange|--no-copy|--update=|--zero|--algorithm)": (
        "mv --exchange a b", "coreutils 9",
    ),
    r"\b(b2sum|basenc)\b": ("b2sum x", "coreutils 8.26"),
    r"openssl\b.*(-addext|-noenc|-copy_extensions| -ext )": (
        "openssl req -addext x", "OpenSSL 1.1.1",
    ),
    r"openssl s_client\b.* -nameopt": ("openssl s_client -nameopt x", "OpenSSL 1.1.1"),
}  # fmt: skip
"""Pattern: an example of what it finds, and since when that is there."""


def makers() -> Iterator[tuple[str, Callable[..., Any]]]:
    """List all that make a script for a host."""
    for module in pkgutil.iter_modules(tasks.hosts.__path__):
        found = importlib.import_module(f"tasks.hosts.{module.name}")
        for name, made in inspect.getmembers(found, inspect.isfunction):
            is_own = made.__module__ == found.__name__ and name not in NOT_SENT
            is_sent = made.__annotations__.get("return") in {"Command", "tuple[Command, ...]"}
            if is_own and (is_sent or name.endswith(("_session", "_fence", "_script"))):
                yield f"{module.name}.{name}", made
    for supervisor in (UNIT, POD):
        for name, _ in inspect.getmembers(type(supervisor), inspect.isfunction):
            if "_command" in name:
                yield f"{type(supervisor).__name__}.{name}", getattr(supervisor, name)


def scripts() -> dict[str, str]:
    """Write every script as it is sent, by its maker's name."""
    written = {}
    for name, maker in makers():
        parameters = inspect.signature(maker).parameters
        samples = {key: SAMPLES[str(of.annotation)] for key, of in parameters.items()}
        if "request" in samples:
            samples["request"] = "GET /version HTTP/1.0"
        if "validate" in samples:
            samples["validate"] = UNIT.verification(PurePosixPath(f"/etc/{UNIT.name}"))
        made = maker(**samples)
        if not isinstance(made, str):
            commands = (made,) if isinstance(made, Command) else tuple(made)
            written[name] = batch_script(commands, TOKEN)
        elif name.endswith(TALKS):
            written[name] = talking_script(made, TOKEN)
        else:
            written[name] = batch_script((Command("look", ":"),), TOKEN, fence=made)
    return written


SCRIPTS = scripts()


def test_the_makers_of_scripts_are_found() -> None:
    """A sample, so that the tests below have what they are about."""
    known = {"files.upload_script", "sessions.lock_session", "sessions.lock_fence"}
    known |= {"sharing.sharing_command", "pods.stop_command", "SystemdUnit.restart_command"}
    assert known < SCRIPTS.keys()
    assert len(SCRIPTS) > 60


def test_no_script_uses_what_old_hosts_lack() -> None:
    """It was $EPOCHREALTIME, in each of them."""
    found = [
        f"{name}: {line.strip()} ({since})"
        for name, script in SCRIPTS.items()
        for line in script.splitlines()
        for pattern, (_, since) in LATER.items()
        if re.search(pattern, line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("pattern", "example"), [(k, v[0]) for k, v in LATER.items()])
def test_what_came_later_is_recognised(pattern: str, example: str) -> None:
    """A pattern that finds nothing would hold nothing."""
    assert re.search(pattern, example)


@pytest.mark.parametrize("login", ["sh", "bash", "dash", "zsh", "fish", "tcsh", "busybox"])
def test_any_login_shell_starts_a_script(login: str, tmp_path: Path) -> None:
    """It is told plain words; what it reads first may say anything, with or without a newline."""
    if (program := shutil.which(login)) is None:
        pytest.skip(f"there is no {login} (make packages installs some on Debian)")
    words = [program, *(["sh"] if login == "busybox" else []), "-c"]
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    payload = "$dollar `tick` 'quote' !bang \\\\ é\n"
    commands = (Command("one", "echo out; echo err >&2"), Command("two", "cat", payload))
    for noise in ("", "printf hello; "):
        ended = subprocess.run(
            [*words, f"{noise}env LC_ALL=C {SHELL}"], input=batch_script(commands, TOKEN),
            capture_output=True, text=True, env=environment, timeout=30, check=True,
        )  # fmt: skip
        batch = parse_batch(commands, TOKEN, ended.stdout, ended.stderr)
        assert batch is not None
        assert [each.stdout for each in batch] == ["out\n", payload]


def test_every_script_is_sound_to_shellcheck(tmp_path: Path) -> None:
    """Parsed as bash; what it finds at the level of a warning ends the test."""
    if (program := shutil.which("shellcheck")) is None:
        pytest.skip("there is no shellcheck (make packages installs it on Debian)")
    for name, script in SCRIPTS.items():
        (tmp_path / f"{name}.bash").write_text(script)
    ended = subprocess.run(
        [program, "--shell=bash", "--severity=warning", "--format=gcc",
         f"--exclude={','.join(MEANT)}", *tmp_path.iterdir()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert not ended.stdout, ended.stdout
