"""The course of a run: each part in its turn, and what a dry run and an empty plan leave out."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect.settings import PREFECT_HOME, temporary_settings
from typing_extensions import override

from flows.replace_member import _Replacement
from tasks.engine.journal import read_journal
from tasks.engine.run import Run
from tasks.etcd.probe import Probe
from tasks.model.errors import InventoryEdited, MemberFailed, NotSeen, PreflightFailed, Refused
from tasks.model.inventory import Inventory
from tasks.model.plan import Finding, Plan, Severity, Stage, Step
from tasks.model.record import Event, Record
from tasks.plans.bootstrap import MakeAccount
from tasks.plans.member_changes import DiscardData, RetireHost
from tasks.plans.reconfiguration import CHANGE, PREPARE
from tasks.procedures.course import Actions, Choices, Recipe, Unlocked, Verified, follow
from tasks.procedures.wishes import Wish

WORK = Stage(1, "work", is_serial=True)


class Known(Step):
    """A step that has an action."""


class Unknown(Step):
    """A step that has none."""


class Told(Recipe[str]):
    """Tells in which order it was asked for what; has no hosts to touch."""

    runbook = "move_leader"

    def __init__(self, *steps: Step, findings: tuple[Finding, ...] = ()) -> None:
        self.steps = steps
        self.found = findings
        self.told: list[str] = []
        self.verified = Verified(None)
        self.unseen = False

    @override
    async def open(self, run: Run) -> None:
        self.told.append("open")

    @override
    async def lock(self, run: Run, *, approved: bool) -> Unlocked:
        self.told.append("lock")
        return {"m2": "is silent"}

    @override
    async def look(self, run: Run, unlocked: Unlocked) -> str:
        self.told.append("look" + (" without m2" if unlocked else ""))
        return "seen"

    @override
    def findings(self, seen: str) -> tuple[Finding, ...]:
        return self.found

    @override
    async def plan(self, run: Run, seen: str) -> Plan:
        self.told.append("plan")
        return Plan(run.runbook, run.inventory.name, "all is well", self.steps)

    @override
    def actions(self, seen: str, probe: Probe | None) -> Actions:
        async def act(_run: Run, step: Known) -> None:
            self.told.append(step.sentence)

        return {Known: act}

    @override
    async def gate(self, run: Run, seen: str, step: Step) -> None:
        self.told.append("gate")

    @override
    async def verify(self, run: Run, seen: str) -> Verified:
        self.told.append("verify")
        return self.verified

    @override
    async def confirm(self, run: Run, seen: str) -> Verified:
        self.told.append("confirm")
        return self.verified

    @override
    def conclude(self, run: Run, seen: str) -> None:
        self.told.append("conclude")
        if self.unseen:
            raise NotSeen("m2 was not seen")


def one(kind: type[Step], sentence: str) -> Step:
    """Plan a step of the runner's."""
    return kind(stage=WORK, host=None, sentence=sentence)


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    """Make an inventory whose hosts are never asked."""
    return Inventory.model_validate(
        {
            "name": "c1",
            "hosts": [{"name": "m1", "address": "10.0.0.1"}],
            "etcd": {"version": "3.5.16"},
            "authority": {
                "certificate": tmp_path / "ca.pem",
                "key": tmp_path / "ca-key.pem",
                "passphrase": {"env": "TEST_PASSPHRASE"},
            },
        }
    )


async def follow_in(home: Path, recipe: Told, inventory: Inventory, choices: Choices) -> None:
    """Follow the recipe; its journal goes to the test's folder."""
    with temporary_settings({PREFECT_HOME: home}):
        await follow(recipe, inventory, choices)


def read_journals(home: Path) -> list[Record]:
    """Read all lines of all runs."""
    return [record for path in sorted(home.rglob("*.jsonl")) for record in read_journal(path)]


async def test_each_part_comes_in_its_turn(tmp_path: Path, inventory: Inventory) -> None:
    """The gate before each step, the verification after all of them."""
    recipe = Told(one(Known, "first"), one(Known, "second"))
    await follow_in(tmp_path, recipe, inventory, Choices())
    assert recipe.told == [
        *["open", "lock", "look without m2", "plan"],
        *["gate", "first", "gate", "second", "verify", "conclude"],
    ]
    events = [str(record.event) for record in read_journals(tmp_path)]
    assert events.index(Event.PLANNED) < events.index(Event.PERFORMED)


async def test_a_dry_run_takes_no_lock_and_does_nothing(
    tmp_path: Path, inventory: Inventory
) -> None:
    """It ends with what is left to be said."""
    recipe = Told(one(Known, "first"))
    await follow_in(tmp_path, recipe, inventory, Choices(dry_run=True))
    assert recipe.told == ["open", "look", "plan", "conclude"]


async def test_an_empty_plan_is_confirmed_without_a_snapshot(
    tmp_path: Path, inventory: Inventory
) -> None:
    """A snapshot would have needed members to ask."""
    recipe = Told()
    await follow_in(tmp_path, recipe, inventory, Choices(snapshot="take"))
    assert recipe.told[-2:] == ["confirm", "conclude"]


async def test_a_finding_that_forbids_the_run_ends_it_before_the_plan(
    tmp_path: Path, inventory: Inventory
) -> None:
    """Nothing is planned from what may not be used."""
    recipe = Told(findings=(Finding(Severity.REFUSAL, "m1", "its clock is wrong"),))
    with pytest.raises(PreflightFailed, match="its clock is wrong"):
        await follow_in(tmp_path, recipe, inventory, Choices())
    assert recipe.told[-1] == "look without m2"


async def test_a_step_that_nothing_does_is_found_before_the_first_is_done(
    tmp_path: Path, inventory: Inventory
) -> None:
    """A recipe that forgot one must not stop half-way."""
    recipe = Told(one(Known, "first"), one(Unknown, "second"))
    with pytest.raises(KeyError):
        await follow_in(tmp_path, recipe, inventory, Choices())
    assert "first" not in recipe.told


async def test_a_complaint_is_raised_after_the_verification(
    tmp_path: Path, inventory: Inventory
) -> None:
    """As of an inventory that was edited during the run."""
    recipe = Told(one(Known, "first"))
    recipe.verified = Verified(None, complaint=InventoryEdited("was edited"))
    with pytest.raises(InventoryEdited):
        await follow_in(tmp_path, recipe, inventory, Choices())
    assert recipe.told[-1] == "verify"


async def test_hosts_that_were_not_seen_end_also_a_dry_run_as_such(
    tmp_path: Path, inventory: Inventory
) -> None:
    """What was not seen is never called right."""
    recipe = Told()
    recipe.unseen = True
    with pytest.raises(NotSeen):
        await follow_in(tmp_path, recipe, inventory, Choices(dry_run=True))


async def test_skipping_the_snapshot_without_a_reason_is_refused_first(
    tmp_path: Path, inventory: Inventory
) -> None:
    """Before a journal is opened or anybody is asked."""
    recipe = Told(one(Known, "first"))
    with pytest.raises(Refused, match="reason"):
        await follow_in(tmp_path, recipe, inventory, Choices(snapshot="skip"))
    assert recipe.told == []


async def test_a_step_that_fails_leaves_the_rest_undone(
    tmp_path: Path, inventory: Inventory
) -> None:
    """Nothing is verified then, and no report of success is made."""

    class Failing(Told):
        @override
        async def gate(self, run: Run, seen: str, step: Step) -> None:
            raise MemberFailed("the gate is shut")

    recipe = Failing(one(Known, "first"))
    with pytest.raises(MemberFailed):
        await follow_in(tmp_path, recipe, inventory, Choices())
    assert recipe.told[-1] == "plan"


@pytest.mark.parametrize(
    ("step", "beside"),
    [
        pytest.param(MakeAccount(stage=PREPARE, host="m4", sentence="account"), True, id="host"),
        pytest.param(RetireHost(stage=PREPARE, host="m3", sentence="retire"), False, id="retire"),
        pytest.param(DiscardData(stage=PREPARE, host="m3", sentence="aside"), False, id="discard"),
    ],
)
def test_no_data_is_set_aside_before_the_snapshot(step: Step, beside: bool, tmp_path: Path) -> None:
    """A host that joins is prepared beside it; what takes data away waits for it."""
    path = tmp_path / "c1.yaml"
    path.write_text(
        "{name: c1, hosts: [{name: m1, address: 10.0.0.1}], etcd: {version: 3.5.16},"
        " authority: {certificate: ca.pem, key: k.pem, passphrase: {env: P}}}"
    )
    recipe = _Replacement(str(path), Wish(leaving=("m3",)))
    plan = Plan("replace_member", "c1", "", (step,))
    assert recipe.unsaved_until(plan) == (CHANGE if beside else None)
