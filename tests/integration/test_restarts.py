"""No restart brings a surprise: what would start next is compared with what runs, on real hosts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tasks.hosts import services
from tasks.hosts.batch import Result
from tasks.model.certificates import AuthorityPolicy
from tasks.pki.authority import create_authority
from tests.integration.pairs import install
from tests.integration.rotations import authority_digits
from tests.integration.runbooks import Prefect, run_runbook
from tests.lab.etcd_programs import ETCD_3_6, ETCD_3_7, get_programs
from tests.lab.fixtures import StartLab
from tests.lab.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]
pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]

CONF = "/etc/etcd/etcd.conf"
PROGRAM = "/usr/local/bin/etcd"
UNIT = "/etc/systemd/system/etcd.service"
TRUSTED = "/etc/etcd/ssl/ca.pem"


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


@contextmanager
def second_address(lab: Lab, host: str) -> Iterator[str]:
    """Give a host another address, known to SSH, for the length of the block."""
    own, known = lab[host].address, lab.known_hosts.read_text()
    prefix, _, last = own.rpartition(".")
    address = f"{prefix}.{int(last) + 100}"
    added = [line.replace(own, address) for line in known.splitlines() if own in line]
    place = f"{address}/24 dev $(ip -o address show scope global | awk '{{print $2; exit}}')"
    with changed(lab, host, f"ip address add {place}", f"ip address del {place}"):
        lab.known_hosts.write_text(known + "\n".join(added) + "\n")
        try:
            yield address
        finally:
            lab.known_hosts.write_text(known)


def test_a_value_in_etcd_conf_with_which_etcd_would_not_start(lab: Lab, prefect: Prefect) -> None:
    """check_health names it; rotate_authority and update_member refuse before that member stops.

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
        with second_address(lab, "master02") as address:
            moved = run_runbook(
                prefect, "update_member", lab, "--member", "master02", "--address", address
            )
        after = lab["master02"].run("systemctl show etcd -p MainPID").check().stdout
        assert lab["master02"].run("systemctl restart etcd", timeout=60).status != 0
        told = lab["master02"].run(services.SystemdUnit("etcd.service").last_words_command().script)
    assert checked.status == 1, checked.output
    assert "master02 would not start again: ETCD_HEARTBEAT_INTERVAL is 'fast'" in checked.stderr
    assert "the next restart of master02 will change: ETCD_HEARTBEAT_INTERVAL" in checked.stderr
    assert rotated.status == 2, rotated.output
    assert "master02 would not start again" in rotated.stderr
    assert moved.status == 2, moved.output
    assert "master02 would not start again: ETCD_HEARTBEAT_INTERVAL is 'fast'" in moved.stderr
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


def test_a_unit_that_is_masked_is_not_restarted_nor_unmasked(lab: Lab, prefect: Prefect) -> None:
    """It is told by check_health and refused by what would restart or start it."""
    kept = f"mv {UNIT} /root/etcd.service"
    undo = f"rm -f {UNIT}; mv /root/etcd.service {UNIT}; systemctl daemon-reload"
    with changed(lab, "master03", f"{kept}; systemctl mask etcd", undo):
        checked = run_runbook(prefect, "check_health", lab)
        rotated = run_runbook(
            prefect, "rotate_authority", lab, "--replace", authority_digits(lab.inventory)
        )
        begun = run_runbook(prefect, "bootstrap_cluster", lab)
        lab["master03"].run(f"[ -L {UNIT} ]").check()
    assert (checked.status, rotated.status, begun.status) == (1, 2, 2), begun.output
    assert "master03 would not start again: etcd.service is masked" in checked.stderr
    assert "master03 would not start again: etcd.service is masked" in rotated.stderr
    assert "on master03: systemctl unmask etcd.service" in begun.stderr
    assert run_runbook(prefect, "check_health", lab).status == 0


@pytest.mark.chaos
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


@pytest.mark.chaos
def test_a_trusted_file_that_was_changed_under_a_running_member(lab: Lab, prefect: Prefect) -> None:
    """Another authority in it is told by name, and update_member refuses; the same is a remark."""
    three, stranger = (
        lab["master03"],
        create_authority(AuthorityPolicy(common_name="stranger"), datetime.now(UTC)),
    )
    healthy = run_runbook(prefect, "check_health", lab)
    own = three.run(["cat", TRUSTED]).check().stdout
    install(three, TRUSTED, own + stranger.certificate_pem.decode())
    try:
        checked = run_runbook(prefect, "check_health", lab)
        with second_address(lab, "master03") as address:
            moved = run_runbook(
                prefect, "update_member", lab, "--member", "master03", "--address", address
            )
    finally:
        install(three, TRUSTED, own)
    back = run_runbook(prefect, "check_health", lab)
    three.run("systemctl restart etcd", timeout=60).check()
    again = run_runbook(prefect, "check_health", lab)
    assert (healthy.status, checked.status, moved.status) == (0, 1, 2), checked.output
    told = "the next restart of master03 will change: the authorities that it trusts are CN=etcd"
    assert f"{told}, and {TRUSTED} has " in checked.stderr
    assert "CN=stranger" in checked.stderr
    assert told in moved.stderr
    hint = f"master03: {TRUSTED} was changed after the start of its etcd"
    assert [hint in each.stdout for each in (healthy, back, again)] == [False, True, False]
    assert (back.status, again.status) == (0, 0), back.output


@pytest.mark.parametrize(
    ("starts", "told"),
    [
        ("ExecStartPre=/bin/sh {check}", "did not come back after its restart"),
        # A restart that says nothing of what comes after it.
        pytest.param(
            "Type=simple\\nExecStart=\\nExecStart=/bin/sh {check}",
            "ended right after its start",
            marks=pytest.mark.chaos,
        ),
    ],
    ids=["notify", "simple"],
)
def test_a_member_that_does_not_start_with_what_the_run_wrote(
    lab: Lab, prefect: Prefect, starts: str, told: str
) -> None:
    """Its last words are told, the old file is put back, it runs; the same command leads out."""
    check, drop_in = "/etc/etcd/one-authority.sh", f"{UNIT}.d/50-hand.conf"
    refuse = f"[ $(grep -c BEGIN {TRUSTED}) = 1 ] || {{ echo one authority only; exit 1; }}"
    refuse += f"; exec {PROGRAM}" if "simple" in starts else ""
    do = (
        f"mkdir -p {UNIT}.d; echo '{refuse}' > {check}; chmod 0644 {check}; "
        f"printf '[Service]\\n{starts.format(check=check)}\\n' > {drop_in}; "
        "systemctl daemon-reload"
    )
    aside_there = "$(ls -td /var/backups/etcd-runbooks/*-refused | head -n 1)"
    command = ("rotate_authority", lab, "--replace", authority_digits(lab.inventory))
    # Who leads is the first, so one has begun by then.
    run_runbook(prefect, "move_leader", lab, "--to", "master01")
    with changed(lab, "master02", do, f"rm {check} {drop_in}; systemctl daemon-reload"):
        failed = run_runbook(prefect, *command)
        lab["master02"].run("systemctl is-active etcd").check()
        trusted = lab["master02"].run(f"grep -c BEGIN {TRUSTED}").check().stdout
        aside = lab["master02"].run(f"grep -c BEGIN {aside_there}{TRUSTED}")
    assert failed.status == 1, failed.output
    assert f"{told}; its last words: one authority only" in failed.stderr
    assert f"this run had changed there: {TRUSTED}. The old one is back in place" in failed.stderr
    assert "run rotate_authority again" in failed.stderr
    assert (trusted.strip(), aside.check().stdout.strip()) == ("1", "2")
    seen = run_runbook(prefect, "check_health", lab)
    assert seen.status == 1, seen.output
    assert "rotate_authority goes on" in seen.stderr, seen.output
    assert "the next restart of master02" not in seen.stderr
    ended = run_runbook(prefect, *command)
    assert ended.status == 0, ended.output


@pytest.mark.chaos
def test_a_drop_in_that_the_run_has_edited_is_put_back(lab: Lab, prefect: Prefect) -> None:
    """Flags in it name the address; systemd has read the old one again, and etcd runs with it."""
    two, own = lab["master02"], lab["master02"].address
    drop_in, check = f"{UNIT}.d/50-hand.conf", "/etc/etcd/old-address.sh"
    urls = f"https://{own}:2379,https://127.0.0.1:2379"
    two.run(f"cp -p {CONF} /root/kept; sed -i '/^ETCD_LISTEN_CLIENT_URLS=/d' {CONF}").check()
    two.run(["mkdir", "-p", f"{UNIT}.d"]).check()
    flags = f"[Service]\nExecStart=\nExecStart={PROGRAM} --listen-client-urls={urls}\n"
    two.run(f"cat > {drop_in}", text=flags).check()
    two.run("systemctl daemon-reload; systemctl restart etcd", timeout=60).check()
    move = ("update_member", lab, "--member", "master02", "--address")
    with second_address(lab, "master02") as address:
        refuse = f"if grep -q {address}: {drop_in}; then echo the old address only; exit 1; fi\n"
        two.run(f"cat > {check}; chmod 0644 {check}", text=refuse).check()
        first = f"{UNIT}.d/40-check.conf"
        two.run(f"cat > {first}", text=f"[Service]\nExecStartPre=/bin/sh {check}\n").check()
        two.run("systemctl daemon-reload").check()
        failed = run_runbook(prefect, *move, address)
        kept = two.run(["cat", drop_in]).check().stdout
        loaded = two.run("systemctl show etcd -p ExecStart -p ActiveState").check().stdout
        two.run(f"rm {first} {check}; systemctl daemon-reload").check()
        moved = run_runbook(prefect, *move, address)
        told = two.run(["cat", drop_in]).check().stdout
        home = run_runbook(prefect, *move, own)
    two.run(f"rm {drop_in}; cp -p /root/kept {CONF}; systemctl daemon-reload").check()
    two.run("systemctl restart etcd", timeout=60).check()
    assert failed.status == 1, failed.output
    assert "its last words: the old address only" in failed.stderr
    assert "The old one is back in place and etcd runs with it" in failed.stderr
    assert drop_in in failed.stderr
    assert kept == flags
    assert urls in loaded
    assert "ActiveState=active" in loaded
    assert (moved.status, home.status) == (0, 0), moved.output + home.output
    assert told == flags.replace(own, address)


@pytest.mark.chaos
def test_a_member_that_starts_neither_with_the_old_nor_with_the_new(
    lab: Lab, prefect: Prefect
) -> None:
    """An address in etcd.conf that the host does not have: what the run wrote is kept, and ends."""
    own = lab["master02"].address
    wrong = r'ETCD_LISTEN_CLIENT_URLS="https:\/\/0.0.0.0:2379,https:\/\/192.0.2.77:2390"'
    move = ("update_member", lab, "--member", "master02", "--address")
    with second_address(lab, "master02") as address:
        lab["master02"].run(f"sed -i 's/^ETCD_LISTEN_CLIENT_URLS=.*/{wrong}/' {CONF}").check()
        failed = run_runbook(prefect, *move, address)
        conf = lab["master02"].run(["cat", CONF]).check().stdout
        lab["master02"].run("sed -i 's/,https:..192.0.2.77:2390//' " + CONF).check()
        lab["master02"].run("systemctl restart etcd", timeout=60).check()
        moved = run_runbook(prefect, *move, address)
        home = run_runbook(prefect, *move, own)
    assert failed.status == 1, failed.output
    assert "its last words: " in failed.stderr
    assert "192.0.2.77:2390: bind: cannot assign requested address" in failed.stderr
    assert "etcd does not start with the old one either, so the new one is in place" in (
        failed.stderr
    )
    assert f"the member list names it at https://{address}:2380 already" in failed.stderr
    assert "on master02: systemctl restart etcd.service; then run update_member again" in (
        failed.stderr
    )
    assert f"https://{address}:2380" in conf
    assert moved.status == 0, moved.output
    assert home.status == 0, home.output


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
