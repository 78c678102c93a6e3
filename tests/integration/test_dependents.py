"""What else lists the members follows them: a kube-apiserver, HAProxy, and another load balancer.

The kube-apiserver is a stand-in that is run as the kubelet runs a static pod: a path unit watches
the manifest's directory, and whatever file lies there is started anew. HAProxy is real.
"""

from __future__ import annotations

import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.members import Scene, check_cluster, raise_cluster, replace
from tests.integration.runbooks import HANG_SECONDS, Prefect, run_runbook

if TYPE_CHECKING:
    from tests.lab.fixtures import StartLab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

MANIFESTS = "/etc/kubernetes/manifests"
MANIFEST = """\
apiVersion: v1
kind: Pod
metadata: {{name: kube-apiserver}}
spec:
  containers:
  - command:
    - kube-apiserver
    - --etcd-servers={urls}
    name: kube-apiserver  # ours
"""
SERVER = """
import http.server, socket, sys
urls = sys.argv[1].partition("=")[2].split(",")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        for url in urls:
            host, _, port = url.removeprefix("https://").rpartition(":")
            try:
                socket.create_connection((host, int(port)), 1).close()
                return self.send_response(200) or self.end_headers()
            except OSError:
                continue
        self.send_response(500)
        self.end_headers()
http.server.HTTPServer(("", 6443), Handler).serve_forever()
"""
KUBELET = """
set -e
mkdir -p {manifests} /opt
cat > /opt/server.py <<'END'
{server}
END
cat > /etc/systemd/system/pods.service <<'END'
[Service]
ExecStart=/bin/bash -c 'sleep 2; exec -a kube-apiserver python3 /opt/server.py \
  $(sed -n "s/^ *- \\\\(--etcd-servers=.*\\\\)/\\\\1/p" $(find {manifests} -type f ! -name ".*"))'
END
cat > /etc/systemd/system/pods-again.service <<'END'
[Service]
Type=oneshot
ExecStart=/bin/systemctl restart pods.service
END
cat > /etc/systemd/system/pods-again.path <<'END'
[Path]
PathChanged={manifests}
END
cat > {manifests}/kube-apiserver.yaml <<'END'
{manifest}
END
systemctl daemon-reload
systemctl start pods.service pods-again.path
"""
HAPROXY = """\
defaults
    mode tcp
    timeout connect 1s
    timeout client 1m
    timeout server 1m
frontend etcd
    bind :12379
    default_backend members
backend members
{servers}
frontend stats
    mode http
    bind :8404
    stats enable
    stats uri /stats
"""
DECLARED = """
kube_apiservers:
  - {{name: apiserver01, host: master01, livez: "http://127.0.0.1:6443/livez"}}
load_balancers:
  - {{name: balancer01, address: {balancer}, haproxy: {{backend: members}}}}
  - {{name: dns01, host: master01, hook: 'echo "$ETCD_ENDPOINTS" >> /var/log/hook'}}
"""


@pytest.fixture
def scene(start_lab: StartLab, prefect: Prefect, tmp_path: Path) -> Scene:
    """Three members, one spare host, and a machine with HAProxy on it."""
    scene = raise_cluster(start_lab, prefect, tmp_path, spare=2)
    lab = scene.lab
    urls = [f"https://{lab[name].address}:2379" for name in scene.members]
    manifest = MANIFEST.format(urls=",".join(urls)).rstrip()
    script = KUBELET.format(server=SERVER, manifests=MANIFESTS, manifest=manifest)
    lab["master01"].run(script).check()
    servers = "\n".join(
        f"    server {name} {lab[name].address}:2379 check" for name in scene.members
    )
    configuration = lab["master05"].root / "etc/haproxy/haproxy.cfg"
    configuration.parent.mkdir(parents=True, exist_ok=True)
    configuration.write_text(HAPROXY.format(servers=servers))
    lab["master05"].run("systemctl restart haproxy").check()
    declared = DECLARED.format(balancer=lab["master05"].address)
    scene.inventory.write_text(scene.inventory.read_text() + declared)
    return scene


def test_all_that_list_the_members_follow_a_replacement(scene: Scene, prefect: Prefect) -> None:
    """The manifest's old version lies outside its directory; both load balancers know the new."""
    lab = scene.lab
    lab["master03"].power_cut()
    ended = replace(prefect, scene, "master03", "master04")
    assert ended.status == 0, ended.output
    check_cluster(prefect, scene, ["master01", "master02", "master04"])
    manifests = lab["master01"].root / MANIFESTS.removeprefix("/")
    assert [path.name for path in manifests.iterdir()] == ["kube-apiserver.yaml"]
    text = (manifests / "kube-apiserver.yaml").read_text()
    goal = ",".join(f"https://{lab[f'master0{n}'].address}:2379" for n in (1, 2, 4))
    assert f"--etcd-servers={goal}\n" in text
    assert "name: kube-apiserver  # ours" in text
    kept = lab["master01"].root / "var/backups/etcd-runbooks"
    assert any(kept.glob(f"*{MANIFESTS}/kube-apiserver.yaml"))
    running = lab["master01"].run("tr '\\0' '\\n' < /proc/$(pgrep -of kube-apiserver)/cmdline")
    assert f"--etcd-servers={goal}" in running.check().stdout
    page = f"http://{lab['master05'].address}:8404/stats;csv"
    deadline = time.monotonic() + HANG_SECONDS
    while True:
        with urllib.request.urlopen(page, timeout=5) as answer:
            rows = [line.split(",") for line in answer.read().decode().splitlines()]
        up = {row[1] for row in rows if row[0] == "members" and row[17].startswith("UP")}
        if up == {"master01", "master02", "master04", "BACKEND"}:
            break
        assert time.monotonic() < deadline, rows
        time.sleep(0.3)
    assert (lab["master01"].root / "var/log/hook").read_text() == f"{goal}\n"
    again = replace(prefect, scene, "master03", "master04")
    assert again.status == 0, again.output
    assert "nothing to do" in again.output


@pytest.mark.chaos
def test_a_list_that_cannot_be_read_stops_the_plan_unless_it_is_skipped(
    scene: Scene, prefect: Prefect
) -> None:
    """Refused before anything is changed, with the word that leaves it out."""
    lab = scene.lab
    lab["master03"].power_cut()
    (lab["master01"].root / f"{MANIFESTS.removeprefix('/')}/kube-apiserver.yaml").unlink()
    lab["master05"].power_cut()
    refused = replace(prefect, scene, "master03", "master04")
    assert refused.status == 2, refused.output
    assert "leave it to be done by hand with skip: kube_apiservers" in refused.output
    assert "skip: load_balancers" in refused.output
    assert not (lab["master04"].root / "etc/etcd").exists()
    words = ("--skip", "kube_apiservers", "--skip", "load_balancers")
    ended = replace(prefect, scene, "master03", "master04", *words)
    assert ended.status == 0, ended.output


@pytest.mark.chaos
def test_a_configuration_that_haproxy_refuses_is_not_loaded(scene: Scene, prefect: Prefect) -> None:
    """The members are changed by then; the next run goes on with what is left."""
    lab = scene.lab
    path = lab["master05"].root / "etc/haproxy/haproxy.cfg"
    broken = path.read_text() + "backend wrong\n    no-such-word\n"
    path.write_text(broken)
    lab["master03"].power_cut()
    ended = replace(prefect, scene, "master03", "master04")
    assert ended.status == 1, ended.output
    assert "haproxy -c refused the file" in ended.output
    assert path.read_text() == broken
    path.write_text(broken.partition("backend wrong")[0])
    words = ("--member", "master03", "--replacement", scene.address("master04"))
    ended = run_runbook(prefect, "replace_member", scene.inventory, *words)
    assert ended.status == 0, ended.output
    assert "master04" in path.read_text()
