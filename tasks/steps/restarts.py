"""Seeing what the next restart of every member would change, and refusing to be surprised."""

from __future__ import annotations

from collections.abc import Iterable

from tasks.config.environment import read_environment
from tasks.config.flags import CONFIG_FILE
from tasks.config.settings import read_process
from tasks.config.starting import find_refused_flags, find_start_faults, judge_config_file
from tasks.engine.run import Run, step, together
from tasks.hosts.connection import HostConnection
from tasks.hosts.files import find_absent_command, parse_absent
from tasks.hosts.loaded import parse_trust, trust_command
from tasks.hosts.supervisors import supervisor
from tasks.model.certificates import Role
from tasks.model.errors import HostUnreachable, Refused, RunbookError
from tasks.model.restarts import NextStart, StartObservation
from tasks.plans.restarts import Difference, Surprise, find_against, find_differences

LOOK_SECONDS = 30.0


@step("see what would start on {host}", retry_delays_seconds=(1.0,))
async def see_next_start(run: Run, host: HostConnection) -> StartObservation | None:
    """See what runs and what would start; None where there is no unit. Nothing is changed."""
    own = supervisor(run.inventory.layout(host.name))
    asked, written = await host.run(
        own.next_command(), own.settings_command(), timeout_seconds=LOOK_SECONDS
    )
    seen = own.parse_next(asked)
    if seen is None:
        return None
    texts = own.parse_settings(written)
    variables = dict(seen.variables)
    faults: list[str] = []
    skipped: list[str] = []
    for name in seen.files:
        read = read_environment(name, texts.text(name) or "")
        faults += map(str, read.faults)
        skipped += map(str, read.skipped)
        variables |= {n: g.text for n, g in read.variables.items() if n.startswith("ETCD_")}
    settings = read_process(("", *seen.arguments), variables, texts, own.name)
    found, ignored = find_start_faults(variables, seen.version)
    refused = find_refused_flags(seen.arguments, variables, seen.version)
    path = settings.value(CONFIG_FILE)
    if path and (text := texts.text(path)) is not None:
        # Etcd reads nothing else beside it.
        found, ignored = judge_config_file(path, text, seen.version)
        refused = find_refused_flags(seen.arguments, {}, seen.version)
    layout = run.inventory.layout(host.name)
    absent, trusted = await host.run(
        find_absent_command(settings.paths()),
        trust_command(own.group, layout.trusted_files, layout.pair(Role.SERVER)),
        timeout_seconds=LOOK_SECONDS,
    )
    return StartObservation(
        host.name,
        own.name,
        seen.running,
        NextStart(
            seen.program,
            seen.version,
            seen.arguments,
            variables,
            parse_absent(absent),
            (*faults, *found, *refused),
            ignored,
            tuple(skipped),
        ),
        seen.unit_file_state,
        seen.needs_daemon_reload,
        tuple(n for n, needed in seen.files.items() if needed and texts.text(n) is None),
        parse_trust(trusted) if seen.running else None,
    )


async def find_surprises(
    run: Run, names: Iterable[str] | None = None
) -> tuple[tuple[Difference, ...], dict[str, str]]:
    """Find what a restart of the hosts (all unless named) would change, the worst first.

    The second part names the hosts that could not be asked, with the reason.
    """
    wanted = set(run.hosts if names is None else names)
    seen: list[StartObservation] = []
    silent: dict[str, str] = {}

    async def look(host: HostConnection) -> None:
        try:
            observed = await see_next_start(run, host)
        except RunbookError as error:
            silent[host.name] = error.message
            return
        if observed is not None:
            seen.append(observed)

    await together([look(host) for name, host in run.hosts.items() if name in wanted])
    return find_differences(tuple(seen)), silent


def problems(found: tuple[Difference, ...]) -> tuple[str, ...]:
    """List the differences that somebody has to put right."""
    return tuple(each.sentence for each in found if each.kind is not Surprise.REMARK)


def remarks(found: tuple[Difference, ...]) -> tuple[str, ...]:
    """List what is only to be known."""
    return tuple(each.sentence for each in found if each.kind is Surprise.REMARK)


async def find_obstacles(
    run: Run, names: Iterable[str], *, written: frozenset[str] = frozenset()
) -> tuple[Difference, ...]:
    """Find why a restart of the hosts would do more than a runbook means to.

    `written` are the variables and the files that the runbook itself writes before the restart.
    Raises HostUnreachable for a host that could not be looked at: it is not restarted unseen.
    """
    found, silent = await find_surprises(run, names)
    if silent:
        host, why = next(iter(silent.items()))
        raise HostUnreachable(f"what its restart would change cannot be seen: {why}", host=host)
    return find_against(found, written)


async def refuse_surprises(
    run: Run, names: Iterable[str], *, written: frozenset[str] = frozenset()
) -> None:
    """Raise Refused when a restart of the hosts would change more than the runbook means to."""
    if against := await find_obstacles(run, names, written=written):
        raise Refused(describe_obstacles(run, against))


def describe_obstacles(run: Run, against: tuple[Difference, ...]) -> str:
    """Say why the runbook does not restart members, and the way out."""
    return (
        f"{run.runbook} restarts members, and that would do more than it means to:\n  - "
        + "\n  - ".join(each.sentence for each in against)
        + "\nput that right on the hosts (or restart those members yourself, if you want the "
        "change), and run it again; check_health lists it, too"
    )
