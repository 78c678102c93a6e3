"""Clusters set up by hand: the same etcd, written down in each way that packages offer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.field.layouts import Cluster, File, Laid
from tests.field.openssl import RSA, make_authority, make_pairs

SSL = "/etc/etcd/pki"
UNITS = "/usr/lib/systemd/system/etcd.service"
COREOS = """\
[Service]
Type=notify
User=etcd
Environment=ETCD_NAME=%m
Environment=ETCD_DATA_DIR=/var/lib/etcd
ExecStart=/usr/bin/etcd
"""
DEBIAN = """\
[Service]
Environment=DAEMON_ARGS=
Environment=ETCD_NAME=%H
Environment=ETCD_DATA_DIR=/var/lib/etcd/default
EnvironmentFile=-/etc/default/%p
Type=notify
User=etcd
ExecStart=/usr/bin/etcd $DAEMON_ARGS
"""
RHEL = """\
[Service]
Type=notify
WorkingDirectory=/var/lib/etcd/
EnvironmentFile=-/etc/etcd/etcd.conf
User=etcd
ExecStart=/bin/bash -c "GOMAXPROCS=$(nproc) exec /usr/bin/etcd"
"""
YAML = """\
[Service]
Type=notify
Environment="ETCD_CONFIG_FILE=/etc/etcd/etcd.yaml" ETCD_UNSUPPORTED_ARCH=arm64
ExecStart=/usr/bin/etcd
"""
TLS = {
    "trusted-ca-file": f"{SSL}/ca.crt",
    "cert-file": f"{SSL}/server.crt",
    "key-file": f"{SSL}/server.key",
    "client-cert-auth": "yes",
}


def _variables(settings: dict[str, str]) -> dict[str, str]:
    return {f"ETCD_{name.upper().replace('-', '_')}": value for name, value in settings.items()}


def _coreos(settings: dict[str, str]) -> dict[str, str]:
    """Write all in a drop-in; the unit's own name is the machine's id, which nobody knows here."""
    lines = [f'Environment="{k}={v}"\n' for k, v in _variables(settings).items()]
    drop = "[Service]\n" + "".join(lines)
    return {UNITS: COREOS, "/etc/systemd/system/etcd.service.d/10-etcd.conf": drop}


def _debian(settings: dict[str, str]) -> dict[str, str]:
    """Write Debian's package: words in $DAEMON_ARGS over two lines, variables in quotes."""
    words = " ".join(f"--{name}={value}" for name, value in settings.items() if "-file" in name)
    lines = [f"{k}='{v}'\n" for k, v in _variables(settings).items() if not k.endswith("_FILE")]
    text = f'{"".join(lines)}DAEMON_ARGS="{words} \\\n  --wal-dir /srv/wal/etcd"\n'
    return {"/lib/systemd/system/etcd.service": DEBIAN, "/etc/default/etcd": text}


def _rhel(settings: dict[str, str]) -> dict[str, str]:
    """Write Red Hat's package: a shell that sets a variable of its own, and a file."""
    lines = [f'{k}="{v}"\n' for k, v in _variables(settings).items()]
    return {UNITS: RHEL, "/etc/etcd/etcd.conf": "#[Member]\n" + "".join(lines)}


def _yaml(settings: dict[str, str]) -> dict[str, str]:
    """Write a file that a variable names; one kind of TLS in a line, the other in a block."""
    plain = {n: v for n, v in settings.items() if "-file" not in n and "cert-auth" not in n}
    lines = [f'{name}: "{value}"\n' for name, value in plain.items()]
    line = ", ".join(f"{name}: {value}" for name, value in TLS.items())
    block = "".join(f"  {name}: {value}\n" for name, value in TLS.items())
    tls = f"client-transport-security: {{{line}}}\npeer-transport-security:\n{block}"
    return {UNITS: YAML, "/etc/etcd/etcd.yaml": "".join(lines) + f"wal-dir:\n{tls}"}


WAYS: dict[str, Callable[[dict[str, str]], dict[str, str]]] = {
    "coreos": _coreos,
    "debian": _debian,
    "rhel": _rhel,
    "yaml": _yaml,
}


def by_hand(way: str, directory: Path, hosts: dict[str, str]) -> Cluster:
    """Lay a cluster out in one of the ways."""
    authority = make_authority(directory, "/CN=etcd-ca")
    initial = ",".join(f"etcd{n}=https://{a}:2380" for n, a in enumerate(hosts.values(), 1))
    made = Cluster(authority)
    for number, (host, address) in enumerate(hosts.items(), 1):
        extensions = (
            "basicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\n"
            f"subjectAltName=DNS:{host},IP:{address}\n"
        )
        pair = make_pairs(directory, {"server": f"/CN={host}"}, extensions, 900, RSA)["server"]
        settings = {
            "name": f"etcd{number}",
            "initial-cluster": initial,
            "initial-cluster-state": "existing",
            "initial-advertise-peer-urls": f"https://{address}:2380",
            "advertise-client-urls": f"https://{address}:2379",
            "listen-peer-urls": f"https://{address}:2380",
            "listen-client-urls": f"https://{address}:2379,https://localhost:2379",
            **({"data-dir": f"/var/lib/etcd/{host}"} if way in {"yaml", "rhel"} else {}),
            **TLS,
            **{f"peer-{name}": value for name, value in TLS.items()},
        }
        files = {path: File(text) for path, text in WAYS[way](settings).items()}
        files |= {
            TLS["trusted-ca-file"]: File(authority.certificate),
            TLS["cert-file"]: File(pair.certificate),
            TLS["key-file"]: File(pair.key, "0600"),
        }
        made.hosts[host] = Laid({}, files, (SSL,))
    return made
