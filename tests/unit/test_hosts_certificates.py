"""Parsers of what hosts say of certificates and of etcd's that others have set up."""

from __future__ import annotations

import subprocess
from base64 import b64encode
from pathlib import Path, PurePosixPath

import pytest

from tasks.hosts import adoption, clients, leaves, served
from tasks.hosts.batch import Command, Result

CHAIN = (
    "CONNECTED(00000003)\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    " 1 s:CN = etcd\n-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n---\n"
)


def said(text: str) -> Result:
    """Make a result of some output."""
    return Result("x", 0, text, "", 0.1)


def bash(command: Command, *more: str) -> subprocess.CompletedProcess[str]:
    """Run a command's script as a batch would."""
    script = "\n".join(["set -euo pipefail", command.script, *more])
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)


def test_the_chain_is_cut_out_of_what_openssl_shows() -> None:
    """The leaf first; nothing presented is None."""
    chain = served.parse_served(said(CHAIN))
    assert chain is not None
    assert chain.index("AAAA") < chain.index("BBBB")
    assert served.parse_served(said("connect:errno=111\n")) is None


def test_only_an_answer_counts_as_let_in() -> None:
    """What was said instead is kept."""
    met = served.parse_peers(said("m2  depth=0 CN = m2 HTTP/1.0 200 OK\nm3  alert bad certificate"))
    assert met == {"m2": None, "m3": "alert bad certificate"}


def test_a_port_that_nobody_listens_on_is_told_at_once() -> None:
    """The script ends well, with a line for the peer."""
    nowhere = PurePosixPath("/dev/null")
    command = served.peers_command(nowhere, nowhere, nowhere, (("m2", "127.0.0.1", 9),))
    done = bash(command)
    assert done.returncode == 0, done.stderr
    assert served.parse_peers(said(done.stdout))["m2"]


def test_a_process_knows_its_flags_and_variables() -> None:
    """As they are; further etcds are told by their units."""
    words, variables = b"etcd\0--name=m1\0", b"ETCD_DATA_DIR=/d=1\0"
    found = adoption.parse_etcd(
        "m1",
        said(
            "LoadState=loaded\nFragmentPath=/etc/systemd/system/etcd.service\n"
            "other=etcd-events.service\nprogram=/usr/bin/etcd (deleted)\n"
            "account=etcd\nversion=etcd Version: 3.5.16\n"
            f"arguments={b64encode(words).decode()}\nvariables={b64encode(variables).decode()}\n"
        ),
    )
    assert found is not None
    assert (found.program, found.version, found.account) == ("/usr/bin/etcd", "3.5.16", "etcd")
    assert found.arguments == ("etcd", "--name=m1")
    assert found.variables == {"ETCD_DATA_DIR": "/d=1"}
    assert found.others == ("etcd-events.service",)


def test_a_unit_that_does_not_run_is_found_and_none_is_none() -> None:
    """Its files say the rest; another unit's etcd is told where there is none of this one."""
    found = adoption.parse_etcd("m1", said("LoadState=loaded\nUser=etcd\nFragmentPath=/u\n"))
    assert found is not None
    assert not found.is_running
    assert found.account == "etcd"
    assert adoption.parse_etcd("m1", said("LoadState=not-found\n")) is None
    other = adoption.parse_etcd("m1", said("LoadState=not-found\nother=etcd2.service\n"))
    assert other is not None
    assert (other.unit_path, other.others) == ("", ("etcd2.service",))


def test_a_client_is_told_and_the_note_of_it_goes_only_when_that_went_well(
    tmp_path: PurePosixPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed after_change leaves the note, so that the next run tells it again."""
    monkeypatch.setattr(clients, "PENDING", PurePosixPath(tmp_path) / "pending")
    assert bash(clients.mark_pending_command("api")).returncode == 0
    assert clients.parse_pending(said(bash(clients.pending_command("api")).stdout))
    assert bash(clients.tell_command("api", "false")).returncode != 0
    assert clients.parse_pending(said(bash(clients.pending_command("api")).stdout))
    assert bash(clients.tell_command("api", "true")).returncode == 0
    assert not clients.parse_pending(said(bash(clients.pending_command("api")).stdout))


@pytest.mark.parametrize("linked", ["files", "directory"])
def test_symlinked_pairs_are_swapped_where_they_lead(tmp_path: Path, linked: str) -> None:
    """Puppet's, Vault's and ACME's way: the links stay, the old pair is kept aside."""
    store, names = tmp_path / "store", tmp_path / "ssl"
    store.mkdir()
    if linked == "directory":
        names.symlink_to(store)
    else:
        names.mkdir()
    for name in ("a.pem", "a-key.pem"):
        (store / name).write_text("old\n")
        if linked == "files":
            (names / name).symlink_to(store / name)
    key = "openssl genpkey -algorithm ed25519 -out a-key.pem.new 2>/dev/null"
    certificate = "openssl req -x509 -key a-key.pem.new -subj /CN=a -out a.pem.new"
    made = Command("make", f"cd {names}; {key}; {certificate}")
    assert bash(made).returncode == 0
    new = (names / "a.pem.new").read_text(), (names / "a-key.pem.new").read_text()
    swap = leaves.swap_leaf_command(
        PurePosixPath(names / "a.pem"),
        PurePosixPath(names / "a-key.pem"),
        backup=PurePosixPath(tmp_path / "kept"),
    )
    done = bash(swap)
    assert done.returncode == 0, done.stderr
    link = names if linked == "directory" else names / "a.pem"
    assert link.readlink() == (store if linked == "directory" else store / "a.pem")
    assert ((store / "a.pem").read_text(), (store / "a-key.pem").read_text()) == new
    for place in (store, names):
        assert {each.name for each in place.iterdir()} == {"a.pem", "a-key.pem"}
    kept = tmp_path / "kept" / str(names).removeprefix("/")
    assert {(kept / name).read_text() for name in ("a.pem", "a-key.pem")} == {"old\n"}
    assert not (kept / "a.pem").is_symlink()
