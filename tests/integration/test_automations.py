"""The automations on a real server: a run that died is told from all that only look like it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
import time
import urllib.error
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope
from prefect.client.orchestration import PrefectClient
from ruamel.yaml import YAML

from tasks.engine.automations import apply, read_desired
from tests.integration.runbooks import HANG_SECONDS, ROOT, Prefect, prefect_server, run_runbook
from tests.integration.servers import free_port
from tests.integration.teams import copy_checkout, deploy, kill_all, worker

pytestmark = [pytest.mark.lab, pytest.mark.timeout(200)]

CRASH = "etcd-runbooks-crash-runs-without-heartbeat"
WINDOW_SECONDS = 10
"""The shortest that Prefect takes."""
SLOW = """
import asyncio
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from tasks.engine.frame import runbook

class Answer(RunInput):
    approve: bool

@runbook(flow_run_name="slow")
async def slow(seconds: int, approval: bool = False) -> None:
    if approval:
        await suspend_flow_run(wait_for_input=Answer, timeout=3600, key="approval")
    await asyncio.sleep(seconds)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    """Start a server that looks at its automations each second."""
    with prefect_server(
        tmp_path_factory.mktemp("home"),
        PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY="PT1S",
        PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED="true",
    ) as prefect:
        yield prefect


def run_command(prefect: Prefect, *words: str) -> subprocess.CompletedProcess[str]:
    """Apply the automations as README says."""
    return subprocess.run(
        [sys.executable, "-m", "tasks.engine.automations", *words],
        cwd=ROOT,
        env=prefect.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_applied_twice_there_is_one_of_each_and_the_operators_action_stays(
    server: Prefect,
) -> None:
    """Doubles that an older version left are deleted; what somebody has set is kept."""
    for _ in range(2):
        ended = run_command(server)
        assert ended.returncode == 0, ended.stderr
    names = [one.name for one in read_desired()]
    found = server.ask("/automations/filter", {})
    assert sorted(one["name"] for one in found) == sorted(names)
    tells = next(one for one in found if one["name"] == "etcd-runbooks-tell-critical-certificates")
    double = {key: tells[key] for key in ("name", "description", "enabled", "trigger")}
    action = {"type": "change-flow-run-state", "state": "FAILED", "message": "ours"}
    server.ask("/automations/", {**double, "actions": [action]})
    ended = run_command(server)
    assert "1 doubles deleted" in ended.stdout
    assert len(server.ask("/automations/filter", {})) == len(names)


def test_without_a_server_the_automations_are_refused_in_a_sentence(tmp_path: Path) -> None:
    """Neither a traceback nor a change."""
    for api in (None, "http://127.0.0.1:9/api"):
        ended = run_command(Prefect(tmp_path, api))
        assert ended.returncode == 1
        assert ended.stderr.startswith("refused: ")
        assert "Traceback" not in ended.stderr


def beat(run: str, tag: str) -> dict[str, Any]:
    """Make a heartbeat as Prefect's engine sends it."""
    return {
        "id": str(uuid.uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": "prefect.flow-run.heartbeat",
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
        "related": [{"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"}],
        "payload": {},
    }


async def apply_scaled(prefect: Prefect) -> None:
    """Apply the automation with a window of seconds."""
    desired = next(one for one in read_desired() if one.name == CRASH)
    within = timedelta(seconds=WINDOW_SECONDS)
    trigger = desired.trigger.model_copy(update={"within": within})
    async with PrefectClient(str(prefect.api)) as client:
        await apply(client, desired.model_copy(update={"trigger": trigger}))


def test_only_a_run_of_ours_that_fell_silent_is_marked_as_crashed(server: Prefect) -> None:
    """Not one that beats, waits for a person, was refused, or is another team's."""
    asyncio.run(apply_scaled(server))
    flow = server.ask("/flows/", {"name": "anything"})["id"]
    names = ("beats", "silent", "suspended", "paused", "refused", "foreign")
    tags = {name: "other-team" if name == "foreign" else "etcd-runbooks" for name in names}
    states = {
        "suspended": {"type": "PAUSED", "name": "Suspended"},
        "paused": {"type": "PAUSED", "name": "Paused"},
        "refused": {"type": "FAILED", "name": "Refused"},
    }
    running = {"type": "RUNNING", "name": "Running"}
    runs = {}
    for name in names:
        body = {"flow_id": flow, "tags": [tags[name]], "state": running}
        runs[name] = server.ask("/flow_runs/", body)["id"]
    for _ in range(4):  # the server takes a moment to hear of its new automation
        server.ask("/events", [beat(run, tags[name]) for name, run in runs.items()])
        time.sleep(WINDOW_SECONDS / 3)
    server.ask("/events", [beat(run, tags[name]) for name, run in runs.items()])
    for name, state in states.items():
        pause = {"pause_timeout": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
        details = {"state_details": pause} if state["type"] == "PAUSED" else {}
        body = {"state": {**state, **details}, "force": True}
        server.ask(f"/flow_runs/{runs[name]}/set_state", body)
    deadline = time.monotonic() + HANG_SECONDS
    while time.monotonic() < deadline:
        server.ask("/events", [beat(runs["beats"], tags["beats"])])
        if server.get(f"/flow_runs/{runs['silent']}")["state"]["name"] == "Crashed":
            deadline = min(deadline, time.monotonic() + WINDOW_SECONDS)
        time.sleep(WINDOW_SECONDS / 3)
    found = {name: server.get(f"/flow_runs/{run}")["state"]["name"] for name, run in runs.items()}
    assert found == {
        "beats": "Running",
        "silent": "Crashed",
        "suspended": "Suspended",
        "paused": "Paused",
        "refused": "Refused",
        "foreign": "Running",
    }


UNREACHED = """
name: {name}
hosts:
  - {{name: m1, address: 127.0.0.9}}
ssh: {{user: nobody, port: 9, key: key, known_hosts: known, connect_timeout_seconds: 1}}
etcd: {{version: 3.6.16, binaries: {{source: installed}}}}
authority: {{certificate: ca.pem, key: ca-key.pem, passphrase: {{env: NONE}}}}
snapshots: {{store: {store}, proven_within_hours: {hours}}}
"""


def test_a_stale_snapshot_fires_its_automation_and_one_that_may_be_old_does_not(
    server: Prefect, tmp_path: Path
) -> None:
    """The event is sent by a check of health, though no host answers it."""
    assert run_command(server).returncode == 0
    time.sleep(2)  # the server takes a moment to hear of its new automation
    for name, hours in (("quiet", "null"), ("told", "24")):
        inventory = tmp_path / f"{name}.yaml"
        inventory.write_text(UNREACHED.format(name=name, store=tmp_path / "store", hours=hours))
        ended = run_runbook(server, "check_health", inventory)
        assert f"there is no snapshot in {tmp_path / 'store' / name}" in ended.output
    fired = triggered("etcd-runbooks-tell-stale-snapshots")
    deadline = time.monotonic() + HANG_SECONDS
    while not (found := server.ask("/events/filter", fired)["events"]):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    (one,) = found
    sent = {"filter": {"event": {"name": ["etcd.snapshot.stale"]}}}
    (event,) = server.ask("/events/filter", sent)["events"]
    assert event["payload"]["cluster"] == "told"
    assert one["payload"]["triggering_event"]["id"] == event["id"]


def triggered(automation: str) -> dict[str, Any]:
    """Ask for the events that tell that an automation fired."""
    return {
        "filter": {
            "event": {"name": ["prefect.automation.triggered"]},
            "any_resource": {"labels": {"prefect.resource.name": [automation]}},
        }
    }


@contextlib.contextmanager
def webhook(received: list[dict[str, str]]) -> Iterator[str]:
    """Receive messages on loopback for as long as the block; gives the URL."""

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as receiver:
        thread = threading.Thread(target=receiver.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{receiver.server_port}/"
        finally:
            receiver.shutdown()
            thread.join()


def test_people_are_told_of_a_check_once_and_of_its_run(server: Prefect, tmp_path: Path) -> None:
    """By a webhook; two hosts that are not reached are one message, and so is the failed run."""
    received: list[dict[str, str]] = []
    inventory = tmp_path / "two.yaml"
    text = UNREACHED.format(name="two", store=tmp_path, hours="null")
    m1 = "  - {name: m1, address: 127.0.0.9}\n"
    others = "".join(f"  - {{name: m{n}, address: 127.0.0.{n}}}\n" for n in (10, 11))
    inventory.write_text(text.replace(m1, m1 + others))
    with webhook(received) as url:
        kind = server.get("/block_types/slug/custom-webhook")["id"]
        schemas = {"block_schemas": {"block_type_id": {"any_": [kind]}}}
        content = {
            "name": "ops",
            "block_type_id": kind,
            "block_schema_id": server.ask("/block_schemas/filter", schemas)[0]["id"],
            "data": {"name": "ops", "url": url, "json_data": {"text": "{{subject}}: {{body}}"}},
        }
        server.ask("/block_documents/", content)
        ended = run_command(server, "--notify", "custom-webhook/none")
        assert "there is no block custom-webhook/none" in ended.stderr
        ended = run_command(server, "--notify", "custom-webhook/ops")
        assert ended.returncode == 0, ended.stderr
        time.sleep(2)
        checked = run_runbook(server, "check_certificates", inventory, named="--clusters")
        assert checked.status == 1, checked.output
        deadline = time.monotonic() + HANG_SECONDS
        while len(received) < 2:
            assert time.monotonic() < deadline, received
            time.sleep(0.5)
        time.sleep(2)
    told = sorted(one["text"] for one in received)
    assert len(told) == 2, told
    assert told[0].startswith("etcd runbooks: check certificates of two: CheckFailed: 3 critical")
    assert told[1].startswith("etcd: critical certificates of two: two: m1: ")
    assert "two: m11: " in told[1]


def test_people_are_told_by_e_mail(server: Prefect, tmp_path: Path) -> None:
    """Through Prefect's own block, made of a URL that no argument and no list of blocks shows."""
    received: list[Envelope] = []

    class Mailbox:
        async def handle_DATA(self, _server: object, _session: object, mail: Envelope) -> str:  # noqa: N802
            received.append(mail)
            return "250 OK"

    text = UNREACHED.format(name="mailed", store=tmp_path, hours="null")
    (inventory := tmp_path / "mailed.yaml").write_text(text)
    mailbox = Controller(Mailbox(), hostname="127.0.0.1", port=free_port())
    mailbox.start()
    try:
        addresses = "from=etcd@example.org&to=oncall@example.org,second@example.org&format=text"
        (url := tmp_path / "url").write_text(f"mailto://127.0.0.1:{mailbox.port}?{addresses}\n")
        notify = ("--notify", "slack-webhook/mail", "--url-file", str(url))
        url.chmod(0o644)
        assert "chmod 600" in run_command(server, *notify).stderr
        url.chmod(0o600)
        ended = run_command(server, *notify)
        assert ended.returncode == 0, ended.stderr
        found = server.ask("/block_documents/filter", {})
        assert not [one for one in found if "mailto" in json.dumps(one)]
        time.sleep(2)  # the server takes a moment to hear of its new actions
        assert run_runbook(server, "check_certificates", inventory, named="--clusters").status == 1
        deadline = time.monotonic() + HANG_SECONDS
        while len(received) < 4:
            assert time.monotonic() < deadline, received
            time.sleep(0.5)
    finally:
        mailbox.stop()
    told = [message_from_bytes(mail.original_content or b"", policy=default) for mail in received]
    assert {mail.mail_from for mail in received} == {"etcd@example.org"}
    assert sorted({one["Subject"] for one in told}) == [
        "etcd runbooks: check certificates of mailed: CheckFailed",
        "etcd: critical certificates of mailed",
    ]
    assert any("m1: " in one.get_content() for one in told)


def test_a_day_without_a_check_is_told(server: Prefect) -> None:
    """And one in which there was one is not; a day is the shortest that Prefect takes."""
    desired = next(one for one in read_desired() if one.name == "etcd-runbooks-tell-no-check")
    within = timedelta(seconds=WINDOW_SECONDS)
    trigger = desired.trigger.model_copy(update={"within": within})

    async def put() -> None:
        async with PrefectClient(str(server.api)) as client:
            await apply(client, desired.model_copy(update={"trigger": trigger}))

    fired = triggered(desired.name)

    def count() -> int:
        return len(server.ask("/events/filter", fired)["events"])

    flow = server.ask("/flows/", {"name": "check_certificates"})["id"]
    asyncio.run(put())
    for _ in range(5):
        body = {"flow_id": flow, "state": {"type": "COMPLETED", "name": "Completed"}}
        server.ask("/flow_runs/", body)
        time.sleep(WINDOW_SECONDS / 3)
    assert count() == 0
    deadline = time.monotonic() + HANG_SECONDS
    while not count():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_a_fleet_that_nobody_can_reach_is_told_by_line_and_its_run_by_its_tags(
    server: Prefect, tmp_path: Path
) -> None:
    """An inventory that is broken keeps no other from being looked at."""
    store = tmp_path / "store"
    for name in ("one", "two"):
        text = UNREACHED.format(name=name, store=store, hours="24")
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "broken.yaml").write_text("name: [")
    paths = [str(tmp_path / f"{name}.yaml") for name in ("one", "broken", "two")]
    words = ("--clusters", paths[1], "--clusters", paths[2])
    ended = run_runbook(server, "check_fleet", Path(paths[0]), *words, named="--clusters")
    assert ended.status == 1
    assert "3 clusters: 3 with problems" in ended.output
    assert "broken.yaml" in ended.output
    by_tags = {"flow_runs": {"tags": {"all_": ["check_fleet", "read-only", "cluster:two"]}}}
    (run,) = server.ask("/flow_runs/filter", by_tags)
    assert {"etcd-runbooks", "cluster:one"} < set(run["tags"])
    assert any(tag.startswith("by:") and "@" in tag for tag in run["tags"])


def test_a_new_inventory_is_a_choice_of_every_form(server: Prefect, tmp_path: Path) -> None:
    """And what is no choice is refused by the API, as a change without its reason is."""
    checkout = copy_checkout(tmp_path / "checkout")
    deploy(server, "--name", "move_leader", checkout=checkout)
    path = "/deployments/name/move_leader/move_leader"
    start = f"/deployments/{server.get(path)['id']}/create_flow_run"
    text = UNREACHED.format(name="main", store=tmp_path, hours="null")
    (checkout / "deployments" / "clusters" / "main.yaml").write_text(text)
    (checkout / "deployments" / "clusters" / "broken.yaml").write_text("name: [")
    for said in ("move_leader: brought up to date", "move_leader: up to date"):
        ended = subprocess.run(
            [sys.executable, "-m", "tasks.engine.forms"],
            cwd=checkout,
            env=server.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        assert said in ended.stdout
        assert "broken.yaml" in ended.stdout
    fields = server.get(path)["parameter_openapi_schema"]["properties"]
    assert fields["cluster"]["enum"] == ["broken", "main"]
    for parameters in ({"cluster": "main"}, {"cluster": "none", "reason": "x"}):
        with pytest.raises(urllib.error.HTTPError, match=r"409|422"):
            server.ask(start, {"parameters": parameters})
    assert server.ask(start, {"parameters": {"cluster": "main", "reason": "x"}})["id"]


def wait_for(prefect: Prefect, run: str, states: set[str], seconds: float) -> float:
    """Wait until a run's state has one of the names; returns the seconds that it took."""
    began = time.monotonic()
    while (name := prefect.get(f"/flow_runs/{run}")["state"]["name"]) not in states:
        assert time.monotonic() - began < seconds, name
        time.sleep(1)
    return time.monotonic() - began


def deploy_slow(prefect: Prefect, directory: Path) -> Path:
    """Deploy a flow of our frame that waits as long as one wants; returns its checkout."""
    checkout = copy_checkout(directory / "checkout")
    (checkout / "flows" / "slow.py").write_text(SLOW)
    yaml = YAML()
    content = yaml.load(checkout / "prefect.yaml")
    first = content["deployments"][0]
    slow = {"name": "slow", "entrypoint": "flows/slow.py:slow"}
    content["deployments"] = [slow | {key: first[key] for key in ("tags", "work_pool")}]
    yaml.dump(content, checkout / "prefect.yaml")
    deploy(prefect, "--all", checkout=checkout)
    return checkout


def start(prefect: Prefect, **parameters: int) -> str:
    """Start a run of that flow, for a worker; returns its id."""
    deployment = prefect.get("/deployments/name/slow/slow")["id"]
    body = {"parameters": parameters}
    run = prefect.ask(f"/deployments/{deployment}/create_flow_run", body)["id"]
    assert isinstance(run, str)
    return run


@pytest.mark.chaos
def test_a_heartbeat_after_the_suspension_does_not_make_a_run_crashed(
    server: Prefect, tmp_path: Path
) -> None:
    """Prefect's engine sends them until the process has ended; no other follows."""
    asyncio.run(apply_scaled(server))
    checkout = deploy_slow(server, tmp_path)
    with worker(server, checkout):
        waits = start(server, seconds=1, approval=True)
        wait_for(server, waits, {"Suspended"}, 90)
        suspended = server.get(f"/flow_runs/{waits}")["state"]["timestamp"]
        late = datetime.fromisoformat(suspended) + timedelta(seconds=0.1)
        server.ask("/events", [beat(waits, "etcd-runbooks") | {"occurred": late.isoformat()}])
        time.sleep(3 * WINDOW_SECONDS)
    assert server.get(f"/flow_runs/{waits}")["state"]["name"] == "Suspended"


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_five_minutes_of_work_or_waiting_end_well_and_a_killed_worker_is_told(
    server: Prefect, tmp_path: Path
) -> None:
    """With the heartbeat and the window as delivered."""
    assert run_command(server).returncode == 0
    checkout = deploy_slow(server, tmp_path)
    with worker(server, checkout):
        works, waits = start(server, seconds=300), start(server, seconds=1, approval=True)
        wait_for(server, waits, {"Suspended"}, 90)
        wait_for(server, works, {"Running"}, 90)
        assert wait_for(server, works, {"Completed", "Crashed"}, 400) > 250
        assert server.get(f"/flow_runs/{works}")["state"]["name"] == "Completed"
        assert server.get(f"/flow_runs/{waits}")["state"]["name"] == "Suspended"
        body = {"run_input": {"approve": True}}
        assert server.ask(f"/flow_runs/{waits}/resume", body)["status"] == "ACCEPT"
        wait_for(server, waits, {"Completed"}, 60)
    with worker(server, checkout) as dying:
        dies = start(server, seconds=300)
        wait_for(server, dies, {"Running"}, 90)
        time.sleep(10)
        kill_all(dying.pid)
        assert wait_for(server, dies, {"Crashed"}, 120) < 95


def start_on_the_command_line(prefect: Prefect, checkout: Path, seconds: int) -> Any:  # noqa: ANN401 - a process
    """Run that flow on the command line."""
    return subprocess.Popen(
        [sys.executable, "-m", "flows", "slow", "--seconds", str(seconds)],
        cwd=checkout,
        env=prefect.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_a_run_of_the_command_line_is_left_alone_and_a_killed_one_is_told(
    server: Prefect, tmp_path: Path
) -> None:
    """With the heartbeat and the window as delivered."""
    assert run_command(server).returncode == 0
    checkout = copy_checkout(tmp_path / "checkout")
    (checkout / "flows" / "slow.py").write_text(SLOW)
    before = {run["id"] for run in server.ask("/flow_runs/filter", {})}
    works = start_on_the_command_line(server, checkout, 150)
    dies = start_on_the_command_line(server, checkout, 151)
    runs: dict[int, str] = {}
    while len(runs) < 2:
        time.sleep(1)
        for run in server.ask("/flow_runs/filter", {}):
            if run["id"] not in before and run["state"]["name"] == "Running":
                runs[run["parameters"]["seconds"]] = run["id"]
    time.sleep(10)
    dies.kill()
    dies.communicate()
    assert wait_for(server, runs[151], {"Crashed"}, 120) < 95
    stdout, _ = works.communicate(timeout=300)
    assert stdout.splitlines()[-1].startswith("done"), stdout
    history = server.get(f"/flow_run_states/?flow_run_id={runs[150]}")
    assert [state["name"] for state in history] == ["Pending", "Running", "Completed"]
