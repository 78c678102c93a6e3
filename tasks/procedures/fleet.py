"""All clusters at a glance: health, certificates, snapshots and the record, side by side.

Composes what check_health and check_certificates compose; a cluster that cannot be read is a row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

from tasks.engine import frame, metrics, past
from tasks.engine.recording import within
from tasks.engine.run import Run, open_run, tell
from tasks.model.errors import CheckFailed, RunbookError
from tasks.model.fleet import FleetRow
from tasks.model.observation import PairsObservation
from tasks.model.record import Event, Record
from tasks.procedures import checkup, expiry, location
from tasks.report.fleet import fleet_markdown, fleet_problems, fleet_table, fleet_verdict
from tasks.report.metrics import of_health
from tasks.report.tables import first_of
from tasks.steps import snapshots
from tasks.steps.reports import artifact_key
from tasks.store.places import Unstorable

RECORD_SECONDS = 10.0


async def look_at_fleet(clusters: Iterable[str], reason: str | None) -> None:
    """Look at all of them, publish the page, and raise CheckFailed where one needs somebody."""
    hosts = asyncio.Semaphore(expiry.HOSTS_AT_ONCE)
    slots = asyncio.Semaphore(expiry.CLUSTERS_AT_ONCE)

    async def look(cluster: str) -> FleetRow:
        async with slots:
            try:
                async with open_run(cluster, "check_fleet", reason=reason) as run:
                    return await _look(run, hosts)
            except RunbookError as error:
                return FleetRow(cluster, (str(error),))

    seen = tuple(await asyncio.gather(*map(look, clusters)))
    rows, remarks = await _remember(seen)
    now = datetime.now(UTC)
    table, problems = fleet_table(rows, now), fleet_problems(rows)
    shown = {"columns": table.columns, "rows": table.rows, "problems": (), "remarks": remarks}
    tell(Record(now.timestamp(), Event.OBSERVED, shown))
    await frame.publish(
        markdown=fleet_markdown(rows, now, remarks),
        key=artifact_key("check_fleet"),
        description=fleet_verdict(rows),
    )
    if problems:
        told = first_of(problems, expiry.TOLD)
        raise CheckFailed(f"{fleet_verdict(rows)}:\n  - " + "\n  - ".join(told))


async def _look(run: Run, slots: asyncio.Semaphore) -> FleetRow:
    # A host is asked once, for all of it: of a hundred clusters a second login is most of a minute.
    sights: dict[str, PairsObservation] = {}
    certificates = await expiry.look(run, slots, sights)
    seen = await checkup.examine(run, await location.locate_members(run), sights)
    metrics.write(run.inventory.name, "health", len(seen.problems), of_health(seen.health))
    expiry.write_metrics(certificates)
    try:
        newest, proven = await snapshots.find_proven(run)
    except Unstorable as error:
        problems = (*seen.problems, f"its snapshots are not known: {error}")
        return FleetRow(run.inventory.name, problems, seen.health, certificates, growth=seen.growth)
    return FleetRow(
        run.inventory.name,
        seen.problems,
        seen.health,
        certificates,
        newest,
        proven,
        growth=seen.growth,
        is_stale=run.inventory.snapshots.is_stale(proven, datetime.now(UTC)),
    )


async def _remember(rows: tuple[FleetRow, ...]) -> tuple[tuple[FleetRow, ...], tuple[str, ...]]:
    """Add what Prefect's record has of each; where it is away, that is a remark."""
    try:
        changes, waiting = await within(RECORD_SECONDS, past.read_changes_and_waiting())
    except Exception as error:  # noqa: BLE001 - the hosts' state never depends on the record
        said = str(error).partition("\n")[0] or type(error).__name__
        return rows, (f"last changes and waiting runs are not known: Prefect's API fails: {said}",)
    return tuple(
        replace(
            row,
            changed=changes.get(row.cluster),
            waiting=tuple(run for run in waiting if row.cluster in run.clusters),
        )
        for row in rows
    ), ()
