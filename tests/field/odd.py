"""Clusters that nobody's template makes: other units, sources of settings, keys, names, places."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from tasks.model.certificates import AuthorityPolicy
from tasks.pki.authority import create_authority
from tests.field.layouts import UNIT, Cluster, File, Laid
from tests.field.openssl import RSA, Texts, make_authority, make_pairs

ED25519 = ("ed25519",)
P384 = ("ec", "-pkeyopt", "ec_paramgen_curve:P-384")


def _extensions(address: str) -> str:
    return (
        "basicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\n"
        f"subjectAltName=IP:{address},IP:127.0.0.1,DNS:etcd.internal\n"
    )


def instance(directory: Path, hosts: dict[str, str], program: str = "/usr/local/bin") -> Cluster:
    """Lay out etcd@main.service: a template in /usr/lib, a drop-in, a settings file, Ed25519.

    etcd is started in the directory that its data directory begins in.
    """
    authority = make_authority(directory, "/O=Example/CN=Example Infrastructure CA")
    ssl, data = "/etc/pki/etcd-main", "/srv/etcd/main"
    initial = ",".join(f"db-{n}=https://{a}:2380" for n, a in enumerate(hosts.values(), 1))
    made = Cluster(authority, unit="etcd@main")
    for number, (host, address) in enumerate(hosts.items(), 1):
        pair = make_pairs(
            directory, {"tls": f"/O=Example/CN=db-{number}"}, _extensions(address), 400, ED25519
        )["tls"]
        tls = "".join(
            f"{kind}-transport-security:\n  cert-file: {ssl}/tls.crt\n  key-file: {ssl}/tls.key\n"
            f"  trusted-ca-file: {ssl}/trust.crt\n  client-cert-auth: true\n"
            for kind in ("client", "peer")
        )
        settings = (
            f"# {host}\nname: 'db-{number}'\ndata-dir: store\n"
            f"listen-peer-urls: https://{address}:2380\n"
            f"listen-client-urls: https://{address}:2379,https://127.0.0.1:2379\n"
            f"initial-advertise-peer-urls: https://{address}:2380\n"
            f"advertise-client-urls: https://{address}:2379\n"
            f"initial-cluster: {initial}\ninitial-cluster-token: main\n"
            f"initial-cluster-state: new\n{tls}"
        )
        unit = (
            "[Unit]\nDescription=etcd %i\n[Service]\nType=notify\nUser=etcd-main\n"
            "EnvironmentFile=-/etc/default/etcd-%i\n"
            f"ExecStart={program}/etcd --config-file /etc/etcd-%i.yml\nRestart=always\n"
            "[Install]\nWantedBy=multi-user.target\n"
        )
        drop = f"[Service]\nWorkingDirectory={data}\nLimitNOFILE=65536\n"
        owner = "etcd-main:etcd-main"
        made.hosts[host] = Laid(
            {"ETCD_NAME": f"db-{number}", "ETCD_TRUSTED_CA_FILE": f"{ssl}/trust.crt"},
            {
                f"{ssl}/trust.crt": File(authority.certificate),
                f"{ssl}/tls.crt": File(pair.certificate, "0640", owner),
                f"{ssl}/tls.key": File(pair.key, "0400", owner),
                "/etc/etcd-main.yml": File(settings),
                "/usr/lib/systemd/system/etcd@.service": File(unit),
                "/etc/systemd/system/etcd@.service.d/10-place.conf": File(drop),
            },
            (ssl, data, "/etc/systemd/system/etcd@.service.d"),
            ("etcd-main",),
            data=data,
            account="etcd-main",
        )
    return made


def etcd3(directory: Path, hosts: dict[str, str], program: str = "/usr/local/bin") -> Cluster:
    """Lay out etcd3.service: flags over two lines and two optional files, the later wins; P-384.

    The certificates' files hold their keys, too, beside key files of their own; the trusted file
    has an authority that has expired, too. Members are called by names in upper case, words come
    from $DAEMON_ARGS as in Debian's package, the last host has its data on another disk, and peers
    let in only who is named etcd.internal.
    """
    began = datetime.now(UTC) - timedelta(days=9999)
    old = create_authority(AuthorityPolicy(), began).certificate_pem.decode()
    authority = make_authority(directory, "/CN=etcd")
    ssl, data = "/opt/etcd/certs", "/data/etcd3"
    names = {host: f"{host.title()}.Example" for host in hosts}
    initial = ",".join(f"{names[h]}=https://{a}:2380" for h, a in hosts.items())
    made = Cluster(authority, unit="etcd3")
    for host, address in hosts.items():
        pair = make_pairs(
            directory, {"host": f"/CN={names[host]}"}, _extensions(address), 800, P384
        )["host"]
        disk = "/mnt/ssd/etcd3" if host == list(hosts)[-1] else data
        common = (
            "ETCD_HEARTBEAT_INTERVAL=200\nETCD_NAME=overridden\n"
            'DAEMON_ARGS="--max-request-bytes=2000000 --peer-cert-allowed-hostname etcd.internal"\n'
        )
        own = (
            f"# written by hand\nETCD_NAME='{names[host]}'\nETCD_DATA_DIR={disk}\n"
            f'ETCD_INITIAL_CLUSTER="{initial}"\nETCD_INITIAL_CLUSTER_TOKEN=prod\n'
            f"ETCD_INITIAL_ADVERTISE_PEER_URLS=https://{address}:2380\n"
            f"ETCD_ADVERTISE_CLIENT_URLS=https://{address}:2379\n"
            f"ETCD_LISTEN_PEER_URLS=https://0.0.0.0:2380\n"
            f"ETCD_LISTEN_CLIENT_URLS=https://0.0.0.0:2379\n"
            "ETCD_CLIENT_CERT_AUTH=1\nETCD_PEER_CLIENT_CERT_AUTH=T\n"
        )
        flags = " ".join(
            f"--{prefix}{flag} {path}"
            for prefix in ("", "peer-")
            for flag, path in (
                ("trusted-ca-file", f"{ssl}/root.pem"),
                ("cert-file", f"{ssl}/host.pem"),
                ("key-file", f"{ssl}/host-key.pem"),
            )
        )
        unit = (
            "[Service]\nType=notify\nEnvironment=ETCD_NAME=%H DAEMON_ARGS=\n"
            "EnvironmentFile=-/etc/sysconfig/etcd-common\n"
            "EnvironmentFile=-/etc/sysconfig/etcd-absent\nEnvironmentFile=/etc/sysconfig/etcd3\n"
            f"ExecStart={program}/etcd $DAEMON_ARGS \\\n   {flags}\nRestart=on-failure\n"
            "[Install]\nWantedBy=multi-user.target\n"
        )
        made.hosts[host] = Laid(
            {"ETCD_NAME": names[host], "ETCD_TRUSTED_CA_FILE": f"{ssl}/root.pem"},
            {
                f"{ssl}/root.pem": File(old + authority.certificate),
                f"{ssl}/host.pem": File(pair.certificate + pair.key, "0600"),
                f"{ssl}/host-key.pem": File(pair.key, "0600"),
                "/etc/sysconfig/etcd-common": File(common),
                "/etc/sysconfig/etcd3": File(own),
                "/etc/systemd/system/etcd3.service": File(unit),
            },
            (ssl, disk, "/etc/sysconfig"),
            data=disk,
        )
    return made


def profiles(directory: Path, hosts: dict[str, str], program: str = "/usr/local/bin") -> Cluster:
    """Lay out what cfssl's three classic profiles make: server auth, client auth, and both.

    etcd's gateway cannot dial its own etcd with such a server's pair.
    """
    usages = {"server": "serverAuth", "peer": "serverAuth,clientAuth", "client": "clientAuth"}
    return _by_flags(directory, hosts, hosts, program, usages)


def named(directory: Path, hosts: dict[str, str], program: str = "/usr/local/bin") -> Cluster:
    """Lay out members whose URLs have names, which their hosts alone can resolve."""
    usages = dict.fromkeys(("server", "peer", "client"), "serverAuth,clientAuth")
    names = {host: f"{host}.etcd.internal" for host in hosts}
    return _by_flags(directory, hosts, names, program, usages)


def _by_flags(
    directory: Path,
    hosts: dict[str, str],
    told: dict[str, str],
    program: str,
    usages: dict[str, str],
) -> Cluster:
    """Lay out members by flags; `told` is what the URLs have that each tells others."""
    authority = make_authority(directory, "/CN=etcd-ca")
    ssl = "/etc/etcd/ssl"
    initial = ",".join(f"{host}=https://{told[host]}:2380" for host in hosts)
    made = Cluster(authority)
    for host, address in hosts.items():
        texts: dict[str, Texts] = {}
        for stem, usage in usages.items():
            extensions = f"basicConstraints=critical,CA:FALSE\nextendedKeyUsage={usage}\n"
            if stem != "client":
                own = f",DNS:{told[host]}" if told[host] != address else ""
                extensions += f"subjectAltName=DNS:{host},IP:{address},IP:127.0.0.1{own}\n"
            subject = f"/CN={stem if stem == 'client' else host}"
            texts |= make_pairs(directory, {stem: subject}, extensions, 1825, RSA)
        flags = {
            "name": host,
            "data-dir": "/var/lib/etcd",
            "initial-cluster": initial,
            "initial-cluster-state": "new",
            "listen-peer-urls": f"https://{address}:2380",
            "initial-advertise-peer-urls": f"https://{told[host]}:2380",
            "listen-client-urls": f"https://{address}:2379,https://127.0.0.1:2379",
            "advertise-client-urls": f"https://{told[host]}:2379",
            "listen-metrics-urls": f"http://{address}:2381",
            "client-cert-auth": "true",
            "peer-client-cert-auth": "true",
            "trusted-ca-file": f"{ssl}/ca.pem",
            "peer-trusted-ca-file": f"{ssl}/ca.pem",
            "cert-file": f"{ssl}/server.pem",
            "key-file": f"{ssl}/server-key.pem",
            "peer-cert-file": f"{ssl}/peer.pem",
            "peer-key-file": f"{ssl}/peer-key.pem",
        }
        words = " \\\n  ".join([f"{program}/etcd", *(f"--{k}={v}" for k, v in flags.items())])
        unit = (
            f"[Service]\nType=notify\nExecStart={words}\nRestart=always\n"
            "[Install]\nWantedBy=multi-user.target\n"
        )
        files = {f"{ssl}/ca.pem": File(authority.certificate), UNIT: File(unit)}
        for stem, pair in texts.items():
            files[f"{ssl}/{stem}.pem"] = File(pair.certificate)
            files[f"{ssl}/{stem}-key.pem"] = File(pair.key, "0600")
        settings = {f"ETCD_{k.upper().replace('-', '_')}": v for k, v in flags.items()}
        made.hosts[host] = Laid(settings, files, (ssl, "/var/lib/etcd"))
    return made
