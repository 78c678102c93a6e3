"""Reading a secret from where the inventory says that it lies; it is never kept or shown here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from prefect.blocks.system import Secret

from tasks.model.credentials import SecretSource
from tasks.model.errors import Refused

_SECRET: Any = Secret  # Secret[str] would be another block type, which no server knows


async def read_secret(
    source: SecretSource, field: str, hint: str = "", refusal: type[Refused] = Refused
) -> bytes:
    """Read the secret of the inventory's `field`; raises the `refusal`, the `hint` after it."""
    after = f"; {hint}" if hint else ""
    if source.block is not None:
        text = await _read_block(source.block, field, refusal)
    elif source.env is not None:
        text = os.environ.get(source.env, "")
        if not text:
            raise refusal(f"{field}.env: the environment variable {source.env} is not set{after}")
    else:
        text = _read_file(source.file, field, after, refusal)
    if not text:
        raise refusal(f"{field}: it is empty")
    return text.encode()


async def _read_block(name: str, field: str, refusal: type[Refused]) -> str:
    try:
        block: Any = await _SECRET.aload(name)
    except ValueError as error:
        raise refusal(
            f"{field}.block: there is no Secret block '{name}'; make it in the Prefect UI under "
            "Blocks"
        ) from error
    return str(block.get())


def _read_file(path: Path | None, field: str, after: str, refusal: type[Refused]) -> str:
    if path is None or not path.is_file():
        what = field.replace(".", "'s ")
        raise refusal(f"{field}.file: there is no {path}; put the {what} there, mode 0600{after}")
    if path.stat().st_mode & 0o077:
        raise refusal(f"{field}.file: {path} can be read by others; chmod 600 {path}")
    return path.read_text().rstrip("\n")
