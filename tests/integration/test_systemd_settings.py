"""The readers of units and EnvironmentFiles before the real one: what systemd starts."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tasks.config.units import read_unit
from tasks.hosts.adoption import etcd_command, parse_etcd
from tasks.hosts.batch import Result
from tasks.hosts.settings import parse_settings, settings_command
from tasks.model.member_settings import SettingsFiles, TextFile
from tests.unit.settings_files import UNIT, environment_files, flag_units

if TYPE_CHECKING:
    from tests.lab.fixtures import StartLab
    from tests.lab.host import Host

pytest_plugins = ["tests.lab.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.one_etcd, pytest.mark.timeout(300)]

FIXTURES = Path(__file__).parents[1] / "fixtures" / "settings"
UNITS = "/etc/systemd/system"
DRAWN = 150
# Every unit has a program of its own that notes what it was given.
PROGRAM = """#!/bin/bash
cd "${BASH_SOURCE%/*}" || exit 1
printf '%s\\0' "$0" "$@" > arguments
cat /proc/$$/environ > variables
"""
COLLECT = """
for number in $(seq 0 {last}); do
  cd /opt/seen/$number
  [ -f arguments ] || { journalctl -u etcd-$number -n 5 --output=cat >&2; exit 1; }
  echo "$(base64 -w0 < arguments) $(base64 -w0 < variables)"
done
"""


def drawn() -> list[SettingsFiles]:
    """Draw the same files each time."""
    found: list[SettingsFiles] = []

    @settings(max_examples=DRAWN, derandomize=True, database=None, deadline=None,
              phases=[Phase.generate])  # fmt: skip
    @given(st.one_of(environment_files(), flag_units()))
    def collect(files: SettingsFiles) -> None:
        if not read_unit(files).faults:
            found.append(files)

    collect()
    return found


def fixture(unit: str, *drop_ins: str, **further: str) -> SettingsFiles:
    """Make a member's files of fixtures."""
    return SettingsFiles(
        "etcd.service",
        "",
        (
            TextFile(UNIT, (FIXTURES / unit).read_text()),
            *(TextFile(f"{UNIT}.d/{Path(d).name}", (FIXTURES / d).read_text()) for d in drop_ins),
        ),
        tuple(TextFile(path, (FIXTURES / name).read_text()) for path, name in further.items()),
    )


def placed(files: SettingsFiles, number: int, host_name: str) -> SettingsFiles:
    """Give a unit a name and paths of its own, and a program that runs once."""

    def own(text: str) -> str:
        text = re.sub(r"/[a-z/]*bin/etcd\b", f"/opt/seen/{number}/etcd", text)
        text = text.replace("/etc/default/%p", f"/opt/seen/{number}/default-%p")
        text = re.sub(r"Type=notify\n|User=\w+\n|Restart=\w+\n|WorkingDirectory=.*\n", "", text)
        return text.replace("/etc/etcd", f"/opt/seen/{number}/etc-etcd")

    unit = f"etcd-{number}.service"
    return replace(
        files,
        unit=unit,
        host_name=host_name,
        units=tuple(
            TextFile(f.path.replace("etcd.service", unit), own(f.text)) for f in files.units
        ),
        further=tuple(TextFile(own(f.path), f.text) for f in files.further),
    )


def install(host: Host, texts: dict[str, str]) -> None:
    """Write many files in one go."""
    lines = [
        f"mkdir -p '{Path(path).parent}'; base64 -d > '{path}' <<< {encoded}"
        for path, text in texts.items()
        for encoded in [base64.b64encode(text.encode()).decode()]
    ]
    host.run(["bash", "-s"], text="\n".join(["set -e", *lines, ""])).check()


def decode(text: str) -> list[str]:
    """Read what a program noted."""
    return base64.b64decode(text).decode().split("\0")[:-1]


def test_systemd_starts_what_was_read(start_lab: StartLab) -> None:
    """Words and variables of units as people have them, and of drawn ones."""
    (host,) = start_lab(hosts=1, etcd_source="installed").hosts.values()
    sources = [
        fixture("kubespray/etcd.service", **{"/etc/etcd.env": "kubespray/node1/etcd.env"}),
        fixture("kubespray/etcd.service", **{"/etc/etcd.env": "bad-lines/etcd.conf"}),
        fixture("kubeasz/etcd.service"),
        fixture("debian/etcd.service"),
        fixture("rhel/etcd.service", **{"/etc/etcd/etcd.conf": "rhel/etcd.conf"}),
        fixture("typhoon/etcd.service", "typhoon/10-etcd.conf"),
        *drawn(),
    ]
    assert len(sources) > DRAWN // 2
    members = [placed(files, number, host.name) for number, files in enumerate(sources)]
    texts = {f"/opt/seen/{number}/etcd": PROGRAM for number in range(len(members))}
    texts |= {f.path: f.text for files in members for f in (*files.units, *files.further)}
    install(host, texts)
    host.run("chmod 0755 /opt/seen/*/etcd; systemctl daemon-reload").check()
    host.run(["systemctl", "start", *(files.unit for files in members)], timeout=120).check()
    noted = host.run(COLLECT.replace("{last}", str(len(members) - 1)), timeout=60).check().stdout
    for files, line in zip(members, noted.splitlines(), strict=True):
        read = read_unit(files)
        arguments, variables = map(decode, line.split())
        assert [word.text for word in read.words] == arguments, files
        given_variables = dict(text.partition("=")[::2] for text in variables)
        expected = {name: given.text for name, given in read.variables.items()}
        assert {n: v for n, v in given_variables.items() if n in expected} == expected, files
        assert {n for n in given_variables if n.startswith("ETCD_")} <= set(expected), files


def test_the_files_of_a_unit_are_found(start_lab: StartLab) -> None:
    """The unit, a drop-in that systemd has not read yet, EnvironmentFiles and the settings file."""
    (host,) = start_lab(hosts=1, etcd_source="installed").hosts.values()
    unit = f"{UNITS}/etcd-x.service"
    texts = {
        unit: "[Service]\nEnvironmentFile=-/etc/x-none\nEnvironmentFile=/etc/x-*.env\n"
        "ExecStart=/usr/bin/etcd --config-file /etc/x.yml\n",
        f"{unit}.d/20-late.conf": "[Service]\nEnvironment=A=b\n",
        "/etc/x-1.env": "ETCD_NAME=a\n",
        "/etc/x-2.env": 'ETCD_CONFIG_FILE="/etc/y.yml"\n',
        "/etc/x.yml": "name: x\n",
        "/etc/y.yml": "name: y\n",
    }
    install(host, texts)
    host.run("systemctl daemon-reload; systemctl show etcd-x.service").check()
    late = f"{unit}.d/10-early.conf"
    install(host, {late: "[Service]\nEnvironmentFile=/etc/late.env\n", "/etc/late.env": "B=c\n"})
    done = host.run(["bash", "-euo", "pipefail", "-c", settings_command("etcd-x.service").script])
    found = parse_settings("etcd-x.service", Result("", 0, done.check().stdout, "", 0.0))
    assert found.host_name == host.name
    assert [file.path for file in found.units] == [unit, late, f"{unit}.d/20-late.conf"]
    assert {file.path: file.text for file in found.further} == {
        path: text for path, text in texts.items() if not path.startswith(UNITS)
    } | {"/etc/late.env": "B=c\n"}


def test_events_etcd_is_not_taken_for_the_one_that_is_down(start_lab: StartLab) -> None:
    """A process is a unit's by its control group, also where a shell is the unit's main process."""
    (host,) = start_lab(hosts=1, etcd_source="installed").hosts.values()
    flags = "--data-dir=/var/lib/x --name=etcd1-events"
    install(
        host,
        {
            f"{UNITS}/etcd.service": "[Service]\nExecStart=/usr/local/bin/etcd --name=etcd1\n",
            f"{UNITS}/etcd-events.service": "[Service]\nEnvironment=ETCD_METRICS=basic\n"
            f'ExecStart=/bin/bash -c "GOMAXPROCS=$(nproc) /usr/local/bin/etcd {flags}; sleep 1"\n',
        },
    )
    host.run("systemctl daemon-reload; systemctl start etcd-events; sleep 1").check()
    seen = {}
    for unit in ("etcd.service", "etcd-events.service", "other.service"):
        words = ["bash", "-euo", "pipefail", "-c", etcd_command(unit).script]
        told = Result("", 0, host.run(words).check().stdout, "", 0.0)
        seen[unit] = parse_etcd(host.name, told)
    down, runs, none = seen.values()
    assert down is not None
    assert (down.is_running, down.others) == (False, ("etcd-events.service",))
    assert runs is not None
    assert (runs.is_running, runs.program) == (True, "/usr/local/bin/etcd")
    assert runs.arguments[1:] == tuple(flags.split())
    assert (runs.variables, runs.others) == ({"ETCD_METRICS": "basic"}, ())
    assert none is not None
    assert (none.unit_path, none.others) == ("", ("etcd-events.service",))
