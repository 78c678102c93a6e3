"""Files of JSON lines that are kept for years: compressed in their place, and read as they were.

Every line stays with its seal, so that what is archived is compared like the rest.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

SUFFIX = ".gz"
LINES = ".jsonl"


def name_of(path: Path) -> str:
    """Name a file as it was called before it was archived."""
    return path.name.removesuffix(SUFFIX)


def list_files(directory: Path, pattern: str = "*") -> Iterator[Path]:
    """List the files of lines that a pattern of folders and names finds, archived or not.

    One whose archiving was broken off is there twice, and is listed once.
    """
    yield from directory.glob(f"{pattern}{LINES}")
    for path in directory.glob(f"{pattern}{LINES}{SUFFIX}"):
        if not path.with_name(name_of(path)).exists():
            yield path


def read_content(path: Path) -> bytes:
    """Read a file under the name that it has or had; raises FileNotFoundError."""
    if path.suffix != SUFFIX:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            path = path.with_name(path.name + SUFFIX)
    return gzip.decompress(path.read_bytes())


def archive(path: Path) -> Path:
    """Compress a file that nobody writes any more; it is whole under one of its names throughout.

    Raises OSError, and then the file is as it was.
    """
    content = path.read_bytes()
    target = path.with_name(path.name + SUFFIX)
    partial = path.with_name(f".{path.name}{SUFFIX}.partial")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            out.write(gzip.compress(content, mtime=0))
            out.flush()
            os.fsync(out.fileno())
        if gzip.decompress(partial.read_bytes()) != content:
            msg = f"{partial} does not hold what was written"
            raise OSError(msg)
        times = path.stat()
        os.utime(partial, ns=(times.st_atime_ns, times.st_mtime_ns))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    path.unlink()
    return target
