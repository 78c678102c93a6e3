"""Who asked for a run and who approves it: told where it is known, and never one for the other."""

from __future__ import annotations

from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext

from tasks.engine import asking
from tasks.steps.approvals import is_same_person

SCHEDULE = {"type": "SCHEDULE", "display_value": "daily"}


@pytest.mark.parametrize(
    ("is_deployed", "tags", "by", "asked"),
    [
        (False, [], None, asking.account()),
        (True, [], None, "not told"),
        (True, [], SCHEDULE, "schedule daily"),
        (True, ["changes", "asked-by:ada"], None, "ada"),
        (True, ["asked-by:ada"], SCHEDULE, "ada"),
    ],
)
def test_the_worker_is_not_who_asked(
    is_deployed: bool, tags: list[str], by: dict[str, str] | None, asked: str
) -> None:
    """It is named beside them."""
    deployment = uuid4() if is_deployed else None
    content = {"flow_id": uuid4(), "deployment_id": deployment, "tags": tags, "created_by": by}
    run = FlowRun.model_validate(content)
    with FlowRunContext.model_construct(flow_run=run):  # type: ignore[call-arg]
        assert asking.who_asked() == asked
        worker = "" if asked == asking.account() else f" (worker {asking.account()})"
        assert asking.describe() == asked + worker


def test_without_a_run_it_is_the_command_lines_account() -> None:
    """Before Prefect has made one."""
    assert asking.describe() == asking.account()


@pytest.mark.parametrize(
    ("asked", "by", "is_same"),
    [
        ("ada@desk", "Ada", True),
        ("ada@desk", "Bob (ada@desk)", True),
        ("ada", "ADA (root@vm)", True),
        ("root@vm", "Ada (root@vm)", True),
        ("ada@desk", "Bob", False),
        ("ada@desk", "Bob (bob@desk)", False),
        ("schedule daily", "Ada", False),
    ],
)
def test_another_person_is_another_name_and_another_account(
    asked: str, by: str, is_same: bool
) -> None:
    """In any case, with or without a machine."""
    assert is_same_person(asked, by) == is_same
