"""Approval of a plan by a person: in Prefect's UI, over its API, or on the command line.

Under a worker the run is suspended, so that its process ends; without one it stays and waits. No
lock is held meanwhile, and what was approved is compared with what is planned afterwards. Who
approved is what the person says: Prefect's open-source server does not know its users.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator
from typing import Literal
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import FlowPauseTimeout, ObjectNotFound
from prefect.flow_runs import apause_flow_run, asuspend_flow_run
from prefect.input import RunInput
from prefect.input.actions import acreate_flow_run_input, aread_flow_run_input
from prefect.logging import get_run_logger
from pydantic import Field

from tasks.engine import asking
from tasks.engine.launch import reach_api
from tasks.engine.run import Run
from tasks.model.errors import RecordUnreachable, Refused, Rejected, RunbookError
from tasks.model.inventory import Approval, Inventory
from tasks.model.plan import Finding, Plan
from tasks.model.pointers import answer
from tasks.model.record import Event
from tasks.report.plans import plan_markdown

WAIT_SECONDS = 24 * 3600
DIGEST_CHARACTERS = 12
POLL_SECONDS = 2
ANSWER_SECONDS = 20.0
KEY = "approval"
DIGEST_KEY = "approval-plan"


class Decision(RunInput):
    """The form. `answer` has no default: a Resume without it must not pass for either.

    A choice, since of a switch that nobody has touched one of Prefect's UIs sends nothing, and the
    other a no.
    """

    answer: Literal["approve", "reject"] = Field(
        description="approve: the plan is carried out. reject: nothing is changed."
    )
    by: str = Field(min_length=1, description="Who decides: your name.")
    note: str = Field("", description="Anything for the record.")


def is_required(inventory: Inventory, *, asked: bool) -> bool:
    """Whether a plan waits for a person: the inventory says so, or the one who started the run."""
    return asked or inventory.approval is not Approval.NONE


@contextlib.contextmanager
def _asking() -> Iterator[None]:
    """Name a failure of Prefect's API for what it is; before an approval nothing is changed."""
    try:
        yield
    except (FlowPauseTimeout, ObjectNotFound, RunbookError):
        raise
    except Exception as error:
        raise RecordUnreachable(
            f"Prefect's API failed while the plan waited for approval ({type(error).__name__}); "
            "nothing was changed. Start the runbook again to see and approve its plan"
        ) from error


async def recall(run: Run) -> str | None:
    """Get the digest of the plan that this run has shown before; None for a run that begins.

    Raises Refused where who asked must be another one than who approves, and is not known.
    """
    if run.inventory.approval is Approval.SECOND_PERSON and asking.who_asked() == asking.UNKNOWN:
        raise Refused(
            f"{run.inventory.name} wants another person's approval (approval: second_person), and "
            "who asked for this run is not told; start it from a command line, or with the tag "
            f"{asking.TAG}NAME (in the form under Additional Options). Nothing was changed"
        )
    with _asking():
        shown: str | None = await aread_flow_run_input(DIGEST_KEY)
    return shown


async def prepare(run: Run, plan: Plan, shown: str | None) -> None:
    """Note which plan is shown; raises Refused when this run has shown another one before."""
    digest = plan.digest
    run.outcome = "waits for approval"
    if shown is None:
        with _asking():
            await acreate_flow_run_input(DIGEST_KEY, digest)
        said = f"waiting for approval, without a lock: {answer(run.id)}"
        run.journal.append(Event.PROGRESS, text=said)
        get_run_logger().info("%s", said)
    elif shown != digest:
        raise Refused(_stale(run.runbook))


def request_markdown(
    plan: Plan,
    findings: tuple[Finding, ...],
    *,
    asked: str,
    reason: str | None,
    approval: Approval,
) -> str:
    """Write what is to be decided: who asks for what, why, and exactly which plan."""
    is_second = approval is Approval.SECOND_PERSON
    return "\n".join(
        (
            f"- **asked for by:** {asked}" + (", who must not be who approves" * is_second),
            f"- **reason:** {reason or 'not given'}",
            f"- **plan:** {plan.digest[:DIGEST_CHARACTERS]}",
            "",
            plan_markdown(plan, findings),
        )
    )


def is_same_person(asked: str, by: str) -> bool:
    """Whether two names may be one person's: with an account or a machine, in any case."""
    return bool(_names(asked) & _names(by))


def _names(text: str) -> set[str]:
    parts = [part.strip() for part in re.split(r"[()]", text.casefold())]
    return {name for part in parts for name in (part, part.partition("@")[0]) if name}


async def wait(inventory: Inventory, plan: Plan, request: str) -> Decision:
    """Show the request and wait for the decision, for a day; raises Refused without a yes.

    Under a worker the process ends here, and the run begins anew once somebody has decided.
    """
    context = FlowRunContext.get()
    has_deployment = context is not None and context.flow_run and context.flow_run.deployment_id
    form = Decision.with_initial_data(description=request)
    try:
        with _asking():
            if has_deployment:
                decision = await asuspend_flow_run(
                    wait_for_input=form, timeout=WAIT_SECONDS, key=KEY
                )
            else:
                decision = await apause_flow_run(
                    wait_for_input=form, timeout=WAIT_SECONDS, poll_interval=POLL_SECONDS, key=KEY
                )
    except FlowPauseTimeout as error:
        raise Refused(
            f"nobody has approved the plan in {WAIT_SECONDS // 3600} hours; start {plan.runbook} "
            "again to see and approve its plan"
        ) from error
    if not isinstance(decision, Decision):
        raise Refused(f"this run was decided on before; start {plan.runbook} again")
    if decision.answer == "reject":
        raise Rejected(f"{decision.by} said no to the plan: {decision.note or 'no note'}")
    asked = asking.who_asked()
    if inventory.approval is Approval.SECOND_PERSON and is_same_person(asked, decision.by):
        raise Refused(
            f"{decision.by} approved what {asked} asked for, and {inventory.name} wants another "
            f"person's approval (approval: second_person); start {plan.runbook} again and let "
            "somebody else approve it. Nothing was changed"
        )
    return decision


def check(run: Run, decision: Decision, approved: Plan, plan: Plan) -> None:
    """Write down who approved; raises Refused when another plan than theirs would be done."""
    run.journal.append(
        Event.PROGRESS,
        text=f"plan {approved.digest[:DIGEST_CHARACTERS]} approved by {decision.by}"
        + (f": {decision.note}" if decision.note else ""),
    )
    if plan.digest != approved.digest:
        raise Refused(_stale(run.runbook))


def _stale(runbook: str) -> str:
    return (
        "the cluster has changed since the plan was shown for approval, and another plan would be "
        f"done now; nothing was done. Start {runbook} again to see and approve the new plan"
    )


async def decide(flow_run_id: str, *, approve: bool, by: str | None, note: str) -> str:
    """Answer for a run that waits; returns a sentence.

    Raises Refused when none waits there, and where Prefect's API cannot be reached.
    """
    person = asking.account()
    try:
        identity = UUID(flow_run_id)
    except ValueError as error:
        raise Refused(
            f"{flow_run_id!r} is not the id of a run; the run that waits says its own, and so does "
            "its page in the UI"
        ) from error
    await reach_api()
    async with asyncio.timeout(ANSWER_SECONDS), get_client() as client:
        try:
            flow_run = await client.read_flow_run(identity)
        except ObjectNotFound as error:
            raise Refused(f"there is no run {flow_run_id}; is PREFECT_API_URL right?") from error
        if flow_run.state is None or not flow_run.state.is_paused():
            name = flow_run.state.name if flow_run.state else "unknown"
            raise Refused(f"run {flow_run_id} does not wait for approval: its state is {name}")
        answer = {
            "answer": "approve" if approve else "reject",
            "by": f"{by} ({person})" if by else person,
            "note": note,
        }
        result = await client.resume_flow_run(identity, run_input=answer)
        if result.status.value != "ACCEPT":
            raise Refused(f"Prefect did not take the answer: {result.details}")
    word = "approved" if approve else "rejected"
    return f"{word} by {answer['by']}: run {flow_run_id} goes on"
