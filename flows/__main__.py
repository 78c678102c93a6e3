"""The command line: `python -m flows` lists the runbooks, `python -m flows NAME …` runs one.

It runs the same flows that a worker runs, with the same parameters, and holds no logic of its
own. `history`, `show`, `export` and `verify` tell of past runs. Exit status: 0 done, 1 failed,
2 refused (nothing was changed), 3 done but for hosts that could not be seen.
"""

from __future__ import annotations

import ast
import asyncio
import functools
import gc
import importlib
import inspect
import os
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from cyclopts import App, CycloptsError
from rich.console import Console
from rich.text import Text

from flows._audit import export, history, home, show, verify
from tasks.engine.embedded import EmbeddedApi
from tasks.engine.journal import Room
from tasks.model.errors import RunbookError

if TYPE_CHECKING:
    from prefect import Flow

REFUSED = 2
NOT_SEEN = 3
AUDIT = (history, show, export, verify)
EXIT_SECONDS = 8.0
LOG_BYTES = 4 << 20


def runbook_names() -> list[str]:
    """List the runbooks: every module beside this one."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def _summary(name: str) -> str:
    """Read the first line of a runbook's docstring."""
    tree = ast.parse((Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8"))
    defined = (node for node in tree.body if isinstance(node, ast.AsyncFunctionDef))
    said = next(ast.get_docstring(node) for node in defined if node.name == name)
    return (said or "").partition("\n")[0]


def main(arguments: list[str]) -> int:
    """Run the command line; returns the exit status."""
    errors = Console(stderr=True, soft_wrap=True)
    known = [*runbook_names(), "approve"]
    if arguments[:1] == ["verify"] and "--reports" in arguments:
        known.append("verify")
    if not arguments or arguments[0] not in known or "--help" in arguments:
        return _main(arguments, errors, runs=False)  # the audit's commands need no Prefect, either
    errors = Console(file=_quieten(), soft_wrap=True)
    try:
        Room(home() / "etcd-runbooks").free()
    except OSError as error:
        errors.print(_no_room(error), style="red", highlight=False, markup=False)
        return REFUSED
    try:
        return _main(arguments, errors, runs=True)
    except Exception as error:  # noqa: BLE001 - nobody reads a traceback at night
        traceback.print_exc()
        said = (
            f"failed: {type(error).__name__}: {error} (a fault of the command line's own; its "
            f"traceback is in {home() / 'etcd-runbooks' / 'prefect.log'})"
        )
        errors.print(said, style="red", highlight=False, markup=False)
        return 1


def _main(arguments: list[str], errors: Console, *, runs: bool) -> int:
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_LOGGING_TO_API_BATCH_INTERVAL", "0.5")
    # deployments/automations.yaml takes a run without three of these for one without a runner.
    os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "30")
    # A database that is away for a moment answers 500; the run that is about to begin asks again.
    os.environ.setdefault("PREFECT_CLIENT_RETRY_EXTRA_CODES", "500,502")
    api = EmbeddedApi() if runs and not _has_server() else None
    if api is not None:
        _use(api)
    is_terminal = sys.stdout.isatty()
    app = App(
        name="python -m flows",
        help=__doc__,
        help_format="markdown",
        version_flags=(),
        result_action="return_value",
        suppress_keyboard_interrupt=False,
        error_formatter=functools.partial(_explain, arguments),
        help_formatter="default" if is_terminal else "plain",
        console=Console(soft_wrap=not is_terminal),
    )
    for name in runbook_names():
        if name == next(iter(arguments), ""):
            runbook = getattr(importlib.import_module(f"flows.{name}"), name)
            app.command(_command(runbook, api, errors), name=name)
        else:
            # Prefect, which every runbook brings, takes seconds to load; a list needs a sentence.
            app.command(App(name=name, help=_summary(name), version_flags=()))
    app.command(functools.partial(_approve, api), name="approve")
    if api is not None and arguments[0] == verify.__name__:
        api.wait_until_ready()
    for command in AUDIT:
        app.command(command)
    try:
        status = app(arguments, exit_on_error=False, print_error=True, error_console=errors)
    except CycloptsError:
        return REFUSED  # Cyclopts has said what is wrong
    except RunbookError as error:
        word = {REFUSED: "refused", NOT_SEEN: "not seen"}.get(error.exit_status, "failed")
        errors.print(f"{word}: {error}", style="red", highlight=False, markup=False)
        return error.exit_status
    except KeyboardInterrupt:
        errors.print("interrupted: run it again, it starts from what is there", style="red")
        return 1
    return status if isinstance(status, int) else 0


def _explain(arguments: list[str], error: CycloptsError) -> Text:
    """Say what of a command line is wrong, whole and without a frame, and what to type next."""
    known = (*runbook_names(), "approve", *(command.__name__ for command in AUDIT))
    name = arguments[0] if arguments and arguments[0] in known else ""
    more = " ".join(["python -m flows", *([name] if name else []), "--help"])
    said = str(error).strip()
    said += "" if said.endswith((".", "?")) else "."
    return Text(f"refused: {said} Nothing was changed; {more} shows what there is", style="red")


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
    from tasks.steps.approvals import decide  # noqa: PLC0415 - the server starts first

    if api is not None:
        api.wait_until_ready()
    Console(soft_wrap=True).print(asyncio.run(decide(run, approve=not reject, by=by, note=note)))


def _has_server() -> bool:
    from prefect.settings import get_current_settings  # noqa: PLC0415 - slow, and only for runs

    return get_current_settings().api.url is not None


def _use(api: EmbeddedApi) -> None:
    from prefect.context import refresh_global_settings_context  # noqa: PLC0415 - as above

    from tasks.engine import recording  # noqa: PLC0415 - as above

    os.environ["PREFECT_API_URL"] = api.url
    recording.is_embedded = True
    # Without it Prefect keeps what it read before, and starts an API of its own.
    refresh_global_settings_context()


def _quieten() -> TextIO:
    """Let what Prefect's threads and exit handlers say go to a file; returns the operator's stderr.

    They speak of an API that is away in tracebacks, at any moment up to the interpreter's end.
    """
    sys.stderr.flush()
    operators = os.fdopen(os.dup(2), "w", buffering=1)
    try:
        directory = home() / "etcd-runbooks"
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = directory / "prefect.log"
        is_long = path.exists() and path.stat().st_size > LOG_BYTES
        log = os.open(path, os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if is_long else os.O_APPEND))
    except OSError:
        log = os.open(os.devnull, os.O_WRONLY)
    os.dup2(log, 2)
    os.close(log)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    return operators


def _no_room(error: OSError) -> str:
    return (
        f"refused: PREFECT_HOME, {home()}, cannot take the record of a run ({error.strerror}); "
        "nothing was changed. Make room there, or set PREFECT_HOME to a directory that can be "
        "written"
    )


def _command(
    runbook: Flow[..., Any], api: EmbeddedApi | None, errors: Console
) -> Callable[..., int]:
    @functools.wraps(runbook.fn)
    def run(*args: object, **kwargs: object) -> int:
        from tasks.engine.launch import Launch  # noqa: PLC0415
        from tasks.engine.progress import Progress  # noqa: PLC0415
        from tasks.engine.run import listeners  # noqa: PLC0415 - the server starts first
        from tasks.engine.unlocking import unlock_keys  # noqa: PLC0415
        from tasks.model.inventory_file import list_clusters  # noqa: PLC0415

        given = inspect.signature(runbook.fn).bind(*args, **kwargs).arguments
        clusters = [given["cluster"]] if "cluster" in given else given.get("clusters")
        unlock_keys(
            list_clusters() if clusters is None else clusters,
            [given["key"]] if given.get("key") and not given.get("key_passphrase") else (),
        )
        if api is not None:
            api.wait_until_ready()
        launch = Launch(runbook, args, kwargs)
        with Progress(Console(soft_wrap=True)) as progress:
            listeners.append(progress)
            outcome = launch.run()
        if launch.behind:
            progress.tell(
                f"Prefect has not heard all of this run; it is in {launch.behind}, and the next "
                "run delivers it"
            )
        if outcome.exit_status == 0:
            progress.tell_done()
        else:
            sys.stdout.flush()
            errors.print(outcome.lines(), style="red", highlight=False, markup=False)
        return outcome.exit_status

    return run


if __name__ == "__main__":
    # Most of a run's objects live to its end: looking through them for garbage while Prefect is
    # imported, and once more at the end, costs half a second of the operator's time.
    gc.set_threshold(50_000, 20, 20)
    status = main(sys.argv[1:])
    gc.freeze()
    # Prefect's exit handlers wait for an API that is away; the outcome has been told.
    end = threading.Timer(EXIT_SECONDS, os._exit, (status,))
    end.daemon = True
    end.start()
    sys.exit(status)
