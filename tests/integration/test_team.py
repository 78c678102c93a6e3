"""`make team` on bare machines: a server, workers on two machines, runs that either does."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import ssl
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest
from ruamel.yaml import YAML

from tests.contract.etcd_real import TestAuthority
from tests.integration.rotations import find_strangers, serials
from tests.integration.teams import CHECKOUT, checkout_on
from tests.lab.packages import offer_packages

if TYPE_CHECKING:
    from tests.lab.commands import Completed
    from tests.lab.fixtures import StartLab
    from tests.lab.host import Host
    from tests.lab.lab import Lab

pytest_plugins = ["tests.lab.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.chaos, pytest.mark.one_etcd, pytest.mark.timeout(1200)]

SETTINGS = PurePosixPath("/etc/etcd-runbooks")
HOME = PurePosixPath("/var/lib/etcd-runbooks-worker")
WORKER = "etcd-runbooks-worker@1"
MEMBERS = ("master01", "master02", "master03")
MACHINES = ("server", "other")
RUNBOOKS = ("bootstrap_cluster", "rotate_certificates", "check_health")
MAKE_SECONDS = 500.0
RUN_SECONDS = 300.0
ENDS = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
INVENTORY = """
name: main
hosts:
{hosts}
ssh: {{user: operator, key: ~/.ssh/id_ed25519, known_hosts: known_hosts}}
etcd: {{version: {version}, binaries: {{source: installed}}}}
authority: {{certificate: main/ca.pem, key: main/ca-key.pem, passphrase: {{block: etcd-ca}}}}
"""


@dataclass(frozen=True)
class Team:
    """A server and another machine with workers, and the hosts of a cluster."""

    lab: Lab = field(repr=False)

    @property
    def server(self) -> Host:
        """Where the server, and one worker, run."""
        return self.lab["server"]

    @property
    def other(self) -> Host:
        """Where a worker alone runs."""
        return self.lab["other"]

    def make(self, host: Host, target: str, *choices: str) -> Completed:
        """Run a target of the Makefile on a machine."""
        words = ["make", "-C", str(CHECKOUT), target, *choices]
        return host.run(words, timeout=MAKE_SECONDS)

    def ask(self, path: str, body: object = None, *, authority: str = "ca.pem") -> Any:  # noqa: ANN401 - JSON
        """Ask the API as a person's browser does: over TLS, with the user and password."""
        settings = self.server.root / SETTINGS.relative_to("/")
        text = (settings / "worker.env").read_text()
        user = re.search("^PREFECT_API_AUTH_STRING=(.*)$", text, re.MULTILINE)
        assert user
        context = ssl.create_default_context(cafile=str(settings / authority))
        request = urllib.request.Request(
            f"https://{self.server.address}/api{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Content-Type": "application/json",
                "Authorization": "Basic " + base64.b64encode(user[1].encode()).decode(),
            },
        )
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:  # noqa: S310 - the lab's bridge
            said = answer.read()
        return json.loads(said) if said else None

    def start(self, runbook: str, **parameters: object) -> str:
        """Start a run over the API; returns its id."""
        deployment = self.ask(f"/deployments/name/{runbook}/{runbook}")["id"]
        body = {"parameters": {"cluster": "main", **parameters}}
        return str(self.ask(f"/deployments/{deployment}/create_flow_run", body)["id"])

    def wait(self, run: str, *states: str) -> dict[str, Any]:
        """Wait until a run is in one of the states, or has ended; returns it."""
        deadline = time.monotonic() + RUN_SECONDS
        while True:
            found: dict[str, Any] = self.ask(f"/flow_runs/{run}")
            if found["state"]["type"] in ENDS | set(states):
                return found
            assert time.monotonic() < deadline, self.journal()
            time.sleep(1)

    def complete(self, run: str) -> str:
        """Wait until a run is Completed; returns the machine that did it."""
        found = self.wait(run)
        told = f"{found['state']['name']}: {found['state']['message']}"
        assert told.startswith("Completed"), f"{told}\n{self.journal()}"
        return str(next(tag[3:] for tag in found["tags"] if tag.startswith("on:")))

    def journal(self) -> str:
        """Get what systemd's journals say, for whoever reads a failure."""
        said = "journalctl --no-pager -n 80 -u 'etcd-runbooks-*'"
        return "\n".join(host.run(said).stdout for host in (self.server, self.other))


@pytest.fixture(scope="module")
def team(start_module_lab: StartLab) -> Iterator[Team]:
    """Start bare machines, with a checkout of this repository on two of them."""
    lab = start_module_lab(hosts=[*MEMBERS, *MACHINES], etcd_source="installed")
    with contextlib.ExitStack() as stack:
        for name in MACHINES:
            host = lab[name]
            # As Debian's installer leaves it: PostgreSQL's package of this machine has no cluster
            # yet, its generator is there, packages start what they bring, apt keeps what it got.
            host.run(
                "rm -rf /etc/postgresql/15 /var/lib/postgresql/15 /usr/sbin/policy-rc.d && "
                "rm -f /etc/systemd/system-generators/postgresql-generator "
                "/etc/apt/apt.conf.d/docker-clean && "
                "install -d -m 1775 -o root -g postgres /var/log/postgresql"
            ).check()
            offer_packages(host, "caddy", "redis-server")
            stack.enter_context(checkout_on(host))
            keep_deployments(host.root / CHECKOUT.relative_to("/") / "prefect.yaml")
        yield Team(lab)


def keep_deployments(path: Path) -> None:
    """Leave the runbooks of these tests alone: to deploy all takes minutes of a busy machine."""
    yaml = YAML()
    content = yaml.load(path)
    content["deployments"] = [one for one in content["deployments"] if one["name"] in RUNBOOKS]
    yaml.dump(content, path)


def share_inventories(team: Team) -> None:
    """Put the inventory and the hosts' keys into a repository that the server's machine serves."""
    hosts = "".join(f"  - {{name: {m}, address: {team.lab[m].address}}}\n" for m in MEMBERS)
    text = INVENTORY.format(hosts=hosts, version=team.lab.record.etcd)
    known = team.lab.known_hosts.read_text()
    git = "git -c user.name=team -c user.email=team@example.org"
    team.server.run(
        "git init --quiet --bare --initial-branch=main /srv/clusters.git && "
        "git init --quiet --initial-branch=main /srv/first && cd /srv/first"
    ).check()
    for name, content in (("main.yaml", text), ("known_hosts", known)):
        team.server.run(f"cat > /srv/first/{name}", text=content).check()
    team.server.run(
        f"cd /srv/first && git add . && {git} commit --quiet -m first && "
        "git push --quiet /srv/clusters.git main && chown -R nobody /srv/clusters.git && "
        "systemd-run --uid=nobody --unit=git git daemon --base-path=/srv --export-all "
        "--enable=receive-pack --reuseaddr"
    ).check()


def let_in(team: Team, host: Host) -> None:
    """Put the key of a machine's workers on the members."""
    key = (host.root / HOME.relative_to("/") / ".ssh/id_ed25519.pub").read_text()
    for name in MEMBERS:
        add = "cat >> /home/operator/.ssh/authorized_keys"
        team.lab[name].run(add, text=key).check()


def make_passphrase(team: Team) -> None:
    """Make the Secret block, as a person does in the UI."""
    kind = team.ask("/block_types/slug/secret")["id"]
    schemas = {"block_schemas": {"block_type_id": {"any_": [kind]}}}
    content = {
        "name": "etcd-ca",
        "block_type_id": kind,
        "block_schema_id": team.ask("/block_schemas/filter", schemas)[0]["id"],
        "data": {"value": "a long passphrase of the team"},
    }
    team.ask("/block_documents/", content)


def find_secrets(team: Team, host: Host) -> list[str]:
    """List processes and files that everybody can read that have one of the secrets in them."""
    settings = team.server.root / SETTINGS.relative_to("/")
    words = re.findall(
        r"(?:AUTH_STRING=etcd-runbooks:|ENCRYPTION_KEY=|redis://:)([^@\n]+)",
        "".join(path.read_text() for path in settings.glob("*.env")),
    )
    assert len(words) >= 3
    host.run("cat > /root/secrets && chmod 600 /root/secrets", text="\n".join(words) + "\n").check()
    look = (
        "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -F -f /root/secrets; "
        "find /etc /var /tmp /opt/etcd-runbooks/deployments /run /usr/local -xdev -type f "
        "-perm -004 -size -4M -print0 | xargs -0 grep -l -F -f /root/secrets; rm /root/secrets"
    )
    return host.run(look, timeout=60).stdout.splitlines()


def test_a_team_on_two_machines(team: Team) -> None:
    """Made by two commands; each machine's worker does runs of the same cluster."""
    share_inventories(team)
    refused = team.make(team.other, "team-worker", "TEAM_WORKERS=1")
    assert "scp -p <server>:/etc/etcd-runbooks" in refused.stderr
    choices = ("TEAM_WORKERS=1", "INVENTORIES=git://server/clusters.git")
    made = team.make(team.server, "team", f"SERVER_NAME={team.server.address}", *choices)
    assert made.status == 0, made.stdout + made.stderr + team.journal()

    team.other.run(["mkdir", "-p", str(SETTINGS)]).check()
    for name in ("worker.env", "ca.pem"):
        text = (team.server.root / SETTINGS.relative_to("/") / name).read_text()
        team.other.run(f"cat > {SETTINGS}/{name}", text=text).check()
    joined = team.make(team.other, "team-worker", "TEAM_WORKERS=1")
    assert joined.status == 0, joined.stdout + joined.stderr
    for host in (team.server, team.other):
        let_in(team, host)
        assert find_secrets(team, host) == []
    make_passphrase(team)

    machines = {team.complete(team.start("bootstrap_cluster", dry_run=False, reason="new"))}
    first = next(iter(machines))
    busy, idle = (team.lab[first], team.lab[next(name for name in MACHINES if name != first)])
    idle.run(["systemctl", "stop", WORKER], timeout=60).check()
    run = team.start("rotate_certificates", which="all", dry_run=False, reason="a drain")
    team.wait(run, "RUNNING")
    time.sleep(5)
    busy.run(["systemctl", "stop", "--no-block", WORKER]).check()
    idle.run(["systemctl", "start", WORKER]).check()
    other = team.start("check_health")
    assert team.complete(other) == idle.name
    assert team.complete(run) == busy.name
    before = serials_of(team)
    run = team.start("rotate_certificates", which="all", dry_run=False, reason="the other one")
    assert team.complete(run) == idle.name
    assert all(before[name] != now for name, now in serials_of(team).items())
    assert find_strangers_of(team) == []
    assert busy.run(["systemctl", "is-active", WORKER]).stdout.strip() == "inactive"


def serials_of(team: Team) -> dict[str, str]:
    """Get the serials of the members' pairs."""
    return serials(Members(team.lab))  # type: ignore[arg-type]


def find_strangers_of(team: Team) -> list[str]:
    """List who of the members is not let in by another."""
    return find_strangers(Members(team.lab))  # type: ignore[arg-type]


class Members:
    """The lab without the team's machines."""

    def __init__(self, lab: Lab) -> None:
        self.hosts = {name: lab[name] for name in MEMBERS}


def test_journals_of_both_machines_are_told_and_checked_in_one_place(team: Team) -> None:
    """After the command of docs/team.md."""
    audit = "etcd-runbooks-team python -m flows"
    for host in (team.server, team.other):
        listed = host.run(f"{audit} history", timeout=60)
        assert listed.check().stdout.count("rotate_certificates") == 1
        verified = host.run(f"{audit} verify", timeout=60)
        assert "all as written" in verified.check().stdout
    place = f"{HOME}/etcd-runbooks/journal"
    packed = team.other.run(f"tar -C {place} -c . | base64").check().stdout
    unpack = f"base64 -d | tar -C {place} -x --no-same-owner && chown -R etcd-runbooks: {place}"
    team.server.run(unpack, text=packed).check()
    listed = team.server.run(f"{audit} history", timeout=60)
    assert listed.check().stdout.count("rotate_certificates") == 2
    assert "bootstrap_cluster" in listed.stdout
    verified = team.server.run(f"{audit} verify", timeout=60)
    assert "all as written" in verified.check().stdout


def test_a_workers_death_leaves_its_run_alone(team: Team) -> None:
    """It goes on to its end, and systemd starts the worker again."""
    run = team.start("rotate_certificates", which="all", dry_run=False, reason="a death")
    team.wait(run, "RUNNING")
    kill = ["systemctl", "kill", "--kill-whom=main", "--signal=KILL", WORKER]
    for host in (team.server, team.other):
        host.run(kill)
    assert team.complete(run) in MACHINES
    assert team.complete(team.start("check_health")) in MACHINES


def test_what_is_wrong_leads_out(team: Team) -> None:
    """A choice that is none, another checkout, an account that is not root."""
    cases = {
        f"make -C {CHECKOUT} team API_SERVERS=3": "API_SERVERS=3: there are 1 or 2",
        f"cp -r {CHECKOUT}/deployments /srv/ && /srv/deployments/team.sh server": (
            "git clone /srv /opt/etcd-runbooks && make -C /opt/etcd-runbooks team"
        ),
        f"runuser -u nobody -- {CHECKOUT}/deployments/team.sh server": "run it as root",
        f"make -C {CHECKOUT} team CERTIFICATE=/none": "CERTIFICATE needs CERTIFICATE_KEY",
    }
    for command, said in cases.items():
        ended = team.server.run(command, timeout=60)
        assert ended.status != 0
        assert said in ended.stderr, ended.stderr


def test_a_certificate_of_ones_own_takes_the_place_of_caddys(team: Team) -> None:
    """Refused where this machine does not know its authority; renewed by the same command."""
    authority, server = TestAuthority("company"), team.server
    choices = ("CERTIFICATE=/srv/own.pem", "CERTIFICATE_KEY=/srv/own-key.pem")

    def give() -> bytes:
        leaf = authority.issue(server.address)
        for name, content in (("own.pem", leaf.certificate), ("own-key.pem", leaf.key)):
            server.run(f"umask 077; cat > /srv/{name}", text=content.decode()).check()
        return leaf.certificate

    give()
    refused = team.make(server, "team", *choices)
    assert refused.status != 0
    assert f"does not take /srv/own.pem for {server.address}" in refused.stderr
    assert "run update-ca-certificates" in refused.stderr
    place = "/usr/local/share/ca-certificates/company.crt"
    trust = f"cat > {place} && update-ca-certificates"
    for host in (server, team.other):
        host.run(trust, text=authority.pem.decode(), timeout=60).check()
    settings = server.root / SETTINGS.relative_to("/")
    (settings / "company.pem").write_bytes(authority.pem)
    for _ in range(2):
        shown = give()
        made = team.make(server, "team", *choices)
        assert made.status == 0, made.stdout + made.stderr + team.journal()
        served = ssl.get_server_certificate((server.address, 443))
        assert served.split() == shown.decode().split()
        assert find_secrets(team, server) == []
    assert "ca-certificates.crt" in (settings / "worker.env").read_text()
    deployment = team.ask("/deployments/name/check_health/check_health", authority="company.pem")
    assert deployment["status"] == "READY"
    again = team.make(server, "team", "CERTIFICATE=internal")
    assert again.status == 0, again.stdout + again.stderr
    assert team.complete(team.start("check_health")) in MACHINES


def test_a_second_time_changes_what_is_chosen_and_nothing_else(team: Team) -> None:
    """A second API server comes with Redis and the services, and goes with them."""
    again = team.make(team.server, "team")
    assert again.status == 0, again.stdout + again.stderr
    assert not [line for line in again.stdout.splitlines() if "wrote" in line or "start" in line]
    made = team.make(team.server, "team", "API_SERVERS=2")
    assert made.status == 0, made.stdout + made.stderr + team.journal()
    assert find_secrets(team, team.server) == []
    team.server.run(["systemctl", "kill", "--signal=KILL", "etcd-runbooks-server@4200"]).check()
    assert team.complete(team.start("check_health"))
    made = team.make(team.server, "team", "API_SERVERS=1")
    assert made.status == 0, made.stdout + made.stderr
    off = "systemctl is-active etcd-runbooks-server@4201 etcd-runbooks-services"
    assert "active" not in team.server.run(off).stdout.split()
    assert team.complete(team.start("check_health"))
