"""The bootstrap plan: only what is missing, never over data, every step performed."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.model.certificates import Role
from tasks.model.cluster import ClusterHealth
from tasks.model.endpoints import EndpointHealth, EndpointStatus
from tasks.model.errors import Refused
from tasks.model.inventory import Inventory
from tasks.model.members import Member
from tasks.model.observation import (
    DataDirectory,
    FileState,
    HostObservation,
    HostTarget,
    Program,
    ServiceState,
    ServiceStatus,
)
from tasks.model.plan import Plan, Step
from tasks.plans import bootstrap
from tests.unit.plan_cases import (
    AUTHORITY,
    CONFIGURATION,
    NAMES,
    UNIT,
    bare,
    finished,
    inventory,
    target,
    text_file,
)

FLOW = Path(__file__).parents[2] / "flows" / "bootstrap_cluster.py"
STEPS = {
    kind
    for kind in vars(bootstrap).values()
    if isinstance(kind, type) and issubclass(kind, Step) and kind is not Step
}
UPLOADED = inventory(
    etcd={
        "version": "3.5.16",
        "binaries": {"source": "directory", "path": "/x", "sha256": {"etcd": "b" * 64}},
    }
)


def plan(
    *hosts: HostObservation,
    targets: tuple[HostTarget, ...] | None = None,
    wanted: Inventory | None = None,
    authority_exists: bool = True,
    health: ClusterHealth | None = None,
) -> Plan:
    """Plan for some hosts."""
    return bootstrap.plan_bootstrap(
        wanted or inventory(),
        hosts,
        targets or tuple(target(host.host) for host in hosts),
        authority_exists=authority_exists,
        health=health,
    )


def test_a_finished_cluster_needs_nothing() -> None:
    """The no-op case."""
    assert plan(*map(finished, NAMES)).steps == ()


def test_a_bare_host_needs_everything_in_order() -> None:
    """The account before what it owns, the unit before the start, the start last."""
    missing = dict.fromkeys(Role, ("there is none",))
    wanted = target("m1", leaf_differences=missing, program_sums={"etcd": "b" * 64})
    made = plan(bare(), targets=(wanted,), wanted=UPLOADED, authority_exists=False)
    assert [type(step) for step in made.steps] == [
        bootstrap.MakeAuthority,
        bootstrap.MakeAccount,
        bootstrap.InstallPrograms,
        bootstrap.MakeDirectories,
        bootstrap.IssueCertificates,
        bootstrap.WriteConfiguration,
        bootstrap.StartMember,
    ]
    assert {type(step) for step in made.steps} == STEPS
    assert made.stages() == (bootstrap.AUTHORITY, bootstrap.PREPARE, bootstrap.START)


STOPPED = ServiceStatus(ServiceState.INACTIVE, is_enabled=True)
DISABLED = ServiceStatus(ServiceState.ACTIVE, is_enabled=False)
STALE = ServiceStatus(ServiceState.ACTIVE, is_enabled=True, needs_daemon_reload=True)
OPEN_FILE = FileState("0666", "root", "root", "a", CONFIGURATION)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"account_uid": None}, bootstrap.MakeAccount),
        ({"state_mode": "0755 root root"}, bootstrap.MakeDirectories),
        ({"certificates_mode": None}, bootstrap.MakeDirectories),
        ({"authority": None}, bootstrap.IssueCertificates),
        ({"configuration": OPEN_FILE}, bootstrap.WriteConfiguration),
        ({"unit": None}, bootstrap.WriteConfiguration),
        ({"service": STALE}, bootstrap.WriteConfiguration),
        ({"service": STOPPED}, bootstrap.StartMember),
        ({"service": DISABLED}, bootstrap.StartMember),
        ({"service": None}, bootstrap.StartMember),
    ],
)
def test_one_thing_that_is_missing_is_one_step(change: dict[str, Any], kind: type[Step]) -> None:
    """On the host that lacks it and nowhere else."""
    made = plan(finished("m1"), finished("m2", **change), finished("m3"))
    assert [(type(step), step.host) for step in made.steps] == [(kind, "m2")]


def test_who_owns_the_certificates_is_made_before_they_are() -> None:
    """Where the inventory's policy gives them to another account than etcd's."""
    access = {"owner": "certs", "group": "etcd", "key_mode": "0640"}
    wanted = inventory(
        etcd={"version": "3.5.16", "run_as": "root"}, certificates={"peer": {"access": access}}
    )
    assert wanted.accounts("m1") == ("certs", "etcd")
    missing = target("m1", leaf_differences=dict.fromkeys(Role, ("there is none",)))
    host = bare(account_uid=0, account_group="root", state_mode=None)
    made = plan(host, targets=(missing,), wanted=wanted)
    assert made.steps[0].sentence == "make the system accounts certs, etcd"
    assert inventory(etcd={"version": "3.5.16", "run_as": "root"}).accounts("m1") == ()


def test_a_certificate_that_differs_is_issued_with_the_reason() -> None:
    """Only that role's."""
    wanted = target(
        "m1", leaf_differences={**dict.fromkeys(Role, ()), Role.PEER: ("it expired on 2026-01-01",)}
    )
    (step,) = plan(finished("m1"), targets=(wanted,)).steps
    assert isinstance(step, bootstrap.IssueCertificates)
    assert step.roles == (Role.PEER,)
    assert "it expired on 2026-01-01" in step.sentence


@pytest.mark.parametrize("data", [DataDirectory.INITIALISED, DataDirectory.LEFTOVERS])
@pytest.mark.parametrize(
    ("change", "identity", "says"),
    [
        ({"configuration": None}, {}, "does not know"),
        ({}, {"ETCD_INITIAL_CLUSTER_TOKEN": ("theirs", "ours")}, "theirs, not ours"),
        ({}, {"ETCD_NAME": (None, "m1")}, "ETCD_NAME is missing"),
    ],
)
def test_data_of_another_cluster_is_refused(
    data: DataDirectory,
    change: dict[str, Any],
    identity: dict[str, tuple[str | None, str | None]],
    says: str,
) -> None:
    """The host and what differs are named."""
    wanted = target("m1", configuration_identity=identity)
    with pytest.raises(Refused, match="m1:") as refused:
        plan(finished("m1", data=data, **change), targets=(wanted,))
    assert says in str(refused.value)


@pytest.mark.parametrize("field", ["configuration", "unit", "authority"])
def test_a_member_with_data_is_not_reconfigured(field: str) -> None:
    """Bootstrap makes members; it does not change running ones."""
    with pytest.raises(Refused, match="does not reconfigure"):
        plan(finished("m1", **{field: text_file("other\n")}))


def test_a_start_that_died_before_its_first_log_is_gone_on_with() -> None:
    """Leftovers under this cluster's own etcd.conf are its own."""
    made = plan(finished("m1", data=DataDirectory.LEFTOVERS, service=STOPPED))
    assert [type(step) for step in made.steps] == [bootstrap.StartMember]


def test_a_member_that_lost_its_data_is_not_started_as_new() -> None:
    """The live members say that it had joined."""
    rows = (Member(1, "m1", ("u",), ("c",)), Member(2, "m2", ("u",), ("c",)))
    health = ClusterHealth((EndpointHealth("m2", "u", is_healthy=True, members=rows),), True)
    with pytest.raises(Refused, match="does not replace members"):
        plan(finished("m1", data=DataDirectory.MISSING), finished("m2"), health=health)


def test_a_cluster_upgraded_by_hand_gets_no_older_program_under_it() -> None:
    """The inventory still says 3.5.16: each member that starts again would die."""
    upgraded = finished(programs=(Program("etcd", "c" * 64, "3.7.3"),))
    with pytest.raises(Refused, match=r"etcd is 3\.7\.3 and has data, and the inventory wants"):
        plan(upgraded, wanted=UPLOADED, targets=(target(program_sums={"etcd": "b" * 64}),))


def test_a_running_version_that_is_not_the_wanted_one_is_refused() -> None:
    """Also where the program on disk has been put back already."""
    status = EndpointStatus(1, 2, "3.7.3", 2, 1, 1, 1, 1, 1)
    health = ClusterHealth((EndpointHealth("m1", "e", is_healthy=True, status=status),), True)
    with pytest.raises(Refused, match=r"m1: etcd 3\.7\.3 runs, .* wants 3\.5\.16"):
        plan(finished(), health=health)
    same = replace(status, version="3.5.16")
    healthy = ClusterHealth((EndpointHealth("m1", "e", is_healthy=True, status=same),), True)
    assert plan(finished(), health=healthy).steps == ()


def test_hosts_that_trust_an_authority_that_the_runner_lacks_are_refused() -> None:
    """A new authority would not be theirs."""
    with pytest.raises(Refused, match="put that authority's"):
        plan(bare("m1", authority=text_file(AUTHORITY)), authority_exists=False)


def test_all_hosts_that_are_against_it_are_named() -> None:
    """One refusal with every reason."""
    foreign = {"configuration_identity": {"ETCD_NAME": ("x", "y")}}
    with pytest.raises(Refused) as refused:
        plan(
            finished("m1"),
            finished("m2"),
            targets=(target("m1", **foreign), target("m2", **foreign)),
        )
    assert "m1:" in str(refused.value)
    assert "m2:" in str(refused.value)


def test_the_flow_performs_every_step() -> None:
    """Each kind of step is a key of the flow's table."""
    keys = {
        key.attr
        for node in ast.walk(ast.parse(FLOW.read_text()))
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Attribute)
    }
    assert keys == {kind.__name__ for kind in STEPS}


files = st.sampled_from([None, text_file(UNIT), text_file(CONFIGURATION), text_file("other\n")])
hosts = st.builds(
    finished,
    st.sampled_from(NAMES),
    data=st.sampled_from(DataDirectory),
    configuration=files,
    unit=files,
    authority=files,
    account_uid=st.sampled_from([None, 999]),
    service=st.sampled_from([None, STOPPED, DISABLED, STALE]),
    state_mode=st.sampled_from([None, "0700 etcd etcd"]),
)


@given(st.lists(hosts, min_size=1, max_size=3, unique_by=lambda host: host.host), st.booleans())
def test_no_plan_touches_foreign_data(observed: list[HostObservation], foreign: bool) -> None:
    """A plan, or a refusal; and with a plan, no host with data has files rewritten."""
    identity = {"ETCD_NAME": ("theirs", "ours") if foreign else ("ours", "ours")}
    targets = tuple(target(host.host, configuration_identity=identity) for host in observed)
    try:
        made = plan(*observed, targets=targets)
    except Refused:
        return
    kept = (DataDirectory.INITIALISED, DataDirectory.LEFTOVERS)
    with_data = {host.host: host for host in observed if host.data in kept}
    assert not (foreign and with_data)
    for host in with_data.values():
        assert host.configuration is not None
        if host.data is DataDirectory.INITIALISED:
            assert host.configuration.text == CONFIGURATION
    stages = [step.stage for step in made.steps if step.host == observed[0].host]
    assert stages == sorted(stages)
