"""No restart brings a surprise: what would start next is compared with what runs, on real hosts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.hosts import services
from tasks.hosts.batch import Result
from tests.integration.rotations import authority_digits
from tests.integration.runbooks import Prefect, run_runbook
from tests.lab.etcd_programs import ETCD_3_6, ETCD_3_7, get_programs
from tests.lab.fixtures import StartLab
from tests.lab.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]
pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]

CONF = "/etc/etcd/etcd.conf"
PROGRAM = "/usr/local/bin/etcd"


@pytest.fixture(scope="module")
def lab(start_module_lab: StartLab, prefect: Prefect) -> Lab:
    """Bootstrap a cluster; each test leaves it as it was."""
    lab = start_module_lab(hosts=3)
    ended = run_runbook(prefect, "bootstrap_cluster", lab)
    assert ended.status == 0, ended.output
    return lab


@contextmanager
def changed(lab: Lab, host: str, do: str, undo: str) -> Iterator[None]:
    """Change a host by hand for the length of the block."""
    lab[host].run(do, timeout=60).check()
    try:
        yield
    finally:
        lab[host].run(undo, timeout=60).check()


def test_a_value_in_etcd_conf_with_which_etcd_would_not_start(lab: Lab, prefect: Prefect) -> None:
    """check_health names it, rotate_authority refuses before it stops that member.

    Restarted all the same, etcd's last words name the setting.
    """
    wrong = 's/^ETCD_HEARTBEAT_INTERVAL=.*/ETCD_HEARTBEAT_INTERVAL="fast"/'
    broken = f"cp -p {CONF} /root/kept; sed -i '{wrong}' {CONF}"
    heal = f"cp -p /root/kept {CONF}; systemctl restart etcd"
    with changed(lab, "master02", broken, heal):
        before = lab["master02"].run("systemctl show etcd -p MainPID").check().stdout
        checked = run_runbook(prefect, "check_health", lab)
        rotated = run_runbook(
            prefect, "rotate_authority", lab, "--replace", authority_digits(lab.inventory)
        )
        after = lab["master02"].run("systemctl show etcd -p MainPID").check().stdout
        assert lab["master02"].run("systemctl restart etcd", timeout=60).status != 0
        told = lab["master02"].run(services.last_words_command("etcd.service").script)
    assert checked.status == 1, checked.output
    assert "master02 would not start again: ETCD_HEARTBEAT_INTERVAL is 'fast'" in checked.stderr
    assert "the next restart of master02 will change: ETCD_HEARTBEAT_INTERVAL" in checked.stderr
    assert rotated.status == 2, rotated.output
    assert "master02 would not start again" in rotated.stderr
    assert after == before
    said = services.parse_last_words(Result("", 0, told.stdout, told.stderr, 0))
    assert "fast" in said
    assert "HEARTBEAT_INTERVAL" in said or "heartbeat-interval" in said
    healed = run_runbook(prefect, "check_health", lab)
    assert healed.status == 0, healed.output


def test_a_unit_that_is_disabled_or_changed_on_disk(lab: Lab, prefect: Prefect) -> None:
    """The next boot is told, and the command that helps."""
    drop_in = "/etc/systemd/system/etcd.service.d/50-hand.conf"
    do = (
        f"systemctl disable etcd; mkdir -p {Path(drop_in).parent}; "
        f"printf '[Service]\\nNice=1\\n' > {drop_in}"
    )
    undo = f"rm {drop_in}; systemctl daemon-reload; systemctl enable etcd"
    # `disable` reloads; the drop-in comes after it.
    with changed(lab, "master03", do, undo):
        checked = run_runbook(prefect, "check_health", lab)
    assert checked.status == 1, checked.output
    assert (
        "master03 would not start etcd at its next boot: etcd.service is disabled" in checked.stderr
    )
    assert "systemctl daemon-reload" in checked.stderr


def test_a_settings_file_and_a_flag_that_the_version_does_not_know(
    lab: Lab, prefect: Prefect
) -> None:
    """A key is dropped without a word, a flag ends etcd: check_health names both."""
    known = lab["master03"].run(f"{PROGRAM} --help 2>&1").stdout
    gone = "enable-v2" if "feature-gates" in known else "feature-gates"
    drop_in, yml = "/etc/systemd/system/etcd.service.d/50-hand.conf", "/etc/etcd/etcd.conf.yml"
    undo = f"rm -f {drop_in} {yml}; systemctl daemon-reload"

    def start_with(argument: str) -> str:
        return (
            f"mkdir -p {Path(drop_in).parent}; printf '{gone}: x=true\\n' > {yml}; "
            f"printf '[Service]\\nExecStart=\\nExecStart={PROGRAM} {argument}\\n' > {drop_in}; "
            "systemctl daemon-reload"
        )

    with changed(lab, "master03", start_with(f"--config-file {yml}"), undo):
        dropped = run_runbook(prefect, "check_health", lab)
    with changed(lab, "master03", start_with(f"--{gone}=x=true"), undo):
        refused = run_runbook(prefect, "check_health", lab)
    assert lab["master03"].run(f"{PROGRAM} --{gone}=x=true --version").status != 0
    assert f"drops {gone} of {yml}: " in dropped.stderr
    assert "master03 would not start again" not in dropped.stderr
    assert f"does not know --{gone}: " in refused.stderr
    assert "master03 would not start again" in refused.stderr


def test_a_program_that_was_deleted_under_a_running_member(lab: Lab, prefect: Prefect) -> None:
    """It runs on, and would not start again."""
    with changed(lab, "master01", f"mv {PROGRAM} /root/etcd", f"mv /root/etcd {PROGRAM}"):
        checked = run_runbook(prefect, "check_health", lab)
    assert checked.status == 1, checked.output
    assert f"master01 would not start again: {PROGRAM} is missing" in checked.stderr


def test_a_host_that_ssh_does_not_reach_hides_nothing(lab: Lab, prefect: Prefect) -> None:
    """The table is shown, and what is not known is a remark."""
    with changed(lab, "master02", "systemctl stop ssh", "systemctl start ssh"):
        checked = run_runbook(prefect, "check_health", lab)
    assert checked.status == 0, checked.output
    assert "master02: what its next restart would change is not known" in checked.stdout


@pytest.mark.chaos
@pytest.mark.one_etcd
def test_a_cluster_upgraded_by_hand_while_its_inventory_says_3_6(
    start_lab: StartLab, prefect: Prefect
) -> None:
    """No older program is put under it; half upgraded, the difference is told."""
    lab = start_lab(hosts=3, etcd=ETCD_3_6)
    assert run_runbook(prefect, "bootstrap_cluster", lab).status == 0
    newer = (get_programs(ETCD_3_7).directory / "etcd").read_bytes()
    for name, host in lab.hosts.items():
        (host.root / "root/etcd").write_bytes(newer)
        host.run(f"install -m 0755 /root/etcd {PROGRAM}").check()
        waiting = run_runbook(prefect, "check_health", lab)
        assert waiting.status == 1, waiting.output
        assert (
            f"the next restart of {name} will change: etcd {ETCD_3_6} becomes {ETCD_3_7}"
            in waiting.stderr
        )
        host.run("systemctl restart etcd", timeout=60).check()
    refused = run_runbook(prefect, "bootstrap_cluster", lab)
    assert refused.status == 2, refused.output
    assert "bootstrap_cluster neither upgrades nor downgrades" in refused.stderr
    for host in lab.hosts.values():
        assert ETCD_3_7 in host.run(f"{PROGRAM} --version").check().stdout
