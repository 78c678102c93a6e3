"""Etcd's settings wherever they are written: read as systemd and etcd read them."""

from __future__ import annotations

import pytest

from tasks.config.launch import NotUnderstood
from tasks.config.settings import edit_settings, read_settings
from tasks.model.member_settings import Settings, SettingsFiles, TextFile

UNIT = "/etc/systemd/system/etcd.service"


def files(*units: str, **further: str) -> SettingsFiles:
    """Make a unit with its drop-ins; further files by their names in /etc."""
    paths = (UNIT, *(f"{UNIT}.d/{number}0.conf" for number in range(1, len(units))))
    return SettingsFiles(
        "etcd.service",
        "node1",
        tuple(
            TextFile(path, f"[Service]\n{text}\n") for path, text in zip(paths, units, strict=True)
        ),
        tuple(TextFile(f"/etc/{name}", text) for name, text in further.items()),
    )


def values(found: Settings) -> dict[str, str]:
    """Get the values alone."""
    return {name: setting.value for name, setting in found.items()}


ETCD = "ExecStart=/usr/bin/etcd"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (files(f"{ETCD} --name=a --data-dir /d -wal-dir=/w -log-level debug"),
         {"name": "a", "data-dir": "/d", "wal-dir": "/w", "log-level": "debug"}),
        (files(f"{ETCD} --name=a --name=b --wal-dir="), {"name": "b"}),
        (files(f"{ETCD} --pre-vote --auto-tls=False"), {"pre-vote": "true", "auto-tls": "False"}),
        (files(f"{ETCD} \\\n# left out\n  --name=a \\\n  --data-dir=/d\n"),
         {"name": "a", "data-dir": "/d"}),
        (files(f'{ETCD} "--name=a b" --data-dir=\'/d\' --metrics="\\x62asic"'),
         {"name": "a b", "data-dir": "/d", "metrics": "basic"}),
        (files(f"{ETCD} --name=%H --data-dir=/x/%p/%N/100%%"),
         {"name": "node1", "data-dir": "/x/etcd/etcd/100%"}),
        (files(f"{ETCD} --name=${{N}} $MORE $NONE --data-dir=$${{N}}",
               'Environment=N=a "MORE=--metrics=basic --pre-vote"'),
         {"name": "a", "metrics": "basic", "pre-vote": "true", "data-dir": "${N}"}),
        (files(ETCD, "Environment=ETCD_NAME=a ETCD_METRICS=", "Environment='ETCD_DATA_DIR=/d'"),
         {"name": "a", "data-dir": "/d"}),
        (files(ETCD, "Environment=ETCD_NAME=a\nEnvironment=\nEnvironment=ETCD_METRICS=x"),
         {"metrics": "x"}),
        (files(f"{ETCD} --name=a", f"ExecStart=\n{ETCD} --name=b"), {"name": "b"}),
        (files(f"EnvironmentFile=/etc/a\n{ETCD}\nEnvironment=ETCD_NAME=x", a="ETCD_NAME=a"),
         {"name": "a"}),
        (files("EnvironmentFile=/etc/a\nEnvironmentFile=-/etc/b\nEnvironmentFile=-/etc/none\n"
               + ETCD,
               b="ETCD_NAME=b", a="ETCD_NAME=a\nETCD_NAME=a2\nETCD_METRICS='m'"),
         {"name": "b", "metrics": "m"}),
        (files(f"EnvironmentFile=/etc/a\n{ETCD}", "EnvironmentFile=\nEnvironmentFile=/etc/b",
               b="ETCD_NAME=b", a="ETCD_METRICS=m"),
         {"name": "b"}),
        (files(f"EnvironmentFile=/etc/*.env\n{ETCD}",
               **{"b.env": "ETCD_NAME=b", "a.env": "ETCD_NAME=a"}),
         {"name": "b"}),
        (files(f"EnvironmentFile=/etc/%p.env\nUnsetEnvironment=ETCD_METRICS\n{ETCD}",
               **{"etcd.env": "ETCD_NAME=b\nETCD_METRICS=m"}),
         {"name": "b"}),
        (files("ExecStart=-!!/usr/bin/etcd-3.5 --name=a"), {"name": "a"}),
        (files("ExecStart=@/usr/bin/etcd zero --name=a"), {"name": "a"}),
        (files("ExecStart=:/usr/bin/etcd --name=${N}"), {"name": "${N}"}),
        (files("ExecStart=/bin/sh -c 'exec /usr/bin/etcd --name=\"$N\" --data-dir=${D} $NONE'",
               "Environment=N=a D=/d"),
         {"name": "a", "data-dir": "/d"}),
        (files('ExecStart=/bin/bash -c "GOMAXPROCS=$(nproc) '
               'ETCD_METRICS=m /usr/bin/etcd --name=\\"${N}\\""',
               "Environment=N=a"),
         {"name": "a", "metrics": "m"}),
        (files(f"{ETCD} --config-file=/etc/c --metrics=x", "Environment=ETCD_NAME=x",
               c='name: a\ninitial-cluster: "x=y"\npre-vote: on\nlog-outputs: [stderr, /l]\n'
               "grpc-keepalive-timeout: 20000000000\nwal-dir:\n"
               "client-transport-security: {cert-file: /c, client-cert-auth: yes, "
               "allowed-hostname: [h]}\n"
               "peer-transport-security:\n  cert-file: /p\n  allowed-cn: [x, y]\n"),
         {"config-file": "/etc/c", "name": "a", "initial-cluster": "x=y", "pre-vote": "true",
          "log-outputs": "stderr,/l", "grpc-keepalive-timeout": "20000000000ns", "cert-file": "/c",
          "client-cert-auth": "true", "client-cert-allowed-hostname": "h", "peer-cert-file": "/p",
          "peer-cert-allowed-cn": "x,y"}),
        (files(ETCD, "Environment=ETCD_CONFIG_FILE=/etc/c", c="{name: b, name: a}"),
         {"config-file": "/etc/c", "name": "a"}),
    ],
)  # fmt: skip
def test_settings_are_what_systemd_and_etcd_make_of_the_files(
    source: SettingsFiles, expected: dict[str, str]
) -> None:
    """Flags, variables, drop-ins, files, wrappers: by etcd's own names."""
    found = read_settings(source)
    assert not found.faults
    assert not found.shadowed
    assert values(found) == expected


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (files(f"{ETCD} --pre-vote false"), r"etcd.service:2: 'false' is not a flag"),
        (files(f"{ETCD} --name"), "--name has no value"),
        (files(f"{ETCD} --name=%y"), "the specifier %y is not known"),
        (files(f"{ETCD} --name='a"), "a quote .'. is not closed"),
        (files(f"{ETCD} --name=${{HOME}}"), r"what \$HOME holds cannot be told"),
        (files("ExecStart=/bin/bash -c 'etcd --name=$(hostname)'"), "cannot be told for certain"),
        (files("ExecStart=/bin/bash -c 'etcd --name=a | tee /x'"), "cannot be told for certain"),
        (files("ExecStart=/bin/bash /opt/start.sh"), "what this shell gives to etcd"),
        (files("ExecStart=/opt/start-etcd.sh --name=a"), "is not etcd itself"),
        (files("ExecStart=/usr/bin/docker run etcd"), "in a container"),
        (files(f"{ETCD}\n{ETCD}"), "more than one ExecStart"),
        (files("Type=notify"), "has no ExecStart"),
        (files(f"{ETCD}\nRootDirectory=/srv/etcd"), "service:3: with RootDirectory= etcd's paths"),
        (files(f"{ETCD} --key-file=%d/key.pem"), "the specifier %d is not known"),
        (files("ExecStart=/usr/bin/nice -n -5 /usr/bin/etcd --name=a"), "nice is not etcd itself"),
        (files(f"{ETCD}\nEnvironmentFile=/etc/none"), r"service:3: there is no /etc/none"),
        (files(f"{ETCD}\nEnvironmentFile=/etc/a", a='X=1\nETCD_NAME="a\n'),
         r"/etc/a:2: a quote \(.\) is not closed"),
        (files(f"{ETCD}\nEnvironmentFile=/etc/a", a="# x \\\nETCD_NAME=a\n"),
         r"/etc/a:1: this comment ends in a backslash"),
        (files(f"{ETCD} --config-file /etc/c"), "there is no /etc/c"),
        (files(f"{ETCD} --config-file /etc/c", c="a: [\n"), "/etc/c:2: it is not YAML"),
        (files(f"{ETCD} --config-file /etc/c", c="- a\n"), "no mapping"),
        (files(f"{ETCD} --config-file /etc/c", c="name: 12\n"), "/etc/c:1: name: '12' is a number"),
        (files(f"{ETCD} --config-file /etc/c", c="max-wals: '1'\n"), "'1' is a text"),
        (files(f"{ETCD} --config-file /etc/c", c="pre-vote: maybe\n"), "neither true nor false"),
        (files(f"{ETCD} --config-file /etc/c", c="grpc-keepalive-timeout: 5s\n"), "nanoseconds"),
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_named_with_file_and_line(
    source: SettingsFiles, said: str
) -> None:
    """And is never changed."""
    found = read_settings(source)
    assert found.faults
    with pytest.raises(NotUnderstood, match=said):
        edit_settings(source, {"name": "other"})


def test_the_files_that_a_start_needs_are_known_wherever_they_are_named() -> None:
    """Flags, variables and a settings file; a relative path cannot be looked for."""
    by_flag = files(f"Environment=ETCD_KEY_FILE=/s/k\n{ETCD} --cert-file /s/c --data-dir=d")
    assert sorted(read_settings(by_flag).paths()) == ["/s/c", "/s/k"]
    text = "data-dir: /d\npeer-transport-security:\n  cert-file: /s/p\n"
    by_file = files(f"{ETCD} --config-file=/etc/e.yml", **{"e.yml": text})
    assert sorted(read_settings(by_file).paths()) == ["/d", "/etc/e.yml", "/s/p"]
