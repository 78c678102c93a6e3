"""The command line: `python -m flows` lists the runbooks, `python -m flows NAME …` runs one.

It runs the same flows that a worker runs, with the same parameters, and holds no logic of its
own. Exit status: 0 done, 1 failed, 2 refused (nothing was changed).
"""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import App, CycloptsError
from rich.console import Console

from tasks.embedded.api import EmbeddedApi
from tasks.model.errors import RunbookError

if TYPE_CHECKING:
    from prefect import Flow

REFUSED = 2
PIPE_WIDTH = 200


def runbook_names() -> list[str]:
    """List the runbooks: every module beside this one."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def main(arguments: list[str]) -> int:
    """Run the command line; returns the exit status."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_LOGGING_TO_API_BATCH_INTERVAL", "0.5")
    errors = Console(stderr=True, soft_wrap=True)
    known = [*runbook_names(), "approve"]
    runs = bool(arguments) and arguments[0] in known and "--help" not in arguments
    api = EmbeddedApi() if runs and not _has_server() else None
    if api is not None:
        _use(api)
    app = App(
        name="python -m flows",
        help=__doc__,
        help_format="markdown",
        version_flags=(),
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    for name in runbook_names():
        runbook = getattr(importlib.import_module(f"flows.{name}"), name)
        app.command(_command(runbook, api), name=name)
    app.command(functools.partial(_approve, api), name="approve")
    try:
        app(arguments, exit_on_error=False, print_error=True, error_console=errors)
    except CycloptsError:
        return REFUSED  # Cyclopts has said what is wrong
    except RunbookError as error:
        word = "refused" if error.exit_status == REFUSED else "failed"
        errors.print(f"{word}: {error}", style="red", highlight=False, markup=False)
        return error.exit_status
    except KeyboardInterrupt:
        errors.print("interrupted: run it again, it starts from what is there", style="red")
        return 1
    return 0


def _approve(
    api: EmbeddedApi | None,
    run: str,
    *,
    by: str | None = None,
    note: str = "",
    reject: bool = False,
) -> None:
    """Approve the plan of a run that waits for it, or reject it.

    Args:
        run: the run's id
        by: who decides; the account and machine are recorded beside it
        note: anything for the record
        reject: do not let it be done
    """
    from tasks.approvals import decide  # noqa: PLC0415 - the server starts first

    if api is not None:
        api.wait_until_ready()
    Console(soft_wrap=True).print(asyncio.run(decide(run, approve=not reject, by=by, note=note)))


def _has_server() -> bool:
    from prefect.settings import get_current_settings  # noqa: PLC0415 - slow, and only for runs

    return get_current_settings().api.url is not None


def _use(api: EmbeddedApi) -> None:
    from prefect.context import refresh_global_settings_context  # noqa: PLC0415 - as above

    os.environ["PREFECT_API_URL"] = api.url
    # Without it Prefect keeps what it read before, and starts an API of its own.
    refresh_global_settings_context()


def _command(runbook: Flow[..., Any], api: EmbeddedApi | None) -> Callable[..., None]:
    @functools.wraps(runbook.fn)
    def run(*args: object, **kwargs: object) -> None:
        from tasks.engine import listeners  # noqa: PLC0415 - the server starts first
        from tasks.terminal.progress import Progress  # noqa: PLC0415

        if api is not None:
            api.wait_until_ready()
        width = None if sys.stdout.isatty() else PIPE_WIDTH
        with Progress(Console(soft_wrap=True, width=width)) as progress:
            listeners.append(progress)
            asyncio.run(recovered_and_run(*args, **kwargs))

    async def recovered_and_run(*args: object, **kwargs: object) -> None:
        from tasks.recording import recover_dead_runs  # noqa: PLC0415

        await recover_dead_runs()
        running: Any = runbook(*args, **kwargs)
        await running

    return run


if __name__ == "__main__":
    # Most of a run's objects live to its end: looking through them for garbage while Prefect is
    # imported, and once more at the end, costs half a second of the operator's time.
    gc.set_threshold(50_000, 20, 20)
    status = main(sys.argv[1:])
    gc.freeze()
    sys.exit(status)
