"""adopt_cluster on what others have built: by the procedures, kubeasz-style, kubespray-style."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from tasks.model.certificates import AuthorityPolicy, KeySpec, LeafPolicy, Role
from tasks.model.inventory_file import load_inventory
from tasks.pki.authority import Authority, create_authority
from tasks.pki.keys import make_key, private_pem
from tasks.pki.leaf import wanted_leaf
from tests.integration.pairs import install
from tests.integration.runbooks import Ended, Prefect, finish, run_runbook
from tests.integration.runbooks import start_runbook as start

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.fixtures import StartLab
    from tests.lab.host import Host
    from tests.lab.lab import Lab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

PASSPHRASE = "correct horse battery staple"
UNIT = """[Unit]
Description=Etcd Server
[Service]
Type=notify
{environment}
ExecStart={start}
{user}
Restart=always
[Install]
WantedBy=multi-user.target
"""


def adopt(prefect: Prefect, lab: Lab, output: Path, *options: str, hosts: int = 3) -> Ended:
    """Adopt a lab's cluster into a file."""
    addresses = [host.address for host in lab.hosts.values()][:hosts]
    named = [word for address in addresses for word in ("--hosts", address)]
    access = ["--user", "operator", "--key", str(lab.key), "--known-hosts", str(lab.known_hosts)]
    words = [*named, *access, "--output", str(output), *options]
    return finish(start(prefect, "adopt_cluster", "adopted", *words))


def fingerprint(lab: Lab) -> dict[str, str]:
    """List every file that a runbook could change, with size, mode, owner and time."""
    find = "find /etc /usr/local /var/backups /var/lib -xdev -type f -not -path '/var/lib/etcd/*' "
    shown = find + "-printf '%p %s %m %u %C@\\n' | sort"
    return {name: host.run(shown).check().stdout for name, host in lab.hosts.items()}


def issue(
    authority: Authority, host: Host, directory: str, stem: str, role: Role = Role.PEER
) -> None:
    """Put a pair of another's making onto a host."""
    usages = LeafPolicy().usages
    policy = LeafPolicy(key=KeySpec(algo="rsa", size=2048), usages=usages)
    want = wanted_leaf(policy, role, host.name, (host.address,), ())
    key = make_key(want.key)
    certificate = authority._issue(key.public_key(), want, datetime.now(UTC))
    install(host, f"{directory}/{stem}.pem", certificate.decode())
    install(host, f"{directory}/{stem}-key.pem", private_pem(key).decode())
    host.run(f"chmod 0600 {directory}/{stem}-key.pem").check()


def start_everywhere(lab: Lab) -> None:
    """Start etcd on all hosts at once and wait until each is ready."""
    for host in lab.hosts.values():
        host.run(
            "systemctl daemon-reload; systemctl enable etcd; systemctl start --no-block etcd"
        ).check()
    for host in lab.hosts.values():
        done = host.run("systemctl start etcd || journalctl -u etcd -n 15 --output=cat", timeout=60)
        assert "Job" not in done.stderr, done.stdout


def give_key(inventory: Path, authority: Authority) -> None:
    """Do what the adopted inventory asks of the operator: put the authority's key there."""
    found = load_inventory(str(inventory)).authority
    assert found.certificate.read_bytes() == authority.certificate_pem
    found.key.write_bytes(authority.seal_key(PASSPHRASE.encode()))
    os.environ["ETCD_CA_PASSPHRASE"] = PASSPHRASE


def try_runbooks(prefect: Prefect, inventory: Path) -> None:
    """See that health can be checked, and pairs rotated, through the adopted inventory."""
    ended = run_runbook(prefect, "check_health", inventory)
    assert ended.status == 0, ended.output
    ended = run_runbook(prefect, "rotate_certificates", inventory, "--which", "all")
    assert ended.status == 0, ended.output
    ended = run_runbook(prefect, "rotate_certificates", inventory)
    assert "no pair is due" in ended.stdout, ended.output


def test_a_cluster_as_the_procedures_make_it(
    start_lab: StartLab, prefect: Prefect, tmp_path: Path
) -> None:
    """The layout is the default, so little is written; hosts are as they were."""
    lab = start_lab(hosts=3)
    assert run_runbook(prefect, "bootstrap_cluster", lab).status == 0
    for host in lab.hosts.values():
        shell = 's|^ExecStart=.*|ExecStart=/bin/bash -c "GOMAXPROCS=$(nproc) /usr/local/bin/etcd"|'
        host.run(["sed", "-i", shell, "/etc/systemd/system/etcd.service"]).check()
        host.run("systemctl daemon-reload; systemctl restart --no-block etcd").check()
    start_everywhere(lab)
    before = fingerprint(lab)
    output = tmp_path / "adopted.yaml"
    shown = adopt(prefect, lab, output, "--dry-run")
    assert shown.status == 0, shown.output
    assert not output.exists()
    ended = adopt(prefect, lab, output)
    assert ended.status == 0, ended.output
    assert fingerprint(lab) == before
    found, wanted = load_inventory(str(output)), load_inventory(str(lab.inventory))
    assert found.paths == wanted.paths
    assert [h.name for h in found.hosts] == [h.name for h in wanted.hosts]
    assert "put the key of 'etcd'" in ended.stdout
    again = adopt(prefect, lab, output)
    assert again.status == 2
    assert "exists and is left alone" in again.stderr


def test_a_kubeasz_style_cluster(start_lab: StartLab, prefect: Prefect, tmp_path: Path) -> None:
    """Flags in the unit, one certificate for server and peer, plaintext on the loopback, root."""
    lab, directory = start_lab(hosts=3, etcd_source="installed"), "/etc/kubernetes/ssl"
    authority = create_authority(AuthorityPolicy(common_name="kubernetes"), datetime.now(UTC))
    cluster = ",".join(f"{h.name}=https://{h.address}:2380" for h in lab.hosts.values())
    for host in lab.hosts.values():
        host.run(f"mkdir -p {directory} /var/lib/etcd && chmod 0700 /var/lib/etcd").check()
        install(host, f"{directory}/ca.pem", authority.certificate_pem.decode())
        issue(authority, host, directory, "etcd")
        flags = (
            f"--name={host.name} --cert-file={directory}/etcd.pem "
            f"--key-file={directory}/etcd-key.pem --peer-cert-file={directory}/etcd.pem "
            f"--peer-key-file={directory}/etcd-key.pem --trusted-ca-file={directory}/ca.pem "
            f"--peer-trusted-ca-file={directory}/ca.pem "
            f"--initial-advertise-peer-urls=https://{host.address}:2380 "
            f"--listen-peer-urls=https://{host.address}:2380 "
            f"--listen-client-urls=https://{host.address}:2379,http://127.0.0.1:2379 "
            f"--advertise-client-urls=https://{host.address}:2379 "
            f"--initial-cluster-token=etcd-cluster-0 --initial-cluster={cluster} "
            "--initial-cluster-state=new --data-dir=/var/lib/etcd --snapshot-count=50000 "
            "--auto-compaction-retention=1 --auto-compaction-mode=periodic"
        )
        unit = UNIT.format(environment="", start=f"/usr/local/bin/etcd {flags}", user="")
        install(host, "/etc/systemd/system/etcd.service", unit)
    start_everywhere(lab)
    before, output = fingerprint(lab), tmp_path / "adopted.yaml"
    ended = adopt(prefect, lab, output)
    assert ended.status == 0, ended.output
    assert fingerprint(lab) == before
    assert "listens on http://127.0.0.1:2379 without TLS" in ended.stdout
    assert "its key is RSA 2048, not ECDSA 256" in ended.stdout
    found = load_inventory(str(output))
    assert [p.label for p in found.layout("master01").pairs] == ["server+peer+client"]
    assert str(found.layout("master01").data) == "/var/lib/etcd"
    assert found.etcd.run_as == "root"
    assert found.etcd.settings.snapshot_count == 50000
    give_key(output, authority)
    try_runbooks(prefect, output)


def test_a_kubespray_style_cluster(start_lab: StartLab, prefect: Prefect, tmp_path: Path) -> None:
    """An environment file, pairs named after the hosts, the authority's key left on one."""
    lab, directory = start_lab(hosts=3, etcd_source="installed"), "/etc/ssl/etcd/ssl"
    authority = create_authority(AuthorityPolicy(common_name="etcd-ca"), datetime.now(UTC))
    cluster = ",".join(f"{h.name}=https://{h.address}:2380" for h in lab.hosts.values())
    for host in lab.hosts.values():
        host.run(
            f"mkdir -p {directory} /var/lib/etcd && chmod 0700 /var/lib/etcd && "
            "{ id etcd || useradd --system --user-group etcd; } && chown etcd: /var/lib/etcd"
        ).check()
        install(host, f"{directory}/ca.pem", authority.certificate_pem.decode())
        for stem in (f"member-{host.name}", f"admin-{host.name}"):
            issue(authority, host, directory, stem)
        host.run(f"chown etcd: {directory}/*").check()
        member = f"{directory}/member-{host.name}"
        variables = f"""# Environment file for etcd
ETCD_DATA_DIR=/var/lib/etcd
ETCD_ADVERTISE_CLIENT_URLS=https://{host.address}:2379
ETCD_INITIAL_ADVERTISE_PEER_URLS=https://{host.address}:2380
ETCD_INITIAL_CLUSTER_STATE=new
ETCD_INITIAL_CLUSTER_TOKEN=k8s_etcd
ETCD_LISTEN_CLIENT_URLS=https://{host.address}:2379,https://127.0.0.1:2379
ETCD_LISTEN_PEER_URLS=https://{host.address}:2380
ETCD_NAME={host.name}
ETCD_INITIAL_CLUSTER={cluster}
ETCD_TRUSTED_CA_FILE={directory}/ca.pem
ETCD_CERT_FILE={member}.pem
ETCD_KEY_FILE={member}-key.pem
ETCD_CLIENT_CERT_AUTH=true
ETCD_PEER_TRUSTED_CA_FILE={directory}/ca.pem
ETCD_PEER_CERT_FILE={member}.pem
ETCD_PEER_KEY_FILE={member}-key.pem
ETCD_PEER_CLIENT_CERT_AUTH=True
"""
        install(host, "/etc/etcd.env", variables)
        unit = UNIT.format(
            environment="EnvironmentFile=/etc/etcd.env",
            start="/usr/local/bin/etcd",
            user="User=etcd",
        )
        install(host, "/etc/systemd/system/etcd.service", unit)
    install(lab["master01"], f"{directory}/ca-key.pem", "not a key\n")
    start_everywhere(lab)
    before, output = fingerprint(lab), tmp_path / "adopted.yaml"
    short = adopt(prefect, lab, output, hosts=2)
    assert short.status == 2, short.output
    assert "master03" in short.stderr
    ended = adopt(prefect, lab, output)
    assert ended.status == 0, ended.output
    assert fingerprint(lab) == before
    assert f"master01: the authority's key lies at {directory}/ca-key.pem" in ended.stdout
    found = load_inventory(str(output))
    assert str(found.layout("master02").pairs[0].certificate) == f"{directory}/member-master02.pem"
    assert found.etcd.cluster_token == "k8s_etcd"
    assert str(found.paths.configuration) == "/etc/etcd.env"
    give_key(output, authority)
    try_runbooks(prefect, output)


def test_a_host_without_etcd_is_refused(
    start_lab: StartLab, prefect: Prefect, tmp_path: Path
) -> None:
    """Nothing is written, and the error names the host and the way out."""
    lab = start_lab(hosts=1)
    ended = adopt(prefect, lab, tmp_path / "adopted.yaml", "--unit", "other.service", hosts=1)
    assert ended.status == 2
    assert "--unit" in ended.stderr
    assert not (tmp_path / "adopted.yaml").exists()
