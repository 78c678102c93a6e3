"""Who asked for a run, where that can be known; never the worker's account in their place.

On the command line it is the account. A deployed run tells its schedule or automation; who starts
one over the API is told by a tag, which a proxy that knows its users, or they themselves, can set:
Prefect's open server does not know them.
"""

from __future__ import annotations

import getpass
import socket

from prefect.context import FlowRunContext

TAG = "asked-by:"
UNKNOWN = "not told"


def account() -> str:
    """Name the account and machine of this process."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def who_asked() -> str:
    """Name who asked for the current run."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is None or run.deployment_id is None:
        return account()
    tagged = next((tag.removeprefix(TAG) for tag in run.tags if tag.startswith(TAG)), None)
    if tagged:
        return tagged
    by = run.created_by
    if by is not None and by.display_value:
        return f"{(by.type or 'something').lower()} {by.display_value}"
    return UNKNOWN


def describe() -> str:
    """Name who asked, and for a deployed run the worker that does it."""
    asked, own = who_asked(), account()
    return asked if asked == own else f"{asked} (worker {own})"
