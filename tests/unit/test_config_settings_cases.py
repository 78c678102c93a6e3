"""Settings as people have them in the field; a fixture is named after who writes so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.config.editing import name_members, readdress
from tasks.config.launch import NotUnderstood
from tasks.config.settings import edit_settings, read_process, read_settings
from tasks.model.member_settings import (
    SettingsFiles,
    TextFile,
    parse_boolean,
    parse_number,
    parse_seconds,
)
from tasks.model.members import DesiredMember

FIXTURES = Path(__file__).parents[1] / "fixtures" / "settings"
UNITS = "/etc/systemd/system"


def member(*units: str, host_name: str = "node1", **further: str) -> SettingsFiles:
    """Make a member's files of fixtures; further ones by their path on the host."""
    return SettingsFiles(
        units[0].rpartition("/")[2],
        host_name,
        tuple(TextFile(f"{UNITS}/{unit.rpartition('/')[2]}", read(unit)) for unit in units),
        tuple(TextFile(path, read(fixture)) for path, fixture in further.items()),
    )


def read(fixture: str) -> str:
    """Read a fixture."""
    return (FIXTURES / fixture).read_text()


def kubespray(number: int) -> SettingsFiles:
    """Make kubespray's member of a host."""
    return member("kubespray/etcd.service", **{"/etc/etcd.env": f"kubespray/node{number}/etcd.env"})


def test_kubespray_names() -> None:
    """The member's name is not the host's, and True is true."""
    found = read_settings(kubespray(1))
    assert not found.faults
    assert found.value("name") == "etcd1"
    assert found.value("cert-file") == "/etc/ssl/etcd/ssl/member-node1.pem"
    assert found.is_on("peer-client-cert-auth")
    assert found.place("peer-client-cert-auth") == "/etc/etcd.env:14"
    assert "ctl-endpoints" not in found


def test_kubeasz_names() -> None:
    """All is in the unit's flags; an empty --wal-dir is none."""
    found = read_settings(member("kubeasz/etcd.service"))
    assert not found.faults
    assert found.program == "/opt/kube/bin/etcd"
    assert found.value("name") == "etcd-10.0.0.1"
    assert "wal-dir" not in found
    assert found.split("listen-client-urls")[1] == "http://127.0.0.1:2379"
    assert found.place("name") == f"{UNITS}/etcd.service:6"


def test_stopped_unit_of_debian() -> None:
    """Specifiers, Environment=, an optional file, and a $VARIABLE that makes flags or none."""
    found = read_settings(member("debian/etcd.service", host_name="db7"))
    assert not found.faults
    assert (found.value("name"), found.value("data-dir")) == ("db7", "/var/lib/etcd/default")
    path = "/etc/default/etcd"
    unit = member("debian/etcd.service")
    given = SettingsFiles(
        unit.unit, "db7", unit.units, (TextFile(path, 'DAEMON_ARGS="--metrics=basic"\n'),)
    )
    assert read_settings(given).value("metrics") == "basic"
    edited = edit_settings(given, {"metrics": "extensive"})
    assert edited.text(path) == 'DAEMON_ARGS="--metrics=extensive"\n'
    assert edited.units == given.units


def test_stopped_unit_of_rhel() -> None:
    """A shell's flags are its variables'; etcd from 3.4 on ends with both."""
    files = member("rhel/etcd.service", **{"/etc/etcd/etcd.conf": "rhel/etcd.conf"})
    found = read_settings(files)
    assert not found.faults
    assert found.program == "/usr/local/bin/etcd"
    assert (found.value("name"), found.value("data-dir")) == ("n1", "/var/lib/etcd/n1.etcd")
    assert [str(each) for each in found.shadowed] == [
        f"/etc/etcd/etcd.conf:{line}: ETCD_{name} is set beside --{flag} ({UNITS}/etcd.service:5): "
        "etcd from 3.4 on does not start with both; take one out"
        for line, name, flag in ((2, "NAME", "name"), (3, "DATA_DIR", "data-dir"))
    ]
    assert "n2" in (edit_settings(files, {"name": "n2"}).text("/etc/etcd/etcd.conf") or "")


def test_two_ca_files() -> None:
    """Everything is in a drop-in's Environment=, and 1 is true."""
    files = member("typhoon/etcd.service", "typhoon/10-etcd.conf")
    found = read_settings(files)
    assert not found.faults
    assert found.is_on("client-cert-auth")
    assert found.value("trusted-ca-file") == "/etc/ssl/certs/etcd/server-ca.crt"
    assert found.value("peer-trusted-ca-file") == "/etc/ssl/certs/etcd/peer-ca.crt"
    assert found.place("name") == f"{UNITS}/10-etcd.conf:2"
    edited = edit_settings(files, {"name": "x"}).units[1].text
    assert edited == files.units[1].text.replace('"ETCD_NAME=etcd1"', '"ETCD_NAME=x"')


def test_what_is_not_known_counts_only_where_nothing_later_says_it() -> None:
    """CoreOS' unit calls its member %m, the machine's id, and drop-ins call it otherwise."""

    def read(*rest: str) -> tuple[str, list[str]]:
        lines = ["[Service]", "ExecStart=/usr/bin/etcd", "Environment=ETCD_NAME=%m A=%b B=b"]
        unit = TextFile(f"{UNITS}/etcd.service", "\n".join([*lines, *rest, ""]))
        found = read_settings(SettingsFiles("etcd.service", "h", (unit,)))
        return found.value("name"), [str(fault) for fault in found.faults]

    assert read("Environment=ETCD_NAME=infra0") == ("infra0", [])
    assert read("Environment=", "Environment=ETCD_NAME=infra0")[1] == []
    assert read("UnsetEnvironment=ETCD_NAME")[1] == []
    (told,) = read()[1]
    assert told.startswith(f"{UNITS}/etcd.service:3: the specifier %m is not known here")
    (told,) = read("Environment=ETCD_NAME=x", "ExecStart=", "ExecStart=/usr/bin/etcd --name ${A}")[
        1
    ]
    assert "the specifier %b is not known here" in told


def test_bad_env_lines() -> None:
    """What systemd skips is named by file and line; of a key that is set twice the later counts."""
    path = "/etc/etcd.env"
    files = member("kubespray/etcd.service", **{path: "bad-lines/etcd.conf"})
    found = read_settings(files)
    assert not found.faults
    assert [str(each) for each in found.ignored] == [
        f"{path}:1: '[Member]' has no '=', so systemd skips it",
        f"{path}:9: 'ETCD_INITIAL_CLUSTER_STATE NEW' has no '=', so systemd skips it",
        f"{path}:10: 'export ETCD_LOG_OUTPUTS' is not the name of a variable, so systemd skips it",
    ]
    assert found.value("name") == "etcd01"
    assert found.split("initial-cluster")[1] == "etcd2=https://10.0.0.2:2380"
    edited = edit_settings(files, {"name": "x", "initial-cluster": "x=https://10.0.0.1:2380"})
    after = edited.text(path) or ""
    assert 'ETCD_NAME="etcd1"\n' in after
    assert 'ETCD_INITIAL_CLUSTER="x=https://10.0.0.1:2380"\nETCD_INITIAL_CLUSTER_STATE NEW' in after
    assert after.endswith('etcd.log"\nETCD_NAME="x"\n')


def test_wal_dir() -> None:
    """It is read, and so is what was left over from a disaster."""
    found = read_settings(member("kubespray/etcd.service", **{"/etc/etcd.env": "wal/etcd.conf"}))
    assert found.value("wal-dir") == "/var/lib/etcd-wal/wal"
    assert found.is_on("force-new-cluster")


def test_metrics_first_host() -> None:
    """Each host's metrics URLs are its own."""
    first, second = (read_settings(kubespray(n)).split("listen-metrics-urls") for n in (1, 2))
    assert first == ("http://10.0.0.1:2381", "http://127.0.0.1:2381")
    assert second == ("http://10.0.0.2:2381", "http://127.0.0.1:2381")


def test_events_etcd() -> None:
    """A second etcd on the host has its own unit, file and ports."""
    found = read_settings(
        member("events/etcd-events.service", **{"/etc/etcd-events.env": "events/etcd-events.env"})
    )
    assert found.split("advertise-client-urls") == ("https://10.0.0.1:2383",)


def desired(name: str, address: str) -> DesiredMember:
    """Make a member with the usual ports."""
    return DesiredMember(name, f"https://{address}:2380", f"https://{address}:2379")


def test_loopback_listener() -> None:
    """A new address replaces the old one in each URL; loopback and metrics stay."""
    files = kubespray(1)
    edited = readdress(files, desired("etcd1", "10.0.0.11"))
    before, after = (f.text("/etc/etcd.env") or "" for f in (files, edited))
    line = 'ETCD_LISTEN_CLIENT_URLS="https://10.0.0.11:2379,https://127.0.0.1:2379"\n'
    assert line in after
    assert 'METRICS_URLS="http://10.0.0.11:2381,http://127.0.0.1:2381"\n' in after
    changed = [b for b, a in zip(before.splitlines(), after.splitlines(), strict=True) if a != b]
    assert [line.partition("=")[0] for line in changed] == [
        "ETCD_ADVERTISE_CLIENT_URLS",
        "ETCD_INITIAL_ADVERTISE_PEER_URLS",
        "ETCD_LISTEN_CLIENT_URLS",
        "ETCD_LISTEN_PEER_URLS",
        "ETCD_LISTEN_METRICS_URLS",
    ]
    assert readdress(edited, desired("etcd1", "10.0.0.11")) == edited


def test_a_named_member_moves_where_it_listens() -> None:
    """What it tells others stays, for what moves is what the name resolves to."""
    flags = {
        "initial-advertise-peer-urls": "https://a.example:2380",
        "advertise-client-urls": "https://a.example:2379",
        "listen-peer-urls": "https://10.0.0.1:2380",
        "listen-client-urls": "https://10.0.0.1:2379,https://127.0.0.1:2379",
    }
    words = " ".join(f"--{name}={value}" for name, value in flags.items())
    unit = TextFile(f"{UNITS}/etcd.service", f"[Service]\nExecStart=/usr/bin/etcd {words}\n")
    files, member = SettingsFiles("etcd.service", "a", (unit,)), desired("a", "a.example")
    assert readdress(files, member) == files
    moved = readdress(files, member, (), {"10.0.0.1": "10.0.0.9"}).units[0].text
    assert moved == unit.text.replace("10.0.0.1:", "10.0.0.9:")


def test_loopback_listener_in_flags() -> None:
    """With flags in the unit as well; every other byte stays."""
    files = member("kubeasz/etcd.service")
    text = readdress(files, desired("etcd-10.0.0.1", "10.0.0.11")).units[0].text
    old = files.units[0].text
    for flag in ("initial-advertise-peer-urls", "listen-peer-urls", "listen-client-urls",
                 "advertise-client-urls"):  # fmt: skip
        old = old.replace(f"--{flag}=https://10.0.0.1:", f"--{flag}=https://10.0.0.11:")
    assert text == old


def test_a_move_that_stopped_between_two_files_goes_on() -> None:
    """The old address is also known from the member list."""
    path = "/etc/etcd.env"
    half = edit_settings(
        kubespray(1),
        {
            "initial-advertise-peer-urls": "https://10.0.0.11:2380",
            "advertise-client-urls": "https://10.0.0.11:2379",
        },
    )
    member = desired("etcd1", "10.0.0.11")
    whole = readdress(half, member, ("https://10.0.0.1:2380", "https://10.0.0.1:2379"))
    assert whole.text(path) == readdress(kubespray(1), member).text(path)


def test_an_ipv6_address_is_moved_in_its_brackets() -> None:
    """And one that hears all addresses stays."""
    unit = TextFile(
        f"{UNITS}/etcd.service",
        "[Service]\nExecStart=/usr/bin/etcd --listen-peer-urls https://[::]:2380 "
        "--listen-client-urls https://[fd00::1]:2379,unix:///run/etcd.sock "
        "--initial-advertise-peer-urls https://[fd00::1]:2380 "
        "--advertise-client-urls https://[fd00::1]:2379\n",
    )
    wanted = DesiredMember("a", "https://[fd00::2]:2380", "https://[fd00::2]:2379")
    edited = readdress(SettingsFiles("etcd.service", "a", (unit,)), wanted)
    assert edited.units[0].text == unit.text.replace("fd00::1", "fd00::2")


def test_a_member_that_does_not_say_its_urls_is_not_moved() -> None:
    """With the flag that is missing, or the fault that hides it."""
    unit = TextFile("/u", "[Service]\nExecStart=/usr/bin/etcd --name=a\n")
    files = SettingsFiles("etcd.service", "a", (unit,))
    with pytest.raises(NotUnderstood, match="initial-advertise-peer-urls cannot be made"):
        readdress(files, desired("a", "10.0.0.11"))
    shell = TextFile("/u", "[Service]\nExecStart=/opt/start.sh\n")
    with pytest.raises(NotUnderstood, match=r"/u:2: /opt/start\.sh is not etcd itself"):
        readdress(SettingsFiles("etcd.service", "a", (shell,)), desired("a", "10.0.0.11"))


def test_the_initial_cluster_is_named_wherever_it_is_written() -> None:
    """In whatever order it names the same, it stays; a value over two lines becomes one."""
    members = (desired("etcd1", "10.0.0.1"), desired("etcd4", "10.0.0.4"))
    flags = member("kubeasz/etcd.service")
    text = name_members(flags, members).units[0].text
    assert "--initial-cluster=etcd1=https://10.0.0.1:2380,etcd4=https://10.0.0.4:2380 \\\n" in text
    path = "/etc/etcd.env"
    lines = member("kubespray/etcd.service", **{path: "bad-lines/etcd.conf"})
    edited = name_members(lines, members)
    assert read_settings(edited).split("initial-cluster")[1] == "etcd4=https://10.0.0.4:2380"
    assert name_members(edited, members[::-1]) == edited


def test_config_file_dropped() -> None:
    """The file is all that etcd reads: what stands elsewhere is named as ignored."""
    conf = "/etc/etcd/etcd.conf.yml"
    files = member(
        "config-file/etcd.service",
        **{"/etc/etcd/etcd.conf": "config-file/etcd.conf", conf: "config-file/etcd.conf.yml"},
    )
    found = read_settings(files)
    assert not found.faults
    assert found.value("name") == "node1"
    assert found.value("experimental-initial-corrupt-check") == "true"
    assert found.place("experimental-initial-corrupt-check") == f"{conf}:8"
    assert found.is_on("peer-client-cert-auth")
    assert [str(each) for each in found.ignored] == [
        f"/etc/etcd/etcd.conf:1: name is ignored: etcd reads {conf} alone"
    ]
    before = files.text(conf) or ""
    edited = edit_settings(files, {"name": "n2", "peer-trusted-ca-file": "/x", "cert-file": "/y"})
    assert edited.text(conf) == (
        before.replace("name: node1 ", "name: n2 ")
        .replace("/etc/etcd/ssl/ca.pem", "/x")
        .replace("/etc/etcd/ssl/server.pem", "/y")
    )


def test_a_static_pods_manifest_is_one_more_source() -> None:
    """Its words are read and edited as a unit's are; what else it says stays."""
    text = read("kubeadm/etcd.yaml")
    files = SettingsFiles("", "master01", (), (), TextFile("/m/etcd.yaml", text))
    found = read_settings(files)
    assert not found.faults
    assert (found.value("name"), found.value("snapshot-count")) == ("master01", "10000")
    assert found.place("name") == "/m/etcd.yaml:21"
    moved = readdress(files, desired("master01", "10.0.0.11")).text("/m/etcd.yaml")
    lines = [line.replace("//10.0.0.1:", "//10.0.0.11:")
             if "-urls=" in line else line for line in text.splitlines(keepends=True)]  # fmt: skip
    assert moved == "".join(lines)
    edited = edit_settings(files, {"snapshot-count": "5", "feature-gates": "A=true,B=false"})
    assert edited.text("/m/etcd.yaml") == text.replace('"10000"', '"5"').replace(
        "InitialCorruptCheck=true", "A=true,B=false"
    )


def test_a_manifest_that_is_not_understood_is_named() -> None:
    """By its line."""
    text = read("kubeadm/etcd.yaml")
    for old, new, said in (
        ("--name=master01", "--name=$(POD)", "/m:21: what '--name=$(POD)' becomes"),
        ("value: ", "valueFrom: ", "/m:23: what ETCD_SNAPSHOT_COUNT becomes"),
        ("command:", "commands:", "/m:10: its container has no command"),
        ("    name: etcd\n", "    name: other\n  - name: x\n", "/m:10: it has no container"),
        ("spec:", "spec: [", "it is not YAML"),
    ):
        pod = SettingsFiles("", "", (), (), TextFile("/m", text.replace(old, new)))
        assert said in str(read_settings(pod).faults[0])


def test_a_process_is_read_by_the_same_rules() -> None:
    """Its arguments and variables; there is no line to name."""
    found = read_process(
        ["/usr/bin/etcd", "--name", "a", "--client-cert-auth"],
        {"ETCD_DATA_DIR": "/d", "ETCD_NAME": "", "PATH": "/bin"},
        SettingsFiles("etcd.service", "node1", ()),
        "process 7",
    )
    assert (found.value("name"), found.value("data-dir")) == ("a", "/d")
    assert found.is_on("client-cert-auth")
    assert found.place("name") == "process 7"


@pytest.mark.parametrize(("text", "seconds"), [
    ("0", 0), ("1h30m", 5400), ("1.5s", 1.5), ("100ms", 0.1), ("-5m", -300), (".5s", 0.5),
])  # fmt: skip
def test_durations_are_gos(text: str, seconds: float) -> None:
    """Units in any number."""
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "1h 30m", "s", "1d", "1e3s"])
def test_what_go_takes_for_no_duration_is_refused(text: str) -> None:
    """A number needs a unit."""
    with pytest.raises(ValueError, match="not a duration"):
        parse_seconds(text)


@pytest.mark.parametrize(("text", "number"), [
    ("10", 10), ("0x10", 16), ("010", 8), ("0o17", 15), ("0b11", 3), ("1_000", 1000), ("-3", -3),
])  # fmt: skip
def test_numbers_are_gos(text: str, number: int) -> None:
    """The base is in the prefix."""
    assert parse_number(text) == number


def test_booleans_are_gos() -> None:
    """And nothing else is."""
    assert all(map(parse_boolean, ("1", "t", "T", "TRUE", "true", "True")))
    assert not any(map(parse_boolean, ("0", "f", "F", "FALSE", "false", "False")))
    for text in ("yes", "on", "", "tRUE"):
        with pytest.raises(ValueError, match="neither true nor false"):
            parse_boolean(text)
