"""What kubespray, KubeKey and kubeasz leave on a host: names, files, units, settings, certificates.

Facts from their templates (roles/etcd of each); for hosts of the lab, and for unit tests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tests.field.openssl import CENTURY_DAYS, RSA, Texts, make_authority, make_pairs

KUBESPRAY_SSL = "/etc/ssl/etcd/ssl"
KUBEASZ_SSL = "/etc/kubernetes/ssl"
KUBERNETES_NAMES = (
    "lb-apiserver.kubernetes.local",
    "etcd.kube-system.svc.cluster.local",
    "etcd.kube-system.svc",
    "etcd.kube-system",
    "etcd",
)
UNIT = "/etc/systemd/system/etcd.service"


@dataclass(frozen=True)
class File:
    """A file on a host."""

    text: str
    mode: str = "0644"
    owner: str = "root:root"


@dataclass(frozen=True)
class Laid:
    """What one host has: `settings` are etcd's, by their variables' names.

    `data` is the directory that is `account`'s alone.
    """

    settings: dict[str, str]
    files: dict[str, File]
    directories: tuple[str, ...]
    accounts: tuple[str, ...] = ()
    data: str = "/var/lib/etcd"
    account: str = "root"


@dataclass(frozen=True)
class Cluster:
    """A cluster of hosts, the authority that signed for it, and the unit that runs a member."""

    authority: Texts
    hosts: dict[str, Laid] = field(default_factory=dict)
    unit: str = "etcd"


def kubespray(directory: Path, hosts: dict[str, str], program: str = "/usr/local/bin") -> Cluster:
    """Lay out kubespray's: members etcd1, etcd2, ... and files after the hosts; by environment."""
    members = {host: f"etcd{number}" for number, host in enumerate(hosts, 1)}
    return _by_environment(directory, hosts, members, program)


def kubekey(directory: Path, hosts: dict[str, str], program: str = "/usr/local/bin") -> Cluster:
    """Lay out KubeKey's, which are kubespray's but for the members' names: etcd-node1."""
    return _by_environment(directory, hosts, {host: f"etcd-{host}" for host in hosts}, program)


def _by_environment(
    directory: Path, hosts: dict[str, str], members: dict[str, str], program: str
) -> Cluster:
    authority = make_authority(directory, "/CN=etcd-ca")
    kinds = ("member", "admin", "node")
    subjects = {
        f"{kind}-{h}": f"/CN=etcd-{kind}-{h.partition('.')[0]}" for h in hosts for kind in kinds
    }
    names = ["DNS:localhost", *(f"DNS:{name}" for name in (*hosts, *KUBERNETES_NAMES))]
    names += [f"IP:{address}" for address in (*hosts.values(), "127.0.0.1")]
    extensions = (
        "extendedKeyUsage=clientAuth,serverAuth\nbasicConstraints=CA:FALSE\n"
        "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid,issuer\n"
        f"subjectAltName={','.join(names)}\n"
    )
    pairs = make_pairs(directory, subjects, extensions, CENTURY_DAYS)
    cluster = ",".join(f"{members[host]}=https://{a}:2380" for host, a in hosts.items())
    made = Cluster(authority)
    for number, (host, address) in enumerate(hosts.items(), 1):
        # Its first host makes all of them, and keeps them as root's; the others get copies.
        mode, owner = ("0600", "root:root") if number == 1 else ("0640", "etcd:root")
        files = {
            f"{KUBESPRAY_SSL}/ca.pem": File(authority.certificate, "0644" if number == 1 else mode)
        }
        for kind in kinds:
            stem = f"{KUBESPRAY_SSL}/{kind}-{host}"
            texts = pairs[f"{kind}-{host}"]
            files[f"{stem}.pem"] = File(texts.certificate, "0644" if number == 1 else mode, owner)
            files[f"{stem}-key.pem"] = File(texts.key, mode, owner)
        if number == 1:
            files[f"{KUBESPRAY_SSL}/ca-key.pem"] = File(authority.key, "0600")
        stem = f"{KUBESPRAY_SSL}/member-{host}"
        settings = {
            "ETCD_DATA_DIR": "/var/lib/etcd",
            "ETCD_ADVERTISE_CLIENT_URLS": f"https://{address}:2379",
            "ETCD_INITIAL_ADVERTISE_PEER_URLS": f"https://{address}:2380",
            "ETCD_INITIAL_CLUSTER_STATE": "new",
            "ETCD_METRICS": "basic",
            "ETCD_LISTEN_METRICS_URLS": f"http://{address}:2381,http://127.0.0.1:2381",
            "ETCD_LISTEN_CLIENT_URLS": f"https://{address}:2379,https://127.0.0.1:2379",
            "ETCD_ELECTION_TIMEOUT": "5000",
            "ETCD_HEARTBEAT_INTERVAL": "250",
            "ETCD_INITIAL_CLUSTER_TOKEN": "k8s_etcd",
            "ETCD_LISTEN_PEER_URLS": f"https://{address}:2380",
            "ETCD_NAME": members[host],
            "ETCD_PROXY": "off",
            "ETCD_INITIAL_CLUSTER": cluster,
            "ETCD_AUTO_COMPACTION_RETENTION": "8",
            "ETCD_SNAPSHOT_COUNT": "10000",
            "ETCD_TRUSTED_CA_FILE": f"{KUBESPRAY_SSL}/ca.pem",
            "ETCD_CERT_FILE": f"{stem}.pem",
            "ETCD_KEY_FILE": f"{stem}-key.pem",
            "ETCD_CLIENT_CERT_AUTH": "true",
            "ETCD_PEER_TRUSTED_CA_FILE": f"{KUBESPRAY_SSL}/ca.pem",
            "ETCD_PEER_CERT_FILE": f"{stem}.pem",
            "ETCD_PEER_KEY_FILE": f"{stem}-key.pem",
            "ETCD_PEER_CLIENT_CERT_AUTH": "True",
        }
        text = "# Environment file for etcd\n" + "".join(f"{k}={v}\n" for k, v in settings.items())
        text += (
            "\n# CLI settings\nETCDCTL_ENDPOINTS=https://127.0.0.1:2379\n"
            f"ETCDCTL_CACERT={KUBESPRAY_SSL}/ca.pem\n"
            f"ETCDCTL_KEY={KUBESPRAY_SSL}/admin-{host}-key.pem\n"
            f"ETCDCTL_CERT={KUBESPRAY_SSL}/admin-{host}.pem\n"
        )
        files["/etc/etcd.env"] = File(text, "0640")
        files[UNIT] = File(
            "[Unit]\nDescription=etcd\nAfter=network.target\n\n[Service]\nType=notify\nUser=root\n"
            f"EnvironmentFile=/etc/etcd.env\nExecStart={program}/etcd\nNotifyAccess=all\n"
            "Restart=always\nRestartSec=10s\nLimitNOFILE=40000\n\n[Install]\n"
            "WantedBy=multi-user.target\n"
        )
        directories = (KUBESPRAY_SSL, "/var/lib/etcd")
        made.hosts[host] = Laid(settings, files, directories, ("etcd",))
    return made


def kubeasz(
    directory: Path,
    hosts: dict[str, str],
    program: str = "/usr/local/bin",
    key: tuple[str, ...] = RSA,
) -> Cluster:
    """Lay out kubeasz's: members etcd-ADDRESS, one pair for all hosts and roles; by flags."""
    place = "/C=CN/ST=HangZhou/L=XS/O=k8s/OU=System"
    authority = make_authority(directory, f"{place}/CN=kubernetes-ca")
    names = ",".join(f"IP:{address}" for address in ("127.0.0.1", *hosts.values()))
    extensions = (
        "basicConstraints=critical,CA:FALSE\n"
        "keyUsage=critical,digitalSignature,keyEncipherment\n"
        f"extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName={names}\n"
    )
    pair = make_pairs(directory, {"etcd": f"{place}/CN=etcd"}, extensions, 18250, key)["etcd"]
    cluster = ",".join(f"etcd-{a}=https://{a}:2380" for a in hosts.values())
    made = Cluster(authority)
    for host, address in hosts.items():
        flags = {
            "name": f"etcd-{address}",
            "cert-file": f"{KUBEASZ_SSL}/etcd.pem",
            "key-file": f"{KUBEASZ_SSL}/etcd-key.pem",
            "peer-cert-file": f"{KUBEASZ_SSL}/etcd.pem",
            "peer-key-file": f"{KUBEASZ_SSL}/etcd-key.pem",
            "trusted-ca-file": f"{KUBEASZ_SSL}/ca.pem",
            "peer-trusted-ca-file": f"{KUBEASZ_SSL}/ca.pem",
            "initial-advertise-peer-urls": f"https://{address}:2380",
            "listen-peer-urls": f"https://{address}:2380",
            "listen-client-urls": f"https://{address}:2379,http://127.0.0.1:2379",
            "advertise-client-urls": f"https://{address}:2379",
            "initial-cluster-token": "etcd-cluster-0",
            "initial-cluster": cluster,
            "initial-cluster-state": "new",
            "data-dir": "/var/lib/etcd",
            "wal-dir": "",
            "snapshot-count": "50000",
            "auto-compaction-retention": "1",
            "auto-compaction-mode": "periodic",
            "max-request-bytes": "10485760",
            "quota-backend-bytes": "8589934592",
        }
        words = " \\\n  ".join([f"{program}/etcd", *(f"--{k}={v}" for k, v in flags.items())])
        unit = (
            "[Unit]\nDescription=Etcd Server\nAfter=network-online.target\n\n[Service]\n"
            f"Type=notify\nWorkingDirectory=/var/lib/etcd\nExecStart={words}\nRestart=always\n"
            "RestartSec=15\nLimitNOFILE=65536\n\n[Install]\nWantedBy=multi-user.target\n"
        )
        made.hosts[host] = Laid(
            {f"ETCD_{k.upper().replace('-', '_')}": v for k, v in flags.items()},
            {
                f"{KUBEASZ_SSL}/ca.pem": File(authority.certificate),
                f"{KUBEASZ_SSL}/etcd.pem": File(pair.certificate),
                f"{KUBEASZ_SSL}/etcd-key.pem": File(pair.key, "0600"),
                UNIT: File(unit),
            },
            (KUBEASZ_SSL, "/var/lib/etcd"),
        )
    return made
