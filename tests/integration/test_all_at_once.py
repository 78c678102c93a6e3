"""Runbooks on a cluster each of whose hosts is odd in many ways at once.

The first: an account of a directory's with fish and a .bashrc that talks, and an SSH server with
one cipher. The second: everything of etcd's behind links, data on a disk of their own, an account
with another group. The third: behind a jump host, by a name in capitals that only that one
resolves, with a key that has a passphrase, and tcsh.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from ruamel.yaml import YAML

from tests.integration.logins import account, bashrc, shell, sshd
from tests.integration.members import find_leader, list_members
from tests.integration.odd import OddScene
from tests.integration.rotations import authority_digits

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.runbooks import Prefect
    from tests.lab.fixtures import StartLab
    from tests.lab.lab import Lab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.chaos, pytest.mark.one_etcd, pytest.mark.timeout(600)]

JUMP, USER, PASSPHRASE = "master05", "john.doe", "a passphrase of this test"
NAME = "MASTER03.Corp.Example.ORG"
TALK = "printf '*** Welcome ***'; echo; printf 'no newline' >&2"
FIRST = (
    account(USER),
    shell("/usr/bin/fish", USER),
    bashrc(TALK, USER),
    f"mkdir -p /home/{USER}/.config/fish",
    f"echo 'echo hello' > /home/{USER}/.config/fish/config.fish",
    f"chown -R 2000:2000 /home/{USER}",
    sshd("Ciphers chacha20-poly1305@openssh.com"),
)
SECOND = (
    "mkdir -p /srv/disk; mount -t tmpfs -o mode=0755 none /srv/disk",
    "mkdir -m 0700 /srv/disk/lost+found",
    "ln -s /srv/disk /var/lib/etcd",
    "mkdir -p /srv/ssl /srv/keys /srv/conf /opt/etcd/bin /etc/etcd",
    "ln -s /srv/ssl /etc/etcd/ssl; ln -s /srv/conf/etcd.conf /etc/etcd/etcd.conf",
    "ln -s /srv/keys/server-key.pem /srv/ssl/server-key.pem",
    "ln -s /opt/etcd/bin/etcd /usr/local/bin/etcd",
    "groupadd --system stores; useradd --system -g stores -s /usr/sbin/nologin etcd",
)
THIRD = (shell("/bin/tcsh"), "echo 'echo hello; stty sane' > /home/operator/.tcshrc")


@pytest.fixture(scope="module")
def scene(
    start_module_lab: StartLab, prefect: Prefect, tmp_path_factory: pytest.TempPathFactory
) -> OddScene:
    """Make three hosts odd and bootstrap a cluster on them; one is spare, one to jump from."""
    lab, files = start_module_lab(hosts=5), tmp_path_factory.mktemp("odd")
    for name, script in (("master01", FIRST), ("master02", SECOND), ("master03", THIRD)):
        lab[name].run("\n".join(("set -e", *script))).check()
    third, jump = lab["master03"], lab[JUMP]
    third.run(f"hostname {NAME}; echo {NAME} > /etc/hostname").check()
    jump.run(f"echo '{third.address} {NAME}' >> /etc/hosts").check()
    with lab.known_hosts.open("a") as known:
        known.write(f"{NAME.lower()} {third.host_key}\n")
    path = files / "odd.yaml"
    YAML().dump(write_inventory(lab, files), path)
    scene = OddScene(lab, path, prefect)
    scene.run("bootstrap_cluster")
    return scene


def write_inventory(lab: Lab, files: Path) -> dict[str, object]:
    """Make an inventory whose hosts are each reached in another way."""
    key, secret, config = files / "id_locked", files / "secret", files / "config"
    for file, text in ((key, lab.key.read_text()), (secret, PASSPHRASE)):
        file.touch(mode=0o600)
        file.write_text(text)
    keygen = ["ssh-keygen", "-q", "-p", "-P", "", "-N", PASSPHRASE, "-f", str(key)]
    subprocess.run(keygen, check=True)
    config.write_text(f"Host {NAME} {NAME.lower()}\n  ProxyJump operator@{lab[JUMP].address}\n")
    content: dict[str, object] = YAML(typ="safe").load(lab.inventory)
    ways: dict[str, dict[str, object]] = {
        "master01": {"ssh": {"user": USER}},
        "master02": {},
        "master03": {
            "address": NAME,
            "ssh": {"key": str(key), "key_passphrase": {"file": str(secret)}},
        },
    }
    hosts = [
        {"name": name, "address": lab[name].address} | changes for name, changes in ways.items()
    ]
    ssh = YAML(typ="safe").load(lab.inventory)["ssh"] | {"config": str(config)}
    return content | {"hosts": hosts, "ssh": ssh}


def test_a_look_and_what_renews(scene: OddScene) -> None:
    """Nothing is due or wrong; pairs and authority are exchanged, links stay links."""
    lab = scene.lab
    links = "readlink /etc/etcd/ssl /etc/etcd/etcd.conf /var/lib/etcd /srv/ssl/server-key.pem"
    before = lab["master02"].run(links).check().stdout
    assert before.splitlines()[-1] == "/srv/keys/server-key.pem"
    said = scene.run("check_health").output
    assert "is this the right machine" not in said
    scene.run("check_certificates", named="--clusters")
    assert "nothing to do" in scene.run("bootstrap_cluster").stdout
    scene.run("move_leader", "--to", NAME)
    assert find_leader(lab, ["master01", "master02", "master03"]) == "master03"
    scene.run("rotate_certificates", "--which", "all")
    scene.run("rotate_authority", "--replace", authority_digits(lab.inventory))
    assert lab["master02"].run(links).check().stdout == before
    scene.run("check_health")
    scene.run("check_certificates", named="--clusters")


def test_members_are_replaced(scene: OddScene) -> None:
    """One whose log is lost, in place and on its disk; a dead one, and one that is well."""
    lab = scene.lab
    lab["master02"].run("systemctl stop etcd; rm -r /srv/disk/default.etcd/member/wal").check()
    scene.run("replace_member", "--member", "master02")
    scene.run("check_health")
    lab["master03"].power_cut()
    words = ("--replacement", scene.joining("master04"), "--write-inventory")
    scene.run("replace_member", "--member", NAME.lower(), *words)
    scene.run("check_health")
    lab["master03"].reinstall()
    back = ("--replacement", scene.joining("master03"), "--write-inventory", "--planned")
    scene.run("replace_member", "--member", "MASTER02", *back)
    scene.run("check_health")
    assert set(list_members(lab, "master04")) == {"master01", "master03", "master04"}
    shown = lab["master02"].run("systemctl is-active etcd; ls -d /srv/disk/*").stdout.split()
    assert shown[0] == "inactive"
    assert "/srv/disk/default.etcd" not in shown
