"""From what runs to an inventory: layouts, and what cannot be managed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tasks.model.adoption import FoundEtcd
from tasks.model.certificates import Role
from tasks.model.errors import Refused
from tasks.model.inventory import Inventory
from tasks.model.members import Member
from tasks.plans.addresses import desired_member
from tasks.plans.adopted_files import name_hosts
from tasks.plans.adopted_reasons import find_container
from tasks.plans.adoption import adopt, find_pairs
from tasks.plans.adoption_remarks import find_remarks

SSH = {"user": "root"}


def found(number: int, **settings: str) -> FoundEtcd:
    """Make an etcd as kubespray sets it up; settings by etcd's names without the prefix."""
    name, address = f"node{number}", f"10.0.0.{number}"
    directory = "/etc/ssl/etcd/ssl"
    facts = {
        "NAME": name,
        "DATA_DIR": "/var/lib/etcd",
        "ADVERTISE_CLIENT_URLS": f"https://{address}:2379",
        "INITIAL_ADVERTISE_PEER_URLS": f"https://{address}:2380",
        "LISTEN_CLIENT_URLS": f"https://{address}:2379",
        "CERT_FILE": f"{directory}/member-{name}.pem",
        "KEY_FILE": f"{directory}/member-{name}-key.pem",
        "PEER_CERT_FILE": f"{directory}/member-{name}.pem",
        "PEER_KEY_FILE": f"{directory}/member-{name}-key.pem",
        "TRUSTED_CA_FILE": f"{directory}/ca.pem",
        "CLIENT_CERT_AUTH": "true",
        "PEER_CLIENT_CERT_AUTH": "true",
        **settings,
    }
    etcd = FoundEtcd(
        host=f"host{number}",
        unit_path="/etc/systemd/system/etcd.service",
        environment_file="/etc/etcd.env",
        account="etcd",
        program="/usr/local/bin/etcd",
        version="3.5.16",
        is_running=True,
        settings={f"ETCD_{key}": value for key, value in facts.items() if value},
        members=tuple(Member(n, f"node{n}", (f"https://10.0.0.{n}:2380",), ()) for n in (1, 2, 3)),
    )
    return replace(etcd, pairs=find_pairs(etcd))


ALL = tuple(found(number) for number in (1, 2, 3))
ADDRESSES = {f"host{number}": f"10.0.0.{number}" for number in (1, 2, 3)}


def adopted(*etcds: FoundEtcd) -> Inventory:
    """Adopt and validate."""
    return Inventory.model_validate(adopt("old", etcds, ADDRESSES, SSH))


def test_files_named_after_hosts_become_a_template() -> None:
    """And where it is the same file, one pair plays both roles."""
    inventory = adopted(*ALL)
    assert [host.name for host in inventory.hosts] == ["node1", "node2", "node3"]
    assert inventory.paths.pairs[Role.PEER].certificate == "/etc/ssl/etcd/ssl/member-{host}.pem"
    assert inventory.layout("node2").pairs[0].roles == (Role.SERVER, Role.PEER, Role.CLIENT)
    assert str(inventory.layout("node1").data) == "/var/lib/etcd"
    assert find_remarks(name_hosts(ALL, frozenset())) == ()


def test_addresses_that_differ_from_ssh_are_kept() -> None:
    """Peers on a network of their own."""
    apart = tuple(
        found(n, INITIAL_ADVERTISE_PEER_URLS=f"https://192.168.7.{n}:2380") for n in (1, 2, 3)
    )
    assert adopted(*apart).hosts[1].peer_address == "192.168.7.2"
    assert adopted(*apart).hosts[1].client_address is None


def on_ports(number: int, client: int, peer: int) -> FoundEtcd:
    """Make one that tells these ports."""
    return found(
        number,
        ADVERTISE_CLIENT_URLS=f"https://10.0.0.{number}:{client}",
        INITIAL_ADVERTISE_PEER_URLS=f"https://10.0.0.{number}:{peer}",
    )


def test_the_ports_that_members_tell_are_kept() -> None:
    """Those of kubespray's etcd-events; a host with others says so itself."""
    events = tuple(on_ports(n, 2382, 2383) for n in (1, 2))
    inventory = adopted(*events, on_ports(3, 4001, 7001))
    assert (inventory.etcd.client_port, inventory.etcd.peer_port) == (2382, 2383)
    assert (inventory.hosts[0].client_port, inventory.hosts[0].peer_port) == (None, None)
    members = [desired_member(inventory, host, None) for host in inventory.hosts]
    assert members[1].client_url == "https://10.0.0.2:2382"
    assert members[1].peer_url == "https://10.0.0.2:2383"
    assert members[2].client_url == "https://10.0.0.3:4001"
    assert inventory.layout(members[2].name).peer_port == 7001
    usual = adopted(*ALL)
    assert "port" not in str(usual.model_dump(mode="json", exclude_defaults=True)["etcd"])


def test_further_settings_are_kept() -> None:
    """Known ones by their names, others as they are, what the runbooks set left out."""
    given = {"SNAPSHOT_COUNT": "5000", "MAX_REQUEST_BYTES": "99", "INITIAL_CLUSTER_STATE": "new"}
    settings = adopted(*(found(n, **given) for n in (1, 2, 3))).etcd.settings
    assert settings.snapshot_count == 5000
    assert settings.environment == {"ETCD_MAX_REQUEST_BYTES": "99"}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (
            {"ADVERTISE_CLIENT_URLS": "http://10.0.0.3:2379"},
            "client-urls .* is not https",
        ),
        ({"INITIAL_ADVERTISE_PEER_URLS": "http://10.0.0.3:2380"}, "peer-urls .* is not https"),
        (
            {"ADVERTISE_CLIENT_URLS": "https://localhost:2379"},
            r"client-urls \(https://localhost:2379\) is the host's own to itself alone",
        ),
        ({"PEER_TRUSTED_CA_FILE": "/other/ca.pem"}, "different authorities"),
        ({"TRUSTED_CA_FILE": ""}, "--trusted-ca-file is not set"),
        ({"NAME": ""}, "has no name of its own"),
        (
            {"INITIAL_CLUSTER_TOKEN": "x"},
            "differ in their cluster token: etcd-cluster on node1, node2; x on node3",
        ),
    ],
)
def test_what_the_runbooks_could_not_manage_is_refused(
    changed: dict[str, str], reason: str
) -> None:
    """With what is wrong, and where."""
    with pytest.raises(Refused, match=reason):
        adopted(*ALL[:2], found(3, **changed))


@pytest.mark.parametrize(
    "group",
    [f"docker-{'ab' * 32}.scope", "ab" * 32, f"libpod-{'ab' * 32}.scope", "container"],
)
def test_etcd_in_a_container_is_refused_as_that(group: str) -> None:
    """Kubespray's etcd_deployment_type=docker: the unit runs a script, and etcd is elsewhere."""
    contained = replace(ALL[2], is_running=False, others=(group,), processes={group: 4711})
    with pytest.raises(Refused, match=r"node3: etcd runs in a container .*etcd.service") as caught:
        adopted(*ALL[:2], contained)
    assert f"process 4711, in {group}" in str(caught.value)
    line = "/etc/systemd/system/etcd.service:7: /usr/bin/docker runs etcd in a container"
    with pytest.raises(Refused, match=line):
        adopted(*ALL[:2], replace(contained, unknown=(line,)))
    assert find_container(replace(ALL[2], others=(group,))) is None, "an own process, and another"
    assert find_container(replace(ALL[2], is_running=False, others=("x.service",))) is None


def test_what_is_refused_is_named_by_flag_file_and_line() -> None:
    """Where one of its files gives it."""
    name = "ETCD_ADVERTISE_CLIENT_URLS"
    odd = replace(
        found(3, ADVERTISE_CLIENT_URLS="http://10.0.0.3:2379"), places={name: "/etc/etcd.env:4"}
    )
    said = r"--advertise-client-urls \(http://10\.0\.0\.3:2379, /etc/etcd\.env:4\) is not https"
    with pytest.raises(Refused, match=said):
        adopted(*ALL[:2], odd)
    for switch, said in {
        "LISTEN_CLIENT_HTTP_URLS=https://10.0.0.3:2378": r"is asked by HTTP at --advertise-client",
        "CLIENT_CERT_ALLOWED_HOSTNAME=x.example": r"own certificate away, which names no host",
        "ENABLE_GRPC_GATEWAY=false": r"--enable-grpc-gateway \(false\): etcd is asked",
    }.items():
        flag, _, value = switch.partition("=")
        with pytest.raises(Refused, match=said):
            adopted(*ALL[:2], found(3, **{flag: value}))
    copied = found(3, KEY_FILE="/run/credentials/etcd.service/key.pem")
    with pytest.raises(Refused, match=r"--key-file \(/run/cred.*LoadCredential="):
        adopted(*ALL[:2], copied)


def test_a_loopback_url_that_comes_first_is_not_the_members() -> None:
    """Some scripts tell it to clients beside the real one."""
    urls = {n: f"https://127.0.0.1:2379,https://10.0.0.{n}:2379" for n in (1, 2, 3)}
    inventory = adopted(*(found(n, ADVERTISE_CLIENT_URLS=url) for n, url in urls.items()))
    assert [host.client_address for host in inventory.hosts] == [None] * 3


def test_a_settings_file_is_no_setting() -> None:
    """With ETCD_CONFIG_FILE among the variables etcd would pass over all others."""
    inventory = adopted(*(found(n, CONFIG_FILE=f"/etc/etcd/{n}.yml") for n in (1, 2, 3)))
    assert inventory.etcd.settings.environment == adopted(*ALL).etcd.settings.environment


@pytest.mark.parametrize("gateway", ["", "true", "false"])
def test_etcd_3_4_with_a_settings_file_has_no_gateway(gateway: str) -> None:
    """Unless it is switched on: seen on 3.4.23, whose /health is true and whose /v3 are 404."""
    settings = {"CONFIG_FILE": "/etc/etcd/etcd.yml", "ENABLE_GRPC_GATEWAY": gateway}
    old = tuple(replace(found(n, **settings), version="3.4.23") for n in (1, 2, 3))
    if gateway == "true":
        assert adopted(*old).etcd.version == "3.4.23"
        return
    with pytest.raises(Refused, match="JSON gateway"):
        adopted(*old)


def test_a_version_that_is_not_told_is_refused() -> None:
    """As where the program is a shell."""
    with pytest.raises(Refused, match="node3: /usr/local/bin/etcd tells no version of etcd's"):
        adopted(*ALL[:2], replace(ALL[2], version=None))


def test_files_that_follow_no_name_are_kept_host_by_host() -> None:
    """Where one differs, and it alone."""
    inventory = adopted(*ALL[:2], found(3, CERT_FILE="/elsewhere/x.pem"))
    assert inventory.paths.pairs[Role.SERVER].certificate == "/etc/ssl/etcd/ssl/member-{host}.pem"
    assert [sorted(host.pairs) for host in inventory.hosts] == [[], [], [Role.CLIENT, Role.SERVER]]
    assert str(inventory.layout("node3").pair(Role.SERVER).certificate) == "/elsewhere/x.pem"


def test_mixed_versions_are_an_upgrade_that_is_not_over() -> None:
    """Refused."""
    with pytest.raises(Refused, match="differ in their version"):
        adopted(*ALL[:2], replace(ALL[2], version="3.4.23"))


def test_a_member_whose_host_was_not_named_is_refused() -> None:
    """Its name and address are told."""
    with pytest.raises(Refused, match=r"(?s)node3.*10\.0\.0\.3:2380.*--hosts"):
        adopted(*ALL[:2])


def test_what_an_operator_should_see_to_is_told() -> None:
    """Plaintext, no client authentication, a key that lies about, a list that was not read."""
    odd = replace(
        found(1, LISTEN_CLIENT_URLS="https://10.0.0.1:2379,http://127.0.0.1:2379",
              PEER_CLIENT_CERT_AUTH="", STRICT_RECONFIG_CHECK="false"),
        keys_of_authority=("/etc/ssl/etcd/ssl/ca-key.pem",),
        others=("etcd-events.service",),
        members=None,
    )  # fmt: skip
    remarks = "\n".join(find_remarks(name_hosts((odd,), frozenset())))
    for said in (
        "node1: the authority's key lies at /etc/ssl/etcd/ssl/ca-key.pem",
        "http://127.0.0.1:2379 without TLS",
        "strict-reconfig-check is off",
        "--peer-client-cert-auth is off",
        "another etcd runs here (etcd-events.service)",
        "the member list could not be read",
    ):
        assert said in remarks
