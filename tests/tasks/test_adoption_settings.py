"""What an adoption takes for a member's settings: its process's, or its unit's files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tasks.hosts.adoption import parse_etcd
from tasks.hosts.batch import Result
from tasks.model.adoption import FoundEtcd
from tasks.model.member_settings import SettingsFiles, TextFile
from tasks.procedures.adopted_settings import take_settings

FIXTURES = Path(__file__).parents[1] / "fixtures" / "settings"
UNIT = "/etc/systemd/system/etcd.service"


def found(*arguments: str, **variables: str) -> FoundEtcd:
    """Make what was seen of the process; none without arguments."""
    return FoundEtcd(
        host="h1",
        unit_path=UNIT,
        environment_file=None,
        account="root",
        program=arguments[0] if arguments else "",
        version="3.5.16",
        is_running=bool(arguments),
        settings={},
        arguments=arguments,
        variables=variables,
    )


def files(unit: str, **further: str) -> SettingsFiles:
    """Make a member's files of fixtures."""
    return SettingsFiles(
        "etcd.service",
        "node1",
        (TextFile(UNIT, (FIXTURES / unit).read_text()),),
        tuple(TextFile(path, (FIXTURES / name).read_text()) for path, name in further.items()),
    )


KUBESPRAY = files("kubespray/etcd.service", **{"/etc/etcd.env": "kubespray/node1/etcd.env"})


def test_a_member_that_runs_is_taken_as_it_runs() -> None:
    """A switch is true or false, however it was written."""
    one = take_settings(
        found("/usr/local/bin/etcd", "--wal-dir=", ETCD_NAME="x", ETCD_PEER_CLIENT_CERT_AUTH="1"),
        KUBESPRAY,
    )
    assert one.settings == {
        "ETCD_NAME": "x",
        "ETCD_PEER_CLIENT_CERT_AUTH": "true",
        "ETCD_DATA_DIR": "/x.etcd",
    }
    assert one.environment_file == "/etc/etcd.env"
    assert one.unknown == ()


def test_a_member_that_is_down_is_taken_as_its_files_say() -> None:
    """Kubespray's True is true."""
    one = take_settings(found(), KUBESPRAY)
    assert one.program == "/usr/local/bin/etcd"
    assert one.setting("NAME") == "etcd1"
    assert one.setting("PEER_CLIENT_CERT_AUTH") == "true"


def test_stopped_unit_resolved_as_systemd_does() -> None:
    """The second file wins, the first need not be there; both a flag and a variable is told."""
    one = take_settings(
        found(), files("rhel/etcd.service", **{"/etc/etcd/etcd.conf": "rhel/etcd.conf"})
    )
    assert one.program == "/usr/local/bin/etcd"
    assert (one.setting("NAME"), one.setting("DATA_DIR")) == ("n1", "/var/lib/etcd/n1.etcd")
    assert one.environment_file == "/etc/etcd/etcd.conf"
    assert "etcd from 3.4 on does not start with both" in one.skipped[0]
    debian = take_settings(found(), files("debian/etcd.service"))
    assert (debian.setting("NAME"), debian.environment_file) == ("node1", None)


def test_wal_dir_is_kept() -> None:
    """With what was left over from a disaster."""
    one = take_settings(
        found(), files("kubespray/etcd.service", **{"/etc/etcd.env": "wal/etcd.conf"})
    )
    assert one.setting("WAL_DIR") == "/var/lib/etcd-wal/wal"
    assert one.setting("FORCE_NEW_CLUSTER") == "true"


@pytest.mark.parametrize(
    ("unit", "fragment", "path"),
    [
        ("etcd@main.service", "/etc/systemd/system/etcd@.service", "etcd@main.service"),
        ("etcd.service", "/usr/lib/systemd/system/etcd.service", "etcd.service"),
        ("etcd.service", "", ""),
    ],
)
def test_a_unit_is_called_as_systemd_calls_it(unit: str, fragment: str, path: str) -> None:
    """A template's instance has a name of its own, and an alias (Debian's etcd2) has none."""
    said = f"Id={unit}\nFragmentPath={fragment}\nLoadState=loaded\nWorkingDirectory=!/srv\n"
    one = parse_etcd("h1", Result("", 0, said, "", 0.0))
    assert one is not None
    assert one.unit_path.rpartition("/")[2] == path
    assert one.unit_path.startswith(fragment.rpartition("/")[0])
    assert one.directory == "/srv"


def test_what_is_not_understood_is_named() -> None:
    """A shell that runs anything else than etcd, while etcd is down."""
    unit = TextFile(UNIT, "[Service]\nExecStart=/bin/sh -c '/usr/bin/etcd --name=$(hostname)'\n")
    shell = SettingsFiles("etcd.service", "node1", (unit,))
    one = take_settings(found(), shell)
    assert f"{UNIT}:2: what the shell makes of" in one.unknown[0]
    assert take_settings(found("/usr/bin/etcd", "--name=a"), shell).unknown == ()


def test_a_path_that_is_not_absolute_begins_where_etcd_is_started() -> None:
    """Also the data directory that nobody named."""
    one = take_settings(
        replace(
            found("/usr/bin/etcd", "--name=a", "--cert-file=tls/a.pem", "--wal-dir=/wal"),
            directory="/srv/etcd",
        ),
        KUBESPRAY,
    )
    assert one.setting("DATA_DIR") == "/srv/etcd/a.etcd"
    assert one.setting("CERT_FILE") == "/srv/etcd/tls/a.pem"
    assert one.setting("WAL_DIR") == "/wal"
    named = take_settings(found("/usr/bin/etcd", "--name=a", "--data-dir=data"), KUBESPRAY)
    assert named.setting("DATA_DIR") == "/data"
