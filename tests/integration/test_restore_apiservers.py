"""API servers outside of a cluster that is restored: stopped before its members, started after.

A stand-in runs them as a kubelet runs a static pod: as long as the manifest is in its directory.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasks.engine.journal import read_journal
from tasks.model.record import Event
from tests.integration.members import Scene, raise_cluster
from tests.integration.runbooks import Ended, Prefect, etcdctl, finish, run_runbook, start_runbook

if TYPE_CHECKING:
    from tests.lab.fixtures import StartLab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.chaos, pytest.mark.timeout(900)]

MANIFEST = "/etc/kubernetes/manifests/kube-apiserver.yaml"
KUBELET = f"""
set -e
mkdir -p {MANIFEST.rpartition("/")[0]} /opt
cat > /opt/server.py <<'END'
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("", 6443), Handler).serve_forever()
END
cat > /opt/kubelet <<'END'
while sleep 0.2; do
  if [ ! -e {MANIFEST} ]; then [ -z "$pid" ] || {{ kill $pid; wait $pid; }}; pid=; continue; fi
  [ -n "$pid" ] || {{ (exec -a kube-apiserver python3 /opt/server.py) & pid=$!; }}
done
END
cat > /etc/systemd/system/kubelet.service <<'END'
[Service]
ExecStart=/bin/bash /opt/kubelet
END
echo 'kind: Pod' > {MANIFEST}
systemctl daemon-reload
systemctl start kubelet
"""
DECLARED = """
kube_apiservers:
  - {{name: api01, host: master01, livez: "http://127.0.0.1:6443/livez"}}
  - {{name: api02, address: {address}, livez: "http://127.0.0.1:6443/livez"}}
"""
APISERVERS = {"api01": "master01", "api02": "master04"}


@pytest.fixture
def scene(start_lab: StartLab, prefect: Prefect, tmp_path: Path) -> Scene:
    """Three members, of which one has an API server beside it, and a host with another one."""
    scene = raise_cluster(start_lab, prefect, tmp_path)
    for name in APISERVERS.values():
        scene.lab[name].run(KUBELET).check()
    declared = DECLARED.format(address=scene.lab["master04"].address)
    scene.inventory.write_text(scene.inventory.read_text() + declared)
    etcdctl(scene.lab, "put", "key", "kept")
    ended = run_runbook(prefect, "take_snapshot", scene.inventory, named="--clusters")
    assert ended.status == 0, ended.output
    return scene


def restore(prefect: Prefect, scene: Scene, *options: str) -> Ended:
    """Restore the newest snapshot."""
    words = ("--consent", scene.lab.name, "--again", *options)
    return run_runbook(prefect, "restore_cluster", scene.inventory, *words)


def order(prefect: Prefect, step: str) -> list[int]:
    """List at which lines of the last journal steps of this kind ended."""
    records = read_journal(prefect.journals[-1])
    return [
        number
        for number, record in enumerate(records)
        if record.event is Event.STEP_FINISHED and str(record.details["step"]).startswith(step)
    ]


def is_live(scene: Scene, api: str) -> bool:
    """Ask an API server on its own machine."""
    host = scene.lab[APISERVERS[api]]
    return host.run("curl -fsS http://127.0.0.1:6443/livez").status == 0


def test_api_servers_outside_are_away_while_a_cluster_is_restored(
    scene: Scene, prefect: Prefect
) -> None:
    """Both are stopped before the first member and started when all serve; then one is silent."""
    ended = restore(prefect, scene)
    assert ended.status == 0, ended.output
    stopped, members = order(prefect, "stop the API server"), order(prefect, "stop the member")
    started, served = order(prefect, "start the API server"), order(prefect, "verify the cluster")
    assert (len(stopped), len(started)) == (2, 2)
    assert max(stopped) < min(members)
    assert min(started) > min(served)
    assert all(is_live(scene, api) for api in APISERVERS)
    scene.lab["master04"].power_cut()
    refused = restore(prefect, scene)
    assert refused.status == 2, refused.output
    assert "api02: " in refused.stderr
    assert f"mv {MANIFEST}" in refused.stderr
    assert is_live(scene, "api01")
    ended = restore(prefect, scene, "--accept", "stopped-apiservers")
    assert ended.status == 0, ended.output
    assert "api02 by you: stop them before" in ended.output.replace("\n", " ")
    assert is_live(scene, "api01")


def test_a_killed_restore_forgets_no_api_server(scene: Scene, prefect: Prefect) -> None:
    """Killed while they are away, and when some are back: the next run starts them."""
    for point in (
        f"{Event.STEP_FINISHED}|stop the API server on api02",
        f"{Event.STEP_FINISHED}|put what is ready in place on master01",
        f"{Event.STEP_STARTED}|start the API server on api02",
        f"{Event.STEP_STARTED}|mark the restore as done on master01",
    ):
        killer = ("-m", "tests.integration.killed_run", point)
        words = ("--consent", scene.lab.name, "--again")
        killed = finish(
            start_runbook(prefect, "restore_cluster", scene.inventory, *words, launcher=killer)
        )
        assert killed.status == -9, (point, killed.output)
        ended = run_runbook(
            prefect, "restore_cluster", scene.inventory, "--consent", scene.lab.name
        )
        assert ended.status == 0, (point, ended.output)
        assert all(is_live(scene, api) for api in APISERVERS), point
        assert etcdctl(scene.lab, "get", "key", "--print-value-only").strip() == "kept"
