"""A stand-in for what else Kubernetes' authority signs for: an API server, and who calls it.

openssl s_server reads the members' trusted file at its start, as a kube-apiserver does its
client-ca-file, and a kubelet's certificate is let in by it, or not.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from shlex import quote
from typing import TYPE_CHECKING

from tests.field.openssl import make_pairs

if TYPE_CHECKING:
    from tests.lab.host import Host

SUBJECTS = {
    "kubernetes": "/C=CN/O=k8s/CN=kubernetes",
    "kubelet": "/C=CN/O=system:nodes/CN=system:node:node1",
}
UNIT_FILE = "/etc/systemd/system/kube-apiserver.service"
UNIT = """\
[Service]
ExecStart=/usr/bin/openssl s_server -accept 6443 -cert {d}/kubernetes.pem \
-key {d}/kubernetes-key.pem -CAfile {d}/ca.pem -Verify 1 -verify_return_error -www -quiet
"""
CLIENTS = """\
- name: {name}-{host}
  host: {host}
  certificate: {directory}/{name}.pem
  key: {directory}/{name}-key.pem
  trusted: {directory}/ca.pem
  after_change: test ! -e {unit} || systemctl restart kube-apiserver
"""


def run_apiservers(directory: Path, hosts: list[Host], ssl: PurePosixPath) -> None:
    """Sign for API server and kubelet, and start one on each host over the files in `ssl`."""
    extensions = (
        "basicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\n"
        "subjectAltName=IP:127.0.0.1,DNS:kubernetes.default\n"
    )
    pairs = make_pairs(directory, SUBJECTS, extensions, 18250)
    for host in hosts:
        for stem, pair in pairs.items():
            for name, text in ((f"{stem}.pem", pair.certificate), (f"{stem}-key.pem", pair.key)):
                host.run(f"printf %s {quote(text)} > {ssl / name}").check()
        host.run(f"printf %s {quote(UNIT.format(d=ssl))} > {UNIT_FILE}").check()
        host.run("systemctl daemon-reload; systemctl start kube-apiserver").check()


def is_let_in(host: Host, ssl: PurePosixPath) -> bool:
    """Whether the API server of a host lets a kubelet in that has this host's files."""
    asked = host.run(
        "echo | openssl s_client -connect 127.0.0.1:6443 "
        f"-cert {ssl}/kubelet.pem -key {ssl}/kubelet-key.pem -CAfile {ssl}/ca.pem "
        "-verify_return_error -ign_eof 2>&1 <<< 'GET / HTTP/1.0\n'"
    )
    return "HTTP/1.0 200" in asked.stdout


def declare(hosts: list[str], ssl: PurePosixPath) -> str:
    """Name these users in an inventory's `clients`."""
    return "".join(
        CLIENTS.format(name=name, host=host, directory=ssl, unit=UNIT_FILE)
        for host in hosts
        for name in SUBJECTS
    )
