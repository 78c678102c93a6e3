"""recover_certificates on clusters that their certificates have killed; how long it takes."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tasks.model.certificates import AuthorityPolicy, Role
from tasks.model.errors import NotSeen
from tasks.pki.authority import Authority, create_authority
from tests.integration.pairs import SSL, install, lab_authority, restart_all, sign_again
from tests.integration.rotations import find_strangers, serials
from tests.integration.runbooks import Ended, Prefect, etcdctl, run_runbook

if TYPE_CHECKING:
    from tests.lab.fixtures import StartLab
    from tests.lab.lab import Lab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def lab(start_module_lab: StartLab, prefect: Prefect) -> Lab:
    """Bootstrap a cluster that holds one key."""
    lab = start_module_lab(hosts=3)
    ended = run_runbook(prefect, "bootstrap_cluster", lab)
    assert ended.status == 0, ended.output
    etcdctl(lab, "put", "kept", "since the beginning")
    return lab


def recover(prefect: Prefect, lab: Lab, *options: str) -> Ended:
    """Recover the cluster, and see that it is whole: data, every way, and nothing left to do."""
    began = time.monotonic()
    ended = run_runbook(prefect, "recover_certificates", lab, *options)
    seconds = time.monotonic() - began
    assert ended.status == 0, ended.output
    sys.stdout.write(f"\nrecovered in {seconds:.1f} s, the start of the runner included\n")
    value = etcdctl(lab, "get", "kept", "--print-value-only").strip()
    assert value == "since the beginning"
    assert find_strangers(lab) == []
    assert run_runbook(prefect, "check_health", lab).status == 0
    again = run_runbook(prefect, "recover_certificates", lab)
    assert "nothing to recover" in again.stdout, again.output
    return ended


def expire(lab: Lab, authority: Authority | None = None) -> None:
    """Let all pairs expire, and take etcd's open connections away, so that HTTPS is dead."""
    for host in lab.hosts.values():
        for role in Role:
            sign_again(lab, host, role, left=timedelta(seconds=2), authority=authority)
    time.sleep(2.5)
    restart_all(lab)
    time.sleep(1)


def test_a_cluster_whose_pairs_have_all_expired(lab: Lab, prefect: Prefect) -> None:
    """HTTPS is dead: rotate_certificates is refused and names the way out; recovery brings it back.

    Etcd that waits for its peers reads the new pairs, so it is not restarted.
    """
    expire(lab)
    refused = run_runbook(prefect, "rotate_certificates", lab)
    assert refused.status == 2, refused.output
    assert "recover_certificates" in refused.stderr
    ended = recover(prefect, lab)
    assert "it expired on" in ended.stdout


def test_a_cluster_whose_authority_has_expired_too(lab: Lab, prefect: Prefect) -> None:
    """The authority gets a new life with the same key; everybody loads it."""
    sound = lab_authority(lab)
    now = datetime.now(UTC)
    begin = (now - timedelta(minutes=5)).replace(second=0, microsecond=0)
    dying = sound.renewed(now + timedelta(seconds=6) - begin, now)
    (lab.authority / "ca.pem").write_bytes(dying.certificate_pem)
    for host in lab.hosts.values():
        install(host, f"{SSL}/ca.pem", dying.certificate_pem.decode())
    expire(lab, dying)
    while datetime.now(UTC) < now + timedelta(seconds=7):
        time.sleep(0.2)
    dead = run_runbook(prefect, "check_health", lab)
    assert dead.status == 1
    assert "recover_certificates" in dead.stderr
    ended = recover(prefect, lab)
    assert "renew the authority: changed" in ended.stdout
    assert list(lab.authority.glob("ca.retired-*.pem"))


@pytest.mark.chaos
def test_a_member_that_would_not_start_whatever_its_certificates_are(
    lab: Lab, prefect: Prefect
) -> None:
    """Refused; with consent the others come back, and that member when it is put right.

    A certificate that is gone is no reason against: recovery writes it.
    """
    expire(lab)
    lab["master02"].run(f"rm {SSL}/server.pem; systemctl stop etcd").check()
    three, unit = lab["master03"], "/etc/systemd/system/etcd.service"
    three.run(f"systemctl stop etcd; mv {unit} /root/; systemctl mask etcd").check()
    refused = run_runbook(prefect, "recover_certificates", lab)
    assert refused.status == 2, refused.output
    assert "master03 would not start again: etcd.service is masked" in refused.stderr
    assert "master02" not in refused.stderr
    assert "--consent" in refused.stderr
    partly = run_runbook(prefect, "recover_certificates", lab, "--consent")
    assert partly.status == 1, partly.output
    assert "the others are recovered, and these were left as they are" in partly.stderr
    assert etcdctl(lab, "get", "kept", "--print-value-only").strip() == "since the beginning"
    three.run(f"rm {unit}; mv /root/etcd.service {unit}; systemctl daemon-reload").check()
    recover(prefect, lab)


@pytest.mark.chaos
def test_a_member_that_does_not_start_with_what_recovery_wrote(lab: Lab, prefect: Prefect) -> None:
    """Its last words are told, its old files are back, the others serve; the same command heals."""
    expire(lab)
    two, check = lab["master02"], "/etc/etcd/old-pair.sh"
    drop_in = "/etc/systemd/system/etcd.service.d/50-hand.conf"
    old = two.run(f"sha256sum < {SSL}/server.pem").check().stdout
    refuse = f'[ "$(sha256sum < {SSL}/server.pem)" = "{old.strip()}" ] || '
    install(two, check, refuse + "{ echo the old pair only; exit 1; }\n")
    two.run(["mkdir", "-p", drop_in.rpartition("/")[0]]).check()
    install(two, drop_in, f"[Service]\nExecStartPre=/bin/sh {check}\n")
    # Down, so that recovery starts it: one that waits for its peers would read the new pair.
    two.run("systemctl daemon-reload; systemctl stop etcd", timeout=60).check()
    failed = run_runbook(prefect, "recover_certificates", lab)
    assert failed.status == 1, failed.output
    assert "master02: etcd ended after its start; its last words: the old pair only" in (
        failed.stderr
    )
    assert "this run had changed there: " in failed.stderr
    assert "The old one is back in place and etcd runs with it" in failed.stderr
    assert "run recover_certificates again" in failed.stderr
    assert two.run(f"sha256sum < {SSL}/server.pem").check().stdout == old
    assert etcdctl(lab, "get", "kept", "--print-value-only").strip() == "since the beginning"
    two.run(f"rm {check} {drop_in}; systemctl daemon-reload").check()
    recover(prefect, lab)


@pytest.mark.chaos
def test_a_key_that_does_not_match_and_a_pair_copied_from_another_member(
    lab: Lab, prefect: Prefect
) -> None:
    """Two hosts of three serve nothing that others accept; what is sound is left alone."""
    two, three = lab["master02"], lab["master03"]
    two.run(f"cat {SSL}/peer-key.pem > {SSL}/server-key.pem").check()
    for name in ("peer.pem", "peer-key.pem", "server.pem", "server-key.pem"):
        install(three, f"{SSL}/{name}", two.run(["cat", f"{SSL}/{name}"]).check().stdout)
    install(three, f"{SSL}/server-key.pem", two.run(["cat", f"{SSL}/peer-key.pem"]).stdout)
    restart_all(lab)
    before = serials(lab)
    ended = recover(prefect, lab)
    assert "it does not match its key" in ended.stdout
    assert f"it lacks the SAN {three.address}" in ended.stdout
    after = serials(lab)
    assert after["master01"] == before["master01"]
    assert after["master03"] != before["master03"]


def test_a_rotation_that_was_left_half_done_by_hand(lab: Lab, prefect: Prefect) -> None:
    """One host trusts and uses another authority alone; a cluster that serves asks for consent."""
    stranger = create_authority(AuthorityPolicy(common_name="etcd"), datetime.now(UTC))
    host = lab["master02"]
    install(host, f"{SSL}/ca.pem", stranger.certificate_pem.decode())
    for role in Role:
        sign_again(lab, host, role, left=timedelta(days=300), authority=stranger)
    host.run("systemctl restart --no-block etcd").check()
    refused = run_runbook(prefect, "recover_certificates", lab)
    assert refused.status == 2, refused.output
    assert "--consent" in refused.stderr
    recover(prefect, lab, "--consent")


@pytest.mark.chaos
def test_a_host_that_cannot_be_reached_is_picked_up_later(lab: Lab, prefect: Prefect) -> None:
    """Two of three are brought back and serve, which is no "done"; the next run takes the third."""
    expire(lab)
    lab["master03"].cut_cable()
    try:
        ended = run_runbook(prefect, "recover_certificates", lab)
        assert ended.status == NotSeen.exit_status, ended.output
        assert "master03: is left out" in ended.stdout
    finally:
        lab["master03"].plug_cable()
    recover(prefect, lab)
