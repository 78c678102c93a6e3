"""The unit and etcd.conf: what is rendered, read back as systemd would."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.config.parsing import REQUIRED, parse_configuration, validate_configuration
from tasks.config.rendering import InitialState, render_configuration, render_unit
from tasks.model.credentials import Passphrase
from tasks.model.errors import InvalidInventory
from tasks.model.inventory import Authority, Inventory
from tasks.model.layout import Paths
from tasks.model.machines import Host
from tasks.model.members import DesiredMember
from tasks.model.settings import Etcd, Settings

VERSIONS = ("3.4.23", "3.5.16", "3.6.1")
MEMBERS = tuple(
    DesiredMember(
        f"master0{number}",
        f"https://192.168.100.{address}:2380",
        f"https://192.168.100.{address}:2379",
    )
    for number, address in ((2, 201), (1, 200), (3, 202))
)
RENDERED_BY_DEFAULT = {
    "ETCD_NAME": "master01",
    "ETCD_DATA_DIR": "/var/lib/etcd/default.etcd",
    "ETCD_LISTEN_PEER_URLS": "https://0.0.0.0:2380",
    "ETCD_LISTEN_CLIENT_URLS": "https://0.0.0.0:2379",
    "ETCD_INITIAL_ADVERTISE_PEER_URLS": "https://192.168.100.200:2380",
    "ETCD_ADVERTISE_CLIENT_URLS": "https://192.168.100.200:2379",
    "ETCD_INITIAL_CLUSTER": (
        "master02=https://192.168.100.201:2380,"
        "master01=https://192.168.100.200:2380,"
        "master03=https://192.168.100.202:2380"
    ),
    "ETCD_INITIAL_CLUSTER_STATE": "new",
    "ETCD_INITIAL_CLUSTER_TOKEN": "etcd-cluster",
    "ETCD_STRICT_RECONFIG_CHECK": "true",
    "ETCD_CERT_FILE": "/etc/etcd/ssl/server.pem",
    "ETCD_KEY_FILE": "/etc/etcd/ssl/server-key.pem",
    "ETCD_CLIENT_CERT_AUTH": "true",
    "ETCD_TRUSTED_CA_FILE": "/etc/etcd/ssl/ca.pem",
    "ETCD_PEER_CERT_FILE": "/etc/etcd/ssl/peer.pem",
    "ETCD_PEER_KEY_FILE": "/etc/etcd/ssl/peer-key.pem",
    "ETCD_PEER_CLIENT_CERT_AUTH": "true",
    "ETCD_PEER_TRUSTED_CA_FILE": "/etc/etcd/ssl/ca.pem",
    "ETCD_HEARTBEAT_INTERVAL": "100",
    "ETCD_ELECTION_TIMEOUT": "1000",
}


def make_inventory(
    version: str = "3.5.16", settings: Settings | None = None, paths: Paths | None = None
) -> Inventory:
    """Make the procedures' cluster of three."""
    return Inventory(
        name="lab3",
        hosts=tuple(Host(name=f"master0{n}", address=f"192.168.100.{199 + n}") for n in (1, 2, 3)),
        etcd=Etcd(version=version, settings=settings or Settings()),
        paths=paths or Paths(),
        authority=Authority(
            certificate=Path("ca.pem"), key=Path("ca-key.pem"), passphrase=Passphrase(env="X")
        ),
    )


def render(inventory: Inventory, state: InitialState = InitialState.NEW) -> str:
    """Render master01's etcd.conf."""
    return render_configuration(inventory, MEMBERS[1], MEMBERS, state)


@pytest.mark.parametrize("version", VERSIONS)
def test_defaults_give_the_procedures_settings_and_no_more(version: str) -> None:
    """What the inventory leaves out is left to etcd; 3.4 alone is told its logger."""
    logger = {"ETCD_LOGGER": "zap"} if version.startswith("3.4.") else {}
    text = render(make_inventory(version))
    assert parse_configuration(text) == RENDERED_BY_DEFAULT | logger
    validate_configuration(text)
    assert set(REQUIRED) == set(RENDERED_BY_DEFAULT)


def test_a_joining_member_is_told_that_the_cluster_exists() -> None:
    """The state is the caller's."""
    found = parse_configuration(render(make_inventory(), InitialState.EXISTING))
    assert found["ETCD_INITIAL_CLUSTER_STATE"] == "existing"


def test_every_optional_setting_is_rendered_when_given() -> None:
    """Each field of Settings reaches etcd; the inventory's own variables come last."""
    text = render(
        make_inventory(
            settings=Settings(
                heartbeat_interval_ms=50,
                election_timeout_ms=500,
                snapshot_count=10_000,
                quota_backend_bytes=8 << 30,
                auto_compaction_mode="periodic",
                auto_compaction_retention="8h",
                listen_metrics_urls=("http://127.0.0.1:2381", "http://[::1]:2381"),
                log_level="warn",
                environment={"ETCD_MAX_REQUEST_BYTES": "1572864", "ETCD_CORS": "a b#;%"},
            )
        )
    )
    assert parse_configuration(text) == RENDERED_BY_DEFAULT | {
        "ETCD_HEARTBEAT_INTERVAL": "50",
        "ETCD_ELECTION_TIMEOUT": "500",
        "ETCD_SNAPSHOT_COUNT": "10000",
        "ETCD_QUOTA_BACKEND_BYTES": "8589934592",
        "ETCD_AUTO_COMPACTION_MODE": "periodic",
        "ETCD_AUTO_COMPACTION_RETENTION": "8h",
        "ETCD_LISTEN_METRICS_URLS": "http://127.0.0.1:2381,http://[::1]:2381",
        "ETCD_LOG_LEVEL": "warn",
        "ETCD_CORS": "a b#;%",
        "ETCD_MAX_REQUEST_BYTES": "1572864",
    }
    assert list(parse_configuration(text))[-2:] == ["ETCD_CORS", "ETCD_MAX_REQUEST_BYTES"]


def test_an_ipv6_member_listens_on_ipv6() -> None:
    """[::] hears what an IPv6 member advertises."""
    member = DesiredMember("a", "https://[fd00::1]:2380", "https://[fd00::1]:2379")
    found = parse_configuration(
        render_configuration(make_inventory(), member, (member,), InitialState.NEW)
    )
    assert found["ETCD_LISTEN_PEER_URLS"] == "https://[::]:2380"
    assert found["ETCD_LISTEN_CLIENT_URLS"] == "https://[::]:2379"
    assert found["ETCD_INITIAL_CLUSTER"] == "a=https://[fd00::1]:2380"


@pytest.mark.parametrize("renderer", [render, render_unit])
def test_the_same_inventory_renders_the_same_text(renderer: Callable[[Inventory], str]) -> None:
    """A second run finds nothing to change; both texts say who manages them."""
    text = renderer(make_inventory())
    assert text == renderer(make_inventory())
    assert text.startswith("# Managed by etcd-runbooks: ")
    assert text.endswith("\n")
    assert "\n\n\n" not in text


@pytest.mark.parametrize(
    ("version", "name", "value", "is_refused"),
    [
        ("3.5.16", "ETCD_DISCOVERY_FALLBACK", "proxy", False),
        ("3.6.1", "ETCD_DISCOVERY_FALLBACK", "exit", False),
        ("3.6.1", "ETCD_DISCOVERY_FALLBACK", "proxy", True),
        ("3.4.23", "ETCD_PROXY", "off", False),
        ("3.4.23", "ETCD_PROXY", "on", True),
        ("3.6.1", "ETCD_PROXY", "off", True),
        ("3.5.16", "ETCD_PROXY_READ_TIMEOUT", "0", False),
        ("3.6.1", "ETCD_PROXY_READ_TIMEOUT", "0", True),
        ("3.5.16", "ETCD_ENABLE_V2", "true", False),
        ("3.6.1", "ETCD_ENABLE_V2", "true", True),
        ("3.6.1", "ETCD_EXPERIMENTAL_ENABLE_V2V3", "/v2", True),
        ("3.4.23", "ETCD_DEBUG", "true", False),
        ("3.5.16", "ETCD_DEBUG", "true", True),
        ("3.4.23", "ETCD_LOG_PACKAGE_LEVELS", "etcdserver=DEBUG", False),
        ("3.6.1", "ETCD_LOG_PACKAGE_LEVELS", "etcdserver=DEBUG", True),
        ("3.4.23", "ETCD_LOG_OUTPUT", "stderr", False),
        ("3.5.16", "ETCD_LOG_OUTPUT", "stderr", True),
        ("3.6.1", "ETCD_LOG_OUTPUTS", "stderr", False),
        ("3.5.16", "ETCD_MAX_SNAPSHOTS", "5", False),
        ("3.7.3", "ETCD_MAX_SNAPSHOTS", "5", False),
        ("3.5.16", "ETCD_V2_DEPRECATION", "not-yet", False),
        ("3.6.16", "ETCD_V2_DEPRECATION", "not-yet", True),
        ("3.7.3", "ETCD_V2_DEPRECATION", "write-only", False),
        ("3.6.16", "ETCD_EXPERIMENTAL_INITIAL_CORRUPT_CHECK", "true", False),
        ("3.7.3", "ETCD_EXPERIMENTAL_INITIAL_CORRUPT_CHECK", "true", True),
        ("3.7.3", "ETCD_EXPERIMENTAL_CORRUPT_CHECK_TIME", "1h", True),
        ("3.7.3", "ETCD_FEATURE_GATES", "InitialCorruptCheck=true", False),
        ("3.5.16", "ETCD_FEATURE_GATES", "InitialCorruptCheck=true", True),
        ("3.5.16", "ETCD_CORRUPT_CHECK_TIME", "1h", True),
        ("3.6.16", "ETCD_CORRUPT_CHECK_TIME", "1h", False),
        ("3.4.23", "ETCD_ENABLE_LOG_ROTATION", "true", True),
        ("3.5.16", "ETCD_ENABLE_LOG_ROTATION", "true", False),
        ("3.4.23", "ETCD_BACKEND_BBOLT_FREELIST_TYPE", "map", True),
        ("3.4.23", "ETCD_EXPERIMENTAL_BACKEND_BBOLT_FREELIST_TYPE", "map", False),
        ("3.5.16", "ETCD_EXPERIMENTAL_BACKEND_BBOLT_FREELIST_TYPE", "map", True),
        ("3.5.16", "ETCD_LISTEN_CLIENT_HTTP_URLS", "https://127.0.0.1:2382", True),
        ("3.5.16", "ETCD_ENABLE_GRPC_GATEWAY", "false", True),
        ("3.5.16", "ETCD_ENABLE_GRPC_GATEWAY", "true", False),
        ("3.5.16", "ETCD_DISCOVERY", "https://discovery.example.org/1", True),
        ("3.5.16", "ETCD_DISCOVERY_SRV", "example.org", True),
        ("3.6.1", "ETCD_CONFIG_FILE", "/etc/etcd.yml", True),
    ],
)
def test_a_variable_that_the_version_would_refuse_or_ignore_is_refused(
    version: str, name: str, value: str, is_refused: bool
) -> None:
    """The refusal names the field, the version and a way out; all else is rendered."""
    inventory = make_inventory(version, Settings(environment={name: value}))
    if not is_refused:
        assert parse_configuration(render(inventory))[name] == value
        return
    with pytest.raises(InvalidInventory) as caught:
        render(inventory)
    (problem,) = caught.value.problems
    assert caught.value.source == "lab3"
    assert problem.startswith(f"etcd.settings.environment.{name}: in etcd {version} it ")
    assert "; " in problem


def test_all_unusable_settings_are_told_at_once() -> None:
    """The operator mends the inventory once; snapshot_count is none: 3.6 and 3.7 honour it."""
    inventory = make_inventory(
        "3.6.1",
        Settings(snapshot_count=5, environment={"ETCD_DEBUG": "1", "ETCD_ENABLE_V2": "true"}),
    )
    with pytest.raises(InvalidInventory) as caught:
        render(inventory)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "etcd.settings.environment.ETCD_DEBUG",
        "etcd.settings.environment.ETCD_ENABLE_V2",
    ]


def test_a_setting_that_3_7_dropped_is_refused_with_its_successor() -> None:
    """A cluster would lose its corruption check by an upgrade, and etcd only warns."""
    inventory = make_inventory(
        "3.7.3", Settings(environment={"ETCD_EXPERIMENTAL_INITIAL_CORRUPT_CHECK": "true"})
    )
    with pytest.raises(InvalidInventory, match="ETCD_FEATURE_GATES to InitialCorruptCheck="):
        render(inventory)


@pytest.mark.parametrize(
    "value", ['a"b', "a'b", "a\nb", "a\rb", "a\\", "$a", "`a`", "a\0b", "\x85"]
)
def test_a_value_that_could_break_out_is_not_written(value: str) -> None:
    """Even past the inventory's own checks no value ends its quotes or its line."""
    inventory = make_inventory()
    broken = inventory.model_copy(
        update={"etcd": inventory.etcd.model_copy(update={"cluster_token": value})}
    )
    with pytest.raises(ValueError, match="not written"):
        render(broken)


def test_etcd_gets_the_members_names_and_the_host_s_files() -> None:
    """Whatever the hosts are called; a log of its own and a second trusted file as they are."""
    members = tuple(
        dataclasses.replace(m, member=f"etcd-{number}") for number, m in enumerate(MEMBERS)
    )
    hosts = tuple({"name": m.name, "member": m.member} for m in members)
    inventory = Inventory.model_validate(
        make_inventory().model_dump(mode="json")
        | {
            "hosts": hosts,
            "paths": {
                "data_directory": "/data/{member}.etcd",
                "wal_directory": "/wal/{host}",
                "peer_trusted": "/etc/etcd/ssl/peer-ca.pem",
                "pairs": {"peer": {"certificate": "/p/{host}.crt", "key": "/p/{member}.key"}},
            },
        }
    )
    text = render_configuration(inventory, members[1], members, InitialState.NEW)
    found = parse_configuration(text)
    assert found["ETCD_NAME"] == "etcd-1"
    assert found["ETCD_INITIAL_CLUSTER"].startswith("etcd-0=https://192.168.100.201:2380,etcd-1=")
    assert found["ETCD_DATA_DIR"] == "/data/etcd-1.etcd"
    assert found["ETCD_WAL_DIR"] == "/wal/master01"
    assert found["ETCD_PEER_CERT_FILE"] == "/p/master01.crt"
    assert found["ETCD_PEER_KEY_FILE"] == "/p/etcd-1.key"
    assert found["ETCD_TRUSTED_CA_FILE"] == "/etc/etcd/ssl/ca.pem"
    assert found["ETCD_PEER_TRUSTED_CA_FILE"] == "/etc/etcd/ssl/peer-ca.pem"


@pytest.mark.parametrize(
    "change",
    [
        {"member": "a,b"},
        {"member": "a=b"},
        {"name": "", "member": ""},
        {"peer_url": "http://192.168.100.200:2380"},
        {"peer_url": "https://192.168.100.200:2380,https://192.168.100.9:2380"},
        {"peer_url": "https://192.168.100.200:2380/x"},
        {"client_url": "https://"},
        {"client_url": 'https://a":2379'},
        {"name": "master02"},
        {"member": "master02"},
        {"peer_url": MEMBERS[0].peer_url},
    ],
)
def test_members_that_do_not_fit_are_refused(change: dict[str, str]) -> None:
    """A name or URL that would read as another cluster, and doubles."""
    member = dataclasses.replace(MEMBERS[1], **change)
    members = (MEMBERS[0], member, MEMBERS[2])
    with pytest.raises(ValueError, match=r"is not|two members|not written"):
        render_configuration(make_inventory(), member, members, InitialState.NEW)


def test_a_member_outside_its_own_cluster_is_refused() -> None:
    """Etcd would not start with an initial cluster that lacks the member."""
    with pytest.raises(ValueError, match="master01 is not among"):
        render_configuration(make_inventory(), MEMBERS[1], (MEMBERS[0],), InitialState.NEW)


def unit_lines(text: str) -> list[str]:
    """List a unit's lines without comments."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_the_unit_is_the_procedures_one_put_right() -> None:
    """One [Install]; waits for quorum without giving up; a removed member is let go."""
    assert unit_lines(render_unit(make_inventory())) == [
        "[Unit]",
        "Description=etcd, cluster lab3",
        "Documentation=https://etcd.io/docs",
        "After=network-online.target",
        "Wants=network-online.target",
        "StartLimitIntervalSec=0",
        "[Service]",
        "Type=notify",
        "TimeoutStartSec=10min",
        "User=etcd",
        "Group=etcd",
        "WorkingDirectory=/var/lib/etcd",
        "EnvironmentFile=/etc/etcd/etcd.conf",
        "ExecStart=/usr/local/bin/etcd",
        "Restart=on-failure",
        "RestartSec=5",
        "LimitNOFILE=65536",
        "NoNewPrivileges=yes",
        "ProtectSystem=full",
        "PrivateTmp=yes",
        "ProtectHome=yes",
        "[Install]",
        "WantedBy=multi-user.target",
    ]


@pytest.mark.parametrize(
    ("paths", "environment", "lost", "gained"),
    [
        (Paths(state="/srv/etcd"), {}, set(), set()),
        (Paths(state="/home/etcd"), {}, {"ProtectHome=yes"}, set()),
        (Paths(binaries="/root/bin"), {}, {"ProtectHome=yes"}, set()),
        (Paths(state="/var/tmp/etcd"), {}, {"PrivateTmp=yes"}, set()),  # noqa: S108 - no file is made
        (Paths(certificates="/tmp/ssl"), {}, {"PrivateTmp=yes"}, set()),  # noqa: S108 - no file is made
        (Paths(state="/usr/lib/etcd"), {}, set(), {"ReadWritePaths=/usr/lib/etcd"}),
        (Paths(state="/homes/etcd"), {}, set(), set()),
        (Paths(), {"ETCD_CLIENT_CRL_FILE": "/home/x/crl"}, {"ProtectHome=yes"}, set()),
    ],
)
def test_hardening_does_not_hide_what_etcd_uses(
    paths: Paths, environment: dict[str, str], lost: set[str], gained: set[str]
) -> None:
    """A directory below /home, /tmp or /usr stays reachable."""
    hardening = {"NoNewPrivileges=yes", "ProtectSystem=full", "PrivateTmp=yes", "ProtectHome=yes"}
    inventory = make_inventory(settings=Settings(environment=environment), paths=paths)
    found = unit_lines(render_unit(inventory))
    kept = {line for line in found if line.startswith(("NoNew", "Protect", "Private", "ReadWrite"))}
    assert kept == (hardening - lost) | gained


def test_the_group_may_differ_from_the_account() -> None:
    """Without one it has the account's name."""
    assert "Group=ssl-cert" in unit_lines(render_unit(make_inventory(), group="ssl-cert"))


@pytest.mark.parametrize(
    "group", ["a\nExecStartPre=/bin/x", "%i", "domain users", "", "a;b'", "john.doe"]
)
def test_a_group_that_a_unit_cannot_name_is_left_to_systemd(group: str) -> None:
    """It takes the account's primary group, as a directory service has it, then."""
    lines = unit_lines(render_unit(make_inventory(), group=group))
    assert "User=etcd" in lines
    assert not [line for line in lines if line.startswith("Group=") or "ExecStartPre" in line]
