"""What a run that was started from the UI or the API may be told: no path on its worker.

Whoever may start a run there is not to read or write files of the worker's account, nor to log in
with any key that it can read. The command line is that account's own, and takes paths.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.model.errors import Refused

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
NAMES = ("cluster", "clusters")
"""Of inventories under deployments/clusters, and not of their files."""
NEVER = ("file", "json_path", "output")
IN_SSH = ("key", "known_hosts")
"""Files that are the account's own for SSH."""


def refuse_paths(given: Mapping[str, Any]) -> None:
    """Raise Refused for a parameter that is a path, and so is the command line's alone."""
    for name in NAMES:
        for value in _each(given.get(name)):
            if not _NAME.fullmatch(value) or value.endswith((".yaml", ".yml")):
                raise Refused(
                    f"{name}: {value} is no name of an inventory under deployments/clusters; a "
                    "path is taken on the command line alone. Nothing was changed"
                )
    for name in NEVER:
        if given.get(name) is not None:
            raise Refused(
                f"{name}: a file of the worker's is named on the command line alone; leave it "
                "out. Nothing was changed"
            )
    own = Path("~/.ssh").expanduser()
    for name in IN_SSH:
        for value in _each(given.get(name)):
            if own.resolve() not in Path(value).expanduser().resolve().parents:
                raise Refused(
                    f"{name}: {value} is not in {own}; another file of the worker's is named on "
                    "the command line alone. Nothing was changed"
                )


def _each(value: Any) -> list[str]:  # noqa: ANN401 - a parameter
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)
